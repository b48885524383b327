"""CARTO's SQL API on the sandbox's warehouse, for OAuth tokens and, within their grants, for API access tokens."""

from __future__ import annotations

import base64
import datetime
import json
import math
import re
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from flask import Blueprint, Response, request

from carto_auth.sandbox.accounts import api_error
from carto_auth.sandbox.bigquery_types import GEOGRAPHY, QueryError
from carto_auth.sandbox.jwt_tokens import bearer_token
from carto_auth.sandbox.state import PROJECT_ID

if TYPE_CHECKING:
    from carto_auth.sandbox.bigquery_types import Field
    from carto_auth.sandbox.engine import Engine
    from carto_auth.sandbox.jwt_tokens import TokenMint
    from carto_auth.sandbox.state import ApiToken, State

#: What the warehouse's connection is called in this API.
CONNECTION = "carto_dw"


def create_blueprint(state: State, mint: TokenMint, engine: Engine) -> Blueprint:
    """``/v3/sql/<connection>/query``."""
    blueprint = Blueprint("sql_api", __name__)

    @blueprint.errorhandler(QueryError)
    def failed(error: QueryError) -> Response:
        return api_error(error.status, error.message)

    @blueprint.route("/v3/sql/<connection>/query", methods=["GET", "POST"])
    def query(connection: str) -> Response:
        token = bearer_token(request)
        api_token = state.api_token(token)
        if api_token is None and mint.verify(token) is None:
            return api_error(401, "Unauthorized")
        sql = _sql()
        if api_token is not None:
            _require_allowed(api_token, connection, sql)
        if connection != CONNECTION or not state.switches.has_warehouse:
            return api_error(404, f"Connection {connection} not found")
        result = engine.run(sql)
        rows = [dict(zip((f.name for f in result.fields), map(_plain, row), strict=True)) for row in result.rows]
        answer = {"rows": rows, "schema": [_column(field) for field in result.fields]}
        # Not jsonify, which sorts: the columns of a row come in their order.
        return Response(json.dumps(answer), mimetype="application/json")

    return blueprint


def _sql() -> str:
    body = request.get_json(silent=True) if request.is_json else None
    sql = body.get("q") if isinstance(body, dict) else request.values.get("q")
    if not isinstance(sql, str) or not sql.strip():
        raise QueryError("Missing parameter: q")
    return sql


def _require_allowed(token: ApiToken, connection: str, sql: str) -> None:
    """Refuse what an API access token was not made for."""
    if "sql" not in token.allowed_apis:
        raise _denied("this token is not for the SQL API")
    if token.referers and _site(request.headers.get("Referer", "")) not in token.referers:
        raise QueryError("Unauthorized referer", status=403, reason="accessDenied")
    sources = [source for name, source in token.grants if name == connection]
    if any(_is_same_sql(source, sql) for source in sources):
        return
    from carto_auth.sandbox.dialect import tables_read

    for table in tables_read(sql, project=PROJECT_ID):
        if not any(_covers(source, table) for source in sources):
            raise _denied(f"this token does not read {table}")
    if not sources:
        raise _denied(f"this token does not read {connection}")


def _denied(reason: str) -> QueryError:
    return QueryError(f"Forbidden: {reason}", status=403, reason="accessDenied")


def _site(address: str) -> str:
    """The origin of a page. It is compared exactly: a referer with a slash at its end fits none."""
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc}".lower()


def _is_same_sql(source: str, sql: str) -> bool:
    """Whether a granted query is the one that is asked, but for blanks. Its ``*`` is SQL's."""
    return _squeezed(source) == _squeezed(sql)


def _squeezed(sql: str) -> str:
    return " ".join(sql.split()).rstrip("; ")


def _covers(source: str, table: str) -> bool:
    """Whether a granted table, in which ``*`` stands for any part of the name, is or includes ``table``."""
    name = source.replace("`", "").strip()
    if name != "*" and name.count(".") == 1:
        name = f"{PROJECT_ID}.{name}"
    pattern = ".*".join(re.escape(part) for part in name.split("*"))
    return re.fullmatch(pattern, table) is not None


def _column(field: Field) -> dict[str, Any]:
    return {"name": field.name, "type": field.type.lower()}


def _plain(value: Any) -> Any:
    """A value that JSON has."""
    if isinstance(value, dict) and GEOGRAPHY in value:
        return value[GEOGRAPHY]
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, (bytes, bytearray)):
        return base64.b64encode(value).decode()
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
