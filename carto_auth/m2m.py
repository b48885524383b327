"""OAuth for applications: the client credentials grant (RFC 6749 section 4.4)."""

from __future__ import annotations

import time

from carto_auth._services import AUDIENCE, Services
from carto_auth._token import parse_token_answer
from carto_auth._typing import Any
from carto_auth.errors import Unauthorized


def get_m2m_token_info(client_id: str, client_secret: str, *, services: Services | None = None) -> dict[str, Any]:
    """Ask CARTO for an M2M application's access token.

    Args:
        client_id: the application's id, from the Developers page of the CARTO Workspace.
        client_secret: its secret.
        services: the services to ask; those of the environment, else CARTO's own.

    Returns:
        ``{"access_token": str, "expiration": int, "issued_at": int}``; both times are POSIX seconds.

    Raises:
        Unauthorized: CARTO does not accept the id or the secret.
        RateLimited: the quota of tokens is used up for now.
        ServerError: another refusal, or an answer that makes no sense.
        ServiceUnreachable: no answer came.
    """
    from carto_auth import _http

    services = services or Services.from_environment()
    form = {
        "grant_type": "client_credentials",
        "client_id": client_id,
        "client_secret": client_secret,
        "audience": AUDIENCE,
    }
    try:
        answer = _http.post_form(services.token_url, form, failure="CARTO handed out no token")
    except Unauthorized as error:
        error.remedy = (
            "Check client_id and client_secret: they stand on the Developers page of the CARTO Workspace, under "
            "Machine to Machine."
        )
        raise
    return parse_token_answer(answer, time.time())
