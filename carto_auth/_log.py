"""What is said aside: DEBUG lines for those who follow a login, one warning for what a person should mend.

Nobody can have configured logging who has not imported it, so this module does not import it either: that
keeps the start with a good cached token fast.
"""

from __future__ import annotations

import sys

_LOGGER = "carto_auth"
_said: set[str] = set()


def debug(message: str, *arguments: object) -> None:
    """Log at DEBUG, if logging is in use in this process. Never pass a secret."""
    logging = sys.modules.get("logging")
    if logging is not None:
        logging.getLogger(_LOGGER).debug(message, *arguments)


def warn_once(message: str) -> None:
    """Tell the user of something to mend: as a Python warning, and to the log; once per process."""
    if message in _said:
        return
    _said.add(message)
    logging = sys.modules.get("logging")
    if logging is not None:
        logging.getLogger(_LOGGER).warning(message)
    import warnings

    warnings.warn(message, UserWarning, stacklevel=3)
