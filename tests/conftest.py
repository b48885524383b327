import os
import signal
import tempfile
import time
import webbrowser
from pathlib import Path

import pytest
from clocks import ShiftedClock
from filelock import FileLock

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
def no_browsers(monkeypatch):
    """None of this computer's browsers, and none that another test has left: it would open, and wait for a person.

    What webbrowser has found it keeps in these two, and has no other way to forget it.
    """
    monkeypatch.setattr(webbrowser, "_tryorder", [])
    monkeypatch.setattr(webbrowser, "_browsers", {})


@pytest.fixture
def clock(monkeypatch, carto_sandbox):
    """The time of this process and of the sandbox, moved by hand."""
    clock = ShiftedClock()
    monkeypatch.setattr(time, "time", clock)
    carto_sandbox.clock = clock
    return clock


@pytest.fixture
def callback_port():
    """The port of CARTO's redirect URI, which cannot float: tests take turns, those of other processes too."""
    with FileLock(Path(tempfile.gettempdir()) / "carto-auth-tests-port-10000.lock", timeout=100):
        yield 10000
