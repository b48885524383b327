"""Imports that no fork can cut in two.

What a renewal needs is imported when it is needed, by whichever thread comes first. A process that another
thread forks meanwhile would find that import begun and nobody there to end it, and would wait for ever.
"""

from __future__ import annotations

import os

# threading.RLock, without the import of threading, for which a start with a good token has no use.
from _thread import RLock
from functools import cache

_importing = RLock()


def import_whole(*modules: str) -> None:
    """Import modules, as far as they can be; a fork waits until that is done."""
    import logging  # noqa: F401 - see below
    from contextlib import suppress

    _let_forks_wait()
    with _importing:
        for module in modules:
            with suppress(ImportError, LookupError, NameError, TypeError, ValueError):  # its user tells
                __import__(module)


@cache
def _let_forks_wait() -> None:
    """Let each fork of this process wait for the imports, from now on.

    A fork takes logging's lock too, and the imports want it: that one must have been registered before, to
    be taken after ours. Two threads may both register, since a thread can take the lock twice.
    """
    if hasattr(os, "register_at_fork"):
        release = _importing.release
        os.register_at_fork(before=_importing.acquire, after_in_parent=release, after_in_child=release)
