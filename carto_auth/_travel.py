"""Travels: how a ``CartoAuth`` is copied and pickled, and how Dask tells it from others."""

from __future__ import annotations

from carto_auth._stores import default_store
from carto_auth._token import ACCOUNT_CLAIM, EMAIL_CLAIM, jwt_claims
from carto_auth.errors import CredentialsError

# Type checkers take this name for true; typing would cost a start more than all of this package does.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from typing import Any, TypeVar

    from typing_extensions import Self

    from carto_auth._account import Account
    from carto_auth._stores.base import Store

    _Own = TypeVar("_Own")

#: The layout of a pickle. One of carto-auth 0.2.0 has no number.
_VERSION = 1

#: The accounts of applications that arrived in this process, so that what one task renews all of them use.
_arrived: dict[tuple[object, ...], Account] = {}


class Travels:
    """What goes along: of an application its credentials and token, of a person the token, and the services.

    What stays: a refresh token, the warehouse's token, the default cache, which is another one elsewhere, and a cache
    whose address has a password.
    """

    _account: Account
    _cache: Store
    _use_cache: bool

    def __getstate__(self) -> dict[str, Any]:
        cache = None if self._cache.is_default else self._cache
        return {"version": _VERSION, **vars(self), "_cache": cache}

    def __setstate__(self, state: dict[str, Any]) -> None:
        if state["version"] > _VERSION:
            raise CredentialsError(
                "This pickle was made by a newer carto-auth.", remedy="Run here: pip install --upgrade carto-auth"
            )
        vars(self).update({name: value for name, value in state.items() if name != "version"})
        if state["_cache"] is None:
            self._cache = default_store(self._account.source.identity)
        if self._use_cache:
            self._account.store = self._cache
        self._account = _settled(self._account)

    def __reduce__(self) -> tuple[Any, ...]:
        # pickle's own way compares __class__ with the type.
        return _blank, (type(self),), self.__getstate__()

    def __copy__(self) -> Self:
        copy = _blank(type(self))
        vars(copy).update(vars(self), _account=self._account.copied())
        return copy

    def __deepcopy__(self, memo: object) -> Self:
        return self.__copy__()

    def __dask_tokenize__(self) -> tuple[str, ...]:
        """Whose it is, which no renewal changes; no secret."""
        account = self._account
        text = account.token.text if account.token is not None else ""
        return type(self).__qualname__, str(account.source.identity), str(account.api_base_url), _person(account, text)


def _person(account: Account, token: str) -> str:
    """What tells a person's token from another person's, since their identity may be the same."""
    if account.source.identity.mode == "m2m":
        return ""
    from hashlib import sha256

    claims = jwt_claims(token)
    known = [str(claims[name]) for name in ("sub", ACCOUNT_CLAIM, EMAIL_CLAIM) if name in claims]
    return " ".join(known) or sha256(token.encode()).hexdigest()


def _settled(account: Account) -> Account:
    """The account that the same application's first pickle brought to this process; with the newest token."""
    key = account.source.sharing_key
    if key is None:
        return account
    first = _arrived.setdefault((*key, str(account.store.place), account.given_base_url), account)
    ends = [one.token.end or 0.0 if one.token is not None else 0.0 for one in (first, account)]
    if ends[1] > ends[0]:
        first.token = account.token
    return first


def _blank(own: type[_Own]) -> _Own:
    """An object without its state, which pickle gives it then."""
    return own.__new__(own)
