"""Account and CartoAuth: which token is used until when, whose it is, and what is kept of it."""

import base64
import datetime
import json
import math
import pickle
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from unittest.mock import Mock

import pytest
from clocks import StoppedClock

import carto_auth
from carto_auth import CartoAuth, CredentialsError, LoginRequired, _account, _log, _token, _version, auth
from carto_auth._account import RETRY_SECONDS, Account
from carto_auth._identity import Identity
from carto_auth._services import Services
from carto_auth._sources import TokenSource
from carto_auth._stores.base import NO_TOKEN, Entry, Lock, Store
from carto_auth._token import Token
from carto_auth.errors import InvalidAnswer, RateLimited, ServiceUnreachable
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

    def locked(self):
        return Lock(self.lock)


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


# ---- a quota that is used up ---------------------------------------------------------------------


def test_a_quotas_refusal_is_remembered_by_the_process_and_beside_the_entry(clock, monkeypatch):
    source, store = Source(), Memory()
    carto = started(source, store)
    clock.now += HOUR
    source.before_an_answer = Mock(side_effect=RateLimited("Quota used up.", status=429, retry_after=3600.0))
    others = [account(source), account(source, Memory(store.entry)), account(source, store)]
    for number, one in enumerate([carto, *others, carto]):
        if number == 3:  # as in another process, which shares the store alone
            monkeypatch.setattr(_account, "refusals", {})
        with pytest.raises(RateLimited, match="Quota used up") as caught:
            one.good_token()
        assert caught.value.retry_after == 3600 - 10 * number
        clock.now += 10
    assert (source.requests, store.entry.token.text, store.entry.refusal.until) == (2, "token-1", clock.now + 3550)
    source.before_an_answer = lambda: None
    clock.now += 3550
    assert [one.good_token() for one in (carto, others[2])] == ["token-3"] * 2
    assert store.entry.refusal is None


def test_a_refusal_is_no_longer_remembered_than_a_day_nor_after_a_logout_nor_without_a_time(clock):
    source = Source()
    tries = [(None, 1), (40 * 86_400, 2), (40 * 86_400, 3)]
    for retry_after, requests in tries:
        source.before_an_answer = Mock(side_effect=RateLimited("Quota.", retry_after=retry_after))
        carto = account(source)
        for _ in range(2 if retry_after else 1):
            with pytest.raises(RateLimited):
                carto.good_token()
        assert source.requests == requests
        if requests == 2:
            clock.now += 86_400
    carto.forget()
    source.before_an_answer = lambda: None
    assert carto.good_token() == "token-4"


def test_what_another_process_has_got_is_used_in_spite_of_a_refusal(clock):
    source, store = Source(), Memory()
    source.before_an_answer = Mock(side_effect=RateLimited("Quota.", retry_after=3600.0))
    carto = account(source, store)
    with pytest.raises(RateLimited):
        carto.good_token()
    store.entry = entry("theirs", clock.now + HOUR)
    assert carto.good_token() == "theirs"


# ---- forgetting, keeping, travelling -------------------------------------------------------------


def test_forgetting_revokes_every_refresh_token(clock):
    source, store = Source(), Memory()
    carto = started(source, store)
    carto.token = carto.token.replaced(refresh_token="here")
    store.entry = entry("kept", clock.now + HOUR, refresh_token="in the store")
    assert carto.forget() is True
    assert (carto.token, store.entry, sorted(source.revoked)) == (NO_TOKEN, None, ["here", "in the store"])
    assert carto.forget() is False


def test_a_renewal_comes_to_nothing_when_somebody_logs_out_meanwhile():
    source, store = Source(refresh_token="new"), Memory()
    carto = account(source, store)
    source.before_an_answer = carto.forget
    with pytest.raises(LoginRequired, match="logged out meanwhile"):
        carto.good_token()
    assert (carto.token, store.entry, source.revoked) == (NO_TOKEN, None, ["new"])


@pytest.mark.parametrize("moment", ["the request", "the base URL", "the save"])
def test_a_logout_in_another_thread_is_never_undone(moment):
    source, store = Source(refresh_token="new"), Memory()
    carto, reached, go_on = account(source, store), threading.Event(), threading.Event()

    def wait(*_):
        if threading.current_thread() is not threading.main_thread():
            reached.set()
            go_on.wait(30)
        return BASE

    save = store.save
    if moment == "the request":
        source.before_an_answer = wait
    elif moment == "the base URL":
        source.base_url = wait
    else:
        store.save = lambda entry: (wait(), save(entry))
    with ThreadPoolExecutor(1) as pool:
        renewing = pool.submit(carto.good_token)
        assert reached.wait(30)
        carto.forget()
        go_on.set()
        with pytest.raises(LoginRequired, match="logged out meanwhile"):
            renewing.result(30)
    assert (carto.token, store.entry) == (NO_TOKEN, None)
    assert "new" in source.revoked


def test_a_signal_handler_in_the_middle_of_a_renewal_gets_the_good_token_or_an_error_at_once(clock):
    source = Source()
    carto, told = started(source), []

    def handler():
        try:
            told.append(carto.good_token())
        except CredentialsError as error:
            told.append(type(error))

    source.before_an_answer = handler
    for seconds in (HOUR - 30, 2 * HOUR):
        clock.now += seconds
        carto.good_token()
    assert told == ["token-1", CredentialsError]


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


def test_a_base_url_is_used_again_only_under_the_accounts_service_that_found_it(clock, logins, file):
    own, other = Services(), Services(accounts_url="https://accounts.example.com")
    found = []
    for services, base_url in [(own, BASE), (other, OTHER_BASE), (other, "-"), (own, BASE), (own, "-")]:
        auth.get_api_base_url.return_value = base_url
        found.append(start("oauth", file, services=services).get_api_base_url())
    assert found == [BASE, OTHER_BASE, OTHER_BASE, BASE, BASE]
    flat_file(file, "opaque", clock.now + HOUR)  # 0.2.0 asks CARTO's own
    auth.get_api_base_url.return_value = OTHER_BASE
    assert [start("oauth", file, services=one).get_api_base_url() for one in (other, own)] == [OTHER_BASE] * 2


@pytest.mark.parametrize("keeper", ["0.2.0", "ours"])
@pytest.mark.parametrize("is_carto_first", [True, False])
@both_modes
def test_the_token_of_another_token_service_is_not_used(mode, is_carto_first, keeper, clock, logins, file):
    services = [Services(), Services(auth_url="http://127.0.0.1:1", accounts_url="http://127.0.0.1:1")]
    first, second = services if is_carto_first else reversed(services)
    client = CLIENT["client_id"] if mode == "m2m" else first.client_id
    token = jwt(exp=clock.now + HOUR, iss=f"{first.auth_url}/", azp=client)
    flat_file(file, token, clock.now + HOUR)
    if keeper == "ours":
        assert start(mode, file, services=first).get_access_token() == token
    assert start(mode, file, services=second).get_access_token() == "token-1"
    assert start(mode, file, services=first).get_access_token() == token


def test_a_login_of_somebody_else_does_not_replace_ones_own(clock, logins, file):
    """Two people with one home: who is logged in is not changed from under a program."""
    tokens = {who: jwt(sub=who, exp=clock.now + 2 * HOUR) for who in ("ana", "bob")}
    ana = CartoAuth("oauth", BASE, jwt(sub="ana", exp=clock.now + HOUR), cache_filepath=file)
    CartoAuth("oauth", BASE, tokens["bob"], cache_filepath=file)
    clock.now += HOUR
    assert ana.get_access_token() == "token-1"
    assert start("oauth", file).get_access_token() == "token-1"
    CartoAuth("oauth", BASE, tokens["bob"], cache_filepath=file)
    assert start("oauth", file).get_access_token() == tokens["bob"]  # at a start it is: the cache says who


def test_a_notebook_is_told_whose_kept_login_is_used(clock, logins, file, monkeypatch, capsys):
    token = jwt(exp=clock.now + HOUR, **{"http://app.carto.com/email": "ana@example.com"})
    CartoAuth("oauth", BASE, token, cache_filepath=file)
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)  # another test may have imported it
    start("oauth", file)
    assert capsys.readouterr().out == ""
    monkeypatch.setitem(sys.modules, "ipykernel", Mock())
    start("oauth", file)
    assert "the CARTO login of ana@example.com" in capsys.readouterr().out


def test_a_given_token_past_its_given_time_asks_for_no_login():
    carto = CartoAuth("oauth", BASE, "a-public-token", 1_700_000_000, open_browser=False, interactive=False)
    with pytest.raises(CredentialsError, match=r"expiration that was given.*has passed.*from_access_token") as caught:
        carto.get_access_token()
    assert "og in" not in str(caught.value)


def test_names_of_a_branch_of_0_2_0(logins):
    carto = CartoAuth.from_m2m_token(BASE, *CLIENT.values(), use_cache=False)
    assert (carto.get_access_token(), carto.get_api_base_url()) == ("token-1", BASE)
    assert _version.__version__ == carto_auth.__version__


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
