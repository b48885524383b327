"""Which browser shows the login, and how it is opened."""

from __future__ import annotations

import contextlib
import os
import threading
import webbrowser
from collections.abc import Callable

from carto_auth import _log
from carto_auth._login import place

#: Browsers that take over the terminal, where the login's own prompts are.
_TEXT_BROWSERS = frozenset(("www-browser", "lynx", "links", "elinks", "w3m", "browsh", "links2"))


def open_browser(url: str) -> bool:
    """Open ``url`` in the person's browser, and return whether there was one to open it in.

    That is what ``BROWSER`` names, else the browser that :mod:`webbrowser` prefers if it has windows.
    :func:`webbrowser.open` is not enough: it looks at ``BROWSER`` once only, and where one browser fails it goes on
    to the next, such as w3m, which would wait for keys in the terminal that the login's prompt needs.

    It may take as long as the browser's window stays open.
    """
    if place.is_open_replaced():
        return webbrowser.open(url) is not False  # such functions often return nothing
    with contextlib.suppress(webbrowser.Error, OSError):
        return any(browser.open(url) for browser in _browsers())
    return False


def open_aside(url: str, otherwise: Callable[[BaseException | None], None]) -> threading.Thread:
    """Open ``url`` as :func:`open_browser` does, without waiting for it, and return the thread that does so.

    A browser's command may last as long as its window, and the login's answer comes before that. Where no browser
    could be opened, the thread calls ``otherwise(None)``; where the program has replaced ``webbrowser.open`` with a
    function that wants the program to end, ``otherwise`` gets its exception.
    """
    thread = threading.Thread(target=_open_or, args=(url, otherwise), daemon=True, name="carto-auth browser")
    thread.start()
    return thread


def _open_or(url: str, otherwise: Callable[[BaseException | None], None]) -> None:
    end = None
    try:
        if open_browser(url):
            return
    except Exception as error:  # from a function of the program's own: whatever it raises, there is no browser
        _log.debug("the browser could not be opened (%s)", type(error).__name__)
    except BaseException as raised:  # SystemExit, say
        end = raised
    otherwise(end)


def can_open() -> bool:
    """Whether there is a browser to open: the program's own, one that ``BROWSER`` names, or one with windows."""
    return place.is_open_replaced() or bool(_browsers())


def _browsers() -> list[webbrowser.BaseBrowser]:
    """Those that ``BROWSER`` names, else the one that :mod:`webbrowser` prefers; those for the terminal left out."""
    named = [_found(command) or webbrowser.GenericBrowser(command) for command in place.named_browsers()]
    preferred = None if named else _found(None)
    found = named if preferred is None else [preferred]
    return [each for each in found if os.path.basename(getattr(each, "name", "")) not in _TEXT_BROWSERS]


def _found(name: str | None) -> webbrowser.BaseBrowser | None:
    """The browser of that name; for ``None`` the one that :mod:`webbrowser` prefers."""
    try:
        return webbrowser.get(name)
    except (webbrowser.Error, ValueError):  # there is none; or BROWSER has a quote that is never closed
        return None
