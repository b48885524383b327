"""``restricted_to``: a token for a map that reads what the map reads, made once and taken back on request."""

from __future__ import annotations

import json
import logging
import os
import pickle
import re
import stat
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from pathlib import Path

import pytest
import requests

from carto_auth import CartoAuth, CredentialsError, cache
from carto_auth.errors import InvalidAnswer, RateLimited, ServiceUnavailable, Unauthorized
from carto_auth.restricted import RestrictedAuth
from carto_auth.sandbox import walk_login

CITIES = "carto-demo-data.demo_tables.world_cities"
GRANTS = [("carto_dw", CITIES)]
TOKENS = "/v3/tokens"
ONE_TOKEN = "/v3/tokens/***"


@pytest.fixture
def carto(carto_sandbox):
    return CartoAuth.from_m2m()


@pytest.fixture
def person(carto_sandbox, monkeypatch):
    """Logs somebody in, into one cache file: their object."""

    def log_in(email):
        pending = CartoAuth.begin_oauth()
        auth = pending.finish(walk_login(pending.url, email=email))
        auth._use_cache, auth._cache_filepath = True, cache.default_cache_filepath("oauth")
        auth._store()
        return auth

    return log_in


def made(sandbox):
    return sandbox.count(TOKENS, "POST")


def query(auth, sql=f"SELECT name FROM `{CITIES}` LIMIT 1", **options):
    url = f"{auth.get_api_base_url()}/v3/sql/carto_dw/query"
    return requests.get(url, params={"q": sql}, auth=auth, timeout=30, **options)


def kept(carto):
    """The restricted tokens in the cache file: identity and entry."""
    tokens = json.loads(Path(carto._cache_filepath).read_text())["tokens"]
    return {key: entry for key, entry in tokens.items() if key.startswith("mode=restricted&")}


# ---- what it is ----------------------------------------------------------------------------------


def test_its_token_reads_the_grants_and_nothing_else(carto):
    restricted = carto.restricted_to(GRANTS)
    assert query(restricted).json()["rows"] == [{"name": "Tokyo"}]
    denied = query(restricted, "SELECT * FROM `carto-demo-data.demo_tables.secrets`")
    assert (denied.status_code, "does not read" in denied.json()["error"]) == (403, True)


def test_it_is_a_carto_auth_in_place_of_ones_own(carto):
    restricted = carto.restricted_to(GRANTS)
    assert isinstance(restricted, CartoAuth)
    assert type(restricted.get_access_token()) is str
    assert restricted.get_api_base_url() == carto.get_api_base_url()
    assert restricted.get_access_token() != carto.get_access_token()


def test_its_token_is_good_for_ever_and_never_renewed(carto_sandbox, carto, clock):
    restricted = carto.restricted_to(GRANTS)
    token = restricted.get_access_token()
    carto_sandbox.revoke_access_tokens()
    before = len(carto_sandbox.requests)
    clock.ahead = 20 * 365 * 24 * 3600
    assert restricted.get_access_token() == token
    assert len(carto_sandbox.requests) == before
    assert query(restricted).status_code == 200


def test_it_never_asks_for_a_login_when_it_ends(carto_sandbox, carto, clock):
    restricted = carto.restricted_to(GRANTS, expiration=clock() + 600)
    assert query(restricted).status_code == 200
    clock.ahead = 601
    before = len(carto_sandbox.requests)
    with pytest.raises(CredentialsError, match=r"has come to its end\. Call restricted_to"):
        restricted.get_access_token()
    assert len(carto_sandbox.requests) == before


def test_a_401_of_its_own_is_not_renewed_with_the_account(carto_sandbox, carto):
    restricted = carto.restricted_to(GRANTS)
    carto_sandbox._known.delete_api_token(restricted.get_access_token())
    tokens = carto_sandbox.count("/oauth/token")
    assert query(restricted).status_code == 401
    assert carto_sandbox.count("/oauth/token") == tokens
    with pytest.raises(Unauthorized, match=r"was deleted or has ended\. Call restricted_to"):
        restricted.get_carto_dw_credentials()


def test_nothing_shows_the_token(carto, caplog):
    caplog.set_level(logging.DEBUG)
    restricted = carto.restricted_to(GRANTS)
    carto.restricted_to(GRANTS)  # asks CARTO for it, by its token
    token = restricted.get_access_token()
    restricted.delete()
    assert repr(restricted) == f"<RestrictedAuth to 1 grant {carto.get_api_base_url()}>"
    assert "/v3/tokens" in caplog.text
    assert token not in caplog.text
    assert carto.get_access_token() not in caplog.text


def test_a_copy_takes_its_token_along_but_not_the_account(carto_sandbox, carto):
    restricted = carto.restricted_to(GRANTS)
    pickled = pickle.dumps(restricted)
    for secret in (carto.get_access_token(), carto_sandbox.client_secret, carto_sandbox.client_id):
        assert secret.encode() not in pickled
    copied = pickle.loads(pickled)
    assert type(copied) is RestrictedAuth
    assert query(copied).status_code == 200
    with pytest.raises(CredentialsError, match="Call restricted_to"):
        copied.delete()
    assert query(copied).status_code == 200


# ---- made once -----------------------------------------------------------------------------------


def test_it_is_used_again_while_all_is_the_same(carto_sandbox, carto):
    grants = [("carto_dw", "a.b.c"), ("other", "SELECT 1"), ("carto_dw", "a.b.c")]
    options = {"allowed_apis": ["maps", "sql"], "referers": ["https://one.example", "https://two.example"]}
    first = carto.restricted_to(grants, **options)
    again = CartoAuth.from_m2m().restricted_to(iter(grants[::-1]), **{k: v[::-1] for k, v in options.items()})
    assert again.get_access_token() == first.get_access_token()
    assert made(carto_sandbox) == 1


DIFFERENT = {
    "grants": {"grants": [("carto_dw", f"{CITIES}2")]},
    "more grants": {"grants": [*GRANTS, ("carto_dw", "a.b.c")]},
    "connection": {"grants": [("other", CITIES)]},
    "APIs": {"allowed_apis": ["maps"]},
    "referers": {"referers": ["https://example.com"]},
    "an end": {"expiration": 4_000_000_000},
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_another_is_made_where_something_differs(name, carto_sandbox, carto):
    first = carto.restricted_to(GRANTS)
    other = carto.restricted_to(**{"grants": GRANTS, **DIFFERENT[name]})
    assert other.get_access_token() != first.get_access_token()
    assert carto.restricted_to(GRANTS).get_access_token() == first.get_access_token()
    assert made(carto_sandbox) == 2


def test_names_that_look_alike_when_joined_are_different(carto_sandbox, carto):
    pairs = [[("a", "b"), ("c", "d")], [("a", "b,c"), ("c", "d")], [("a", 'b", "c'), ("c", "d")], [("a&b", "c")]]
    pairs += [[("a", "b&c")], [("a%26b", "c")]]
    assert len({carto.restricted_to(grants).get_access_token() for grants in pairs}) == len(pairs)


def test_a_token_that_was_deleted_elsewhere_is_replaced(carto_sandbox, carto):
    first = carto.restricted_to(GRANTS).get_access_token()
    carto_sandbox._known.delete_api_token(first)
    second = carto.restricted_to(GRANTS).get_access_token()
    assert second != first
    assert carto.restricted_to(GRANTS).get_access_token() == second
    assert made(carto_sandbox) == 2


@pytest.mark.parametrize("status", [503, 429])
def test_a_kept_token_is_used_while_carto_cannot_tell(status, carto_sandbox, carto, requests_mock):
    requests_mock.post(f"{carto.get_api_base_url()}{TOKENS}", json={"token": "a-restricted-token"})
    one = requests_mock.get(re.compile(f"{TOKENS}/"), status_code=status)
    assert carto.restricted_to(GRANTS).get_access_token() == "a-restricted-token"
    assert not one.called
    assert carto.restricted_to(GRANTS).get_access_token() == "a-restricted-token"
    assert one.called


def test_a_kept_token_is_used_while_carto_cannot_be_reached(carto, requests_mock):
    requests_mock.post(f"{carto.get_api_base_url()}{TOKENS}", json={"token": "a-restricted-token"})
    requests_mock.get(re.compile(f"{TOKENS}/"), exc=requests.ConnectionError)
    tokens = {carto.restricted_to(GRANTS).get_access_token() for _ in range(2)}
    assert tokens == {"a-restricted-token"}


@pytest.mark.parametrize(
    ("asked", "later", "is_same"),
    [
        (3600, [(0, 3600), (600, 3600), (1700, 3600)], True),  # as each run of a job asks, half an hour long
        (3600, [(1900, 3600)], False),  # less than half of the time asked for would be left
        (3600, [(0, 1800)], False),  # it would last longer than asked for
        (3600, [(0, 8000)], False),
        (3600, [(3601, 600)], False),
    ],
)
def test_when_a_token_that_ends_is_used_again(asked, later, is_same, carto, clock):
    first = carto.restricted_to(GRANTS, expiration=clock() + asked).get_access_token()
    for ahead, seconds in later:
        clock.ahead = ahead
        again = carto.restricted_to(GRANTS, expiration=clock() + seconds).get_access_token()
        assert (again == first) is is_same


def test_threads_make_one(carto_sandbox, carto):
    barrier = threading.Barrier(8)

    def work(_):
        barrier.wait(30)
        return carto.restricted_to(GRANTS).get_access_token()

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(work, range(8)))) == 1
    assert made(carto_sandbox) == 1


PROGRAM = """
import sys
from carto_auth import CartoAuth
auth = CartoAuth.from_m2m()
print("ready", flush=True)
sys.stdin.readline()
print(auth.restricted_to([("carto_dw", "a.b.c")]).get_access_token())
"""


def test_processes_make_one(carto_sandbox, carto):
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    programs = [subprocess.Popen([sys.executable, "-c", PROGRAM], **pipes) for _ in range(4)]
    assert [program.stdout.readline() for program in programs] == ["ready\n"] * 4
    for program in programs:
        program.stdin.write("\n")
        program.stdin.flush()
    printed = {program.communicate(timeout=60)[0] for program in programs}
    assert len(printed) == 1
    assert made(carto_sandbox) == 1


def test_without_a_cache_each_call_makes_one(carto_sandbox):
    carto = CartoAuth.from_m2m(use_cache=False)
    assert carto.restricted_to(GRANTS).get_access_token() != carto.restricted_to(GRANTS).get_access_token()
    assert not Path("~/.carto-auth").expanduser().exists()


# ---- in the cache --------------------------------------------------------------------------------


def test_it_is_kept_beside_the_account_and_does_not_disturb_it(carto):
    before = cache.load_cache_file(carto._cache_filepath)
    carto.restricted_to(GRANTS)
    [(identity, entry)] = kept(carto).items()
    assert stat.S_IMODE(os.stat(carto._cache_filepath).st_mode) == 0o600
    assert re.search("&restriction=[0-9a-f]{64}$", identity)
    assert entry["access_token"] not in identity
    assert cache.load_cache_file(carto._cache_filepath) == before
    assert CartoAuth.from_m2m().get_access_token() == carto.get_access_token()


def test_it_is_never_taken_for_a_login(carto):
    carto.restricted_to(GRANTS)
    carto.logout()
    assert len(kept(carto)) == 1
    assert cache.load_cache_file(carto._cache_filepath) is None


def test_another_account_gets_its_own(carto_sandbox, person):
    ana, ben = person("ana@example.com"), person("ben@example.com")
    tokens = {auth.restricted_to(GRANTS).get_access_token() for auth in (ana, ben, ana, ben)}
    assert (len(tokens), made(carto_sandbox)) == (2, 2)


def test_an_account_that_cannot_be_told_from_others_is_not_kept(carto_sandbox, tmp_path, requests_mock):
    requests_mock.post(f"https://api.example.com{TOKENS}", [{"json": {"token": f"t{n}"}} for n in range(2)])
    carto = CartoAuth(
        "oauth", "https://api.example.com", "opaque", time.time() + 600, cache_filepath=tmp_path / "tokens.json"
    )
    assert [carto.restricted_to(GRANTS).get_access_token() for _ in range(2)] == ["t0", "t1"]


def test_a_cache_that_cannot_be_written_is_told_of(carto, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache, "save_cache_file", full)
    with pytest.warns(UserWarning, match="No space left on device"):
        restricted = carto.restricted_to(GRANTS)
    assert query(restricted).status_code == 200


# ---- taken back ----------------------------------------------------------------------------------


def test_delete_takes_it_back_at_carto_and_in_the_cache(carto_sandbox, carto):
    restricted = carto.restricted_to(GRANTS)
    page = pickle.loads(pickle.dumps(restricted))  # as a published page, it has the token
    assert restricted.delete() is True
    assert kept(carto) == {}
    assert query(page).status_code == 401
    with pytest.raises(CredentialsError, match=r"was deleted\. Call restricted_to"):
        restricted.get_access_token()
    requests_before = len(carto_sandbox.requests)
    assert restricted.delete() is False
    assert len(carto_sandbox.requests) == requests_before
    assert query(carto.restricted_to(GRANTS)).status_code == 200


def test_logout_leaves_what_is_published(carto_sandbox, carto):
    restricted = carto.restricted_to(GRANTS)
    assert restricted.logout() is False
    assert restricted.delete() is True


def test_maps_do_not_each_leave_a_lock_file(carto_sandbox, carto):
    for number in range(3):
        carto.restricted_to([("carto_dw", f"SELECT {number}")])
    locks = list((Path.home() / ".carto-auth").glob("*.lock"))
    assert len(locks) <= 3  # of the file, of the account, of its restricted tokens


def test_delete_of_what_is_gone_already(carto_sandbox, carto):
    restricted = carto.restricted_to(GRANTS)
    carto_sandbox._known.delete_api_token(restricted.get_access_token())
    assert restricted.delete() is False
    assert kept(carto) == {}


def test_delete_leaves_a_newer_token_in_the_cache(carto_sandbox, carto):
    old = carto.restricted_to(GRANTS)
    carto_sandbox._known.delete_api_token(old.get_access_token())
    new = carto.restricted_to(GRANTS)
    old.delete()
    assert [entry["access_token"] for entry in kept(carto).values()] == [new.get_access_token()]


def test_a_delete_that_fails_can_be_tried_again(carto_sandbox, carto):
    restricted = carto.restricted_to(GRANTS)
    carto_sandbox.outage = {TOKENS: 400}
    with pytest.raises(CredentialsError, match="did not delete the restricted token"):
        restricted.delete()
    assert (len(kept(carto)), query(restricted).status_code) == (1, 200)
    carto_sandbox.outage = None
    assert restricted.delete() is True


def test_delete_renews_the_accounts_token_if_it_must(carto_sandbox, carto):
    restricted = carto.restricted_to(GRANTS)
    carto_sandbox.revoke_access_tokens()
    assert restricted.delete() is True


# ---- what can go wrong ---------------------------------------------------------------------------


def test_an_account_that_may_not_make_tokens(carto_sandbox, carto):
    carto_sandbox.may_make_tokens = False
    with pytest.raises(Unauthorized, match="may not make API access tokens: ask the administrator") as failed:
        carto.restricted_to(GRANTS)
    assert failed.value.status == 403
    assert "this user cannot manage API access tokens" in str(failed.value)
    assert carto_sandbox.count("/oauth/token") == 1


def test_a_quota_that_is_used_up(carto_sandbox, carto):
    carto_sandbox.token_quota = 2
    tokens = [carto.restricted_to([("carto_dw", f"a.b.{n}")]) for n in range(2)]
    with pytest.raises(RateLimited, match="Delete tokens that are not needed any more") as failed:
        carto.restricted_to(GRANTS)
    assert failed.value.status == 429
    assert made(carto_sandbox) == 3  # a POST is not sent twice
    tokens[0].delete()
    assert query(carto.restricted_to(GRANTS)).status_code == 200


def test_a_login_by_api_access_token(carto):
    api_token = carto.restricted_to(GRANTS).get_access_token()
    for auth in (CartoAuth.from_access_token(api_token), carto.restricted_to(GRANTS)):
        with pytest.raises(Unauthorized, match=r"cannot make tokens\. Use CartoAuth.from_oauth\(\)") as failed:
            auth.restricted_to([("carto_dw", "a.b.c")])
        assert api_token not in str(failed.value)


def test_a_login_that_has_ended(carto_sandbox, person):
    ana = person("ana@example.com")
    carto_sandbox.revoke_access_tokens()
    with pytest.raises(Unauthorized, match="then log in"):
        ana.restricted_to(GRANTS)


def test_a_401_renews_the_accounts_token_once(carto_sandbox, carto):
    carto_sandbox.revoke_access_tokens()
    assert query(carto.restricted_to(GRANTS)).status_code == 200
    assert carto_sandbox.count("/oauth/token") == 2


def test_a_service_in_trouble_is_asked_once(carto_sandbox, carto):
    carto_sandbox.outage = {TOKENS: 503}
    with pytest.raises(ServiceUnavailable, match="CARTO made no restricted token"):
        carto.restricted_to(GRANTS)
    assert made(carto_sandbox) == 1


@pytest.mark.parametrize("answer", [{}, {"token": None}, {"token": ""}, {"token": "a b"}, {"token": 7}])
def test_an_answer_without_a_token(answer, carto, requests_mock):
    requests_mock.post(f"{carto.get_api_base_url()}{TOKENS}", json=answer)
    with pytest.raises(InvalidAnswer, match="no restricted token that can be used"):
        carto.restricted_to(GRANTS)
    assert kept(carto) == {}


def test_an_account_without_an_api_base_url():
    with pytest.raises(CredentialsError, match="without an API base URL"):
        CartoAuth("oauth", access_token="t", expiration=time.time() + 60).restricted_to(GRANTS)


WRONG = {
    "no grants": {"grants": []},
    "a pair instead of a list": {"grants": ("carto_dw", CITIES)},
    "texts of two letters": {"grants": ["ab", "cd"]},
    "a text": {"grants": "carto_dw"},
    "nothing": {"grants": None},
    "a triple": {"grants": [("a", "b", "c")]},
    "an empty source": {"grants": [("carto_dw", " ")]},
    "no text": {"grants": [("carto_dw", 7)]},
    "CARTO's own form of a grant": {"grants": [{"connection_name": "carto_dw", "source": CITIES}]},
    "no APIs": {"allowed_apis": []},
    "an API": {"allowed_apis": "sql"},
    "a referer": {"referers": "https://example.com"},
    "the past": {"expiration": 1},
    "a datetime": {"expiration": datetime(2100, 1, 1, tzinfo=timezone.utc)},
    "milliseconds": {"expiration": 4_000_000_000_000},
    "not a number": {"expiration": float("nan")},
    "true": {"expiration": True},
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments_are_told_before_any_request(name, carto_sandbox, carto):
    before = len(carto_sandbox.requests)
    with pytest.raises((TypeError, ValueError)):
        carto.restricted_to(**{"grants": GRANTS, **WRONG[name]})
    assert len(carto_sandbox.requests) == before


def test_what_is_sent(carto, requests_mock):
    posted = requests_mock.post(f"{carto.get_api_base_url()}{TOKENS}", json={"token": "t"}, status_code=201)
    carto.restricted_to(GRANTS, allowed_apis=["maps"], referers=["https://example.com"], expiration=4_102_444_800.5)
    assert posted.last_request.json() == {
        "grants": [{"connection_name": "carto_dw", "source": CITIES}],
        "allowed_apis": ["maps"],
        "referers": ["https://example.com"],
        "expiration_date": "2100-01-01T00:00:00Z",
    }
    carto.restricted_to(GRANTS)
    assert "expiration_date" not in posted.last_request.json()
