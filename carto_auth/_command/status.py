"""Show who you are for CARTO, where that comes from, and until when it is good.

No service is asked, and no token is renewed.
"""

from __future__ import annotations

import json
import os
import sys
import time
from datetime import datetime
from typing import Any, NamedTuple

from carto_auth import credentials
from carto_auth._identity import Identity
from carto_auth._services import Services
from carto_auth._stores import default_store
from carto_auth._token import (
    ACCOUNT_CLAIM,
    EMAIL_CLAIM,
    is_token_expired,
    jwt_claims,
    jwt_expiration,
)
from carto_auth.errors import CredentialsError


def show(org: str | None, *, as_json: bool) -> int:
    """Print the status of the credentials in use; with an organization, of the login to it.

    Returns:
        The exit code: 0 when a program would get a token without asking anybody, else 1.
    """
    status = get_status(org)
    if as_json:
        print(json.dumps(to_json(status), indent=2))
    else:
        colored = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        print(to_text(status, bold="\033[1m" if colored else "", plain="\033[0m" if colored else ""))
    return 0 if status.is_usable else 1


# ---- finding out ---------------------------------------------------------------------------------


class Status(NamedTuple):
    """All that is known without asking anybody.

    Attributes:
        source: where the credentials come from.
        passed_over: the places before it that hold nothing.
        api_base_url: the API base URL; ``None`` if it is not known yet.
        access_token: the token, which is never shown; ``None`` if there is none yet.
        expiration: when the token ends, in POSIX seconds; ``None`` for no token, and for one that does not say.
        cache_file: where the token is kept; ``None`` for sources that are not cached.
        renewable: whether the token is renewed without asking a person.
        problem: what is wrong with the source; ``None`` if nothing is.
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

    def claim(self, name: str) -> str | None:
        """What the token says about whose it is, on one line; ``None`` when it does not say."""
        value = jwt_claims(self.access_token).get(name) if self.access_token else None
        if not isinstance(value, str):
            return None
        return "".join(character for character in value if character.isprintable())[:200] or None


def get_status(org: str | None = None) -> Status:
    """The status of the credentials that ``CartoAuth.default()`` would use; with ``org``, of the login to it."""
    every = list(credentials.sources())
    source = next(source for source in every if source.is_there and (org is None or source.kind == "login"))
    passed_over = [] if org else every[: every.index(source)]
    try:
        return Status(source, passed_over, **_KINDS[source.kind](Services.from_environment(), org))
    except CredentialsError as error:
        return Status(source, passed_over, problem=str(error))


def _of_access_token(services: Services, _: str | None) -> dict[str, Any]:
    return vars(credentials.find_access_token(None, None, services))


def _of_cli(_: Services, __: str | None) -> dict[str, Any]:
    found = credentials.CliProfile.default().read()
    base_url = None if found.is_self_hosted else found.api_base_url(Services())  # nobody is asked
    return {
        "api_base_url": base_url,
        "access_token": found.access_token,
        "expiration": jwt_expiration(found.access_token),
    }


def _of_application(services: Services, _: str | None) -> dict[str, Any]:
    found = credentials.find_m2m(services)
    identity = Identity.of_application(services, found.client_id, found.api_base_url)
    return {**_kept(identity), "api_base_url": found.api_base_url, "renewable": True}


def _of_person(services: Services, org: str | None) -> dict[str, Any]:
    return _kept(Identity.of_person(services, org))


_KINDS = {
    "access_token": _of_access_token,
    "m2m_environment": _of_application,
    "m2m_file": _of_application,
    "cli": _of_cli,
    "login": _of_person,
}


def _kept(identity: Identity) -> dict[str, Any]:
    """What the cache knows of an account."""
    store = default_store(identity)
    entry = store.load()
    if entry is None or not store.owns(entry):
        return {"cache_file": store.shown}
    return {
        "cache_file": store.shown,
        "api_base_url": entry.api_base_url,
        "access_token": entry.token.text,
        "expiration": entry.token.end,
        "renewable": entry.token.refresh_token is not None,
    }


# ---- for programs, and for people ----------------------------------------------------------------


def to_json(status: Status) -> dict[str, Any]:
    """The status as a JSON object; ``null`` stands for what is not known."""
    return {
        "usable": status.is_usable,
        "source": {"kind": status.source.kind, "seen": status.source.seen},
        "passed_over": [{"kind": source.kind, "seen": source.seen} for source in status.passed_over],
        "email": status.claim(EMAIL_CLAIM),
        "account_id": status.claim(ACCOUNT_CLAIM),
        "organization_id": status.claim("org_id"),
        "api_base_url": status.api_base_url,
        "expiration": status.expiration,
        "cache_file": status.cache_file,
        "problem": status.problem,
    }


def to_text(status: Status, *, bold: str, plain: str) -> str:
    """The status for a terminal; ``bold`` and ``plain`` are its codes that begin and end bold type."""
    rows = [
        ("Source", f"{status.source.name} ({status.source.seen})"),
        *(("Passed over" if number == 0 else "", source.seen) for number, source in enumerate(status.passed_over)),
        ("E-mail", status.claim(EMAIL_CLAIM)),
        ("Account", status.claim(ACCOUNT_CLAIM)),
        ("Organization", status.claim("org_id")),
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
    return _until(status.expiration, status.renewable)


def _until(expiration: float, renewable: bool) -> str:
    try:
        end = datetime.fromtimestamp(expiration).astimezone().strftime("%Y-%m-%d %H:%M %Z")
    except (ValueError, OverflowError):  # beyond the year 9999, in some time zones
        return "good; it does not end"
    left = expiration - time.time()
    if left <= 0:
        return f"ended at {end}" + ("; the next program that needs one renews it" if renewable else "")
    return f"good until {end} (for {_duration(left)})"


def _duration(seconds: float) -> str:
    minutes = int(seconds // 60)
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes // (24 * 60)} days"
