"""The sandbox's OAuth side, accounts, API and switches, over real sockets and as an outsider sees them."""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import logging
import os
import secrets
import socket
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
import requests
import yaml
from clocks import StoppedClock

from carto_auth._services import AUDIENCE, CLIENT_ID, REDIRECT_URI
from carto_auth.sandbox import CartoSandbox, walk_login
from carto_auth.sandbox.walker import WalkFailed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Person:
    """A client of the OAuth code flow, and a browser with its cookies."""

    def __init__(self, sandbox: CartoSandbox, redirect_uri: str | None = None) -> None:
        self.sandbox = sandbox
        self.redirect_uri = redirect_uri or sandbox.services.code_page_url
        self.verifier = secrets.token_urlsafe(48)
        self.browser = requests.Session()

    def authorize_url(self, **changes: str | None) -> str:
        digest = hashlib.sha256(self.verifier.encode()).digest()
        parameters: dict[str, str | None] = {
            "client_id": CLIENT_ID,
            "response_type": "code",
            "audience": AUDIENCE,
            "redirect_uri": self.redirect_uri,
            "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
            "code_challenge_method": "S256",
            "state": "the state",
            **changes,
        }
        given = {name: value for name, value in parameters.items() if value is not None}
        return f"{self.sandbox.services.authorize_url}?{urlencode(given)}"

    def open(self, **changes: str | None) -> requests.Response:
        return self.browser.get(self.authorize_url(**changes), allow_redirects=False)

    def refused(self, **changes: str | None) -> dict[str, str]:
        """The parameters of the redirect that an authorization request gets at once."""
        answer = self.open(**changes)
        assert answer.status_code == 302, answer.text
        assert answer.headers["Location"].startswith(f"{self.redirect_uri}?"), "it goes back to the client"
        return query(answer.headers["Location"])

    def login(self) -> str:
        code = walk_login(self.authorize_url())
        assert code
        return code

    def exchange(self, code: str, **changes: str) -> requests.Response:
        form = {
            "grant_type": "authorization_code",
            "client_id": CLIENT_ID,
            "code": code,
            "code_verifier": self.verifier,
            "redirect_uri": self.redirect_uri,
            **changes,
        }
        return requests.post(self.sandbox.services.token_url, data=form)

    def tokens(self) -> dict[str, Any]:
        answer = self.exchange(self.login())
        assert answer.status_code == 200, answer.text
        return answer.json()

    def refresh(self, token: str) -> requests.Response:
        form = {"grant_type": "refresh_token", "client_id": CLIENT_ID, "refresh_token": token}
        return requests.post(self.sandbox.services.token_url, data=form)


def query(url: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}


def claims(token: str) -> dict[str, Any]:
    payload = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))


def m2m(sandbox: CartoSandbox, **changes: str) -> requests.Response:
    form = {
        "grant_type": "client_credentials",
        "client_id": sandbox.client_id,
        "client_secret": sandbox.client_secret,
        "audience": AUDIENCE,
        **changes,
    }
    return requests.post(sandbox.services.token_url, data=form)


def get(sandbox: CartoSandbox, path: str, token: str | None = None) -> requests.Response:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return requests.get(f"{sandbox.url}{path}", headers=headers)


@pytest.fixture
def sandbox() -> Iterator[CartoSandbox]:
    with CartoSandbox(clock=StoppedClock()) as running:
        yield running


@pytest.fixture
def clock(sandbox: CartoSandbox) -> StoppedClock:
    assert isinstance(sandbox.clock, StoppedClock)
    return sandbox.clock


@pytest.fixture
def person(sandbox: CartoSandbox) -> Iterator[Person]:
    visitor = Person(sandbox)
    yield visitor
    visitor.browser.close()


# -- the authorization code grant


def test_a_login_gives_a_jwt_with_cartos_claims(sandbox: CartoSandbox, person: Person, clock: StoppedClock) -> None:
    answer = person.tokens()
    assert answer["token_type"] == "Bearer"
    assert answer["expires_in"] == 86400
    assert "refresh_token" not in answer
    header = json.loads(base64.urlsafe_b64decode(answer["access_token"].split(".")[0] + "=="))
    assert header["alg"] == "RS256"
    told = claims(answer["access_token"])
    assert told["iss"] == f"{sandbox.url}/"
    assert told["aud"] == AUDIENCE
    assert told["azp"] == CLIENT_ID
    assert told["iat"] == int(clock.now)
    assert told["exp"] == int(clock.now) + 86400
    assert told["http://app.carto.com/email"] == "ana@example.com"
    assert told["http://app.carto.com/account_id"].startswith("ac_")
    assert "org_id" not in told


def test_every_token_is_another(person: Person) -> None:
    assert person.tokens()["access_token"] != person.tokens()["access_token"]


def test_the_redirect_carries_code_state_and_issuer(sandbox: CartoSandbox) -> None:
    person = Person(sandbox, REDIRECT_URI)
    login = person.open().headers["Location"]
    with person.browser as browser:
        page = browser.get(f"{sandbox.url}{login}")
        form = {"email": "eva@example.com", "password": "x", "action": "continue", "csrf_token": csrf(page)}
        page = browser.post(page.url, data=form)
        assert "carto-auth (Python) wants to access your CARTO account" in page.text
        assert "eva@example.com" in page.text
        answer = browser.post(page.url, data={"action": "allow", "csrf_token": csrf(page)}, allow_redirects=False)
    location = answer.headers["Location"]
    assert location.startswith(f"{REDIRECT_URI}?")
    told = query(location)
    assert told.keys() == {"code", "state", "iss"}
    assert told["state"] == "the state"
    assert told["iss"] == f"{sandbox.url}/"
    token = person.exchange(told["code"]).json()["access_token"]
    assert claims(token)["http://app.carto.com/email"] == "eva@example.com"


def csrf(page: requests.Response) -> str:
    return page.text.split('name="csrf_token" value="')[1].split('"')[0]


@pytest.mark.parametrize("page_of_cancel", ["login", "consent"])
def test_cancel_is_access_denied(sandbox: CartoSandbox, person: Person, page_of_cancel: str) -> None:
    page = person.browser.get(person.authorize_url())
    if page_of_cancel == "consent":
        form = {"email": "a@example.com", "password": "x", "action": "continue", "csrf_token": csrf(page)}
        page = person.browser.post(page.url, data=form)
    form = {"action": "cancel", "csrf_token": csrf(page)}
    answer = person.browser.post(page.url, data=form, allow_redirects=False)
    told = query(answer.headers["Location"])
    assert told["error"] == "access_denied"
    assert told["error_description"]
    assert told["state"] == "the state"
    assert told["iss"] == f"{sandbox.url}/"
    assert "code" not in told


def test_a_login_needs_a_password_and_an_address(person: Person) -> None:
    page = person.browser.get(person.authorize_url())
    for email, password in (("ana@example.com", ""), ("nobody", "x")):
        form = {"email": email, "password": password, "action": "continue", "csrf_token": csrf(page)}
        answer = person.browser.post(page.url, data=form)
        assert answer.status_code == 400
        assert urlsplit(answer.url).path == "/login"


def test_forms_are_good_in_their_own_browser_only(person: Person) -> None:
    page = person.browser.get(person.authorize_url())
    form = {"email": "a@example.com", "password": "x", "action": "continue", "csrf_token": csrf(page)}
    assert requests.post(page.url, data=form).status_code == 403, "no cookie"
    assert person.browser.post(page.url, data={**form, "csrf_token": "other"}).status_code == 403
    assert requests.get(page.url).status_code == 403


def test_what_is_typed_is_escaped(person: Person) -> None:
    page = person.browser.get(person.authorize_url())
    form = {"email": '"><script>@', "password": "x", "action": "continue", "csrf_token": csrf(page)}
    assert "<script>" not in person.browser.post(page.url, data=form).text


def test_a_code_is_good_once(person: Person) -> None:
    code = person.login()
    assert person.exchange(code).status_code == 200
    again = person.exchange(code)
    assert again.status_code == 403
    assert again.json()["error"] == "invalid_grant"
    assert again.json()["error_description"]


def test_of_many_at_once_one_gets_the_token(person: Person) -> None:
    code = person.login()
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: person.exchange(code).status_code, range(8)))
    assert sorted(answers) == [200] + [403] * 7


@pytest.mark.parametrize(
    "changes",
    [
        {"code_verifier": "v" * 43},
        {"code": "made-up"},
        {"redirect_uri": "http://localhost:10000/other"},
    ],
)
def test_a_wrong_exchange_is_invalid_grant(person: Person, changes: dict[str, str]) -> None:
    answer = person.exchange(**{"code": person.login(), **changes})
    assert answer.status_code == 403
    assert answer.json().keys() >= {"error", "error_description"}
    assert answer.json()["error"] == "invalid_grant"


def test_an_exchange_needs_the_verifier(person: Person) -> None:
    answer = person.exchange(person.login(), code_verifier="")
    assert answer.status_code == 400
    assert answer.json()["error"] == "invalid_request"


def test_a_code_expires(person: Person, clock: StoppedClock) -> None:
    code = person.login()
    clock.now += 601
    assert person.exchange(code).json()["error"] == "invalid_grant"


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"code_challenge": None, "code_challenge_method": None}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge_method": None}, "invalid_request"),
        ({"code_challenge": "short"}, "invalid_request"),
        ({"audience": "another-api"}, "access_denied"),
        ({"audience": None}, "access_denied"),
        ({"organization": "org_unknown"}, "invalid_request"),
        ({"organization": "acme"}, "invalid_request"),
        ({"response_type": "token"}, "unsupported_response_type"),
    ],
)
def test_bad_requests_are_told_to_the_client(
    sandbox: CartoSandbox, person: Person, changes: dict[str, str | None], error: str
) -> None:
    told = person.refused(**changes)
    assert told["error"] == error
    assert told["error_description"]
    assert told["state"] == "the state"
    assert told["iss"] == f"{sandbox.url}/"


@pytest.mark.parametrize(
    "changes",
    [
        {"redirect_uri": "http://localhost:10000/callback"},
        {"redirect_uri": "http://localhost:10001/callback/"},
        {"redirect_uri": "http://127.0.0.1:10000/callback/"},
        {"redirect_uri": REDIRECT_URI + "?x=1"},
        {"redirect_uri": 'https://evil.example/"'},
        {"redirect_uri": None},
        {"client_id": "unknown"},
        {"client_id": None},
        {"response_type": '"odd"', "redirect_uri": "https://evil.example/"},
    ],
)
def test_unknown_places_get_no_redirect(person: Person, changes: dict[str, str | None]) -> None:
    answer = person.open(**changes)
    assert answer.status_code == 400
    assert "Location" not in answer.headers
    assert "text/html" in answer.headers["Content-Type"]


def test_an_organization_is_in_the_token(sandbox: CartoSandbox, person: Person) -> None:
    code = walk_login(person.authorize_url(organization=sandbox.organization_id))
    assert code
    assert claims(person.exchange(code).json()["access_token"])["org_id"] == sandbox.organization_id


# -- client credentials


def test_m2m_gives_a_token_of_the_applications_owner(sandbox: CartoSandbox) -> None:
    answer = m2m(sandbox)
    assert answer.status_code == 200
    assert answer.json()["expires_in"] == 86400
    told = claims(answer.json()["access_token"])
    assert told["gty"] == "client-credentials"
    assert told["azp"] == sandbox.client_id
    assert told["http://app.carto.com/account_id"]


@pytest.mark.parametrize("changes", [{"client_secret": "wrong"}, {"client_id": "wrong"}, {"client_secret": ""}])
def test_wrong_m2m_credentials(sandbox: CartoSandbox, changes: dict[str, str]) -> None:
    answer = m2m(sandbox, **changes)
    assert answer.status_code == 401
    assert answer.json() == {"error": "access_denied", "error_description": "Unauthorized"}


def test_the_secret_is_taken_from_the_form_only(sandbox: CartoSandbox) -> None:
    form = {"grant_type": "client_credentials", "audience": AUDIENCE}
    answer = requests.post(sandbox.services.token_url, data=form, auth=(sandbox.client_id, sandbox.client_secret))
    assert answer.status_code == 401
    in_url = {"client_id": sandbox.client_id, "client_secret": sandbox.client_secret}
    assert requests.post(sandbox.services.token_url, params=in_url, data=form).status_code == 401


@pytest.mark.parametrize("audience", ["another-api", ""])
def test_another_audience(sandbox: CartoSandbox, audience: str) -> None:
    answer = m2m(sandbox, audience=audience)
    assert answer.status_code == 403
    assert answer.json()["error"] == "access_denied"
    assert answer.json()["error_description"].startswith("Service not found:")


def test_other_grants(sandbox: CartoSandbox) -> None:
    assert m2m(sandbox, grant_type="password").json()["error"] == "unsupported_grant_type"
    answer = requests.post(
        sandbox.services.token_url,
        data={"grant_type": "client_credentials", "client_id": CLIENT_ID, "audience": AUDIENCE},
    )
    assert answer.status_code == 401, "the public client has no credentials"


def test_applications_have_secrets_of_their_own(sandbox: CartoSandbox) -> None:
    client_id, secret = sandbox.add_application("etl")
    assert client_id == "etl"
    assert m2m(sandbox, client_id=client_id, client_secret=secret).status_code == 200
    assert m2m(sandbox, client_id=client_id).status_code == 401
    _, renewed = sandbox.add_application("etl")
    assert m2m(sandbox, client_id=client_id, client_secret=secret).status_code == 401
    assert m2m(sandbox, client_id=client_id, client_secret=renewed).status_code == 200


# -- refresh tokens


def test_refresh_tokens_rotate(sandbox: CartoSandbox, person: Person) -> None:
    sandbox.refresh_tokens = True
    first = person.tokens()
    second = person.refresh(first["refresh_token"])
    assert second.status_code == 200
    assert second.json()["refresh_token"] != first["refresh_token"]
    assert second.json()["access_token"] != first["access_token"]
    assert get(sandbox, "/accounts", second.json()["access_token"]).status_code == 200
    assert claims(second.json()["access_token"])["http://app.carto.com/email"] == "ana@example.com"


def test_an_old_refresh_token_revokes_its_family(sandbox: CartoSandbox, person: Person) -> None:
    sandbox.refresh_tokens = True
    first = person.tokens()["refresh_token"]
    other = person.tokens()["refresh_token"]
    second = person.refresh(first).json()["refresh_token"]
    again = person.refresh(first)
    assert again.status_code == 403
    assert again.json()["error"] == "invalid_grant"
    assert person.refresh(second).status_code == 403, "its descendant fell with it"
    assert person.refresh(other).status_code == 200, "another login did not"


def test_revocation(sandbox: CartoSandbox, person: Person) -> None:
    sandbox.refresh_tokens = True
    token = person.tokens()["refresh_token"]
    form = {"client_id": CLIENT_ID, "token": token, "token_type_hint": "refresh_token"}
    assert requests.post(sandbox.services.revocation_url, data=form).status_code == 200
    assert person.refresh(token).status_code == 403
    assert requests.post(sandbox.services.revocation_url, data=form).status_code == 200, "RFC 7009 section 2.2"


def test_no_refresh_without_a_switch(person: Person) -> None:
    assert person.refresh("made-up").json()["error"] == "invalid_grant"


# -- accounts and API


def test_from_a_token_to_the_api(sandbox: CartoSandbox) -> None:
    token = m2m(sandbox).json()["access_token"]
    domain = get(sandbox, "/accounts", token).json()["tenant_domain"]
    assert f"http://{domain}" == sandbox.url
    config = yaml.safe_load(requests.get(f"http://{domain}/config.yaml").text)
    assert config["apis"]["baseUrl"] == sandbox.api_base_url
    assert config["apis"]["workspaceUrl"]
    assert config["cartoVersion"]["selfHosted"] == ""
    warehouse = get(sandbox, "/v3/connections/carto-dw/token", token).json()
    assert warehouse.keys() == {"projectId", "token"}
    assert warehouse["projectId"] == "carto-dw-ac-sandbox"
    assert warehouse["token"].startswith("ya29.c.")


@pytest.mark.parametrize("path", ["/accounts", "/v3/connections/carto-dw/token"])
def test_bad_tokens(sandbox: CartoSandbox, clock: StoppedClock, path: str) -> None:
    token = m2m(sandbox).json()["access_token"]
    with CartoSandbox() as other:
        foreign = m2m(other).json()["access_token"]
    unsigned = ".".join([*token.split(".")[:2], ""])
    for bad in (None, "nonsense", foreign, unsigned, token[:-8] + "AAAAAAAA"):
        answer = get(sandbox, path, bad)
        assert answer.status_code == 401
        assert answer.json()["error"]
        assert answer.json()["status"] == 401
    assert get(sandbox, path, token).status_code == 200
    clock.now += 86400
    assert get(sandbox, path, token).status_code == 401, "expired"


def test_organizations_by_name(sandbox: CartoSandbox) -> None:
    assert sandbox.organization_id.startswith("org_")
    known = get(sandbox, f"/accounts/{sandbox.organization_name}/auth0_org_id").json()
    assert known == {"auth0orgId": sandbox.organization_id}
    assert get(sandbox, "/accounts/unknown/auth0_org_id").json() == {"auth0orgId": None}


def test_joining_an_organization(sandbox: CartoSandbox, person: Person) -> None:
    sandbox.has_tenant = False
    token = m2m(sandbox).json()["access_token"]
    refused = get(sandbox, "/accounts", token).json()
    assert "tenant_domain" not in refused
    assert refused["error"]
    url = f"{sandbox.url}/sso/acme"
    assert requests.post(url, data={"csrf_token": ""}).status_code == 403
    page = person.browser.get(url)
    assert person.browser.post(url, data={"csrf_token": csrf(page)}).status_code == 200
    assert "tenant_domain" in get(sandbox, "/accounts", token).json()


# -- switches


def test_lifetimes(sandbox: CartoSandbox, clock: StoppedClock) -> None:
    sandbox.token_lifetime = 60
    answer = m2m(sandbox).json()
    assert answer["expires_in"] == 60
    assert claims(answer["access_token"])["exp"] == int(clock.now) + 60
    clock.now += 61
    assert get(sandbox, "/accounts", answer["access_token"]).status_code == 401


def test_outages(sandbox: CartoSandbox) -> None:
    sandbox.outage = 503
    assert m2m(sandbox).status_code == 503
    assert get(sandbox, "/config.yaml").status_code == 503
    sandbox.outage = {"/config": 500}
    assert m2m(sandbox).status_code == 200
    assert get(sandbox, "/config.yaml").json()["status"] == 500
    sandbox.outage = None
    assert get(sandbox, "/config.yaml").status_code == 200


def test_rate_limit(sandbox: CartoSandbox, clock: StoppedClock) -> None:
    sandbox.rate_limited = 30
    answer = m2m(sandbox)
    assert answer.status_code == 429
    assert answer.json().keys() == {"statusCode", "error", "message"}
    assert answer.headers["Retry-After"] == "30"
    assert answer.headers["x-ratelimit-remaining"] == "0"
    assert int(answer.headers["x-ratelimit-reset"]) == int(clock.now + 30)
    assert int(answer.headers["x-ratelimit-limit"]) > 0


def test_denied_logins(sandbox: CartoSandbox, person: Person) -> None:
    sandbox.deny_logins = True
    told = person.refused()
    assert told["error"] == "access_denied"
    assert told["state"] == "the state"
    assert told["iss"] == f"{sandbox.url}/"


def test_no_warehouse(sandbox: CartoSandbox) -> None:
    sandbox.has_warehouse = False
    answer = get(sandbox, "/v3/connections/carto-dw/token", m2m(sandbox).json()["access_token"])
    assert answer.status_code == 404
    assert answer.json()["error"]


def test_revoked_access_tokens(sandbox: CartoSandbox) -> None:
    old = m2m(sandbox).json()["access_token"]
    sandbox.revoke_access_tokens()
    assert get(sandbox, "/accounts", old).status_code == 401
    assert get(sandbox, "/accounts", m2m(sandbox).json()["access_token"]).status_code == 200


def test_the_token_delay_ends_with_the_sandbox() -> None:
    entered = threading.Event()

    class Waited(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            assert timeout == 100.0
            entered.set()
            return super().wait(timeout)

    with CartoSandbox(token_delay=100.0) as sandbox, ThreadPoolExecutor(1) as pool:
        sandbox._known.stopping = Waited()
        pending = pool.submit(m2m, sandbox)
        assert entered.wait(10)
        assert sandbox.requests == []
        sandbox.stop()
        assert pending.result(timeout=10).status_code == 200


# -- the handle


def test_what_was_asked_is_recorded_without_secrets(sandbox: CartoSandbox) -> None:
    token = m2m(sandbox).json()["access_token"]
    get(sandbox, f"/config.yaml?secret={token}")
    get(sandbox, "/nowhere")
    assert sandbox.requests == [
        ("POST", "/oauth/token", 200),
        ("GET", "/config.yaml", 200),
        ("GET", "/nowhere", 404),
    ]
    assert sandbox.count("/oauth/token") == 1
    assert sandbox.count("/oauth/token", "POST") == 1
    assert sandbox.count("/oauth/token", "GET") == 0
    sandbox.requests.clear()
    assert sandbox.count("/nowhere") == 1, "requests is a copy"


def test_credentials_file(sandbox: CartoSandbox, tmp_path: Path) -> None:
    path = sandbox.credentials_file(tmp_path)
    assert path == tmp_path / "carto_credentials.json"
    assert json.loads(path.read_text()) == {
        "api_base_url": sandbox.api_base_url,
        "client_id": sandbox.client_id,
        "client_secret": sandbox.client_secret,
    }
    if os.name == "posix":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    _, secret = sandbox.add_application("etl")
    other = sandbox.credentials_file(tmp_path / "etl.json", client_id="etl")
    assert json.loads(other.read_text())["client_secret"] == secret
    with pytest.raises(ValueError, match="unknown"):
        sandbox.credentials_file(tmp_path, client_id="unknown")


def test_environment_and_services_agree(sandbox: CartoSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in sandbox.environment().items():
        monkeypatch.setenv(name, value)
    from carto_auth._services import Services

    assert Services.from_environment() == sandbox.services.replaced(bigquery_url=None)
    assert os.environ["BIGQUERY_EMULATOR_HOST"] == sandbox.services.bigquery_url


def test_two_sandboxes_know_nothing_of_each_other() -> None:
    with CartoSandbox() as one, CartoSandbox() as two:
        assert one.url != two.url
        assert m2m(two, client_id=one.client_id, client_secret=one.client_secret).status_code == 401


def test_start_and_stop() -> None:
    sandbox = CartoSandbox()
    with pytest.raises(RuntimeError, match="not started"):
        _ = sandbox.url
    assert sandbox.start() is sandbox
    with pytest.raises(RuntimeError, match="already"):
        sandbox.start()
    address = ("127.0.0.1", urlsplit(sandbox.url).port or 0)
    sandbox.stop()
    sandbox.stop()
    with pytest.raises(ConnectionRefusedError), socket.create_connection(address, timeout=5):
        pass
    with sandbox:
        assert m2m(sandbox).status_code == 200


def test_only_its_own_names_reach_it(sandbox: CartoSandbox) -> None:
    assert requests.get(f"{sandbox.url}/config.yaml", headers={"Host": "evil.example"}).status_code == 400


def test_it_listens_on_loopback_only(sandbox: CartoSandbox) -> None:
    assert sandbox._server is not None
    assert sandbox._server.socket.getsockname()[0] == "127.0.0.1"


def test_nothing_is_printed(sandbox: CartoSandbox, person: Person, capfd: pytest.CaptureFixture[str]) -> None:
    person.tokens()
    get(sandbox, "/nowhere")
    assert capfd.readouterr() == ("", "")


def test_nothing_secret_is_logged(sandbox: CartoSandbox, person: Person, caplog: pytest.LogCaptureFixture) -> None:
    sandbox.refresh_tokens = True
    caplog.set_level(logging.DEBUG)
    of_application = m2m(sandbox).json()["access_token"]
    code = person.login()
    of_person = person.exchange(code).json()
    renewed = person.refresh(of_person["refresh_token"]).json()
    # What the requests of this test ask for is logged by their own library.
    logged = "\n".join(record.getMessage() for record in caplog.records if not record.name.startswith("urllib3"))
    secret = [sandbox.client_secret, of_application, code, of_person["access_token"], of_person["refresh_token"]]
    for text in [*secret, renewed["access_token"], renewed["refresh_token"]]:
        assert text not in logged
    assert sandbox.client_secret not in repr(sandbox._known.application(sandbox.client_id))


def test_authlib_logs_elsewhere_as_ever(sandbox: CartoSandbox, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    logging.getLogger("authlib.oauth2.rfc6749.grants.client_credentials").debug("of the program's own server")
    assert "of the program's own server" in caplog.text


# -- pages, walker, fixture


@pytest.mark.parametrize("path", ["/", "/auth/success", "/auth/error", "/sso/acme", "/auth/token?code=abc"])
def test_pages_say_what_they_are(sandbox: CartoSandbox, path: str) -> None:
    page = get(sandbox, path)
    assert page.status_code == 200
    assert "CARTO sandbox on this computer — not CARTO" in page.text
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert "<script" not in page.text
    assert 'src="' not in page.text


def test_the_code_page_warns(sandbox: CartoSandbox) -> None:
    page = get(sandbox, "/auth/token?code=%3Cb%3E")
    assert "&lt;b&gt;" in page.text
    assert "Never give this code to anyone" in page.text


@pytest.fixture
def callback(callback_port: int) -> Iterator[list[str]]:
    """What a callback server at the registered redirect URI is asked."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", callback_port), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield asked
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(("approve", "part"), [(True, "code"), (False, "error")])
def test_the_walker_ends_at_the_callback(sandbox: CartoSandbox, callback: list[str], approve: bool, part: str) -> None:
    person = Person(sandbox, REDIRECT_URI)
    person.browser.close()
    assert walk_login(person.authorize_url(), approve=approve) is None
    assert len(callback) == 1
    assert part in query(callback[0])


def test_the_walker_as_a_browser_command(sandbox: CartoSandbox, person: Person) -> None:
    command = [sys.executable, "-m", "carto_auth.sandbox.walker", person.authorize_url()]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert person.exchange(done.stdout.strip()).status_code == 200


def test_the_walker_says_when_it_is_lost(sandbox: CartoSandbox) -> None:
    with pytest.raises(WalkFailed, match="not on this computer"):
        walk_login("https://auth.carto.com/authorize")
    with pytest.raises(WalkFailed, match=r"/config\.yaml"):
        walk_login(f"{sandbox.url}/config.yaml")


def test_the_walker_cancels_at_the_code_page(person: Person) -> None:
    assert walk_login(person.authorize_url(), approve=False) is None


pytest_plugins = ["pytester"]


def test_the_fixture_leads_everything_to_a_sandbox(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CARTO_API_TOKEN", "the developer's own")
    pytester.makepyfile(
        """
        import os
        from pathlib import Path

        def test_it(carto_sandbox, tmp_path):
            assert os.environ["CARTO_AUTH_URL"] == carto_sandbox.url
            assert os.environ["CARTO_CLIENT_SECRET"] == carto_sandbox.client_secret
            assert "CARTO_API_TOKEN" not in os.environ
            assert Path.home() == tmp_path
        """
    )
    plugin = "carto_auth.sandbox.pytest_plugin"
    arguments = [] if _installed_plugin() else ["-p", plugin]
    pytester.runpytest_subprocess("-p", "no:cacheprovider", *arguments).assert_outcomes(passed=1)


def _installed_plugin() -> bool:
    from importlib.metadata import entry_points

    return any(e.value == "carto_auth.sandbox.pytest_plugin" for e in entry_points(group="pytest11"))


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)


def test_the_plugins_import_is_light() -> None:
    heavy = "{'flask', 'authlib', 'duckdb', 'sqlglot', 'requests', 'google'}"
    code = f"import sys, carto_auth.sandbox.pytest_plugin; print({heavy} & {{m.split('.')[0] for m in sys.modules}})"
    done = run_python(code)
    assert done.stdout.strip() == "set()", done.stderr


def test_a_missing_extra_is_named() -> None:
    code = "import sys; sys.modules['flask'] = None\nfrom carto_auth.sandbox import CartoSandbox"
    done = run_python(code)
    assert done.returncode == 1
    assert "MissingDependency" in done.stderr
    assert "pip install 'carto-auth[sandbox]'" in done.stderr


def test_a_start_takes_less_than_a_second() -> None:
    code = (
        "import time, sys; start = time.perf_counter()\n"
        "from carto_auth.sandbox import CartoSandbox\n"
        "with CartoSandbox(): print(time.perf_counter() - start)\n"
        "assert 'duckdb' not in sys.modules and 'sqlglot' not in sys.modules"
    )
    done = run_python(code)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 1.0


def test_one_that_is_never_stopped_ends_in_silence() -> None:
    code = (
        "import os, requests\n"
        "from carto_auth import CartoAuth\n"
        "from carto_auth.sandbox import CartoSandbox\n"
        "os.environ.update(CartoSandbox().start().environment())\n"
        "print(CartoAuth.from_m2m().get_carto_dw_client().query('SELECT 1 AS n').result().total_rows)"
    )
    done = run_python(code)
    assert done.stdout == "1\n"
    assert "leaked" not in done.stderr  # Google's packages say something of Python 3.10


def test_a_misspelt_switch_is_refused():
    sandbox = CartoSandbox()
    with pytest.raises(AttributeError, match="no switch 'outtage'"):
        sandbox.outtage = 503


def test_a_proxy_does_not_get_between(tmp_path):
    """Google's client asks the environment's proxy even for addresses on this computer."""
    program = "from carto_auth import CartoAuth; client = CartoAuth.from_m2m().get_carto_dw_client()\n"
    program += "print(list(client.query('SELECT 1 AS n').result())[0].n)"
    with CartoSandbox() as sandbox:
        proxied = {**os.environ, "HTTP_PROXY": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"}
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**proxied, **sandbox.environment()},
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.stdout == "1\n", done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_ends(sandbox: CartoSandbox) -> None:
    code = (
        "import os, sys\n"
        "from carto_auth.sandbox import CartoSandbox\n"
        "with CartoSandbox():\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        sys.exit(7)\n"
        "    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))"
    )
    assert run_python(code).stdout == "7\n"
