"""RedisStore: an account's entry in a Redis, for processes that share no disk."""

from __future__ import annotations

import errno
import json
import os
import time
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING, Any

from carto_auth import _log
from carto_auth._identity import Identity
from carto_auth._stores.base import Entry, Lock, Store
from carto_auth._stores.places import shown
from carto_auth.errors import MissingDependency

if TYPE_CHECKING:
    from collections.abc import Iterator

    import redis

#: Before every key.
PREFIX = "carto-auth:"

#: Seconds for each word with Redis. It is a cache: whoever waits longer had better ask CARTO.
SOCKET_SECONDS = 5.0

#: Seconds after which the lock of a process that died is free. A request takes no longer.
LOCK_SECONDS = 70


class RedisStore(Store):
    """An account's entry in a Redis, which ends with its token. No error of Redis stops a program."""

    def __init__(self, identity: Identity, url: str) -> None:
        super().__init__(identity, url)
        self._url = url
        self._key = PREFIX + str(identity)

    @property
    def keeps(self) -> bool:
        return True

    @property
    def shown(self) -> str:
        return shown(self._url)

    @property
    def remedy(self) -> str:
        return "check CARTO_AUTH_CACHE or cache_filepath, and the server"

    def beside(self, identity: Identity) -> Store:
        return RedisStore(identity, self._url)

    def load(self) -> Entry | None:
        try:
            with _client(self._url) as client:
                content: Any = client.get(self._key)
            return Entry.of(json.loads(content)) if content else None
        except (OSError, ValueError, RecursionError) as error:
            _log.debug("the token cache in Redis cannot be read (%s): going on without it", type(error).__name__)
            return None

    def save(self, entry: Entry) -> None:
        """Keep an entry until its token's end; for good if it can be renewed by a refresh token."""
        left = (entry.token.end or 0.0) - time.time()
        lifetime = None if entry.token.refresh_token else max(1, int(left))
        with _client(self._url) as client:
            client.set(self._key, json.dumps(entry.as_json()), ex=lifetime)

    def check(self, *, writing: bool = False) -> None:
        with _client(self._url) as client:
            client.ping()

    def accounts(self) -> Iterator[tuple[Identity, Entry]]:
        with suppress(OSError), _client(self._url) as client:
            for key in client.scan_iter(f"{PREFIX}mode=*"):
                identity = Identity.parsed(key.decode(errors="replace").removeprefix(PREFIX))
                entry = RedisStore(identity, self._url).load() if identity else None
                if identity and entry:
                    yield identity, entry

    def forget(self) -> bool:
        with _client(self._url) as client:
            return bool(client.delete(self._key))

    @contextmanager
    def locked(self) -> Iterator[str]:
        key, mine = f"{PREFIX}lock:{self.identity}", os.urandom(16).hex()
        try:
            with _client(self._url) as client:
                lock = Lock.HELD if client.set(key, mine, nx=True, ex=LOCK_SECONDS) else Lock.BUSY
        except OSError as error:
            _log.debug("going on without the lock in Redis (%s)", error.strerror)
            lock = Lock.IMPOSSIBLE
        try:
            yield lock
        finally:
            if lock == Lock.HELD:
                with suppress(OSError), _client(self._url) as client:
                    if client.get(key) == mine.encode():  # else it has ended, and is somebody else's by now
                        client.delete(key)


@contextmanager
def _client(url: str) -> Iterator[redis.Redis]:
    """A client for some words with Redis, whose errors are ``OSError``, like those of a file.

    Raises:
        MissingDependency: the extra is not installed.
    """
    try:
        import redis
    except ImportError as error:
        raise MissingDependency(
            f"The Redis client cannot be imported ({error}).", remedy="Run: pip install 'carto-auth[redis]'"
        ) from None
    scheme, _, rest = url.partition("://")
    try:
        with closing(
            redis.Redis.from_url(
                f"{scheme.lower()}://{rest}", socket_timeout=SOCKET_SECONDS, socket_connect_timeout=SOCKET_SECONDS
            )
        ) as client:
            yield client
    except (redis.RedisError, ValueError) as error:
        # Its own words may name a password.
        failed = OSError(errno.EIO, f"Redis: {type(error).__name__}")
    else:
        return
    raise failed
