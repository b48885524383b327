"""The sandbox's Tokens API and SQL API, as an outsider sees them: grants, APIs, sites and ends are enforced."""

from __future__ import annotations

import time

import pytest
import requests
from clocks import StoppedClock

from carto_auth._services import AUDIENCE
from carto_auth.sandbox import CartoSandbox, walk_login

CITIES = "carto-demo-data.demo_tables.world_cities"
GRANT = {"connection_name": "carto_dw", "source": CITIES}
COUNT = f"SELECT COUNT(*) AS n FROM `{CITIES}`"


class Account:
    """An account, by its OAuth token."""

    def __init__(self, sandbox, token):
        self.sandbox, self.token = sandbox, token

    def __call__(self, method, path="", token=None, **options):
        headers = {"Authorization": f"Bearer {token or self.token}"}
        return requests.request(method, f"{self.sandbox.url}/v3/tokens{path}", headers=headers, timeout=30, **options)

    def make(self, **body):
        answer = self("POST", json={"grants": [GRANT], **body})
        assert answer.status_code == 200, answer.text
        return answer.json()["token"]

    def query(self, sql=COUNT, token=None, connection="carto_dw", **headers):
        headers = {"Authorization": f"Bearer {token or self.token}", **headers}
        url = f"{self.sandbox.url}/v3/sql/{connection}/query"
        return requests.get(url, params={"q": sql}, headers=headers, timeout=30)


@pytest.fixture(scope="module")
def running():
    with CartoSandbox(clock=StoppedClock()) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(running):
    """The module's sandbox, its switches as they were and without API access tokens."""
    yield running
    running.token_quota, running.may_make_tokens = None, True
    running.delete_api_tokens()


@pytest.fixture
def application(sandbox):
    form = {
        "grant_type": "client_credentials",
        "client_id": sandbox.client_id,
        "client_secret": sandbox.client_secret,
        "audience": AUDIENCE,
    }
    return Account(sandbox, requests.post(sandbox.services.token_url, data=form, timeout=30).json()["access_token"])


# -- the Tokens API


def test_a_token_is_made_read_listed_changed_and_deleted(application):
    body = {"grants": [GRANT], "allowed_apis": ["sql"], "referers": ["https://a.example"], "name": "cities"}
    made = application("POST", json=body)
    token = made.json()["token"]
    assert made.json() == {"token": token, **body}
    assert application("GET", f"/{token}").json() == made.json()
    assert application("GET").json() == [made.json()]
    changed = application("PATCH", f"/{token}", json={"allowed_apis": ["maps"], "referers": []})
    assert changed.json() == {**made.json(), "allowed_apis": ["maps"], "referers": []}
    assert application("GET", f"/{token}").json() == changed.json()
    assert application("DELETE", f"/{token}").status_code == 204
    assert [application(method, f"/{token}").status_code for method in ("GET", "DELETE")] == [404, 404]
    assert application.query(token=token).status_code == 401
    assert application("GET").json() == []


def test_the_end_can_only_be_set_when_a_token_is_made(application):
    token = application.make(expiration_date="2100-01-01T00:00:00Z")
    assert application("GET", f"/{token}").json()["expiration_date"] == "2100-01-01T00:00:00+00:00"
    answer = application("PATCH", f"/{token}", json={"expiration_date": "2200-01-01T00:00:00Z"})
    assert (answer.status_code, answer.json()["error"]) == (400, "expiration_date can only be set at creation")


@pytest.mark.parametrize(
    "body",
    [
        [],
        {"grants": []},
        {"grants": ["carto_dw"]},
        {"grants": [{"connection_name": "", "source": "a"}]},
        *({"grants": [{"connection_name": "carto_dw", "source": source}]} for source in ("*", "a*", "a.*")),
        {"grants": [GRANT], "allowed_apis": "sql"},
        {"grants": [GRANT], "allowed_apis": ["imports", "sql"]},
        {"grants": [GRANT], "expiration_date": "soon"},
        {"grants": [GRANT], "expiration_date": "2001-01-01T00:00:00Z"},
    ],
)
def test_a_body_that_makes_no_sense(body, application):
    answer = application("POST", json=body)
    assert (answer.status_code, answer.json()["status"]) == (400, 400)


def test_only_an_oauth_token_opens_it(application):
    token = application.make()
    answers = [application("POST", token=token, json={"grants": [GRANT]}), application("GET", token=token)]
    answers += [application(method, f"/{token}", token=token) for method in ("GET", "PATCH", "DELETE")]
    answers += [application("GET", token="nonsense")]
    assert {(answer.status_code, answer.json()["error"]) for answer in answers} == {(401, "Unauthorized")}


def test_accounts_do_not_see_each_others_tokens(sandbox, application):
    from carto_auth import CartoAuth

    pending = CartoAuth.begin_oauth(services=sandbox.services)
    person = Account(sandbox, pending.finish(walk_login(pending.url)).get_access_token())
    token = application.make()
    assert person("GET").json() == []
    assert [person(method, f"/{token}", json={}).status_code for method in ("GET", "PATCH", "DELETE")] == [404] * 3
    assert application("GET", f"/{token}").status_code == 200


def test_the_quota(sandbox, application):
    sandbox.token_quota = 2
    first, _ = application.make(), application.make()
    refused = application("POST", json={"grants": [GRANT]})
    assert (refused.status_code, refused.json()["error"]) == (429, "The quota of API access tokens is used up")
    application("DELETE", f"/{first}")
    application.make()


def test_an_account_that_may_not(sandbox, application):
    token = application.make()
    sandbox.may_make_tokens = False
    answers = [application("POST", json={"grants": [GRANT]}), application("GET"), application("DELETE", f"/{token}")]
    assert [answer.status_code for answer in answers] == [403] * 3
    assert application.query(token=token).status_code == 200


def test_requests_are_remembered_without_the_token(sandbox, application):
    token = application.make()
    for path in (f"/{token}", f"/{token}/more"):
        application("GET", path)
    assert token not in repr(sandbox.requests)
    assert sandbox.count("/v3/tokens/***") >= 2
    assert token not in application("PUT", f"/{token}").text


# -- the SQL API


def test_an_oauth_token_reads_everything(application):
    answer = application.query(f"SELECT name, population FROM `{CITIES}` ORDER BY population DESC LIMIT 1")
    assert answer.json() == {
        "rows": [{"name": "Shanghai", "population": 24870000}],
        "schema": [{"name": "name", "type": "string"}, {"name": "population", "type": "integer"}],
    }


@pytest.mark.parametrize("content", [{"json": {"q": COUNT}}, {"data": {"q": COUNT}}, {"params": {"q": COUNT}}])
def test_a_query_can_be_posted(content, sandbox, application):
    headers = {"Authorization": f"Bearer {application.token}"}
    answer = requests.post(f"{sandbox.url}/v3/sql/carto_dw/query", headers=headers, timeout=30, **content)
    assert answer.json()["rows"] == [{"n": 20}]


def test_values_come_as_json_has_them(application):
    sql = (
        "SELECT DATE '2024-02-29' AS d, TIMESTAMP '2024-01-01 00:00:00+00' AS t, NUMERIC '1.5' AS n, b'ab' AS b, "
        "[1, 2] AS a, STRUCT('x' AS k) AS s, CAST('nan' AS FLOAT64) AS f, NULL AS z, ST_GEOGPOINT(1, 2) AS g"
    )
    [row] = application.query(sql).json()["rows"]
    assert list(row.items()) == [
        ("d", "2024-02-29"),
        ("t", "2024-01-01T00:00:00"),
        ("n", "1.500000000"),
        ("b", "YWI="),
        ("a", [1, 2]),
        ("s", {"k": "x"}),
        ("f", None),
        ("z", None),
        ("g", "POINT(1 2)"),
    ]


def test_what_is_wrong_with_a_query_is_told(application):
    for sql, status in (("", 400), ("SELEC 1", 400), ("SELECT * FROM `carto-demo-data.demo_tables.none`", 404)):
        answer = application.query(sql)
        assert (answer.status_code, answer.json()["status"]) == (status, status)
    assert application.query(token="nonsense").status_code == 401
    assert application.query(connection="other").status_code == 404


# -- what an API access token reads

ALLOWED = [
    (CITIES, COUNT),
    (f"`{CITIES}`", COUNT),
    ("`carto-demo-data`.demo_tables.world_cities", COUNT),
    ("carto-demo-data.demo_tables.*", COUNT),
    ("carto-demo-data.demo_tables.world_*", COUNT),
    ("", COUNT),  # all of the connection
    (CITIES, f"WITH c AS (SELECT * FROM `{CITIES}`) SELECT COUNT(*) FROM c AS x JOIN c USING (name)"),
    (COUNT, COUNT),
    (COUNT, f"  {COUNT.replace(' ', '  ')} ;\n"),
    ("SELECT\n*\nFROM\nUNNEST([1])", "SELECT * FROM UNNEST([1])"),
    (CITIES, "SELECT 1"),
]


@pytest.mark.parametrize(("source", "sql"), ALLOWED)
def test_it_reads_its_grants(source, sql, application):
    token = application.make(grants=[{"connection_name": "carto_dw", "source": source}])
    answer = application.query(sql, token)
    assert answer.status_code == 200, answer.text


DENIED = [
    ("carto-demo-data.demo_tables.world", COUNT),
    ("carto-demo-data.demo_tables.world_citie?", COUNT),
    ("carto-demo-data.other.*", COUNT),
    ("carto-demo-dataxdemo_tables.world_cities", COUNT),
    ("demo_tables.world_cities", COUNT),  # that would be the warehouse's own project
    (f"SELECT name FROM `{CITIES}`", COUNT),
    (f"SELECT * FROM `{CITIES}`", f"SELECT population FROM `{CITIES}`"),  # the * of SQL is no wildcard
    (CITIES, f"SELECT (SELECT COUNT(*) FROM shared.other) FROM `{CITIES}`"),
    (CITIES, f"SELECT * FROM `{CITIES}` UNION ALL SELECT * FROM shared.other"),
    (CITIES, f"WITH world_cities AS (SELECT * FROM shared.other) SELECT * FROM `{CITIES}`, world_cities"),
    (CITIES, f"SELECT * FROM `{CITIES}`, read_csv('/etc/passwd')"),
    ("", "CREATE TABLE shared.x AS SELECT 1 AS a"),
    ("", f"DELETE FROM `{CITIES}` WHERE TRUE"),
]


@pytest.mark.parametrize(("source", "sql"), DENIED)
def test_it_reads_nothing_else(source, sql, application):
    token = application.make(grants=[{"connection_name": "carto_dw", "source": source}])
    answer = application.query(sql, token)
    assert (answer.status_code, "rows" in answer.json()) == (403, False), answer.text


def test_a_grant_is_for_its_connection(application):
    token = application.make(grants=[{"connection_name": "other"}])
    assert [application.query(sql, token).status_code for sql in (COUNT, "SELECT 1")] == [403, 403]
    assert application.query("SELECT 1", token, connection="other").status_code == 404


def test_it_works_with_its_apis(application):
    assert application.query(token=application.make(allowed_apis=["sql", "maps"])).status_code == 200
    refused = application.query(token=application.make(allowed_apis=["maps"]))
    assert (refused.status_code, "not for the SQL API" in refused.json()["error"]) == (403, True)


def test_it_works_from_its_sites(application):
    """A referer is an origin, compared exactly: with a slash at its end the token is made, and fits no page."""
    token = application.make(referers=["https://a.example", "https://b.example", "https://c.example/", "d.example"])
    for referer, status in {
        "https://a.example/page?x=1": 200,
        "https://b.example/": 200,
        "https://c.example/": 403,
        "https://d.example/": 403,
        "http://a.example/": 403,
        "https://a.example.evil.org/": 403,
        "https://evil.org/https://a.example": 403,
    }.items():
        assert application.query(token=token, Referer=referer).status_code == status, referer
    assert application.query(token=token).json()["error"] == "Unauthorized referer"
    assert application.query(token=application.make(), Referer="https://anywhere.example").status_code == 200


def test_it_ends(sandbox, application):
    later = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(sandbox.clock() + 3600))
    token = application.make(expiration_date=later)
    assert application.query(token=token).status_code == 200
    sandbox.clock.now += 3601
    assert application.query(token=token).status_code == 401
    assert application("GET", f"/{token}").status_code == 404


def test_it_opens_nothing_but_the_sql_api(sandbox, application):
    headers = {"Authorization": f"Bearer {application.make()}"}
    for path in ("/accounts", "/v3/connections/carto-dw/token", "/bigquery/v2/projects/carto-dw-ac-sandbox/datasets"):
        assert requests.get(f"{sandbox.url}{path}", headers=headers, timeout=30).status_code == 401, path
