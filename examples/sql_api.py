"""CARTO's SQL API with plain requests: the ``CartoAuth`` is the ``auth=``, and the rest is up to you.

It adds the token to requests to the API and to no others, and renews the token when the API refuses it.
The table of cities is the sandbox's (``carto-auth sandbox``): name your own.

    pip install .
    python examples/sql_api.py
"""

import requests

from carto_auth import CartoAuth

SQL = """
    SELECT name, country, population
    FROM `carto-demo-data.demo_tables.world_cities`
    ORDER BY population DESC
    LIMIT 3
"""


def main() -> None:
    carto_auth = CartoAuth.default()  # credentials from the environment or a file, or your login
    with requests.Session() as session:
        session.auth = carto_auth
        answer = session.get(
            f"{carto_auth.get_api_base_url()}/v3/sql/carto_dw/query",
            params={"q": SQL},
            timeout=60,
        )
    answer.raise_for_status()
    for row in answer.json()["rows"]:
        print(f"{row['name']:<12}{row['country']:<12}{row['population']:>12,}")


if __name__ == "__main__":
    main()
