"""Load jobs: what Google's client uploads (Parquet of a data frame, JSON lines) becomes a table."""

from __future__ import annotations

import io
import json
from importlib import import_module
from typing import TYPE_CHECKING, Any

from carto_auth.sandbox.bigquery_types import QueryError, column_type, quote

if TYPE_CHECKING:
    from carto_auth.sandbox.engine import Engine

#: BigQuery's default for load jobs.
_DEFAULT_WRITE = "WRITE_APPEND"


def load(engine: Engine, configuration: dict[str, Any], data: bytes) -> int:
    """Run a load job.

    Args:
        engine: where the table is.
        configuration: the ``load`` part of the job's configuration.
        data: what was uploaded.

    Returns:
        The number of rows that were added.

    Raises:
        QueryError: the job failed, or the sandbox cannot do it.
    """
    table = configuration.get("destinationTable") or {}
    path = tuple(str(table.get(key, "")) for key in ("projectId", "datasetId", "tableId"))
    fields = (configuration.get("schema") or {}).get("fields") or []
    columns = [(str(field["name"]), column_type(field)) for field in fields]
    rows = _read(str(configuration.get("sourceFormat", "CSV")), data, [name for name, _ in columns])
    return engine.append(
        (path[0], path[1], path[2]),
        rows,
        columns=", ".join(f"{quote(name)} {kind}" for name, kind in columns),
        create=configuration.get("createDisposition") != "CREATE_NEVER",
        write=str(configuration.get("writeDisposition") or _DEFAULT_WRITE),
    )


def _read(source_format: str, data: bytes, names: list[str]) -> Any:
    """The upload as an Arrow table."""
    try:
        # Not imported by a statement: it has no types, and it is not a dependency; whoever loads data frames has it.
        pyarrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    except ModuleNotFoundError as error:
        raise QueryError("The sandbox cannot load data without the package pyarrow.", reason="invalid") from error
    try:
        if source_format == "PARQUET":
            return parquet.read_table(io.BytesIO(data))
        if source_format == "NEWLINE_DELIMITED_JSON":
            return pyarrow.Table.from_pylist(_json_rows(data, names))
    except (pyarrow.ArrowException, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise QueryError(f"Error while reading data: {error}", reason="invalid") from error
    raise QueryError(f"The sandbox cannot load {source_format}, only Parquet and JSON lines.", reason="invalid")


def _json_rows(data: bytes, names: list[str]) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in data.decode().splitlines() if line.strip()]
    if not all(isinstance(row, dict) for row in rows):
        raise QueryError("Error while reading data: a line is not a JSON object.", reason="invalid")
    found = dict.fromkeys(name for row in rows for name in row)
    for name in found:
        if names and name not in names:
            raise QueryError(f"Error while reading data: No such field: {name}.", reason="invalid")
    # pyarrow takes the names of the columns from the first row, and not every row has every field.
    return [{name: row.get(name) for name in names or found} for row in rows]
