"""A small ETL job: the population of the cities of a country, from the sandbox's table of cities."""

from google.cloud.bigquery import QueryJobConfig, ScalarQueryParameter

from carto_auth import CartoAuth

QUERY = """
SELECT IFNULL(SUM(population), 0) AS total
FROM `carto-demo-data.demo_tables.world_cities`
WHERE country = @country
"""


def population(country: str) -> int:
    """How many people live in the cities of ``country``."""
    client = CartoAuth.from_m2m().get_carto_dw_client()
    parameters = [ScalarQueryParameter("country", "STRING", country)]
    rows = client.query(QUERY, job_config=QueryJobConfig(query_parameters=parameters)).result()
    total = next(iter(rows))["total"]
    client.close()
    return total


if __name__ == "__main__":
    print(population("Spain"))
