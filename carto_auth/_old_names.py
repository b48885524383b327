"""Private names that code written for carto-auth 0.2.0 reads, and that its tests set."""

from __future__ import annotations

from carto_auth._token import Token

# Type checkers take this name for true; typing would cost a start more than all of this package does.
TYPE_CHECKING = False

if TYPE_CHECKING:
    import os
    from collections.abc import Callable
    from typing import Any

    from typing_extensions import Self

    from carto_auth._account import Account
    from carto_auth._stores.base import Store


class OldNames:
    """What they mean, by the account and its cache."""

    _account: Account
    _cache: Store

    if TYPE_CHECKING:
        from_m2m: Callable[..., Any]

    @classmethod
    def from_m2m_token(cls, api_base_url: str, client_id: str, client_secret: str, use_cache: bool = True) -> Self:
        """What a public branch of carto-auth 0.2.0 calls :meth:`CartoAuth.from_m2m` with credentials."""
        known = {"api_base_url": api_base_url, "client_id": client_id, "client_secret": client_secret}
        return cls.from_m2m(use_cache=use_cache, **known)  # type: ignore[no-any-return]  # of a mixin

    @property
    def _api_base_url(self) -> str | None:
        return self._account.api_base_url

    @_api_base_url.setter
    def _api_base_url(self, api_base_url: str | None) -> None:
        self._account.given_base_url = api_base_url

    @property
    def _access_token(self) -> str | None:
        token = self._account.token
        return token.text if token is not None else None

    @_access_token.setter
    def _access_token(self, access_token: str | None) -> None:
        self._account.token = Token.of(access_token, self._expiration) if access_token else None

    @property
    def _expiration(self) -> float | None:
        token = self._account.token
        return token.end if token is not None else None

    @_expiration.setter
    def _expiration(self, expiration: float | None) -> None:
        token = self._account.token
        if token is not None:
            self._account.token = token.replaced(end=expiration, due=expiration or 0.0)

    @property
    def _cache_filepath(self) -> str | os.PathLike[str] | None:
        return self._cache.place
