"""Where this process runs: whose browser there is, which terminal, and whether there is a person.

There is one small function for each question. Each of them looks again every time, because a person may set a variable
in a running notebook. ``docs/how-to/log-in.md`` has the table of what a person sees where.
"""

from __future__ import annotations

import os
import sys

from carto_auth.errors import LoginRequired

# What only a login needs is imported inside the functions: a start with a good token does without it.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from typing import Any, TextIO

#: Set in hosted notebooks and behind VS Code's remote server (SSH, a tunnel, a dev container). In VS Code's terminals
#: ``BROWSER`` names a command that opens pages where the person is, and VS Code forwards the callback's port.
_ELSEWHERE = (
    *("JUPYTERHUB_API_URL", "JUPYTERHUB_USER", "KAGGLE_KERNEL_RUN_TYPE"),
    *("SAGEMAKER_INTERNAL_IMAGE_URI", "SM_CURRENT_HOST", "REMOTE_CONTAINERS", "VSCODE_IPC_HOOK_CLI"),
)
#: Where nothing forwards the callback's port either: a Databricks notebook or job, a GitHub Codespace in a web page.
_NOTHING_FORWARDED = ("DATABRICKS_RUNTIME_VERSION", "CODESPACES")
_SAGEMAKER_STUDIO = "/opt/ml/metadata/resource-metadata.json"

# ---- where the browser is ------------------------------------------------------------------------


def has_display() -> bool:
    """Whether a window can be shown here."""
    if sys.platform in ("win32", "darwin"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def named_browsers() -> list[str]:
    """The commands that ``BROWSER`` names, read as :mod:`webbrowser` reads it; those that are not installed left out.

    A browser that is named is the browser, with or without a display.
    """
    from shutil import which

    named = filter(None, os.environ.get("BROWSER", "").split(os.pathsep))
    return [browser for browser in named if which(_command_in(browser))]


def _command_in(browser: str) -> str:
    import shlex

    if "%s" not in browser:
        return browser  # webbrowser takes all of it for the command, blanks included
    try:
        return shlex.split(browser)[0]
    except ValueError:  # a quote that is never closed
        return ""


def browser_is_elsewhere() -> bool:
    """Whether the person's browser runs on another machine, so that it cannot reach a callback on this one."""
    if "google.colab" in sys.modules or any(os.environ.get(variable) for variable in _NOTHING_FORWARDED):
        return True  # whatever BROWSER says: nobody sits at that machine
    if named_browsers():
        return False
    if any(os.environ.get(variable) for variable in _ELSEWHERE) or os.path.exists(_SAGEMAKER_STUDIO):
        return True
    return bool(os.environ.get("SSH_CONNECTION") or os.environ.get("SSH_TTY")) and not has_display()


def why_no_browser() -> str:
    """What to tell the person when no browser could be opened."""
    if sys.platform == "linux" and os.environ.get("WSL_DISTRO_NAME"):
        return "No browser could be opened from WSL. BROWSER may name a command that opens one in Windows."
    return "No browser could be opened here, so this login needs an access code, copied by hand."


# ---- whether there is a person -------------------------------------------------------------------


def somebody_is_here() -> bool:
    """Whether a login may wait for a person: where one can be asked, or in a desktop session.

    ``BROWSER`` says which browser, not that there is a person.
    """
    if can_ask():
        return True
    if is_asking_forbidden() or in_ci():
        return False
    return is_open_replaced() or (has_display() and not in_notebook() and not is_worker())


def can_ask() -> bool:
    """Whether a person can be asked for text: the one rule.

    There is one where a notebook's kernel or page, a replaced ``input`` or a terminal belongs to this very process.
    """
    if is_asking_forbidden():
        return False
    kernel = _kernel()
    if kernel is not None:
        return _is_of_this_process(kernel) and bool(getattr(kernel, "_allow_stdin", True))
    if is_input_replaced() or at_a_marimo_page() or at_a_parents_terminal():
        return True
    return is_terminal(sys.stdin) and _is_in_foreground(sys.stdin)


def why_nobody() -> str:
    """Why nobody can be asked here."""
    kernel = _kernel()
    if is_asking_forbidden():
        return "the variable CARTO_AUTH_INTERACTIVE forbids it"
    if is_worker() or (kernel is not None and not _is_of_this_process(kernel)):
        return "this is a worker process"
    if kernel is not None:
        return "this notebook is run without a front end that takes input"
    if sys.stdin is None or getattr(sys.stdin, "closed", False):
        return "standard input is closed"
    if is_terminal(sys.stdin):
        return "this is a background job of its terminal"
    return "standard input is not a terminal"


def is_asking_forbidden() -> bool:
    """Whether ``CARTO_AUTH_INTERACTIVE=0`` forbids to ask a person, whoever might be there."""
    return os.environ.get("CARTO_AUTH_INTERACTIVE", "").strip().lower() in ("0", "false", "no", "off")


def is_worker() -> bool:
    """Whether this is a daemon of multiprocessing, such as a pool's worker, which works for its parent alone."""
    return bool(getattr(_child_of_multiprocessing(), "daemon", False))


def at_a_parents_terminal() -> bool:
    """Whether this is a child of multiprocessing, which takes its standard input away, at its parent's terminal."""
    if _child_of_multiprocessing() is None or is_worker() or sys.platform == "win32" or is_terminal(sys.stdin):
        return False
    return is_terminal(sys.stdout) and _is_in_foreground(sys.stdout)


def _child_of_multiprocessing() -> Any:
    multiprocessing = sys.modules.get("multiprocessing")
    if multiprocessing is None or multiprocessing.parent_process() is None:
        return None
    return multiprocessing.current_process()


def in_ci() -> bool:
    """Whether this is a continuous integration job, by the variable that they all set."""
    return os.environ.get("CI", "").strip().lower() not in ("", "0", "false")


def in_notebook() -> bool:
    """Whether a Jupyter kernel runs this code."""
    return _kernel() is not None


def _kernel() -> Any:
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None and hasattr(ipython, "get_ipython") else None
    return getattr(shell, "kernel", None)


def _is_of_this_process(kernel: Any) -> bool:
    """Whether a kernel's questions come from this process; a forked child has a copy of the kernel."""
    return bool(getattr(getattr(kernel, "session", None), "pid", os.getpid()) == os.getpid())


def at_a_marimo_page() -> bool:
    """Whether somebody edits the marimo notebook that runs this: standard input is marimo's then, and asks the page.

    While marimo exports a notebook there is no page, and so no request: a question would wait for ever.
    """
    is_marimos = type(sys.stdin).__module__.startswith("marimo.")
    return is_marimos and sys.modules["marimo"].app_meta().request is not None


def is_input_replaced() -> bool:
    """Whether a program (or its tests) has replaced ``input`` with its own function."""
    import builtins

    return not isinstance(builtins.input, type(len))


def is_open_replaced() -> bool:
    """Whether a program has replaced ``webbrowser.open`` with its own function, which opens what it likes.

    One that only wraps it, as in each marimo notebook, opens no more than it does.
    """
    webbrowser = sys.modules.get("webbrowser")
    if webbrowser is None:
        return False
    function = getattr(webbrowser.open, "__wrapped__", webbrowser.open)
    return getattr(function, "__globals__", None) is not vars(webbrowser)


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a person sits at this stream."""
    try:
        return stream is not None and stream.isatty()
    except (AttributeError, OSError, ValueError):  # some web servers have other objects there; or it is closed
        return False


def _is_in_foreground(terminal: TextIO) -> bool:
    """Whether this process may read from its terminal; a shell would stop one of its background jobs for that."""
    if sys.platform == "win32":
        return True
    try:
        return os.tcgetpgrp(terminal.fileno()) == os.getpgrp()
    except (OSError, ValueError, AttributeError):  # not the controlling terminal, or a stream that is no file
        return True


def login_required(reason: str | None = None) -> LoginRequired:
    """The error for a login where nobody can be asked, with the reason: as given, else as seen."""
    return LoginRequired(
        f"A CARTO login needs a person, and there is nobody to ask here: {reason or why_nobody()}.",
        remedy="Log in once where there is a person, by running: carto-auth login. For jobs that run without one, use "
        "CartoAuth.from_m2m with an M2M application.",
    )
