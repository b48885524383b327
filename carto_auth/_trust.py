"""Where a token may go, which addresses are refused, and whose certificates are believed."""

from __future__ import annotations

import os
import re

from carto_auth.errors import InvalidCredential, ServiceUnreachable, UntrustedAddress

# Type checkers take this name for true; typing would cost a start more than all of this package does.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from typing import TypeGuard
    from urllib.parse import SplitResult

WHERE_IT_IS = "You will find it on the Developers page of your CARTO Workspace."


def require_secure(url: str, named_by: str) -> None:
    """Refuse an address that is neither https nor http on a loopback address.

    Args:
        url: the address.
        named_by: who named it, for the message, such as ``"CARTO_AUTH_URL"``.

    Raises:
        UntrustedAddress: it is not secure, or not an address.
    """
    problem = None if _is_plain_https(url) else _problem_of(url)
    if problem:
        raise UntrustedAddress(
            f"The address in {named_by} {problem}.", remedy="Write it as https://host or https://host/path."
        )


def _problem_of(url: str) -> str | None:
    """Why secrets may not be sent to an address, with the address where it can be shown; ``None`` if they may."""
    parts = split_url(url)
    if parts.scheme not in ("https", "http") or not parts.hostname:
        problem = "is not an https:// address"
    elif parts.username is not None or parts.password is not None:
        problem = "has a user name in it"
    elif set("?# \\") & set(url) or not url.isprintable():
        problem = "is not a plain address (spaces, ?, # and \\ are not allowed)"
    elif parts.scheme == "http" and not is_loopback(parts.hostname):
        problem = "would send secrets unencrypted (http://)"
    else:
        return None
    # Such an address may hold a password or a token, or be one by mistake.
    can_be_shown = parts.hostname and not set("@?#") & set(url)
    return f"{problem}: {url!r:.80}" if can_be_shown else problem


def _is_plain_https(url: str) -> bool:
    """Whether ``url`` is nothing but ``https://`` and a host: then it need not be taken apart.

    That spares most starts the import of ``urllib.parse``.
    """
    host = url.removeprefix("https://")
    return 0 < len(host) < len(url) and set(host) <= set("abcdefghijklmnopqrstuvwxyz0123456789.-")


def is_loopback(host: str) -> bool:
    """Whether ``host`` names this very computer: ``localhost``, 127.0.0.0/8 or ::1 (RFC 6761, RFC 8252)."""
    # Not \d, which other digits of the world match as well: those make a name that is looked up.
    byte = "(25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])"
    return host in ("localhost", "::1") or re.fullmatch(rf"127(\.{byte}){{3}}", host) is not None


def ca_bundle() -> str | None:
    """The path of the CA bundle that the environment names, for all clients of this package; ``None`` for their own.

    Raises:
        ServiceUnreachable: the environment names a bundle that does not exist.
    """
    variable = next(filter(os.environ.get, ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")), None)
    if variable is None or os.path.exists(os.environ[variable]):
        return os.environ.get(variable or "")
    raise ServiceUnreachable(
        f"There is no CA bundle {os.environ[variable]}, which {variable} names.", remedy="Correct or unset it."
    )


def is_project_id(text: object) -> TypeGuard[str]:
    """Whether ``text`` is the id of a Google project, which becomes a part of addresses: a name, or ``domain:name``."""
    project_id = r"([a-z0-9-]+(\.[a-z0-9-]+)+:)?[a-z][a-z0-9-]{0,62}"
    return isinstance(text, str) and re.fullmatch(project_id, text) is not None


def normalized_base_url(url: str) -> str:
    """``url`` without the spaces around it and the slashes at its end, as all of this package compares it.

    Raises:
        InvalidCredential: it is not text.
    """
    if not isinstance(url, str):
        raise InvalidCredential(f"An API base URL must be text, not {type(url).__name__}.", remedy=WHERE_IT_IS)
    return url.strip().rstrip("/")


def require_credentials_base_url(named_by: str, url: str, *, by_carto: bool) -> str:
    """The normalized API base URL of a credentials file or variable, if a token may be sent there.

    Args:
        named_by: who named it, for the message.
        url: the address.
        by_carto: whether the token is CARTO's own, which has no business on a local port. One of services that the
            user named (the sandbox) may go to a loopback address by plain http.

    Raises:
        InvalidCredential: no token may be sent there.
    """
    url = normalized_base_url(url)
    try:
        require_secure(url, named_by)
    except UntrustedAddress as error:
        raise InvalidCredential(error.message, remedy=error.remedy) from None
    if by_carto and not url.lower().startswith("https://"):
        raise InvalidCredential(f"The address in {named_by} is not https: {url!r:.80}.", remedy=WHERE_IT_IS)
    return url


#: A DNS name as RFC 1123 section 2.1 has it: two labels or more, the last of which begins with a letter. It is
#: compiled when it is first used, because that takes longer than all the rest of this module.
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


def tenant_url(tenant_domain: object, named_hosts: dict[str, str], *, named_by: str, shown: str) -> str:
    """The address of a tenant's own host, from the ``tenant_domain`` that the accounts API or the CARTO CLI gave.

    Args:
        tenant_domain: what it gave.
        named_hosts: the hosts that the user named, with their schemes; they need not be public.
        named_by: who gave it, for the message.
        shown: ``tenant_domain`` as the message may show it. Who was sent a secret may send it back.

    Raises:
        UntrustedAddress: it is neither a public DNS name nor a host that the user named.
    """
    if isinstance(tenant_domain, str):
        if tenant_domain in named_hosts:
            return f"{named_hosts[tenant_domain]}://{tenant_domain}"
        if is_public_name(tenant_domain):
            return f"https://{tenant_domain}"
    raise UntrustedAddress(
        f"{named_by} named a tenant that is not a public host name: {shown}.",
        remedy=f"Pass api_base_url= yourself. {WHERE_IT_IS}",
    )


def discovered_base_url(base_url: object, tenant: str, *, shown: str) -> str:
    """The normalized API base URL that a tenant's configuration gave, if a token may be sent there.

    A remote answer must not decide where a bearer token goes: only hosts under carto.com and the tenant's own host
    are accepted.

    Args:
        base_url: what the configuration gave.
        tenant: the URL of the tenant's own host.
        shown: ``base_url`` as the message may show it.

    Raises:
        UntrustedAddress: it is elsewhere.
    """
    if isinstance(base_url, str):
        url = normalized_base_url(base_url)
        is_tenants = split_url(url)[:2] == split_url(tenant)[:2]  # scheme, and host with port
        if is_cartos_base_url(url) or (is_tenants and _is_plain(url)):
            return url
    raise UntrustedAddress(
        f"The configuration at {split_url(tenant).netloc} names an API address outside CARTO: {shown}.",
        remedy="If it is right, pass it yourself as api_base_url=.",
    )


def is_cartos_base_url(url: str) -> bool:
    """Whether ``url`` is an address of CARTO's cloud, whoever says that it is an API base URL."""
    parts = split_url(url)
    is_at_carto = parts.scheme == "https" and parts.netloc.endswith(".carto.com") and is_public_name(parts.netloc)
    return is_at_carto and _is_plain(url)


def _is_plain(url: str) -> bool:
    dots = "/../" in f"{split_url(url).path}/"
    return url.isascii() and url.isprintable() and not set(url) & set(" \\?#@;%") and not dots


def split_url(url: str) -> SplitResult:
    """The parts of a URL (RFC 3986 section 3), all of them empty where it is not one."""
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url)
        _ = parts.port  # raises for a port that is no number
    except ValueError:
        return urlsplit("")
    return parts
