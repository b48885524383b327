"""The addresses of CARTO's services, and how a self-hosted CARTO (or the sandbox) replaces them."""

from __future__ import annotations

import os

from carto_auth._trust import require_secure, split_url
from carto_auth._value import Value

AUDIENCE = "carto-cloud-native-api"

#: CARTO's public OAuth client for people's logins; a public client has no secret (RFC 6749 section 2.1).
CLIENT_ID = "0dxb8HR3ATXCxJiPOJVHsLoHoAtbRX6u"

#: Registered with that client, and compared exactly: neither the port nor the path can float.
REDIRECT_URI = "http://localhost:10000/callback/"

_VARIABLES = {
    "auth_url": "CARTO_AUTH_URL",
    "accounts_url": "CARTO_ACCOUNTS_URL",
    "app_url": "CARTO_APP_URL",
    "client_id": "CARTO_AUTH_CLIENT_ID",
    "audience": "CARTO_AUTH_AUDIENCE",
    "scope": "CARTO_AUTH_SCOPE",
}


class Services(Value):
    """Where the services are that a login needs.

    The defaults are CARTO's own. A disconnected self-hosted CARTO has others: give them here and pass the
    object as ``services=``, or set the environment variables in parentheses.

    Attributes:
        auth_url: the OAuth issuer (``CARTO_AUTH_URL``), such as ``https://carto.example.com/auth-api``.
        accounts_url: the accounts API (``CARTO_ACCOUNTS_URL``).
        app_url: CARTO's web application (``CARTO_APP_URL``); it shows the code to copy.
        client_id: the OAuth client for people's logins (``CARTO_AUTH_CLIENT_ID``).
        bigquery_url: where the warehouse client finds BigQuery; ``None`` for Google's own.
        audience: the API that tokens are for (``CARTO_AUTH_AUDIENCE``).
        scope: what else a person's login asks for (``CARTO_AUTH_SCOPE``), words separated by spaces (RFC 6749
            section 3.3): with ``"offline_access"``, for a client that may have refresh tokens, a person logs in once.

    Every address is trusted as it is named here.

    Raises:
        TypeError: a value is not text.
        UntrustedAddress: an address is neither ``https`` nor ``http`` on a loopback address.
    """

    def __init__(
        self,
        auth_url: str = "https://auth.carto.com",
        accounts_url: str = "https://accounts.app.carto.com",
        app_url: str = "https://app.carto.com",
        client_id: str = CLIENT_ID,
        bigquery_url: str | None = None,
        *,
        audience: str = AUDIENCE,
        scope: str = "",
    ) -> None:
        self.auth_url = auth_url
        self.accounts_url = accounts_url
        self.app_url = app_url
        self.client_id = client_id
        self.bigquery_url = bigquery_url
        self.audience = audience
        self.scope = scope
        for name, value in vars(self).items():
            if not isinstance(value, str) and (name, value) != ("bigquery_url", None):
                raise TypeError(f"Services({name}=) must be text, not {type(value).__name__}")
            if name.endswith("_url") and value is not None:
                require_secure(value, f"Services({name}=)")

    @classmethod
    def from_environment(cls) -> Services:
        """The services named by the environment; CARTO's own where it names none.

        Raises:
            UntrustedAddress: a variable holds an address that is neither https nor on this computer.
        """
        given = {name: value for name, variable in _VARIABLES.items() if (value := environment(variable))}
        for name in [name for name in given if name.endswith("_url")]:
            given[name] = given[name].rstrip("/")
            require_secure(given[name], _VARIABLES[name])
        return cls(**given)

    @property
    def authorize_url(self) -> str:
        """The authorization endpoint (RFC 6749 section 3.1)."""
        return f"{self.auth_url.rstrip('/')}/authorize"

    @property
    def token_url(self) -> str:
        """The token endpoint (RFC 6749 section 3.2)."""
        return f"{self.auth_url.rstrip('/')}/oauth/token"

    @property
    def revocation_url(self) -> str:
        """The revocation endpoint (RFC 7009), at Auth0's path."""
        return f"{self.auth_url.rstrip('/')}/oauth/revoke"

    @property
    def code_page_url(self) -> str:
        """The page that shows the code to copy, which is the redirect URI of logins without a callback."""
        return f"{self.app_url.rstrip('/')}/auth/token"

    @property
    def are_cartos_own(self) -> bool:
        """Whether no address was replaced. CARTO's cloud has OAuth clients of its customers', too."""
        return self.replaced(client_id=CLIENT_ID, audience=AUDIENCE, scope="") == Services()

    @property
    def named_hosts(self) -> dict[str, str]:
        """The hosts that the user trusts by naming them, with their ports where they have one: each with its scheme."""
        urls = [split_url(url) for url in (self.auth_url, self.accounts_url, self.app_url)]
        return {url.netloc: url.scheme for url in sorted(urls, key=lambda url: url.scheme)}


def environment(variable: str) -> str:
    """The value of an environment variable without the blanks around it; ``""`` where it is not set."""
    return os.environ.get(variable, "").strip()
