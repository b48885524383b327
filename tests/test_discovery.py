"""From a token to the API base URL, and from an organization's name to its id."""

import time

import pytest

from carto_auth.discovery import get_api_base_url, get_organization_id
from carto_auth.errors import (
    CredentialsError,
    InvalidAnswer,
    ServerError,
    ServiceUnavailable,
    TenantNotFound,
    Unauthorized,
    UntrustedAddress,
)

ACCOUNTS = "https://accounts.app.carto.com/accounts"
CONFIG = "https://acme.app.carto.com/config.yaml"
TOKEN = "a-token-that-must-not-show"


@pytest.fixture
def carto(requests_mock):
    requests_mock.get(ACCOUNTS, json={"tenant_domain": "acme.app.carto.com"})
    requests_mock.get(CONFIG, text="apis:\n  baseUrl: https://gcp-us-east1.api.carto.com/\ncartoVersion: {}\n")
    return requests_mock


def fails(kind=CredentialsError):
    with pytest.raises(kind) as caught:
        get_api_base_url(TOKEN)
    assert TOKEN not in str(caught.value)
    assert str(caught.value).isprintable()
    return caught.value


def test_the_base_url(carto):
    assert get_api_base_url(TOKEN) == "https://gcp-us-east1.api.carto.com"
    accounts, config = carto.request_history
    assert accounts.headers["Authorization"] == f"Bearer {TOKEN}"
    assert "Authorization" not in config.headers  # the tenant is not known to be a friend yet


# The tables of names and addresses are in test_trust.py; here, that they are asked.
@pytest.mark.parametrize("tenant", ["localhost", "evil.example:443", ["a"], TOKEN, TOKEN * 50, "\x1b\n"])
def test_a_tenant_that_is_no_public_name(tenant, carto):
    carto.get(ACCOUNTS, json={"tenant_domain": tenant})
    fails(UntrustedAddress)
    assert carto.call_count == 1


@pytest.mark.parametrize("base_url", ["https://evil.example", "http://x.carto.com", "[1]", "7", f"https://{TOKEN}.com"])
def test_a_base_url_that_gets_no_token(base_url, carto):
    carto.get(CONFIG, text=f"apis: {{baseUrl: {base_url}}}")
    fails(UntrustedAddress)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"json": {}}, ""),
        ({"json": {"tenant_domain": ""}}, ""),
        ({"json": {"error": "no account"}}, " (no account)"),
        ({"json": {"error": ["no account"]}, "status_code": 404}, " (no account)"),
    ],
)
def test_an_account_without_an_organization(answer, words, carto):
    carto.get(ACCOUNTS, **answer)
    error = fails(TenantNotFound)
    assert error.message == f"The login is good, but this account does not belong to a CARTO organization yet{words}."
    assert "https://app.carto.com/sso/" in error.remedy
    assert error.status == answer.get("status_code", 200)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ({"status_code": 401, "json": {"error": "x"}}, Unauthorized),
        ({"status_code": 404, "text": "<html>"}, ServerError),
        ({"status_code": 503, "json": {"error": "x"}}, ServiceUnavailable),
        ({"json": []}, InvalidAnswer),
    ],
)
def test_an_accounts_service_in_trouble(answer, kind, carto):
    carto.get(ACCOUNTS, **answer)
    assert type(fails(kind)) is not TenantNotFound


def bomb_of_aliases():
    lines = ['a0: &a0 ["x"]', *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9))]
    return "\n".join(lines)


NO_CONFIGURATIONS = {
    "nothing": "",
    "a list": "- apis",
    "no apis": "api: {}",
    "no address": "apis: {}",
    "not YAML": "apis: {baseUrl: [",
    "a Python object": "apis: !!python/object/apply:os.system ['true']",
    "odd values": "apis: {}\nx: !!int ''",
    "odd dates": "apis: {}\nx: 2024-13-45",
    "aliases": f"apis: {{baseUrl: https://x.carto.com}}\n{bomb_of_aliases()}",
    "an alias in itself": "apis: &a\n  baseUrl: *a",
    "deep brackets": f"apis: {{baseUrl: https://x.carto.com}}\nx: {'[' * 1000}{']' * 1000}",
    "brackets without an end": "[" * 120_000,
    "deep questions": "? " * 60_000,
    "many items": f"apis: {{baseUrl: https://x.carto.com}}\nx: [{'1,' * 60_000}]",
    "too long": f"apis: {{baseUrl: https://x.carto.com}}\n# {'x' * 200_000}",
    "a long number": f"apis: {{}}\nx: {'9' * 100_000}",
    "sixties": f"apis: [1]\nx: 1{':59' * 40_000}",
}

NO_ADDRESS = {NO_CONFIGURATIONS[name] for name in ("no apis", "no address", "sixties")}


@pytest.mark.parametrize("configuration", NO_CONFIGURATIONS.values(), ids=NO_CONFIGURATIONS)
def test_configurations_that_are_none(configuration, carto):
    carto.get(CONFIG, text=configuration)
    began = time.process_time()
    error = fails(InvalidAnswer)
    assert time.process_time() - began < 3
    problem = "names no API address" if configuration in NO_ADDRESS else "is not the YAML that was expected"
    assert error.message == f"The configuration of the CARTO organization {problem}."
    assert (error.status, error.__cause__, error.__context__) == (200, None, None)


def test_a_large_and_lively_configuration_is_fine(carto):
    lines = [f'list{i}: ["a&b", {{x: "*y"}}, [[[]]]]\nlink{i}: https://maps.example/?a=1&key=*' for i in range(300)]
    carto.get(CONFIG, text="\n".join(["apis:", "  baseUrl: 'https://x.carto.com'", *lines]))
    assert get_api_base_url(TOKEN) == "https://x.carto.com"


def test_a_captive_portal_in_the_place_of_the_configuration(carto):
    carto.get(CONFIG, text="<!doctype html><title>Sign in to the Wi-Fi</title>")
    assert "want you to sign in first" in fails(InvalidAnswer).remedy


def test_the_id_of_an_organization(requests_mock):
    assert get_organization_id("org_1") == "org_1"
    requests_mock.get(f"{ACCOUNTS}/acme/auth0_org_id", json={"auth0orgId": "org_2"})
    assert get_organization_id("acme") == "org_2"
    assert "Authorization" not in requests_mock.last_request.headers
    requests_mock.get(f"{ACCOUNTS}/..%2F..%2Fme%3Fx%23/auth0_org_id", json={"auth0orgId": "org_3"})
    assert get_organization_id("../../me?x#") == "org_3"


@pytest.mark.parametrize("name", ["..", ".", "\udce9", "org_\udce9", "a\n"])
def test_a_name_that_no_organization_can_have_is_not_asked_for(name, requests_mock):
    assert get_organization_id(name) is None
    assert not requests_mock.called


@pytest.mark.parametrize("identifier", [None, "", 7])
def test_an_organization_without_sso_or_that_does_not_exist(identifier, requests_mock):
    requests_mock.get(f"{ACCOUNTS}/acme/auth0_org_id", json={"auth0orgId": identifier})
    assert get_organization_id("acme") is None


@pytest.mark.parametrize("name", [".", "..", "a\nb", "\udc80"])
def test_what_cannot_be_an_organizations_name_is_not_asked_for(name, requests_mock):
    assert get_organization_id(name) is None
    assert not requests_mock.called
