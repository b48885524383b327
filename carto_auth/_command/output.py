"""Where the command's words go: what was asked for to the standard output, all else to the standard error."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator
from functools import partial

from carto_auth._login import place
from carto_auth._token import LATEST_TIME

#: What is said of Python's names in errors, and how the command says it.
_OWN_WORDS = {
    "with open_browser=False": "with --no-browser",
    ", with a longer timeout= if you need more time": "",
    "Pass api_base_url=, or set": "Set",
    "Pass api_base_url= yourself": "Set CARTO_API_BASE_URL yourself",
    "pass it yourself as api_base_url=": "set it yourself as CARTO_API_BASE_URL",
    "Call logout() on this object, or run:": "Run:",
    "use CartoAuth.from_m2m with an M2M application": "set CARTO_CLIENT_ID and CARTO_CLIENT_SECRET",
}


def prepare() -> None:
    """Have every text read and written, whatever the encoding of the streams, and warnings in one line."""
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)  # a stream that a program has put there may have none
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
    warnings.showwarning = lambda message, *_, **__: say(f"carto-auth: warning: {message}")
    if os.environ.get("CARTO_AUTH_LOG", "").strip().lower() == "debug":
        follow()


def follow() -> None:
    """Have this package's log written to the standard error."""
    import logging

    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("carto-auth: %(message)s"))
    handler.addFilter(lambda record: record.levelno < logging.WARNING)  # warnings are shown as such
    logger = logging.getLogger("carto_auth")
    logger.setLevel(logging.DEBUG)
    if not any(isinstance(other, logging.StreamHandler) for other in logger.handlers):
        logger.addHandler(handler)


def say(text: str) -> None:
    """Tell the person something."""
    if sys.stderr is not None:
        print(text, file=sys.stderr)


def in_its_own_words(text: str) -> str:
    """An error's text, with the command's options instead of Python's arguments."""
    for python, command in _OWN_WORDS.items():
        text = text.replace(python, command)
    return text


def with_organization(text: str, org: str | None) -> str:
    """An advice to log in, which names the organization that is wanted."""
    return text.replace("carto-auth login", f"carto-auth login --org {org}") if org else text


def until(end: float | None) -> str:
    """Until when something is good (POSIX seconds), by this computer's local time."""
    import time
    from datetime import datetime

    end = end or 0.0
    if end > LATEST_TIME - 86_400:  # the day on which some time zones already have the year 10000
        return "does not expire"
    shown = datetime.fromtimestamp(end).astimezone().strftime("%Y-%m-%d %H:%M %Z")
    return f"good until {shown}" if end > time.time() else f"ended at {shown}"


def print_rows(title: str, *rows: tuple[str, str | None]) -> None:
    """Print a title and what is known below it; where the terminal is narrow, each value below its name."""
    from shutil import get_terminal_size
    from textwrap import fill

    is_plain = not sys.stdout.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    columns = get_terminal_size().columns or 80  # a terminal may not know its size
    width = max(20, columns) if place.is_terminal(sys.stdout) or os.environ.get("COLUMNS") else 1000
    wrapped = partial(fill, width=width, break_long_words=False, break_on_hyphens=False)
    title = wrapped(title)
    print(title if is_plain else f"\033[1m{title}\033[0m")
    for name, value in rows:
        if value and 16 + len(value) <= width:
            print(f"  {name:<14}{value}")
        elif value:
            print(f"  {name}", wrapped(value, initial_indent="    ", subsequent_indent="    "), sep="\n")


@contextlib.contextmanager
def talk_aside() -> Iterator[None]:
    """Keep what is said to a person, by us or by a browser, out of what a script reads from the standard output."""
    if place.is_terminal(sys.stdout) and not place.is_terminal(sys.stderr):
        yield  # no script reads the standard output, and the person does
        return
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        with contextlib.suppress(OSError):  # one of the two is closed
            kept = os.dup(1)
            stack.callback(os.close, kept)
            os.dup2(2, 1)  # for other programs, such as a browser
            stack.callback(os.dup2, kept, 1)
        yield


def discard() -> None:
    """Drop what is still to be written: nobody reads it, and the interpreter would try again when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
