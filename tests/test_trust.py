"""Where a token may go, and where it may not."""

import pytest

from carto_auth._services import Services
from carto_auth._trust import (
    discovered_base_url,
    is_loopback,
    is_public_name,
    require_credentials_base_url,
    require_secure,
    tenant_url,
)
from carto_auth.errors import InvalidCredential, UntrustedAddress

CARTOS_OWN = Services()
SELF_HOSTED = Services(accounts_url="https://carto.example.com/accounts-api", app_url="https://carto.example.com")
SANDBOX = Services("http://127.0.0.1:8000", "http://127.0.0.1:8000", "http://127.0.0.1:8000")

#: What is not a public DNS name.
# fmt: off
NO_PUBLIC_NAMES = [
    "", "localhost", "app.localhost", "printer.local", "metadata.google.internal", "127.0.0.1", "169.254.169.254",
    "0x7f.1", "017700000001", "[::1]", "acme.app.carto.com.", ".carto.com", "acme..carto.com", "-acme.carto.com",
    "acme-.carto.com", "a_b.carto.com", "xn--crto-5na.com", "c\N{CYRILLIC SMALL LETTER A}rto.com",
    "\N{FULLWIDTH LATIN SMALL LETTER A}cme.carto.com", "acme\N{IDEOGRAPHIC FULL STOP}carto.com",
    "acme.carto.com\N{COMBINING ACUTE ACCENT}", "acme.carto.com:443", "acme.carto.com/path",
    "acme.carto.com#fragment", "acme.carto.com@evil.example", "user:password@acme.carto.com",
    "acme.carto.com\\@evil.example", "evil.example\\.carto.com", "acme.carto.com\n", "acme.carto.com\0",
    " acme.carto.com", "acme carto.com", "%61cme.carto.com", "//acme.carto.com", "*.carto.com",
    f"{'a' * 64}.carto.com", f"{'a.' * 127}carto.com",
]
# fmt: on
NO_TEXTS = [None, 1.5, ["acme.carto.com"], {"host": "acme.carto.com"}, b"acme.carto.com"]

#: API addresses that a tenant's configuration must not send a token to.
# fmt: off
NO_BASE_URLS = [
    "", "gcp-us-east1.api.carto.com", "//gcp-us-east1.api.carto.com", "http://gcp-us-east1.api.carto.com",
    "javascript:alert(1)", "https://", "https://carto.com.evil.example", "https://evilcarto.com",
    "https://evil.example", "https://evil.example/.carto.com", "https://evil.example#.carto.com",
    "https://evil.example\\.carto.com", "https://evil.example;.carto.com", "https://evil.example%2f.carto.com",
    "https://user@gcp-us-east1.api.carto.com", "https://gcp-us-east1.api.carto.com@evil.example",
    "https://gcp-us-east1.api.carto.com:8443", "https://gcp-us-east1.api.carto.com:port",
    "https://gcp-us-east1.api.carto.com./", "https://127.0.0.1", "https://[::1]", "https://[::1",
    "https://xn--gcp-us-east1-abc.carto.com", "https://g\N{CYRILLIC SMALL LETTER ES}p.api.carto.com",
    "https://gcp-us-east1.api.carto.com/../v3", "https://gcp-us-east1.api.carto.com/%2e%2e/v3",
    "https://gcp-us-east1.api.carto.com/a b", "https://gcp-us-east1\n.api.carto.com",
    "https://acme.app.carto.org:444/api",
]
# fmt: on


@pytest.mark.parametrize("host", NO_PUBLIC_NAMES)
def test_names_that_are_not_public(host):
    assert not is_public_name(host)
    for services in (CARTOS_OWN, SELF_HOSTED, SANDBOX):
        with pytest.raises(UntrustedAddress, match=r"not a public host name: what it was\."):
            tenant_url(host, services.named_hosts, shown="what it was")


@pytest.mark.parametrize("value", NO_TEXTS, ids=repr)
def test_what_is_not_even_a_text(value):
    with pytest.raises(UntrustedAddress):
        tenant_url(value, CARTOS_OWN.named_hosts, shown="what it was")
    with pytest.raises(UntrustedAddress):
        discovered_base_url(value, "https://acme.app.carto.com", shown="what it was")


@pytest.mark.parametrize("host", ["acme.app.carto.com", "a.b", "carto.example.com", "1-2.3com.co", f"{'a' * 63}.com"])
def test_public_names(host):
    assert is_public_name(host)
    assert tenant_url(host, CARTOS_OWN.named_hosts, shown="") == f"https://{host}"


@pytest.mark.parametrize(
    ("host", "services", "url"),
    [
        ("127.0.0.1:8000", SANDBOX, "http://127.0.0.1:8000"),
        ("127.0.0.1:8000", CARTOS_OWN, None),
        ("127.0.0.1:8001", SANDBOX, None),
        ("127.0.0.1", SANDBOX, None),
        ("localhost:8000", SANDBOX, None),
        ("carto.example.com", SELF_HOSTED, "https://carto.example.com"),
        ("carto.internal:8443", Services(accounts_url="https://carto.internal:8443"), "https://carto.internal:8443"),
        ("carto.internal", Services(accounts_url="https://carto.internal:8443"), None),
        ("10.0.0.1", Services(accounts_url="https://10.0.0.1"), "https://10.0.0.1"),
    ],
)
def test_a_tenant_on_a_host_that_the_user_named(host, services, url):
    if url is None:
        with pytest.raises(UntrustedAddress):
            tenant_url(host, services.named_hosts, shown="")
    else:
        assert tenant_url(host, services.named_hosts, shown="") == url


@pytest.mark.parametrize("url", NO_BASE_URLS)
def test_base_urls_that_get_no_token(url):
    for tenant in ("https://acme.app.carto.com", "https://acme.app.carto.org", "https://127.0.0.1:8000"):
        with pytest.raises(UntrustedAddress, match=r"names an API address outside CARTO: what it was\."):
            discovered_base_url(url, tenant, shown="what it was")


@pytest.mark.parametrize(
    ("url", "tenant", "expected"),
    [
        ("https://gcp-us-east1.api.carto.com", "https://acme.app.carto.com", "https://gcp-us-east1.api.carto.com"),
        (" https://gcp.api.carto.com// ", "https://acme.app.carto.com", "https://gcp.api.carto.com"),
        ("https://carto.example.com/api", "https://carto.example.com", "https://carto.example.com/api"),
        ("https://carto.example.com/api/", "https://carto.example.com", "https://carto.example.com/api"),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("https://gcp.api.carto.com", "https://carto.example.com", "https://gcp.api.carto.com"),
    ],
)
def test_base_urls(url, tenant, expected):
    assert discovered_base_url(url, tenant, shown="") == expected


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.255.255.255", "::1"])
def test_this_computer(host):
    assert is_loopback(host)


NOT_THIS_COMPUTER = ["", "127.0.0.256", "127.1", "127.0.0.1.", "127.0.0.1.evil.example", "128.0.0.1", "0.0.0.0"]
NOT_THIS_COMPUTER += ["localhost.", "localhost.evil.example", "evil-localhost", "127.\N{ARABIC-INDIC DIGIT ZERO}.0.1"]


@pytest.mark.parametrize("host", NOT_THIS_COMPUTER)
def test_other_computers(host):
    assert not is_loopback(host)


NOT_SECURE = {
    "http://carto.example.com": "would send secrets unencrypted (http://): 'http://carto.example.com'",
    "HTTP://carto.example.com": "would send secrets unencrypted (http://): 'HTTP://carto.example.com'",
    "carto.example.com": "is not an https:// address",
    "//carto.example.com": "is not an https:// address: '//carto.example.com'",
    "https://": "is not an https:// address",
    "https://[::1": "is not an https:// address",
    "https://carto.example.com:port": "is not an https:// address",
    "s3cr3t-that-was-pasted-here": "is not an https:// address",
    "https://user:s3cr3t@carto.example.com": "has a user name in it",
    "https://carto.example.com?token=s3cr3t": "is not a plain address (spaces, ?, # and \\ are not allowed)",
    "https://evil.example\\.carto.com": "is not a plain address (spaces, ?, # and \\ are not allowed): "
    "'https://evil.example\\\\.carto.com'",
    "https://carto.example.com/a b": "is not a plain address (spaces, ?, # and \\ are not allowed): "
    "'https://carto.example.com/a b'",
    "https://carto\n.example.com": "is not a plain address (spaces, ?, # and \\ are not allowed): "
    "'https://carto\\n.example.com'",
}


@pytest.mark.parametrize("url", NOT_SECURE)
def test_addresses_that_are_not_secure(url):
    message = f"The address in X {NOT_SECURE[url]}."
    with pytest.raises(UntrustedAddress) as caught:
        require_secure(url, "X")
    assert str(caught.value) == f"{message} Write it as https://host or https://host/path."
    with pytest.raises(InvalidCredential) as caught:
        require_credentials_base_url(url, "X", by_carto=False)
    assert caught.value.message == message
    assert "s3cr3t" not in repr(caught.value) + repr(caught.value.__context__)


@pytest.mark.parametrize(
    ("url", "services", "expected"),
    [
        ("https://gcp-us-east1.api.carto.com", CARTOS_OWN, "https://gcp-us-east1.api.carto.com"),
        (" https://gcp-us-east1.api.carto.com/ \n", CARTOS_OWN, "https://gcp-us-east1.api.carto.com"),
        ("https://carto.example.com/api//", SELF_HOSTED, "https://carto.example.com/api"),
        ("https://carto.internal:8443/api", CARTOS_OWN, "https://carto.internal:8443/api"),
        ("http://127.0.0.1:8000", SANDBOX, "http://127.0.0.1:8000"),
        ("http://localhost:8000/", SANDBOX, "http://localhost:8000"),
        ("http://[::1]:8000/", SANDBOX, "http://[::1]:8000"),
        ("http://127.0.0.1:8000", CARTOS_OWN, None),
        ("HTTP://127.0.0.1:8000", CARTOS_OWN, None),
        ("http://127.0.0.1:8000", Services(client_id="a web app's"), None),
    ],
)
def test_base_urls_of_credentials(url, services, expected):
    if expected is None:
        with pytest.raises(InvalidCredential, match="is not https"):
            require_credentials_base_url(url, "X", by_carto=services.are_cartos_own)
    else:
        assert require_credentials_base_url(url, "X", by_carto=services.are_cartos_own) == expected
