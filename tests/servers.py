"""Servers of the tests' own, on loopback: one that does what it is told to a connection, and a proxy.

The sandbox is a good server. These are for what good servers do not do.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time


class Request:
    """A request as it came in."""

    def __init__(self, head, body):
        self.raw = head + body
        self.body = body.decode()
        request_line, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
        self.method, self.path, _ = request_line.split(" ", 2)
        self.headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}


class Line:
    """One connection, as a script sees it."""

    def __init__(self, server, connection, number):
        self.server = server
        self.connection = connection
        #: Which connection of the server this is, from 1.
        self.number = number
        self.file = connection.makefile("rb")

    def request(self):
        """The next request; ``None`` when the client has closed the connection."""
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            line = self.file.readline()
            if not line:
                return None
            head += line
        request = Request(head, b"")
        request = Request(head, self.file.read(int(request.headers.get("content-length", 0))))
        self.server.requests.append(request)
        return request

    def send(self, content):
        self.connection.sendall(content)

    def wait_until_closed(self):
        """Say nothing until the client closes the connection."""
        while self.file.read(1):
            pass

    def drip(self, content=b"x"):
        """Send ``content`` again and again, in small pieces, until the client has enough of it."""
        while not self.server.stopping.wait(0.01):
            self.send(content)


class Server:
    """Runs ``script(line)`` for each connection; with ``tls``, a server-side SSL context, over TLS."""

    def __init__(self, script, *, tls=None):
        self.script = script
        self.tls = tls
        self.requests = []
        self.connections = 0
        self.stopping = threading.Event()
        self.open = set()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self.port}"
        self.threads = [threading.Thread(target=self._accept)]

    def __enter__(self):
        self.threads[0].start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for connection in list(self.open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self.threads:
            thread.join(5)
            assert not thread.is_alive()

    def _accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            self.open.add(connection)
            thread = threading.Thread(target=self._serve, args=(connection, self.connections))
            self.threads.append(thread)
            thread.start()

    def _serve(self, connection, number):
        with contextlib.ExitStack() as stack:
            stack.callback(self.open.discard, connection)
            stack.enter_context(contextlib.suppress(OSError, ValueError))  # the client went away, or we did
            stack.enter_context(connection)
            if self.tls is not None:
                connection.getpeername()  # a client that has gone is an OSError here; wrap_socket would leak it
                secure = self.tls.wrap_socket(connection, server_side=True)
                self.open.add(secure)
                stack.callback(self.open.discard, secure)
                connection = stack.enter_context(secure)
            line = Line(self, connection, number)
            with line.file:
                self.script(line)
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


def http(body=b"", status=200, reason="-", **headers):
    """The bytes of an answer; header names are written with ``_`` for ``-``."""
    if isinstance(body, (dict, list)):
        body = json.dumps(body).encode()
    if isinstance(body, str):
        body = body.encode()
    headers = {"Content_Length": len(body), **headers}
    lines = [f"HTTP/1.1 {status} {reason}", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def answering(*answers):
    """A script: the answers in turn over all connections, the last one for ever. A callable gets the request."""
    left = list(answers)

    def script(line):
        while (request := line.request()) is not None:
            answer = left.pop(0) if len(left) > 1 else left[0]
            line.send(answer(request) if callable(answer) else answer)

    return script


def then_closing(*pieces):
    """A script: read a request, send the pieces, close the connection."""

    def script(line):
        line.request()
        for piece in pieces:
            line.send(piece)

    return script


def connect_proxy(targets, *, status=200):
    """A script: a proxy for CONNECT (RFC 9110 section 9.3.6). ``targets`` says which port stands for which host."""

    def script(line):
        request = line.request()
        if request is None:
            return
        if status != 200 or request.path not in targets:
            line.send(http(status=status if status != 200 else 502))
            return
        with socket.create_connection(("127.0.0.1", targets[request.path])) as target:
            line.send(b"HTTP/1.1 200 -\r\n\r\n")
            back = threading.Thread(target=_pump, args=(target, line.connection))
            back.start()
            _pump(line.connection, target)
            back.join()

    return script


def _pump(source, target):
    with contextlib.suppress(OSError):
        while piece := source.recv(65_536):
            target.sendall(piece)
    for end in (source, target):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def wait_for(condition, seconds=20):
    """Wait for what another thread or process is about to bring about."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{condition} did not come about"
        time.sleep(0.01)  # between two looks
