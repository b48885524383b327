"""The addresses of CARTO's services, and how a self-hosted CARTO (or the sandbox) replaces them."""

from __future__ import annotations

import os
import re

from carto_auth._token import without_secrets
from carto_auth._typing import TYPE_CHECKING, NamedTuple
from carto_auth.errors import InvalidCredential, UntrustedAddress

if TYPE_CHECKING:
    from collections.abc import Collection
    from urllib.parse import SplitResult

AUDIENCE = "carto-cloud-native-api"

#: CARTO's public OAuth client for people's logins; a public client has no secret (RFC 6749 section 2.1).
CLIENT_ID = "0dxb8HR3ATXCxJiPOJVHsLoHoAtbRX6u"

#: Registered with that client, and compared exactly: neither the port nor the path can float.
REDIRECT_URI = "http://localhost:10000/callback/"


class Services(NamedTuple):
    """Where the services are that a login needs.

    The defaults are CARTO's own. A disconnected self-hosted CARTO has others: give them here and pass the
    object as ``services=``, or set the environment variables in parentheses.

    Attributes:
        auth_url: the OAuth issuer (``CARTO_AUTH_URL``), such as ``https://carto.example.com/auth-api``.
        accounts_url: the accounts API (``CARTO_ACCOUNTS_URL``).
        app_url: CARTO's web application (``CARTO_APP_URL``); it shows the code to copy.
        client_id: the OAuth client for people's logins (``CARTO_AUTH_CLIENT_ID``).
        bigquery_url: where the warehouse client finds BigQuery; ``None`` for Google's own.

    Every address is trusted as it is named here. It must be ``https``, or ``http`` on a loopback address.
    """

    auth_url: str = "https://auth.carto.com"
    accounts_url: str = "https://accounts.app.carto.com"
    app_url: str = "https://app.carto.com"
    client_id: str = CLIENT_ID
    bigquery_url: str | None = None

    @classmethod
    def from_environment(cls) -> Services:
        """The services named by the environment; CARTO's own where it names none.

        Raises:
            UntrustedAddress: a variable holds an address that is neither https nor on this computer.
        """
        default = cls()
        return cls(
            auth_url=_environment_url("CARTO_AUTH_URL", default.auth_url),
            accounts_url=_environment_url("CARTO_ACCOUNTS_URL", default.accounts_url),
            app_url=_environment_url("CARTO_APP_URL", default.app_url),
            client_id=os.environ.get("CARTO_AUTH_CLIENT_ID", "").strip() or default.client_id,
        )

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
        """The redirect URI of logins without a callback: a page that shows the code to copy."""
        return f"{self.app_url.rstrip('/')}/auth/token"

    @property
    def are_cartos_own(self) -> bool:
        """Whether nothing was replaced."""
        return self == Services()

    def schemes(self) -> dict[str, str]:
        """The hosts that the user trusts by naming them, with their ports where they have one: each with its scheme."""
        urls = [split_url(url) for url in (self.auth_url, self.accounts_url, self.app_url)]
        return {url.netloc: url.scheme for url in sorted(urls, key=lambda url: url.scheme)}


def _environment_url(variable: str, default: str) -> str:
    value = os.environ.get(variable, "").strip().rstrip("/")
    if not value:
        return default
    require_secure(value, variable)
    return value


def require_secure(url: str, named_by: str) -> None:
    """Refuse an address that is neither https nor http on a loopback address.

    ``named_by`` says, in the message, where the address stands.

    Raises:
        UntrustedAddress: it is not secure, or not an address.
    """
    if _is_plain_https(url):
        return
    parts = split_url(url)
    problem = None
    if parts.scheme not in ("https", "http") or not parts.hostname:
        problem = "is not an https:// address"
    elif parts.username is not None or parts.password is not None:
        problem = "has a user name in it"
    elif set("?# \\") & set(url) or not url.isprintable():
        problem = "is not a plain address (no blanks, no ?, no # and no \\ are allowed)"
    elif parts.scheme == "http" and not is_loopback(parts.hostname):
        problem = "would send secrets unencrypted (http://)"
    if problem:
        # A password or a token may stand in such an address, or in its place.
        shown = f": {_shown(url)}" if parts.hostname and not set("@?#") & set(url) else ""
        raise UntrustedAddress(
            f"The address in {named_by} {problem}{shown}.",
            remedy="Write it as https://host or https://host/path.",
        )


def _is_plain_https(url: str) -> bool:
    """Whether ``url`` is nothing but ``https://`` and a host: then it need not be taken apart.

    That spares most starts the import of ``urllib.parse``.
    """
    host = url.removeprefix("https://")
    return 0 < len(host) < len(url) and set(host) <= set("abcdefghijklmnopqrstuvwxyz0123456789.-")


def is_loopback(host: str) -> bool:
    """Whether ``host`` names this very computer: ``localhost``, 127.0.0.0/8 or ::1 (RFC 6761, RFC 8252)."""
    # Not \d, which other digits of the world match as well: those make a name that is looked up.
    return (
        host in ("localhost", "::1") or re.fullmatch(r"127(\.(25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])){3}", host) is not None
    )


def normalized_base_url(url: str) -> str:
    """``url`` without the blanks around it and the slashes at its end, as all of this package compares it.

    Raises:
        InvalidCredential: it is no text.
    """
    if not isinstance(url, str):
        raise InvalidCredential(
            f"An API base URL must be text, not {type(url).__name__}.",
            remedy="Copy it from the Developers page of your CARTO Workspace.",
        )
    return url.strip().rstrip("/")


def require_credentials_base_url(url: str, named_by: str, services: Services) -> str:
    """The normalized API base URL of a credentials file or variable, if a token may be sent there.

    It must be https; http is for a loopback address, and only beside services that the user named as well
    (the sandbox): CARTO's own tokens have no business on a local port.

    Raises:
        InvalidCredential: it may not.
    """
    url = normalized_base_url(url)
    try:
        require_secure(url, named_by)
    except UntrustedAddress as error:
        problem, remedy = error.message, error.remedy
    else:
        if url.lower().startswith("https://") or not services.are_cartos_own:
            return url
        problem = f"The address in {named_by} is not https: {_shown(url)}."
        remedy = "Copy the API base URL from the Developers page of your CARTO Workspace."
    raise InvalidCredential(problem, remedy=remedy)


#: A DNS name as RFC 1123 has it, of two labels or more, its last one beginning with a letter. It is compiled
#: when it is first used: that takes longer than all the rest of this module.
_DNS_NAME = r"(?=.{1,253}$)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]([a-z0-9-]{0,61}[a-z0-9])?"

#: Names that stand for this computer or a private network (RFC 6761, RFC 6762, RFC 8375, ICANN).
_LOCAL_SUFFIXES = (".localhost", ".localdomain", ".local", ".internal", ".home.arpa")


def is_public_name(host: str) -> bool:
    """Whether ``host`` is a plain public DNS name: no address, port, local name or internationalized trick."""
    return (
        re.fullmatch(_DNS_NAME, host) is not None
        and not host.endswith(_LOCAL_SUFFIXES)
        and not any(label.startswith("xn--") for label in host.split("."))
    )


def tenant_url(tenant_domain: object, services: Services, secrets: Collection[str] = ()) -> str:
    """The address of a tenant's own host, from the ``tenant_domain`` that the accounts API gave.

    ``secrets`` are kept out of the message: whoever was given one may give it back.

    Raises:
        UntrustedAddress: it is no public DNS name, and no host that the user named.
    """
    if isinstance(tenant_domain, str):
        scheme = None if services.are_cartos_own else services.schemes().get(tenant_domain)
        if scheme:
            return f"{scheme}://{tenant_domain}"
        if is_public_name(tenant_domain):
            return f"https://{tenant_domain}"
    raise UntrustedAddress(
        f"CARTO's accounts service named a tenant that is no public host name: {_shown(tenant_domain, secrets)}.",
        remedy="Pass api_base_url= yourself; it stands on the Developers page of your CARTO Workspace.",
    )


def discovered_base_url(base_url: object, tenant: str, secrets: Collection[str] = ()) -> str:
    """The normalized API base URL that the tenant's configuration gave, if a token may be sent there.

    A remote answer must not decide where a bearer token goes: only hosts under carto.com, or the tenant's
    own host (``tenant`` is its URL), are accepted. ``secrets`` are as for :func:`tenant_url`.

    Raises:
        UntrustedAddress: it lies elsewhere.
    """
    if isinstance(base_url, str):
        url = normalized_base_url(base_url)
        parts, own = split_url(url), split_url(tenant)
        plain = (
            url.isascii() and url.isprintable() and not set(url) & set(" \\?#@;%") and "/../" not in f"{parts.path}/"
        )
        on_own_host = parts.scheme == own.scheme and parts.netloc == own.netloc
        at_carto = parts.scheme == "https" and parts.netloc.endswith(".carto.com") and is_public_name(parts.netloc)
        if plain and (on_own_host or at_carto):
            return url
    host, shown = split_url(tenant).netloc, _shown(base_url, secrets)
    raise UntrustedAddress(
        f"The configuration at {host} names an API address outside CARTO: {shown}.",
        remedy="If it is right, pass it yourself as api_base_url=.",
    )


def _shown(value: object, secrets: Collection[str] = ()) -> str:
    """A value from outside, short, without control characters and ``secrets``, for a message."""
    text = without_secrets(repr(value)[:1000], secrets)
    return text if len(text) <= 80 else f"{text[:77]}..."


class _Unsplittable:
    """What stands for the parts of a text that is no URL at all: nothing that could be trusted."""

    scheme = netloc = hostname = path = query = fragment = ""
    username = password = None


def split_url(url: str) -> SplitResult | _Unsplittable:
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url)
        _ = parts.port  # raises for a port that is no number
    except ValueError:
        return _Unsplittable()
    return parts
