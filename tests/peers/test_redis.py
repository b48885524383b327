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
from servers import wait_for

from carto_auth import CartoAuth, cache
from carto_auth.errors import CredentialsError, InvalidAnswer

pytestmark = pytest.mark.skipif(
    shutil.which("redis-server") is None and not os.environ.get("CI"), reason="Debian: apt install redis-server"
)

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
    machines = []
    for number in range(12):
        home = tmp_path / f"machine-{number}"
        home.mkdir()
        environment = {**os.environ, "CARTO_AUTH_CACHE": url, "HOME": str(home)}
        machines.append(
            subprocess.Popen([sys.executable, "-c", START], env=environment, stdout=subprocess.PIPE, text=True)
        )
    tokens = {machine.communicate(timeout=60)[0] for machine in machines}
    assert len(tokens) == 1
    assert carto_sandbox.count("/oauth/token") == 1
    assert not list(tmp_path.glob("machine-*/.carto-auth"))


def test_an_entry_ends_with_its_token_and_holds_no_secret(carto_sandbox, url, empty):
    auth = CartoAuth.from_m2m(cache_filepath=url)
    [key] = [key for key in empty.keys() if b"lock" not in key]  # noqa: SIM118 - Redis's, not a dict's
    assert 86_000 < empty.ttl(key) <= 86_400
    kept = empty.get(key).decode()
    assert auth.get_access_token() in kept
    assert carto_sandbox.client_secret not in kept + key.decode()


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


@pytest.fixture
def renewal(carto_sandbox, url, empty):
    """A process that is fetching a token, and holds the lock: the process, and the lock's name in Redis."""
    carto_sandbox.token_delay = 100
    environment = {**os.environ, "CARTO_AUTH_CACHE": url}
    with subprocess.Popen([sys.executable, "-c", START], env=environment) as process:
        wait_for(lambda: empty.keys("*lock*"))
        yield process, empty.keys("*lock*")[0]
        process.kill()
    carto_sandbox.token_delay = 0


def test_the_lock_of_a_killed_process_is_soon_free(carto_sandbox, renewal, url, empty):
    process, lock = renewal
    process.kill()
    process.wait()
    assert 0 < empty.pttl(lock) <= 15_000
    carto_sandbox.token_delay = 0
    empty.pexpire(lock, 500)
    assert CartoAuth.from_m2m(cache_filepath=url).get_access_token()


def test_a_long_renewal_keeps_its_lock(renewal, empty):
    _, lock = renewal
    empty.pexpire(lock, 8_000)
    wait_for(lambda: empty.pttl(lock) > 8_000)


def test_a_redis_that_is_not_there(carto_sandbox):
    gone = "redis://:MARKED-PASSWORD@127.0.0.1:9/0"
    with pytest.warns(UserWarning, match=r"cannot be kept in redis://127\.0\.0\.1:9/0") as told:
        auth = CartoAuth.from_m2m(cache_filepath=gone)
    assert auth.get_access_token()
    assert "MARKED" not in "".join(str(one.message) for one in told)


def test_what_goes_wrong_under_the_lock_is_told_as_it_is(carto_sandbox, url, requests_mock):
    """An answer that makes no sense is a ValueError as well, but none of Redis's."""
    requests_mock.post(f"{carto_sandbox.url}/oauth/token", json={"access_token": 5})
    with pytest.raises(InvalidAnswer, match="no usable access token"):
        CartoAuth.from_m2m(cache_filepath=url)


def test_an_address_that_is_none(carto_sandbox):
    with pytest.warns(UserWarning, match="cannot be kept"):
        auth = CartoAuth.from_m2m(cache_filepath="redis://127.0.0.1:no-port/0")
    assert auth.get_access_token()
    with pytest.raises(CredentialsError, match=r"\(Redis: ValueError\)"):
        auth.logout()


@pytest.mark.parametrize("content", ["", "no json", "[]", '{"access_token": 5}', "[" * 100_000])
def test_damage_is_a_miss_and_heals(carto_sandbox, url, empty, content):
    CartoAuth.from_m2m(cache_filepath=url)
    [key] = [key for key in empty.keys() if b"lock" not in key]  # noqa: SIM118 - as above
    empty.set(key, content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        healed = CartoAuth.from_m2m(cache_filepath=url)
        assert CartoAuth.from_m2m(cache_filepath=url).get_access_token() == healed.get_access_token()
    assert carto_sandbox.count("/oauth/token") == 2


def test_flat_entries_as_0_2_0_saves_them(url):
    entry = {"api_base_url": "https://x.carto.com", "access_token": "T", "expiration": 4155310800}
    cache.save_cache_file(url, entry)
    assert cache.load_cache_file(url) == entry
