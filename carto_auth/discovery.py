"""Discovery: from a token to the API base URL, and from the name of an SSO organization to its id."""

from __future__ import annotations

from carto_auth._frames import clears_frames
from carto_auth._identity import Owner
from carto_auth._services import Services
from carto_auth._trust import discovered_base_url, tenant_url
from carto_auth.errors import ServerError, TenantNotFound

# The network and the YAML parser are imported in the functions: a start with a good token needs neither.


@clears_frames
def get_api_base_url(access_token: str, *, services: Services | None = None) -> str:
    """Find the API base URL of the account that a token belongs to, such as ``https://gcp-us-east1.api.carto.com``.

    CARTO's accounts API names the account's tenant, and the tenant's configuration names the address.

    Args:
        access_token: a CARTO access token.
        services: the services to ask; those of the environment, else CARTO's own.

    Returns:
        The address, without a slash at its end.

    Raises:
        InvalidCredential: the token has characters that a token cannot have.
        TenantNotFound: the account does not belong to a CARTO organization yet.
        UntrustedAddress: an answer names a place to which no token may be sent.
        Unauthorized: the token was refused.
        ServerError: another answer was not a success, or makes no sense.
        ServiceUnreachable: no answer came.
    """
    services = services or Services.from_environment()
    domain = _tenant_domain(access_token, services)
    return get_tenant_base_url(domain, services, named_by="CARTO's accounts service", secrets=(access_token,))


def get_tenant_base_url(domain: object, services: Services, *, named_by: str, secrets: tuple[str, ...]) -> str:
    """Find the API base URL of a tenant, in the configuration at its own domain.

    Args:
        domain: the tenant's domain, which is judged first.
        services: the services whose hosts need not be public.
        named_by: who named the domain, for the message.
        secrets: what must not show in a message. Who was sent a secret may send it back.

    Raises:
        UntrustedAddress: the domain, or the address that it names, is none to which a token may be sent.
        ServerError: its answer was not a success, or makes no sense.
        ServiceUnreachable: no answer came.
    """
    from carto_auth import _configuration, _http

    tenant = tenant_url(domain, services.named_hosts, named_by=named_by, shown=_http.shown(domain, secrets))
    configuration = _http.get_text(
        f"{tenant}/config.yaml", failure="The configuration of the CARTO organization could not be read"
    )
    base_url = _configuration.api_base_url_in(configuration)
    return discovered_base_url(base_url, tenant, shown=_http.shown(base_url, secrets))


def _tenant_domain(access_token: str, services: Services) -> object:
    from carto_auth import _http

    refusal = ServerError("", status=200)
    try:
        account = _http.get_json(
            f"{services.accounts_url.rstrip('/')}/accounts",
            access_token=access_token,
            failure="CARTO did not say which organization the account belongs to",
        )
        if account.get("tenant_domain"):
            return account["tenant_domain"]
    except ServerError as error:
        # An account without a tenant is answered with an "error" too. It is about the tenant, and not about the
        # token or the service, only when it comes as a success or as "not found".
        if error.status not in (200, 404) or error.error is None:
            raise
        refusal = error
    words = f" ({refusal.error_description or refusal.error})" if refusal.error else ""
    raise TenantNotFound(
        f"The login is good, but this account does not belong to a CARTO organization yet{words}.",
        remedy=_first_visit(services, Owner(access_token).organization_id),
        status=refusal.status,
        error=refusal.error,
        error_description=refusal.error_description,
    )


def _first_visit(services: Services, organization_id: str | None) -> str:
    """What a person without a CARTO organization has to do once; the id is that of the SSO login (``org_...``)."""
    from urllib.parse import quote

    app_url = services.app_url.rstrip("/")
    if organization_id:
        page = f"{app_url}/sso/{quote(organization_id, safe='')} once"
    else:
        page = f"{app_url} once and finish the sign-up (with SSO: {app_url}/sso/ and the id of your organization)"
    return f"Visit {page}, then try again; the login is kept."


def get_organization_id(organization: str, *, services: Services | None = None) -> str | None:
    """Find the Auth0 id (``org_...``) of an organization with single sign-on.

    Args:
        organization: its name, or its id, which is returned as it is.
        services: the services to ask; those of the environment, else CARTO's own.

    Returns:
        The id; ``None`` for an organization without SSO and for one that does not exist: CARTO does not tell which.

    Raises:
        UntrustedAddress: the environment names an address that is neither https nor on this computer.
        ServerError: the answer was not a success, or makes no sense.
        ServiceUnreachable: no answer came.
    """
    if organization in (".", "..") or not organization.isprintable():  # a path, or not text that can be sent
        return None
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
    return identifier if isinstance(identifier, str) and identifier else None
