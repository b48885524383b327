"""The authorization code grant with PKCE, piece by piece: what is sent, what is taken, what a person is told."""

import functools
import pickle
import socket
import sys
import threading
import webbrowser
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

import pytest

from carto_auth import CartoAuth, _surroundings, pkce
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
ISSUER = "https://auth.carto.com"


class Person:
    """Stands in for ``CartoPKCE._input``: remembers what was asked, and gives one answer after the other."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.prompts = []

    def __call__(self, login, prompt):
        self.prompts.append(prompt)
        answer = self.answers.pop(0)
        return answer(login) if callable(answer) else answer

    def __get__(self, login, owner=None):
        return self if login is None else lambda prompt: self(login, prompt)


@pytest.fixture
def person(monkeypatch):
    def sit_down(*answers):
        person = Person(*answers)
        monkeypatch.setattr(CartoPKCE, "_input", person)
        return person

    return sit_down


@pytest.fixture
def no_browser(monkeypatch):
    monkeypatch.setattr(webbrowser, "open", lambda url: False)


def query(url):
    return dict(parse_qsl(urlsplit(url).query))


def links_in(text):
    return [word for word in text.split() if word.startswith("https://auth.carto.com/authorize?")]


# ---- RFC 7636 ------------------------------------------------------------------------------------


def test_code_challenge_of_rfc_7636_appendix_b():
    verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
    assert pkce.code_challenge(verifier) == "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"


def test_a_state_has_256_bits_and_a_new_one_for_each_attempt():
    login, states = CartoPKCE(), set()
    for _ in range(5):
        login.get_pkce_handshake_parameters()
        states.add(query(login.get_authorize_url())["state"])
    assert len(states) == 5
    assert all(len(state) >= 43 for state in states)


# ---- copy-paste ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pasted", ["a-code", "  a-code \n", '"a-code"', "'a-code'", "`a-code`", "<a-code>", "\ta-code"]
)
def test_blanks_and_quotes_around_a_code(person, pasted):
    person(pasted)
    assert CartoPKCE(open_browser=False).get_auth_response() == "a-code"


def answered(**parameters):
    """The address of the code page after a login; ``None`` leaves a parameter out."""

    def address(login):
        told = {"code": "a-code", "state": login._state} | parameters
        return f"{CODE_PAGE}?{urlencode({name: value for name, value in told.items() if value is not None})}"

    return address


@pytest.mark.parametrize(
    "address",
    [
        answered(),
        lambda login: f' "{answered()(login)}" ',
        lambda login: f"{answered()(login)}#top",
        answered(state=None),
        answered(iss=f"{ISSUER}/"),
        lambda login: answered()(login).replace("/token?", "/token/?"),
        lambda login: answered()(login).replace(CODE_PAGE, pkce.REDIRECT_URI),
    ],
)
def test_the_whole_address_is_as_good_as_the_code(person, address):
    asked = person(address)
    assert CartoPKCE(open_browser=False).get_auth_response() == "a-code"
    assert len(asked.prompts) == 1


WRONG = {
    "another site": (lambda login: answered()(login).replace("app.carto.com", "evil.example"), "another page than"),
    "a site in front": (lambda login: answered()(login).replace("carto.com", "carto.com.evil.example"), "another page"),
    "another page": (lambda login: answered()(login).replace("/auth/token", "/auth/token/more"), "another page than"),
    "no TLS": (lambda login: answered()(login).replace("https", "http"), "another page than"),
    "the link itself": (CartoPKCE.get_authorize_url, "another page than"),
    "foreign state": (answered(state="foreign"), "another login than"),
    "empty state": (answered(state=""), "another login than"),
    "two codes": (lambda login: f"{answered()(login)}&code=b-code", "the same thing twice"),
    "another issuer": (answered(iss="https://evil.example"), "another login service"),
    "no code": (answered(code=None), "holds no code"),
    "a sentence": ("this is no code", "no access code"),
    "not ASCII": ("cödé", "no access code"),
    "nothing": ("", "No code was entered"),
    "blanks": ("   ", "No code was entered"),
    "quotes": ('""', "No code was entered"),
    "half a character": ("\udc80", "no access code"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_answer_is_asked_for_again_with_the_reason(person, name):
    wrong, reason = WRONG[name]
    asked = person(wrong, wrong, "a-code")
    assert CartoPKCE(open_browser=False).get_auth_response() == "a-code"
    assert len(asked.prompts) == 3
    assert reason in asked.prompts[1]
    assert reason in asked.prompts[2]


@pytest.mark.parametrize("name", WRONG)
def test_three_wrong_answers_are_enough(person, name):
    wrong, reason = WRONG[name]
    asked = person(wrong, wrong, wrong)
    with pytest.raises(LoginFailed, match=reason):
        CartoPKCE(open_browser=False).get_auth_response()
    assert len(asked.prompts) == 3


def test_the_address_of_a_refusal_ends_the_login_with_its_reason(person):
    asked = person(answered(code=None, error="access_denied", error_description="Ana said no."))
    with pytest.raises(LoginDenied, match=r"CARTO did not log you in: Ana said no\. Try again") as denied:
        CartoPKCE(open_browser=False).get_auth_response()
    assert (denied.value.error, denied.value.error_description) == ("access_denied", "Ana said no")
    assert len(asked.prompts) == 1


@pytest.mark.parametrize("name", WRONG)
def test_a_response_that_was_given_is_checked_as_well(name):
    wrong, reason = WRONG[name]
    login = CartoPKCE(open_browser=False)
    login.get_authorize_url()
    with pytest.raises(LoginFailed, match=reason):
        login.get_authorization_code(wrong(login) if callable(wrong) else wrong)


def test_the_prompt_names_cartos_site_and_warns(person):
    asked = person("a-code")
    login = CartoPKCE(open_browser=False)
    login.get_auth_response()
    (prompt,) = asked.prompts
    assert "https://app.carto.com page" in prompt
    assert "Never give it to anybody else" in prompt
    assert links_in(prompt) == [login.get_authorize_url()]


def test_a_refused_code_begins_a_fresh_attempt(person, requests_mock, monkeypatch):
    refusal = {"status_code": 403, "json": {"error": "invalid_grant", "error_description": "Too late"}}
    token = {"json": {"access_token": "a-token", "expires_in": 60}}
    requests_mock.post(pkce.OAUTH_TOKEN_URL, [refusal, refusal, token])
    asked = person("first", "second", "third")
    assert CartoPKCE(open_browser=False).get_token_info()["access_token"] == "a-token"
    assert "Too late" in asked.prompts[1]
    sent = [query(links_in(prompt)[0]) for prompt in asked.prompts]
    assert len({each["state"] for each in sent}) == 3
    forms = [
        {name: values[0] for name, values in parse_qs(each.text).items()} for each in requests_mock.request_history
    ]
    for form, attempt, code in zip(forms, sent, ("first", "second", "third"), strict=True):
        assert form["code"] == code
        assert form["redirect_uri"] == attempt["redirect_uri"] == CODE_PAGE
        assert pkce.code_challenge(form["code_verifier"]) == attempt["code_challenge"]


def test_a_login_whose_input_is_its_own():
    class Asked(CartoPKCE):
        def _input(self, prompt):
            return "a-code"

    assert Asked(open_browser=False).get_auth_response() == "a-code"
    login = CartoPKCE(open_browser=False)
    login._input = lambda prompt: "another-code"
    assert login.get_auth_response() == "another-code"


def test_a_refused_code_is_not_sent_again(person, requests_mock):
    """It is on the clipboard still."""
    refusal = {"status_code": 403, "json": {"error": "invalid_grant"}}
    requests_mock.post(pkce.OAUTH_TOKEN_URL, [refusal, {"json": {"access_token": "a-token", "expires_in": 60}}])
    asked = person("first", "first", "second")
    assert CartoPKCE(open_browser=False).get_token_info()["access_token"] == "a-token"
    assert [parse_qs(each.text)["code"] for each in requests_mock.request_history] == [["first"], ["second"]]
    assert asked.prompts[2] == "That code was refused before. Access code: "


def test_three_refused_codes_are_enough(person, requests_mock):
    requests_mock.post(pkce.OAUTH_TOKEN_URL, status_code=403, json={"error": "invalid_grant"})
    asked = person("first", "second", "third", "fourth")
    with pytest.raises(Unauthorized, match="begin a new login"):
        CartoPKCE(open_browser=False).get_token_info()
    assert len(asked.prompts) == 3


def test_after_a_refused_code_the_browser_that_is_missing_is_not_tried_again(
    person, requests_mock, monkeypatch, callback_port
):
    tried = []
    monkeypatch.setattr(webbrowser, "open", lambda url: bool(tried.append(url)))
    refusal = {"status_code": 403, "json": {"error": "invalid_grant"}}
    requests_mock.post(pkce.OAUTH_TOKEN_URL, [refusal, {"json": {"access_token": "a-token", "expires_in": 60}}])
    asked = person("first", "second")
    CartoPKCE().get_token_info()
    assert (len(tried), len(asked.prompts)) == (1, 2)


def test_another_refusal_is_not_the_persons_fault(person, requests_mock):
    requests_mock.post(pkce.OAUTH_TOKEN_URL, status_code=401, json={"error": "access_denied"})
    asked = person("first", "second")
    with pytest.raises(Unauthorized):
        CartoPKCE(open_browser=False).get_token_info()
    assert len(asked.prompts) == 1


# ---- from the browser to copy-paste --------------------------------------------------------------


def assert_new_attempt(first_url, prompt):
    (second_url,) = links_in(prompt)
    first, second = query(first_url), query(second_url)
    assert first["redirect_uri"] == pkce.REDIRECT_URI
    assert second["redirect_uri"] == CODE_PAGE
    assert first["state"] != second["state"]
    assert first["code_challenge"] != second["code_challenge"]


def test_a_missing_browser(person, no_browser, capsys, callback_port):
    asked = person("a-code")
    assert CartoPKCE().get_auth_response() == "a-code"
    (shown,) = links_in(capsys.readouterr().out)
    assert asked.prompts[0].startswith("No browser could be opened")
    assert_new_attempt(shown, asked.prompts[0])


@pytest.mark.parametrize("error", [webbrowser.Error("none"), OSError("none")])
def test_a_browser_that_cannot_be_started(person, monkeypatch, callback_port, error):
    def fail(url):
        raise error

    monkeypatch.setattr(webbrowser, "open", fail)
    asked = person("a-code")
    assert CartoPKCE().get_auth_response() == "a-code"
    assert asked.prompts[0].startswith("No browser could be opened")


def test_a_replaced_browser_that_ends_the_program(monkeypatch, callback_port):
    def end(url):
        raise SystemExit

    monkeypatch.setattr(webbrowser, "open", end)
    with pytest.raises(SystemExit):
        CartoPKCE().get_auth_response()


@pytest.mark.parametrize("returned", [None, True])
def test_a_replaced_browser_that_opens_something(monkeypatch, callback_port, returned):
    """Many return nothing, since carto-auth 0.2.0 does not ask what they return."""

    def opened(url):
        threading.Thread(target=come_back, args=(url,)).start()
        return returned

    def come_back(url):
        state = query(url)["state"]
        with socket.create_connection(("127.0.0.1", callback_port), timeout=5) as connection:
            connection.sendall(
                f"GET /callback/?code=a-code&state={state} HTTP/1.1\r\nHost: localhost:10000\r\n\r\n".encode()
            )
            connection.recv(100)

    monkeypatch.setattr(webbrowser, "open", functools.wraps(webbrowser.open)(opened))
    assert CartoPKCE(timeout=20).get_auth_response() == "a-code"


def test_a_busy_port(person, monkeypatch, callback_port):
    monkeypatch.setattr(webbrowser, "open", lambda url: pytest.fail("a browser was opened"))
    asked = person("a-code")
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", callback_port))
        other.listen()
        assert CartoPKCE().get_auth_response() == "a-code"
    assert asked.prompts[0].startswith("Another program or login is using port 10000")
    assert "by hand" in asked.prompts[0]
    assert query(links_in(asked.prompts[0])[0])["redirect_uri"] == CODE_PAGE


def test_a_busy_port_without_a_person(monkeypatch, callback_port):
    with (
        socket.create_server(("127.0.0.1", callback_port)),
        pytest.raises(LoginRequired, match=r"^Another program or login is using port 10000.*from_m2m"),
    ):
        CartoPKCE().get_auth_response()


def test_a_computer_without_loopback(person, monkeypatch):
    from carto_auth import _loopback

    def none(port, callback):
        raise OSError

    monkeypatch.setattr(_loopback, "_listen", none)
    asked = person("a-code")
    assert CartoPKCE().get_auth_response() == "a-code"
    assert asked.prompts[0].startswith("This computer does not let your browser bring the login back")


def test_a_timeout_says_what_to_do(monkeypatch, callback_port):
    monkeypatch.setattr(webbrowser, "open", lambda url: True)
    with pytest.raises(LoginTimedOut, match=r"within 0\.05 s\. Try again, with open_browser=False if"):
        CartoPKCE(timeout=0.05).get_auth_response()


def test_the_link_is_shown_before_the_browser_is_opened(monkeypatch, capsys, callback_port):
    seen = []

    def opened(url):
        seen.append((url, capsys.readouterr().out))
        with socket.create_connection(("127.0.0.1", callback_port), timeout=5):
            return True  # ... and the port is bound before that

    monkeypatch.setattr(webbrowser, "open", opened)
    with pytest.raises(LoginTimedOut):
        CartoPKCE(timeout=0.2).get_auth_response()
    ((url, shown),) = seen
    assert links_in(shown) == [url]


@pytest.mark.parametrize("explicit", [True, False])
def test_an_explicit_argument_beats_detection(person, monkeypatch, callback_port, explicit):
    monkeypatch.setitem(sys.modules, "google.colab", None)
    opened = []
    monkeypatch.setattr(webbrowser, "open", lambda url: bool(opened.append(url)))
    person("a-code")
    login = CartoPKCE()
    assert login.open_browser is False
    login.get_auth_response(open_browser=explicit)
    assert bool(opened) is explicit


@pytest.mark.parametrize(
    ("timeout", "error"),
    [(None, TypeError), ("5", TypeError), (True, TypeError), (-1, ValueError), (float("nan"), TypeError)],
)
def test_a_timeout_that_is_none(timeout, error):
    for asked in (lambda: CartoPKCE(timeout=timeout), lambda: CartoAuth("oauth", timeout=timeout)):
        with pytest.raises(error, match=r"^timeout must be seconds"):
            asked()


@pytest.mark.parametrize("address", ["http://evil.example", "javascript:alert(1)", "https://u:p@evil.example"])
@pytest.mark.parametrize("service", ["auth_url", "app_url"])
def test_nobody_is_sent_to_an_address_that_is_not_secure(address, service):
    with pytest.raises(UntrustedAddress):
        CartoPKCE(services=Services(**{service: address}))


# ---- nobody --------------------------------------------------------------------------------------


@pytest.mark.parametrize("open_browser", [True, False])
@pytest.mark.parametrize("ci", ["", "true"])
def test_without_a_person_it_says_so_at_once(no_browser, monkeypatch, capsys, callback_port, open_browser, ci):
    monkeypatch.setenv("CI", ci)
    with pytest.raises(LoginRequired, match="from_m2m"):
        CartoPKCE(open_browser=open_browser).get_auth_response()
    shown = capsys.readouterr().out
    assert "Access code" not in shown
    if ci or not open_browser:
        assert shown == ""


def test_not_interactive_asks_nobody(person, monkeypatch):
    monkeypatch.setattr(webbrowser, "open", lambda url: pytest.fail("a browser was opened"))
    person()
    with pytest.raises(LoginRequired, match="from_m2m"):
        CartoPKCE(interactive=False).get_auth_response()


def test_interactive_asks_where_nobody_seems_to_be(monkeypatch):
    monkeypatch.setattr("builtins.input", lambda prompt: "a-code")
    monkeypatch.setattr(_surroundings, "can_ask", lambda: False)
    assert CartoPKCE(False, interactive=True).get_auth_response() == "a-code"
    with pytest.raises(LoginRequired):
        CartoPKCE(False).get_auth_response()


@pytest.mark.parametrize("error", [EOFError, NotImplementedError])
def test_an_input_that_ends_is_nobody(monkeypatch, error):
    def fail(prompt):
        raise error

    monkeypatch.setattr("builtins.input", fail)
    monkeypatch.setattr(_surroundings, "can_ask", lambda: True)
    with pytest.raises(LoginRequired, match="from_m2m"):
        CartoPKCE(False).get_auth_response()


def test_ctrl_c_at_the_prompt(monkeypatch):
    def interrupt(prompt):
        raise KeyboardInterrupt

    monkeypatch.setattr("builtins.input", interrupt)
    monkeypatch.setattr(_surroundings, "can_ask", lambda: True)
    with pytest.raises(KeyboardInterrupt):
        CartoPKCE(False).get_auth_response()


# ---- web apps ------------------------------------------------------------------------------------

OWN_PAGE = "https://maps.example.com/login"
OWN = Services(
    "https://sso.example.com/auth-api", "https://sso.example.com/accounts-api", "https://sso.example.com", "me"
)


@pytest.fixture
def services(requests_mock):
    requests_mock.post(pkce.OAUTH_TOKEN_URL, json={"access_token": "a-token", "expires_in": 60})
    requests_mock.post(OWN.token_url, json={"access_token": "a-token", "expires_in": 60})
    for accounts in ("https://accounts.app.carto.com", OWN.accounts_url):
        requests_mock.get(f"{accounts}/accounts", json={"tenant_domain": "acme.app.carto.com"})
    requests_mock.get(
        "https://acme.app.carto.com/config.yaml", text="apis:\n  baseUrl: https://gcp-us-east1.api.carto.com\n"
    )
    return requests_mock


@pytest.fixture(autouse=True)
def nobody_is_talked_to(monkeypatch, request):
    """Of the web apps' functions: no browser, no prompt."""
    if "services" in request.fixturenames:
        monkeypatch.setattr(webbrowser, "open", lambda url: pytest.fail("a browser was opened"))
        monkeypatch.setattr(CartoPKCE, "_input", lambda self, prompt: pytest.fail("somebody was asked"))


def test_a_pending_login_sends_to_the_code_page(services, capsys):
    pending = CartoAuth.begin_oauth(org="org_1")
    sent = query(pending.url)
    assert pending.url.startswith(f"{pkce.OAUTH_AUTHORIZE_URL}?")
    assert (sent["redirect_uri"], sent["state"], sent["organization"]) == (CODE_PAGE, pending.state, "org_1")
    auth = pending.finish(" a-code ")
    assert type(auth) is CartoAuth
    assert (auth.get_access_token(), auth.get_api_base_url()) == ("a-token", "https://gcp-us-east1.api.carto.com")
    assert auth._org == "org_1"
    assert capsys.readouterr() == ("", "")


def test_a_pending_login_with_a_page_of_the_apps_own(services):
    pending = CartoAuth.begin_oauth(redirect_uri=OWN_PAGE, services=OWN)
    assert query(pending.url)["redirect_uri"] == OWN_PAGE
    answer = f"{OWN_PAGE}?{urlencode({'code': 'a-code', 'state': pending.state, 'iss': OWN.auth_url})}"
    assert pending.finish(answer).get_access_token() == "a-token"
    form = parse_qs(services.request_history[0].text)
    assert (form["redirect_uri"], form["client_id"]) == ([OWN_PAGE], ["me"])


def test_a_redirect_uri_with_a_query_of_its_own(services):
    pending = CartoAuth.begin_oauth(redirect_uri=f"{OWN_PAGE}?page=map", services=OWN)
    answer = f"{OWN_PAGE}?page=map&code=a-code&state={pending.state}"
    assert pending.finish(answer).get_access_token() == "a-token"


@pytest.mark.parametrize("address", ["http://maps.example.com/login", "maps.example.com", f"{OWN_PAGE}#top"])
def test_a_redirect_uri_must_be_safe(address):
    with pytest.raises(UntrustedAddress):
        CartoAuth.begin_oauth(redirect_uri=address)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ("", "No code"),
        (f"{OWN_PAGE}?code=a-code", "another login"),
        (f"{OWN_PAGE}?code=a-code&state=foreign", "another login"),
        ("https://evil.example/login?code=a-code&state={state}", "another page"),
        (f"{OWN_PAGE}?code=a-code&state={{state}}&iss=https://evil.example", "another login service"),
        (f"{OWN_PAGE}?code=a-code&code=b-code&state={{state}}", "twice"),
        (f"{OWN_PAGE}?state={{state}}", "no code"),
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
    with pytest.raises(LoginFailed, match="answered before"):
        pending.finish("a-code")


def test_a_refused_code_ends_a_pending_login(services):
    services.post(pkce.OAUTH_TOKEN_URL, status_code=403, json={"error": "invalid_grant"})
    pending = CartoAuth.begin_oauth()
    with pytest.raises(Unauthorized):
        pending.finish("a-code")
    with pytest.raises(LoginFailed, match="answered before"):
        pending.finish("a-code")


def test_a_pending_login_never_asks(services):
    with pytest.raises(LoginRequired):
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
