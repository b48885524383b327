"""The accounts API and a tenant's configuration: from a token to the API base URL."""

from __future__ import annotations

from typing import TYPE_CHECKING

import yaml
from flask import Blueprint, Response, jsonify, make_response, request

from carto_auth.sandbox.jwt_tokens import bearer_token

if TYPE_CHECKING:
    from carto_auth.sandbox.jwt_tokens import TokenMint
    from carto_auth.sandbox.state import State


def create_blueprint(state: State, mint: TokenMint) -> Blueprint:
    """``/accounts``, an organization's Auth0 id, and ``/config.yaml``."""
    blueprint = Blueprint("accounts", __name__)

    @blueprint.get("/accounts")
    def accounts() -> Response:
        if mint.verify(bearer_token(request)) is None:
            return api_error(401, "Unauthorized")
        if not state.switches.has_tenant:
            # No status is known for this one; the body is what tells, so clients must read it.
            return jsonify(error="User does not belong to any organization")
        return jsonify(tenant_domain=state.host)

    @blueprint.get("/accounts/<name>/auth0_org_id")
    def organization_id(name: str) -> Response:
        return jsonify(auth0orgId=state.organization_id if name == state.organization_name else None)

    @blueprint.get("/config.yaml")
    def config() -> Response:
        document = {
            "apis": {"baseUrl": state.url, "workspaceUrl": f"{state.url}/workspace-api"},
            "cartoVersion": {"selfHosted": ""},
        }
        response = make_response(yaml.safe_dump(document, sort_keys=False))
        response.mimetype = "text/yaml"
        return response

    return blueprint


def api_error(status: int, message: str) -> Response:
    """An error in the shape of CARTO's APIs."""
    response = jsonify(error=message, status=status)
    response.status_code = status
    return response
