"""Clocks that tests set by hand, so that none of them waits for a token's end."""

from __future__ import annotations

import time


class StoppedClock:
    """Stands still until it is set: ``now`` in POSIX seconds. It begins at the real time, which libraries believe."""

    def __init__(self, now: float | None = None) -> None:
        self.now = time.time() if now is None else now

    def __call__(self) -> float:
        return self.now


class ShiftedClock:
    """Runs, ``ahead`` seconds before the real time."""

    def __init__(self) -> None:
        self._real = time.time
        self.ahead = 0.0

    def __call__(self) -> float:
        return self._real() + self.ahead
