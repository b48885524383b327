"""All that is kept: who, until when, and where."""

from __future__ import annotations

from carto_auth import credentials
from carto_auth._command import output
from carto_auth._identity import Identity, Owner
from carto_auth._services import Services
from carto_auth._stores import default_store
from carto_auth._stores.base import Entry, Store
from carto_auth._stores.file_store import DefaultFileStore, FileStore
from carto_auth._stores.places import unwritable_filepath


def all_kept() -> tuple[list[tuple[Identity, Entry, Store]], bool]:
    """What the default places keep, and whether all of them could be read; says which could not.

    Each account is one with its entry and the store that it was found in.
    """
    services = Services.from_environment()
    found, is_complete = {}, True
    identities = Identity.of_person(services, None), Identity.of_application(services, "", "")
    places = [default_store(identity) for identity in identities]
    own = [place for place in places if isinstance(place, DefaultFileStore)]
    # Programs also read what a home has that is lent to a container.
    places += [FileStore(place.identity, path) for place in own if (path := unwritable_filepath(place.mode))]
    for place in places:
        try:
            place.check()
            for account, entry in place.accounts():
                found[place.shown, account] = account, entry, place  # the two places may be one
        except OSError as error:
            output.say(f"carto-auth: {place.shown} cannot be read ({error.strerror or error}).")
            is_complete = False
    if is_complete and not found:
        output.say("Nothing is kept here. Log in with: carto-auth login")
    return list(found.values()), is_complete


def title(identity: Identity, entry: Entry) -> str:
    """What an account is called: "login of ana@example.com to acme"."""
    owner = Owner(entry.token.text).email
    if identity.mode == "m2m":
        return f"token of the M2M application {identity.client_id}"
    kind = "login" if identity.mode == "oauth" else "token of a map"
    organization = f" to {identity.organization}" if identity.organization else ""
    return f"{kind}{f' of {owner}' if owner else ''}{organization}"


def run(_: object) -> int:
    """Print them, with what a program needs to use each; 1 where some place could not be read, else 0."""
    kept, is_complete = all_kept()
    for identity, entry, store in kept:
        name = title(identity, entry)
        output.print_rows(
            f"{name[0].upper()}{name[1:]}",
            ("Token", output.until(entry.token.end) + ("; renewed without you" if entry.token.refresh_token else "")),
            ("API base URL", entry.api_base_url or identity.api_base_url),
            ("CARTO", None if identity.token_endpoint == Services().token_url else identity.token_endpoint),
            ("Kept in", store.shown),
        )
    return 0 if is_complete else 1


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
