"""From a token to the API base URL; from the name of an SSO organization to its id."""

from __future__ import annotations

from contextlib import suppress

from carto_auth._services import Services, discovered_base_url, tenant_url
from carto_auth.errors import CredentialsError, InvalidAnswer, ServerError, TenantNotFound

#: Characters, levels and items beyond which a tenant's configuration is none. CARTO's have a few hundred items;
#: the YAML parser takes about a second for what these bounds let through.
_LONGEST_YAML = 128 * 1024
_DEEPEST_YAML = 50
_MOST_YAML_EVENTS = 20_000


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
    secrets = [access_token]
    tenant = tenant_url(_tenant_domain(access_token, services), services, secrets)
    configuration = _http.get_text(
        f"{tenant}/config.yaml", failure="The configuration of the CARTO organization could not be read"
    )
    return discovered_base_url(_base_url_in(configuration), tenant, secrets)


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

    content = None
    # Not only YAMLError: the parser fails at odd values (a date in month 13, an empty !!int) in many ways.
    with suppress(Exception):
        if _is_bounded(configuration):
            content = yaml.safe_load(configuration)
    if isinstance(content, dict) and isinstance(content.get("apis"), dict) and content["apis"].get("baseUrl"):
        return content["apis"]["baseUrl"]
    problem = "names no API address" if isinstance(content, dict) else "is not the YAML it should be"
    raise InvalidAnswer(
        f"The configuration of the CARTO organization {problem}.",
        remedy="Pass api_base_url= yourself; it stands on the Developers page of your CARTO Workspace.",
        status=200,
    )


def _is_bounded(text: str) -> bool:
    """Whether YAML is small and flat, and without aliases, by which a small text becomes a large thing."""
    import yaml

    if len(text) > _LONGEST_YAML:
        return False
    depth = 0
    for number, event in enumerate(yaml.parse(text, Loader=yaml.SafeLoader)):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if number > _MOST_YAML_EVENTS or depth > _DEEPEST_YAML or isinstance(event, yaml.AliasEvent):
            return False
    return True


def get_organization_id(organization: str, *, services: Services | None = None) -> str:
    """The Auth0 id (``org_...``) of an SSO organization, from its id or its name.

    Raises:
        CredentialsError: there is no organization of that name.
    """
    if organization.startswith("org_"):
        return organization
    if organization in (".", "..") or not organization.isprintable():  # a path, or no text that can be sent
        raise _unknown_organization(organization)
    from urllib.parse import quote

    from carto_auth import _http

    services = services or Services.from_environment()
    answer = _http.get_json(
        f"{services.accounts_url.rstrip('/')}/accounts/{quote(organization, safe='')}/auth0_org_id",
        failure=f"CARTO did not say which organization {organization!r} is",
    )
    identifier = answer.get("auth0orgId")
    if not isinstance(identifier, str) or not identifier:
        raise _unknown_organization(organization)
    return identifier


def _unknown_organization(organization: str) -> CredentialsError:
    return CredentialsError(
        f"CARTO knows no SSO organization called {organization!a}.",
        remedy="Check its name with your administrator, or pass its id, which begins with org_.",
    )
