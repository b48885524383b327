"""DEBUG lines for those who follow a login, and warnings that are given once.

Who has not imported ``logging`` cannot have configured it, so this module does not import it either: that keeps a
start with a good cached token fast.
"""

from __future__ import annotations

import sys

#: The warnings that this process was given.
said: set[str] = set()


def debug(message: str, *arguments: object) -> None:
    """Log at DEBUG, if logging is in use in this process. Never pass a secret."""
    _log("debug", message, *arguments)


def warn_once(message: str) -> None:
    """Tell the user what to fix: as a Python warning and in the log, once in each process. Never pass a secret."""
    if message in said:
        return
    said.add(message)
    _log("warning", message)
    import warnings
    from contextlib import suppress

    with suppress(Exception):  # a filter may make warnings errors; this one must stop nobody
        warnings.warn(message, UserWarning, stacklevel=_level_of_the_caller())


def _level_of_the_caller() -> int:
    """How far from :func:`warn_once` the first frame is that is not this package's: the line that it warns of."""
    from inspect import currentframe

    frame, level = currentframe(), 0
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "carto_auth":
        frame, level = frame.f_back, level + 1
    return level


def _log(level: str, message: str, *arguments: object) -> None:
    logging = sys.modules.get("logging")
    if logging is None:
        return
    logger = logging.getLogger("carto_auth")
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())  # without it, Python prints warnings that nobody asked to see
    getattr(logger, level)(message, *arguments)
