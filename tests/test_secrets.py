"""Nothing that comes out of this package shows a secret, whatever fails.

Marked secrets are planted, every failure is driven by servers that give back all they were told, and all that comes
out is searched for the marks: texts, reprs, chains, pickles, logs of all loggers, warnings, files, output.
"""

import asyncio
import inspect
import json
import logging
import pickle
import subprocess
import sys
import tempfile
import traceback
import urllib.parse
from pathlib import Path

import httpx
import pytest
import requests
from servers import Server, answering, http, then_closing

import carto_auth
import carto_auth.auth as auth_module
from carto_auth import CartoAuth, CredentialsError, _http, cache, cli, discovery, m2m, pkce
from carto_auth._frames import clears_frames
from carto_auth._http import sending
from carto_auth._http.redaction import LONGEST_QUOTE, quoted, shown, without_secrets
from carto_auth._services import Services
from carto_auth._warehouse.token import WarehouseToken
from carto_auth.credentials import AccessToken, M2MCredentials
from carto_auth.discovery import get_api_base_url
from carto_auth.m2m import get_m2m_token_info
from carto_auth.pkce import CartoPKCE, refresh_oauth_token_info, revoke_refresh_token

# No words in them, and characters that are encoded on the way.
SECRET = "Zq7Kx/bN4+mR8=Vw3&Jh9%Tn5pLs2"
TOKEN = "Yb4Mg.cW9-xT3_Rk8.Pd2Lc6Hq1"
REFRESH = "Xf5Nh~dV8/zS2+Sj7Qe3Bt9Gw6"
CODE = "Wg6Pj=fU7/yA1+Tl8Rf4Km3"
VERIFIER = "Vh7Qk-gT6_xZ9.Um9Sg5Cv2Xy8"
ALL = (SECRET, TOKEN, REFRESH, CODE, VERIFIER)

PACKAGE = Path(carto_auth.__file__).parent


def forms_of(secret):
    encoded = {urllib.parse.quote(secret, safe=""), urllib.parse.quote_plus(secret)}
    return {secret} | encoded | {form.replace("%2F", "%2f").replace("%3D", "%3d") for form in encoded}


def shown_in(text):
    return sorted(form for secret in ALL for form in forms_of(secret) if form in text)


def variables_of_ours(error):
    """The variables that an error tracker shows, as rich and ``pytest -l`` do, of this package's frames."""
    left = [traceback.TracebackException.from_exception(error, capture_locals=True)]
    texts = []
    for one in left:
        ours = [frame for frame in one.stack if Path(frame.filename).is_relative_to(PACKAGE)]
        texts += [f"{frame.name} {name} {text}" for frame in ours for name, text in (frame.locals or {}).items()]
        left += filter(None, (one.__cause__, one.__context__))
    return texts


def told(error):
    """All that an exception says, and all that hangs on it and on its chain."""
    texts = [str(error), repr(error), "".join(traceback.format_exception(error))]
    texts += variables_of_ours(error)
    texts.append(pickle.dumps(error).decode("latin-1"))
    left, seen = [error], set()
    while left:
        one = left.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, BaseException):
            assert isinstance(one, CredentialsError), f"{type(one)} hangs on our error"
            left += [*one.args, vars(one), one.__cause__, one.__context__]
        elif isinstance(one, dict):
            left += [*one.keys(), *one.values()]
        elif isinstance(one, (list, tuple, set)):
            left += one
        elif isinstance(one, bytes):
            texts.append(one.decode("latin-1"))
        else:
            assert one is None or isinstance(one, (str, int, float)), f"{type(one)} hangs on our error"
            texts.append(str(one))
    return "\n".join(texts)


# ---- servers that give back what they were told --------------------------------------------------


def given(request):
    """What was told: the form, decoded and not, and the token."""
    decoded = " ".join(value for _, value in urllib.parse.parse_qsl(request.body))
    bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
    path = urllib.parse.unquote(request.path)
    return f"{decoded} {bearer} {path}", f"{request.body} {urllib.parse.quote(bearer, safe='')} {request.path}"


def error_with(words, **options):
    return lambda request: http({"error": words(request), "error_description": words(request)}, **options)


def decoded(request):
    return given(request)[0]


def encoded(request):
    return given(request)[1]


def small_hex(request):
    return encoded(request).replace("%2F", "%2f").replace("%3D", "%3d").replace("%2B", "%2b")


def padded(request):
    """So that a message is cut in the middle of a secret."""
    return "x" * (LONGEST_QUOTE - 15) + decoded(request)


def single(request):
    """The secrets without blanks, as a token, a host or a header would have them."""
    return "".join(decoded(request).split("/v3")[0].split())


def closing_after(answer):
    """A script: one answer, whose end is the end of the connection."""

    def script(line):
        request = line.request()
        if request is not None:
            line.send(answer(request))

    return script


FAILURES = {
    **{
        f"{status} {words.__name__}": answering(error_with(words, status=status, **headers))
        for words in (decoded, encoded, small_hex, padded)
        for status, headers in ((200, {}), (401, {}), (429, {"Retry_After": "60"}))
    },
    "a list of errors": answering(lambda r: http({"error": [decoded(r), encoded(r)], "status": 400}, status=400)),
    "a web page": answering(lambda r: http(f"<p>{decoded(r)}{encoded(r)}", status=200)),
    "a location": answering(lambda r: http(status=307, Location=f"https://{single(r)}.example/{encoded(r)}")),
    "headers": answering(
        lambda r: http(status=429, Retry_After=single(r), x_ratelimit_reset=single(r), Set_Cookie=f"a={single(r)}")
    ),
    "a token type": answering(lambda r: http({"access_token": "x", "token_type": decoded(r), "expires_in": 1})),
    "an expires_in": answering(lambda r: http({"access_token": "x", "expires_in": decoded(r)})),
    "an access token": answering(lambda r: http({"access_token": decoded(r) + "\r\n", "expires_in": 60})),
    "a tenant": answering(lambda r: http({"tenant_domain": single(r)})),
    "a warehouse": answering(lambda r: http({"projectId": [decoded(r)], "token": decoded(r)})),
    "an echo": closing_after(lambda r: r.raw),
    "closing": then_closing(),
    "too much": closing_after(lambda r: b"HTTP/1.1 200 -\r\n\r\n" + f"{decoded(r)} ".encode() * 50_000),
}


def use_a_code(services):
    login = CartoPKCE(open_browser=False, services=services)
    login._code_verifier = VERIFIER
    login.get_token_info(CODE)


def finish_a_login(services):
    login = CartoAuth.begin_oauth(services=services)
    login.finish(f"{services.app_url}/auth/token?code={urllib.parse.quote(CODE)}&state={login.state}")


def application(services, access_token=None):
    expiration = 4155310800 if access_token else None
    return CartoAuth("m2m", services.auth_url, access_token, expiration, "an-id", SECRET, services=services)


def person(services):
    return CartoAuth("oauth", services.auth_url, TOKEN, 4155310800, interactive=False, services=services)


def kept_login(services, expiration):
    with tempfile.TemporaryDirectory() as folder:
        entry = {"access_token": TOKEN, "expiration": expiration, "refresh_token": REFRESH}
        cache.save_cache_file(f"{folder}/c.json", entry | {"api_base_url": services.auth_url})
        return CartoAuth.from_oauth(f"{folder}/c.json", interactive=False, services=services)


def refresh_for_google(services):
    with Server(answering(http({"projectId": "a-project", "token": TOKEN}))) as good:
        auth = person(services.replaced(bigquery_url=good.url))
        auth._api_base_url = good.url
        client = auth.get_carto_dw_client()
    client.close()
    auth._api_base_url = services.auth_url
    client._credentials.refresh(None)


@clears_frames  # as RestrictedAuth.delete() is
def delete(services):
    url = f"{services.auth_url}/v3/tokens/{urllib.parse.quote(REFRESH, safe='')}"
    _http.request_json("DELETE", url, access_token=TOKEN, hidden=REFRESH, failure="CARTO did not delete the token")


CALLS = {
    "m2m": lambda services: get_m2m_token_info("an-id", SECRET, services=services),
    "code": use_a_code,
    "refresh": lambda services: refresh_oauth_token_info(REFRESH, services=services),
    "revoke": lambda services: revoke_refresh_token(REFRESH, services=services),
    "accounts": lambda services: get_api_base_url(TOKEN, services=services),
    "from_m2m": lambda services: CartoAuth.from_m2m(
        api_base_url=services.auth_url, client_id="an-id", client_secret=SECRET, services=services, use_cache=False
    ),
    "finish": finish_a_login,
    "get_access_token": lambda services: application(services).get_access_token(),
    "a renewal": lambda services: kept_login(services, 1),
    "logout": lambda services: kept_login(services, 4155310800).logout(),
    "warehouse": lambda services: person(services).get_carto_dw_credentials(),
    "refresh for Google": refresh_for_google,
    "restricted_to": lambda services: person(services).restricted_to([("carto_dw", "a.b.c")]),
    "delete": delete,
}


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr(sending, "BACKOFF_SECONDS", 0.0)
    monkeypatch.setattr(sending, "JITTER_SECONDS", 0.0)


@pytest.fixture
def nothing_shown(caplog, capfd, recwarn):
    """Call it with what else came out: all of it is searched, and all that was logged, printed and warned of."""
    caplog.set_level(logging.DEBUG)

    def check(*texts):
        logged = [
            f"{record.getMessage()} {record.args} {record.exc_text} {record.exc_info}" for record in caplog.records
        ]
        printed = capfd.readouterr()
        warned = [str(warning.message) for warning in recwarn]
        everything = "\n".join([*texts, caplog.text, *logged, printed.out, printed.err, *warned])
        assert shown_in(everything) == []

    return check


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_no_failure_shows_a_secret(call, nothing_shown, caplog):
    assert shown_in(f"{SECRET} {urllib.parse.quote(TOKEN, safe='')}")  # the search finds what is there
    seen = 0
    for name, script in FAILURES.items():
        with Server(script) as server:
            services = Services(server.url, server.url, server.url)
            texts = []
            try:
                call(services)
            except CredentialsError as error:
                texts.append(told(error))
            nothing_shown(*texts)
            assert any(shown_in(request.raw.decode()) for request in server.requests), f"{name}: nothing was planted"
        seen += bool(caplog.records)
        caplog.clear()
    assert seen == len(FAILURES)  # the search had something to look at


async def send_async(url, auth):
    async with httpx.AsyncClient(auth=auth, trust_env=False) as client:
        await client.get(url)


@pytest.mark.parametrize(
    "send",
    [
        lambda url, auth: requests.get(url, auth=auth, timeout=9),
        lambda url, auth: httpx.get(url, auth=auth, trust_env=False),
        lambda url, auth: asyncio.run(send_async(url, auth)),
    ],
    ids=["requests", "httpx", "httpx, async"],
)
@pytest.mark.parametrize("has_token", [False, True])
def test_no_frame_shows_a_secret_under_ones_own_requests(send, has_token):
    with Server(answering(error_with(decoded, status=401))) as server:
        services = Services(server.url, server.url, server.url)
        with pytest.raises(CredentialsError) as caught:
            send(server.url, application(services, TOKEN if has_token else None))
    assert len(server.requests) == 1 + has_token
    assert shown_in("\n".join(variables_of_ours(caught.value))) == []


def test_the_search_sees_variables_of_ours():
    with Server(answering(error_with(decoded, status=401))) as server, pytest.raises(CredentialsError) as caught:
        inspect.unwrap(get_m2m_token_info)("an-id", SECRET, services=Services(server.url))
    assert shown_in("\n".join(variables_of_ours(caught.value)))


def test_wrong_arguments_show_no_secret(tmp_path):
    calls = [
        lambda: CartoAuth("m2m", access_token=TOKEN, expiration="x", client_secret=SECRET),
        lambda: CartoAuth("?", access_token=TOKEN, client_secret=SECRET),
        lambda: CartoAuth.from_m2m("a-file", client_secret=SECRET),
        lambda: CartoAuth.from_access_token(f"{TOKEN} {TOKEN}", "https://x.carto.com"),
        lambda: CartoAuth.begin_oauth().finish(f"https://evil.example/?code={CODE}"),
        lambda: CartoAuth("oauth").__setstate__({"_mode": "?", "_access_token": TOKEN}),
        lambda: cache.save_cache_file(tmp_path, {"access_token": TOKEN, "expiration": 1, "api_base_url": None}),
        lambda: CartoPKCE(open_browser=False).get_authorization_code(f"https://evil.example/?code={CODE}"),
    ]
    for call in calls:
        with pytest.raises((CredentialsError, TypeError, OSError)) as caught:
            call()
        assert shown_in("\n".join(variables_of_ours(caught.value))) == []


@pytest.mark.parametrize("owner", [CartoAuth, auth_module.RestrictedAuth, CartoPKCE, pkce.PendingLogin])
def test_every_public_method_is_a_boundary(owner):
    methods = {n: m for n, m in vars(owner).items() if inspect.isfunction(getattr(m, "__func__", m))}
    public = {name for name in methods if not name.startswith("_")} | {"__init__", "__call__"} & set(methods)
    assert {name for name in public if not hasattr(methods[name], "__wrapped__")} <= {"get_access_token"}
    assert public


@pytest.mark.parametrize("module", [cache, discovery, m2m, pkce])
def test_every_public_function_with_a_secret_is_a_boundary(module):
    own = {n: f for n, f in vars(module).items() if inspect.isfunction(f) and f.__module__ == module.__name__}
    told = {"access_token", "client_secret", "refresh_token", "data", "code", "timeout"}
    public = {n: f for n, f in own.items() if not n.startswith("_") and told & set(inspect.signature(f).parameters)}
    assert {name for name in public if not hasattr(public[name], "__wrapped__")} <= {"login_seconds"}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("nothing here", "nothing here"),
        (f"a {SECRET} b {SECRET}", "a *** b ***"),
        (f"={urllib.parse.quote(SECRET)}&", "=***&"),
        (f"={urllib.parse.quote(SECRET, safe='')}&", "=***&"),
        ("Zq7Kx%2fbN4%2bmR8%3dVw3%26Jh9%25Tn5pLs2", "***"),
        ("one two a-code three", "one *** *** three"),
        ("ab\ud800cd", "ab***cd"),
    ],
)
def test_redaction(words, expected):
    assert without_secrets(words, [SECRET, "a-code", "", "two", "\ud800"]) == expected


def test_words_are_shortened_after_their_secrets_are_hidden():
    long = "x" * (LONGEST_QUOTE - 15) + SECRET * 2
    assert quoted(long, [SECRET]).endswith("x******")
    assert len(quoted("x" * 1000)) == LONGEST_QUOTE
    assert shown(["x" * 64 + SECRET], [SECRET]) == f"['{'x' * 64}***']"


# ---- files, the environment, arguments -----------------------------------------------------------

FILES = {
    "broken": f'{{"client_secret": "{SECRET}", ',
    "with a line end": json.dumps({"api_base_url": "https://x.y", "client_id": "i", "client_secret": f"a\n{SECRET}"}),
    "in the place of the address": json.dumps({"api_base_url": SECRET, "client_id": "i", "client_secret": "x" * 9}),
    "in the address": json.dumps({"api_base_url": f"https://u:{SECRET}@x.y", "client_id": "i", "client_secret": "s"}),
    "in its query": json.dumps({"api_base_url": f"https://x.y?{SECRET}", "client_id": "i", "client_secret": "s"}),
    "deep": f'{{"client_secret": "{SECRET}", "x": {"[" * 100_000}',
    "a CLI's file": json.dumps({"profiles": {"a": {"token": SECRET}}}),
}


@pytest.mark.parametrize("content", FILES.values(), ids=FILES)
def test_credentials_files(content, nothing_shown, tmp_path):
    path = tmp_path / "carto_credentials.json"
    path.write_text(content)
    with pytest.raises(CredentialsError) as caught:
        CartoAuth.from_m2m(path)
    nothing_shown(told(caught.value))


@pytest.mark.parametrize(
    "variables",
    [
        {"CARTO_CLIENT_SECRET": SECRET},
        {"CARTO_CLIENT_SECRET": "s", "CARTO_CLIENT_ID": "i", "CARTO_API_BASE_URL": SECRET},
        {"CARTO_API_TOKEN": f"{TOKEN} {TOKEN}", "CARTO_API_BASE_URL": "https://x.carto.com"},
        {"CARTO_API_TOKEN": TOKEN, "CARTO_API_BASE_URL": "https://u:Zq7Kx%2FbN4+mR8=Vw3@x.carto.com"},
        {"CARTO_AUTH_URL": f"https://u:{SECRET}@x.carto.com"},
    ],
)
def test_the_environment(variables, nothing_shown, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(CredentialsError) as caught:
        CartoAuth.default(interactive=False)
    nothing_shown(told(caught.value))


# ---- what shows while all is well ----------------------------------------------------------------


def good_carto(request):
    port = request.headers["host"].rpartition(":")[2]
    return http(
        {
            "/oauth/token": {"access_token": TOKEN, "expires_in": 86400, "refresh_token": REFRESH},
            "/accounts": {"tenant_domain": f"127.0.0.1:{port}"},
            "/config.yaml": {"apis": {"baseUrl": f"http://127.0.0.1:{port}"}},
            "/v3/connections/carto-dw/token": {"projectId": "a-project", "token": SECRET[:5] + "warehouse"},
        }[request.path]
    )


def test_a_login_and_its_log(nothing_shown, caplog, monkeypatch, tmp_path):
    monkeypatch.setattr(CartoPKCE, "_input", lambda self, prompt: CODE)
    with Server(answering(good_carto)) as server:
        services = Services(server.url, server.url, server.url)
        options = {"cache_filepath": tmp_path / "c.json", "open_browser": False, "interactive": True}
        auth = CartoAuth.from_oauth(**options, services=services)
        auth.get_carto_dw_credentials()
        assert auth.get_access_token() == TOKEN
        application = {"api_base_url": server.url, "client_id": "an-id", "client_secret": SECRET, "services": services}
        CartoAuth.from_m2m(**application, cache_filepath=tmp_path / "c.json")
    nothing_shown(repr(auth), str(auth), repr(services))
    kept = (tmp_path / "c.json").read_text()
    assert shown_in(kept) == sorted({TOKEN, REFRESH})  # and never the client secret
    host = server.url.removeprefix("http://")
    followed = [record.getMessage() for record in caplog.records if record.name == "carto_auth"]
    for line in (
        f"POST {server.url}/oauth/token",
        f"{host} answered 200",
        f"GET {server.url}/accounts",
        f"GET {server.url}/config.yaml",
        f"GET {server.url}/v3/connections/carto-dw/token",
    ):
        assert line in followed


def test_reprs(nothing_shown):
    login = CartoPKCE(open_browser=False)
    login._code_verifier = VERIFIER
    auth = CartoAuth("m2m", "https://x.carto.com", TOKEN, 4155310800, "an-id", SECRET)
    found = M2MCredentials("https://x.carto.com", "an-id", SECRET), AccessToken("https://x.carto.com", TOKEN)
    nothing_shown(*map(repr, [auth, login, WarehouseToken("a-project", TOKEN, 1.0), *found]))


def test_the_logger_is_silent_by_default():
    """Also where logging is imported and nobody has configured it: Python would print warnings then."""
    program = """
import logging, warnings
warnings.simplefilter("ignore")
from carto_auth import _http, _log
from carto_auth._http import failures, sending
sending.BACKOFF_SECONDS = sending.JITTER_SECONDS = 0.0
_log.warn_once("something to mend")
_log.debug("a line")
try:
    _http.get_text("http://127.0.0.1:1/", failure="It failed")
except failures.RequestFailed:
    pass
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


# ---- the command ---------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["token"], ["status", "--json"], ["login"]], ids=" ".join)
@pytest.mark.parametrize("script", [answering(error_with(decoded, status=401)), answering(error_with(encoded))])
def test_the_command(arguments, script, capfd, caplog, monkeypatch):
    caplog.set_level(logging.DEBUG)
    with Server(script) as server:
        for name in ("CARTO_AUTH_URL", "CARTO_ACCOUNTS_URL", "CARTO_APP_URL", "CARTO_API_BASE_URL"):
            monkeypatch.setenv(name, server.url)
        monkeypatch.setenv("CARTO_CLIENT_ID", "an-id")
        monkeypatch.setenv("CARTO_CLIENT_SECRET", SECRET)
        cli.main(arguments)
    printed = capfd.readouterr()
    assert printed.out + printed.err
    assert shown_in(printed.out + printed.err + caplog.text) == []
