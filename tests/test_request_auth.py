"""``auth=carto_auth`` for requests and for httpx, sync and async: where the token goes, and what a 401 does."""

from __future__ import annotations

import asyncio
import copy
import http.server
import pickle
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
import requests

from carto_auth import CartoAuth, CredentialsError
from carto_auth.errors import UntrustedAddress

SQL = "/v3/sql/carto_dw/query"
TOKEN = "/oauth/token"


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
    import trio

    return trio.run(send_async, auth, url, method, content)


each_client = pytest.mark.parametrize("send", [with_requests, with_httpx, with_asyncio, with_trio])


class Site:
    """A web server that answers as it is told, and remembers the Authorization headers it got."""

    def __init__(self, answer):
        self.seen = []
        site = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                site.seen.append((self.path, self.headers.get("Authorization")))
                status, location = answer(self.path)
                self.send_response(status)
                if location:
                    self.send_header("Location", location)
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_POST = do_GET  # noqa: N815 - http.server's name

            def log_message(self, *arguments):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self):
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()
        return self

    def __exit__(self, *error):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def carto(carto_sandbox):
    return CartoAuth.from_m2m()


@pytest.fixture
def query(carto_sandbox):
    return f"{carto_sandbox.api_base_url}{SQL}?q=SELECT%201%20AS%20one"


def statuses(sandbox, path=SQL):
    return [request.status for request in sandbox.requests if request.path == path]


def at(url, token="a-token"):
    """An object for an API anywhere, with a token that it cannot renew."""
    return CartoAuth("oauth", url, token, time.time() + 3600, use_cache=False, interactive=False)


# ---- where the token goes ------------------------------------------------------------------------


@each_client
def test_the_apis_own_requests_are_authorized(send, carto, query):
    answer = send(carto, query)
    assert (answer.status_code, answer.json()["rows"]) == (200, [{"one": 1}])
    assert send(None, query).status_code == 401


API = "https://api.example.com"


def of_requests(url):
    return requests.Request("GET", url).prepare()


def of_httpx(url):
    return httpx.Request("GET", url)


@pytest.mark.parametrize("make", [of_requests, of_httpx])
@pytest.mark.parametrize("base", [API, f"{API}/", f"{API}:443", f"{API}/api", "https://API.example.com"])
@pytest.mark.parametrize("url", [API, f"{API}/v3/sql", f"{API}:443/v3", "https://API.EXAMPLE.COM/v3?q=1#x"])
def test_the_same_origin(make, base, url):
    assert at(base)(make(url)).headers["Authorization"] == "Bearer a-token"


@pytest.mark.parametrize("make", [of_requests, of_httpx])
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
    flow = at(API).sync_auth_flow(make(url))
    assert "Authorization" not in next(flow).headers


@pytest.mark.parametrize(
    "url", ["https://api.example.com\\@evil.org/", "https://evil.org\\@api.example.com/", "https://a:b/"]
)
def test_an_ambiguous_address_gets_no_token(url):
    request = of_requests(API)
    request.url = url  # neither library makes such a thing, but another that calls us may
    assert "Authorization" not in at(API)(request).headers


def test_a_header_for_another_origin_is_left_alone():
    request = requests.Request("GET", "https://example.org", headers={"Authorization": "Basic x"}, auth=at(API))
    assert request.prepare().headers["Authorization"] == "Basic x"


@each_client
def test_no_token_goes_along_a_redirect_to_elsewhere(send, carto_sandbox):
    with Site(lambda path: (401, None)) as other, Site(lambda path: (302, f"{other.url}/there")) as api:
        carto = CartoAuth.from_m2m(use_cache=False)
        carto._api_base_url = api.url
        assert send(carto, f"{api.url}/here").status_code == 401
        assert api.seen == [("/here", f"Bearer {carto._access_token}")]
        assert other.seen == [("/there", None)]  # and its 401 is not about our token
    assert carto_sandbox.count(TOKEN) == 1


@each_client
def test_nor_does_one_come_back_with_it(send, carto_sandbox):
    with (
        Site(lambda path: (302, f"{api.url}/back")) as other,
        Site(lambda path: (401, None) if path == "/back" else (302, other.url)) as api,
    ):
        carto = CartoAuth.from_m2m(use_cache=False)
        carto._api_base_url = api.url
        assert send(carto, f"{api.url}/here").status_code == 401
        assert api.seen == [("/here", f"Bearer {carto._access_token}"), ("/back", None)]
    assert carto_sandbox.count(TOKEN) == 1


@each_client
def test_a_redirect_within_the_api_keeps_the_token_and_repeats_what_was_refused(send, carto_sandbox):
    refusals = iter([401, 200])
    with Site(lambda path: (302, "/there") if path == "/here" else (next(refusals), None)) as api:
        carto = CartoAuth.from_m2m(use_cache=False)
        carto._api_base_url = api.url
        first = carto.get_access_token()
        assert send(carto, f"{api.url}/here").status_code == 200
        second = carto.get_access_token()
        assert api.seen == [(path, f"Bearer {token}") for path, token in
                            (("/here", first), ("/there", first), ("/there", second))]  # fmt: skip
        assert first != second


def test_no_token_is_sent_unencrypted():
    with pytest.raises(UntrustedAddress, match="unencrypted"):
        requests.Request("GET", "http://api.example.com/v3", auth=at("http://api.example.com")).prepare()


@each_client
def test_an_object_that_knows_no_api_says_so(send):
    with pytest.raises(CredentialsError, match="without an API base URL"):
        send(at(None), API)


# ---- a 401 ---------------------------------------------------------------------------------------


@each_client
def test_a_401_renews_once_and_repeats_once(send, carto_sandbox, carto, query):
    send(carto, query)
    carto_sandbox.revoke_access_tokens()
    assert send(carto, query).json()["rows"] == [{"one": 1}]
    assert (statuses(carto_sandbox), carto_sandbox.count(TOKEN)) == ([200, 401, 200], 2)


@each_client
def test_a_401_that_stays_is_the_answer(send, carto_sandbox, carto, query):
    carto_sandbox.outage = {SQL: 401}
    assert send(carto, query).status_code == 401
    assert (statuses(carto_sandbox), carto_sandbox.count(TOKEN)) == ([401, 401], 2)


@each_client
@pytest.mark.parametrize("status", [400, 403, 404, 500])
def test_other_problems_are_left_to_the_caller(send, status, carto_sandbox, carto, query):
    carto_sandbox.outage = {SQL: status}
    assert send(carto, query).status_code == status
    assert (statuses(carto_sandbox), carto_sandbox.count(TOKEN)) == ([status], 1)


@each_client
def test_a_body_in_memory_is_sent_again(send, carto_sandbox, carto, query):
    carto_sandbox.revoke_access_tokens()
    bodies = []
    with Site(lambda path: (401 if len(bodies) == 0 else 200, bodies.append(path))) as api:
        carto._api_base_url = api.url
        assert send(carto, f"{api.url}/x", "POST", b"q=SELECT+1").status_code == 200
        assert len(api.seen) == 2


@each_client
def test_a_body_that_can_be_read_once_is_not_repeated_but_the_token_is_renewed(send, carto_sandbox, carto, query):
    carto_sandbox.revoke_access_tokens()
    assert send(carto, query, "POST", iter([b"q=", b"SELECT 1"])).status_code == 401
    assert (statuses(carto_sandbox), carto_sandbox.count(TOKEN)) == ([401], 2)
    assert send(carto, query).status_code == 200
    assert carto_sandbox.count(TOKEN) == 2


@each_client
def test_a_token_that_cannot_be_renewed_gives_its_401(send, carto_sandbox, query):
    auth = CartoAuth.from_access_token("deleted-token")
    assert send(auth, query).status_code == 401
    assert (statuses(carto_sandbox), carto_sandbox.count(TOKEN)) == ([401], 0)


@each_client
def test_a_renewal_that_fails_says_why(send, carto_sandbox, carto, query):
    carto_sandbox.revoke_access_tokens()
    carto_sandbox.add_application(carto_sandbox.client_id)  # its secret is another one now
    with pytest.raises(CredentialsError, match="Check client_id and client_secret"):
        send(carto, query)


def test_requests_repeats_without_a_renewal_if_the_token_has_changed(carto_sandbox, carto, query):
    request = requests.Request("GET", query, auth=carto).prepare()
    carto_sandbox.revoke_access_tokens()
    with_requests(carto, query)
    assert carto_sandbox.count(TOKEN) == 2
    with requests.Session() as session:
        assert session.send(request).status_code == 200
    assert (statuses(carto_sandbox), carto_sandbox.count(TOKEN)) == ([401, 200, 401, 200], 2)


def test_httpx_repeats_without_a_renewal_if_the_token_has_changed(carto_sandbox, carto, query):
    request = httpx.Request("GET", query)
    flow = carto.sync_auth_flow(request)
    next(flow)
    carto_sandbox.revoke_access_tokens()
    with_requests(carto, query)
    repeated = flow.send(httpx.Response(401, request=request))
    assert repeated.headers["Authorization"] == f"Bearer {carto.get_access_token()}"
    with pytest.raises(StopIteration):
        flow.send(httpx.Response(401, request=repeated))
    assert carto_sandbox.count(TOKEN) == 2


@pytest.mark.parametrize("send", [with_requests, with_httpx, with_asyncio])
def test_threads_share_a_renewal(send, carto_sandbox, carto, query):
    carto_sandbox.revoke_access_tokens()
    barrier = threading.Barrier(8)

    def work(_):
        barrier.wait(30)
        return send(carto, query).status_code

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(8))) == [200] * 8
    assert carto_sandbox.count(TOKEN) == 2


def test_a_token_that_changes_between_look_and_lock_is_not_renewed_again():
    class Racing(CartoAuth):
        def _renews_quietly(self):
            self._set_token("another thread's", time.time() + 3600)
            return True

        def _request(self, *, may_ask):
            raise AssertionError("renewed twice")

    auth = Racing("m2m", API, "first", time.time() + 3600, "id", "secret", use_cache=False)
    assert auth._token_instead_of("first") == "another thread's"


def test_a_changed_token_is_used_where_none_can_be_renewed():
    auth = at(API, "first")
    auth._set_token("second", time.time() + 3600)
    assert (auth._token_instead_of("first"), auth._token_instead_of("second")) == ("second", None)


def test_a_pickled_answer_takes_no_credentials_along(carto_sandbox, carto, query):
    pickled = pickle.dumps(with_requests(carto, query))
    assert carto_sandbox.client_secret.encode() not in pickled
    kept = pickle.loads(pickled)
    [hook] = kept.request.hooks["response"]
    kept.status_code = 401
    assert hook(kept) is kept


# ---- the event loop ------------------------------------------------------------------------------


class SlowAuth(CartoAuth):
    """Renews when it is allowed to."""

    def _request(self, *, may_ask):
        assert self.allowed.wait(30)
        self._set_token("renewed", time.time() + 3600)


@pytest.fixture
def slow():
    auth = SlowAuth("m2m", API, client_id="id", client_secret="secret", use_cache=False)
    auth.allowed = threading.Event()
    return auth


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("is_first", [True, False], ids=["at the end of the token", "after a 401"])
def test_the_event_loop_goes_on_during_a_renewal(backend, is_first, slow):
    import anyio

    if not is_first:
        slow._set_token("first", time.time() + 3600)

    def api(request):
        return httpx.Response(200 if request.headers["Authorization"] == "Bearer renewed" else 401)

    async def main():
        transport = httpx.MockTransport(api)
        async with httpx.AsyncClient(auth=slow, transport=transport) as client, anyio.create_task_group() as tasks:
            tasks.start_soon(request, client)
            while not busy(slow):  # this loop is what would stand still
                await anyio.sleep(0)
            slow.allowed.set()

    async def request(client):
        answers.append((await client.get(f"{API}/v3")).status_code)

    answers = []
    anyio.run(main, backend=backend)
    assert answers == [200]


def busy(auth):
    return auth._own_locks()[0].locked()


def test_a_good_token_needs_no_thread(slow, monkeypatch):
    slow._set_token("good", time.time() + 3600)
    monkeypatch.setattr("carto_auth._request_auth._in_thread", None)

    async def main():
        transport = httpx.MockTransport(lambda request: httpx.Response(200, text=request.headers["Authorization"]))
        async with httpx.AsyncClient(auth=slow, transport=transport) as client:
            return (await client.get(API)).text

    assert asyncio.run(main()) == "Bearer good"


def test_a_renewal_in_a_thread_without_anyio(slow, monkeypatch):
    from carto_auth._request_auth import _in_thread

    monkeypatch.setitem(sys.modules, "anyio", None)
    slow.allowed.set()
    assert asyncio.run(_in_thread(slow.get_access_token)) == "renewed"


# ---- the object ----------------------------------------------------------------------------------


def test_httpx_is_never_imported(query):
    program = (
        "import sys, requests\nfrom carto_auth import CartoAuth\nauth = CartoAuth.from_m2m()\n"
        f"print(requests.get({query!r}, auth=auth).status_code, auth.__class__ is CartoAuth, 'httpx' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "200 True False", done.stderr


def test_an_httpx_that_is_being_imported_is_no_httpx_yet(carto, monkeypatch):
    monkeypatch.setitem(sys.modules, "httpx", type(sys)("httpx"))
    assert carto.__class__ is CartoAuth
    monkeypatch.setitem(sys.modules, "httpx", None)
    assert carto.__class__ is CartoAuth


class Own(CartoAuth):
    """A subclass, as programs may have them."""


class OwnHttpx(CartoAuth, httpx.Auth):
    """One that is an httpx.Auth by itself."""


@pytest.mark.parametrize("kind", [CartoAuth, Own, OwnHttpx])
def test_it_is_what_it_was_and_an_httpx_auth_too(kind):
    auth = kind("m2m", API, "a-token", time.time() + 3600, "id", "secret", use_cache=False)
    assert isinstance(auth, kind)
    assert isinstance(auth, CartoAuth)
    assert isinstance(auth, httpx.Auth)
    assert not isinstance(auth, (httpx.BasicAuth, dict, str))
    assert (type(auth), auth.__class__.__qualname__, auth.__class__.__module__) == (
        kind,
        kind.__qualname__,
        kind.__module__,
    )
    assert issubclass(auth.__class__, kind)
    assert auth.__class__ is auth.__class__
    assert repr(auth) == "<CartoAuth m2m https://api.example.com>"
    assert sys.getsizeof(auth) > 0
    assert type(auth.__class__("oauth")) is kind
    assert (auth == auth, hash(auth) == hash(auth), bool(auth)) == (True, True, True)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("kind", [CartoAuth, Own, OwnHttpx])
def test_it_can_be_pickled_and_copied_as_before(kind, protocol):
    auth = kind("m2m", API, "a-token", time.time() + 3600, "id", "secret", use_cache=False)
    auth._own_locks()
    for copied in (pickle.loads(pickle.dumps(auth, protocol)), copy.copy(auth), copy.deepcopy(auth)):
        assert type(copied) is kind
        assert {**vars(copied), "_locks": {}} == {**vars(auth), "_locks": {}}
        assert copied.get_access_token() == "a-token"
        assert copied._locks is not auth._locks


def test_a_library_that_knows_it_as_a_callable_can_use_it():
    """As httpx's forks do: no 401 is shown to it then, but the header is there."""
    authorize = at(API).__call__
    transport = httpx.MockTransport(lambda request: httpx.Response(200, text=request.headers["Authorization"]))
    with httpx.Client(auth=lambda request: authorize(request), transport=transport) as client:
        assert client.get(API).text == "Bearer a-token"


def test_sessions_and_clients_take_it(carto, query):
    with requests.Session() as session, httpx.Client(auth=carto, trust_env=False) as client:
        session.auth = carto
        assert (session.get(query).status_code, client.get(query).status_code) == (200, 200)
        client.auth = carto
        assert client.get(query).status_code == 200
