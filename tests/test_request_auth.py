"""``auth=carto_auth`` for requests and for httpx, sync and async: where the token goes, and what a 401 does."""

from __future__ import annotations

import asyncio
import copy
import pickle
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import anyio
import httpx
import pytest
import requests
import trio
from servers import Server, answering, http, wait_for

from carto_auth import CartoAuth, CredentialsError
from carto_auth.errors import UntrustedAddress

SQL = "/v3/sql/carto_dw/query"
TOKEN = "/oauth/token"
API = "https://api.example.com"


# ---- the four ways to send a request, as one -----------------------------------------------------


def with_requests(auth, url, method="GET", content=None):
    return requests.request(method, url, auth=auth, data=content, timeout=30)


def with_httpx(auth, url, method="GET", content=None):
    return httpx.request(method, url, auth=auth, content=content, follow_redirects=True, trust_env=False)


async def send_async(auth, url, method, content):
    if content is not None and not isinstance(content, bytes):
        content = as_async(content)
    async with httpx.AsyncClient(auth=auth, follow_redirects=True, trust_env=False) as client:
        return await client.request(method, url, content=content)


async def as_async(chunks):
    for chunk in chunks:
        yield chunk


def with_asyncio(auth, url, method="GET", content=None):
    return asyncio.run(send_async(auth, url, method, content))


def with_trio(auth, url, method="GET", content=None):
    return trio.run(send_async, auth, url, method, content)


each_client = pytest.mark.parametrize("send", [with_requests, with_httpx, with_asyncio, with_trio])


def of_requests(url):
    return requests.Request("GET", url).prepare()


def of_httpx(url):
    return httpx.Request("GET", url)


each_library = pytest.mark.parametrize("make", [of_requests, of_httpx])


# ---- whose requests ------------------------------------------------------------------------------


@pytest.fixture
def carto(carto_sandbox):
    return CartoAuth.from_m2m()


@pytest.fixture
def query(carto_sandbox):
    return f"{carto_sandbox.api_base_url}{SQL}?q=SELECT%201%20AS%20one"


def at(url, token="a-token"):
    """An object for an API anywhere, with a token that only a person could renew."""
    return CartoAuth("oauth", url, token, time.time() + 3600, use_cache=False, interactive=False)


def application_at(url):
    """An application's object for an API anywhere, whose tokens come from the sandbox or from the test."""
    return CartoAuth("m2m", url, client_id="id", client_secret="secret", use_cache=False)


def statuses(sandbox):
    return [request.status for request in sandbox.requests if request.path == SQL]


def seen(server):
    """The requests that a server got: path and Authorization header of each."""
    return [(request.path, request.headers.get("authorization")) for request in server.requests]


def redirect(url):
    return http(status=302, Location=url)


@pytest.fixture
def tokens(monkeypatch):
    """The tokens that an M2M application gets in turn: t1, t2 and so on. The list grows with each."""
    made = []

    def get_m2m_token_info(client_id, client_secret):
        made.append(f"t{len(made) + 1}")
        return {"access_token": made[-1], "expiration": time.time() + 3600}

    monkeypatch.setattr("carto_auth.auth.get_m2m_token_info", get_m2m_token_info)
    return made


# ---- where the token goes ------------------------------------------------------------------------


@each_client
def test_the_apis_own_requests_are_authorized(send, carto, query):
    answer = send(carto, query)
    assert (answer.status_code, answer.json()["rows"]) == (200, [{"one": 1}])
    assert send(None, query).status_code == 401


@each_library
@pytest.mark.parametrize("base", [API, f"{API}/", f"{API}:443", f"{API}/api", "https://API.example.com"])
@pytest.mark.parametrize("url", [API, f"{API}/v3/sql", f"{API}:443/v3", "https://API.EXAMPLE.COM/v3?q=1#x"])
def test_the_same_origin(make, base, url):
    assert at(base)(make(url)).headers["Authorization"] == "Bearer a-token"


@each_library
@pytest.mark.parametrize(
    "url",
    [
        "http://api.example.com/v3",
        "https://api.example.com:444/v3",
        "https://api.example.com./v3",
        "https://api.example.com.evil.org/v3",
        "https://evil.org/api.example.com",
        "https://evil.org/?https://api.example.com",
        "https://evil.org#@api.example.com",
        "https://api.example.com@evil.org/v3",
        "https://xapi.example.com/v3",
        "https://example.com/v3",
    ],
)
def test_another_origin_gets_no_token(make, url):
    assert "Authorization" not in at(API)(make(url)).headers
    assert "Authorization" not in next(at(API).sync_auth_flow(make(url))).headers


@pytest.mark.parametrize(
    "url", ["https://api.example.com\\@evil.org/", "https://evil.org\\@api.example.com/", "https://a:b/"]
)
def test_an_ambiguous_address_gets_no_token(url):
    request = of_requests(API)
    request.url = url  # neither library makes such an address, but another one that calls us may
    assert "Authorization" not in at(API)(request).headers


def test_a_header_for_another_origin_is_left_alone():
    request = requests.Request("GET", "https://example.org", headers={"Authorization": "Basic x"}, auth=at(API))
    assert request.prepare().headers["Authorization"] == "Basic x"


@each_client
def test_no_token_goes_along_a_redirect_to_elsewhere_nor_comes_back_with_one(send, tokens):
    with (
        Server(lambda line: answering(redirect(f"{api.url}/back"))(line)) as other,
        Server(
            answering(lambda request: http(status=401) if request.path == "/back" else redirect(f"{other.url}/there"))
        ) as api,
    ):
        assert send(application_at(api.url), f"{api.url}/here").status_code == 401
        assert seen(api) == [("/here", "Bearer t1"), ("/back", None)]
        assert seen(other) == [("/there", None)]
    assert tokens == ["t1"]  # the 401 was not about our token


@each_client
def test_a_redirect_within_the_api_keeps_the_token_and_repeats_what_was_refused(send, tokens):
    with Server(answering(redirect("/there"), http(status=401), http())) as api:
        assert send(application_at(api.url), f"{api.url}/here").status_code == 200
        assert seen(api) == [("/here", "Bearer t1"), ("/there", "Bearer t1"), ("/there", "Bearer t2")]


@each_client
@pytest.mark.parametrize(
    ("base", "error", "message"),
    [
        ("http://api.example.com", UntrustedAddress, "unencrypted"),
        (None, CredentialsError, "There is no API base URL, and auth= needs one"),
    ],
)
def test_an_api_that_gets_no_token(send, base, error, message):
    with pytest.raises(error, match=message):
        send(at(base), base or API)


# ---- a 401 ---------------------------------------------------------------------------------------


@each_client
def test_a_401_renews_once_and_repeats_once(send, carto_sandbox, carto, query):
    carto_sandbox.revoke_access_tokens()
    assert send(carto, query).json()["rows"] == [{"one": 1}]
    assert (statuses(carto_sandbox), carto_sandbox.count(TOKEN)) == ([401, 200], 2)


@each_client
def test_a_401_that_stays_is_the_answer(send, carto_sandbox, carto, query, clock):
    """Each new token counts towards a quota, so a token that has just replaced a refused one is not replaced."""
    carto_sandbox.outage = {SQL: 401}
    assert [send(carto, query).status_code for _ in range(5)] == [401] * 5
    assert (statuses(carto_sandbox), carto_sandbox.count(TOKEN)) == ([401] * 6, 2)
    clock.ahead = 61
    send(carto, query)
    assert carto_sandbox.count(TOKEN) == 3


@each_client
def test_other_problems_are_left_to_the_caller(send, carto_sandbox, carto, query):
    for status in (400, 403, 404, 500):
        carto_sandbox.outage = {SQL: status}
        assert send(carto, query).status_code == status
    assert (statuses(carto_sandbox), carto_sandbox.count(TOKEN)) == ([400, 403, 404, 500], 1)


@each_client
def test_a_body_in_memory_is_sent_again(send, tokens):
    with Server(answering(http(status=401), http())) as api:
        assert send(application_at(api.url), f"{api.url}/x", "POST", b"q=SELECT+1").status_code == 200
        assert [request.body for request in api.requests] == ["q=SELECT+1"] * 2


@each_client
def test_a_body_that_can_be_read_once_is_not_repeated_but_the_token_is_renewed(send, carto_sandbox, carto, query):
    carto_sandbox.revoke_access_tokens()
    assert send(carto, query, "POST", iter([b"q=", b"SELECT 1"])).status_code == 401
    assert send(carto, query).status_code == 200
    assert (statuses(carto_sandbox), carto_sandbox.count(TOKEN)) == ([401, 200], 2)


@each_client
def test_a_renewal_that_fails_says_why(send, carto_sandbox, carto, query):
    carto_sandbox.revoke_access_tokens()
    carto_sandbox.add_application(carto_sandbox.client_id)  # its secret is another one now
    with pytest.raises(CredentialsError, match="Check client_id and client_secret"):
        send(carto, query)


@each_client
def test_a_renewal_that_fails_leaves_no_connection_open(send, monkeypatch):
    with Server(answering(http({"error": "expired"}, status=401))) as api:
        auth = application_at(api.url)
        auth._access_token, auth._expiration = "first", time.time() + 3600

        def get_m2m_token_info(client_id, client_secret):
            raise CredentialsError("no new token")

        monkeypatch.setattr("carto_auth.auth.get_m2m_token_info", get_m2m_token_info)
        with pytest.raises(CredentialsError, match="no new token") as failed:
            send(auth, api.url)
        wait_for(lambda: not api.open)
        assert failed.value.__traceback__ is not None  # which held the answer


@each_client
def test_a_token_that_cannot_be_renewed_gives_its_401(send):
    with Server(answering(http(status=401))) as api:
        for auth in (at(API), CartoAuth.from_access_token("deleted", API)):
            auth._api_base_url = api.url
            assert send(auth, api.url).status_code == 401
        assert len(api.requests) == 2


@each_client
def test_a_token_that_was_replaced_meanwhile_is_used_without_a_renewal(send, tokens):
    """As another thread does, between the request and its 401."""
    for make in (at, application_at):
        with Server(lambda line: answering(replaced, http())(line)) as api:
            auth = make(api.url)
            used = [auth.get_access_token(), "another-thread's"]

            def replaced(request, auth=auth):
                auth._access_token = "another-thread's"
                auth._expiration = time.time() + 3600
                return http(status=401)

            assert send(auth, api.url).status_code == 200
            assert seen(api) == [("/", f"Bearer {token}") for token in used]
    assert tokens == ["t1"]


@pytest.mark.parametrize("send", [with_requests, with_asyncio])
def test_threads_share_a_renewal(send, carto_sandbox, carto, query):
    carto_sandbox.revoke_access_tokens()
    barrier = threading.Barrier(8)

    def work(_):
        barrier.wait(30)
        return send(carto, query).status_code

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(8))) == [200] * 8
    assert carto_sandbox.count(TOKEN) == 2


def test_a_pickled_answer_takes_no_credentials_along(carto_sandbox, carto, query):
    pickled = pickle.dumps(with_requests(carto, query))
    assert carto_sandbox.client_secret.encode() not in pickled
    kept = pickle.loads(pickled)
    [hook] = kept.request.hooks["response"]
    kept.status_code = 401
    assert hook(kept) is kept


# ---- the event loop ------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("token", [None, "first"], ids=["at the end of the token", "after a 401"])
def test_the_event_loop_goes_on_during_a_renewal(backend, token, monkeypatch):
    asked, allowed, answers = threading.Event(), threading.Event(), []

    def get_m2m_token_info(client_id, client_secret):
        asked.set()
        assert allowed.wait(30)
        return {"access_token": "renewed", "expiration": time.time() + 3600}

    def api(request):
        return httpx.Response(200 if request.headers["Authorization"] == "Bearer renewed" else 401)

    async def request(client):
        answers.append((await client.get(f"{API}/v3")).status_code)

    async def main():
        transport = httpx.MockTransport(api)
        async with httpx.AsyncClient(auth=auth, transport=transport) as client, anyio.create_task_group() as tasks:
            tasks.start_soon(request, client)
            while not asked.is_set():  # this loop is what would stand still
                await anyio.sleep(0)
            allowed.set()

    monkeypatch.setattr("carto_auth.auth.get_m2m_token_info", get_m2m_token_info)
    auth = CartoAuth("m2m", API, token, time.time() + 3600, "id", "secret", use_cache=False)
    anyio.run(main, backend=backend)
    assert answers == [200]


def test_an_anyio_before_4_1(monkeypatch):
    async def run_sync(function, *arguments, cancellable):
        return function(*arguments)

    async def main(auth):
        transport = httpx.MockTransport(lambda request: httpx.Response(200, text=request.headers["Authorization"]))
        async with httpx.AsyncClient(auth=auth, transport=transport) as client:
            return (await client.get(f"{API}/v3")).text

    info = {"access_token": "renewed", "expiration": time.time() + 3600}
    monkeypatch.setattr("carto_auth.auth.get_m2m_token_info", lambda client_id, client_secret: info)
    monkeypatch.setattr("anyio.to_thread.run_sync", run_sync)
    auth = CartoAuth("m2m", API, client_id="id", client_secret="secret", use_cache=False)
    assert anyio.run(main, auth) == "Bearer renewed"


# ---- the object ----------------------------------------------------------------------------------


def test_httpx_is_never_imported(query):
    program = (
        "import sys, requests\nfrom carto_auth import CartoAuth\nauth = CartoAuth.from_m2m()\n"
        f"print(requests.get({query!r}, auth=auth).status_code, auth.__class__ is CartoAuth, 'httpx' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "200 True False", done.stderr


@pytest.mark.parametrize("module", [type(sys)("httpx"), None], ids=["half imported", "cannot be imported"])
def test_an_httpx_that_is_not_there_yet(module, monkeypatch):
    monkeypatch.setitem(sys.modules, "httpx", module)
    assert at(API).__class__ is CartoAuth


class Own(CartoAuth):
    """A subclass, as programs may have them."""


class OwnHttpx(CartoAuth, httpx.Auth):
    """One that is an httpx.Auth by itself."""


each_kind = pytest.mark.parametrize("kind", [CartoAuth, Own, OwnHttpx])


@each_kind
def test_it_is_what_it_was_and_an_httpx_auth_too(kind):
    auth = kind("m2m", API, use_cache=False)
    for expected in (kind, CartoAuth, httpx.Auth):
        assert isinstance(auth, expected)
    assert not isinstance(auth, (httpx.BasicAuth, dict, str))
    shown = auth.__class__
    assert (shown.__qualname__, shown.__module__) == (kind.__qualname__, kind.__module__)
    assert issubclass(shown, kind)
    assert shown is auth.__class__
    assert type(auth) is type(shown("oauth")) is kind
    assert repr(auth) == "<CartoAuth m2m https://api.example.com>"


@each_kind
def test_it_can_be_pickled_and_copied(kind, tokens):
    auth = kind("m2m", API, "a-token", time.time() + 3600, "id", "secret", use_cache=False)
    pickled = [pickle.dumps(auth, protocol) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]
    for copied in (*map(pickle.loads, pickled), copy.copy(auth), copy.deepcopy(auth)):
        assert type(copied) is kind
        assert (copied.get_access_token(), copied.get_api_base_url()) == ("a-token", API)
    copied._expiration = 1
    assert (copied.get_access_token(), auth.get_access_token()) == ("t1", "a-token")


def test_a_library_that_knows_it_as_a_callable_can_use_it():
    """As httpx's forks do: no 401 is shown to it then, but the header is there."""
    authorize = at(API).__call__
    transport = httpx.MockTransport(lambda request: httpx.Response(200, text=request.headers["Authorization"]))
    with httpx.Client(auth=lambda request: authorize(request), transport=transport) as client:
        assert client.get(API).text == "Bearer a-token"
