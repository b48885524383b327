"""The only module that sends requests: time limits, retries, error translation.

It imports ``requests``, which takes a while, so it is itself imported only where a request is due.
"""

from __future__ import annotations

import http.client
import json
import logging
import math
import os
import random
import socket
import ssl
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from email.utils import parsedate_to_datetime
from http.cookiejar import DefaultCookiePolicy
from typing import TYPE_CHECKING, Any

import requests
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from urllib3.exceptions import DecodeError, InvalidHeader, MaxRetryError, NewConnectionError, ResponseError
from urllib3.util import Retry

from carto_auth import _log
from carto_auth._services import _split, is_loopback, require_secure
from carto_auth._token import is_usable_token, without_secrets
from carto_auth.errors import (
    CredentialsError,
    InvalidAnswer,
    InvalidCredential,
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

#: Seconds before the second try, doubled before the third; and the most that chance adds to each, so that
#: those who failed together do not come back together.
BACKOFF_SECONDS = 0.3
JITTER_SECONDS = 0.3

#: Seconds; a service that wants to be left alone for longer is not asked again by us.
LONGEST_RETRY_AFTER = 10

#: Seconds without use after which a connection is not used again. A router on the way may have forgotten it
#: by then without a word, and the request would wait for an answer to the end of its time.
LONGEST_IDLE_SECONDS = 30.0

#: Bytes, unpacked. CARTO's answers are a few kilobytes.
LARGEST_ANSWER = 1024 * 1024

#: Characters of a server's words that are shown.
LONGEST_QUOTE = 200

#: Statuses that may be gone at the next try.
_PASSING_STATUSES = (429, 500, 502, 503, 504)

#: Fields of a form whose values must not show anywhere.
_SECRET_FIELDS = ("client_secret", "code", "code_verifier", "refresh_token", "token")

_THREAD_NAME = "carto-auth request"

_CAPTIVE_PORTAL = (
    "A network that wants you to sign in first (a hotel's, a company's) does this: open a web page in the browser, "
    "then try again."
)


class RequestFailed(ServiceUnreachable, requests.RequestException):
    """A service gave no answer: as :class:`ServiceUnreachable`, and as ``requests`` tells it."""


class Unreadable(InvalidAnswer, requests.RequestException):
    """An answer that is no HTTP, or not the JSON it should be: as ``requests`` has exceptions for it."""


class UnauthorizedAnswer(Unauthorized, requests.HTTPError):
    """:class:`Unauthorized`, and as ``raise_for_status`` of ``requests`` tells it. Its ``response`` is ``None``."""


class RateLimitedAnswer(RateLimited, requests.HTTPError):
    """:class:`RateLimited`, and as ``requests`` tells it."""


class UnavailableAnswer(ServiceUnavailable, requests.HTTPError):
    """:class:`ServiceUnavailable`, and as ``requests`` tells it."""


class FailedAnswer(ServerError, requests.HTTPError):
    """:class:`ServerError`, and as ``requests`` tells it."""


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
    response = _send("POST", url, data=dict(form), headers={"Accept": "application/json"}, repeatable=repeatable)
    if empty_is_fine and response.is_success and not response.body:
        return {}
    secrets = [form[name] for name in _SECRET_FIELDS if form.get(name)]
    return _json_object(response, failure=failure, secrets=secrets)


def get_json(url: str, *, access_token: str | None = None, failure: str) -> dict[str, Any]:
    """GET the JSON object at ``url``, with a bearer token (RFC 6750 section 2.1) if one is given.

    Raises:
        InvalidCredential: the token cannot be sent in a header.
        CredentialsError: what :func:`post_form` raises.
    """
    response = _send("GET", url, headers=_headers(access_token, failure))
    return _json_object(response, failure=failure, secrets=[access_token] if access_token else [])


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
    return _json_object(response, failure=failure, secrets=secrets)


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
        raise _translated(response, failure=failure, secrets=[])
    with suppress(UnicodeDecodeError):
        if not response.is_web_page:
            return response.body.decode("utf-8-sig")
    kind = "a web page" if response.is_web_page else "something that is no text"
    raise Unreadable(f"{failure}: {response.host} sent {kind}.", remedy=_CAPTIVE_PORTAL, status=response.status)


# ---- one request ---------------------------------------------------------------------------------


class _Response:
    """What is kept of an answer: no request, so that no secret hangs on it."""

    def __init__(self, host: str, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.host = host
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def is_success(self) -> bool:
        return 200 <= self.status < 300

    @property
    def is_web_page(self) -> bool:
        return self.body.lstrip()[:1] == b"<"


def _send(
    method: str,
    url: str,
    *,
    data: Mapping[str, str] | bytes | None = None,
    headers: Mapping[str, str] | None = None,
    repeatable: bool = True,
    secrets: Collection[str] = (),
) -> _Response:
    """Send a request, in a thread of its own: only so can names, connections and answers that drip be bounded."""
    require_secure(url, "services= or api_base_url=")
    host = _split(url).netloc
    deadline = time.monotonic() + TOTAL_SECONDS
    session = _session(loopback=is_loopback(_split(url).hostname or ""))
    session.adapter.max_retries = _retries(repeatable=repeatable, deadline=deadline)
    outcome: list[_Response | CredentialsError] = []

    def work() -> None:
        outcome.append(_outcome(session, method, url, data, headers, host, deadline))

    _log.debug("%s %s", method, without_secrets(url, secrets))
    in_time = False
    try:
        _run(work, deadline)
        in_time = bool(outcome)
    finally:
        if not in_time:  # or Ctrl-C
            _forget(session)
            session.cut()
    if not in_time:  # whatever the cut makes of the answer now
        raise _too_slow(host)
    result = outcome.pop()
    if isinstance(result, _Response):
        _log.debug("%s answered %s", host, result.status)
        return result
    _log.debug("%s: %s", host, result.message)
    try:
        raise result
    finally:
        del result  # an error that a frame of its own traceback holds is not freed at once


def _run(work: Callable[[], None], deadline: float) -> None:
    """Do ``work`` in a thread, and wait for it until ``deadline``."""
    thread = threading.Thread(target=work, daemon=True, name=_THREAD_NAME)
    try:
        thread.start()
    except RuntimeError:  # no thread can be had, as at the end of a process: then without the total limit
        work()
        return
    while thread.is_alive() and (left := deadline - time.monotonic()) > 0:
        thread.join(min(left, 0.5))  # in slices, because on Windows nothing else lets Ctrl-C through


def _outcome(
    session: _Session,
    method: str,
    url: str,
    data: Mapping[str, str] | bytes | None,
    headers: Mapping[str, str] | None,
    host: str,
    deadline: float,
) -> _Response | CredentialsError:
    """The answer, or our error for what went wrong. No exception of ``requests``: those carry the request."""
    try:
        bundle = _ca_bundle()
        with session.request(
            method,
            url,
            data=data,
            headers=headers,
            auth=_NoAuth(),
            timeout=(CONNECT_SECONDS, READ_SECONDS),
            allow_redirects=False,
            stream=True,
            verify=bundle or True,
        ) as response:
            session.reading = response.raw
            body = _body(response.iter_content(65_536), host, deadline)
            return _Response(host, response.status_code, response.headers, body)
    except CredentialsError as error:
        return error.with_traceback(None)  # whose frames hold the request
    except Exception as error:  # also of the system and of proxies: nothing may be lost in a thread
        return _unreachable(host, error)
    finally:
        session.reading = None


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


class _NoAuth(AuthBase):
    """Keeps ``requests`` from looking into ``~/.netrc``, which would replace the bearer token."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        return request


def _ca_bundle() -> str | None:
    """The CA bundle that the environment names; ``requests`` itself does not know OpenSSL's variable.

    Raises:
        ServiceUnreachable: it is not there.
    """
    for variable in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        bundle = os.environ.get(variable)
        if bundle:
            if not os.path.exists(bundle):
                raise RequestFailed(
                    f"There is no CA bundle {bundle}, which {variable} names.", remedy="Correct or unset the variable."
                )
            return bundle
    return None


# ---- connections ---------------------------------------------------------------------------------


class _Session(requests.Session):
    """One thread's connections, kept between the requests of a login; nothing else is."""

    def __init__(self, *, loopback: bool) -> None:
        super().__init__()
        self.trust_env = not loopback  # no proxy leads to one's own computer
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self.adapter = _Adapter(pool_connections=4, pool_maxsize=1)
        self.mount("https://", self.adapter)
        self.mount("http://", self.adapter)
        self.used_at = time.monotonic()
        self.reading: Any = None

    def cut(self) -> None:
        """End what another thread is doing with these connections; nothing more is sent on them."""
        self.adapter.is_cut = True
        reading = self.reading
        with suppress(Exception):  # it may just have come to its end
            reading.shutdown()
        for line in list(self.adapter.lines):
            with suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)


class _Adapter(HTTPAdapter):
    """Knows the sockets of its connections.

    Closing a socket does not wake the thread that reads it. Shutting it down does, even through a duplicate,
    and the duplicate can be had before TLS takes the original over.
    """

    def __init__(self, **options: Any) -> None:
        self.lines: set[socket.socket] = set()
        self.is_cut = False
        super().__init__(**options)

    def get_connection_with_tls_context(self, *arguments: Any, **options: Any) -> ConnectionPool:
        pool: Any = super().get_connection_with_tls_context(*arguments, **options)
        if not issubclass(pool.ConnectionCls, _Cuttable):
            # Made here, since there are pools for http, https and SOCKS, each with a class of its own.
            kind = type("CuttableConnection", (_Cuttable, pool.ConnectionCls), {"adapter": self})
            pool.ConnectionCls = kind
        return pool  # type: ignore[no-any-return]


class _Cuttable:
    """What :class:`_Adapter` adds to urllib3's connections."""

    adapter: _Adapter
    line: socket.socket | None = None

    def _new_conn(self) -> socket.socket:
        if self.adapter.is_cut:  # this is another try, which nobody awaits
            raise NewConnectionError(self, "given up")  # type: ignore[arg-type]
        sock: socket.socket = super()._new_conn()  # type: ignore[misc]
        self.line = socket.fromfd(sock.fileno(), sock.family, sock.type)
        self.adapter.lines.add(self.line)
        if self.adapter.is_cut:  # while the name was looked up
            self.line.shutdown(socket.SHUT_RDWR)
        return sock

    def close(self) -> None:
        super().close()  # type: ignore[misc]
        line, self.line = self.line, None
        if line is not None:
            self.adapter.lines.discard(line)
            line.close()


_sessions = threading.local()


def _session(*, loopback: bool) -> _Session:
    """This thread's session. It is another one after a fork, across which connections must not be shared."""
    kept: dict[tuple[int, bool], _Session] = _sessions.__dict__.setdefault("kept", {})
    key = (os.getpid(), loopback)
    session = kept.get(key)
    if session is not None and time.monotonic() - session.used_at > LONGEST_IDLE_SECONDS:
        session.close()
        session = None
    if session is None:
        session = kept[key] = _Session(loopback=loopback)
    session.used_at = time.monotonic()
    return session


def _forget(session: _Session) -> None:
    kept = _sessions.__dict__.get("kept", {})
    for key in [key for key, value in kept.items() if value is session]:
        del kept[key]


# ---- another try ---------------------------------------------------------------------------------


class _BoundedRetry(Retry):
    """Retries that end at a deadline, and do not wait for a service that wants to be left alone for long."""

    #: By ``time.monotonic``.
    deadline = math.inf

    def new(self, **changes: Any) -> Self:
        changed = super().new(**changes)
        changed.deadline = self.deadline
        return changed

    def get_backoff_time(self) -> float:
        # Also before the second try, at which urllib3 does not wait.
        wait: float = BACKOFF_SECONDS * 2 ** (len(self.history) - 1)
        return wait + random.random() * JITTER_SECONDS  # noqa: S311 - chance enough

    def parse_retry_after(self, retry_after: str) -> float:
        try:
            return super().parse_retry_after(retry_after)
        except (InvalidHeader, ValueError, TypeError, OverflowError):
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
        wait = (self.get_retry_after(response) or 0.0) if response is not None else 0.0
        if wait > LONGEST_RETRY_AFTER or time.monotonic() + wait > self.deadline:
            assert _pool is not None
            raise MaxRetryError(_pool, url or "", error or ResponseError("no time for another try"))
        following = super().increment(method, url, response, error, _pool, _stacktrace)
        if response is not None:
            response.close()  # else urllib3 reads it to its end, which may never come
        _log.debug("trying again: %s", f"status {response.status}" if response is not None else type(error).__name__)
        return following


def _retries(*, repeatable: bool, deadline: float) -> Retry:
    again = TRIES - 1
    retries = _BoundedRetry(
        total=again,
        connect=again,
        read=again if repeatable else 0,
        status=again if repeatable else 0,
        other=0,
        redirect=0,
        status_forcelist=_PASSING_STATUSES,
        allowed_methods=None,
        raise_on_status=False,
        raise_on_redirect=False,
    )
    retries.deadline = deadline
    return retries


#: Behind this, a path of CARTO's Tokens API is a token.
_SECRET_PATH = "/v3/tokens/"


def _is_harmless(record: logging.LogRecord) -> bool:
    """Whether a record of urllib3's shows nothing of our requests that must not be seen."""
    if record.threadName == _THREAD_NAME:
        return record.levelno < logging.WARNING and _SECRET_PATH not in record.getMessage()
    return True


# urllib3 warns with the very words of a server that sends no HTTP, and those may be our own request. What it
# warns of, we tell ourselves, as an error or at DEBUG. And it logs paths.
for _module in ("connection", "connectionpool", "poolmanager", "response", "util.retry"):
    logging.getLogger(f"urllib3.{_module}").addFilter(_is_harmless)


# ---- no answer -----------------------------------------------------------------------------------


def _unreachable(host: str, error: Exception) -> RequestFailed | Unreadable:
    """Our error for one of ``requests`` or below; nothing of it is kept but a few words."""
    reasons = list(_reasons(error))

    def first(*kinds: type[BaseException]) -> Any:
        return next((reason for reason in reasons if isinstance(reason, kinds)), None)

    closed = (ConnectionResetError, ConnectionAbortedError, BrokenPipeError, http.client.IncompleteRead)
    if first(*closed, ssl.SSLEOFError, ssl.SSLZeroReturnError):
        return RequestFailed(f"{host} closed the connection before its answer was complete.", remedy="Try again.")
    if first(ssl.SSLError):
        return _insecure(host, first(ssl.SSLCertVerificationError), first(ssl.SSLError))
    if first(requests.exceptions.ProxyError, requests.exceptions.InvalidProxyURL, requests.exceptions.InvalidSchema):
        return RequestFailed(
            f"Cannot reach {host} through the proxy that the environment names.",
            remedy="Check HTTPS_PROXY and NO_PROXY. A SOCKS proxy needs the package PySocks.",
        )
    if first(TimeoutError):
        return RequestFailed(f"{host} did not answer in time.", remedy="Try again later.")
    if first(http.client.HTTPException, DecodeError):
        return Unreadable(f"{host} sent something that is no HTTP answer.", remedy="Check the address and its port.")
    if first(OSError):
        told_by_the_system = [one.strerror for one in reasons if isinstance(one, OSError) and one.strerror]
        words = _quoted(told_by_the_system[-1], []) if told_by_the_system else type(error).__name__
        return RequestFailed(
            f"Cannot reach {host} ({words}).", remedy="Check the network connection and the address, and try again."
        )
    return RequestFailed(
        f"The request to {host} failed ({type(error).__name__}).",
        remedy="Check the address, and the proxy in HTTPS_PROXY if there is one.",
    )


def _reasons(error: BaseException) -> Iterator[BaseException]:
    """``error`` and all that led to it, from the outermost on; urllib3 keeps some in attributes."""
    seen: set[int] = set()
    left = [error]
    while left:
        current = left.pop(0)
        if id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        attributes = (getattr(current, name, None) for name in ("reason", "original_error", "__cause__", "__context__"))
        left += [one for one in (*current.args, *attributes) if isinstance(one, BaseException)]


def _insecure(host: str, refused: ssl.SSLCertVerificationError | None, error: ssl.SSLError) -> RequestFailed:
    bundle = _ca_bundle()
    if bundle is not None and not _is_ca_bundle(bundle):
        return RequestFailed(
            f"There are no certificates in {bundle}, which the environment names as the CA bundle.",
            remedy="Check REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE and SSL_CERT_FILE.",
        )
    if refused is None:
        reason = (error.reason or "no reason given").lower().replace("_", " ")
        return RequestFailed(
            f"No secure connection to {host} could be made ({_quoted(reason, [])}).",
            remedy="Check the address and its port, and the proxy if there is one.",
        )
    return RequestFailed(
        f"The certificate of {host} was not accepted ({_quoted(refused.verify_message.rstrip('.'), [])}).",
        remedy="Behind a company's proxy, or with a CARTO that has a private certificate authority, set "
        "REQUESTS_CA_BUNDLE to its CA bundle. If it has expired, check this computer's date. " + _CAPTIVE_PORTAL,
    )


def _is_ca_bundle(path: str) -> bool:
    folder = os.path.isdir(path)
    try:
        ssl.create_default_context(cafile=None if folder else path, capath=path if folder else None)
    except OSError:
        return False
    return True


# ---- an answer -----------------------------------------------------------------------------------


def _json_object(response: _Response, *, failure: str, secrets: Collection[str]) -> dict[str, Any]:
    answer = _json(response)
    if not response.is_success or (isinstance(answer, dict) and answer.get("error")):
        raise _translated(response, failure=failure, secrets=secrets)
    if not isinstance(answer, dict):
        raise Unreadable(
            f"{failure}: {response.host} sent {_kind(response, answer)} where a JSON object was due.",
            remedy=_CAPTIVE_PORTAL,
            status=response.status,
        )
    return answer


def _json(response: _Response) -> Any:
    try:
        return json.loads(response.body.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return None


def _kind(response: _Response, answer: object) -> str:
    if not response.body:
        return "nothing"
    if response.is_web_page:
        return "a web page"
    return "something else" if answer is None else f"a JSON {type(answer).__name__}"


def _translated(response: _Response, *, failure: str, secrets: Collection[str]) -> ServerError:
    """The error for an answer that is no success, with the server's own words where it has any."""
    answer = _json(response)
    error, description = _server_words(answer if isinstance(answer, dict) else {}, secrets)
    words = (description or error or "").rstrip(". ")
    told = f"{failure}: {response.host} answered {response.status}" + (f" ({words})." if words else ".")
    details: dict[str, Any] = {"status": response.status, "error": error, "error_description": description}
    if 300 <= response.status < 400:
        return InvalidAnswer(
            f"{failure}: {response.host} answered with a redirect ({response.status}){_target(response, secrets)}, "
            "which is never followed with credentials.",
            remedy=f"Check the address; use the one it leads to if you trust it. {_CAPTIVE_PORTAL}",
            **details,
        )
    if response.status == 511:  # Network Authentication Required (RFC 6585 section 6)
        return UnavailableAnswer(told, remedy=_CAPTIVE_PORTAL, **details)
    if response.status == 429 or response.status >= 500:
        details["retry_after"] = wait = _retry_after(response.headers)
        when = f"ry again in {math.ceil(wait)} s." if wait is not None else "ry again later."
        if response.status == 429:
            return RateLimitedAnswer(told, remedy=f"T{when}", **details)
        return UnavailableAnswer(told, remedy=f"The service has a problem; t{when}", **details)
    if response.status in (401, 403) or error in ("access_denied", "invalid_grant", "invalid_client"):
        return UnauthorizedAnswer(told, **details)
    return FailedAnswer(told, **details)


def _target(response: _Response, secrets: Collection[str]) -> str:
    host = _split(response.headers.get("Location", "")).netloc.rpartition("@")[2]
    return f" to {_quoted(host, secrets)}" if host else ""


def _server_words(answer: Mapping[str, Any], secrets: Collection[str]) -> tuple[str | None, str | None]:
    """``error`` and its description in Auth0's and CARTO's shapes of an error."""
    error = answer.get("error")
    description = answer.get("error_description") or answer.get("message") or answer.get("hint")
    if isinstance(error, list):
        error = "; ".join(one for one in error if isinstance(one, str))
    return (
        _quoted(error, secrets) if isinstance(error, str) and error else None,
        _quoted(description, secrets) if isinstance(description, str) and description else None,
    )


def _quoted(words: str, secrets: Collection[str]) -> str:
    """A server's words on one line, without our secrets and control characters, shortened."""
    words = without_secrets(words[: 5 * LONGEST_QUOTE], secrets)
    words = "".join(character if character.isprintable() else " " for character in words).strip()
    return words if len(words) <= LONGEST_QUOTE else f"{words[: LONGEST_QUOTE - 3]}..."


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds until another try makes sense: ``Retry-After``, Auth0's quota and rate-limit headers, in turn."""
    readers: list[Callable[[], float]] = [
        lambda: float(headers["Retry-After"]),
        lambda: parsedate_to_datetime(headers["Retry-After"]).timestamp() - time.time(),
        lambda: _quota_reset(headers["Auth0-Client-Quota-Limit"]),
        lambda: float(headers["x-ratelimit-reset"]) - time.time(),
    ]
    for read in readers:
        with suppress(KeyError, ValueError, TypeError, OverflowError):
            seconds = read()
            if 0 <= seconds < 31 * 86_400:
                return seconds
    return None


def _quota_reset(quotas: str) -> float:
    """Seconds until the last used-up quota is renewed: ``b=per_hour;q=100;r=0;t=1800``, and others after commas."""
    buckets = [dict(part.strip().split("=", 1) for part in quota.split(";")) for quota in quotas.split(",")]
    return max(float(bucket["t"]) for bucket in buckets if float(bucket.get("r", "0")) <= 0)
