"""A BigQuery client on the account's warehouse, which renews its token by itself."""

from __future__ import annotations

import os
from copy import copy
from typing import TYPE_CHECKING, Any

from carto_auth._http.sending import as_it_is
from carto_auth._trust import ca_bundle, require_secure
from carto_auth.errors import MissingDependency

if TYPE_CHECKING:
    from google.api_core.client_options import ClientOptions
    from google.cloud import bigquery

    from carto_auth._warehouse.google_credentials import Account, WarehouseCredentials
    from carto_auth._warehouse.token import Warehouse


def require_bigquery() -> None:
    """Fail before any request when the extra is missing or broken.

    Raises:
        MissingDependency: an :class:`ImportError` with the line to run.
    """
    try:
        from google.cloud.bigquery import Client  # noqa: F401 - can it be imported?

        import carto_auth._warehouse.google_credentials  # noqa: F401 - and what we make of google-auth?
    except Exception as error:  # a broken one raises whatever it stumbles over, such as protobuf's TypeError
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise MissingDependency(
            f"The BigQuery client cannot be imported ({reason}).", remedy="Run: pip install 'carto-auth[carto-dw]'"
        ) from None


def bigquery_client(
    account: Account, warehouse: Warehouse, bigquery_url: str | None, client_options: dict[str, Any]
) -> bigquery.Client:
    """A BigQuery client on the account's warehouse; ``client_options`` go to its constructor.

    Args:
        account: asked for the project and for each token, by its public method, which a program may have replaced.
        warehouse: the account's warehouse token.
        bigquery_url: where BigQuery is; ``None`` for Google's own.
        client_options: passed on to the client.

    Raises:
        MissingDependency: the extra ``carto-dw`` is not installed.
        UntrustedAddress: BigQuery's address is neither https nor on this computer.
        ServiceUnreachable: the environment names a CA bundle that does not exist.
        TypeError: ``project`` or ``credentials`` was given; both come from CARTO.
        CredentialsError: CARTO gave no warehouse token.
    """
    require_bigquery()
    for name in ("project", "credentials"):
        if name in client_options:
            raise TypeError(f"get_carto_dw_client() takes no {name}: it comes from CARTO")
    from google.cloud.bigquery import Client

    elsewhere = _elsewhere(bigquery_url)
    client_options["client_options"] = _with_endpoint(client_options.get("client_options"), elsewhere)
    if elsewhere:
        from carto_auth._warehouse.google_credentials import ClientElsewhere as Client
    credentials = google_credentials(account, warehouse, bigquery_url)
    client = Client(project=credentials.project_id, credentials=credentials, **client_options)
    if "_http" not in client_options and hasattr(client, "_http"):
        # Else requests looks into ~/.netrc, and sends what it finds there in the place of the token.
        client._http.auth = as_it_is
        client._http.verify = ca_bundle() or True
    return client


def google_credentials(account: Account, warehouse: Warehouse, bigquery_url: str | None) -> WarehouseCredentials:
    """Google credentials for the account's warehouse, with its ``project_id``, which renew themselves.

    Args:
        account: asked for the project and for each token.
        warehouse: the account's warehouse token.
        bigquery_url: where BigQuery is; ``None`` for Google's own.

    Raises:
        MissingDependency: the extra ``carto-dw`` is not installed.
        CredentialsError: CARTO gave no warehouse token.
    """
    require_bigquery()
    from carto_auth._warehouse.google_credentials import WarehouseCredentials

    is_googles = _elsewhere(bigquery_url) is None
    return WarehouseCredentials(account, warehouse, *account.get_carto_dw_credentials(), is_googles=is_googles)


def _elsewhere(bigquery_url: str | None) -> str | None:
    """Where BigQuery is; ``None`` for Google's own."""
    return bigquery_url or os.environ.get("BIGQUERY_EMULATOR_HOST") or None


def _with_endpoint(given: Any, bigquery_url: str | None) -> ClientOptions:
    """Client options, from a mapping or an object of Google's, that lead to the named BigQuery, unless to another one.

    Raises:
        UntrustedAddress: they lead to an address that is neither https nor on this computer.
    """
    from google.api_core.client_options import ClientOptions, from_dict

    options = from_dict(given) if isinstance(given, dict) else copy(given) or ClientOptions()
    options.api_endpoint = options.api_endpoint or bigquery_url
    if options.api_endpoint:
        require_secure(options.api_endpoint, "BIGQUERY_EMULATOR_HOST or client_options=")
    return options
