"""Google credentials that fetch a new warehouse token by themselves, and a client for a BigQuery that is not Google's.

A module of its own, because its classes can only be defined where Google's libraries are installed, and one of them is
pickled, which needs it at the top of a module.
"""

from __future__ import annotations

import threading
import time
from copy import copy
from datetime import datetime, timezone
from typing import Any, Protocol
from urllib.parse import urlsplit

import google.auth.credentials
import google.auth.exceptions
from google.cloud import bigquery

from carto_auth import _log
from carto_auth._frames import clears_frames
from carto_auth._warehouse.token import Warehouse, details_of
from carto_auth.errors import CredentialsError


class Account(Protocol):
    """What is needed of a CartoAuth: a warehouse token, by the public method that a program may have replaced."""

    def get_carto_dw_credentials(self) -> tuple[str, str]: ...


class ClientElsewhere(bigquery.Client):
    """A client that fetches rows from where BigQuery is.

    Google's own asks BigQuery's Storage API for a table's rows, which is at Google's wherever BigQuery is, and sends it
    the token.
    """

    def _ensure_bqstorage_client(self, *_: Any, **__: Any) -> None:
        return None


class WarehouseRefreshError(CredentialsError, google.auth.exceptions.RefreshError):
    """No new warehouse token could be had; Google's clients know it as ``RefreshError``."""


class WarehouseCredentials(google.auth.credentials.CredentialsWithQuotaProject):
    """Google credentials whose tokens come from CARTO, with the warehouse's ``project_id``.

    ``google-auth`` calls :meth:`refresh` ahead of the expiry and when BigQuery answers 401. They can be
    pickled, and renew themselves wherever their account can. (A ``bigquery.Client`` cannot be
    pickled; Google's client says so itself.)
    """

    _quota_project_id: str | None  # google-auth's name, which subclasses set

    def __init__(
        self, account: Account, warehouse: Warehouse, project_id: str, token: str, *, is_googles: bool
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # google-auth's
        self.project_id = project_id
        self._account = account
        self._warehouse = warehouse
        self._is_googles = is_googles
        #: The token that each thread has sent last.
        self._sent = threading.local()
        self._use(token)

    def with_quota_project(self, quota_project_id: str) -> WarehouseCredentials:
        """The same credentials, whose use counts towards another project's quota."""
        credentials = copy(self)
        credentials._quota_project_id = quota_project_id
        return credentials

    def before_request(self, request: Any, method: str, url: str, headers: Any) -> None:
        """Put the token into ``headers``, unless ``url`` is Google's and the token of another BigQuery.

        Every library looks for BigQuery's Storage API at Google's, wherever BigQuery is. An error here would be tried
        again for ten minutes, as gRPC takes it for an outage; without a token, Google refuses at once.
        """
        host = urlsplit(url).hostname or ""
        if self._is_googles or not f".{host}".endswith(".googleapis.com"):
            super().before_request(request, method, url, headers)  # type: ignore[no-untyped-call]  # google-auth's

    def apply(self, headers: Any, token: str | None = None) -> None:
        """Put the token into ``headers``, and remember which one this thread has sent."""
        self._sent.token = token or self.token
        super().apply(headers, self._sent.token)  # type: ignore[no-untyped-call]  # google-auth's

    @clears_frames
    def refresh(self, request: Any) -> None:
        """Fetch a new token from CARTO, unless another thread has done it while this one used the old.

        At the end of its time, which is counted carefully, a token for which no other can be had is used on
        until BigQuery refuses it. ``request`` is Google's way to send one, and not needed.

        Raises:
            google.auth.exceptions.RefreshError: none could be had for a token that was refused. It is a
                ``CredentialsError`` too.
        """
        self._warehouse.drop(getattr(self._sent, "token", self.token))
        try:
            self._use(self._account.get_carto_dw_credentials()[1])
            self._sent.token = self.token
        except CredentialsError as error:
            if not self.expired:
                raise WarehouseRefreshError(error.message, **details_of(error)) from None
            self.expiry = _naive_utc(time.time() + GOOGLES_LEEWAY_SECONDS + RETRY_SECONDS)
            _log.debug("the warehouse token could not be renewed ahead of its end: %s", error.message)

    def _use(self, token: str) -> None:
        self.token = token
        self.expiry = _naive_utc(self._warehouse.expiration_of(token))

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_sent"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _sent=threading.local())


#: Seconds ahead of the expiry at which google-auth renews; it takes a token with less left for expired.
GOOGLES_LEEWAY_SECONDS = 225.0

#: Seconds until a renewal that failed, for a token that BigQuery may well accept still, is tried again.
RETRY_SECONDS = 60.0


def _naive_utc(moment: float) -> datetime:
    """POSIX seconds as google-auth compares them."""
    return datetime.fromtimestamp(moment, timezone.utc).replace(tzinfo=None)
