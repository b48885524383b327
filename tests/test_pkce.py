"""The authorization code grant with PKCE, piece by piece: what is sent, what is taken, what a person is told."""

import errno
import io
import pickle
import socket
import sys
import threading
import webbrowser
from types import SimpleNamespace
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

import pytest

from carto_auth import CartoAuth, pkce
from carto_auth._services import Services
from carto_auth.errors import (
    LoginDenied,
    LoginFailed,
    LoginRequired,
    LoginTimedOut,
    Unauthorized,
    UntrustedAddress,
)
from carto_auth.pkce import CartoPKCE

CODE_PAGE = pkce.REDIRECT_URI_CLI
TOKEN = {"json": {"access_token": "a-token", "expires_in": 60}}
REFUSAL = {"status_code": 403, "json": {"error": "invalid_grant", "error_description": "Too late"}}


@pytest.fixture
def person(monkeypatch):
    """Somebody at the prompt, who gives one answer after the other; an answer may be made from the link."""

    def sit_down(*answers):
        left, prompts = list(answers), []

        def answer(self, prompt):
            prompts.append(prompt)
            given = left.pop(0)
            return given(links_in("".join(prompts))[-1]) if callable(given) else given

        monkeypatch.setattr(CartoPKCE, "_input", answer)
        return prompts

    return sit_down


@pytest.fixture
def browser(monkeypatch):
    """What was opened in the place of a browser; ``browser.does(url)`` is what opening it does."""
    browser = SimpleNamespace(opened=[], does=lambda url: False)
    monkeypatch.setattr(webbrowser, "open", lambda url: browser.opened.append(url) or browser.does(url))
    return browser


def query(url):
    return dict(parse_qsl(urlsplit(url).query))


def links_in(text):
    return [word for word in text.split() if word.startswith("https://auth.carto.com/authorize?")]


def answered(link, page=CODE_PAGE, **changes):
    """The address at which a login by ``link`` ends."""
    return f"{page}?{urlencode({'code': 'a-code', 'state': query(link)['state']} | changes)}"


# ---- RFC 7636 ------------------------------------------------------------------------------------


def test_code_challenge_of_rfc_7636_appendix_b():
    verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
    assert pkce.Attempt(CODE_PAGE, verifier=verifier).challenge == "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"


def test_each_attempt_has_a_state_of_256_bits_and_a_verifier_that_nobody_sees():
    attempts = []
    for _ in range(5):
        login = CartoPKCE(open_browser=False)
        login.get_authorize_url()
        attempts.append(login.attempt)
    assert len({attempt.state for attempt in attempts}) == len({attempt.verifier for attempt in attempts}) == 5
    assert all(len(attempt.state) >= 43 for attempt in attempts)
    assert attempts[0].state not in repr(attempts[0])
    assert attempts[0].verifier not in repr(attempts[0])


def test_a_program_may_go_on_with_a_login_of_another_process(requests_mock):
    requests_mock.post(pkce.OAUTH_TOKEN_URL, **TOKEN)
    began = CartoPKCE(open_browser=False)
    began.get_authorize_url()
    other = CartoPKCE(open_browser=False)
    other._code_verifier = began._code_verifier
    assert other._code_challenge == began._code_challenge
    other.get_token_info("a-code")
    assert parse_qs(requests_mock.last_request.text)["code_verifier"] == [began._code_verifier]


# ---- copy-paste ----------------------------------------------------------------------------------


@pytest.mark.parametrize("pasted", [" 'a-code' \n", answered, lambda link: f' "{answered(link)}#top" '])
def test_the_whole_address_is_as_good_as_the_code(person, pasted):
    asked = person(pasted)
    assert CartoPKCE(open_browser=False).get_auth_response() == "a-code"
    assert len(asked) == 1


WRONG = {
    "another site": (lambda link: answered(link, "https://evil.example/"), "That address is not CARTO's"),
    "the link itself": (str, "That address holds no code"),
    "another login": (lambda link: answered(link, state="foreign"), "belongs to another login"),
    "a sentence": ("this is no code", "not an access code"),
    "nothing": (' "" ', "No code was entered"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_answer_is_asked_for_again_with_the_reason(person, name):
    wrong, reason = WRONG[name]
    asked = person(wrong, wrong, "a-code")
    assert CartoPKCE(open_browser=False).get_auth_response() == "a-code"
    assert [reason in prompt for prompt in asked] == [False, True, True]
    asked = person(wrong, wrong, wrong)
    with pytest.raises(LoginFailed, match=f"given up after 3 tries: .*{reason}"):
        CartoPKCE(open_browser=False).get_auth_response()
    assert len(asked) == 3
    login = CartoPKCE(open_browser=False)
    link = login.get_authorize_url()
    with pytest.raises(LoginFailed, match=reason):
        login.get_authorization_code(wrong(link) if callable(wrong) else wrong)


def test_the_address_of_a_refusal_ends_the_login_with_its_reason(person):
    asked = person(lambda link: answered(link, error="access_denied", error_description="Ana said no."))
    with pytest.raises(LoginDenied, match=r"Ana said no \(access_denied\)\. Try again") as denied:
        CartoPKCE(open_browser=False).get_auth_response()
    assert (denied.value.error, denied.value.error_description) == ("access_denied", "Ana said no")
    assert len(asked) == 1


def test_the_prompt_names_cartos_site_and_warns(person):
    asked = person("a-code")
    login = CartoPKCE(open_browser=False)
    login.get_auth_response()
    assert "https://app.carto.com page" in asked[0]
    assert "Never give it to anyone else" in asked[0]
    assert links_in(asked[0]) == [login.get_authorize_url()]


def test_a_refused_code_begins_a_fresh_attempt_and_is_not_sent_again(person, requests_mock):
    """It is still on the clipboard."""
    requests_mock.post(pkce.OAUTH_TOKEN_URL, [REFUSAL, REFUSAL, TOKEN])
    asked = person("first", "first", "second", "third")
    assert CartoPKCE(open_browser=False).get_token_info()["access_token"] == "a-token"
    assert "Too late" in asked[1]
    assert asked[2] == "That code has already been refused. Access code: "
    sent = [query(link) for prompt in asked for link in links_in(prompt)]
    assert len({each["state"] for each in sent}) == 3
    forms = [query(f"?{each.text}") for each in requests_mock.request_history]
    for form, attempt, code in zip(forms, sent, ("first", "second", "third"), strict=True):
        assert form["code"] == code
        assert form["redirect_uri"] == attempt["redirect_uri"] == CODE_PAGE
        assert pkce.Attempt(CODE_PAGE, verifier=form["code_verifier"]).challenge == attempt["code_challenge"]


@pytest.mark.parametrize(
    ("refusal", "prompts"), [(REFUSAL, 3), ({"status_code": 401, "json": {"error": "access_denied"}}, 1)]
)
def test_three_refused_codes_are_enough_and_another_refusal_is_not_the_codes_fault(
    person, requests_mock, refusal, prompts
):
    requests_mock.post(pkce.OAUTH_TOKEN_URL, **refusal)
    asked = person("first", "second", "third", "fourth")
    with pytest.raises(Unauthorized, match="begin a new login"):
        CartoPKCE(open_browser=False).get_token_info()
    assert len(asked) == prompts


def test_a_login_whose_input_is_its_own():
    class Asked(CartoPKCE):
        def _input(self, prompt):
            return "a-code"

    assert Asked(open_browser=False).get_auth_response() == "a-code"
    login = CartoPKCE(open_browser=False)
    login._input = lambda prompt: "another-code"
    assert login.get_auth_response() == "another-code"


# ---- from the browser to copy-paste --------------------------------------------------------------


def fail(url):
    raise OSError


@pytest.mark.parametrize("does", [lambda url: False, fail])
def test_a_missing_browser(person, browser, requests_mock, capsys, callback_port, does):
    browser.does = does
    requests_mock.post(pkce.OAUTH_TOKEN_URL, [REFUSAL, TOKEN])
    asked = person("first", "second")
    assert CartoPKCE().get_token_info()["access_token"] == "a-token"
    assert asked[0].startswith("No browser could be opened")
    assert links_in(capsys.readouterr().out) == []  # the link for the browser, which would be dead
    attempts = [query(browser.opened[0]), *(query(links_in(prompt)[0]) for prompt in asked)]
    assert [each["redirect_uri"] for each in attempts] == [pkce.REDIRECT_URI, CODE_PAGE, CODE_PAGE]
    assert len({each["state"] for each in attempts}) == len({each["code_challenge"] for each in attempts}) == 3


@pytest.mark.parametrize("somebody", [True, False])
def test_a_busy_port(person, browser, callback_port, somebody, monkeypatch):
    monkeypatch.setattr("carto_auth._login.callback.LINGER_SECONDS", 0.0)  # nobody waits for the end of a last login
    problem = "Another program or login is using port 10000"
    asked = person("a-code") if somebody else []
    with socket.create_server(("127.0.0.1", callback_port)):
        if somebody:
            assert CartoPKCE().get_auth_response() == "a-code"
            assert asked[0].startswith(problem)
            assert "by hand" in asked[0]
        else:
            with pytest.raises(LoginRequired, match=f"^{problem}.*from_m2m"):
                CartoPKCE().get_auth_response()
    assert browser.opened == []


def test_a_computer_without_loopback(person, browser, monkeypatch):
    def bind(self, address):
        raise OSError(errno.EADDRNOTAVAIL, "no such address here")

    monkeypatch.setattr(socket.socket, "bind", bind)
    browser.does = lambda url: True
    asked = person("a-code")
    assert CartoPKCE().get_auth_response() == "a-code"
    assert asked[0].startswith("On this computer your browser cannot bring the login back")


@pytest.mark.parametrize("threads", [0, 1])
def test_where_no_thread_can_be_had_the_login_goes_to_the_code(person, browser, monkeypatch, callback_port, threads):
    """As with a limit on processes, and in a subinterpreter."""
    real, left = threading.Thread.start, [threads]

    def start(thread):
        if not left[0]:
            raise RuntimeError("can't start new thread")
        left[0] -= 1
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    asked = person("a-code")
    assert CartoPKCE().get_auth_response() == "a-code"
    assert asked[0].startswith("On this computer your browser cannot bring the login back")
    assert browser.opened == []
    socket.create_server(("127.0.0.1", callback_port)).close()


def test_a_replaced_browser_that_ends_the_program(browser, callback_port):
    browser.does = lambda url: sys.exit()
    with pytest.raises(SystemExit):
        CartoPKCE().get_auth_response()


@pytest.mark.parametrize("returned", [None, True])
def test_a_replaced_browser_that_opens_something(browser, capsys, callback_port, returned):
    """Many return nothing, since carto-auth 0.2.0 does not ask what they return."""

    def come_back(url):
        callback = urlsplit(answered(url, pkce.REDIRECT_URI))
        with socket.create_connection(("127.0.0.1", callback_port), timeout=5) as connection:
            connection.sendall(
                f"GET {callback.path}?{callback.query} HTTP/1.1\r\nHost: {callback.netloc}\r\n\r\n".encode()
            )
            connection.recv(100)

    def opened(url):
        threading.Thread(target=come_back, args=(url,)).start()
        return returned

    browser.does = opened
    assert CartoPKCE(timeout=20).get_auth_response() == "a-code"
    assert links_in(capsys.readouterr().out) == browser.opened


def test_a_timeout_says_what_to_do(browser, callback_port):
    browser.does = lambda url: True
    with pytest.raises(LoginTimedOut, match=r"within 0\.05 s\. Try again, with open_browser=False if"):
        CartoPKCE(timeout=0.05).get_auth_response()


@pytest.mark.parametrize("explicit", [True, False])
def test_an_explicit_argument_beats_detection(person, browser, monkeypatch, callback_port, explicit):
    monkeypatch.setitem(sys.modules, "google.colab", None)
    person("a-code")
    login = CartoPKCE()
    assert login.open_browser is False
    login.get_auth_response(open_browser=explicit)
    assert bool(browser.opened) is explicit


@pytest.mark.parametrize(
    ("timeout", "error"),
    [(None, TypeError), ("5", TypeError), (True, TypeError), (-1, ValueError), (float("nan"), TypeError)],
)
def test_a_timeout_that_is_none(timeout, error):
    for asked in (lambda: CartoPKCE(timeout=timeout), lambda: CartoAuth("oauth", timeout=timeout)):
        with pytest.raises(error, match=r"^timeout must be seconds"):
            asked()


@pytest.mark.parametrize("begin", [CartoAuth.from_oauth, CartoAuth.begin_oauth])
def test_an_organization_that_is_no_text(begin):
    with pytest.raises(TypeError, match=r"^org must be .* not of type int"):
        begin(org=5)


@pytest.mark.parametrize("address", ["http://evil.example", "javascript:alert(1)", "https://u:p@evil.example"])
@pytest.mark.parametrize("service", ["auth_url", "app_url"])
def test_nobody_is_sent_to_an_address_that_is_not_secure(address, service):
    with pytest.raises(UntrustedAddress):
        CartoPKCE(services=Services(**{service: address}))


# ---- nobody --------------------------------------------------------------------------------------


@pytest.mark.parametrize("open_browser", [True, False])
@pytest.mark.parametrize("ci", ["", "true"])
def test_without_a_person_it_says_so_at_once(browser, monkeypatch, capsys, callback_port, open_browser, ci):
    monkeypatch.setenv("CI", ci)
    with pytest.raises(LoginRequired, match="from_m2m"):
        CartoPKCE(open_browser=open_browser).get_auth_response()
    shown = capsys.readouterr().out
    assert "Access code" not in shown
    if ci or not open_browser:
        assert shown == ""


@pytest.mark.parametrize("interactive", [False, None, True])
def test_not_interactive_asks_nobody(person, browser, monkeypatch, interactive):
    asked = person()
    if interactive is not False:
        monkeypatch.setenv("CARTO_AUTH_INTERACTIVE", "0")
    with pytest.raises(LoginRequired, match=r"(interactive=False|CARTO_AUTH_INTERACTIVE forbids it)\. .*from_m2m"):
        CartoPKCE(interactive=interactive).get_auth_response()
    assert (asked, browser.opened) == ([], [])


def test_interactive_asks_where_nobody_seems_to_be(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("a-code\n"))
    assert CartoPKCE(False, interactive=True).get_auth_response() == "a-code"
    with pytest.raises(LoginRequired):
        CartoPKCE(False).get_auth_response()


@pytest.mark.parametrize(
    ("raised", "error"),
    [(EOFError, LoginRequired), (NotImplementedError, LoginRequired), (KeyboardInterrupt, KeyboardInterrupt)],
)
def test_an_input_that_ends_is_nobody(monkeypatch, raised, error):
    def end(prompt):
        raise raised

    monkeypatch.setattr("builtins.input", end)
    with pytest.raises(error):
        CartoPKCE(False).get_auth_response()


# ---- web apps ------------------------------------------------------------------------------------

OWN_PAGE = "https://maps.example.com/login"
OWN = Services(
    "https://sso.example.com/auth-api", "https://sso.example.com/accounts-api", "https://sso.example.com", "me"
)


@pytest.fixture
def services(requests_mock, browser, person):
    """The services of CARTO and of OWN; nobody is talked to."""
    asked = person()
    for each in (Services(), OWN):
        requests_mock.post(each.token_url, **TOKEN)
        requests_mock.get(f"{each.accounts_url}/accounts", json={"tenant_domain": "acme.app.carto.com"})
    requests_mock.get(
        "https://acme.app.carto.com/config.yaml", text="apis:\n  baseUrl: https://gcp-us-east1.api.carto.com\n"
    )
    yield requests_mock
    assert (asked, browser.opened) == ([], [])


def test_a_pending_login_sends_to_the_code_page(services, capsys):
    pending = CartoAuth.begin_oauth(org="org_1")
    sent = query(pending.url)
    assert pending.url.startswith(f"{pkce.OAUTH_AUTHORIZE_URL}?")
    assert (sent["redirect_uri"], sent["state"], sent["organization"]) == (CODE_PAGE, pending.state, "org_1")
    assert len(pending.state) >= 43
    auth = pending.finish(" a-code ")
    assert type(auth) is CartoAuth
    assert (auth.get_access_token(), auth.get_api_base_url()) == ("a-token", "https://gcp-us-east1.api.carto.com")
    assert auth._org == "org_1"
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("page", [OWN_PAGE, f"{OWN_PAGE}?page=map"])
@pytest.mark.parametrize("services_of", [OWN, Services(client_id="an SPA OAuth client")])
def test_a_pending_login_with_a_page_of_the_apps_own(services, page, services_of):
    pending = CartoAuth.begin_oauth(redirect_uri=page, services=services_of)
    assert query(pending.url)["redirect_uri"] == page
    more = urlencode({"code": "a-code", "state": pending.state, "iss": services_of.auth_url})
    assert pending.finish(f"{page}{'&' if '?' in page else '?'}{more}").get_access_token() == "a-token"
    form = parse_qs(services.request_history[0].text)
    assert (form["redirect_uri"], form["client_id"]) == ([page], [services_of.client_id])


@pytest.mark.parametrize("address", ["http://maps.example.com/login", "maps.example.com", f"{OWN_PAGE}#top", 5])
def test_a_redirect_uri_must_be_safe(address):
    with pytest.raises(UntrustedAddress):
        CartoAuth.begin_oauth(redirect_uri=address)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ("", "No code"),
        (f"{OWN_PAGE}?code=a-code", "another login"),
        ("https://evil.example/login?code=a-code&state={state}", "not CARTO's"),
        (f"{OWN_PAGE}?code=a-code&state={{state}}&iss=https://evil.example", "another login service"),
    ],
)
def test_a_wrong_answer_leaves_the_login_waiting(services, wrong, reason):
    pending = CartoAuth.begin_oauth(redirect_uri=OWN_PAGE, services=OWN)
    with pytest.raises(LoginFailed, match=reason):
        pending.finish(wrong.format(state=pending.state))
    assert services.call_count == 0
    assert pending.finish(f"{OWN_PAGE}?code=a-code&state={pending.state}")


def test_a_refusal_ends_a_pending_login(services):
    pending = CartoAuth.begin_oauth(redirect_uri=OWN_PAGE, services=OWN)
    with pytest.raises(LoginDenied, match="Ana said no"):
        pending.finish(f"{OWN_PAGE}?error=access_denied&error_description=Ana+said+no&state={pending.state}")
    with pytest.raises(LoginFailed, match="already been answered"):
        pending.finish("a-code")


def test_a_pending_login_never_asks(services):
    """An app may have found no code at all in what came back."""
    with pytest.raises(LoginFailed, match="No code"):
        CartoAuth.begin_oauth().finish(None)


def test_a_pending_login_travels_to_another_process(services):
    pending = pickle.loads(pickle.dumps(CartoAuth.begin_oauth()))
    assert pending.finish(f"{CODE_PAGE}?code=a-code&state={pending.state}").get_access_token() == "a-token"


def test_a_web_apps_account_asks_nobody_at_its_end_and_is_kept_nowhere(services, monkeypatch, tmp_path):
    monkeypatch.setenv("CARTO_AUTH_HOME", str(tmp_path))
    auth = CartoAuth.begin_oauth().finish("a-code")
    auth._expiration = 1
    with pytest.raises(LoginRequired):
        auth.get_access_token()
    assert list(tmp_path.iterdir()) == []
