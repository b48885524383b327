"""How a CartoAuth travels: what is in its pickle, what comes of it elsewhere, copies, and what Dask compares."""

import base64
import copy
import json
import os
import pickle
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from carto_auth import CartoAuth, CredentialsError, Services

BASE = "https://gcp-us-east1.api.carto.com"
LATER = 4_000_000_000
TOKEN = "/oauth/token"


def jwt(**claims):
    parts = [json.dumps(part).encode() for part in ({"alg": "none"}, claims)]
    return ".".join([base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts] + ["signature"])


def m2m_token():
    return CartoAuth.from_m2m(use_cache=False).get_access_token()


def arrived(carto):
    return pickle.loads(pickle.dumps(carto))


# ---- what is in a pickle -------------------------------------------------------------------------


@pytest.mark.parametrize("cache", ["redis://:MARKED@127.0.0.1:9/0", "redis://127.0.0.1:9/0?password=MARKED"])
@pytest.mark.parametrize("named_by", ["the environment", "the call"])
@pytest.mark.parametrize("mode", ["oauth", "m2m"])
@pytest.mark.filterwarnings("ignore:The CARTO token cannot be kept")
def test_what_is_in_a_pickle(mode, named_by, cache, carto_sandbox, monkeypatch):
    monkeypatch.setenv("CARTO_AUTH_CACHE", cache if named_by == "the environment" else "")
    place = cache if named_by == "the call" else None
    if mode == "m2m":
        carto = CartoAuth.from_m2m(cache_filepath=place)
    else:
        carto = CartoAuth(mode, carto_sandbox.api_base_url, m2m_token(), LATER, cache_filepath=place)
    carto.get_carto_dw_credentials()
    content = pickle.dumps(carto)
    assert carto.get_access_token().encode() in content
    assert (carto_sandbox.client_secret.encode() in content) is (mode == "m2m")
    for secret in (b"MARKED", b"ya29."):
        assert secret not in content
    monkeypatch.setenv("CARTO_AUTH_CACHE", "~/on-the-worker.json")
    elsewhere = "redis://127.0.0.1:9/0" if place else "~/on-the-worker.json" if mode == "m2m" else None
    assert arrived(carto)._cache_filepath == elsewhere


def test_a_place_that_the_program_named_goes_along_and_the_default_one_does_not(carto_sandbox, monkeypatch, tmp_path):
    named, default = CartoAuth.from_m2m(cache_filepath=tmp_path / "named.json"), CartoAuth.from_m2m()
    content = pickle.dumps([named, default])
    assert str(Path.home() / ".carto-auth").encode() not in content
    monkeypatch.setenv("HOME", str(tmp_path / "worker"))
    (tmp_path / "worker").mkdir()
    places = [carto._cache_filepath for carto in pickle.loads(content)]
    assert places == [tmp_path / "named.json", tmp_path / "worker" / ".carto-auth" / "token_m2m.json"]


def test_a_pickle_of_a_later_version_is_told_as_such():
    content = pickle.dumps(CartoAuth("m2m", BASE)).replace(b"version\x94K\x01", b"version\x94K\x63")
    with pytest.raises(CredentialsError, match=r"newer carto-auth.*pip install"):
        pickle.loads(content)


#: As carto-auth 0.2.0 itself has made it.
OF_0_2_0 = b"""ccopy_reg
_reconstructor
(ccarto_auth.auth
CartoAuth
c__builtin__
object
Ntp3
Rp4
(dp5
V_mode
Vm2m
sV_api_base_url
Vhttps://gcp-us-east1.api.carto.com
sV_cache_filepath
V/home/ana/.carto-auth/token_m2m.json
sV_use_cache
I01
sV_org
NsV_access_token
Vold
sV_expiration
L4000000000L
sV_client_id
Van-id
sV_client_secret
Va-secret
sb."""


def test_a_pickle_of_0_2_0_is_understood_and_writes_nothing(monkeypatch):
    carto = pickle.loads(OF_0_2_0)
    assert (carto.get_api_base_url(), carto.get_access_token()) == (BASE, "old")
    assert carto._cache_filepath == Path.home() / ".carto-auth" / "token_m2m.json"
    assert list(Path.home().iterdir()) == []
    monkeypatch.setattr("carto_auth.auth.get_m2m_token_info", lambda *given: {"access_token": "-".join(given)})
    monkeypatch.setattr(time, "time", lambda: LATER)
    assert carto.get_access_token() == "an-id-a-secret"


# ---- what comes of it elsewhere ------------------------------------------------------------------

WORKER = """
import os, pickle, sys, time
carto = pickle.load(sys.stdin.buffer)
now = time.time()
time.time = lambda: now + 90_000
print(carto.get_access_token())
"""


def test_the_services_go_along(carto_sandbox, tmp_path):
    """A worker without the environment of the driver must not send the secret to CARTO's cloud."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CARTO_")}
    content = pickle.dumps(CartoAuth.from_m2m(use_cache=False))
    command = [sys.executable, "-c", WORKER]
    done = subprocess.run(command, input=content, env=environment, capture_output=True, timeout=60)
    assert (done.returncode, carto_sandbox.count(TOKEN)) == (0, 2), done.stderr.decode()


@pytest.mark.parametrize("where", ["no cache", "a place that cannot be", "the default"])
@pytest.mark.filterwarnings("ignore:The CARTO token cannot be kept")
def test_what_arrives_in_a_process_shares_what_was_renewed(where, carto_sandbox, clock):
    options = {"no cache": {"use_cache": False}, "a place that cannot be": {"cache_filepath": "/dev/null/x"}}
    carto = CartoAuth.from_m2m(**options.get(where, {}))
    content = pickle.dumps(carto)
    for renewals in (1, 2):
        clock.ahead += carto_sandbox.token_lifetime + 1
        carto_sandbox.token_delay = 0.2
        with ThreadPoolExecutor(4) as pool:
            tokens = set(pool.map(lambda _: pickle.loads(content).get_access_token(), range(20)))
        assert (len(tokens), carto_sandbox.count(TOKEN)) == (1, 1 + renewals)


def test_what_arrives_of_two_people_or_two_secrets_is_not_shared():
    people = [CartoAuth("oauth", BASE, f"token-of-{who}", LATER) for who in ("ana", "bob")]
    clients = [CartoAuth("m2m", BASE, f"token-{n}", LATER, "an-id", f"secret-{n}") for n in (1, 2)]
    tokens = [arrived(carto).get_access_token() for carto in people + clients]
    assert tokens == ["token-of-ana", "token-of-bob", "token-1", "token-2"]


# ---- copies --------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy])
@pytest.mark.parametrize("mode", ["oauth", "m2m"])
def test_copies_are_independent(mode, way):
    carto = CartoAuth(mode, BASE, "a-token", LATER, "an-id", "a-secret")
    other, third = way(carto), way(carto)
    other._access_token, other._api_base_url = "another", "https://b.carto.com"
    other.logout()
    for one in (carto, third):
        assert (one.get_access_token(), one.get_api_base_url()) == ("a-token", BASE)


# ---- Dask ----------------------------------------------------------------------------------------


def test_dask_tells_accounts_apart_and_takes_renewals_for_the_same():
    def token(**options):
        return CartoAuth(**{"mode": "oauth", "api_base_url": BASE, "expiration": LATER, **options}).__dask_tokenize__()

    m2m = {"mode": "m2m", "client_id": "an-id", "client_secret": "a-secret"}
    same = [
        [{**m2m, "access_token": text} for text in ("one", "two", None)],
        [{"access_token": jwt(sub="ana", exp=end)} for end in (LATER, LATER + 1)],
    ]
    different = [
        m2m,
        {**m2m, "client_id": "another"},
        {**m2m, "services": Services(auth_url="https://carto.example.com/auth")},
        {"access_token": jwt(sub="ana")},
        {"access_token": jwt(sub="bob")},
        {"access_token": jwt(sub="bob"), "org": "org_1"},
        {"access_token": "opaque"},
        {"access_token": "opaque-2"},
        {"access_token": "opaque", "api_base_url": "https://b.carto.com"},
    ]
    assert [len({token(**options) for options in group}) for group in same] == [1, 1]
    assert len({token(**options) for options in different}) == len(different)
    assert "opaque" not in str(token(access_token="opaque"))
    assert "a-secret" not in str(token(**m2m))
