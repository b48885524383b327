"""The warehouse's project and token: asked of CARTO's API, and used for half an hour."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Any

from carto_auth import _http
from carto_auth._token import is_usable_token
from carto_auth._trust import is_project_id, normalized_base_url
from carto_auth._value import Value
from carto_auth.errors import CredentialsError, InvalidAnswer, WarehouseUnavailable

#: Seconds for which a warehouse token is used. It is a Google access token of about an hour, but CARTO does
#: not say when it ends, nor how old it was when it was handed out: half of the hour is certain enough. A
#: token that ends before is renewed when BigQuery refuses it.
WAREHOUSE_TOKEN_SECONDS = 30 * 60.0

#: Seconds of that in which a kept token is not handed out any more. ``google-auth`` renews 225 s ahead of the
#: end, and must not be given the same token again.
REUSE_LEEWAY_SECONDS = 300.0

_NOT_ALLOWED = (
    "The account may not use a CARTO Data Warehouse, or has none: see Connections in the CARTO Workspace, or ask the "
    "administrator of your CARTO organization. A self-hosted CARTO may have none."
)

_NOT_THERE = (
    "There is no CARTO Data Warehouse behind this API base URL: check it on the Developers page of your CARTO "
    "Workspace. A self-hosted CARTO may have none."
)


class WarehouseToken(Value, secret=("token",)):
    """What CARTO's warehouse is reached with; ``expiration`` is until when it is used, POSIX seconds."""

    project_id: str
    token: str
    expiration: float


class Warehouse:
    """An account's warehouse token, shared by all threads of a process. It does not travel to another one."""

    def __init__(self) -> None:
        self._kept: WarehouseToken | None = None
        self._locks: dict[int, threading.Lock] = {}

    def token(self, get_new: Callable[[], WarehouseToken]) -> WarehouseToken:
        """The token; a new one when the last is at the end of its use."""
        with self._lock():
            kept = self._kept
            if kept is None or kept.expiration - REUSE_LEEWAY_SECONDS <= time.time():
                kept = self._kept = get_new()
            return kept

    def drop(self, refused: str | None) -> None:
        """Do not use a token again that BigQuery refused, or that is at its end."""
        with self._lock():
            if self._kept is not None and self._kept.token == refused:
                self._kept = None

    def forget(self) -> None:
        """Do not use the token again."""
        with self._lock():
            self._kept = None

    def expiration_of(self, token: str) -> float:
        """Until when a token is used, POSIX seconds; it may have come from elsewhere."""
        kept = self._kept
        if kept is not None and kept.token == token:
            return kept.expiration
        return time.time() + WAREHOUSE_TOKEN_SECONDS

    def _lock(self) -> threading.Lock:
        # A lock that a thread held when this process was forked has nobody left to release it. And setdefault, because
        # threads that come here at the same time must get the same.
        return self._locks.setdefault(os.getpid(), threading.Lock())

    def __reduce__(self) -> tuple[Any, ...]:
        return Warehouse, ()


def get_warehouse_token(api_base_url: str, access_token: str) -> WarehouseToken:
    """Ask CARTO's API for the project and a token of the account's data warehouse.

    Raises:
        Unauthorized: the access token was refused.
        WarehouseUnavailable: the account has no warehouse, or may not use it.
        CredentialsError: the answer is no JSON, or the project or the token is missing in it.
    """
    url = f"{normalized_base_url(api_base_url)}/v3/connections/carto-dw/token"
    try:
        answer = _http.get_json(url, access_token=access_token, failure="CARTO handed out no warehouse token")
    except CredentialsError as error:
        if error.status not in (403, 404) or error.remedy is not None:  # which says more than the status
            raise
        remedy = _NOT_ALLOWED if error.status == 403 else _NOT_THERE
        raise WarehouseUnavailable(error.message, **{**details_of(error), "remedy": remedy}) from None
    project_id, token = answer.get("projectId"), answer.get("token")
    if is_project_id(project_id) and is_usable_token(token):
        return WarehouseToken(project_id, token, time.time() + WAREHOUSE_TOKEN_SECONDS)
    raise InvalidAnswer(
        "CARTO's answer about the data warehouse has no usable projectId and token.",
        remedy="Try again. If it happens again, ask CARTO's support.",
        status=200,
    )


def details_of(error: CredentialsError) -> dict[str, Any]:
    """What an error says beside its message, for another one in its place."""
    return {name: getattr(error, name) for name in ("remedy", "status", "error", "error_description", "retry_after")}
