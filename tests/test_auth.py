"""CartoAuth in time: which token is used until when, whose it is, and what is kept of it."""

import base64
import datetime
import json
import math
import os
import pickle
import time
from pathlib import Path
from unittest.mock import Mock

import pytest
from clocks import StoppedClock

from carto_auth import CartoAuth, CredentialsError, LoginRequired, _log, auth, cache
from carto_auth.cache import AccountFile
from carto_auth.errors import ServiceUnreachable
from carto_auth.utils import get_m2m_token_info, is_token_expired

BASE = "https://gcp-us-east1.api.carto.com"
OTHER_BASE = "https://gcp-europe-west1.api.carto.com"
TOKEN_URL = "https://auth.carto.com/oauth/token"
CLIENT = {"client_id": "an-id", "client_secret": "a-secret"}
PUBLIC_CLIENT = "0dxb8HR3ATXCxJiPOJVHsLoHoAtbRX6u"
HOUR = 3600.0

both_modes = pytest.mark.parametrize("mode", ["oauth", "m2m"])


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    clock = StoppedClock(1_800_000_000.0)
    monkeypatch.setattr(time, "time", clock)
    monkeypatch.setattr(_log, "said", set())
    return clock


@pytest.fixture
def file(tmp_path):
    return tmp_path / "token.json"


@pytest.fixture
def carto_answers(monkeypatch, clock):
    """CARTO's side of a login, in either mode: an hour's tokens, "token-1" and so on; an error if told."""

    def answer(*arguments, **options):
        if answers.error:
            raise answers.error
        token = answers.make_token(f"token-{answers.call_count}")
        return {"access_token": token, "expiration": clock.now + HOUR, "issued_at": clock.now}

    answers = Mock(side_effect=answer, error=None, make_token=str)
    for name in ("get_m2m_token_info", "get_oauth_token_info", "refresh_oauth_token_info"):
        monkeypatch.setattr(auth, name, answers)
    monkeypatch.setattr(auth, "get_api_base_url", Mock(return_value=BASE))
    return answers


def jwt(**claims):
    parts = [json.dumps(part).encode() for part in ({"alg": "none"}, claims)]
    return ".".join([base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts] + ["signature"])


def start(mode="m2m", path=None, **options):
    if mode == "oauth":
        return CartoAuth.from_oauth(cache_filepath=path, **options)
    return CartoAuth.from_m2m(cache_filepath=path, **{"api_base_url": BASE, **CLIENT, **options})


def flat_file(path, token, expiration, base_url=BASE):
    path.write_text(json.dumps({"api_base_url": base_url, "access_token": token, "expiration": expiration}))
    path.chmod(0o600)


def kept(carto):
    """What is in the cache for an object's account."""
    return cache.load_cache_file(AccountFile.at(carto._cache_filepath, carto._identity()))


def snapshot(folder):
    """All that a write would change in a folder: names, inodes, times and contents."""
    return {
        path: (path.stat().st_ino, path.stat().st_mtime_ns, path.is_file() and path.read_bytes())
        for path in (folder, *folder.rglob("*"))
    }


# ---- expired, due, unknown -----------------------------------------------------------------------


@both_modes
@pytest.mark.parametrize("path", ["token.json", None], ids=["cache", "no cache"])
def test_token_is_used_until_its_end_and_then_renewed_once(mode, path, clock, carto_answers, tmp_path):
    carto = start(mode, path and tmp_path / path, use_cache=path is not None)
    begin = clock.now
    leeway = 60 if mode == "m2m" else 0  # a person is not asked ahead of the end
    for moment, token in [(0, 1), (HOUR - leeway - 1, 1), (HOUR - leeway, 2), (HOUR, 2), (2 * HOUR - leeway - 61, 2)]:
        clock.now = begin + moment
        assert carto.get_access_token() == f"token-{token}"
    assert carto_answers.call_count == 2


@pytest.mark.parametrize(
    ("lifetime", "leeway"), [(86400, 60), (3600, 60), (600, 60), (300, 30), (10, 1), (None, 0)], ids=str
)
def test_leeway_is_in_proportion_to_a_known_lifetime(lifetime, leeway, clock, carto_answers, file):
    carto = CartoAuth("m2m", BASE, cache_filepath=file, **CLIENT)
    end = clock.now + 10_000
    carto._set_token("first", end, issued_at=lifetime and end - lifetime)
    clock.now = end - leeway - 0.5
    assert carto.get_access_token() == "first"
    clock.now = end - leeway
    assert carto.get_access_token() == "token-1"


@both_modes
@pytest.mark.parametrize("expiration", [None, 0, -5])
def test_token_without_a_known_end_counts_as_expired(mode, expiration, carto_answers):
    options = CLIENT if mode == "m2m" else {}
    assert CartoAuth(mode, BASE, "first", expiration, **options).get_access_token() == "token-1"


@pytest.mark.parametrize(("moment", "expired"), [(-1, False), (0, True), (1, True)])
def test_a_token_ends_at_its_very_second(moment, expired, clock):
    end = clock.now
    clock.now += moment
    assert is_token_expired(end) is expired


def test_due_renewal_that_fails_serves_the_token_to_its_real_end(clock, carto_answers, file):
    carto = start(path=file)
    end = clock.now + HOUR
    carto_answers.error = ServiceUnreachable("CARTO is down.")
    tries = []
    for seconds_left in (59, 58, 50, 49.5, 40, 20, 10.5, 5, 0.5):
        clock.now = end - seconds_left
        assert carto.get_access_token() == "token-1"
        tries.append(carto_answers.call_count - 1)
    assert tries == [1, 1, 1, 1, 2, 3, 3, 4, 4]  # at most once in 10 seconds
    clock.now = end
    with pytest.raises(ServiceUnreachable):
        carto.get_access_token()
    carto_answers.error = None
    assert carto.get_access_token().startswith("token-")


def test_due_token_of_a_person_is_renewed_if_that_needs_no_person(clock, carto_answers):
    carto = start("oauth", use_cache=False)
    carto._interactive, carto._refresh_token = False, "a-refresh-token"
    clock.now += HOUR - 30
    assert carto.get_access_token() == "token-2"
    carto._refresh_token = None
    clock.now += HOUR - 30
    assert carto.get_access_token() == "token-2"
    clock.now += 30
    with pytest.raises(LoginRequired):
        carto.get_access_token()


def test_expired_token_without_credentials_says_what_is_missing():
    with pytest.raises(auth.CredentialsError, match="no credentials"):
        CartoAuth("m2m", BASE, "first", 1).get_access_token()


# ---- a JWT's own time ----------------------------------------------------------------------------


@pytest.mark.parametrize("beside", [-5 * HOUR, -1, +5 * HOUR, 1e9], ids=str)
@pytest.mark.parametrize("own", [HOUR, -HOUR])
def test_jwt_is_believed_over_the_number_beside_it(own, beside, clock, carto_answers, file):
    token = jwt(azp="an-id", exp=clock.now + own)
    flat_file(file, token, clock.now + beside)
    carto = start(path=file)
    assert carto.get_access_token() == (token if own > 0 else "token-1")
    assert carto._expiration == clock.now + HOUR
    constructed = CartoAuth("m2m", BASE, token, clock.now + beside, **CLIENT)
    assert constructed.get_access_token() == (token if own > 0 else "token-2")


@pytest.mark.parametrize("claims", [{}, {"exp": None}, {"exp": "soon"}, {"exp": True}, {"exp": 1e300}, {"exp": -1}])
def test_jwt_without_a_time_leaves_the_number_beside_it(claims, clock, carto_answers, file):
    flat_file(file, jwt(azp="an-id", **claims), clock.now + HOUR)
    assert start(path=file)._expiration == clock.now + HOUR
    assert carto_answers.call_count == 0


# ---- time zones ----------------------------------------------------------------------------------

#: POSIX seconds of 2026-03-08 07:00 UTC, when New York's clocks jump from 02:00 to 03:00.
GAP = 1_772_953_200

ZONES = ["UTC", "America/New_York", "Asia/Kathmandu", "Pacific/Kiritimati", "EST5EDT4,M3.2.0,M11.1.0"]


@pytest.fixture
def zone(monkeypatch):
    def set_zone(name):
        monkeypatch.setenv("TZ", name)
        time.tzset()

    yield set_zone
    monkeypatch.delenv("TZ", raising=False)
    time.tzset()


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="the time zone cannot be changed here")
@pytest.mark.parametrize("kept_in", ZONES)
@pytest.mark.parametrize("moment", [GAP - 1800, GAP, GAP + 1800])
def test_time_zones_and_their_jumps_change_nothing(kept_in, moment, zone, clock, requests_mock, file):
    requests_mock.post(TOKEN_URL, json={"access_token": "fresh", "expires_in": 7200})
    zone(kept_in)
    clock.now = moment
    assert get_m2m_token_info("an-id", "a-secret")["expiration"] == moment + 7200
    assert start(path=file)._expiration == moment + 7200
    assert requests_mock.call_count == 2
    for zone_read_in in ZONES:
        zone(zone_read_in)
        clock.now = moment + 7000
        carto = start(path=file)
        assert (carto._expiration, carto.get_access_token()) == (moment + 7200, "fresh")
    assert requests_mock.call_count == 2
    clock.now = moment + 7200
    assert start(path=file)._expiration == moment + 2 * 7200
    assert requests_mock.call_count == 3


@both_modes
def test_callers_true_epoch_is_taken_as_it_is(mode, clock, file):
    carto = CartoAuth(mode, BASE, "a-token", clock.now + 1, cache_filepath=file)
    assert (carto._expiration, kept(carto)["expiration"]) == (clock.now + 1, clock.now + 1)
    assert carto.get_access_token() == "a-token"


# ---- whose ---------------------------------------------------------------------------------------


def test_accounts_share_a_file_without_fetching_again(carto_answers, file):
    accounts = [CLIENT, {**CLIENT, "client_id": "b"}, {**CLIENT, "api_base_url": OTHER_BASE}]
    for _ in range(3):
        assert [start(path=file, **account).get_access_token() for account in accounts] == [
            "token-1",
            "token-2",
            "token-3",
        ]
    assert carto_answers.call_count == 3


def test_each_account_has_its_own_base_url(carto_answers, file):
    start(path=file)
    assert start(path=file, client_id="b", api_base_url=OTHER_BASE).get_api_base_url() == OTHER_BASE
    assert start(path=file).get_api_base_url() == BASE


def test_applications_and_people_share_a_file(carto_answers, file):
    found = [(start(mode, file).get_access_token()) for mode in ("m2m", "oauth", "m2m", "oauth")]
    assert found == ["token-1", "token-2", "token-1", "token-2"]


def test_another_installation_has_other_tokens(carto_answers, file, monkeypatch):
    start("oauth", file)
    monkeypatch.setenv("CARTO_AUTH_URL", "https://carto.example.com/auth")
    assert start("oauth", file).get_access_token() == "token-2"


def test_organization_wins_over_what_is_cached(carto_answers, file):
    tokens = [start("oauth", file, org=org).get_access_token() for org in (None, "org_1", "org_2", "org_1", None)]
    assert tokens == ["token-1", "token-2", "token-3", "token-2", "token-1"]


def test_base_url_wins_over_what_is_cached(carto_answers, file):
    assert start("oauth", file).get_api_base_url() == BASE
    assert start("oauth", file, api_base_url=OTHER_BASE).get_api_base_url() == OTHER_BASE
    assert start("oauth", file).get_api_base_url() == BASE
    assert carto_answers.call_count == 1


ADOPTION = {
    # what a file of 0.2.0 holds (claims of its token or None, its base URL), who starts, is it adopted?
    "an application's opaque token": (None, BASE, "m2m", {}, True),
    "an application's own token": ({"azp": "an-id"}, BASE, "m2m", {}, True),
    "another application's token": ({"azp": "another"}, BASE, "m2m", {}, False),
    "an application's token of another region": ({"azp": "an-id"}, OTHER_BASE, "m2m", {}, False),
    "a person's token": ({"azp": PUBLIC_CLIENT}, BASE, "oauth", {}, True),
    "a person's token, the base URL given": ({"azp": PUBLIC_CLIENT}, BASE, "oauth", {"api_base_url": OTHER_BASE}, True),
    "an organization's token": ({"azp": PUBLIC_CLIENT, "org_id": "org_1"}, BASE, "oauth", {"org": "org_1"}, True),
    "another organization's token": ({"azp": PUBLIC_CLIENT, "org_id": "org_1"}, BASE, "oauth", {"org": "org_2"}, False),
    "an organization's token for nobody's": ({"azp": PUBLIC_CLIENT, "org_id": "org_1"}, BASE, "oauth", {}, False),
    "a person's token for an organization": ({"azp": PUBLIC_CLIENT}, BASE, "oauth", {"org": "org_1"}, False),
    "an opaque token for an organization": (None, BASE, "oauth", {"org": "org_1"}, False),
}


@pytest.mark.parametrize(("claims", "base_url", "mode", "options", "adopted"), ADOPTION.values(), ids=ADOPTION)
def test_file_of_0_2_0_is_adopted_only_when_not_contradicted(
    claims, base_url, mode, options, adopted, clock, carto_answers, file
):
    token = "opaque" if claims is None else jwt(exp=clock.now + HOUR, **claims)
    flat_file(file, token, clock.now + HOUR, base_url)
    carto = start(mode, file, **options)
    assert carto.get_access_token() == (token if adopted else "token-1")
    assert carto.get_api_base_url() == options.get("api_base_url", BASE)
    assert carto_answers.call_count == (0 if adopted else 1)
    # Adopted or not, each entry has its own place from now on, and nothing is fetched again.
    assert start(mode, file, **options).get_access_token() == carto.get_access_token()
    assert carto_answers.call_count == (0 if adopted else 1)


def test_flat_entry_that_is_not_adopted_is_left_for_its_owner(clock, carto_answers, file):
    theirs = jwt(exp=clock.now + HOUR, azp="another")
    flat_file(file, theirs, clock.now + HOUR)
    assert start(path=file).get_access_token() == "token-1"
    assert start(path=file, client_id="another").get_access_token() == theirs
    assert start(path=file).get_access_token() == "token-1"
    assert carto_answers.call_count == 1


# ---- what is kept --------------------------------------------------------------------------------


def test_client_secret_is_never_stored(clock, carto_answers, tmp_path):
    carto = start(path=tmp_path / "token.json", client_secret="a-very-secret-secret")
    clock.now += 2 * HOUR
    carto.get_access_token()
    written = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    assert any("token-2" in text for text in written)
    assert not any("a-very-secret-secret" in text for text in written)


@both_modes
def test_hit_writes_nothing(mode, carto_answers, tmp_path):
    start(mode, tmp_path / "token.json")
    for lock in tmp_path.glob(".*.lock"):
        lock.unlink()  # one that a hit takes would be seen
    before = snapshot(tmp_path)
    for _ in range(3):
        start(mode, tmp_path / "token.json").get_access_token()
    assert snapshot(tmp_path) == before
    assert len(before) == 2
    assert carto_answers.call_count == 1


@both_modes
@pytest.mark.parametrize("use_cache", [True, False])
def test_constructor_with_nothing_leaves_a_good_entry(mode, use_cache, carto_answers, tmp_path):
    start(mode, tmp_path / "token.json")
    before = snapshot(tmp_path)
    for token in (None, ""):
        CartoAuth(mode, BASE, token, None, **CLIENT, cache_filepath=tmp_path / "token.json", use_cache=use_cache)
    assert snapshot(tmp_path) == before


@both_modes
def test_without_a_cache_nothing_is_read_or_written(mode, clock, carto_answers, tmp_path, monkeypatch):
    start(mode)
    before = snapshot(Path.home())
    monkeypatch.setattr(cache.os, "open", Mock(side_effect=AssertionError("a file was opened")))
    for path in (None, tmp_path / "token.json"):
        carto = start(mode, path, use_cache=False)
        clock.now += 2 * HOUR
        carto.get_access_token()
    assert carto_answers.call_count == 5
    assert snapshot(Path.home()) == before
    assert os.listdir(tmp_path) == []


def test_token_that_cannot_be_kept_is_returned_and_that_is_said_once(clock, carto_answers, file):
    file.mkdir()
    with pytest.warns(UserWarning, match="cannot be kept"):
        carto = start(path=file)
    clock.now += 2 * HOUR
    assert carto.get_access_token() == "token-2"  # a second warning would be an error here


def test_token_is_kept_even_when_the_base_url_cannot_be_found(carto_answers, file, monkeypatch):
    monkeypatch.setattr(auth, "get_api_base_url", Mock(side_effect=ServiceUnreachable("Down.")))
    for _ in range(2):
        with pytest.raises(ServiceUnreachable):
            start("oauth", file)
    auth.get_api_base_url.side_effect = None
    auth.get_api_base_url.return_value = BASE
    carto = start("oauth", file)
    assert (carto.get_access_token(), carto.get_api_base_url()) == ("token-1", BASE)
    assert start("oauth", file).get_api_base_url() == BASE
    assert (carto_answers.call_count, auth.get_api_base_url.call_count) == (1, 3)


# ---- a clock that is ahead, odd arguments, subclasses --------------------------------------------


def test_a_clock_that_is_days_ahead_costs_no_request_each_time(carto_sandbox, monkeypatch):
    real = time.time
    carto_sandbox.clock = real
    monkeypatch.setattr(time, "time", lambda: real() + 2 * 86_400)
    auth = CartoAuth.from_m2m()
    assert {auth.get_access_token() for _ in range(5)} == {CartoAuth.from_m2m().get_access_token()}
    assert carto_sandbox.count("/oauth/token") == 1
    monkeypatch.setattr(time, "time", real)  # put right: the JWT's own end counts again
    assert abs(CartoAuth.from_m2m()._expiration - real() - 86_400) < 60


class OfOldArguments(CartoAuth):
    """A subclass that knows the arguments of 0.2.0 alone."""

    def __init__(
        self,
        mode,
        api_base_url=None,
        access_token=None,
        expiration=None,
        client_id=None,
        client_secret=None,
        cache_filepath=None,
        use_cache=True,
        open_browser=True,
        org=None,
    ):
        given = (mode, api_base_url, access_token, expiration, client_id, client_secret)
        super().__init__(*given, cache_filepath, use_cache, open_browser, org)


def test_a_subclass_with_the_constructor_of_0_2_0(carto_sandbox, monkeypatch):
    assert isinstance(OfOldArguments.from_m2m(), OfOldArguments)
    info = {"access_token": "T", "expiration": 4155310800}
    monkeypatch.setattr("carto_auth.auth.get_oauth_token_info", lambda open_browser, org: info)
    assert OfOldArguments.from_oauth(api_base_url="https://x.carto.com").get_access_token() == "T"


@pytest.mark.parametrize("expiration", ["4155310800", b"1", datetime.date(2030, 1, 1), float("nan"), []])
def test_an_expiration_that_is_no_number(expiration):
    with pytest.raises(TypeError, match="POSIX seconds"):
        CartoAuth("oauth", "https://x.carto.com", "tok", expiration)


def test_a_login_that_may_take_for_ever(carto_sandbox):
    login = CartoAuth("oauth", timeout=math.inf, interactive=False, open_browser=False)
    with pytest.raises(LoginRequired):
        login.get_access_token()


def test_an_error_of_a_programs_own_is_raised_as_it_is(monkeypatch):
    class Mine(CredentialsError):
        def __init__(self, where, why):
            super().__init__(f"{where}: {why}")

    def fail(*arguments):
        raise Mine("here", "so")

    monkeypatch.setattr(auth, "get_m2m_token_info", fail)
    carto = CartoAuth("m2m", BASE, **CLIENT)
    with pytest.raises(Mine, match="here: so"):
        carto.get_access_token()
    pickle.dumps(carto)
