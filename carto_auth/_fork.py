"""Imports that no fork can cut in two.

What a renewal needs is imported when it is needed, by whichever thread comes first. A process that another
thread forks meanwhile would find that import begun and nobody there to end it, and would wait for ever.
"""

from __future__ import annotations

import os

# threading.RLock, without the import of threading, for which a start with a good token has no use.
from _thread import RLock, get_ident
from contextlib import suppress

from carto_auth.errors import CredentialsError

_importing = RLock()
_forks_wait = False


#: The threads that are importing. A signal handler in one of them would find half of a module.
_importers: set[int] = set()


def interrupted() -> CredentialsError:
    """The error for a signal handler that asks for what its own thread is getting, and so cannot wait for it."""
    return CredentialsError(
        "This thread was interrupted in the middle of getting the token that it is asked for.",
        remedy="Ask again when it has gone on: outside of the signal handler.",
    )


def import_whole(*modules: str) -> None:
    """Import modules, as far as they can be; a fork waits until that is done.

    Raises:
        CredentialsError: this thread was interrupted while it imported them.
    """
    import logging  # noqa: F401 - see below

    _let_forks_wait()
    thread = get_ident()
    if thread in _importers:
        raise interrupted()
    with _importing:
        _importers.add(thread)
        try:
            for module in modules:
                with suppress(ImportError, LookupError, NameError, TypeError, ValueError):  # its user tells
                    __import__(module)
        finally:
            _importers.discard(thread)


def _let_forks_wait() -> None:
    """Let each fork of this process wait for the imports, from now on.

    A fork takes logging's lock too, and the imports want it: that one must have been registered before, to
    be taken after ours. Two threads may both register, since a thread can take the lock twice.
    """
    global _forks_wait
    if not _forks_wait and hasattr(os, "register_at_fork"):
        release = _importing.release
        os.register_at_fork(before=_importing.acquire, after_in_parent=release, after_in_child=release)
        _forks_wait = True
