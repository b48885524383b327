"""Where are we? Is there a browser, a terminal, a notebook, a Colab, a Databricks, a worker process?

One small function for each; every one looks anew, because a person may move a notebook or set a variable.
``docs/logins.md`` has the table of what a person sees where.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator

from carto_auth import _log
from carto_auth._typing import TYPE_CHECKING, Any

# What only a login needs is imported there: a start with a good token gets along without it.
if TYPE_CHECKING:
    import threading
    import webbrowser
    from typing import TextIO

# ---- where the browser is ------------------------------------------------------------------------


def in_colab() -> bool:
    """In Google Colab: the browser is the person's, the callback's port is a machine of Google's."""
    return "google.colab" in sys.modules


def in_databricks() -> bool:
    """In a Databricks notebook or job."""
    return bool(os.environ.get("DATABRICKS_RUNTIME_VERSION"))


def in_jupyterhub() -> bool:
    """In a notebook that JupyterHub started, mostly on another machine."""
    return bool(os.environ.get("JUPYTERHUB_API_URL") or os.environ.get("JUPYTERHUB_USER"))


def in_kaggle() -> bool:
    """In a Kaggle notebook."""
    return bool(os.environ.get("KAGGLE_KERNEL_RUN_TYPE"))


def in_sagemaker() -> bool:
    """In a SageMaker notebook or Studio."""
    return bool(os.environ.get("SAGEMAKER_INTERNAL_IMAGE_URI") or os.environ.get("SM_CURRENT_HOST")) or os.path.exists(
        "/opt/ml/metadata/resource-metadata.json"
    )


def in_codespaces() -> bool:
    """In a GitHub Codespace, whose VS Code may run in a web page that forwards no port."""
    return bool(os.environ.get("CODESPACES"))


def in_remote_vscode() -> bool:
    """Behind VS Code's remote server: Remote SSH, a tunnel, a dev container.

    In its terminals ``BROWSER`` names a command that opens pages where the person is, and VS Code forwards
    the callback's port to here.
    """
    return bool(os.environ.get("REMOTE_CONTAINERS") or os.environ.get("VSCODE_IPC_HOOK_CLI"))


def over_ssh_without_display() -> bool:
    """In an SSH session that cannot show a window here."""
    return bool(os.environ.get("SSH_CONNECTION") or os.environ.get("SSH_TTY")) and not has_display()


def in_wsl() -> bool:
    """In the Windows Subsystem for Linux; Windows' browsers reach its ports as ``localhost``."""
    return sys.platform == "linux" and bool(os.environ.get("WSL_DISTRO_NAME"))


def in_container() -> bool:
    """In a Docker or Podman container."""
    return os.path.exists("/.dockerenv") or os.path.exists("/run/.containerenv")


def has_display() -> bool:
    """Whether windows can be shown here."""
    if sys.platform in ("win32", "darwin"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def has_named_browser() -> bool:
    """Whether the ``BROWSER`` variable names a command that is there; then that is the browser, display or not."""
    return bool(_named_browsers())


def _named_browsers() -> list[str]:
    """What ``BROWSER`` names, read as :mod:`webbrowser` reads it, without the commands that are not there."""
    named = os.environ.get("BROWSER", "")
    if not named:
        return []
    from shutil import which

    return [browser for browser in named.split(os.pathsep) if (command := _command_in(browser)) and which(command)]


def _command_in(browser: str) -> str:
    import shlex

    if "%s" not in browser:
        return browser  # webbrowser takes all of it for the command, blanks included
    try:
        return shlex.split(browser)[0]
    except ValueError:  # a quote without its companion
        return ""


def browser_is_elsewhere() -> bool:
    """Whether the person's browser runs on another machine, so that no callback can reach this one."""
    if in_colab() or in_databricks() or in_codespaces():
        return True  # whatever BROWSER says: nobody sits at that machine, and nothing forwards its ports
    if has_named_browser():
        return False
    return in_jupyterhub() or in_kaggle() or in_sagemaker() or in_remote_vscode() or over_ssh_without_display()


def why_no_browser() -> str:
    """What to tell the person when no browser could be opened."""
    if in_wsl():
        return "No browser could be opened from WSL; BROWSER may name a command that opens one in Windows."
    if in_container():
        return "No browser could be opened in this container, so take the login's code here by hand."
    return "No browser could be opened here, so take the login's code here by hand."


# ---- the browser ---------------------------------------------------------------------------------

#: Browsers that take over the terminal, in which the login's own prompts are.
_TEXT_BROWSERS = frozenset(("www-browser", "lynx", "links", "elinks", "w3m", "browsh", "links2"))


def has_window_browser() -> bool:
    """Whether a browser is known here that shows pages in a window of its own."""
    return any(not _takes_over_the_terminal(browser) for browser in _browsers())


def named_browser_takes_over_the_terminal() -> bool:
    """Whether the first browser that ``BROWSER`` names shows its pages in the terminal."""
    return any(_takes_over_the_terminal(_named_browser(named)) for named in _named_browsers()[:1])


def _takes_over_the_terminal(browser: webbrowser.BaseBrowser) -> bool:
    return os.path.basename(getattr(browser, "name", "")) in _TEXT_BROWSERS


def _browsers() -> Iterator[webbrowser.BaseBrowser]:
    """Those that ``BROWSER`` names, then those that :mod:`webbrowser` found that need no terminal.

    :func:`webbrowser.open` is not enough: where one fails it goes on to the next, and w3m would wait for keys in the
    terminal that the login's prompt needs.
    """
    named = _named_browsers()
    yield from map(_named_browser, named)
    found = (_found_browser(name) for name in _found_browsers() if name not in named)
    yield from (browser for browser in found if browser is not None and not _takes_over_the_terminal(browser))


def _named_browser(named: str) -> webbrowser.BaseBrowser:
    import webbrowser

    return _found_browser(named) or webbrowser.GenericBrowser(named)  # a command without special treatment


def _found_browser(name: str | None) -> webbrowser.BaseBrowser | None:
    import webbrowser

    try:
        return webbrowser.get(name)
    except (webbrowser.Error, ValueError):  # there is none; BROWSER has a quote without its companion
        return None


def _found_browsers() -> list[str | None]:
    """The names of what :mod:`webbrowser` found, the best one first; ``None`` is its name for the best one."""
    import webbrowser

    _found_browser(None)  # it looks around when it is first asked
    return getattr(webbrowser, "_tryorder", None) or [None]


def open_browser(url: str) -> bool:
    """Open ``url`` in the person's browser; whether there was one to open it in.

    It may take as long as the browser's window is open: some commands last as long.
    """
    import webbrowser

    if _is_open_replaced():
        return webbrowser.open(url) is not False  # such functions often return nothing
    return any(_opens(browser, url) for browser in _browsers())


def _opens(browser: webbrowser.BaseBrowser, url: str) -> bool:
    import webbrowser

    try:
        return browser.open(url)
    except (webbrowser.Error, OSError):
        return False


def _is_open_replaced() -> bool:
    """Whether a program has put a function of its own in the place of webbrowser's, which opens what it likes."""
    import webbrowser

    is_webbrowsers = getattr(webbrowser.open, "__globals__", None) is vars(webbrowser)
    return not is_webbrowsers or webbrowser.open.__qualname__ != "open"


def open_browser_aside(url: str, otherwise: Callable[[BaseException | None], None]) -> threading.Thread:
    """Open ``url`` as :func:`open_browser` does, without waiting for it.

    Where no browser could be opened, ``otherwise(None)`` is called, from the thread that is returned; where one
    that the program brought along wants the program to end, that is the argument.
    """

    def run() -> None:
        end = None
        try:
            if open_browser(url):
                return
        except Exception as error:  # of the system, or of a browser that the program brought along
            _log.debug("the browser could not be opened (%s)", type(error).__name__)
        except BaseException as raised:
            end = raised
        otherwise(end)

    import threading

    thread = threading.Thread(target=run, daemon=True, name="carto-auth browser")
    thread.start()
    return thread


# ---- the person ----------------------------------------------------------------------------------


def in_notebook() -> bool:
    """Whether a Jupyter kernel runs this code."""
    return _kernel() is not None


def _kernel() -> Any:
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None and hasattr(ipython, "get_ipython") else None
    return getattr(shell, "kernel", None)


def can_ask() -> bool:
    """Whether a person can be asked for text: a terminal, or a notebook whose front end takes input."""
    if is_worker():
        return False
    if in_notebook():
        return _kernel_takes_input()
    if in_colab() or in_databricks() or _is_input_replaced():
        return True  # they bring an input() of their own
    return is_terminal(sys.stdin) and _is_in_foreground(sys.stdin)


def _is_input_replaced() -> bool:
    """Whether a program (or a test of one) has put a function of its own in the place of ``input``."""
    import builtins
    from types import BuiltinFunctionType

    return not isinstance(builtins.input, BuiltinFunctionType)


def _kernel_takes_input() -> bool:
    return bool(getattr(_kernel(), "_allow_stdin", True))


def _is_in_foreground(terminal: TextIO) -> bool:
    """Whether this process may read from its terminal; a shell's job in the background would be stopped."""
    try:
        return os.tcgetpgrp(terminal.fileno()) == os.getpgrp()
    except (OSError, ValueError, AttributeError):  # it is not the one that jobs are controlled from, or on Windows
        return True


def nobody_is_here() -> bool:
    """Whether this certainly runs unattended, so that opening a browser would only wait for nobody."""
    if is_worker():
        return True
    if can_ask() or has_named_browser():
        return False
    # A notebook that takes no input is run by a program, which may have brought its own way to open pages.
    return in_ci() or (in_notebook() and not _is_open_replaced())


def in_ci() -> bool:
    """In a continuous integration job, by the variable that they all set."""
    return os.environ.get("CI", "").strip().lower() not in ("", "0", "false")


def is_worker() -> bool:
    """Whether this process works for another: a child of multiprocessing, a Dask or Spark worker."""
    multiprocessing = sys.modules.get("multiprocessing")
    if multiprocessing is not None and multiprocessing.parent_process() is not None:
        return True
    if "pyspark.daemon" in sys.modules or "pyspark.worker" in sys.modules:
        return True
    distributed = sys.modules.get("distributed")
    if distributed is None:
        return False
    try:
        distributed.get_worker()
    except (ValueError, AttributeError):
        return False
    return True


# ---- talking to the person -----------------------------------------------------------------------


def show_link(before: str, url: str) -> None:
    """Show a person a link: one to click in a notebook, a plain one elsewhere."""
    text = f"{before}\n\n    {url}\n"
    if not in_notebook():
        tell(text)
        return
    # IPython is there: a kernel of it runs this code. Front ends without HTML show the plain text.
    from IPython.display import display  # type: ignore[import-not-found,unused-ignore]

    content = {"text/html": link_html(before, url), "text/plain": text}
    display(content, raw=True)  # type: ignore[no-untyped-call,unused-ignore]


def link_html(before: str, url: str) -> str:
    """Words and a link as HTML; both are escaped."""
    from html import escape

    link = f'<a href="{escape(url)}" target="_blank" rel="noopener noreferrer">{escape(url)}</a>'
    return f"<p>{escape(before)}<br>{link}</p>"


def tell(text: str) -> None:
    """Say something to the person."""
    from contextlib import suppress

    with suppress(ValueError):  # the program has closed its standard output
        print(text, file=_where_the_person_reads(), flush=True)


def ask(prompt: str, seconds: float) -> str:
    """``input(prompt)``, with the prompt where the person reads it.

    Raises:
        TimeoutError: nothing was entered in a terminal within ``seconds``. A notebook's front end waits for as long
            as its person does, and of a pipe nobody can tell: lines may have been read from it ahead.
    """
    from contextlib import redirect_stdout

    with redirect_stdout(_where_the_person_reads()):
        if not _can_await_line():
            return input(prompt)
        print(prompt, end="", flush=True)  # noqa: T201 - a prompt, in the place of that of input()
        return _line_within(seconds)


def _can_await_line() -> bool:
    """Whether ``input()`` would read from a terminal that tells when there is a line."""
    if sys.platform == "win32" or _is_input_replaced() or in_notebook():
        return False
    return sys.stdin is sys.__stdin__ and is_terminal(sys.stdin)


def _line_within(seconds: float) -> str:
    import select

    ready, _, _ = select.select([sys.stdin], [], [], seconds)
    if not ready:
        raise TimeoutError
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.removesuffix("\n")


def _where_the_person_reads() -> TextIO | None:
    """Standard output, unless it goes into a file or a pipe while standard error is a terminal."""
    if not is_terminal(sys.stdout) and is_terminal(sys.stderr):
        return sys.stderr
    return sys.stdout


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a stream is one that a person sits at."""
    try:
        return stream is not None and stream.isatty()
    except (AttributeError, OSError, ValueError):  # some web servers' are no real files; or it is closed
        return False
