"""SingleFlight: one thread does the work, the others share what comes of it."""

from __future__ import annotations

import os

from carto_auth.errors import CredentialsError

# Type checkers take this name for true; typing would cost a start more than all of this package does.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future


class SingleFlight:
    """Work that many threads want done, and that is done once.

    A process that was forked begins with no work under way: the thread that did it stayed behind.
    """

    def __init__(self) -> None:
        self._flights: dict[int, tuple[int, Future[None]]] = {}

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
        # Not at the top: a start with a good token has no use for them.
        from concurrent.futures import Future
        from concurrent.futures import TimeoutError as WaitedTooLong
        from threading import get_ident

        mine: Future[None] = Future()
        while True:
            leader, flight = self._flights.setdefault(os.getpid(), (get_ident(), mine))
            if flight is mine:
                self._lead(work, mine)
                return
            if wait <= 0:
                return
            if leader == get_ident():  # a signal handler: its thread cannot wait for itself
                raise CredentialsError(
                    "This thread was interrupted in the middle of getting the token that it is asked for.",
                    remedy="Ask again when it has gone on: outside of the signal handler.",
                )
            try:
                error = flight.exception(timeout=wait)
            except WaitedTooLong:
                work(False)
                return
            if error is None:
                return
            if isinstance(error, CredentialsError):
                raise error

    def _lead(self, work: Callable[[bool], None], mine: Future[None]) -> None:
        try:
            work(True)
        except BaseException as error:
            del self._flights[os.getpid()]
            mine.set_exception(error)
            raise
        del self._flights[os.getpid()]
        mine.set_result(None)
