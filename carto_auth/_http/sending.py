"""One request, and within its time the answer, or our error for what went wrong."""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import MaxRetryError, ResponseError
from urllib3.response import BaseHTTPResponse
from urllib3.util import Retry

from carto_auth import _log
from carto_auth._http.answers import Response, seconds_to_wait
from carto_auth._http.failures import RequestFailed, Unreadable, unreachable
from carto_auth._http.redaction import without_secrets
from carto_auth._trust import ca_bundle, is_loopback, require_secure, split_url
from carto_auth.errors import CredentialsError

#: Seconds to reach a service, and between two pieces of its answer.
CONNECT_SECONDS = 10.0
READ_SECONDS = 30.0

#: Seconds that a request may take, its retries included: whatever a server does, the caller gets an answer.
TOTAL_SECONDS = 60.0

#: Tries of a request that may be repeated.
TRIES = 3

#: Seconds before the second try, doubled before the third.
BACKOFF_SECONDS = 0.3

#: Seconds; the most that chance adds to a wait, so that programs that failed together do not come back together.
JITTER_SECONDS = 0.3

#: Seconds; a service that asks for a longer wait is not asked again here. The caller is told how long to wait.
LONGEST_RETRY_AFTER = 10.0

#: Statuses that may be gone at the next try: 429 (RFC 6585 section 4) and all server errors.
_PASSING_STATUSES = frozenset((429, *range(500, 600)))

#: Bytes, unpacked. CARTO's answers are a few kilobytes.
LARGEST_ANSWER = 1024 * 1024

#: Bytes that are read before the clock is looked at again.
_PIECE = 4096

#: Of the threads that send requests.
THREAD_NAME = "carto-auth request"


@dataclass(frozen=True)
class Request:
    """What is sent.

    Attributes:
        method: such as ``"POST"``.
        url: where to.
        data: a form, or a body.
        headers: those beside the ones of ``requests``.
        repeatable: whether it may be sent again when it may have arrived already. A connection that could not be
            made is tried again in any case.
        secrets: parts of ``url`` that the log must not show.
        tries: how often it is sent at the most.
        deadline: until when there must be an answer, by ``time.monotonic``.
    """

    method: str
    url: str
    data: Mapping[str, str] | bytes | None = None
    headers: Mapping[str, str] | None = None
    repeatable: bool = True
    secrets: Collection[str] = ()
    tries: int = TRIES
    deadline: float = field(default_factory=lambda: time.monotonic() + TOTAL_SECONDS)

    @property
    def host(self) -> str:
        return split_url(self.url).netloc


def send(request: Request) -> Response:
    """Send a request and return its answer, whatever its status.

    Raises:
        UntrustedAddress: its ``url`` is neither https nor on this computer.
        ServiceUnreachable: no answer came.
        InvalidAnswer: what came is not an answer, or too much of one.
    """
    require_secure(request.url, "services= or api_base_url=")
    _log.debug("%s %s", request.method, without_secrets(request.url, request.secrets))
    result = _in_time(request)
    if isinstance(result, Response):
        _log.debug("%s answered %s", request.host, result.status)
        return result
    _log.debug("%s: %s", request.host, getattr(result, "message", type(result).__name__))
    try:
        raise result
    finally:
        del result  # an error that is held by a frame of its own traceback is not freed at once


def _in_time(request: Request) -> Response | BaseException:
    """What came of a request until its deadline, in a thread.

    Only this puts a limit on what has none itself: a name lookup, and an answer that drips. Work that is late is
    abandoned: nobody waits for its thread, which ends when its connection does.
    """
    outcome: list[Response | BaseException] = []

    def work() -> None:
        try:
            outcome.append(_outcome(request))
        except BaseException as error:  # such as the end of a test: it is for the caller, not for this thread
            outcome.append(error)

    try:
        thread = threading.Thread(target=work, daemon=True, name=THREAD_NAME)
        thread.start()
        while thread.is_alive() and (left := request.deadline - time.monotonic()) > 0:
            thread.join(min(left, 0.5))  # in slices: on Windows, Ctrl-C gets through only between them
    except RuntimeError:  # no thread can be had, as in a subinterpreter: then without the total limit
        work()
    return outcome.pop() if outcome else _too_slow(request)


def _outcome(request: Request) -> Response | CredentialsError:
    """The answer, or our error for what went wrong. No exception of ``requests``: those carry the request."""
    bundle = None
    try:
        bundle = ca_bundle()
        with _session(request) as session:
            response = session.request(
                request.method,
                request.url,
                data=request.data,
                headers=request.headers,
                auth=as_it_is,
                timeout=(CONNECT_SECONDS, READ_SECONDS),
                verify=bundle or True,
                allow_redirects=False,
                stream=True,
            )
            with response:
                return Response(request.host, response.status_code, response.headers, _body(response, request))
    except CredentialsError as error:
        return error.with_traceback(None)  # whose frames hold the request
    except Exception as error:  # also of the system and of proxies: nothing may be lost in a thread
        if request.repeatable and request.tries > 1 and isinstance(error, requests.exceptions.ChunkedEncodingError):
            return _outcome(replace(request, tries=request.tries - 1))  # urllib3 repeats what has not begun to come
        return unreachable(request.host, error, bundle)


def _session(request: Request) -> requests.Session:
    """A session for one request. Close it after that: nothing is kept that a thread, a fork or an exit could leave."""
    again = request.tries - 1 if request.repeatable else 0
    retries = _Retries(
        total=request.tries - 1,
        read=again,
        status=again,
        other=0,
        status_forcelist=_PASSING_STATUSES,
        allowed_methods=None,
        raise_on_status=False,
    )
    retries.deadline = request.deadline
    # Programs replace requests.Session for the whole process (requests_cache.install_cache() does). A cache of answers
    # could give one account the token of another, so what was put in its place is passed over.
    kind = next((one for one in requests.Session.__mro__ if one.__module__ == "requests.sessions"), requests.Session)
    session: requests.Session = kind()
    # Else requests reads a redirect's answer to its end, however long, and stumbles over an odd Location.
    session.get_redirect_target = lambda _: None  # type: ignore[assignment, method-assign]  # of this object alone
    # There is no proxy on the way to this computer.
    session.trust_env = not is_loopback(split_url(request.url).hostname or "")
    for scheme in ("https://", "http://"):
        session.mount(scheme, HTTPAdapter(max_retries=retries))
    return session


class _Retries(Retry):
    """Retries with waits that the service may lengthen within bounds, and that end at a deadline."""

    deadline = math.inf
    wait = 0.0

    def new(self, **changes: Any) -> _Retries:
        changed = super().new(**changes)
        changed.deadline = self.deadline
        return changed

    def increment(self, *request: Any, **outcome: Any) -> _Retries:
        response, error = outcome.get("response"), outcome.get("error")
        asked = seconds_to_wait(response.status, response.headers) if response is not None else None
        wait = BACKOFF_SECONDS * 2 ** len(self.history) if asked is None else asked
        if wait > LONGEST_RETRY_AFTER or time.monotonic() + wait > self.deadline:
            raise MaxRetryError(outcome["_pool"], "", error or ResponseError("no time for another try"))
        following = super().increment(*request, **outcome)
        following.wait = wait + os.urandom(1)[0] / 256 * JITTER_SECONDS if wait else 0.0
        if response is not None:
            response.close()  # else urllib3 reads it to its end, which may never come
        _log.debug("trying again: %s", f"status {response.status}" if response is not None else type(error).__name__)
        return following

    def sleep(self, response: BaseHTTPResponse | None = None) -> None:
        time.sleep(self.wait)


def as_it_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Authentication that adds nothing; without any, ``requests`` puts what is in ``~/.netrc`` over our token."""
    return request


def _body(response: requests.Response, request: Request) -> bytes:
    body = b""
    for piece in response.iter_content(_PIECE):
        body += piece
        if len(body) > LARGEST_ANSWER:
            raise Unreadable(
                f"{request.host} sent more than {LARGEST_ANSWER // 1024} KiB. No answer from CARTO is that long.",
                remedy="Check the address.",
            )
        if time.monotonic() > request.deadline:
            raise _too_slow(request)
    return body


def _too_slow(request: Request) -> RequestFailed:
    return RequestFailed(
        f"{request.host} did not finish its answer within {TOTAL_SECONDS:.0f} s.", remedy="Try again later."
    )


def _is_not_ours(record: logging.LogRecord) -> bool:
    return record.threadName != THREAD_NAME


# urllib3 logs paths, one of which holds a token, and it warns with the very words of a server that does not speak
# HTTP, which may be our own request. What matters of it we say ourselves, without secrets.
for _name in ("urllib3.connectionpool", "urllib3.util.retry"):
    logging.getLogger(_name).addFilter(_is_not_ours)
