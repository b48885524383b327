"""Credentials from where people keep them: arguments, the environment, a file, the CARTO CLI; and which of them wins.

An error names the place that is at fault, and never shows what is in it.
"""

from __future__ import annotations

import json
import os
import re
import stat
import sys

from carto_auth import _log, discovery, errors
from carto_auth._services import Services, environment
from carto_auth._token import is_usable_token
from carto_auth._trust import WHERE_IT_IS, require_credentials_base_url
from carto_auth._value import Value

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


class M2MCredentials(Value, secret=("client_secret",)):
    """What an M2M application logs in with; ``repr`` hides the secret. No API base URL is one that has to be found."""

    api_base_url: str | None
    client_id: str | None
    client_secret: str | None


class Source(Value):
    """A place where credentials may be.

    Attributes:
        kind: ``"access_token"``, ``"m2m_environment"``, ``"m2m_file"``, ``"cli"`` or ``"login"``.
        name: what people call it.
        is_there: whether the place holds anything, usable or not. A file of the CARTO CLI's is another program's: one
            that cannot be used counts only if ``CARTO_PROFILE`` asks for it.
        seen: what was seen there: ``"CARTO_API_TOKEN is not set"``.
    """

    kind: str
    name: str
    is_there: bool
    seen: str


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
    yield _cli_source()
    yield Source("login", "a person's login", True, "used when there is nothing else")


def _cli_source() -> Source:
    is_there, seen = True, _cli_file()
    try:
        cli_login()
    except errors.CredentialsFileNotFound:
        is_there, seen = False, f"there is no {seen}"
    except errors.CredentialsError as error:
        is_there, seen = cli_profile() is not None, error.message
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
    seen = "; ".join(source.seen.rstrip(".") for source in sources() if not source.is_there)
    return f"No good CARTO credentials were found: {seen}; and no login is kept."


def organization(org: str | None) -> str | None:
    """The organization of a person's login: as it is passed, else that of ``CARTO_ORG``; ``""`` is none at all.

    Raises:
        TypeError: it is not text.
    """
    if org is not None and not isinstance(org, str):
        raise TypeError(f"org must be an organization's id or name, not of type {type(org).__name__}")
    return (environment("CARTO_ORG") if org is None else org) or None


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
    return next(((variable, value) for variable in _VARIABLES[setting] if (value := environment(variable))), None)


# ---- arguments -----------------------------------------------------------------------------------


def find_access_token(access_token: str | None, api_base_url: str | None, services: Services) -> tuple[str, str]:
    """An API access token and its API base URL: those passed as arguments, else those of the environment.

    A token without an API base URL is for the tenant of the CARTO CLI's profile, if there is one, as for that CLI.

    Raises:
        MissingCredential: one of the two is neither passed nor set.
        InvalidCredential: one of the two cannot be used.
    """
    token = ("access_token", access_token) if access_token is not None else _from_environment("access_token")
    base_url = ("api_base_url", api_base_url) if api_base_url is not None else _from_environment("api_base_url")
    if token is None:
        raise errors.MissingCredential(
            "There is no API access token: none was passed, and CARTO_API_TOKEN is not set.",
            remedy="Make one on the Developers page of your CARTO Workspace.",
        )
    if base_url is None and _cli_source().is_there:
        base_url = ("the CARTO CLI's file", cli_login().api_base_url(services))
    if base_url is None:
        raise errors.MissingCredential(
            f"There is an access token ({token[0]}), but no API base URL for it.",
            remedy=f"Pass api_base_url=, or set CARTO_API_BASE_URL. {WHERE_IT_IS}",
        )
    if not isinstance(token[1], str) or not is_usable_token(token[1].strip()):
        raise errors.InvalidCredential(
            f"The access token ({token[0]}) is empty, or has characters that a token cannot have.",
            remedy="Copy it again.",
        )
    return token[1].strip(), require_credentials_base_url(*base_url, by_carto=services.are_cartos_own)


# ---- M2M credentials -----------------------------------------------------------------------------


def find_m2m(
    services: Services, filepath: str | os.PathLike[str] | None = None, **passed: str | None
) -> M2MCredentials:
    """M2M credentials: those of a file, or those that are passed; with neither, of the environment or the default file.

    Raises:
        CredentialsFileNotFound: there are none; the message names every place that was tried.
        MissingCredential: a part of them is missing.
        InvalidCredential: they cannot be used.
        CredentialsError: both a file and credentials are passed.
    """
    given = {name: value for name, value in passed.items() if value is not None}
    if given and filepath is not None:
        raise errors.CredentialsError(
            "Both a credentials file and credentials were passed.", remedy="Pass one of them."
        )
    if given:
        return _checked_m2m(given, "the arguments", services)
    if filepath is not None:
        return _m2m_file(filepath, services)
    there = {name: found[1] for name in ("client_id", "client_secret") if (found := _from_environment(name))}
    if there:
        return _checked_m2m(there, "the environment (CARTO_CLIENT_ID, CARTO_CLIENT_SECRET)", services)
    file = default_file()
    if file is not None:
        return _m2m_file(file, services)
    raise errors.CredentialsFileNotFound(
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
    path = default_file_path()
    return environment("CARTO_CREDENTIALS_FILE") or (path if path and os.path.exists(path) else None)


def default_file_path() -> str | None:
    """Where the credentials file is in the user's configuration, by the custom of the operating system.

    ``None`` for a user without a home.
    """
    if sys.platform == "linux":  # as platformdirs does it; importing that would slow down every start
        named = environment("XDG_CONFIG_HOME")
        folder = os.path.join(named if os.path.isabs(named) else os.path.expanduser("~/.config"), "carto-auth")
    else:
        import platformdirs

        folder = platformdirs.user_config_dir("carto-auth")
    return os.path.join(folder, "carto_credentials.json") if os.path.isabs(folder) else None


def _m2m_file(filepath: str | os.PathLike[str], services: Services) -> M2MCredentials:
    """The credentials in ``filepath``, a JSON object with ``api_base_url``, ``client_id`` and ``client_secret``."""
    if holds_content(os.fsdecode(filepath)):
        raise errors.CredentialsFileNotFound(
            "The path of a credentials file (passed, or in CARTO_CREDENTIALS_FILE) holds the credentials themselves.",
            remedy="Write them to a file that only you can read, and give its path.",
        )
    path = os.path.expanduser(filepath)
    content = _json_object(path, _M2M_REMEDY)
    if "profiles" in content and "client_id" not in content:
        raise errors.MissingCredential(
            f"{path} is the CARTO CLI's own file, not M2M credentials.",
            remedy="Use CartoAuth.from_cli() for it, or pass a file with api_base_url, client_id and client_secret.",
        )
    place = f"the credentials file {path}"
    _value(content, "api_base_url", place)  # only a file must have it
    return _checked_m2m(content, place, services)


def _checked_m2m(content: dict[str, Any], place: str, services: Services) -> M2MCredentials:
    found = _from_environment("api_base_url")
    if "api_base_url" in content:
        found = place, _value(content, "api_base_url", place)
    base_url = require_credentials_base_url(*found, by_carto=services.are_cartos_own) if found else None
    return M2MCredentials(base_url, *(_value(content, name, place) for name in ("client_id", "client_secret")))


def _value(content: dict[str, Any], name: str, place: str) -> str:
    if name not in content:
        raise errors.MissingCredential(f"There is no {name} in {place}.", remedy=_WHERE_THEY_ARE)
    text = content[name]
    if not isinstance(text, str):
        problem = f"is not text, but of type {type(text).__name__}"
    elif not (text := text.strip()):
        problem = "is empty"
    elif (len(text) > 2 and not text.strip("xX.*-")) or text.lstrip("$")[:1] + text[-1] in ("<>", "[]", "{}"):
        problem = "is still a placeholder"
    elif not text.isprintable():
        problem = "contains control characters"
    else:
        return text
    raise errors.InvalidCredential(f"{name} in {place} {problem}.", remedy=_WHERE_THEY_ARE)


# ---- the CARTO CLI -------------------------------------------------------------------------------


class CliLogin(Value, secret=("access_token",)):
    """What the CARTO CLI keeps of a login: its token, and the tenant that it is for."""

    access_token: str
    tenant_id: str
    tenant_domain: object

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
        except errors.UntrustedAddress as error:
            error.remedy = f"{_CLI_REMEDY}; or set CARTO_API_TOKEN and CARTO_API_BASE_URL yourself."
            raise


def cli_profile(profile: str | None = None) -> str | None:
    """The CLI's profile to use: as it is passed, else that of ``CARTO_PROFILE``; ``None`` is the CLI's current one."""
    return profile or environment("CARTO_PROFILE") or None


def cli_login(profile: str | None = None) -> CliLogin:
    """What the CARTO CLI keeps of the login of a profile; of the one that :func:`cli_profile` names, if not given.

    Raises:
        CredentialsFileNotFound: nobody has logged in with the CLI here.
        MissingCredential: the file has no such profile, or the profile has no token.
        InvalidCredential: the file cannot be used.
    """
    path = _cli_file()
    content = _json_object(path, _CLI_REMEDY)
    profiles = content.get("profiles") or ({"default": content} if "token" in content else None)  # older ones are one
    if not isinstance(profiles, dict):
        raise errors.MissingCredential(f"{path} has no profiles.", remedy=_CLI_REMEDY)
    name = str(cli_profile(profile) or content.get("current_profile") or "default")
    entry = profiles.get(name)
    if not isinstance(entry, dict):
        wanted = "such profile" if holds_content(name) else f"profile {name!r}"
        known = [repr(one) for one, kept in profiles.items() if isinstance(kept, dict) and not holds_content(one)]
        raise errors.MissingCredential(
            f"{path} has no {wanted}; it has {', '.join(known) or 'none'}.",
            remedy="Choose one of these, or log in to that profile.",
        )
    token, tenant_id = entry.get("token"), entry.get("tenant_id")
    if not is_usable_token(token):
        raise errors.MissingCredential(f"The profile {name!r} in {path} has no token.", remedy=_CLI_REMEDY)
    if not isinstance(tenant_id, str) or not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", tenant_id):
        raise errors.InvalidCredential(
            f"The tenant_id of the profile {name!r} in {path} cannot be used.", remedy=_CLI_REMEDY
        )
    return CliLogin(token, tenant_id, entry.get("tenant_domain"))


def _cli_file() -> str:
    """The CLI's own file, or its older one. A user without a home has none, least of all in the current folder."""
    home = os.path.expanduser("~") if os.path.isabs(os.path.expanduser("~")) else "/nonexistent"
    path, older = os.path.join(home, ".carto_credentials.json"), os.path.join(home, ".carto", "config.json")
    return older if os.path.exists(older) and not os.path.exists(path) else path


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
    raw, content, problem = _read(path, remedy), None, None
    try:
        content = json.loads(raw)  # UTF-16 too, in which some editors and shells write
    except UnicodeDecodeError:
        problem = "is not text in UTF-8"
    except json.JSONDecodeError as error:
        problem = f"is not valid JSON: {error.msg}, at line {error.lineno}, column {error.colno}"
    except (RecursionError, ValueError):
        problem = "is not valid JSON: it is nested too deeply, or has a number with too many digits"
    if problem:  # not raised above, where the parser's error would carry the file's text along
        raise errors.InvalidCredential(
            f"The credentials file {path} {problem}.", remedy="Fix it, or download it again."
        )
    if not isinstance(content, dict):
        # An AttributeError, as in carto-auth 0.2.0: none of the keys is there.
        raise errors.MissingCredential(
            f"The credentials file {path} holds a {type(content).__name__}, not a JSON object.", remedy=remedy
        )
    return content


def _read(path: str, remedy: str) -> bytes:
    """The content of a file, or of a pipe such as a shell's ``<(...)``."""
    try:
        with open(path, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if os.name == "posix" and stat.S_ISREG(mode) and mode & 0o044:
                _log.warn_once(f"Others on this computer can read the credentials file {path}. Run: chmod 600 {path}")
            content = file.read(LARGEST_FILE + 1)
        if len(content) > LARGEST_FILE:
            raise ValueError(f"it is larger than {LARGEST_FILE // 1024} KiB")
    except FileNotFoundError:
        raise errors.CredentialsFileNotFound(f"There is no credentials file {path}.", remedy=remedy) from None
    except (OSError, ValueError) as error:  # a ValueError where the path has a null character
        raise errors.InvalidCredential(
            f"The credentials file {path!r} cannot be read ({getattr(error, 'strerror', None) or error}).",
            remedy="Check the path and the file's permissions.",
        ) from None
    return content
