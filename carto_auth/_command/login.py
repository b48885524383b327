"""Log in, print a token, log out."""

from __future__ import annotations

from carto_auth import CartoAuth, credentials
from carto_auth._command import output
from carto_auth._services import Services
from carto_auth._stores.places import default_place


def log_in(org: str | None, *, open_browser: bool) -> None:
    """Log a person in, keep the login, and say what programs will use.

    Raises:
        CredentialsError: as :meth:`CartoAuth.from_oauth`.
    """
    with output.talk_aside():
        auth = CartoAuth.from_oauth(open_browser=open_browser, org=org)
    output.say(f"Logged in. The API base URL is {auth.get_api_base_url()}")
    source = credentials.source_in_use()
    if source.kind != "login":
        output.say(f"CartoAuth.default() and carto-auth token use {source.name} instead of it ({source.seen}).")


def print_token(org: str | None = None) -> None:
    """Print the token of the source in use; with an organization, the token of the login to it.

    Raises:
        CredentialsError: as :meth:`CartoAuth.default` and :meth:`CartoAuth.from_oauth`.
    """
    with output.talk_aside():
        auth = CartoAuth.from_oauth(org=org) if org else CartoAuth.default()
        token = auth.get_access_token()
    print(token)


def log_out(org: str | None) -> None:
    """Forget the login, and the M2M token if an M2M application is in use.

    Raises:
        CredentialsError: as :meth:`CartoAuth.logout`, or the M2M credentials cannot be used.
    """
    _forget("login", CartoAuth("oauth", cache_filepath=default_place("oauth"), org=org))
    source = credentials.source_in_use()
    if source.kind.startswith("m2m"):
        found = credentials.find_m2m(Services.from_environment())
        _forget("M2M token", CartoAuth("m2m", cache_filepath=default_place("m2m"), **vars(found)))
    if source.kind != "login":
        output.say(f"Programs still find {source.name} ({source.seen}).")


def _forget(name: str, auth: CartoAuth) -> None:
    output.say(f"The {name} is forgotten." if auth.logout() else f"There was no {name} to forget.")
