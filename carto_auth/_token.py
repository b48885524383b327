"""Pure functions on tokens: parse a token answer, read a JWT's hints, expired?, due for renewal?

A *token info* is a dict with ``access_token`` (str) and ``expiration`` (POSIX seconds); it may also have
``issued_at`` (POSIX seconds), from which the token's lifetime is known, and ``refresh_token``.
"""

from __future__ import annotations

import binascii
import json
import time
from collections.abc import Mapping

from carto_auth._typing import TYPE_CHECKING, Any
from carto_auth.errors import InvalidAnswer

if TYPE_CHECKING:
    from typing import TypeGuard

#: The end of the year 9999 in POSIX seconds. A later time is no time but damage.
LATEST_TIME = 253_402_300_799

#: CARTO's own claims in its tokens.
EMAIL_CLAIM = "http://app.carto.com/email"
ACCOUNT_CLAIM = "http://app.carto.com/account_id"

#: A token is renewed ahead of its end by this many seconds, or by this share of its lifetime if that is less.
RENEWAL_LEEWAY_SECONDS = 60.0
RENEWAL_LEEWAY_SHARE = 0.1

#: Bytes of a token beyond which it is no token; servers refuse headers long before.
LONGEST_TOKEN = 65_536


def is_token_expired(expiration: float | None) -> bool:
    """Whether a token that is good until ``expiration`` (POSIX seconds) must not be used any more.

    ``None`` and ``0`` stand for "not known", and count as expired.
    """
    return not expiration or expiration <= time.time()


def is_usable_token(token: object) -> TypeGuard[str]:
    """Whether ``token`` can be sent in an Authorization header (RFC 6750 section 2.1) at all."""
    return (
        isinstance(token, str)
        and 0 < len(token) <= LONGEST_TOKEN
        and token.isascii()
        and token.isprintable()
        and " " not in token
    )


def as_number(value: object) -> float | None:
    """``value`` as a number, of whatever library it is; ``None`` for what is no number, such as text and NaN."""
    if isinstance(value, (bool, str, bytes)):
        return None
    try:
        number = float(value)  # type: ignore[arg-type]  # whether it takes this one is the question
    except (TypeError, ValueError, OverflowError):
        return None
    return None if number != number else number  # NaN is not itself


def is_time(value: object) -> TypeGuard[float]:
    """Whether ``value`` is a POSIX time in seconds, and not damage: a bool, a NaN, before 1970, after 9999."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= LATEST_TIME


def renewal_leeway(lifetime: float | None) -> float:
    """Seconds before its end at which a token of ``lifetime`` seconds is due for renewal.

    A lifetime that is not known gives no leeway: with 10 s left the token may be in the prime of its life.
    """
    if lifetime is None or lifetime <= 0:
        return 0.0
    return min(RENEWAL_LEEWAY_SECONDS, RENEWAL_LEEWAY_SHARE * lifetime)


def jwt_claims(token: str) -> dict[str, Any]:
    """The claims of a JWT (RFC 7519), unverified: hints, never trust. ``{}`` when ``token`` is no JWT."""
    parts = token.split(".")
    if len(parts) != 3:
        return {}
    payload = parts[1].replace("-", "+").replace("_", "/")
    try:
        claims = json.loads(binascii.a2b_base64(payload + "=" * (-len(payload) % 4)))
    except (ValueError, RecursionError):
        return {}
    return claims if isinstance(claims, dict) else {}


def jwt_expiration(token: str) -> int | None:
    """The ``exp`` claim of a JWT (RFC 7519 section 4.1.4), POSIX seconds; ``None`` when it has none."""
    expiration = jwt_claims(token).get("exp")
    return int(expiration) if is_time(expiration) else None


def true_expiration(token: str, expiration: float | None, issued_at: object) -> float | None:
    """Until when a token is good, POSIX seconds: its JWT's own ``exp``, else the ``expiration`` kept beside it.

    A JWT that had ended when it was handed out (at ``issued_at``, by this computer's clock) shows that the clock is
    ahead. Then what was counted from the answer is what still works, until the clock is put right.
    """
    own = jwt_expiration(token)
    if own is None or (is_time(issued_at) and own <= issued_at <= time.time()):
        return expiration
    return own


def jwt_lifetime(token: str) -> float | None:
    """Seconds from a JWT's ``iat`` to its ``exp``; ``None`` when it does not say."""
    claims = jwt_claims(token)
    issued_at, expiration = claims.get("iat"), claims.get("exp")
    if not is_time(issued_at) or not is_time(expiration) or expiration <= issued_at:
        return None
    return float(expiration - issued_at)


def parse_token_answer(answer: Mapping[str, Any], now: float) -> dict[str, Any]:
    """The token info in a successful answer of a token endpoint (RFC 6749 section 5.1).

    A JWT's own ``exp`` is believed over ``expires_in``, which counts from when the answer was written.
    ``now`` is POSIX seconds.

    Raises:
        InvalidAnswer: the answer holds no token, no bearer token, or does not say until when it is good.
    """
    token = answer.get("access_token")
    if not is_usable_token(token):
        raise InvalidAnswer(
            "CARTO's answer to the token request holds no usable access token.", remedy=_RETRY, status=200
        )
    token_type = answer.get("token_type", "Bearer")
    if not isinstance(token_type, str) or token_type.lower() != "bearer":
        raise InvalidAnswer("CARTO's answer holds a token of another type than Bearer.", remedy=_RETRY, status=200)
    info: dict[str, Any] = {
        "access_token": token,
        "expiration": _expiration(token, answer.get("expires_in"), now),
        "issued_at": int(now),
    }
    if is_usable_token(answer.get("refresh_token")):
        info["refresh_token"] = answer["refresh_token"]
    return info


_RETRY = "Try again; if it stays so, ask who runs your CARTO installation."


def _expiration(token: str, expires_in: object, now: float) -> int:
    own = jwt_expiration(token)
    if own is not None and own > now:
        return own
    if is_time(expires_in) and is_time(now + float(expires_in)):
        # Also where a JWT seems to have ended before it was handed out: then this computer's clock is
        # ahead, and counting from the answer is what still works.
        return int(now + float(expires_in))
    raise InvalidAnswer(
        f"CARTO's answer does not say for how long the token is good (expires_in is {_described(expires_in)}).",
        remedy=_RETRY,
        status=200,
    )


def _described(value: object) -> str:
    """What kind of thing a server sent, without showing a text of any length."""
    if value is None:
        return "missing"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return f"a {type(value).__name__}, not a number"
    return str(value) if abs(value) < LATEST_TIME else "no possible number of seconds"
