"""What comes back from the authorization server through the browser, and what a person pastes of it: pure functions.

The rules are those of RFC 6749 section 4.1.2 and of RFC 9207.
"""

from __future__ import annotations

from collections.abc import Mapping
from hmac import compare_digest
from typing import NamedTuple
from urllib.parse import parse_qsl


class AuthorizationResponse(NamedTuple):
    """What the authorization server said through the browser (RFC 6749 sections 4.1.2 and 4.1.2.1).

    ``repr`` does not show the code.
    """

    code: str | None = None
    error: str | None = None
    error_description: str | None = None

    def __repr__(self) -> str:
        code = "***" if self.code else None
        return f"AuthorizationResponse({code!r}, {self.error!r}, {self.error_description!r})"


def authorization_response(query: str, *, state: str, issuer: str) -> AuthorizationResponse | None:
    """What a redirect's query says to the login with ``state``; ``None`` when it is not meant for it.

    The ``iss`` parameter (RFC 9207), when there is one, must be ``issuer``; Auth0 writes a slash at its end.
    """
    parameters = parameters_of(query)
    if parameters is None or not state or not has_state(parameters, state):
        return None
    if not may_be_issued_by(issuer, parameters):
        return AuthorizationResponse(
            error="invalid_request",
            error_description="the answer came from another login service than the one asked",
        )
    response = response_in(query)
    return None if response == AuthorizationResponse() else response


def has_state(parameters: Mapping[str, str], state: str) -> bool:
    """Whether a response carries ``state``; found out in a time that does not tell how much of it is right."""
    given = parameters.get("state", "")
    return compare_digest(given.encode(errors="replace"), state.encode(errors="replace"))


def may_be_issued_by(issuer: str, parameters: Mapping[str, str]) -> bool:
    """Whether a response's ``iss`` (RFC 9207), where it has one, is ``issuer``; Auth0's ends in a slash."""
    return "iss" not in parameters or parameters["iss"].rstrip("/") == issuer.rstrip("/")


def response_in(query: str) -> AuthorizationResponse:
    """What a query says, whoever it is meant for; nothing where it says something twice."""
    parameters = parameters_of(query) or {}
    if "error" in parameters:
        return AuthorizationResponse(
            error=_plain(parameters["error"]) or "no reason was given",
            error_description=_plain(parameters.get("error_description", "")) or None,
        )
    return AuthorizationResponse(code=parameters.get("code") or None)


def parameters_of(query: str) -> dict[str, str] | None:
    """The parameters of a query; ``None`` when one comes twice (RFC 6749 section 3.1 forbids it)."""
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=50, errors="replace")
    except ValueError:
        return None
    parameters = dict(pairs)
    return parameters if len(parameters) == len(pairs) else None


def _plain(text: str) -> str:
    """A server's words on one line, shortened, without a full stop at the end."""
    line = "".join(character if character.isprintable() else " " for character in text)
    return line.strip().rstrip(".")[:200]


def is_address(text: str) -> bool:
    """Whether a person pasted an address, be it without the scheme, which some browsers hide, or its query alone."""
    parameters = parameters_of(query_of(text))
    return "://" in text or parameters is None or not {"code", "state", "error"}.isdisjoint(parameters)


def is_page(url: str, page: str) -> bool:
    """Whether a pasted address is one of ``page``, as far as it goes."""
    given, expected = page_of(url), page_of(page)
    return given in (expected, expected.partition("://")[2], "")


def page_of(url: str) -> str:
    """An address without its query and fragment, and without a slash at its end."""
    return url.partition("?")[0].partition("#")[0].rstrip("/")


def query_of(url: str) -> str:
    """An address's query, without the question mark and the fragment."""
    return url.partition("?")[2].partition("#")[0]


def unquoted(text: str) -> str:
    """What a person pasted, without the blanks and quotes around it."""
    return text.strip().strip("\"'`<>\u2018\u2019\u201c\u201d\u201e\u00ab\u00bb").strip()
