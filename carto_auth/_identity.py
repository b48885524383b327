"""Identity: whose a token is. Owner: what the token itself says of that."""

from __future__ import annotations

import time

from carto_auth._services import AUDIENCE, Services
from carto_auth._token import ACCOUNT_CLAIM, EMAIL_CLAIM, LATEST_TIME, jwt_claims
from carto_auth._trust import normalized_base_url
from carto_auth._value import Value


class Identity(Value):
    """Whose a token is: two logins may share a token only if all of this is the same. No secret is in it.

    Attributes:
        mode: ``"oauth"`` for a person's login, ``"m2m"`` for an application's, ``"restricted"`` for a map's token.
        token_endpoint: the address that hands out the token.
        audience: the API that the token is for.
        client_id: the OAuth client, or the application.
        organization: of a person's login, as it was asked for; ``""`` for none.
        api_base_url: of an application and of a restricted token; ``""`` for a person, who may belong anywhere.
        account: of a restricted token, who made it.
        restriction: of a restricted token, a digest of what it may do.
    """

    mode: str
    token_endpoint: str
    audience: str
    client_id: str
    organization: str = ""
    api_base_url: str = ""
    account: str = ""
    restriction: str = ""

    @classmethod
    def of_person(cls, services: Services, organization: str | None) -> Identity:
        """The identity of a person's login."""
        return cls("oauth", services.token_url, services.audience, services.client_id, organization or "")

    @classmethod
    def of_application(cls, services: Services, client_id: str | None, api_base_url: str | None) -> Identity:
        """The identity of an M2M application."""
        base_url = normalized_base_url(api_base_url or "")
        return cls("m2m", services.token_url, services.audience, client_id or "", "", base_url)

    def __str__(self) -> str:
        """One readable string, never the same for two identities: ``&`` and ``%`` are escaped in the values."""
        fields = vars(self).items()
        return "&".join(
            f"{name}={value.replace('%', '%25').replace('&', '%26')}"
            for name, value in fields
            if value or name not in ("account", "restriction")
        )

    @classmethod
    def parsed(cls, text: str) -> Identity | None:
        """The identity that ``str`` has made this text of; ``None`` for any other text."""
        fields = (field.partition("=") for field in text.split("&"))
        values = {name: value.replace("%26", "&").replace("%25", "%") for name, _, value in fields}
        try:
            return cls(**values)
        except TypeError:
            return None

    @classmethod
    def hinted_at_by(cls, token: str) -> Identity:
        """The login that a token of which nobody has said whose it is may come from."""
        claims = jwt_claims(token)
        issuer, client_id, organization = (str(claims.get(name) or "") for name in ("iss", "azp", "org_id"))
        return cls("oauth", f"{issuer.rstrip('/')}/oauth/token", AUDIENCE, client_id, organization)

    def is_contradicted_by(self, token: str, api_base_url: str | None) -> bool:
        """Whether a token that somebody kept beside ``api_base_url`` without saying whose it is, is another account's.

        A JWT contradicts by its issuer (``iss``), its client (``azp``) or its organization (``org_id``). A token that
        is no JWT says nothing, and contradicts nothing. An application's token must be for the same API base URL.
        """
        if self.mode == "m2m" and normalized_base_url(api_base_url or "") != self.api_base_url:
            return True
        claims = jwt_claims(token)
        if not claims:
            return False
        issuer = claims.get("iss")
        if isinstance(issuer, str) and f"{issuer.rstrip('/')}/oauth/token" != self.token_endpoint:
            return True
        if claims.get("azp", self.client_id) != self.client_id:
            return True
        return self.mode == "oauth" and (claims.get("org_id") or "") != self.organization


class Owner:
    """Who a token says that it belongs to: hints for people to read, never trust.

    Attributes:
        email: of the person, or of an application's owner; ``None`` where the token does not say.
        account_id: CARTO's id of the account (``ac_...``), or ``None``.
        organization_id: the Auth0 id (``org_...``) of the SSO organization that the login went through, or ``None``.
    """

    def __init__(self, token: str) -> None:
        claims = jwt_claims(token)
        self.email = _text(claims.get(EMAIL_CLAIM))
        self.account_id = _text(claims.get(ACCOUNT_CLAIM))
        self.organization_id = _text(claims.get("org_id"))

    def logged_in(self, end: float | None, org: str | None) -> str:
        """A sentence for people: who is logged in, and until when (POSIX seconds), by this computer's local time.

        ``org`` is the organization as it was asked for; its name says more than its id.
        """
        name = f" as {self.email}" if self.email else ""
        organization = f" (organization {org or self.organization_id})" if self.organization_id else ""
        return f"Logged in{name}{organization}{_until(end)}"


def _text(claim: object) -> str | None:
    return claim if isinstance(claim, str) and claim and claim.isprintable() else None


def _until(end: float | None) -> str:
    if not end or end >= LATEST_TIME:
        return ""
    clock, day = time.strftime("%H:%M %Y-%m-%d", time.localtime(end)).split()
    return f", until {clock}" + ("" if day == time.strftime("%Y-%m-%d", time.localtime()) else f" on {day}")
