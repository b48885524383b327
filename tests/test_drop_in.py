"""The contract with code written for carto-auth 0.2.0, table by table: to be read from top to bottom.

Distribution and signatures; the constructor and its private names; ``from_oauth`` and ``from_m2m`` at the functions
that tests replace; the cache file and ``carto_auth.utils``; ``carto_auth.pkce``; HTTP; who uses it, and how.

What is asserted here holds for 0.2.0 as well, so the file can be run against it. Where we differ on purpose, the name
of the test has "ours" in it: ``TZ=UTC pytest tests/test_drop_in.py -k "not ours"``. Those tests fail with 0.2.0, and
``docs/explanation/compatibility.md`` gives the reason for each.
"""

import base64
import contextlib
import getpass
import hashlib
import http.client
import importlib.metadata
import inspect
import json
import os
import subprocess
import sys
import threading
import time
import types
import webbrowser
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
import requests

import carto_auth
from carto_auth import CartoAuth, CredentialsError, auth, errors, pkce, utils
from carto_auth.pkce import CartoPKCE

BASE = "https://gcp-us-east1.api.carto.com"
TOKEN_URL = "https://auth.carto.com/oauth/token"
ACCOUNTS_URL = "https://accounts.app.carto.com/accounts"
CONFIG_URL = "https://acme.app.carto.com/config.yaml"
WAREHOUSE_URL = f"{BASE}/v3/connections/carto-dw/token"
BIGQUERY_URL = "https://bigquery.googleapis.com"
CLIENT = {"client_id": "an-id", "client_secret": "a-secret"}
M2M_FILE = {"api_base_url": BASE, **CLIENT}
PERMANENT = {"api_base_url": BASE, "access_token": "permanent", "expiration": 4155310800}  # the year 2101

both_modes = pytest.mark.parametrize("mode", ["oauth", "m2m"])


@pytest.fixture(autouse=True)
def isolation(monkeypatch, requests_mock):
    """No network, for ``requests_mock`` refuses what is not mocked, and no browser."""
    for opener in ("open", "open_new", "open_new_tab"):
        monkeypatch.setattr(webbrowser, opener, lambda *args, **kwargs: pytest.fail("a browser was opened"))


@pytest.fixture
def m2m_file(tmp_path):
    return write_json(tmp_path / "carto_credentials.json", M2M_FILE)


@pytest.fixture
def seams(monkeypatch):
    """The names in carto_auth.auth that dependants patch: an empty cache, and logins that give "fresh"."""
    info = {"access_token": "fresh", "expiration": in_seconds(3600)}
    answers = {"load_cache_file": None, "save_cache_file": None, "get_api_base_url": BASE}
    answers |= {"get_oauth_token_info": info, "get_m2m_token_info": info}
    for name, answer in answers.items():
        monkeypatch.setattr(auth, name, Mock(return_value=answer))
    return SimpleNamespace(**{name: getattr(auth, name) for name in answers})


@pytest.fixture
def services(requests_mock):
    """CARTO over HTTP; its tokens are "fresh" for a day."""
    requests_mock.post(TOKEN_URL, json={"access_token": "fresh", "expires_in": 86400})
    requests_mock.get(ACCOUNTS_URL, json={"tenant_domain": "acme.app.carto.com"})
    requests_mock.get(CONFIG_URL, text=f"apis:\n  baseUrl: {BASE}\n")
    requests_mock.get(WAREHOUSE_URL, json={"projectId": "a-project", "token": "a-google-token"})
    return requests_mock


@pytest.fixture
def person(monkeypatch):
    """Somebody who answers "a-code" whenever asked."""
    monkeypatch.setattr(CartoPKCE, "_input", Mock(return_value="a-code"))
    return CartoPKCE._input


@pytest.fixture
def colab(monkeypatch):
    monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))


@pytest.fixture
def databricks(monkeypatch):
    monkeypatch.setenv("DATABRICKS_RUNTIME_VERSION", "15.4")


def in_seconds(seconds):
    return int(time.time()) + seconds


def flat_entry(seconds_left, access_token="cached"):
    return {"api_base_url": BASE, "access_token": access_token, "expiration": in_seconds(seconds_left)}


def write_json(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data))
    path.chmod(0o600)
    return path


def start(mode, m2m_file, **options):
    return CartoAuth.from_oauth(**options) if mode == "oauth" else CartoAuth.from_m2m(m2m_file, **options)


def public_app(**options):
    return CartoAuth(mode="oauth", open_browser=False, **(PERMANENT | options))


def default_cache(mode):
    return Path.home() / ".carto-auth" / f"token_{mode}.json"


def holds(mapping, expected):
    return mapping.items() >= expected.items()


def fields(url_or_form):
    return dict(parse_qsl(urlsplit(url_or_form).query or url_or_form))


def s256(verifier):
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()


def files_below(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


# ---- distribution, modules, signatures -----------------------------------------------------------


def test_distribution_of_ours():
    distribution = importlib.metadata.distribution("carto-auth")
    assert distribution.metadata["Name"] == "carto-auth"
    assert distribution.version == carto_auth.__version__ == "1.0.0"
    assert "carto-dw" in distribution.metadata.get_all("Provides-Extra")


@pytest.mark.parametrize("module", ["auth", "pkce", "utils", "errors"])
def test_each_module_can_be_the_first_import(module):
    program = f"import carto_auth.{module}; from carto_auth import CartoAuth, CredentialsError, __version__"
    subprocess.run([sys.executable, "-c", program], check=True)
    assert (carto_auth.CartoAuth, carto_auth.CredentialsError) == (auth.CartoAuth, errors.CredentialsError)


SIGNATURES = """
CartoAuth(mode, api_base_url=None, access_token=None, expiration=None, client_id=None, client_secret=None, \
cache_filepath=None, use_cache=True, open_browser=True, org=None)
CartoAuth.from_oauth(cache_filepath=None, use_cache=True, open_browser=True, api_base_url=None, org=None)
CartoAuth.get_api_base_url(self)
CartoAuth.get_access_token(self)
CartoAuth.get_carto_dw_credentials(self)
CartoAuth.get_carto_dw_client(self)
utils.api_headers(access_token)
utils.get_oauth_token_info(open_browser=True, org=None)
utils.get_m2m_token_info(client_id, client_secret)
utils.get_api_base_url(access_token)
utils.get_home_dir()
utils.get_cache_filepath(mode)
utils.load_cache_file(cache_filepath)
utils.save_cache_file(cache_filepath, data)
utils.is_token_expired(expiration)
CartoPKCE(open_browser=True, org=None)
CartoPKCE.get_authorize_url(self, state=None)
CartoPKCE.get_auth_response(self, open_browser=None)
CartoPKCE.get_authorization_code(self, response=None)
CartoPKCE.get_pkce_handshake_parameters(self)
CartoPKCE.get_token_info(self, code=None)
CartoPKCE.parse_response_code(self, url)
CartoPKCE._input(self, prompt)
""".strip().splitlines()
OUR_SIGNATURE = "CartoAuth.from_m2m(filepath=None, cache_filepath=None, use_cache=True)"


@pytest.mark.parametrize("signature", [*SIGNATURES, pytest.param(OUR_SIGNATURE, id="ours-from_m2m")])
def test_signature(signature):
    name, _, arguments = signature.rstrip(")").partition("(")
    contract = list(inspect.signature(eval(f"lambda {arguments}: None")).parameters.values())
    parameters = list(inspect.signature(eval(name)).parameters.values())
    same, extra = parameters[: len(contract)], parameters[len(contract) :]
    assert [(p.name, p.kind, p.default) for p in same] == [(p.name, p.kind, p.default) for p in contract]
    for p in extra:
        assert p.kind is p.VAR_KEYWORD or (p.kind is p.KEYWORD_ONLY and p.default is not p.empty), p


# ---- the constructor and the private names -------------------------------------------------------


@pytest.mark.parametrize("mode", ["api", "", "OAuth", None])
def test_unknown_mode_is_refused(mode):
    with pytest.raises(CredentialsError):
        CartoAuth(mode)


@pytest.mark.parametrize(("mode", "more"), [("oauth", {"open_browser": False}), ("m2m", CLIENT)])
def test_private_attributes_hold_what_was_given(mode, more, tmp_path):
    given = PERMANENT | {"use_cache": True, "org": "org_1"} | more
    carto = CartoAuth(mode, cache_filepath=tmp_path / "token.json", **given)
    assert (carto._mode, Path(carto._cache_filepath)) == (mode, tmp_path / "token.json")
    assert {name: getattr(carto, f"_{name}") for name in given} == given


@both_modes
def test_ours_private_attributes_are_there_in_either_mode(mode):
    carto = CartoAuth(mode)
    assert (carto._open_browser, carto._client_id, carto._client_secret) == (True, None, None)


def test_constructor_stores_its_token_once_where_told(monkeypatch, tmp_path):
    monkeypatch.setattr(auth, "save_cache_file", Mock(side_effect=auth.save_cache_file))
    public_app(cache_filepath=str(tmp_path / "token.json"))
    assert auth.save_cache_file.call_count == 1
    assert holds(utils.load_cache_file(tmp_path / "token.json"), PERMANENT)


@pytest.mark.parametrize("options", [{}, {"use_cache": False, "cache_filepath": "token.json"}])
def test_constructor_writes_nothing_unasked(options, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    public_app(**options).get_access_token()
    assert files_below(tmp_path) == []


@both_modes
def test_ours_constructor_without_a_token_leaves_a_good_entry_alone(mode, tmp_path):
    path = write_json(tmp_path / "token.json", flat_entry(3600))
    CartoAuth(mode, cache_filepath=path)
    assert utils.load_cache_file(path)["access_token"] == "cached"


@pytest.mark.parametrize("expiration", [None, 0, 1])
@both_modes
def test_expired_token_of_the_constructor_is_renewed_once(mode, expiration, seams, tmp_path):
    options = CLIENT if mode == "m2m" else {"open_browser": False, "org": "org_1"}
    carto = CartoAuth(mode, BASE, "old", expiration, cache_filepath=tmp_path / "token.json", **options)
    assert [carto.get_access_token(), carto.get_access_token()] == ["fresh", "fresh"]
    fetches = getattr(seams, f"get_{mode}_token_info").call_args_list
    assert [fetch.args for fetch in fetches] == [tuple(options.values())]
    assert seams.save_cache_file.call_args.args[1]["access_token"] == "fresh"


# ---- from_oauth and from_m2m, at the seams -------------------------------------------------------


CACHED = {
    # what is cached: seconds left, use_cache, and how often then is loaded, fetched, saved
    "nothing": (None, True, (1, 1, 1)),
    "an entry of 0.2.0, which is adopted": (3600, True, (1, 0, 1)),
    "10 s left, which are used": (10, True, (1, 0, 1)),
    "an expired entry": (-10, True, (1, 1, 1)),
    "an entry nobody wants": (3600, False, (0, 1, 0)),
}


@both_modes
@pytest.mark.parametrize(("seconds_left", "use_cache", "counts"), CACHED.values(), ids=CACHED)
def test_loads_fetches_and_saves(mode, seconds_left, use_cache, counts, seams, m2m_file):
    seams.load_cache_file.return_value = seconds_left and flat_entry(seconds_left)
    carto = start(mode, m2m_file, use_cache=use_cache)
    assert (carto.get_access_token(), carto.get_api_base_url()) == ("fresh" if counts[1] else "cached", BASE)
    fetches = {"oauth": seams.get_oauth_token_info, "m2m": seams.get_m2m_token_info}
    fetch = fetches.pop(mode)
    assert (seams.load_cache_file.call_count, fetch.call_count, seams.save_cache_file.call_count) == counts
    assert [other.call_count for other in fetches.values()] == [0]


@both_modes
@pytest.mark.parametrize("cache_filepath", [None, "token.json"])
def test_what_the_seams_are_called_with(mode, cache_filepath, seams, m2m_file, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    carto = start(mode, m2m_file, cache_filepath=cache_filepath)
    loaded, (saved, data) = seams.load_cache_file.call_args.args[0], seams.save_cache_file.call_args.args
    path = Path(cache_filepath or default_cache(mode))
    assert [Path(loaded), Path(saved), Path(carto._cache_filepath)] == [path] * 3
    given = cache_filepath or path
    assert (loaded, saved, carto._cache_filepath) == (given, given, given)  # as exact as a mock's assertion
    fetch = getattr(seams, f"get_{mode}_token_info")
    assert fetch.call_args.args == ((True, None) if mode == "oauth" else ("an-id", "a-secret"))
    assert data == {"api_base_url": BASE} | fetch.return_value
    assert {"access_token": carto._access_token, "expiration": carto._expiration} == fetch.return_value


@both_modes
def test_replacements_with_the_signatures_of_0_2_0_fit(mode, seams, monkeypatch, m2m_file):
    saved, info = [], seams.get_m2m_token_info.return_value
    monkeypatch.setattr(auth, "load_cache_file", lambda cache_filepath: None)
    monkeypatch.setattr(auth, "save_cache_file", lambda cache_filepath, data: saved.append(data))
    monkeypatch.setattr(auth, "get_oauth_token_info", lambda open_browser=True, org=None: info)
    monkeypatch.setattr(auth, "get_m2m_token_info", lambda client_id, client_secret: info)
    monkeypatch.setattr(auth, "get_api_base_url", lambda access_token: BASE)
    assert start(mode, m2m_file).get_access_token() == "fresh"
    assert [data["access_token"] for data in saved] == ["fresh"]


@pytest.mark.parametrize(
    ("mode", "options", "url", "lookups"),
    [
        ("oauth", {}, "https://found.api.carto.com", [("fresh",)]),
        ("oauth", {"api_base_url": BASE}, BASE, []),
        ("m2m", {}, BASE, []),
    ],
)
def test_api_base_url_is_looked_up_with_the_token_unless_given(mode, options, url, lookups, seams, m2m_file):
    seams.get_api_base_url.return_value = "https://found.api.carto.com"
    assert start(mode, m2m_file, **options).get_api_base_url() == url
    assert [lookup.args for lookup in seams.get_api_base_url.call_args_list] == lookups


@both_modes
def test_ours_flat_file_is_upgraded_once_and_a_hit_writes_nothing(mode, m2m_file):
    path, seen = write_json(default_cache(mode), flat_entry(3600)), []
    for _ in range(3):
        assert start(mode, m2m_file).get_access_token() == "cached"
        seen.append((path.stat().st_ino, path.read_text()))
    assert len(set(seen)) == 1
    upgraded = json.loads(path.read_text())
    assert (upgraded["version"], len(upgraded["tokens"])) == (1, 1)
    assert holds(utils.load_cache_file(path), {"api_base_url": BASE, "access_token": "cached"})


def test_opaque_flat_entry_contradicts_no_organization(seams):
    seams.load_cache_file.return_value = flat_entry(3600)
    carto = CartoAuth.from_oauth(org="org_1")
    assert (carto.get_access_token(), carto._org) == ("cached", "org_1")
    assert seams.get_oauth_token_info.call_count == 0


def test_seam_is_called_whatever_is_missing(seams):
    assert CartoAuth("m2m", BASE, "old", 1).get_access_token() == "fresh"
    assert seams.get_m2m_token_info.call_args.args == (None, None)


def test_ours_missing_credentials_are_named_before_a_request_is_sent():
    with pytest.raises(CredentialsError, match="client_id"):
        CartoAuth("m2m", BASE, "old", 1).get_access_token()


BAD_M2M_FILES = [({k: v for k, v in M2M_FILE.items() if k != key}, AttributeError, key) for key in M2M_FILE]
BAD_M2M_FILES += [(M2M_FILE | {key: bad}, ValueError, key) for key in M2M_FILE for bad in ("", None)]
BAD_M2M_FILES += [(None, FileNotFoundError, "bad.json")]


@pytest.mark.parametrize("root", [Exception, pytest.param(CredentialsError, id="ours")])
@pytest.mark.parametrize(("content", "builtin", "named"), BAD_M2M_FILES)
def test_bad_m2m_file_is_the_builtin_error_it_was(content, builtin, named, root, tmp_path):
    if content is not None:
        write_json(tmp_path / "bad.json", content)
    with pytest.raises(builtin, match=named) as caught:
        CartoAuth.from_m2m(str(tmp_path / "bad.json"))
    assert isinstance(caught.value, root)


# ---- the cache file and carto_auth.utils ---------------------------------------------------------


@pytest.mark.parametrize("kind", [str, Path])
def test_flat_file_is_loaded_as_it_is(kind, tmp_path):
    entry = flat_entry(-10) | {"another": 1}
    assert utils.load_cache_file(kind(write_json(tmp_path / "token.json", entry))) == entry


@pytest.mark.parametrize("missing", ["api_base_url", "access_token", "expiration"])
def test_incomplete_or_absent_file_is_no_entry(missing, tmp_path):
    incomplete = {key: value for key, value in flat_entry(3600).items() if key != missing}
    assert utils.load_cache_file(write_json(tmp_path / "token.json", incomplete)) is None
    assert utils.load_cache_file(tmp_path / "absent.json") is None


@pytest.mark.parametrize("kind", [str, Path])
def test_saved_entry_is_loaded_again(kind, tmp_path):
    for entry in (flat_entry(60, "older"), flat_entry(3600, "newer")):
        utils.save_cache_file(kind(tmp_path / "token.json"), entry)
        assert holds(utils.load_cache_file(kind(tmp_path / "token.json")), entry)


@both_modes
def test_default_cache_file_reads_as_one_flat_entry(mode, services, person, colab, m2m_file):
    carto = start(mode, m2m_file)
    expected = {"api_base_url": BASE, "access_token": "fresh", "expiration": carto._expiration}
    assert utils.get_home_dir() == Path.home() / ".carto-auth"
    assert utils.get_cache_filepath(mode) == default_cache(mode)
    assert holds(utils.load_cache_file(default_cache(mode)), expected)


def test_home_dir_can_be_written_to(monkeypatch, tmp_path):
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    (utils.get_home_dir() / "a-file").touch()
    assert files_below(tmp_path) != []


def test_refused_code_is_an_http_error_of_requests(requests_mock):
    requests_mock.post(carto_auth.pkce.OAUTH_TOKEN_URL, status_code=403, json={"error": "invalid_grant"})
    with pytest.raises(requests.HTTPError):
        CartoPKCE(open_browser=False).get_token_info("a-code")


@pytest.mark.parametrize(("left", "expired"), [(-3600, True), (-1, True), (10, False), (3600, False)])
def test_is_token_expired(left, expired):
    assert utils.is_token_expired(in_seconds(left)) is expired
    assert (utils.is_token_expired(None), utils.is_token_expired(0)) == (True, True)


def test_api_headers():
    sent = utils.api_headers("a-token")
    assert holds(sent, {"Authorization": "Bearer a-token", "Content-Type": "application/json"})


# ---- carto_auth.pkce -----------------------------------------------------------------------------

CONSTANTS = {
    "OAUTH_AUTHORIZE_URL": "https://auth.carto.com/authorize",
    "OAUTH_TOKEN_URL": TOKEN_URL,
    "AUDIENCE": "carto-cloud-native-api",
    "CLIENT_ID": "0dxb8HR3ATXCxJiPOJVHsLoHoAtbRX6u",
    "REDIRECT_URI": "http://localhost:10000/callback/",
    "REDIRECT_URI_CLI": "https://app.carto.com/auth/token",
}


def test_constants():
    assert {name: getattr(pkce, name) for name in CONSTANTS} == CONSTANTS


@pytest.mark.parametrize("place", ["colab", "databricks"])
def test_hosted_notebooks_open_no_browser(place, request, person):
    request.getfixturevalue(place)
    login = CartoPKCE()
    assert (login.open_browser, login.redirect_uri) == (False, pkce.REDIRECT_URI_CLI)
    assert login.get_authorization_code() == "a-code"
    assert person.call_count == 1


@pytest.mark.parametrize("open_browser", [True, False])
@pytest.mark.parametrize("more", [{}, {"organization": "org_1"}, {"state": "a-state"}])
def test_authorize_url(open_browser, more):
    login = CartoPKCE(open_browser=open_browser, org=more.get("organization"))
    redirect_uri = pkce.REDIRECT_URI if open_browser else pkce.REDIRECT_URI_CLI
    assert (login.open_browser, login.redirect_uri) == (open_browser, redirect_uri)
    url = login.get_authorize_url(state=more.get("state"))
    expected = {"response_type": "code", "client_id": pkce.CLIENT_ID, "audience": pkce.AUDIENCE} | more
    expected |= {"code_challenge_method": "S256", "code_challenge": login._code_challenge}
    assert url.startswith(f"{pkce.OAUTH_AUTHORIZE_URL}?")
    assert holds(fields(url), expected | {"redirect_uri": redirect_uri})
    assert fields(url).get("organization") == login.org


def test_handshake_parameters_are_fresh_s256_pairs():
    login, verifiers = CartoPKCE(), set()
    for _ in range(3):
        login.get_pkce_handshake_parameters()
        assert login._code_challenge == s256(login._code_verifier)
        assert 43 <= len(login._code_verifier) <= 128  # RFC 7636 section 4.1
        verifiers.add(login._code_verifier)
    assert len(verifiers) == 3


@pytest.mark.parametrize("text", ["a/b", "http://localhost:10000/callback/?state=x&code=a%2Fb"])
def test_parse_response_code(text):
    assert CartoPKCE().parse_response_code(text) == "a/b"


def test_parse_response_code_of_a_denial():
    with pytest.raises(CredentialsError, match="access_denied"):
        CartoPKCE().parse_response_code(f"{pkce.REDIRECT_URI}?error=access_denied")


def given_the_answer(login):
    sent = fields(login.get_authorize_url())
    answer = {"code": "a-code"} | {name: sent[name] for name in ("state",) if name in sent}
    return login.get_authorization_code(f"{login.redirect_uri}?{urlencode(answer)}")


@pytest.mark.parametrize(
    ("get_code", "questions"),
    [(CartoPKCE.get_auth_response, 1), (CartoPKCE.get_authorization_code, 1), (given_the_answer, 0)],
)
@pytest.mark.parametrize("ci", ["", "true"])  # dependants' tests run there too
def test_a_person_is_asked_through_input_alone(get_code, questions, ci, person, monkeypatch):
    monkeypatch.setenv("CI", ci)
    assert get_code(CartoPKCE(open_browser=False)) == "a-code"
    assert person.call_count == questions


ADDRESSES = ["http://localhost:10000/callback/", "https://app.carto.com/auth/token", "app.carto.com/auth/token"]
ADDRESSES += ["https://workspace.carto.com/any/page", "carto.com"]


@pytest.mark.parametrize("address", [None, *ADDRESSES])
def test_a_person_may_paste_a_code_or_an_address_at_cartos_own_site(address, person):
    person.return_value = f"{address}?code=a-code" if address else "a-code"
    assert CartoPKCE(open_browser=False).get_authorization_code() == "a-code"
    assert person.call_count == 1


@pytest.mark.parametrize(
    ("get_token_info", "code", "questions"),
    [
        (lambda: CartoPKCE(open_browser=False).get_token_info(), "a-code", 1),
        (lambda: CartoPKCE(open_browser=False).get_token_info("another"), "another", 0),
        (lambda: utils.get_oauth_token_info(False, "org_1"), "a-code", 1),
    ],
)
def test_code_is_exchanged_for_a_token(get_token_info, code, questions, services, person):
    assert_fresh_for_a_day(get_token_info())
    expected = {"grant_type": "authorization_code", "client_id": pkce.CLIENT_ID, "audience": pkce.AUDIENCE}
    expected |= {"code": code, "redirect_uri": pkce.REDIRECT_URI_CLI}
    assert holds(fields(services.last_request.text), expected)
    assert person.call_count == questions


def test_verifier_sent_is_the_one_of_the_authorize_url(services):
    login = CartoPKCE(open_browser=False)
    challenge = fields(login.get_authorize_url())["code_challenge"]
    login.get_token_info(code="a-code")
    assert s256(fields(services.last_request.text)["code_verifier"]) == challenge


# ---- HTTP, which tests mock where requests sends it ----------------------------------------------


def assert_fresh_for_a_day(info):
    assert (info["access_token"], type(info["expiration"])) == ("fresh", int)
    assert info["expiration"] == pytest.approx(in_seconds(86400), abs=30)


def test_get_m2m_token_info(services):
    assert_fresh_for_a_day(utils.get_m2m_token_info("an-id", "a-secret"))
    expected = {"grant_type": "client_credentials", "audience": pkce.AUDIENCE} | CLIENT
    assert holds(fields(services.last_request.text), expected)


def test_trouble_on_the_network_is_a_requests_exception(requests_mock):
    requests_mock.post(TOKEN_URL, exc=requests.exceptions.ConnectTimeout)
    with pytest.raises(requests.RequestException):
        utils.get_m2m_token_info("an-id", "a-secret")


def test_get_api_base_url(services):
    assert utils.get_api_base_url("a-token") == BASE
    sent = [(request.url, request.headers.get("Authorization")) for request in services.request_history]
    assert sent == [(ACCOUNTS_URL, "Bearer a-token"), (CONFIG_URL, None)]


@pytest.mark.parametrize("patched", [None, "patched"])
def test_warehouse_credentials(patched, services, monkeypatch):
    if patched:
        monkeypatch.setattr(CartoAuth, "get_access_token", lambda self: patched)
    credentials = public_app().get_carto_dw_credentials()
    assert (type(credentials), credentials) == (tuple, ("a-project", "a-google-token"))
    assert services.last_request.headers["Authorization"] == f"Bearer {patched or 'permanent'}"


REFUSALS = [(TOKEN_URL, 401, '{"error": "access_denied"}'), (TOKEN_URL, 200, "{}")]
REFUSALS += [(ACCOUNTS_URL, 404, '{"error": "no such account"}'), (WAREHOUSE_URL, 200, "<html></html>")]
REFUSALS += [(WAREHOUSE_URL, 200, body) for body in ("{}", '{"projectId": "a-project"}', '{"token": "t"}')]
ASK = {
    TOKEN_URL: lambda: utils.get_m2m_token_info("an-id", "wrong"),
    ACCOUNTS_URL: lambda: utils.get_api_base_url("a-token"),
    WAREHOUSE_URL: lambda: public_app().get_carto_dw_credentials(),
}


@pytest.mark.parametrize(("url", "status", "body"), REFUSALS)
def test_refusals_and_useless_answers_are_credentials_errors(url, status, body, requests_mock):
    for method in ("GET", "POST"):
        requests_mock.register_uri(method, url, status_code=status, text=body)
    with pytest.raises(CredentialsError):
        ASK[url]()


def test_warehouse_credentials_need_an_api_base_url(services):
    with pytest.raises(CredentialsError):
        public_app(api_base_url=None).get_carto_dw_credentials()
    assert services.call_count == 0


# ---- who uses it, and how ------------------------------------------------------------------------


@pytest.mark.parametrize(("way", "token"), [("constructor", "permanent"), ("m2m", "fresh"), ("oauth", "cached")])
def test_pydeck_carto_gets_exact_strings(way, token, services, m2m_file):
    """0.2.1 wants exactly ``str``, 0.1.0 puts both into a page as JSON, 0.1.0b9 reads the private name."""
    write_json(default_cache("oauth"), flat_entry(3600))
    carto = public_app() if way == "constructor" else start(way, m2m_file)
    layer = {"apiBaseUrl": carto.get_api_base_url(), "accessToken": carto.get_access_token()}
    assert [type(value) for value in layer.values()] == [str, str]
    assert json.loads(json.dumps(layer)) == {"apiBaseUrl": BASE, "accessToken": token}
    assert carto._api_base_url == BASE


@pytest.mark.parametrize("now", [None, 4102444800], ids=["today", "year 2100"])
def test_streamlit_app_never_asks_for_a_login(now, monkeypatch, seams):
    stored = {"api_base_url": BASE, "access_token": "permanent", "expiration": 4155310800}
    carto = CartoAuth(mode="oauth", **stored, open_browser=False)
    if now:
        monkeypatch.setattr(time, "time", lambda: float(now))
    assert {carto.get_access_token() for _ in range(3)} == {"permanent"}
    assert carto.get_api_base_url() == BASE
    assert [name for name, seam in vars(seams).items() if seam.called] == []


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning", "ignore::FutureWarning")  # Google's own
def test_etl_loads_a_dataframe(services, m2m_file):
    import pandas
    import pyarrow  # noqa: F401 - the client makes Parquet with it
    from google.cloud import bigquery

    upload = f"{BIGQUERY_URL}/upload/bigquery/v2/projects/a-project/jobs"
    table = {"projectId": "a-project", "datasetId": "d", "tableId": "t"}
    job = {"jobReference": {"jobId": "1"}, "configuration": {"load": {"destinationTable": table}}}
    services.get(f"{BIGQUERY_URL}/bigquery/v2/projects/a-project/datasets/d/tables/t", status_code=404, json={})
    services.post(upload, headers={"Location": upload}, json=job)
    services.put(upload, json=job)

    client = CartoAuth.from_m2m(filepath=str(m2m_file), use_cache=False).get_carto_dw_client()
    assert (type(client), client.project) == (bigquery.Client, "a-project")
    client.load_table_from_dataframe(pandas.DataFrame({"id": [1]}), "a-project.d.t")
    sent = {r.headers["Authorization"] for r in services.request_history if r.url.startswith(upload)}
    assert sent == {"Bearer a-google-token"}
    assert files_below(Path.home()) == []


def test_client_uses_a_patched_get_carto_dw_credentials(requests_mock, monkeypatch):
    monkeypatch.setattr(CartoAuth, "get_carto_dw_credentials", lambda self: ("patched", "a-patched-token"))
    requests_mock.get(f"{BIGQUERY_URL}/bigquery/v2/projects/patched/datasets", json={})
    assert list(public_app().get_carto_dw_client().list_datasets()) == []
    assert requests_mock.last_request.headers["Authorization"] == "Bearer a-patched-token"


@pytest.mark.parametrize("options", [{}, {"cache_filepath": "./token_oauth.json"}, {"org": "org_1"}])
def test_notebook_logs_in_once(options, services, person, colab, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    first, second = CartoAuth.from_oauth(**options), CartoAuth.from_oauth(**options)
    assert (first.get_access_token(), second.get_access_token()) == ("fresh", "fresh")
    assert (first._org, person.call_count) == (options.get("org"), 1)
    cache = options.get("cache_filepath", default_cache("oauth"))
    assert utils.load_cache_file(cache)["access_token"] == "fresh"


# ---- what is different, in the order of docs/explanation/compatibility.md ------------------------

WEBBROWSERS_OWN = webbrowser.open


def jwt(**claims):
    parts = ({"alg": "RS256"}, claims)
    return (
        ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts) + ".c2ln"
    )


@pytest.fixture
def visits(monkeypatch, callback_port):
    """Sets what the browser asks the callback for once it is opened."""

    def visit(paths, state):
        for path in paths:
            connection = http.client.HTTPConnection("localhost", callback_port, timeout=20)
            with contextlib.closing(connection), contextlib.suppress(OSError):
                connection.request("GET", path.replace("STATE", state))
                connection.getresponse().read()

    def will_be(*paths):
        def opened(url, *_):
            threading.Thread(target=visit, args=(paths, fields(url).get("state", ""))).start()
            return True

        for opener in ("open", "open_new"):
            monkeypatch.setattr(webbrowser, opener, opened)

    return will_be


def test_ours_each_account_gets_its_own_token(services, tmp_path):
    services.post(TOKEN_URL, json=lambda sent, _: {"access_token": fields(sent.text)["client_id"], "expires_in": 86400})
    for account in ("one", "another", "one"):
        file = write_json(tmp_path / f"{account}.json", M2M_FILE | {"client_id": account})
        assert CartoAuth.from_m2m(file).get_access_token() == account
    assert services.call_count == 2


@pytest.mark.parametrize(
    ("asked_for", "claims", "token"),
    [({"org": "org_1"}, {"org_id": "org_2"}, "fresh"), ({"api_base_url": "https://other.api.carto.com"}, {}, "cached")],
)
def test_ours_what_is_asked_for_wins_over_the_cache(asked_for, claims, token, seams):
    cached = jwt(exp=in_seconds(3600), **claims)
    seams.load_cache_file.return_value = flat_entry(3600, cached)
    carto = CartoAuth.from_oauth(**asked_for)
    assert carto.get_access_token() == {"cached": cached}.get(token, token)
    assert carto.get_api_base_url() == asked_for.get("api_base_url", BASE)


def test_ours_a_damaged_cache_file_is_no_entry(tmp_path):
    (tmp_path / "token.json").write_text('{"api_base_url": ')
    assert utils.load_cache_file(tmp_path / "token.json") is None


def test_ours_threads_share_a_renewal(seams):
    info, others = seams.get_m2m_token_info.return_value, threading.Barrier(4)

    def fetch(*_):
        with contextlib.suppress(threading.BrokenBarrierError):
            others.wait(0.2)  # for others who fetch too
        return info

    seams.get_m2m_token_info.side_effect = fetch
    carto = CartoAuth("m2m", BASE, "old", 1, **CLIENT)
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(lambda _: carto.get_access_token(), range(4))) == {"fresh"}
    assert seams.get_m2m_token_info.call_count == 1


def test_ours_the_cache_is_for_its_user_alone(services, m2m_file):
    CartoAuth.from_m2m(m2m_file)
    modes = [path.stat().st_mode & 0o777 for path in (default_cache("m2m").parent, default_cache("m2m"))]
    assert modes == [0o700, 0o600] or sys.platform == "win32"


@pytest.mark.parametrize("zone", ["EST5", "JST-9"])
def test_ours_times_are_the_same_in_every_time_zone(zone):
    program = "import time; from carto_auth.utils import is_token_expired as over; now = time.time(); "
    program += "print(over(now - 60), over(now + 60))"
    done = subprocess.run([sys.executable, "-c", program], env={**os.environ, "TZ": zone}, capture_output=True)
    assert done.stdout.split() == [b"True", b"False"]


def test_ours_the_answer_to_another_login_is_refused():
    login = CartoPKCE(open_browser=False)
    assert fields(login.get_authorize_url())["state"]
    with pytest.raises(CredentialsError):
        login.get_authorization_code(f"{login.redirect_uri}?code=a-code&state=another")


def test_ours_the_callback_takes_the_logins_own_answer_alone(visits, person):
    visits("/favicon.ico", "/callback/?code=another&state=another", "/callback/?code=a-code&state=STATE")
    assert (CartoPKCE().get_auth_response(), person.call_count) == ("a-code", 0)


def test_ours_a_cancelled_login_asks_nobody(visits, person):
    visits("/callback/?error=access_denied&state=STATE")
    with pytest.raises(CredentialsError, match="access_denied"):
        CartoPKCE().get_auth_response()
    assert person.call_count == 0


def test_ours_a_prompt_ends_with_the_time_for_the_login(monkeypatch):
    pty = pytest.importorskip("pty", reason="Windows has none, and no time limit for input")
    master, slave = pty.openpty()
    with open(master, "wb"), open(slave) as terminal:
        for name in ("stdin", "__stdin__"):
            monkeypatch.setattr(sys, name, terminal)
        with pytest.raises(errors.LoginTimedOut):
            CartoPKCE(open_browser=False, timeout=0.1).get_auth_response()


def test_ours_nobody_is_asked_where_nobody_is():
    # A Windows session has a desktop, unless it is one of a CI service.
    environment = os.environ | {"BROWSER": sys.executable, "CI": "true" if sys.platform == "win32" else ""}
    program = [sys.executable, "-c", "from carto_auth import CartoAuth; CartoAuth.from_oauth()"]
    done = subprocess.run(program, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
    assert b"LoginRequired: " in done.stderr


@pytest.mark.parametrize("found", [[], ["w3m"]])
def test_ours_without_a_browser_with_windows_the_link_for_a_code_is_shown_once(found, monkeypatch, person, capsys):
    monkeypatch.setattr(webbrowser, "open", WEBBROWSERS_OWN)
    for name in found:
        webbrowser.register(name, None, webbrowser.GenericBrowser(name))
    assert CartoPKCE().get_auth_response() == "a-code"
    assert f"{person.call_args}{capsys.readouterr()}".count(pkce.OAUTH_AUTHORIZE_URL) == 1


def test_ours_a_notebook_does_not_show_the_code(monkeypatch):
    shell = SimpleNamespace(kernel=SimpleNamespace(session=SimpleNamespace(pid=os.getpid())))
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setattr(getpass, "getpass", lambda prompt: "a-code")
    assert CartoPKCE(open_browser=False)._input("Access code: ") == "a-code"


def test_ours_requests_have_limits_and_go_where_they_were_sent(requests_mock, monkeypatch, tmp_path):
    (tmp_path / "netrc").write_text("machine auth.carto.com login a-name password a-word")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    requests_mock.post(TOKEN_URL, status_code=302, headers={"Location": "https://example.com/"})
    with pytest.raises(CredentialsError):
        utils.get_m2m_token_info("an-id", "a-secret")
    (sent,) = requests_mock.request_history
    assert (sent.timeout is None, "Authorization" in sent.headers) == (False, False)


@pytest.mark.parametrize("base_url", ["http://gcp-us-east1.api.carto.com", "https://example.com"])
def test_ours_no_token_goes_to_strangers(base_url, services):
    services.get(CONFIG_URL, text=f"apis:\n  baseUrl: {base_url}\n")
    with pytest.raises(CredentialsError):
        CartoAuth("oauth", utils.get_api_base_url("a-token"), "a-token", 4e9).get_carto_dw_credentials()
    assert services.last_request.url == CONFIG_URL


def test_ours_an_account_without_an_organization_is_an_error(services):
    services.get(ACCOUNTS_URL, json={})
    with pytest.raises(errors.TenantNotFound):
        utils.get_api_base_url("a-token")


def test_ours_the_warehouse_client_renews_its_token(services):
    services.get(WAREHOUSE_URL, [{"json": {"projectId": "a-project", "token": token}} for token in ("first", "second")])
    url = f"{BIGQUERY_URL}/bigquery/v2/projects/a-project/datasets"
    services.get(url, [{"status_code": 401, "json": {}}, {"json": {}}])
    assert list(public_app().get_carto_dw_client().list_datasets()) == []
    assert services.last_request.headers["Authorization"] == "Bearer second"


def test_ours_a_refused_quota_is_not_asked_again_before_its_time(services, m2m_file):
    services.post(TOKEN_URL, status_code=429, headers={"Retry-After": "100"}, json={})
    for _ in range(2):
        with pytest.raises(errors.RateLimited):
            CartoAuth.from_m2m(m2m_file, use_cache=False)
    assert services.call_count == 1


def test_ours_an_ended_public_token_names_the_way_for_such_tokens(monkeypatch):
    monkeypatch.setenv("CARTO_AUTH_INTERACTIVE", "0")
    with pytest.raises(CredentialsError, match="from_access_token"):
        public_app(expiration=1).get_access_token()


def test_ours_a_cache_that_cannot_be_is_told_before_a_request(services, m2m_file):
    with pytest.raises(ValueError, match="s3:"):
        CartoAuth.from_m2m(m2m_file, cache_filepath="s3://bucket/token.json")
    assert services.call_count == 0


def test_ours_a_missing_bigquery_client_is_an_import_error(services, monkeypatch):
    monkeypatch.setitem(sys.modules, "google.cloud.bigquery", None)
    with pytest.raises(ImportError, match="carto-dw"):
        public_app().get_carto_dw_client()
    assert services.call_count == 0
