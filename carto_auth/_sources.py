"""TokenSource: where an account's next token comes from. One kind for each way to get one."""

from __future__ import annotations

import os
import sys

from carto_auth import _log
from carto_auth._identity import Identity, Owner
from carto_auth._stores.base import CARTOS_ACCOUNTS
from carto_auth._token import LATEST_TIME, is_token_expired, jwt_claims, jwt_expiration
from carto_auth.errors import CredentialsError, LoginRequired, ServerError, Unauthorized
from carto_auth.pkce import (
    LOGIN_SECONDS,
    LONGEST_WAIT_SECONDS,
    login_required,
    login_seconds,
    refresh_oauth_token_info,
    revoke_refresh_token,
)

# Type checkers take this name for true; typing would cost a start more than all of this package does.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from typing import Any, Protocol

    from carto_auth._services import Services
    from carto_auth._stores.base import Entry, Store
    from carto_auth._token import Token
    from carto_auth.credentials import CliProfile

    class Seams(Protocol):
        """The functions that a program may have replaced; see :mod:`carto_auth.auth`."""

        def load(self, store: Store) -> Entry | None: ...
        def save(self, store: Store, entry: Entry, api_base_url: str | None) -> None: ...
        def log_in(self, open_browser: bool, org: str | None, **newer: Any) -> dict[str, Any]: ...
        def may_log_in(self) -> bool: ...
        def get_m2m_token(self, client_id: Any, client_secret: Any, services: Services) -> dict[str, Any]: ...
        def find_api_base_url(self, access_token: str, services: Services) -> str: ...


#: Seconds to wait for another process (or thread) that renews the same token: as long as a request may take.
RENEWAL_WAIT_SECONDS = 60.0

#: What a token service says of a refresh token that is not good any more (RFC 6749 section 5.2), or not without its
#: person (OpenID Connect Core section 3.1.2.6, Auth0).
_ENDED = {"invalid_grant", "invalid_client", "unauthorized_client", "access_denied"}
_NEEDS_A_PERSON = {"login_required", "interaction_required", "consent_required", "mfa_required"}

#: This process; a copy of a source that finds itself in another one asks nobody for a login.
_PROCESS = os.urandom(8)


class TokenSource:
    """A way to the next token. The kinds below say what they can do; this one can do nothing.

    Attributes:
        identity: whose tokens they are.
        advice: what to do when a token of this source is refused.
        found_by: the accounts service that finds their API base URL.
    """

    def __init__(self, identity: Identity, advice: str = "", found_by: str = CARTOS_ACCOUNTS) -> None:
        self.identity = identity
        self.advice = advice
        self.found_by = found_by

    @property
    def sharing_key(self) -> tuple[object, ...] | None:
        """What is the same for copies of it that may use each other's tokens; ``None`` if none may."""
        return None

    def renews_quietly(self, token: Token | None) -> bool:
        """Whether a new token can be had in place of ``token`` without asking a person."""
        return False

    def patience(self, token: Token | None) -> float:
        """Seconds to wait for another process that is getting the token that follows ``token``."""
        return RENEWAL_WAIT_SECONDS

    def quietly(self, token: Token | None) -> dict[str, Any] | None:
        """A new token info, without asking a person; ``None`` where only a person can help.

        Raises:
            CredentialsError: none could be had.
        """
        return None

    def by_a_person(self, token: Token | None) -> dict[str, Any]:
        """A new token info in place of ``token``, from a person's login.

        Raises:
            LoginRequired: there is nobody to ask.
            CredentialsError: none could be had.
        """
        raise login_required()

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

    def __init__(
        self, identity: Identity, advice: str, seams: Seams, services: Services, *, finds_base_url: bool
    ) -> None:
        super().__init__(identity, advice, services.accounts_url)
        self._seams = seams
        self._services = services
        self._finds_base_url = finds_base_url

    def base_url(self, access_token: str) -> str | None:
        return self._seams.find_api_base_url(access_token, self._services) if self._finds_base_url else None


class M2MSource(_AskingSource):
    """An M2M application, which gets tokens for its secret. The secret goes along in a pickle."""

    def __init__(
        self,
        seams: Seams,
        services: Services,
        client_id: str | None,
        client_secret: str | None,
        api_base_url: str | None,
        *,
        finds_base_url: bool = False,
    ) -> None:
        super().__init__(
            Identity.of_application(services, client_id, api_base_url),
            "The token was refused although it is new. Try again; if it happens again, ask CARTO's support.",
            seams,
            services,
            finds_base_url=finds_base_url,
        )
        self._client_id = client_id
        self._client_secret = client_secret

    @property
    def sharing_key(self) -> tuple[object, ...]:
        return self.identity, self._client_secret

    def renews_quietly(self, token: Token | None) -> bool:
        return bool(self._client_id and self._client_secret)

    def quietly(self, token: Token | None) -> dict[str, Any]:
        return self._seams.get_m2m_token(self._client_id, self._client_secret, self._services)

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
    """

    def __init__(
        self,
        seams: Seams,
        services: Services,
        org: str | None,
        open_browser: bool,
        *,
        interactive: bool | None = None,
        timeout: float = LOGIN_SECONDS,
        finds_base_url: bool = False,
    ) -> None:
        super().__init__(
            Identity.of_person(services, org),
            "The login was revoked or has ended. Call logout() on this object, or run: carto-auth logout. "
            "Then log in again.",
            seams,
            services,
            finds_base_url=finds_base_url,
        )
        self._org = org
        self._open_browser = open_browser
        self._interactive = interactive
        self._timeout = login_seconds(timeout)
        self._home = _this_process()

    def renews_quietly(self, token: Token | None) -> bool:
        return token is not None and token.refresh_token is not None and self._is_at_home()

    def patience(self, token: Token | None) -> float:
        if self.renews_quietly(token):
            return RENEWAL_WAIT_SECONDS
        if self._interactive is False or not self._is_at_home() or not self._seams.may_log_in():
            return 0.0
        return RENEWAL_WAIT_SECONDS + min(self._timeout, LONGEST_WAIT_SECONDS)

    def quietly(self, token: Token | None) -> dict[str, Any] | None:
        if token is None or token.refresh_token is None or not self._is_at_home():
            return None
        try:
            return refresh_oauth_token_info(token.refresh_token, services=self._services)
        except Unauthorized as error:
            _log.debug("the refresh token was refused: %s", error.message)
            if (
                error.error not in _ENDED | _NEEDS_A_PERSON
            ):  # a proxy's answer, or a firewall's: the token may be good again
                error.remedy = error.remedy or "Try again. If it does not help, run: carto-auth logout. Then log in."
                raise
        return None

    def by_a_person(self, token: Token | None) -> dict[str, Any]:
        try:
            if not self._is_at_home():
                raise login_required("this object is a copy that came from another process")
            if self._interactive is False:
                raise login_required("the program has said interactive=False")
            newer = {"interactive": self._interactive, "timeout": self._timeout, "services": self._services}
            return self._seams.log_in(self._open_browser, self._org, **newer)
        except LoginRequired:
            if self._finds_base_url or token is None or jwt_claims(token.text):
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
        revoke_refresh_token(refresh_token, services=self._services)

    def _is_at_home(self) -> bool:
        return self._home == _this_process()


def _this_process() -> tuple[int, bytes]:
    return os.getpid(), _PROCESS


class CliSource(TokenSource):
    """The CARTO CLI's login, whose file is read again when its token has ended: somebody may have logged in."""

    def __init__(self, identity: Identity, profile: CliProfile) -> None:
        super().__init__(identity, "The CARTO CLI's login was revoked or has ended. Run: carto auth login")
        self._profile = profile

    def quietly(self, token: Token | None) -> dict[str, Any]:
        text = self._profile.read().access_token
        expiration = jwt_expiration(text) or LATEST_TIME
        if is_token_expired(expiration):
            raise LoginRequired("The CARTO CLI's login has ended.", remedy="Run: carto auth login")
        return {"access_token": text, "expiration": expiration}


class FixedSource(TokenSource):
    """A token that nobody renews, such as an API access token.

    ``ended`` says that it has come to its end, and ``advice`` what to do then, as when it is refused.
    """

    def __init__(self, identity: Identity, ended: str, advice: str) -> None:
        super().__init__(identity, advice)
        self._ended = ended

    def quietly(self, token: Token | None) -> dict[str, Any]:
        raise CredentialsError(self._ended, remedy=self.advice)
