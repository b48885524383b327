"""OAuth for applications: the client credentials grant (RFC 6749 section 4.4)."""

from __future__ import annotations

import time

from carto_auth._frames import clears_frames
from carto_auth._services import Services
from carto_auth._token import parse_token_answer
from carto_auth.errors import MissingCredential, Unauthorized

# Type checkers take this name for true; typing would cost a start more than all of this package does.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from typing import Any


@clears_frames
def get_m2m_token_info(
    client_id: str | None, client_secret: str | None, *, services: Services | None = None
) -> dict[str, Any]:
    """Ask CARTO for an M2M application's access token.

    Args:
        client_id: the application's id, from the Developers page of the CARTO Workspace.
        client_secret: its secret.
        services: the services to ask; those of the environment, else CARTO's own.

    Returns:
        ``{"access_token": str, "expiration": int, "issued_at": int}``; both times are POSIX seconds.

    Raises:
        MissingCredential: the id or the secret is empty or ``None``.
        UntrustedAddress: the token service is neither https nor on this computer.
        Unauthorized: CARTO does not accept the id or the secret.
        RateLimited: the quota of tokens is used up for now.
        ServerError: another refusal, or an answer that makes no sense.
        ServiceUnreachable: no answer came.
    """
    if not client_id or not client_secret:
        names = "client_secret" if client_id else "client_id" if client_secret else "client_id and client_secret"
        raise MissingCredential(
            f"An M2M token cannot be had without {names}.",
            remedy="Use CartoAuth.from_m2m() with a credentials file, or with client_id= and client_secret=.",
        )
    from carto_auth import _http  # not before there is a request to send: requests takes a while to import

    services = services or Services.from_environment()
    form = {
        "grant_type": "client_credentials",
        "client_id": client_id,
        "client_secret": client_secret,
        "audience": services.audience,
    }
    try:
        answer = _http.post_form(services.token_url, form, failure="CARTO handed out no token")
    except Unauthorized as error:
        error.remedy = error.remedy or (
            "Check client_id and client_secret. You will find them on the Developers page of the CARTO Workspace, "
            "under Machine to Machine."
        )
        raise
    return parse_token_answer(answer, time.time())
