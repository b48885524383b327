"""Connections to services: kept for a while, ended from outside when time is up, tried again within bounds."""

from __future__ import annotations

import http.client
import logging
import math
import os
import random
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http.cookiejar import DefaultCookiePolicy
from typing import TYPE_CHECKING, Any, TypeVar

import requests
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from urllib3.exceptions import (
    InvalidHeader,
    MaxRetryError,
    NewConnectionError,
    ProtocolError,
    ReadTimeoutError,
    ResponseError,
)
from urllib3.util import Retry

from carto_auth import _log
from carto_auth._answers import RequestFailed

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self
    from urllib3.connectionpool import ConnectionPool
    from urllib3.response import BaseHTTPResponse

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

#: Statuses that may be gone at the next try.
_PASSING_STATUSES = frozenset((429, *range(500, 600)))

#: Of the threads that send requests.
THREAD_NAME = "carto-auth request"

_Answer = TypeVar("_Answer")

#: Whether the current thread sends a request of ours, of which nobody else may log what they like.
_sending = threading.local()


class NoAuth(AuthBase):
    """Keeps ``requests`` from looking into ``~/.netrc``, which would replace the bearer token."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        return request


def ca_bundle() -> str | None:
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


class Session(requests.Session):
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

    def answer(self, method: str, url: str, read: Callable[[requests.Response], _Answer], **options: Any) -> _Answer:
        """Send a request and ``read`` its answer; again, as the adapter's retries have it, where it breaks off."""
        _sending.is_ours = True
        try:
            return self._answer(method, url, read, **options)
        finally:
            _sending.is_ours = False

    def _answer(self, method: str, url: str, read: Callable[[requests.Response], _Answer], **options: Any) -> _Answer:
        while True:
            with self.request(method, url, auth=NoAuth(), allow_redirects=False, stream=True, **options) as response:
                raw: Any = response.raw
                _refuse_negative_chunks(raw)
                self.reading = raw
                try:
                    return read(response)
                except (ProtocolError, ReadTimeoutError) as error:
                    if getattr(raw, "retries", None) is None:  # a stand-in for urllib3's keeps no count
                        raise
                    following = raw.retries.increment(method, url, error=error)
                finally:
                    self.reading = None
            following.sleep()
            self.adapter.max_retries = following

    def cut(self) -> None:
        """End what another thread is doing with these connections; nothing more is sent on them."""
        self.adapter.is_cut = True
        reading = self.reading
        with suppress(Exception):  # it may just have come to its end
            reading.shutdown()
        for line in list(self.adapter.lines):
            with suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)


def _refuse_negative_chunks(raw: Any) -> None:
    """A chunk whose size is negative would be read to the end of its connection at once, however much there is."""
    read_size = getattr(raw, "_update_chunk_length", None)
    if read_size is None:  # it is not urllib3's: a test's stand-in
        return

    def read_sound_size() -> None:
        read_size()
        if raw.chunk_left is not None and raw.chunk_left < 0:
            raise ProtocolError("a chunk of a negative size", http.client.IncompleteRead(b""))

    raw._update_chunk_length = read_sound_size


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
        return pool  # type: ignore[no-any-return]  # Any, to set its class above


class _Cuttable:
    """What :class:`_Adapter` adds to urllib3's connections."""

    adapter: _Adapter
    line: socket.socket | None = None

    def _new_conn(self) -> socket.socket:
        if self.adapter.is_cut:  # this is another try, which nobody awaits
            raise NewConnectionError(self, "given up")  # type: ignore[arg-type]  # a connection, once mixed in
        sock: socket.socket = super()._new_conn()  # type: ignore[misc]  # that of what it is mixed into
        self.line = socket.fromfd(sock.fileno(), sock.family, sock.type)
        self.adapter.lines.add(self.line)
        if self.adapter.is_cut:  # while the name was looked up
            self.line.shutdown(socket.SHUT_RDWR)
        return sock

    def close(self) -> None:
        super().close()  # type: ignore[misc]  # as above
        line, self.line = self.line, None
        if line is not None:
            self.adapter.lines.discard(line)
            line.close()


_sessions = threading.local()


def kept_session(*, loopback: bool) -> Session:
    """This thread's session. It is another one after a fork, across which connections must not be shared."""
    kept: dict[tuple[int, bool], Session] = _sessions.__dict__.setdefault("kept", {})
    key = (os.getpid(), loopback)
    session = kept.get(key)
    if session is not None and time.monotonic() - session.used_at > LONGEST_IDLE_SECONDS:
        session.close()
        session = None
    if session is None:
        session = kept[key] = Session(loopback=loopback)
    session.used_at = time.monotonic()
    return session


def forget_session(session: Session) -> None:
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
            wait = super().parse_retry_after(retry_after)
        except (InvalidHeader, ValueError, TypeError, OverflowError):
            return 0.0  # nonsense is no advice
        return wait + random.random() * JITTER_SECONDS if wait > 0 else 0.0  # noqa: S311 - as above

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
        if wait > LONGEST_RETRY_AFTER + JITTER_SECONDS or time.monotonic() + wait > self.deadline:
            pool: Any = _pool  # there is none for an answer that broke off
            raise MaxRetryError(pool, url or "", error or ResponseError("no time for another try"))
        following = super().increment(method, url, response, error, _pool, _stacktrace)
        if response is not None:
            response.close()  # else urllib3 reads it to its end, which may never come
        _log.debug("trying again: %s", f"status {response.status}" if response is not None else type(error).__name__)
        return following


def retries(*, repeatable: bool, deadline: float) -> Retry:
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
    if _sending.__dict__.get("is_ours"):
        return record.levelno < logging.WARNING and _SECRET_PATH not in record.getMessage()
    return True


# urllib3 warns with the very words of a server that sends no HTTP, and those may be our own request. What it
# warns of, we tell ourselves, as an error or at DEBUG. And it logs paths.
for _module in ("connection", "connectionpool", "poolmanager", "response", "util.retry"):
    logging.getLogger(f"urllib3.{_module}").addFilter(_is_harmless)
