"""``restricted_to``: a token for a map that reads what the map reads, made once and taken back on request."""

from __future__ import annotations

import json
import logging
import os
import pickle
import re
import shutil
import stat
import subprocess
import sys
import time
from datetime import datetime, timezone
from pathlib import Path

import pytest
import requests

from carto_auth import CartoAuth, CredentialsError
from carto_auth.auth import RestrictedAuth
from carto_auth.cache import load_cache_file
from carto_auth.errors import InvalidAnswer, RateLimited, ServiceUnavailable, Unauthorized
from carto_auth.sandbox import walk_login

API = "https://api.example.com"
CITIES = "carto-demo-data.demo_tables.world_cities"
GRANTS = [("carto_dw", CITIES)]
TOKENS = "/v3/tokens"


@pytest.fixture
def carto(carto_sandbox):
    return CartoAuth.from_m2m()


@pytest.fixture
def person(carto_sandbox, tmp_path):
    """Logs somebody in, all into one cache file: their object."""

    def log_in(email):
        pending = CartoAuth.begin_oauth()
        auth = pending.finish(walk_login(pending.url, email=email))
        known = (auth.get_api_base_url(), auth.get_access_token(), time.time() + 3600)
        return CartoAuth("oauth", *known, cache_filepath=tmp_path / "tokens.json", interactive=False)

    return log_in


def opaque_account(**options):
    """A person's login that nothing is known of, at an API that the test plays."""
    return CartoAuth("oauth", API, "opaque", time.time() + 600, interactive=False, **options)


def made(sandbox):
    return sandbox.count(TOKENS, "POST")


def query(auth, sql=f"SELECT name FROM `{CITIES}` LIMIT 1"):
    url = f"{auth.get_api_base_url()}/v3/sql/carto_dw/query"
    return requests.get(url, params={"q": sql}, auth=auth, timeout=30)


def delete_elsewhere(carto, token):
    """As somebody does in the CARTO Workspace."""
    url = f"{carto.get_api_base_url()}{TOKENS}/{token}"
    assert requests.delete(url, auth=carto, timeout=30).status_code == 204


def kept(carto):
    """The restricted tokens in the cache file: identity and entry."""
    tokens = json.loads(Path(carto._cache_filepath).read_text())["tokens"]
    return {key: entry for key, entry in tokens.items() if key.startswith("mode=restricted&")}


# ---- what it is ----------------------------------------------------------------------------------


def test_it_stands_in_for_the_account_and_reads_the_grants_only(carto):
    restricted = carto.restricted_to(GRANTS)
    assert isinstance(restricted, CartoAuth)
    assert type(restricted.get_access_token()) is str
    assert restricted.get_access_token() != carto.get_access_token()
    assert restricted.get_api_base_url() == carto.get_api_base_url()
    assert query(restricted).json()["rows"] == [{"name": "Tokyo"}]
    denied = query(restricted, "SELECT * FROM `carto-demo-data.demo_tables.secrets`")
    assert (denied.status_code, "does not read" in denied.json()["error"]) == (403, True)


def test_it_is_good_until_it_ends_and_asks_nobody_then(carto_sandbox, carto, clock):
    endless, ending = carto.restricted_to(GRANTS), carto.restricted_to(GRANTS, expiration=clock() + 600)
    token = endless.get_access_token()
    assert query(ending).status_code == 200
    carto_sandbox.revoke_access_tokens()
    before = len(carto_sandbox.requests)
    clock.ahead = 601
    with pytest.raises(CredentialsError, match=r"has come to its end\. Call restricted_to"):
        ending.get_access_token()
    clock.ahead = 20 * 365 * 24 * 3600
    assert endless.get_access_token() == token
    assert len(carto_sandbox.requests) == before
    assert query(endless).status_code == 200


def test_a_401_of_its_own_is_not_renewed_with_the_account(carto_sandbox, carto):
    restricted = carto.restricted_to(GRANTS)
    delete_elsewhere(carto, restricted.get_access_token())
    assert query(restricted).status_code == 401
    with pytest.raises(Unauthorized, match="Call restricted_to"):
        restricted.get_carto_dw_credentials()
    assert carto_sandbox.count("/oauth/token") == 1


def test_nothing_shows_the_token(carto, caplog):
    caplog.set_level(logging.DEBUG)
    restricted = carto.restricted_to(GRANTS)
    carto.restricted_to(GRANTS)  # asks CARTO about it, by its token
    token = restricted.get_access_token()
    restricted.delete()
    assert repr(restricted) == f"<RestrictedAuth to 1 grant {carto.get_api_base_url()}>"
    assert TOKENS in caplog.text
    assert token not in caplog.text
    assert carto.get_access_token() not in caplog.text


def test_a_copy_takes_its_token_along_but_not_the_account(carto_sandbox, carto):
    pickled = pickle.dumps(carto.restricted_to(GRANTS))
    for secret in (carto.get_access_token(), carto_sandbox.client_secret, carto_sandbox.client_id):
        assert secret.encode() not in pickled
    copied = pickle.loads(pickled)
    assert type(copied) is RestrictedAuth
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


DIFFERENT = [
    {"grants": GRANTS},
    {"grants": GRANTS, "allowed_apis": ["maps"]},
    {"grants": GRANTS, "referers": ["https://example.com"]},
    {"grants": GRANTS, "expiration": 4_000_000_000},
    {"grants": [*GRANTS, ("carto_dw", "a.b.c")]},
    {"grants": [("other", CITIES)]},
    # These look alike when they are joined.
    {"grants": [("a", "b"), ("c", "d")]},
    {"grants": [("a", "b,c"), ("c", "d")]},
    {"grants": [("a", 'b", "c'), ("c", "d")]},
    {"grants": [("a&b", "c")]},
    {"grants": [("a", "b&c")]},
]


def test_another_is_made_where_anything_differs(carto_sandbox, carto):
    for _ in range(2):
        tokens = {carto.restricted_to(**one).get_access_token() for one in DIFFERENT}
        assert len(tokens) == made(carto_sandbox) == len(DIFFERENT)
    locks = list((Path.home() / ".carto-auth").glob("*.lock"))
    assert len(locks) <= 3  # of the file, of the account, of its restricted tokens: maps do not each leave one


def test_a_token_that_was_deleted_elsewhere_is_replaced(carto_sandbox, carto):
    first = carto.restricted_to(GRANTS)
    delete_elsewhere(carto, first.get_access_token())
    second = carto.restricted_to(GRANTS).get_access_token()
    assert second != first.get_access_token()
    assert first.delete() is False  # and that leaves the newer one in the cache
    assert [entry["access_token"] for entry in kept(carto).values()] == [second]
    assert carto.restricted_to(GRANTS).get_access_token() == second
    assert made(carto_sandbox) == 2


CHANGES = {
    "grants": [{"connection_name": "carto_dw", "source": CITIES}, {"connection_name": "carto_dw", "source": "a.b.*"}],
    "allowed_apis": ["sql", "maps", "lds"],
    "referers": ["https://example.com"],
}


@pytest.mark.parametrize("key", CHANGES)
def test_a_token_that_was_changed_elsewhere_is_replaced(key, carto_sandbox, carto):
    """Widened, it would be published with the next map; narrowed, the map would not be drawn."""
    first = carto.restricted_to(GRANTS).get_access_token()
    url = f"{carto.get_api_base_url()}{TOKENS}/{first}"
    assert requests.patch(url, json={key: CHANGES[key]}, auth=carto, timeout=30).status_code == 200
    second = carto.restricted_to(GRANTS).get_access_token()
    assert second != first
    assert carto.restricted_to(GRANTS).get_access_token() == second
    assert made(carto_sandbox) == 2


def test_what_carto_does_not_tell_of_a_token_is_no_difference(carto, requests_mock):
    requests_mock.post(f"{carto.get_api_base_url()}{TOKENS}", json={"token": "a-restricted-token"})
    asked = requests_mock.get(re.compile(f"{TOKENS}/"), json={"token": "a-restricted-token", "referers": None})
    carto.restricted_to(GRANTS)
    assert carto.restricted_to(GRANTS).get_access_token() == "a-restricted-token"
    assert asked.called


def test_a_map_token_works_on_its_site(carto):
    """With what people copy along, CARTO makes the token and answers each tile with a 403."""
    site = carto.restricted_to(GRANTS, referers=["https://Example.com:443/", "http://localhost:8080"], name="cities")
    url = f"{site.get_api_base_url()}/v3/sql/carto_dw/query"
    for referer, status in {"https://example.com/map?x=1": 200, "https://evil.example/": 403}.items():
        options = {"params": {"q": f"SELECT name FROM `{CITIES}`"}, "headers": {"Referer": referer}, "timeout": 30}
        assert requests.get(url, auth=site, **options).status_code == status
    [listed] = requests.get(f"{carto.get_api_base_url()}{TOKENS}", auth=carto, timeout=30).json()
    assert (listed["name"], listed["referers"]) == ("cities", ["https://example.com", "http://localhost:8080"])


@pytest.mark.parametrize("trouble", [{"status_code": 503}, {"status_code": 429}, {"exc": requests.ConnectionError}])
def test_a_kept_token_is_used_while_carto_cannot_tell(trouble, carto, requests_mock):
    requests_mock.post(f"{carto.get_api_base_url()}{TOKENS}", json={"token": "a-restricted-token"})
    asked = requests_mock.get(re.compile(f"{TOKENS}/"), **trouble)
    for is_asked in (False, True):
        assert carto.restricted_to(GRANTS).get_access_token() == "a-restricted-token"
        assert asked.called is is_asked


@pytest.mark.parametrize(
    ("later", "is_same"),
    [
        ([(0, 3600), (600, 3600), (1700, 3600)], True),  # as each run of a job asks, half an hour long
        ([(1900, 3600)], False),  # less than half of the time asked for would be left
        ([(0, 1800)], False),  # it would last longer than asked for
        ([(0, 8000)], False),
        ([(3601, 600)], False),
    ],
)
def test_when_a_token_that_ends_is_used_again(later, is_same, carto, clock):
    first = carto.restricted_to(GRANTS, expiration=clock() + 3600).get_access_token()
    for ahead, seconds in later:
        clock.ahead = ahead
        again = carto.restricted_to(GRANTS, expiration=clock() + seconds).get_access_token()
        assert (again == first) is is_same


PROGRAM = """
import sys
from concurrent.futures import ThreadPoolExecutor
from carto_auth import CartoAuth
auth = CartoAuth.from_m2m()
print("ready", flush=True)
sys.stdin.readline()
with ThreadPoolExecutor(4) as pool:
    tokens = pool.map(lambda _: auth.restricted_to([("carto_dw", "a.b.c")]).get_access_token(), range(4))
    print(*set(tokens))
"""


def test_threads_and_processes_make_one(carto_sandbox, carto):
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    programs = [subprocess.Popen([sys.executable, "-c", PROGRAM], **pipes) for _ in range(3)]
    assert [program.stdout.readline() for program in programs] == ["ready\n"] * 3
    for program in programs:
        program.stdin.write("\n")
        program.stdin.flush()
    [printed] = {program.communicate(timeout=60)[0] for program in programs}
    assert len(printed.split()) == made(carto_sandbox) == 1


# ---- in the cache --------------------------------------------------------------------------------


def test_without_a_cache_each_call_makes_one(carto_sandbox):
    carto = CartoAuth.from_m2m(use_cache=False)
    assert carto.restricted_to(GRANTS).get_access_token() != carto.restricted_to(GRANTS).get_access_token()
    assert not Path("~/.carto-auth").expanduser().exists()


def test_it_is_kept_beside_the_account_and_outlives_its_logout(carto):
    before = load_cache_file(carto._cache_filepath)
    restricted = carto.restricted_to(GRANTS)
    [(identity, entry)] = kept(carto).items()
    assert stat.S_IMODE(os.stat(carto._cache_filepath).st_mode) == 0o600
    assert re.search("&restriction=[0-9a-f]{64}$", identity)
    assert entry["access_token"] not in identity
    assert load_cache_file(carto._cache_filepath) == before
    assert CartoAuth.from_m2m().get_access_token() == carto.get_access_token()

    assert restricted.logout() is False
    assert carto.logout() is True
    assert list(kept(carto)) == [identity]
    assert load_cache_file(carto._cache_filepath) is None  # it is never taken for a login
    assert query(restricted).status_code == 200


def test_another_account_gets_its_own(carto_sandbox, person):
    ana, ben = person("ana@example.com"), person("ben@example.com")
    tokens = {auth.restricted_to(GRANTS).get_access_token() for auth in (ana, ben, ana, ben)}
    assert (len(tokens), made(carto_sandbox)) == (2, 2)


def test_an_account_that_cannot_be_told_from_others_keeps_none(tmp_path, requests_mock):
    requests_mock.post(f"{API}{TOKENS}", [{"json": {"token": f"t{n}"}} for n in range(2)])
    account = opaque_account(cache_filepath=tmp_path / "tokens.json")
    assert [account.restricted_to(GRANTS).get_access_token() for _ in range(2)] == ["t0", "t1"]


def test_a_cache_that_cannot_be_written_is_told_of(carto_sandbox, tmp_path):
    folder = tmp_path / "cache"
    carto = CartoAuth.from_m2m(cache_filepath=folder / "tokens.json")
    shutil.rmtree(folder)
    folder.touch()
    with pytest.warns(UserWarning, match=r"The restricted token cannot be kept in .*tokens\.json") as warned:
        restricted = carto.restricted_to(GRANTS)
    assert len(warned) == 1
    assert query(restricted).status_code == 200


# ---- taken back ----------------------------------------------------------------------------------


def test_delete_takes_it_back_at_carto_and_in_the_cache(carto_sandbox, carto):
    restricted = carto.restricted_to(GRANTS)
    page = pickle.loads(pickle.dumps(restricted))  # as a published page, it has the token
    carto_sandbox.revoke_access_tokens()  # the account's is renewed for it
    assert restricted.delete() is True
    assert kept(carto) == {}
    assert query(page).status_code == 401
    with pytest.raises(CredentialsError, match=r"was deleted\. Call restricted_to"):
        restricted.get_access_token()
    requests_before = len(carto_sandbox.requests)
    assert restricted.delete() is False
    assert len(carto_sandbox.requests) == requests_before
    assert query(carto.restricted_to(GRANTS)).status_code == 200


def test_a_delete_that_fails_can_be_tried_again(carto_sandbox, carto):
    restricted = carto.restricted_to(GRANTS)
    carto_sandbox.outage = {TOKENS: 400}
    with pytest.raises(CredentialsError, match="did not delete the restricted token"):
        restricted.delete()
    assert (len(kept(carto)), query(restricted).status_code) == (1, 200)
    carto_sandbox.outage = None
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
    carto_sandbox.token_quota = 1
    first = carto.restricted_to([("carto_dw", "a.b.c")])
    with pytest.raises(RateLimited, match="Delete tokens that are no longer needed") as failed:
        carto.restricted_to(GRANTS)
    assert failed.value.status == 429
    first.delete()
    assert query(carto.restricted_to(GRANTS)).status_code == 200


def test_a_login_by_api_access_token(carto):
    api_token = carto.restricted_to(GRANTS).get_access_token()
    for auth in (CartoAuth.from_access_token(api_token), carto.restricted_to(GRANTS)):
        with pytest.raises(Unauthorized, match=r"cannot make tokens\. Use CartoAuth.from_oauth\(\)") as failed:
            auth.restricted_to([("carto_dw", "a.b.c")])
        assert api_token not in str(failed.value)


def test_an_account_whose_token_was_revoked(carto_sandbox, carto, person):
    ana = person("ana@example.com")
    carto_sandbox.revoke_access_tokens()
    assert query(carto.restricted_to(GRANTS)).status_code == 200
    assert carto_sandbox.count("/oauth/token") == 3  # the application's is renewed once
    with pytest.raises(Unauthorized, match="Then log in again"):
        ana.restricted_to(GRANTS)


def test_a_service_in_trouble_is_asked_once(carto_sandbox, carto):
    carto_sandbox.outage = {TOKENS: 503}
    with pytest.raises(ServiceUnavailable, match="CARTO made no restricted token"):
        carto.restricted_to(GRANTS)
    assert made(carto_sandbox) == 1  # a POST is not sent twice


@pytest.mark.parametrize("answer", [{}, {"token": None}, {"token": ""}, {"token": "a b"}, {"token": 7}])
def test_an_answer_without_a_token(answer, requests_mock):
    requests_mock.post(f"{API}{TOKENS}", json=answer)
    with pytest.raises(InvalidAnswer, match="no restricted token that can be used"):
        opaque_account().restricted_to(GRANTS)


@pytest.mark.parametrize(
    "arguments",
    [
        {"grants": []},
        {"grants": ("carto_dw", CITIES)},  # a pair instead of a list of them
        {"grants": ["ab", "cd"]},  # texts of two letters
        {"grants": "carto_dw"},
        {"grants": None},
        {"grants": [("a", "b", "c")]},
        {"grants": [("carto_dw", " ")]},
        {"grants": [("carto_dw", 7)]},
        {"grants": [{"connection_name": "carto_dw", "source": CITIES}]},  # CARTO's own form
        {"allowed_apis": []},
        {"allowed_apis": "sql"},
        {"referers": "https://example.com"},
        {"expiration": 1},
        {"expiration": datetime(2100, 1, 1, tzinfo=timezone.utc)},
        {"expiration": 4_000_000_000_000},  # milliseconds
        *(
            {"referers": [site]}
            for site in ("https://a.example/map", "a.example", "https://u@a.example", "https://a?b", "https://")
        ),
        *(
            {"referers": [site]}
            for site in ("https://a b.example", "https://caf\xe9.example", "https://a\0.example", "https://a:99999")
        ),
        {"allowed_apis": ["imports", "sql"]},
        *({"grants": [("carto_dw", source)]} for source in ("*", "a*", "a.*", "`a`.*", "")),
        {"name": " "},
        {"expiration": float("nan")},
        {"expiration": True},
    ],
    ids=str,
)
def test_wrong_arguments_are_told_before_any_request(arguments, requests_mock):
    with pytest.raises((TypeError, ValueError), match=next(iter(arguments))):
        opaque_account().restricted_to(**{"grants": GRANTS, **arguments})
    assert requests_mock.call_count == 0


def test_what_is_sent(requests_mock):
    posted = requests_mock.post(f"{API}{TOKENS}", json={"token": "t"}, status_code=201)
    account = opaque_account()
    account.restricted_to(GRANTS, allowed_apis=["maps"], referers=["https://example.com"], expiration=4_102_444_800.5)
    assert posted.last_request.json() == {
        "grants": [{"connection_name": "carto_dw", "source": CITIES}],
        "allowed_apis": ["maps"],
        "referers": ["https://example.com"],
        "expiration_date": "2100-01-01T00:00:00Z",
    }
    account.restricted_to([("carto_dw", "a.b.*"), ("carto_dw", "SELECT * FROM t")], allowed_apis=["imports"])
    assert not {"expiration_date", "name"} & set(posted.last_request.json())
