"""The warehouse's engine: one DuckDB in memory, shut off from the disk and the network."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from carto_auth.sandbox import sample
from carto_auth.sandbox.bigquery_types import (
    GEOGRAPHY,
    Field,
    Parameter,
    QueryError,
    field_from_duckdb,
    quote,
    refuse_null_elements,
)
from carto_auth.sandbox.state import PROJECT_ID

if TYPE_CHECKING:
    from carto_auth.sandbox.dialect import Statement

#: The dataset that CARTO makes for every organization.
SHARED_DATASET = "shared"

#: Seconds; queries wait for each other, so none may run for ever.
QUERY_TIME_LIMIT = 60.0

#: In this order: after the last one, none can be changed any more.
_SETTINGS = (
    "TimeZone = 'UTC'",
    "temp_directory = ''",
    "memory_limit = '1GB'",
    "autoinstall_known_extensions = false",
    "autoload_known_extensions = false",
    "python_enable_replacements = false",
    "enable_external_access = false",
    "lock_configuration = true",
)


_IS_FLOAT = "typeof(x) IN ('DOUBLE', 'FLOAT')"

_OUT_OF_BOUNDS = "i < 0 OR i >= len(xs)"

_NO_JSON = "typeof(xs) = 'JSON' THEN error('The sandbox cannot take the elements of a JSON value by their number.')"

#: What BigQuery does otherwise than DuckDB; :mod:`carto_auth.sandbox.dialect` makes queries call them.
_MACROS = {
    "divisor(x)": "CASE WHEN x = 0 THEN error('division by zero') ELSE x END",
    "element(xs, i)": f"CASE WHEN {_NO_JSON} WHEN {_OUT_OF_BOUNDS} "
    "THEN error('Array index ' || i || ' is out of bounds') ELSE xs[i + 1] END",
    "safe_element(xs, i)": f"CASE WHEN {_NO_JSON} WHEN {_OUT_OF_BOUNDS} THEN NULL ELSE xs[i + 1] END",
    # Half away from zero; DuckDB casts to the even neighbour.
    "int64(x)": f"CASE WHEN {_IS_FLOAT} THEN CAST(round(CAST(x AS DOUBLE)) AS BIGINT) ELSE CAST(x AS BIGINT) END",
    "try_int64(x)": f"CASE WHEN {_IS_FLOAT} THEN TRY_CAST(round(TRY_CAST(x AS DOUBLE)) AS BIGINT) "
    "ELSE TRY_CAST(x AS BIGINT) END",
    # Without the zeros that end a fraction.
    "string(x)": f"CASE WHEN {_IS_FLOAT} THEN regexp_replace(CAST(x AS VARCHAR), '\\.0$', '') "
    "WHEN typeof(x) LIKE 'DECIMAL%' AND contains(CAST(x AS VARCHAR), '.') "
    "THEN rtrim(rtrim(CAST(x AS VARCHAR), '0'), '.') ELSE CAST(x AS VARCHAR) END",
    "geogpoint(x, y)": f"{{{quote(GEOGRAPHY)}: 'POINT(' || x || ' ' || y || ')'}}",
}


@dataclass(frozen=True)
class Result:
    """What a statement gave.

    Attributes:
        kind: BigQuery's ``statementType``.
        fields: the columns; none where there is no result.
        rows: Python values, in the order of the fields.
        affected: how many rows a DML statement changed, or ``None``.
    """

    kind: str
    fields: list[Field] = field(default_factory=list)
    rows: list[tuple[Any, ...]] = field(default_factory=list)
    affected: int | None = None


class Engine:
    """Runs SQL. Every method may be called from any thread; statements run one after the other.

    DuckDB and sqlglot are imported at the first statement, since most tests of a login never need them.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connection: Any = None

    def close(self) -> None:
        """Forget everything."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def run(
        self,
        sql: str,
        *,
        parameters: list[Parameter] | None = None,
        dataset: tuple[str, str] | None = None,
        dry: bool = False,
    ) -> Result:
        """Run one statement of BigQuery's SQL; with ``dry`` only check it.

        Raises:
            QueryError: it failed, or the sandbox cannot do it.
        """
        from carto_auth.sandbox.dialect import translate

        statement = translate(sql, project=PROJECT_ID, dataset=dataset, parameters=parameters or [])
        if statement.written and statement.written[0] != PROJECT_ID:
            table = ".".join(filter(None, statement.written))
            raise QueryError(f"Access Denied: {table} cannot be changed", status=403, reason="accessDenied")
        with _Session(self) as duckdb:
            if statement.kind == "SELECT":
                fields, relation = _relation(duckdb, statement.sql, statement.values)
                rows = [] if dry else relation.fetchall()
                refuse_null_elements(rows, fields)
                return Result(statement.kind, fields, rows)
            if dry:
                _check(duckdb, statement)
                return Result(statement.kind)
            rows = duckdb.execute(statement.sql, statement.values or None).fetchall()
            is_dml = statement.kind in ("INSERT", "UPDATE", "DELETE", "MERGE")
            return Result(statement.kind, affected=rows[0][0] if is_dml and rows else None)

    def table_rows(self, project: str, dataset: str, table: str) -> Result:
        """A table's columns and all its rows.

        Raises:
            QueryError: 404, there is no such table.
        """
        with _Session(self) as duckdb:
            fields, relation = _relation(duckdb, f"SELECT * FROM {_name(project, dataset, table)}", None)  # noqa: S608
            return Result("SELECT", fields, relation.fetchall())

    def append(self, path: tuple[str, str, str], rows: Any, *, columns: str, create: bool, write: str) -> int:
        """Add rows to a table by the names of their columns; all of them, or none.

        Args:
            path: project, dataset and table.
            rows: an Arrow table.
            columns: the new table's, in SQL; empty to take those of the rows.
            create: whether to make the table if it is not there.
            write: ``WRITE_APPEND``, ``WRITE_TRUNCATE`` or ``WRITE_EMPTY``.

        Returns:
            How many rows were added.

        Raises:
            QueryError: it failed.
        """
        if path[0] != PROJECT_ID:
            raise QueryError(f"Access Denied: {'.'.join(path)} cannot be changed", status=403, reason="accessDenied")
        table = _name(*path)
        with _Session(self) as duckdb:
            duckdb.register("upload", rows)
            duckdb.execute("BEGIN")
            if create:
                replace = "CREATE OR REPLACE TABLE" if write == "WRITE_TRUNCATE" else "CREATE TABLE IF NOT EXISTS"
                duckdb.execute(f"{replace} {table} " + (f"({columns})" if columns else "AS FROM upload LIMIT 0"))
            elif write == "WRITE_TRUNCATE":
                duckdb.execute(f"DELETE FROM {table}")  # noqa: S608
            if write == "WRITE_EMPTY" and duckdb.execute(f"FROM {table} LIMIT 1").fetchall():
                raise QueryError(f"Already Exists: Table {'.'.join(path)}", status=409, reason="duplicate")
            [(added,)] = duckdb.execute(f"INSERT INTO {table} BY NAME FROM upload").fetchall()
            duckdb.execute("COMMIT")
            return int(added)

    def datasets(self, project: str) -> list[str]:
        """The names of a project's datasets."""
        with _Session(self) as duckdb:
            found = duckdb.execute(
                "SELECT schema_name FROM information_schema.schemata WHERE catalog_name = ? "
                "AND schema_name NOT IN ('main', 'information_schema', 'pg_catalog') ORDER BY 1",
                [project],
            ).fetchall()
        return [name for (name,) in found]

    def tables(self, project: str, dataset: str) -> list[tuple[str, str]]:
        """A dataset's tables and views: name, and ``TABLE`` or ``VIEW``."""
        with _Session(self) as duckdb:
            found = duckdb.execute(
                "SELECT table_name, table_type FROM information_schema.tables "
                "WHERE table_catalog = ? AND table_schema = ? ORDER BY 1",
                [project, dataset],
            ).fetchall()
        return [(name, "VIEW" if kind == "VIEW" else "TABLE") for name, kind in found]

    def create_dataset(self, dataset: str) -> None:
        """Make a dataset in the warehouse's project."""
        with _Session(self) as duckdb:
            duckdb.execute(f"CREATE SCHEMA {quote(PROJECT_ID)}.{quote(dataset)}")

    def connect(self) -> Any:
        """The connection, made at the first call; the lock is held by the caller."""
        if self._connection is None:
            self._connection = _open_warehouse()
        return self._connection

    @property
    def lock(self) -> threading.Lock:
        """Held while a statement runs."""
        return self._lock


class _Session:
    """DuckDB for one statement: alone, for a limited time, and with BigQuery's words for what goes wrong."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def __enter__(self) -> Any:
        self._engine.lock.acquire()
        try:
            # A cursor of its own: a result that was not read to its end does not block the next statement.
            self._cursor = self._engine.connect().cursor()
        except BaseException:
            self._engine.lock.release()
            raise
        self._timer = threading.Timer(QUERY_TIME_LIMIT, self._cursor.interrupt)
        self._timer.daemon = True
        self._timer.start()
        return self._cursor

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> None:
        self._timer.cancel()
        self._timer.join()
        self._cursor.close()
        self._engine.lock.release()
        if error is not None and not isinstance(error, QueryError):
            import duckdb

            if isinstance(error, duckdb.Error):
                raise _translated(error, duckdb) from error


def _open_warehouse() -> Any:
    import duckdb

    connection = duckdb.connect(":memory:")
    for project, dataset in ((PROJECT_ID, SHARED_DATASET), (sample.PROJECT, sample.DATASET)):
        connection.execute(f"ATTACH ':memory:' AS {quote(project)}")
        connection.execute(f"CREATE SCHEMA {quote(project)}.{quote(dataset)}")
    table = _name(sample.PROJECT, sample.DATASET, sample.TABLE)
    connection.execute(
        f"CREATE TABLE {table} (name VARCHAR, country VARCHAR, population BIGINT, longitude DOUBLE, latitude DOUBLE)"
    )
    connection.executemany(f"INSERT INTO {table} VALUES (?, ?, ?, ?, ?)", sample.WORLD_CITIES)  # noqa: S608
    for signature, body in _MACROS.items():
        connection.execute(f"CREATE MACRO sandbox_{signature} AS {body}")
    for setting in _SETTINGS:
        connection.execute(f"SET {setting}")
    return connection


def _check(duckdb: Any, statement: Statement) -> None:
    """Have DuckDB look up what a statement names, without running it."""
    if statement.kind == "TRUNCATE_TABLE" and statement.written:
        # DuckDB explains all the others.
        duckdb.execute(f"EXPLAIN FROM {_name(*statement.written)}")
    else:
        duckdb.execute(f"EXPLAIN {statement.sql}", statement.values or None)


def _relation(duckdb: Any, sql: str, values: Any) -> tuple[list[Field], Any]:
    """A query's columns, and the relation that gives its rows as values that Python has."""
    relation = duckdb.sql(sql, params=values or None)
    names = list(relation.columns)
    if len({name.lower() for name in names}) < len(names):
        raise QueryError("Duplicate column names in the result are not supported.")
    fields = [field_from_duckdb(name, kind) for name, kind in zip(names, relation.types, strict=True)]
    casts = ", ".join(f"CAST({quote(f.name)} AS {f.duckdb}) AS {quote(f.name)}" for f in fields)
    return fields, relation.project(casts)


def _name(project: str, dataset: str, table: str) -> str:
    return ".".join(quote(part) for part in (project, dataset, table))


def _translated(error: Exception, duckdb: Any) -> QueryError:
    # The first paragraph is the message; DuckDB then repeats the statement, which is not what was sent.
    text = str(error).split("\n\n")[0].strip()
    text = re.sub(r"^[A-Z][A-Za-z ]* Error: ", "", text)
    overflow = re.search(r"Type U?INT128 with value (-?\d+) can't be cast", text)
    if overflow:
        return QueryError(f"int64 overflow: {overflow[1]}")
    missing = re.search(r"Function with name \"?([\w.-]+)\"? (?:does not exist|is not in the catalog)", text)
    if missing:
        return QueryError(f"The sandbox cannot run the function {missing[1].upper()}: DuckDB has none like it.")
    absent = re.search(r"(Table|Schema|View|schema) (?:with name )?\"?([\w.-]+)\"? does not exist", text)
    if absent:
        kind = "Dataset" if absent[1].lower() == "schema" else "Table"
        return QueryError(f"Not found: {kind} {absent[2]} was not found", status=404, reason="notFound")
    if "already exists" in text:
        return QueryError(f"Already Exists: {text}", status=409, reason="duplicate")
    if isinstance(error, duckdb.InterruptException):
        return QueryError(f"The sandbox cannot run queries of more than {QUERY_TIME_LIMIT:.0f} seconds.")
    if isinstance(error, duckdb.ParserException):
        # sqlglot understood the query, so it is the translation that is wrong.
        return QueryError(f"The sandbox cannot translate this for DuckDB: {text or 'it finds a syntax error'}")
    if isinstance(error, (duckdb.PermissionException, duckdb.NotImplementedException)):
        return QueryError(f"The sandbox cannot do this: {text}")
    if isinstance(error, duckdb.OutOfMemoryException):
        return QueryError(f"The sandbox cannot run this in its memory: {text}", reason="resourcesExceeded")
    return QueryError(text)
