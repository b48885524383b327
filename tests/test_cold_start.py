"""A start that finds a good token: what it does not import, and what it does not do."""

import json
import shutil
import subprocess
import sys
import time

import pytest

from carto_auth import CartoAuth, cache

pytestmark = pytest.mark.usefixtures("unmeasured")

BASE = "https://gcp-us-east1.api.carto.com"
LATER = 4_000_000_000

#: What such a start must never import; then what takes longer than all the rest of it, and was avoided.
HEAVY = "requests urllib3 yaml platformdirs filelock google"
AVOIDED = "typing pathlib dataclasses logging threading urllib.parse inspect socket ssl subprocess"

STARTS = {
    "m2m": "CartoAuth.from_m2m('carto_credentials.json')",
    "oauth": "CartoAuth.from_oauth()",
    "default, which the command takes": "(__import__('carto_auth.cli'), CartoAuth.default())[1]",
    "constructor": f"CartoAuth('oauth', '{BASE}', 'good', {LATER})",
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where a program starts: M2M credentials are here, and good tokens in the default caches."""
    monkeypatch.chdir(tmp_path)
    credentials = tmp_path / "carto_credentials.json"
    credentials.write_text(json.dumps({"api_base_url": BASE, "client_id": "an-id", "client_secret": "a-secret"}))
    credentials.chmod(0o600)
    for mode in ("m2m", "oauth"):
        entry = {"access_token": "good", "expiration": LATER, "api_base_url": BASE}
        cache.save_cache_file(cache.get_cache_filepath(mode), entry)
    # The first start takes over what carto-auth 0.2.0 has left; the ones after it are those that count.
    CartoAuth.from_m2m(credentials)
    CartoAuth.from_oauth()
    return tmp_path


def run(program, *arguments):
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


IMPORTED = f"""
import sys
before = set(sys.modules)
from carto_auth import CartoAuth
carto = eval(sys.argv[1])
assert carto.get_access_token() == "good" and carto.get_api_base_url() == "{BASE}"
exec(sys.argv[2])
watched = "{HEAVY} {AVOIDED}".split()
print(*sorted(name for name in set(sys.modules) - before if name in watched or name.split(".")[0] in watched))
"""


@pytest.mark.parametrize("mode", STARTS)
def test_a_start_with_a_good_token_imports_nothing_heavy(mode, folder):
    assert run(IMPORTED, STARTS[mode], "") == "\n"


def test_the_watch_sees_an_import(folder):
    assert {"requests", "typing"} <= set(run(IMPORTED, STARTS["m2m"], "from carto_auth import _http").split())


def test_a_good_token_calls_nothing_but_the_clock_and_so_takes_no_lock():
    called, carto = [], CartoAuth("m2m", BASE, "good", time.time() + 3600, "an-id", "a-secret")

    def note(frame, event, argument):
        if event == "c_call" and argument is not sys.setprofile:
            called.append(argument.__name__)
        elif event == "call":
            called.append(frame.f_code.co_name)

    sys.setprofile(note)
    try:
        carto.get_access_token()
    finally:
        sys.setprofile(None)
    assert called == ["get_access_token", "time"]


STRACED = f"""
import os
from carto_auth import CartoAuth
carto = CartoAuth("m2m", "{BASE}", "good", {LATER}, "an-id", "a-secret")
carto.get_access_token()
os.write(1, b"begin")
for _ in range(1000):
    carto.get_access_token()
os.write(1, b"end")
"""


def test_a_good_token_makes_no_system_call(tmp_path):
    log = tmp_path / "strace.log"
    strace = [shutil.which("strace") or "false", "-o", log]
    if subprocess.run([*strace, "true"], capture_output=True).returncode != 0:
        pytest.skip("strace is not installed or may not be used; the test above says what is called")
    subprocess.run([*strace, sys.executable, "-c", STRACED], capture_output=True, check=True)
    lines = log.read_text().splitlines()
    (begin,) = [number for number, line in enumerate(lines) if line.startswith('write(1, "begin"')]
    (end,) = [number for number, line in enumerate(lines) if line.startswith('write(1, "end"')]
    # Reading the clock is none on Linux (vDSO); where it is one, it is the only one.
    assert [line for line in lines[begin + 1 : end] if not line.startswith("clock_gettime")] == []


TOUCHED = """
import os, sys
touched = []
home = os.path.expanduser("~")

def watch(event, arguments):
    if any(isinstance(argument, (str, bytes)) and home in os.fsdecode(argument) for argument in arguments):
        touched.append(event)

from carto_auth import CartoAuth
sys.addaudithook(watch)
carto = CartoAuth.from_m2m("carto_credentials.json", use_cache=sys.argv[1] == "True")
carto._expiration = 1
carto.get_access_token()
print("open" in touched, len(touched))
"""


@pytest.mark.parametrize("use_cache", [True, False])
def test_without_a_cache_no_file_of_it_is_touched(use_cache, carto_sandbox, tmp_path, monkeypatch):
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(tmp_path)
    carto_sandbox.credentials_file(tmp_path)
    opened, touches = run(TOUCHED, str(use_cache)).split()
    assert (opened, touches == "0") == (str(use_cache), not use_cache)
    assert list(home.iterdir()) == ([home / ".carto-auth"] if use_cache else [])
