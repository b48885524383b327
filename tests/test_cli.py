"""The installed ``carto-auth`` command: in pipes, and in a terminal."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import pytest

from carto_auth import CartoAuth
from carto_auth.sandbox import CartoSandbox

COMMAND = str(Path(sysconfig.get_path("scripts")) / "carto-auth")


@pytest.fixture
def sandbox():
    with CartoSandbox() as running:
        yield running


def run(*arguments, **environment):
    """Run the command as a script does: no terminal, nothing on its standard input."""
    return subprocess.run(
        [COMMAND, *arguments],
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )


def login_environment(sandbox):
    """The sandbox, but for its M2M application, so that a person's login is what there is."""
    return {name: value for name, value in sandbox.environment().items() if not name.startswith("CARTO_CLIENT")}


@pytest.fixture
def logged_in(sandbox, monkeypatch):
    """The environment of a person whose login is kept."""
    environment = login_environment(sandbox)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("carto_auth.auth.get_oauth_token_info", lambda *arguments: person_token(sandbox))
    CartoAuth.from_oauth()
    return environment


def person_token(sandbox):
    from carto_auth.pkce import CartoPKCE
    from carto_auth.sandbox.walker import walk_login

    login = CartoPKCE(open_browser=False)
    return login.get_token_info(walk_login(login.get_authorize_url()))


def test_token_is_the_token_and_nothing_else(sandbox):
    first, second = (run("token", **sandbox.environment()) for _ in range(2))
    assert (first.returncode, first.stderr, first.stdout) == (0, "", second.stdout)
    assert first.stdout.count(".") == 2
    assert first.stdout.endswith("\n")
    assert not any(character.isspace() for character in first.stdout[:-1])
    assert sandbox.count("/oauth/token") == 1


def test_module_is_the_command(sandbox):
    command = [sys.executable, "-m", "carto_auth", "token"]
    done = subprocess.run(command, env={**os.environ, **sandbox.environment()}, capture_output=True, text=True)
    assert done.stdout == run("token", **sandbox.environment()).stdout


@pytest.mark.parametrize("arguments", [(), ("nonsense",), ("token", "too", "many"), ("login", "--nonsense")])
def test_wrong_usage_is_2(arguments):
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "usage:" in done.stderr


@pytest.mark.parametrize("arguments", [("--help",), ("token", "--help"), ("status", "--help")])
def test_help(arguments):
    done = run(*arguments)
    assert done.returncode == 0
    assert "usage: carto-auth" in done.stdout


def test_failure_is_1_and_one_line(sandbox):
    done = run("token", **{**sandbox.environment(), "CARTO_CLIENT_SECRET": "wrong-but-MARKED"})
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("carto-auth: CARTO handed out no token")
    assert done.stderr.count("\n") == 1
    assert "MARKED" not in done.stderr


def test_token_without_anybody_to_ask_does_not_hang(sandbox):
    done = run("token", **login_environment(sandbox))
    assert (done.returncode, done.stdout) == (1, "")
    assert "carto-auth login" in done.stderr


def test_status_of_nobody():
    done = run("status")
    assert done.returncode == 1
    assert "carto-auth login" in done.stdout
    assert done.stderr == ""


def test_status_of_a_person(logged_in, sandbox):
    done = run("status", **logged_in, TZ="UTC")
    assert done.returncode == 0
    for told in ("ana@example.com", "ac_", sandbox.url, "good until", "UTC", "token_oauth.json", "CARTO_API_TOKEN"):
        assert told in done.stdout
    assert "\033" not in done.stdout


def test_status_as_json(logged_in, sandbox):
    before = len(sandbox.requests)
    done = run("status", "--json", **logged_in)
    status = json.loads(done.stdout)
    assert status["usable"] is True
    assert status["source"]["kind"] == "login"
    assert [source["kind"] for source in status["passed_over"]] == [
        "access token",
        "m2m environment",
        "m2m file",
        "cli",
    ]
    assert (status["email"], status["api_base_url"]) == ("ana@example.com", sandbox.url)
    assert status["expiration"] > time.time()
    assert len(sandbox.requests) == before, "status asks nobody"


def test_status_shows_no_token(logged_in):
    token = run("token", **logged_in).stdout.strip()
    shown = run("status", **logged_in).stdout + run("status", "--json", **logged_in).stdout
    assert token
    assert token not in shown
    assert token.split(".")[1] not in shown


def test_status_of_something_broken():
    done = run("status", CARTO_CLIENT_ID="x")
    assert done.returncode == 1
    assert "CARTO_CLIENT_SECRET" in done.stdout


def test_logout_forgets(logged_in):
    assert "forgotten" in run("logout", **logged_in).stderr
    assert run("status", **logged_in).returncode == 1
    assert "no login to forget" in run("logout", **logged_in).stderr


def test_logout_forgets_an_application_too(sandbox):
    run("token", **sandbox.environment())
    done = run("logout", **sandbox.environment())
    assert "M2M token is forgotten" in done.stderr
    assert "CARTO_CLIENT_ID is set" in done.stderr
    run("token", **sandbox.environment())
    assert sandbox.count("/oauth/token") == 2


def test_sandbox_prints_what_to_export(sandbox):
    process = subprocess.Popen([COMMAND, "sandbox"], stdout=subprocess.PIPE, text=True)
    try:
        lines = [process.stdout.readline() for _ in range(1 + len(sandbox.environment()))]
        exported = dict(line.removeprefix("export ").strip().split("=", 1) for line in lines[1:])
        assert set(exported) == set(sandbox.environment())
        assert run("token", **exported).returncode == 0
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
        process.stdout.close()


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
@pytest.mark.parametrize(("no_color", "colored"), [("", True), ("1", False)])
def test_colors_are_for_terminals(logged_in, no_color, colored):
    assert ("\033[1m" in in_a_terminal("status", **logged_in, NO_COLOR=no_color, TERM="xterm")) is colored


def in_a_terminal(*arguments, **environment):
    """What the command shows in a pseudo-terminal."""
    import pty

    controller, terminal = pty.openpty()
    with subprocess.Popen(
        [COMMAND, *arguments],
        env={**os.environ, **environment},
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
    ):
        os.close(terminal)
        shown = b""
        while True:
            try:
                chunk = os.read(controller, 65_536)
            except OSError:  # Linux's way to say that the other end is closed
                break
            if not chunk:
                break
            shown += chunk
    os.close(controller)
    return shown.decode()


def test_logout_forgets_the_login_although_m2m_credentials_are_broken(logged_in):
    done = run("logout", **{**logged_in, "CARTO_CLIENT_ID": "half"})
    assert done.returncode == 1
    assert "The login is forgotten." in done.stderr
    assert "CARTO_CLIENT_SECRET" in done.stderr


def test_status_of_a_login_that_renews_itself(logged_in):
    file = Path.home() / ".carto-auth" / "token_oauth.json"
    document = json.loads(file.read_text())
    for entry in document["tokens"].values():
        entry.update(access_token="ended", expiration=1000, refresh_token="again")
    file.write_text(json.dumps(document))
    done = run("status", **logged_in)
    assert (done.returncode, "renews it" in done.stdout) == (0, True)


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="there is no /dev/full here")
@pytest.mark.parametrize("command", ["token", "status"])
def test_an_output_that_cannot_be_written(logged_in, command):
    with open("/dev/full", "w") as full:
        environment = {**os.environ, **logged_in}
        done = subprocess.run([COMMAND, command], env=environment, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert done.stderr == "carto-auth: the output could not be written (No space left on device)\n"


def test_no_output_at_all(logged_in):
    done = subprocess.run(
        f"{COMMAND} token >&-", shell=True, env={**os.environ, **logged_in}, stderr=subprocess.PIPE, text=True
    )
    assert (done.returncode, done.stderr) == (1, "carto-auth: there is no standard output to write to\n")


def test_what_a_browser_says_is_no_part_of_the_token(sandbox, tmp_path, callback_port):
    browser = tmp_path / "a-browser"
    browser.write_text(
        f'#!/bin/sh\necho Opening in existing browser session.\n{sys.executable} -m carto_auth.sandbox.walker "$1"\n'
    )
    browser.chmod(0o755)
    done = run("token", **login_environment(sandbox), BROWSER=str(browser))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("eyJ")
    assert done.stdout.count("\n") == 1
    assert "existing browser session" in done.stderr


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="there is no /dev/full here")
def test_help_that_cannot_be_written(monkeypatch):
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # argparse says nothing of what it could not write at once
    with open("/dev/full", "w") as full:
        done = subprocess.run([COMMAND, "--help"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, "could not be written" in done.stderr) == (1, True)


def test_status_of_an_organization_is_that_of_its_login(sandbox):
    told = json.loads(run("status", "--org", "acme", "--json", **sandbox.environment()).stdout)
    assert (told["source"]["kind"], told["usable"]) == ("login", False)


def test_with_nothing_at_all_every_place_is_named(sandbox):
    done = run("token", **login_environment(sandbox), CI="true")
    assert done.returncode == 1
    for place in ("CARTO_API_TOKEN", "CARTO_CLIENT_ID", "CARTO_CREDENTIALS_FILE", ".carto_credentials.json", "login"):
        assert place in done.stderr
