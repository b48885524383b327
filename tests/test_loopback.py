"""The callback server, over raw sockets: what it takes, and everything else that may knock."""

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

import pytest

from carto_auth._login import callback as _loopback
from carto_auth._login.callback import CallbackServer, Page, PortBusy

#: Seconds that "at once" may take on a machine that is busy with other things.
AT_ONCE = 2.0

GOOD = "state=right&code=a-code"


def judge(query):
    if query == GOOD:
        return "the answer", Page(200, "Back to Python", "Close this tab.")
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


@pytest.fixture
def server(port):
    with CallbackServer(f"http://localhost:{port}/callback/", judge) as server:
        yield server


def callback(port, *, method="GET", target=f"/callback/?{GOOD}", host="localhost:{port}", more=""):
    """The bytes of a request; by default the one that is waited for."""
    return f"{method} {target} HTTP/1.1\r\nHost: {host}\r\n{more}\r\n".format(port=port).encode()


def connect(port, address="127.0.0.1"):
    return socket.create_connection((address, port), timeout=10)


def exchange(port, request, address="127.0.0.1"):
    """Send bytes and read all of the answer: (status, headers, body); status 0 when there was none."""
    with connect(port, address) as connection:
        connection.sendall(request)
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


def assert_still_waiting(server, port):
    """The real callback arrives, and at once."""
    began = time.monotonic()
    assert exchange(port, callback(port))[0] == 200
    assert server.wait(10) == "the answer"
    assert time.monotonic() - began < AT_ONCE


def assert_port_is_free(port):
    with CallbackServer(f"http://localhost:{port}/callback/", judge):
        pass


# ---- what it takes -------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["127.0.0.1", pytest.param("::1", marks=needs_ipv6)])
def test_the_real_callback(server, port, address):
    status, _, body = exchange(port, callback(port), address)
    assert (status, "Back to Python" in body) == (200, True)
    assert server.wait(10) == "the answer"


@pytest.mark.parametrize("host", ["LOCALHOST:{port}", "localhost:{port} "])
def test_a_host_in_other_letters_is_the_same_host(server, port, host):
    assert exchange(port, callback(port, host=host))[0] == 200


def test_it_is_taken_although_the_browser_leaves_before_its_page_comes(server, port, monkeypatch):
    def left(handler, page):
        raise BrokenPipeError

    monkeypatch.setattr(_loopback._Handler, "_reply", left)
    assert exchange(port, callback(port))[0] == 0
    began = time.monotonic()
    assert server.wait(10) == "the answer"
    assert time.monotonic() - began < AT_ONCE


# ---- what it does not ----------------------------------------------------------------------------

TLS_HELLO = bytes.fromhex("16030100c8010000c40303") + bytes(range(1, 10)) + bytes(180)

REFUSED = {
    "favicon": (lambda port: callback(port, target="/favicon.ico"), 404),
    "root": (lambda port: callback(port, target="/"), 404),
    "path without its slash": (lambda port: callback(port, target=f"/callback?{GOOD}"), 404),
    "longer path": (lambda port: callback(port, target=f"/callback/x?{GOOD}"), 404),
    "path in other letters": (lambda port: callback(port, target=f"/Callback/?{GOOD}"), 404),
    "encoded path": (lambda port: callback(port, target=f"/%63allback/?{GOOD}"), 404),
    "absolute address": (lambda port: callback(port, target=f"http://localhost:{port}/callback/?{GOOD}"), 404),
    "HEAD": (lambda port: callback(port, method="HEAD"), 405),
    "OPTIONS": (lambda port: callback(port, method="OPTIONS", more="Origin: https://evil.example\r\n"), 405),
    "POST": (lambda port: callback(port, method="POST", more="Content-Length: 0\r\n"), 405),
    "CONNECT": (lambda port: callback(port, method="CONNECT", target="evil.example:443"), 405),
    "unknown method": (lambda port: callback(port, method="BREW"), 405),
    "DNS rebinding": (lambda port: callback(port, host="evil.example:{port}"), 404),
    "the address as host": (lambda port: callback(port, host="127.0.0.1:{port}"), 404),
    "host without its port": (lambda port: callback(port, host="localhost"), 404),
    "host with another port": (lambda port: callback(port, host="localhost:1"), 404),
    "host in front": (lambda port: callback(port, host="localhost:{port}.evil.example"), 404),
    "two hosts": (lambda port: callback(port, more="Host: evil.example\r\n"), 404),
    "no host": (lambda port: f"GET /callback/?{GOOD} HTTP/1.1\r\n\r\n".encode(), 404),
    "two slashes": (lambda port: callback(port, target=f"//callback/?{GOOD}"), 404),
    "no version, but a host": (lambda port: f"GET /callback/?{GOOD}\r\nHost: localhost:{port}\r\n\r\n".encode(), 404),
    "HTTP/0.9": (lambda port: f"GET /callback/?{GOOD}\r\n\r\n".encode(), 404),
    "HTTP/2": (lambda port: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "no HTTP": (lambda port: b"SSH-2.0-scanner\r\n\r\n", 400),
    "TLS hello": (lambda port: TLS_HELLO + b"\n", 400),
    "endless line": (lambda port: b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n", 414),
    "endless headers": (lambda port: callback(port, more="".join(f"X-{n}: 1\r\n" for n in range(200))), 431),
    "no state": (lambda port: callback(port, target="/callback/?code=a-code"), 400),
    "no query": (lambda port: callback(port, target="/callback/"), 400),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_and_still_waiting(server, port, name):
    request, status = REFUSED[name]
    with connect(port) as connection:
        connection.sendall(request(port))
        connection.shutdown(socket.SHUT_WR)
        got, headers, body = parsed(read_all(connection))
    assert got in (status, 0 if name.startswith("endless") else status)  # what is unread may reset the connection
    if got == 405:
        assert headers["allow"] == "GET"
    assert (body == "") == (name == "HEAD" or got == 0)
    assert "access-control-allow-origin" not in headers
    assert_still_waiting(server, port)


def reset(connection):
    """Close with a reset, as port scanners do."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@pytest.mark.parametrize("sent", [b"", b"GET /call", b"GET /callback/ HTTP/1.1\r\nHost: loc", TLS_HELLO])
@pytest.mark.parametrize("leave", [socket.socket.close, reset, None])
def test_half_a_request(server, port, sent, leave):
    with connect(port) as connection:
        connection.sendall(sent)
        if leave:
            leave(connection)
        assert_still_waiting(server, port)


@pytest.mark.parametrize("count", [50, 250])
def test_the_real_callback_comes_through_a_crowd_of_idle_connections(server, port, count):
    with contextlib.ExitStack() as stack:
        idle = [stack.enter_context(connect(port)) for _ in range(count)]
        idle[-1].sendall(b"GET /")
        assert_still_waiting(server, port)


def test_for_one_connection_too_many_the_oldest_is_closed(server, port, monkeypatch):
    monkeypatch.setattr(_loopback, "MOST_CONNECTIONS", 3)
    with contextlib.ExitStack() as stack:
        first, second, *_ = [stack.enter_context(connect(port)) for _ in range(4)]
        first.settimeout(AT_ONCE)  # less than a connection may last anyway
        assert read_all(first) == b""
        second.setblocking(False)
        with pytest.raises(BlockingIOError):
            second.recv(1)


def test_a_dripping_connection_ends(port, monkeypatch):
    monkeypatch.setattr(_loopback, "CONNECTION_SECONDS", 0.3)
    ended = threading.Event()
    with CallbackServer(f"http://localhost:{port}/callback/", judge) as server, connect(port) as connection:
        began = time.monotonic()
        connection.settimeout(0.02)
        with contextlib.suppress(OSError):
            for _ in range(500):
                connection.sendall(b"G")
                with contextlib.suppress(TimeoutError):
                    if connection.recv(100) == b"":
                        ended.set()
                        break
        assert 0.2 < time.monotonic() - began < 0.3 + AT_ONCE
        assert_still_waiting(server, port)


# ---- once ----------------------------------------------------------------------------------------


def test_a_second_callback_is_told_that_the_login_is_over(server, port):
    assert exchange(port, callback(port))[0] == 200
    status, _, body = exchange(port, callback(port))
    assert (status, "Already done" in body) == (409, True)


def test_of_many_at_the_same_time_one_is_taken(server, port):
    with ThreadPoolExecutor(20) as pool:
        statuses = list(pool.map(lambda _: exchange(port, callback(port))[0], range(20)))
    assert sorted(statuses) == [200] + [409] * 19


# ---- the end of the wait -------------------------------------------------------------------------


def test_a_deadline(server):
    began = time.monotonic()
    assert server.wait(0.05) is None
    assert 0.05 <= time.monotonic() - began < AT_ONCE


def test_the_deadline_does_not_move_with_the_clock(server, port, monkeypatch):
    hours = itertools.count(4_000_000_000, 3600)
    monkeypatch.setattr(time, "time", lambda: next(hours))
    threading.Timer(0.05, exchange, [port, callback(port)]).start()
    assert server.wait(60) == "the answer"


def test_giving_up(server):
    threading.Timer(0.02, server.give_up).start()
    began = time.monotonic()
    assert server.wait(60) is None
    assert time.monotonic() - began < AT_ONCE


def test_giving_up_after_the_answer_does_not_lose_it(server, port):
    exchange(port, callback(port))
    server.give_up()
    assert server.wait(10) == "the answer"


@pytest.fixture
def ctrl_c():
    """Python's own answer to it, also where these tests run in the background and a shell has switched it off."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_ends_the_wait_at_once(port, ctrl_c):
    def wait():
        with CallbackServer(f"http://localhost:{port}/callback/", judge) as server:
            threading.Timer(0.05, os.kill, [os.getpid(), signal.SIGINT]).start()
            server.wait(60)

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        wait()
    assert time.monotonic() - began < AT_ONCE
    assert_port_is_free(port)


def test_what_the_judge_raises_is_raised_by_the_wait(port):
    def broken(query):
        raise ZeroDivisionError

    with CallbackServer(f"http://localhost:{port}/callback/", broken) as server:
        status, _, body = exchange(port, callback(port))
        assert (status, "Something went wrong" in body) == (500, True)
        with pytest.raises(ZeroDivisionError):
            server.wait(60)
    assert_port_is_free(port)


@pytest.mark.parametrize("outcome", ["answer", "timeout", "error", "idle connections"])
def test_the_port_is_free_afterwards(port, outcome):
    with contextlib.suppress(ZeroDivisionError), contextlib.ExitStack() as stack:
        server = stack.enter_context(CallbackServer(f"http://localhost:{port}/callback/", judge))
        if outcome == "answer":
            exchange(port, callback(port))
            assert server.wait(10) == "the answer"
        elif outcome == "timeout":
            server.wait(0.01)
        elif outcome == "error":
            raise ZeroDivisionError
        else:
            idle = [connect(port) for _ in range(5)]
            stack.callback(lambda: [connection.close() for connection in idle])
            assert exchange(port, callback(port, target="/"))[0] == 404
    assert_port_is_free(port)


def test_no_thread_and_no_connection_outlives_it(port):
    before = set(threading.enumerate())
    with CallbackServer(f"http://localhost:{port}/callback/", judge), connect(port) as idle:
        assert exchange(port, callback(port))[0] == 200
        began = set(threading.enumerate()) - before
    for thread in began:
        thread.join(AT_ONCE)
    assert began
    assert not [thread for thread in began if thread.is_alive()]
    assert idle.fileno() == -1


# ---- the port ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "address"),
    [
        (socket.AF_INET, "127.0.0.1"),
        (socket.AF_INET, "0.0.0.0"),
        pytest.param(socket.AF_INET6, "::1", marks=needs_ipv6),
    ],
)
def test_a_busy_port(port, family, address):
    with socket.socket(family) as other:
        other.bind((address, port))
        other.listen()
        with pytest.raises(PortBusy):
            CallbackServer(f"http://localhost:{port}/callback/", judge)
    assert_port_is_free(port)


def without(family, monkeypatch):
    real = _loopback._Server

    def server(wanted, *arguments):
        if wanted == family:
            raise OSError(errno.EADDRNOTAVAIL, "no such address here")
        return real(wanted, *arguments)

    monkeypatch.setattr(_loopback, "_Server", server)


def test_a_computer_without_ipv6(port, monkeypatch):
    without(socket.AF_INET6, monkeypatch)
    with CallbackServer(f"http://localhost:{port}/callback/", judge) as server:
        assert_still_waiting(server, port)


def test_a_computer_without_loopback(port, monkeypatch):
    without(socket.AF_INET, monkeypatch)
    with pytest.raises(OSError, match="no such address"):
        CallbackServer(f"http://localhost:{port}/callback/", judge)


# ---- the page ------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", [f"/callback/?{GOOD}", "/callback/?state=<b>evil&error_description=evil", "/evil"])
def test_the_page_is_static_and_kept_nowhere(server, port, target):
    more = "User-Agent: evil\r\nReferer: https://evil.example\r\nCookie: evil=1\r\n"
    _, headers, body = exchange(port, callback(port, target=target, more=more))
    assert headers["cache-control"] == "no-store"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["content-type"] == "text/html; charset=utf-8"
    assert headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert int(headers["content-length"]) == len(body.encode())
    assert "server" not in headers
    for reflected in ("evil", "right", "a-code"):
        assert reflected not in body
    for active in ("<script", "<img", "<link", "http://", "https://", "onload"):
        assert active not in body
    assert 'name="viewport"' in body
    assert "prefers-color-scheme: dark" in body


def test_a_page_is_escaped():
    page = Page(200, "<b>", "a & b")
    assert "<b>" not in _loopback.render(page).decode()
    assert "a &amp; b" in _loopback.render(page).decode()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_child_that_was_forked_meanwhile_does_not_keep_the_port(port):
    with _loopback.CallbackServer(f"http://localhost:{port}/callback/", judge):
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(0)
    try:
        with socket.socket() as again:
            again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            again.bind(("127.0.0.1", port))
            again.listen()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
