"""The sandbox itself: a web server on loopback, started and stopped, and the handle that tests hold."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import secrets
import shutil
import socket
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from flask import Flask, Response, jsonify, request
from werkzeug.exceptions import HTTPException
from werkzeug.routing import Map, RuleFactory
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from carto_auth._services import CLIENT_ID, Services
from carto_auth.sandbox import accounts, authorization, bigquery, pages, sql_api, tokens, warehouse
from carto_auth.sandbox.engine import Engine
from carto_auth.sandbox.jwt_tokens import TokenMint
from carto_auth.sandbox.state import Request, State, Switches

if TYPE_CHECKING:
    from types import TracebackType

#: Only this computer can reach it, and IPv4 everywhere.
HOST = "127.0.0.1"

#: Variables of somebody's own that would win over the sandbox's.
_WOULD_WIN = (
    "CARTO_ACCESS_TOKEN",
    "CARTO_API_TOKEN",
    "CARTO_AUTH_AUDIENCE",
    "CARTO_AUTH_CACHE",
    "CARTO_AUTH_SCOPE",
    "CARTO_CREDENTIALS_FILE",
    "CARTO_M2M_CLIENT_ID",
    "CARTO_M2M_CLIENT_SECRET",
    "CARTO_PROFILE",
)

#: Bytes; a request's body is held in memory.
MAX_BODY = 64 * 1024 * 1024


class CartoSandbox(Switches):
    """A CARTO on ``http://127.0.0.1:<free port>``: login, accounts, API and warehouse.

    A context manager; or call :meth:`start` and :meth:`stop`. Every switch is a keyword argument, and an
    attribute that can be set while the sandbox runs::

        with CartoSandbox(token_lifetime=60) as sandbox:
            sandbox.outage = 503

    Attributes:
        token_lifetime: seconds that CARTO access tokens are good for (86400).
        warehouse_token_lifetime: seconds that warehouse tokens are good for (3600).
        refresh_tokens: whether a person's login gives a refresh token, rotated at each use (False).
        outage: an HTTP status that everything answers, such as ``503``; or a mapping of path prefixes to
            statuses, such as ``{"/accounts": 503}``; ``None`` for no outage.
        rate_limited: seconds for ``Retry-After``: the token endpoint answers 429; ``None`` for no limit.
        deny_logins: whether ``/authorize`` refuses everybody with ``access_denied`` (False).
        has_tenant: whether the account belongs to a CARTO organization (True); joining one at ``/sso/org_…`` sets it.
        has_warehouse: whether the account has a CARTO Data Warehouse (True).
        token_delay: seconds that the token endpoint waits before it answers (0.0).
        token_quota: how many API access tokens an account may have; ``None`` for any number.
        may_make_tokens: whether accounts may use the Tokens API (True).
        clock: what time it is, in POSIX seconds; all expiries go by it (``time.time``,
            which is looked up at each call).
    """

    _server: BaseWSGIServer | None = None
    _known_attributes = frozenset({"client_id", "client_secret"})

    def __post_init__(self) -> None:
        self.client_id: str = ""
        self.client_secret: str = ""
        self._state: State | None = None
        self._engine: Engine | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> CartoSandbox:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<CartoSandbox {self.url if self._server else 'stopped'}>"

    def start(self) -> CartoSandbox:
        """Listen on a free port, in threads of its own.

        Raises:
            RuntimeError: it is running already.
        """
        if self._server is not None:
            raise RuntimeError(f"The sandbox is running already, at {self.url}.")
        # The application needs the port, which is known only once the server has bound it.
        self._server = make_server(HOST, 0, _no_app, threaded=True, request_handler=_QuietHandler)
        self._state = State(self, f"http://{HOST}:{self._server.server_port}")
        self._home = tempfile.mkdtemp(prefix="carto-sandbox-")
        self._engine = Engine()
        self.client_id, self.client_secret = self._state.add_application()
        self._server.app = _create_app(self._state, self._engine)
        self._thread = threading.Thread(
            target=_serve, args=(self._server, self._state.stopping), name="carto-sandbox", daemon=True
        )
        self._thread.start()
        # DuckDB complains on stderr about connections that are open when the interpreter ends.
        atexit.register(self.stop)
        self._process = os.getpid()
        return self

    def stop(self) -> None:
        """Stop listening, and forget the warehouse. A second call does nothing.

        What is known (requests, addresses) can still be read.
        """
        if self._server is None or self._thread is None or self._engine is None:
            return
        atexit.unregister(self.stop)
        if os.getpid() != self._process:  # a forked child has a copy, but not the thread that serves it
            return
        self._known.stopping.set()
        # The server is waiting for a request; the end of this connection wakes it, so that it sees the event.
        with contextlib.suppress(OSError):
            socket.create_connection((HOST, self._server.server_port)).close()
        self._thread.join()
        self._server.server_close()
        self._engine.close()
        shutil.rmtree(self._home, ignore_errors=True)
        self._server = self._thread = self._engine = None

    @property
    def _known(self) -> State:
        if self._state is None:
            raise RuntimeError("The sandbox was not started: use it in a with statement, or call start().")
        return self._state

    @property
    def url(self) -> str:
        """Its origin, such as ``http://127.0.0.1:49152``."""
        return self._known.url

    @property
    def api_base_url(self) -> str:
        """The API base URL that discovery finds, which is the same origin."""
        return self.url

    @property
    def services(self) -> Services:
        """Its addresses, to be passed as ``services=``."""
        return Services(self.url, self.url, self.url, CLIENT_ID, self.url)

    @property
    def organization_name(self) -> str:
        """The name of the one organization with single sign-on, ``acme``."""
        return self._known.organization_name

    @property
    def organization_id(self) -> str:
        """That organization's Auth0 id, ``org_...``."""
        return self._known.organization_id

    @property
    def requests(self) -> list[Request]:
        """All requests so far, as ``(method, path, status)`` without query, headers and body. A copy."""
        return self._known.requests()

    def count(self, path: str, method: str | None = None) -> int:
        """How many requests there were for exactly this path, and method if given."""
        return sum(r.path == path and method in (None, r.method) for r in self.requests)

    def add_application(self, client_id: str | None = None) -> tuple[str, str]:
        """Register another M2M application: its ``(client_id, client_secret)``.

        The id of an existing application gives that one a new secret.

        Raises:
            ValueError: it is the id of CARTO's public client.
        """
        pair = self._known.add_application(client_id)
        if client_id == self.client_id:
            self.client_secret = pair[1]
        return pair

    def add_web_application(self, redirect_uri: str) -> str:
        """Register a web application, which CARTO calls a SPA OAuth client: its ``client_id``.

        Args:
            redirect_uri: where people come back to after their login, compared exactly.
        """
        return self._known.add_web_application(redirect_uri)

    def credentials_file(self, path: str | os.PathLike[str], *, client_id: str | None = None) -> Path:
        """Write an M2M application's credentials, readable by the owner only.

        Args:
            path: the file, or a folder in which it is called ``carto_credentials.json``.
            client_id: of an application made by :meth:`add_application`; the first one if not given.

        Raises:
            ValueError: there is no M2M application with that id.
        """
        application = self._known.application(client_id or self.client_id)
        if application is None or application.client_secret is None:
            raise ValueError(f"The sandbox has no M2M application {client_id!r}; add_application() makes one.")
        path = Path(path)
        if path.is_dir():
            path = path / "carto_credentials.json"
        content = {
            "api_base_url": self.api_base_url,
            "client_id": application.client_id,
            "client_secret": application.client_secret,
        }
        # 0600 from its first byte; chmod after writing would leave a moment in which others can read it.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:
            path.chmod(0o600)
            json.dump(content, file, indent=2)
        return path

    def environment(self) -> dict[str, str]:
        """The variables that lead this package, and Google's BigQuery client, to this sandbox and to no cache but its.

        Those that are empty, which is the same as not set, would lead back to the real CARTO.
        """
        return {
            **dict.fromkeys(_WOULD_WIN, ""),
            "CARTO_AUTH_HOME": str(self._home),
            "CARTO_AUTH_URL": self.url,
            "CARTO_ACCOUNTS_URL": self.url,
            "CARTO_APP_URL": self.url,
            "CARTO_AUTH_CLIENT_ID": CLIENT_ID,
            "CARTO_API_BASE_URL": self.api_base_url,
            "CARTO_CLIENT_ID": self.client_id,
            "CARTO_CLIENT_SECRET": self.client_secret,
            "BIGQUERY_EMULATOR_HOST": self.url,
            # Google's client would go through a proxy even to this computer. Python reads the lower case first.
            "NO_PROXY": _without_proxy(),
            "no_proxy": _without_proxy(),
        }

    def revoke_access_tokens(self) -> None:
        """Every CARTO token issued so far gets a 401 from now on."""
        self._known.revoke_access_tokens()

    def revoke_warehouse_tokens(self) -> None:
        """Every warehouse token issued so far gets a 401 from now on."""
        self._known.revoke_warehouse_tokens()

    def revoke_refresh_tokens(self) -> None:
        """Every refresh token issued so far gets an ``invalid_grant`` from now on."""
        self._known.revoke_refresh_tokens()

    def delete_api_tokens(self) -> None:
        """Delete every API access token made so far: it gets a 401 from now on."""
        self._known.delete_api_tokens()


def _serve(server: BaseWSGIServer, stopping: threading.Event) -> None:
    server.timeout = 1.0  # seconds until it looks at the event by itself
    while not stopping.is_set():
        server.handle_request()


def _without_proxy() -> str:
    """The hosts to which no proxy leads: this computer's, beside those that the environment names."""
    named = os.environ.get("no_proxy") or os.environ.get("NO_PROXY")
    return ",".join(filter(None, (named, HOST, "localhost")))


class _QuietHandler(WSGIRequestHandler):
    """HTTP/1.1, one request per connection (Werkzeug closes it by design), nothing on stderr."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    #: Seconds of silence on a connection; browsers open some that they never use.
    timeout = 30

    def log(self, type: str, message: str, *args: object) -> None:  # noqa: A002 - Werkzeug's name
        """Requests are kept in ``CartoSandbox.requests`` instead."""


def _no_app(environ: object, start_response: object) -> list[bytes]:
    raise RuntimeError("The sandbox is not ready.")


class _Routes(Map):
    """The routes of all sandboxes of this process: to compile them takes longer than all the rest of a start."""

    is_complete = False

    def add(self, rulefactory: RuleFactory) -> None:
        if not self.is_complete:
            super().add(rulefactory)


_routes = _Routes()
_starting = threading.Lock()


def _create_app(state: State, engine: Engine) -> Flask:
    app = Flask(__name__, static_folder=None)
    app.url_map = _routes
    app.config.update(
        SECRET_KEY=secrets.token_bytes(32),
        # Cookies do not tell ports apart, and two sandboxes may be open in one browser.
        SESSION_COOKIE_NAME=f"carto_sandbox_{state.host.rpartition(':')[2]}",
        SESSION_COOKIE_SAMESITE="Lax",
        # A web page elsewhere must not reach the sandbox under a name of its own (DNS rebinding).
        TRUSTED_HOSTS=[HOST, "localhost"],
        MAX_CONTENT_LENGTH=MAX_BODY,
        MAX_FORM_MEMORY_SIZE=MAX_BODY,
    )
    mint = TokenMint(state)
    server = authorization.SandboxAuthorizationServer(state, mint)

    @app.before_request
    def outage() -> Response | None:
        status = _outage_status(state.switches.outage, request.path)
        if status is None:
            return None
        if request.path.startswith(bigquery.PREFIXES):
            return bigquery.error_response(status, "backendError", "The sandbox plays an outage.")
        return accounts.api_error(status, "The sandbox plays an outage.")

    @app.after_request
    def record(response: Response) -> Response:
        state.record(Request(request.method, tokens.path_without_token(request.path), response.status_code))
        return response

    @app.errorhandler(500)
    def stumbled(error: Exception) -> Response:
        message = "The sandbox cannot make sense of this request."
        if request.path.startswith(bigquery.PREFIXES):
            return bigquery.error_response(500, "internalError", message)
        return accounts.api_error(500, message)

    @app.errorhandler(HTTPException)
    def refused(error: HTTPException) -> Response | HTTPException:
        if error.code is not None and request.path.startswith(bigquery.PREFIXES):
            return bigquery.error_response(error.code, "invalid", error.description or error.name)
        return error

    @app.errorhandler(404)
    @app.errorhandler(405)
    def not_here(error: Exception) -> Response:
        status = getattr(error, "code", 404)
        path = tokens.path_without_token(request.path)
        message = f"The sandbox has nothing at {request.method} {path}"
        if path.startswith(bigquery.PREFIXES):
            return bigquery.error_response(status, "notFound", message)
        response = jsonify(error=message, status=status)
        response.status_code = status
        return response

    with _starting:  # the first one must be ready before there is a second
        app.register_blueprint(pages.create_blueprint(server))
        app.register_blueprint(authorization.create_blueprint(server))
        app.register_blueprint(accounts.create_blueprint(state, mint))
        app.register_blueprint(warehouse.create_blueprint(state, mint))
        app.register_blueprint(tokens.create_blueprint(state, mint))
        app.register_blueprint(sql_api.create_blueprint(state, mint, engine))
        app.register_blueprint(bigquery.create_blueprint(state, engine))
        _routes.is_complete = True
    return app


def _outage_status(outage: int | Mapping[str, int] | None, path: str) -> int | None:
    if isinstance(outage, Mapping):
        return next((status for prefix, status in outage.items() if path.startswith(prefix)), None)
    return outage
