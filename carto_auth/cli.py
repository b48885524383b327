"""The ``carto-auth`` command: log in, use and forget a login; try all of it on a sandbox."""

from __future__ import annotations

import argparse
import contextlib
import sys
import threading
from collections.abc import Callable, Sequence

from carto_auth import CartoAuth, CredentialsError, __version__

_EXAMPLES = """\
examples:
  carto-auth login                  log in with the browser
  carto-auth login --no-browser     log in with a link and an access code
  curl -H "Authorization: Bearer $(carto-auth token)" https://...
  carto-auth demo                   see all of it work on this computer
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0 when it did, 1 when it could not, 2 for wrong usage."""
    options = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = options.command
    try:
        return command(options)
    except CredentialsError as error:
        print(f"carto-auth: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("carto-auth: interrupted", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="carto-auth",
        description="Log in to CARTO from the command line.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"carto-auth {__version__}")
    commands = parser.add_subparsers(required=True, metavar="command")

    login = commands.add_parser("login", help="log in, and keep the login for your programs")
    login.add_argument("--org", help="the SSO organization, by its name or its id (org_...)")
    login.add_argument("--no-browser", action="store_true", help="show a link and ask for the access code")
    login.set_defaults(command=_login)

    token = commands.add_parser("token", help="print an access token, and nothing else, to stdout")
    token.add_argument("--org", help="the SSO organization of the login")
    token.set_defaults(command=_token)

    commands.add_parser("demo", help="see the main job on a sandbox on this computer").set_defaults(command=_demo)
    commands.add_parser("sandbox", help="run a sandbox until Ctrl-C").set_defaults(command=_sandbox)
    return parser


def _login(options: argparse.Namespace) -> int:
    with contextlib.redirect_stdout(sys.stderr):
        auth = CartoAuth.from_oauth(open_browser=not options.no_browser, org=options.org)
    print(f"Logged in. The API base URL is {auth.get_api_base_url()}", file=sys.stderr)
    return 0


def _token(options: argparse.Namespace) -> int:
    with contextlib.redirect_stdout(sys.stderr):
        token = CartoAuth.from_oauth(org=options.org).get_access_token()
    print(token)
    return 0


def _demo(options: argparse.Namespace) -> int:
    from carto_auth.sandbox import demo

    return demo.run()


def _sandbox(options: argparse.Namespace) -> int:
    from carto_auth.sandbox import CartoSandbox

    with CartoSandbox() as sandbox:
        print("# A CARTO sandbox is running until Ctrl-C. In another terminal:")
        for name, value in sandbox.environment().items():
            print(f"export {name}={value}")
        sys.stdout.flush()
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()
    return 0
