"""Many threads and processes and one token: real interpreters, counted at the sandbox's own list of requests."""

import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from filelock import FileLock
from servers import wait_for

from carto_auth import CartoAuth
from carto_auth._identity import Identity
from carto_auth._sources import M2MSource
from carto_auth._stores import FileStore, default_store, file_store
from carto_auth._stores.base import Entry, Lock

pytest.importorskip("fcntl")

TOKEN = "/oauth/token"

#: Seconds that a token takes: long enough that whoever asks for one in vain has asked for it by then.
SLOW = 0.4

M2M_START = "from carto_auth import CartoAuth; print(CartoAuth.from_m2m().get_access_token())"
LOGIN = "from carto_auth import CartoAuth; print(CartoAuth.from_oauth().get_access_token())"


@pytest.fixture
def slow_sandbox(carto_sandbox):
    carto_sandbox.token_delay = SLOW
    return carto_sandbox


@pytest.fixture
def store(carto_sandbox):
    return default_store(
        Identity.of_application(carto_sandbox.services, carto_sandbox.client_id, carto_sandbox.api_base_url)
    )


@pytest.fixture
def begin():
    """Begins a program, which does not outlive the test."""
    with ExitStack() as processes:

        def begin(program, *arguments, **options):
            command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program, *map(str, arguments)]
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
            process = processes.enter_context(subprocess.Popen(command, **pipes, **options))
            processes.callback(process.kill)
            return process

        yield begin


def printed(process, timeout=60):
    """The last line that a program prints, which must succeed."""
    out, err = process.communicate(timeout=timeout)
    assert process.returncode == 0, err
    return out.split("\n")[-2]


def entry(token, expiration, **more):
    return Entry.of({"access_token": token, "expiration": expiration, "api_base_url": None, **more})


def expired_application(sandbox, **options):
    return CartoAuth("m2m", sandbox.api_base_url, "old", 1, sandbox.client_id, sandbox.client_secret, **options)


def in_threads(function, number=50):
    """What ``function`` returns in so many threads that start it at the same time."""
    barrier = threading.Barrier(number)

    def task(_):
        barrier.wait(timeout=30)
        return function()

    with ThreadPoolExecutor(number) as pool:
        return list(pool.map(task, range(number)))


# ---- one request ---------------------------------------------------------------------------------


@pytest.mark.parametrize("found", [None, entry("old", 1)], ids=["nothing", "an expired token"])
def test_start_of_many_processes_is_one_request(found, slow_sandbox, store, begin):
    if found:
        store.save(found)
    assert len({printed(process) for process in [begin(M2M_START) for _ in range(4)]}) == 1
    assert slow_sandbox.count(TOKEN) == 1


def test_processes_of_two_accounts_make_a_request_each(slow_sandbox, begin):
    client_id, client_secret = slow_sandbox.add_application()
    another = {**os.environ, "CARTO_CLIENT_ID": client_id, "CARTO_CLIENT_SECRET": client_secret}
    processes = [begin(M2M_START, env=environment) for environment in [os.environ, another] * 2]
    tokens = [printed(process) for process in processes]
    assert [len(set(tokens[::2])), len(set(tokens[1::2])), len(set(tokens))] == [1, 1, 2]
    assert printed(begin(M2M_START, env=another)) == tokens[1]
    assert slow_sandbox.count(TOKEN) == 2


@pytest.mark.parametrize("use_cache", [True, False])
def test_50_threads_at_expiry_are_one_request(use_cache, slow_sandbox, tmp_path):
    carto = expired_application(slow_sandbox, cache_filepath=tmp_path / "token.json", use_cache=use_cache)
    assert len(set(in_threads(carto.get_access_token))) == 1
    assert slow_sandbox.count(TOKEN) == 1


def test_threads_with_an_object_each_are_one_request(slow_sandbox):
    assert len(set(in_threads(lambda: CartoAuth.from_m2m().get_access_token(), 10))) == 1
    assert slow_sandbox.count(TOKEN) == 1


@pytest.mark.parametrize("use_cache", [True, False])
def test_due_token_is_renewed_by_one_thread_and_used_by_the_others(use_cache, slow_sandbox, clock):
    carto = CartoAuth.from_m2m(use_cache=use_cache)
    before = carto.get_access_token()
    clock.ahead = slow_sandbox.token_lifetime - 30
    tokens = in_threads(carto.get_access_token)
    assert set(tokens) == {before, carto.get_access_token()}
    assert tokens.count(before) >= 40
    assert slow_sandbox.count(TOKEN) == 2


POOL = """
import multiprocessing, pickle, sys
from carto_auth import CartoAuth
if __name__ == "__main__":
    carto = pickle.load(sys.stdin.buffer)
    with multiprocessing.get_context(sys.argv[1]).Pool(3) as pool:
        print(*set(pool.map(CartoAuth.get_access_token, [carto] * 6, chunksize=1)))
"""


@pytest.mark.parametrize("method", sorted(set(multiprocessing.get_all_start_methods()) - {"forkserver"}))
def test_workers_of_a_pool_at_expiry_are_one_request(method, slow_sandbox, tmp_path):
    carto = expired_application(slow_sandbox, cache_filepath=tmp_path / "token.json")
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", POOL, method]
    tokens = subprocess.run(command, input=pickle.dumps(carto), capture_output=True, timeout=60, check=True).stdout
    assert len(tokens.split()) == 1
    assert slow_sandbox.count(TOKEN) == 1


def test_login_by_several_processes_is_one_login(slow_sandbox, callback_port, monkeypatch, begin):
    monkeypatch.setenv("BROWSER", f"{sys.executable} -m carto_auth.sandbox.walker %s")
    monkeypatch.setenv("DISPLAY", ":0")
    processes = [begin(LOGIN, stdin=subprocess.DEVNULL) for _ in range(3)]
    outputs = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0] * 3, outputs
    assert len({out.split("\n")[-2] for out, _ in outputs}) == 1
    shown = [out + err for out, err in outputs if "http://" in out + err]
    assert (len(shown), slow_sandbox.count("/authorize"), slow_sandbox.count(TOKEN)) == (1, 1, 1)


# ---- waiting for another process -----------------------------------------------------------------


def test_who_waits_takes_what_was_kept_while_the_lock_is_still_held(carto_sandbox, store):
    with ThreadPoolExecutor(1) as pool, store.locked() as lock:
        assert lock == Lock.HELD
        waiting = pool.submit(CartoAuth.from_m2m)
        store.save(entry("theirs", time.time() + 3600))
        assert waiting.result(timeout=30).get_access_token() == "theirs"


def test_who_has_waited_for_long_goes_on_alone(carto_sandbox, store, monkeypatch):
    monkeypatch.setattr(M2MSource, "patience", lambda self, token: 0.3)
    monkeypatch.setattr(file_store, "WRITE_LOCK_SECONDS", 0.2)
    CartoAuth.from_m2m().logout()
    began = time.monotonic()
    lock = FileLock(store.place.with_name(".token_m2m.json.lock"))
    with ThreadPoolExecutor(1) as pool, store.locked(), lock:  # and both are never let go
        token = pool.submit(CartoAuth.from_m2m).result().get_access_token()
    assert 0.5 <= time.monotonic() - began < 10
    assert store.load().token.text == token


def test_due_token_waits_for_nobody(carto_sandbox, store, clock):
    carto = CartoAuth.from_m2m()
    before = carto.get_access_token()
    clock.ahead = carto_sandbox.token_lifetime - 30
    with ThreadPoolExecutor(1) as pool, store.locked() as lock:
        assert lock == Lock.HELD
        assert pool.submit(carto.get_access_token).result(timeout=30) == before
    assert carto_sandbox.count(TOKEN) == 1
    clock.ahead += 2
    assert carto.get_access_token() != before


HANGS_UNDER_THE_LOCK = """
import sys
from carto_auth import CartoAuth, auth
auth.get_m2m_token_info = lambda *_: sys.stdin.read()
CartoAuth.from_m2m()
"""


def state_of_lock(store):
    with store.locked() as lock:
        return lock


def test_lock_dies_with_its_holder(carto_sandbox, store, begin):
    holder = begin(HANGS_UNDER_THE_LOCK, stdin=subprocess.PIPE)
    wait_for(lambda: state_of_lock(store) == Lock.BUSY)
    holder.kill()
    holder.wait()
    assert state_of_lock(store) == Lock.HELD


# ---- copies in other processes -------------------------------------------------------------------

UNPICKLED = """
import pickle, sys, time
from carto_auth import LoginRequired
carto = pickle.load(sys.stdin.buffer)
print(carto.get_access_token())
now = time.time()
time.time = lambda: now + 90_000
try:
    print(carto.get_access_token())
except LoginRequired as error:
    print(type(error).__name__)
"""


def tokens_of_a_pickled_copy(carto):
    """The tokens that another process gets from a pickled copy: now, and after the end of the first."""
    command = [sys.executable, "-c", UNPICKLED]
    done = subprocess.run(command, input=pickle.dumps(carto), stdout=subprocess.PIPE, timeout=60, check=True)
    return done.stdout.decode().split()


def test_pickled_application_renews_itself(carto_sandbox):
    carto = CartoAuth.from_m2m(use_cache=False)
    first, second = tokens_of_a_pickled_copy(carto)
    assert first == carto.get_access_token() != second
    assert carto_sandbox.count(TOKEN) == 2


@pytest.mark.parametrize("use_cache", [True, False])
def test_pickled_login_serves_its_token_and_then_wants_a_person(use_cache, carto_sandbox, callback_port, monkeypatch):
    """It does not use the refresh token, neither its own nor that of the cache."""
    carto_sandbox.refresh_tokens = True
    monkeypatch.setenv("BROWSER", f"{sys.executable} -m carto_auth.sandbox.walker %s")
    carto = CartoAuth.from_oauth(use_cache=use_cache, interactive=True)
    kept = default_store(Identity.of_person(carto_sandbox.services, None)).load()
    if use_cache:
        assert kept.token.refresh_token.encode() not in pickle.dumps(carto)
    asked = len(carto_sandbox.requests)
    assert tokens_of_a_pickled_copy(carto) == [carto.get_access_token(), "LoginRequired"]
    assert len(carto_sandbox.requests) == asked


def test_pickled_login_adopts_what_another_process_has_got(carto_sandbox, tmp_path):
    carto = CartoAuth("oauth", "https://a.b", "old", 1, cache_filepath=tmp_path / "token.json")
    store = FileStore(Identity.of_person(carto_sandbox.services, None), tmp_path / "token.json")
    store.save(entry("newer", time.time() + 200_000))
    assert tokens_of_a_pickled_copy(carto) == ["newer", "newer"]


FORK_IN_THE_MIDDLE = """
import os, sys, threading, time
from carto_auth import CartoAuth, auth
requesting = threading.Event()
get_token = auth.get_m2m_token_info
def get_m2m_token_info(*credentials):
    requesting.set()
    return get_token(*credentials)
auth.get_m2m_token_info = get_m2m_token_info
options = {"cache_filepath": sys.argv[1]} if sys.argv[1] else {"use_cache": False}
environment = os.environ
carto = CartoAuth(
    "m2m", environment["CARTO_API_BASE_URL"], "old", 1, environment["CARTO_CLIENT_ID"],
    environment["CARTO_CLIENT_SECRET"], **options,
)
renewing = threading.Thread(target=carto.get_access_token)
renewing.start()
if sys.argv[2] == "in the request":
    requesting.wait()
while "carto_auth._http" not in sys.modules:
    time.sleep(0.0001)
reading, writing = os.pipe()
if os.fork() == 0:
    os.write(writing, carto.get_access_token().encode())
    os._exit(0)
os.close(writing)
with open(reading) as pipe:
    in_child = pipe.read()
renewing.join()
print("same" if in_child == carto.get_access_token() else "another" if in_child else "none")
"""


@pytest.mark.parametrize("moment", ["in the request", "in the imports"])
@pytest.mark.parametrize(("file", "outcome", "requests"), [("token.json", "same", 1), ("", "another", 2)])
def test_fork_while_a_thread_renews(file, outcome, requests, moment, slow_sandbox, tmp_path, begin):
    slow_sandbox.token_delay = 2
    assert printed(begin(FORK_IN_THE_MIDDLE, file and tmp_path / file, moment)) == outcome
    assert slow_sandbox.count(TOKEN) == requests


# ---- called from where nobody expects it ---------------------------------------------------------

INTERRUPTED = """
import signal, time
import filelock
from carto_auth import CartoAuth, CredentialsError, _http
carto = CartoAuth.from_m2m()
now = time.time()
time.time = lambda: now + 90_000
told = []

def handler(*_):
    for call in (carto.get_access_token, lambda: CartoAuth.from_m2m().get_access_token(), carto.logout):
        began = time.monotonic()
        try:
            told.append(type(call()).__name__)
        except CredentialsError:
            told.append("error")
        assert time.monotonic() - began < 20

signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 1)
try:
    told.append(type(carto.get_access_token()).__name__)
except CredentialsError:
    told.append("error")
print(*told)
"""


def test_a_signal_handler_in_the_middle_of_a_request_waits_for_nobody(carto_sandbox, begin):
    """And asserts are no part of the program."""
    CartoAuth.from_m2m()
    carto_sandbox.token_delay = 2
    process = begin(INTERRUPTED, env={**os.environ, "PYTHONOPTIMIZE": "1"})
    assert printed(process) == "error str bool error"


INTERRUPTED_AT_EACH_IMPORT = """
import sys, time
from carto_auth import CartoAuth, CredentialsError
carto = CartoAuth.from_m2m()
now = time.time()
time.time = lambda: now + 90_000
told, calls = set(), []

def is_importing(module):
    return getattr(getattr(module, "__spec__", None), "_initializing", False)

def hook(event, _):
    if event == "import" and not calls and any(map(is_importing, list(sys.modules.values()))):
        calls.append(event)
        try:
            told.add(type(carto.get_access_token()).__name__)
        except CredentialsError:
            told.add("error")
        except BaseException as error:
            told.add(type(error).__name__)
        calls.clear()

sys.addaudithook(hook)
carto.get_access_token()
print(*told)
"""


def test_a_signal_handler_in_the_middle_of_an_import_gets_our_error(carto_sandbox, begin):
    CartoAuth.from_m2m()
    assert set(printed(begin(INTERRUPTED_AT_EACH_IMPORT)).split()) in ({"error"}, {"error", "str"})
