"""The warehouse's BigQuery client: Google's own, on the sandbox, longer than any of its tokens lasts."""

from __future__ import annotations

import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import google.auth._helpers
import google.auth.credentials
import google.auth.exceptions
import google.auth.transport.requests
import pytest
from google.api_core.client_options import ClientOptions
from google.cloud import bigquery

from carto_auth import CartoAuth, CredentialsError
from carto_auth.errors import (
    MissingDependency,
    RateLimited,
    ServiceUnavailable,
    Unauthorized,
    UntrustedAddress,
    WarehouseUnavailable,
)
from carto_auth.sandbox import walk_login

WAREHOUSE = "/v3/connections/carto-dw/token"


@pytest.fixture
def carto(carto_sandbox):
    return CartoAuth.from_m2m()


@pytest.fixture
def client(carto):
    with carto.get_carto_dw_client() as running:
        yield running


@pytest.fixture
def credentials(client):
    """The client's credentials, which Google's client keeps to itself."""
    return client._credentials


def answer(client, sql="SELECT 1"):
    [row] = client.query(sql).result()
    return row[0]


# -- longer than its tokens


def test_queries_go_on_over_expired_and_revoked_tokens(carto_sandbox, clock, client):
    """Four threads query without a pause, while tokens come to all the ends there are."""
    carto_sandbox.warehouse_token_lifetime = 600  # less than we count on: BigQuery's 401 is what tells
    done, ends = threading.Condition(), []
    counts = [0] * 4
    errors = []

    def loop(number):
        try:
            while len(ends) < 4 or min(counts) < ends[-1] + 3:
                assert answer(client, f"SELECT {number}") == number
                with done:
                    counts[number] += 1
                    done.notify_all()
        except Exception as error:
            errors.append(error)
            with done:
                done.notify_all()

    def after_some_queries(end):
        with done:
            start = list(counts)
            assert done.wait_for(lambda: errors or all(n >= s + 3 for n, s in zip(counts, start, strict=True)), 60)
            end()
            ends.append(max(counts))

    def every_token_is_revoked():
        carto_sandbox.revoke_access_tokens()
        carto_sandbox.revoke_warehouse_tokens()

    threads = [threading.Thread(target=loop, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    after_some_queries(carto_sandbox.revoke_warehouse_tokens)
    after_some_queries(lambda: setattr(clock, "ahead", clock.ahead + 601))
    after_some_queries(lambda: setattr(clock, "ahead", clock.ahead + 2 * 24 * 3600))
    after_some_queries(every_token_is_revoked)
    for thread in threads:
        thread.join(60)
    assert errors == []
    assert min(counts) >= 12
    # The first, and one for each end: however many threads, and however many 401s they saw.
    assert carto_sandbox.count(WAREHOUSE) - refused(carto_sandbox, WAREHOUSE) == 5


def refused(sandbox, path):
    return sum(r.path == path and r.status == 401 for r in sandbox.requests)


def test_a_token_is_renewed_ahead_of_the_end_that_we_count_on(carto_sandbox, clock, client):
    for minutes, requests in ((0, 1), (20, 1), (27, 2), (27 + 20, 2), (27 + 27, 3)):
        clock.ahead = minutes * 60
        assert answer(client) == 1
        assert carto_sandbox.count(WAREHOUSE) == requests, minutes
    assert all(r.status == 200 for r in carto_sandbox.requests)


def test_threads_share_a_renewal_after_a_401(carto_sandbox, client):
    barrier = threading.Barrier(8)

    def work(_):
        answer(client)  # so that each thread has sent the first token
        if barrier.wait(30) == 0:
            carto_sandbox.revoke_warehouse_tokens()
        barrier.wait(30)
        return answer(client)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(8))) == [1] * 8
    assert carto_sandbox.count(WAREHOUSE) == 2


def test_a_thread_whose_token_was_replaced_does_not_replace_the_new_one(carto_sandbox, credentials):
    credentials.before_request(None, "GET", "https://example.com", {})
    with ThreadPoolExecutor(1) as other:
        other.submit(credentials.before_request, None, "GET", "https://example.com", {}).result()
        other.submit(credentials.refresh, None).result()
    renewed = credentials.token
    credentials.refresh(None)  # this thread's 401 was for the token before
    assert (credentials.token, carto_sandbox.count(WAREHOUSE)) == (renewed, 2)
    credentials.before_request(None, "GET", "https://example.com", {})
    credentials.refresh(None)  # and this one for the new one
    assert (credentials.token != renewed, carto_sandbox.count(WAREHOUSE)) == (True, 3)


def test_two_clients_share_a_warehouse_token(carto_sandbox, carto):
    with carto.get_carto_dw_client() as first, carto.get_carto_dw_client() as second:
        assert (answer(first), answer(second)) == (1, 1)
        assert carto_sandbox.count(WAREHOUSE) == 1
        carto_sandbox.revoke_warehouse_tokens()
        assert (answer(first), answer(second)) == (1, 1)
    assert carto_sandbox.count(WAREHOUSE) == 2
    assert carto.get_carto_dw_credentials() == carto.get_carto_dw_credentials()
    assert carto_sandbox.count(WAREHOUSE) == 2


def test_a_good_token_is_used_on_while_carto_is_out_of_order(carto_sandbox, clock, client):
    answer(client)
    carto_sandbox.outage = {WAREHOUSE: 404}  # a status that is not tried again
    clock.ahead = 31 * 60
    assert (answer(client), answer(client)) == (1, 1)
    tries = carto_sandbox.count(WAREHOUSE)
    assert tries == 2  # the next one waits
    clock.ahead += 61
    assert answer(client) == 1
    assert carto_sandbox.count(WAREHOUSE) == tries + 1
    clock.ahead = 3601  # now BigQuery refuses it
    with pytest.raises(google.auth.exceptions.RefreshError) as failed:
        answer(client)
    assert isinstance(failed.value, CredentialsError)
    assert failed.value.status == 404
    carto_sandbox.outage = None
    assert answer(client) == 1


def test_the_expiry_is_naive_utc_and_far_enough_for_google(credentials, clock):
    left = (credentials.expiry - google.auth._helpers.utcnow()).total_seconds()
    assert credentials.expiry.tzinfo is None
    assert 29 * 60 < left <= 30 * 60
    assert credentials.valid
    clock.ahead = 30 * 60 - 224
    assert not credentials.valid
    credentials.refresh(None)
    assert credentials.valid  # google-auth refuses an expiry nearer than 225 s


# -- pickling

IN_ANOTHER_PROCESS = """
import pickle, sys
from google.cloud import bigquery
credentials = pickle.load(sys.stdin.buffer)
client = bigquery.Client("carto-dw-ac-sandbox", credentials, client_options={"api_endpoint": sys.argv[1]})
for row in client.query("SELECT 7").result():
    print(row[0])
"""


def test_pickled_credentials_renew_themselves_in_another_process(carto_sandbox, credentials):
    credentials.before_request(None, "GET", "https://example.com", {})
    pickled = pickle.dumps(credentials)
    carto_sandbox.revoke_access_tokens()
    carto_sandbox.revoke_warehouse_tokens()
    command = [sys.executable, "-W", "ignore", "-c", IN_ANOTHER_PROCESS, carto_sandbox.url]
    done = subprocess.run(command, input=pickled, capture_output=True, timeout=60)
    assert (done.stdout.strip(), done.stderr) == (b"7", b"")
    assert [r.status for r in carto_sandbox.requests if r.path == WAREHOUSE] == [200, 401, 200]


def test_pickled_credentials_of_a_person_take_no_means_to_log_in_along(carto_sandbox):
    carto_sandbox.refresh_tokens = True
    pending = CartoAuth.begin_oauth()
    with pending.finish(walk_login(pending.url)).get_carto_dw_client() as client:
        pickled = pickle.dumps(client._credentials)
    assert b"v1." not in pickled  # the sandbox's refresh tokens begin with it
    copied = pickle.loads(pickled)
    before = copied.token
    copied.before_request(None, "GET", "https://example.com", {})
    copied.refresh(None)
    assert copied.token != before


def test_credentials_for_other_libraries(carto_sandbox, carto):
    credentials = carto.get_carto_dw_google_credentials()
    assert isinstance(credentials, google.auth.credentials.Credentials)
    for used in (credentials, pickle.loads(pickle.dumps(credentials)), credentials.with_quota_project("another")):
        assert used.project_id == "carto-dw-ac-sandbox"
        with bigquery.Client(project=used.project_id, credentials=used) as client:
            assert answer(client) == 1
            carto_sandbox.revoke_warehouse_tokens()
            assert answer(client) == 1


def test_a_client_goes_on_after_a_logout(carto_sandbox, carto, client):
    assert answer(client) == 1
    carto.logout()
    for _ in range(2):
        carto_sandbox.revoke_warehouse_tokens()
        assert answer(client) == 1


# -- the client


def test_it_is_googles_own_client_with_the_options_passed_on(carto_sandbox, carto):
    config = bigquery.QueryJobConfig(labels={"job": "nightly"})
    with carto.get_carto_dw_client(location="EU", default_query_job_config=config) as client:
        assert isinstance(client, bigquery.Client)
        assert (client.project, client.location) == ("carto-dw-ac-sandbox", "EU")
        assert client.default_query_job_config.labels == {"job": "nightly"}
    for name in ("project", "credentials"):
        with pytest.raises(TypeError, match=f"takes no {name}"):
            carto.get_carto_dw_client(**{name: None})


def test_what_programs_replace_is_called(carto_sandbox, monkeypatch):
    original, calls = CartoAuth.get_carto_dw_credentials, []

    def replaced(self):
        calls.append(1)
        return original(self)

    monkeypatch.setattr(CartoAuth, "get_carto_dw_credentials", replaced)
    with CartoAuth.from_m2m().get_carto_dw_client() as client:
        assert (answer(client), len(calls)) == (1, 1)
        carto_sandbox.revoke_warehouse_tokens()
        assert (answer(client), len(calls)) == (1, 2)
    monkeypatch.delenv("BIGQUERY_EMULATOR_HOST")
    monkeypatch.setattr(bigquery, "Client", lambda **options: options)
    assert CartoAuth.from_m2m().get_carto_dw_client(location="EU")["location"] == "EU"


@pytest.mark.parametrize(
    ("url", "is_sent"),
    [
        ("https://bigquerystorage.googleapis.com/google.cloud.bigquery.storage.v1.BigQueryRead", False),
        ("https://BigQuery.GoogleAPIs.com/bigquery/v2/projects", False),
        ("https://googleapis.com", False),
        ("http://127.0.0.1:9050/bigquery/v2/projects", True),
        ("https://bigquery.example.com/googleapis.com", True),
    ],
)
def test_credentials_of_another_bigquery_send_google_no_token(url, is_sent, credentials):
    """Also those that a pickle or a library made of them."""
    for used in (credentials, pickle.loads(pickle.dumps(credentials)), credentials.with_quota_project("another")):
        headers = {}
        used.before_request(None, "GET", url, headers)
        assert ("authorization" in headers) == is_sent


@pytest.mark.parametrize("address", ["http://192.0.2.7", "http://bigquery:9050", "bigquery.googleapis.com"])
def test_bigquery_at_an_address_that_gets_no_token(address, carto_sandbox, carto, monkeypatch):
    with pytest.raises(UntrustedAddress):
        carto.get_carto_dw_client(client_options={"api_endpoint": address})
    monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", address)
    with pytest.raises(UntrustedAddress):
        carto.get_carto_dw_client()


# -- the extra


class Broken:
    """Finds a module that cannot be imported."""

    def __init__(self, error):
        self.error = error

    def find_spec(self, name, path=None, target=None):
        if name == "google.cloud.bigquery":
            raise self.error


@pytest.mark.parametrize(
    "error",
    [
        ModuleNotFoundError("No module named 'google.cloud.bigquery'"),
        TypeError("Descriptors cannot be created directly.\nIf this call came from a _pb2.py file"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_missing_or_broken_extra_is_told_before_any_request(error, carto_sandbox, carto, monkeypatch):
    monkeypatch.delitem(sys.modules, "google.cloud.bigquery")
    monkeypatch.setattr(sys, "meta_path", [Broken(error), *sys.meta_path])
    before = len(carto_sandbox.requests)
    with pytest.raises(ImportError) as failed:
        carto.get_carto_dw_client()
    assert isinstance(failed.value, MissingDependency)
    assert isinstance(failed.value, CredentialsError)
    assert str(failed.value).endswith("Run: pip install 'carto-auth[carto-dw]'")
    assert str(error).splitlines()[0] in str(failed.value)
    assert len(carto_sandbox.requests) == before


def test_without_google_at_all(carto_sandbox):
    program = (
        "import sys\nfor name in ('google', 'google.auth', 'google.cloud'): sys.modules[name] = None\n"
        "from carto_auth import CartoAuth\nauth = CartoAuth.from_m2m()\n"
        "try: auth.get_carto_dw_client()\nexcept ImportError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip().endswith("Run: pip install 'carto-auth[carto-dw]'"), done.stderr
    assert carto_sandbox.count(WAREHOUSE) == 0


# -- what can go wrong

PROBLEMS = {
    401: (Unauthorized, "refused although it is new"),
    403: (WarehouseUnavailable, "may not use a CARTO Data Warehouse"),
    404: (WarehouseUnavailable, "no CARTO Data Warehouse behind this API base URL"),
    429: (RateLimited, "Try again in 7 s"),
    503: (ServiceUnavailable, "has a problem"),
}


@pytest.mark.parametrize("status", PROBLEMS)
def test_each_problem_has_its_own_message_with_the_servers_words(status, carto, requests_mock):
    base = carto.get_api_base_url()
    token = {"access_token": "another", "expires_in": 3600, "token_type": "Bearer"}
    requests_mock.post(f"{base}/oauth/token", json=token)
    told = {"error": "the server's own words", "status": status}
    requests_mock.get(f"{base}{WAREHOUSE}", status_code=status, json=told, headers={"Retry-After": "7"})
    kind, words = PROBLEMS[status]
    with pytest.raises(kind) as failed:
        carto.get_carto_dw_client()
    assert failed.value.status == status
    assert words in str(failed.value)
    assert f"answered {status} (the server's own words)" in str(failed.value)


def test_a_401_renews_the_carto_token_once_and_repeats_once(carto_sandbox, carto):
    carto_sandbox.revoke_access_tokens()
    assert carto.get_carto_dw_credentials()[0] == "carto-dw-ac-sandbox"
    assert (carto_sandbox.count("/oauth/token"), carto_sandbox.count(WAREHOUSE)) == (2, 2)
    carto_sandbox.outage = {WAREHOUSE: 401}
    with pytest.raises(Unauthorized, match="refused although it is new"):
        CartoAuth.from_m2m(use_cache=False).get_carto_dw_credentials()
    assert (carto_sandbox.count("/oauth/token"), carto_sandbox.count(WAREHOUSE)) == (4, 4)


# -- as google-auth's own users use them


def test_refresh_by_hand(credentials):
    """Also what was never sent, what was sent by another thread, and what came out of a pickle."""
    for used in (credentials, pickle.loads(pickle.dumps(credentials))):
        seen = {used.token}
        for _ in range(2):
            used.refresh(google.auth.transport.requests.Request())
            seen.add(used.token)
        with ThreadPoolExecutor(1) as pool:
            pool.submit(used.refresh, None).result()
        seen.add(used.token)
        assert len(seen) == 4


def test_a_netrc_does_not_get_in_the_way(client):
    Path.home().joinpath(".netrc").write_text("default login me password secret\n")
    assert answer(client) == 1


@pytest.mark.parametrize("kind", [dict, ClientOptions])
def test_options_of_the_client_go_beside_its_address(carto_sandbox, kind):
    carto = CartoAuth.from_m2m(services=carto_sandbox.services)
    with carto.get_bigquery_client(client_options=kind(quota_project_id="another")) as client:
        assert answer(client, "SELECT 7") == 7


def test_threads_that_have_sent_nothing_yet_renew_together(carto_sandbox, credentials, clock):
    ready = threading.Barrier(8)
    clock.ahead = 31 * 60  # it is due
    before = carto_sandbox.count(WAREHOUSE)

    def use(number):
        ready.wait(20)
        credentials.before_request(google.auth.transport.requests.Request(), "GET", "https://x", {})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(use, range(8)))
    assert carto_sandbox.count(WAREHOUSE) == before + 1
