"""Who an account is and until when, by its token's own hints: no request is sent."""

from __future__ import annotations

from carto_auth._identity import Owner
from carto_auth._token import LATEST_TIME

# Type checkers take this name for true; typing would cost a start more than all of this package does.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from datetime import datetime

    from carto_auth._account import Account


class WhoAmI:
    """What there is to know of the account that a token belongs to."""

    _account: Account
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

        token = self._account.token
        if token is None or not token.end or token.end >= LATEST_TIME:
            return None
        return datetime.fromtimestamp(token.end, timezone.utc)

    @property
    def _owner(self) -> Owner:
        token = self._account.token
        return Owner(token.text if token is not None else "")

    def _repr_html_(self) -> str:
        """What a notebook shows of the object: never the token."""
        import html

        token = self._account.token
        text = repr(self)
        if token is not None and not token.is_over():
            text = self._owner.logged_in(token.end, self._org)
        return f"<p>{html.escape(text)}</p>"
