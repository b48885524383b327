"""An ETL job: read a table, write another one in the CARTO Data Warehouse, and read it back.

It logs in as an M2M application, whose credentials come from the environment (CARTO_CLIENT_ID,
CARTO_CLIENT_SECRET, CARTO_API_BASE_URL) or from the file that CARTO_CREDENTIALS_FILE names. The client renews
its own token, so the job may take longer than an hour. The table of cities is the sandbox's (``carto-auth sandbox``):
name your own.

    pip install '.[carto-dw]'
    python examples/etl.py
"""

from google.cloud import bigquery

from carto_auth import CartoAuth

CITIES = "carto-demo-data.demo_tables.world_cities"
TABLE = "shared.people_in_large_cities"


def transform(client: bigquery.Client, at_least: int) -> None:
    """Write the table: how many people live in each country's cities with ``at_least`` so many people."""
    sql = f"""
        CREATE OR REPLACE TABLE {TABLE} AS
        SELECT country, COUNT(*) AS cities, SUM(population) AS people
        FROM `{CITIES}`
        WHERE population >= {at_least}
        GROUP BY country
    """
    client.query(sql).result()


def report(client: bigquery.Client, countries: list[str]) -> None:
    """Print the rows for some countries, which are a parameter of the query."""
    sql = f"SELECT * FROM {TABLE} WHERE country IN UNNEST(@countries) ORDER BY people DESC"
    parameters = [bigquery.ArrayQueryParameter("countries", "STRING", countries)]
    for row in client.query(sql, job_config=bigquery.QueryJobConfig(query_parameters=parameters)).result():
        print(f"{row['country']:<16}{row['cities']:>3} cities{row['people']:>12,} people")


def main() -> None:
    with CartoAuth.from_m2m().get_carto_dw_client() as client:
        transform(client, at_least=3_000_000)
        report(client, ["United States", "Spain", "Japan", "Kenya"])


if __name__ == "__main__":
    main()
