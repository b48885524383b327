"""The installed ``carto-auth`` command: in pipes, and in a terminal."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import sysconfig
import time
from datetime import datetime, timezone
from pathlib import Path

import pytest
import shtab

from carto_auth import CartoAuth, __version__
from carto_auth.cli import main, parser
from carto_auth.sandbox import walk_login

COMMAND = str(Path(sysconfig.get_path("scripts")) / "carto-auth")
FULL = Path("/dev/full")
ORDER = ["access_token", "m2m_environment", "m2m_file", "cli", "login"]


def run(*arguments, command=(COMMAND,), output=subprocess.PIPE, **environment):
    """Run the command as a script does: no terminal, nothing on its standard input."""
    return subprocess.run(
        [*command, *arguments],
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
    )


@pytest.fixture
def says(capsys):
    """Runs the command in this process: its exit code, standard output and standard error."""

    def says(*arguments):
        try:
            code = main(arguments)
        except SystemExit as end:
            code = end.code
        return code, *capsys.readouterr()

    return says


@pytest.fixture
def person(carto_sandbox, monkeypatch):
    """The sandbox for a person: its M2M application is not in the environment."""
    for variable in ("CARTO_CLIENT_ID", "CARTO_CLIENT_SECRET"):
        monkeypatch.delenv(variable)
    return carto_sandbox


@pytest.fixture
def logged_in(person, monkeypatch):
    """A person's token, which is kept."""
    login = CartoAuth.begin_oauth()
    token = login.finish(walk_login(login.url)).get_access_token()
    info = {"access_token": token, "expiration": time.time() + 86_400}
    monkeypatch.setattr("carto_auth.auth.get_oauth_token_info", lambda *_: info)
    CartoAuth.from_oauth()
    return token


def test_token_is_the_token_and_nothing_else(carto_sandbox):
    first, second = run("token"), run("token", command=(sys.executable, "-m", "carto_auth"))
    assert (first.returncode, first.stderr, first.stdout) == (0, "", second.stdout)
    assert first.stdout == "".join(first.stdout.split()) + "\n"
    assert first.stdout.count(".") == 2
    assert carto_sandbox.count("/oauth/token") == 1


def test_token_of_an_organization_is_that_of_its_login(logged_in):
    assert run("token", CARTO_API_TOKEN="of-nobody").stdout == "of-nobody\n"
    done = run("token", "--org", "acme", CARTO_API_TOKEN="of-nobody")
    assert (done.returncode, done.stdout, "carto-auth login" in done.stderr) == (4, "", True)


def test_token_as_json(logged_in, person):
    token = json.loads(run("token", "--json").stdout)
    assert (token["access_token"], token["api_base_url"]) == (logged_in, person.url)
    assert datetime.fromisoformat(token["expires_at"]) > datetime.now(timezone.utc)
    fixed = run("token", "--json", CARTO_API_TOKEN="of-nobody")
    assert json.loads(fixed.stdout)["expires_at"] is None


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("statsu",), "did you mean status?"),
        (("token", "too", "many"), "'too' is unknown"),
        (("login", "--no-browsr"), "did you mean --no-browser?"),
        (("login", "--org", ""), "it is empty"),
    ],
)
def test_wrong_usage_is_2(arguments, told, says):
    code, out, err = says(*arguments)
    assert (code, out, "usage:" in err, told in err) == (2, "", True, True)


@pytest.mark.parametrize(
    "arguments",
    [(), ("help",), ("help", "login"), ("-h",), *((name, "--help") for name in parser().get_default("commands"))],
)
def test_help_fits_40_columns(arguments, says, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    code, out, err = says(*arguments)
    assert (code, out.startswith("usage: carto-auth"), err) == (0, True, "")
    assert [line for line in out.splitlines() if len(line) > 40] == []


def test_the_version(says):
    assert says("-V") == says("--version") == (0, f"carto-auth {__version__}\n", "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completions_are_those_of_the_command(shell):
    kept = Path(__file__).parents[1] / "completions" / f"carto-auth.{shell}"
    assert kept.read_text().strip() == shtab.complete(parser(), shell=shell).strip(), "run: make completions"


def test_a_failure_is_1_and_one_line(carto_sandbox):
    done = run("token", CARTO_CLIENT_SECRET="wrong-but-MARKED")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith("carto-auth: CARTO handed out no token")
    assert "MARKED" not in done.stderr


def test_with_nothing_at_all_every_place_is_named(person):
    done = run("token")
    assert (done.returncode, done.stdout) == (4, "")
    for place in ("CARTO_API_TOKEN", "CARTO_CLIENT_ID", "CARTO_CREDENTIALS_FILE", ".carto_credentials.json", "login"):
        assert place in done.stderr


@pytest.mark.parametrize(
    ("environment", "code", "told"),
    [({}, 4, "Run: carto-auth login"), ({"CARTO_CLIENT_ID": "x"}, 1, "no client_secret in the environment")],
)
def test_status_of_nothing_good(environment, code, told):
    done = run("status", **environment)
    assert (done.returncode, told in done.stdout, done.stderr) == (code, True, "")


def test_status_of_a_person(logged_in, person):
    requests = len(person.requests)
    shown = run("status", TZ="UTC")
    assert (shown.returncode, shown.stdout.startswith("Logged in as ana@example.com, until ")) == (0, True)
    for told in ("ac_", person.url, "good until", "UTC", "token_oauth.json"):
        assert told in shown.stdout
    assert "CARTO_API_TOKEN is not set" in run("status", "-v").stdout
    assert "CARTO_API_TOKEN" not in shown.stdout
    as_json = run("status", "--json")
    status = json.loads(as_json.stdout)
    assert (status["usable"], status["email"], status["api_base_url"]) == (True, "ana@example.com", person.url)
    assert [source["kind"] for source in [*status["passed_over"], status["source"]]] == ORDER
    assert status["expiration"] == datetime.fromisoformat(status["expires_at"]).timestamp() > time.time()
    assert len(person.requests) == requests, "status asks nobody"
    for piece in logged_in.split("."):
        assert piece not in shown.stdout + as_json.stdout


def test_status_and_logout_of_an_application(carto_sandbox):
    assert "The first program that needs one fetches it" in run("status").stdout
    run("token")
    status = json.loads(run("status", "--json").stdout)
    assert (status["usable"], status["source"]["kind"], status["expiration"] > time.time()) == (True, ORDER[1], True)
    of_login = json.loads(run("status", "--json", "--org", "acme").stdout)
    assert (of_login["usable"], of_login["source"]["kind"], of_login["passed_over"]) == (False, "login", [])
    done = run("logout")
    for told in ("no login to forget", "M2M token is forgotten", "CARTO_CLIENT_ID is set"):
        assert told in done.stderr
    assert "The first program that needs one fetches it" in run("status").stdout


def test_status_of_what_is_not_cached():
    status = json.loads(run("status", "--json", CARTO_API_TOKEN="t", CARTO_API_BASE_URL="https://x.carto.com").stdout)
    assert (status["usable"], status["source"]["kind"], status["cache_file"]) == (True, ORDER[0], None)
    file = Path.home() / ".carto_credentials.json"
    file.write_text(json.dumps({"current_profile": "a", "profiles": {"a": {"token": "t", "tenant_id": "gcp-x"}}}))
    file.chmod(0o600)
    done = run("status")
    assert (done.returncode, done.stdout.startswith("Logged in")) == (0, True)
    claims = base64.urlsafe_b64encode(json.dumps({"exp": 1000}).encode()).decode().rstrip("=")
    ended = f"e30.{claims}.x"
    done = run("status", CARTO_API_TOKEN=ended, CARTO_API_BASE_URL="https://x.carto.com")
    assert (done.returncode, "The token has ended. Make a new one." in done.stdout) == (1, True)


def test_status_of_a_login_that_renews_itself(logged_in):
    file = Path.home() / ".carto-auth" / "token_oauth.json"
    document = json.loads(file.read_text())
    for entry in document["tokens"].values():
        entry.update(access_token="ended", expiration=1000, refresh_token="again")
    file.write_text(json.dumps(document))
    done = run("status")
    assert (done.returncode, "renews it" in done.stdout) == (0, True)


def test_logout(logged_in):
    done = run("logout", CARTO_CLIENT_ID="half")  # forgets the login although the other credentials are broken
    assert (done.returncode, "The login is forgotten." in done.stderr) == (1, True)
    assert "CARTO_CLIENT_SECRET" in done.stderr
    assert run("status").returncode == 4


def test_sandbox_prints_what_to_export(carto_sandbox):
    process = subprocess.Popen([COMMAND, "sandbox"], stdout=subprocess.PIPE, text=True)
    try:
        lines = [process.stdout.readline() for _ in range(1 + len(carto_sandbox.environment()))]
        exported = dict(line[7:].strip().split("=", 1) for line in lines[1:] if line.startswith("export "))
        unset = {line[6:].strip() for line in lines[1:] if line.startswith("unset ")}
        assert {*exported, *unset} == set(carto_sandbox.environment())
        # Somebody's real tokens and caches: in the same shell, they are neither sent nor written to.
        own = {"CARTO_API_TOKEN": "the-real-one", "CARTO_PROFILE": "mine", "CARTO_AUTH_CACHE": "redis://127.0.0.1:1"}
        assert set(own) <= unset
        after = {**own, **dict.fromkeys(unset, ""), **exported}
        assert run("token", **after).stdout.startswith("ey")
        assert [file.name for file in Path(exported["CARTO_AUTH_HOME"]).glob("*.json")] == ["token_m2m.json"]
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
        assert not Path(exported["CARTO_AUTH_HOME"]).exists()
        process.stdout.close()


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
@pytest.mark.parametrize(("no_color", "colored"), [("", True), ("1", False)])
def test_colors_are_for_terminals(no_color, colored):
    import pty

    controller, terminal = pty.openpty()
    assert run("status", output=terminal, NO_COLOR=no_color, TERM="xterm").stderr == ""
    shown = os.read(controller, 65_536)
    for end in (controller, terminal):
        os.close(end)
    assert (b"\033[1m" in shown) is colored


@pytest.mark.skipif(not FULL.is_char_device(), reason="there is no /dev/full here")
@pytest.mark.parametrize("arguments", [("token",), ("status",), ("--help",)])
def test_an_output_that_cannot_be_written(logged_in, arguments, monkeypatch):
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # argparse says nothing of what it could not write at once
    with FULL.open("w") as full:
        done = run(*arguments, output=full)
    assert done.returncode == 1
    assert done.stderr == "carto-auth: the output could not be written (No space left on device)\n"


def test_no_output_at_all(logged_in):
    done = run(command=("/bin/sh", "-c", f"{COMMAND} token >&-"))
    assert (done.returncode, done.stderr) == (1, "carto-auth: there is no standard output to write to\n")


def test_what_a_browser_says_is_no_part_of_the_token(person, tmp_path, callback_port):
    browser = tmp_path / "a-browser"
    walker = f'{sys.executable} -m carto_auth.sandbox.walker "$1"'
    browser.write_text(f"#!/bin/sh\necho Opening in existing browser session.\n{walker}\n")
    browser.chmod(0o755)
    done = run("token", BROWSER=str(browser), DISPLAY=":0")
    assert (done.returncode, done.stdout[:3], done.stdout.count("\n")) == (0, "eyJ", 1), done.stderr
    assert "existing browser session" in done.stderr
