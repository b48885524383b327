"""Store: one account's place in a cache. This one keeps nothing."""

from __future__ import annotations

import time
from contextlib import contextmanager

from carto_auth._token import Token, is_time, is_usable_token
from carto_auth._value import Value

# Type checkers take this name for true; typing would cost a start more than all of this package does.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from os import PathLike
    from typing import Any

    from carto_auth._identity import Identity


#: Seconds of waiting for another process after which the person is told.
_SILENT_SECONDS = 2.0

#: Seconds between two looks at what another process does, at the most.
_LONGEST_PAUSE_SECONDS = 0.5


class Entry(Value):
    """What is kept of an account.

    Attributes:
        token: its access token.
        api_base_url: the API base URL that was found for it, or ``None``.
        is_flat: whether it is one of carto-auth 0.2.0, which do not say whose they are.
    """

    def __init__(self, token: Token, api_base_url: str | None, is_flat: bool = False) -> None:
        self.token = token
        self.api_base_url = api_base_url
        self.is_flat = is_flat

    @classmethod
    def of(cls, kept: object, *, is_flat: bool = False) -> Entry | None:
        """The entry in a JSON object; ``None`` for damage: texts where texts belong, a time that is one."""
        if not isinstance(kept, dict):
            return None
        text, expiration, base_url = (kept.get(key) for key in ("access_token", "expiration", "api_base_url"))
        if not is_usable_token(text) or not is_time(expiration):
            return None
        if base_url is not None and not (isinstance(base_url, str) and base_url.isprintable()):
            return None
        refresh_token = kept.get("refresh_token")
        token = Token.of(
            text, expiration, kept.get("issued_at"), refresh_token if is_usable_token(refresh_token) else None
        )
        return cls(token, base_url, is_flat)

    def as_json(self) -> dict[str, Any]:
        """The JSON object that it is kept as; its first three keys are those of carto-auth 0.2.0."""
        kept = {
            "api_base_url": self.api_base_url,
            "access_token": self.token.text,
            "expiration": self.token.end,
            "issued_at": self.token.issued_at,
            "refresh_token": self.token.refresh_token,
        }
        optional = ("issued_at", "refresh_token")
        return {key: value for key, value in kept.items() if value is not None or key not in optional}


class Lock:
    """What came of trying to lock an account."""

    #: It is locked until the ``with`` statement ends.
    HELD = "held"
    #: Somebody else has locked it.
    BUSY = "busy"
    #: Nothing can be locked here.
    IMPOSSIBLE = "impossible"


class Store:
    """The interface of all stores; this one keeps nothing.

    Attributes:
        identity: whose place it is. It is fixed, so nothing that is kept needs to say it.
        place: the path or address as it was given; ``None`` for no place at all.
    """

    def __init__(self, identity: Identity, place: str | PathLike[str] | None = None) -> None:
        self.identity = identity
        self._place = place

    @property
    def place(self) -> str | PathLike[str] | None:
        return self._place

    @property
    def keeps(self) -> bool:
        """Whether anything is kept here."""
        return False

    @property
    def shown(self) -> str:
        """The place, for a message; without the password of an address."""
        return ""

    @property
    def remedy(self) -> str:
        """What to do when nothing can be kept here."""
        return ""

    def beside(self, identity: Identity) -> Store:
        """A store of the same place for another identity."""
        return Store(identity)

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
        """All that is kept in the same place, whosever it is."""
        return iter(())

    @contextmanager
    def locked(self) -> Iterator[str]:
        """Try to lock the account, without waiting: yields one of :class:`Lock`. The lock ends with its process."""
        yield Lock.HELD

    @contextmanager
    def locked_within(self, seconds: float) -> Iterator[str]:
        """Try to lock the account for up to so many seconds: yields one of :class:`Lock`."""
        for is_last in looks(seconds):
            with self.locked() as lock:
                if lock != Lock.BUSY or is_last:
                    yield lock
                    return

    def owns(self, entry: Entry) -> bool:
        """Whether an entry may be used for this account. Only a flat one may be somebody else's."""
        return not entry.is_flat or not self.identity.is_contradicted_by(entry.token.text, entry.api_base_url)


def looks(patience: float, when_it_takes_long: Callable[[], None] | None = None) -> Iterator[bool]:
    """Looks at what another process does, until ``patience`` (seconds) is at its end: whether this is the last look.

    The pauses between them grow, and chance has a part in them, so that those who wait together do not look together.
    """
    from random import random

    began = time.monotonic()
    pause = 0.01
    while (waited := time.monotonic() - began) < patience:
        yield False
        if waited >= _SILENT_SECONDS and when_it_takes_long is not None:
            when_it_takes_long()
            when_it_takes_long = None
        time.sleep(min(pause * (0.5 + random()), patience - waited))  # noqa: S311 - chance enough
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
    yield True
