"""Many threads and processes and one token: real interpreters, counted at the sandbox's own list of requests."""

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from servers import wait_for

from carto_auth import CartoAuth, auth, cache
from carto_auth.cache import AccountFile

fcntl = pytest.importorskip("fcntl")

TOKEN = "/oauth/token"

#: Seconds that a token takes: long enough that whoever asks for one in vain has asked for it by then.
SLOW = 0.4

M2M_START = "from carto_auth import CartoAuth; print(CartoAuth.from_m2m().get_access_token())"
LOGIN = "from carto_auth import CartoAuth; print(CartoAuth.from_oauth().get_access_token())"


@pytest.fixture
def slow_sandbox(carto_sandbox):
    carto_sandbox.token_delay = SLOW
    return carto_sandbox


@pytest.fixture(autouse=True)
def no_process_is_left_over():
    yield
    while begun:
        with begun.pop() as process:
            process.kill()


begun = []


def begin(program, *arguments, **options):
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program, *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)
    begun.append(process)
    return process


def printed(process, timeout=60):
    """The last line that a program prints, which must succeed."""
    out, err = process.communicate(timeout=timeout)
    assert process.returncode == 0, err
    return out.split("\n")[-2]


def run_together(program, number):
    """The set of what so many processes print at their end."""
    return {printed(process) for process in [begin(program) for _ in range(number)]}


def expire(mode):
    """Let the entry in the default cache have come to its end."""
    path = cache.get_cache_filepath(mode)
    carto = CartoAuth(mode, os.environ["CARTO_API_BASE_URL"], client_id=os.environ["CARTO_CLIENT_ID"])
    cache.save_cache_file(
        path,
        {"identity": str(carto._identity()), "access_token": "old", "expiration": 1, "api_base_url": None},
    )


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


def renewal_lock(carto):
    """The file whose lock is held while the account's token is renewed."""
    path = carto._cache_filepath
    return os.path.join(
        os.path.dirname(path), f".{os.path.basename(path)}.{cache._digest(str(carto._identity()))}.lock"
    )


def is_locked(path):
    if not os.path.exists(path):
        return False
    with open(path, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


# ---- one request ---------------------------------------------------------------------------------


@pytest.mark.parametrize("found", ["nothing", "an expired token"])
def test_start_of_16_processes_is_one_request(found, slow_sandbox):
    if found == "an expired token":
        expire("m2m")
    assert len(run_together(M2M_START, 16)) == 1
    assert slow_sandbox.count(TOKEN) == 1


def test_processes_of_two_accounts_make_a_request_each(slow_sandbox, monkeypatch):
    first = [begin(M2M_START) for _ in range(3)]
    client_id, client_secret = slow_sandbox.add_application()
    monkeypatch.setenv("CARTO_CLIENT_ID", client_id)
    monkeypatch.setenv("CARTO_CLIENT_SECRET", client_secret)
    second = [begin(M2M_START) for _ in range(3)]
    tokens = [{printed(process) for process in processes} for processes in (first, second)]
    assert [len(found) for found in tokens] == [1, 1]
    assert tokens[0] != tokens[1]
    assert slow_sandbox.count(TOKEN) == 2
    assert run_together(M2M_START, 1) == tokens[1]
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
def test_due_token_is_renewed_by_one_thread_and_used_by_the_others(use_cache, slow_sandbox, tmp_path):
    carto = expired_application(slow_sandbox, cache_filepath=tmp_path / "token.json", use_cache=use_cache)
    now = time.time()
    carto._set_token("still good", now + 30, issued_at=now - 3600)
    tokens = in_threads(carto.get_access_token)
    assert sorted(set(tokens), key=len) == ["still good", carto._access_token]
    assert tokens.count("still good") >= 40
    assert slow_sandbox.count(TOKEN) == 1


POOL = """
import multiprocessing, pickle, sys
from carto_auth import CartoAuth
if __name__ == "__main__":
    carto = pickle.load(sys.stdin.buffer)
    with multiprocessing.get_context(sys.argv[1]).Pool(4) as pool:
        print(*set(pool.map(CartoAuth.get_access_token, [carto] * 8, chunksize=1)))
"""


@pytest.mark.parametrize("method", sorted(set(multiprocessing.get_all_start_methods()) - {"forkserver"}))
def test_workers_of_a_pool_at_expiry_are_one_request(method, slow_sandbox, tmp_path):
    carto = expired_application(slow_sandbox, cache_filepath=tmp_path / "token.json")
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", POOL, method]
    tokens = subprocess.run(command, input=pickle.dumps(carto), capture_output=True, timeout=60, check=True).stdout
    assert len(tokens.split()) == 1
    assert slow_sandbox.count(TOKEN) == 1


def test_renewal_is_seen_by_objects_that_are_there_already(slow_sandbox, tmp_path):
    objects = [expired_application(slow_sandbox, cache_filepath=tmp_path / "token.json") for _ in range(5)]
    assert len({carto.get_access_token() for carto in objects}) == 1
    assert slow_sandbox.count(TOKEN) == 1


def test_login_by_several_processes_is_one_login(slow_sandbox, callback_port, monkeypatch):
    monkeypatch.setenv("BROWSER", f"{sys.executable} -m carto_auth.sandbox.walker %s")
    monkeypatch.setenv("DISPLAY", ":0")
    processes = [begin(LOGIN, stdin=subprocess.DEVNULL) for _ in range(4)]
    outputs = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, outputs
    assert len({out.split("\n")[-2] for out, _ in outputs}) == 1
    shown = [out + err for out, err in outputs if "http://" in out + err]
    assert (len(shown), slow_sandbox.count("/authorize"), slow_sandbox.count(TOKEN)) == (1, 1, 1)


# ---- the lock ------------------------------------------------------------------------------------


def test_lock_dies_with_its_holder(slow_sandbox):
    slow_sandbox.token_delay = 60
    waiting = CartoAuth("m2m", slow_sandbox.api_base_url, client_id=slow_sandbox.client_id)
    waiting._cache_filepath = cache.default_cache_filepath("m2m")
    holder = begin(M2M_START)
    wait_for(lambda: is_locked(renewal_lock(waiting)))
    follower = begin(M2M_START)
    with pytest.raises(subprocess.TimeoutExpired):
        follower.wait(timeout=1)  # it waits for the holder
    slow_sandbox.token_delay = 0
    holder.kill()
    holder.communicate()
    assert printed(follower, timeout=20)
    assert holder.returncode == -signal.SIGKILL


@pytest.mark.parametrize("start", ["a new object", "an old object"])
def test_wait_for_a_lock_is_bounded(start, slow_sandbox, monkeypatch, tmp_path):
    monkeypatch.setattr(auth, "_RENEWAL_WAIT_SECONDS", 0.3)
    path = tmp_path / "token.json"
    carto = expired_application(slow_sandbox, cache_filepath=path)
    with open(renewal_lock(carto), "wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # and never lets go
        start_time = time.monotonic()
        if start == "a new object":
            carto = CartoAuth.from_m2m(cache_filepath=path)
        assert carto.get_access_token() != "old"
    assert 0.3 <= time.monotonic() - start_time < 10


def test_wait_for_another_thread_is_bounded(slow_sandbox, monkeypatch):
    monkeypatch.setattr(auth, "_RENEWAL_WAIT_SECONDS", 0.2)
    carto = expired_application(slow_sandbox)
    with carto._own_locks()[0]:
        assert carto.get_access_token() != "old"


def test_wait_for_a_save_is_bounded(slow_sandbox, monkeypatch, tmp_path):
    monkeypatch.setattr(cache, "_WRITE_LOCK_SECONDS", 0.2)
    path = tmp_path / "token.json"
    with open(tmp_path / ".token.json.lock", "wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        token = CartoAuth.from_m2m(cache_filepath=path).get_access_token()
    assert cache.load_cache_file(path)["access_token"] == token


def test_due_token_waits_for_nobody(slow_sandbox, tmp_path):
    carto = expired_application(slow_sandbox, cache_filepath=tmp_path / "token.json")
    carto._set_token("still good", time.time() + 30, issued_at=time.time() - 3600)
    with open(renewal_lock(carto), "wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        start_time = time.monotonic()
        assert carto.get_access_token() == "still good"
        assert time.monotonic() - start_time < 5
    assert slow_sandbox.count(TOKEN) == 0


def test_locks_are_made_once_however_many_threads_come_first(slow_sandbox):
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(20):
            carto = expired_application(slow_sandbox)
            assert len({id(locks) for locks in in_threads(carto._own_locks, 8)}) == 1
    finally:
        sys.setswitchinterval(interval)


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
    assert first == carto.get_access_token()
    assert second.count(".") == 2
    assert carto_sandbox.count(TOKEN) == 2


@pytest.mark.parametrize("use_cache", [True, False])
def test_pickled_login_serves_its_token_and_then_wants_a_person(use_cache, carto_sandbox, tmp_path):
    carto = CartoAuth(
        "oauth", "https://a.b", "a-token", time.time() + 3600, cache_filepath=tmp_path / "t.json", use_cache=use_cache
    )
    carto._refresh_token = "a-refresh-token"
    if use_cache:
        carto._store()  # a copy does not take the refresh token from there either
    assert b"a-refresh-token" not in pickle.dumps(carto)
    assert tokens_of_a_pickled_copy(carto) == ["a-token", "LoginRequired"]
    assert carto_sandbox.requests == []
    assert carto._refresh_token == "a-refresh-token"


def test_pickled_login_adopts_what_another_process_has_got(carto_sandbox, tmp_path):
    carto = CartoAuth("oauth", "https://a.b", "old", 1, cache_filepath=tmp_path / "token.json")
    entry = {"access_token": "newer", "expiration": time.time() + 200_000, "api_base_url": "https://a.b"}
    cache.save_cache_file(tmp_path / "token.json", {"identity": str(carto._identity()), **entry})
    assert tokens_of_a_pickled_copy(carto) == ["newer", "newer"]


FORK_IN_THE_MIDDLE = """
import os, sys, threading, time
from carto_auth import CartoAuth
if sys.argv[2] == "in the request":
    import filelock
    from carto_auth import _http
options = {"cache_filepath": sys.argv[1]} if sys.argv[1] else {"use_cache": False}
environment = os.environ
carto = CartoAuth(
    "m2m", environment["CARTO_API_BASE_URL"], "old", 1, environment["CARTO_CLIENT_ID"],
    environment["CARTO_CLIENT_SECRET"], **options,
)
renewing = threading.Thread(target=carto.get_access_token)
renewing.start()
requesting = sys.argv[2] == "in the request"
while "carto_auth._http" not in sys.modules or (requesting and not carto._own_locks()[0].locked()):
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
def test_fork_while_a_thread_renews(file, outcome, requests, moment, slow_sandbox, tmp_path):
    slow_sandbox.token_delay = 2
    assert printed(begin(FORK_IN_THE_MIDDLE, file and tmp_path / file, moment), timeout=60) == outcome
    assert slow_sandbox.count(TOKEN) == requests


def test_nothing_of_the_cache_is_left_locked(slow_sandbox):
    carto = CartoAuth.from_m2m()
    folder = os.path.dirname(carto._cache_filepath)
    locks = [os.path.join(folder, name) for name in os.listdir(folder) if name.endswith(".lock")]
    assert [is_locked(path) for path in locks] == [False, False]
    assert cache.load_cache_file(AccountFile.at(carto._cache_filepath, carto._identity()))
