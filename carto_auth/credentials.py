"""Credentials from where people keep them: arguments, the environment, a file, the CARTO CLI; and which of them wins.

An error names the place that is at fault, and never shows what is in it.
"""

from __future__ import annotations

import errno
import json
import os
import re
import stat
import sys

from carto_auth import _log, discovery
from carto_auth._services import Services
from carto_auth._token import is_usable_token
from carto_auth._trust import require_credentials_base_url
from carto_auth._value import Value
from carto_auth.errors import (
    CredentialsError,
    CredentialsFileNotFound,
    InvalidCredential,
    MissingCredential,
    UntrustedAddress,
)

# Type checkers take this name for true.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

#: Bytes. Credentials take up a few hundred.
LARGEST_FILE = 1024 * 1024

_WHERE_THEY_ARE = "You will find all three on the Developers page of your CARTO Workspace, under Machine to Machine."
_M2M_REMEDY = 'It must hold {"api_base_url": ..., "client_id": ..., "client_secret": ...}. ' + _WHERE_THEY_ARE
_CLI_REMEDY = "Run: carto auth login"


class M2MCredentials(Value):
    """What an M2M application logs in with; ``repr`` hides the secret. No API base URL is one that has to be found."""

    secret_fields: tuple[str, ...] = ("client_secret",)

    def __init__(self, api_base_url: str | None, client_id: str, client_secret: str) -> None:
        self.api_base_url = api_base_url
        self.client_id = client_id
        self.client_secret = client_secret


class AccessToken(Value):
    """An access token that was made elsewhere (in the Workspace, by the CARTO CLI), and the API base URL it is for."""

    secret_fields: tuple[str, ...] = ("access_token",)

    def __init__(self, api_base_url: str, access_token: str) -> None:
        self.api_base_url = api_base_url
        self.access_token = access_token


class Source(Value):
    """A place where credentials may be.

    Attributes:
        kind: ``"access_token"``, ``"m2m_environment"``, ``"m2m_file"``, ``"cli"`` or ``"login"``.
        name: what people call it.
        is_there: whether the place holds anything, usable or not. A file of the CARTO CLI's is another program's: one
            that cannot be used counts only if ``CARTO_PROFILE`` asks for it.
        seen: what was seen there: ``"CARTO_API_TOKEN is not set"``.
    """

    def __init__(self, kind: str, name: str, is_there: bool, seen: str) -> None:
        self.kind = kind
        self.name = name
        self.is_there = is_there
        self.seen = seen


# ---- which one wins ------------------------------------------------------------------------------


def sources() -> Iterator[Source]:
    """All places, in the order in which ``CartoAuth.default()`` looks. Only the CARTO CLI's file is opened."""
    yield _environment_source("access_token", "API access token", "access_token")
    yield _environment_source("m2m_environment", "M2M credentials in the environment", "client_id", "client_secret")
    file = default_file()
    seen = file or "CARTO_CREDENTIALS_FILE is not set, and your configuration folder has no credentials file"
    if holds_content(seen):
        seen = "CARTO_CREDENTIALS_FILE holds the credentials themselves, not a path"
    yield Source("m2m_file", "M2M credentials file", file is not None, seen)
    yield _cli_source(CliProfile.default())
    yield Source("login", "a person's login", True, "used when there is nothing else")


def _cli_source(cli: CliProfile) -> Source:
    is_there, seen = True, cli.path
    try:
        cli.read()
    except CredentialsFileNotFound:
        is_there, seen = False, f"there is no {cli.path}"
    except CredentialsError as error:
        is_there, seen = cli.profile is not None, error.message
    return Source("cli", "the CARTO CLI's login", is_there, seen)


def _environment_source(kind: str, name: str, *settings: str) -> Source:
    found = next((found for setting in settings if (found := _from_environment(setting))), None)
    seen = f"{found[0]} is set" if found else f"{_VARIABLES[settings[0]][0]} is not set"
    return Source(kind, name, found is not None, seen)


def source_in_use() -> Source:
    """The first place that holds anything; a person's login when no other place does."""
    return next(source for source in sources() if source.is_there)


def nothing_good() -> str:
    """The message that no place holds anything, with what was seen in each of them."""
    seen = "; ".join(source.seen for source in sources() if not source.is_there)
    return f"No good CARTO credentials were found: {seen}; and no login is kept."


def organization(org: str | None) -> str | None:
    """The organization of a person's login: as it is passed, else that of ``CARTO_ORG``; ``""`` is none at all."""
    return (os.environ.get("CARTO_ORG", "").strip() if org is None else org) or None


# ---- the environment -----------------------------------------------------------------------------

#: The variables that hold each setting; the first one that is set wins.
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


# ---- arguments -----------------------------------------------------------------------------------


def find_access_token(access_token: str | None, api_base_url: str | None, services: Services) -> AccessToken:
    """An API access token and its API base URL: those passed as arguments, else those of the environment.

    A token without an API base URL is for the tenant of the CARTO CLI's profile, if there is one, as for that CLI.

    Raises:
        MissingCredential: one of the two is neither passed nor set.
        InvalidCredential: one of the two cannot be used.
    """
    token = ("access_token", access_token) if access_token is not None else _from_environment("access_token")
    base_url = ("api_base_url", api_base_url) if api_base_url is not None else _from_environment("api_base_url")
    if token is None:
        raise MissingCredential(
            "There is no API access token: none was passed, and CARTO_API_TOKEN is not set.",
            remedy="Make one on the Developers page of your CARTO Workspace.",
        )
    cli = CliProfile.default()
    if base_url is None and _cli_source(cli).is_there:
        base_url = ("the CARTO CLI's file", cli.read().api_base_url(services))
    if base_url is None:
        raise MissingCredential(
            f"There is an access token ({token[0]}), but no API base URL for it.",
            remedy="Pass api_base_url=, or set CARTO_API_BASE_URL. You will find it on the Developers page of your "
            "CARTO Workspace.",
        )
    if not isinstance(token[1], str) or not is_usable_token(token[1].strip()):
        raise InvalidCredential(
            f"The access token ({token[0]}) is empty, or has characters that a token cannot have.",
            remedy="Copy it again.",
        )
    return AccessToken(
        require_credentials_base_url(base_url[1], base_url[0], by_carto=services.are_cartos_own), token[1].strip()
    )


def given_m2m(
    api_base_url: str | None, client_id: str | None, client_secret: str | None, services: Services
) -> M2MCredentials:
    """M2M credentials passed as arguments; the API base URL may come from the environment, or be left out.

    Raises:
        MissingCredential: one was not passed.
        InvalidCredential: one cannot be used.
    """
    given = {"api_base_url": api_base_url, "client_id": client_id, "client_secret": client_secret}
    return _checked_m2m({name: value for name, value in given.items() if value is not None}, "the arguments", services)


# ---- M2M files -----------------------------------------------------------------------------------


def find_m2m(services: Services) -> M2MCredentials:
    """M2M credentials from the environment, or from the default file.

    Raises:
        CredentialsFileNotFound: there are none; the message names every place that was tried.
        MissingCredential: a part of them is missing.
        InvalidCredential: they cannot be used.
    """
    there = [pair for pair in map(_from_environment, ("client_id", "client_secret")) if pair]
    if len(there) == 2:
        content = {"client_id": there[0][1], "client_secret": there[1][1]}
        return _checked_m2m(content, "the environment", services)
    if there:
        missing = "CARTO_CLIENT_ID" if "SECRET" in there[0][0] else "CARTO_CLIENT_SECRET"
        raise MissingCredential(
            f"The environment has {there[0][0]}, but not {missing}.", remedy=f"Set it too. {_WHERE_THEY_ARE}"
        )
    file = default_file()
    if file is not None:
        return read_m2m_file(file, services)
    raise CredentialsFileNotFound(
        "There are no M2M credentials: CARTO_CLIENT_ID and CARTO_CLIENT_SECRET are not set, CARTO_CREDENTIALS_FILE "
        f"names no file, and there is no {default_file_path() or 'home folder'}.",
        remedy=f"Use one of these, or pass the path of a file. {_WHERE_THEY_ARE}",
    )


def default_file() -> str | None:
    """The credentials file that is used when none is passed.

    A file in the current folder is never used: a folder that somebody sent must not decide who you are.

    Returns:
        The path in ``CARTO_CREDENTIALS_FILE``, whether or not there is such a file; else that of the file in the
        user's configuration folder, if there is one; else ``None``.
    """
    named = os.environ.get("CARTO_CREDENTIALS_FILE", "").strip()
    if named:
        return named
    path = default_file_path()
    return path if path and os.path.exists(path) else None


def default_file_path() -> str | None:
    """Where the credentials file is in the user's configuration, by the custom of the operating system.

    ``None`` for a user without a home.
    """
    if sys.platform == "linux":  # as platformdirs does it; importing that would slow down every start
        named = os.environ.get("XDG_CONFIG_HOME", "").strip()
        folder = os.path.join(named if os.path.isabs(named) else os.path.expanduser("~/.config"), "carto-auth")
    else:
        import platformdirs

        folder = platformdirs.user_config_dir("carto-auth")
    return os.path.join(folder, "carto_credentials.json") if os.path.isabs(folder) else None


def read_m2m_file(filepath: str | os.PathLike[str], services: Services) -> M2MCredentials:
    """The credentials in ``filepath``, a JSON object with ``api_base_url``, ``client_id`` and ``client_secret``.

    Raises:
        CredentialsFileNotFound: there is no such file.
        MissingCredential: a key is missing, or the file does not hold a JSON object.
        InvalidCredential: the file is not JSON, or a value is empty, not text or a placeholder.
    """
    if holds_content(os.fsdecode(filepath)):
        raise CredentialsFileNotFound(
            "What was given as the path of a credentials file (as an argument, or in CARTO_CREDENTIALS_FILE) holds the "
            "credentials themselves.",
            remedy="Write them to a file that only you can read, and give its path.",
        )
    path = os.path.expanduser(filepath)
    content = _json_object(path, _M2M_REMEDY)
    if "profiles" in content and "client_id" not in content:
        raise MissingCredential(
            f"{path} is the CARTO CLI's own file, not M2M credentials.",
            remedy="Use CartoAuth.from_cli() for it, or pass a file with api_base_url, client_id and client_secret. "
            + _WHERE_THEY_ARE,
        )
    place = f"the credentials file {path}"
    _value(content, "api_base_url", place)  # only a file must have it
    return _checked_m2m(content, place, services)


def _checked_m2m(content: dict[str, Any], place: str, services: Services) -> M2MCredentials:
    base_url: str | None = None
    if "api_base_url" in content:
        base_url = require_credentials_base_url(
            _value(content, "api_base_url", place), place, by_carto=services.are_cartos_own
        )
    elif found := _from_environment("api_base_url"):
        base_url = require_credentials_base_url(found[1], found[0], by_carto=services.are_cartos_own)
    return M2MCredentials(base_url, *(_value(content, name, place) for name in ("client_id", "client_secret")))


def _value(content: dict[str, Any], name: str, place: str) -> str:
    if name not in content:
        raise MissingCredential(f"There is no {name} in {place}.", remedy=_WHERE_THEY_ARE)
    value = content[name]
    text = value.strip() if isinstance(value, str) else ""
    if not isinstance(value, str):
        problem = f"is not text, but of type {type(value).__name__}"
    elif not text:
        problem = "is empty"
    elif re.fullmatch(r"<.*>|\[.*\]|\$?\{.*\}|[xX.*-]{3,}", text):
        problem = "is still a placeholder"
    elif not text.isprintable():
        problem = "contains control characters"
    else:
        return text
    raise InvalidCredential(f"{name} in {place} {problem}.", remedy=_WHERE_THEY_ARE)


# ---- the CARTO CLI -------------------------------------------------------------------------------


class CliLogin(Value):
    """What the CARTO CLI keeps of a login: its token, and the tenant that it is for."""

    secret_fields: tuple[str, ...] = ("access_token",)

    def __init__(self, access_token: str, tenant_id: str, tenant_domain: object) -> None:
        self.access_token = access_token
        self.tenant_id = tenant_id
        self.tenant_domain = tenant_domain

    def api_base_url(self, services: Services) -> str:
        """The tenant's API base URL. A self-hosted tenant (``onp-...``) is asked for it at its own domain.

        Raises:
            UntrustedAddress: the domain, or the address that it names, is none to which a token may be sent.
            ServerError, ServiceUnreachable: the domain did not tell.
        """
        if not self.tenant_id.startswith("onp-"):
            return f"https://{self.tenant_id}.api.carto.com"
        try:
            return discovery.get_tenant_base_url(
                self.tenant_domain, services, named_by="The CARTO CLI's file", secrets=(self.access_token,)
            )
        except UntrustedAddress as error:
            error.remedy = f"{_CLI_REMEDY}; or set CARTO_API_TOKEN and CARTO_API_BASE_URL yourself."
            raise


class CliProfile(Value):
    """A login of the CARTO CLI: the file, and the profile in it; ``None`` is the profile that the CLI would use."""

    def __init__(self, path: str, profile: str | None = None) -> None:
        self.path = path
        self.profile = profile

    @classmethod
    def default(cls, profile: str | None = None) -> CliProfile:
        """The CLI's own file, or its older one; the profile is the one that is passed, else that of CARTO_PROFILE."""
        home = os.path.expanduser("~")
        if not os.path.isabs(home):  # a user without a home has no such file, least of all in the current folder
            home = os.path.join(os.sep, "nonexistent")
        path, older = os.path.join(home, ".carto_credentials.json"), os.path.join(home, ".carto", "config.json")
        if not os.path.exists(path) and os.path.exists(older):
            path = older
        return cls(path, profile or os.environ.get("CARTO_PROFILE", "").strip() or None)

    def read(self) -> CliLogin:
        """The profile's login.

        Raises:
            CredentialsFileNotFound: nobody has logged in with the CLI here.
            MissingCredential: the file has no such profile, or the profile has no token.
            InvalidCredential: the file cannot be used.
        """
        name, entry = self._entry(_json_object(self.path, _CLI_REMEDY))
        token, tenant_id = entry.get("token"), entry.get("tenant_id")
        if not is_usable_token(token):
            raise MissingCredential(f"The profile {name!r} in {self.path} has no token.", remedy=_CLI_REMEDY)
        if not isinstance(tenant_id, str) or not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", tenant_id):
            raise InvalidCredential(
                f"The tenant_id of the profile {name!r} in {self.path} cannot be used.", remedy=_CLI_REMEDY
            )
        return CliLogin(token, tenant_id, entry.get("tenant_domain"))

    def _entry(self, content: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """The profile's name and what the file has for it. Older files are one profile, which the CLI calls default."""
        profiles = content.get("profiles")
        if profiles is None and "token" in content:
            profiles = {"default": content}
        if not isinstance(profiles, dict):
            raise MissingCredential(f"{self.path} has no profiles.", remedy=_CLI_REMEDY)
        name = str(self.profile or content.get("current_profile") or "default")
        entry = profiles.get(name)
        if not isinstance(entry, dict):
            wanted = "such profile" if holds_content(name) else f"profile {name!r}"
            raise MissingCredential(
                f"{self.path} has no {wanted}; it has {', '.join(map(repr, profiles)) or 'none'}.",
                remedy="Choose one of these, or log in to that profile.",
            )
        return name, entry


# ---- files ---------------------------------------------------------------------------------------


def holds_content(text: str) -> bool:
    """Whether a text that should be a path or a name is more likely what was to be found there: it is never shown.

    That is JSON, several lines, a long word such as a secret or a token, or Base64. A file that is there is a file.
    """
    if os.path.exists(text):
        return False
    # Base64 of a JSON object begins like this, and so does a JWT.
    is_content = re.search(r'[{}"\r\n]', text) or re.fullmatch(r"[\w+=-]{32,}|e[wy][\w+/=.-]{18,}", text)
    return is_content is not None


def _json_object(path: str, remedy: str) -> dict[str, Any]:
    content, problem = _parsed(_read(path, remedy))
    if problem:
        raise InvalidCredential(f"The credentials file {path} {problem}.", remedy="Fix it, or download it again.")
    if not isinstance(content, dict):
        # An AttributeError, as in carto-auth 0.2.0: none of the keys is there.
        raise MissingCredential(
            f"The credentials file {path} holds a {type(content).__name__}, not a JSON object.", remedy=remedy
        )
    return content


def _read(path: str, remedy: str) -> bytes:
    """The content of a file, or of a pipe such as a shell's ``<(...)``."""
    try:
        with open(path, "rb") as file:
            _warn_of_readers(path, os.fstat(file.fileno()).st_mode)
            content = file.read(LARGEST_FILE + 1)
        if len(content) > LARGEST_FILE:
            raise OSError(errno.EFBIG, f"it is larger than {LARGEST_FILE // 1024} KiB")
    except FileNotFoundError:
        raise CredentialsFileNotFound(f"There is no credentials file {path}.", remedy=remedy) from None
    except (OSError, ValueError) as error:  # a ValueError where the path has a null character
        raise InvalidCredential(
            f"The credentials file {path!r} cannot be read ({getattr(error, 'strerror', None) or error}).",
            remedy="Check the path and the file's permissions.",
        ) from None
    return content


def _warn_of_readers(path: str, mode: int) -> None:
    if os.name == "posix" and stat.S_ISREG(mode) and mode & 0o044:
        _log.warn_once(f"Others on this computer can read the credentials file {path}. Run: chmod 600 {path}")


def _parsed(raw: bytes) -> tuple[object, str | None]:
    """What a JSON file holds, and what is wrong with it, as the end of a sentence.

    No error is raised here, because the parser's carries the file's text along.
    """
    try:
        return json.loads(raw), None  # UTF-16 too, in which some editors and shells write
    except UnicodeDecodeError:
        return None, "is not text in UTF-8"
    except json.JSONDecodeError as error:
        return None, f"is not valid JSON: {error.msg}, at line {error.lineno}, column {error.colno}"
    except (RecursionError, ValueError):
        return None, "is not valid JSON: it is nested too deeply, or has a number with too many digits"
