"""From BigQuery's SQL to DuckDB's: sqlglot translates, and this module corrects what still differs."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import sqlglot
from sqlglot import exp
from sqlglot.errors import ParseError, SqlglotError, UnsupportedError

from carto_auth.sandbox.bigquery_types import Parameter, QueryError

# sqlglot warns through logging, and Python prints the warnings of programs that did not configure logging.
logging.getLogger("sqlglot").addHandler(logging.NullHandler())

#: A node of sqlglot's. Its base class has had another name, and other types, from release to release.
Tree: TypeAlias = Any

#: BigQuery's NUMERIC; DuckDB's DECIMAL without numbers would be (18, 3).
_NUMERIC = "DECIMAL(38, 9)"

_STATEMENTS: tuple[tuple[type[Any], str], ...] = (
    (exp.Insert, "INSERT"),
    (exp.Update, "UPDATE"),
    (exp.Delete, "DELETE"),
    (exp.Merge, "MERGE"),
    (exp.TruncateTable, "TRUNCATE_TABLE"),
)

_CREATED = {"TABLE": "TABLE", "VIEW": "VIEW", "SCHEMA": "SCHEMA"}


@dataclass(frozen=True)
class Statement:
    """A statement for DuckDB.

    Attributes:
        sql: in DuckDB's dialect.
        kind: BigQuery's ``statementType``, such as ``SELECT`` or ``CREATE_TABLE``.
        values: of the parameters, as DuckDB wants them.
        written: the ``(project, dataset, table)`` that it changes, or ``None``.
    """

    sql: str
    kind: str
    values: dict[str, Any]
    written: tuple[str, str, str] | None


def translate(sql: str, *, project: str, dataset: tuple[str, str] | None, parameters: list[Parameter]) -> Statement:
    """Translate one statement.

    Args:
        sql: in BigQuery's dialect.
        project: to which names without a project belong.
        dataset: ``(project, dataset)`` to which names without a dataset belong.
        parameters: all named, or all positional.

    Raises:
        QueryError: a syntax error, or something that the sandbox cannot do.
    """
    by_name = {(p.name or f"_{number}").lower(): p for number, p in enumerate(parameters)}
    tree = _parse(_number_placeholders(sql, sum(p.name is None for p in parameters)))
    kind = _kind(tree)
    _qualify(tree, project, dataset)
    written = _written(tree)
    values = _bind(tree, by_name)
    if isinstance(tree, exp.Query):
        _name_columns(tree)
    elif isinstance(tree, exp.Create):
        # Partitions, clusters and options change how BigQuery stores a table, not what is in it.
        tree.set("properties", None)
        if isinstance(tree.expression, exp.Query):
            _name_columns(tree.expression)
    _refuse_what_duckdb_lacks(tree)
    _put_all_right(tree)
    try:
        duckdb_sql = tree.sql(dialect="duckdb", identify=True, unsupported_level=sqlglot.ErrorLevel.RAISE)
    except UnsupportedError as error:
        raise QueryError(f"The sandbox cannot translate this for DuckDB: {error}") from error
    return Statement(duckdb_sql, kind, values, written)


def tables_read(sql: str, *, project: str) -> set[str]:
    """The tables, by their full names, that a query reads.

    Args:
        sql: in BigQuery's dialect.
        project: to which names without a project belong.

    Raises:
        QueryError: it is not a query, or reads from something that is not a table.
    """
    tree = _parse(sql)
    if _kind(tree) != "SELECT":
        raise QueryError("Only queries can be run with this token.", status=403, reason="accessDenied")
    _qualify(tree, project, None)
    names = set()
    for table in tree.find_all(exp.Table):
        if not isinstance(table.this, exp.Identifier):
            raise QueryError("Only tables can be read with this token.", status=403, reason="accessDenied")
        if table.db:  # else it is a query's own name for a part of it
            names.add(f"{table.catalog}.{table.db}.{table.name}")
    return names


def _parse(sql: str) -> Tree:
    try:
        statements = [tree for tree in sqlglot.parse(sql, read="bigquery") if tree is not None]
    except ParseError as error:
        first = error.errors[0] if error.errors else {}
        what = re.sub(r" but got <.*", "", str(first.get("description") or "Unexpected input"))
        where = f" at [{first['line']}:{first['col']}]" if first.get("line") else ""
        raise QueryError(f"Syntax error: {what}{where}") from error
    except (SqlglotError, RecursionError) as error:
        raise QueryError("Syntax error: the statement cannot be read.") from error
    if not statements:
        raise QueryError("Syntax error: Unexpected end of statement", reason="invalidQuery")
    if len(statements) > 1:
        raise QueryError("The sandbox cannot run scripts: send one statement at a time.")
    return statements[0]


def _kind(tree: Tree) -> str:
    if isinstance(tree, exp.Query):
        return "SELECT"
    for cls, kind in _STATEMENTS:
        if isinstance(tree, cls):
            return kind
    if isinstance(tree, (exp.Create, exp.Drop)):
        what = _CREATED.get(str(tree.args.get("kind")).upper())
        if what:
            verb = "CREATE" if isinstance(tree, exp.Create) else "DROP"
            as_select = verb == "CREATE" and what == "TABLE" and isinstance(tree.expression, exp.Query)
            return f"{verb}_{what}{'_AS_SELECT' if as_select else ''}"
    if isinstance(tree, (exp.Condition, exp.Alias)):
        # sqlglot reads a lone expression too; "selec a" is one, with a name.
        raise QueryError("Syntax error: Unexpected identifier at [1:1]")
    name = str(tree.this) if isinstance(tree, exp.Command) else tree.key.upper()
    raise QueryError(f"The sandbox cannot run {name} statements.")


def _qualify(tree: Tree, project: str, dataset: tuple[str, str] | None) -> None:
    """Give every table its project and dataset; DuckDB calls them catalog and schema."""
    if isinstance(tree, (exp.Create, exp.Drop)) and str(tree.args.get("kind")).upper() == "SCHEMA":
        _qualify_schema(tree, project)
        return
    local = {cte.alias.lower() for cte in tree.find_all(exp.CTE)}
    for table in tree.find_all(exp.Table):
        if not isinstance(table.this, exp.Identifier):
            if table.db:
                raise _lacking(".".join(filter(None, (table.catalog, table.db, table.this.name))))
            continue
        if "information_schema" in f"{table.db}.{table.name}".lower():
            raise QueryError("The sandbox cannot query INFORMATION_SCHEMA.")
        if table.args.get("version"):
            # BigQuery DataFrames takes a 404 for a table without a history, and goes on.
            raise QueryError("Not found: the sandbox keeps no history of a table.", status=404, reason="notFound")
        if not table.db:
            if table.name.lower() in local:
                continue
            if dataset is None:
                raise QueryError(
                    f'Table "{table.name}" must be qualified with a dataset (e.g. dataset.table).',
                    reason="invalid",
                )
            table.set("catalog", exp.to_identifier(dataset[0], quoted=True))
            table.set("db", exp.to_identifier(dataset[1], quoted=True))
        elif not table.catalog:
            table.set("catalog", exp.to_identifier(project, quoted=True))


def _qualify_schema(tree: Tree, project: str) -> None:
    # Where a name in one pair of backticks stands for a dataset, sqlglot does not split it.
    table = tree.find(exp.Table)
    if table is None:
        raise QueryError("Syntax error: a dataset's name is missing.")
    names = [table.args[key].name for key in ("catalog", "db", "this") if table.args.get(key)]
    parts = [part for name in names for part in name.split(".")]
    if len(parts) == 1:
        parts = [project, *parts]
    table.replace(exp.Table(db=exp.to_identifier(parts[0], quoted=True), this=exp.to_identifier(parts[1], quoted=True)))


def _written(tree: Tree) -> tuple[str, str, str] | None:
    if isinstance(tree, exp.Query):
        return None
    target = tree.this if hasattr(tree.this, "find_all") else tree
    table = target.find(exp.Table)
    if table is None:
        return None
    if not table.catalog:
        return table.db, table.name, ""
    return table.catalog, table.db, table.name


def _number_placeholders(sql: str, count: int) -> str:
    """Turn ``?`` into ``@_0``, ``@_1`` ...: the tree that sqlglot makes does not keep the order of the text."""
    if not count or "?" not in sql:
        return sql
    try:
        tokens = sqlglot.tokenize(sql, read="bigquery")
    except SqlglotError:
        return sql
    places = [token.start for token in tokens if token.token_type == sqlglot.TokenType.PLACEHOLDER]
    for number, place in reversed(list(enumerate(places))):
        sql = f"{sql[:place]}@_{number}{sql[place + 1 :]}"
    return sql


def _bind(tree: Tree, parameters: dict[str, Parameter]) -> dict[str, Any]:
    """Put the parameters in with a cast each, because DuckDB would guess the type of NULL or of ``[]``."""
    if tree.find(exp.Placeholder):
        raise QueryError("Query parameter number 1 is not defined")
    values: dict[str, Any] = {}
    for node in list(tree.find_all(exp.Parameter)):
        if isinstance(node.this, exp.Parameter) or isinstance(node.parent, exp.Parameter):
            raise QueryError("The sandbox cannot read system variables.")
        name = node.name.lower()
        if name not in parameters:
            raise QueryError(f"Query parameter '{name}' not found")
        bound = parameters[name]
        values[name] = bound.value
        node.replace(exp.cast(exp.Parameter(this=exp.var(name)), bound.type, dialect="duckdb"))
    return values


def _name_columns(query: Tree) -> None:
    """Name what has no name as BigQuery does: ``f0_``, ``f1_`` ..."""
    nameless = 0
    while isinstance(query, (exp.Subquery, exp.SetOperation)):
        query = query.this
    if not isinstance(query, exp.Select):
        return
    for index, column in enumerate(query.expressions):
        if column.is_star or isinstance(column, (exp.Alias, exp.Column, exp.Dot)):
            continue
        query.expressions[index].replace(exp.alias_(column.copy(), f"f{nameless}_", quoted=True))
        nameless += 1


def _refuse_what_duckdb_lacks(tree: Tree) -> None:
    for node in tree.find_all(exp.Dot, exp.Func, exp.DataType):
        if isinstance(node, exp.DataType):
            if node.this in _SPATIAL_TYPES:
                raise QueryError(f"The sandbox cannot handle the type {node.this.name}: write ST_GEOGPOINT(x, y).")
        elif isinstance(node, exp.Dot):
            if isinstance(node.expression, exp.Func):
                # A function in a dataset, such as those of CARTO's Analytics Toolbox.
                parts = [part.name for part in node.flatten()]
                raise _lacking(".".join(parts))
        else:
            name = node.name if isinstance(node, exp.Anonymous) else node.sql_name()
            # Those that DuckDB has in an extension measure on a plane, and BigQuery on the globe.
            if "." in name or (name.upper().startswith("ST_") and name.upper() != _POINT):
                raise _lacking(name)


#: The one spatial function that measures nothing: with it there is a column of type GEOGRAPHY.
_POINT = "ST_GEOGPOINT"

_SPATIAL_TYPES = (exp.DataType.Type.GEOGRAPHY, exp.DataType.Type.GEOMETRY)


def _lacking(function: str) -> QueryError:
    return QueryError(f"The sandbox cannot run the function {function}: DuckDB has none like it.")


def _put_all_right(tree: Tree) -> None:
    # From the inside out, so that what stands in a replaced node has been put right already.
    for node in reversed(list(tree.dfs())):
        right = _put_right(node)
        if right is not node:
            node.replace(right)


def _put_right(node: Tree) -> Tree:
    if isinstance(node, exp.Literal) and not node.is_string:
        return _number(node)
    if isinstance(node, exp.ByteString) and not node.args.get("is_bytes"):
        # sqlglot before 27 makes a string with escapes of it, which DuckDB does not have.
        return exp.cast(exp.Literal.string(node.this), "BLOB", dialect="duckdb")
    if isinstance(node, exp.DataType) and not node.expressions and node.this in _DECIMALS:
        return exp.DataType.build(_NUMERIC, dialect="duckdb")
    if isinstance(node, (exp.DateAdd, exp.DateSub, exp.DateTrunc)):
        # BigQuery's functions of that name give a DATE; DuckDB's operators give a TIMESTAMP.
        return exp.cast(node, exp.DataType.Type.DATE)
    for kinds, put_right in _RULES:
        if isinstance(node, kinds):
            return put_right(node)
    return node


def _macro(name: str, *arguments: Tree) -> Tree:
    """A call of one of the engine's macros."""
    return exp.Anonymous(this=f"sandbox_{name}", expressions=[argument.copy() for argument in arguments])


def _division(node: Tree) -> Tree:
    divisor = node.expression
    if not (isinstance(divisor, exp.Literal) and not divisor.is_string and float(divisor.this)):
        # DuckDB gives infinity, or NULL.
        node.set("expression", _macro("divisor", divisor))
    return node


def _element(node: Tree) -> Tree:
    if len(node.expressions) != 1 or node.expressions[0].is_string:
        return node  # a part of a JSON value, by its name
    index = node.expressions[0]
    if node.args.get("offset"):
        index = exp.Sub(this=exp.paren(index), expression=exp.Literal.number(1))
    return _macro("safe_element" if node.args.get("safe") else "element", node.this, index)


def _conversion(node: Tree) -> Tree:
    value, to = node.this, node.to
    if to.expressions or node.args.get("format") or value.is_string or isinstance(value, exp.Parameter):
        return node
    if to.this == exp.DataType.Type.BIGINT:
        return _macro("try_int64" if isinstance(node, exp.TryCast) else "int64", value)
    if to.this in (exp.DataType.Type.TEXT, exp.DataType.Type.VARCHAR):
        return _macro("string", value)
    return node


def _timestamp(node: Tree) -> Tree:
    zone = node.args.get("zone")
    if zone is not None and zone.name.upper() != "UTC":
        raise QueryError("The sandbox cannot read timestamps of a time zone other than UTC.")
    # DuckDB gives what is a DATETIME in BigQuery; the session is in UTC.
    return exp.cast(node, exp.DataType.Type.TIMESTAMPTZ)


def _extract(node: Tree) -> Tree:
    part = node.this.sql(dialect="bigquery").upper()
    if part == "DAYOFWEEK":
        # Sunday is 1 in BigQuery, and 0 in DuckDB.
        return exp.paren(exp.Add(this=node.copy(), expression=exp.Literal.number(1)))
    if part == "ISOWEEK":
        return exp.Extract(this=exp.var("WEEK"), expression=node.expression.copy())
    if part.startswith("WEEK"):
        # DuckDB's are those of ISO.
        if part not in _WEEKS:
            raise QueryError(f"The sandbox cannot extract {part}.")
        week = exp.Anonymous(this="STRFTIME", expressions=[node.expression.copy(), exp.Literal.string(_WEEKS[part])])
        return exp.cast(week, exp.DataType.Type.BIGINT)
    return node


_WEEKS = {"WEEK": "%U", "WEEK(SUNDAY)": "%U", "WEEK(MONDAY)": "%W"}


def _function(node: Tree) -> Tree:
    return _macro("geogpoint", *node.expressions) if node.name.upper() == _POINT else node


def _unnest(node: Tree) -> Tree:
    """``UNNEST(...) WITH OFFSET`` counts from 0; DuckDB's ``WITH ORDINALITY`` counts from 1."""
    offset = node.args.get("offset")
    if not offset:
        return node
    alias = node.args.get("alias")
    columns = alias.columns if alias else []
    name = columns[0] if columns else alias and alias.this
    if not name:
        raise QueryError("The sandbox cannot run UNNEST WITH OFFSET without a name: write UNNEST(...) AS name.")
    [array] = node.expressions
    length = exp.Anonymous(this="LEN", expressions=[array.copy()])
    numbers = exp.Anonymous(this="RANGE", expressions=[length])
    parts = [
        exp.alias_(exp.Anonymous(this="UNNEST", expressions=[values.copy()]), column.copy())
        for values, column in ((array, name), (numbers, offset))
    ]
    join = node.parent
    if isinstance(join, exp.Join) and join.side and not (join.args.get("on") or join.args.get("using")):
        # BigQuery lets a join with an array go without a condition, DuckDB does not.
        join.set("on", exp.true())
    # A name that no table has: the array's name must mean its element.
    return exp.Subquery(this=exp.Select(expressions=parts), alias=exp.TableAlias(this=exp.to_identifier("_unnested")))


_RULES: tuple[tuple[Any, Callable[[Tree], Tree]], ...] = (
    ((exp.Div, exp.IntDiv, exp.Mod), _division),
    (exp.Bracket, _element),
    ((exp.Cast, exp.TryCast), _conversion),
    ((exp.StrToTime, exp.UnixToTime), _timestamp),
    (exp.Extract, _extract),
    (exp.Unnest, _unnest),
    (exp.Anonymous, _function),
    # DuckDB takes CURRENT_TIMESTAMP for a column of that name, where there is one.
    (exp.CurrentTimestamp, lambda node: exp.Anonymous(this="NOW")),
)


_DECIMALS = (exp.DataType.Type.DECIMAL, exp.DataType.Type.BIGDECIMAL)


def _number(node: Tree) -> Tree:
    text = str(node.this)
    if "." in text and "e" not in text.lower():
        # 1.5 is FLOAT64 in BigQuery, and DECIMAL in DuckDB unless it has an exponent.
        return exp.Literal.number(f"{text}e0")
    if text.isdigit() and isinstance(node.parent, (exp.Add, exp.Sub, exp.Mul)):
        # Integers are of 64 bits in BigQuery; DuckDB makes the small ones 32, and overflows.
        return exp.cast(node, exp.DataType.Type.BIGINT)
    return node
