"""What is said to the person, and how they are asked: in a terminal or in a notebook."""

from __future__ import annotations

import contextlib
import getpass
import html
import importlib
import select
import sys
from typing import Any, TextIO

from carto_auth._login import place


class Screen:
    """What one login shows: a plain link in a terminal, one to click in a notebook.

    A notebook is saved and shared. What a login has shown there can therefore be replaced.
    """

    def __init__(self) -> None:
        self._displays: list[Any] = []

    def show_link(self, before: str, url: str, after: str) -> None:
        """Show a link between two texts."""
        text = f"{before}\n\n    {url}\n\n{after}"
        if not place.in_notebook():
            tell(text)
            return
        # IPython is installed here, because it runs this code. Front ends without HTML show the plain text.
        display = importlib.import_module("IPython.display").display
        link = f'<a href="{html.escape(url)}" target="_blank" rel="noopener noreferrer">Log in to CARTO</a>'
        shown = f"<p>{html.escape(before)}<br><b>{link}</b><br>{html.escape(after)}</p>"
        content = {"text/html": shown, "text/plain": text}
        self._displays.append(display(content, raw=True, display_id=True))

    def end(self, text: str) -> None:
        """Say how the login has ended: in the place of its links, if they can be replaced."""
        if not self.replace(text):
            tell(text)

    def replace(self, text: str) -> bool:
        """Put ``text`` in the place of the links; whether there were any that can be replaced."""
        content = {"text/html": f"<p>{html.escape(text)}</p>", "text/plain": text}
        for display in self._displays:
            display.update(content, raw=True)
            content = {"text/plain": ""}  # once is enough
        return bool(self._displays)


def tell(text: str) -> None:
    """Say something to the person, on a stream of whatever encoding."""
    stream = _where_the_person_reads()
    with contextlib.suppress(ValueError):  # the program has closed its standard output
        print(_writable(text, stream), file=stream, flush=True)


def ask(prompt: str, seconds: float) -> str:
    """``input(prompt)``, with the prompt where the person reads it; of several lines the last one is the prompt.

    In a notebook the answer is not shown, where the front end can do that: it would be saved. A notebook waits for as
    long as its person does, and so does a pipe: ``seconds`` is for terminals.

    Raises:
        TimeoutError: nothing was entered in a terminal within ``seconds``.
        EOFError, OSError, RuntimeError, ValueError: there is nothing to read from.
    """
    stream = _where_the_person_reads()
    above, _, question = _writable(prompt, stream).rpartition("\n")
    if above:
        tell(above)
    with contextlib.redirect_stdout(stream):
        if place.in_notebook() and getpass.getpass.__module__ != "getpass":  # the kernel's, which asks the front end
            return getpass.getpass(question)
        if not _can_await_line():
            return input(question)
        sys.stdout.write(question)
        sys.stdout.flush()
    if place.at_a_parents_terminal():
        with open("/dev/tty") as terminal:
            return _line_within(seconds, terminal)
    return _line_within(seconds, sys.stdin)


def _can_await_line() -> bool:
    """Whether ``input()`` would read from a terminal that tells when there is a line."""
    if sys.platform == "win32" or place.is_input_replaced() or place.in_notebook():
        return False
    return place.at_a_parents_terminal() or (sys.stdin is sys.__stdin__ and place.is_terminal(sys.stdin))


def _line_within(seconds: float, terminal: TextIO) -> str:
    ready, _, _ = select.select([terminal], [], [], seconds)
    if not ready:
        raise TimeoutError
    line = terminal.readline()
    if not line:
        raise EOFError
    return line.removesuffix("\n")


def _where_the_person_reads() -> TextIO | None:
    """Standard output, unless it goes into a file or a pipe while standard error is a terminal."""
    if not place.is_terminal(sys.stdout) and place.is_terminal(sys.stderr):
        return sys.stderr
    return sys.stdout


def _writable(text: str, stream: TextIO | None) -> str:
    """``text`` with what the stream's encoding lacks written out: a server's words may be in any language."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)
