"""CARTO's API for the CARTO Data Warehouse: a project and a token for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Blueprint, Response, jsonify, request

from carto_auth.sandbox.accounts import api_error
from carto_auth.sandbox.jwt_tokens import bearer_token
from carto_auth.sandbox.state import PROJECT_ID

if TYPE_CHECKING:
    from carto_auth.sandbox.jwt_tokens import TokenMint
    from carto_auth.sandbox.state import State


def create_blueprint(state: State, mint: TokenMint) -> Blueprint:
    """``/v3/connections/carto-dw/token``."""
    blueprint = Blueprint("warehouse", __name__)

    @blueprint.get("/v3/connections/carto-dw/token")
    def warehouse_token() -> Response:
        if mint.verify(bearer_token(request)) is None:
            return api_error(401, "Unauthorized")
        if not state.switches.has_warehouse:
            return api_error(404, "Connection carto-dw not found")
        return jsonify(projectId=PROJECT_ID, token=state.new_warehouse_token())

    return blueprint
