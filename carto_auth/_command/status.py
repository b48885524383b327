"""Show who you are for CARTO, where that comes from, and until when it is good.

No token is renewed and no service is asked, but by :mod:`carto_auth._command.check`; only a self-hosted tenant of the
CARTO CLI's is asked for its API base URL, as it is at each start.
"""

from __future__ import annotations

import json
from argparse import Namespace
from typing import Any, NamedTuple

from carto_auth import credentials
from carto_auth._command import output
from carto_auth._command.accounts import how_to_use_others, other_organizations
from carto_auth._command.check import all_checks
from carto_auth._identity import Identity, Owner
from carto_auth._services import Services
from carto_auth._stores import default_store
from carto_auth._stores.base import NO_TOKEN, Store
from carto_auth._token import Token
from carto_auth.errors import CredentialsError


def run(options: Namespace) -> int:
    """Print the status of the credentials in use; with an organization, of the login to it.

    Returns:
        The exit code: 0 when the next program would get a token without asking anybody (and all checks succeed), 4 when
        a login is all that is missing, else 1.
    """
    status = get_status(options.org)
    checks = all_checks(status.source.kind, options.org) if options.check else []
    if options.json:
        document = to_json(status)
        if options.check:
            document["checks"] = [check._asdict() for check in checks]
        print(json.dumps(document, indent=2))
    else:
        rows = _rows(status)
        rows += [(name, f"{'ok' if ok else 'failed'}: {output.in_its_own_words(seen)}") for name, ok, seen in checks]
        if options.verbose:
            rows += [("Passed over", source.seen) for source in status.passed_over]
        output.print_rows(_title(status, is_checked=options.check), *rows)
    if not status.is_usable:
        return 4 if status.problem is None and status.source.kind in ("login", "cli") else 1
    return 0 if all(check.ok for check in checks) else 1


# ---- finding out ---------------------------------------------------------------------------------


class Status(NamedTuple):
    """All that is known.

    Attributes:
        source: where the credentials come from.
        passed_over: the places before it that hold nothing that can be used.
        org: the organization of a person's login.
        store: where the token is kept; ``None`` for sources that are not cached.
        api_base_url: the API base URL; ``None`` if it is not known yet.
        token: the token, whose text is never shown; ``NO_TOKEN`` if there is none yet.
        renewable: whether the token is renewed without asking a person.
        problem: what is wrong with the source; ``None`` if nothing is.
        cache_problem: what is wrong with the cache; ``None`` if nothing is.
    """

    source: credentials.Source
    passed_over: list[credentials.Source]
    org: str | None
    store: Store | None = None
    api_base_url: str | None = None
    token: Token = NO_TOKEN
    renewable: bool = False
    problem: str | None = None
    cache_problem: str | None = None

    @property
    def is_over(self) -> bool:
        """Whether the token has ended, as far as it says."""
        return self.token.end is not None and self.token.is_over()

    @property
    def is_usable(self) -> bool:
        """Whether the next program would get a token without asking a person."""
        return self.problem is None and (self.renewable or (self.token != NO_TOKEN and not self.is_over))


def get_status(org: str | None = None) -> Status:
    """The status of the credentials that ``CartoAuth.default()`` would use; with ``org``, of the login to it."""
    places = list(credentials.sources())
    source = next(one for one in places if one.is_there and (org is None or one.kind == "login"))
    passed_over = places[: places.index(source)]
    status = Status(source, [] if org else passed_over, credentials.organization(org))
    try:
        return _looked_into(status, Services.from_environment())
    except CredentialsError as error:
        return status._replace(problem=str(error))


def _looked_into(status: Status, services: Services) -> Status:
    kind = status.source.kind
    if kind == "access_token":
        text, base_url = credentials.find_access_token(None, None, services)
        return status._replace(api_base_url=base_url, token=Token.of(text, None))
    if kind == "cli":
        login = credentials.cli_login()
        return status._replace(api_base_url=login.api_base_url(services), token=Token.of(login.access_token, None))
    if kind != "login":
        found = credentials.find_m2m(services)
        status = _kept(status, Identity.of_application(services, found.client_id, found.api_base_url))
        return status._replace(api_base_url=found.api_base_url or status.api_base_url, renewable=True)
    status = _kept(status, Identity.of_person(services, status.org))
    if status.token == NO_TOKEN or status.api_base_url is not None:
        return status
    return status._replace(
        problem="There is a login, but its API base URL could not be found: the account may not belong to a CARTO "
        "organization yet. carto-auth status --check asks CARTO."
    )


def _kept(status: Status, identity: Identity) -> Status:
    """What the cache knows of an account."""
    store = default_store(identity)
    status = status._replace(store=store)
    try:
        store.check()
    except OSError as error:
        status = status._replace(cache_problem=f"{error.strerror}; programs go on without it")
    entry = next((entry for entry in (store.load(), *store.spare_entries()) if entry and store.owns(entry)), None)
    if entry is None:
        return status
    renewable = entry.token.refresh_token is not None
    return status._replace(api_base_url=entry.api_base_url, token=entry.token, renewable=renewable)


# ---- for programs, and for people ----------------------------------------------------------------


def to_json(status: Status) -> dict[str, Any]:
    """The status as a JSON object; ``null`` stands for what is not known."""
    expires_at, owner = status.token.expires_at, Owner(status.token.text)
    return {
        "usable": status.is_usable,
        "source": {"kind": status.source.kind, "seen": status.source.seen},
        "passed_over": [{"kind": source.kind, "seen": source.seen} for source in status.passed_over],
        "email": owner.email,
        "account_id": owner.account_id,
        "organization_id": owner.organization_id,
        "api_base_url": status.api_base_url,
        "expiration": status.token.end,
        "expires_at": expires_at.isoformat() if expires_at else None,
        "cache_file": status.store.shown if status.store else None,
        "cache_problem": status.cache_problem,
        "problem": status.problem,
        "other_logins": other_organizations(status.org),
    }


def _title(status: Status, *, is_checked: bool) -> str:
    kind = status.source.kind
    if status.problem is not None:
        return "No program gets a token here."
    if status.token == NO_TOKEN:
        if kind == "login":
            return output.with_organization("Nobody is logged in here. Run: carto-auth login", status.org)
        return "There is no token yet. The first program that needs one fetches it."
    if status.is_over:
        if status.renewable:
            return "The token has ended. The next program that needs one renews it."
        command = {"login": "Run: carto-auth login", "cli": "Run: carto auth login"}.get(kind, "Make a new one.")
        return output.with_organization(f"The token has ended. {command}", status.org)
    if kind in ("login", "cli"):
        return Owner(status.token.text).logged_in(status.token.end, status.org)
    if kind == "access_token":
        advice = "" if is_checked else " Whether CARTO takes it was not checked: carto-auth status --check"
        return f"There is an access token.{advice}"
    return "The application has a token."


def _rows(status: Status) -> list[tuple[str, str | None]]:
    source, owner = status.source, Owner(status.token.text)
    return [
        ("Source", source.name if source.kind == "login" else f"{source.name} ({source.seen})"),
        ("E-mail", owner.email),
        ("Account", owner.account_id),
        ("Organization", owner.organization_id),
        ("API base URL", status.api_base_url),
        ("Token", output.until(status.token.end) if status.token.end else None),
        ("Cache", status.store.shown if status.store else None),
        ("Cache problem", status.cache_problem),
        ("Problem", output.in_its_own_words(status.problem or "")),
        ("Also kept", how_to_use_others(status.org)),
    ]
