"""Credentials for Google's clients that fetch a new warehouse token by themselves.

A module of its own, because the class can only be defined where ``google-auth`` is installed, and must stand
at the top of a module to be pickled.
"""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import google.auth.credentials
import google.auth.exceptions

from carto_auth.errors import CredentialsError

if TYPE_CHECKING:
    from carto_auth.auth import CartoAuth


class WarehouseRefreshError(google.auth.exceptions.RefreshError, CredentialsError):
    """No new warehouse token could be had; Google's clients know it as ``RefreshError``."""

    def __init__(self, message: str = "", **details: Any) -> None:
        google.auth.exceptions.RefreshError.__init__(self, message)  # type: ignore[no-untyped-call]
        CredentialsError.__init__(self, message, **details)


class WarehouseCredentials(google.auth.credentials.Credentials):
    """Google credentials whose tokens come from CARTO.

    ``google-auth`` calls :meth:`refresh` ahead of the expiry and when BigQuery answers 401. They can be
    pickled, and renew themselves wherever their :class:`CartoAuth` can.
    """

    def __init__(self, carto_auth: CartoAuth, token: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._carto_auth = carto_auth
        self._use(token)

    def refresh(self, request: Any) -> None:
        """Fetch a new token from CARTO; ``request`` is Google's way to send one, and not needed.

        Raises:
            google.auth.exceptions.RefreshError: none could be had. It is a ``CredentialsError`` too.
        """
        try:
            self._carto_auth._drop_warehouse_token(self.token)
            self._use(self._carto_auth.get_carto_dw_credentials()[1])
        except CredentialsError as error:
            failed = WarehouseRefreshError(
                error.message,
                remedy=error.remedy,
                status=error.status,
                error=error.error,
                error_description=error.error_description,
                retry_after=error.retry_after,
            )
        else:
            return
        raise failed

    def _use(self, token: str) -> None:
        self.token = token
        expiration = self._carto_auth._warehouse_expiration(token)
        # google-auth compares with naive UTC times.
        self.expiry = datetime.fromtimestamp(expiration, timezone.utc).replace(tzinfo=None)
