"""Where are we? Is there a browser, a terminal, a notebook, a Colab, a Databricks, a worker process?

One small function for each; every one looks anew, because a person may move a notebook or set a variable.
"""

from __future__ import annotations

import os
import sys
from typing import Any


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


def in_codespace_or_remote_vscode() -> bool:
    """Behind VS Code's remote server: GitHub Codespaces, Remote SSH, a dev container."""
    return bool(os.environ.get("CODESPACES") or os.environ.get("REMOTE_CONTAINERS"))


def over_ssh_without_display() -> bool:
    """In an SSH session that cannot show a window here."""
    return bool(os.environ.get("SSH_CONNECTION") or os.environ.get("SSH_TTY")) and not _has_display()


def has_named_browser() -> bool:
    """Whether the ``BROWSER`` variable names a command; then that is the browser, display or not."""
    return bool(os.environ.get("BROWSER", "").strip())


def _has_display() -> bool:
    if sys.platform in ("win32", "darwin"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def browser_is_elsewhere() -> bool:
    """Whether the person's browser runs on another machine, so that no callback can reach this one."""
    if in_colab() or in_databricks():  # whatever BROWSER says: nobody sits at that machine
        return True
    if has_named_browser():
        return False
    return (
        in_jupyterhub()
        or in_kaggle()
        or in_sagemaker()
        or in_codespace_or_remote_vscode()
        or over_ssh_without_display()
    )


#: Browsers that take over the terminal, in which the login's own prompts are.
_TEXT_BROWSERS = frozenset(("www-browser", "lynx", "links", "elinks", "w3m", "browsh", "links2"))


def has_window_browser() -> bool:
    """Whether a browser is known here that shows pages in a window of its own."""
    import webbrowser

    try:
        browser = webbrowser.get()
    except webbrowser.Error:
        return False
    return not _takes_over_the_terminal(browser)


def _takes_over_the_terminal(browser: object) -> bool:
    return os.path.basename(getattr(browser, "name", "")) in _TEXT_BROWSERS


def open_browser(url: str) -> bool:
    """Open ``url`` in the person's browser; whether there was one to open it in."""
    import webbrowser

    if not has_named_browser():
        try:
            if _takes_over_the_terminal(webbrowser.get()):
                return False
        except webbrowser.Error:
            pass  # none is known; webbrowser.open says so too, unless the program brought its own
    try:
        return webbrowser.open(url)
    except (webbrowser.Error, OSError):
        return False


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
    kernel = _kernel()
    if kernel is not None:
        return bool(getattr(kernel, "_allow_stdin", True))
    if in_colab() or in_databricks():
        return True  # they bring an input() of their own
    try:
        return sys.stdin is not None and sys.stdin.isatty()
    except ValueError:  # stdin is closed
        return False


def nobody_is_here() -> bool:
    """Whether this certainly runs unattended, so that opening a browser would only wait for nobody."""
    if is_worker():
        return True
    if can_ask() or has_named_browser():
        return False
    return bool(os.environ.get("CI"))


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


def show_link(before: str, url: str) -> None:
    """Show a person a link: one to click in a notebook, a plain one elsewhere."""
    if in_notebook():
        from html import escape

        # IPython is there: a kernel of it runs this code.
        from IPython.display import HTML, display  # type: ignore[import-not-found,unused-ignore]

        link = f'<a href="{escape(url)}" target="_blank" rel="noopener noreferrer">{escape(url)}</a>'
        display(HTML(f"<p>{escape(before)}<br>{link}</p>"))
    else:
        tell(f"{before}\n\n    {url}\n")


def tell(text: str) -> None:
    """Say something to the person, where their own program talks to them too."""
    print(text, flush=True)  # noqa: T201 - this is how a person is told
