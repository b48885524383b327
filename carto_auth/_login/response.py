"""What comes back from the authorization server, by the browser or pasted by a person: pure functions.

The rules are those of RFC 6749 section 4.1.2 and of RFC 9207.
"""

from __future__ import annotations

from collections.abc import Mapping
from hmac import compare_digest
from urllib.parse import parse_qsl

from carto_auth._http.redaction import quoted
from carto_auth._services import REDIRECT_URI, Services
from carto_auth._trust import split_url
from carto_auth._value import Value
from carto_auth.errors import LoginDenied, LoginFailed


class AuthorizationResponse(Value, secret=("code",)):
    """What the authorization server said through the browser (RFC 6749 sections 4.1.2 and 4.1.2.1)."""

    code: str | None = None
    error: str | None = None
    error_description: str | None = None


_NOTHING = AuthorizationResponse()

# ---- by the browser ------------------------------------------------------------------------------


def response_for(query: str, *, state: str, issuer: str) -> AuthorizationResponse | None:
    """What a callback's query says to the login with ``state``; ``None`` when it is not meant for that login.

    The ``iss`` parameter (RFC 9207), when there is one, must be ``issuer``.
    """
    parameters = _parameters_of(query)
    if parameters is None or not state or not _has_state(parameters, state):
        return None
    if not _may_be_issued_by(issuer, parameters):
        return AuthorizationResponse(
            error="invalid_request", error_description="the answer came from another login service than the one asked"
        )
    response = _response_of(parameters)
    return None if response == _NOTHING else response


def code_of(response: AuthorizationResponse) -> str:
    """The code of a response.

    Raises:
        LoginDenied: it is a refusal; the message has the server's words and its error code.
        LoginFailed: it is empty.
    """
    if response.code is not None:
        return response.code
    if response.error is None:
        raise LoginFailed("That address holds no code.", remedy="Begin a new login, and copy the code it shows.")
    words = f": {response.error_description}" if response.error_description else ""
    was_refused = response.error == "access_denied"
    raise LoginDenied(
        f"CARTO did not log you in{words} ({response.error}).",
        remedy="Try again, and allow access when CARTO asks." if was_refused else "Begin a new login.",
        error=response.error,
        error_description=response.error_description,
    )


# ---- pasted --------------------------------------------------------------------------------------


def code_in(pasted: str) -> str:
    """The code in an address, or the text itself when it is no address; blanks and quotes around it do not count.

    Raises:
        LoginDenied: it is the address of a refusal.
        LoginFailed: it is an address without a code.
    """
    text = _unquoted(pasted)
    return code_of(_response_of(_parameters_of(_query_of(text)) or {})) if _is_address(text) else text


def checked_code_in(pasted: str, *, redirect_uri: str, state: str | None, services: Services) -> str:
    """The code in what a person pasted for the login with ``redirect_uri`` and ``state``.

    Raises:
        LoginDenied: it is the address of a refusal.
        LoginFailed: it is nothing or no code, or the address of a foreign site or of another login.
    """
    text = _unquoted(pasted)
    if not text:
        raise _wrong("No code was entered.")
    if not _is_address(text):
        if not all("!" <= character <= "~" for character in text):
            raise _wrong("That is not an access code.")  # RFC 6749 appendix A.11
        return text
    if not ends_login(text, redirect_uri, services):
        raise _wrong(f"That address is not CARTO's. This login ends at {_page_of(redirect_uri)}.")
    _require_this_login(text, redirect_uri, state, services)
    return code_in(text)


def _wrong(message: str) -> LoginFailed:
    """What a person pasted is no code of this login."""
    return LoginFailed(message, remedy="Begin a new login.")


def _require_this_login(address: str, redirect_uri: str, state: str | None, services: Services) -> None:
    parameters = _parameters_of(_query_of(address))
    if parameters is None:
        raise _wrong("That address has the same parameter twice.")
    # CARTO's page may leave the state out of its address; PKCE ties the code to this login all the same. A page of
    # the program's own gets what CARTO sends.
    needs_state = "state" in parameters or redirect_uri not in (services.code_page_url, REDIRECT_URI)
    if needs_state and state is not None and not _has_state(parameters, state):
        raise _wrong("That address belongs to another login.")
    if not _may_be_issued_by(services.auth_url, parameters):
        raise _wrong("That address comes from another login service than the one asked.")
    if _response_of(parameters) == _NOTHING:
        raise _wrong("That address holds no code.")


def ends_login(address: str, redirect_uri: str, services: Services) -> bool:
    """Whether a login may end at ``address``: at its redirect URI, or at any page of CARTO's own site.

    CARTO's site is the hosts of ``services`` and, where one of them is at carto.com, all of carto.com. The scheme
    may be missing, as browsers hide it, or all but the query.
    """
    page = _page_of(address)
    ends = [_page_of(known) for known in (redirect_uri, REDIRECT_URI)]
    if page in ("", *ends, *(end.partition("://")[2] for end in ends)):
        return True
    if not page.isascii() or not page.isprintable() or set(page) & set(" \\@"):
        return False  # browsers do not agree on where such an address leads
    parts = split_url(page if "://" in page else f"https://{page}")
    host = parts.netloc.lower()
    named = {known.lower(): scheme for known, scheme in services.named_hosts.items()}
    if host in named and ("://" not in page or parts.scheme == named[host]):
        return True
    return parts.scheme == "https" and _is_at_carto(host) and any(map(_is_at_carto, named))


def _is_at_carto(host: str) -> bool:
    return f".{host}".endswith(".carto.com")


def _is_address(text: str) -> bool:
    """Whether a person pasted an address, be it without its scheme or its query alone."""
    parameters = _parameters_of(_query_of(text))
    return "://" in text or parameters is None or not {"code", "state", "error"}.isdisjoint(parameters)


def _unquoted(text: str) -> str:
    """What a person pasted, without the blanks and quotes around it."""
    return text.strip().strip("\"'`<>\u2018\u2019\u201c\u201d\u201e\u00ab\u00bb").strip()


def _page_of(url: str) -> str:
    """An address without its query and fragment, and without a slash at its end."""
    return url.partition("?")[0].partition("#")[0].rstrip("/")


def _query_of(url: str) -> str:
    """An address's query, without the question mark and the fragment."""
    return url.partition("?")[2].partition("#")[0]


# ---- parameters ----------------------------------------------------------------------------------


def _parameters_of(query: str) -> dict[str, str] | None:
    """The parameters of a query; ``None`` when one comes twice (RFC 6749 section 3.1 forbids it)."""
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=50, errors="replace")
    except ValueError:
        return None
    parameters = dict(pairs)
    return parameters if len(parameters) == len(pairs) else None


def _response_of(parameters: Mapping[str, str]) -> AuthorizationResponse:
    if "error" in parameters:
        return AuthorizationResponse(
            error=quoted(parameters["error"]).rstrip(".") or "no reason was given",
            error_description=quoted(parameters.get("error_description", "")).rstrip(".") or None,
        )
    return AuthorizationResponse(code=parameters.get("code") or None)


def _has_state(parameters: Mapping[str, str], state: str) -> bool:
    """Whether a response carries ``state``; compared in a time that does not tell how much of it is right."""
    given = parameters.get("state", "")
    return compare_digest(given.encode(errors="replace"), state.encode(errors="replace"))


def _may_be_issued_by(issuer: str, parameters: Mapping[str, str]) -> bool:
    """Whether a response's ``iss`` (RFC 9207), where it has one, is ``issuer``; Auth0's ends in a slash."""
    return "iss" not in parameters or parameters["iss"].rstrip("/") == issuer.rstrip("/")
