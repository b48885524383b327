"""Turns at the redirect port: CARTO's redirect URI cannot change, so tests that run at the same time share one port."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from filelock import FileLock

from carto_auth._login.callback import CallbackServer

#: Seconds that a login waits for those of other tests.
TURN_SECONDS = 100.0


class CallbackInTurn(CallbackServer[Any]):
    """The server of a login's callback, which begins when no other test of this user has one."""

    def __init__(self, redirect_uri: str, judge: Any) -> None:
        user = os.getuid() if hasattr(os, "getuid") else "user"
        self._turn = FileLock(Path(tempfile.gettempdir()) / f"carto-sandbox-{user}.lock")
        self._turn.acquire(timeout=TURN_SECONDS)
        try:
            super().__init__(redirect_uri, judge)
        except BaseException:
            self._turn.release()
            raise

    def __exit__(self, *error: object) -> None:
        try:
            self.close()  # at once: no test loads the page again, and the next one waits
        finally:
            self._turn.release()
