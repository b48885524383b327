"""The token cache in Redis: the entries of a cache file, one key each, for processes that share no disk."""

from __future__ import annotations

import errno
import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING, Any

from carto_auth import _log
from carto_auth.errors import MissingDependency

if TYPE_CHECKING:
    import redis

#: Before every key.
PREFIX = "carto-auth:"

#: Seconds for each word with Redis. It is a cache: whoever waits longer had better ask CARTO.
SOCKET_SECONDS = 5.0

#: Seconds after which the lock of a process that died is free. A living one extends it.
LOCK_SECONDS = 15.0


def load(url: str, identity: str) -> dict[str, Any] | None:
    """The entry of ``identity``; ``None`` for none, for damage, and where Redis does not answer."""
    try:
        with _client(url) as client:
            content = client.get(PREFIX + identity)
        entry = json.loads(content) if content else None
    except (OSError, ValueError, RecursionError) as error:
        _log.debug("the token cache in Redis cannot be read (%s): going on without it", type(error).__name__)
        return None
    return entry if isinstance(entry, dict) else None


def save(url: str, identity: str, entry: Mapping[str, Any]) -> None:
    """Keep an entry until its token's end; for good if it can be renewed by a refresh token.

    Raises:
        OSError: Redis did not take it.
    """
    left = float(entry.get("expiration") or 0.0) - time.time()
    lifetime = None if "refresh_token" in entry else max(1, int(left))
    with _client(url) as client:
        client.set(PREFIX + identity, json.dumps(entry), ex=lifetime)


def forget(url: str, identity: str) -> bool:
    """Take an entry out; whether there was one.

    Raises:
        OSError: Redis did not answer.
    """
    with _client(url) as client:
        return bool(client.delete(PREFIX + identity))


@contextmanager
def locked(url: str, identity: str, *, timeout: float) -> Iterator[bool]:
    """Hold an account's lock, as :func:`carto_auth.cache.locked` does; it ends soon after its process."""
    lock = _acquired(url, identity, timeout)
    done = threading.Event()
    if lock is not None:
        threading.Thread(target=_keep, args=(lock, done), daemon=True, name="carto-auth lock").start()
    try:
        yield lock is not None
    finally:
        done.set()
        if lock is not None:
            with suppress(Exception):  # it may have ended, and Redis with it
                lock.release()
            lock.redis.close()


def _acquired(url: str, identity: str, timeout: float) -> Any:
    """The lock, held; ``None`` where it cannot be had in time."""
    name = f"{PREFIX}lock:{identity}"
    try:
        with _told_as_os_errors():
            client = _connected(url)
            lock = client.lock(name, timeout=LOCK_SECONDS, blocking_timeout=timeout, thread_local=False)
            if lock.acquire():
                return lock
            client.close()
    except OSError as error:
        _log.debug("going on without the lock in Redis (%s)", error.strerror)
    return None


def _keep(lock: Any, done: threading.Event) -> None:
    while not done.wait(LOCK_SECONDS / 3):
        with suppress(Exception):  # the next time may do
            lock.reacquire()


@contextmanager
def _client(url: str) -> Iterator[redis.Redis]:
    """A client for some words with Redis, whose errors are ``OSError``, like those of a file.

    Raises:
        MissingDependency: the extra is not installed.
    """
    with _told_as_os_errors(), closing(_connected(url)) as client:
        yield client


def _connected(url: str) -> redis.Redis:
    import redis

    scheme, _, rest = url.partition("://")
    url = f"{scheme.lower()}://{rest}"
    return redis.Redis.from_url(url, socket_timeout=SOCKET_SECONDS, socket_connect_timeout=SOCKET_SECONDS)


@contextmanager
def _told_as_os_errors() -> Iterator[None]:
    try:
        import redis
    except ImportError as error:
        raise MissingDependency(
            f"The Redis client cannot be imported ({error}).", remedy="Run: pip install 'carto-auth[redis]'"
        ) from None
    try:
        yield
    except (redis.RedisError, ValueError) as error:
        # Its own words may name a password.
        failed = OSError(errno.EIO, f"Redis: {type(error).__name__}")
    else:
        return
    raise failed
