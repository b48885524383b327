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
    from collections.abc import Iterable, Sequence
    from typing import NoReturn

#: Each but ``help`` is a module of ``_command``, whose ``run`` does it; a token waits for none of the others.
_COMMANDS = {
    "login": "log in, and keep the login for your programs",
    "token": "print an access token, and nothing else",
    "status": "show who you are for CARTO, and until when",
    "accounts": "show all logins and tokens that are kept",
    "logout": "forget the login and the tokens in use",
    "demo": "show the main job on a sandbox here",
    "sandbox": "run a sandbox until Ctrl-C",
    "help": "show how a command is used",
}
_SWITCHES = [
    ("login", ["--force"], "even if you are logged in"),
    ("login", ["--no-browser", "--no-launch-browser"], "show a link, and ask for the access code"),
    ("login", ["--no-wait"], "print the link and end; --answer goes on"),
    ("token", ["--json"], "with its end and the API base URL"),
    ("status", ["--json"], "as a JSON object"),
    ("status", ["--check"], "ask every service of CARTO's"),
    ("logout", ["--all"], "forget all that is kept"),
]
_EPILOG = """\
examples:
  carto-auth login --org acme
      log in by acme's single sign-on
  carto-auth login --no-wait
  carto-auth login --answer CODE
      log in where no prompt can wait
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
    except OSError as error:
        if not isinstance(error, BrokenPipeError):  # after which whoever read our output has seen enough
            output.say(f"carto-auth: the output could not be written ({error.strerror or error})")
        output.discard()
    return 1


def _run(arguments: list[str]) -> int:
    try:
        if arguments == ["token"]:  # scripts run this often, and need not wait for argparse
            print_token()
            return 0
        options = _parsed(arguments)
        if options.command == "help":
            options.commands.get(options.topic, parser()).print_help()
            return 0
        from importlib import import_module

        return import_module(f"carto_auth._command.{options.command}").run(options) or 0
    finally:
        sys.stdout.flush()  # a failure to write can still be reported here


def _parsed(arguments: list[str]) -> Namespace:
    import re

    whole = parser()
    commands = whole.get_default("commands")
    name = next((argument for argument in arguments if not argument.startswith("-")), None)
    if name is not None and name not in commands:
        _refuse(whole, name, commands)
    options, unknown = whole.parse_known_args(arguments)
    if options.verbose:
        output.follow()
    if unknown:
        command = commands.get(name, whole)
        _refuse(command, unknown[0], re.findall(r"--[a-z-]+", command.format_help()))
    return options


def _refuse(command: ArgumentParser, word: str, known: Iterable[str]) -> NoReturn:
    from difflib import get_close_matches

    near = get_close_matches(word, known, 1)
    command.error(f"{word!r} is unknown" + (f"; did you mean {near[0]}?" if near else ""))


def parser() -> ArgumentParser:
    """The command's arguments; ``make completions`` reads them too."""
    from argparse import SUPPRESS, ArgumentParser, RawDescriptionHelpFormatter

    whole = ArgumentParser(
        prog="carto-auth",
        description="Log in to CARTO from the command line.",
        epilog=_EPILOG,
        formatter_class=RawDescriptionHelpFormatter,
    )
    whole.add_argument("-V", "--version", action="version", version=f"carto-auth {__version__}")
    whole.add_argument("-v", "--verbose", action="store_true", help="tell more")
    commands = whole.add_subparsers(metavar="command")
    add = {}
    for name, summary in _COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
        command.set_defaults(command=name)
        add[name] = command.add_argument
        add[name]("-v", "--verbose", action="store_true", default=SUPPRESS, help="tell more")
    for name, names, summary in _SWITCHES:
        add[name](*names, action="store_true", help=summary)
    add["login"](
        "--answer", metavar="TEXT", help="end a login of --no-wait: the access code or the address; - reads it"
    )
    for name in ("login", "token", "status", "logout"):
        add[name]("--org", "--organization-name", type=_name, help="the SSO organization (or its id, org_...)")
    add["help"]("topic", nargs="?", choices=list(_COMMANDS), metavar="command")
    whole.set_defaults(command="help", topic=None, commands=commands.choices)
    return whole


def _name(text: str) -> str:
    from argparse import ArgumentTypeError

    if not text.strip():
        raise ArgumentTypeError("it is empty")
    return text
