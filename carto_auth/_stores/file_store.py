"""FileStore: an account's entry in a JSON file; DefaultFileStore: in the file that nobody named."""

from __future__ import annotations

import errno
import os
import stat
import sys
from contextlib import contextmanager, suppress

from carto_auth import _log
from carto_auth._stores.base import Entry, Lock, Store
from carto_auth._stores.document import LARGEST_FILE, encoded, entry_of, parsed, with_entry, without_entry
from carto_auth._stores.places import (
    as_path,
    default_filepath,
    is_ours,
    make_folder,
    make_private,
    unwritable_filepath,
)

# Type checkers take this name for true; typing would cost a start more than all of this package does.
TYPE_CHECKING = False

# pathlib is imported where something is written: reading a good token does without it.
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import Any

    from carto_auth._identity import Identity

#: Seconds that a save waits for another save, which takes milliseconds.
WRITE_LOCK_SECONDS = 10.0


class FileStore(Store):
    """An account's entry in a JSON file, beside those of other accounts."""

    @property
    def keeps(self) -> bool:
        return True

    @property
    def path(self) -> str:
        """The path of the file, as text."""
        assert self._place is not None
        return as_path(self._place)

    @property
    def shown(self) -> str:
        return self.path

    @property
    def remedy(self) -> str:
        return "set CARTO_AUTH_HOME to a folder that can be written"

    def beside(self, identity: Identity) -> Store:
        return FileStore(identity, self.path)

    def load(self) -> Entry | None:
        return entry_of(read(self.path), self.identity)

    def save(self, entry: Entry) -> None:
        update(self.path, lambda kept: with_entry(kept, self.identity, entry))

    def forget(self) -> bool:
        if not os.path.lexists(self.path):
            return False
        return update(self.path, lambda kept: without_entry(kept, self.identity))

    @contextmanager
    def locked(self) -> Iterator[str]:
        lock = _lock(self.path, f".{_digest(self.identity)}", seconds=0.0)
        try:
            yield lock if isinstance(lock, str) else Lock.HELD
        finally:
            _release(lock)


class DefaultFileStore(FileStore):
    """An account's entry in the default file, wherever that is when it is asked: a pickle may arrive elsewhere.

    What cannot be written there is kept in this process's memory.
    """

    def __init__(self, identity: Identity) -> None:
        super().__init__(identity)

    @property
    def mode(self) -> str:
        """Whose default file it is: that of people's logins, or of applications and their maps."""
        return "m2m" if self.identity.mode == "m2m" else "oauth"

    @property
    def place(self) -> Path:
        from pathlib import Path

        return Path(self.path)

    @property
    def path(self) -> str:
        return default_filepath(self.mode)

    def spare_entries(self) -> Iterator[Entry]:
        home = unwritable_filepath(self.mode)
        kept = (entry_of(read(home), self.identity) if home else None, _in_memory.get(self._key))
        return (entry for entry in kept if entry is not None)

    def save(self, entry: Entry) -> None:
        try:
            super().save(entry)
        except OSError:
            # Without the refresh token: a forked process has a copy of this, and it must not be used twice.
            _in_memory[self._key] = entry.replaced(token=entry.token.replaced(refresh_token=None))
            raise
        _in_memory.pop(self._key, None)

    def forget(self) -> bool:
        in_memory = _in_memory.pop(self._key, None)
        return super().forget() or in_memory is not None

    @property
    def _key(self) -> tuple[str, str]:
        return self.path, str(self.identity)


#: What could not be written, for the life of this process: entries by their file and identity.
_in_memory: dict[tuple[str, str], Entry] = {}


# ---- reading -------------------------------------------------------------------------------------


def read(path: str) -> dict[str, Any]:
    """The document in a file, to look at; ``{}`` where there is none, and where it cannot be read."""
    try:
        return _read_own(path)
    except (OSError, ValueError) as error:  # a NUL in the path is a ValueError
        _log.debug("the token cache %s cannot be read (%s): going on without it", path, type(error).__name__)
        return {}


def _read_own(path: str) -> dict[str, Any]:
    """The document in a file; ``{}`` for no file, for damage, and for another user's file, which is warned of.

    Raises:
        OSError: it is there, and cannot be read.
    """
    try:
        content = _content(path)
    except FileNotFoundError:
        return {}
    try:
        return parsed(content)
    except (ValueError, RecursionError) as error:
        _log.debug("the token cache %s is damaged (%s): going on without it", path, type(error).__name__)
        return {}


def _content(path: str) -> bytes:
    # O_NONBLOCK: a named pipe in the place of the file must not make anybody wait.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > LARGEST_FILE:
            return b""
        if not is_ours(status):
            _log.warn_once(
                f"The token cache {path} belongs to another user and is ignored. "
                "Set CARTO_AUTH_HOME to a folder of your own."
            )
            return b""
        if sys.platform != "win32" and status.st_mode & 0o077:
            _repair_modes(descriptor, status, path)
        with os.fdopen(os.dup(descriptor), "rb") as file:
            return file.read(LARGEST_FILE + 1)
    finally:
        os.close(descriptor)


def _repair_modes(descriptor: int, status: os.stat_result, path: str) -> None:
    """Take away the rights of others that carto-auth 0.2.0 left."""
    if sys.platform != "win32":
        with suppress(OSError):
            # Not what a link leads to: whoever can put a link here must not change files elsewhere.
            if os.path.samestat(os.lstat(path), status) and status.st_nlink == 1:
                os.fchmod(descriptor, 0o600)
    make_private(os.path.dirname(path))


# ---- writing -------------------------------------------------------------------------------------


def update(path: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> bool:
    """Write what ``change`` makes of a file's document, whole or not at all; whether that was anything new.

    Nobody but the user can read the file at any time.

    Raises:
        OSError: it could not be read or written; what was there before is still there.
        TypeError, ValueError: it cannot be written as JSON.
    """
    from pathlib import Path

    target = Path(path)
    if _is_device(target):  # root would put a file in the place of /dev/null
        raise OSError(errno.EINVAL, "it is a device, not a file")
    make_folder(target.parent)
    lock = _lock(path, "", seconds=WRITE_LOCK_SECONDS)
    try:
        if os.path.lexists(path) and not is_ours(target.lstat()):
            raise PermissionError(errno.EPERM, "it belongs to another user")
        before = _read_own(path)
        after = change(before)
        if after == before:
            return False
        _replace(target, encoded(after, otherwise=change({})), sweep=not isinstance(lock, str))
        return True
    finally:
        _release(lock)


def _is_device(path: Path) -> bool:
    """Whether ``path`` is a device, or a link to one, such as /dev/stdout."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISCHR(mode) or stat.S_ISBLK(mode)


def _replace(path: Path, content: bytes, *, sweep: bool) -> None:
    """Put ``content`` in the place of ``path`` at one stroke; a symlink there is replaced, not followed."""
    if sweep:  # nobody else writes now, so what lies here was left by somebody killed
        _sweep(path)
    temporary = path.with_name(f".{path.name}.{os.urandom(8).hex()}.tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
    try:
        with os.fdopen(os.open(temporary, flags, 0o600), "wb") as file:
            if sys.platform != "win32":
                os.fchmod(file.fileno(), 0o600)  # a strict umask takes even the owner's rights
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def _sweep(path: Path) -> None:
    from glob import escape

    for left in path.parent.glob(f".{escape(path.name)}.*.tmp"):
        with suppress(OSError):
            left.unlink()


# ---- locking -------------------------------------------------------------------------------------


def _lock(path: str, whose: str, *, seconds: float) -> Any:
    """A lock that ends with its process, or :class:`Lock`'s word for why there is none."""
    from pathlib import Path

    from filelock import FileLock, Timeout

    target = Path(path)
    if _is_device(target):
        return Lock.IMPOSSIBLE  # /dev is no place for a lock file
    try:
        lock_path = target.with_name(f".{target.name}{whose}.lock")  # which "." has none of
        make_folder(target.parent)
        lock = FileLock(lock_path, timeout=seconds, mode=0o600)
        try:
            lock.acquire()
        except PermissionError:  # another user's, as sudo leaves them: in a folder of one's own it can be replaced
            if not is_ours(target.parent.stat()):
                raise
            lock_path.unlink()
            lock.acquire()
    except Timeout:
        return Lock.BUSY
    except (OSError, ValueError, RuntimeError) as error:
        _log.debug("going on without a lock for %s (%s)", path, type(error).__name__)
        return Lock.IMPOSSIBLE
    return lock


def _release(lock: Any) -> None:
    if not isinstance(lock, str):
        with suppress(OSError):
            lock.release()


def _digest(identity: Identity) -> str:
    """A short name for an identity that may stand in a file name."""
    from hashlib import sha256

    return sha256(str(identity).encode("utf-8", "surrogatepass")).hexdigest()[:12]
