"""Print a token."""

from __future__ import annotations

from carto_auth import CartoAuth, LoginRequired
from carto_auth._command import output

# Type checkers take this name for true; typing would slow down every carto-auth token.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from argparse import Namespace


def run(options: Namespace) -> None:
    """Print it as the options say."""
    print_token(options.org, as_json=options.json)


def print_token(org: str | None = None, *, as_json: bool = False) -> None:
    """Print the token of the source in use; with an organization, the token of the login to it.

    Raises:
        CredentialsError: as :meth:`CartoAuth.default` and :meth:`CartoAuth.from_oauth`.
    """
    try:
        with output.talk_aside():
            auth = CartoAuth.from_oauth(org=org) if org else CartoAuth.default()
            token = auth.get_access_token()
    except LoginRequired as error:
        from carto_auth._command.accounts import how_to_use_others

        advice = output.with_organization(error.remedy or "", org)
        error.remedy = " ".join(filter(None, (advice, how_to_use_others(org))))
        raise
    if as_json:
        import json

        expires_at = auth.expires_at.isoformat() if auth.expires_at else None
        told = {"access_token": token, "expires_at": expires_at, "api_base_url": auth.get_api_base_url()}
        token = json.dumps(told, indent=2)
    print(token)
