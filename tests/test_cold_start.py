"""A start that finds a good token: what it does not import, and what it does not do."""

import json
import shutil
import subprocess
import sys
import threading
import time

import pytest

from carto_auth import CartoAuth, cache
from carto_auth.cache import Identity

BASE = "https://gcp-us-east1.api.carto.com"
CREDENTIALS = {"api_base_url": BASE, "client_id": "an-id", "client_secret": "a-secret"}
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
    (tmp_path / "carto_credentials.json").write_text(json.dumps(CREDENTIALS))
    (tmp_path / "carto_credentials.json").chmod(0o600)
    entry = {"access_token": "good", "expiration": LATER, "api_base_url": BASE}
    services = CartoAuth("m2m")._services
    for mode, identity in [
        ("m2m", Identity.of_application(services, "an-id", BASE)),
        ("oauth", Identity.of_person(services, None)),
    ]:
        cache.save_cache_file(cache.get_cache_filepath(mode), {"identity": str(identity), **entry})
    return tmp_path


def run(program, *options):
    done = subprocess.run([sys.executable, *options, "-c", program], capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.parametrize("mode", STARTS)
def test_start_with_a_good_token_imports_nothing_heavy(mode, folder):
    program = f"""
import sys
before = set(sys.modules)
from carto_auth import CartoAuth
carto = {STARTS[mode]}
assert carto.get_access_token() == "good" and carto.get_api_base_url() == "{BASE}"
watched = "{HEAVY} {AVOIDED}".split()
print(sorted(name for name in set(sys.modules) - before if name in watched or name.split(".")[0] in watched))
"""
    assert run(program) == "[]\n"


def test_the_watch_sees_an_import(folder):
    """Else the test above could not fail: a token that is not there needs a request, and so ``requests``."""
    program = "import sys; from carto_auth import _http; print('requests' in sys.modules)"
    assert run(program) == "True\n"


@pytest.fixture
def carto():
    return CartoAuth("m2m", BASE, "good", time.time() + 3600, "an-id", "a-secret", cache_filepath=None)


def test_good_token_takes_no_lock(carto, monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("a lock was wanted")

    monkeypatch.setattr(CartoAuth, "_own_locks", refuse)
    monkeypatch.setattr(cache, "locked", refuse)
    monkeypatch.setattr(threading, "Lock", refuse)
    assert carto.get_access_token() == "good"
    carto._expiration = 1
    with pytest.raises(AssertionError):
        carto.get_access_token()


def test_good_token_calls_nothing_but_the_clock(carto):
    called = []

    def note(frame, event, argument):
        if event == "c_call" and frame.f_code is not test_good_token_calls_nothing_but_the_clock.__code__:
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


def test_good_token_makes_no_system_call(tmp_path):
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed; the test above says what is called")
    log = tmp_path / "strace.log"
    done = subprocess.run([strace, "-o", log, sys.executable, "-c", STRACED], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip("strace may not be used here; the test above says what is called")
    lines = log.read_text().splitlines()
    (begin,) = [number for number, line in enumerate(lines) if line.startswith('write(1, "begin"')]
    (end,) = [number for number, line in enumerate(lines) if line.startswith('write(1, "end"')]
    # Reading the clock is none on Linux (vDSO); where it is one, it is the only one.
    assert [line for line in lines[begin + 1 : end] if not line.startswith("clock_gettime")] == []


WATCHED = """
import os, sys
touched = []
home = os.path.expanduser("~")

def watch(event, arguments):
    if any(isinstance(argument, (str, bytes)) and home in os.fsdecode(argument) for argument in arguments):
        touched.append(event)

from carto_auth import CartoAuth
sys.addaudithook(watch)
carto = CartoAuth.from_m2m("carto_credentials.json", use_cache=sys.argv[1] == "True")
carto.get_access_token()
print(touched)
"""


@pytest.mark.parametrize("use_cache", [True, False])
def test_without_a_cache_no_file_of_it_is_touched(use_cache, carto_sandbox, tmp_path, monkeypatch):
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(tmp_path)
    carto_sandbox.credentials_file(tmp_path)
    command = [sys.executable, "-c", WATCHED, str(use_cache)]
    touched = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert ("open" in touched) is use_cache
    assert (touched == "[]\n") is not use_cache
    assert list(home.iterdir()) == ([home / ".carto-auth"] if use_cache else [])
