"""The callback server, over raw sockets: what it takes, and everything else that may arrive."""

import contextlib
import errno
import itertools
import os
import signal
import socket
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from unittest.mock import Mock

import pytest

from carto_auth._login import callback as callbacks
from carto_auth._login.callback import CallbackServer, Page, PortBusy

#: Seconds that "at once" may take on a machine that is busy with other things.
AT_ONCE = 2.0

GOOD = "state=right&code=a-code"


def judge(query):
    if query == GOOD:
        return "the answer", Page(200, "Back to Python & <b>", "Close this tab.")
    return None, Page(400, "Not this login", "Go on waiting.")


def has_ipv6():
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="no ::1 here")


@pytest.fixture
def port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def listen(port, judge=judge):
    return CallbackServer(f"http://localhost:{port}/callback/", judge)


@pytest.fixture
def server(port):
    with listen(port) as server:
        yield server


def request(port, *, method="GET", target=f"/callback/?{GOOD}", host="localhost:{port}", more=""):
    """The bytes of a request; by default the one that is waited for."""
    return f"{method} {target} HTTP/1.1\r\nHost: {host}\r\n{more}\r\n".format(port=port).encode()


def connect(port, address="127.0.0.1"):
    return socket.create_connection((address, port), timeout=10)


def exchange(port, sent=None, address="127.0.0.1"):
    """Send bytes and read all of the answer: (status, headers, body); status 0 when there was none."""
    with connect(port, address) as connection:
        connection.sendall(request(port) if sent is None else sent)
        connection.shutdown(socket.SHUT_WR)
        return parsed(read_all(connection))


def read_all(connection):
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := connection.recv(65536):
            received += piece
    return received


def parsed(answer):
    if not answer:
        return 0, {}, ""
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    return int(first.split()[1]), {name.lower(): value for name, value in headers.items()}, body.decode()


@contextlib.contextmanager
def at_once():
    began = time.monotonic()
    yield
    assert time.monotonic() - began < AT_ONCE


def assert_still_waiting(server, port):
    with at_once():
        assert exchange(port)[0] == 200
        assert server.wait(10) == "the answer"


def assert_port_is_free(port):
    with listen(port):
        pass


def reset(connection):
    """Close with a reset, as port scanners do."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


# ---- what it takes -------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["127.0.0.1", pytest.param("::1", marks=needs_ipv6)])
@pytest.mark.parametrize("host", ["localhost:{port}", "LOCALHOST:{port}", "localhost:{port} "])
def test_the_real_callback(server, port, address, host):
    assert exchange(port, request(port, host=host), address)[0] == 200
    assert server.wait(10) == "the answer"


def test_it_is_taken_although_the_browser_leaves_before_its_page_comes(server, port):
    with connect(port) as connection:
        connection.sendall(request(port))
        reset(connection)
    with at_once():
        assert server.wait(10) == "the answer"


def test_of_many_at_the_same_time_one_is_taken(server, port):
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: exchange(port), range(20)))
    assert {(status, body) for status, _, body in answers} == {(200, answers[0][2])}
    assert server.wait(10) == "the answer"


def test_a_page_that_is_loaded_again_looks_the_same_for_a_moment_and_another_answer_is_refused(port):
    with listen(port) as server:
        first = exchange(port)
        assert server.wait(10) == "the answer"
    assert exchange(port) == first
    status, _, body = exchange(port, request(port, target="/callback/?state=right&code=another"))
    assert (status, "Already done" in body) == (409, True)
    with listen(port):  # another login does not wait until the moment is over
        assert exchange(port, request(port, target="/"))[0] == 404


@pytest.mark.parametrize("step", ["__init__", "start"])  # a subinterpreter refuses to make one
def test_without_threads_there_is_no_server_and_the_port_is_free(port, monkeypatch, step):
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, step, Mock(side_effect=RuntimeError("can't start new thread")))
        with pytest.raises(RuntimeError, match="can't start"):
            listen(port)
    assert_port_is_free(port)


# ---- what it does not ----------------------------------------------------------------------------

TLS_HELLO = bytes.fromhex("16030100c8010000c40303") + bytes(range(1, 10)) + bytes(180)

REFUSED = {
    "favicon": (lambda port: request(port, target="/favicon.ico"), 404),
    "path without its slash": (lambda port: request(port, target=f"/callback?{GOOD}"), 404),
    "longer path": (lambda port: request(port, target=f"/callback/x?{GOOD}"), 404),
    "path in other letters": (lambda port: request(port, target=f"/Callback/?{GOOD}"), 404),
    "encoded path": (lambda port: request(port, target=f"/%63allback/?{GOOD}"), 404),
    "two slashes": (lambda port: request(port, target=f"//callback/?{GOOD}"), 404),
    "absolute address": (lambda port: request(port, target=f"http://localhost:{port}/callback/?{GOOD}"), 404),
    "HEAD": (lambda port: request(port, method="HEAD"), 405),
    "OPTIONS": (lambda port: request(port, method="OPTIONS", more="Origin: https://evil.example\r\n"), 405),
    "POST": (lambda port: request(port, method="POST", more="Content-Length: 0\r\n"), 405),
    "unknown method": (lambda port: request(port, method="BREW"), 405),
    "DNS rebinding": (lambda port: request(port, host="evil.example:{port}"), 404),
    "the address as host": (lambda port: request(port, host="127.0.0.1:{port}"), 404),
    "host with another port": (lambda port: request(port, host="localhost:1"), 404),
    "host in front": (lambda port: request(port, host="localhost:{port}.evil.example"), 404),
    "two hosts": (lambda port: request(port, more="Host: evil.example\r\n"), 404),
    "no host": (lambda port: f"GET /callback/?{GOOD} HTTP/1.1\r\n\r\n".encode(), 404),
    "no version": (lambda port: f"GET /callback/?{GOOD}\r\nHost: localhost:{port}\r\n\r\n".encode(), 404),
    "HTTP/2": (lambda port: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "no HTTP": (lambda port: b"SSH-2.0-scanner\r\n\r\n", 400),
    "TLS hello": (lambda port: TLS_HELLO + b"\n", 400),
    "endless line": (lambda port: b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n", 414),
    "endless headers": (lambda port: request(port, more="".join(f"X-{n}: 1\r\n" for n in range(200))), 431),
    "no state": (lambda port: request(port, target="/callback/?code=a-code"), 400),
    "no query": (lambda port: request(port, target="/callback/"), 400),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_and_still_waiting(server, port, name):
    sent, status = REFUSED[name]
    got, headers, body = exchange(port, sent(port))
    assert got in (status, 0 if name.startswith("endless") else status)  # what is unread may reset the connection
    assert headers.get("allow") == ("GET" if got == 405 else None)
    assert (body == "") == (name == "HEAD" or got == 0)
    assert "access-control-allow-origin" not in headers
    assert_still_waiting(server, port)


@pytest.mark.parametrize("sent", [b"", b"GET /callback/ HTTP/1.1\r\nHost: loc", TLS_HELLO])
@pytest.mark.parametrize("leave", [socket.socket.close, reset, None])
def test_half_a_request(server, port, sent, leave):
    with connect(port) as connection:
        connection.sendall(sent)
        if leave:
            leave(connection)
        assert_still_waiting(server, port)


def test_the_real_callback_comes_through_a_crowd_of_idle_connections(server, port):
    with contextlib.ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(connect(port))
        assert_still_waiting(server, port)


def test_a_dripping_connection_ends(port, monkeypatch):
    monkeypatch.setattr(callbacks, "CONNECTION_SECONDS", 0.3)
    with listen(port) as server, connect(port) as connection:
        connection.settimeout(0.02)
        with at_once(), contextlib.suppress(OSError):
            while True:
                connection.sendall(b"G")
                with contextlib.suppress(TimeoutError):
                    if connection.recv(100) == b"":
                        break
        assert_still_waiting(server, port)


# ---- the end of the wait -------------------------------------------------------------------------


def test_a_deadline(server):
    with at_once():
        assert server.wait(0.05) is None


def test_the_deadline_does_not_move_with_the_clock(server, port, monkeypatch):
    hours = itertools.count(4_000_000_000, 3600)
    monkeypatch.setattr(time, "time", lambda: next(hours))
    threading.Timer(0.05, exchange, [port]).start()
    assert server.wait(60) == "the answer"


def test_giving_up(server):
    threading.Timer(0.02, server.give_up, [ZeroDivisionError()]).start()
    with at_once(), pytest.raises(ZeroDivisionError):
        server.wait(60)


def test_giving_up_after_the_answer_does_not_lose_it(server, port):
    exchange(port)
    server.give_up(ZeroDivisionError())
    assert server.wait(10) == "the answer"


@pytest.fixture
def ctrl_c():
    """Python's own answer to it, also where these tests run in the background and a shell has switched it off."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_ends_the_wait_at_once(port, ctrl_c):
    with at_once(), contextlib.suppress(KeyboardInterrupt), listen(port) as server:
        threading.Timer(0.05, os.kill, [os.getpid(), signal.SIGINT]).start()
        server.wait(60)
        pytest.fail("it was not interrupted")
    assert_port_is_free(port)


def test_what_the_judge_raises_is_raised_by_the_wait(port):
    def broken(query):
        raise ZeroDivisionError

    with listen(port, broken) as server:
        status, _, body = exchange(port)
        assert (status, "Something went wrong" in body) == (500, True)
        with pytest.raises(ZeroDivisionError):
            server.wait(60)
    assert_port_is_free(port)


def test_the_port_is_free_afterwards_although_connections_are_open(port):
    with contextlib.ExitStack() as stack:
        with listen(port) as server:
            for _ in range(5):
                stack.enter_context(connect(port))
            assert_still_waiting(server, port)
        assert_port_is_free(port)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_child_that_was_forked_meanwhile_does_not_keep_the_port(port):
    with listen(port):
        child = os.fork()
        if child == 0:
            signal.pause()
            os._exit(0)
    try:
        assert_port_is_free(port)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


# ---- the port ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "address"),
    [
        (socket.AF_INET, "127.0.0.1"),
        (socket.AF_INET, "0.0.0.0"),
        pytest.param(socket.AF_INET6, "::1", marks=needs_ipv6),
    ],
)
def test_a_busy_port(monkeypatch, port, family, address):
    monkeypatch.setattr(callbacks, "LINGER_SECONDS", 0.0)  # nobody waits for the end of a last login
    with socket.socket(family) as other:
        other.bind((address, port))
        other.listen()
        with pytest.raises(PortBusy):
            listen(port)
    assert_port_is_free(port)


@pytest.fixture
def without(monkeypatch):
    """A computer that has no loopback address of a family."""

    def take_away(family):
        real = socket.socket.bind

        def bind(self, address):
            if self.family == family:
                raise OSError(errno.EADDRNOTAVAIL, "no such address here")
            real(self, address)

        monkeypatch.setattr(socket.socket, "bind", bind)

    return take_away


def test_a_computer_without_ipv6(port, without):
    without(socket.AF_INET6)
    with listen(port) as server:
        assert_still_waiting(server, port)


def test_a_computer_without_loopback(port, without):
    without(socket.AF_INET)
    with pytest.raises(OSError, match="no such address"):
        listen(port)


# ---- the page ------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", [f"/callback/?{GOOD}", "/callback/?state=<b>evil&error_description=evil", "/evil"])
def test_the_page_is_static_escaped_and_kept_nowhere(server, port, target):
    more = "User-Agent: evil\r\nReferer: https://evil.example\r\nCookie: evil=1\r\n"
    _, headers, body = exchange(port, request(port, target=target, more=more))
    assert headers["cache-control"] == "no-store"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["content-type"] == "text/html; charset=utf-8"
    assert headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert int(headers["content-length"]) == len(body.encode())
    assert "server" not in headers
    for absent in (
        "evil",
        "state",
        "a-code",
        "<b>",
        "<script",
        "<img",
        "<link",
        "http://",
        "https://",
        " src=",
        "url(",
        "onload",
    ):
        assert absent not in body
    assert 'name="viewport"' in body
    assert "prefers-color-scheme: dark" in body
