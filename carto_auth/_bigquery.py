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

    def __init__(self, carto_auth: CartoAuth) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._carto_auth = carto_auth
        self._use(refused=None)

    def refresh(self, request: Any) -> None:
        """Fetch a new token from CARTO; ``request`` is Google's way to send one, and not needed.

        Raises:
            google.auth.exceptions.RefreshError: none could be had. It is a ``CredentialsError`` too.
        """
        try:
            self._use(refused=self.token)
        except CredentialsError as error:
            failed = WarehouseRefreshError(error.message, remedy=error.remedy, status=error.status, error=error.error)
        else:
            return
        raise failed

    def _use(self, *, refused: str | None) -> None:
        warehouse = self._carto_auth._warehouse_token(refused=refused)
        self.project_id = warehouse.project_id
        self.token = warehouse.token
        # google-auth compares with naive UTC times.
        self.expiry = datetime.fromtimestamp(warehouse.expiration, timezone.utc).replace(tzinfo=None)
