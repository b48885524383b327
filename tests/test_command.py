"""What the command does with logins: in one step and in two, kept and forgotten; and what it says of them."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from carto_auth import CartoAuth, cache
from carto_auth.cli import main
from carto_auth.sandbox import walk_login

HOME_FILE = Path(".carto-auth", "token_oauth.json")


@pytest.fixture(autouse=True)
def person(carto_sandbox, monkeypatch):
    """The sandbox for a person: its M2M application is not in the environment."""
    for variable in ("CARTO_CLIENT_ID", "CARTO_CLIENT_SECRET"):
        monkeypatch.delenv(variable)
    yield carto_sandbox
    logging.getLogger("carto_auth").handlers.clear()  # of -v


@pytest.fixture
def run(capsys):
    """Runs the command in this process: its exit code, standard output and standard error."""

    def run(*arguments):
        capsys.readouterr()
        return main(arguments), *capsys.readouterr()

    return run


@pytest.fixture
def log_in(run):
    """Logs a person in, in two steps."""

    def log_in(*arguments):
        _, link, _ = run("login", "--no-wait", "--force", *arguments)
        assert run("login", "--answer", walk_login(link.strip()))[0] == 0

    return log_in


def pending():
    return Path.home() / ".carto-auth" / "login_pending.json"


# ---- in two steps --------------------------------------------------------------------------------


@pytest.mark.parametrize("org", [None, "no SSO"])
def test_a_login_in_two_steps(run, person, org):
    code, link, told = run("login", "--no-wait", *(["--org", org] if org else []))
    assert (code, link.count("\n"), "carto-auth login --answer CODE" in told) == (0, 1, True)
    assert ("called 'no SSO', so this is the usual login" in told) is bool(org)
    assert pending().stat().st_mode & 0o777 == 0o600
    answer = walk_login(link.strip())
    for wrong in ("https://evil.example/?code=x", f"{person.url}/auth/token?code=x&state=another", ""):
        code, _, told = run("login", "--answer", wrong)
        assert (code, "Begin a new login" in told) == (1, True)
    code, out, told = run("login", "--answer", answer)
    assert (code, out, "Logged in as ana@example.com" in told, person.url in told) == (0, "", True, True)
    assert not pending().exists()
    assert CartoAuth.default(interactive=False, org=org).get_api_base_url() == person.url
    assert "No login is waiting" in run("login", "--answer", answer)[2], "it is good for one code"


def test_the_second_step_is_another_process_and_reads_the_answer(run, person):
    answer = walk_login(run("login", "--no-wait")[1].strip())
    command = [sys.executable, "-m", "carto_auth", "login", "--answer", "-"]
    done = subprocess.run(command, input=f"{answer}\n", capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_an_answer_from_an_input_that_is_closed(run, monkeypatch):
    run("login", "--no-wait")
    monkeypatch.setattr(sys, "stdin", None)
    code, out, told = run("login", "--answer", "-")
    assert (code, out, told.startswith("carto-auth: ")) == (1, "", True)


@pytest.mark.parametrize("change", ["ten minutes", "another CARTO", "damage"])
def test_a_pending_login_that_is_not_good_any_more(run, monkeypatch, clock, change):
    answer = walk_login(run("login", "--no-wait")[1].strip())
    if change == "ten minutes":
        clock.ahead += 601
    elif change == "damage":
        pending().write_text("{}")
    else:
        monkeypatch.setenv("CARTO_AUTH_URL", "https://auth.another.example")
    code, _, told = run("login", "--answer", answer)
    assert (code, "carto-auth login --no-wait" in told) == (1, True)


# ---- logging in ----------------------------------------------------------------------------------


def test_who_is_logged_in_is_not_asked_again(run, log_in, person):
    log_in()
    before = len(person.requests)
    code, out, told = run("login")
    assert (code, out, told.startswith("Already logged in as ana@example.com, until ")) == (0, "", True)
    assert len(person.requests) == before
    assert run("login", "--force", "--no-wait")[1].startswith("http")


@pytest.mark.parametrize("arguments", [(), ("--no-browser",), ("--no-wait",)])
def test_a_login_that_cannot_be_kept_asks_nobody(run, monkeypatch, person, tmp_path, arguments):
    monkeypatch.setenv("CARTO_AUTH_HOME", "/dev/null/nowhere")
    code, out, told = run("login", *arguments)
    assert (code, out, "cannot be kept in /dev/null/nowhere" in told, "Set CARTO_AUTH_HOME" in told) == (
        1,
        "",
        True,
        True,
    )
    assert person.requests == []


def test_where_nobody_can_be_asked_the_two_steps_are_named_and_not_the_command_itself(run, monkeypatch):
    monkeypatch.setenv("CI", "true")
    code, out, told = run("login")
    assert (code, out, "carto-auth login --no-wait" in told, told.count("carto-auth login")) == (4, "", True, 1)


def test_the_organization_of_the_environment(run, log_in, person, monkeypatch):
    monkeypatch.setenv("CARTO_ORG", person.organization_name)
    log_in()
    assert run("token")[0] == 0
    assert CartoAuth.from_oauth(interactive=False).organization_id == person.organization_id
    monkeypatch.delenv("CARTO_ORG")
    advice = f"use it by --org {person.organization_name}, or set CARTO_ORG={person.organization_name}."
    code, _, told = run("token")
    assert (code, advice in told) == (4, True)
    code, shown, _ = run("status")
    assert (code, advice in shown) == (4, True)
    assert json.loads(run("status", "--json")[1])["other_logins"] == [person.organization_name]
    assert run("status", "--org", person.organization_name)[0] == 0
    for shown in (run("status", "--org", "another")[1], run("token", "--org", "another")[2]):
        assert "carto-auth login --org another" in shown


# ---- what is kept --------------------------------------------------------------------------------


def test_accounts_and_logging_out_of_all(run, log_in, person, monkeypatch):
    assert run("accounts") == (0, "", "Nothing is kept here. Log in with: carto-auth login\n")
    log_in("--org", person.organization_name)
    log_in()
    application = CartoAuth.from_m2m(client_id=person.client_id, client_secret=person.client_secret)
    application.restricted_to([("carto_dw", "project.dataset.table")])
    monkeypatch.setenv("CARTO_AUTH_URL", f"{person.url}/another")  # an account of another CARTO's is one too
    code, shown, _ = run("accounts")
    titles = [line for line in shown.splitlines() if not line.startswith(" ")]
    assert (code, titles) == (
        0,
        [
            f"Login of ana@example.com to {person.organization_name}",
            "Login of ana@example.com",
            f"Token of the M2M application {person.client_id}",
            "Token of a map",
        ],
    )
    assert (shown.count("good until"), shown.count("does not expire")) == (3, 1)
    assert (shown.count(person.url) >= 4, str(HOME_FILE) in shown) == (True, True)
    code, _, told = run("logout", "--all")
    assert (code, told.count("is forgotten")) == (0, 4)
    assert run("logout", "--all") == (0, "", "Nothing is kept here. Log in with: carto-auth login\n")
    assert run("accounts")[1] == ""


@pytest.mark.parametrize("place", ["a Redis that is gone", "a damaged file"])
@pytest.mark.parametrize("arguments", [("accounts",), ("logout", "--all")])
def test_a_place_that_cannot_be_read_is_not_told_as_empty(run, log_in, monkeypatch, place, arguments):
    log_in()
    told = "token_oauth.json cannot be read (it is damaged"
    if place == "a damaged file":
        (Path.home() / HOME_FILE).write_text("{")
    else:
        monkeypatch.setenv("CARTO_AUTH_CACHE", "redis://:MARKED@127.0.0.1:1/0")
        told = "redis://127.0.0.1:1/0 cannot be read (Redis: Connection refused)"
    code, shown, said = run(*arguments)
    assert (code, told in said, "Nothing is kept" in said, "MARKED" in shown + said) == (1, True, False, False)


def test_a_login_of_0_2_0_is_an_account_too(run):
    file = cache.get_cache_filepath("oauth")
    cache.save_cache_file(file, {"access_token": "opaque", "expiration": 4_000_000_000, "api_base_url": "https://x"})
    assert run("accounts")[1].startswith("Login\n")
    assert run("logout", "--all") == (0, "", "The login is forgotten.\n")
    assert cache.load_cache_file(file) is None


def test_a_logout_that_does_not_revoke_is_told(run, log_in, person):
    log_in()
    document = json.loads((Path.home() / HOME_FILE).read_text())
    for entry in document["tokens"].values():
        entry["refresh_token"] = "again"
    (Path.home() / HOME_FILE).write_text(json.dumps(document))
    person.outage = {"/oauth/revoke": 500}
    for arguments in (["logout"], ["logout", "--all"]):
        (Path.home() / HOME_FILE).write_text(json.dumps(document))
        code, _, told = run(*arguments)
        assert (code, "CARTO did not revoke it" in told) == (1, True)


def test_a_broken_cache_is_told(run, log_in):
    log_in()
    (Path.home() / HOME_FILE).write_text("{")
    code, shown, _ = run("status")
    assert (code, "it is damaged, and counts as empty" in shown) == (4, True)
    assert "damaged" in json.loads(run("status", "--json")[1])["cache_problem"]


def test_an_account_without_an_organization_is_told_as_that(run, person):
    person.has_tenant = False
    answer = walk_login(run("login", "--no-wait", "--org", "acme")[1].strip())
    code, _, told = run("login", "--answer", answer)
    assert (code, "does not belong to a CARTO organization" in told) == (1, True)
    code, shown, _ = run("status", "--org", "acme")
    assert (code, "its API base URL could not be found" in shown) == (1, True)
    for link in (told, run("status", "--org", "acme", "--check")[1]):
        assert f"/sso/{person.organization_id} once" in " ".join(link.split())


# ---- the doctor ----------------------------------------------------------------------------------


@pytest.mark.parametrize("who", ["person", "application"])
def test_check_asks_every_service(run, log_in, person, monkeypatch, who):
    if who == "person":
        log_in()
    else:
        monkeypatch.setenv("CARTO_CLIENT_ID", person.client_id)
        monkeypatch.setenv("CARTO_CLIENT_SECRET", person.client_secret)
    code, shown, _ = run("status", "--check", "--json")
    checks = {check["name"]: check["ok"] for check in json.loads(shown)["checks"]}
    assert (code, checks) == (0, dict.fromkeys(["Token service", "Token", "Accounts", "API", "Warehouse"], True))
    person.has_warehouse = False
    code, shown, _ = run("status", "--check")
    assert (code, "failed: CARTO handed out no warehouse token" in shown, shown.count("ok: ")) == (1, True, 4)


def test_what_a_check_has_asked_is_not_advised(run, monkeypatch, person):
    monkeypatch.setenv("CARTO_API_TOKEN", "of-nobody")
    monkeypatch.setenv("CARTO_API_BASE_URL", person.url)
    assert "was not checked: carto-auth status --check" in " ".join(run("status")[1].split())
    code, shown, _ = run("status", "--check")
    assert (code, "--check" in shown, "answered 401" in shown) == (1, False, True)


def test_check_without_a_token_asks_what_needs_none(run, monkeypatch):
    code, shown, _ = run("status", "--check", "-v")
    assert (code, shown.count("ok: "), shown.count("failed: there is none that is good\n")) == (4, 1, 1)
    assert shown.count("Passed over") == 4


# ---- words and streams ---------------------------------------------------------------------------


#: Runs commands; exits with 0 if each was done or needs a login.
RUN_ALL = """
import sys
from carto_auth import cli
sys.exit(any([cli.main(command.split()) not in (0, 4) for command in sys.argv[1:]]))
"""


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_streams_and_names_of_any_encoding(encoding, tmp_path):
    home = os.fsencode(tmp_path) + b"/\xff\xe9\xe4\xb8\x80"
    os.makedirs(home)
    environment = {**os.environb, b"HOME": home, b"PYTHONIOENCODING": encoding.encode(), b"CARTO_PROFILE": b"\xff"}
    commands = ("status -v", "status --json", "accounts", "token", "logout", "login --no-wait", "login")
    done = subprocess.run(
        [sys.executable, "-c", RUN_ALL, *commands],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
    )
    assert b"Traceback" not in done.stderr, done.stderr
    assert done.returncode == 0, done.stderr


def test_warnings_are_one_line(run, monkeypatch):
    file = Path.home() / ".carto_credentials.json"
    file.write_text(json.dumps({"token": "t", "tenant_id": "gcp-x"}))
    file.chmod(0o644)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        code, out, told = run("token")
    assert (code, out, told.count("\n")) == (0, "t\n", 1)
    assert told.startswith("carto-auth: warning: Others on this computer can read")


@pytest.mark.parametrize("by", ["token -v", "-v token", "CARTO_AUTH_LOG"])
def test_a_command_can_be_followed(run, log_in, monkeypatch, by):
    log_in()
    if by == "CARTO_AUTH_LOG":
        monkeypatch.setenv(by, "debug")
        by = "token"
    _, out, told = run(*by.split())
    assert (out.count("\n"), "carto-auth: found a good token in" in told) == (1, True)


def test_ctrl_c_is_130(run, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(CartoAuth, "default", interrupted)
    assert run("token") == (130, "", "carto-auth: interrupted\n")


def test_remedies_speak_of_the_commands_options(run, monkeypatch, person):
    monkeypatch.setenv("CARTO_API_TOKEN", "t")
    monkeypatch.delenv("CARTO_API_BASE_URL")
    code, _, told = run("token")
    assert (code, "Set CARTO_API_BASE_URL." in told, "api_base_url=" in told) == (1, True, False)
