"""One request, and within its time the answer, or our error for what went wrong."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import requests

from carto_auth import _log
from carto_auth._http.answers import Response
from carto_auth._http.connections import mount, new_session, next_try, retries
from carto_auth._http.failures import RequestFailed, Unreadable, unreachable
from carto_auth._http.redaction import without_secrets
from carto_auth._trust import ca_bundle, is_loopback, require_secure, split_url
from carto_auth.errors import CredentialsError

#: Seconds to reach a service, and between two pieces of its answer.
CONNECT_SECONDS = 10.0
READ_SECONDS = 30.0

#: Seconds that a request may take, its retries included: whatever a server does, the caller gets an answer.
TOTAL_SECONDS = 60.0

#: Bytes, unpacked. CARTO's answers are a few kilobytes.
LARGEST_ANSWER = 1024 * 1024

#: Bytes that are read before the clock is looked at again.
_PIECE = 4096

#: Of the threads that send requests.
THREAD_NAME = "carto-auth request"


@dataclass(frozen=True)
class _Request:
    method: str
    url: str
    data: Mapping[str, str] | bytes | None
    headers: Mapping[str, str] | None
    repeatable: bool
    #: By ``time.monotonic``.
    deadline: float

    @property
    def host(self) -> str:
        return split_url(self.url).netloc


def send(
    method: str,
    url: str,
    *,
    data: Mapping[str, str] | bytes | None = None,
    headers: Mapping[str, str] | None = None,
    repeatable: bool = True,
    secrets: Collection[str] = (),
) -> Response:
    """Send a request and return its answer, whatever its status.

    Args:
        method: such as ``"POST"``.
        url: where to.
        data: a form, or a body.
        headers: those beside the ones of ``requests``.
        repeatable: whether it may be sent again when it may have arrived already.
        secrets: parts of ``url`` that the log must not show.

    Raises:
        UntrustedAddress: ``url`` is neither https nor on this computer.
        ServiceUnreachable: no answer came.
        InvalidAnswer: what came is not an answer, or too much of one.
    """
    require_secure(url, "services= or api_base_url=")
    request = _Request(method, url, data, headers, repeatable, time.monotonic() + TOTAL_SECONDS)
    _log.debug("%s %s", method, without_secrets(url, secrets))
    result = _in_time(request)
    if isinstance(result, Response):
        _log.debug("%s answered %s", request.host, result.status)
        return result
    _log.debug("%s: %s", request.host, getattr(result, "message", type(result).__name__))
    try:
        raise result
    finally:
        del result  # an error that is held by a frame of its own traceback is not freed at once


def _in_time(request: _Request) -> Response | BaseException:
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


def _outcome(request: _Request) -> Response | CredentialsError:
    """The answer, or our error for what went wrong. No exception of ``requests``: those carry the request."""
    bundle = None
    try:
        bundle = ca_bundle()
        tries = retries(repeatable=request.repeatable, deadline=request.deadline)
        loopback = is_loopback(split_url(request.url).hostname or "")
        with new_session(loopback=loopback, retries=tries) as session:
            return _answer(session, request, bundle)
    except CredentialsError as error:
        return error.with_traceback(None)  # whose frames hold the request
    except Exception as error:  # also of the system and of proxies: nothing may be lost in a thread
        return unreachable(request.host, error, bundle)


def _answer(session: requests.Session, request: _Request, bundle: str | None) -> Response:
    """Send the request and read its answer; again, while there are tries left, where it breaks off."""
    while True:
        with session.request(
            request.method,
            request.url,
            data=request.data,
            headers=request.headers,
            auth=as_it_is,
            timeout=(CONNECT_SECONDS, READ_SECONDS),
            verify=bundle or True,
            allow_redirects=False,
            stream=True,
        ) as response:
            try:
                return Response(request.host, response.status_code, response.headers, _body(response, request))
            except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError) as error:
                left = next_try(response, request.method, request.url, error)
        left.sleep()
        mount(session, left)


def as_it_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Authentication that adds nothing; without any, ``requests`` puts what is in ``~/.netrc`` over our token."""
    return request


def _body(response: requests.Response, request: _Request) -> bytes:
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


def _too_slow(request: _Request) -> RequestFailed:
    return RequestFailed(
        f"{request.host} did not finish its answer within {TOTAL_SECONDS:.0f} s.", remedy="Try again later."
    )


def _is_not_ours(record: logging.LogRecord) -> bool:
    return record.threadName != THREAD_NAME


# urllib3 logs paths, one of which holds a token, and it warns with the very words of a server that does not speak
# HTTP, which may be our own request. What matters of it we say ourselves, without secrets.
for _name in ("urllib3.connectionpool", "urllib3.util.retry"):
    logging.getLogger(_name).addFilter(_is_not_ours)
