"""Redaction: words from outside, made fit for a message or a log. No secret is left in them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from urllib.parse import quote, quote_plus

#: Characters of a server's words that are shown, and of a value.
LONGEST_QUOTE = 200
LONGEST_VALUE = 80


def without_secrets(words: str, secrets: Collection[str]) -> str:
    """``words`` with ``***`` in the place of each of ``secrets``, whether it is there as it is or percent-encoded.

    An empty secret hides nothing.
    """
    forms = {form for secret in secrets if secret for form in _forms(secret)}
    for form in sorted(forms, key=len, reverse=True):
        words = words.replace(form, "***")
    return words


def _forms(secret: str) -> Iterator[str]:
    """The ways to write a secret: as it is, as in a URL and as in a form (``%2F`` is ``%2f`` too, RFC 3986 2.1)."""
    yield secret
    for encoded in (
        quote(secret, errors="replace"),
        quote(secret, safe="", errors="replace"),
        quote_plus(secret, errors="replace"),
    ):
        yield encoded
        yield re.sub("%[0-9A-F]{2}", lambda escape: escape[0].lower(), encoded)


def quoted(words: str, secrets: Collection[str] = ()) -> str:
    """A server's words on one line, without ``secrets`` and control characters, shortened."""
    words = without_secrets(words, secrets)  # before they are shortened: half a secret would not be found
    words = "".join(character if character.isprintable() else " " for character in words).strip()
    return words if len(words) <= LONGEST_QUOTE else f"{words[: LONGEST_QUOTE - 3]}..."


def shown(value: object, secrets: Collection[str] = ()) -> str:
    """The ``repr`` of a value that a server sent, without ``secrets``, shortened."""
    text = without_secrets(repr(value), secrets)
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 3]}..."
