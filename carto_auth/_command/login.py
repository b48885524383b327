"""Log in: by the browser, by a code, or in two steps for those who cannot wait at a prompt."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from argparse import Namespace
from typing import Any

from carto_auth import CartoAuth, CredentialsError, LoginRequired, credentials
from carto_auth._command import output
from carto_auth._identity import Identity, Owner
from carto_auth._services import Services
from carto_auth._stores import default_store
from carto_auth._stores.base import Entry, Store
from carto_auth._stores.file_store import read, update
from carto_auth._stores.places import home_dir
from carto_auth._token import Token, is_time
from carto_auth.errors import LoginFailed
from carto_auth.pkce import Attempt, CartoPKCE, get_oauth_token_info

#: Seconds for which a login of ``--no-wait`` waits for its answer.
ANSWER_SECONDS = 600.0


def run(options: Namespace) -> None:
    """Log a person in who is not logged in already (or again, by ``--force``), and keep the login.

    With ``--no-wait``, only the link is printed; ``--answer`` does the rest.

    Raises:
        CredentialsError: as :meth:`CartoAuth.from_oauth`, or the login could not be kept.
    """
    answer = options.answer
    if answer == "-":
        answer = sys.stdin.readline() if sys.stdin else ""
    if answer is not None:
        _finish(answer)
        return
    services, org = Services.from_environment(), credentials.organization(options.org)
    if not options.force:
        with contextlib.suppress(LoginRequired):
            kept = _logged_in(CartoAuth.from_oauth(interactive=False, org=org), org)
            output.say(f"Already {kept[0].lower()}{kept[1:]}. To log in again: carto-auth login --force")
            return
    store = default_store(Identity.of_person(services, org))
    try:
        store.check(writing=True)
    except OSError as error:
        raise _not_kept(store, error, "so you were not asked to log in") from None
    if options.no_wait:
        _begin(org, services)
        return
    with output.talk_aside():
        try:
            info = get_oauth_token_info(not options.no_browser, org, services=services)
        except LoginRequired as error:
            error.remedy = "Run: carto-auth login --no-wait, which prints a link and does not wait for anybody."
            raise
    _keep(info, store, org)


def _logged_in(auth: CartoAuth, org: str | None) -> str:
    end = auth.expires_at
    return Owner(auth.get_access_token()).logged_in(end.timestamp() if end else None, org)


def _keep(info: dict[str, Any], store: Store, org: str | None) -> CartoAuth:
    """Keep what a login has given, find its API base URL, and say what programs will use; the account."""
    token = Token.of(info["access_token"], info["expiration"], info.get("issued_at"), info.get("refresh_token"))
    try:
        store.save(Entry(token, None))
    except OSError as error:
        raise _not_kept(store, error, "and is lost") from None
    auth = CartoAuth.from_oauth(interactive=False, org=org)
    output.say(f"The API base URL is {auth.get_api_base_url()}")
    source = credentials.source_in_use()
    if source.kind != "login":
        output.say(f"carto-auth token and CartoAuth.default() use {source.name} instead of it ({source.seen}).")
    return auth


def _not_kept(store: Store, error: OSError, what_else: str) -> CredentialsError:
    remedy = f"{store.remedy[:1].upper()}{store.remedy[1:]}."
    reason = error.strerror or type(error).__name__
    return CredentialsError(f"The login cannot be kept in {store.shown} ({reason}), {what_else}.", remedy=remedy)


# ---- in two steps --------------------------------------------------------------------------------


def _pending_path() -> str:
    return os.path.join(home_dir(), "login_pending.json")


def _begin(org: str | None, services: Services) -> None:
    """Print a login's link, and keep what its answer needs: for this user only, in the place of an earlier one."""
    login = CartoPKCE(False, org, services=services)
    url = login.get_authorize_url()
    identity = str(Identity.of_person(services, org))
    pending = {**vars(login.attempt), "org": org, "identity": identity, "until": time.time() + ANSWER_SECONDS}
    update(_pending_path(), lambda _: pending)
    if notice := login.notice():
        output.say(f"{notice}\n")
    output.say("Log in to CARTO with this link; it ends on a page that shows an access code:\n")
    print(url, flush=True)
    output.say("\nThen run, within ten minutes:\n\n    carto-auth login --answer CODE")


def _finish(answer: str) -> None:
    """End a login of ``--no-wait``, which is good for one code and for ten minutes.

    Args:
        answer: the access code, or the whole address at which the login ended.

    Raises:
        LoginFailed: no login waits for an answer, or this one is not its answer.
        CredentialsError: CARTO did not accept the code, or the login could not be kept.
    """
    services = Services.from_environment()
    pending = read(_pending_path())
    org = pending.get("org")
    identity = Identity.of_person(services, org)
    until = pending.get("until")
    if pending.get("identity") != str(identity) or not is_time(until) or until < time.time():
        raise _nothing_waits()
    login = CartoPKCE(False, org, services=services)
    login.attempt = Attempt(pending["redirect_uri"], pending["state"], pending["verifier"])
    code = login.get_authorization_code(answer)
    try:
        os.unlink(_pending_path())  # of two who answer at the same time, one is the first
    except FileNotFoundError:
        raise _nothing_waits() from None
    auth = _keep(login.get_token_info(code), default_store(identity), org)
    output.say(_logged_in(auth, org))


def _nothing_waits() -> LoginFailed:
    return LoginFailed(
        "No login is waiting for an answer: none was begun for this CARTO, it was answered, or it is older than ten "
        "minutes.",
        remedy="Begin one: carto-auth login --no-wait",
    )
