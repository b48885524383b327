"""What a ``CartoAuth`` tells of its account: who it is and until when, and the private names of carto-auth 0.2.0."""

from __future__ import annotations

from carto_auth._identity import Owner
from carto_auth._token import LATEST_TIME, Token

# Type checkers take this name for true; typing would cost a start more than all of this package does.
TYPE_CHECKING = False

if TYPE_CHECKING:
    import os
    from datetime import datetime

    from carto_auth._account import Account
    from carto_auth._stores import Store


class Names:
    """Properties over the account. The public ones say what the token hints at: no request is sent."""

    _account: Account
    _cache: Store
    _org: str | None

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
        from datetime import datetime, timezone

        end = self._expiration
        return datetime.fromtimestamp(end, timezone.utc) if end and end < LATEST_TIME else None

    @property
    def _owner(self) -> Owner:
        return Owner(self._access_token or "")

    def _repr_html_(self) -> str:
        """What a notebook shows of the object: never the token."""
        import html

        token = self._account.token
        is_good = token is not None and not token.is_over()
        text = self._owner.logged_in(self._expiration, self._org) if is_good else repr(self)
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
