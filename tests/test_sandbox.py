"""The sandbox's OAuth side, accounts, API and switches, over real sockets and as an outsider sees them."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import os
import re
import secrets
import socket
import stat
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
import requests
import yaml
from clocks import StoppedClock

from carto_auth._services import AUDIENCE, CLIENT_ID, REDIRECT_URI
from carto_auth.sandbox import CartoSandbox, state, walk_login
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


WAREHOUSE = "/v3/connections/carto-dw/token"


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
    assert (answer["token_type"], answer["expires_in"], "refresh_token" in answer) == ("Bearer", 86400, False)
    told = claims(answer["access_token"])
    assert told["http://app.carto.com/account_id"].startswith("ac_")
    assert "org_id" not in told
    assert (
        told.items()
        >= {
            "iss": f"{sandbox.url}/",
            "aud": AUDIENCE,
            "azp": CLIENT_ID,
            "iat": int(clock.now),
            "exp": int(clock.now) + 86400,
            "http://app.carto.com/email": "ana@example.com",
        }.items()
    )


def test_the_redirect_carries_code_state_and_issuer(sandbox: CartoSandbox) -> None:
    person = Person(sandbox, REDIRECT_URI)
    with person.browser as browser:
        page = browser.get(person.authorize_url())
        page = browser.post(page.url, data=filled_in(page, email="eva@example.com"))
        assert "carto-auth (Python) wants to access your CARTO account" in page.text
        assert "eva@example.com" in page.text
        form = {"action": "allow", "csrf_token": csrf(page)}
        location = browser.post(page.url, data=form, allow_redirects=False).headers["Location"]
    assert location.startswith(f"{REDIRECT_URI}?")
    told = query(location)
    assert told == {"code": told["code"], "state": "the state", "iss": f"{sandbox.url}/"}
    token = person.exchange(told["code"]).json()["access_token"]
    assert claims(token)["http://app.carto.com/email"] == "eva@example.com"


def filled_in(page: requests.Response, **changes: str) -> dict[str, str]:
    return {"email": "a@example.com", "password": "x", "action": "continue", "csrf_token": csrf(page), **changes}


def csrf(page: requests.Response) -> str:
    return page.text.split('name="csrf_token" value="')[1].split('"')[0]


@pytest.mark.parametrize("page_of_cancel", ["login", "consent"])
def test_cancel_is_access_denied(sandbox: CartoSandbox, person: Person, page_of_cancel: str) -> None:
    page = person.browser.get(person.authorize_url())
    if page_of_cancel == "consent":
        page = person.browser.post(page.url, data=filled_in(page))
    form = {"action": "cancel", "csrf_token": csrf(page)}
    told = query(person.browser.post(page.url, data=form, allow_redirects=False).headers["Location"])
    assert told.pop("error_description")
    assert told == {"error": "access_denied", "state": "the state", "iss": f"{sandbox.url}/"}


@pytest.mark.parametrize("typed", [{"password": ""}, {"email": "nobody"}, {"email": '"><script>'}])
def test_a_login_needs_a_password_and_an_address(person: Person, typed: dict[str, str]) -> None:
    page = person.browser.get(person.authorize_url())
    answer = person.browser.post(page.url, data=filled_in(page, **typed))
    assert (answer.status_code, urlsplit(answer.url).path) == (400, "/login")
    assert "<script>" not in answer.text


def test_forms_are_good_in_their_own_browser_only(person: Person) -> None:
    page = person.browser.get(person.authorize_url())
    assert requests.post(page.url, data=filled_in(page)).status_code == 403, "no cookie"
    assert person.browser.post(page.url, data=filled_in(page, csrf_token="other")).status_code == 403
    assert requests.get(page.url).status_code == 403


def test_a_code_is_good_once(person: Person) -> None:
    code = person.login()
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: person.exchange(code).status_code, range(8)))
    assert sorted(answers) == [200] + [403] * 7


@pytest.mark.parametrize(
    ("changes", "status", "error"),
    [
        ({"code_verifier": "v" * 43}, 403, "invalid_grant"),
        ({"code_verifier": ""}, 400, "invalid_request"),
        ({"code": "made-up"}, 403, "invalid_grant"),
        ({"redirect_uri": "http://localhost:10000/other"}, 403, "invalid_grant"),
    ],
)
def test_a_wrong_exchange(person: Person, changes: dict[str, str], status: int, error: str) -> None:
    answer = person.exchange(**{"code": person.login(), **changes})
    assert (answer.status_code, answer.json()["error"]) == (status, error)
    assert answer.json()["error_description"]


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
        ({"organization": "acme"}, "invalid_request"),
        ({"response_type": "token"}, "unsupported_response_type"),
        ({}, "access_denied"),
    ],
)
def test_bad_requests_are_told_to_the_client(
    sandbox: CartoSandbox, person: Person, changes: dict[str, str | None], error: str
) -> None:
    sandbox.deny_logins = not changes
    told = person.refused(**changes)
    assert told.pop("error_description")
    assert told == {"error": error, "state": "the state", "iss": f"{sandbox.url}/"}


@pytest.mark.parametrize(
    "changes",
    [
        {"redirect_uri": "http://localhost:10000/callback"},
        {"redirect_uri": REDIRECT_URI + "?x=1"},
        {"redirect_uri": None},
        {"client_id": "unknown"},
        {"response_type": '"odd"', "redirect_uri": "https://evil.example/"},
    ],
)
def test_unknown_places_get_no_redirect(person: Person, changes: dict[str, str | None]) -> None:
    answer = person.open(**changes)
    assert answer.status_code == 400
    assert "Location" not in answer.headers
    assert "text/html" in answer.headers["Content-Type"]


def test_an_organization_is_in_the_token(sandbox: CartoSandbox, person: Person) -> None:
    url = f"/accounts/{sandbox.organization_name}/auth0_org_id"
    assert get(sandbox, url).json() == {"auth0orgId": sandbox.organization_id}
    assert get(sandbox, "/accounts/unknown/auth0_org_id").json() == {"auth0orgId": None}
    code = walk_login(person.authorize_url(organization=sandbox.organization_id))
    assert code
    assert claims(person.exchange(code).json()["access_token"])["org_id"] == sandbox.organization_id


def test_a_web_application_of_ones_own(sandbox: CartoSandbox) -> None:
    from carto_auth import CartoAuth, Services

    page = "http://localhost:8501/"
    client_id = sandbox.add_web_application(page)
    services = Services(sandbox.url, sandbox.url, sandbox.url, client_id)
    pending = CartoAuth.begin_oauth(redirect_uri=page, services=services)
    assert requests.get(pending.url).status_code == 200
    assert requests.get(pending.url.replace("8501", "8502")).status_code == 400


# -- client credentials


def test_m2m_gives_a_token_of_the_applications_owner(sandbox: CartoSandbox) -> None:
    answer = m2m(sandbox)
    assert (answer.status_code, answer.json()["expires_in"]) == (200, 86400)
    told = claims(answer.json()["access_token"])
    assert (told["gty"], told["azp"]) == ("client-credentials", sandbox.client_id)
    assert told["http://app.carto.com/account_id"]


@pytest.mark.parametrize("changes", [{"client_secret": "wrong"}, {"client_id": "wrong"}, {"client_secret": ""}])
def test_wrong_m2m_credentials(sandbox: CartoSandbox, changes: dict[str, str]) -> None:
    answer = m2m(sandbox, **changes)
    assert answer.status_code == 401
    assert answer.json() == {"error": "access_denied", "error_description": "Unauthorized"}


@pytest.mark.parametrize("audience", ["another-api", ""])
def test_another_audience(sandbox: CartoSandbox, audience: str) -> None:
    answer = m2m(sandbox, audience=audience)
    assert answer.status_code == 403
    assert answer.json()["error"] == "access_denied"
    assert answer.json()["error_description"].startswith("Service not found:")


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
    assert all(second.json()[key] != first[key] for key in ("refresh_token", "access_token"))
    assert get(sandbox, "/accounts", second.json()["access_token"]).status_code == 200
    sandbox.revoke_refresh_tokens()
    assert person.refresh(second.json()["refresh_token"]).json()["error"] == "invalid_grant"


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


# -- accounts and API


def test_from_a_token_to_the_api(sandbox: CartoSandbox) -> None:
    token = m2m(sandbox).json()["access_token"]
    domain = get(sandbox, "/accounts", token).json()["tenant_domain"]
    assert f"http://{domain}" == sandbox.url
    config = yaml.safe_load(requests.get(f"http://{domain}/config.yaml").text)
    assert config == {
        "apis": {"baseUrl": sandbox.api_base_url, "workspaceUrl": config["apis"]["workspaceUrl"]},
        "cartoVersion": {"selfHosted": ""},
    }
    warehouse = get(sandbox, WAREHOUSE, token).json()
    assert warehouse == {"projectId": "carto-dw-ac-sandbox", "token": warehouse["token"]}
    assert warehouse["token"].startswith("ya29.c.")
    sandbox.has_warehouse = False
    assert get(sandbox, WAREHOUSE, token).status_code == 404


@pytest.mark.parametrize("path", ["/accounts", WAREHOUSE])
def test_bad_tokens(sandbox: CartoSandbox, clock: StoppedClock, path: str) -> None:
    sandbox.token_lifetime = 60
    revoked = m2m(sandbox).json()["access_token"]
    sandbox.revoke_access_tokens()
    token = m2m(sandbox).json()["access_token"]
    with CartoSandbox() as other:
        foreign = m2m(other).json()["access_token"]
    unsigned = ".".join([*token.split(".")[:2], ""])
    for bad in (None, "nonsense", revoked, foreign, unsigned, token[:-8] + "AAAAAAAA"):
        answer = get(sandbox, path, bad)
        assert (answer.status_code, answer.json()) == (401, {"error": "Unauthorized", "status": 401})
    assert get(sandbox, path, token).status_code == 200
    clock.now += 60
    assert get(sandbox, path, token).status_code == 401, "expired"


def test_joining_an_organization(sandbox: CartoSandbox, person: Person) -> None:
    sandbox.has_tenant = False
    token = m2m(sandbox).json()["access_token"]
    refused = get(sandbox, "/accounts", token).json()
    assert "tenant_domain" not in refused
    assert refused["error"]
    url = f"{sandbox.url}/sso/{sandbox.organization_id}"
    assert get(sandbox, "/sso/acme").status_code == 404  # CARTO's page wants the id, not the name
    assert requests.post(url, data={"csrf_token": ""}).status_code == 403
    page = person.browser.get(url)
    assert person.browser.post(url, data={"csrf_token": csrf(page)}).status_code == 200
    assert "tenant_domain" in get(sandbox, "/accounts", token).json()


# -- switches


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
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "30")
    assert answer.json().keys() == {"statusCode", "error", "message"}
    assert answer.headers["x-ratelimit-reset"] == str(int(clock.now + 30))


def test_the_token_delay_ends_with_the_sandbox() -> None:
    arrived = threading.Event()

    class Outages(dict[str, int]):  # the sandbox looks at its switches when a request arrives
        def items(self) -> Any:
            arrived.set()
            return super().items()

    with CartoSandbox(token_delay=100.0, outage=Outages()) as sandbox, ThreadPoolExecutor(1) as pool:
        pending = pool.submit(m2m, sandbox)
        assert arrived.wait(10)
        assert sandbox.requests == []
        sandbox.stop()
        assert pending.result(timeout=10).status_code == 200


def test_a_clock_that_was_replaced_at_the_start_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as replaced:
        replaced.setattr(time, "time", StoppedClock(1_000_000_000.0))
        running = CartoSandbox().start()
        assert claims(m2m(running).json()["access_token"])["iat"] == 1_000_000_000
    assert claims(m2m(running).json()["access_token"])["iat"] > 1_700_000_000
    running.stop()


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
    sandbox.requests.clear()  # a copy
    counted = [sandbox.count(*asked) for asked in (["/oauth/token"], ["/oauth/token", "POST"], ["/oauth/token", "GET"])]
    assert counted == [1, 1, 0]


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
    from carto_auth import Services

    for name in ("auth_url", "accounts_url", "app_url", "client_id"):
        assert getattr(Services.from_environment(), name) == getattr(sandbox.services, name)
    assert os.environ["BIGQUERY_EMULATOR_HOST"] == sandbox.services.bigquery_url


def test_start_and_stop() -> None:
    sandbox = CartoSandbox()
    with pytest.raises(RuntimeError, match="not started"):
        _ = sandbox.url
    assert sandbox.start() is sandbox
    with pytest.raises(RuntimeError, match="already"):
        sandbox.start()
    port = urlsplit(sandbox.url).port or 0
    with pytest.raises(OSError), socket.create_connection(("127.0.0.2", port), timeout=5):  # noqa: PT011 - it varies
        pass  # on loopback only
    sandbox.stop()
    sandbox.stop()
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), timeout=5):
        pass
    with sandbox:
        assert m2m(sandbox).status_code == 200


def test_nothing_secret_is_logged_or_printed(
    sandbox: CartoSandbox, person: Person, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
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
    assert capfd.readouterr() == ("", "")
    logging.getLogger("authlib.oauth2.rfc6749.grants.client_credentials").debug("of the program's own server")
    assert "of the program's own server" in caplog.text


# -- pages, walker, fixture


@pytest.mark.parametrize("path", ["/", "/auth/success", "/auth/error", "/sso/org_…", "/auth/token?code=%3Cscript%3E"])
def test_pages_say_what_they_are(sandbox: CartoSandbox, path: str) -> None:
    page = get(sandbox, path.replace("org_…", sandbox.organization_id))
    assert page.status_code == 200
    assert "CARTO sandbox on this computer — not CARTO" in page.text
    assert ("Never give this code to anyone" in page.text) == path.startswith("/auth/token")
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert "<script" not in page.text
    assert 'src="' not in page.text


def test_the_walker_says_when_it_is_lost(sandbox: CartoSandbox) -> None:
    for url, told in (
        ("https://auth.carto.com/authorize", "not on this computer"),
        (sandbox.url, "no form to fill in"),
    ):
        with pytest.raises(WalkFailed, match=told):
            walk_login(url)


def test_requests_in_bulk_do_not_end_a_login_of_ones_own(
    sandbox: CartoSandbox, person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of a web page, which bring no cookie, and of a program that follows the links with cookies."""
    monkeypatch.setattr(state, "MAX_PENDING", 20)
    page = person.browser.get(person.authorize_url())
    for _ in range(60):
        requests.get(person.authorize_url(), allow_redirects=False)
    statuses = []
    for _ in range(30):
        with requests.Session() as session:
            statuses.append(session.get(person.authorize_url()).status_code)
    assert (statuses[0], statuses[-1]) == (200, 503)
    form = {
        "email": "ana@example.com",
        "password": "any",
        "csrf_token": re.findall(r'csrf_token" value="(.+?)"', page.text),
    }
    consent = person.browser.post(page.url, data=form)
    assert consent.status_code == 200
    assert isinstance(sandbox.clock, StoppedClock)
    sandbox.clock.now += state.CODE_LIFETIME
    assert person.browser.get(person.authorize_url()).status_code == 200


def test_lists_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "MAX_KEPT", 5)
    with CartoSandbox() as sandbox:
        for number in range(9):
            requests.get(f"{sandbox.url}/{number}{'x' * 1000}", timeout=30)
            assert m2m(sandbox).status_code == 200
        assert len(sandbox.requests) == 5
        assert max(len(request.path) for request in sandbox.requests) <= state.LONGEST_PATH


pytest_plugins = ["pytester"]


def test_the_fixture_leads_everything_to_a_sandbox_and_logins_take_turns(
    pytester: pytest.Pytester, callback_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CARTO_API_TOKEN", "the developer's own")
    pytester.makepyfile(
        """
        import os, webbrowser
        from pathlib import Path
        import pytest
        from carto_auth import CartoAuth
        from carto_auth.sandbox import walk_login

        @pytest.mark.parametrize("number", range(4))
        def test_a_login(number, carto_sandbox, monkeypatch, tmp_path):
            assert os.environ["CARTO_CLIENT_SECRET"] == carto_sandbox.client_secret
            assert "CARTO_API_TOKEN" not in os.environ
            assert Path.home() == tmp_path
            monkeypatch.setattr(webbrowser, "open", lambda url: walk_login(url) is not None)
            assert CartoAuth.from_oauth(interactive=True).get_api_base_url() == carto_sandbox.url
        """
    )
    # The other plugins take longer than the test. (That pytest finds ours by itself, the example of a project shows.)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    plugins = ("-p", "xdist", "-p", "carto_auth.sandbox.pytest_plugin", "-p", "no:cacheprovider")
    pytester.runpytest_subprocess(*plugins, "-n", "2").assert_outcomes(passed=4)


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)


def test_a_start_imports_what_it_needs() -> None:
    code = (
        "import sys, carto_auth.sandbox.pytest_plugin\n"
        "imported = lambda *names: set(names) & {module.split('.')[0] for module in sys.modules}\n"
        "print(imported('flask', 'authlib', 'requests'))\n"
        "with carto_auth.sandbox.CartoSandbox(): print(imported('duckdb', 'sqlglot', 'google'))"
    )
    done = run_python(code)
    assert done.stdout == "set()\nset()\n", done.stderr


def test_a_missing_extra_is_named() -> None:
    code = "import sys; sys.modules['flask'] = None\nfrom carto_auth.sandbox import CartoSandbox"
    done = run_python(code)
    assert done.returncode == 1
    assert "MissingDependency" in done.stderr
    assert "pip install 'carto-auth[sandbox]'" in done.stderr


def test_one_that_is_never_stopped_ends_in_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy"):  # Google's client asks it even for addresses on this computer
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    code = (
        "import os, requests\n"
        "from carto_auth import CartoAuth\n"
        "from carto_auth.sandbox import CartoSandbox\n"
        "os.environ.update(CartoSandbox().start().environment())\n"
        "print(CartoAuth.from_m2m().get_carto_dw_client().query('SELECT 1 AS n').result().total_rows)"
    )
    done = run_python(code)
    assert done.stdout == "1\n", done.stderr
    assert "leaked" not in done.stderr  # Google's packages say something of Python 3.10


def test_a_misspelt_switch_is_refused():
    sandbox = CartoSandbox()
    with pytest.raises(AttributeError, match="no switch 'outtage'"):
        sandbox.outtage = 503


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
