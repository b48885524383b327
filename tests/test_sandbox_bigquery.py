"""The sandbox's warehouse, through Google's own BigQuery client over real sockets."""

from __future__ import annotations

import datetime
import io
import math
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
import requests
from clocks import StoppedClock
from google.api_core import exceptions
from google.auth import credentials as google_credentials
from google.cloud import bigquery

from carto_auth._services import AUDIENCE
from carto_auth.sandbox import CartoSandbox

if TYPE_CHECKING:
    from collections.abc import Iterator

CITIES = "`carto-demo-data.demo_tables.world_cities`"
UTC = datetime.timezone.utc


class Credentials(google_credentials.Credentials):
    """What CARTO's API gives, fetched again whenever Google's client finds its token refused."""

    def __init__(self, sandbox: CartoSandbox) -> None:
        super().__init__()
        self.sandbox = sandbox
        self.refreshes = 0

    def refresh(self, request: object) -> None:
        self.refreshes += 1
        form = {
            "grant_type": "client_credentials",
            "client_id": self.sandbox.client_id,
            "client_secret": self.sandbox.client_secret,
            "audience": AUDIENCE,
        }
        token = requests.post(self.sandbox.services.token_url, data=form).json()["access_token"]
        url = f"{self.sandbox.api_base_url}/v3/connections/carto-dw/token"
        self.token = requests.get(url, headers={"Authorization": f"Bearer {token}"}).json()["token"]


@pytest.fixture(scope="module")
def sandbox() -> Iterator[CartoSandbox]:
    with CartoSandbox(clock=StoppedClock()) as running:
        yield running


@pytest.fixture
def credentials(sandbox: CartoSandbox) -> Credentials:
    return Credentials(sandbox)


@pytest.fixture
def client(sandbox: CartoSandbox, credentials: Credentials) -> Iterator[bigquery.Client]:
    with bigquery.Client(
        project="carto-dw-ac-sandbox",
        credentials=credentials,
        client_options={"api_endpoint": sandbox.services.bigquery_url},
    ) as running:
        yield running


def one(client: bigquery.Client, sql: str, **config: Any) -> Any:
    """The only value of the only row."""
    [row] = client.query(sql, job_config=bigquery.QueryJobConfig(**config) if config else None).result()
    [value] = row.values()
    return value


# -- results


def test_the_sample_table(client: bigquery.Client) -> None:
    rows = list(client.query(f"SELECT * FROM {CITIES} WHERE country = 'Spain' ORDER BY population DESC").result())
    assert [dict(row) for row in rows] == [
        {"name": "Madrid", "country": "Spain", "population": 3330000, "longitude": -3.7038, "latitude": 40.4168},
        {"name": "Sevilla", "country": "Spain", "population": 684000, "longitude": -5.9845, "latitude": 37.3891},
    ]


@pytest.mark.parametrize(
    ("sql", "value"),
    [
        ("3000000000 * 3", 9_000_000_000),
        ("(SELECT SUM(x) FROM UNNEST([1, 2, 3]) AS x)", 6),
        ("1.5", 1.5),
        ("7 / 2", 3.5),
        ("CAST('inf' AS FLOAT64)", math.inf),
        ("'Sevilla, España'", "Sevilla, España"),
        ("1 > 2", False),
        ("CAST(NULL AS BOOL)", None),
        ("NULL", None),
        (r"b'ab\xff'", b"ab\xff"),
        ("DATE '2024-02-29'", datetime.date(2024, 2, 29)),
        ("DATE_ADD(DATE '2024-02-28', INTERVAL 1 DAY)", datetime.date(2024, 2, 29)),
        ("DATE_TRUNC(DATE '2024-02-28', MONTH)", datetime.date(2024, 2, 1)),
        ("TIME '01:02:03.5'", datetime.time(1, 2, 3, 500000)),
        ("DATETIME '2024-02-29 01:02:03'", datetime.datetime(2024, 2, 29, 1, 2, 3)),  # noqa: DTZ001
        ("TIMESTAMP '2024-02-29 01:02:03.25+02'", datetime.datetime(2024, 2, 28, 23, 2, 3, 250000, UTC)),
        ("TIMESTAMP '1969-12-31 23:59:59.999999+00'", datetime.datetime(1969, 12, 31, 23, 59, 59, 999999, UTC)),
        ("NUMERIC '12.5'", Decimal("12.5")),
        ("[1, 2]", [1, 2]),
        ("CAST(NULL AS ARRAY<INT64>)", []),
        ("STRUCT(1 AS a, 'x' AS b)", {"a": 1, "b": "x"}),
        (
            "[STRUCT(TIMESTAMP '2024-01-01 00:00:00+00' AS t, [1.5, 2.5] AS xs)]",
            [{"t": datetime.datetime(2024, 1, 1, tzinfo=UTC), "xs": [1.5, 2.5]}],
        ),
        ("JSON '{\"a\": [1]}'", {"a": [1]}),
        ("SAFE_DIVIDE(1, 0)", None),
        ("ARRAY(SELECT x FROM UNNEST([10, 20]) x WITH OFFSET o WHERE o = 0)", [10]),
        ("ARRAY(SELECT AS STRUCT x, o FROM UNNEST(['a']) AS x WITH OFFSET o)", [{"x": "a", "o": 0}]),
        ("(SELECT MAX(offset) FROM UNNEST([10, 20]) AS x WITH OFFSET)", 1),
        ("EXTRACT(DAYOFWEEK FROM DATE '2024-01-07')", 1),
        ("EXTRACT(WEEK FROM DATE '2024-01-07')", 1),
        ("EXTRACT(WEEK(MONDAY) FROM DATE '2024-01-07')", 1),
        ("EXTRACT(ISOWEEK FROM DATE '2023-01-01')", 52),
        ("[1, 2][OFFSET(1)]", 2),
        ("[1, 2][SAFE_OFFSET(5)]", None),
        ("[1, 2][SAFE_ORDINAL(0)]", None),
        ("[1, 2][0]", 1),
        ("(SELECT [1, 2][OFFSET(i)] FROM UNNEST([1]) AS i)", 2),
        ("JSON_VALUE(JSON '{\"a\": 1}', '$.a')", "1"),
        ("CAST(2.5 AS INT64)", 3),
        ("CAST(-2.5 AS INT64)", -3),
        ("CAST(9007199254740993 AS INT64)", 9007199254740993),
        ("SAFE_CAST(2.5 AS INT64)", 3),
        ("SAFE_CAST('x' AS INT64)", None),
        ("CAST(1.0 AS STRING)", "1"),
        ("CAST(NUMERIC '100' AS STRING)", "100"),
        ("CAST(DATE_ADD(DATE '2024-02-28', INTERVAL 1 DAY) AS STRING)", "2024-02-29"),
        ("PARSE_TIMESTAMP('%Y-%m-%d', '2024-01-02')", datetime.datetime(2024, 1, 2, tzinfo=UTC)),
        ("TIMESTAMP_MICROS(1)", datetime.datetime(1970, 1, 1, 0, 0, 0, 1, UTC)),
        ("IF(FALSE, 1 / 0, 2.5)", 2.5),
        ("ST_GEOGPOINT(-3.7, 40.25)", "POINT(-3.7 40.25)"),
        ("ST_GEOGPOINT(NULL, 40.25)", None),
        ("[ST_GEOGPOINT(1, 2)]", ["POINT(1 2)"]),
    ],
)
def test_values_and_types(client: bigquery.Client, sql: str, value: object) -> None:
    got = one(client, f"SELECT {sql} AS it")
    assert got == value
    assert type(got) is type(value)


def test_the_schema_has_bigquerys_names(client: bigquery.Client) -> None:
    schema = client.query("SELECT 1 AS a, [1.5] AS b, STRUCT(TRUE AS d) AS c, NUMERIC '1' AS e").result().schema
    assert [(f.name, f.field_type, f.mode) for f in schema] == [
        ("a", "INTEGER", "NULLABLE"),
        ("b", "FLOAT", "REPEATED"),
        ("c", "RECORD", "NULLABLE"),
        ("e", "NUMERIC", "NULLABLE"),
    ]
    assert [(f.name, f.field_type) for f in schema[2].fields] == [("d", "BOOLEAN")]


def test_points_are_of_type_geography(client: bigquery.Client) -> None:
    client.query("CREATE OR REPLACE TABLE shared.points AS SELECT ST_GEOGPOINT(1, 2) AS geom").result()
    assert [(f.name, f.field_type) for f in client.get_table("shared.points").schema] == [("geom", "GEOGRAPHY")]
    assert [row.geom for row in client.list_rows("shared.points")] == ["POINT(1 2)"]


def test_what_libraries_ask_first(client: bigquery.Client) -> None:
    """Ibis and BigQuery DataFrames: where results are kept, what the time is, and whether a table has a history."""
    for use_query_cache in (False, None):
        job = client.query("SELECT 1", bigquery.QueryJobConfig(use_query_cache=use_query_cache))
        assert (job.destination is not None) == (use_query_cache is False)
        assert len(list(job.result())) == 1
    assert one(client, "SELECT CURRENT_TIMESTAMP() AS `current_timestamp`").tzinfo is not None
    with pytest.raises(exceptions.NotFound, match="the sandbox keeps no history"):
        client.query(f"SELECT * FROM {CITIES} FOR SYSTEM_TIME AS OF TIMESTAMP '2024-01-01'").result()


def test_nameless_columns(client: bigquery.Client) -> None:
    [row] = client.query(f"SELECT COUNT(*), 'x' AS named, MAX(country) FROM {CITIES}").result()
    assert list(row.keys()) == ["f0_", "named", "f1_"]
    assert row.values() == (20, "x", "United States")


def test_pages(sandbox: CartoSandbox, client: bigquery.Client) -> None:
    job = client.query(f"SELECT name FROM {CITIES} ORDER BY name")
    before = len(sandbox.requests)
    rows = job.result(page_size=7)
    names = [row.name for row in rows]
    assert names == sorted(names)
    assert len(names) == len(set(names)) == rows.total_rows == 20
    pages = [r for r in sandbox.requests[before:] if r.path.endswith(f"/queries/{job.job_id}")]
    assert len(pages) >= 3
    assert [
        row.name for row in client.query(f"SELECT name FROM {CITIES} ORDER BY name").result(max_results=2)
    ] == names[:2]


def test_offsets_count_from_0_in_joins(client: bigquery.Client) -> None:
    arrays = "(SELECT 1 AS id, ['p', 'q'] AS xs UNION ALL SELECT 2, []) AS t"
    for join, others in ((",", []), ("CROSS JOIN", []), ("LEFT JOIN", [(2, None, None)])):
        rows = client.query(f"SELECT id, x, o FROM {arrays} {join} UNNEST(t.xs) AS x WITH OFFSET AS o ORDER BY 1, 3")
        assert [row.values() for row in rows.result()] == [(1, "p", 0), (1, "q", 1), *others]


def test_selected_fields(client: bigquery.Client) -> None:
    client.query("CREATE OR REPLACE TABLE shared.wide AS SELECT 'a' AS one, 2 AS two, 'c' AS three").result()
    kept = [field for field in client.get_table("shared.wide").schema if field.name != "one"]
    assert [dict(row) for row in client.list_rows("shared.wide", selected_fields=kept)] == [{"two": 2, "three": "c"}]
    with pytest.raises(exceptions.BadRequest, match="not found in the schema: nope"):
        list(client.list_rows("shared.wide", selected_fields=[bigquery.SchemaField("nope", "STRING")]))


def test_query_and_wait(client: bigquery.Client) -> None:
    rows = client.query_and_wait(f"SELECT name, TIMESTAMP '2024-01-01 00:00:00+00' AS t FROM {CITIES} ORDER BY name")
    [first, *others] = rows
    assert (first.name, first.t, len(others)) == ("Berlin", datetime.datetime(2024, 1, 1, tzinfo=UTC), 19)
    nothing = client.query_and_wait(f"SELECT name FROM {CITIES} WHERE FALSE")
    assert (list(nothing), nothing.total_rows, [f.name for f in nothing.schema]) == ([], 0, ["name"])
    with pytest.raises(exceptions.BadRequest, match="Syntax error"):
        client.query_and_wait("SELEC 1")


def test_a_dry_run_changes_nothing(client: bigquery.Client) -> None:
    client.query("CREATE OR REPLACE TABLE shared.kept AS SELECT 1 AS a").result()
    config = bigquery.QueryJobConfig(dry_run=True)
    assert [f.name for f in client.query("SELECT 1 AS a", job_config=config).schema] == ["a"]
    for sql in ("CREATE TABLE shared.never (a INT64)", "DELETE FROM shared.kept WHERE TRUE", "DROP TABLE shared.kept"):
        assert client.query(sql, job_config=config).dry_run
    assert one(client, "SELECT a FROM shared.kept") == 1
    with pytest.raises(exceptions.NotFound):
        client.get_table("shared.never")


@pytest.mark.parametrize(
    ("sql", "error"),
    [
        ("SELEC 1", exceptions.BadRequest),
        ("SELECT * FROM shared.unknown", exceptions.NotFound),
        ("INSERT INTO shared.unknown VALUES (1)", exceptions.NotFound),
        (f"CREATE TABLE shared.never AS SELECT nope FROM {CITIES}", exceptions.BadRequest),
        ("TRUNCATE TABLE shared.unknown", exceptions.NotFound),
    ],
)
def test_a_dry_run_of_what_is_wrong(client: bigquery.Client, sql: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        client.query(sql, job_config=bigquery.QueryJobConfig(dry_run=True))


# -- parameters


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        (bigquery.ScalarQueryParameter("p", "INT64", 2**40), 2**40),
        (bigquery.ScalarQueryParameter("p", "INT64", None), None),
        (bigquery.ScalarQueryParameter("p", "FLOAT64", 0.1), 0.1),
        (bigquery.ScalarQueryParameter("p", "BOOL", False), False),
        (bigquery.ScalarQueryParameter("p", "STRING", "'; DROP TABLE x"), "'; DROP TABLE x"),
        (bigquery.ScalarQueryParameter("p", "BYTES", b"\x00\xff"), b"\x00\xff"),
        (bigquery.ScalarQueryParameter("p", "NUMERIC", Decimal("1.23")), Decimal("1.23")),
        (bigquery.ScalarQueryParameter("p", "DATE", datetime.date(2024, 2, 29)), datetime.date(2024, 2, 29)),
        (
            bigquery.ScalarQueryParameter("p", "TIMESTAMP", datetime.datetime(2024, 1, 1, tzinfo=UTC)),
            datetime.datetime(2024, 1, 1, tzinfo=UTC),
        ),
        (bigquery.ArrayQueryParameter("p", "STRING", ["a", "b"]), ["a", "b"]),
        (bigquery.ArrayQueryParameter("p", "INT64", []), []),
        (
            bigquery.StructQueryParameter(
                "p", bigquery.ScalarQueryParameter("a", "INT64", 1), bigquery.ScalarQueryParameter("b", "STRING", "x")
            ),
            {"a": 1, "b": "x"},
        ),
    ],
    ids=lambda p: getattr(p, "type_", None) or getattr(p, "array_type", None),
)
def test_named_parameters(client: bigquery.Client, parameter: Any, value: object) -> None:
    assert one(client, "SELECT @p AS it", query_parameters=[parameter]) == value


def test_positional_parameters_go_by_the_text(client: bigquery.Client) -> None:
    sql = "WITH a AS (SELECT ? AS x) SELECT x, '?' AS y, ? AS z FROM a WHERE x = ?"
    parameters = [bigquery.ScalarQueryParameter(None, "STRING", value) for value in ("one", "two", "one")]
    [row] = client.query(sql, job_config=bigquery.QueryJobConfig(query_parameters=parameters)).result()
    assert row.values() == ("one", "?", "two")


def test_missing_parameters(client: bigquery.Client) -> None:
    with pytest.raises(exceptions.BadRequest, match="'missing' not found"):
        one(client, "SELECT @missing")
    with pytest.raises(exceptions.BadRequest, match="not defined"):
        one(client, "SELECT ?")


# -- changing data


def test_tables_are_made_changed_and_dropped(client: bigquery.Client) -> None:
    def run(sql):
        return client.query(sql).result()

    run("CREATE TABLE shared.notes (id INT64, text STRING, at TIMESTAMP) PARTITION BY DATE(at)")
    assert run("INSERT INTO shared.notes (id, text) VALUES (1, 'a'), (2, 'b')").num_dml_affected_rows == 2
    job = client.query("UPDATE shared.notes SET text = 'c' WHERE id = 2")
    job.result()
    assert job.num_dml_affected_rows == 1
    assert job.statement_type == "UPDATE"
    assert [row.text for row in client.list_rows("shared.notes")] == ["a", "c"]
    table = client.get_table("shared.notes")
    assert [(f.name, f.field_type) for f in table.schema] == [
        ("id", "INTEGER"),
        ("text", "STRING"),
        ("at", "TIMESTAMP"),
    ]
    assert table.num_rows == 2
    assert "notes" in [t.table_id for t in client.list_tables("shared")]
    with pytest.raises(exceptions.Conflict):
        run("CREATE TABLE `carto-dw-ac-sandbox.shared.notes` AS SELECT 1 AS a")
    run("DROP TABLE shared.notes")
    with pytest.raises(exceptions.NotFound):
        client.get_table("shared.notes")


def test_datasets(client: bigquery.Client) -> None:
    client.create_dataset("mine")
    client.query("CREATE SCHEMA `carto-dw-ac-sandbox.other`").result()
    assert {"shared", "mine", "other"} <= {d.dataset_id for d in client.list_datasets()}
    assert client.get_dataset("mine").dataset_id == "mine"
    config = bigquery.QueryJobConfig(default_dataset="carto-dw-ac-sandbox.mine")
    client.query("CREATE TABLE t AS SELECT 42 AS answer", job_config=config).result()
    assert one(client, "SELECT answer FROM mine.t") == 42
    with pytest.raises(exceptions.NotFound):
        client.get_dataset("unknown")


def test_demo_data_cannot_be_changed(client: bigquery.Client) -> None:
    with pytest.raises(exceptions.Forbidden):
        client.query(f"DELETE FROM {CITIES} WHERE TRUE").result()
    assert one(client, f"SELECT COUNT(*) FROM {CITIES}") == 20


def test_json_lines_are_loaded(client: bigquery.Client) -> None:
    rows = [{"name": "a", "n": 1, "tags": ["x"]}, {"name": "b", "n": 2.5}]
    job = client.load_table_from_json(rows, "shared.lines")
    assert job.result().output_rows == 2
    assert [dict(row) for row in client.list_rows("shared.lines")] == [
        {"name": "a", "n": 1.0, "tags": ["x"]},
        {"name": "b", "n": 2.5, "tags": []},
    ]
    client.load_table_from_json([{"name": "c"}], "shared.lines").result()
    assert client.get_table("shared.lines").num_rows == 3
    config = bigquery.LoadJobConfig(
        schema=[bigquery.SchemaField("at", "TIMESTAMP"), bigquery.SchemaField("n", "NUMERIC")],
        write_disposition="WRITE_TRUNCATE",
    )
    client.load_table_from_json(
        [{"at": "2024-01-01T00:00:00Z", "n": "1.5"}], "shared.lines", job_config=config
    ).result()
    [row] = client.list_rows("shared.lines")
    assert row.values() == (datetime.datetime(2024, 1, 1, tzinfo=UTC), Decimal("1.5"))


def test_a_failed_load_leaves_no_trace(client: bigquery.Client) -> None:
    config = bigquery.LoadJobConfig(schema=[bigquery.SchemaField("n", "INT64")])
    with pytest.raises(exceptions.BadRequest):
        client.load_table_from_json([{"n": 1}, {"n": "x"}], "shared.broken", job_config=config).result()
    with pytest.raises(exceptions.NotFound):
        client.get_table("shared.broken")


def test_a_resumable_upload(client: bigquery.Client) -> None:
    lines = "".join(f'{{"n": {n}, "text": "{"x" * 100}"}}\n' for n in range(10_000)).encode()
    config = bigquery.LoadJobConfig(source_format="NEWLINE_DELIMITED_JSON", autodetect=True)
    # Without a size the client cannot use one request, and sends chunks.
    job = client.load_table_from_file(io.BytesIO(lines), "shared.big", job_config=config)
    assert job.result().output_rows == 10_000
    assert one(client, "SELECT SUM(n) FROM shared.big") == sum(range(10_000))


def test_other_formats_cannot_be_loaded(client: bigquery.Client) -> None:
    with pytest.raises(exceptions.BadRequest, match="The sandbox cannot load CSV"):
        client.load_table_from_file(io.BytesIO(b"a,b"), "shared.csv", size=3).result()


# -- errors


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELEC 1", "Syntax error"),
        ("SELECT 1 FROM FROM", r"Syntax error: .* at \[1:18\]"),
        ("SELECT 'a", "Syntax error"),
        (f"SELECT nope FROM {CITIES}", "nope"),
        ("SELECT * FROM unqualified", "must be qualified with a dataset"),
        ("SELECT 1 AS a, 2 AS a", "Duplicate column names"),
        ("SELECT CAST('x' AS INT64)", "Could not convert"),
        ("selec 1", "Syntax error"),
        ("SELECT 1 / 0", "division by zero"),
        ("SELECT MOD(1, 0)", "division by zero"),
        ("SELECT [1, 2][OFFSET(5)]", "Array index 5 is out of bounds"),
        ("SELECT [1, 2][ORDINAL(0)]", "out of bounds"),
        ("SELECT (SELECT j FROM (SELECT JSON '[1]' AS j))[0]", "The sandbox cannot take the elements of a JSON"),
        ("SELECT SUM(x) FROM UNNEST([9223372036854775807, 1]) AS x", "int64 overflow"),
        ("SELECT [1, NULL]", "Array cannot have a null element"),
        ("SELECT [STRUCT([NULL, 1] AS a)] AS s", r"null element; error in writing field s\.a"),
        ("SELECT * FROM UNNEST([5]) WITH OFFSET", "The sandbox cannot run UNNEST WITH OFFSET without a name"),
        ("SELECT EXTRACT(WEEK(TUESDAY) FROM DATE '2024-01-07')", "The sandbox cannot extract"),
        ("SELECT PARSE_TIMESTAMP('%Y', '2024', 'Europe/Madrid')", "The sandbox cannot read timestamps"),
        ("SELECT ST_BUFFER(ST_GEOGPOINT(1, 2), 3)", "The sandbox cannot run the function ST_BUFFER"),
        ("CREATE TABLE shared.g (g GEOGRAPHY)", "The sandbox cannot handle the type GEOGRAPHY"),
        ("SELECT `carto-un`.carto.H3_FROMLONGLAT(1, 2, 3)", "The sandbox cannot run the function carto-un.carto.H3_"),
        ("SELECT * FROM `carto-un`.carto.F(1)", "The sandbox cannot run the function carto-un.carto.F"),
        ("SELECT 1; SELECT 2", "The sandbox cannot run scripts"),
        ("SELECT INTERVAL 1 DAY", "The sandbox cannot return"),
        ("SELECT @@time_zone", "The sandbox cannot read system variables"),
        ("SELECT * FROM INFORMATION_SCHEMA.TABLES", "The sandbox cannot query"),
        ("CALL something()", "The sandbox cannot run CALL"),
        ("SELECT * FROM read_csv('/etc/passwd')", "The sandbox cannot do this"),
    ],
)
def test_bad_queries(client: bigquery.Client, sql: str, message: str) -> None:
    job = client.query(sql)
    with pytest.raises(exceptions.BadRequest, match=message):
        job.result()
    assert job.error_result is not None
    assert job.error_result["reason"] in ("invalidQuery", "invalid")


def test_unknown_tables(client: bigquery.Client) -> None:
    for sql in ("SELECT * FROM shared.unknown", "SELECT * FROM unknown.unknown", "DROP TABLE shared.unknown"):
        job = client.query(sql)
        with pytest.raises(exceptions.NotFound):
            job.result()
        assert job.error_result is not None
        assert job.error_result["reason"] == "notFound"


def test_what_is_not_there(client: bigquery.Client) -> None:
    with pytest.raises(exceptions.BadRequest, match="The sandbox cannot"):
        client.list_routines("shared").pages.__next__()
    with pytest.raises(exceptions.BadRequest, match="The sandbox cannot"):
        client.copy_table("shared.a", "shared.b").result()
    config = bigquery.QueryJobConfig(use_legacy_sql=True)
    with pytest.raises(exceptions.BadRequest, match="legacy SQL"):
        client.query("SELECT 1", job_config=config).result()


@pytest.mark.parametrize(
    ("path", "headers", "status", "reason"),
    [
        ("nowhere", {}, 404, "notFound"),
        ("projects", {"Host": "evil.example"}, 400, "invalid"),
        ("projects", {}, 401, "authError"),
        ("projects", {"Authorization": "Bearer nonsense"}, 401, "authError"),
    ],
)
def test_errors_have_googles_shape(
    sandbox: CartoSandbox, path: str, headers: dict[str, str], status: int, reason: str
) -> None:
    answer = requests.get(f"{sandbox.url}/bigquery/v2/{path}", headers=headers)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["errors"][0]["reason"]) == (status, status, reason)


def test_other_projects(client: bigquery.Client) -> None:
    assert [p.project_id for p in client.list_projects()] == ["carto-dw-ac-sandbox", "carto-demo-data"]
    with pytest.raises(exceptions.Forbidden):
        client.query("SELECT 1", project="somebody-elses").result()
    with pytest.raises(exceptions.NotFound):
        client.get_job("unknown")


# -- tokens


def test_a_refused_token_is_renewed_by_googles_client(
    sandbox: CartoSandbox, client: bigquery.Client, credentials: Credentials
) -> None:
    assert one(client, "SELECT 1") == 1
    assert credentials.refreshes == 1
    sandbox.revoke_warehouse_tokens()
    assert one(client, "SELECT 2") == 2
    assert credentials.refreshes == 2
    assert isinstance(sandbox.clock, StoppedClock)
    sandbox.clock.now += sandbox.warehouse_token_lifetime
    assert one(client, "SELECT 3") == 3
    assert credentials.refreshes == 3


def test_many_at_once(client: bigquery.Client) -> None:
    client.query("CREATE OR REPLACE TABLE shared.many (n INT64)").result()

    def insert_and_count(n: int) -> int:
        client.query(f"INSERT INTO shared.many VALUES ({n})").result()
        return one(client, "SELECT COUNT(*) FROM shared.many")

    with ThreadPoolExecutor(8) as pool:
        counts = list(pool.map(insert_and_count, range(24)))
    assert max(counts) == 24
    assert one(client, "SELECT SUM(n) FROM shared.many") == sum(range(24))
