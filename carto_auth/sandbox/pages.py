"""The pages that a person sees: login and consent behind ``/authorize``, and those of CARTO's application."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from flask import Blueprint, Response, make_response, redirect, render_template, request, session, url_for
from werkzeug.exceptions import HTTPException

from carto_auth._login.pages import page
from carto_auth.sandbox.authorization import AuthorizationRefused
from carto_auth.sandbox.state import Login, PendingLogin

if TYPE_CHECKING:
    from werkzeug.wrappers import Response as BaseResponse

    from carto_auth.sandbox.authorization import SandboxAuthorizationServer

#: Suggested on the login page; any other address works too.
DEFAULT_EMAIL = "ana@example.com"


class _Stop(HTTPException):
    """An error that a person sees as a page."""

    def __init__(self, code: int, title: str, description: str) -> None:
        super().__init__(description)
        self.code = code
        self.title = title


def create_blueprint(server: SandboxAuthorizationServer) -> Blueprint:
    """The authorization endpoint and the pages."""
    blueprint = Blueprint("pages", __name__, template_folder="templates")
    state = server.state

    @blueprint.context_processor
    def shared() -> dict[str, object]:
        return {"page": page}  # the callback's page, which has the style of all of them

    @blueprint.errorhandler(_Stop)
    def stop(error: _Stop) -> Response:
        answer = render_template("message.html", title=error.title, text=error.description, kind="bad")
        return make_response(answer, error.code or 500)

    @blueprint.after_request
    def protect(response: Response) -> Response:
        # No form-action here: browsers apply it to the redirect after the form, and that leaves the sandbox.
        response.headers["Content-Security-Policy"] = (
            "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'"
        )
        response.headers["Referrer-Policy"] = "no-referrer"
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Cache-Control"] = "no-store"
        return response

    @blueprint.get("/")
    def home() -> str:
        return render_template("home.html", state=state)

    @blueprint.route("/authorize", methods=["GET", "POST"])
    def authorize() -> BaseResponse:
        parameters = request.values.to_dict(flat=False)
        try:
            refusal = server.begin(parameters)
        except AuthorizationRefused as error:
            raise _Stop(400, "This login cannot start", str(error)) from error
        if refusal is not None:
            return refusal
        pending = state.begin_login(parameters, _browser())
        if pending is None:
            raise _Stop(503, "Too many logins", "Too many people are logging in. Try again in ten minutes.")
        return redirect(url_for(".login", transaction=pending.id))

    @blueprint.get("/login")
    def login() -> str:
        pending = _pending()
        return render_template("login.html", email=DEFAULT_EMAIL, csrf_token=pending.csrf, problem=None)

    @blueprint.post("/login")
    def submit_login() -> BaseResponse:
        pending = _pending(submitted=True)
        if request.form.get("action") == "cancel":
            return _finish(pending, None)
        email = request.form.get("email", "").strip()
        if "@" not in email or not request.form.get("password"):
            again = render_template(
                "login.html", email=email, csrf_token=pending.csrf, problem="Enter an e-mail and any password."
            )
            return make_response(again, 400)
        organization = pending.parameters.get("organization", [""])[0]
        pending.login = Login(email, organization or None)
        return redirect(url_for(".consent", transaction=pending.id))

    @blueprint.get("/consent")
    def consent() -> BaseResponse:
        pending = _pending()
        if pending.login is None:
            return redirect(url_for(".login", transaction=pending.id))
        return make_response(
            render_template(
                "consent.html",
                login=pending.login,
                organization=state.organization_name if pending.login.organization_id else None,
                csrf_token=pending.csrf,
            )
        )

    @blueprint.post("/consent")
    def submit_consent() -> BaseResponse:
        pending = _pending(submitted=True)
        allowed = request.form.get("action") == "allow"
        return _finish(pending, pending.login if allowed else None)

    @blueprint.get("/auth/token")
    def code_page() -> BaseResponse:
        code = request.args.get("code", "")
        if not code:
            return redirect(url_for(".error_page"))
        return make_response(render_template("code.html", code=code))

    @blueprint.get("/auth/success")
    def success_page() -> str:
        text = "You are logged in. You can close this page and go back to Python."
        return render_template("message.html", title="Welcome", text=text, kind="good")

    @blueprint.get("/auth/error")
    def error_page() -> str:
        text = "You are not logged in. Close this page and start again from Python."
        return render_template("message.html", title="Not logged in", text=text, kind="bad")

    @blueprint.get("/sso/<organization>")
    def sso(organization: str) -> str:
        _require_organization(organization)
        return render_template("sso.html", organization=state.organization_name, csrf_token=_browser())

    @blueprint.post("/sso/<organization>")
    def join(organization: str) -> str:
        _require_organization(organization)
        _compare(request.form.get("csrf_token", ""), session.get("browser", ""))
        state.switches.has_tenant = True
        text = f"You now belong to {state.organization_name}. Log in from Python again."
        return render_template("message.html", title="Welcome", text=text, kind="good")

    def _require_organization(identifier: str) -> None:
        if identifier != state.organization_id:
            raise _Stop(404, "No such organization", f"The sandbox knows only the id {state.organization_id!r}.")

    def _pending(*, submitted: bool = False) -> PendingLogin:
        pending = state.pending_login(request.args.get("transaction", ""))
        if pending is None:
            raise _Stop(400, "This login has ended", "It was answered before. Start again from Python.")
        _compare(session.get("browser", ""), pending.browser)
        pending.is_seen = True
        if submitted:
            _compare(request.form.get("csrf_token", ""), pending.csrf)
        return pending

    def _finish(pending: PendingLogin, login: Login | None) -> BaseResponse:
        if not state.end_login(pending):
            raise _Stop(400, "This login has ended", "It was answered before. Start again from Python.")
        return server.answer(pending.parameters, login)

    return blueprint


def _browser() -> str:
    """A secret that only this browser's session cookie holds."""
    if "browser" not in session:
        session["browser"] = secrets.token_urlsafe(24)
    return str(session["browser"])


def _compare(given: str, expected: str) -> None:
    if not expected or not secrets.compare_digest(given.encode(), expected.encode()):
        raise _Stop(403, "Not your form", "This form was made for another browser, or your browser blocks cookies.")
