"""From a token to the API base URL; from the name of an SSO organization to its id."""

from __future__ import annotations

import re

from carto_auth._services import Services, discovered_base_url, tenant_url
from carto_auth.errors import CredentialsError, InvalidAnswer, ServerError, TenantNotFound

#: Depth of brackets in a configuration beyond which it is no configuration.
_DEEPEST_YAML = 50


def get_api_base_url(access_token: str, *, services: Services | None = None) -> str:
    """The API base URL of the account that a token belongs to, such as ``https://gcp-us-east1.api.carto.com``.

    Asks CARTO's accounts API for the account's tenant, then the tenant for its configuration.

    Args:
        access_token: a CARTO access token.
        services: the services to ask; those of the environment, else CARTO's own.

    Raises:
        TenantNotFound: the account belongs to no CARTO organization yet.
        UntrustedAddress: an answer names a place to which no token may be sent.
        ServerError: the token was refused, or an answer was no success.
        ServiceUnreachable: no answer came.
    """
    from carto_auth import _http

    services = services or Services.from_environment()
    tenant = tenant_url(_tenant_domain(access_token, services), services)
    configuration = _http.get_text(
        f"{tenant}/config.yaml", failure="The configuration of the CARTO organization could not be read"
    )
    return discovered_base_url(_base_url_in(configuration), tenant)


def _tenant_domain(access_token: str, services: Services) -> object:
    from carto_auth import _http

    try:
        account = _http.get_json(
            f"{services.accounts_url.rstrip('/')}/accounts",
            access_token=access_token,
            failure="CARTO did not say which organization the account belongs to",
        )
    except ServerError as error:
        # An account without a tenant gets an "error" too; only one that comes as a success, or as "not
        # found", is about the tenant and not about the token or the service.
        if error.status not in (200, 404) or error.error is None:
            raise
        no_tenant = _no_tenant(services, error)
    else:
        if account.get("tenant_domain"):
            return account["tenant_domain"]
        no_tenant = _no_tenant(services, None)
    raise no_tenant


def _no_tenant(services: Services, error: ServerError | None) -> TenantNotFound:
    words = f" ({error.error_description or error.error})" if error else ""
    return TenantNotFound(
        f"The login is good, but this account belongs to no CARTO organization yet{words}.",
        remedy=first_visit(services),
        status=error.status if error else 200,
        error=error.error if error else None,
        error_description=error.error_description if error else None,
    )


def first_visit(services: Services, org: str | None = None) -> str:
    """What an account without a CARTO organization does once; ``org`` is that of its SSO login."""
    from urllib.parse import quote

    app_url = services.app_url.rstrip("/")
    if org is None:
        page = f"{app_url} once and finish the sign-up (with SSO: {app_url}/sso/ and the name of your organization)"
    elif org.startswith("org_"):
        page = f"{app_url}/sso/ with the name of your organization at its end, once"
    else:
        page = f"{app_url}/sso/{quote(org, safe='')} once"
    return f"Visit {page}, then try again; the login is kept."


def _base_url_in(configuration: str) -> object:
    """``apis.baseUrl`` of a tenant's ``config.yaml``."""
    import yaml

    unreadable = InvalidAnswer(
        "The configuration of the CARTO organization is not the YAML it should be.",
        remedy="Pass api_base_url= yourself; it stands on the Developers page of your CARTO Workspace.",
        status=200,
    )
    if len(re.findall(r"[\[{]", configuration)) > _DEEPEST_YAML or re.search(r"[&*]\w", configuration):
        # Nested brackets and aliases are how a small YAML text becomes a large work.
        raise unreadable
    try:
        content = yaml.safe_load(configuration)
    except (yaml.YAMLError, ValueError, RecursionError):
        content = None
    if not isinstance(content, dict) or not isinstance(content.get("apis"), dict):
        raise unreadable
    return content["apis"].get("baseUrl")


def get_organization_id(organization: str, *, services: Services | None = None) -> str:
    """The Auth0 id (``org_...``) of an SSO organization, from its id or its name.

    Raises:
        CredentialsError: there is no organization of that name.
    """
    if organization.startswith("org_"):
        return organization
    from urllib.parse import quote

    from carto_auth import _http

    services = services or Services.from_environment()
    answer = _http.get_json(
        f"{services.accounts_url.rstrip('/')}/accounts/{quote(organization, safe='')}/auth0_org_id",
        failure=f"CARTO did not say which organization {organization!r} is",
    )
    identifier = answer.get("auth0orgId")
    if not isinstance(identifier, str) or not identifier:
        raise CredentialsError(
            f"CARTO knows no SSO organization called {organization!r}.",
            remedy="Check its name with your administrator, or pass its id, which begins with org_.",
        )
    return identifier
