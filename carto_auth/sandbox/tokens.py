"""CARTO's Tokens API: API access tokens, with what they may read."""

from __future__ import annotations

import re
import secrets
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from flask import Blueprint, Response, jsonify, request

from carto_auth.sandbox.accounts import api_error
from carto_auth.sandbox.jwt_tokens import CLAIM_PREFIX, bearer_token
from carto_auth.sandbox.state import ApiToken

if TYPE_CHECKING:
    from carto_auth.sandbox.jwt_tokens import TokenMint
    from carto_auth.sandbox.state import State

ROOT = "/v3/tokens"


class _Refused(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def path_without_token(path: str) -> str:
    """A request's path, with ``***`` in the place of a token."""
    return re.sub(rf"^{ROOT}/.+", f"{ROOT}/***", path)


def create_blueprint(state: State, mint: TokenMint) -> Blueprint:
    """``/v3/tokens``: made, listed, read, changed and deleted with an OAuth access token."""
    blueprint = Blueprint("tokens", __name__)

    @blueprint.errorhandler(_Refused)
    def refused(error: _Refused) -> Response:
        return api_error(error.status, error.message)

    @blueprint.post(ROOT)
    def make() -> Response:
        account_id = _account()
        body = _body()
        token = ApiToken(
            secrets.token_urlsafe(32),
            account_id,
            _grants(body.get("grants")),
            _apis(body, ["sql", "maps"]),
            _texts(body, "referers", []),
            _moment(body["expiration_date"], state.now()) if body.get("expiration_date") else None,
            str(body.get("name") or f"tk_{secrets.token_hex(4)}"),
        )
        if not state.save_api_token(token):
            raise _Refused(429, "The quota of API access tokens is used up")
        return jsonify(_resource(token))

    @blueprint.get(ROOT)
    def every() -> Response:
        return jsonify([_resource(token) for token in state.api_tokens(_account())])

    @blueprint.get(f"{ROOT}/<token>")
    def read(token: str) -> Response:
        return jsonify(_resource(_found(token)))

    @blueprint.patch(f"{ROOT}/<token>")
    def change(token: str) -> Response:
        found, body = _found(token), _body()
        if "expiration_date" in body:
            raise _Refused(400, "expiration_date can only be set at creation")
        found.grants = _grants(body["grants"]) if "grants" in body else found.grants
        found.allowed_apis = _apis(body, found.allowed_apis)
        found.referers = _texts(body, "referers", found.referers)
        return jsonify(_resource(found))

    @blueprint.delete(f"{ROOT}/<token>")
    def delete(token: str) -> Response:
        state.delete_api_token(_found(token).token)
        return Response(status=204)

    def _account() -> str:
        claims = mint.verify(bearer_token(request))
        if claims is None:
            # An API access token is refused too: this API needs an OAuth token.
            raise _Refused(401, "Unauthorized")
        if not state.switches.may_make_tokens:
            raise _Refused(403, "Forbidden: this user cannot manage API access tokens")
        return str(claims[f"{CLAIM_PREFIX}account_id"])

    def _found(token: str) -> ApiToken:
        account_id = _account()
        found = state.api_token(token)
        if found is None or found.account_id != account_id:
            raise _Refused(404, "Token not found")
        return found

    return blueprint


def _resource(token: ApiToken) -> dict[str, Any]:
    resource: dict[str, Any] = {
        "token": token.token,
        "name": token.name,
        "grants": [{"connection_name": connection, "source": source} for connection, source in token.grants],
        "allowed_apis": token.allowed_apis,
        "referers": token.referers,
    }
    if token.expires_at is not None:
        resource["expiration_date"] = datetime.fromtimestamp(token.expires_at, timezone.utc).isoformat()
    return resource


def _body() -> dict[str, Any]:
    body = request.get_json(silent=True)
    if not isinstance(body, dict):
        raise _Refused(400, "The request's body is not a JSON object")
    return body


def _grants(grants: Any) -> list[tuple[str, str]]:
    if not isinstance(grants, list) or not grants:
        raise _Refused(400, "grants must be a list with at least one grant")
    for grant in grants:
        name = grant.get("connection_name") if isinstance(grant, dict) else None
        if not name or not isinstance(name, str):
            raise _Refused(400, "each grant needs a connection_name")
        source = grant.get("source", "")
        if not isinstance(source, str) or not _is_narrow(source):
            raise _Refused(400, "a wildcard needs at least two segments before it")
    # Without a source, a grant reads all of its connection.
    return [(grant["connection_name"], grant.get("source") or "*") for grant in grants]


def _is_narrow(source: str) -> bool:
    """Whether a ``*`` in the name of a table has two segments before it; that of SQL may be anywhere."""
    before, star, _ = source.replace("`", "").partition("*")
    return not star or re.search(r"\s", source) is not None or len(list(filter(None, before.split(".")))) >= 2


def _apis(body: dict[str, Any], default: list[str]) -> list[str]:
    apis = _texts(body, "allowed_apis", default)
    if "imports" in apis and len(apis) > 1:
        raise _Refused(400, "imports cannot be combined with other APIs")
    return apis


def _texts(body: dict[str, Any], key: str, default: list[str]) -> list[str]:
    texts = body.get(key, default)
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise _Refused(400, f"{key} must be a list of strings")
    return texts


def _moment(text: Any, now: float) -> float:
    try:
        # Python 3.10 reads no "Z".
        moment = datetime.fromisoformat(re.sub("Z$", "+00:00", text)).timestamp()
    except (TypeError, ValueError):
        raise _Refused(400, "expiration_date is not a date") from None
    if moment <= now:
        raise _Refused(400, "expiration_date is in the past")
    return moment
