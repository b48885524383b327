"""A callback server on this computer that knows nothing of OAuth (RFC 8252 section 7.3).

It waits for one request that its caller accepts, and goes on waiting whatever else arrives: a favicon, a port scan,
another page's request, a connection that says nothing.
"""

from __future__ import annotations

import contextlib
import errno
import html
import io
import os
import selectors
import socket
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from typing import Any, Generic, NamedTuple, TypeVar, cast
from urllib.parse import urlsplit

from carto_auth._login import pages
from carto_auth._login.pages import Kind

#: Seconds after which a connection is closed, whatever it is doing.
CONNECTION_SECONDS = 5.0

#: Seconds until a server notices that it should end: the person waits for it.
_POLL_SECONDS = 0.02

#: Seconds for which a page that was shown can be loaded again.
LINGER_SECONDS = 1.0

Answer = TypeVar("Answer")


class Page(NamedTuple):
    """What the browser is shown. All of it is fixed by the program: nothing from a request is in it."""

    status: int
    title: str
    text: str
    kind: Kind = "other"


#: For a request, given as its query: the answer it carries (``None`` to go on waiting), and the page to show.
Judge = Callable[[str], "tuple[Answer | None, Page]"]

ALREADY_ANSWERED = Page(409, "Already done", "This login has already been answered. You can close this tab.")
NOT_HERE = Page(404, "Nothing here", "This address only takes the end of a login.")
BROKEN = Page(500, "Something went wrong", "The login could not be finished. Your Python program tells you why.", "bad")


#: By process: the server of the last login, which its page may need a moment longer. A forked child has a copy of it.
_lingering: dict[int, CallbackServer[Any]] = {}


class PortBusy(OSError):
    """Another program listens on the callback's port."""


class CallbackServer(Generic[Answer]):
    """Listens on the loopback addresses for the redirect of a browser; a context manager.

    Args:
        redirect_uri: ``http://localhost:<port>/<path>``; host, port and path must match exactly.
        judge: decides on each request that matches; called from several threads, one at a time. What it
            raises, :meth:`wait` raises.

    Raises:
        PortBusy: the port is taken.
        OSError: there is no loopback address to listen on.
    """

    def __init__(self, redirect_uri: str, judge: Judge[Answer]) -> None:
        parts = urlsplit(redirect_uri)
        self.host = parts.netloc.lower()
        self.path = parts.path
        self._judge = judge
        self._judging = threading.Lock()
        self._answer: Answer | None = None
        self._failure: BaseException | None = None
        #: To be set at the end of the wait: once the browser has its page.
        self.over = threading.Event()
        self._answered: tuple[str, Page] | None = None
        self._until = float("inf")
        self._servers = _listen_in_time(parts.port or 80, self)
        self._thread = threading.Thread(target=self._serve, daemon=True, name="carto-auth callback")
        try:
            self._thread.start()
        except RuntimeError:  # no thread can be had here
            _close(self._servers)
            raise

    def _serve(self) -> None:
        with selectors.DefaultSelector() as doors:
            for server in self._servers:
                doors.register(server, selectors.EVENT_READ, server)
            while time.monotonic() < self._until:
                for door, _ in doors.select(_POLL_SECONDS):
                    door.data.handle_request()
        _close(self._servers)

    def __enter__(self) -> CallbackServer[Answer]:
        return self

    def __exit__(self, *error: object) -> None:
        if self._answered is None:
            self.close()
            return
        # The page may be loaded again, and must not look like a failure then.
        self._until = time.monotonic() + LINGER_SECONDS
        _lingering[os.getpid()] = self

    def close(self) -> None:
        """Let go of the port."""
        self._until = 0.0
        self._thread.join()

    def wait(self, seconds: float) -> Answer | None:
        """The accepted answer; ``None`` when none came within ``seconds``. Ctrl-C ends the wait at once.

        Raises:
            BaseException: what the judge raised, or what :meth:`give_up` was given.
        """
        deadline = time.monotonic() + seconds
        while not self.over.is_set() and (left := deadline - time.monotonic()) > 0:
            self.over.wait(min(left, 0.5))  # in slices: on Windows a long wait is deaf to Ctrl-C
        if self._failure is not None:
            raise self._failure
        return self._answer

    def give_up(self, reason: BaseException) -> None:
        """End the wait with an error, unless an answer is here already; from any thread."""
        with self._judging:
            if self._answer is None:
                self._failure = reason
                self.over.set()

    def decide(self, query: str) -> tuple[Page, bool]:
        """The page for a callback with ``query``, and whether it ends the wait."""
        with self._judging:
            if self._answered is not None:
                answered, page = self._answered
                return page if query == answered else ALREADY_ANSWERED, False
            try:
                self._answer, page = self._judge(query)
            except BaseException as error:
                self._failure = error
                return BROKEN, True
            if self._answer is None:
                return page, False
            self._answered = query, page
            return page, True


def _listen_in_time(port: int, callback: CallbackServer[Any]) -> list[_Server]:
    """Servers on both loopback addresses, as soon as the last login lets go of the port, here or in another process."""
    last = _lingering.pop(os.getpid(), None)
    if last is not None:
        last.close()
    deadline = time.monotonic() + 2 * LINGER_SECONDS
    while True:
        try:
            return _listen(port, callback)
        except PortBusy:
            if time.monotonic() > deadline:
                raise
        time.sleep(_POLL_SECONDS)


def _listen(port: int, callback: CallbackServer[Any]) -> list[_Server]:
    """Servers on 127.0.0.1 and ::1: browsers try both for ``localhost``, in an order of their own."""
    servers: list[_Server] = []
    try:
        for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            try:
                servers.append(_Server(family, (address, port), callback))
            except OSError as error:
                # On Windows a port in exclusive use gives EACCES. Where one address is taken, the browser
                # may be sent to whoever took it, so one is as bad as both.
                if error.errno in (errno.EADDRINUSE, errno.EACCES):
                    raise PortBusy(error.errno, f"port {port} is in use") from None
                if family == socket.AF_INET:
                    raise
                # No IPv6 here, which is common in containers.
    except BaseException:
        _close(servers)
        raise
    return servers


def _close(servers: list[_Server]) -> None:
    for server in servers:
        with contextlib.suppress(OSError):  # on macOS a socket that listens has no other end
            server.socket.shutdown(socket.SHUT_RDWR)  # else a child that was forked meanwhile keeps the port
        server.server_close()


class _Server(ThreadingTCPServer):
    daemon_threads = True
    timeout = 0.0  # to accept a connection that is there already
    request_queue_size = 512  # a crowd at the door keeps nobody out
    # On Windows SO_REUSEADDR would let two programs share the port.
    allow_reuse_address = sys.platform != "win32"

    def __init__(self, family: socket.AddressFamily, address: tuple[str, int], callback: CallbackServer[Any]) -> None:
        self.address_family = family
        self.callback = callback
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if sys.platform == "win32":
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        super().server_bind()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a connection that breaks is what this server expects."""


class _UntilItsEnd(io.RawIOBase):
    """What a connection sends before its time is over, however slowly it comes."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._end = time.monotonic() + CONNECTION_SECONDS

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._connection.settimeout(max(0.001, self._end - time.monotonic()))
        return self._connection.recv_into(buffer)


class _Handler(BaseHTTPRequestHandler):
    timeout = CONNECTION_SECONDS  # for what is sent
    # A TLS hello or half a request line is not HTTP/0.9.
    default_request_version = "HTTP/1.1"

    def setup(self) -> None:
        super().setup()
        self.rfile = io.BufferedReader(_UntilItsEnd(self.connection))

    def do_GET(self) -> None:
        callback = cast("_Server", self.server).callback
        # A Host that is not ours is a name that was pointed at this computer (DNS rebinding).
        hosts = self.headers.get_all("Host", [])
        # As it was sent: the library takes //callback/ for /callback/, and a line without a version for a request.
        target = self.requestline.split()[1:-1]
        path, _, query = (target or [""])[0].partition("?")
        if [host.strip().lower() for host in hosts] != [callback.host] or path != callback.path:
            self._reply(NOT_HERE)
            return
        page, is_the_end = callback.decide(query)
        try:
            self._reply(page)
        finally:
            if is_the_end:
                callback.over.set()

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Our page instead of the library's, which reflects the request."""
        self.command = getattr(self, "command", None) or "GET"
        self.request_version = "HTTP/1.1"
        self._reply(NOT_HERE._replace(status=405 if code == 501 else code))  # 501: any method but GET

    def _reply(self, page: Page) -> None:
        title, text = html.escape(page.title), html.escape(page.text)
        content = pages.page(title, f"<h1>{title}</h1><p>{text}</p>", kind=page.kind).encode()
        self.close_connection = True
        self.send_response_only(page.status)
        for name, value in (*_HEADERS, ("Content-Length", str(len(content)))):
            self.send_header(name, value)
        if page.status == 405:
            self.send_header("Allow", "GET")  # RFC 9110 section 15.5.6
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: Any, **__: Any) -> None:
        """Say nothing: a callback's address holds an authorization code."""


_HEADERS = (
    ("Content-Type", "text/html; charset=utf-8"),
    ("Cache-Control", "no-store"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"),
    ("Connection", "close"),
)
