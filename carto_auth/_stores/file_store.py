"""FileStore: an account's entry in a JSON file; DefaultFileStore: in the file that nobody named."""

from __future__ import annotations

import errno
import os
import stat
import sys

from carto_auth import _log
from carto_auth._stores.base import Entry, Lock, Store
from carto_auth._stores.document import LARGEST_FILE, encoded, entries_of, entry_of, parsed, with_entry, without_entry
from carto_auth._stores.places import as_path, default_filepath, is_ours, make_folder, make_private, unwritable_filepath

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

#: How a disk says that it has no locks, NFS and FUSE for example.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EIO)

#: How it is said that a file can be written but not replaced, such as one that was mounted by itself.
_IN_PLACE_ONLY = (errno.EBUSY, errno.EROFS, errno.EACCES, errno.EPERM, errno.EXDEV)


class FileStore(Store):
    """An account's entry in a JSON file, beside those of other accounts."""

    remedy = "name another file with cache_filepath= or CARTO_AUTH_CACHE"

    @property
    def path(self) -> str:
        """The path of the file, as text."""
        assert self._place is not None
        return as_path(self._place)

    @property
    def shown(self) -> str:
        return self.path

    def load(self) -> Entry | None:
        return entry_of(read(self.path), self.identity)

    def save(self, entry: Entry) -> None:
        update(self.path, lambda kept: with_entry(kept, self.identity, entry))

    def check(self, *, writing: bool = False) -> None:
        if writing:
            update(self.path, dict, always=True)
            return
        try:
            parsed(_content(self.path))
        except FileNotFoundError:
            pass
        except (ValueError, RecursionError):
            raise OSError(errno.EINVAL, "it is damaged, and counts as empty") from None

    def accounts(self) -> Iterator[tuple[Identity, Entry]]:
        return entries_of(read(self.path))

    def forget(self) -> bool:
        if not os.path.lexists(self.path):
            return False
        return update(self.path, lambda kept: without_entry(kept, self.identity))

    def locked(self) -> Lock:
        from hashlib import sha256

        whose = sha256(str(self.identity).encode("utf-8", "surrogatepass")).hexdigest()[:12]  # may be in a file name
        return _locked(self.path, f".{whose}", seconds=0.0)


class DefaultFileStore(FileStore):
    """An account's entry in the default file, wherever that is when it is asked: a pickle may arrive elsewhere.

    What cannot be written there is kept in this process's memory.
    """

    is_default = True
    remedy = "set CARTO_AUTH_HOME to a folder that can be written"

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

    def beside(self, identity: Identity) -> Store:
        return FileStore(identity, self.path)  # the other's default file may be another one

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
        found = super().forget() or in_memory is not None
        if any(self.owns(entry) for entry in self.spare_entries()):
            raise OSError(errno.EROFS, f"it stays in {unwritable_filepath(self.mode)}, where nothing can be written")
        return found

    @property
    def _key(self) -> tuple[str, str]:
        return self.path, str(self.identity)


#: What could not be written, for the life of this process: entries by their file and identity.
_in_memory: dict[tuple[str, str], Entry] = {}


# ---- reading -------------------------------------------------------------------------------------


def read(path: str, *, to_write: bool = False) -> dict[str, Any]:
    """The document in a file; ``{}`` for no file and for damage, and to look at also where it cannot be read.

    Raises:
        OSError: it is there, cannot be read, and would be written over.
    """
    try:
        return parsed(_content(path))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:  # a NUL in the path is a ValueError
        if to_write and isinstance(error, OSError):
            raise
        _log.debug("the token cache %s cannot be read (%s): going on without it", path, type(error).__name__)
        return {}


def _content(path: str) -> bytes:
    # O_NONBLOCK: a named pipe in the place of the file must not make anybody wait.
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0))) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_size > LARGEST_FILE:
            return b""
        if not is_ours(status):
            raise PermissionError(errno.EPERM, "it belongs to another user")
        if sys.platform != "win32" and status.st_mode & 0o077:
            _repair_modes(file.fileno(), status, path)
        return file.read(LARGEST_FILE + 1)


def _repair_modes(descriptor: int, status: os.stat_result, path: str) -> None:
    """Take away the rights of others that carto-auth 0.2.0 left."""
    from contextlib import suppress

    if sys.platform != "win32":
        with suppress(OSError):
            # Not what a link leads to: whoever can put a link here must not change files elsewhere.
            if os.path.samestat(os.lstat(path), status) and status.st_nlink == 1:
                os.fchmod(descriptor, 0o600)
    make_private(os.path.dirname(path))


# ---- writing -------------------------------------------------------------------------------------


def update(path: str, change: Callable[[dict[str, Any]], dict[str, Any]], *, always: bool = False) -> bool:
    """Write what ``change`` makes of a file's document, whole or not at all; whether that was anything new.

    What is not new is written only if ``always`` says so.

    Nobody but the user can read the file at any time.

    Raises:
        OSError: it could not be read or written; what was there before is still there.
        TypeError, ValueError: it cannot be written as JSON.
    """
    target = _target(path)
    with _locked(path, "", seconds=WRITE_LOCK_SECONDS) as state:
        before = read(path, to_write=True)
        after = change(before)
        if after == before and not always:
            return False
        if state == Lock.HELD:  # nobody else writes now, so what lies here was left by somebody killed
            _sweep(target)
        _write(target, encoded(after, otherwise=change({})))
        return True


def _target(path: str) -> Path:
    """The path to write to, or to lock, in a folder that is made if it is not there.

    Raises:
        OSError: that cannot be made; or the path is a device. Root would put a file in the place of /dev/null or
            /dev/stdout, and a lock beside it.
    """
    from pathlib import Path

    target = Path(path)
    if target.is_char_device() or target.is_block_device() or target.parent == Path("/dev"):
        raise OSError(errno.EINVAL, "it is a device, not a file")
    make_folder(str(target.parent))
    return target


def _write(path: Path, content: bytes) -> None:
    """Put ``content`` in the place of ``path``; into the file itself where it can only be written in place."""
    try:
        _replace(path, content)
    except OSError as error:
        if error.errno not in _IN_PLACE_ONLY or not path.is_file() or path.is_symlink() or path.stat().st_nlink > 1:
            raise
        # Whoever is killed in the middle leaves damage, which the next save repairs.
        _fill(os.open(path, os.O_WRONLY | getattr(os, "O_NOFOLLOW", 0)), content)


def _replace(path: Path, content: bytes) -> None:
    """Put ``content`` in the place of ``path`` at one stroke; a symlink there is replaced, not followed."""
    from contextlib import suppress

    temporary = path.with_name(f".{path.name}.{os.urandom(8).hex()}.tmp")
    try:
        _fill(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), content)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def _fill(descriptor: int, content: bytes) -> None:
    """Make ``content`` all that is in an open file, on the disk itself, and close it. A disk may have no modes."""
    from contextlib import suppress

    with os.fdopen(descriptor, "wb") as file:
        if sys.platform != "win32":
            with suppress(OSError):
                os.fchmod(descriptor, 0o600)  # a strict umask takes even the owner's rights
        file.write(content)
        file.truncate()
        file.flush()
        os.fsync(descriptor)


def _sweep(path: Path) -> None:
    from contextlib import suppress
    from glob import escape

    for left in path.parent.glob(f".{escape(path.name)}.*.tmp"):
        with suppress(OSError):
            left.unlink()


# ---- locking -------------------------------------------------------------------------------------


#: The locks that are held: process, thread, path. A signal handler must not wait for what it has interrupted.
_held: set[tuple[int, int, str]] = set()


def _locked(path: str, whose: str, *, seconds: float) -> Lock:
    """Try to lock what is beside ``path``, for up to so many seconds. No failure is raised, whatever it is."""
    from contextlib import ExitStack, suppress
    from threading import get_ident

    holder = (os.getpid(), get_ident(), f"{path}{whose}")
    if holder in _held:
        return Lock(Lock.IMPOSSIBLE)
    with ExitStack() as to_do:
        _held.add(holder)
        to_do.callback(_held.discard, holder)
        to_do.enter_context(suppress(OSError))
        try:
            to_do.callback(_acquired(path, whose, seconds).release)
            return Lock(Lock.HELD, to_do.pop_all().close)
        except TimeoutError:
            return Lock(Lock.BUSY)
        except Exception as error:  # filelock's imports may find a secrets.py of the user's own
            if isinstance(error, OSError) and error.errno in _NO_LOCKS:
                _log.warn_once(
                    f"Nothing can be locked in {os.path.dirname(path) or '.'}, so programs do not share a renewal "
                    "of their CARTO token: each of them asks for one. Keep the token on a disk that has locks, with "
                    "CARTO_AUTH_HOME."
                )
            _log.debug("going on without a lock for %s (%s)", path, type(error).__name__)
    return Lock(Lock.IMPOSSIBLE)


def _acquired(beside: str, whose: str, seconds: float) -> Any:
    from filelock import FileLock

    target = _target(beside)
    path = target.with_name(f".{target.name}{whose}.lock")  # which "." has none of
    # No lock but the operating system's, which ends with its process.
    lock = FileLock(path, timeout=seconds, mode=0o600, fallback_to_soft=False)
    try:
        if os.path.lexists(path) and path.lstat().st_nlink > 1:  # old versions of filelock would empty the other file
            raise PermissionError(errno.EPERM, "it is another name of a file elsewhere")
        lock.acquire()
    except PermissionError:  # another user's, as sudo leaves them: in a folder of one's own it can be replaced
        if not is_ours(path.parent.stat()):
            raise
        path.unlink()
        lock.acquire()
    return lock
