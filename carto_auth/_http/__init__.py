"""The door to the network: requests to CARTO's services, answered as JSON, as text, or as our errors.

It imports ``requests``, which takes a while, so it is itself imported only where a request is to be sent.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from carto_auth._http.answers import json_object, translated
from carto_auth._http.failures import CAPTIVE_PORTAL, Unreadable
from carto_auth._http.redaction import shown
from carto_auth._http.sending import Request, send
from carto_auth._token import is_usable_token
from carto_auth.errors import InvalidCredential

__all__ = ["get_json", "get_text", "post_form", "request_json", "shown"]

#: Fields of a form whose values must not show anywhere.
_SECRET_FIELDS = ("client_secret", "code", "code_verifier", "refresh_token", "token")


def post_form(
    url: str, form: Mapping[str, str], *, repeatable: bool = True, failure: str, empty_is_fine: bool = False
) -> dict[str, Any]:
    """POST a form and return the JSON object of the answer.

    Args:
        url: where to.
        form: the fields; the values of secret ones are kept out of every message.
        repeatable: whether it may be sent again when it may have arrived already. An authorization code
            is good for one try (RFC 6749 section 4.1.2).
        failure: what failed, for the message: ``"CARTO handed out no token"``.
        empty_is_fine: whether a success may come without a body; ``{}`` is returned then.

    Raises:
        UntrustedAddress: ``url`` is neither https nor on this computer.
        ServiceUnreachable: no answer came.
        Unauthorized, RateLimited, ServiceUnavailable, ServerError: the answer was not a success.
        InvalidAnswer: it was a success without a JSON object, or not an answer at all.
    """
    secrets = [form[name] for name in _SECRET_FIELDS if form.get(name)]
    headers = {"Accept": "application/json"}
    response = send(Request("POST", url, data=dict(form), headers=headers, repeatable=repeatable))
    return json_object(response, failure=failure, secrets=secrets, empty_is_fine=empty_is_fine)


def get_json(url: str, *, access_token: str | None = None, failure: str) -> dict[str, Any]:
    """GET the JSON object at ``url``. Raises what :func:`request_json` raises."""
    return request_json("GET", url, access_token=access_token, failure=failure)


def request_json(
    method: str,
    url: str,
    *,
    access_token: str | None,
    body: Mapping[str, Any] | None = None,
    hidden: str | None = None,
    failure: str,
) -> dict[str, Any]:
    """Send a JSON body, or none, with a bearer token (RFC 6750 section 2.1) if one is given.

    A POST is not sent again when it may have arrived already. ``hidden`` is a part of ``url`` that is a secret.

    Returns:
        The JSON object of the answer; ``{}`` for a DELETE that is answered without a body.

    Raises:
        InvalidCredential: the token cannot be sent in a header.
        CredentialsError: what :func:`post_form` raises.
    """
    headers = {"Accept": "application/json"}
    if access_token is not None:
        if not is_usable_token(access_token):
            raise InvalidCredential(
                f"{failure}: the access token is empty, or has characters that a token cannot have.",
                remedy="Copy it again, without spaces and line breaks.",
            )
        headers["Authorization"] = f"Bearer {access_token}"
    data = None
    if body is not None:
        headers["Content-Type"] = "application/json"
        data = json.dumps(body).encode()
    secrets = [secret for secret in (access_token, hidden) if secret]
    response = send(Request(method, url, data, headers, repeatable=method != "POST", secrets=secrets))
    return json_object(response, failure=failure, secrets=secrets, empty_is_fine=method == "DELETE")


def get_text(url: str, *, failure: str) -> str:
    """GET the text at ``url``, as UTF-8. Raises what :func:`post_form` raises."""
    response = send(Request("GET", url))
    if not response.is_success:
        raise translated(response, failure=failure, secrets=[])
    if response.is_web_page:
        raise Unreadable(f"{failure}: {response.host} sent a web page.", remedy=CAPTIVE_PORTAL, status=response.status)
    return response.body.decode("utf-8-sig", errors="replace")
