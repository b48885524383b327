"""Ask CARTO's services whether they can be reached, and whether they accept the token."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from carto_auth import CartoAuth, CredentialsError, LoginRequired, _http
from carto_auth._services import Services
from carto_auth.discovery import get_api_base_url
from carto_auth.errors import ServerError, ServiceUnavailable


class Check(NamedTuple):
    """A service, whether all is well with it, and what was seen."""

    name: str
    ok: bool
    seen: str


def all_checks(kind: str, org: str | None) -> list[Check]:
    """Ask the token service, the accounts service, the API and the warehouse, in this order.

    An application asks for a new token. Where there is no token, only the services that need none are asked.

    Args:
        kind: the kind of the source in use.
        org: the organization of a person's login.
    """
    services = Services.from_environment()
    checks = [_check("Token service", lambda: _reach(f"{services.auth_url}/.well-known/openid-configuration"))]
    try:
        auth = _account(kind, org)
        token = auth.get_access_token()
    except LoginRequired:  # whose reason is that a check asks nobody; the title says what to do
        return [*checks, Check("Token", False, "there is none that is good")]
    except CredentialsError as error:
        return [*checks, Check("Token", False, str(error))]
    checks.append(Check("Token", True, "there is one that has not ended"))
    if kind != "access_token":  # the accounts service takes OAuth tokens only
        checks.append(_check("Accounts", lambda: get_api_base_url(token)))
    checks.append(_check("API", lambda: _reach(auth.get_api_base_url())))
    checks.append(_check("Warehouse", lambda: auth.get_carto_dw_credentials()[0]))
    return checks


def _account(kind: str, org: str | None) -> CartoAuth:
    if kind.startswith("m2m"):
        return CartoAuth.from_m2m(use_cache=False)
    return CartoAuth.from_oauth(interactive=False, org=org) if kind == "login" else CartoAuth.default()


def _check(name: str, ask: Callable[[], str]) -> Check:
    try:
        return Check(name, True, ask())
    except CredentialsError as error:
        return Check(name, False, str(error))


def _reach(url: str) -> str:
    """Have a service answer; whatever it says of this page, it was reached, and its certificate accepted."""
    try:
        _http.get_text(url, failure="The service could not be read")
    except ServiceUnavailable:
        raise
    except ServerError as error:
        return f"{url} answers (HTTP {error.status})"
    return f"{url} answers"
