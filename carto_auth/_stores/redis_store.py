"""RedisStore: an account's entry in a Redis, for processes that share no disk; a file of this computer is before it."""

from __future__ import annotations

import errno
import json
import os
import time
from contextlib import closing, contextmanager

from carto_auth import _log
from carto_auth._identity import Identity
from carto_auth._stores.base import LONGEST_REFUSAL_SECONDS, Entry, Lock, Store
from carto_auth._stores.file_store import DefaultFileStore
from carto_auth._stores.places import named_by_environment
from carto_auth._token import Token, jwt_claims
from carto_auth._trust import ca_bundle, is_cartos_base_url, split_url
from carto_auth.errors import CredentialsError, InvalidCredential, MissingDependency

# Type checkers take this name for true; typing would cost a start more than all of this package does.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    import redis


#: Before every key. The identity stands in braces, so that a Redis Cluster has both keys of an account in one place.
PREFIX = "carto-auth:"

#: Seconds for all words with a Redis in a start or a renewal. It is a cache: whoever waits longer had better ask CARTO.
BUDGET_SECONDS = 1.0

#: Seconds for which a Redis that has used them up is left alone.
PAUSE_SECONDS = 10.0

#: Seconds of a word that is quick enough, and so is not counted. A start with a renewal has six. Each word gets as many
#: even when none are left: what took so long may be this process, which has to wait for its turn on a busy computer.
QUICK_SECONDS = 0.15

#: Seconds after which the lock of a process that died is free. A request takes no longer (60 s).
LOCK_SECONDS = 70

#: What may follow the ``?`` of an address; the second half only that of ``rediss://``.
_OPTIONS = {"db", "username", "password"}
_TLS_OPTIONS = {"ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname"}

#: What went wrong, by its words or the class of its error. Redis' own words may repeat a password or a token.
_REASONS = {
    "max number of clients": "it has too many clients",
    "unknown command": "it does not keep values, as a Sentinel does not",
    "AuthenticationError": "it refuses the user name or the password",
    "ConnectionError": "it closed the connection; where it speaks TLS, its address begins with rediss://",
    "NoPermissionError": "its ACL does not allow GET, SET and DEL on the keys carto-auth:*, or SCAN to list them",
    "OutOfMemoryError": "its memory is full",
    "ReadOnlyError": "it is a read-only replica",
    "TimeoutError": f"it does not answer within {BUDGET_SECONDS:.0f} s",
}


class RedisStore(Store):
    """An account's entry in a Redis, which ends with its token. No error of Redis stops a program.

    An application's tokens are kept in the default file of this computer as well, and looked for there first: most
    starts have no word with Redis. A person's login may hold a refresh token, of which there must be one copy.
    """

    remedy = "check CARTO_AUTH_CACHE or cache_filepath, and the server"

    def __init__(self, identity: Identity, url: str) -> None:
        super().__init__(identity, _checked(url))
        self._key = f"{PREFIX}{{{identity}}}"
        self._local = Store(identity) if identity.mode == "oauth" else DefaultFileStore(identity)

    @property
    def shown(self) -> str:
        return _without_secrets(str(self._place))

    def load(self) -> Entry | None:
        return self.latest(None)

    def latest(self, before: Token | None) -> Entry | None:
        here = self._local.load()
        if here is not None and not here.token.is_over() and (before is None or here.token.text != before.text):
            return here
        return self._there() or here

    def spare_entries(self) -> Iterator[Entry]:
        return self._local.spare_entries()

    def save(self, entry: Entry) -> None:
        """Keep an entry until its token's end; for good if it can be renewed by a refresh token."""
        with _unless_it_fails("copied to this computer"):
            self._local.save(entry)
        lifetime = None if entry.token.refresh_token else max(1, int(entry.end - time.time()))
        self._ask(lambda client: client.set(self._key, json.dumps(entry.as_json()), ex=lifetime))

    def check(self, *, writing: bool = False) -> None:
        self._ask(lambda client: client.get(self._key))

    def accounts(self) -> Iterator[tuple[Identity, Entry]]:
        for key in self._ask(lambda client: list(client.scan_iter(f"{PREFIX}{{mode=*}}"))):
            identity = Identity.parsed(key.decode(errors="replace").removeprefix(PREFIX).strip("{}"))
            entry = self.beside(identity).load() if identity else None
            if identity and entry:
                yield identity, entry

    def forget(self) -> bool:
        try:
            there = bool(self._ask(lambda client: client.delete(self._key)))
        finally:
            here = self._local.forget()
        return here or there

    def locked(self) -> Lock:
        """Lock the account here, then in Redis; here alone if Redis cannot be asked."""
        key, mine = f"{self._key}:lock", os.urandom(16).hex()
        here = self._local.locked()

        def unlock() -> None:
            with here, _unless_it_fails("unlocked"):
                # What has another value has ended, and is somebody else's by now.
                self._ask(lambda client: client.get(key) == mine.encode() and client.delete(key))

        with _unless_it_fails("locked"):
            if here.state != Lock.BUSY and self._ask(lambda client: client.set(key, mine, nx=True, ex=LOCK_SECONDS)):
                return Lock(Lock.HELD, unlock)
            here.release()
            return Lock(Lock.BUSY)
        return here

    def _there(self) -> Entry | None:
        """What Redis has, kept here as well."""
        with _unless_it_fails("read"):
            content = self._ask(lambda client: client.get(self._key))
            entry = Entry.of(json.loads(content)) if content else None
            entry = self._believed(entry) if entry else None
            if entry and not entry.token.is_over():
                with _unless_it_fails("copied to this computer"):
                    self._local.save(entry)
            return entry
        return None

    def _believed(self, entry: Entry) -> Entry | None:
        """What of an entry is taken: anybody who can write to Redis may have put it there.

        Not another application's token; of API base URLs, as of those that come from the network, CARTO's own; and no
        refusal for longer than a day.
        """
        own = self.identity.client_id
        if self.identity.mode == "m2m" and jwt_claims(entry.token.text).get("azp", own) != own:
            return None
        if entry.refusal is not None and entry.refusal.until > time.time() + LONGEST_REFUSAL_SECONDS:
            entry = entry.replaced(refusal=None)
        url = entry.api_base_url
        return entry if url and is_cartos_base_url(url) else entry.replaced(api_base_url=None)

    def _ask(self, words: Callable[[redis.Redis], Any]) -> Any:
        """Ask at the address; after a journey, at the one of the environment that has the password as well."""
        named = named_by_environment()
        return _ask(named if _without_secrets(named) == self._place else str(self._place), words)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_place": self.shown}


@contextmanager
def _unless_it_fails(done: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        _log.debug("the token cache in Redis cannot be %s (%s): going on without it", done, reason)


# ---- addresses -----------------------------------------------------------------------------------


def _checked(url: str) -> str:
    """The address of a Redis, if it can be one.

    Raises:
        InvalidCredential: it cannot.
    """
    parts = split_url(url)
    options = {option.partition("=")[0] for option in parts.query.split("&") if option}
    unknown = options - _OPTIONS - (_TLS_OPTIONS if parts.scheme == "rediss" else set())
    problem = ""
    if not parts.scheme or parts.fragment or "@" in parts.query:
        problem = "it is not a plain address"
    elif parts.scheme != "unix" and not (parts.path[1:] or "0").isdecimal():
        problem = "what follows the host is not the number of a database"
    elif unknown:
        problem = f"{', '.join(sorted(unknown))} after the ? cannot be set here"
    if problem:
        raise InvalidCredential(
            f"The address of the Redis for the token cache cannot be used: {problem}.",
            remedy="Write it as redis://user:password@host:6379/0, with TLS as rediss://. Special characters of a "
            f"password are percent-encoded. What may follow a ?: {', '.join(sorted(_OPTIONS | _TLS_OPTIONS))}.",
        )
    return url


def _without_secrets(url: str) -> str:
    parts = split_url(url)
    options = "&".join(option for option in parts.query.split("&") if not option.startswith(("password=", "username=")))
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}{options and f'?{options}'}"


# ---- words with Redis ----------------------------------------------------------------------------


#: By address: the seconds that are left for words with it, until when (``time.monotonic``), and what has failed since.
_budgets: dict[str, tuple[float, float, str]] = {}


def _ask(url: str, words: Callable[[redis.Redis], Any]) -> Any:
    """What comes of some words with a Redis, whose errors are ``OSError``, like those of a file.

    Raises:
        MissingDependency: the extra is not installed.
        OSError: it could not be asked.
    """
    try:
        import redis
    except ImportError as error:
        raise MissingDependency(
            f"The Redis client cannot be imported ({error}).", remedy="Run: pip install 'carto-auth[redis]'"
        ) from None
    began = time.monotonic()
    left, until, reason = _budgets.get(url, (0.0, 0.0, ""))
    if began >= until:
        left, until, reason = BUDGET_SECONDS, began + PAUSE_SECONDS, ""
    if not reason:
        try:
            with closing(_client(url, max(left, QUICK_SECONDS))) as client:
                return _said(client, words)
        except (redis.ConnectionError, redis.TimeoutError) as error:
            reason, until = _why(error), time.monotonic() + PAUSE_SECONDS
        except (redis.RedisError, ValueError, CredentialsError) as error:
            raise OSError(errno.EIO, f"Redis: {_why(error)}") from None
        finally:
            took = time.monotonic() - began
            _budgets[url] = (left - took if took > QUICK_SECONDS else left, until, reason)
    raise OSError(errno.EIO, f"Redis: {reason}")


def _client(url: str, seconds: float) -> redis.Redis:
    import redis
    from redis.backoff import FullJitterBackoff
    from redis.retry import Retry

    options: dict[str, Any] = {}
    if url.lower().startswith("rediss:"):
        # Before version 6, redis-py compares no names unless it is told to.
        options = {"ssl_ca_certs": ca_bundle(), "ssl_check_hostname": "ssl_cert_reqs=none" not in url}
    scheme, _, rest = url.partition("://")
    return redis.Redis.from_url(
        f"{scheme.lower()}://{rest}",
        protocol=2,
        socket_timeout=seconds,
        socket_connect_timeout=seconds,
        # One that has too many clients, or is started again, may have a place in a moment: within a second.
        retry=Retry(FullJitterBackoff(cap=0.2, base=0.02), 8, supported_errors=(redis.ConnectionError,)),
        **options,
    )


def _said(client: redis.Redis, words: Callable[[redis.Redis], Any]) -> Any:
    from redis.exceptions import MovedError

    try:
        return words(client)
    except MovedError as moved:  # a Redis Cluster has this key in another of its nodes
        pool = client.connection_pool
        pool.disconnect()
        # Without a host it is at the same (Redis Cluster specification, "MOVED Redirection").
        pool.connection_kwargs.update({"host": moved.host} if moved.host else {}, port=moved.port)
        pool.reset()
        return words(client)


def _why(error: BaseException) -> str:
    """What went wrong, in words of ours."""
    if isinstance(error, CredentialsError):
        return error.message
    cause, name = error.__context__, type(error).__name__
    if unbelieved := getattr(cause, "verify_message", None):
        return f"its certificate is not accepted: {unbelieved}"
    if isinstance(cause, OSError) and not isinstance(cause, (ConnectionResetError, BrokenPipeError, TimeoutError)):
        return cause.strerror or type(cause).__name__
    return next((reason for word, reason in _REASONS.items() if word in str(error) or word == name), name)
