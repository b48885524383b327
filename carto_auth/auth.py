"""CartoAuth: the names of carto-auth 0.2.0, the ways to make one, and what it opens."""

from __future__ import annotations

import time
from functools import partial

from carto_auth import cache, credentials, discovery, m2m, pkce
from carto_auth._account import Account
from carto_auth._facade import Facade
from carto_auth._frames import clears_its_frames
from carto_auth._identity import Identity
from carto_auth._request_auth import RequestAuth, base_url_for, with_renewal
from carto_auth._services import Services
from carto_auth._sources import CliSource, FixedSource, LoginSource, M2MSource, TokenSource
from carto_auth._stores import default_store, store_at, store_elsewhere
from carto_auth._stores.base import NO_TOKEN, Entry, Store
from carto_auth._token import LATEST_TIME, Token, given_time
from carto_auth._trust import normalized_base_url
from carto_auth.cache import load_cache_file, save_cache_file
from carto_auth.discovery import get_api_base_url
from carto_auth.errors import CredentialsError, LoginRequired
from carto_auth.m2m import get_m2m_token_info
from carto_auth.pkce import LOGIN_SECONDS, CartoPKCE, get_oauth_token_info, somebody_may_log_in

# Type checkers take this name for true; typing would cost a start more than all of this package does.
TYPE_CHECKING = False

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping
    from typing import Any

    from google.auth.credentials import Credentials
    from google.cloud import bigquery
    from typing_extensions import Self

    from carto_auth._login.pending import PendingLogin
    from carto_auth._warehouse.token import Warehouse
    from carto_auth.restricted import RestrictedTokens

    StrPath = str | os.PathLike[str]

__all__ = ["CartoAuth", "RestrictedAuth"]
#: As carto-auth 0.2.0 has them here; tests of other packages replace them.
__all__ += ["get_api_base_url", "get_m2m_token_info", "get_oauth_token_info", "load_cache_file", "save_cache_file"]


class Seams:
    """Calls the functions that dependants' tests replace in this module, by their names in it, at each call.

    A function that was replaced gets what carto-auth 0.2.0 gave it, and nothing newer; ours get all there is to say.
    """

    def load(self, store: Store) -> Entry | None:
        if load_cache_file is cache.load_cache_file:
            return store.load()
        return Entry.of(load_cache_file(store.place), is_flat=True) if store.place else None

    def save(self, store: Store, entry: Entry, api_base_url: str | None) -> None:
        if save_cache_file is cache.save_cache_file:
            store.save(entry)
        elif store.place:
            save_cache_file(store.place, {**entry.as_json(), "api_base_url": api_base_url})

    def log_in(self, open_browser: bool, org: str | None, **newer: Any) -> dict[str, Any]:
        is_ours = get_oauth_token_info is pkce.get_oauth_token_info
        return get_oauth_token_info(open_browser, org, **(newer if is_ours else {}))

    def may_log_in(self) -> bool:
        """Whether there is a person, or a program that has put itself in the place of one."""
        return get_oauth_token_info is not pkce.get_oauth_token_info or somebody_may_log_in()

    def get_m2m_token(self, client_id: Any, client_secret: Any, services: Services) -> dict[str, Any]:
        newer = {"services": services} if get_m2m_token_info is m2m.get_m2m_token_info else {}
        return get_m2m_token_info(client_id, client_secret, **newer)

    def find_api_base_url(self, access_token: str, services: Services) -> str:
        newer = {"services": services} if get_api_base_url is discovery.get_api_base_url else {}
        return get_api_base_url(access_token, **newer)


@clears_its_frames
class CartoAuth(Facade, RequestAuth):
    """A CARTO account's access token, kept and renewed, and what it opens.

    Use :meth:`from_oauth` for a person, :meth:`from_m2m` for a job. The constructor itself takes what is known already;
    it sends no request.

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
        TypeError: ``expiration`` or ``timeout`` is no number.
        ValueError: ``timeout`` is negative.
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
        self._use_cache = use_cache
        self._open_browser = open_browser
        self._org = org
        self._client_id = client_id
        self._client_secret = client_secret
        self._own_warehouse: Warehouse | None = None
        self._set_up(services, api_base_url, interactive=interactive, timeout=timeout)
        if cache_filepath:
            self._keep_in(store_at(cache_filepath, self._account.source.identity))
        if access_token:
            self._account.token = Token.of(access_token, given_time(expiration))
            self._account.keep()

    def _set_up(
        self, services: Services | None, api_base_url: str | None, *, finds_base_url: bool = False, **asking: Any
    ) -> None:
        """Build the account. Apart from ``__init__``, since a subclass may have the constructor of carto-auth 0.2.0."""
        known = services or Services.from_environment()
        source: TokenSource
        if self._mode == "m2m":
            application = credentials.M2MCredentials(api_base_url, self._client_id, self._client_secret)
            source = M2MSource(SEAMS, known, application, finds_base_url)
        else:
            source = LoginSource(SEAMS, known, self._org, self._open_browser, finds_base_url, **asking)
        self._get_from(source, known, api_base_url)

    def _get_from(self, source: TokenSource, services: Services, api_base_url: str | None) -> None:
        """Build the account of a source."""
        self._services = services
        self._cache = Store(source.identity)
        self._account = Account(source, self._cache, SEAMS, api_base_url)

    def _keep_in(self, store: Store) -> None:
        """Keep tokens in ``store``, if a cache is used."""
        self._cache = store
        if self._use_cache:
            self._account.store = store

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
            org: the SSO organization, by its Auth0 id (``org_...``) or its name; that of ``CARTO_ORG`` if not given.
            interactive: ``False`` never asks a person; ``True`` asks even where nobody seems to be; ``None`` asks where
                there is one.
            timeout: seconds that the person has for the login.
            services: the services to use; those of the environment, else CARTO's own.

        Raises:
            LoginRequired: a login is needed and there is nobody to ask.
            LoginFailed: the login did not succeed.
            TenantNotFound: the account belongs to no CARTO organization yet. The token is kept.
            CredentialsError: another of the errors in :mod:`carto_auth.errors`.
        """
        org = credentials.organization(org)
        auth = cls("oauth", api_base_url=api_base_url, use_cache=use_cache, open_browser=open_browser, org=org)
        return auth._start(cache_filepath, services, api_base_url, interactive=interactive, timeout=timeout)

    @classmethod
    def begin_oauth(
        cls, *, redirect_uri: str | None = None, org: str | None = None, services: Services | None = None
    ) -> PendingLogin[Self]:
        """Begin a person's login in a web app, which cannot wait: send the person to ``url``, then ``finish``.

        The account is the person's, so it is kept in no cache, and it asks nobody when its token ends: then, without a
        refresh token, ``get_access_token`` raises ``LoginRequired``, and the app begins a new login.

        Args:
            redirect_uri: an address of the app's, if the OAuth client of ``services`` is registered with it.
                Without it, the person ends on CARTO's page with an access code to copy.
            org: the SSO organization, by its Auth0 id (``org_...``) or its name; that of ``CARTO_ORG`` if not given.
            services: the services to use; those of the environment, else CARTO's own.

        Raises:
            UntrustedAddress: ``redirect_uri`` is neither https nor on this computer.
            ServerError, ServiceUnreachable: ``org`` is a name, and CARTO did not say which organization that is.
        """
        from carto_auth._login.pending import PendingLogin

        org = credentials.organization(org)
        login = CartoPKCE(False, org, interactive=False, services=services)
        return PendingLogin(partial(cls._logged_in, org, services), login, redirect_uri)

    @classmethod
    def _logged_in(cls, org: str | None, services: Services | None, info: Mapping[str, Any]) -> Self:
        auth = cls("oauth", use_cache=False, open_browser=False, org=org)
        auth._set_up(services, None, finds_base_url=True, interactive=False)
        auth._account.take(info)
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
        that ``CARTO_CREDENTIALS_FILE`` names, else of ``carto_credentials.json`` in the user's configuration. Where
        arguments and the environment have no API base URL, it is found from the token, and kept with it.

        Args:
            filepath: a JSON file with ``api_base_url``, ``client_id`` and ``client_secret``.
            cache_filepath: where the token is kept; ``~/.carto-auth/token_m2m.json`` if not given.
            use_cache: ``False`` neither reads nor writes a cache.
            api_base_url: such as ``https://gcp-us-east1.api.carto.com``; asked of CARTO if it is not known.
            client_id: of the M2M application.
            client_secret: of the M2M application.
            services: the services to use; those of the environment, else CARTO's own.

        Raises:
            CredentialsFileNotFound: there is no such file. It is a ``FileNotFoundError`` too.
            MissingCredential: a key is missing in it. It is an ``AttributeError`` too.
            InvalidCredential: a value cannot be used. It is a ``ValueError`` too.
            Unauthorized: CARTO refuses the credentials.
            CredentialsError: another of the errors in :mod:`carto_auth.errors`.
        """
        known = services or Services.from_environment()
        passed = {"api_base_url": api_base_url, "client_id": client_id, "client_secret": client_secret}
        found = credentials.find_m2m(known, filepath, **passed)
        return cls("m2m", use_cache=use_cache, **vars(found))._start(cache_filepath, known, found.api_base_url)

    @classmethod
    def from_m2m_token(cls, api_base_url: str, client_id: str, client_secret: str, use_cache: bool = True) -> Self:
        """What a public branch of carto-auth 0.2.0 calls :meth:`from_m2m` with credentials."""
        known = credentials.M2MCredentials(api_base_url, client_id, client_secret)
        return cls.from_m2m(use_cache=use_cache, **vars(known))

    @classmethod
    def from_access_token(
        cls, access_token: str | None = None, api_base_url: str | None = None, *, services: Services | None = None
    ) -> Self:
        """A CARTO API access token, as it is made in the CARTO Workspace. It is never renewed and never cached.

        Args:
            access_token: the token; that of ``CARTO_API_TOKEN`` if not given.
            api_base_url: where it is for; that of ``CARTO_API_BASE_URL`` if not given, else that of the CARTO CLI's
                profile, if there is one.
            services: the services to use; those of the environment, else CARTO's own.

        Raises:
            MissingCredential: there is no token, or no API base URL.
            InvalidCredential: one of them cannot be used.
            CredentialsError: the CARTO CLI's profile does not tell where the token is for.
        """
        known = services or Services.from_environment()
        text, base_url = credentials.find_access_token(access_token, api_base_url, known)
        source = FixedSource(
            Identity.of_person(known, None),
            "The API access token is not good any more.",
            "Make a new API access token on the Developers page of your CARTO Workspace.",
        )
        return cls._with_token(base_url, Token(text, LATEST_TIME, LATEST_TIME), source, known)

    @classmethod
    def from_cli(cls, profile: str | None = None, *, services: Services | None = None) -> Self:
        """The CARTO CLI's login, for as long as it is good; the CLI renews it (``carto auth login``).

        Args:
            profile: of the CLI's profiles; that of ``CARTO_PROFILE``, else the CLI's current one, if not given.
            services: the services to use; those of the environment, else CARTO's own.

        Raises:
            CredentialsFileNotFound: the CLI was never logged in here.
            MissingCredential, InvalidCredential: there is no such profile, or it cannot be used.
            LoginRequired: its login has ended.
            UntrustedAddress, ServerError, ServiceUnreachable: a self-hosted tenant's domain does not tell its API
                base URL.
        """
        known = services or Services.from_environment()
        source = CliSource(Identity.of_person(known, None), credentials.cli_profile(profile))
        found = credentials.cli_login(profile)
        token = Token.of(found.access_token, LATEST_TIME)
        auth = cls._with_token(found.api_base_url(known), token, source, known)
        auth.get_access_token()
        return auth

    @classmethod
    def _with_token(cls, api_base_url: str, token: Token, source: TokenSource, services: Services) -> Self:
        """An object with a token that is kept in no cache."""
        auth = cls("oauth", api_base_url=api_base_url, use_cache=False)
        auth._get_from(source, services, api_base_url)
        auth._account.token = token
        return auth

    @classmethod
    def default(
        cls, *, interactive: bool | None = None, org: str | None = None, services: Services | None = None
    ) -> Self:
        """The credentials that are there, in this order; the first that is there is used, or its error raised.

        1. ``CARTO_API_TOKEN``, as :meth:`from_access_token`;
        2. ``CARTO_CLIENT_ID`` and its companions, as :meth:`from_m2m`;
        3. a credentials file: ``CARTO_CREDENTIALS_FILE``, or the one in the user's configuration;
        4. the CARTO CLI's login, as :meth:`from_cli`; a file that cannot be read is passed over, unless
           ``CARTO_PROFILE`` asks for it;
        5. a person's login, cached or new, as :meth:`from_oauth`.

        Args:
            interactive: ``False`` never asks a person; ``True`` asks even where nobody seems to be; ``None`` asks where
                there is one.
            org: the SSO organization of a person's login; it does not change which of them is used.
            services: the services to use; those of the environment, else CARTO's own.

        Raises:
            CredentialsError: what the one that is there raises.
        """
        kind = credentials.source_in_use().kind
        if kind == "access_token":
            return cls.from_access_token(services=services)
        if kind in ("m2m_environment", "m2m_file"):
            return cls.from_m2m(services=services)
        if kind == "cli":
            return cls.from_cli(services=services)
        try:
            return cls.from_oauth(interactive=interactive, org=org, services=services)
        except LoginRequired as error:
            error.message = f"{credentials.nothing_good()} {error.message}"
            raise

    def _start(self, place: StrPath | None, services: Services | None, api_base_url: str | None, **asking: Any) -> Self:
        """Begin with the token that is kept at ``place``, else in the default place, or with a new one."""
        self._set_up(services, api_base_url, finds_base_url=True, **asking)
        identity = self._account.source.identity
        self._keep_in(store_at(place, identity) if place else default_store(identity))
        self._account.start()
        return self

    # ---- using it ------------------------------------------------------------------------------

    def get_api_base_url(self) -> str:
        """The API base URL, such as ``https://gcp-us-east1.api.carto.com``.

        As it was given, or found by the login; ``None`` only for an object that was made without one and finds none.
        """
        return self._account.api_base_url  # type: ignore[return-value]  # as carto-auth 0.2.0 says it

    def get_access_token(self) -> str:
        """A good access token; renewed first if it has ended.

        Raises:
            LoginRequired: only a person can renew it, and there is nobody to ask.
            CredentialsError: no new token could be had. A token that is still good is returned instead.
        """
        token = self._account.token
        if time.time() < token.due:
            return token.text
        return self._account.good_token()

    def get_carto_dw_credentials(self) -> tuple[str, str]:
        """The project id of the account's CARTO Data Warehouse, and a Google access token for it.

        The token is good for some time up to an hour. :meth:`get_carto_dw_client` renews it by itself.

        Raises:
            WarehouseUnavailable: the account has no warehouse, or may not use it.
            CredentialsError: there is no API base URL, or the answer makes no sense.
        """
        base_url = base_url_for(self, "the CARTO Data Warehouse")
        from carto_auth._warehouse.token import get_warehouse_token

        ask = partial(with_renewal, self, partial(get_warehouse_token, base_url))
        warehouse = self._warehouse().token(ask)
        return warehouse.project_id, warehouse.token

    def _warehouse(self) -> Warehouse:
        """The account's warehouse token; made when it is first needed, since its module takes time to import."""
        if self._own_warehouse is None:
            from carto_auth._warehouse.token import Warehouse

            self._own_warehouse = Warehouse()
        return self._own_warehouse

    def get_carto_dw_client(self, **client_options: Any) -> bigquery.Client:
        """A ``google.cloud.bigquery.Client`` on the account's CARTO Data Warehouse, which renews its token.

        Args:
            client_options: passed on to the client: ``location=``, ``default_query_job_config=`` and so on.
                Its ``project`` and ``credentials`` come from CARTO.

        Raises:
            MissingDependency: the extra ``carto-dw`` is not installed. It is an ``ImportError`` too.
            TypeError: ``project`` or ``credentials`` was given.
            CredentialsError: what :meth:`get_carto_dw_credentials` raises.
        """
        from carto_auth._warehouse.client import bigquery_client

        return bigquery_client(self, self._warehouse(), self._services.bigquery_url, client_options)

    def get_carto_dw_google_credentials(self) -> Credentials:
        """Google credentials for the account's CARTO Data Warehouse, for libraries beside the BigQuery client.

        They are a ``google.auth.credentials.Credentials``, renew themselves, can be pickled, and have the warehouse's
        ``project_id``.

        Raises:
            MissingDependency: the extra ``carto-dw`` is not installed. It is an ``ImportError`` too.
            CredentialsError: what :meth:`get_carto_dw_credentials` raises.
        """
        from carto_auth._warehouse.client import google_credentials

        return google_credentials(self, self._warehouse(), self._services.bigquery_url)

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
        name: str | None = None,
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
            referers: the web sites that may use it, such as ``https://example.com``; all, if there are none.
            name: what CARTO's lists call the token; a kept one keeps its name.
            expiration: POSIX seconds until which it is good; ``None`` for a token that is good until it is
                deleted. A kept token is used again if it ends no later, and not before half of that time.

        Raises:
            TypeError, ValueError: an argument is not as above.
            Unauthorized: the account may not make tokens, or is an API access token itself.
            RateLimited: the quota of tokens is used up.
            CredentialsError: another of the errors in :mod:`carto_auth.errors`.
        """
        from carto_auth.restricted import RestrictedTokens, Restriction, store_beside

        restriction = Restriction(grants, allowed_apis, referers, expiration, name)
        base_url = normalized_base_url(base_url_for(self, "CARTO's Tokens API"))
        store = store_beside(self._account.store, self.get_access_token(), restriction, base_url)
        tokens = RestrictedTokens(restriction, store, base_url, partial(with_renewal, self))
        return RestrictedAuth._made(self._services, tokens)

    def logout(self) -> bool:
        """Forget this account's tokens, in memory and in the cache; revoke the refresh token if there is one.

        Returns:
            Whether there was a token to forget.

        An access token that somebody else has a copy of stays good until its end: CARTO cannot revoke it.

        Raises:
            CredentialsError: the token is still in the cache, or the refresh token is still good.
        """
        if self._own_warehouse is not None:
            self._own_warehouse.forget()
        return self._account.forget()

    # ---- travelling ----------------------------------------------------------------------------

    def __setstate__(self, state: dict[str, Any]) -> None:
        if "version" in state:
            super().__setstate__(state)
            return
        # One of carto-auth 0.2.0 has the constructor's arguments, each with an underscore before it.
        given = {name.removeprefix("_"): value for name, value in state.items()}
        place = given.pop("cache_filepath", None)
        CartoAuth.__init__(self, **given)
        if place:
            self._keep_in(store_elsewhere(place, self._account.source.identity))

    def __repr__(self) -> str:
        return f"<CartoAuth {self._mode} {self._account.api_base_url or 'without an API base URL'}>"


@clears_its_frames
class RestrictedAuth(CartoAuth):
    """A :class:`CartoAuth` with a restricted token, which everybody who sees the map can see too.

    It is never renewed and never asks for a login. It can be pickled: the token goes along, the account that made it
    does not.
    """

    _tokens: RestrictedTokens | None = None

    @classmethod
    def _made(cls, services: Services, tokens: RestrictedTokens) -> Self:
        source = _restricted(services, "has come to its end")
        auth = cls._with_token(tokens.base_url, tokens.get(), source, services)
        auth._tokens = tokens
        return auth

    def logout(self) -> bool:
        """Do nothing: what is published stays as it is. :meth:`delete` takes the token back.

        Returns:
            ``False``, because nothing was forgotten.
        """
        return False

    def delete(self) -> bool:
        """Take the token back, at CARTO and in the cache: every page drawn with it stops working.

        Returns:
            Whether CARTO still knew the token.

        Raises:
            CredentialsError: CARTO did not take it back, or this is a copy that came from another process.
        """
        token = self._account.token
        if not token.text:
            return False
        if self._tokens is None:
            raise CredentialsError(
                "A copy of a restricted object cannot delete its token: the account did not come along.",
                remedy="Call restricted_to() with the same arguments on the account's object, and delete that.",
            )
        known = self._tokens.delete(token.text)
        self._account.source = _restricted(self._services, "was deleted")
        self._account.token = NO_TOKEN
        return known

    def __getstate__(self) -> dict[str, Any]:
        # Without the account, whose token or credentials would go along, and so without its cache.
        return {**super().__getstate__(), "_tokens": None}

    def __repr__(self) -> str:
        return f"<RestrictedAuth {self._account.api_base_url}>"


def _restricted(services: Services, end: str) -> FixedSource:
    return FixedSource(
        Identity.of_person(services, None),  # a copy must not say whose account made the token
        f"The restricted token {end}.",
        "Call restricted_to() on the account's object for another.",
    )


SEAMS = Seams()
