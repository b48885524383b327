"""The ``carto-auth`` command: its arguments, its exit codes, and its errors in one line."""

from __future__ import annotations

import sys

from carto_auth import CredentialsError, LoginRequired, __version__
from carto_auth._command import output
from carto_auth._command.token import print_token

# Type checkers take this name for true; typing would slow down every carto-auth token.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Callable, Iterable, Sequence
    from typing import NoReturn

_EPILOG = """\
examples:
  carto-auth login
      log in with the browser
  carto-auth login --org acme
      log in by acme's single sign-on
  carto-auth login --no-wait
  carto-auth login --answer CODE
      log in where no prompt can wait
  carto-auth status --check
      ask CARTO whether all works
  echo Authorization: Bearer \\
    "$(carto-auth token)" |
    curl -H @- https://...
      so that ps shows no token

exit codes:
  0    done
  1    it could not be done
  2    wrong usage
  4    a login is needed
  130  Ctrl-C
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with these arguments, or with those of the process.

    Returns:
        The exit code: 0 when it did what it was asked, 1 when it could not, 4 when a person has to log in first, 130
        after Ctrl-C.

    Raises:
        SystemExit: 2 for wrong usage, 0 after ``--help`` and ``--version``, as ``argparse`` has it.
    """
    if sys.stdout is None:
        output.say("carto-auth: there is no standard output to write to")
        return 1
    output.prepare()
    try:
        return _run(sys.argv[1:] if arguments is None else list(arguments))
    except CredentialsError as error:
        output.say(f"carto-auth: {output.in_its_own_words(str(error))}")
        return 4 if isinstance(error, LoginRequired) else 1
    except KeyboardInterrupt:
        output.say("carto-auth: interrupted")
        return 130
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
            options = _parsed(arguments)
        finally:
            sys.stdout.flush()  # --help ends here, and must have been written
        code = options.run(options)
    sys.stdout.flush()  # a failure to write can still be reported here
    return code or 0


def _parsed(arguments: list[str]) -> Namespace:
    import re

    whole = parser()
    commands = whole.get_default("commands")
    name = next((argument for argument in arguments if not argument.startswith("-")), None)
    if name is not None and name not in commands:
        _refuse(whole, f"there is no command {name!r}", name, commands)
    options, unknown = whole.parse_known_args(arguments)
    if options.verbose:
        output.follow()
    if unknown:
        command = commands.get(name, whole)
        _refuse(command, f"{unknown[0]!r} is unknown", unknown[0], re.findall(r"--[a-z-]+", command.format_help()))
    return options


def _refuse(command: ArgumentParser, problem: str, word: str, known: Iterable[str]) -> NoReturn:
    from difflib import get_close_matches

    near = get_close_matches(word, known, 1)
    command.error(f"{problem}; did you mean {near[0]}?" if near else problem)


def parser() -> ArgumentParser:
    """The command's arguments; ``make completions`` reads them too."""
    from argparse import ArgumentParser, ArgumentTypeError, RawDescriptionHelpFormatter

    whole = ArgumentParser(
        prog="carto-auth",
        description="Log in to CARTO from the command line.",
        epilog=_EPILOG,
        formatter_class=RawDescriptionHelpFormatter,
    )
    whole.add_argument("-V", "--version", action="version", version=f"carto-auth {__version__}")
    commands = whole.add_subparsers(metavar="command")
    whole.set_defaults(run=_help, verbose=False, topic=None, commands=commands.choices)

    def name(text: str) -> str:
        if not text.strip():
            raise ArgumentTypeError("it is empty")
        return text

    def add(name: str, run: Callable[[Namespace], int | None], summary: str) -> Callable[..., object]:
        command = commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
        command.set_defaults(run=run)
        command.add_argument("-v", "--verbose", action="store_true", help="tell more")
        return command.add_argument

    login = add("login", _login, "log in, and keep the login for your programs")
    login("--force", action="store_true", help="even if you are logged in")
    login("--no-browser", "--no-launch-browser", action="store_true", help="show a link, and ask for the access code")
    login("--no-wait", action="store_true", help="print the link and end; --answer goes on")
    login("--answer", metavar="TEXT", help="end a login of --no-wait: the access code or the address; - reads it")
    token = add("token", _token, "print an access token, and nothing else")
    token("--json", action="store_true", help="with its end and the API base URL")
    status = add("status", _status, "show who you are for CARTO, and until when")
    status("--json", action="store_true", help="as a JSON object")
    status("--check", action="store_true", help="ask every service of CARTO's")
    add("accounts", _accounts, "show all logins and tokens that are kept")
    logout = add("logout", _logout, "forget the login and the tokens in use")
    logout("--all", action="store_true", help="forget all that is kept")
    for option in (login, token, status, logout):
        option("--org", "--organization-name", type=name, help="the SSO organization (or its id, org_...)")
    add("demo", _demo, "show the main job on a sandbox here")
    add("sandbox", _sandbox, "run a sandbox until Ctrl-C")
    add("help", _help, "show how a command is used")(
        "topic", nargs="?", choices=list(commands.choices), metavar="command"
    )
    return whole


# Each of them imports what it needs, for which a token need not wait.


def _help(options: Namespace) -> None:
    options.commands.get(options.topic, parser()).print_help()


def _login(options: Namespace) -> None:
    from carto_auth._command import login

    if options.answer is not None:
        login.finish(sys.stdin.readline() if options.answer == "-" else options.answer)
    else:
        login.log_in(options.org, open_browser=not options.no_browser, force=options.force, waits=not options.no_wait)


def _token(options: Namespace) -> None:
    print_token(options.org, as_json=options.json)


def _logout(options: Namespace) -> int:
    from carto_auth._command import logout

    return logout.log_out_of_all() if options.all else logout.log_out(options.org)


def _accounts(_: Namespace) -> None:
    from carto_auth._command import accounts

    accounts.show()


def _status(options: Namespace) -> int:
    from carto_auth._command import status

    return status.show(options.org, as_json=options.json, checks=options.check, verbose=options.verbose)


def _demo(_: Namespace) -> int:
    from carto_auth.sandbox import demo  # of an extra

    return demo.run()


def _sandbox(_: Namespace) -> None:
    from carto_auth._command import sandbox  # of an extra

    sandbox.run()
