"""Real components: browsers, notebooks, terminals, clusters, Redis. ``make test-peers`` runs them."""

import re

import pytest

#: What a person's program does, in a line of Python. (In the background of a shell, Ctrl-C is ignored from the start.)
LOG_IN = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
LOG_IN += "from carto_auth import CartoAuth; auth = CartoAuth.from_oauth({}); print('API:', auth.get_api_base_url())"


@pytest.fixture
def carto(carto_sandbox, monkeypatch, tmp_path):
    """A sandbox, and an environment that leads programs to it and to a cache of the test's own."""
    monkeypatch.setenv("CARTO_AUTH_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONUNBUFFERED", "1")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1,localhost")
    return carto_sandbox


@pytest.fixture
def log_in():
    """The program's text, with the arguments of ``from_oauth``."""
    return LOG_IN.format


@pytest.fixture
def link_in():
    """Finds the login's link in what a program said."""

    def find(text):
        links = re.findall(r"http://127\.0\.0\.1:\d+/authorize\?[^\s\"<]+", text)
        assert links, text
        return links[-1]

    return find


@pytest.fixture
def program(tmp_path):
    """Makes a small shell script: its path."""

    def write(name, text):
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return path

    return write
