"""Log out: of what is in use, or of all that is kept."""

from __future__ import annotations

from argparse import Namespace

from carto_auth import CredentialsError, credentials
from carto_auth._account import Account
from carto_auth._command import output
from carto_auth._command.accounts import all_kept, title
from carto_auth._identity import Identity
from carto_auth._services import Services
from carto_auth._sources import TokenSource
from carto_auth._stores import default_store
from carto_auth._stores.base import Store
from carto_auth.auth import SEAMS
from carto_auth.pkce import revoke_refresh_token


class _Leaving(TokenSource):
    """An account of which nothing is wanted but that its tokens be worth nothing."""

    def revoke(self, refresh_token: str) -> None:
        auth_url = self.identity.token_endpoint.removesuffix("/oauth/token")
        revoke_refresh_token(refresh_token, services=Services(auth_url=auth_url, client_id=self.identity.client_id))


def run(options: Namespace) -> int:
    """Forget the login, and the M2M token if an M2M application is in use; or all that is kept.

    Returns:
        The exit code: 1 if something of all that is kept stayed kept or good, else 0.

    Raises:
        CredentialsError: what is in use stayed kept or good, or the M2M credentials cannot be used.
    """
    if options.all:
        return _forget_all()
    services = Services.from_environment()
    _forget("login", default_store(Identity.of_person(services, credentials.organization(options.org))))
    source = credentials.source_in_use()
    if source.kind.startswith("m2m"):
        found = credentials.find_m2m(services)
        identity = Identity.of_application(services, found.client_id, found.api_base_url)
        _forget("M2M token", default_store(identity))
    if source.kind != "login":
        output.say(f"Programs still find {source.name} ({source.seen}).")
    return 0


def _forget_all() -> int:
    kept, is_complete = all_kept()
    code = 0 if is_complete else 1
    for identity, entry, store in kept:
        try:
            _forget(title(identity, entry), store.beside(identity))
        except CredentialsError as error:
            output.say(f"carto-auth: {error}")
            code = 1
    return code


def _forget(name: str, store: Store) -> None:
    found = Account(_Leaving(store.identity), store, SEAMS).forget()
    output.say(f"The {name} is forgotten." if found else f"There was no {name} to forget.")
