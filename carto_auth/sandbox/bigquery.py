"""As much of BigQuery's REST API as Google's own client needs to run SQL, and to load, in the sandbox's warehouse."""

from __future__ import annotations

import json
import secrets
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flask import Blueprint, Response, jsonify, request
from werkzeug.http import parse_options_header

from carto_auth.sandbox import loads, sample
from carto_auth.sandbox.bigquery_types import Field, QueryError, parameter, row_resource
from carto_auth.sandbox.engine import Engine, Result
from carto_auth.sandbox.jwt_tokens import bearer_token
from carto_auth.sandbox.state import PROJECT_ID

if TYPE_CHECKING:
    from collections.abc import Callable

    from carto_auth.sandbox.state import State

#: Under these paths errors have BigQuery's shape.
PREFIXES = ("/bigquery/", "/upload/bigquery/")

#: Jobs whose results are kept.
MAX_JOBS = 500

#: Uploads under way, and bytes of each.
MAX_UPLOADS = 20
LARGEST_UPLOAD = 256 * 1024 * 1024

_PROJECTS = (PROJECT_ID, sample.PROJECT)


@dataclass
class Job:
    """A job that ran. BigQuery's jobs go on after the answer; the sandbox's are done by then."""

    id: str
    location: str
    configuration: dict[str, Any]
    created: int
    result: Result = field(default_factory=lambda: Result("SELECT"))
    loaded: int | None = None
    error: QueryError | None = None

    @property
    def reference(self) -> dict[str, str]:
        return {"projectId": PROJECT_ID, "jobId": self.id, "location": self.location}

    def resource(self) -> dict[str, Any]:
        """The job in the REST API."""
        status: dict[str, Any] = {"state": "DONE"}
        if self.error:
            problem = _problem(self.error)
            status |= {"errorResult": problem, "errors": [problem]}
        if "load" in self.configuration:
            statistics = {"load": {"outputRows": str(self.loaded or 0)}}
        else:
            statistics = {"query": self._query_statistics()}
        return {
            "kind": "bigquery#job",
            "id": f"{PROJECT_ID}:{self.location}.{self.id}",
            "jobReference": self.reference,
            "configuration": self.configuration | self._anonymous_table(),
            "status": status,
            "statistics": {
                "creationTime": str(self.created),
                "startTime": str(self.created),
                "endTime": str(self.created),
                "totalBytesProcessed": "0",
                **statistics,
            },
        }

    def _anonymous_table(self) -> dict[str, Any]:
        """Where BigQuery keeps the result of a query: Ibis runs ``SELECT 1`` without the cache to learn of the dataset.

        No other query tells: Google's client would fetch its rows by the Storage API, which the sandbox has not.
        """
        query = self.configuration.get("query") or {}
        if query.get("query") != "SELECT 1" or query.get("useQueryCache") is not False:
            return {}
        table = {"projectId": PROJECT_ID, "datasetId": "_anonymous", "tableId": f"anon_{self.id}"}
        return {"query": {**query, "destinationTable": table}}

    def _query_statistics(self) -> dict[str, Any]:
        query: dict[str, Any] = {
            "statementType": self.result.kind,
            "totalBytesProcessed": "0",
            "totalBytesBilled": "0",
            "cacheHit": False,
        }
        if self.result.affected is not None:
            query["numDmlAffectedRows"] = str(self.result.affected)
        if self.configuration.get("dryRun"):
            query["schema"] = _schema(self.result.fields)
        return query

    def page(self, start: int, size: int | None, timestamps: str) -> dict[str, Any]:
        """Rows of the result, in the shape that jobs.query and getQueryResults share."""
        if self.error:
            raise self.error
        page: dict[str, Any] = {
            "jobReference": self.reference,
            "jobComplete": True,
            "cacheHit": False,
            "totalBytesProcessed": "0",
            "schema": _schema(self.result.fields),
        }
        if self.result.kind == "SELECT":
            rows = self.result.rows
            end = len(rows) if size is None else min(len(rows), start + size)
            page["totalRows"] = str(len(rows))
            # Google's client asks for 0 rows to wait for a job, and takes "rows": [] for the whole result.
            if size != 0:
                page["rows"] = [row_resource(row, self.result.fields, timestamps) for row in rows[start:end]]
                if end < len(rows):
                    page["pageToken"] = str(end)
        if self.result.affected is not None:
            page["numDmlAffectedRows"] = str(self.result.affected)
        return page


class Jobs:
    """The jobs of one sandbox; the oldest are forgotten first."""

    def __init__(self, state: State, engine: Engine) -> None:
        self._state = state
        self._engine = engine
        self._lock = threading.Lock()
        self._jobs: dict[str, Job] = {}

    def run(self, body: dict[str, Any], data: bytes | None = None) -> Job:
        """Run a job, and keep what came of it under its id.

        Args:
            body: the job's REST resource, as the client sends it.
            data: what was uploaded with it.
        """
        reference = body.get("jobReference") or {}
        configuration = body.get("configuration") or {}
        job = Job(
            str(reference.get("jobId") or f"job_{secrets.token_urlsafe(16)}"),
            str(reference.get("location") or "US"),
            {**configuration, "jobType": "LOAD" if "load" in configuration else "QUERY"},
            int(self._state.now() * 1000),
        )
        with self._lock:
            if job.id in self._jobs:
                raise QueryError(f"Already Exists: Job {PROJECT_ID}:{job.id}", status=409, reason="duplicate")
            self._jobs[job.id] = job
            while len(self._jobs) > MAX_JOBS:
                del self._jobs[next(iter(self._jobs))]
        try:
            if "load" in configuration and data is not None:
                job.loaded = loads.load(self._engine, configuration["load"], data)
            else:
                job.result = self._query(configuration)
        except QueryError as error:
            if configuration.get("dryRun"):
                # There is no job to ask about later, so this answer has to tell.
                self._forget(job)
                raise
            job.error = error
        except Exception as error:
            # An error that nobody thought of: a 500 would make the client try again for minutes.
            job.error = QueryError(f"The sandbox cannot run this query: {type(error).__name__}: {error}")
        return job

    def _forget(self, job: Job) -> None:
        with self._lock:
            self._jobs.pop(job.id, None)

    def get(self, job_id: str) -> Job:
        """A job that was run before."""
        with self._lock:
            job = self._jobs.get(job_id)
        if job is None:
            raise QueryError(f"Not found: Job {PROJECT_ID}:{job_id}", status=404, reason="notFound")
        return job

    def _query(self, configuration: dict[str, Any]) -> Result:
        query = configuration.get("query")
        if not isinstance(query, dict):
            raise QueryError("The sandbox cannot run this job: only queries, and loads of uploads.", reason="invalid")
        # Without this key BigQuery's REST API takes a query for legacy SQL; Google's client always sends it.
        if query.get("useLegacySql", False):
            raise QueryError("The sandbox cannot run legacy SQL.", reason="invalid")
        if "destinationTable" in query:
            raise QueryError("The sandbox cannot write to a destination table: use CREATE TABLE ... AS.")
        default = query.get("defaultDataset")
        return self._engine.run(
            str(query.get("query", "")),
            parameters=[parameter(p) for p in query.get("queryParameters", [])],
            dataset=(default.get("projectId", PROJECT_ID), default["datasetId"]) if default else None,
            dry=bool(configuration.get("dryRun")),
        )


@dataclass
class Upload:
    """A resumable upload under way: the job it is for, and the bytes so far."""

    job: dict[str, Any]
    data: bytearray = field(default_factory=bytearray)

    def is_complete(self, content_range: str) -> bool:
        """Whether these are all bytes; the total is ``*`` in all requests but the last."""
        total = content_range.rpartition("/")[2]
        return total.isdigit() and len(self.data) >= int(total)


def create_blueprint(state: State, engine: Engine) -> Blueprint:
    """``/bigquery/v2``: jobs, uploads, results, datasets and tables."""
    blueprint = Blueprint("bigquery", __name__)
    jobs = Jobs(state, engine)
    uploads: dict[str, Upload] = {}
    root = "/bigquery/v2/projects/<project>"

    @blueprint.before_request
    def authorize() -> Response | None:
        if not state.knows_warehouse_token(bearer_token(request)):
            return error_response(
                401,
                "authError",
                "Request had invalid authentication credentials. Expected OAuth 2 access token.",
            )
        project = (request.view_args or {}).get("project", PROJECT_ID)
        allowed = _PROJECTS if request.method == "GET" else (PROJECT_ID,)
        if project not in allowed:
            return error_response(403, "accessDenied", f"Access Denied: Project {project}: no permission in it.")
        return None

    @blueprint.errorhandler(QueryError)
    def failed(error: QueryError) -> Response:
        return error_response(error.status, error.reason, error.message)

    @blueprint.get("/bigquery/v2/projects")
    def list_projects() -> Response:
        found = [_project(number, name) for number, name in enumerate(_PROJECTS, 1)]
        return jsonify(kind="bigquery#projectList", projects=found, totalItems=len(found))

    @blueprint.post(f"{root}/jobs")
    def insert_job(project: str) -> Response:
        return jsonify(jobs.run(_body()).resource())

    @blueprint.get(f"{root}/jobs/<job_id>")
    def get_job(project: str, job_id: str) -> Response:
        return jsonify(jobs.get(job_id).resource())

    @blueprint.post(f"{root}/jobs/<job_id>/cancel")
    def cancel_job(project: str, job_id: str) -> Response:
        return jsonify(kind="bigquery#jobCancelResponse", job=jobs.get(job_id).resource())

    @blueprint.post(f"/upload{root}/jobs")
    def upload(project: str) -> Response:
        if request.args.get("uploadType") == "multipart":
            job, data = _multipart()
            return jsonify(jobs.run(job, data).resource())
        upload_id = secrets.token_urlsafe(16)
        uploads[upload_id] = Upload(_body())
        if len(uploads) > MAX_UPLOADS:
            uploads.pop(next(iter(uploads)), None)
        response = jsonify({})
        response.headers["Location"] = f"{request.base_url}?uploadType=resumable&upload_id={upload_id}"
        return response

    @blueprint.put(f"/upload{root}/jobs")
    def continue_upload(project: str) -> Response:
        upload_id = request.args.get("upload_id", "")
        if upload_id not in uploads:
            raise QueryError("Not found: this upload", status=404, reason="notFound")
        found = uploads[upload_id]
        found.data += request.get_data()
        if len(found.data) > LARGEST_UPLOAD:
            uploads.pop(upload_id, None)
            raise QueryError(f"The sandbox cannot take more than {LARGEST_UPLOAD >> 20} MiB.", status=413)
        if not found.is_complete(request.headers.get("Content-Range", "")):
            response = jsonify({})
            # 308 is Google's "go on", and the header tells how far it got.
            response.status_code = 308
            response.headers["Range"] = f"bytes=0-{len(found.data) - 1}"
            return response
        uploads.pop(upload_id, None)
        return jsonify(jobs.run(found.job, bytes(found.data)).resource())

    @blueprint.get(f"{root}/queries/<job_id>")
    def get_query_results(project: str, job_id: str) -> Response:
        page = jobs.get(job_id).page(*_window(), _timestamps(request.args.get))
        return jsonify(kind="bigquery#getQueryResultsResponse", **page)

    @blueprint.post(f"{root}/queries")
    def query(project: str) -> Response:
        body = _body()
        keys = ("query", "queryParameters", "defaultDataset", "useLegacySql", "destinationTable")
        configuration = {"query": {key: body[key] for key in keys if key in body}, "dryRun": bool(body.get("dryRun"))}
        job = jobs.run({"jobReference": {"location": body.get("location")}, "configuration": configuration})
        options = body.get("formatOptions") or {}
        size = body.get("maxResults")
        page = job.page(0, int(size) if size is not None else None, _timestamps(lambda k: options.get(k[14:])))
        return jsonify(kind="bigquery#queryResponse", **page)

    @blueprint.get(f"{root}/datasets")
    def list_datasets(project: str) -> Response:
        found = [_dataset(project, name) for name in engine.datasets(project)]
        return jsonify(kind="bigquery#datasetList", datasets=found)

    @blueprint.post(f"{root}/datasets")
    def insert_dataset(project: str) -> Response:
        name = str(_body().get("datasetReference", {}).get("datasetId", ""))
        engine.create_dataset(name)
        return jsonify(_dataset(project, name))

    @blueprint.get(f"{root}/datasets/<dataset>")
    def get_dataset(project: str, dataset: str) -> Response:
        _require_dataset(project, dataset)
        return jsonify(_dataset(project, dataset))

    @blueprint.get(f"{root}/datasets/<dataset>/tables")
    def list_tables(project: str, dataset: str) -> Response:
        _require_dataset(project, dataset)
        found = [_table(project, dataset, name, kind) for name, kind in engine.tables(project, dataset)]
        return jsonify(kind="bigquery#tableList", tables=found, totalItems=len(found))

    @blueprint.get(f"{root}/datasets/<dataset>/tables/<table>")
    def get_table(project: str, dataset: str, table: str) -> Response:
        result = engine.table_rows(project, dataset, table)
        kinds = dict(engine.tables(project, dataset))
        resource = _table(project, dataset, table, kinds.get(table, "TABLE"))
        return jsonify(**resource, schema=_schema(result.fields), numRows=str(len(result.rows)), location="US")

    @blueprint.get(f"{root}/datasets/<dataset>/tables/<table>/data")
    def list_rows(project: str, dataset: str, table: str) -> Response:
        result = _selected(engine.table_rows(project, dataset, table), request.args.get("selectedFields"))
        job = Job("", "US", {}, 0, result)
        page = job.page(*_window(), _timestamps(request.args.get))
        kept = {key: page[key] for key in ("totalRows", "rows", "pageToken") if key in page}
        return jsonify(kind="bigquery#tableDataList", **kept)

    @blueprint.route(f"{root}/<path:rest>", methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
    def nothing_else(project: str, rest: str) -> Response:
        raise QueryError(f"The sandbox cannot do {request.method} {rest} of BigQuery's API.", reason="notImplemented")

    def _require_dataset(project: str, dataset: str) -> None:
        if dataset not in engine.datasets(project):
            raise QueryError(f"Not found: Dataset {project}:{dataset}", status=404, reason="notFound")

    return blueprint


def error_response(status: int, reason: str, message: str) -> Response:
    """An error in the shape of Google's APIs."""
    response = jsonify(
        error={
            "code": status,
            "message": message,
            "errors": [{"message": message, "domain": "global", "reason": reason}],
            "status": _STATUS_NAMES.get(status, "UNKNOWN"),
        }
    )
    response.status_code = status
    return response


_STATUS_NAMES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ALREADY_EXISTS",
    503: "UNAVAILABLE",
}


def _body() -> dict[str, Any]:
    body = request.get_json(silent=True)
    if not isinstance(body, dict):
        raise QueryError("The request's body is not a JSON object.", reason="parseError")
    return body


def _multipart() -> tuple[dict[str, Any], bytes]:
    """The job and the data of a ``multipart/related`` upload: two parts, in this order."""
    boundary = parse_options_header(request.headers.get("Content-Type"))[1].get("boundary", "")
    parts = request.get_data().split(b"--" + boundary.encode(), 2)
    try:
        if not boundary:
            raise ValueError("no boundary")
        job = json.loads(parts[1].partition(b"\r\n\r\n")[2])
        content = parts[2].partition(b"\r\n\r\n")[2]
        end = content.rindex(b"\r\n--" + boundary.encode())
    except (IndexError, ValueError) as error:
        raise QueryError("The upload is not a multipart/related message.", reason="parseError") from error
    return job, content[:end]


def _window() -> tuple[int, int | None]:
    """The first row and the number of rows that a GET asks for."""
    try:
        start = int(request.args.get("pageToken") or request.args.get("startIndex") or 0)
        size = request.args.get("maxResults")
        window = (start, int(size) if size is not None else None)
    except ValueError as error:
        raise QueryError("pageToken, startIndex and maxResults must be numbers.", reason="invalid") from error
    if min(window[0], window[1] or 0) < 0:
        raise QueryError("pageToken, startIndex and maxResults must not be negative.", reason="invalid")
    return window


def _selected(result: Result, names: str | None) -> Result:
    """The columns that ``selectedFields`` names, in the schema's order."""
    if not names:
        return result
    wanted = {name.strip().lower() for name in names.split(",")}
    unknown = wanted - {field.name.lower() for field in result.fields}
    if any("." in name for name in unknown):
        raise QueryError("The sandbox cannot select a part of a column.", reason="invalid")
    if unknown:
        raise QueryError(f"Selected fields not found in the schema: {', '.join(sorted(unknown))}", reason="invalid")
    places = [place for place, field in enumerate(result.fields) if field.name.lower() in wanted]
    rows = [tuple(row[place] for place in places) for row in result.rows]
    return Result(result.kind, [result.fields[place] for place in places], rows)


def _timestamps(option: Callable[[str], Any]) -> str:
    if str(option("formatOptions.useInt64Timestamp")).lower() == "true":
        return "INT64"
    return str(option("formatOptions.timestampOutputFormat") or "FLOAT64")


def _problem(error: QueryError) -> dict[str, str]:
    return {"reason": error.reason, "message": error.message}


def _schema(fields: list[Field]) -> dict[str, Any]:
    return {"fields": [f.resource() for f in fields]}


def _project(number: int, name: str) -> dict[str, Any]:
    return {
        "kind": "bigquery#project",
        "id": name,
        "numericId": str(number),
        "projectReference": {"projectId": name},
        "friendlyName": name,
    }


def _dataset(project: str, name: str) -> dict[str, Any]:
    return {
        "kind": "bigquery#dataset",
        "id": f"{project}:{name}",
        "datasetReference": {"projectId": project, "datasetId": name},
        "location": "US",
    }


def _table(project: str, dataset: str, name: str, kind: str) -> dict[str, Any]:
    return {
        "kind": "bigquery#table",
        "id": f"{project}:{dataset}.{name}",
        "tableReference": {"projectId": project, "datasetId": dataset, "tableId": name},
        "type": kind,
    }
