"""M2M credentials: the file, and later sources of them; what is wrong with one, told without its content."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from carto_auth import _log
from carto_auth._services import Services, require_credentials_base_url
from carto_auth.errors import CredentialsFileNotFound, InvalidCredential, MissingCredential

_WHERE_THEY_ARE = "You find all three on the Developers page of your CARTO Workspace, under Machine to Machine."


class M2MCredentials(NamedTuple):
    """What an M2M application logs in with. ``repr`` does not show the secret."""

    api_base_url: str
    client_id: str
    client_secret: str

    def __repr__(self) -> str:
        return f"M2MCredentials({self.api_base_url!r}, {self.client_id!r}, '***')"


def read_m2m_file(filepath: str | os.PathLike[str], services: Services) -> M2MCredentials:
    """The credentials in ``filepath``, a JSON object of ``api_base_url``, ``client_id`` and ``client_secret``.

    Raises:
        CredentialsFileNotFound: there is no such file.
        MissingCredential: a key is missing.
        InvalidCredential: the file is no JSON object, or a value is empty, no text or a placeholder.
    """
    path = Path(filepath).expanduser()
    content = _json_object(path)
    values = {name: _value(content, name, path) for name in M2MCredentials._fields}
    _warn_if_readable_by_others(path)
    base_url = require_credentials_base_url(values["api_base_url"], f"api_base_url of {path}", services)
    return M2MCredentials(base_url, values["client_id"], values["client_secret"])


def _json_object(path: Path) -> dict[str, Any]:
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        problem: Exception = CredentialsFileNotFound(
            f"There is no credentials file {path}.",
            remedy='Make it, with {"api_base_url": ..., "client_id": ..., "client_secret": ...}. ' + _WHERE_THEY_ARE,
        )
    except OSError as error:
        problem = InvalidCredential(f"The credentials file {path} cannot be read ({error.strerror}).")
    else:
        return _parsed(raw, path)
    raise problem


def _parsed(raw: bytes, path: Path) -> dict[str, Any]:
    """The JSON object in ``raw``. The parser's error is not chained: it carries the file's text."""
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InvalidCredential(f"The credentials file {path} is UTF-16.", remedy="Save it as UTF-8.")
    problem = None
    try:
        content = json.loads(raw.decode("utf-8-sig"), object_pairs_hook=_without_duplicates)
    except UnicodeDecodeError:
        problem = "is not UTF-8 text"
    except json.JSONDecodeError as error:
        problem = f"is not valid JSON: {error.msg} at line {error.lineno}, column {error.colno}"
    except RecursionError:
        problem = "is not valid JSON: it is nested too deeply"
    except _DuplicateKey as error:
        problem = f"has the key {error.args[0]!r} twice"
    if problem:
        raise InvalidCredential(f"The credentials file {path} {problem}.", remedy="Mend it or download it again.")
    if isinstance(content, dict):
        if "profiles" in content and "client_id" not in content:
            raise MissingCredential(
                f"{path} is the CARTO CLI's own file, not M2M credentials.",
                remedy="Pass a file with api_base_url, client_id and client_secret. " + _WHERE_THEY_ARE,
            )
        return content
    # An AttributeError, as carto-auth 0.2.0 has it: none of the keys is there.
    raise MissingCredential(
        f"The credentials file {path} holds a {type(content).__name__}, not a JSON object.",
        remedy="It must have api_base_url, client_id and client_secret. " + _WHERE_THEY_ARE,
    )


class _DuplicateKey(Exception):
    """A JSON object has a key twice; its argument is the key."""


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _DuplicateKey(next(key for key in keys if keys.count(key) > 1))
    return content


def _value(content: dict[str, Any], name: str, path: Path) -> str:
    if name not in content:
        raise MissingCredential(f"The credentials file {path} has no {name}.", remedy=_WHERE_THEY_ARE)
    value = content[name]
    problem = None
    if value is None or value == "":
        problem = "is empty"
    elif not isinstance(value, str):
        problem = f"is a {type(value).__name__}, not a text"
    elif not value.strip():
        problem = "is blank"
    elif set(value.strip()) <= {"X", "x"} or value.strip().startswith("<"):
        problem = "is still a placeholder"
    elif not value.strip().isprintable():
        problem = "has control characters in it"
    if problem:
        raise InvalidCredential(f"{name} in the credentials file {path} {problem}.", remedy=_WHERE_THEY_ARE)
    return str(value).strip()


def _warn_if_readable_by_others(path: Path) -> None:
    if os.name == "posix" and path.stat().st_mode & 0o044:
        _log.warn_once(f"Others on this computer can read the credentials file {path}. Run: chmod 600 {path}")
