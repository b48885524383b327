"""Whole logins against the sandbox, over real sockets, from the first call to the token."""

import contextlib
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
import webbrowser
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
import requests
from servers import wait_for

from carto_auth import CartoAuth
from carto_auth.cache import get_cache_filepath
from carto_auth.errors import (
    CredentialsError,
    LoginDenied,
    LoginFailed,
    LoginRequired,
    LoginTimedOut,
    ServerError,
    TenantNotFound,
    Unauthorized,
)
from carto_auth.pkce import REDIRECT_URI, CartoPKCE, revoke_refresh_token
from carto_auth.sandbox.walker import walk_login

#: Seconds that "at once" may take on a machine that is busy with other things.
AT_ONCE = 5.0


class Browser:
    """Stands in for ``webbrowser.open``: does ``walk`` with the link, and counts."""

    def __init__(self):
        self.opened = []
        self.walk = walk_login

    def open(self, url):
        self.opened.append(url)
        self.walk(url)
        return True


@pytest.fixture
def browser(monkeypatch):
    browser = Browser()
    monkeypatch.setattr(webbrowser, "open", browser.open)
    return browser


@pytest.fixture
def person(monkeypatch):
    """Somebody at the prompt: each prompt is given to ``answer``."""

    def sit_down(answer):
        prompts = []
        monkeypatch.setattr(CartoPKCE, "_input", lambda self, prompt: prompts.append(prompt) or answer(prompt))
        return prompts

    return sit_down


def link_in(text):
    (link,) = (word for word in text.split() if "/authorize?" in word)
    return link


def query(url):
    return dict(parse_qsl(urlsplit(url).query))


def address_after(url):
    """The address at which the browser ends: as ``walk_login``, which returns the code in it."""
    sent = query(url)
    return f"{sent['redirect_uri']}?{urlencode({'code': walk_login(url), 'state': sent['state']})}"


def assert_port_is_free(port):
    """At once after a login that failed, and a moment after one whose page may be loaded again."""

    def is_free():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            probe.listen()
        return True

    def is_free_now():
        with contextlib.suppress(OSError):
            return is_free()

    wait_for(is_free_now, AT_ONCE)


# ---- by the browser ------------------------------------------------------------------------------


def test_a_login_by_the_browser(carto_sandbox, browser, callback_port, capsys):
    auth = CartoAuth.from_oauth()
    assert auth.get_api_base_url() == carto_sandbox.url
    assert auth.get_carto_dw_credentials()[1].startswith("ya29.")
    assert link_in(capsys.readouterr().out) == browser.opened[0]
    assert_port_is_free(callback_port)
    CartoAuth.from_oauth()
    assert len(browser.opened) == 1


def test_the_answer_counts_although_the_browser_never_ends(carto_sandbox, browser, callback_port):
    closed = threading.Event()

    def walk_and_stay(url):
        walk_login(url)
        closed.wait(60)

    browser.walk = walk_and_stay
    began = time.monotonic()
    assert CartoAuth.from_oauth().get_access_token()
    assert time.monotonic() - began < AT_ONCE
    closed.set()


def test_a_browser_that_never_ends_does_not_move_the_deadline(carto_sandbox, browser, callback_port):
    closed = threading.Event()
    browser.walk = lambda url: closed.wait(60)
    began = time.monotonic()
    with pytest.raises(LoginTimedOut, match="open_browser=False"):
        CartoAuth.from_oauth(timeout=0.2)
    assert time.monotonic() - began < AT_ONCE
    closed.set()
    browser.walk = walk_login
    assert CartoAuth.from_oauth().get_access_token()  # nothing of the first is left


def test_cancel_on_the_consent_page(carto_sandbox, browser, callback_port, person):
    asked = person(lambda prompt: pytest.fail("a denial was followed by a prompt"))
    browser.walk = lambda url: walk_login(url, approve=False)
    with pytest.raises(LoginDenied, match=r"did not authorize.* \(access_denied\)\. Try again, and") as denied:
        CartoAuth.from_oauth()
    assert (denied.value.error, asked) == ("access_denied", [])
    assert_port_is_free(callback_port)


def test_hostile_requests_do_not_end_the_login(carto_sandbox, browser, callback_port):
    """What any web page, port scan or person's own browser may send before the real callback comes."""
    statuses = []

    def walk(url):
        with contextlib.ExitStack() as stack:
            for _ in range(50):
                stack.enter_context(socket.create_connection(("127.0.0.1", callback_port)))
            callback = f"http://localhost:{callback_port}/callback/"
            state = query(url)["state"]
            for method, address, headers in [
                ("GET", f"http://localhost:{callback_port}/favicon.ico", {}),
                ("GET", callback, {}),
                ("GET", f"{callback}?code=evil", {}),
                ("GET", f"{callback}?code=evil&state=evil", {}),
                ("GET", f"{callback}?code=evil&state={state}&state={state}", {}),
                ("GET", f"{callback}?code=evil&state={state}", {"Host": "evil.example"}),
                ("POST", f"{callback}?code=evil&state={state}", {}),
                ("HEAD", f"{callback}?code=evil&state={state}", {}),
                ("OPTIONS", f"{callback}?code=evil&state={state}", {"Origin": "https://evil.example"}),
            ]:
                with requests.Session() as session:
                    session.trust_env = False
                    statuses.append(session.request(method, address, headers=headers, timeout=10).status_code)
            walk_login(url)

    browser.walk = walk
    began = time.monotonic()
    assert CartoAuth.from_oauth().get_access_token()
    assert time.monotonic() - began < 2 * AT_ONCE
    assert statuses == [404, 400, 400, 400, 400, 404, 405, 405, 405]


def test_injected_codes_are_worth_nothing(carto_sandbox, browser, callback_port):
    def walk(url):
        injected = {"code": code, "state": query(url)["state"]} | more
        requests.get(f"http://localhost:{callback_port}/callback/", params=injected, timeout=10)

    browser.walk = walk
    code, more = "evil", {"iss": "https://evil.example"}
    with pytest.raises(LoginDenied, match="another login service"):
        CartoAuth.from_oauth()
    assert carto_sandbox.count("/oauth/token") == 0
    # A code that somebody else's login gave cannot be exchanged with this attempt's verifier (RFC 7636).
    code, more = walk_login(CartoPKCE(open_browser=False).get_authorize_url()), {}
    with pytest.raises(Unauthorized):
        CartoAuth.from_oauth()


def run_python(text, sandbox, tmp_path, **options):
    environment = {name: value for name, value in os.environ.items() if name != "CI"}
    environment |= sandbox.environment() | {"HOME": str(tmp_path), "CARTO_AUTH_HOME": str(tmp_path / "cache")}
    return subprocess.Popen(
        [sys.executable, "-c", text],
        env=environment | options.pop("env", {}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


WALKER = f"{shlex.quote(sys.executable)} -m carto_auth.sandbox.walker %s"
LOG_IN = "from carto_auth import CartoAuth; print(CartoAuth.from_oauth(timeout=20).get_api_base_url())"


def test_a_named_browser_in_a_process_of_its_own(carto_sandbox, tmp_path, callback_port):
    with run_python(
        LOG_IN, carto_sandbox, tmp_path, env={"BROWSER": WALKER, "SSH_TTY": "/dev/pts/0", "DISPLAY": ":0"}
    ) as process:
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert out.splitlines()[-1] == carto_sandbox.url


def test_without_a_person_a_script_ends_at_once(carto_sandbox, tmp_path, callback_port):
    with run_python(LOG_IN, carto_sandbox, tmp_path, env={"BROWSER": ""}) as process:
        out, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "LoginRequired: " in err
    assert "A CARTO login needs a person" in err
    assert "CartoAuth.from_m2m" in err
    assert "Access code" not in out


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGINT to send")
def test_ctrl_c_ends_the_wait_for_the_browser_at_once(carto_sandbox, tmp_path, callback_port):
    sleeper = f"{shlex.quote(sys.executable)} -c 'import time; time.sleep(60)' %s"
    # In the background of a shell, SIGINT is ignored from the start.
    text = f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler); {LOG_IN}"
    with run_python(
        text, carto_sandbox, tmp_path, env={"BROWSER": sleeper, "DISPLAY": ":0"}, start_new_session=True
    ) as process:
        for line in process.stdout:
            if "/authorize?" in line:
                break
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        process.wait(timeout=20)
        took = time.monotonic() - began
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # the "browser", which goes on as browsers do
        _, err = process.communicate(timeout=20)
    assert took < AT_ONCE
    assert "KeyboardInterrupt" in err
    assert_port_is_free(callback_port)


# ---- by hand -------------------------------------------------------------------------------------


@pytest.mark.parametrize("pasted", [walk_login, address_after], ids=["code", "address"])
def test_a_login_by_hand(carto_sandbox, person, pasted):
    asked = person(lambda prompt: f" '{pasted(link_in(prompt))}' ")
    auth = CartoAuth.from_oauth(open_browser=False)
    assert auth.get_api_base_url() == carto_sandbox.url
    assert len(asked) == 1
    assert f"Copy the code from the {carto_sandbox.url} page" in asked[0]


# ---- web apps ------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [walk_login, address_after], ids=["code", "address"])
def test_a_web_app(carto_sandbox, answer, tmp_path):
    pending = CartoAuth.begin_oauth()
    auth = pending.finish(answer(pending.url))
    assert auth.get_api_base_url() == carto_sandbox.url
    assert auth.get_carto_dw_credentials()
    assert not list(tmp_path.rglob("token_*"))


def test_a_web_app_with_two_people(carto_sandbox):
    ana, bob = CartoAuth.begin_oauth(), CartoAuth.begin_oauth()
    for_ana, for_bob = address_after(ana.url), address_after(bob.url)
    with pytest.raises(LoginFailed, match="another login"):
        ana.finish(for_bob)
    one, two = bob.finish(for_bob), ana.finish(for_ana)
    assert one.get_access_token() != two.get_access_token()


def test_a_slip_does_not_burn_a_web_apps_login_and_no_code_is_sent_twice(carto_sandbox):
    pending = CartoAuth.begin_oauth()
    with pytest.raises(Unauthorized):
        pending.finish("a-typo")
    code = walk_login(pending.url)
    carto_sandbox.outage = {"/oauth/token": 503}
    with pytest.raises(ServerError):
        pending.finish(code)
    carto_sandbox.outage = None
    before = carto_sandbox.count("/oauth/token")
    with pytest.raises(LoginFailed, match="already been answered"):
        pending.finish(code)
    assert carto_sandbox.count("/oauth/token") == before
    assert pending.finish(walk_login(pending.url)).get_access_token()


@pytest.mark.parametrize("answer", [walk_login, address_after], ids=["code", "address"])
def test_a_web_apps_login_answers_once_and_only_the_same_answer_finds_the_base_url_later(carto_sandbox, answer):
    carto_sandbox.has_tenant = False
    pending, other = CartoAuth.begin_oauth(org="acme"), CartoAuth.begin_oauth()
    right = answer(pending.url)
    wrong = ["", "another-code", answer(other.url), "https://evil.example/?code=x&state=y"]
    with pytest.raises(TenantNotFound, match=f"/sso/{carto_sandbox.organization_id} once"):
        pending.finish(right)
    carto_sandbox.has_tenant = True
    for one in wrong:
        with pytest.raises(LoginFailed):
            pending.finish(one)
    assert pending.finish(right).get_api_base_url() == carto_sandbox.url
    for one in [*wrong, right]:
        with pytest.raises(LoginFailed, match="already been answered"):
            pending.finish(one)
    assert carto_sandbox.count("/oauth/token") == 1


# ---- single sign-on ------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["name", "id"])
def test_an_organization(carto_sandbox, browser, callback_port, by):
    org = carto_sandbox.organization_name if by == "name" else carto_sandbox.organization_id
    CartoAuth.from_oauth(org=org)
    assert query(browser.opened[0])["organization"] == carto_sandbox.organization_id
    assert carto_sandbox.count("/accounts/acme/auth0_org_id") == (1 if by == "name" else 0)


@pytest.mark.parametrize("open_browser", [True, False])
def test_an_organization_without_sso_has_the_usual_login_and_one_line_says_so(
    carto_sandbox, browser, person, callback_port, capsys, open_browser
):
    asked = person(lambda prompt: walk_login(link_in(prompt)))
    auth = CartoAuth.from_oauth(org="no SSO", open_browser=open_browser)
    assert auth.get_api_base_url() == carto_sandbox.url
    (line,) = [line for line in (capsys.readouterr().out + "".join(asked)).splitlines() if "no SSO" in line]
    assert line == (
        "CARTO knows no organization with single sign-on called 'no SSO', so this is the usual login. "
        "If that is a typing error, stop and correct it."
    )
    assert "organization" not in query(link_in("".join(browser.opened or asked)))
    assert carto_sandbox.count("/accounts/no SSO/auth0_org_id") == 1
    assert CartoAuth.from_oauth(org="no SSO", interactive=False).get_access_token() == auth.get_access_token()
    assert [CartoAuth.begin_oauth(org=org).notice for org in ("no SSO", "acme", "org_1", None)] == [line, "", "", ""]


@pytest.mark.parametrize("org", ["org_other", "a typing error"])
def test_a_login_to_another_organization_than_the_one_asked_for_is_told_and_not_kept(
    carto_sandbox, browser, callback_port, org
):
    """As where the browser still has a login, or the organization's id is of another CARTO."""
    browser.walk = lambda url: walk_login(swap_organization(url, carto_sandbox.organization_id))
    with pytest.raises(LoginFailed, match=f"another organization .{carto_sandbox.organization_id}. than .*{org!r}"):
        CartoAuth.from_oauth(org=org)
    assert not get_cache_filepath("oauth").exists()


def swap_organization(url, organization):
    sent = query(url) | {"organization": organization}
    return f"{url.partition('?')[0]}?{urlencode(sent)}"


def test_a_first_time_sso_user_is_told_what_to_visit_and_keeps_the_token(carto_sandbox, browser, callback_port):
    carto_sandbox.has_tenant = False
    with pytest.raises(TenantNotFound) as told:
        CartoAuth.from_oauth(org="acme")
    assert (
        f"Visit {carto_sandbox.url}/sso/{carto_sandbox.organization_id} once, then try again; the login is kept."
        in str(told.value)
    )
    carto_sandbox.has_tenant = True
    assert CartoAuth.from_oauth(org="acme").get_api_base_url() == carto_sandbox.url
    assert len(browser.opened) == 1
    assert carto_sandbox.count("/oauth/token") == 1


def test_without_an_organization_the_sign_up_is_named(carto_sandbox, browser, callback_port):
    carto_sandbox.has_tenant = False
    with pytest.raises(TenantNotFound, match=r"Visit http://127\.0\.0\.1:\d+ once and finish the sign-up"):
        CartoAuth.from_oauth()


# ---- refresh tokens ------------------------------------------------------------------------------


@pytest.fixture
def day(clock):
    def later():
        clock.ahead += 86_400 + 60

    return later


def kept_refresh_token():
    """The refresh token in the default cache."""
    (entry,) = json.loads(get_cache_filepath("oauth").read_text())["tokens"].values()
    return entry.get("refresh_token")


def test_a_refresh_token_spares_the_next_logins_and_is_rotated(carto_sandbox, browser, callback_port, day):
    carto_sandbox.refresh_tokens = True
    auth, seen = CartoAuth.from_oauth(), set()
    for _ in range(3):
        seen.add(kept_refresh_token())
        before = auth.get_access_token()
        day()
        assert auth.get_access_token() != before
    assert len(seen) == 3
    day()
    assert CartoAuth.from_oauth(interactive=False).get_api_base_url() == carto_sandbox.url
    assert len(browser.opened) == 1


def test_a_client_that_may_have_refresh_tokens_asks_for_them(carto_sandbox, browser, callback_port, day, monkeypatch):
    """A person logs in once, and programs that start later, in other processes, renew that login."""
    monkeypatch.setenv("CARTO_AUTH_CLIENT_ID", carto_sandbox.add_web_application(REDIRECT_URI))
    CartoAuth.from_oauth()
    assert kept_refresh_token() is None  # nothing was asked for
    CartoAuth.from_oauth().logout()
    monkeypatch.setenv("CARTO_AUTH_SCOPE", "offline_access")
    auth = CartoAuth.from_oauth()
    for _ in range(2):
        day()
        auth.get_access_token()
    day()
    program = (
        "import sys, time\nreal = time.time\ntime.time = lambda: real() + float(sys.argv[1])\n"
        "from carto_auth import CartoAuth\nprint(CartoAuth.from_oauth(interactive=False).get_access_token())"
    )
    command = [sys.executable, "-c", program, str(time.time.ahead)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    assert auth.get_access_token() == printed.strip()  # which this process has not asked for
    assert (len(browser.opened), carto_sandbox.count("/oauth/token")) == (2, 2 + 3)


def test_a_refresh_token_at_its_end_is_tried_once_and_asks_for_a_login(carto_sandbox, browser, callback_port, day):
    carto_sandbox.refresh_tokens = True
    CartoAuth.from_oauth()
    revoke_refresh_token(kept_refresh_token())
    day()
    before = carto_sandbox.count("/oauth/token")
    for _ in range(3):
        with pytest.raises(LoginRequired):
            CartoAuth.from_oauth(interactive=False)
    assert carto_sandbox.count("/oauth/token") == before + 1
    assert CartoAuth.from_oauth().get_access_token()
    assert len(browser.opened) == 2


def test_a_rotated_refresh_token_is_kept_whatever_fails_afterwards(carto_sandbox, browser, callback_port, day):
    carto_sandbox.refresh_tokens, carto_sandbox.has_tenant = True, False
    with pytest.raises(TenantNotFound):
        CartoAuth.from_oauth()
    first = kept_refresh_token()
    day()
    carto_sandbox.outage = {"/accounts": 404}
    with pytest.raises(CredentialsError):
        CartoAuth.from_oauth(interactive=False)
    assert kept_refresh_token() != first
    carto_sandbox.outage, carto_sandbox.has_tenant = None, True
    day()
    assert CartoAuth.from_oauth(interactive=False).get_access_token()


def test_without_refresh_tokens_the_end_asks_for_a_login(carto_sandbox, browser, callback_port, day):
    auth = CartoAuth.from_oauth()
    assert kept_refresh_token() is None
    day()
    assert auth.get_access_token()
    assert len(browser.opened) == 2


def test_nobody_is_asked_ahead_of_the_end(carto_sandbox, browser, callback_port, clock):
    """The refresh token has ended, the access token has not: it is used to its real end."""
    carto_sandbox.refresh_tokens = True
    auth = CartoAuth.from_oauth()
    token = auth.get_access_token()
    revoke_refresh_token(kept_refresh_token())
    clock.ahead += 86_400 - 30
    assert auth.get_access_token() == token
    assert len(browser.opened) == 1
    assert kept_refresh_token() is None


def test_a_refresh_token_survives_what_is_not_its_end(carto_sandbox, browser, callback_port, day):
    """A proxy or a firewall may answer 403, too."""
    carto_sandbox.refresh_tokens = True
    auth = CartoAuth.from_oauth()
    day()
    carto_sandbox.outage = {"/oauth/token": 403}
    with pytest.raises(Unauthorized):
        auth.get_access_token()
    carto_sandbox.outage = None
    assert auth.get_access_token()
    assert len(browser.opened) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_does_not_use_up_the_refresh_token(carto_sandbox, day):
    carto_sandbox.refresh_tokens = True
    pending = CartoAuth.begin_oauth()
    auth = pending.finish(walk_login(pending.url))
    day()
    child = os.fork()
    if child == 0:
        try:
            auth.get_access_token()
        except LoginRequired:
            os._exit(7)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert auth.get_access_token()


# ---- several at a time ---------------------------------------------------------------------------


def test_who_may_ask_nobody_does_not_wait_for_anothers_login(carto_sandbox, browser, callback_port):
    waiting, told = threading.Event(), threading.Event()

    def walk(url):
        waiting.set()
        assert told.wait(20)
        walk_login(url)

    browser.walk = lambda url: threading.Thread(target=walk, args=(url,)).start()
    with ThreadPoolExecutor(1) as pool:
        login = pool.submit(CartoAuth.from_oauth)
        assert waiting.wait(20)
        began = time.monotonic()
        with pytest.raises(LoginRequired):
            CartoAuth.from_oauth(interactive=False)
        assert time.monotonic() - began < AT_ONCE
        told.set()
        assert login.result(20).get_access_token()
