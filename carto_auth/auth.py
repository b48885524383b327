"""CartoAuth: choose the flow, consult the cache, renew in time."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import partial

from carto_auth import _log, cache, credentials
from carto_auth._request_auth import RequestAuth
from carto_auth._services import Services
from carto_auth._token import (
    LATEST_TIME,
    as_number,
    is_time,
    is_token_expired,
    is_usable_token,
    jwt_expiration,
    jwt_lifetime,
    renewal_leeway,
    true_expiration,
)
from carto_auth._typing import TYPE_CHECKING, Any, TypeVar
from carto_auth._fork import import_whole
from carto_auth.cache import AccountFile, Identity, default_cache_filepath, load_cache_file, save_cache_file
from carto_auth.discovery import first_visit, get_api_base_url
from carto_auth.errors import (
    CredentialsError,
    InvalidAnswer,
    LoginRequired,
    MissingCredential,
    TenantNotFound,
    Unauthorized,
)
from carto_auth.m2m import get_m2m_token_info
from carto_auth.pkce import (
    LOGIN_SECONDS,
    LONGEST_WAIT_SECONDS,
    CartoPKCE,
    PendingLogin,
    get_oauth_token_info,
    login_required,
    login_seconds,
    refresh_oauth_token_info,
    revoke_refresh_token,
    somebody_may_log_in,
)

if TYPE_CHECKING:
    import threading

    from google.cloud import bigquery
    from typing_extensions import Self

    from carto_auth.restricted import RestrictedAuth
    from carto_auth.warehouse import WarehouseToken

StrPath = str | os.PathLike[str]

#: Seconds that a job waits for another process (or thread) that renews the same token. It is as long as a
#: request may take; for a login, the person's time comes on top.
_RENEWAL_WAIT_SECONDS = 60.0

#: Seconds until a renewal that failed while the token was still good is tried again.
_RETRY_SECONDS = 10.0

#: Seconds of waiting for another program's login after which the person is told.
_SILENT_SECONDS = 2.0

_OWN_LOGIN = get_oauth_token_info

#: What a token service says of a refresh token that is not good any more, or not without its person (RFC 6749
#: section 5.2, OpenID Connect Core section 3.1.2.6, Auth0).
_ENDED = frozenset(
    (
        "invalid_grant",
        "invalid_client",
        "unauthorized_client",
        "access_denied",
        "login_required",
        "interaction_required",
        "consent_required",
        "mfa_required",
    )
)

_Answer = TypeVar("_Answer")

#: This process; a copy of an object that finds itself in another one does not ask anybody for a login.
_PROCESS = os.urandom(8)


class CartoAuth(RequestAuth):
    """A CARTO account's access token, kept and renewed, and what it opens.

    Use :meth:`from_oauth` for a person, :meth:`from_m2m` for a job. The constructor itself takes what is
    known already; it sends no request.

    The object is an ``auth=`` for ``requests`` and for ``httpx`` (sync and async).

    Args:
        mode: ``"oauth"`` or ``"m2m"``.
        api_base_url: such as ``https://gcp-us-east1.api.carto.com``.
        access_token: a token to begin with.
        expiration: until when it is good, POSIX seconds. A JWT's own ``exp`` is believed over it.
        client_id: of the M2M application.
        client_secret: of the M2M application.
        cache_filepath: where tokens are kept; without it none is.
        use_cache: ``False`` neither reads nor writes a cache.
        open_browser: whether a login may open a browser.
        org: the SSO organization of a login, by its Auth0 id (``org_...``) or its name.
        interactive: ``False`` never asks a person; ``True`` asks even where nobody seems to be; ``None`` asks where
            there is one.
        timeout: seconds that a person has for a login.
        services: the services to use; those of the environment, else CARTO's own.

    Raises:
        CredentialsError: ``mode`` is neither.
    """

    def __init__(
        self,
        mode: str,
        api_base_url: str | None = None,
        access_token: str | None = None,
        expiration: float | None = None,
        client_id: str | None = None,
        client_secret: str | None = None,
        cache_filepath: StrPath | None = None,
        use_cache: bool = True,
        open_browser: bool = True,
        org: str | None = None,
        *,
        interactive: bool | None = None,
        timeout: float = LOGIN_SECONDS,
        services: Services | None = None,
    ) -> None:
        if mode not in ("oauth", "m2m"):
            raise CredentialsError(f"There is no mode {mode!r}.", remedy='Use "oauth" or "m2m".')
        self._mode = mode
        self._api_base_url = api_base_url
        self._client_id = client_id
        self._client_secret = client_secret
        self._cache_filepath = cache_filepath
        self._use_cache = use_cache
        self._open_browser = open_browser
        self._org = org
        self._interactive = interactive
        self._timeout = timeout if timeout == LOGIN_SECONDS else login_seconds(timeout)
        self._given_services = services
        self._services = services or Services.from_environment()
        self._refresh_token: str | None = None
        self._warehouse: WarehouseToken | None = None
        self._retry_at = 0.0
        self._renewals = 0
        self._failures: tuple[int, CredentialsError | None] = (0, None)
        self._finds_base_url = False
        self._cli_profile: credentials.CliProfile | None = None
        self._home_process = _this_process()
        self._locks: dict[int, tuple[threading.Lock, threading.Lock]] = {}
        self._set_token(access_token, _time_argument(expiration))
        if access_token and not self._would_replace_a_better_one():
            self._store()

    # ---- getting one ---------------------------------------------------------------------------

    @classmethod
    def from_oauth(
        cls,
        cache_filepath: StrPath | None = None,
        use_cache: bool = True,
        open_browser: bool = True,
        api_base_url: str | None = None,
        org: str | None = None,
        *,
        interactive: bool | None = None,
        timeout: float = LOGIN_SECONDS,
        services: Services | None = None,
    ) -> Self:
        """A person's login: the cached token while it is good, else a login in the browser.

        Args:
            cache_filepath: where the token is kept; ``~/.carto-auth/token_oauth.json`` if not given.
            use_cache: ``False`` neither reads nor writes a cache.
            open_browser: ``False`` shows a link and asks for the access code instead.
            api_base_url: the API base URL; asked of CARTO if not given.
            org: the SSO organization, by its Auth0 id (``org_...``) or its name.
            interactive: ``False`` never asks a person; ``True`` asks even where nobody seems to be; ``None`` asks where
                there is one.
            timeout: seconds that the person has for the login.
            services: the services to use; those of the environment, else CARTO's own.

        Raises:
            LoginRequired: a login is needed and there is nobody to ask.
            LoginFailed: the login came to nothing.
            TenantNotFound: the account belongs to no CARTO organization yet. The token is kept.
            CredentialsError: another of the errors in :mod:`carto_auth.errors`.
        """
        auth = cls(
            "oauth",
            api_base_url=api_base_url,
            use_cache=use_cache,
            open_browser=open_browser,
            org=org,
            **_where_given(interactive=interactive, timeout=timeout, services=services),
        )
        auth._keep_in(cache_filepath)
        auth._finds_base_url = True
        auth._start()
        return auth

    @classmethod
    def begin_oauth(
        cls, *, redirect_uri: str | None = None, org: str | None = None, services: Services | None = None
    ) -> PendingLogin[Self]:
        """Begin a person's login in a web app, which cannot wait: send the person to ``url``, then ``finish``.

        The account is the person's, so it is kept in no cache, and it asks nobody when its token ends: then
        ``get_access_token`` raises ``LoginRequired``, and the app begins a new login.

        Args:
            redirect_uri: an address of the app's, if the OAuth client of ``services`` is registered with it.
                Without it, the person ends on CARTO's page with an access code to copy.
            org: the SSO organization, by its Auth0 id (``org_...``) or its name.
            services: the services to use; those of the environment, else CARTO's own.

        Raises:
            UntrustedAddress: ``redirect_uri`` is neither https nor on this computer.
            CredentialsError: there is no organization of that name.
        """
        return PendingLogin(
            partial(cls._logged_in, org, services),
            CartoPKCE(False, org, interactive=False, services=services),
            redirect_uri,
        )

    @classmethod
    def _logged_in(cls, org: str | None, services: Services | None, info: Mapping[str, Any]) -> Self:
        auth = cls("oauth", use_cache=False, open_browser=False, org=org, interactive=False, services=services)
        auth._finds_base_url = True
        auth._take(info)
        return auth

    @classmethod
    def from_m2m(
        cls,
        filepath: StrPath | None = None,
        cache_filepath: StrPath | None = None,
        use_cache: bool = True,
        *,
        api_base_url: str | None = None,
        client_id: str | None = None,
        client_secret: str | None = None,
        services: Services | None = None,
    ) -> Self:
        """An application's login: the cached token while it is good, else a new one.

        The credentials are those of the file, or of the last three arguments. With neither, they are those of
        the environment (``CARTO_CLIENT_ID``, ``CARTO_CLIENT_SECRET``, ``CARTO_API_BASE_URL``), else of the file
        that ``CARTO_CREDENTIALS_FILE`` names, else of ``carto_credentials.json`` in the user's configuration.

        Args:
            filepath: a JSON file with ``api_base_url``, ``client_id`` and ``client_secret``.
            cache_filepath: where the token is kept; ``~/.carto-auth/token_m2m.json`` if not given.
            use_cache: ``False`` neither reads nor writes a cache.
            api_base_url: such as ``https://gcp-us-east1.api.carto.com``.
            client_id: of the M2M application.
            client_secret: of the M2M application.
            services: the services to use; those of the environment, else CARTO's own.

        Raises:
            CredentialsFileNotFound: there is no such file. It is a ``FileNotFoundError`` too.
            MissingCredential: a key is missing in it. It is an ``AttributeError`` too.
            InvalidCredential: a value cannot be used. It is a ``ValueError`` too.
            Unauthorized: CARTO does not accept the credentials.
            CredentialsError: another of the errors in :mod:`carto_auth.errors`.
        """
        known = services or Services.from_environment()
        inline = (api_base_url, client_id, client_secret)
        if filepath is not None:
            if any(value is not None for value in inline):
                raise CredentialsError(
                    "Both a credentials file and credentials were passed, and it is not clear which to use.",
                    remedy="Pass one of them.",
                )
            found = credentials.read_m2m_file(filepath, known)
        elif any(value is not None for value in inline):
            found = credentials.given_m2m(*inline, known)
        else:
            found = credentials.find_m2m(known)
        auth = cls("m2m", use_cache=use_cache, **found._asdict(), **_where_given(services=services))
        auth._keep_in(cache_filepath)
        auth._start()
        return auth

    @classmethod
    def from_access_token(
        cls,
        access_token: str | None = None,
        api_base_url: str | None = None,
        *,
        services: Services | None = None,
    ) -> Self:
        """A CARTO API access token, as it is made in the CARTO Workspace. It is never renewed and never cached.

        Args:
            access_token: the token; that of ``CARTO_API_TOKEN`` if not given.
            api_base_url: where it is for; that of ``CARTO_API_BASE_URL`` if not given.
            services: the services to use; those of the environment, else CARTO's own.

        Raises:
            MissingCredential: there is no token, or no API base URL.
            InvalidCredential: one of them cannot be used.
        """
        known = services or Services.from_environment()
        found = (
            credentials.environment_access_token(known, api_base_url)
            if access_token is None
            else credentials.given_access_token(access_token, api_base_url, known, "access_token")
        )
        if found is None:
            raise MissingCredential(
                "There is no API access token: none was passed, and CARTO_API_TOKEN is not set.",
                remedy="Make one on the Developers page of your CARTO Workspace.",
            )
        return cls._with_token(found, services)

    @classmethod
    def from_cli(cls, profile: str | None = None) -> Self:
        """The CARTO CLI's login, for as long as it is good; the CLI renews it (``carto auth login``).

        Args:
            profile: of the CLI's profiles; that of ``CARTO_PROFILE``, else the CLI's current one, if not given.

        Raises:
            CredentialsFileNotFound: the CLI was never logged in here.
            MissingCredential, InvalidCredential: there is no such profile, or it cannot be used.
            LoginRequired: its login has ended.
        """
        cli_profile = credentials.CliProfile.default(profile)
        auth = cls._with_token(cli_profile.read(), None)
        auth._cli_profile = cli_profile
        auth._set_token(auth._access_token, LATEST_TIME)
        auth.get_access_token()
        return auth

    @classmethod
    def _with_token(cls, found: credentials.AccessToken, services: Services | None) -> Self:
        """An object with a token that it cannot renew, and about which nobody is asked."""
        auth = cls("oauth", api_base_url=found.api_base_url, use_cache=False, interactive=False, services=services)
        auth._access_token, auth._expiration = found.access_token, LATEST_TIME
        return auth

    @classmethod
    def default(cls, *, interactive: bool | None = None) -> Self:
        """The credentials that are there, in this order; the first that is there is used, or its error raised.

        1. ``CARTO_API_TOKEN``, as :meth:`from_access_token`;
        2. ``CARTO_CLIENT_ID`` and its companions, as :meth:`from_m2m`;
        3. a credentials file: ``CARTO_CREDENTIALS_FILE``, or the one in the user's configuration;
        4. the CARTO CLI's login, as :meth:`from_cli`;
        5. a person's login, cached or new, as :meth:`from_oauth`.

        Args:
            interactive: ``False`` never asks a person; ``True`` asks even where nobody seems to be; ``None`` asks where
                there is one.

        Raises:
            CredentialsError: what the one that is there raises.
        """
        kind = credentials.source_in_use().kind
        if kind == "access token":
            return cls.from_access_token()
        if kind in ("m2m environment", "m2m file"):
            return cls.from_m2m()
        if kind == "cli":
            return cls.from_cli()
        try:
            return cls.from_oauth(interactive=interactive)
        except LoginRequired as error:
            error.message = f"{credentials.nothing_good()} {error.message}"
            raise

    def _start(self) -> None:
        """Begin with the cached token, or with a new one."""
        entry = next((entry for entry in self._kept_entries() if entry and self._adopt(entry)), None)
        if entry:
            _log.debug("found a good token in %s", cache.shown(self._cache_file or ""))
            if "identity" not in entry:  # kept by carto-auth 0.2.0: now it is known whose it is
                self._store()
            if not self._api_base_url:
                self._find_base_url()
        else:
            self._renew()

    def _kept_entries(self) -> Iterator[dict[str, Any] | None]:
        """What is kept for this account: in its cache, else in a home that is read-only, else in memory."""
        if not self._use_cache:
            return
        yield load_cache_file(self._account_file())
        if not self._default_cache_filepath:
            return
        home = cache.unwritable_default_filepath(self._mode)
        if home is not None:
            yield cache.load_cache_file(AccountFile.at(home, self._identity()))
        yield cache.load_from_memory(self._account_file())

    def _find_base_url(self) -> None:
        """Find the API base URL, and keep the token that may just have been earned, found or not."""
        try:
            if self._finds_base_url and not self._api_base_url:
                self._api_base_url = self._asked(get_api_base_url, self._access_token)
        except TenantNotFound as error:
            error.remedy = first_visit(self._services, self._org)
            raise
        finally:
            self._store()

    # ---- using it ------------------------------------------------------------------------------

    def get_api_base_url(self) -> str:
        """The API base URL, such as ``https://gcp-us-east1.api.carto.com``.

        As it was given, or found by the login; ``None`` only for an object that was made without one and finds none.
        """
        return self._api_base_url  # type: ignore[return-value]

    def get_access_token(self) -> str:
        """A good access token; renewed first if it has come to its end.

        Raises:
            LoginRequired: only a person can renew it, and there is nobody to ask.
            CredentialsError: no new token could be had. A token that is still good is returned instead.
        """
        # In this order: whoever sees a new time sees its token too.
        due = self._due
        token = self._access_token
        if token and time.time() < due:
            return token
        return self._renewed()

    def get_carto_dw_credentials(self) -> tuple[str, str]:
        """The project id of the account's CARTO Data Warehouse, and a Google access token for it.

        The token is good for some time up to an hour. :meth:`get_carto_dw_client` renews it by itself.

        Raises:
            WarehouseUnavailable: the account has no warehouse, or may not use it.
            CredentialsError: there is no API base URL, or the answer makes no sense.
        """
        warehouse = self._warehouse_token()
        return warehouse.project_id, warehouse.token

    def get_carto_dw_client(self, **client_options: Any) -> bigquery.Client:
        """A ``google.cloud.bigquery.Client`` on the account's CARTO Data Warehouse, which renews its token.

        Args:
            client_options: passed on to the client: ``location=``, ``default_query_job_config=`` and so on.
                Its ``project`` and ``credentials`` come from CARTO.

        Raises:
            MissingDependency: the extra ``carto-dw`` is not installed. It is an ``ImportError`` too.
            CredentialsError: what :meth:`get_carto_dw_credentials` raises.
        """
        from carto_auth.warehouse import bigquery_client

        return bigquery_client(self, **client_options)

    def get_bigquery_client(self, **client_options: Any) -> bigquery.Client:
        """Another name of :meth:`get_carto_dw_client`, as it was once called."""
        return self.get_carto_dw_client(**client_options)

    def restricted_to(
        self,
        grants: Iterable[tuple[str, str]],
        *,
        allowed_apis: Iterable[str] = ("sql", "maps"),
        referers: Iterable[str] = (),
        expiration: float | None = None,
    ) -> RestrictedAuth:
        """An object to draw a map with, in place of this one: its token reads ``grants`` and nothing else.

        A map's page holds the token that it was drawn with, readable for everybody who has the page. The
        token is made by CARTO's Tokens API, kept in this object's cache, and used again as long as CARTO
        knows it and ``grants``, ``allowed_apis`` and ``referers`` are the same. Without a cache, each call
        makes another, and they count towards a quota.

        Args:
            grants: pairs of a connection's name and what may be read through it: a table
                (``project.dataset.table``, ``*`` for a part of the name) or the SQL of a query.
            allowed_apis: the APIs that accept the token.
            referers: the web sites that may use it; all, if there are none.
            expiration: POSIX seconds until which it is good; ``None`` for a token that is good until it is
                deleted. A kept token is used again if it ends no later, and not before half of that time.

        Raises:
            TypeError, ValueError: an argument is not as above.
            Unauthorized: the account may not make tokens, or is an API access token itself.
            RateLimited: the quota of tokens is used up.
            CredentialsError: another of the errors in :mod:`carto_auth.errors`.
        """
        from carto_auth.restricted import Restriction, restricted_auth

        return restricted_auth(self, Restriction.of(grants, allowed_apis, referers, expiration))

    def _warehouse_token(self) -> WarehouseToken:
        """The warehouse token; a new one when the last is at the end of its use."""
        if not self._api_base_url:
            raise CredentialsError(
                "The CARTO Data Warehouse cannot be reached without an API base URL.",
                remedy="Pass api_base_url=, or use CartoAuth.from_oauth() or from_m2m().",
            )
        from carto_auth.warehouse import REUSE_LEEWAY_SECONDS

        with self._own_locks()[1]:
            kept = self._warehouse
            if kept is None or kept.expiration - REUSE_LEEWAY_SECONDS <= time.time():
                kept = self._warehouse = self._new_warehouse_token(self._api_base_url)
            return kept

    def _new_warehouse_token(self, api_base_url: str) -> WarehouseToken:
        """Ask for one; a 401 renews the access token once and asks once more."""
        from carto_auth.warehouse import get_warehouse_token

        return self._with_renewal(partial(get_warehouse_token, api_base_url))

    def _with_renewal(self, ask: Callable[[str], _Answer]) -> _Answer:
        """The answer to the access token; a 401 renews the token once and asks once more."""
        token = self.get_access_token()
        try:
            return ask(token)
        except Unauthorized as error:
            another = self._token_instead_of(token) if error.status == 401 else None
            if another is None:
                self._advise(error)
                raise
        try:
            return ask(another)
        except Unauthorized as error:
            self._advise(error)
            raise

    def _advise(self, error: Unauthorized) -> None:
        """Say what to do about a token that was refused, unless the error says it already."""
        if error.status == 401 and error.remedy is None:
            error.remedy = self._how_to_get_another()

    def _token_instead_of(self, refused: str) -> str | None:
        """The token to use where ``refused`` was not accepted; ``None`` if only a person can get another.

        However many threads it was refused to, one of them renews it.

        Raises:
            CredentialsError: it could not be renewed.
        """
        if self._access_token == refused:
            if not self._renews_quietly():
                return None
            self._renew(refused=refused)
        token = self.get_access_token()
        return token if token != refused else None

    def _is_fresh(self) -> bool:
        """Whether :meth:`get_access_token` has an answer without asking anybody."""
        return bool(self._access_token) and time.time() < self._due

    def _how_to_get_another(self) -> str:
        """What to do when a token is refused that this object cannot replace."""
        if self._renews_quietly():
            return "The token was refused although it is new. Log in anew; if it stays so, ask CARTO's support."
        if self._cli_profile is not None:
            return "The CARTO CLI's login was revoked or has ended. Run: carto auth login"
        if self._expiration == LATEST_TIME:
            return "Make a new API access token on the Developers page of your CARTO Workspace."
        return (
            "The login was revoked or has ended. Call logout() on this object, or run carto-auth logout; then log in."
        )

    def _drop_warehouse_token(self, refused: str | None) -> None:
        """Do not use a warehouse token again that BigQuery did not accept, or that is at its end."""
        with self._own_locks()[1]:
            if self._warehouse is not None and self._warehouse.token == refused:
                self._warehouse = None

    def _warehouse_expiration(self, token: str) -> float:
        """Until when a warehouse token is used, POSIX seconds."""
        from carto_auth.warehouse import WAREHOUSE_TOKEN_SECONDS

        kept = self._warehouse
        if kept is not None and kept.token == token:
            return kept.expiration
        return time.time() + WAREHOUSE_TOKEN_SECONDS

    def logout(self) -> bool:
        """Forget this account's tokens, in memory and in the cache; revoke the refresh token if there is one.

        Returns:
            Whether there was a token to forget.

        An access token that somebody else has a copy of stays good until its end: CARTO cannot revoke it.
        """
        found = self._access_token is not None
        refresh_token, self._refresh_token = self._refresh_token, None
        self._set_token(None, None)
        self._warehouse = None
        if self._cache_file:
            cache.forget_in_memory(self._account_file())
        if self._use_cache and self._cache_file:
            kept = cache.load_cache_file(self._account_file()) or {}
            refresh_token = kept.get("refresh_token", refresh_token)
            try:
                found |= cache.forget_entry(self._account_file(), self._identity())
            except OSError as error:
                raise CredentialsError(
                    f"The login could not be taken out of {cache.shown(self._cache_file)} ({error.strerror}).",
                    remedy="Delete it there yourself.",
                ) from None
        if refresh_token is not None:
            try:
                revoke_refresh_token(refresh_token, services=self._services)
            except CredentialsError as error:
                _log.debug("the refresh token could not be revoked: %s", error.message)
        return found

    # ---- renewing it ---------------------------------------------------------------------------

    def _renewed(self) -> str:
        """The token, after what its end or its nearness asks for."""
        if not self._is_over() and (not self._renews_quietly() or time.time() < self._retry_at):
            assert self._access_token is not None
            return self._access_token
        was_over = self._is_over()
        try:
            self._renew(wait=was_over)
        except CredentialsError as error:
            if was_over:
                raise
            # A token that is still good is never refused because a service is down.
            self._retry_at = time.time() + _RETRY_SECONDS
            _log.debug("the token could not be renewed ahead of its end: %s", error.message)
            if self._is_over():  # it has ended meanwhile: now a person may be asked
                self._renew()
        assert self._access_token is not None
        return self._access_token

    def _is_over(self) -> bool:
        """Whether there is no token, or only one that has come to its end."""
        return not self._access_token or is_token_expired(self._expiration)

    def _renews_quietly(self) -> bool:
        """Whether a new token can be had without asking a person."""
        if self._mode == "m2m":
            return bool(self._client_id and self._client_secret)
        # A copy in a forked process must not use it: a refresh token that is presented twice ends the login of both.
        return self._refresh_token is not None and self._home_process == _this_process()

    def _renew(self, *, refused: str | None = None, wait: bool = True) -> None:
        """Get a new token: one request, however many threads and processes want it.

        ``refused`` is a token that a service did not accept, whatever its expiration says. ``wait`` is
        whether to wait for another thread or process that is about it.
        """
        before = self._access_token if refused is None else refused
        renewals, (failures, _) = self._renewals, self._failures
        with self._alone_here(wait) as alone:
            if not alone or self._access_token != before or (refused is None and self._renewals != renewals):
                return  # another thread is about it, or has done it
            if self._failures[0] != failures and self._failures[1] is not None:
                raise _copied(self._failures[1])  # another thread has tried meanwhile, on behalf of this one too
            with self._alone_everywhere(wait) as alone:
                if not alone:
                    return
                if self._use_cache and self._cache_file:
                    # Not load_cache_file: this is a second look, at what another process may have done.
                    entry = cache.load_cache_file(self._account_file())
                    if entry and entry.get("access_token") not in (before, refused) and self._adopt(entry):
                        _log.debug("another process has renewed the token")
                        return
                may_ask = self._is_over() or refused is not None
                try:
                    self._request(may_ask=may_ask)
                except CredentialsError as error:
                    if may_ask:  # else it says nothing to who needs a token now
                        self._failures = (failures + 1, _copied(error))
                    raise

    def _request(self, *, may_ask: bool) -> None:
        import_whole("carto_auth._http")
        self._take(self._token_info(may_ask))

    def _take(self, info: Mapping[str, Any]) -> None:
        """Use a token info that was just earned."""
        self._refresh_token = info.get("refresh_token", self._refresh_token)
        if not info.get("access_token"):
            raise InvalidAnswer("The login gave no access token.", remedy="Try again.")
        self._set_token(info["access_token"], info.get("expiration"), issued_at=info.get("issued_at"))
        if self._refresh_token is not None and not self._api_base_url:
            self._store()  # a rotated one is the only one, and finding the base URL may take its time
        self._find_base_url()

    def _token_info(self, may_ask: bool) -> dict[str, Any]:
        """A new token, by the way of this object's mode. ``may_ask`` is whether the old one is worth no more."""
        if self._cli_profile is not None:
            return self._cli_token_info(self._cli_profile)
        if self._mode == "m2m":
            if not self._client_id or not self._client_secret:
                raise CredentialsError(
                    "The token has come to its end, and there are no credentials to get a new one with.",
                    remedy="Use CartoAuth.from_m2m() with a credentials file.",
                )
            return self._asked(get_m2m_token_info, self._client_id, self._client_secret)
        if self._refresh_token is not None and self._renews_quietly():
            try:
                return refresh_oauth_token_info(self._refresh_token, services=self._services)
            except Unauthorized as error:
                _log.debug("the refresh token was not taken: %s", error.message)
                if error.error not in _ENDED:  # a proxy's, or a firewall's: it may be good again
                    error.remedy = "Try again; if it stays so, log in anew, after: carto-auth logout"
                    raise
                self._forget_refresh_token()  # now only a person can help
        if not may_ask or not self._may_ask():
            raise login_required()
        return self._asked(get_oauth_token_info, self._open_browser, self._org, **self._login_options())

    def _forget_refresh_token(self) -> None:
        """Keep a refresh token no longer that its server does not take; the access token beside it may be good."""
        self._refresh_token = None
        if not self._is_over():
            self._store()
        elif self._use_cache and self._cache_file:
            with suppress(OSError):
                cache.forget_entry(self._account_file(), self._identity())

    def _cli_token_info(self, cli_profile: credentials.CliProfile) -> dict[str, Any]:
        """The token that the CARTO CLI has now: somebody may have logged in with it again."""
        token = cli_profile.read().access_token
        expiration = jwt_expiration(token) or LATEST_TIME
        if is_token_expired(expiration):
            raise LoginRequired("The CARTO CLI's login has ended.", remedy="Run: carto auth login")
        return {"access_token": token, "expiration": expiration}

    def _may_ask(self) -> bool:
        return self._interactive is not False and self._home_process == _this_process()

    def _login_options(self) -> dict[str, Any]:
        """What a login needs to know that carto-auth 0.2.0 could not say; mostly nothing."""
        options: dict[str, Any] = {}
        if self._interactive is not None:
            options["interactive"] = self._interactive
        if self._timeout != LOGIN_SECONDS:
            options["timeout"] = self._timeout
        return options

    def _asked(self, function: Callable[..., _Answer], *arguments: Any, **options: Any) -> _Answer:
        """Call ``function`` as carto-auth 0.2.0 does, unless there is more to say: dependants replace it."""
        if self._given_services is not None:
            options["services"] = self._given_services
        return function(*arguments, **options)

    # ---- keeping it ----------------------------------------------------------------------------

    def _identity(self) -> Identity:
        if self._mode == "m2m":
            return Identity.of_application(self._services, self._client_id or "", self._api_base_url)
        return Identity.of_person(self._services, self._org)

    def _account_file(self) -> AccountFile:
        assert self._cache_file is not None
        return AccountFile.at(self._cache_file, self._identity())

    def _adopt(self, entry: Mapping[str, Any]) -> bool:
        """Take a cached entry's token, if it is sound, ours and good."""
        if not cache.is_sound_entry(entry):
            return False
        if "identity" not in entry and not self._identity().owns_flat_entry(entry):
            _log.debug("the cached token is not of this account")
            return False
        token, expiration = entry["access_token"], entry["expiration"]
        if is_token_expired(true_expiration(token, expiration, entry.get("issued_at"))):
            return self._adopt_refresh_token(entry)
        self._api_base_url = self._api_base_url or entry.get("api_base_url")
        self._adopt_refresh_token(entry)
        self._set_token(token, expiration, issued_at=entry.get("issued_at"))
        return True

    def _adopt_refresh_token(self, entry: Mapping[str, Any]) -> bool:
        """Take the means to renew without a person, where this object may; always ``False``: it is no token."""
        refresh_token = entry.get("refresh_token")
        if self._mode == "oauth" and is_usable_token(refresh_token) and self._home_process == _this_process():
            self._refresh_token = refresh_token
            self._api_base_url = self._api_base_url or entry.get("api_base_url")
        return False

    @property
    def _cache_filepath(self) -> StrPath | None:
        """Where tokens are kept: as it was given; the default file is a ``Path``."""
        if self._default_cache_filepath is None or cache.is_in_redis(self._default_cache_filepath):
            return self._cache_file
        from pathlib import Path

        return Path(self._default_cache_filepath)

    @_cache_filepath.setter
    def _cache_filepath(self, cache_filepath: StrPath | None) -> None:
        self._cache_file = cache_filepath
        self._default_cache_filepath: str | None = None

    def _keep_in(self, cache_filepath: StrPath | None) -> None:
        """Keep tokens in this file, else in the default one of the mode."""
        self._cache_filepath = cache_filepath
        if not cache_filepath:
            self._cache_file = self._default_cache_filepath = default_cache_filepath(self._mode)

    @property
    def _expiration(self) -> float | None:
        """Until when the token is good, POSIX seconds. Setting it sets ``_due``, of which each call makes use."""
        return self._end

    @_expiration.setter
    def _expiration(self, expiration: float | None) -> None:
        self._end = expiration
        self._due = expiration - self._leeway if expiration else 0.0

    def _set_token(self, token: str | None, expiration: float | None, issued_at: object = None) -> None:
        lifetime = None
        if token:
            expiration = true_expiration(token, expiration, issued_at)
            lifetime = jwt_lifetime(token)
            if lifetime is None and expiration and is_time(issued_at):
                lifetime = expiration - issued_at
        self._renewals += 1
        # In this order, see get_access_token.
        self._leeway = renewal_leeway(lifetime)
        self._access_token = token
        self._issued_at = issued_at
        self._expiration = expiration

    def _would_replace_a_better_one(self) -> bool:
        """Whether the cache has a good token, and this one is not fit to be kept."""
        if not self._use_cache or not self._cache_file:
            return False
        if cache.is_sound_entry(self._entry()) and not is_token_expired(self._expiration):
            return False
        kept = cache.load_cache_file(self._account_file())
        return cache.is_sound_entry(kept) and not is_token_expired(kept["expiration"]) if kept else False

    def _entry(self) -> dict[str, Any]:
        entry: dict[str, Any] = {
            "api_base_url": self._api_base_url,
            "access_token": self._access_token,
            "expiration": self._expiration,
        }
        if self._issued_at is not None:
            entry["issued_at"] = self._issued_at
        if self._refresh_token is not None:
            entry["refresh_token"] = self._refresh_token
        return entry

    def _store(self) -> None:
        """Keep the token in the cache, if there is one. A cache that cannot be written is told of once."""
        if not self._use_cache or not self._cache_file or not self._access_token:
            return
        try:
            save_cache_file(self._account_file(), self._entry())
            cache.forget_in_memory(self._account_file())
        except (OSError, TypeError, ValueError) as error:
            if self._default_cache_filepath:  # nobody asked for a file; to keep it is all they want
                cache.keep_in_memory(self._account_file(), self._entry())
            reason = getattr(error, "strerror", None) or error
            remedy = (
                "check CARTO_AUTH_CACHE or cache_filepath, and the server"
                if cache.is_in_redis(str(self._cache_file))
                else "set CARTO_AUTH_HOME to a folder that can be written"
            )
            _log.warn_once(
                f"The CARTO token cannot be kept in {cache.shown(self._cache_file)} ({reason}). "
                f"It is used all the same; {remedy}."
            )

    # ---- together with others ------------------------------------------------------------------

    def _own_locks(self) -> tuple[threading.Lock, threading.Lock]:
        """This process's locks, for renewals and for the warehouse.

        A thread that held one when this process was forked did not come along to release it.
        """
        import threading  # not at the top: a start with a good token has no use for it

        # setdefault, because threads that come here at the same time must get the same locks.
        return self._locks.setdefault(os.getpid(), (threading.Lock(), threading.Lock()))

    def _wait_seconds(self) -> float:
        if self._mode == "m2m":
            return _RENEWAL_WAIT_SECONDS
        if self._interactive is False and not self._renews_quietly():
            return 0.0  # what another one's login brings is not waited for: that may take a person's time
        return _RENEWAL_WAIT_SECONDS + min(self._timeout, LONGEST_WAIT_SECONDS)

    @contextmanager
    def _alone_here(self, wait: bool) -> Iterator[bool]:
        """Keep the other threads out; whether that came about. After a long wait it goes on all the same."""
        lock = self._own_locks()[0]
        held = lock.acquire(timeout=self._wait_seconds()) if wait else lock.acquire(blocking=False)
        try:
            yield held or wait
        finally:
            if held:
                lock.release()

    @contextmanager
    def _alone_everywhere(self, wait: bool) -> Iterator[bool]:
        """Keep the other processes that share the cache out; as :meth:`_alone_here`."""
        if not self._use_cache or not self._cache_file:
            yield True
            return
        import_whole("filelock")
        seconds = self._wait_seconds() if wait and (self._renews_quietly() or self._somebody_may_log_in()) else 0.0
        patience = min(seconds, _SILENT_SECONDS)
        with ExitStack() as stack:
            began = time.monotonic()
            held = stack.enter_context(cache.locked(self._account_file(), self._identity(), timeout=patience))
            # Half of it shows that it was waited for, and not that nothing can be locked here: Redis' lock gives up
            # when its next look would come too late.
            if not held and 0 < patience < seconds and time.monotonic() - began >= patience / 2:
                if not self._renews_quietly():
                    from carto_auth._login.talk import tell

                    tell("Another program is logging in to CARTO. Waiting for what comes of it ...")
                seconds -= patience
                held = stack.enter_context(cache.locked(self._account_file(), self._identity(), timeout=seconds))
            yield held or wait

    def _somebody_may_log_in(self) -> bool:
        """Whether there is a person, or a program that has put itself in the place of one."""
        return get_oauth_token_info is not _OWN_LOGIN or somebody_may_log_in()

    def __getstate__(self) -> dict[str, Any]:
        """What travels to another process: of an application all, of a person the token alone."""
        state = self.__dict__.copy()
        state["_locks"] = {}
        state["_failures"] = (0, None)
        if self._mode == "oauth":
            state["_refresh_token"] = None
        return state

    def __repr__(self) -> str:
        return f"<CartoAuth {self._mode} {self._api_base_url or 'without an API base URL'}>"


def _time_argument(expiration: Any) -> Any:
    """The ``expiration`` given to the constructor; numbers of any library will do.

    Raises:
        TypeError: it is no number.
    """
    if expiration is None or type(expiration) is int:
        return expiration
    number = as_number(expiration)
    if number is None:
        raise TypeError(f"expiration must be POSIX seconds, a number, not {type(expiration).__name__}")
    return min(number, LATEST_TIME)


def _copied(error: CredentialsError) -> CredentialsError:
    """The same error, without the frames that it came through, which belong to one thread."""
    from copy import copy

    try:
        return copy(error)
    except TypeError:  # a program's own, which cannot be copied
        return CredentialsError(error.message, remedy=error.remedy)


def _where_given(**options: Any) -> dict[str, Any]:
    """The options that are not at their defaults: the constructor of a subclass may know those of 0.2.0 alone."""
    defaults = {"interactive": None, "timeout": LOGIN_SECONDS, "services": None}
    return {name: value for name, value in options.items() if value != defaults[name]}


def _this_process() -> tuple[int, bytes]:
    return os.getpid(), _PROCESS
