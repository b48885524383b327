"""``carto-auth demo`` shows the main job, and is honest about it."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sysconfig
from pathlib import Path

import pytest

from carto_auth.sandbox import demo


@pytest.fixture
def demonstrate(callback_port, monkeypatch):
    """Runs the demo in this process, as on a machine without a browser; returns its exit code and what it says."""
    monkeypatch.setenv("CI", "true")
    said = []
    return lambda: (demo.run(said.append), "\n".join(said))


def test_the_command_shows_the_main_job(callback_port, tmp_path):
    mine = tmp_path / "mine.json"
    for name in ("carto_auth", "requests", "walker", "secrets"):  # what lies where one stands is not run
        (tmp_path / f"{name}.py").write_text("raise SystemExit('a stranger')")
    done = subprocess.run(
        [Path(sysconfig.get_path("scripts")) / "carto-auth", "demo"],
        env={**os.environ, "CARTO_AUTH_CACHE": str(mine), "CARTO_API_TOKEN": "mine", "PYTHONIOENCODING": "ascii"},
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for shown in ("from_m2m", "from_oauth", "carto-dw-ac-sandbox", "Shanghai", "token_oauth.json", "600", "same token"):
        assert shown in done.stdout
    assert re.search(r"eyJ[\w.-]{20}|ya29\.[\w.-]{20}", done.stdout) is None, "a token is shown whole"
    assert not mine.exists()
    assert not (Path.home() / ".carto-auth").exists()


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("QUERY", demo.QUERY.replace("LIMIT 5", "LIMIT 4"), "gave 4 rows instead of 5"),
        ("SECOND_PROGRAM", "raise SystemExit('broken')", "broken"),
    ],
)
def test_a_step_that_fails_is_told(demonstrate, monkeypatch, name, text, told):
    before = dict(os.environ)
    monkeypatch.setattr(demo, name, text)
    code, said = demonstrate()
    assert (code, told in said.partition("The demo failed:")[2]) == (1, True)
    assert dict(os.environ) == before


def test_a_busy_port_is_told(demonstrate, monkeypatch):
    monkeypatch.setattr("carto_auth._login.callback.LINGER_SECONDS", 0.0)  # nobody waits for the last login's end
    with socket.create_server(("127.0.0.1", 10000)):
        code, said = demonstrate()
    assert (code, "The demo failed:" in said) == (1, True)
