"""Connections: the session of one request, and when a request is tried again."""

from __future__ import annotations

import math
import os
import time
from typing import TYPE_CHECKING, Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import MaxRetryError, ResponseError
from urllib3.util import Retry

from carto_auth import _log
from carto_auth._http.answers import retry_after

if TYPE_CHECKING:
    from typing_extensions import Self
    from urllib3.response import BaseHTTPResponse

#: Tries of a request that may be repeated.
TRIES = 3

#: Seconds before the second try, doubled before the third.
BACKOFF_SECONDS = 0.3

#: Seconds; the most that chance adds to a wait, so that programs that failed together do not come back together.
JITTER_SECONDS = 0.3

#: Seconds; a service that asks for a longer wait is not asked again here. The caller is told how long to wait.
LONGEST_RETRY_AFTER = 10.0

#: Statuses that may be gone at the next try: 429 (RFC 6585 section 4) and all server errors.
_PASSING_STATUSES = frozenset((429, *range(500, 600)))


# ---- sessions ------------------------------------------------------------------------------------


def new_session(*, loopback: bool, retries: Retry) -> requests.Session:
    """A session for one request. Close it after that: nothing is kept that a thread, a fork or an exit could leave."""
    # Programs replace requests.Session for the whole process (requests_cache.install_cache() does). A cache of answers
    # could give one account the token of another, so what was put in its place is passed over.
    kind = next(one for one in requests.Session.__mro__ if one.__module__ == "requests.sessions")
    session: requests.Session = kind()
    session.trust_env = not loopback  # there is no proxy on the way to this computer
    for scheme in ("https://", "http://"):
        session.mount(scheme, HTTPAdapter(max_retries=retries))
    return session


# ---- another try ---------------------------------------------------------------------------------


def retries(*, repeatable: bool, deadline: float) -> Retry:
    """How often a request is tried.

    Args:
        repeatable: whether it may be sent again when it may have arrived already. A connection that could not be
            made is tried again in any case.
        deadline: the time, by ``time.monotonic``, after which there is no other try.
    """
    again = TRIES - 1
    retries = _Retries(
        total=again,
        read=again if repeatable else 0,
        status=again if repeatable else 0,
        other=0,
        status_forcelist=_PASSING_STATUSES,
        allowed_methods=None,
        raise_on_status=False,
    )
    retries.deadline = deadline
    return retries


class _Retries(Retry):
    """Retries with waits that the service may lengthen within bounds, and that end at a deadline."""

    deadline = math.inf
    wait = 0.0

    def new(self, **changes: Any) -> Self:
        changed = super().new(**changes)
        changed.deadline = self.deadline
        return changed

    def increment(self, *request: Any, **outcome: Any) -> Self:
        response, error = outcome.get("response"), outcome.get("error")
        asked = retry_after(response.headers) if response is not None else None
        wait = BACKOFF_SECONDS * 2 ** len(self.history) if asked is None else asked
        if wait > LONGEST_RETRY_AFTER or time.monotonic() + wait > self.deadline:
            raise MaxRetryError(outcome["_pool"], "", error or ResponseError("no time for another try"))
        following = super().increment(*request, **outcome)
        following.wait = wait + os.urandom(1)[0] / 256 * JITTER_SECONDS if wait else 0.0
        if response is not None:
            response.close()  # else urllib3 reads it to its end, which may never come
        _log.debug("trying again: %s", f"status {response.status}" if response is not None else type(error).__name__)
        return following

    def sleep(self, response: BaseHTTPResponse | None = None) -> None:
        time.sleep(self.wait)
