"""What ``carto-auth status`` tells: who one is for CARTO, where that comes from, and until when it is good.

Nothing is asked of any service, and no token is renewed.
"""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any, NamedTuple

from carto_auth import credentials
from carto_auth._services import Services
from carto_auth._token import (
    ACCOUNT_CLAIM,
    EMAIL_CLAIM,
    is_token_expired,
    is_usable_token,
    jwt_claims,
    jwt_expiration,
    true_expiration,
)
from carto_auth.cache import AccountFile, Identity, default_cache_filepath, is_sound_entry, load_cache_file, shown
from carto_auth.errors import CredentialsError


class Status(NamedTuple):
    """All that is known without asking anybody. Times are POSIX seconds.

    Attributes:
        source: where the credentials come from.
        passed_over: the places before it that hold nothing.
        api_base_url: the API base URL, or ``None`` if it is not known yet.
        access_token: the token, or ``None`` if none was fetched yet; it is never shown.
        expiration: until when the token is good; ``None`` for no token, and for one that does not say.
        cache_file: where the token is kept; ``None`` for sources that are not cached.
        renewable: whether it is renewed without asking a person.
        problem: what is wrong with the source, or ``None``.
    """

    source: credentials.Source
    passed_over: list[credentials.Source]
    api_base_url: str | None = None
    access_token: str | None = None
    expiration: float | None = None
    cache_file: str | None = None
    renewable: bool = False
    problem: str | None = None

    @property
    def is_usable(self) -> bool:
        """Whether a program would get a token now without asking a person."""
        if self.problem is not None:
            return False
        if self.renewable:
            return True
        if self.access_token is None:
            return False
        return self.expiration is None or not is_token_expired(self.expiration)

    @property
    def claims(self) -> dict[str, Any]:
        """The token's hints at whose it is."""
        return jwt_claims(self.access_token) if self.access_token else {}


def get_status(org: str | None = None) -> Status:
    """The status of the credentials that ``CartoAuth.default()`` would use; ``org`` is that of a login."""
    every = credentials.sources()
    # As carto-auth token has it: who names an organization means a login.
    source = next(source for source in every if source.is_there and (org is None or source.kind == "login"))
    passed_over = [] if org else every[: every.index(source)]
    try:
        return _status_of(source, passed_over, Services.from_environment(), org)
    except CredentialsError as error:
        return Status(source, passed_over, problem=str(error))


def _status_of(
    source: credentials.Source, passed_over: list[credentials.Source], services: Services, org: str | None
) -> Status:
    if source.kind == "access token":
        token = credentials.environment_access_token(services)
        assert token is not None
        return Status(source, passed_over, token.api_base_url, token.access_token)
    if source.kind == "cli":
        token = credentials.CliProfile.default().read()
        expiration = jwt_expiration(token.access_token)
        return Status(source, passed_over, token.api_base_url, token.access_token, expiration)
    if source.kind == "login":
        return _cached(source, passed_over, "oauth", Identity.of_person(services, org), None)
    found = credentials.find_m2m(services)
    identity = Identity.of_application(services, found.client_id, found.api_base_url)
    return _cached(source, passed_over, "m2m", identity, found.api_base_url)


def _cached(
    source: credentials.Source,
    passed_over: list[credentials.Source],
    mode: str,
    identity: Identity,
    api_base_url: str | None,
) -> Status:
    file = default_cache_filepath(mode)
    entry = load_cache_file(AccountFile.at(file, identity))
    if not entry or not is_sound_entry(entry) or ("identity" not in entry and not identity.owns_flat_entry(entry)):
        return Status(source, passed_over, api_base_url, cache_file=shown(file), renewable=mode == "m2m")
    return Status(
        source,
        passed_over,
        api_base_url or entry.get("api_base_url"),
        entry["access_token"],
        true_expiration(entry["access_token"], entry["expiration"], entry.get("issued_at")),
        shown(file),
        renewable=mode == "m2m" or is_usable_token(entry.get("refresh_token")),
    )


# ---- for people, and for programs ----------------------------------------------------------------


def as_json(status: Status) -> dict[str, Any]:
    """The status as a JSON object; what is not known is ``null``."""
    claims = status.claims
    return {
        "usable": status.is_usable,
        "source": {"kind": status.source.kind, "seen": status.source.seen},
        "passed_over": [{"kind": source.kind, "seen": source.seen} for source in status.passed_over],
        "email": _text(claims.get(EMAIL_CLAIM)),
        "account_id": _text(claims.get(ACCOUNT_CLAIM)),
        "organization_id": _text(claims.get("org_id")),
        "api_base_url": status.api_base_url,
        "expiration": status.expiration,
        "cache_file": status.cache_file,
        "problem": status.problem,
    }


def as_text(status: Status, *, bold: str = "", plain: str = "") -> str:
    """The status for a terminal; ``bold`` and ``plain`` are its codes to begin and to end bold type."""
    claims = status.claims
    rows = [
        ("Source", f"{status.source.name} ({status.source.seen})"),
        *(("Passed over" if number == 0 else "", source.seen) for number, source in enumerate(status.passed_over)),
        ("E-mail", _text(claims.get(EMAIL_CLAIM))),
        ("Account", _text(claims.get(ACCOUNT_CLAIM))),
        ("Organization", _text(claims.get("org_id"))),
        ("API base URL", status.api_base_url),
        ("Token", _token_line(status)),
        ("Cache", status.cache_file),
        ("Problem", status.problem),
    ]
    return "\n".join(f"{bold}{name:<14}{plain}{value}" for name, value in rows if value)


def _token_line(status: Status) -> str:
    if status.problem is not None:
        return ""
    if status.access_token is None:
        if status.source.kind == "login":
            return "none: nobody is logged in here. Run: carto-auth login"
        return "none yet; the first program that needs one fetches it"
    if status.expiration is None:
        return "good; it does not say until when"
    left = status.expiration - time.time()
    try:
        until = datetime.fromtimestamp(status.expiration).astimezone().strftime("%Y-%m-%d %H:%M %Z")
    except (ValueError, OverflowError):  # past the year 9999, as a time zone may have it
        return "good; it does not end"
    if left <= 0:
        return f"ended at {until}" + ("; the next program that needs one renews it" if status.renewable else "")
    return f"good until {until} (for {_duration(left)})"


def _duration(seconds: float) -> str:
    minutes = int(seconds // 60)
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes // (24 * 60)} days"


def _text(value: object) -> str | None:
    """A claim for a terminal: a text on one line, and nothing else."""
    if not isinstance(value, str):
        return None
    return "".join(character for character in value if character.isprintable())[:200] or None
