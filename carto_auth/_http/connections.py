"""Connections: the session of one request, the certificates it believes, and when a request is tried again."""

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
    session = _session_class()()
    session.trust_env = not loopback  # there is no proxy on the way to this computer
    mount(session, retries)
    return session


def mount(session: requests.Session, retries: Retry) -> None:
    """Have ``session`` send its next request with these retries."""
    for scheme in ("https://", "http://"):
        session.mount(scheme, HTTPAdapter(max_retries=retries))


def _session_class() -> type[requests.Session]:
    """The Session of ``requests`` itself.

    Programs replace ``requests.Session`` for the whole process (``requests_cache.install_cache()`` does). A cache of
    responses could answer one account with the token of another, so what was put in its place is passed over.
    """
    for kind in requests.Session.__mro__:
        if kind.__module__ == "requests.sessions":
            return kind
    return requests.Session


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


def next_try(response: requests.Response, method: str, url: str, error: Exception) -> Retry:
    """The retries that are left after an answer that broke off.

    urllib3 itself repeats a request only until the head of the answer has come.

    Raises:
        Exception: ``error``, or urllib3's for it, when there is to be no other try.
    """
    left = getattr(response.raw, "retries", None)
    if not isinstance(left, Retry):  # a mock's answer keeps no count
        raise error
    return left.increment(method, url, error=error.args[0])


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
            pool: Any = outcome.get("_pool")  # there is none for an answer that broke off
            raise MaxRetryError(pool, "", error or ResponseError("no time for another try"))
        following = super().increment(*request, **outcome)
        following.wait = wait + os.urandom(1)[0] / 256 * JITTER_SECONDS if wait else 0.0
        if response is not None:
            response.close()  # else urllib3 reads it to its end, which may never come
        _log.debug("trying again: %s", f"status {response.status}" if response is not None else type(error).__name__)
        return following

    def sleep(self, response: BaseHTTPResponse | None = None) -> None:
        time.sleep(self.wait)
