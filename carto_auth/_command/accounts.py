"""All that is kept: who, until when, and where."""

from __future__ import annotations

from carto_auth import credentials
from carto_auth._command import output
from carto_auth._identity import Identity, Owner
from carto_auth._services import Services
from carto_auth._stores import Entry, Store, default_store


def all_kept() -> list[tuple[Identity, Entry, Store]]:
    """Every account of the default places, with its entry and the store that it was found in."""
    services = Services.from_environment()
    places = Identity.of_person(services, None), Identity.of_application(services, "", "")
    found = {
        (store.shown, identity): (identity, entry, store)  # the two places may be one
        for store in map(default_store, places)
        for identity, entry in store.accounts()
    }
    return list(found.values())


def title(identity: Identity, entry: Entry) -> str:
    """What an account is called: "login of ana@example.com to acme"."""
    owner = Owner(entry.token.text).email
    if identity.mode == "m2m":
        return f"token of the M2M application {identity.client_id}"
    kind = "login" if identity.mode == "oauth" else "token of a map"
    organization = f" to {identity.organization}" if identity.organization else ""
    return f"{kind}{f' of {owner}' if owner else ''}{organization}"


def run(_: object) -> None:
    """Print them, with what a program needs to use each."""
    kept = all_kept()
    for identity, entry, store in kept:
        name = title(identity, entry)
        output.print_rows(
            f"{name[0].upper()}{name[1:]}",
            ("Token", output.until(entry.token.end) + ("; renewed without you" if entry.token.refresh_token else "")),
            ("API base URL", entry.api_base_url or identity.api_base_url),
            ("CARTO", None if identity.token_endpoint == Services().token_url else identity.token_endpoint),
            ("Kept in", store.shown),
        )
    if not kept:
        output.say("Nothing is kept here. Log in with: carto-auth login")


def other_organizations(org: str | None) -> list[str]:
    """The organizations that good logins are kept for, other than the one in question."""
    services = Services.from_environment()
    return [
        identity.organization
        for identity, entry in default_store(Identity.of_person(services, None)).accounts()
        if identity == Identity.of_person(services, identity.organization)
        and identity.organization not in ("", credentials.organization(org))
        and (entry.token.refresh_token or not entry.token.is_over())
    ]


def how_to_use_others(org: str | None) -> str:
    """A sentence that says which other logins are kept and how they are used; ``""`` for none."""
    others = other_organizations(org)
    if not others:
        return ""
    return f"A login to {', '.join(others)} is kept: use it by --org {others[0]}, or set CARTO_ORG={others[0]}."
