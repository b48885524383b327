"""What is said to the person, and how they are asked: in a terminal or in a notebook."""

from __future__ import annotations

import contextlib
import html
import importlib
import select
import sys
from typing import TextIO

from carto_auth._login import place


def show_link(before: str, url: str) -> None:
    """Show a person a link: one to click in a notebook, a plain one elsewhere."""
    text = f"{before}\n\n    {url}\n"
    if not place.in_notebook():
        tell(text)
        return
    # IPython is installed here, because it runs this code. Front ends without HTML show the plain text.
    display = importlib.import_module("IPython.display").display
    display({"text/html": link_html(before, url), "text/plain": text}, raw=True)


def link_html(before: str, url: str) -> str:
    """Words and a link as HTML, both escaped."""
    address = html.escape(url)
    link = f'<a href="{address}" target="_blank" rel="noopener noreferrer">{address}</a>'
    return f"<p>{html.escape(before)}<br>{link}</p>"


def tell(text: str) -> None:
    """Say something to the person."""
    with contextlib.suppress(ValueError):  # the program has closed its standard output
        print(text, file=_where_the_person_reads(), flush=True)


def ask(prompt: str, seconds: float) -> str:
    """``input(prompt)``, with the prompt where the person reads it.

    A notebook's front end waits for as long as its person does, and so does a pipe: ``seconds`` is for terminals.

    Raises:
        TimeoutError: nothing was entered in a terminal within ``seconds``.
        EOFError, OSError, RuntimeError, ValueError: there is nothing to read from.
    """
    with contextlib.redirect_stdout(_where_the_person_reads()):
        if not _can_await_line():
            return input(prompt)
        sys.stdout.write(prompt)
        sys.stdout.flush()
        return _line_within(seconds)


def _can_await_line() -> bool:
    """Whether ``input()`` would read from a terminal that tells when there is a line."""
    if sys.platform == "win32" or place.is_input_replaced() or place.in_notebook():
        return False
    return sys.stdin is sys.__stdin__ and place.is_terminal(sys.stdin)


def _line_within(seconds: float) -> str:
    ready, _, _ = select.select([sys.stdin], [], [], seconds)
    if not ready:
        raise TimeoutError
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.removesuffix("\n")


def _where_the_person_reads() -> TextIO | None:
    """Standard output, unless it goes into a file or a pipe while standard error is a terminal."""
    if not place.is_terminal(sys.stdout) and place.is_terminal(sys.stderr):
        return sys.stderr
    return sys.stdout
