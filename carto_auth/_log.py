"""What is said aside: DEBUG lines for those who follow a login, one warning for what a person should mend.

Nobody can have configured logging who has not imported it, so this module does not import it either: that
keeps the start with a good cached token fast.
"""

from __future__ import annotations

import sys

# Type checkers take this name for true.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from typing import Any

_LOGGER = "carto_auth"
_said: set[str] = set()


def debug(message: str, *arguments: object) -> None:
    """Log at DEBUG, if logging is in use in this process. Never pass a secret."""
    logger = _logger()
    if logger is not None:
        logger.debug(message, *arguments)


def warn_once(message: str) -> None:
    """Tell the user of something to mend: as a Python warning, and to the log; once per process."""
    if message in _said:
        return
    _said.add(message)
    logger = _logger()
    if logger is not None:
        logger.warning(message)
    import warnings
    from contextlib import suppress

    with suppress(UserWarning):  # where warnings are errors: what is to be mended stops nobody
        warnings.warn(message, UserWarning, stacklevel=3)


def _logger() -> Any:
    """The logger, if logging is in use in this process."""
    logging = sys.modules.get("logging")
    if logging is None:
        return None
    logger = logging.getLogger(_LOGGER)
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())  # without it, Python prints warnings that nobody asked to see
    return logger
