"""Account and CartoAuth: which token is used until when, whose it is, and what is kept of it."""

import base64
import datetime
import json
import math
import pickle
import time
from contextlib import contextmanager
from unittest.mock import Mock

import pytest
from clocks import StoppedClock

from carto_auth import CartoAuth, CredentialsError, LoginRequired, _account, _log, _token, auth
from carto_auth._account import RETRY_SECONDS, Account
from carto_auth._identity import Identity
from carto_auth._services import Services
from carto_auth._sources import TokenSource
from carto_auth._stores import Entry, Lock, Store
from carto_auth._token import Token
from carto_auth.errors import InvalidAnswer, ServiceUnreachable
from carto_auth.utils import get_m2m_token_info

BASE = "https://gcp-us-east1.api.carto.com"
OTHER_BASE = "https://gcp-europe-west1.api.carto.com"
CLIENT = {"client_id": "an-id", "client_secret": "a-very-secret-secret"}
HOUR = 3600.0

IDENTITY = Identity.of_person(Services(), None)

both_modes = pytest.mark.parametrize("mode", ["oauth", "m2m"])


class Source(TokenSource):
    """Gives "token-1", "token-2" and so on, each for an hour; by a person if ``quiet`` is ``False``."""

    def __init__(self, *, quiet=True, **more):
        super().__init__(IDENTITY)
        self.quiet, self.more = quiet, more
        self.requests, self.revoked = 0, []
        self.before_an_answer = lambda: None
        self.base_url = Mock(return_value=BASE)
        self.revoke = self.revoked.append

    def renews_quietly(self, token):
        return bool(token and token.refresh_token) if self.quiet is None else self.quiet

    def patience(self, token):
        return HOUR

    def quietly(self, token):
        return self._answer() if self.renews_quietly(token) else None

    def by_a_person(self, token):
        return super().by_a_person(token) if self.quiet is None else self._answer()

    def _answer(self):
        self.requests += 1
        self.before_an_answer()
        now = time.time()
        return {"access_token": f"token-{self.requests}", "expiration": now + HOUR, "issued_at": now, **self.more}


class Memory(Store):
    """Keeps an entry in memory, and locks as it is told."""

    keeps = True
    shown = "memory"
    remedy = "try again"

    def __init__(self, entry=None, lock=Lock.HELD):
        super().__init__(IDENTITY)
        self.entry, self.lock, self.spare = entry, lock, []

    def load(self):
        return self.entry

    def spare_entries(self):
        return iter(self.spare)

    def save(self, entry):
        self.entry = entry

    def forget(self):
        found, self.entry = self.entry is not None, None
        return found

    @contextmanager
    def locked(self):
        yield self.lock


class Seams:
    """Those of a program that has replaced nothing."""

    def load(self, store):
        return store.load()

    def save(self, store, entry, api_base_url):
        store.save(entry)


def account(source=None, store=None):
    return Account(source or Source(), store or Memory(), Seams())


def started(source=None, store=None):
    begun = account(source, store)
    begun.start()
    return begun


def entry(text, end, base_url=BASE, refresh_token=None, **more):
    return Entry(Token.of(text, end, end - HOUR, refresh_token), base_url, **more)


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    clock = StoppedClock(1_800_000_000.0)
    monkeypatch.setattr(time, "time", clock)
    monkeypatch.setattr(_log, "said", set())
    monkeypatch.setattr(_account, "refusals", {})
    monkeypatch.setattr(_token, "RENEWAL_SPREAD_SHARE", 0.0)
    return clock


# ---- its token, until when -----------------------------------------------------------------------


@pytest.mark.parametrize("quiet", [True, False], ids=["quietly", "by a person"])
@pytest.mark.parametrize("store", [Memory, lambda: Store(IDENTITY)], ids=["kept", "not kept"])
def test_a_token_is_used_until_its_end_and_then_renewed_once(quiet, store, clock):
    source, begin = Source(quiet=quiet), clock.now
    carto = started(source, store())
    leeway = 60 if quiet else 0  # nobody is asked ahead of the end
    for moment, number in [(0, 1), (HOUR - leeway - 1, 1), (HOUR - leeway, 2), (HOUR, 2), (2 * HOUR - leeway - 61, 2)]:
        clock.now = begin + moment
        assert carto.good_token() == f"token-{number}"
    assert source.requests == 2


def test_a_renewal_that_fails_ahead_of_the_end_costs_nothing_and_is_tried_again(clock):
    source = Source()
    carto, end = started(source), clock.now + HOUR
    source.before_an_answer = Mock(side_effect=ServiceUnreachable("CARTO is down."))
    tries = []
    for seconds_left in (60, 51, 50, 45, 40, 30.5, 0.5):
        clock.now = end - seconds_left
        assert carto.good_token() == "token-1"
        tries.append(source.requests - 1)
    assert (tries, RETRY_SECONDS) == ([1, 1, 2, 2, 3, 3, 4], 10)
    clock.now = end
    with pytest.raises(ServiceUnreachable):
        carto.good_token()
    source.before_an_answer = lambda: None
    assert carto.good_token() == f"token-{source.requests}"


def test_a_refresh_token_renews_ahead_of_the_end_and_without_it_a_person_is_needed(clock):
    carto = account(Source(quiet=None))
    carto.token = Token.of("first", clock.now + 30, clock.now - HOUR, "a-refresh-token")
    assert carto.good_token() == "token-1"
    clock.now += HOUR - 30
    assert carto.good_token() == "token-1"
    clock.now += 30
    with pytest.raises(LoginRequired):
        carto.good_token()


def test_a_refused_refresh_token_is_dropped_and_the_token_beside_it_is_used(clock):
    source, store = Source(), Memory()
    source.quietly = Mock(return_value=None)
    carto = account(source, store)
    carto.token = Token.of("first", clock.now + 30, clock.now - HOUR, "a-refresh-token")
    assert carto.good_token() == "first"
    assert (carto.token.refresh_token, store.entry.token.refresh_token) == (None, None)


def test_after_a_refusal_it_says_for_a_minute_that_another_token_would_be_refused_too(clock):
    carto = started()
    carto.renew(carto.token)
    assert not carto.has_just_replaced_a_refused_token()
    carto.renew(carto.token, refused=True)
    said = []
    for seconds in (0, 59, 1):
        clock.now += seconds
        said.append(carto.has_just_replaced_a_refused_token())
    assert (said, carto.good_token()) == ([True, True, False], "token-3")


def test_a_login_without_a_token_is_an_error():
    with pytest.raises(InvalidAnswer, match="no access token"):
        account().take({"expiration": 1})


# ---- others at the same store --------------------------------------------------------------------


def test_what_another_process_has_got_is_used(clock):
    source, store = Source(), Memory()
    carto = started(source, store)
    clock.now += HOUR
    store.entry = entry("theirs", clock.now + HOUR)
    assert (carto.good_token(), source.requests) == ("theirs", 1)


@pytest.mark.parametrize("lock", [Lock.BUSY, Lock.IMPOSSIBLE])
def test_whoever_cannot_lock_goes_on_when_the_patience_is_at_its_end(lock):
    source = Source()
    source.patience = lambda token: 0.0
    assert account(source, Memory(lock=lock)).good_token() == "token-1"


def test_a_spare_entry_is_used_when_the_first_is_no_good(clock):
    source, store = Source(), Memory(entry("old", clock.now))
    store.spare = [entry("spare", clock.now + HOUR)]
    assert (started(source, store).good_token(), source.requests) == ("spare", 0)


# ---- forgetting, keeping, travelling -------------------------------------------------------------


def test_forgetting_revokes_every_refresh_token(clock):
    source, store = Source(), Memory()
    carto = started(source, store)
    carto.token = carto.token.replaced(refresh_token="here")
    store.entry = entry("kept", clock.now + HOUR, refresh_token="in the store")
    assert carto.forget() is True
    assert (carto.token, store.entry, sorted(source.revoked)) == (None, None, ["here", "in the store"])
    assert carto.forget() is False


def test_a_renewal_comes_to_nothing_when_somebody_logs_out_meanwhile():
    source, store = Source(refresh_token="new"), Memory()
    carto = account(source, store)
    source.before_an_answer = carto.forget
    with pytest.raises(LoginRequired, match="logged out meanwhile"):
        carto.good_token()
    assert (carto.token, store.entry, source.revoked) == (None, None, ["new"])


@pytest.mark.parametrize(
    ("part", "error", "words"),
    [
        ("store.forget", OSError(5, "disk trouble"), "disk trouble"),
        ("source.revoke", CredentialsError("Down."), "Down"),
    ],
)
def test_a_logout_that_leaves_something_says_so(part, error, words, monkeypatch):
    source, store = Source(refresh_token="r"), Memory()
    carto = started(source, store)
    owner, _, name = part.partition(".")
    monkeypatch.setattr({"store": store, "source": source}[owner], name, Mock(side_effect=error))
    with pytest.raises(CredentialsError, match=words) as caught:
        carto.forget()
    assert caught.value.remedy


@pytest.mark.parametrize("error", [OSError(28, "no space"), RuntimeError("a bug")])
def test_a_token_that_cannot_be_kept_is_used_and_that_is_said_once(error, clock):
    store = Memory()
    store.save = Mock(side_effect=error)
    with pytest.warns(UserWarning, match="cannot be kept in memory"):
        carto = started(store=store)
    clock.now += HOUR
    assert carto.good_token() == "token-2"  # a second warning would be an error here


def test_a_token_is_kept_even_when_its_base_url_cannot_be_found():
    source, store = Source(), Memory()
    source.base_url.side_effect = ServiceUnreachable("Down.")
    for _ in range(2):
        with pytest.raises(ServiceUnreachable):
            started(source, store)
    source.base_url.side_effect = None
    assert started(source, store).api_base_url == BASE
    assert (source.requests, started(source, store).api_base_url, source.base_url.call_count) == (1, BASE, 3)


# ---- CartoAuth: whose token it is ----------------------------------------------------------------


@pytest.fixture
def file(tmp_path):
    return tmp_path / "token.json"


@pytest.fixture
def logins(monkeypatch, clock):
    """CARTO's side of a login, in either mode: an hour's tokens, "token-1" and so on."""

    def answer(*arguments):
        return {"access_token": f"token-{logins.call_count}", "expiration": clock.now + HOUR, "issued_at": clock.now}

    logins = Mock(side_effect=answer)
    for name in ("get_m2m_token_info", "get_oauth_token_info"):
        monkeypatch.setattr(auth, name, logins)
    monkeypatch.setattr(auth, "get_api_base_url", Mock(return_value=BASE))
    return logins


def jwt(**claims):
    parts = [json.dumps(part).encode() for part in ({"alg": "none"}, claims)]
    return ".".join([base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts] + ["signature"])


def start(mode="m2m", path=None, **options):
    if mode == "oauth":
        return CartoAuth.from_oauth(cache_filepath=path, **options)
    return CartoAuth.from_m2m(cache_filepath=path, **{"api_base_url": BASE, **CLIENT, **options})


def flat_file(path, token, expiration):
    path.write_text(json.dumps({"api_base_url": BASE, "access_token": token, "expiration": expiration}))
    path.chmod(0o600)


ACCOUNTS = {
    "applications": [("m2m", {}), ("m2m", {"client_id": "b"}), ("m2m", {"api_base_url": OTHER_BASE})],
    "organizations": [("oauth", {}), ("oauth", {"org": "org_1"}), ("oauth", {"org": "org_2"})],
    "both modes": [("m2m", {}), ("oauth", {})],
    "installations": [("oauth", {}), ("oauth", {"services": Services(auth_url="https://carto.example.com/auth")})],
}


@pytest.mark.parametrize("accounts", ACCOUNTS.values(), ids=ACCOUNTS)
def test_accounts_share_a_file_and_never_a_token(accounts, logins, file):
    for _ in range(2):
        found = [start(mode, file, **options) for mode, options in accounts]
        assert [carto.get_access_token() for carto in found] == [f"token-{n + 1}" for n in range(len(accounts))]
        assert [carto.get_api_base_url() for carto in found] == [
            options.get("api_base_url", BASE) for _, options in accounts
        ]
    assert logins.call_count == len(accounts)


def test_a_base_url_of_one_program_is_not_everybodys(logins, file):
    urls = [start("oauth", file, **options).get_api_base_url() for options in ({"api_base_url": OTHER_BASE}, {}, {})]
    assert urls == [OTHER_BASE, BASE, BASE]
    assert (logins.call_count, auth.get_api_base_url.call_count) == (1, 1)


OWN = {"iss": "https://auth.carto.com/", "azp": "an-id"}
ADOPTION = {
    # what a file of 0.2.0 holds (claims of its token or None), who starts, is it adopted?
    "an application's token": (OWN, "m2m", {}, True),
    "another application's token": ({**OWN, "azp": "another"}, "m2m", {}, False),
    "an application's token of another region": (OWN, "m2m", {"api_base_url": OTHER_BASE}, False),
    "a person's token, another base URL given": (None, "oauth", {"api_base_url": OTHER_BASE}, True),
}


@pytest.mark.parametrize(("claims", "mode", "options", "adopted"), ADOPTION.values(), ids=ADOPTION)
def test_a_file_of_0_2_0_is_adopted_only_when_not_contradicted(claims, mode, options, adopted, clock, logins, file):
    token = "opaque" if claims is None else jwt(exp=clock.now + HOUR, **claims)
    flat_file(file, token, clock.now + HOUR)
    for _ in range(2):  # adopted or not, each entry has its own place from now on
        carto = start(mode, file, **options)
        assert carto.get_access_token() == (token if adopted else "token-1")
        assert carto.get_api_base_url() == options.get("api_base_url", BASE)
    assert logins.call_count == (0 if adopted else 1)


def test_a_flat_entry_that_is_not_adopted_is_left_for_its_owner(clock, logins, file):
    theirs = jwt(exp=clock.now + HOUR, **{**OWN, "azp": "another"})
    flat_file(file, theirs, clock.now + HOUR)
    found = [start(path=file, client_id=client).get_access_token() for client in ("an-id", "another", "an-id")]
    assert (found, logins.call_count) == (["token-1", theirs, "token-1"], 1)


# ---- CartoAuth: what is kept ---------------------------------------------------------------------


def snapshot(folder):
    """All that a write would change in a folder: names, inodes, times and contents."""
    return {
        path: (path.stat().st_ino, path.stat().st_mtime_ns, path.is_file() and path.read_bytes())
        for path in (folder, *folder.rglob("*"))
    }


def test_the_client_secret_is_never_stored(clock, logins, tmp_path):
    carto = start(path=tmp_path / "token.json")
    clock.now += 2 * HOUR
    carto.get_access_token()
    written = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    assert any("token-2" in text for text in written)
    assert not any(CLIENT["client_secret"] in text for text in written)


@both_modes
def test_a_start_with_a_good_token_writes_nothing_and_takes_no_lock(mode, logins, tmp_path):
    path = tmp_path / "token.json"
    start(mode, path)
    for lock in tmp_path.glob(".*.lock"):
        lock.unlink()
    before = snapshot(tmp_path)
    start(mode, path).get_access_token()
    for token in (None, ""):  # nor does the constructor with nothing to keep
        CartoAuth(mode, BASE, token, None, **CLIENT, cache_filepath=path)
    assert (snapshot(tmp_path), len(before), logins.call_count) == (before, 2, 1)


# ---- CartoAuth: clocks, odd arguments, subclasses, old pickles -----------------------------------


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="the time zone cannot be changed here")
@pytest.mark.parametrize("moment", [1_772_951_400, 1_772_953_200])  # New York's clocks jump from 02:00 to 03:00
def test_time_zones_and_their_jumps_change_nothing(moment, clock, requests_mock, file, monkeypatch):
    requests_mock.post("https://auth.carto.com/oauth/token", json={"access_token": "fresh", "expires_in": 7200})
    clock.now = moment
    try:
        for zone in ("America/New_York", "Asia/Kathmandu", "EST5EDT4,M3.2.0,M11.1.0"):
            monkeypatch.setenv("TZ", zone)
            time.tzset()
            assert get_m2m_token_info("an-id", "a-secret")["expiration"] == moment + 7200
            assert start(path=file)._expiration == moment + 7200
        assert requests_mock.call_count == 3 + 1
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_clock_that_is_days_ahead_costs_no_request_each_time(carto_sandbox, monkeypatch, clock):
    real = carto_sandbox.clock = StoppedClock(clock.now)
    clock.now += 2 * 86_400
    carto = CartoAuth.from_m2m()
    assert {carto.get_access_token() for _ in range(5)} == {CartoAuth.from_m2m().get_access_token()}
    assert carto_sandbox.count("/oauth/token") == 1
    monkeypatch.setattr(time, "time", real)  # put right: the JWT's own end counts again
    assert CartoAuth.from_m2m()._expiration == real.now + 86_400


OLD_ARGUMENTS = {"access_token", "expiration", "client_id", "client_secret"}
OLD_ARGUMENTS |= {"cache_filepath", "use_cache", "open_browser", "org"}


class OfOldArguments(CartoAuth):
    """A subclass that knows the arguments of 0.2.0 alone."""

    def __init__(self, mode, api_base_url=None, **old):
        assert old.keys() <= OLD_ARGUMENTS
        super().__init__(mode, api_base_url, **old)


@both_modes
def test_a_subclass_with_the_constructor_of_0_2_0(mode, logins, monkeypatch):
    monkeypatch.setattr(f"{__name__}.CartoAuth", OfOldArguments)
    carto = start(mode)
    assert (type(carto), carto.get_access_token()) == (OfOldArguments, "token-1")


@pytest.mark.parametrize("expiration", ["4155310800", b"1", datetime.date(2030, 1, 1), math.nan, []])
def test_an_expiration_that_is_no_number(expiration):
    with pytest.raises(TypeError, match="POSIX seconds"):
        CartoAuth("oauth", BASE, "a-token", expiration)


def test_a_login_that_may_take_for_ever_asks_nobody_where_it_may_not():
    with pytest.raises(LoginRequired):
        CartoAuth("oauth", timeout=math.inf, interactive=False).get_access_token()


def test_a_programs_own_error_is_raised_as_it_is_and_leaves_no_trace(monkeypatch):
    class Mine(CredentialsError):
        def __init__(self, where, why):
            super().__init__(f"{where}: {why}")

    monkeypatch.setattr(auth, "get_m2m_token_info", Mock(side_effect=Mine("here", "so")))
    carto = CartoAuth("m2m", BASE, **CLIENT)
    with pytest.raises(Mine, match="here: so"):
        carto.get_access_token()
    pickle.dumps(carto)


def test_a_pickle_of_0_2_0_is_understood(logins, clock):
    state = {"_mode": "m2m", "_api_base_url": BASE, "_access_token": "old", "_expiration": clock.now + 1}
    carto = CartoAuth.__new__(CartoAuth)
    carto.__setstate__({**state, **{f"_{name}": value for name, value in CLIENT.items()}, "_cache_filepath": None})
    assert (carto.get_api_base_url(), carto.get_access_token()) == (BASE, "old")
    clock.now += 1
    assert carto.get_access_token() == "token-1"
    assert logins.call_args.args == tuple(CLIENT.values())
