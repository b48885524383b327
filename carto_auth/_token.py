"""Token: an access token and how long it is good; what its JWT hints at, and reading a token answer.

Everything here is pure. A *token info* is a dict with ``access_token`` (str) and ``expiration`` (POSIX seconds); it may
also have ``issued_at`` (POSIX seconds), from which the lifetime is known, and ``refresh_token``.
"""

from __future__ import annotations

import binascii
import json
import os
import time

from carto_auth._value import Value
from carto_auth.errors import InvalidAnswer

# Type checkers take this name for true; typing would cost a start more than all of this package does.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from typing import Any, TypeGuard

#: The end of the year 9999 in POSIX seconds. A later time is no time but damage.
LATEST_TIME = 253_402_300_799

#: CARTO's own claims in its tokens.
EMAIL_CLAIM = "http://app.carto.com/email"
ACCOUNT_CLAIM = "http://app.carto.com/account_id"

#: A token is renewed ahead of its end by this many seconds, or by this share of its lifetime if that is less.
RENEWAL_LEEWAY_SECONDS = 60.0
RENEWAL_LEEWAY_SHARE = 0.1

#: Chance adds up to this share of the lifetime, so that a fleet that started together does not renew together.
RENEWAL_SPREAD_SHARE = 0.1

#: Bytes of a token beyond which it is no token; servers refuse headers long before.
LONGEST_TOKEN = 65_536


class Token(Value, secret=("text", "refresh_token")):
    """An access token. It is never changed, only replaced, so that one assignment publishes all of it.

    Attributes:
        text: the token itself.
        end: until when it is good, POSIX seconds; ``None`` or ``0`` when that is not known.
        due: from when on it is renewed ahead of its end, POSIX seconds.
        issued_at: when it was received, POSIX seconds by this computer's clock; ``None`` when that is not known.
        refresh_token: what renews it without a person, or ``None``.
    """

    text: str
    end: float | None
    due: float
    issued_at: float | None = None
    refresh_token: str | None = None

    @classmethod
    def of(
        cls,
        text: str,
        expiration: float | None,
        issued_at: object = None,
        refresh_token: str | None = None,
        due: object = None,
    ) -> Token:
        """A token that is said to be good until ``expiration`` (POSIX seconds); its JWT is believed over that.

        When it is ``due`` is drawn where that is not known. Whoever keeps a token keeps it too: many processes share a
        token, and the earliest of many draws would be the same for all of a fleet's machines.
        """
        claims = jwt_claims(text)
        received = issued_at if is_time(issued_at) else None
        end = _end(claims, expiration, received)
        lifetime = _lifetime(claims) or (end - received if end and received else None)
        if end and not is_time(due):
            due = end - _leeway(lifetime)
        return cls(text, end, min(due, end) if end and is_time(due) else 0.0, received, refresh_token)

    @property
    def expires_at(self) -> datetime | None:
        """``end`` in UTC; ``None`` where that is not known, or is never."""
        from datetime import datetime, timezone

        return datetime.fromtimestamp(self.end, timezone.utc) if self.end and self.end < LATEST_TIME else None

    def is_over(self) -> bool:
        """Whether it must not be used any more."""
        return is_token_expired(self.end)


def _end(claims: Mapping[str, Any], expiration: float | None, issued_at: float | None) -> float | None:
    """Until when a token is good: by its own ``exp`` (RFC 7519 section 4.1.4), else as it is said beside it.

    A JWT that was over when it was received shows that this computer's clock is ahead. Then what was counted from
    the answer still works, until the clock is put right. A clock that is behind shows in an ``exp`` that is later than
    what was counted from the answer: the earlier of the two is right.
    """
    own = claims.get("exp")
    if not is_time(own):
        return expiration
    own = int(own)
    if issued_at is None or not expiration:
        return own
    if own <= issued_at <= time.time():
        return expiration
    return min(own, expiration)


def _lifetime(claims: Mapping[str, Any]) -> float | None:
    """Seconds from a JWT's ``iat`` to its ``exp``; ``None`` when it does not say."""
    issued_at, expiration = claims.get("iat"), claims.get("exp")
    return expiration - issued_at if is_time(issued_at) and is_time(expiration) else None


def _leeway(lifetime: float | None) -> float:
    """Seconds before its end at which a token of ``lifetime`` seconds is due for renewal.

    A lifetime that is not known gives no leeway: with 10 s left the token may be in the prime of its life.
    """
    if lifetime is None or lifetime <= 0:
        return 0.0
    chance = int.from_bytes(os.urandom(4), "big") / 2**32
    return min(RENEWAL_LEEWAY_SECONDS, RENEWAL_LEEWAY_SHARE * lifetime) + chance * RENEWAL_SPREAD_SHARE * lifetime


# ---- what a token and a time are -----------------------------------------------------------------


def is_token_expired(expiration: float | None) -> bool:
    """Whether a token that is good until ``expiration`` (POSIX seconds) must not be used any more.

    ``None`` and ``0`` stand for "not known", and count as expired.
    """
    return not expiration or expiration <= time.time()


def is_usable_token(token: object) -> TypeGuard[str]:
    """Whether ``token`` can be sent in an Authorization header (RFC 6750 section 2.1) at all."""
    if not isinstance(token, str) or not 0 < len(token) <= LONGEST_TOKEN:
        return False
    return token.isascii() and token.isprintable() and " " not in token


def is_time(value: object) -> TypeGuard[float]:
    """Whether ``value`` is a POSIX time in seconds, and not damage: a bool, a NaN, before 1970, after 9999."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= LATEST_TIME


def given_time(expiration: object) -> float | None:
    """The ``expiration`` given to the constructor.

    Raises:
        TypeError: it is no number.
    """
    if expiration is None:
        return None
    if not isinstance(expiration, (int, float)) or expiration != expiration:  # NaN is not itself
        raise TypeError(f"expiration must be POSIX seconds, an int or a float, not {type(expiration).__name__}")
    return min(expiration, LATEST_TIME)


# ---- JWT hints -----------------------------------------------------------------------------------


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


# ---- a token endpoint's answer -------------------------------------------------------------------


def parse_token_answer(answer: Mapping[str, Any], now: float) -> dict[str, Any]:
    """The token info in a successful answer of a token endpoint (RFC 6749 section 5.1).

    The expiration is the earlier of the JWT's own ``exp`` and ``now`` (POSIX seconds) plus ``expires_in``.

    Raises:
        InvalidAnswer: the answer holds no token or no bearer token, or does not say until when it is good.
    """
    token = answer.get("access_token")
    if not is_usable_token(token):
        raise _unusable("CARTO's answer to the token request holds no usable access token.")
    token_type = answer.get("token_type", "Bearer")
    if not isinstance(token_type, str) or token_type.lower() != "bearer":
        raise _unusable("CARTO's answer holds a token of another type than Bearer.")
    expiration = _expiration(token, answer.get("expires_in"), now)
    info: dict[str, Any] = {"access_token": token, "expiration": expiration, "issued_at": int(now)}
    if is_usable_token(answer.get("refresh_token")):
        info["refresh_token"] = answer["refresh_token"]
    return info


def _expiration(token: str, expires_in: object, now: float) -> int:
    counted = now + float(expires_in) if is_time(expires_in) else None
    end = _end(jwt_claims(token), counted if is_time(counted) else None, int(now))
    if end is None or end <= now:
        seen = "missing" if expires_in is None else "no possible number of seconds"
        raise _unusable(f"CARTO's answer does not say for how long the token is good (expires_in is {seen}).")
    return int(end)


def _unusable(message: str) -> InvalidAnswer:
    return InvalidAnswer(message, remedy="Try again. If it happens again, ask who runs your CARTO.", status=200)
