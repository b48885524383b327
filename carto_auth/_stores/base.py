"""Store: one account's place in a cache. This one keeps nothing."""

from __future__ import annotations

import os
import time

from carto_auth._services import Services
from carto_auth._token import LATEST_TIME, Token, is_time, is_usable_token
from carto_auth._value import Value

# Type checkers take this name for true; typing would cost a start more than all of this package does.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from carto_auth._identity import Identity


#: Seconds of waiting for another process after which the person is told.
_SILENT_SECONDS = 2.0

#: Seconds between two looks at what another process does, at the most.
_LONGEST_PAUSE_SECONDS = 0.5


#: What stands for a token where there is none: it is over, and nothing renews it.
NO_TOKEN = Token("", None, 0.0)

#: Who finds API base URLs, as far as an entry does not say it. Those of carto-auth 0.2.0 do not.
CARTOS_ACCOUNTS = Services().accounts_url


#: Seconds for which a quota's refusal is remembered at the most: whoever sent a longer one is asked once a day.
LONGEST_REFUSAL_SECONDS = 86_400.0


class Refusal(Value):
    """That an account's quota of tokens is used up, so that nobody asks again before ``until`` (POSIX seconds)."""

    until: float
    message: str

    @classmethod
    def of(cls, kept: object) -> Refusal | None:
        """The refusal in a JSON object; ``None`` where there is none."""
        until, message = (kept.get("until"), kept.get("message")) if isinstance(kept, dict) else (None, None)
        if not is_time(until) or not isinstance(message, str) or not message.isprintable():
            return None
        return cls(until, message)


class Entry(Value):
    """What is kept of an account.

    Attributes:
        token: its access token; ``NO_TOKEN`` where there is only a refusal.
        api_base_url: the API base URL that was found for it, or ``None``.
        is_flat: whether it is one of carto-auth 0.2.0, which do not say whose they are.
        found_by: the accounts service that knows the API base URL; another one's answer may be another.
        refusal: why nobody need ask for another token now, or ``None``.
    """

    token: Token
    api_base_url: str | None
    is_flat: bool = False
    found_by: str = CARTOS_ACCOUNTS
    refusal: Refusal | None = None

    @property
    def end(self) -> float:
        """Until when it is of use to anybody, POSIX seconds; for good, if it can be renewed."""
        if self.token.refresh_token is not None:
            return LATEST_TIME
        return max(self.token.end or 0.0, self.refusal.until if self.refusal else 0.0)

    @classmethod
    def of(cls, kept: object, *, is_flat: bool = False) -> Entry | None:
        """The entry in a JSON object; ``None`` for damage: texts where texts belong, a time that is one."""
        if not isinstance(kept, dict):
            return None
        refusal = Refusal.of(kept.get("refusal"))
        nothing = cls(NO_TOKEN, None, refusal=refusal) if refusal else None
        text, expiration, base_url = (kept.get(key) for key in ("access_token", "expiration", "api_base_url"))
        if not is_usable_token(text) or not is_time(expiration):
            return nothing
        if base_url is not None and not (isinstance(base_url, str) and base_url.isprintable()):
            return nothing
        refresh_token = kept.get("refresh_token") if is_usable_token(kept.get("refresh_token")) else None
        token = Token.of(text, expiration, kept.get("issued_at"), refresh_token, kept.get("due"))
        return cls(token, base_url, is_flat, str(kept.get("found_by", CARTOS_ACCOUNTS)), refusal)

    def as_json(self) -> dict[str, Any]:
        """The JSON object that it is kept as; its first three keys are those of carto-auth 0.2.0."""
        kept = {
            "api_base_url": self.api_base_url,
            "access_token": self.token.text,
            "expiration": self.token.end,
            "issued_at": self.token.issued_at,
            "refresh_token": self.token.refresh_token,
            "due": self.token.due if self.token.due != self.token.end else None,
            "found_by": self.found_by if self.found_by != CARTOS_ACCOUNTS else None,
            "refusal": vars(self.refusal) if self.refusal else None,
        }
        always = ("api_base_url", "access_token", "expiration")
        return {key: value for key, value in kept.items() if value is not None or key in always}


class Lock:
    """What came of trying to lock an account; a ``with`` statement tells it, and ends the lock if there is one."""

    #: It is locked until the ``with`` statement ends.
    HELD = "held"
    #: Somebody else has locked it.
    BUSY = "busy"
    #: Nothing can be locked here.
    IMPOSSIBLE = "impossible"

    def __init__(self, state: str, release: Callable[[], object] = lambda: None) -> None:
        self.state = state
        self.release = release

    def __enter__(self) -> str:
        return self.state

    def __exit__(self, *error: object) -> None:
        self.release()


class Store:
    """The interface of all stores; this one keeps nothing.

    Attributes:
        identity: whose place it is. It is fixed, so nothing that is kept needs to say it.
        is_default: whether nobody named it for this call; where a pickle arrives, another one may be the default.
        remedy: what to do when nothing can be kept here.
        place: the path or address as it was given; ``None`` for no place at all.
    """

    is_default = False
    remedy = ""

    def __init__(self, identity: Identity, place: str | os.PathLike[str] | None = None) -> None:
        self.identity = identity
        self._place = place

    @property
    def place(self) -> str | os.PathLike[str] | None:
        return self._place

    @property
    def shown(self) -> str:
        """The place, for a message; without the password of an address."""
        return ""

    def beside(self, identity: Identity) -> Store:
        """A store of the same place for another identity."""
        return type(self)(identity, self._place)

    def load(self) -> Entry | None:
        """What is kept; ``None`` for nothing, and for what cannot be read."""
        return None

    def latest(self, before: Token | None) -> Entry | None:
        """What is kept, wherever others may have put something newer than the token ``before``."""
        return self.load()

    def spare_entries(self) -> Iterator[Entry]:
        """What may be used when :meth:`load` has nothing good: kept where nothing can be written, or in memory."""
        return iter(())

    def save(self, entry: Entry) -> None:
        """Keep ``entry``.

        Raises:
            OSError: it could not be kept; what was there before is still there.
        """

    def forget(self) -> bool:
        """Keep nothing any more; whether there was something.

        Raises:
            OSError: it is still there.
        """
        return False

    def check(self, *, writing: bool = False) -> None:
        """Find out whether what is kept here can be read, or anything be kept, before a person is asked for it.

        Raises:
            OSError: it cannot, or it is damaged.
        """

    def accounts(self) -> Iterator[tuple[Identity, Entry]]:
        """All that is kept in the same place, whosever it is.

        Raises:
            OSError: it cannot be listed.
        """
        return iter(())

    def locked(self) -> Lock:
        """Try to lock the account, without waiting. The lock ends with its process."""
        return Lock(Lock.HELD)

    def locked_within(self, seconds: float) -> Lock:
        """Try to lock the account for up to so many seconds."""
        lock = Lock(Lock.BUSY)
        for _ in looks(seconds):
            lock = self.locked()
            if lock.state != Lock.BUSY:
                break
        return lock

    def owns(self, entry: Entry) -> bool:
        """Whether an entry may be used for this account. Only a flat one may be somebody else's."""
        return not entry.is_flat or not self.identity.is_contradicted_by(entry.token.text, entry.api_base_url)


def looks(patience: float, when_it_takes_long: Callable[[], None] | None = None) -> Iterator[bool]:
    """Looks at what another process does, until ``patience`` (seconds) is at its end: whether this is the last look.

    The pauses between them grow, and chance has a part in them, so that those who wait together do not look together.
    """
    began = time.monotonic()
    pause = 0.01
    while (waited := time.monotonic() - began) < patience:
        yield False
        if waited >= _SILENT_SECONDS and when_it_takes_long is not None:
            when_it_takes_long()
            when_it_takes_long = None
        chance = os.urandom(1)[0] / 256  # scripts beside one's own are called random.py
        time.sleep(min(pause * (0.5 + chance), patience - waited))
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
    yield True
