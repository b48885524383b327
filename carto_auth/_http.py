"""The only module that sends requests: time limits, retries, error translation.

It imports ``requests``, which takes a while, so it is itself imported only where a request is due.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from http.cookiejar import DefaultCookiePolicy
from typing import TYPE_CHECKING, Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import InvalidHeader, MaxRetryError, ResponseError
from urllib3.util import Retry

from carto_auth import _log
from carto_auth._services import _split, is_loopback, require_secure
from carto_auth.errors import (
    InvalidAnswer,
    RateLimited,
    ServerError,
    ServiceUnavailable,
    ServiceUnreachable,
    Unauthorized,
)

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self
    from urllib3.connectionpool import ConnectionPool
    from urllib3.response import BaseHTTPResponse

#: Seconds to reach a service, and between two pieces of its answer.
CONNECT_SECONDS = 10.0
READ_SECONDS = 30.0

#: Seconds that one request may take, its retries included: whatever a server does, the caller gets an answer.
TOTAL_SECONDS = 60.0

#: Tries of a request that may be repeated.
TRIES = 3

#: Seconds; a service that wants to be left alone for longer is not asked again by us.
LONGEST_RETRY_AFTER = 10

#: Bytes. CARTO's answers are a few kilobytes.
LARGEST_ANSWER = 1024 * 1024

#: Characters of a server's words that are shown.
LONGEST_QUOTE = 200

#: Statuses that may be gone at the next try.
_PASSING_STATUSES = (429, 500, 502, 503, 504)


class RequestFailed(ServiceUnreachable, requests.RequestException):
    """A service gave no answer: as :class:`ServiceUnreachable`, and as ``requests`` tells it."""


class NotJson(InvalidAnswer, requests.RequestException):
    """An answer that is not the JSON it should be, which ``requests`` tells as an exception of its own."""


def post_form(
    url: str, form: Mapping[str, str], *, repeatable: bool = True, failure: str, empty_is_fine: bool = False
) -> dict[str, Any]:
    """POST a form and return the JSON object of the answer.

    Args:
        url: where to.
        form: the fields; their values are kept out of every message.
        repeatable: whether it may be sent again when it may have arrived already. An authorization code
            is good for one try (RFC 6749 section 4.1.2).
        failure: what failed, for the message: ``"CARTO did not hand out a token"``.
        empty_is_fine: whether a success may come without a body; ``{}`` is returned then.

    Raises:
        ServiceUnreachable: no answer came.
        ServerError: the answer was no success, or no JSON object.
    """
    response = _send("POST", url, data=dict(form), headers={"Accept": "application/json"}, repeatable=repeatable)
    if empty_is_fine and response.status in (200, 204) and not response.body:
        return {}
    secrets = [form[name] for name in _SECRET_FIELDS if form.get(name)]
    return _json_object(response, failure=failure, secrets=secrets)


_SECRET_FIELDS = ("client_secret", "code", "code_verifier", "refresh_token", "token")


def get_json(url: str, *, access_token: str | None = None, failure: str) -> dict[str, Any]:
    """GET the JSON object at ``url``. Raises what :func:`post_form` raises."""
    headers = {"Accept": "application/json"}
    if access_token is not None:
        headers["Authorization"] = f"Bearer {access_token}"
    return _json_object(
        _send("GET", url, headers=headers), failure=failure, secrets=[access_token] if access_token else []
    )


def get_text(url: str, *, failure: str) -> str:
    """GET the text at ``url``, as UTF-8. Raises what :func:`post_form` raises."""
    response = _send("GET", url)
    if response.status != 200:
        raise _translated(response, failure=failure, secrets=[])
    try:
        return response.body.decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidAnswer(f"{failure}: {response.host} sent something that is no text.", status=200) from None


# ---- one request ---------------------------------------------------------------------------------


class _Response:
    """What is kept of an answer: no request, so that no secret hangs on it."""

    def __init__(self, host: str, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.host = host
        self.status = status
        self.headers = headers
        self.body = body


class _NoAuth(requests.auth.AuthBase):
    """Keeps ``requests`` from looking into ``~/.netrc``, which would replace the bearer token."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        return request


def _send(
    method: str,
    url: str,
    *,
    data: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
    repeatable: bool = True,
) -> _Response:
    """Send a request, in a thread of its own: only so can names, connections and answers that drip be bounded."""
    require_secure(url, "a request")
    host = _split(url).netloc
    session = _session(repeatable=repeatable, loopback=is_loopback(_split(url).hostname or ""))
    outcome: list[_Response | ServiceUnreachable | ServerError] = []
    deadline = time.monotonic() + TOTAL_SECONDS

    def work() -> None:
        try:
            outcome.append(_exchange(session, method, url, data, headers, host, deadline))
        except requests.RequestException as error:
            outcome.append(_unreachable(host, error))
        except (ServerError, ServiceUnreachable) as error:
            outcome.append(error)
        except Exception as error:  # a bug or an oddity of a proxy: told, never lost in a thread
            outcome.append(RequestFailed(f"The request to {host} failed ({type(error).__name__})."))

    _log.debug("%s %s", method, url)
    thread = threading.Thread(target=work, daemon=True, name="carto-auth request")
    thread.start()
    thread.join(TOTAL_SECONDS + 1)
    if not outcome:
        _forget(session)  # its connection is still busy with an answer that nobody awaits
        raise RequestFailed(
            f"{host} did not finish its answer within {TOTAL_SECONDS:.0f} s.", remedy="Try again later."
        )
    result = outcome[0]
    if not isinstance(result, _Response):
        raise result
    _log.debug("%s answered %s", host, result.status)
    return result


def _exchange(
    session: requests.Session,
    method: str,
    url: str,
    data: Mapping[str, str] | None,
    headers: Mapping[str, str] | None,
    host: str,
    deadline: float,
) -> _Response:
    with session.request(
        method,
        url,
        data=data,
        headers=headers,
        auth=_NoAuth(),
        timeout=(CONNECT_SECONDS, READ_SECONDS),
        allow_redirects=False,
        stream=True,
        verify=_certificates(),
    ) as response:
        return _Response(
            host, response.status_code, response.headers, _body(response.iter_content(65_536), host, deadline)
        )


def _body(chunks: Iterable[bytes], host: str, deadline: float) -> bytes:
    body = b""
    for chunk in chunks:
        body += chunk
        if len(body) > LARGEST_ANSWER:
            raise InvalidAnswer(f"{host} sent more than {LARGEST_ANSWER // 1024} KiB, which is no answer of CARTO's.")
        if time.monotonic() > deadline:
            raise RequestFailed(f"{host} did not finish its answer within {TOTAL_SECONDS:.0f} s.")
    return body


def _certificates() -> bool | str:
    """The CA bundle that the environment names; ``requests`` itself does not know OpenSSL's variable."""
    for variable in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        if os.environ.get(variable):
            return os.environ[variable]
    return True


_sessions = threading.local()


def _forget(session: requests.Session) -> None:
    kept = _sessions.__dict__.get("kept", {})
    for key in [key for key, value in kept.items() if value is session]:
        del kept[key]


def _session(*, repeatable: bool, loopback: bool) -> requests.Session:
    """This thread's session for such requests: connections are kept, nothing else is."""
    kept: dict[tuple[int, bool, bool], requests.Session] = _sessions.__dict__.setdefault("kept", {})
    key = (os.getpid(), repeatable, loopback)  # connections must not be shared across a fork
    if key not in kept:
        session = requests.Session()
        session.trust_env = not loopback  # no proxy leads to one's own computer
        session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        adapter = HTTPAdapter(max_retries=_retries(repeatable=repeatable), pool_connections=4, pool_maxsize=1)
        session.mount("https://", adapter)
        session.mount("http://", adapter)
        kept[key] = session
    return kept[key]


class _BoundedRetry(Retry):
    """Retries that do not wait for a service that wants to be left alone for long."""

    def parse_retry_after(self, retry_after: str) -> float:
        try:
            return super().parse_retry_after(retry_after)
        except InvalidHeader:
            return 0.0  # nonsense is no advice

    def increment(
        self,
        method: str | None = None,
        url: str | None = None,
        response: BaseHTTPResponse | None = None,
        error: Exception | None = None,
        _pool: ConnectionPool | None = None,
        _stacktrace: TracebackType | None = None,
    ) -> Self:
        if response is not None and _pool is not None:
            wait = self.parse_retry_after(response.headers.get("Retry-After", "0"))
            if wait > LONGEST_RETRY_AFTER:
                raise MaxRetryError(_pool, url or "", ResponseError("asked to be left alone"))
        return super().increment(method, url, response, error, _pool, _stacktrace)


def _retries(*, repeatable: bool) -> Retry:
    again = TRIES - 1
    return _BoundedRetry(
        total=again,
        connect=again,
        read=again if repeatable else 0,
        status=again if repeatable else 0,
        other=0,
        redirect=0,
        status_forcelist=_PASSING_STATUSES,
        allowed_methods=None,
        backoff_factor=0.3,
        backoff_jitter=0.3,
        raise_on_status=False,
        raise_on_redirect=False,
    )


# ---- what went wrong -----------------------------------------------------------------------------


def _unreachable(host: str, error: requests.RequestException) -> ServiceUnreachable:
    if isinstance(error, requests.exceptions.SSLError):
        return RequestFailed(
            f"The certificate of {host} was not accepted.",
            remedy="Behind a company's proxy, or with a CARTO that has a private certificate authority, set "
            "REQUESTS_CA_BUNDLE to its CA bundle.",
        )
    if isinstance(error, requests.exceptions.ProxyError):
        return RequestFailed(
            f"Cannot reach {host} through the proxy that the environment names.",
            remedy="Check HTTPS_PROXY and NO_PROXY.",
        )
    if isinstance(error, requests.Timeout):
        return RequestFailed(f"{host} did not answer in time.", remedy="Try again later.")
    if isinstance(error, OSError) and _is_ca_bundle_missing(error):
        return RequestFailed(
            "The CA bundle that the environment names is not there.",
            remedy="Check REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE and SSL_CERT_FILE.",
        )
    return RequestFailed(
        f"Cannot reach {host} ({_cause(error)}).", remedy="Check the network connection, and try again."
    )


def _is_ca_bundle_missing(error: OSError) -> bool:
    bundle = _certificates()
    return isinstance(bundle, str) and not os.path.exists(bundle) and bundle in str(error)


def _cause(error: BaseException) -> str:
    """The innermost reason in a few words, such as ``Connection refused``; never a URL or a body."""
    seen: set[int] = set()
    innermost: BaseException = error
    while id(innermost) not in seen:
        seen.add(id(innermost))
        reason = getattr(innermost, "reason", None)
        inner = innermost.__cause__ or innermost.__context__
        if isinstance(reason, BaseException):
            innermost = reason
        elif inner is not None:
            innermost = inner
    if isinstance(innermost, OSError) and innermost.strerror:
        return _quoted(innermost.strerror, [])
    return type(innermost).__name__


def _json_object(response: _Response, *, failure: str, secrets: list[str]) -> dict[str, Any]:
    answer = _json(response)
    if response.status != 200 or (isinstance(answer, dict) and answer.get("error")):
        raise _translated(response, failure=failure, secrets=secrets)
    if not isinstance(answer, dict):
        raise NotJson(
            f"{failure}: {response.host} sent {_kind(response)} where JSON was due.",
            remedy="A network that wants you to sign in first (a hotel's, a company's) does this: open a web "
            "page in the browser, then try again.",
            status=response.status,
        )
    return answer


def _json(response: _Response) -> Any:
    try:
        return json.loads(response.body.decode("utf-8"))
    except (ValueError, RecursionError):
        return None


def _kind(response: _Response) -> str:
    if not response.body:
        return "nothing"
    if response.body.lstrip()[:1] == b"<":
        return "a web page"
    return "something else"


def _translated(response: _Response, *, failure: str, secrets: list[str]) -> ServerError:
    """The error for an answer that is no success, with the server's own words where it has any."""
    answer = _json(response)
    error, description = _server_words(answer if isinstance(answer, dict) else {}, secrets)
    words = description or error
    told = f"{failure}: {response.host} answered {response.status}" + (f" ({words})." if words else ".")
    if 300 <= response.status < 400:
        return InvalidAnswer(
            f"{failure}: {response.host} answered with a redirect ({response.status}), which is never followed "
            "with credentials.",
            remedy="Check the address; use the one it leads to if you trust it.",
            status=response.status,
        )
    details: dict[str, Any] = {"status": response.status, "error": error, "error_description": description}
    if response.status == 429:
        wait = _retry_after(response.headers)
        remedy = f"Try again in {wait:.0f} s." if wait is not None else "Try again later."
        return RateLimited(told, remedy=remedy, retry_after=wait, **details)
    if response.status >= 500:
        return ServiceUnavailable(told, remedy="CARTO has a problem; try again later.", **details)
    if response.status in (401, 403) or error in ("access_denied", "invalid_grant", "invalid_client"):
        return Unauthorized(told, **details)
    return ServerError(told, **details)


def _server_words(answer: Mapping[str, Any], secrets: list[str]) -> tuple[str | None, str | None]:
    """``error`` and its description in Auth0's and CARTO's shapes of an error."""
    error = answer.get("error")
    if isinstance(error, list):
        error = "; ".join(str(one) for one in error)
    description = answer.get("error_description") or answer.get("message") or answer.get("hint")
    return (
        _quoted(error, secrets) if isinstance(error, str) and error else None,
        _quoted(description, secrets) if isinstance(description, str) and description else None,
    )


def _quoted(words: str, secrets: list[str]) -> str:
    """A server's words, without our secrets and control characters, shortened."""
    for secret in secrets:
        words = words.replace(secret, "***")
    words = "".join(character if character.isprintable() else " " for character in words)
    return words if len(words) <= LONGEST_QUOTE else f"{words[: LONGEST_QUOTE - 3]}..."


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds until another try makes sense: ``Retry-After``, Auth0's quota and rate-limit headers, in turn."""
    readers: list[Callable[[], float]] = [
        lambda: float(headers["Retry-After"]),
        lambda: float(dict(part.split("=", 1) for part in headers["Auth0-Client-Quota-Limit"].split(";"))["t"]),
        lambda: float(headers["x-ratelimit-reset"]) - time.time(),
    ]
    for read in readers:
        try:
            seconds = read()
        except (KeyError, ValueError):
            continue
        if 0 <= seconds < 86_400 * 31:
            return seconds
    return None
