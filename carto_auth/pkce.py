"""OAuth for people: the authorization code grant with PKCE (RFC 6749 section 4.1, RFC 7636, RFC 8252)."""

from __future__ import annotations

import os
import time

from carto_auth._frames import clears_frames, clears_its_frames
from carto_auth._identity import Owner
from carto_auth._services import AUDIENCE, CLIENT_ID, REDIRECT_URI, Services
from carto_auth._token import parse_token_answer
from carto_auth._value import Value
from carto_auth.errors import LoginFailed, LoginRequired, Unauthorized

# What only a login needs is imported inside the functions: a start with a good token does without it.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from typing import Any

    from carto_auth._login.pending import PendingLogin
    from carto_auth._login.person import Conversation

__all__ = ["CartoPKCE", "PendingLogin", "get_oauth_token_info", "refresh_oauth_token_info"]
__all__ += ["AUDIENCE", "CLIENT_ID", "OAUTH_AUTHORIZE_URL", "OAUTH_TOKEN_URL", "REDIRECT_URI", "REDIRECT_URI_CLI"]


def __getattr__(name: str) -> Any:
    """Get ``PendingLogin`` when somebody asks for it."""
    if name != "PendingLogin":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from carto_auth._login.pending import PendingLogin

    return PendingLogin


# CARTO's own, as carto-auth 0.2.0 has them. A login takes its addresses from Services.
OAUTH_AUTHORIZE_URL = Services().authorize_url
OAUTH_TOKEN_URL = Services().token_url
REDIRECT_URI_CLI = Services().code_page_url

#: Seconds that a person has for a login: long enough for a password manager and a second factor.
LOGIN_SECONDS = 300.0

#: ``timeout`` may be infinite; locks and sockets count no further than this many seconds.
LONGEST_WAIT_SECONDS = 7 * 86_400.0


@clears_frames
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


@clears_frames
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


@clears_frames
def revoke_refresh_token(refresh_token: str, *, services: Services | None = None) -> None:
    """Make a refresh token worthless (RFC 7009).

    Raises:
        ServerError, ServiceUnreachable: the server did not say that it did.
    """
    from carto_auth import _http

    services = services or Services.from_environment()
    form = {"client_id": services.client_id, "token": refresh_token}
    _http.post_form(services.revocation_url, form, failure="CARTO did not revoke the login", empty_is_fine=True)


class Attempt(Value, secret=("state", "verifier")):
    """One try of a login: nothing of it is used for another.

    Attributes:
        redirect_uri: where the authorization server sends the browser with the code.
        state: the random text that the answer brings back (RFC 6749 section 10.12); ``None`` before the try begins.
        verifier: the secret that ties the code to this program (RFC 7636 section 4.1); ``None`` before it begins.
    """

    redirect_uri: str
    state: str | None = None
    verifier: str | None = None

    @property
    def challenge(self) -> str | None:
        """The S256 code challenge of the verifier (RFC 7636 section 4.2)."""
        if self.verifier is None:
            return None
        import base64
        import hashlib

        digest = hashlib.sha256(self.verifier.encode("ascii")).digest()
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")


@clears_its_frames
class CartoPKCE:
    """One person's login, as a protocol: the link, the state, the verifier and the exchange of the code.

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
        attempt: the present try; a program that goes on with a login of another process keeps it, and sets it again.

    Raises:
        TypeError: ``timeout`` is no number.
        ValueError: it is negative.
        UntrustedAddress: the environment names an address that is neither https nor on this computer.
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
        from carto_auth._login.place import browser_is_elsewhere
        from carto_auth._login.talk import Screen

        self.open_browser: bool = bool(open_browser) and not browser_is_elsewhere()
        self.org = org
        self._services = services or Services.from_environment()
        self.attempt: Attempt = Attempt(REDIRECT_URI if self.open_browser else self._services.code_page_url)
        self._interactive = interactive
        self._timeout = login_seconds(timeout)
        self._deadline = float("inf")
        self._organization_id: str | None = None
        self._screen = Screen()

    # ---- one attempt ---------------------------------------------------------------------------

    @property
    def redirect_uri(self) -> str:
        """Where the authorization server sends the browser with the code; it may be set before the link is made."""
        return self.attempt.redirect_uri

    @redirect_uri.setter
    def redirect_uri(self, redirect_uri: str) -> None:
        self.attempt = self.attempt.replaced(redirect_uri=redirect_uri)

    @property
    def _code_verifier(self) -> str | None:
        return self.attempt.verifier

    @_code_verifier.setter
    def _code_verifier(self, verifier: str) -> None:  # by programs that go on with a login of another process
        self.attempt = self.attempt.replaced(verifier=verifier)

    @property
    def _code_challenge(self) -> str | None:
        return self.attempt.challenge

    def get_pkce_handshake_parameters(self) -> None:
        """Begin a new attempt (RFC 7636 section 4): 256 random bits of state, and a verifier of 512."""
        self.attempt = Attempt(self.redirect_uri, os.urandom(32).hex(), os.urandom(64).hex())

    def get_authorize_url(self, state: str | None = None) -> str:
        """The page where the person logs in (RFC 6749 section 4.1.1); the caller may choose its ``state``.

        Raises:
            ServerError, ServiceUnreachable: ``org`` is a name, and CARTO did not say which organization that is.
        """
        from urllib.parse import urlencode

        if self.attempt.verifier is None:
            self.get_pkce_handshake_parameters()
        if state is not None:
            self.attempt = self.attempt.replaced(state=state)
        parameters = {
            "client_id": self._services.client_id,
            "response_type": "code",
            "audience": self._services.audience,
            "redirect_uri": self.redirect_uri,
            "code_challenge": self.attempt.challenge,
            "code_challenge_method": "S256",
            "state": self.attempt.state,
            "scope": self._services.scope,
            "organization": self._find_organization(),
        }
        given = {name: value for name, value in parameters.items() if value or name == "state"}
        return f"{self._services.authorize_url}?{urlencode(given)}"

    def _find_organization(self) -> str:
        """The id of the organization that was asked for; ``""`` when none was, or when it has no single sign-on."""
        if self._organization_id is None:
            from carto_auth.discovery import get_organization_id

            self._organization_id = (self.org and get_organization_id(self.org, services=self._services)) or ""
        return self._organization_id

    def notice(self) -> str:
        """What the person should know before the login: that ``org`` has no single sign-on; ``""`` for nothing.

        Raises:
            ServerError, ServiceUnreachable: ``org`` is a name, and CARTO did not say which organization that is.
        """
        if not self.org or self._find_organization():
            return ""
        return (
            f"CARTO knows no organization with single sign-on called {self.org!r}, so this is the usual login. "
            "If that is a typing error, stop and correct it."
        )

    # ---- the person ----------------------------------------------------------------------------

    def get_auth_response(self, open_browser: bool | None = None) -> str:
        """Have the person log in, by browser or by copying a code, and return the authorization code.

        Raises:
            LoginRequired: there is nobody to ask.
            LoginDenied: the person or CARTO refused.
            LoginTimedOut: nobody finished in time.
            LoginFailed: no usable code was given.
            ServerError, ServiceUnreachable: ``org`` is a name, and CARTO did not say which organization that is.
        """
        from carto_auth._login.place import is_asking_forbidden

        if self._interactive is False:
            raise login_required("the program has said interactive=False")
        if is_asking_forbidden():
            raise login_required()
        self._deadline = time.monotonic() + self._timeout
        use_browser = self.open_browser if open_browser is None else open_browser
        conversation = self._conversation()
        return conversation.code() if use_browser else conversation.code_by_hand()

    def _conversation(self) -> Conversation:
        from carto_auth._login.person import Conversation

        return Conversation(
            login=self,
            services=self._services,
            screen=self._screen,
            ask=self._input,
            ask_anyway=bool(self._interactive) or self._is_input_replaced(),
            open_anyway=bool(self._interactive),
            timeout=self._timeout,
            seconds_left=self._seconds_left,
        )

    def _input(self, prompt: str) -> str:
        """Ask the person for a line of text: the one place that does.

        Raises:
            LoginRequired: there is nobody to ask.
            LoginTimedOut: nobody answered in time.
        """
        from carto_auth._login.person import ask

        return ask(prompt, self._seconds_left(), timeout=self._timeout, anyway=bool(self._interactive))

    def _is_input_replaced(self) -> bool:
        """Whether a program has replaced :meth:`_input`, and answers in the place of a person."""
        return getattr(self._input, "__func__", None) is not _OWN_INPUT

    def _seconds_left(self) -> float:
        return min(max(0.0, self._deadline - time.monotonic()), LONGEST_WAIT_SECONDS)

    # ---- the code ------------------------------------------------------------------------------

    def get_authorization_code(self, response: str | None = None) -> str:
        """The authorization code in ``response`` (a code, or the URL that holds it); without one, ask the person.

        Raises:
            LoginFailed: the response is empty, of another site or of another login.
            LoginDenied: it is a refusal.
            CredentialsError: what :meth:`get_auth_response` raises, without a response.
        """
        from carto_auth._login.response import checked_code_in

        if response is None:
            return self.get_auth_response()
        state = self.attempt.state
        return checked_code_in(response, redirect_uri=self.redirect_uri, state=state, services=self._services)

    def parse_response_code(self, url: str) -> str:
        """The code in a URL, or the text itself when it is no URL.

        Raises:
            LoginDenied: the URL holds an error instead.
            LoginFailed: the URL holds neither.
        """
        from carto_auth._login.response import code_in

        return code_in(url)

    # ---- the token -----------------------------------------------------------------------------

    def get_token_info(self, code: str | None = None) -> dict[str, Any]:
        """Exchange an authorization code for a token info (RFC 6749 section 4.1.3); without one, ask the person.

        A person whose copied code is refused may copy another one, twice.

        Raises:
            LoginRequired, LoginFailed: no code came.
            Unauthorized: CARTO did not accept the code.
            ServerError, ServiceUnreachable: no token came.
        """
        if code is not None:
            return self._exchange(code)
        try:
            info = self._info_from_a_person()
        except BaseException:
            self._screen.replace("This login has ended.")
            raise
        self._screen.end(Owner(info["access_token"]).logged_in(info["expiration"], self.org))
        return info

    def _info_from_a_person(self) -> dict[str, Any]:
        refused = [self.get_authorization_code()]
        for _ in range(2):
            try:
                return self._exchange(refused[-1])
            except Unauthorized as error:
                if error.error != "invalid_grant" or self.redirect_uri == REDIRECT_URI:
                    raise
                told = error.message
            refused.append(self._conversation().code_by_hand(told, refused))
        return self._exchange(refused[-1])

    def _exchange(self, code: str) -> dict[str, Any]:
        from carto_auth import _http

        if self.attempt.verifier is None:
            self.get_pkce_handshake_parameters()
        form = {
            "grant_type": "authorization_code",
            "client_id": self._services.client_id,
            "audience": self._services.audience,
            "code": code,
            "redirect_uri": self.redirect_uri,
            "code_verifier": self.attempt.verifier or "",
        }
        try:
            answer = _http.post_form(
                self._services.token_url, form, repeatable=False, failure="CARTO did not accept the access code"
            )
        except Unauthorized as error:
            error.remedy = error.remedy or "A code works once, and only for a short time: begin a new login."
            raise
        info = parse_token_answer(answer, time.time())
        self._require_organization(Owner(info["access_token"]).organization_id)
        return info

    def _require_organization(self, organization_id: str | None) -> None:
        """Compare the organization that a token names, if it names one, with the one that was asked for."""
        if self.org and organization_id and organization_id != self._find_organization():
            raise LoginFailed(
                f"This login is to another organization ({organization_id}) than was asked for ({self.org!r}).",
                remedy=f"Log out at {self._services.app_url} in your browser, or correct the name. Then try again.",
            )


_OWN_INPUT = CartoPKCE._input


def somebody_may_log_in() -> bool:
    """Whether there is a person for a login, or a program that has replaced :meth:`CartoPKCE._input` and answers."""
    from carto_auth._login.place import is_asking_forbidden, somebody_is_here

    return (CartoPKCE._input is not _OWN_INPUT and not is_asking_forbidden()) or somebody_is_here()


def login_required(reason: str | None = None) -> LoginRequired:
    """The error for a login where nobody can be asked, with the reason: as given, else as seen."""
    from carto_auth._login import place

    return place.login_required(reason)


def login_seconds(timeout: Any) -> float:
    """The seconds that a person has for a login, as given.

    Raises:
        TypeError: ``timeout`` is no number.
        ValueError: it is negative.
    """
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or timeout != timeout:
        raise TypeError(f"timeout must be seconds, a number, not {timeout!r}")
    if timeout < 0:
        raise ValueError(f"timeout must be seconds, 0 or more, not {timeout}")
    return float(timeout)
