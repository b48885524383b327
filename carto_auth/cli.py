"""The ``carto-auth`` command: its arguments, its exit codes, and its errors in one line."""

from __future__ import annotations

import sys

from carto_auth import CredentialsError, __version__
from carto_auth._command import output
from carto_auth._command.login import log_in, log_out, print_token

# Type checkers take this name for true; typing would slow down every carto-auth token.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Callable, Sequence

_EXAMPLES = """\
examples:
  carto-auth login                      log in with the browser
  carto-auth login --org acme           log in with your organization's single sign-on
  carto-auth login --no-browser         log in with a link and an access code
  curl -H "Authorization: Bearer $(carto-auth token)" https://...
  carto-auth status --json              who you are for CARTO, for a program
  carto-auth demo                       see all of it work on this computer

exit codes: 0 done, 1 failed, 2 wrong usage
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with these arguments, or with those of the process.

    Returns:
        The exit code: 0 when it did what it was asked, 1 when it could not.

    Raises:
        SystemExit: 2 for wrong usage, 0 after ``--help`` and ``--version``, as ``argparse`` has it.
    """
    if sys.stdout is None:
        output.say("carto-auth: there is no standard output to write to")
        return 1
    try:
        return _run(sys.argv[1:] if arguments is None else list(arguments))
    except CredentialsError as error:
        output.say(f"carto-auth: {error}")
    except KeyboardInterrupt:
        output.say("carto-auth: interrupted")
    except BrokenPipeError:  # whoever read our output has seen enough
        output.discard()
    except OSError as error:
        output.say(f"carto-auth: the output could not be written ({error.strerror or error})")
        output.discard()
    return 1


def _run(arguments: list[str]) -> int:
    if arguments == ["token"]:  # scripts run this often, and need not wait for argparse
        print_token()
        code = None
    else:
        try:
            options = _parser().parse_args(arguments)
        finally:
            sys.stdout.flush()  # --help ends here, and must have been written
        code = options.run(options)
    sys.stdout.flush()  # a failure to write can still be reported here
    return code or 0


def _parser() -> ArgumentParser:
    from argparse import ArgumentParser, RawDescriptionHelpFormatter

    parser = ArgumentParser(
        prog="carto-auth",
        description="Log in to CARTO from the command line.",
        epilog=_EXAMPLES,
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"carto-auth {__version__}")
    commands = parser.add_subparsers(required=True, metavar="command")

    def add(name: str, run: Callable[[Namespace], int | None], summary: str) -> ArgumentParser:
        command = commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
        command.set_defaults(run=run)
        return command

    login = add("login", _login, "log in, and keep the login for your programs")
    login.add_argument("--no-browser", action="store_true", help="show a link, and ask for the access code")
    token = add("token", _token, "print an access token, and nothing else, to the standard output")
    status = add("status", _status, "show who you are for CARTO, where that comes from, and until when it is good")
    status.add_argument("--json", action="store_true", help="show it as a JSON object")
    logout = add("logout", _logout, "forget the login and the tokens that are kept")
    for command in (login, token, status, logout):
        command.add_argument("--org", help="the SSO organization of the login, by its name or its id (org_...)")
    add("demo", _demo, "show the main job on a sandbox on this computer")
    add("sandbox", _sandbox, "run a sandbox until Ctrl-C, and print the lines to export")
    return parser


def _login(options: Namespace) -> None:
    log_in(options.org, open_browser=not options.no_browser)


def _token(options: Namespace) -> None:
    print_token(options.org)


def _logout(options: Namespace) -> None:
    log_out(options.org)


def _status(options: Namespace) -> int:
    from carto_auth._command import status  # it knows dates and JSON, for which a token need not wait

    return status.show(options.org, as_json=options.json)


def _demo(_: Namespace) -> int:
    from carto_auth.sandbox import demo  # of an extra

    return demo.run()


def _sandbox(_: Namespace) -> None:
    from carto_auth._command import sandbox  # of an extra

    sandbox.run()
