"""Where the cache is: the folders of the default files, and what the environment names."""

from __future__ import annotations

import errno
import os
import re
import stat
import sys

from carto_auth.errors import InvalidCredential

#: The home of a user who has none: a folder that is not there.
_NOWHERE = os.path.join(os.sep, "nonexistent")

#: How the address of a Redis begins; that of a Valkey, or of a node of a Redis Cluster, is written like it.
_REDIS_ADDRESSES = ("redis://", "rediss://", "unix://")

#: How an address begins: with a scheme of two letters or more and a slash, or like that of a Redis, be it mistyped.
_ADDRESS = r"(?i)(rediss?|unix|valkeys?)(\+[a-z]+)?(:|//)|[a-z][a-z0-9+.-]+:(?=/)"


def in_redis(place: str | os.PathLike[str]) -> bool:
    """Whether a cache is not a file but in Redis.

    Raises:
        InvalidCredential: it is at an address of another kind. What follows its scheme may be a password.
    """
    text = os.fsdecode(place)
    if text.lower().startswith(_REDIS_ADDRESSES):
        return True
    if scheme := _scheme(text):
        raise InvalidCredential(
            f"The place of the token cache begins with {scheme!r}, which is no address that can be used.",
            remedy="Pass the path of a file, or redis://host:6379/0, for Valkey and Redis Cluster as well; rediss:// "
            "with TLS, unix:// for a socket. Sentinel and other kinds of storage are not supported.",
        )
    return False


def _scheme(text: str) -> str:
    """How an address begins, with its colon if it has one; ``""`` for a path, be it one with the letter of a drive."""
    if ":" not in text and "//" not in text:  # then no pattern need be compiled, which takes a while
        return ""
    found = re.match(_ADDRESS, text)
    return found[0] if found else ""


def as_path(place: str | os.PathLike[str]) -> str:
    """A path as text, as ``Path`` has it, without slashes at its end; ``~`` is the home folder.

    Raises:
        InvalidCredential: it is an address.
    """
    if in_redis(place):
        raise InvalidCredential("A cache in Redis is not a file.", remedy="Pass the path of a file.")
    path = os.path.expanduser(os.fsdecode(place))
    return path.rstrip("/") or path


def named_by_environment() -> str:
    """What ``CARTO_AUTH_CACHE`` names, or ``""``."""
    return os.environ.get("CARTO_AUTH_CACHE", "").strip()


def default_filepath(mode: str) -> str:
    """The default cache file for ``mode``. Nothing is made, and ``pathlib`` is not imported."""
    return os.path.join(home_dir(), f"token_{mode}.json")


def unwritable_filepath(mode: str) -> str | None:
    """The file in ``~/.carto-auth`` where that is not the default because nothing can be written there.

    What it has can be read all the same: such a folder may be lent to a container.
    """
    own = os.path.join(_user_home(), ".carto-auth")
    if home_dir() == own or _named_home():
        return None
    return os.path.join(own, f"token_{mode}.json")


def home_dir() -> str:
    """The folder of the default files: ``CARTO_AUTH_HOME``, else ``~/.carto-auth``, else the system's for caches."""
    named = _named_home()
    if named:
        return os.path.expanduser(named)
    own = os.path.join(_user_home(), ".carto-auth")
    if _is_usable(own, making=1):
        return own
    import platformdirs

    try:
        fallback = platformdirs.user_cache_dir("carto-auth")
    except RuntimeError:  # there is no home to look for it in
        return own
    is_usable = os.path.isabs(fallback) and _is_usable(fallback, making=3) and not _lacks_home(fallback)
    return fallback if is_usable else own


def _named_home() -> str:
    named = os.environ.get("CARTO_AUTH_HOME", "").strip()
    if scheme := _scheme(named):
        raise InvalidCredential(
            f"CARTO_AUTH_HOME is no folder: it begins with {scheme!r}.",
            remedy="Name a folder on this computer. The address of a Redis belongs in CARTO_AUTH_CACHE.",
        )
    return named


def _user_home() -> str:
    """The home folder; one that is not there when there is none."""
    pathlib = sys.modules.get("pathlib")
    try:
        home = str(pathlib.Path.home()) if pathlib else os.path.expanduser("~")  # a program may have replaced Path.home
    except RuntimeError:
        return _NOWHERE
    return home if home != "~" else _NOWHERE


def _lacks_home(folder: str) -> bool:
    """Whether ``folder`` is in the home of a user whose home does not exist."""
    home = os.path.join(_user_home(), "")
    return folder.startswith(home) and not os.path.isdir(home)


def _is_usable(folder: str, *, making: int) -> bool:
    """Whether files can be kept in ``folder``, where at most so many folders at its end may have to be made."""
    for _ in range(making):
        if os.path.exists(folder):
            break
        folder = os.path.dirname(folder)
    return os.access(folder, os.R_OK | os.W_OK | os.X_OK)


# ---- folders -------------------------------------------------------------------------------------


def make_folder(folder: str) -> None:
    """Make a folder that only its user can enter. A missing home is never made.

    Raises:
        OSError: it cannot be made.
    """
    if os.path.isdir(folder):
        make_private(folder)
        return
    from contextlib import suppress

    if _lacks_home(folder):
        raise FileNotFoundError(errno.ENOENT, "the home folder does not exist")
    with suppress(FileExistsError):  # another process may be quicker
        os.makedirs(folder, 0o700)
        with suppress(OSError):  # a disk may have no modes
            os.chmod(folder, 0o700)  # a strict umask takes even the owner's rights


def make_private(folder: str) -> None:
    """Close the default folder to others. A folder that the user chose is left as it is: it is not ours."""
    if os.path.basename(folder) == ".carto-auth":
        from contextlib import suppress

        with suppress(OSError):
            status = os.lstat(folder)
            if stat.S_ISDIR(status.st_mode) and is_ours(status) and status.st_mode & 0o077:
                os.chmod(folder, 0o700)


def is_ours(status: os.stat_result) -> bool:
    """Whether a file belongs to the user of this process."""
    return sys.platform == "win32" or status.st_uid == os.geteuid()
