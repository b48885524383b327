"""The JSON token cache: where it is, how it is read, written and locked; which entry is whose.

A cache file is ``{"version": 1, "tokens": {<identity>: {entry}}}``. A file of carto-auth 0.2.0 is one flat
entry, ``{"api_base_url", "access_token", "expiration"}``; its keys may also stand beside ``tokens``, so that
nothing is lost before it is known whose it is. Keys that are not ours are kept.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

from carto_auth import _log
from carto_auth._services import AUDIENCE, Services
from carto_auth._token import is_time, is_usable_token, jwt_claims
from carto_auth._trust import normalized_base_url
from carto_auth._typing import TYPE_CHECKING, Any, NamedTuple

# pathlib is imported where something is written: reading a good token does without it.
if TYPE_CHECKING:
    from pathlib import Path

#: The keys of a flat entry, all of which it must have.
FLAT_KEYS = ("api_base_url", "access_token", "expiration")

#: Seconds after its end at which an entry goes with the next save. Until then a clock may be put right.
_LONG_OVER_SECONDS = 30 * 86_400.0

#: All that may stand flat in a file.
_FLAT_ENTRY = (*FLAT_KEYS, "issued_at", "refresh_token")

#: Bytes. A cache of thousands of accounts is smaller; a larger file is damage.
LARGEST_FILE = 4 * 1024 * 1024

_VERSION = 1

#: The key in Redis of an entry that does not say whose it is.
_FLAT = "flat"

#: A folder that is not there, for a user who has none.
NOWHERE = os.path.join(os.sep, "nonexistent", ".carto-auth")

#: How the identity of a restricted token begins: it is a map's, and no account's.
_RESTRICTED = "mode=restricted&"


class Identity(NamedTuple):
    """Whose token it is: two logins may share a token only if all of this is the same. No secret is in it."""

    mode: str
    token_endpoint: str
    audience: str
    client_id: str
    organization: str = ""
    api_base_url: str = ""

    @classmethod
    def of_person(cls, services: Services, organization: str | None) -> Identity:
        """The identity of a person's login."""
        return cls("oauth", services.token_url, AUDIENCE, services.client_id, organization or "")

    @classmethod
    def of_application(cls, services: Services, client_id: str, api_base_url: str | None) -> Identity:
        """The identity of an M2M application."""
        return cls("m2m", services.token_url, AUDIENCE, client_id, "", normalized_base_url(api_base_url or ""))

    def __str__(self) -> str:
        """One readable string, never the same for two identities: ``&`` and ``%`` are escaped in the values."""
        return "&".join(
            f"{name}={value.replace('%', '%25').replace('&', '%26')}" for name, value in self._asdict().items()
        )

    def owns_flat_entry(self, entry: Mapping[str, Any]) -> bool:
        """Whether a flat entry of carto-auth 0.2.0, which does not say whose it is, may be taken as ours.

        Its JWT must not contradict: the client id (``azp``) and the organization (``org_id``) agree; a token
        that does not name an organization is not taken for one. An application's entry must also be for the
        same API base URL.
        """
        claims = jwt_claims(entry["access_token"])
        if claims and claims.get("azp", self.client_id) != self.client_id:
            return False
        if self.mode == "m2m":
            base_url = entry.get("api_base_url")
            return isinstance(base_url, str) and normalized_base_url(base_url) == self.api_base_url
        return (claims.get("org_id") or "") == self.organization


class AccountFile(str):
    """A cache file, and whose entry in it.

    It is the path of the file, and equal to it as text and as ``Path``, so that what takes a path (a replaced
    ``load_cache_file``, as tests of carto-auth's dependants have it) takes this too.
    """

    identity: Identity

    def __eq__(self, other: object) -> bool:
        return str.__eq__(self, os.fspath(other)) is True if isinstance(other, (str, os.PathLike)) else NotImplemented

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return str.__hash__(self)

    def __getattr__(self, name: str) -> Any:
        """What a ``Path`` has and text has not."""
        if name.startswith("_"):
            raise AttributeError(name)
        from pathlib import Path

        return getattr(Path(str(self)), name)

    @classmethod
    def at(cls, path: str | os.PathLike[str], identity: Identity) -> AccountFile:
        account_file = cls(_named(path))
        account_file.identity = identity
        return account_file


def _named(path: str | os.PathLike[str]) -> str:
    """A path as text, as ``Path`` has it, without slashes at its end; a folder called ``~`` is what nobody wants."""
    named = os.path.expanduser(os.fsdecode(path))
    return named if is_in_redis(named) else named.rstrip("/") or named


def is_in_redis(location: str) -> bool:
    """Whether a cache is not a file but in Redis."""
    return location[:9].lower().startswith(("redis://", "rediss://"))


def shown(location: str | os.PathLike[str]) -> str:
    """A cache's place for a message, without the password that may be in a URL."""
    text = os.fsdecode(location)
    if not is_in_redis(text):
        return text
    scheme, _, rest = text.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}".partition("?")[0]


# ---- where it is ---------------------------------------------------------------------------------


def get_home_dir() -> Path:
    """The folder of the default cache files: ``CARTO_AUTH_HOME``, else ``~/.carto-auth``.

    Where there is no usable home, it is the folder that the operating system has for caches. The folder is
    made if it is not there, as far as that can be: callers may write to it.
    """
    from pathlib import Path

    folder = Path(_home_dir())
    with suppress(OSError):
        _make_folder(folder)
    return folder


def get_cache_filepath(mode: str) -> Path:
    """The default cache file for ``mode`` (``"oauth"`` or ``"m2m"``), in :func:`get_home_dir`."""
    return get_home_dir() / f"token_{mode}.json"


def default_cache_filepath(mode: str) -> str:
    """The path of :func:`get_cache_filepath`, or what ``CARTO_AUTH_CACHE`` names; nothing is made.

    ``pathlib`` is not imported for it.
    """
    named = os.environ.get("CARTO_AUTH_CACHE", "").strip()
    if named:
        return named if is_in_redis(named) else os.path.expanduser(named)
    return os.path.join(_home_dir(), f"token_{mode}.json")


def unwritable_default_filepath(mode: str) -> str | None:
    """The file in ``~/.carto-auth`` where that is not the default because nothing can be written there.

    What it has can be read all the same: such a folder may be lent to a container.
    """
    own = os.path.join(_user_home(), ".carto-auth")
    if _home_dir() == own or os.environ.get("CARTO_AUTH_HOME", "").strip():
        return None
    return os.path.join(own, f"token_{mode}.json")


def _home_dir() -> str:
    named = os.environ.get("CARTO_AUTH_HOME", "").strip()
    if named:
        return os.path.expanduser(named)
    home = _user_home()
    own = os.path.join(home, ".carto-auth")
    has_home = home != "~"
    if has_home and _is_usable(own, making=1):
        return own
    import platformdirs

    try:
        fallback = platformdirs.user_cache_dir("carto-auth")
    except RuntimeError:
        fallback = ""
    if not os.path.isabs(fallback):  # there is no home to look for it in
        return NOWHERE if not has_home else own
    return fallback if not has_home or _is_usable(fallback, making=3) else own


def _user_home() -> str:
    """The home folder; ``"~"`` when there is none."""
    pathlib = sys.modules.get("pathlib")
    if pathlib is None:
        return os.path.expanduser("~")
    try:
        return str(pathlib.Path.home())  # which a program may have replaced
    except RuntimeError:
        return "~"


def _is_usable(folder: str, *, making: int) -> bool:
    """Whether files can be kept in ``folder``, where at most so many folders at its end may have to be made."""
    for _ in range(making):
        if os.path.exists(folder):
            break
        folder = os.path.dirname(folder)
    return os.access(folder, os.R_OK | os.W_OK | os.X_OK)


# ---- reading -------------------------------------------------------------------------------------


def load_cache_file(cache_filepath: str | os.PathLike[str]) -> dict[str, Any] | None:
    """The token kept in a cache file; ``None`` when there is none, or none that can be read.

    A flat file of carto-auth 0.2.0 is returned as it is. A file of ours gives its entry, if there is just
    one: from several accounts none is picked by guess. Damage of any kind is the same as no file.
    """
    if not cache_filepath:
        return None
    identity = getattr(cache_filepath, "identity", None)
    if is_in_redis(_named(cache_filepath)):
        return _load_from_redis(_named(cache_filepath), identity)
    document = _read(_named(cache_filepath))
    entries = _entries(document)
    if identity is not None and str(identity) in entries:
        return entries[str(identity)]
    if all(key in document for key in FLAT_KEYS):
        return {key: value for key, value in document.items() if key not in ("version", "tokens", "identity")}
    accounts = [entry for key, entry in entries.items() if not key.startswith(_RESTRICTED)]
    if identity is None and len(accounts) == 1:
        (entry,) = accounts
        return entry if all(key in entry for key in FLAT_KEYS) else None
    return None


def _load_from_redis(url: str, identity: Identity | None) -> dict[str, Any] | None:
    from carto_auth import _redis_cache

    entry = _redis_cache.load(url, str(identity) if identity is not None else _FLAT)
    if entry is None or not is_sound_entry(entry):
        return None
    return entry if identity is None else {**entry, "identity": str(identity)}


def _entries(document: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The sound entries of a document, each with its identity under ``"identity"``."""
    tokens = document.get("tokens")
    if not isinstance(tokens, dict):
        return {}
    return {
        key: {**entry, "identity": key}
        for key, entry in tokens.items()
        if isinstance(entry, dict) and is_sound_entry(entry)
    }


def is_sound_entry(entry: Mapping[str, Any]) -> bool:
    """Whether an entry can be used: a token that can be sent, a time that is one, texts where texts belong."""
    base_url = entry.get("api_base_url")
    return (
        is_usable_token(entry.get("access_token"))
        and is_time(entry.get("expiration"))
        and (base_url is None or (isinstance(base_url, str) and base_url.isprintable()))
    )


def _read(path: str) -> dict[str, Any]:
    """The JSON object in a file; ``{}`` for anything else. Loose modes that 0.2.0 left are repaired."""
    try:
        content = _read_own_file(path)
        document = json.loads(content.decode("utf-8")) if content else {}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        _log.debug("the token cache %s cannot be read (%s): going on without it", path, type(error).__name__)
        return {}
    return document if isinstance(document, dict) else {}


def _read_own_file(path: str) -> bytes:
    # O_NONBLOCK: a named pipe in the place of the file must not make anybody wait.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > LARGEST_FILE:
            return b""
        if not _is_ours(status):
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


def _is_ours(status: os.stat_result) -> bool:
    return sys.platform == "win32" or status.st_uid == os.geteuid()


def _repair_modes(descriptor: int, status: os.stat_result, path: str) -> None:
    if sys.platform != "win32":
        with suppress(OSError):
            # Not what a link leads to: whoever can put a link here must not change files elsewhere.
            if os.path.samestat(os.lstat(path), status) and status.st_nlink == 1:
                os.fchmod(descriptor, 0o600)
    _make_private(os.path.dirname(path))


def _make_private(folder: str) -> None:
    """Close the default folder to others. A folder that the user chose is left as it is: it is not ours."""
    if os.path.basename(folder) == ".carto-auth":
        with suppress(OSError):
            status = os.lstat(folder)
            if stat.S_ISDIR(status.st_mode) and _is_ours(status) and status.st_mode & 0o077:
                os.chmod(folder, 0o700)


# ---- writing -------------------------------------------------------------------------------------


def save_cache_file(cache_filepath: str | os.PathLike[str], data: Mapping[str, Any]) -> None:
    """Keep a token in a cache file, beside those of other accounts; whole or not at all.

    For an :class:`AccountFile`, and for ``data`` with an ``"identity"``, it becomes that account's entry; else it
    is kept flat, as carto-auth 0.2.0 does. Nobody but the user can read the file at any time.

    Raises:
        OSError: it could not be written; what was there before is still there.
        TypeError, ValueError: ``data`` cannot be written as JSON.
    """
    from pathlib import Path

    identity = getattr(cache_filepath, "identity", None)
    if identity is not None:
        data = {**data, "identity": str(identity)}
    if is_in_redis(_named(cache_filepath)):
        from carto_auth import _redis_cache

        entry = {key: value for key, value in data.items() if key != "identity"}
        _redis_cache.save(_named(cache_filepath), data.get("identity") or _FLAT, entry)
        return
    path = Path(_named(cache_filepath))
    if _is_device(path):  # root would put a file in the place of /dev/null
        raise OSError(errno.EINVAL, "it is a device, not a file")
    _make_folder(path.parent)
    with locked(path, timeout=_WRITE_LOCK_SECONDS) as alone:
        if os.path.lexists(path) and not _is_ours(path.lstat()):
            raise PermissionError(errno.EPERM, "it belongs to another user")
        document = _updated(_read(str(path)), data)
        _replace(path, _encoded(document, otherwise=_updated({}, data)), sweep=alone)


#: What could not be written, for the life of this process: entries by their file and identity.
_in_memory: dict[tuple[str, str], dict[str, Any]] = {}


def keep_in_memory(account_file: AccountFile, entry: Mapping[str, Any]) -> None:
    """Keep what could not be written, so that this process does not ask again and again for what it has.

    A refresh token is left out: a forked process has a copy of this, and it must not be used twice.
    """
    kept = {key: value for key, value in entry.items() if key != "refresh_token"}
    _in_memory[str(account_file), str(account_file.identity)] = {**kept, "identity": str(account_file.identity)}


def forget_in_memory(account_file: AccountFile) -> None:
    """Forget what :func:`keep_in_memory` has kept."""
    _in_memory.pop((str(account_file), str(account_file.identity)), None)


def load_from_memory(account_file: AccountFile) -> dict[str, Any] | None:
    """What :func:`keep_in_memory` has kept."""
    return _in_memory.get((str(account_file), str(account_file.identity)))


def forget_entry(cache_filepath: str | os.PathLike[str], identity: Identity) -> bool:
    """Take an account's token out of a cache file; whether there was one.

    Raises:
        OSError: the file could not be written.
    """
    from pathlib import Path

    if is_in_redis(_named(cache_filepath)):
        from carto_auth import _redis_cache

        return _redis_cache.forget(_named(cache_filepath), str(identity))
    path = Path(_named(cache_filepath))
    with locked(path, timeout=_WRITE_LOCK_SECONDS) as alone:
        document = _read(str(path))
        found = str(identity) in _entries(document)
        if found:
            del document["tokens"][str(identity)]
        if _is_flat_of(document, identity):
            found = True
            for key in FLAT_KEYS:
                del document[key]
        if found:
            _replace(path, _encoded(document, otherwise={}), sweep=alone)
    return found


def _is_flat_of(document: Mapping[str, Any], identity: Identity) -> bool:
    return all(key in document for key in FLAT_KEYS) and is_sound_entry(document) and identity.owns_flat_entry(document)


def _is_device(path: Path) -> bool:
    """Whether ``path`` is a device, or a link to one, such as /dev/stdout."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISCHR(mode) or stat.S_ISBLK(mode)


def _updated(document: dict[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """``document`` with ``data`` in it."""
    identity = data.get("identity")
    if identity is None:
        return {**{key: value for key, value in document.items() if key not in _FLAT_ENTRY}, **data}
    entry = {key: value for key, value in data.items() if key != "identity"}
    known = document.get("tokens")
    kept = {key: one for key, one in known.items() if not _is_long_over(one)} if isinstance(known, dict) else {}
    tokens = {**kept, identity: entry}
    if document.get("access_token") == entry["access_token"]:  # a flat entry that is adopted by this save
        document = {key: value for key, value in document.items() if key not in FLAT_KEYS}
    return {**document, "version": _VERSION, "tokens": tokens}


def _is_long_over(entry: object) -> bool:
    """Whether an entry is of no use to anybody any more, so that it need not be kept for ever."""
    if not isinstance(entry, dict) or not is_sound_entry(entry) or "refresh_token" in entry:
        return False
    return bool(entry["expiration"] < time.time() - _LONG_OVER_SECONDS)


def _encoded(document: dict[str, Any], *, otherwise: dict[str, Any]) -> bytes:
    """The content of a file; of ``otherwise`` if the document is so deep or large that it must be damage."""
    with suppress(RecursionError):  # json can read some things that it cannot write
        content = json.dumps(document, indent=1).encode()
        if len(content) <= LARGEST_FILE:
            return content
    return json.dumps(otherwise, indent=1).encode()


def _make_folder(folder: Path) -> None:
    if folder.is_dir():
        _make_private(str(folder))
        return
    with suppress(FileExistsError):  # another process may be quicker
        # A missing home is not ours to make.
        folder.mkdir(mode=0o700, parents=str(folder) != os.path.join(_user_home(), ".carto-auth"))
        folder.chmod(0o700)  # a strict umask takes even the owner's rights


def _replace(path: Path, content: bytes, *, sweep: bool) -> None:
    """Put ``content`` in the place of ``path`` at one stroke; a symlink there is replaced, not followed."""
    import secrets

    if sweep:  # nobody else writes now, so what lies here was left by somebody killed
        for left in path.parent.glob(f".{_glob_escaped(path.name)}.*.tmp"):
            with suppress(OSError):
                left.unlink()
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
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


def _glob_escaped(name: str) -> str:
    import glob

    return glob.escape(name)


# ---- locking -------------------------------------------------------------------------------------

#: Seconds that a save waits for another save, which takes milliseconds.
_WRITE_LOCK_SECONDS = 10.0


@contextmanager
def locked(
    cache_filepath: str | os.PathLike[str], identity: Identity | None = None, *, timeout: float
) -> Iterator[bool]:
    """Hold a lock that ends with its process: an account's (for a renewal), or the file's (for a write).

    Waits up to ``timeout`` seconds, then goes on all the same: yields whether the lock is held. A folder in
    which nothing can be locked is treated likewise.
    """
    if is_in_redis(_named(cache_filepath)):
        from carto_auth import _redis_cache

        with _redis_cache.locked(_named(cache_filepath), str(identity), timeout=timeout) as held:
            yield held
        return
    lock = _acquired(cache_filepath, identity, timeout)
    try:
        yield lock is not None
    finally:
        if lock is not None:
            with suppress(OSError):
                lock.release()


def _acquired(cache_filepath: str | os.PathLike[str], identity: Identity | None, timeout: float) -> Any:
    from pathlib import Path

    from filelock import FileLock, Timeout

    path = Path(_named(cache_filepath))
    if _is_device(path):
        return None  # /dev is no place for a lock file
    name = f".{path.name}.lock" if identity is None else f".{path.name}.{_digest(str(identity))}.lock"
    try:
        _make_folder(path.parent)
        lock = FileLock(path.with_name(name), timeout=timeout, mode=0o600)
        try:
            lock.acquire()
        except PermissionError:  # another user's, as sudo leaves them: in a folder of one's own it can be replaced
            if not _is_ours(path.parent.stat()):
                raise
            path.with_name(name).unlink()
            lock.acquire()
    except (OSError, ValueError, RuntimeError, Timeout) as error:
        _log.debug("going on without the lock %s (%s)", name, type(error).__name__)
        return None
    return lock


def _digest(text: str) -> str:
    """A short name for an identity that may stand in a file name."""
    import hashlib

    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]
