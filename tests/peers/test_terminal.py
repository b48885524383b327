"""A person at a real (pseudo-)terminal, and programs that have none."""

import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import time

import pexpect
import pytest

from carto_auth.sandbox.walker import walk_login

# The sandbox has threads, and a pseudo-terminal needs a fork.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

#: Seconds for a program to start and to answer; the machine may be busy.
PATIENCE = 30

#: Seconds that "at once" may take.
AT_ONCE = 5.0

WALKER = f"{shlex.quote(sys.executable)} -m carto_auth.sandbox.walker"


@pytest.fixture
def terminal(carto):
    """Runs a command in a terminal of its own."""
    running = []

    def run(*command):
        child = pexpect.spawn(
            command[0], list(command[1:]), timeout=PATIENCE, encoding="utf-8", dimensions=(40, 1000), echo=False
        )
        running.append(child)
        child.logfile_read = io.StringIO()
        child.logged = child.logfile_read.getvalue
        return child

    yield run
    for child in running:
        child.close(force=True)


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({}, "No browser could be opened"),
        ({"SSH_CONNECTION": "1 2 3 4"}, "Log in to CARTO with this link"),
        ({"VSCODE_IPC_HOOK_CLI": "/run/vscode.sock"}, "Log in to CARTO with this link"),
        ({"CODESPACES": "true"}, "Log in to CARTO with this link"),
        ({"WSL_DISTRO_NAME": "Debian"}, "No browser could be opened from WSL"),
        ({"CI": "true"}, "No browser could be opened"),
    ],
    ids=["nothing", "SSH", "VS Code", "Codespaces", "WSL", "CI"],
)
def test_a_terminal_without_a_browser(terminal, carto, log_in, link_in, monkeypatch, callback_port, variables, told):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    child = terminal(sys.executable, "-c", log_in(""))
    child.expect("Access code: ")
    assert told in child.before
    assert f"Copy the code from the {carto.url} page to here. Never give it to anyone else." in child.before
    child.sendline("")
    child.expect_exact("No code was entered. Access code: ")
    child.sendline("https://evil.example/?code=x")
    child.expect_exact(f"That address is not CARTO's. This login ends at {carto.url}/auth/token. Access code: ")
    child.sendline(f"  '{walk_login(link_in(child.logged()))}' ")
    child.expect_exact(f"API: {carto.url}")
    child.expect(pexpect.EOF)
    assert child.logged().count("/authorize?") == 1
    assert re.search(r"Logged in as ana@example\.com, until \d\d:\d\d", child.logged())


def test_a_terminal_with_a_browser(terminal, carto, log_in, monkeypatch, callback_port):
    monkeypatch.setenv("BROWSER", f"{WALKER} %s")
    child = terminal(sys.executable, "-c", log_in(""))
    child.expect_exact(f"API: {carto.url}")
    assert child.logged().index("Log in to CARTO in your browser") < child.logged().index("/authorize?")
    assert "Access code" not in child.logged()
    assert "Waiting for the login in your browser (up to 5 minutes; Ctrl-C stops it)" in child.logged()
    assert re.search(r"Logged in as ana@example\.com, until \d\d:\d\d", child.logged())


@pytest.mark.skipif(shutil.which("w3m") is None and not os.environ.get("CI"), reason="Debian: apt install w3m")
@pytest.mark.parametrize("other", ["no other browser", "one that fails"])
def test_a_text_browser_does_not_take_over_the_terminal(terminal, log_in, monkeypatch, callback_port, program, other):
    monkeypatch.setenv("TERM", "xterm")
    if other == "one that fails":
        monkeypatch.setenv("BROWSER", str(program("a-browser", "exit 1")))
    child = terminal(sys.executable, "-c", log_in(""))
    child.expect("Access code: ")
    assert "No browser could be opened" in child.before


@pytest.mark.parametrize("moment", ["the prompt", "the browser"])
def test_ctrl_c(terminal, log_in, monkeypatch, callback_port, program, moment):
    if moment == "the browser":
        monkeypatch.setenv("BROWSER", str(program("a-browser", "exec sleep 60")))
    child = terminal(sys.executable, "-c", log_in(""))
    child.expect("Access code: " if moment == "the prompt" else "/authorize")
    began = time.monotonic()
    child.sendintr()
    child.expect("KeyboardInterrupt")
    child.expect(pexpect.EOF)
    assert time.monotonic() - began < AT_ONCE


def test_ctrl_d_at_the_prompt_is_no_code(terminal, log_in, callback_port):
    child = terminal(sys.executable, "-c", log_in("open_browser=False"))
    child.expect("Access code: ")
    child.sendeof()
    child.expect_exact("LoginFailed: No code was entered. Begin a new login.")


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_child_of_multiprocessing_at_a_terminal_is_no_worker(terminal, carto, link_in, tmp_path, method):
    """Web servers' reloaders and notebooks run their code in one; it has lost its standard input."""
    script = tmp_path / "child.py"
    script.write_text(
        "import multiprocessing\nfrom carto_auth import CartoAuth\n"
        "def work():\n    print('API:', CartoAuth.from_oauth().get_api_base_url())\n"
        "if __name__ == '__main__':\n"
        f"    child = multiprocessing.get_context({method!r}).Process(target=work)\n"
        "    child.start()\n    child.join()\n"
    )
    child = terminal(sys.executable, str(script))
    child.expect("Access code: ")
    child.sendline(walk_login(link_in(child.logged())))
    child.expect_exact(f"API: {carto.url}")
    child.expect(pexpect.EOF)


def test_bytes_that_are_no_text_are_no_code(terminal, log_in, callback_port):
    child = terminal(sys.executable, "-c", log_in("open_browser=False"))
    child.expect("Access code: ")
    os.write(child.fileno(), b"caf\xe9\n")
    child.expect_exact("That is not an access code. Access code: ")


def test_what_the_person_must_see_does_not_go_into_the_programs_file(terminal, carto, log_in, link_in, tmp_path):
    output = tmp_path / "output"
    child = terminal("sh", "-c", f"{shlex.quote(sys.executable)} -c {shlex.quote(log_in('False'))} > {output}")
    child.expect("Access code: ")
    child.sendline(walk_login(link_in(child.before)))
    child.expect(pexpect.EOF)
    assert output.read_text() == f"API: {carto.url}\n"


@pytest.mark.parametrize(
    "start",
    [
        "{python} -c {text} </dev/null",
        "{python} -c {text} <&-",
        "setsid {python} -c {text} </dev/null >output 2>&1; cat output >&2; false",
        ": | {python} -c {text}",
        "env -i HOME=$HOME CI=true {carto} {python} -c {text} </dev/null",
    ],
    ids=["no input", "closed input", "cron", "an empty pipe", "CI"],
)
@pytest.mark.parametrize(
    ("arguments", "with_browser"), [("", False), ("", True), ("open_browser=False", False)], ids=["", "BROWSER", "hand"]
)
def test_without_a_person(carto, log_in, callback_port, tmp_path, monkeypatch, start, arguments, with_browser):
    settings = " ".join(f"{name}={value}" for name, value in carto.environment().items())
    monkeypatch.setenv("BROWSER", f"{WALKER} %s" if with_browser else "")
    command = start.format(python=sys.executable, text=shlex.quote(log_in(arguments)), carto=settings)
    ended = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=PATIENCE, cwd=tmp_path)
    assert ended.returncode == 1
    assert "LoginRequired: " in ended.stderr
    assert "A CARTO login needs a person" in ended.stderr
    assert "CartoAuth.from_m2m" in ended.stderr
    assert "/authorize?" not in ended.stdout + ended.stderr
    reason = "is closed" if start.endswith("<&-") else "is not a terminal"
    assert f"there is nobody to ask here: standard input {reason}." in ended.stderr
    assert "During handling" not in ended.stderr


def test_workers_of_multiprocessing(carto, callback_port, tmp_path):
    script = tmp_path / "workers.py"
    script.write_text(
        "import multiprocessing\n"
        "from carto_auth import CartoAuth, LoginRequired\n"
        "def work(_):\n"
        "    try:\n"
        "        CartoAuth.from_oauth()\n"
        "    except LoginRequired as error:\n"
        "        return 'from_m2m' in str(error)\n"
        "if __name__ == '__main__':\n"
        "    for method in ('fork', 'spawn'):\n"
        "        with multiprocessing.get_context(method).Pool(2) as pool:\n"
        "            print(pool.map(work, range(2)))\n"
    )
    ended = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=PATIENCE)
    assert ended.stdout == "[True, True]\n[True, True]\n", ended.stderr


def test_a_prompt_ends_with_the_logins_time(terminal, log_in):
    child = terminal(sys.executable, "-c", log_in("open_browser=False, timeout=1"))
    child.expect("Access code: ")
    child.expect_exact("LoginTimedOut: No code was entered within 1 s.")
    child.expect(pexpect.EOF)


def test_a_job_in_the_background_is_not_stopped(terminal, carto, program):
    """A shell stops what reads from the terminal behind its back."""
    shell = terminal("bash", "--norc", "-i")
    shell.sendline(f"{sys.executable} -m carto_auth login --no-browser & wait; echo DONE")
    shell.expect("there is nobody to ask here")
    shell.expect("DONE")


def test_a_person_sees_the_link_where_the_errors_are_thrown_away(terminal, carto, link_in):
    child = terminal("sh", "-c", f"{sys.executable} -m carto_auth login --no-browser 2>/dev/null")
    child.expect("Access code: ")
    child.sendline(walk_login(link_in(child.logged())))
    child.expect(pexpect.EOF)
