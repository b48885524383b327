"""TokenSource: where an account's next token comes from. One kind for each way to get one."""

from __future__ import annotations

import os
import sys

from carto_auth import _log, pkce
from carto_auth._identity import Identity, Owner
from carto_auth._stores.base import CARTOS_ACCOUNTS
from carto_auth._token import LATEST_TIME, Token, is_token_expired, jwt_claims, jwt_expiration
from carto_auth.credentials import M2MCredentials, cli_login
from carto_auth.errors import CredentialsError, LoginRequired, ServerError, Unauthorized

# Type checkers take this name for true; typing would cost a start more than all of this package does.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from typing import Any

    from carto_auth._services import Services
    from carto_auth.auth import Seams

#: Seconds to wait for another process (or thread) that renews the same token: as long as a request may take.
RENEWAL_WAIT_SECONDS = 60.0

#: What a token service says of a refresh token that is not good any more (RFC 6749 section 5.2), or not without its
#: person (OpenID Connect Core section 3.1.2.6, Auth0). Another refusal is a proxy's, or a firewall's.
_NEEDS_A_LOGIN = (
    *("invalid_grant", "invalid_client", "unauthorized_client", "access_denied"),
    *("login_required", "interaction_required", "consent_required", "mfa_required"),
)

#: This process; a copy of a source that finds itself in another one asks nobody for a login.
_PROCESS = os.urandom(8)


class TokenSource:
    """A way to the next token. The kinds below say what they can do; this one can do nothing.

    Attributes:
        identity: whose tokens they are.
        advice: what to do when a token of this source is refused.
        found_by: the accounts service that finds their API base URL.
        sharing_key: what is the same for copies of it that may use each other's tokens; ``None`` if none may.
    """

    advice = ""
    found_by = CARTOS_ACCOUNTS
    sharing_key: tuple[object, ...] | None = None

    def __init__(self, identity: Identity) -> None:
        self.identity = identity

    def renews_quietly(self, token: Token) -> bool:
        """Whether a new token can be had in place of ``token`` without asking a person."""
        return False

    def patience(self, token: Token) -> float:
        """Seconds to wait for another process that is getting the token that follows ``token``."""
        return RENEWAL_WAIT_SECONDS

    def quietly(self, token: Token) -> dict[str, Any] | None:
        """A new token info, without asking a person; ``None`` where only a person can help.

        Raises:
            CredentialsError: none could be had.
        """
        return None

    def by_a_person(self, token: Token) -> dict[str, Any]:
        """A new token info in place of ``token``, from a person's login.

        Raises:
            LoginRequired: there is nobody to ask.
            CredentialsError: none could be had.
        """
        raise pkce.login_required()

    def tell_of_waiting(self) -> None:
        """Say, where there is a person, that another process is getting the token."""

    def tell_whose(self, token: Token) -> None:
        """Say, where there may be several persons, whose kept token is used."""

    def base_url(self, access_token: str) -> str | None:
        """The API base URL of a token's account; ``None`` if this source does not find any.

        Raises:
            CredentialsError: it could not be found.
        """
        return None

    def revoke(self, refresh_token: str) -> None:
        """Make a refresh token worthless.

        Raises:
            CredentialsError: that could not be done.
        """


class _AskingSource(TokenSource):
    """A source that asks CARTO's services, by functions that a program may have replaced."""

    def __init__(self, identity: Identity, seams: Seams, services: Services, finds_base_url: bool) -> None:
        super().__init__(identity)
        self.found_by = services.accounts_url
        self._seams = seams
        self._services = services
        self._finds_base_url = finds_base_url

    def base_url(self, access_token: str) -> str | None:
        return self._seams.find_api_base_url(access_token, self._services) if self._finds_base_url else None


class M2MSource(_AskingSource):
    """An M2M application, which gets tokens for its secret. The secret goes along in a pickle."""

    advice = "The token was refused although it is new. Try again; if it happens again, ask CARTO's support."

    def __init__(self, seams: Seams, services: Services, known: M2MCredentials, finds_base_url: bool) -> None:
        identity = Identity.of_application(services, known.client_id, known.api_base_url)
        super().__init__(identity, seams, services, finds_base_url)
        self.sharing_key = identity, known.client_secret
        self._known = known

    def renews_quietly(self, token: Token) -> bool:
        return bool(self._known.client_id and self._known.client_secret)

    def quietly(self, token: Token) -> dict[str, Any]:
        return self._seams.get_m2m_token(self._known.client_id, self._known.client_secret, self._services)

    def base_url(self, access_token: str) -> str | None:
        try:
            return super().base_url(access_token)
        except ServerError as error:
            error.remedy = "Pass api_base_url=, or set CARTO_API_BASE_URL. You will find it on the Developers page."
            raise


class LoginSource(_AskingSource):
    """A person's login: by a refresh token where there is one, else by asking the person.

    It remembers the process that it was made in. A copy elsewhere asks nobody, and does not use the refresh token: one
    that is presented twice ends the login of both (RFC 6819 section 5.2.2.3).

    ``asking`` is ``interactive`` and ``timeout``, as :func:`carto_auth.pkce.get_oauth_token_info` takes them.
    """

    advice = "The login was revoked or has ended. Call logout() on this object, or run: carto-auth logout. Then log in."

    def __init__(
        self, seams: Seams, services: Services, org: str | None, open_browser: bool, finds_base_url: bool, **asking: Any
    ) -> None:
        super().__init__(Identity.of_person(services, org), seams, services, finds_base_url)
        self._org = org
        self._open_browser = open_browser
        self._asking = asking
        self._seconds = pkce.login_seconds(asking.get("timeout", pkce.LOGIN_SECONDS))
        self._home = os.getpid(), _PROCESS

    def renews_quietly(self, token: Token) -> bool:
        return token.refresh_token is not None and self._is_at_home()

    def patience(self, token: Token) -> float:
        if self.renews_quietly(token):
            return RENEWAL_WAIT_SECONDS
        if self._asking.get("interactive") is False or not self._is_at_home() or not self._seams.may_log_in():
            return 0.0
        return RENEWAL_WAIT_SECONDS + min(self._seconds, pkce.LONGEST_WAIT_SECONDS)

    def quietly(self, token: Token) -> dict[str, Any] | None:
        if token.refresh_token is None or not self._is_at_home():
            return None
        try:
            return pkce.refresh_oauth_token_info(token.refresh_token, services=self._services)
        except Unauthorized as error:
            _log.debug("the refresh token was refused: %s", error.message)
            if error.error not in _NEEDS_A_LOGIN:
                error.remedy = error.remedy or "Try again. If it does not help, run: carto-auth logout. Then log in."
                raise
        return None

    def by_a_person(self, token: Token) -> dict[str, Any]:
        try:
            if not self._is_at_home():
                raise pkce.login_required("this object is a copy that came from another process")
            if self._asking.get("interactive") is False:
                raise pkce.login_required("the program has said interactive=False")
            return self._seams.log_in(self._open_browser, self._org, services=self._services, **self._asking)
        except LoginRequired:
            if self._finds_base_url or not token.text or jwt_claims(token.text):
                raise
        # The token was no login's: it came with the constructor.
        raise CredentialsError(
            "The expiration that was given with the access token has passed.",
            remedy="A permanent API access token belongs in CartoAuth.from_access_token(), which needs no expiration.",
        )

    def tell_of_waiting(self) -> None:
        from carto_auth._login.talk import tell

        tell("Another program is logging in to CARTO. Waiting for what comes of it ...")

    def tell_whose(self, token: Token) -> None:
        # A notebook's server may run under one user for many people. Elsewhere each has a home, or a terminal.
        if "ipykernel" in sys.modules:
            from carto_auth._login.talk import tell

            tell(f"Using the CARTO login of {Owner(token.text).email or 'somebody'} that is kept here.")

    def revoke(self, refresh_token: str) -> None:
        pkce.revoke_refresh_token(refresh_token, services=self._services)

    def _is_at_home(self) -> bool:
        return self._home == (os.getpid(), _PROCESS)


class CliSource(TokenSource):
    """The CARTO CLI's login, whose file is read again when its token has ended: somebody may have logged in."""

    advice = "The CARTO CLI's login was revoked or has ended. Run: carto auth login"

    def __init__(self, identity: Identity, profile: str | None) -> None:
        super().__init__(identity)
        self._profile = profile

    def quietly(self, token: Token) -> dict[str, Any]:
        text = cli_login(self._profile).access_token
        expiration = jwt_expiration(text) or LATEST_TIME
        if is_token_expired(expiration):
            raise LoginRequired("The CARTO CLI's login has ended.", remedy="Run: carto auth login")
        return {"access_token": text, "expiration": expiration}


class FixedSource(TokenSource):
    """A token that nobody renews, such as an API access token.

    ``ended`` says that it has come to its end, and ``advice`` what to do then, as when it is refused.
    """

    def __init__(self, identity: Identity, ended: str, advice: str) -> None:
        super().__init__(identity)
        self.advice = advice
        self._ended = ended

    def quietly(self, token: Token) -> dict[str, Any]:
        raise CredentialsError(self._ended, remedy=self.advice)
