"""The JSON document in a cache file: which entries it has, and what it is with one more or one less. Pure functions.

It is ``{"version": 1, "tokens": {<identity>: {entry}}}``. A file of carto-auth 0.2.0 is one flat entry,
``{"api_base_url", "access_token", "expiration"}``; its keys may also stand beside ``tokens``, so that nothing is lost
before it is known whose it is. Keys that are not ours are kept.
"""

from __future__ import annotations

import errno
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
LONG_OVER_SECONDS = 30 * 86_400.0

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
    """The bytes of a document; of ``otherwise`` if it is so deep that it must be damage.

    Where it is too large, all entries that have ended go. A good token is never traded for another.

    Raises:
        OSError: it is too large all the same.
    """
    try:
        content = json.dumps(document, indent=1).encode()
        if len(content) > LARGEST_FILE:  # be it by the blanks of what is nested deeply
            content = json.dumps(_without_ended(document, 0.0)).encode()
    except RecursionError:  # json can read some things that it cannot write
        content = json.dumps(otherwise, indent=1).encode()
    if len(content) > LARGEST_FILE:
        raise OSError(errno.EFBIG, "it is full of other accounts' tokens")
    return content


def entry_of(document: Document, identity: Identity) -> Entry | None:
    """The entry of an account; else the flat one, which may be another account's."""
    return Entry.of(_tokens(document).get(str(identity))) or _flat_entry(document)


def entries_of(document: Document) -> Iterator[tuple[Identity, Entry]]:
    """All entries; the flat one as the login that its token hints at."""
    for key, kept in _tokens(document).items():
        identity, entry = Identity.parsed(key), Entry.of(kept)
        if identity is not None and entry is not None and entry.token.text:
            yield identity, entry
    flat_entry = _flat_entry(document)
    if flat_entry is not None:
        yield Identity.hinted_at_by(flat_entry.token.text), flat_entry


def flat(document: Document) -> Document | None:
    """What ``load_cache_file`` of carto-auth 0.2.0 returns: the flat entry as it is, or that of the only account."""
    if all(key in document for key in FLAT_KEYS):
        return {key: value for key, value in document.items() if key not in ("version", "tokens")}
    tokens = {key: kept for key, kept in _tokens(document).items() if not key.startswith(_RESTRICTED)}
    accounts = [kept for kept in tokens.values() if (entry := Entry.of(kept)) and entry.token.text]
    if len(accounts) != 1 or not all(key in accounts[0] for key in FLAT_KEYS):
        return None  # from several accounts none is picked by guess
    return dict(accounts[0])


def with_flat(document: Document, data: Mapping[str, Any]) -> Document:
    """``document`` with ``data`` as its flat entry, as ``save_cache_file`` of carto-auth 0.2.0 keeps it."""
    return {**_without_flat(document), **data}


def with_entry(document: Document, identity: Identity, entry: Entry) -> Document:
    """``document`` with an account's entry; a flat entry of the same token is taken over by it."""
    if document.get("access_token") == entry.token.text:
        document = _without_flat(document)
    document = _without_ended(document, LONG_OVER_SECONDS)
    return {**document, "version": _VERSION, "tokens": {**_tokens(document), str(identity): entry.as_json()}}


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


def _without_ended(document: Document, seconds: float) -> Document:
    """``document`` without the entries that ended so long ago that they are of no use to anybody any more."""
    before = time.time() - seconds
    tokens = {key: kept for key, kept in _tokens(document).items() if (e := Entry.of(kept)) is None or e.end > before}
    return {**document, "tokens": tokens}
