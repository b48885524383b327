"""The client credentials grant."""

import socket
import time

import pytest
from servers import Server, answering, http

from carto_auth import CartoAuth
from carto_auth._http import sending
from carto_auth._services import Services
from carto_auth.errors import InvalidAnswer, MissingCredential, RateLimited, ServiceUnreachable, Unauthorized
from carto_auth.m2m import get_m2m_token_info

TOKEN_URL = "https://auth.carto.com/oauth/token"


def at(server):
    return Services(auth_url=server.url)


def test_the_request_and_its_answer(requests_mock, monkeypatch):
    requests_mock.post(TOKEN_URL, json={"access_token": "fresh", "token_type": "Bearer", "expires_in": 86400})
    monkeypatch.setattr(time, "time", lambda: 1_800_000_000.9)
    assert get_m2m_token_info("an id&", "a secret=") == {
        "access_token": "fresh",
        "expiration": 1_800_086_400,
        "issued_at": 1_800_000_000,
    }
    assert requests_mock.last_request.text == (
        "grant_type=client_credentials&client_id=an+id%26&client_secret=a+secret%3D&audience=carto-cloud-native-api"
    )


@pytest.mark.parametrize(
    ("client_id", "client_secret", "missing"),
    [
        (None, None, "client_id and client_secret"),
        ("", "a-secret", "client_id"),
        ("an-id", None, "client_secret"),
    ],
)
def test_missing_credentials(client_id, client_secret, missing, requests_mock):
    with pytest.raises(MissingCredential) as caught:
        get_m2m_token_info(client_id, client_secret)
    assert str(caught.value) == (
        f"An M2M token cannot be had without {missing}. Use CartoAuth.from_m2m() with a credentials file, or with "
        "client_id= and client_secret=."
    )
    assert requests_mock.call_count == 0


@pytest.mark.parametrize("status", [401, 403])
def test_a_wrong_secret_is_asked_once(status):
    refusal = http({"error": "access_denied", "error_description": "Unauthorized"}, status=status)
    with Server(answering(refusal)) as server:
        with pytest.raises(Unauthorized) as caught:
            get_m2m_token_info("an-id", "a-secret", services=at(server))
        assert len(server.requests) == 1
    assert str(caught.value) == (
        f"CARTO handed out no token: 127.0.0.1:{server.port} answered {status} (Unauthorized). Check client_id and "
        "client_secret. You will find them on the Developers page of the CARTO Workspace, under Machine to Machine."
    )


def test_a_quota_says_when_it_is_renewed():
    limit = http(
        {"error": "too_many_requests", "error_description": "Quota"},
        status=429,
        Retry_After="1800",
        Auth0_Client_Quota_Limit="b=per_hour;q=10;r=0;t=1800",
    )
    with Server(answering(limit)) as server:
        with pytest.raises(RateLimited, match=r"answered 429 \(Quota\)\. Try again in 1800 s\.$") as caught:
            get_m2m_token_info("an-id", "a-secret", services=at(server))
        assert len(server.requests) == 1
    assert caught.value.retry_after == 1800


@pytest.mark.parametrize("token", ["a\r\nSet-Cookie: b=c", "two words", "", None])
def test_a_token_that_cannot_be_sent_on(token, requests_mock):
    requests_mock.post(TOKEN_URL, json={"access_token": token, "expires_in": 60})
    with pytest.raises(InvalidAnswer, match="no usable access token"):
        get_m2m_token_info("an-id", "a-secret")


def test_how_much_is_asked(requests_mock, tmp_path):
    api = "https://gcp-us-east1.api.carto.com"
    requests_mock.post(TOKEN_URL, json={"access_token": "fresh", "expires_in": 86400})
    requests_mock.get(f"{api}/v3/connections/carto-dw/token", json={"projectId": "a-project", "token": "a-token"})
    options = {"client_id": "an-id", "client_secret": "a-secret", "cache_filepath": tmp_path / "c.json"}
    auth = CartoAuth.from_m2m(api_base_url=api, **options)
    assert requests_mock.call_count == 1
    auth.get_carto_dw_credentials()
    auth.get_carto_dw_credentials()
    assert requests_mock.call_count == 2
    assert CartoAuth.from_m2m(api_base_url=api, **options).get_access_token() == "fresh"
    assert requests_mock.call_count == 2


def test_offline(monkeypatch, tmp_path):
    """No name can be looked up; nothing says so better than the system's own words."""

    def offline(*_, **__):
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", offline)
    monkeypatch.setattr(sending, "BACKOFF_SECONDS", 0.0)
    monkeypatch.setattr(sending, "JITTER_SECONDS", 0.0)
    with pytest.raises(ServiceUnreachable) as caught:
        get_m2m_token_info("an-id", "a-secret")
    assert str(caught.value) == (
        "Cannot reach auth.carto.com (Temporary failure in name resolution). Check the network connection, the "
        "address, and HTTPS_PROXY if you use a proxy. Then try again."
    )
