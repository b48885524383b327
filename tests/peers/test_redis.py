"""One token for a fleet: the cache in a real Redis."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import warnings

import pytest
import redis

from carto_auth import CartoAuth, _log
from carto_auth._identity import Identity
from carto_auth._services import Services
from carto_auth._stores import Entry, Lock, store_at
from carto_auth.errors import CredentialsError

pytestmark = pytest.mark.skipif(
    shutil.which("redis-server") is None and not os.environ.get("CI"), reason="Debian: apt install redis-server"
)

AN_ID = Identity.of_application(Services(), "an-id", "https://x.carto.com")
START = "from carto_auth import CartoAuth; print(CartoAuth.from_m2m().get_access_token())"


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    """A Redis of the tests' own, with a password, on a free port of loopback."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--requirepass", "MARKED-PASSWORD"]
    folder = tmp_path_factory.mktemp("redis")
    with subprocess.Popen(["redis-server", *options], cwd=folder, stdout=subprocess.DEVNULL) as server:
        named = f"redis://:MARKED-PASSWORD@127.0.0.1:{port}/0"
        try:
            with redis.Redis.from_url(named) as client:
                while not answers(client):
                    assert server.poll() is None
            yield named
        finally:
            server.terminate()


def answers(client):
    try:
        return client.ping()
    except redis.ConnectionError:
        time.sleep(0.02)  # until the server listens
        return False


@pytest.fixture(autouse=True)
def empty(url):
    with redis.Redis.from_url(url) as client:
        client.flushall()
        yield client


def test_a_fleet_makes_one_request(carto_sandbox, url, tmp_path):
    carto_sandbox.token_delay = 0.3
    homes = [tmp_path / f"machine-{number}" for number in range(8)]
    for home in homes:
        home.mkdir()
    environment = {**os.environ, "CARTO_AUTH_CACHE": url}
    machines = [
        subprocess.Popen([sys.executable, "-c", START], env={**environment, "HOME": str(home)}, stdout=subprocess.PIPE)
        for home in homes
    ]
    tokens = {machine.communicate(timeout=60)[0] for machine in machines}
    assert len(tokens) == 1
    assert carto_sandbox.count("/oauth/token") == 1
    assert not list(tmp_path.glob("machine-*/.carto-auth"))


def test_an_entry_ends_with_its_token_and_holds_no_secret(carto_sandbox, url, empty):
    auth = CartoAuth.from_m2m(cache_filepath=url)
    [key] = empty.scan_iter()
    assert 86_000 < empty.ttl(key) <= 86_400
    kept = empty.get(key).decode()
    assert auth.get_access_token() in kept
    assert carto_sandbox.client_secret not in kept + key.decode()


def test_an_entry_that_can_be_renewed_is_kept_for_good(url, empty):
    store_at(url, AN_ID).save(Entry.of({"access_token": "T", "expiration": 4155310800, "refresh_token": "R"}))
    [key] = empty.scan_iter()
    assert (empty.ttl(key), store_at(url, AN_ID).load().token.refresh_token) == (-1, "R")


def test_accounts_do_not_mix_and_logout_forgets(carto_sandbox, url):
    first = CartoAuth.from_m2m(cache_filepath=url)
    other, secret = carto_sandbox.add_application()
    second = CartoAuth.from_m2m(client_id=other, client_secret=secret, cache_filepath=url)
    assert first.get_access_token() != second.get_access_token()
    assert first.logout() is True
    assert CartoAuth.from_m2m(client_id=other, client_secret=secret, cache_filepath=url).get_access_token() == (
        second.get_access_token()
    )
    CartoAuth.from_m2m(cache_filepath=url)
    assert carto_sandbox.count("/oauth/token") == 3


def test_a_lock_is_one_accounts_and_that_of_a_killed_process_is_soon_free(url):
    program = f"""
import os
from carto_auth._identity import Identity
from carto_auth._stores import redis_store
redis_store.LOCK_SECONDS = 1
with redis_store.RedisStore(Identity(**{vars(AN_ID)}), {url!r}).locked() as lock:
    assert lock == "held"
    os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", program]).returncode == -9
    with store_at(url, AN_ID).locked() as lock, store_at(url, AN_ID.replaced(client_id="b")).locked() as other:
        assert (lock, other) == (Lock.BUSY, Lock.HELD)
    with store_at(url, AN_ID).locked_within(10) as lock:
        assert lock == Lock.HELD
    with store_at(url, AN_ID).locked() as lock:
        assert lock == Lock.HELD


@pytest.mark.parametrize("address", ["127.0.0.1:9/0", "127.0.0.1:no-port/0"])
def test_a_redis_that_cannot_be_used(carto_sandbox, monkeypatch, address):
    monkeypatch.setattr(_log, "said", set())
    with pytest.warns(UserWarning, match=f"cannot be kept in redis://{address}") as told:
        auth = CartoAuth.from_m2m(cache_filepath=f"redis://:MARKED-PASSWORD@{address}")
    assert auth.get_access_token()
    with pytest.raises(CredentialsError, match=f"could not be taken out of redis://{address}") as raised:
        auth.logout()
    assert "MARKED" not in f"{raised.value} {[str(one.message) for one in told]}"


@pytest.mark.parametrize("content", ["", "no json", "[]", '{"access_token": 5}', "[" * 100_000])
def test_damage_is_a_miss_and_heals(carto_sandbox, url, empty, content):
    CartoAuth.from_m2m(cache_filepath=url)
    [key] = empty.scan_iter()
    empty.set(key, content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        healed = CartoAuth.from_m2m(cache_filepath=url)
        assert CartoAuth.from_m2m(cache_filepath=url).get_access_token() == healed.get_access_token()
    assert carto_sandbox.count("/oauth/token") == 2
