"""API access tokens that read what a map reads and nothing else, made by CARTO's Tokens API.

A map's page, and a notebook exported with one, holds the token it was drawn with, readable for everybody who
has the page. :meth:`carto_auth.CartoAuth.restricted_to` gives an object to draw it with instead of one's own.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, NamedTuple

from carto_auth import _log, cache
from carto_auth._token import (
    ACCOUNT_CLAIM,
    LATEST_TIME,
    as_number,
    is_time,
    is_token_expired,
    is_usable_token,
    jwt_claims,
    jwt_expiration,
)
from carto_auth._trust import normalized_base_url
from carto_auth.auth import CartoAuth
from carto_auth.cache import AccountFile, Identity
from carto_auth.errors import (
    CredentialsError,
    InvalidAnswer,
    RateLimited,
    ServiceUnavailable,
    ServiceUnreachable,
    Unauthorized,
)

if TYPE_CHECKING:
    from typing_extensions import Self

#: Seconds that a process waits for another one that makes the same token: as long as a request may take.
_WAIT_SECONDS = 60.0

_AGAIN = "Call restricted_to() on the account's object for another."


class Restriction(NamedTuple):
    """What a token may do. Built by :meth:`of`, which checks it.

    Attributes:
        grants: pairs of a connection's name, and a table (``*`` for a part of its name) or SQL.
        allowed_apis: the APIs that accept the token.
        referers: the web sites that may use it; all, if there are none.
        expiration: until when, POSIX seconds; ``None`` for a token that is good until it is deleted.
    """

    grants: tuple[tuple[str, str], ...]
    allowed_apis: tuple[str, ...]
    referers: tuple[str, ...]
    expiration: int | None

    @classmethod
    def of(
        cls,
        grants: Iterable[tuple[str, str]],
        allowed_apis: Iterable[str],
        referers: Iterable[str],
        expiration: float | None,
    ) -> Self:
        """Check the arguments of :meth:`carto_auth.CartoAuth.restricted_to`.

        Raises:
            TypeError, ValueError: one is not as it says there.
        """
        pairs = tuple(dict.fromkeys(_pair(grant) for grant in _items(grants, "grants")))
        apis = tuple(dict.fromkeys(_text(api, "allowed_apis") for api in _items(allowed_apis, "allowed_apis")))
        sites = tuple(dict.fromkeys(_text(site, "referers") for site in _items(referers, "referers")))
        if not pairs or not apis:
            # What CARTO makes of an empty list is not known, and it might be everything.
            raise ValueError(f"{'allowed_apis' if pairs else 'grants'} must not be empty")
        return cls(pairs, apis, sites, None if expiration is None else _time(expiration))

    def body(self) -> dict[str, Any]:
        """The body of the request that makes such a token."""
        body: dict[str, Any] = {
            "grants": [{"connection_name": connection, "source": source} for connection, source in self.grants],
            "allowed_apis": list(self.allowed_apis),
            "referers": list(self.referers),
        }
        if self.expiration is not None:
            moment = datetime.fromtimestamp(self.expiration, timezone.utc)
            body["expiration_date"] = moment.strftime("%Y-%m-%dT%H:%M:%SZ")
        return body

    def digest(self) -> str:
        """The same text for the same grants, APIs and referers in any order, and never for others.

        Tokens that end and tokens that do not are told apart; a moment is not, since each run names another.
        """
        parts = [sorted(self.grants), sorted(self.allowed_apis), sorted(self.referers), self.expiration is None]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def is_met_by(self, end: float) -> bool:
        """Whether a token that is good until ``end`` lasts as long as asked for: no longer, and half at least."""
        if self.expiration is None:
            return end >= LATEST_TIME
        now = time.time()
        return end <= self.expiration and end - now >= (self.expiration - now) / 2


class RestrictedAuth(CartoAuth):
    """A :class:`CartoAuth` whose token is restricted, and good for all to see who see the map.

    It is never renewed and never asks for a login. It can be pickled: the token goes along, the account that
    made it does not.
    """

    _owner: CartoAuth | None = None
    _kept_in: AccountFile | None = None
    _restriction: Restriction | None = None

    def logout(self) -> bool:
        """Do nothing: what is published stays as it is. :meth:`delete` takes the token back.

        Returns:
            ``False``: nothing was forgotten.
        """
        return False

    def delete(self) -> bool:
        """Take the token back, at CARTO and in the cache: every page drawn with it stops working.

        Returns:
            Whether CARTO knew the token still.

        Raises:
            CredentialsError: CARTO did not take it back, or this is a copy that came from another process.
        """
        token = self._access_token
        if token is None:
            return False
        if self._owner is None:
            raise CredentialsError(
                "A copy of a restricted object cannot delete its token: the account did not come along.",
                remedy="Call restricted_to() with the same arguments on the account's object, and delete that.",
            )
        known = _TokensApi(self._owner).delete(token)
        if self._kept_in is not None:
            _forget(self._kept_in, token)
        self._set_token(None, None)
        return known

    def _renews_quietly(self) -> bool:
        return False

    def _renewed(self) -> str:
        if self._access_token is None:
            raise CredentialsError("The restricted token was deleted.", remedy=_AGAIN)
        if is_token_expired(self._expiration):
            raise CredentialsError("The restricted token has come to its end.", remedy=_AGAIN)
        return self._access_token

    def _how_to_get_another(self) -> str:
        return f"The restricted token does not open this, was deleted or has ended. {_AGAIN}"

    def __getstate__(self) -> dict[str, Any]:
        # Without the account, whose token or credentials would go along, and so without its cache.
        return {**super().__getstate__(), "_owner": None, "_kept_in": None}

    def __repr__(self) -> str:
        grants = len(self._restriction.grants) if self._restriction else 0
        return f"<RestrictedAuth to {grants} grant{'' if grants == 1 else 's'} {self._api_base_url}>"


def restricted_auth(owner: CartoAuth, restriction: Restriction) -> RestrictedAuth:
    """What :meth:`carto_auth.CartoAuth.restricted_to` returns: with the kept token, or a new one."""
    api = _TokensApi(owner)
    kept_in = _kept_in(owner, restriction)
    if kept_in is None:
        token, end = api.make(restriction)
    else:
        token, end = _kept(kept_in, restriction, api) or _made_once(kept_in, restriction, api)
    auth = RestrictedAuth(
        "oauth",
        api_base_url=api.base_url,
        access_token=token,
        expiration=end,
        use_cache=False,
        open_browser=False,
        interactive=False,
        services=owner._given_services,
    )
    auth._owner, auth._kept_in, auth._restriction = owner, kept_in, restriction
    return auth


# ---- CARTO's Tokens API --------------------------------------------------------------------------


class _TokensApi:
    """``/v3/tokens``, on an account's behalf."""

    def __init__(self, owner: CartoAuth) -> None:
        base_url = owner.get_api_base_url()
        if not base_url:
            raise CredentialsError(
                "CARTO's Tokens API cannot be reached without an API base URL.",
                remedy="Pass api_base_url=, or use CartoAuth.from_oauth() or from_m2m().",
            )
        self.base_url = normalized_base_url(base_url)
        self._owner = owner

    def make(self, restriction: Restriction) -> tuple[str, float]:
        """A new token, and until when it is good (POSIX seconds)."""
        answer = self._request("POST", None, restriction.body(), "CARTO made no restricted token")
        token = answer.get("token")
        if not is_usable_token(token):
            raise InvalidAnswer(
                "CARTO's answer holds no restricted token that can be used.",
                remedy="Try again; if it stays so, ask CARTO's support.",
                status=200,
            )
        return token, LATEST_TIME if restriction.expiration is None else restriction.expiration

    def knows(self, token: str) -> bool:
        """Whether the token was not deleted. Where CARTO cannot tell just now, it is taken for good."""
        try:
            self._request("GET", token, None, "CARTO did not say whether the restricted token is still good")
        except (ServiceUnreachable, ServiceUnavailable, RateLimited) as error:
            _log.debug("using the kept restricted token unchecked: %s", error.message)
        except CredentialsError as error:
            if error.status != 404:
                raise
            return False
        return True

    def delete(self, token: str) -> bool:
        """Take the token back; ``False`` if CARTO did not know it any more."""
        try:
            self._request("DELETE", token, None, "CARTO did not delete the restricted token")
        except CredentialsError as error:
            if error.status != 404:
                raise
            return False
        return True

    def _request(self, method: str, token: str | None, body: dict[str, Any] | None, failure: str) -> dict[str, Any]:
        from urllib.parse import quote

        from carto_auth import _http

        url = f"{self.base_url}/v3/tokens" + (f"/{quote(token, safe='')}" if token else "")

        def ask(access_token: str) -> dict[str, Any]:
            return _http.request_json(method, url, access_token=access_token, body=body, hidden=token, failure=failure)

        try:
            return self._owner._with_renewal(ask)
        except (Unauthorized, RateLimited) as error:
            error.remedy = self._remedy(error)
            raise

    def _remedy(self, error: Unauthorized | RateLimited) -> str | None:
        if isinstance(error, RateLimited):
            return f"Delete tokens that are not needed any more, by delete() or in the CARTO Workspace. {error.remedy}"
        if self._is_api_access_token():
            return "An API access token cannot make tokens. Use CartoAuth.from_oauth() or CartoAuth.from_m2m()."
        if error.status == 403:
            return (
                "This account may not make API access tokens: ask the administrator of your CARTO organization. An M2M "
                "application may do what its owner may."
            )
        return error.remedy

    def _is_api_access_token(self) -> bool:
        """Whether the account is a token of that kind; an OAuth token of CARTO's is a JWT that ends."""
        return not self._owner._renews_quietly() and jwt_expiration(self._owner.get_access_token()) is None


# ---- keeping it ----------------------------------------------------------------------------------


class _TokenIdentity(Identity):
    """The identity of a restricted token in the cache: whose it is, and what it is restricted to."""

    account: str
    restriction: str

    @classmethod
    def of_token(cls, owner: Identity, account: str, restriction: Restriction, api_base_url: str) -> Self:
        identity = cls(*owner._replace(mode="restricted", api_base_url=normalized_base_url(api_base_url)))
        identity.account = account
        identity.restriction = restriction.digest()
        return identity

    def __str__(self) -> str:
        account = self.account.replace("%", "%25").replace("&", "%26")
        return f"{super().__str__()}&account={account}&restriction={self.restriction}"

    def owns_flat_entry(self, entry: object) -> bool:
        """Never: carto-auth 0.2.0 kept no such tokens."""
        return False


def _kept_in(owner: CartoAuth, restriction: Restriction) -> AccountFile | None:
    """Where such a token is kept; ``None`` if the account has no cache, or cannot be told from another."""
    if not owner._use_cache or not owner._cache_filepath:
        return None
    claims = jwt_claims(owner.get_access_token())
    # The login's own identity does not name the person: another one may log in after this one.
    account = f"{claims.get('sub', '')} {claims.get(ACCOUNT_CLAIM, '')}".strip()
    if not account and owner._mode != "m2m":
        return None
    identity = _TokenIdentity.of_token(owner._identity(), account, restriction, owner.get_api_base_url())
    return AccountFile.at(owner._cache_filepath, identity)


def _lock_of(kept_in: AccountFile) -> Identity:
    """What is locked: all restricted tokens of a login or application, so that not each map leaves a lock file."""
    return Identity(*kept_in.identity)


def _kept(kept_in: AccountFile, restriction: Restriction, api: _TokensApi) -> tuple[str, float] | None:
    """The kept token and its end, if it will do and CARTO still knows it. That is asked at each start."""
    entry = cache.load_cache_file(kept_in)
    if not entry or entry.get("identity") != str(kept_in.identity) or not restriction.is_met_by(entry["expiration"]):
        return None
    token: str = entry["access_token"]
    return (token, entry["expiration"]) if api.knows(token) else None


def _made_once(kept_in: AccountFile, restriction: Restriction, api: _TokensApi) -> tuple[str, float]:
    """A new token, kept; or the one that another thread or process has made meanwhile."""
    with cache.locked(kept_in, _lock_of(kept_in), timeout=_WAIT_SECONDS):
        found = _kept(kept_in, restriction, api)
        if found is not None:
            return found
        token, end = api.make(restriction)
        entry = {
            "identity": str(kept_in.identity),
            "api_base_url": api.base_url,
            "access_token": token,
            "expiration": end,
        }
        try:
            cache.save_cache_file(kept_in, entry)
        except OSError as error:
            _log.warn_once(
                f"The restricted token cannot be kept in {cache.shown(kept_in)} ({error.strerror or error}). "
                "The next start makes another, and they count towards a quota; set CARTO_AUTH_HOME to a folder that "
                "can be written."
            )
        return token, end


def _forget(kept_in: AccountFile, token: str) -> None:
    """Take ``token`` out of the cache, but not one that another process has put in its place."""
    with cache.locked(kept_in, _lock_of(kept_in), timeout=_WAIT_SECONDS):
        entry = cache.load_cache_file(kept_in)
        if entry and entry.get("access_token") == token:
            try:
                cache.forget_entry(kept_in, kept_in.identity)
            except OSError as error:  # the next start finds out that CARTO does not know it
                _log.debug("the deleted token stays in the cache: %s", error.strerror)


# ---- checking arguments --------------------------------------------------------------------------


def _items(values: Any, name: str) -> list[Any]:
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise TypeError(f"{name} must be a list, not {type(values).__name__}")
    return list(values)


def _pair(grant: Any) -> tuple[str, str]:
    # A text of two characters would pass for a pair, and so would a mapping of two keys, which is CARTO's own form.
    if (
        isinstance(grant, (str, Mapping, AbstractSet))
        or not isinstance(grant, Iterable)
        or len(pair := list(grant)) != 2
    ):
        raise ValueError('each of grants must be a pair of a connection and a table or SQL: [("carto_dw", "a.b.c")]')
    return _text(pair[0], "grants"), _text(pair[1], "grants")


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{name} must hold texts that are not empty")
    return value.strip()


def _time(expiration: Any) -> int:
    if isinstance(expiration, datetime):
        raise TypeError("expiration must be POSIX seconds, not a datetime: pass its .timestamp()")
    seconds = as_number(expiration)
    if not is_time(seconds) or is_token_expired(seconds):
        raise ValueError("expiration must be POSIX seconds, in the future and before the year 10000")
    return int(seconds)
