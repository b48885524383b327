"""Where tokens are kept: which store an account uses."""

from __future__ import annotations

import os

from carto_auth._identity import Identity
from carto_auth._stores.base import Store
from carto_auth._stores.file_store import DefaultFileStore, FileStore
from carto_auth._stores.places import in_redis, named_by_environment


def store_at(place: str | os.PathLike[str], identity: Identity) -> Store:
    """The store of an account at a named place: a path, or the address of a Redis.

    Raises:
        MissingDependency: it is in Redis, and the extra ``redis`` is not installed.
    """
    if not in_redis(place):
        return FileStore(identity, place)
    from carto_auth._stores.redis_store import RedisStore

    return RedisStore(identity, str(place))


def default_store(identity: Identity) -> Store:
    """The store of an account for which no place was named: that of ``CARTO_AUTH_CACHE``, else the default file.

    A Redis that the environment names is a fleet's, and has applications' tokens. A person's login stays in the
    person's own file: everybody else who used that Redis would be that person.
    """
    named = named_by_environment()
    if not named or (identity.mode == "oauth" and in_redis(named)):
        return DefaultFileStore(identity)
    store = store_at(named, identity)
    store.is_default = True
    return store


def store_elsewhere(place: str | os.PathLike[str], identity: Identity) -> Store:
    """The store for a place that a pickle of carto-auth 0.2.0 names; its default file may be that of another home."""
    default = os.path.join(".carto-auth", f"token_{identity.mode}.json")
    return default_store(identity) if os.fspath(place).endswith(default) else store_at(place, identity)
