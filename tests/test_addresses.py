"""Where a cache may be named to be: a path, the address of a Redis, and all that is mistaken for one of them."""

import os
import pickle
from pathlib import Path

import pytest

from carto_auth import CartoAuth, CredentialsError, cache
from carto_auth._identity import Identity
from carto_auth._services import Services
from carto_auth._stores import FileStore, store_at

AN_ID = Identity.of_application(Services(), "an-id", "https://gcp-us-east1.api.carto.com")
CLIENT = ("m2m", "https://gcp-us-east1.api.carto.com", "T", 4_000_000_000, "an-id", "a-secret")

OTHER_ADDRESSES = [
    "s3://MARKED@bucket/token.json",
    "dbfs:/MARKED/token.json",
    Path("gs://bucket/MARKED.json"),
    "file:///home/MARKED/token.json",
    "valkey://:MARKED@host/0",
    "valkeys://:MARKED@host/0",
    "redis+sentinel://:MARKED@host:26379/service",
    "rediss//:MARKED@host:6379/0",
    "redis:/:MARKED@host:6379/0",
    "redis:MARKED@host:6379",
    "unix:MARKED",
]

NOT_PLAIN = [
    ("redis://:MARKED@host:6379/0?ssl=true", "ssl after the ? cannot be set here"),
    ("redis://:MARKED@host:6379/0?socket_timeout=60&decode_responses=1", "decode_responses, socket_timeout after"),
    ("redis://:MARKED@host:6379/0?ssl_cert_reqs=none", "ssl_cert_reqs after"),
    ("redis://host:6379/0?pass%77ord=MARKED", "pass%77ord after"),
    ("redis://:MARKED@host:no-port/0", "not a plain address"),
    ("redis://:MARKED#2@host:6379/0", "not a plain address"),
    ("redis://:MAR?KED@host:6379/0", "not a plain address"),
    ("redis://:MARKED/2@host:6379/0", "not a plain address"),
    ("redis://:MARKED@host:6379/cache", "not the number of a database"),
]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """An empty current folder, for what would be made there by mistake."""
    monkeypatch.chdir(tmp_path)
    yield
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".json"]


def in_the_environment(place, monkeypatch):
    monkeypatch.setenv("CARTO_AUTH_CACHE", os.fspath(place))
    CartoAuth.from_m2m(api_base_url=CLIENT[1], client_id="an-id", client_secret="a-secret")


@pytest.mark.parametrize("name", ["an argument", "the environment", "load_cache_file", "save_cache_file"])
@pytest.mark.parametrize("place", OTHER_ADDRESSES, ids=str)
def test_an_address_is_not_taken_for_a_path(name, place, monkeypatch):
    use = {
        "an argument": lambda: CartoAuth(*CLIENT, place),
        "the environment": lambda: in_the_environment(place, monkeypatch),
        "load_cache_file": lambda: cache.load_cache_file(place),
        "save_cache_file": lambda: cache.save_cache_file(place, {}),
    }
    with pytest.raises(ValueError, match=r"redis://host:6379/0, for Valkey and Redis Cluster") as raised:
        use[name]()
    assert isinstance(raised.value, CredentialsError)
    assert "MARKED" not in str(raised.value)


@pytest.mark.parametrize("address", ["s3://bucket/MARKED", "redis://:MARKED@host/0"])
def test_the_folder_of_the_default_files_is_not_an_address(address, monkeypatch):
    monkeypatch.setenv("CARTO_AUTH_HOME", address)
    with pytest.raises(ValueError, match=r"CARTO_AUTH_HOME is no folder: it begins with '(s3|redis):'") as raised:
        cache.get_home_dir()
    assert "MARKED" not in str(raised.value)


@pytest.mark.parametrize("use", [cache.load_cache_file, lambda place: cache.save_cache_file(place, {})])
def test_a_redis_has_no_file(use):
    with pytest.raises(ValueError, match="A cache in Redis is not a file"):
        use("redis://:MARKED@host/0")


@pytest.mark.parametrize(
    "path",
    [
        "token.json",
        "C:\\Users\\ana\\token.json",
        "C:/Users/ana/token.json",
        "./s3://bucket.json",
        "/tmp/redis://token.json",
        "tokens//token.json",
        "redis/token.json",
        "redis",
        "at 10:30.json",
        "a: b/token.json",
        b"token.json",
    ],
)
def test_a_path_is_a_path(path):
    assert isinstance(store_at(path, AN_ID), FileStore)


@pytest.mark.parametrize(("address", "problem"), NOT_PLAIN)
def test_an_address_that_redis_would_stumble_over(address, problem):
    with pytest.raises(ValueError, match=f"cannot be used: .*{problem.replace('?', '[?]')}.*percent-encoded") as raised:
        CartoAuth(*CLIENT, address)
    assert not {"MARKED", "MAR", "KED"} & set(str(raised.value).replace("?", " ").split())
    assert "MARKED" not in str(raised.value)


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("redis://ana:MARKED@host:6379/2", "redis://host:6379/2"),
        ("rediss://:MARKED@host?ssl_cert_reqs=none", "rediss://host?ssl_cert_reqs=none"),
        ("redis://host/0?username=ana&password=MARKED&db=1", "redis://host/0?db=1"),
        ("REDIS://host/0?password=MARKED", "redis://host/0"),
        ("unix://:MARKED@/run/redis.sock?db=2", "unix:///run/redis.sock?db=2"),
        ("redis://:MARKED@[::1]:6379", "redis://[::1]:6379"),
    ],
)
def test_an_address_is_shown_without_its_password(address, shown):
    assert store_at(address, AN_ID).shown == shown


def test_the_password_of_redis_does_not_travel(monkeypatch):
    """Where the worker's own CARTO_AUTH_CACHE names the same Redis, that is used; see tests/peers/test_redis.py."""
    carried = pickle.dumps(store_at("redis://:MARKED@host:6379/0", AN_ID))
    assert b"MARKED" not in carried
    assert pickle.loads(carried).shown == "redis://host:6379/0"
