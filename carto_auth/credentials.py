"""Credentials from where people keep them: arguments, the environment, a file, the CARTO CLI; which of them wins.

What is wrong with one is told with its place, never with its content.
"""

from __future__ import annotations

import errno
import json
import os
import re
import stat
import sys
import time

from carto_auth import _log
from carto_auth._services import Services
from carto_auth._token import is_usable_token
from carto_auth._trust import require_credentials_base_url
from carto_auth._typing import TYPE_CHECKING, Any, NamedTuple
from carto_auth.errors import CredentialsError, CredentialsFileNotFound, InvalidCredential, MissingCredential

# Not imported for a named file, with which most jobs start.
if TYPE_CHECKING:
    from pathlib import Path

#: Bytes. Credentials are a few hundred.
LARGEST_FILE = 1024 * 1024

#: Seconds that are waited for the other end of a pipe.
PIPE_SECONDS = 10.0

_WHERE_THEY_ARE = "You find all three on the Developers page of your CARTO Workspace, under Machine to Machine."


class M2MCredentials(NamedTuple):
    """What an M2M application logs in with. ``repr`` does not show the secret."""

    api_base_url: str
    client_id: str
    client_secret: str

    def __repr__(self) -> str:
        return f"M2MCredentials({self.api_base_url!r}, {self.client_id!r}, '***')"


class AccessToken(NamedTuple):
    """A CARTO API access token, or the CARTO CLI's. ``repr`` does not show it."""

    api_base_url: str
    access_token: str

    def __repr__(self) -> str:
        return f"AccessToken({self.api_base_url!r}, '***')"


class Source(NamedTuple):
    """A place where credentials may be.

    Attributes:
        kind: ``"access token"``, ``"m2m environment"``, ``"m2m file"``, ``"cli"`` or ``"login"``.
        name: what it is called in front of people.
        is_there: whether it holds something, be it broken.
        seen: what was seen there: ``"CARTO_API_TOKEN is not set"``.
    """

    kind: str
    name: str
    is_there: bool
    seen: str


def sources() -> list[Source]:
    """All places, in the order in which ``CartoAuth.default()`` looks. Nothing is read but whether it is there."""
    token = _from_environment("access_token")
    m2m = _from_environment("client_id") or _from_environment("client_secret")
    file = default_file()
    cli = CliProfile.default().path
    has_cli = os.path.exists(cli)
    return [
        Source(
            "access token",
            "API access token",
            bool(token),
            f"{token[0]} is set" if token else "CARTO_API_TOKEN is not set",
        ),
        Source(
            "m2m environment",
            "M2M credentials in the environment",
            bool(m2m),
            f"{m2m[0]} is set" if m2m else "CARTO_CLIENT_ID is not set",
        ),
        Source(
            "m2m file",
            "M2M credentials file",
            file is not None,
            file or "CARTO_CREDENTIALS_FILE is not set, and the user's configuration has none",
        ),
        Source("cli", "the CARTO CLI's login", has_cli, cli if has_cli else f"there is no {cli}"),
        Source("login", "a person's login", True, "used when there is nothing else"),
    ]


def nothing_good() -> str:
    """That there is nothing of use in any of the places, with what each of them takes."""
    return (
        "No good CARTO credentials were found. Looked in: CARTO_API_TOKEN (an API access token), CARTO_CLIENT_ID, "
        "CARTO_CLIENT_SECRET and CARTO_API_BASE_URL (an M2M application), CARTO_CREDENTIALS_FILE and "
        f"{default_file_path() or 'the user configuration'} (a file of the same), "
        f"{CliProfile.default().path} (the CARTO CLI's login, made by carto auth login) and the login that is kept "
        "(made by carto-auth login)."
    )


def source_in_use() -> Source:
    """The first place that holds something; a person's login when none does."""
    return next(source for source in sources() if source.is_there)


# ---- the environment -----------------------------------------------------------------------------

#: Each setting, with the variables that hold it; the first one that is set wins.
_VARIABLES = {
    "api_base_url": ("CARTO_API_BASE_URL",),
    "client_id": ("CARTO_CLIENT_ID", "CARTO_M2M_CLIENT_ID"),
    "client_secret": ("CARTO_CLIENT_SECRET", "CARTO_M2M_CLIENT_SECRET"),
    "access_token": ("CARTO_API_TOKEN", "CARTO_ACCESS_TOKEN"),
}


def _from_environment(setting: str) -> tuple[str, str] | None:
    """The variable that holds a setting, and its value; ``None`` when none does."""
    for variable in _VARIABLES[setting]:
        value = os.environ.get(variable, "").strip()
        if value:
            return variable, value
    return None


def environment_m2m(services: Services) -> M2MCredentials | None:
    """M2M credentials of the environment; ``None`` when neither an id nor a secret is set there.

    Raises:
        MissingCredential: only some of the three are set.
        InvalidCredential: one of them cannot be used.
    """
    if not _from_environment("client_id") and not _from_environment("client_secret"):
        return None
    found = {setting: _from_environment(setting) for setting in M2MCredentials._fields}
    missing = [_VARIABLES[setting][0] for setting, value in found.items() if value is None]
    if missing:
        there = ", ".join(value[0] for value in found.values() if value)
        raise MissingCredential(
            f"The environment has {there}, but not {' and '.join(missing)}.", remedy=f"Set it too. {_WHERE_THEY_ARE}"
        )
    return M2MCredentials(
        **_checked_m2m({setting: pair[1] for setting, pair in found.items() if pair}, "the environment", services)
    )


def environment_access_token(services: Services, api_base_url: str | None = None) -> AccessToken | None:
    """The API access token of the environment; ``None`` when there is none.

    Raises:
        MissingCredential: the API base URL is missing beside it.
        InvalidCredential: one of them cannot be used.
    """
    found = _from_environment("access_token")
    return given_access_token(found[1], api_base_url, services, found[0]) if found else None


def given_access_token(token: str, api_base_url: str | None, services: Services, place: str) -> AccessToken:
    """An API access token and where it is for; ``place`` says, in messages, where the token stands.

    Raises:
        MissingCredential: there is no API base URL.
        InvalidCredential: one of them cannot be used.
    """
    base_url, base_url_place = api_base_url, "api_base_url"
    if base_url is None:
        base_url_place, base_url = _from_environment("api_base_url") or ("", None)
    if base_url is None:
        raise MissingCredential(
            f"There is an access token ({place}), but no API base URL for it.",
            remedy="Pass api_base_url=, or set CARTO_API_BASE_URL. It stands on the Developers page of your "
            "CARTO Workspace.",
        )
    if not isinstance(token, str) or not is_usable_token(token.strip()):
        raise InvalidCredential(
            f"The access token ({place}) is empty, or has characters that a token cannot have.", remedy="Copy it anew."
        )
    return AccessToken(require_credentials_base_url(base_url, base_url_place, services), token.strip())


# ---- M2M: arguments and files --------------------------------------------------------------------


def given_m2m(
    api_base_url: str | None, client_id: str | None, client_secret: str | None, services: Services
) -> M2MCredentials:
    """M2M credentials passed as arguments; the API base URL may come from the environment.

    Raises:
        MissingCredential: one was not passed.
        InvalidCredential: one cannot be used.
    """
    if api_base_url is None:
        found = _from_environment("api_base_url")
        api_base_url = found[1] if found else None
    given = {"api_base_url": api_base_url, "client_id": client_id, "client_secret": client_secret}
    return M2MCredentials(
        **_checked_m2m({name: value for name, value in given.items() if value is not None}, "the arguments", services)
    )


def default_file() -> str | None:
    """The credentials file that is used when none is named: the environment's, else the user's configuration's.

    Never one in the current folder: a folder that somebody sent must not decide who one is.

    Returns:
        The path that ``CARTO_CREDENTIALS_FILE`` names, there or not; else the other one, if it is there.
    """
    named = os.environ.get("CARTO_CREDENTIALS_FILE", "").strip()
    if named:
        return named
    if sys.platform == "linux" and not os.path.isdir(_linux_configuration_folder()):
        return None  # spares the import of platformdirs, which would look at the same place
    path = default_file_path()
    return str(path) if path is not None and path.exists() else None


def default_file_path() -> Path | None:
    """Where the credentials file stands in the user's configuration, by the custom of the operating system.

    ``None`` for a user who has no home.
    """
    import platformdirs

    try:
        folder = platformdirs.user_config_path("carto-auth")
    except RuntimeError:
        return None
    return folder / "carto_credentials.json" if folder.is_absolute() else None


def _linux_configuration_folder() -> str:
    return os.path.join(_below_home(os.environ.get("XDG_CONFIG_HOME", "").strip() or "~/.config"), "carto-auth")


def _below_home(path: str) -> str:
    """``path`` with ``~`` as the home; a place where nothing is for a user who has none, never the current folder."""
    expanded = os.path.expanduser(path)
    return expanded if os.path.isabs(expanded) else os.path.join(os.sep, "nonexistent", path)


def find_m2m(services: Services) -> M2MCredentials:
    """M2M credentials of the environment, or of the default file.

    Raises:
        CredentialsFileNotFound: there are none; the message names every place looked in.
        MissingCredential, InvalidCredential: there are some, and they cannot be used.
    """
    found = environment_m2m(services)
    if found is not None:
        return found
    file = default_file()
    if file is not None:
        return read_m2m_file(file, services)
    raise CredentialsFileNotFound(
        "There are no M2M credentials: neither the variables CARTO_CLIENT_ID, CARTO_CLIENT_SECRET and "
        "CARTO_API_BASE_URL are set, nor CARTO_CREDENTIALS_FILE, which names a file, and there is no file "
        f"{default_file_path()}.",
        remedy=f"Fill one of these, or pass the path of a file. {_WHERE_THEY_ARE}",
    )


def read_m2m_file(filepath: str | os.PathLike[str], services: Services) -> M2MCredentials:
    """The credentials in ``filepath``, a JSON object of ``api_base_url``, ``client_id`` and ``client_secret``.

    Raises:
        CredentialsFileNotFound: there is no such file.
        MissingCredential: a key is missing.
        InvalidCredential: the file is no JSON object, or a value is empty, no text or a placeholder.
    """
    path = os.path.expanduser(filepath)
    content = _json_object(path)
    if "profiles" in content and "client_id" not in content:
        raise MissingCredential(
            f"{path} is the CARTO CLI's own file, not M2M credentials.",
            remedy="Use CartoAuth.from_cli() for it, or pass a file with api_base_url, client_id and client_secret. "
            + _WHERE_THEY_ARE,
        )
    return M2MCredentials(**_checked_m2m(content, f"the credentials file {path}", services))


def _checked_m2m(content: dict[str, Any], place: str, services: Services) -> dict[str, str]:
    values = {name: _value(content, name, place) for name in M2MCredentials._fields}
    values["api_base_url"] = require_credentials_base_url(values["api_base_url"], place, services)
    return values


def _value(content: dict[str, Any], name: str, place: str) -> str:
    if name not in content:
        raise MissingCredential(f"There is no {name} in {place}.", remedy=_WHERE_THEY_ARE)
    value = content[name]
    problem = None
    if value is None or value == "":
        problem = "is empty"
    elif not isinstance(value, str):
        problem = f"is a {type(value).__name__}, not a text"
    elif not value.strip():
        problem = "is blank"
    elif _is_placeholder(value.strip()):
        problem = "is still a placeholder"
    elif not value.strip().isprintable():
        problem = "has control characters in it"
    if problem:
        raise InvalidCredential(f"{name} in {place} {problem}.", remedy=_WHERE_THEY_ARE)
    return str(value).strip()


def _is_placeholder(value: str) -> bool:
    brackets = value[0] + value[-1] in ("<>", "[]", "{}") or (value.startswith("${") and value.endswith("}"))
    return brackets or (len(value) > 2 and set(value) <= set("xX.*-"))


# ---- the CARTO CLI -------------------------------------------------------------------------------


class CliProfile(NamedTuple):
    """A login of the CARTO CLI: the file and the profile in it, ``None`` for the one that the CLI would use."""

    path: str
    profile: str | None = None

    @classmethod
    def default(cls, profile: str | None = None) -> CliProfile:
        """The CLI's own file; the profile is the given one, else that of ``CARTO_PROFILE``."""
        return cls(
            _below_home("~/.carto_credentials.json"),
            profile or os.environ.get("CARTO_PROFILE", "").strip() or None,
        )

    def read(self) -> AccessToken:
        """The profile's token and API base URL.

        Raises:
            CredentialsFileNotFound: the CLI was never logged in here.
            MissingCredential: the file has no such profile, or the profile no token.
            InvalidCredential: the file cannot be used.
        """
        log_in = "Run: carto auth login"
        if not os.path.exists(self.path):
            raise CredentialsFileNotFound(f"The CARTO CLI has no login here: there is no {self.path}.", remedy=log_in)
        content = _json_object(self.path, remedy=log_in)
        profiles = content.get("profiles")
        if not isinstance(profiles, dict):
            if "client_id" in content:
                raise MissingCredential(
                    f"{self.path} holds M2M credentials, not the CARTO CLI's login.",
                    remedy=f'Use CartoAuth.from_m2m("{self.path}") for it.',
                )
            raise MissingCredential(f"{self.path} has no profiles.", remedy=log_in)
        name = self.profile or content.get("current_profile")
        entry = profiles.get(name) if isinstance(name, str) else None
        if not isinstance(entry, dict):
            known = ", ".join(map(repr, profiles)) or "none"
            raise MissingCredential(
                f"{self.path} has no profile {name!r}; it has {known}.", remedy="Name one of these, or log in with it."
            )
        token, tenant_id = entry.get("token"), entry.get("tenant_id")
        if not is_usable_token(token):
            raise MissingCredential(f"The profile {name!r} in {self.path} has no token.", remedy=log_in)
        if not isinstance(tenant_id, str) or not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", tenant_id):
            raise InvalidCredential(f"tenant_id of the profile {name!r} in {self.path} cannot be used.", remedy=log_in)
        return AccessToken(f"https://{tenant_id}.api.carto.com", token)


# ---- files ---------------------------------------------------------------------------------------


_M2M_REMEDY = 'It must have {"api_base_url": ..., "client_id": ..., "client_secret": ...}. ' + _WHERE_THEY_ARE


def _json_object(path: str, *, remedy: str = _M2M_REMEDY) -> dict[str, Any]:
    try:
        raw = _read(path)
    except FileNotFoundError:
        problem: CredentialsError = CredentialsFileNotFound(
            f"There is no credentials file {path}.",
            remedy=remedy,
        )
    except (OSError, ValueError) as error:
        problem = InvalidCredential(
            f"The credentials file {path!r} cannot be read ({getattr(error, 'strerror', None) or error}).",
            remedy="Check the path and its rights.",
        )
    else:
        return _parsed(raw, path, remedy)
    raise problem


def _read(path: str) -> bytes:
    """The content of a file or pipe, which may be somebody's ``<(...)``; bounded in bytes and in time.

    Raises:
        OSError: it cannot be read, or not within these bounds.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    with open(os.open(path, flags), "rb", buffering=0) as file:
        mode = os.fstat(file.fileno()).st_mode
        is_pipe = stat.S_ISFIFO(mode)
        if os.name == "posix" and stat.S_ISREG(mode) and mode & 0o044:
            _log.warn_once(f"Others on this computer can read the credentials file {path}. Run: chmod 600 {path}")
        content, deadline = b"", time.monotonic() + PIPE_SECONDS
        while len(content) <= LARGEST_FILE:
            if is_pipe:
                _await(file.fileno(), deadline)
            piece = file.read(65_536)
            if not piece:
                return content
            content += piece
    raise OSError(errno.EFBIG, f"it is larger than {LARGEST_FILE // 1024} KiB")


def _await(pipe: int, deadline: float) -> None:
    """Wait until a pipe has something to read or is at its end; ``deadline`` is by ``time.monotonic``."""
    import select

    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
        raise TimeoutError(errno.ETIMEDOUT, f"nothing came out of this pipe within {PIPE_SECONDS:.0f} s")


def _parsed(raw: bytes, path: str, remedy: str) -> dict[str, Any]:
    """The JSON object in ``raw``. The parser's error is not chained: it carries the file's text."""
    content, problem = None, None
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        problem = "is UTF-16; save it as UTF-8"
    else:
        try:
            content = json.loads(raw.decode("utf-8-sig"), object_pairs_hook=_without_duplicates)
        except UnicodeDecodeError:
            problem = "is not UTF-8 text"
        except json.JSONDecodeError as error:
            problem = f"is not valid JSON: {error.msg}, at line {error.lineno}, column {error.colno}"
        except (RecursionError, ValueError):
            problem = "is not valid JSON: it is nested too deeply, or has a number with too many digits"
        except _DuplicateKey as error:
            problem = f"has the key {error.args[0]!r} twice"
    if problem:
        raise InvalidCredential(f"The credentials file {path} {problem}.", remedy="Mend it, or download it again.")
    if isinstance(content, dict):
        return content
    # An AttributeError, as carto-auth 0.2.0 has it: none of the keys is there.
    raise MissingCredential(
        f"The credentials file {path} holds a {type(content).__name__}, not a JSON object.",
        remedy=remedy,
    )


class _DuplicateKey(Exception):
    """A JSON object has a key twice; its argument is the key."""


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _DuplicateKey(next(key for key in keys if keys.count(key) > 1))
    return content
