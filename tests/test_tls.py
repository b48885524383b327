"""Real TLS, CA bundles and proxies, on loopback and under CARTO's own names."""

import datetime
import socket
import ssl

import pytest
import trustme
from servers import Server, answering, connect_proxy, http

from carto_auth import CartoAuth
from carto_auth._http import sending
from carto_auth._http.failures import CAPTIVE_PORTAL
from carto_auth._services import Services
from carto_auth.errors import ServiceUnreachable
from carto_auth.m2m import get_m2m_token_info

TOKEN = http({"access_token": "fresh", "expires_in": 86400})
NO_BUNDLE = (
    "Behind a company's proxy, or with a CARTO that has a private certificate authority, set REQUESTS_CA_BUNDLE to "
    f"its CA bundle. {CAPTIVE_PORTAL}"
)
WRONG_TIME = "Check this computer's date and time. If they are right, whoever runs that host has to renew it."
YEARS_AGO = datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc)


@pytest.fixture(scope="module")
def ca():
    return trustme.CA()


@pytest.fixture
def bundle(ca, tmp_path):
    path = tmp_path / "ca.pem"
    ca.cert_pem.write_to_path(path)
    return str(path)


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr(sending, "BACKOFF_SECONDS", 0.0)
    monkeypatch.setattr(sending, "JITTER_SECONDS", 0.0)


@pytest.fixture
def names(monkeypatch):
    """Host names, and the server that stands behind each; no other can be looked up."""
    known = {}
    real = socket.getaddrinfo

    def getaddrinfo(host, port, *arguments, **options):
        if host in known:
            return real("127.0.0.1", known[host].port, *arguments, **options)
        if host != "127.0.0.1":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return real(host, port, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return known


def certified(ca, *identities, **options):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(*identities, **options).configure_cert(context)
    return context


def ask(services=None):
    return get_m2m_token_info("an-id", "a-secret", services=services)["access_token"]


def fails(services=None):
    with pytest.raises(ServiceUnreachable) as caught:
        ask(services)
    return str(caught.value)


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"])
def test_a_private_ca(variable, ca, bundle, names, monkeypatch):
    monkeypatch.setenv(variable, bundle)
    with Server(answering(TOKEN), tls=certified(ca, "auth.carto.com", "127.0.0.1")) as server:
        names["auth.carto.com"] = server
        assert ask() == "fresh"
        # Also on loopback, where nothing else of the environment counts.
        assert ask(Services(auth_url=server.url)) == "fresh"


def test_the_bigquery_client_believes_the_same(ca, bundle, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", bundle)
    answers = {
        "/v3/connections/carto-dw/token": http({"projectId": "a-project", "token": "a-google-token"}),
        "/bigquery/v2/projects?prettyPrint=false": http({"projects": []}),
    }
    script = answering(lambda request: answers[request.path])
    with Server(script, tls=certified(ca, "127.0.0.1")) as server:
        auth = CartoAuth("oauth", server.url, "a-token", 4155310800, services=Services(bigquery_url=server.url))
        with auth.get_carto_dw_client() as client:
            assert list(client.list_projects(timeout=20, retry=None)) == []
    assert len(server.requests) == 2


UNKNOWN = "unable to get local issuer certificate"
EXPIRED = {"not_before": YEARS_AGO, "not_after": YEARS_AGO}
MISMATCH = "Hostname mismatch, certificate is not valid for 'auth.carto.com'"
REFUSED = {
    "foreign": (["auth.carto.com"], {}, None, UNKNOWN, NO_BUNDLE),
    "foreign, with a bundle": (
        ["auth.carto.com"],
        {},
        "another",
        UNKNOWN,
        "Its authority is not in {bundle}, the CA bundle that the environment names: add it there.",
    ),
    "expired": (["auth.carto.com"], EXPIRED, "right", "certificate has expired", WRONG_TIME),
    "wrong name": (["*.com"], {}, "right", MISMATCH, f"Check the address. {CAPTIVE_PORTAL}"),
}


@pytest.mark.parametrize(("identities", "options", "named", "words", "remedy"), REFUSED.values(), ids=REFUSED)
def test_a_refused_certificate_is_told_with_a_remedy_that_fits(
    identities, options, named, words, remedy, ca, bundle, names, monkeypatch
):
    if named == "another":
        trustme.CA().cert_pem.write_to_path(bundle)
    if named:
        monkeypatch.setenv("SSL_CERT_FILE", bundle)
    with Server(answering(TOKEN), tls=certified(ca, *identities, **options)) as server:
        names["auth.carto.com"] = server
        told = remedy.format(bundle=bundle)
        assert fails() == f"The certificate of auth.carto.com was not accepted ({words}). {told}"
        assert (server.connections, server.requests) == (1, [])


def test_a_bundle_that_is_not_there(monkeypatch, tmp_path):
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "no.pem"))
    assert fails() == (
        f"There is no CA bundle {tmp_path / 'no.pem'}, which SSL_CERT_FILE names. Correct or unset the variable."
    )


@pytest.mark.parametrize("content", ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_a_bundle_that_is_none(content, ca, names, monkeypatch, tmp_path):
    path = tmp_path / "empty.pem"
    path.write_text(content)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(path))
    with Server(answering(TOKEN), tls=certified(ca, "auth.carto.com")) as server:
        names["auth.carto.com"] = server
        assert fails() == (
            f"There are no certificates in {path}, which the environment names as the CA bundle. Check "
            "REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE and SSL_CERT_FILE."
        )


def test_a_server_without_tls(names):
    def script(line):
        line.connection.recv(1000)
        line.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with Server(script) as server:
        names["auth.carto.com"] = server
        message = fails()
    assert message.startswith("Cannot make a secure connection to auth.carto.com (")
    assert message.endswith("). Check the address and its port, and the proxy if there is one.")


def test_a_whole_login_under_cartos_own_names(ca, bundle, names, monkeypatch, tmp_path):
    """Four requests to four hosts."""
    api = "gcp-us-east1.api.carto.com"
    answers = {
        "auth.carto.com": TOKEN,
        "accounts.app.carto.com": http({"tenant_domain": "acme.app.carto.com"}),
        "acme.app.carto.com": http(f"apis:\n  baseUrl: https://{api}\n"),
        api: http({"projectId": "a-project", "token": "a-google-token"}),
    }
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", bundle)
    monkeypatch.setattr("carto_auth.pkce.CartoPKCE._input", lambda self, prompt: "a-code")
    by_host = answering(lambda request: answers[request.headers["host"]])
    with Server(by_host, tls=certified(ca, *answers)) as server:
        names.update(dict.fromkeys(answers, server))
        auth = CartoAuth.from_oauth(tmp_path / "c.json", open_browser=False, interactive=True)
        assert auth.get_carto_dw_credentials() == ("a-project", "a-google-token")
        assert [request.headers["host"] for request in server.requests] == list(answers)


# ---- proxies -------------------------------------------------------------------------------------


@pytest.fixture
def carto(ca, bundle, monkeypatch):
    """auth.carto.com, which cannot be looked up here: only the proxy knows it."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", bundle)
    with Server(answering(TOKEN), tls=certified(ca, "auth.carto.com")) as server:
        yield server


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "ALL_PROXY"])
def test_a_proxy(variable, carto, names, monkeypatch):
    with Server(connect_proxy({"auth.carto.com:443": carto.port})) as proxy:
        monkeypatch.setenv(variable, f"http://somebody:a-password@127.0.0.1:{proxy.port}")
        assert ask() == "fresh"
        (request,) = proxy.requests
        assert request.headers["proxy-authorization"] == "Basic c29tZWJvZHk6YS1wYXNzd29yZA=="
        assert "authorization" not in carto.requests[0].headers
        assert "proxy-authorization" not in carto.requests[0].headers
        assert "secret" not in request.raw.decode()


def test_no_proxy_where_there_must_be_none(carto, names, monkeypatch):
    names["auth.carto.com"] = carto
    with Server(connect_proxy({})) as proxy, Server(answering(TOKEN)) as server:
        for variable in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(variable, proxy.url)
        assert ask(Services(auth_url=server.url)) == "fresh"
        monkeypatch.setenv("NO_PROXY", "example.com,.carto.com")
        assert ask() == "fresh"
        assert proxy.connections == 0


@pytest.mark.parametrize("status", [407, 502])
def test_a_proxy_that_refuses(status, names, monkeypatch):
    with Server(connect_proxy({}, status=status)) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://somebody:a-password@127.0.0.1:{proxy.port}")
        assert fails() == (
            "Cannot reach auth.carto.com through the proxy that the environment names. Check HTTPS_PROXY and NO_PROXY. "
            "A SOCKS proxy needs the package PySocks."
        )


@pytest.mark.parametrize("proxy", ["http://u:a-password@127.0.0.1:1", "socks9://u:a-password@x"])
def test_a_proxy_that_cannot_be_reached(proxy, names, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    message = fails()
    assert "auth.carto.com" in message
    assert "proxy" in message
    assert "a-password" not in message
