"""CARTO's addresses, and those of a self-hosted CARTO."""

import pickle
from urllib.parse import parse_qs, urlsplit

import pytest

from carto_auth import CartoAuth
from carto_auth._services import Services
from carto_auth.errors import UntrustedAddress
from carto_auth.pkce import CartoPKCE

CARTOS_OWN = Services()
SELF_HOSTED = Services(
    auth_url="https://carto.example.com/auth-api",
    accounts_url="https://carto.example.com/accounts-api",
    app_url="https://carto.example.com",
    client_id="our-client",
)

ENVIRONMENT = {
    "CARTO_AUTH_URL": " https://carto.example.com/auth-api/ ",
    "CARTO_ACCOUNTS_URL": "https://carto.example.com/accounts-api",
    "CARTO_APP_URL": "https://carto.example.com/",
    "CARTO_AUTH_CLIENT_ID": "our-client",
}


def test_services_are_a_value():
    same = Services(
        "https://carto.example.com/auth-api",
        "https://carto.example.com/accounts-api",
        "https://carto.example.com",
        "our-client",
        None,
    )
    assert same == SELF_HOSTED == pickle.loads(pickle.dumps(same))
    assert len({same, SELF_HOSTED, CARTOS_OWN}) == 2
    assert "auth_url='https://carto.example.com/auth-api'" in repr(same)


def test_services_of_the_environment(monkeypatch):
    assert Services.from_environment() == CARTOS_OWN
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    assert Services.from_environment() == SELF_HOSTED


@pytest.mark.parametrize("variable", ["CARTO_AUTH_URL", "CARTO_ACCOUNTS_URL", "CARTO_APP_URL"])
@pytest.mark.parametrize("value", ["http://carto.example.com", "https://u:p@carto.example.com"])
def test_an_environment_that_cannot_be_trusted(variable, value, monkeypatch):
    monkeypatch.setenv(variable, value)
    with pytest.raises(UntrustedAddress, match=f"^The address in {variable} "):
        CartoAuth("oauth")


@pytest.mark.parametrize(
    "services", [SELF_HOSTED, SELF_HOSTED.replaced(auth_url="https://carto.example.com/auth-api/")]
)
def test_addresses_of_services(services):
    assert services.authorize_url == "https://carto.example.com/auth-api/authorize"
    assert services.token_url == "https://carto.example.com/auth-api/oauth/token"
    assert services.revocation_url == "https://carto.example.com/auth-api/oauth/revoke"
    assert services.code_page_url == "https://carto.example.com/auth/token"
    assert services.named_hosts == {"carto.example.com": "https"}
    assert not services.are_cartos_own


@pytest.mark.parametrize("how", ["argument", "environment"])
def test_a_login_at_a_self_hosted_carto(how, monkeypatch, requests_mock, tmp_path):
    base = "https://carto.example.com"
    requests_mock.post(f"{base}/auth-api/oauth/token", json={"access_token": "fresh", "expires_in": 86400})
    requests_mock.get(f"{base}/accounts-api/accounts", json={"tenant_domain": "carto.example.com"})
    requests_mock.get(f"{base}/config.yaml", text=f"apis:\n  baseUrl: {base}/api/\n")
    requests_mock.get(f"{base}/api/v3/connections/carto-dw/token", json={"projectId": "p", "token": "t"})
    monkeypatch.setattr("carto_auth.pkce.CartoPKCE._input", lambda self, prompt: "a-code")
    if how == "environment":
        for name, value in ENVIRONMENT.items():
            monkeypatch.setenv(name, value)
    services = SELF_HOSTED if how == "argument" else None
    auth = CartoAuth.from_oauth(tmp_path / "cache.json", open_browser=False, interactive=True, services=services)
    assert auth.get_api_base_url() == f"{base}/api"
    assert auth.get_carto_dw_credentials() == ("p", "t")
    assert {request.hostname for request in requests_mock.request_history} == {"carto.example.com"}
    assert "client_id=our-client" in requests_mock.request_history[0].text


@pytest.mark.parametrize("how", ["argument", "environment"])
def test_an_audience_and_a_scope_of_ones_own(how, monkeypatch, requests_mock, tmp_path):
    asked = requests_mock.post("https://auth.carto.com/oauth/token", json={"access_token": "t", "expires_in": 86400})
    services = Services(audience="another-api", scope="offline_access")
    if how == "environment":
        monkeypatch.setenv("CARTO_AUTH_AUDIENCE", " another-api ")
        monkeypatch.setenv("CARTO_AUTH_SCOPE", "offline_access")
        assert Services.from_environment() == services
        services = None
    login = CartoPKCE(open_browser=False, services=services)
    query = parse_qs(urlsplit(login.get_authorize_url()).query)
    assert (query["audience"], query["scope"]) == (["another-api"], ["offline_access"])
    login.get_token_info("a-code")
    cache = tmp_path / "c.json"
    options = {
        "api_base_url": "https://x.carto.com",
        "client_id": "an-id",
        "client_secret": "s",
        "cache_filepath": cache,
    }
    for _ in range(2):
        CartoAuth.from_m2m(**options, services=services)
    assert [parse_qs(request.text)["audience"] for request in asked.request_history] == [["another-api"]] * 2
    CartoAuth.from_m2m(**options, services=Services())  # a token is for one audience
    assert parse_qs(asked.last_request.text)["audience"] == ["carto-cloud-native-api"]
    assert "scope" not in parse_qs(urlsplit(CartoPKCE(services=Services()).get_authorize_url()).query)


@pytest.mark.parametrize("name", ["auth_url", "accounts_url", "app_url", "bigquery_url"])
@pytest.mark.parametrize("address", ["http://192.0.2.7", "https://u:p@x.carto.com", "https://x?y", "bigquery"])
def test_all_addresses_have_one_judge(name, address):
    with pytest.raises(UntrustedAddress, match=rf"^The address in Services\({name}=\) "):
        Services(**{name: address})


@pytest.mark.parametrize("wrong", [{"auth_url": 5}, {"client_id": None}, {"scope": ["offline_access"]}])
def test_what_is_no_text(wrong):
    with pytest.raises(TypeError, match=rf"^Services\({next(iter(wrong))}=\) must be text"):
        Services(**wrong)


def test_constructors_send_no_request(requests_mock):
    CartoAuth("m2m", "https://x.carto.com", client_id="an-id", client_secret="a-secret")
    CartoAuth("oauth", org="acme")
    CartoAuth("oauth", "https://x.carto.com", "token", 1)
    CartoPKCE(org="acme")
    CartoPKCE(open_browser=False, org="acme", services=SELF_HOSTED)
    assert requests_mock.call_count == 0
