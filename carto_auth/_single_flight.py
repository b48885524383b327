"""SingleFlight: one thread does the work, the others share what comes of it."""

from __future__ import annotations

import os

# Nothing that may have to be imported first: a signal handler may find that import half done.
from _thread import allocate_lock, get_ident

from carto_auth.errors import CredentialsError

# Type checkers take this name for true; typing would cost a start more than all of this package does.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Callable


class _Flight:
    """Work under way: by which thread, and with which error it ended."""

    def __init__(self) -> None:
        self.leader = get_ident()
        self.error: BaseException | None = None
        self.under_way = allocate_lock()
        self.under_way.acquire()


class SingleFlight:
    """Work that many threads want done, and that is done once.

    A process that was forked begins with no work under way: the thread that did it stayed behind.
    """

    def __init__(self) -> None:
        self._flights: dict[int, _Flight] = {}

    def do(self, work: Callable[[bool], None], *, wait: float) -> None:
        """Do ``work``, or wait for the thread that is at it, and share its end: success or ``CredentialsError``.

        Where it ended with another error, such as ``KeyboardInterrupt``, one of those who waited tries again.

        Args:
            work: what to do, given whether it may wait for others in turn.
            wait: seconds to wait for another thread; then the work is done all the same. With ``0`` the call returns
                at once when another thread is at it.

        Raises:
            CredentialsError: this very thread is at it.
        """
        mine = _Flight()
        while True:
            flight = self._flights.setdefault(os.getpid(), mine)
            if flight is mine:
                self._lead(work, mine)
                return
            if wait <= 0:
                return
            if flight.leader == get_ident():  # a signal handler: its thread cannot wait for itself
                raise CredentialsError(
                    "This thread was interrupted in the middle of getting the token that it is asked for.",
                    remedy="Ask again when it has gone on: outside of the signal handler.",
                )
            if not flight.under_way.acquire(timeout=wait):
                work(False)
                return
            flight.under_way.release()
            if flight.error is None:
                return
            if isinstance(flight.error, CredentialsError):
                raise flight.error

    def _lead(self, work: Callable[[bool], None], mine: _Flight) -> None:
        try:
            work(True)
        except BaseException as error:
            mine.error = error
            raise
        finally:
            del self._flights[os.getpid()]
            mine.under_way.release()
