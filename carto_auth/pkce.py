"""OAuth for people: the authorization code grant with PKCE (RFC 6749 section 4.1, RFC 7636, RFC 8252)."""

from __future__ import annotations

import time
from collections.abc import Callable

from carto_auth import _surroundings
from carto_auth._services import AUDIENCE, CLIENT_ID, REDIRECT_URI, Services
from carto_auth._token import as_number, parse_token_answer
from carto_auth._trust import require_secure
from carto_auth._typing import TYPE_CHECKING, Any, Generic, TypeVar
from carto_auth.errors import (
    LoginDenied,
    LoginFailed,
    LoginRequired,
    LoginTimedOut,
    Unauthorized,
)

if TYPE_CHECKING:
    from carto_auth._loopback import CallbackServer
    from carto_auth._redirect import AuthorizationResponse

__all__ = [
    "AUDIENCE",
    "CLIENT_ID",
    "OAUTH_AUTHORIZE_URL",
    "OAUTH_TOKEN_URL",
    "REDIRECT_URI",
    "REDIRECT_URI_CLI",
    "CartoPKCE",
    "PendingLogin",
    "get_oauth_token_info",
    "refresh_oauth_token_info",
]

# CARTO's own, as carto-auth 0.2.0 has them. A login takes its addresses from Services.
OAUTH_AUTHORIZE_URL = Services().authorize_url
OAUTH_TOKEN_URL = Services().token_url
REDIRECT_URI_CLI = Services().code_page_url

#: Seconds that a person has for a login: long enough for a password manager and a second factor.
LOGIN_SECONDS = 300.0

#: A person may be given for ever; locks and sockets count no further than this.
LONGEST_WAIT_SECONDS = 7 * 86_400.0

#: How often a person is asked for a code that works.
_TRIES = 3

_Account = TypeVar("_Account")


def get_oauth_token_info(
    open_browser: bool = True,
    org: str | None = None,
    *,
    interactive: bool | None = None,
    timeout: float = LOGIN_SECONDS,
    services: Services | None = None,
) -> dict[str, Any]:
    """Log a person in and return the token info.

    Args:
        open_browser: whether to open a browser, where there is one; else the person copies a code.
        org: the SSO organization, by its Auth0 id (``org_...``) or its name.
        interactive: ``False`` never asks anybody; ``True`` asks even where nobody seems to be; ``None`` asks where
            there is a person.
        timeout: seconds until the login must be done.
        services: the services to ask; those of the environment, else CARTO's own.

    Returns:
        ``{"access_token": str, "expiration": int, "issued_at": int}``, times in POSIX seconds, and
        ``"refresh_token"`` if CARTO gave one.

    Raises:
        LoginRequired: there is nobody to ask.
        LoginFailed: the person or CARTO refused, or time ran out.
        ServerError, ServiceUnreachable: the code could not be exchanged for a token.
    """
    return CartoPKCE(open_browser, org, interactive=interactive, timeout=timeout, services=services).get_token_info()


def refresh_oauth_token_info(refresh_token: str, *, services: Services | None = None) -> dict[str, Any]:
    """Exchange a refresh token for a new token info (RFC 6749 section 6).

    The info has a ``refresh_token``: the rotated one, or the old one if the server keeps it.

    Raises:
        Unauthorized: the refresh token is no longer good; a person has to log in.
        ServerError, ServiceUnreachable: no new token came.
    """
    from carto_auth import _http

    services = services or Services.from_environment()
    form = {"grant_type": "refresh_token", "client_id": services.client_id, "refresh_token": refresh_token}
    # Not repeatable: a rotated refresh token that is presented twice revokes its whole family.
    answer = _http.post_form(services.token_url, form, repeatable=False, failure="CARTO did not renew the login")
    return {"refresh_token": refresh_token, **parse_token_answer(answer, time.time())}


def revoke_refresh_token(refresh_token: str, *, services: Services | None = None) -> None:
    """Make a refresh token worthless (RFC 7009).

    Raises:
        ServerError, ServiceUnreachable: the server did not say that it did.
    """
    from carto_auth import _http

    services = services or Services.from_environment()
    form = {"client_id": services.client_id, "token": refresh_token}
    _http.post_form(services.revocation_url, form, failure="CARTO did not revoke the login", empty_is_fine=True)


class CartoPKCE:
    """One person's login.

    Args:
        open_browser: whether to open a browser. In Google Colab, Databricks and other places whose browser
            is on another machine, none is opened.
        org: the SSO organization, by its Auth0 id (``org_...``) or its name.
        interactive: ``False`` never asks anybody; ``True`` asks even where nobody seems to be; ``None`` asks where
            there is a person.
        timeout: seconds that the person has.
        services: the services to ask; those of the environment, else CARTO's own.

    Attributes:
        open_browser: whether a browser will be opened.
        org: the organization as it was given.
        redirect_uri: where the authorization server sends the browser with the code.
    """

    def __init__(
        self,
        open_browser: bool = True,
        org: str | None = None,
        *,
        interactive: bool | None = None,
        timeout: float = LOGIN_SECONDS,
        services: Services | None = None,
    ) -> None:
        self.open_browser = bool(open_browser) and not _surroundings.browser_is_elsewhere()
        self.org = org
        self._services = services or Services.from_environment()
        for address in (self._services.auth_url, self._services.app_url):  # where the person is sent
            require_secure(address, "services=")
        self.redirect_uri = REDIRECT_URI if self.open_browser else self._services.code_page_url
        self._interactive = interactive
        self._timeout = login_seconds(timeout)
        self._deadline = float("inf")
        self._refused_codes: set[str] = set()
        self._organization_id: str | None = None
        self._state: str | None = None
        self._code_verifier: str | None = None
        self._code_challenge: str | None = None

    # ---- one attempt ---------------------------------------------------------------------------

    def get_pkce_handshake_parameters(self) -> None:
        """Begin a new attempt: a new ``state``, code verifier and code challenge (RFC 7636 section 4)."""
        import secrets

        self._state = secrets.token_urlsafe(32)
        self._code_verifier = secrets.token_urlsafe(64)
        self._code_challenge = code_challenge(self._code_verifier)

    def get_authorize_url(self, state: str | None = None) -> str:
        """The page where the person logs in (RFC 6749 section 4.1.1); a ``state`` of one's own may be given."""
        from urllib.parse import urlencode

        if self._code_challenge is None:
            self.get_pkce_handshake_parameters()
        if state is not None:
            self._state = state
        parameters = {
            "client_id": self._services.client_id,
            "response_type": "code",
            "audience": AUDIENCE,
            "redirect_uri": self.redirect_uri,
            "code_challenge": self._code_challenge,
            "code_challenge_method": "S256",
            "state": self._state,
        }
        if self.org:
            parameters["organization"] = self._organization()
        return f"{self._services.authorize_url}?{urlencode(parameters)}"

    def _organization(self) -> str:
        from carto_auth.discovery import get_organization_id

        if self._organization_id is None:
            assert self.org is not None
            self._organization_id = get_organization_id(self.org, services=self._services)
        return self._organization_id

    def _begin(self, redirect_uri: str) -> str:
        """Begin a new attempt and return its authorize URL; codes of earlier attempts are worth nothing now."""
        self.redirect_uri = redirect_uri
        self.get_pkce_handshake_parameters()
        return self.get_authorize_url()

    # ---- the person ----------------------------------------------------------------------------

    def get_auth_response(self, open_browser: bool | None = None) -> str:
        """Have the person log in, by browser or by copying a code, and return the authorization code.

        Raises:
            LoginRequired: there is nobody to ask.
            LoginDenied: the person or CARTO refused.
            LoginTimedOut: nobody finished in time.
            LoginFailed: no usable code was given.
        """
        if self._interactive is False:
            raise login_required()
        self._deadline = time.monotonic() + self._timeout
        use_browser = self.open_browser if open_browser is None else open_browser
        if not use_browser or (self._interactive is None and _surroundings.nobody_is_here()):
            return self._code_by_hand()
        try:
            return self._code_from_browser()
        except _NoBrowserError as error:
            told = str(error)
        try:
            return self._code_by_hand(told)
        except LoginRequired as error:
            error.message = f"{told} {error.message}"
            raise

    def _code_from_browser(self) -> str:
        """The code that the browser brings back. Raises :class:`_NoBrowserError` when it cannot."""
        from carto_auth._loopback import CallbackServer, PortBusy

        url = self._begin(REDIRECT_URI)
        self._deadline = time.monotonic() + self._timeout  # the person's own time: it begins with the link
        try:
            server = CallbackServer(REDIRECT_URI, self._judge)
        except PortBusy:
            raise _NoBrowserError(
                "Another program or login is using port 10000, so your browser cannot bring this login back here; "
                "end that one, or take the login's code here by hand."
            ) from None
        except OSError:
            raise _NoBrowserError(
                "This computer does not let your browser bring the login back, so take its code here by hand."
            ) from None
        with server:
            response = self._answer_at(server, url)
        if response is None:
            raise LoginTimedOut(
                f"Nobody finished the login in the browser within {self._timeout:g} s.",
                remedy="Try again, with open_browser=False if the browser cannot reach this computer.",
            )
        return self._code_of(response)

    def _answer_at(self, server: CallbackServer[AuthorizationResponse], url: str) -> AuthorizationResponse | None:
        """Send the person to ``url``, and wait for what comes back; ``None`` when nothing does in time."""
        problems: list[BaseException] = []

        def give_up(error: BaseException | None) -> None:
            problems.append(error or _NoBrowserError(_surroundings.why_no_browser()))
            server.give_up()

        _surroundings.show_link("Log in to CARTO in your browser. If it does not open by itself, use this link:", url)
        # Aside, because a browser's command may last as long as its window, and the answer comes before that.
        opening = _surroundings.open_browser_aside(url, otherwise=give_up)
        response = server.wait(self._seconds_left())
        if response is None and problems:
            raise problems[0]
        if _surroundings.named_browser_takes_over_the_terminal():
            opening.join(self._seconds_left())  # until the terminal is ours again
        return response

    def _seconds_left(self) -> float:
        return min(max(0.0, self._deadline - time.monotonic()), LONGEST_WAIT_SECONDS)

    def _judge(self, query: str) -> tuple[AuthorizationResponse | None, Any]:
        """What to make of a request to the callback, and the page to show for it."""
        from carto_auth import _redirect
        from carto_auth._loopback import Page

        response = _redirect.authorization_response(query, state=self._state or "", issuer=self._services.auth_url)
        if response is None:
            return None, Page(
                400, "Not this login", "This answers no login that is waiting here. Use the link that Python shows."
            )
        if response.code is None:
            return response, Page(
                200, "Not logged in", "No login came of this. Python tells you why; you can close this tab."
            )
        return response, Page(
            200,
            "Back to Python",
            "CARTO has confirmed who you are. You can close this tab and return to Python.",
        )

    def _code_by_hand(self, told: str = "") -> str:
        """The code that the person copies from CARTO's page. ``told`` is what they have to know before."""
        if not self._has_person():
            raise login_required()
        url = self._begin(self._services.code_page_url)
        prompt = self._first_prompt(told, url)
        problem = "No code was entered."
        for _ in range(_TRIES):
            try:
                code = self._code_in(self._input(prompt))
            except _WrongCodeError as error:
                problem = str(error)
            else:
                if code and code not in self._refused_codes:
                    return code
                problem = "That code was refused before." if code else "No code was entered."
            prompt = f"{problem} Access code: "
        raise LoginFailed(f"The login was given up after {_TRIES} tries: {problem}", remedy="Begin a new login.")

    def _first_prompt(self, told: str, url: str) -> str:
        """The link and the request for the code: as one text, so that nothing is shown where nobody is asked."""
        before = f"{told}\n\n".lstrip() + "Log in to CARTO with this link; it ends on a page that shows an access code:"
        after = f"Copy the code from the {self._services.app_url} page to here. Never give it to anybody else."
        if _surroundings.in_notebook() and _surroundings.can_ask():
            _surroundings.show_link(before, url)
            return f"{after}\nAccess code: "
        return f"{before}\n\n    {url}\n\n{after}\nAccess code: "

    def _input(self, prompt: str) -> str:
        """Ask the person for a line of text: the one place that does.

        Raises:
            LoginRequired: there is nobody to ask.
        """
        if _surroundings.can_ask() or self._interactive:
            try:
                return _surroundings.ask(prompt, self._seconds_left())
            except TimeoutError:
                raise LoginTimedOut(
                    f"No code was entered within {self._timeout:g} s.",
                    remedy="Try again, with a longer timeout= if you need more time.",
                ) from None
            except (EOFError, OSError, RuntimeError, ValueError):
                pass  # a standard input at its end, broken, or none; a notebook whose front end takes no input
        raise login_required()

    def _has_person(self) -> bool:
        """Whether there is somebody for :meth:`_input` to ask, or a program that has replaced it and answers."""
        is_replaced = getattr(self._input, "__func__", None) is not _OWN_INPUT
        return bool(self._interactive) or is_replaced or _surroundings.can_ask()

    # ---- the code ------------------------------------------------------------------------------

    def get_authorization_code(self, response: str | None = None) -> str:
        """The authorization code in ``response`` (a code, or the URL that holds it); without one, ask the person.

        Raises:
            LoginFailed: the response is of another site or of another login, or a refusal.
        """
        if response is None:
            return self.get_auth_response()
        try:
            code = self._code_in(response)
        except _WrongCodeError as error:
            raise LoginFailed(str(error), remedy="Begin a new login.") from None
        if not code:
            raise LoginFailed("No code was entered.", remedy="Begin a new login.")
        return code

    def parse_response_code(self, url: str) -> str:
        """The code in a URL, or the text itself when it is no URL.

        Raises:
            LoginDenied: the URL holds an error instead.
            LoginFailed: the URL holds neither.
        """
        from carto_auth import _redirect

        text = _redirect.unquoted(url)
        if not _redirect.is_address(text):
            return text
        return self._code_of(_redirect.response_in(_redirect.query_of(text)))

    def _code_in(self, pasted: str) -> str:
        """The code in what a person pasted; ``""`` for nothing.

        Raises:
            _WrongCodeError: it is no code, or the address of another page or of another login.
            LoginDenied: it is the address of a refusal.
        """
        from carto_auth import _redirect

        text = _redirect.unquoted(pasted)
        if not _redirect.is_address(text):
            if not all("!" <= character <= "~" for character in text):
                raise _WrongCodeError("That is no access code.")  # RFC 6749 appendix A.11
            return text
        pages = (self._services.code_page_url, self.redirect_uri, REDIRECT_URI)
        if not any(_redirect.is_page(text, page) for page in pages):
            raise _WrongCodeError(f"That is the address of another page than {_redirect.page_of(self.redirect_uri)}.")
        parameters = _redirect.parameters_of(_redirect.query_of(text))
        if parameters is None:
            raise _WrongCodeError("That address names the same thing twice.")
        # CARTO's page may leave the state out of its address; PKCE ties the code to this login all the same. A
        # page of the program's own gets what CARTO sends.
        says_state = "state" in parameters or self.redirect_uri not in (self._services.code_page_url, REDIRECT_URI)
        if says_state and self._state is not None and not _redirect.has_state(parameters, self._state):
            raise _WrongCodeError("That is the address of another login than this one.")
        if not _redirect.may_be_issued_by(self._services.auth_url, parameters):
            raise _WrongCodeError("That address comes from another login service than the one asked.")
        if _redirect.response_in(_redirect.query_of(text)) == _redirect.AuthorizationResponse():
            raise _WrongCodeError("That address holds no code.")
        return self.parse_response_code(text)

    def _code_of(self, response: AuthorizationResponse) -> str:
        if response.code is not None:
            return response.code
        if response.error is None:
            raise LoginFailed("That address holds no code.", remedy="Begin a new login, and copy the code it shows.")
        words = response.error_description or response.error
        raise LoginDenied(
            f"CARTO did not log you in: {words}.",
            remedy="Try again, and allow access when CARTO asks."
            if response.error == "access_denied"
            else "Begin a new login.",
            error=response.error,
            error_description=response.error_description,
        )

    # ---- the token -----------------------------------------------------------------------------

    def get_token_info(self, code: str | None = None) -> dict[str, Any]:
        """Exchange an authorization code for a token info (RFC 6749 section 4.1.3); without one, ask the person.

        Raises:
            LoginRequired, LoginFailed: no code came.
            Unauthorized: CARTO did not accept the code.
            ServerError, ServiceUnreachable: no token came.
        """
        if code is not None:
            return self._exchange(code)
        code = self.get_authorization_code()
        for _ in range(_TRIES - 1):
            try:
                return self._exchange(code)
            except Unauthorized as error:
                if error.error != "invalid_grant" or self.redirect_uri == REDIRECT_URI:
                    raise
                self._refused_codes.add(code)  # it is on the clipboard still
                told = error.message
            code = self._code_by_hand(told)
        return self._exchange(code)

    def _exchange(self, code: str) -> dict[str, Any]:
        from carto_auth import _http

        if self._code_verifier is None:
            self.get_pkce_handshake_parameters()
        assert self._code_verifier is not None
        form = {
            "grant_type": "authorization_code",
            "client_id": self._services.client_id,
            "audience": AUDIENCE,
            "code": code,
            "redirect_uri": self.redirect_uri,
            "code_verifier": self._code_verifier,
        }
        try:
            answer = _http.post_form(
                self._services.token_url,
                form,
                repeatable=False,
                failure="CARTO did not accept the access code",
            )
        except Unauthorized as error:
            error.remedy = "A code is good once and for a short time: begin a new login."
            raise
        return parse_token_answer(answer, time.time())


class PendingLogin(Generic[_Account]):
    """A login that a web app has begun: two calls, neither of which waits for the person.

    Made by :meth:`carto_auth.CartoAuth.begin_oauth`. It belongs to one person: keep it where only their
    session finds it, on the server. It can be pickled, and holds a secret then.

    Attributes:
        url: the page to send the person to.
        state: the random text that ``url`` carries and the answer brings back (RFC 6749 section 4.1.1): an app
            with a redirect URI of its own finds the login by it.
    """

    def __init__(
        self,
        account: Callable[[dict[str, Any]], _Account],
        redirect_uri: str | None,
        org: str | None,
        services: Services | None,
    ) -> None:
        self._account = account
        self._login = CartoPKCE(False, org, interactive=False, services=services)
        self._token_info: dict[str, Any] | None = None
        self._denied = False
        self._sent_codes: dict[str, object] = {}
        if redirect_uri is not None:
            require_secure(redirect_uri.partition("?")[0], "redirect_uri")
        self.url = self._login._begin(redirect_uri or self._login.redirect_uri)
        assert self._login._state is not None
        self.state = self._login._state

    def finish(self, answer: str) -> _Account:
        """The account, from the access code that the person copied, or from the whole URL they came back with.

        An answer that is not this login's, or a code that CARTO refuses, leaves it waiting for the right one; no
        code is sent twice. Once a token was earned and only the API base URL could not be found, another call
        tries that again, and nothing else.

        Raises:
            LoginDenied: the person or CARTO refused.
            LoginFailed: the answer is empty, of another site or of another login, or this one was answered.
            Unauthorized: CARTO did not accept the code.
            TenantNotFound: the account belongs to no CARTO organization yet.
            ServerError, ServiceUnreachable: no token came.
        """
        if self._token_info is None:
            if self._denied:
                raise LoginFailed("This login was answered before.", remedy="Begin a new login.")
            try:
                code = self._login.get_authorization_code(answer)
            except LoginDenied:
                self._denied = True
                raise
            mine = object()
            if self._sent_codes.setdefault(code, mine) is not mine:  # of all the threads one is the first
                raise LoginFailed("This login was answered before, with that code.", remedy="Begin a new login.")
            self._token_info = self._login.get_token_info(code)
        return self._account(self._token_info)


_OWN_INPUT = CartoPKCE._input


def somebody_may_log_in() -> bool:
    """Whether there is a person for a login, or a program that has replaced :meth:`CartoPKCE._input` and answers."""
    return CartoPKCE._input is not _OWN_INPUT or not _surroundings.nobody_is_here()


def login_seconds(timeout: Any) -> float:
    """The seconds that a person has for a login, as given.

    Raises:
        TypeError: ``timeout`` is no number.
        ValueError: it is negative.
    """
    seconds = as_number(timeout)
    if seconds is None:
        raise TypeError(f"timeout must be seconds, a number, not {timeout!r}")
    if seconds < 0:
        raise ValueError(f"timeout must be seconds from 0 on, not {timeout}")
    return seconds


def code_challenge(code_verifier: str) -> str:
    """The S256 code challenge of a code verifier (RFC 7636 section 4.2)."""
    import base64
    import hashlib

    digest = hashlib.sha256(code_verifier.encode("ascii")).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")


class _NoBrowserError(Exception):
    """The browser cannot take this login; the text says why, and what the person does instead."""


class _WrongCodeError(Exception):
    """What was pasted belongs to another page or another login; the text says so to the person."""


def login_required() -> LoginRequired:
    """The error for a login where nobody can be asked."""
    return LoginRequired(
        "A CARTO login needs a person, and there is nobody to ask here (no terminal, no notebook, or a worker).",
        remedy="Log in once where there is one, by running: carto-auth login. For jobs without a person, use "
        "CartoAuth.from_m2m with an M2M application.",
    )
