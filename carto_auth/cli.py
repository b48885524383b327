"""The ``carto-auth`` command: log in, use and forget a login; try all of it on a sandbox."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence

from carto_auth import CartoAuth, CredentialsError, __version__
from carto_auth._login import place
from carto_auth._typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

_Answer = TypeVar("_Answer")

_EXAMPLES = """\
examples:
  carto-auth login                      log in with the browser
  carto-auth login --org acme           log in with your organization's single sign-on
  carto-auth login --no-browser         log in with a link and an access code
  curl -H "Authorization: Bearer $(carto-auth token)" https://...
  carto-auth status --json              who you are for CARTO, for a program
  carto-auth demo                       see all of it work on this computer

exit codes: 0 done, 1 could not, 2 wrong usage
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0 when it did, 1 when it could not, 2 for wrong usage."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if sys.stdout is None:
        _say("carto-auth: there is no standard output to write to")
        return 1
    try:
        if arguments == ["token"]:
            return _print_token(None)  # what scripts call again and again need not wait for argparse
        try:
            options = _parser().parse_args(arguments)
        except SystemExit:  # of --help: it must have been written, too
            sys.stdout.flush()
            raise
        command: Callable[[argparse.Namespace], int] = options.command
        code = command(options)
        sys.stdout.flush()  # here, where it can still be told that it cannot be done
        return code
    except CredentialsError as error:
        _say(f"carto-auth: {error}")
    except KeyboardInterrupt:
        _say("carto-auth: interrupted")
    except BrokenPipeError:  # whoever read our output has seen enough
        _discard_output()
    except OSError as error:
        _say(f"carto-auth: the output could not be written ({error.strerror or error})")
        _discard_output()
    return 1


def _discard_output() -> None:
    """Keep the interpreter from trying to write the rest at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parser() -> argparse.ArgumentParser:
    import argparse

    parser = argparse.ArgumentParser(
        prog="carto-auth",
        description="Log in to CARTO from the command line.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"carto-auth {__version__}")
    commands = parser.add_subparsers(required=True, metavar="command")

    def add(name: str, command: Callable[[argparse.Namespace], int], told: str) -> argparse.ArgumentParser:
        subparser = commands.add_parser(name, help=told, description=f"{told[0].upper()}{told[1:]}.")
        subparser.set_defaults(command=command)
        return subparser

    login = add("login", _login, "log in, and keep the login for your programs")
    login.add_argument("--no-browser", action="store_true", help="show a link, and ask for the access code")
    token = add("token", _token, "print an access token, and nothing else, to the standard output")
    status = add("status", _status, "tell who you are for CARTO, where that comes from, and until when")
    status.add_argument("--json", action="store_true", help="tell it as a JSON object")
    logout = add("logout", _logout, "forget the login and the tokens that are kept")
    for subparser in (login, token, status, logout):
        subparser.add_argument("--org", help="the SSO organization of the login, by its name or its id (org_...)")
    add("demo", _demo, "see the main job on a sandbox on this computer")
    add("sandbox", _sandbox, "run a sandbox until Ctrl-C, and print the lines to export")
    return parser


def _login(options: argparse.Namespace) -> int:
    auth = _with_output_aside(lambda: CartoAuth.from_oauth(open_browser=not options.no_browser, org=options.org))
    _say(f"Logged in. The API base URL is {auth.get_api_base_url()}")
    from carto_auth.credentials import source_in_use

    source = source_in_use()
    if source.kind != "login":
        _say(f"CartoAuth.default() and carto-auth token use {source.name} before it ({source.seen}).")
    return 0


def _token(options: argparse.Namespace) -> int:
    return _print_token(options.org)


def _print_token(org: str | None) -> int:
    """The token of the source in use; with an organization, that of the login with it."""

    def get() -> str:
        return (CartoAuth.from_oauth(org=org) if org else CartoAuth.default()).get_access_token()

    token = _with_output_aside(get)
    print(token)
    sys.stdout.flush()
    return 0


def _status(options: argparse.Namespace) -> int:
    import json

    from carto_auth import _status as status_of

    status = status_of.get_status(options.org)
    if options.json:
        print(json.dumps(status_of.as_json(status), indent=2))
    else:
        colored = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        print(status_of.as_text(status, bold="\033[1m" if colored else "", plain="\033[0m" if colored else ""))
    return 0 if status.is_usable else 1


def _logout(options: argparse.Namespace) -> int:
    from carto_auth import credentials
    from carto_auth._services import Services
    from carto_auth.cache import default_cache_filepath

    def forget(name: str, account: CartoAuth) -> None:
        _say(f"The {name} is forgotten." if account.logout() else f"There was no {name} to forget.")

    forget("login", CartoAuth("oauth", cache_filepath=default_cache_filepath("oauth"), org=options.org))
    source = credentials.source_in_use()
    if source.kind.startswith("m2m"):
        found = credentials.find_m2m(Services.from_environment())
        forget("M2M token", CartoAuth("m2m", cache_filepath=default_cache_filepath("m2m"), **found._asdict()))
    if source.kind != "login":
        _say(f"Programs still find {source.name} ({source.seen}).")
    return 0


def _demo(options: argparse.Namespace) -> int:
    from carto_auth.sandbox import demo

    return demo.run()


def _sandbox(options: argparse.Namespace) -> int:
    import shlex
    import threading

    from carto_auth.sandbox import CartoSandbox

    with CartoSandbox() as sandbox:
        print("# A CARTO sandbox is running until Ctrl-C. In another terminal:")
        for name, value in sandbox.environment().items():
            print(f"export {name}={shlex.quote(value)}")
        sys.stdout.flush()
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()
    return 0


def _with_output_aside(action: Callable[[], _Answer]) -> _Answer:
    """Do something whose talk to the person must not get into what a script reads."""
    if place.is_terminal(sys.stdout) and not place.is_terminal(sys.stderr):
        return action()  # no script reads there, and the person does
    with contextlib.redirect_stdout(sys.stderr), _children_aside():
        return action()


@contextlib.contextmanager
def _children_aside() -> Iterator[None]:
    """Have the programs that are started (a browser) write where the standard error goes, too."""
    kept = None
    with contextlib.suppress(OSError):  # one of the two is closed
        kept = os.dup(1)
        os.dup2(2, 1)
    try:
        yield
    finally:
        if kept is not None:
            os.dup2(kept, 1)
            os.close(kept)


def _say(text: str) -> None:
    print(text, file=sys.stderr)
