"""Other libraries beside this one: the programs of the page on them, and those that get between it and the network."""

import re
from pathlib import Path

import pytest
import requests_cache
import responses
import vcr
from google.cloud import bigquery_storage

from carto_auth import CartoAuth

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "libraries.md").read_text()
PROGRAMS = re.findall(r"(?ms)^```python\n(.*?)^```", PAGE)


@pytest.mark.filterwarnings("ignore")  # the libraries' own
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.splitlines()[0])
def test_a_program_with_another_library(program, carto, tmp_path, monkeypatch):
    carto.credentials_file(tmp_path)
    monkeypatch.chdir(tmp_path)
    before = carto.count("/oauth/token")
    exec(compile(program, "libraries.md", "exec"), {"__name__": "__main__"})
    assert carto.count("/oauth/token") - before == 1


def test_under_requests_cache(carto, monkeypatch):
    """Installed for the whole process: each account has its own token all the same."""
    with requests_cache.enabled(backend="memory", allowable_methods=("GET", "POST"), match_headers=False):
        first = CartoAuth.from_m2m(use_cache=False)
        monkeypatch.setenv("CARTO_CLIENT_ID", "another")
        monkeypatch.setenv("CARTO_CLIENT_SECRET", carto.add_application("another")[1])
        second = CartoAuth.from_m2m(use_cache=False)
        assert first.get_access_token() != second.get_access_token()
        assert first.get_carto_dw_credentials() != second.get_carto_dw_credentials()
        assert len(requests_cache.get_cache().responses) == 0


def test_under_responses(carto):
    with responses.RequestsMock() as mock:
        mock.post(carto.services.token_url, json={"access_token": "mocked", "expires_in": 60})
        assert CartoAuth.from_m2m().get_access_token() == "mocked"


def test_under_a_cassette(carto, tmp_path):
    tokens = set()
    for played in (0, 1):
        with vcr.use_cassette(str(tmp_path / "cassette.yaml"), ignore_localhost=False) as cassette:
            tokens.add(CartoAuth.from_m2m(use_cache=False).get_access_token())
        assert cassette.play_count == played
    assert (len(tokens), carto.count("/oauth/token")) == (1, 1)


QUERY = "SELECT name FROM `carto-demo-data.demo_tables.world_cities`"


@pytest.mark.parametrize("how", ["environment", "services"])
def test_googles_storage_api_is_not_asked_for_what_is_elsewhere(how, carto, monkeypatch):
    """It would send the warehouse's token to Google."""
    monkeypatch.setattr(bigquery_storage, "BigQueryReadClient", None)
    if how == "services":
        monkeypatch.delenv("BIGQUERY_EMULATOR_HOST")
    with CartoAuth.from_m2m(services=carto.services if how == "services" else None).get_carto_dw_client() as client:
        rows = client.list_rows("carto-demo-data.demo_tables.world_cities")
        assert rows.to_arrow().num_rows == client.query(QUERY).to_arrow().num_rows == 20
