"""What every test has: a home of its own, no browser, and a turn at the one port that tests share."""

import contextlib
import os
import signal
import socket
import time
import webbrowser
from datetime import datetime, timezone

import pytest
from clocks import ShiftedClock

from carto_auth import _account

#: What the package looks at, to know its settings and where it runs.
LOOKED_AT = ("CARTO_", "XDG_", "DATABRICKS_", "BROWSER", "DISPLAY", "WAYLAND_", "SSH_", "CI", "CODESPACES")
LOOKED_AT += ("REMOTE_CONTAINERS", "JUPYTERHUB_", "KAGGLE_", "SAGEMAKER_", "SM_", "VSCODE_", "WSL_")
LOOKED_AT += ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_", "NETRC")

# A shell that starts the tests in the background has them ignore Ctrl-C, which some of them send.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def own_home_and_environment(monkeypatch, tmp_path_factory):
    """A home of its own for each test, and nothing in the environment that the package looks at."""
    for variable in list(os.environ):
        if variable.startswith(LOOKED_AT) or variable.lower().endswith("_proxy"):
            monkeypatch.delenv(variable)
    home = str(tmp_path_factory.mktemp("home"))
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, home)


@pytest.fixture(autouse=True)
def no_refusals_of_other_tests():
    """A refused token request is remembered by the process, and a port of one test's server may be another's next."""
    _account.refusals.clear()


@pytest.fixture(autouse=True)
def no_browsers(monkeypatch):
    """None of this computer's browsers, and none that another test has left: it would open and wait for a person.

    These two are private to webbrowser, which has no other way to forget the browsers that it has found.
    """
    monkeypatch.setattr(webbrowser, "_tryorder", [])
    monkeypatch.setattr(webbrowser, "_browsers", {})


@pytest.fixture
def unmeasured(monkeypatch):
    """Interpreters that a test starts import nothing of coverage's: for tests of what is imported."""
    for variable in ("COVERAGE_PROCESS_CONFIG", "COVERAGE_PROCESS_START"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def clock(monkeypatch, carto_sandbox):
    """The time of this process and of its sandbox, moved by hand; google-auth has a private clock, in naive UTC."""
    clock = ShiftedClock()
    monkeypatch.setattr(time, "time", clock)
    monkeypatch.setattr(
        "google.auth._helpers.utcnow", lambda: datetime.fromtimestamp(clock(), timezone.utc).replace(tzinfo=None)
    )
    return clock


#: Whoever listens here has the turn at the redirect port. It reaches as far as that port does: one computer, and all
#: of its users. A lock file would belong to the user who made it and shut the others out.
TURN = ("127.0.0.1", 10009)

#: Seconds.
PATIENCE = 100


@pytest.fixture
def callback_port():
    """The port of CARTO's redirect URI, which cannot change: tests take turns, those of other processes too."""
    end = time.monotonic() + PATIENCE
    while (turn := turn_now()) is None:
        assert time.monotonic() < end, f"Another program has kept port {TURN[1]} for {PATIENCE} s."
    with turn:
        while not is_free(10000):  # the page of the last login can be loaded again for a moment
            assert time.monotonic() < end, "Another program has kept port 10000."
            time.sleep(0.02)  # between two looks
        yield 10000


def is_free(port):
    with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
        return True
    return False


def turn_now():
    """The listener that is the turn; ``None`` after the one who has it has let go of it, or was slow to."""
    with contextlib.suppress(OSError):
        return socket.create_server(TURN, backlog=128)
    # Nobody accepts this connection: it breaks when the listener closes, also where its process was killed.
    with contextlib.suppress(OSError), socket.create_connection(TURN, timeout=PATIENCE) as connection:
        connection.recv(1)
    return None
