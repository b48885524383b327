"""CARTO's access tokens: RS256 JWTs with its claims, made and verified with joserfc."""

from __future__ import annotations

import functools
import secrets
import threading
from typing import TYPE_CHECKING, Any

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import RSAKey

from carto_auth._services import AUDIENCE
from carto_auth.sandbox.state import Login

if TYPE_CHECKING:
    from flask import Request

    from carto_auth.sandbox.state import State

CLAIM_PREFIX = "http://app.carto.com/"

#: Who owns the sandbox's M2M applications: a CARTO application acts as its owner.
_OWNER = Login("owner@example.com")


class TokenMint:
    """Makes and verifies one sandbox's access tokens."""

    def __init__(self, state: State) -> None:
        self._state = state

    def issue(self, client_id: str, login: Login | None) -> str:
        """A new token for a person, or (``None``) for an application on behalf of its owner."""
        now = int(self._state.now())
        person = login or _OWNER
        claims: dict[str, Any] = {
            "iss": self._state.issuer,
            "sub": login.subject if login else f"{client_id}@clients",
            "aud": AUDIENCE,
            "iat": now,
            "exp": now + int(self._state.switches.token_lifetime),
            "azp": client_id,
            "jti": secrets.token_urlsafe(12),
            f"{CLAIM_PREFIX}account_id": person.account_id,
            f"{CLAIM_PREFIX}email": person.email,
        }
        if login is None:
            claims["gty"] = "client-credentials"
        if person.organization_id:
            claims["org_id"] = person.organization_id
        token = jwt.encode({"alg": "RS256", "typ": "JWT"}, claims, _signing_key())
        self._state.save_access_token(claims["jti"])
        return token

    def verify(self, token: str) -> dict[str, Any] | None:
        """The token's claims if this sandbox issued it and it is neither expired nor revoked."""
        try:
            claims = jwt.decode(token, _signing_key(), algorithms=["RS256"]).claims
        except (JoseError, ValueError):
            return None
        good = (
            claims.get("aud") == AUDIENCE
            and claims.get("exp", 0) > self._state.now()
            and self._state.knows_access_token(claims.get("jti"))
        )
        return claims if good else None


_making_the_key = threading.Lock()


def _signing_key() -> RSAKey:
    """The key of this process. Which of its sandboxes issued a token, the token's id tells."""
    # It takes longer than all the rest of a start: hence one for all sandboxes, and only when a token needs it.
    with _making_the_key:
        return _new_key()


@functools.cache
def _new_key() -> RSAKey:
    key: RSAKey = RSAKey.generate_key(2048)
    return key


def bearer_token(request: Request) -> str:
    """The token of the ``Authorization`` header (RFC 6750 section 2.1), or an empty string."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""
