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

# ---- where the browser is ------------------------------------------------------------------------


def in_colab() -> bool:
    """Whether this is Google Colab: the browser is the person's, and the callback's port is on Google's machine."""
    return "google.colab" in sys.modules


def in_databricks() -> bool:
    """Whether this is a Databricks notebook or job."""
    return bool(os.environ.get("DATABRICKS_RUNTIME_VERSION"))


def in_jupyterhub() -> bool:
    """Whether JupyterHub started this notebook, usually on another machine."""
    return bool(os.environ.get("JUPYTERHUB_API_URL") or os.environ.get("JUPYTERHUB_USER"))


def in_kaggle() -> bool:
    """Whether this is a Kaggle notebook."""
    return bool(os.environ.get("KAGGLE_KERNEL_RUN_TYPE"))


def in_sagemaker() -> bool:
    """Whether this is a SageMaker notebook, Studio or job."""
    named = os.environ.get("SAGEMAKER_INTERNAL_IMAGE_URI") or os.environ.get("SM_CURRENT_HOST")
    return bool(named) or os.path.exists("/opt/ml/metadata/resource-metadata.json")


def in_codespaces() -> bool:
    """Whether this is a GitHub Codespace, whose VS Code may run in a web page that forwards no port."""
    return bool(os.environ.get("CODESPACES"))


def in_remote_vscode() -> bool:
    """Whether this runs behind VS Code's remote server: Remote SSH, a tunnel, a dev container.

    In its terminals ``BROWSER`` names a command that opens pages where the person is, and VS Code forwards the
    callback's port to this machine.
    """
    return bool(os.environ.get("REMOTE_CONTAINERS") or os.environ.get("VSCODE_IPC_HOOK_CLI"))


def over_ssh_without_display() -> bool:
    """Whether this is an SSH session that cannot show a window."""
    return bool(os.environ.get("SSH_CONNECTION") or os.environ.get("SSH_TTY")) and not has_display()


def in_wsl() -> bool:
    """Whether this is the Windows Subsystem for Linux; browsers in Windows reach its ports as ``localhost``."""
    return sys.platform == "linux" and bool(os.environ.get("WSL_DISTRO_NAME"))


def in_container() -> bool:
    """Whether this is a Docker or Podman container."""
    return os.path.exists("/.dockerenv") or os.path.exists("/run/.containerenv")


def has_display() -> bool:
    """Whether a window can be shown here."""
    if sys.platform in ("win32", "darwin"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def named_browsers() -> list[str]:
    """The commands that ``BROWSER`` names, read as :mod:`webbrowser` reads it; those that are not installed left out.

    A browser that is named is the browser, with or without a display.
    """
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
    except ValueError:  # a quote that is never closed
        return ""


def browser_is_elsewhere() -> bool:
    """Whether the person's browser runs on another machine, so that it cannot reach a callback on this one."""
    if in_colab() or in_databricks() or in_codespaces():
        return True  # whatever BROWSER says: nobody sits at that machine, and nothing forwards its ports
    if named_browsers():
        return False
    return in_jupyterhub() or in_kaggle() or in_sagemaker() or in_remote_vscode() or over_ssh_without_display()


def why_no_browser() -> str:
    """What to tell the person when no browser could be opened."""
    if in_wsl():
        return "No browser could be opened from WSL. BROWSER may name a command that opens one in Windows."
    where = "in this container" if in_container() else "here"
    return f"No browser could be opened {where}, so this login needs an access code, copied by hand."


# ---- whether there is a person -------------------------------------------------------------------


def somebody_is_here() -> bool:
    """Whether a login may wait for a person: the one rule.

    Where this says no, opening a browser would only wait for nobody.
    """
    if is_worker():
        return False
    if can_ask() or named_browsers():
        return True
    # A notebook that takes no input is run by a program, which may have brought its own way to open pages.
    return not in_ci() and (not in_notebook() or is_open_replaced())


def can_ask() -> bool:
    """Whether a person can be asked for text: in a terminal, or in a notebook whose front end takes input."""
    if is_worker():
        return False
    if in_notebook():
        return bool(getattr(_kernel(), "_allow_stdin", True))
    if in_colab() or in_databricks() or is_input_replaced():
        return True  # Colab and Databricks bring their own input()
    return is_terminal(sys.stdin) and _is_in_foreground(sys.stdin)


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
    except (ValueError, AttributeError):  # this is no worker; it is still being imported
        return False
    return True


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


def is_input_replaced() -> bool:
    """Whether a program (or its tests) has replaced ``input`` with its own function."""
    import builtins

    return not isinstance(builtins.input, type(len))


def is_open_replaced() -> bool:
    """Whether a program has replaced ``webbrowser.open`` with its own function, which opens what it likes."""
    webbrowser = sys.modules.get("webbrowser")
    if webbrowser is None:
        return False
    is_webbrowsers = getattr(webbrowser.open, "__globals__", None) is vars(webbrowser)
    return not is_webbrowsers or webbrowser.open.__qualname__ != "open"


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


def login_required() -> LoginRequired:
    """The error for a login where nobody can be asked."""
    return LoginRequired(
        "A CARTO login needs a person, and there is nobody to ask here (no terminal, no notebook, or a worker).",
        remedy="Log in once where there is a person, by running: carto-auth login. For jobs that run without one, use "
        "CartoAuth.from_m2m with an M2M application.",
    )
