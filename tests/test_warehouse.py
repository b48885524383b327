"""The warehouse's project and token. The BigQuery client is in test_bigquery_client.py."""

import pickle
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
from carto_auth.utils import api_headers

BASE = "https://gcp-us-east1.api.carto.com"
PATH = "/v3/connections/carto-dw/token"
URL = f"{BASE}{PATH}"
GOOD = {"projectId": "carto-dw-ac-1a2b", "token": "ya29.c.abc"}


def account(base=BASE, token="a-token"):
    return CartoAuth("oauth", base, token, 4_155_310_800, interactive=False)


@pytest.mark.parametrize(
    ("base", "asked"),
    [
        (f" {BASE}/ ", URL),
        ("https://carto.example.com/api", f"https://carto.example.com/api{PATH}"),
        ("https://carto.example.com/api//", f"https://carto.example.com/api{PATH}"),
    ],
)
def test_the_project_and_the_token(base, asked, requests_mock):
    requests_mock.get(asked, json=GOOD)
    credentials = account(base).get_carto_dw_credentials()
    assert (type(credentials), credentials) == (tuple, ("carto-dw-ac-1a2b", "ya29.c.abc"))
    assert requests_mock.last_request.headers["Authorization"] == "Bearer a-token"


def test_a_token_is_handed_out_for_25_minutes_and_does_not_travel(requests_mock, monkeypatch):
    requests_mock.get(URL, [{"json": GOOD | {"token": f"ya29.{n}"}} for n in range(3)])
    auth = account()
    began = time.time()
    for minutes, token in ((0, "ya29.0"), (24, "ya29.0"), (26, "ya29.1"), (50, "ya29.1")):
        monkeypatch.setattr(time, "time", lambda minutes=minutes: began + 60 * minutes)
        assert auth.get_carto_dw_credentials()[1] == token
    pickled = pickle.dumps(auth)
    assert b"ya29" not in pickled
    assert pickle.loads(pickled).get_carto_dw_credentials()[1] == "ya29.2"


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"projectId": "p"},
        {"token": "t"},
        *(GOOD | {"token": token} for token in (None, 7, "a\r\nb")),
        *(GOOD | {"projectId": project} for project in (["p"], "p/../q", "p\n", "..", ".", "p?q", "p#", "P")),
        *(GOOD | {"projectId": project} for project in ("..:p", "a.b:..", "1", "a" * 64, " p")),
    ],
)
def test_answers_that_make_no_sense(answer, requests_mock):
    requests_mock.get(URL, json=answer)
    with pytest.raises(InvalidAnswer) as caught:
        account().get_carto_dw_credentials()
    assert caught.value.message == "CARTO's answer about the data warehouse has no usable projectId and token."
    assert caught.value.status == 200
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
    with pytest.raises(kind) as caught:
        account().get_carto_dw_credentials()
    assert caught.value.message.startswith("CARTO handed out no warehouse token: gcp-us-east1.api.carto.com ")
    assert caught.value.status == answer.get("status_code", 200)
    assert "a-token" not in str(caught.value)


@pytest.mark.parametrize(
    ("base", "token", "error", "message"),
    [
        ("http://gcp-us-east1.api.carto.com", "a-token", UntrustedAddress, "unencrypted"),
        ("https://u:p@x.carto.com", "a-token", UntrustedAddress, None),
        ("x", "a-token", UntrustedAddress, None),
        ("https://x?y", "a-token", UntrustedAddress, None),
        (None, "a-token", CredentialsError, "There is no API base URL, and the CARTO Data Warehouse needs one"),
        (BASE, "a\r\nX: y", InvalidCredential, None),
    ],
)
def test_what_is_wrong_is_told_before_any_request(base, token, error, message, requests_mock):
    with pytest.raises(error, match=message):
        account(base, token).get_carto_dw_credentials()
    assert requests_mock.call_count == 0


@pytest.mark.parametrize("project", ["p", "carto-dw-ac-1a2b", "example.com:carto-dw-1"])
def test_ids_of_projects(project, requests_mock):
    requests_mock.get(URL, json=GOOD | {"projectId": project})
    assert account().get_carto_dw_credentials()[0] == project


def test_api_headers():
    assert api_headers("a") == {"Content-Type": "application/json", "Authorization": "Bearer a"}
