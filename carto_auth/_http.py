"""The only module that sends requests, and gets them back in time: as JSON, as text, or as our errors.

It imports ``requests``, which takes a while, so it is itself imported only where a request is due.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from typing import Any

from carto_auth import _log
from carto_auth._answers import (
    CAPTIVE_PORTAL,
    RequestFailed,
    Response,
    Unreadable,
    json_object,
    translated,
    unreachable,
)
from carto_auth._connections import THREAD_NAME, Session, ca_bundle, forget_session, kept_session, retries
from carto_auth._services import is_loopback, require_secure, split_url
from carto_auth._token import is_usable_token, remember_secrets, without_secrets
from carto_auth.errors import CredentialsError, InvalidCredential

#: Seconds to reach a service, and between two pieces of its answer.
CONNECT_SECONDS = 10.0
READ_SECONDS = 30.0

#: Seconds that one request may take, its retries included: whatever a server does, the caller gets an answer.
TOTAL_SECONDS = 60.0

#: Bytes, unpacked. CARTO's answers are a few kilobytes.
LARGEST_ANSWER = 1024 * 1024

#: Fields of a form whose values must not show anywhere.
_SECRET_FIELDS = ("client_secret", "code", "code_verifier", "refresh_token", "token")

#: Members of an answer of which the same is true.
_SECRET_ANSWERS = ("access_token", "refresh_token", "id_token", "token")

# ---- what the other modules call -----------------------------------------------------------------


def post_form(
    url: str, form: Mapping[str, str], *, repeatable: bool = True, failure: str, empty_is_fine: bool = False
) -> dict[str, Any]:
    """POST a form and return the JSON object of the answer.

    Args:
        url: where to.
        form: the fields; the values of secret ones are kept out of every message.
        repeatable: whether it may be sent again when it may have arrived already. An authorization code
            is good for one try (RFC 6749 section 4.1.2).
        failure: what failed, for the message: ``"CARTO did not hand out a token"``.
        empty_is_fine: whether a success may come without a body; ``{}`` is returned then.

    Raises:
        UntrustedAddress: ``url`` is neither https nor on this computer.
        ServiceUnreachable: no answer came.
        ServerError: the answer was no success, or no JSON object.
    """
    secrets = [form[name] for name in _SECRET_FIELDS if form.get(name)]
    remember_secrets(secrets)
    response = _send("POST", url, data=dict(form), headers={"Accept": "application/json"}, repeatable=repeatable)
    if empty_is_fine and response.is_success and not response.body:
        return {}
    return _remembered(json_object(response, failure=failure, secrets=secrets))


def get_json(url: str, *, access_token: str | None = None, failure: str) -> dict[str, Any]:
    """GET the JSON object at ``url``, with a bearer token (RFC 6750 section 2.1) if one is given.

    Raises:
        InvalidCredential: the token cannot be sent in a header.
        CredentialsError: what :func:`post_form` raises.
    """
    secrets = [access_token] if access_token else []
    remember_secrets(secrets)
    response = _send("GET", url, headers=_headers(access_token, failure))
    return _remembered(json_object(response, failure=failure, secrets=secrets))


def request_json(
    method: str,
    url: str,
    *,
    access_token: str,
    body: Mapping[str, Any] | None = None,
    hidden: str | None = None,
    failure: str,
) -> dict[str, Any]:
    """Send a JSON body, or none, and return the JSON object of the answer; ``{}`` for a success without a body.

    A POST is not sent again when it may have arrived already. ``hidden`` is a part of ``url`` that is a secret.

    Raises:
        CredentialsError: what :func:`get_json` raises.
    """
    headers = _headers(access_token, failure)
    if body is not None:
        headers["Content-Type"] = "application/json"
    secrets = [access_token, *([hidden] if hidden else [])]
    remember_secrets(secrets)
    response = _send(
        method,
        url,
        data=json.dumps(body).encode() if body is not None else None,
        headers=headers,
        repeatable=method != "POST",
        secrets=secrets,
    )
    if response.is_success and not response.body:
        return {}
    return _remembered(json_object(response, failure=failure, secrets=secrets))


def _remembered(answer: dict[str, Any]) -> dict[str, Any]:
    remember_secrets(answer.get(name) for name in _SECRET_ANSWERS)
    return answer


def _headers(access_token: str | None, failure: str) -> dict[str, str]:
    headers = {"Accept": "application/json"}
    if access_token is not None:
        if not is_usable_token(access_token):
            raise InvalidCredential(
                f"{failure}: the access token is empty, or has characters that a token cannot have.",
                remedy="Copy it anew, without blanks and line ends.",
            )
        headers["Authorization"] = f"Bearer {access_token}"
    return headers


def get_text(url: str, *, failure: str) -> str:
    """GET the text at ``url``, as UTF-8. Raises what :func:`post_form` raises."""
    response = _send("GET", url)
    if not response.is_success:
        raise translated(response, failure=failure, secrets=[])
    with suppress(UnicodeDecodeError):
        if not response.is_web_page:
            return response.body.decode("utf-8-sig")
    kind = "a web page" if response.is_web_page else "something that is no text"
    raise Unreadable(f"{failure}: {response.host} sent {kind}.", remedy=CAPTIVE_PORTAL, status=response.status)


# ---- one request ---------------------------------------------------------------------------------


def _send(
    method: str,
    url: str,
    *,
    data: Mapping[str, str] | bytes | None = None,
    headers: Mapping[str, str] | None = None,
    repeatable: bool = True,
    secrets: Collection[str] = (),
) -> Response:
    """Send a request, in a thread of its own: only so can names, connections and answers that drip be bounded."""
    require_secure(url, "services= or api_base_url=")
    host = split_url(url).netloc
    deadline = time.monotonic() + TOTAL_SECONDS
    session = kept_session(loopback=is_loopback(split_url(url).hostname or ""))
    session.adapter.max_retries = retries(repeatable=repeatable, deadline=deadline)
    outcome: list[Response | BaseException] = []

    def work() -> None:
        try:
            outcome.append(_outcome(session, method, url, data, headers, host, deadline))
        except BaseException as error:  # an end of the program, as a test may ask for one: for the caller
            outcome.append(error)

    _log.debug("%s %s", method, without_secrets(url, secrets))
    in_time = False
    try:
        _run(work, deadline)
        in_time = bool(outcome)
    finally:
        if not in_time:  # or Ctrl-C
            forget_session(session)
            session.cut()
    if not in_time:  # whatever the cut makes of the answer now
        raise _too_slow(host)
    result = outcome.pop()
    if isinstance(result, Response):
        _log.debug("%s answered %s", host, result.status)
        return result
    _log.debug("%s: %s", host, getattr(result, "message", type(result).__name__))
    try:
        raise result
    finally:
        del result  # an error that a frame of its own traceback holds is not freed at once


def _run(work: Callable[[], None], deadline: float) -> None:
    """Do ``work`` in a thread, and wait for it until ``deadline``."""
    thread = threading.Thread(target=work, daemon=True, name=THREAD_NAME)
    try:
        thread.start()
    except RuntimeError:  # no thread can be had, as at the end of a process: then without the total limit
        work()
        return
    while thread.is_alive() and (left := deadline - time.monotonic()) > 0:
        thread.join(min(left, 0.5))  # in slices, because on Windows nothing else lets Ctrl-C through


def _outcome(
    session: Session,
    method: str,
    url: str,
    data: Mapping[str, str] | bytes | None,
    headers: Mapping[str, str] | None,
    host: str,
    deadline: float,
) -> Response | CredentialsError:
    """The answer, or our error for what went wrong. No exception of ``requests``: those carry the request."""
    bundle = None

    def read(response: Any) -> Response:
        # By iter_content, what breaks off would be told in requests' words; but a test's stand-in has no other way.
        stream = getattr(response.raw, "stream", None)
        chunks = stream(65_536, decode_content=True) if stream else response.iter_content(65_536)
        body = _body(chunks, host, deadline)
        return Response(host, response.status_code, response.headers, body)

    try:
        bundle = ca_bundle()
        return session.answer(
            method,
            url,
            read,
            data=data,
            headers=headers,
            timeout=(CONNECT_SECONDS, READ_SECONDS),
            verify=bundle or True,
        )
    except CredentialsError as error:
        return error.with_traceback(None)  # whose frames hold the request
    except Exception as error:  # also of the system and of proxies: nothing may be lost in a thread
        return unreachable(host, error, bundle)


def _body(chunks: Iterable[bytes], host: str, deadline: float) -> bytes:
    body = b""
    for chunk in chunks:
        body += chunk
        if len(body) > LARGEST_ANSWER:
            raise Unreadable(
                f"{host} sent more than {LARGEST_ANSWER // 1024} KiB, which is no answer of CARTO's.",
                remedy="Check the address.",
            )
        if time.monotonic() > deadline:
            raise _too_slow(host)
    return body


def _too_slow(host: str) -> RequestFailed:
    return RequestFailed(f"{host} did not finish its answer within {TOTAL_SECONDS:.0f} s.", remedy="Try again later.")
