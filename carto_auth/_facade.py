"""Facade: what every ``CartoAuth`` does by its account: it says whose it is, and is copied and pickled."""

from __future__ import annotations

from carto_auth._identity import Owner
from carto_auth._stores import default_store
from carto_auth._stores.base import NO_TOKEN, Store
from carto_auth._token import Token, jwt_claims
from carto_auth.errors import CredentialsError

# Type checkers take this name for true; typing would cost a start more than all of this package does.
TYPE_CHECKING = False

if TYPE_CHECKING:
    import os
    from datetime import datetime
    from typing import Any

    from typing_extensions import Self

    from carto_auth._account import Account

#: The layout of a pickle. One of carto-auth 0.2.0 has no number.
_VERSION = 1

#: The accounts of applications that arrived in this process, so that what one task renews all of them use.
_arrived: dict[tuple[object, ...], Account] = {}


class Facade:
    """Properties over the account, and copies. The public properties say what the token hints at: no request is sent.

    What goes along in a pickle: of an application its credentials and token, of a person the token, and the services.
    What stays: a refresh token, the warehouse's token, the default cache, which is another one elsewhere, and a cache
    whose address has a password.
    """

    _account: Account
    _cache: Store
    _org: str | None
    _use_cache: bool

    @property
    def email(self) -> str | None:
        """The e-mail address of the person, or of the M2M application's owner; ``None`` if the token does not say."""
        return self._owner.email

    @property
    def account_id(self) -> str | None:
        """CARTO's id of the account, ``ac_...``; ``None`` if the token does not say."""
        return self._owner.account_id

    @property
    def organization_id(self) -> str | None:
        """The Auth0 id (``org_...``) of the SSO organization that the login went through; ``None`` without one."""
        return self._owner.organization_id

    @property
    def expires_at(self) -> datetime | None:
        """Until when the token is good, in UTC; ``None`` without a token, or if no end is known.

        A renewal changes it. ``get_access_token()`` renews the token in time.
        """
        return self._account.token.expires_at

    @property
    def _owner(self) -> Owner:
        return Owner(self._account.token.text)

    def _repr_html_(self) -> str:
        """What a notebook shows of the object: never the token."""
        import html

        token = self._account.token
        text = repr(self) if token.is_over() else self._owner.logged_in(token.end, self._org)
        return f"<p>{html.escape(text)}</p>"

    # ---- names that code written for carto-auth 0.2.0 reads, and that its tests set ------------

    @property
    def _api_base_url(self) -> str | None:
        return self._account.api_base_url

    @_api_base_url.setter
    def _api_base_url(self, api_base_url: str | None) -> None:
        self._account.given_base_url = api_base_url

    @property
    def _access_token(self) -> str | None:
        return self._account.token.text or None

    @_access_token.setter
    def _access_token(self, access_token: str | None) -> None:
        self._account.token = Token.of(access_token, self._expiration) if access_token else NO_TOKEN

    @property
    def _expiration(self) -> float | None:
        return self._account.token.end

    @_expiration.setter
    def _expiration(self, expiration: float | None) -> None:
        token = self._account.token
        if token.text:
            self._account.token = token.replaced(end=expiration, due=expiration or 0.0)

    @property
    def _cache_filepath(self) -> str | os.PathLike[str] | None:
        return self._cache.place

    # ---- copies and pickles --------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        cache = None if self._cache.is_default else self._cache
        return {"version": _VERSION, **vars(self), "_cache": cache}

    def __setstate__(self, state: dict[str, Any]) -> None:
        if state["version"] > _VERSION:
            raise CredentialsError(
                "This pickle was made by a newer carto-auth.",
                remedy="Install that version here too: pip install, and the path of its wheel.",
            )
        vars(self).update({name: value for name, value in state.items() if name != "version"})
        if state["_cache"] is None:
            self._cache = default_store(self._account.source.identity)
        if self._use_cache:
            self._account.store = self._cache
        self._account = _settled(self._account)

    def __reduce__(self) -> tuple[Any, ...]:
        # pickle's own way compares __class__ with the type.
        return object.__new__, (type(self),), self.__getstate__()

    def __copy__(self) -> Self:
        copy = object.__new__(type(self))
        vars(copy).update(vars(self), _account=self._account.copied())
        return copy

    def __deepcopy__(self, memo: object) -> Self:
        return self.__copy__()

    def __dask_tokenize__(self) -> tuple[str, ...]:
        """Whose it is, which no renewal changes; no secret."""
        from hashlib import sha256

        account, identity = self._account, self._account.source.identity
        token, person = account.token.text, ""
        if identity.mode == "oauth":  # which may be another person's, too
            person = str(jwt_claims(token).get("sub") or sha256(token.encode()).hexdigest())
        return type(self).__qualname__, str(identity), str(account.api_base_url), person


def _settled(account: Account) -> Account:
    """The account that the same application's first pickle brought to this process; with the newest token."""
    key = account.source.sharing_key
    if key is None:
        return account
    first = _arrived.setdefault((*key, str(account.store.place), account.given_base_url), account)
    if (account.token.end or 0.0) > (first.token.end or 0.0):
        first.token = account.token
    return first
