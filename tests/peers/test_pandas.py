"""pandas on the warehouse's client: to_dataframe, load_table_from_dataframe, and a query with parameters."""

import pandas as pd
import pytest
from google.cloud import bigquery

from carto_auth import CartoAuth

#: Google's own: what its client says about itself and about pandas.
pytestmark = pytest.mark.filterwarnings(
    "ignore::FutureWarning", "ignore::PendingDeprecationWarning", "ignore::DeprecationWarning", "ignore::UserWarning"
)

TABLE = "carto-dw-ac-sandbox.shared.shops"

SHOPS = pd.DataFrame(
    {"name": ["Triana", "Gràcia", "Soho"], "country": ["Spain", "Spain", "UK"], "revenue": [1.5, 2.25, None]}
)


@pytest.fixture
def client(carto):
    with CartoAuth.from_m2m().get_carto_dw_client() as running:
        yield running


def test_to_dataframe(client):
    sql = "SELECT name, population FROM `carto-demo-data.demo_tables.world_cities` ORDER BY population DESC LIMIT 2"
    frame = client.query(sql).to_dataframe(create_bqstorage_client=False)
    expected = pd.DataFrame({"name": ["Shanghai", "Delhi"], "population": pd.array([24870000, 16790000], "Int64")})
    assert frame.to_dict() == expected.to_dict()


def test_a_data_frame_there_and_back(client):
    job = client.load_table_from_dataframe(SHOPS, TABLE)
    job.result()
    assert job.output_rows == 3
    frame = client.query(f"SELECT * FROM {TABLE} ORDER BY name").to_dataframe(create_bqstorage_client=False)
    pd.testing.assert_frame_equal(frame, SHOPS.sort_values("name", ignore_index=True), check_dtype=False)
    listed = client.list_rows(client.get_table(TABLE)).to_dataframe(create_bqstorage_client=False)
    assert len(listed) == 3


def test_a_parameterised_query_on_a_loaded_frame(client):
    client.load_table_from_dataframe(SHOPS, TABLE).result()
    config = bigquery.QueryJobConfig(
        query_parameters=[
            bigquery.ScalarQueryParameter("country", "STRING", "Spain"),
            bigquery.ArrayQueryParameter("names", "STRING", ["Triana", "Soho"]),
        ]
    )
    sql = f"SELECT name FROM {TABLE} WHERE country = @country AND name IN UNNEST(@names)"
    assert client.query(sql, job_config=config).to_dataframe(create_bqstorage_client=False)["name"].tolist() == [
        "Triana"
    ]


def test_loads_go_on_over_revoked_tokens(carto, client):
    carto.revoke_access_tokens()
    for number in range(3):
        carto.revoke_warehouse_tokens()
        client.load_table_from_dataframe(SHOPS, f"{TABLE}_{number}").result()
    statuses = [request.status for request in carto.requests if request.path == "/v3/connections/carto-dw/token"]
    assert statuses == [200, 401, 200, 200, 200]
    assert carto.count("/oauth/token") == 2
