"""Where the command's words go: what was asked for to the standard output, all else to the standard error."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

from carto_auth._login import place


def say(text: str) -> None:
    """Tell the person something."""
    print(text, file=sys.stderr)


@contextlib.contextmanager
def talk_aside() -> Iterator[None]:
    """Keep what is said to a person, by us or by a browser, out of what a script reads from the standard output."""
    if place.is_terminal(sys.stdout) and not place.is_terminal(sys.stderr):
        yield  # no script reads the standard output, and the person does
        return
    with contextlib.redirect_stdout(sys.stderr), _children_aside():
        yield


@contextlib.contextmanager
def _children_aside() -> Iterator[None]:
    """Have other programs, such as a browser, write to the standard error too."""
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


def discard() -> None:
    """Drop what is still to be written: nobody reads it, and the interpreter would try again when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
