"""Libraries that get between this one, or Google's client, and the network."""

import pytest
import requests_cache
import responses
import vcr
from google.cloud import bigquery_storage

from carto_auth import CartoAuth


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

#: The ways to get all rows: how many they are.
WAYS = {
    "to_arrow": lambda rows: rows.to_arrow(create_bqstorage_client=True).num_rows,
    "to_arrow_iterable": lambda rows: sum(batch.num_rows for batch in rows.to_arrow_iterable()),
    "to_dataframe": lambda rows: len(rows.to_dataframe(create_bqstorage_client=True)),
    "to_dataframe_iterable": lambda rows: sum(map(len, rows.to_dataframe_iterable())),
}


@pytest.mark.filterwarnings("ignore:.*pandas_gbq:PendingDeprecationWarning")  # Google's, of to_dataframe
@pytest.mark.parametrize("how", ["environment", "services"])
@pytest.mark.parametrize("way", WAYS)
def test_googles_storage_api_is_not_asked_for_what_is_elsewhere(way, how, carto, monkeypatch):
    """It would send the warehouse's token to Google."""
    monkeypatch.setattr(bigquery_storage, "BigQueryReadClient", None)
    services = carto.services if how == "services" else None
    if how == "services":
        monkeypatch.delenv("BIGQUERY_EMULATOR_HOST")
    with CartoAuth.from_m2m(services=services).get_carto_dw_client() as client:
        for rows in (client.list_rows("carto-demo-data.demo_tables.world_cities"), client.query(QUERY).result()):
            assert WAYS[way](rows) == 20
