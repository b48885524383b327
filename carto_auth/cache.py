"""The four functions on the token cache that carto-auth 0.2.0 documents."""

from __future__ import annotations

from carto_auth._frames import clears_frames
from carto_auth._stores import document, file_store, places

# Type checkers take this name for true; typing would cost a start more than all of this package does.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike
    from pathlib import Path
    from typing import Any

__all__ = ["get_cache_filepath", "get_home_dir", "load_cache_file", "save_cache_file"]


def get_home_dir() -> Path:
    """The folder of the default cache files: ``CARTO_AUTH_HOME``, else ``~/.carto-auth``.

    Where there is no usable home, it is the folder that the operating system has for caches. The folder is made if it
    is not there, as far as that can be: callers may write to it.
    """
    from contextlib import suppress
    from pathlib import Path

    folder = places.home_dir()
    with suppress(OSError):
        places.make_folder(folder)
    return Path(folder)


def get_cache_filepath(mode: str) -> Path:
    """The default cache file for ``mode`` (``"oauth"`` or ``"m2m"``), in :func:`get_home_dir`."""
    return get_home_dir() / f"token_{mode}.json"


@clears_frames
def load_cache_file(cache_filepath: str | PathLike[str]) -> dict[str, Any] | None:
    """The token kept in a cache file; ``None`` when there is none, or none that can be read.

    A flat file of carto-auth 0.2.0 is returned as it is. A file of ours gives its entry, if there is just one: from
    several accounts none is picked by guess. Damage of any kind is the same as no file.
    """
    return document.flat(file_store.read(places.as_path(cache_filepath))) if cache_filepath else None


@clears_frames
def save_cache_file(cache_filepath: str | PathLike[str], data: Mapping[str, Any]) -> None:
    """Keep a token flat in a cache file, as carto-auth 0.2.0 does, beside the entries of accounts.

    The file is written whole or not at all. Nobody but the user can read it at any time.

    Raises:
        OSError: it could not be written; what was there before is still there.
        TypeError, ValueError: ``data`` cannot be written as JSON.
    """
    file_store.update(places.as_path(cache_filepath), lambda kept: document.with_flat(kept, data))
