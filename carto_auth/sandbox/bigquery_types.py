"""BigQuery's types: from DuckDB's to a schema, from Python values to cells, from query parameters to values."""

from __future__ import annotations

import base64
import datetime
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

_EPOCH = datetime.datetime(1970, 1, 1)  # noqa: DTZ001 - DuckDB gives naive values, and they are UTC


class QueryError(Exception):
    """A query failed; in BigQuery's words.

    Attributes:
        status: the HTTP status.
        reason: BigQuery's code for it, such as ``invalidQuery``.
        message: for a person.
    """

    def __init__(self, message: str, *, status: int = 400, reason: str = "invalidQuery") -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.reason = reason


@dataclass(frozen=True)
class Field:
    """A column, or a part of one.

    Attributes:
        name: of the column.
        type: BigQuery's name, as its REST API has it (``INTEGER``, ``RECORD`` ...).
        repeated: whether it is an array of that.
        fields: the parts of a ``RECORD``.
        duckdb: DuckDB's name of the type, with which Python can get it.
    """

    name: str
    type: str
    repeated: bool = False
    fields: tuple[Field, ...] = ()
    duckdb: str = ""

    def resource(self) -> dict[str, Any]:
        """The field in a schema of the REST API."""
        resource: dict[str, Any] = {
            "name": self.name,
            "type": self.type,
            "mode": "REPEATED" if self.repeated else "NULLABLE",
        }
        if self.fields:
            resource["fields"] = [field.resource() for field in self.fields]
        return resource


#: From DuckDB's types to BigQuery's. DuckDB makes HUGEINT of a sum of integers, which is INT64 in BigQuery.
_SCALARS = {
    "boolean": "BOOLEAN",
    "tinyint": "INTEGER",
    "smallint": "INTEGER",
    "integer": "INTEGER",
    "bigint": "INTEGER",
    "hugeint": "INTEGER",
    "utinyint": "INTEGER",
    "usmallint": "INTEGER",
    "uinteger": "INTEGER",
    "ubigint": "INTEGER",
    "uhugeint": "INTEGER",
    "float": "FLOAT",
    "double": "FLOAT",
    "varchar": "STRING",
    "uuid": "STRING",
    "enum": "STRING",
    "blob": "BYTES",
    "date": "DATE",
    "time": "TIME",
    "timestamp": "DATETIME",
    "timestamp_s": "DATETIME",
    "timestamp_ms": "DATETIME",
    "timestamp_ns": "DATETIME",
    "timestamp with time zone": "TIMESTAMP",
}


#: The one part of the STRUCT that DuckDB has in the place of a GEOGRAPHY.
GEOGRAPHY = "geography as text"

_WIDER_THAN_INT64 = ("hugeint", "ubigint", "uhugeint")


def field_from_duckdb(name: str, duckdb_type: Any) -> Field:
    """A column's field from its DuckDB type."""
    kind = str(duckdb_type.id).lower()
    text = str(duckdb_type)
    if kind in ("list", "array"):
        child = dict(duckdb_type.children)["child"]
        element = field_from_duckdb(name, child)
        if element.repeated:
            raise QueryError("Cannot construct array with element type ARRAY: BigQuery has no arrays of arrays.")
        return Field(name, element.type, True, element.fields, f"{element.duckdb}[]")
    if kind == "struct" and duckdb_type.children[0][0] == GEOGRAPHY:
        return Field(name, "GEOGRAPHY", False, (), text)
    if kind == "struct":
        parts = tuple(field_from_duckdb(part, child) for part, child in duckdb_type.children)
        inside = ", ".join(f"{quote(part.name)} {part.duckdb}" for part in parts)
        return Field(name, "RECORD", False, parts, f"STRUCT({inside})")
    if text.strip('"') == "NULL":
        # NULL without a type is INT64 in BigQuery.
        return Field(name, "INTEGER", False, (), "BIGINT")
    if text == "JSON":
        return Field(name, "JSON", False, (), "JSON")
    if kind == "decimal":
        digits = dict(duckdb_type.children)
        fits = digits["scale"] <= 9 and digits["precision"] - digits["scale"] <= 29
        return Field(name, "NUMERIC" if fits else "BIGNUMERIC", False, (), text)
    if kind not in _SCALARS:
        raise QueryError(f"The sandbox cannot return the column {name!r}: it has DuckDB's type {text}.")
    if kind in _WIDER_THAN_INT64:
        # What does not fit is BigQuery's overflow, and here the cast's.
        return Field(name, "INTEGER", False, (), "BIGINT")
    # Python gets DuckDB's TIMESTAMPTZ only with pytz, which nothing else here needs; the session is in UTC.
    return Field(name, _SCALARS[kind], False, (), "TIMESTAMP" if _SCALARS[kind] == "TIMESTAMP" else text)


def quote(name: str) -> str:
    """A name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


# -- values for the client


def row_resource(row: Sequence[Any], fields: Sequence[Field], timestamps: str) -> dict[str, Any]:
    """A row of a result. ``timestamps`` is the format asked for: INT64, ISO8601_STRING or FLOAT64."""
    return {"f": [{"v": _cell(value, field, timestamps)} for value, field in zip(row, fields, strict=True)]}


def refuse_null_elements(rows: Sequence[Sequence[Any]], fields: Sequence[Field]) -> None:
    """Refuse a result with NULL in an array, as BigQuery does.

    Raises:
        QueryError: there is one.
    """
    for place, field in enumerate(fields):
        if field.repeated or field.fields:
            for row in rows:
                _refuse_null_elements(row[place], field, field.name)


def _refuse_null_elements(value: Any, field: Field, path: str) -> None:
    elements = value if field.repeated else [value]
    for element in elements or ():
        if element is None:
            if field.repeated:
                raise QueryError(f"Array cannot have a null element; error in writing field {path}")
            continue
        if field.fields:
            parts = element.values() if isinstance(element, dict) else element
            for part, part_field in zip(parts, field.fields, strict=True):
                _refuse_null_elements(part, part_field, f"{path}.{part_field.name}")


def _cell(value: Any, field: Field, timestamps: str) -> Any:
    if field.repeated:
        # BigQuery has no NULL for arrays in a result: it gives an empty one.
        return [{"v": _single(element, field, timestamps)} for element in value or ()]
    return _single(value, field, timestamps)


def _single(value: Any, field: Field, timestamps: str) -> Any:
    if value is None:
        return None
    if field.type == "RECORD":
        parts = list(value.values()) if isinstance(value, dict) else list(value)
        return row_resource(parts, field.fields, timestamps)
    if field.type == "GEOGRAPHY":
        return value[GEOGRAPHY]
    if field.type == "BOOLEAN":
        return "true" if value else "false"
    if field.type == "FLOAT":
        return _float(value)
    if field.type in ("NUMERIC", "BIGNUMERIC"):
        return _numeric(value)
    if field.type == "BYTES":
        return base64.b64encode(value).decode()
    if field.type == "TIMESTAMP":
        return _timestamp(value, timestamps)
    if field.type in ("DATETIME", "DATE", "TIME"):
        return value.isoformat()
    return str(value)


def _float(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return repr(value)


def _numeric(value: Decimal) -> str:
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def _timestamp(value: datetime.datetime, timestamps: str) -> str:
    if timestamps == "ISO8601_STRING":
        return f"{value.isoformat(timespec='microseconds')}Z"
    microseconds = (value - _EPOCH) // datetime.timedelta(microseconds=1)
    return str(microseconds) if timestamps == "INT64" else repr(microseconds / 1_000_000)


# -- values from the client

#: From BigQuery's types, under both their SQL and their REST names, to DuckDB's.
_DUCKDB_TYPES = {
    "INT64": "BIGINT",
    "INTEGER": "BIGINT",
    "FLOAT64": "DOUBLE",
    "FLOAT": "DOUBLE",
    "NUMERIC": "DECIMAL(38, 9)",
    "BIGNUMERIC": "DECIMAL(38, 9)",
    "BOOL": "BOOLEAN",
    "BOOLEAN": "BOOLEAN",
    "STRING": "VARCHAR",
    "BYTES": "BLOB",
    "DATE": "DATE",
    "TIME": "TIME",
    "DATETIME": "TIMESTAMP",
    "TIMESTAMP": "TIMESTAMPTZ",
    "JSON": "JSON",
}


@dataclass(frozen=True)
class Parameter:
    """A query parameter: its name (``None`` if positional), DuckDB's type and a value DuckDB can cast to it."""

    name: str | None
    type: str
    value: Any


def parameter(resource: dict[str, Any]) -> Parameter:
    """A query parameter from its REST resource."""
    kind = resource.get("parameterType", {})
    value = _parameter_value(kind, resource.get("parameterValue", {}))
    return Parameter(resource.get("name") or None, _parameter_type(kind), value)


def _parameter_type(kind: dict[str, Any]) -> str:
    name = str(kind.get("type", ""))
    if name == "ARRAY":
        return f"{_parameter_type(kind.get('arrayType', {}))}[]"
    if name == "STRUCT":
        parts = (f"{quote(p.get('name', ''))} {_parameter_type(p['type'])}" for p in kind.get("structTypes", []))
        return f"STRUCT({', '.join(parts)})"
    return scalar_type(name)


def scalar_type(name: str) -> str:
    """DuckDB's type for one of BigQuery's."""
    if name not in _DUCKDB_TYPES:
        raise QueryError(f"The sandbox cannot handle the type {name or '(none)'}.", reason="invalid")
    return _DUCKDB_TYPES[name]


def column_type(resource: dict[str, Any]) -> str:
    """DuckDB's type for a field of a schema of the REST API."""
    if resource.get("type") in ("RECORD", "STRUCT"):
        parts = (f"{quote(str(part['name']))} {column_type(part)}" for part in resource.get("fields", []))
        element = f"STRUCT({', '.join(parts)})"
    else:
        element = scalar_type(str(resource.get("type")))
    return f"{element}[]" if resource.get("mode") == "REPEATED" else element


def _parameter_value(kind: dict[str, Any], value: dict[str, Any] | None) -> Any:
    value = value or {}
    name = kind.get("type")
    if name == "ARRAY":
        return [_parameter_value(kind.get("arrayType", {}), element) for element in value.get("arrayValues", [])]
    if name == "STRUCT":
        values = value.get("structValues", {})
        return {p["name"]: _parameter_value(p["type"], values.get(p["name"])) for p in kind.get("structTypes", [])}
    return scalar_value(str(name), value.get("value"))


def scalar_value(name: str, value: Any) -> Any:
    """A value that DuckDB can cast, from the text that the REST API has for it."""
    if value is None:
        return None
    try:
        if name in ("INT64", "INTEGER"):
            return int(value)
        if name in ("FLOAT64", "FLOAT"):
            return float(value)
        if name in ("BOOL", "BOOLEAN"):
            return value if isinstance(value, bool) else str(value).lower() in ("true", "t", "1")
        if name == "BYTES":
            return base64.b64decode(value)
        if name == "JSON" and not isinstance(value, str):
            return json.dumps(value)
    except (TypeError, ValueError) as error:
        raise QueryError(f"Could not convert {value!r} to {name}.", reason="invalid") from error
    return str(value)
