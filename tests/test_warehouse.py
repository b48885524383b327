"""The warehouse's project and token. The BigQuery client is in test_sandbox_bigquery.py."""

import time

import pytest

from carto_auth import CartoAuth, CredentialsError
from carto_auth.errors import (
    InvalidAnswer,
    InvalidCredential,
    ServerError,
    ServiceUnavailable,
    Unauthorized,
    UntrustedAddress,
    WarehouseUnavailable,
)
from carto_auth.warehouse import WAREHOUSE_TOKEN_SECONDS, WarehouseToken, api_headers, get_warehouse_token

BASE = "https://gcp-us-east1.api.carto.com"
URL = f"{BASE}/v3/connections/carto-dw/token"
GOOD = {"projectId": "carto-dw-ac-1a2b", "token": "ya29.c.abc"}


def test_a_warehouse_token(requests_mock, monkeypatch):
    requests_mock.get(URL, json=GOOD)
    monkeypatch.setattr(time, "time", lambda: 1000.0)
    token = get_warehouse_token(f" {BASE}/ ", "a-token")
    assert token == ("carto-dw-ac-1a2b", "ya29.c.abc", 1000.0 + WAREHOUSE_TOKEN_SECONDS)
    assert requests_mock.last_request.headers["Authorization"] == "Bearer a-token"


@pytest.mark.parametrize("base", ["https://carto.example.com/api", "https://carto.example.com/api//"])
def test_a_base_url_with_a_path(base, requests_mock):
    requests_mock.get("https://carto.example.com/api/v3/connections/carto-dw/token", json=GOOD)
    assert get_warehouse_token(base, "a-token").token == "ya29.c.abc"


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({}, "CARTO's answer about the data warehouse has no projectId and no token."),
        ({"projectId": "p"}, "CARTO's answer about the data warehouse has no token."),
        ({"token": "t"}, "CARTO's answer about the data warehouse has no projectId."),
        (GOOD | {"token": None}, "CARTO's answer about the data warehouse has no token."),
        (GOOD | {"token": 7}, "CARTO's answer about the data warehouse makes no sense."),
        (GOOD | {"token": "a\r\nb"}, "CARTO's answer about the data warehouse makes no sense."),
        (GOOD | {"token": "a b"}, "CARTO's answer about the data warehouse makes no sense."),
        (GOOD | {"projectId": ["p"]}, "CARTO's answer about the data warehouse makes no sense."),
        (GOOD | {"projectId": "p/../q"}, "CARTO's answer about the data warehouse makes no sense."),
        (GOOD | {"projectId": "p\n"}, "CARTO's answer about the data warehouse makes no sense."),
    ],
)
def test_answers_that_make_no_sense(answer, message, requests_mock):
    requests_mock.get(URL, json=answer)
    with pytest.raises(InvalidAnswer) as caught:
        get_warehouse_token(BASE, "a-token")
    assert (caught.value.message, caught.value.status) == (message, 200)
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ({"status_code": 401, "json": {"error": "expired"}}, Unauthorized),
        ({"status_code": 403, "json": {"error": ["no", "way"]}}, WarehouseUnavailable),
        ({"status_code": 404, "json": {"error": "Connection not found", "status": 404}}, WarehouseUnavailable),
        ({"status_code": 400, "json": {"error": "x"}}, ServerError),
        ({"status_code": 500, "text": "<html>"}, ServiceUnavailable),
        ({"text": "<html>"}, InvalidAnswer),
        ({"json": {"error": "inside", "projectId": "p", "token": "t"}}, ServerError),
    ],
)
def test_refusals(answer, kind, requests_mock):
    requests_mock.get(URL, **answer)
    with pytest.raises(CredentialsError) as caught:
        get_warehouse_token(BASE, "a-token")
    assert isinstance(caught.value, kind)
    assert caught.value.message.startswith("CARTO handed out no warehouse token: gcp-us-east1.api.carto.com ")
    assert caught.value.status == answer.get("status_code", 200)
    assert caught.value.__context__ is None


@pytest.mark.parametrize("base", ["http://gcp-us-east1.api.carto.com", "https://u:p@x.carto.com", "x", "https://x?y"])
def test_no_token_to_a_stranger(base, requests_mock):
    with pytest.raises(UntrustedAddress):
        get_warehouse_token(base, "a-token")
    assert requests_mock.call_count == 0


def test_no_token_that_cannot_be_sent(requests_mock):
    with pytest.raises(InvalidCredential):
        get_warehouse_token(BASE, "a\r\nX: y")
    assert requests_mock.call_count == 0


def test_without_a_base_url():
    with pytest.raises(CredentialsError, match="cannot be reached without an API base URL"):
        CartoAuth("oauth", access_token="a", expiration=4155310800).get_carto_dw_credentials()


def test_repr_does_not_show_the_token():
    assert repr(WarehouseToken("p", "s3cr3t", 12.0)) == "WarehouseToken('p', '***', 12)"


def test_api_headers():
    assert api_headers("a") == {"Content-Type": "application/json", "Authorization": "Bearer a"}
