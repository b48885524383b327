"""The JSON document in a cache file: which entries it has, and what it is with one more or one less. Pure functions.

It is ``{"version": 1, "tokens": {<identity>: {entry}}}``. A file of carto-auth 0.2.0 is one flat entry,
``{"api_base_url", "access_token", "expiration"}``; its keys may also stand beside ``tokens``, so that nothing is lost
before it is known whose it is. Keys that are not ours are kept.
"""

from __future__ import annotations

import json
import time

from carto_auth._identity import Identity
from carto_auth._stores.base import Entry

# Type checkers take this name for true; typing would cost a start more than all of this package does.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    Document = dict[str, Any]

#: The keys of a flat entry, all of which it must have.
FLAT_KEYS = ("api_base_url", "access_token", "expiration")

#: All that may stand flat in a file.
_FLAT_ENTRY = (*FLAT_KEYS, "issued_at", "refresh_token")

#: Bytes. A cache of thousands of accounts is smaller; a larger file is damage.
LARGEST_FILE = 4 * 1024 * 1024

#: Seconds after its end at which an entry goes with the next save. Until then a clock may be put right.
_LONG_OVER_SECONDS = 30 * 86_400.0

_VERSION = 1

#: How the identity of a restricted token begins: it is a map's, and no account's.
_RESTRICTED = "mode=restricted&"


def parsed(content: bytes) -> Document:
    """The document in a file's bytes.

    Raises:
        ValueError, RecursionError: it is no JSON.
    """
    document = json.loads(content.decode("utf-8")) if content else {}
    return document if isinstance(document, dict) else {}


def encoded(document: Document, *, otherwise: Document) -> bytes:
    """The bytes of a document; of ``otherwise`` if it is so deep or so large that it must be damage."""
    try:
        content = json.dumps(document, indent=1).encode()
    except RecursionError:  # json can read some things that it cannot write
        content = b""
    return content if 0 < len(content) <= LARGEST_FILE else json.dumps(otherwise, indent=1).encode()


def entry_of(document: Document, identity: Identity) -> Entry | None:
    """The entry of an account; else the flat one, which may be another account's."""
    return Entry.of(_tokens(document).get(str(identity))) or _flat_entry(document)


def entries_of(document: Document) -> Iterator[tuple[Identity, Entry]]:
    """All entries; the flat one as the login that its token hints at."""
    for key, kept in _tokens(document).items():
        identity, entry = Identity.parsed(key), Entry.of(kept)
        if identity is not None and entry is not None:
            yield identity, entry
    flat_entry = _flat_entry(document)
    if flat_entry is not None:
        yield Identity.hinted_at_by(flat_entry.token.text), flat_entry


def flat(document: Document) -> Document | None:
    """What ``load_cache_file`` of carto-auth 0.2.0 returns: the flat entry as it is, or that of the only account."""
    if all(key in document for key in FLAT_KEYS):
        return {key: value for key, value in document.items() if key not in ("version", "tokens")}
    accounts = [kept for key, kept in _tokens(document).items() if not key.startswith(_RESTRICTED) and Entry.of(kept)]
    if len(accounts) != 1 or not all(key in accounts[0] for key in FLAT_KEYS):
        return None  # from several accounts none is picked by guess
    return dict(accounts[0])


def with_flat(document: Document, data: Mapping[str, Any]) -> Document:
    """``document`` with ``data`` as its flat entry, as ``save_cache_file`` of carto-auth 0.2.0 keeps it."""
    return {**{key: value for key, value in document.items() if key not in _FLAT_ENTRY}, **data}


def with_entry(document: Document, identity: Identity, entry: Entry) -> Document:
    """``document`` with an account's entry; a flat entry of the same token is taken over by it."""
    tokens = {key: kept for key, kept in _tokens(document).items() if not _is_long_over(kept)}
    tokens[str(identity)] = entry.as_json()
    if document.get("access_token") == entry.token.text:
        document = _without_flat(document)
    return {**document, "version": _VERSION, "tokens": tokens}


def without_entry(document: Document, identity: Identity) -> Document:
    """``document`` without an account's entry, be it flat; itself when it has none."""
    flat_entry = _flat_entry(document)
    if flat_entry and not identity.is_contradicted_by(flat_entry.token.text, flat_entry.api_base_url):
        document = _without_flat(document)
    tokens = _tokens(document)
    if str(identity) not in tokens:
        return document
    return {**document, "tokens": {key: kept for key, kept in tokens.items() if key != str(identity)}}


def _tokens(document: Document) -> Document:
    tokens = document.get("tokens")
    return tokens if isinstance(tokens, dict) else {}


def _flat_entry(document: Document) -> Entry | None:
    return Entry.of(document, is_flat=True) if all(key in document for key in FLAT_KEYS) else None


def _without_flat(document: Document) -> Document:
    return {key: value for key, value in document.items() if key not in _FLAT_ENTRY}


def _is_long_over(kept: object) -> bool:
    """Whether an entry is of no use to anybody any more, so that it need not be kept for ever."""
    entry = Entry.of(kept)
    if entry is None or entry.token.refresh_token is not None:
        return False
    return (entry.token.end or 0.0) < time.time() - _LONG_OVER_SECONDS
