"""The CARTO Data Warehouse: its project and token, and a BigQuery client that renews itself."""

from __future__ import annotations

import time
from copy import copy
from typing import TYPE_CHECKING, Any, NamedTuple

from carto_auth._token import is_usable_token
from carto_auth._trust import normalized_base_url
from carto_auth.errors import (
    CredentialsError,
    InvalidAnswer,
    MissingDependency,
    WarehouseUnavailable,
)

if TYPE_CHECKING:
    from google.cloud import bigquery

    from carto_auth.auth import CartoAuth

#: Seconds for which a warehouse token is used. It is a Google access token of about an hour, but CARTO does
#: not say when it ends, nor how old it was when it was handed out: half of the hour is certain enough. A
#: token that ends before is renewed when BigQuery refuses it.
WAREHOUSE_TOKEN_SECONDS = 30 * 60.0

#: Seconds of that in which a kept token is not handed out any more. ``google-auth`` renews 225 s ahead of the
#: end, and must not be given the same token again.
REUSE_LEEWAY_SECONDS = 300.0


class WarehouseToken(NamedTuple):
    """What CARTO's warehouse is reached with. ``repr`` does not show the token."""

    project_id: str
    token: str
    expiration: float

    def __repr__(self) -> str:
        return f"WarehouseToken({self.project_id!r}, '***', {self.expiration:.0f})"


def get_warehouse_token(api_base_url: str, access_token: str) -> WarehouseToken:
    """Ask CARTO's API for the project and a token of the account's data warehouse.

    Raises:
        Unauthorized: the access token was refused.
        WarehouseUnavailable: the account has no warehouse, or may not use it.
        CredentialsError: the answer is no JSON, or the project or the token is missing in it.
    """
    from carto_auth import _http

    url = f"{normalized_base_url(api_base_url)}/v3/connections/carto-dw/token"
    try:
        answer = _http.get_json(url, access_token=access_token, failure="CARTO handed out no warehouse token")
    except CredentialsError as error:
        if error.status not in (403, 404):
            raise
        refused = _unavailable(error)
    else:
        return _parsed(answer)
    raise refused


def api_headers(access_token: str) -> dict[str, str]:
    """The headers of a request to CARTO's API with a JSON body."""
    return {"Content-Type": "application/json", "Authorization": f"Bearer {access_token}"}


_NOT_ALLOWED = (
    "The account may not use a CARTO Data Warehouse, or has none: see Connections in the CARTO Workspace, or ask the "
    "administrator of your CARTO organization. A self-hosted CARTO may have none."
)

_NOT_THERE = (
    "There is no CARTO Data Warehouse behind this API base URL: check it on the Developers page of your CARTO "
    "Workspace. A self-hosted CARTO may have none."
)


def _unavailable(error: CredentialsError) -> WarehouseUnavailable:
    return WarehouseUnavailable(
        error.message,
        remedy=_NOT_ALLOWED if error.status == 403 else _NOT_THERE,
        status=error.status,
        error=error.error,
        error_description=error.error_description,
    )


def _parsed(answer: dict[str, Any]) -> WarehouseToken:
    missing = [name for name in ("projectId", "token") if not answer.get(name)]
    if missing:
        raise InvalidAnswer(
            f"CARTO's answer about the data warehouse has no {' and no '.join(missing)}.",
            remedy="Try again; if it stays so, ask CARTO's support.",
            status=200,
        )
    project_id, token = answer["projectId"], answer["token"]
    # The project's id becomes part of addresses.
    if not is_usable_token(project_id) or "/" in project_id or not is_usable_token(token):
        raise InvalidAnswer(
            "CARTO's answer about the data warehouse makes no sense.",
            remedy="Try again; if it stays so, ask CARTO's support.",
            status=200,
        )
    return WarehouseToken(project_id, token, time.time() + WAREHOUSE_TOKEN_SECONDS)


def require_bigquery() -> None:
    """Fail before any request when the extra is missing or broken.

    Raises:
        MissingDependency: an :class:`ImportError` with the line to run.
    """
    try:
        # What is needed of it, and not only the packages: of one that is half removed a folder stays.
        from google.auth.credentials import CredentialsWithQuotaProject  # noqa: F401 - can it be imported?
        from google.cloud.bigquery import Client  # noqa: F401 - and this?

        import carto_auth._bigquery  # noqa: F401 - and what we make of them?
    except Warning:
        raise  # somebody made errors of warnings, and Google's packages have some
    except Exception as error:  # a broken one raises whatever it stumbles over, such as protobuf's TypeError
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
    else:
        return
    raise MissingDependency(
        f"The BigQuery client cannot be imported ({reason}).",
        remedy="Run: pip install 'carto-auth[carto-dw]'",
    )


def bigquery_client(carto_auth: CartoAuth, **client_options: Any) -> bigquery.Client:
    """A BigQuery client on the account's warehouse; ``client_options`` go to its constructor.

    Raises:
        MissingDependency: the extra ``carto-dw`` is not installed.
        TypeError: ``project`` or ``credentials`` was given; both come from CARTO.
    """
    require_bigquery()
    for name in ("project", "credentials"):
        if name in client_options:
            raise TypeError(f"get_carto_dw_client() takes no {name}: it comes from CARTO")
    from google.cloud import bigquery

    from carto_auth._bigquery import WarehouseCredentials

    bigquery_url = carto_auth._services.bigquery_url
    if bigquery_url:
        client_options["client_options"] = _with_endpoint(client_options.get("client_options"), bigquery_url)
    # By the public method, and so by what a program (or a test of one) may have put in its place.
    project_id, token = carto_auth.get_carto_dw_credentials()
    credentials = WarehouseCredentials(carto_auth, token)
    client = bigquery.Client(project=project_id, credentials=credentials, **client_options)
    if "_http" not in client_options and hasattr(client, "_http"):
        # Else requests looks into ~/.netrc, and sends what it finds there in the place of the token.
        client._http.auth = _nothing_else
    return client


def _nothing_else(request: Any) -> Any:
    """For ``requests``: what the request has already is all it needs."""
    return request


def _with_endpoint(options: Any, bigquery_url: str) -> Any:
    """Client options, a mapping or an object of Google's, that lead to the named BigQuery, unless to another one."""
    if options is None:
        return {"api_endpoint": bigquery_url}
    if isinstance(options, dict):
        return {"api_endpoint": bigquery_url, **options}
    if not options.api_endpoint:
        options = copy(options)
        options.api_endpoint = bigquery_url
    return options
