"""``carto-auth demo``: the main job before one's eyes, and honest about it."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from carto_auth.sandbox import demo


@pytest.fixture
def demonstrate(callback_port, tmp_path, monkeypatch):
    """Runs the demo in this process, as on a machine without a browser, and returns what it says and its exit code."""
    monkeypatch.setenv("CI", "true")
    said = []

    def run():
        return demo.run(said.append), "\n".join(said)

    return run


def test_the_command_shows_the_main_job(callback_port, tmp_path):
    mine = tmp_path / "mine.json"
    done = subprocess.run(
        [sys.executable, "-m", "carto_auth", "demo"],
        env={**os.environ, "CARTO_AUTH_CACHE": str(mine), "CARTO_API_TOKEN": "mine"},
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


def test_the_environment_is_as_it_was(demonstrate):
    before = dict(os.environ)
    code, _ = demonstrate()
    assert (code, dict(os.environ)) == (0, before)


def test_a_busy_port_is_a_failure_that_is_told(demonstrate):
    with socket.create_server(("127.0.0.1", 10000)):
        code, said = demonstrate()
    assert code == 1
    assert "The demo failed:" in said


def test_a_query_with_other_rows_is_a_failure(demonstrate, monkeypatch):
    monkeypatch.setattr(demo, "QUERY", demo.QUERY.replace("LIMIT 5", "LIMIT 4"))
    code, said = demonstrate()
    assert (code, "gave 4 rows instead of 5" in said) == (1, True)


def test_a_second_program_that_fails_is_a_failure(demonstrate, monkeypatch):
    monkeypatch.setattr(demo, "SECOND_PROGRAM", "raise SystemExit('broken')")
    code, said = demonstrate()
    assert (code, "broken" in said) == (1, True)
