"""API access tokens that read what a map reads and nothing else, made by CARTO's Tokens API.

A map's page, and a notebook exported with one, holds the token it was drawn with, readable for everybody who
has the page. :meth:`carto_auth.CartoAuth.restricted_to` gives an object to draw it with instead of your own.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from carto_auth import _http, _log
from carto_auth._stores.base import Entry, Lock, Store
from carto_auth._token import (
    ACCOUNT_CLAIM,
    LATEST_TIME,
    Token,
    is_time,
    is_token_expired,
    is_usable_token,
    jwt_claims,
)
from carto_auth._trust import normalized_base_url, split_url
from carto_auth._value import Value
from carto_auth.errors import (
    CredentialsError,
    InvalidAnswer,
    RateLimited,
    ServiceUnavailable,
    ServiceUnreachable,
    Unauthorized,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    #: Asks CARTO's API with an access token, which is renewed once when it is refused.
    WithRenewal = Callable[[Callable[[str], dict[str, Any]]], dict[str, Any]]

_Item = TypeVar("_Item")

#: Seconds that a process waits for another one that makes the same token: as long as a request may take.
_WAIT_SECONDS = 60.0


class Restriction(Value):
    """What a token may do: the arguments of :meth:`carto_auth.CartoAuth.restricted_to`, checked.

    Attributes:
        grants: pairs of a connection's name, and a table (``*`` for a part of its name) or SQL.
        allowed_apis: the APIs that accept the token.
        referers: the web sites that may use it; all, if there are none.
        expiration: until when, POSIX seconds; ``None`` for a token that is good until it is deleted.
        name: what CARTO's lists call the token; ``None`` for a name of CARTO's.

    Raises:
        TypeError, ValueError: one is not as it says there.
    """

    def __init__(
        self,
        grants: Iterable[tuple[str, str]],
        allowed_apis: Iterable[str],
        referers: Iterable[str],
        expiration: float | None,
        name: str | None = None,
    ) -> None:
        self.grants: tuple[tuple[str, str], ...] = _distinct(grants, "grants", _pair)
        self.allowed_apis: tuple[str, ...] = _distinct(allowed_apis, "allowed_apis", _text)
        self.referers: tuple[str, ...] = _distinct(referers, "referers", _origin)
        self.expiration: int | None = None if expiration is None else _time(expiration)
        self.name: str | None = None if name is None else _text(name, "name")
        if not self.grants or not self.allowed_apis:
            # What CARTO makes of an empty list is not known, and it might be everything.
            raise ValueError(f"{'allowed_apis' if self.grants else 'grants'} must not be empty")
        if "imports" in self.allowed_apis and len(self.allowed_apis) > 1:
            raise ValueError('allowed_apis must not combine "imports" with other APIs: CARTO makes no such token')

    def body(self) -> dict[str, Any]:
        """The body of the request that makes such a token."""
        body: dict[str, Any] = {
            "grants": [{"connection_name": connection, "source": source} for connection, source in self.grants],
            "allowed_apis": list(self.allowed_apis),
            "referers": list(self.referers),
        }
        if self.name is not None:
            body["name"] = self.name
        if self.expiration is not None:
            moment = datetime.fromtimestamp(self.expiration, timezone.utc)
            body["expiration_date"] = moment.strftime("%Y-%m-%dT%H:%M:%SZ")
        return body

    def digest(self) -> str:
        """The same text for the same grants, APIs and referers in any order, and never for others.

        Tokens that end and tokens that do not are told apart; a moment is not, since each run names another.
        """
        parts = [sorted(self.grants), sorted(self.allowed_apis), sorted(self.referers), self.expiration is None]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def is_told_by(self, resource: Mapping[str, Any]) -> bool:
        """Whether CARTO describes a token with the same grants, APIs and referers: somebody may have changed them.

        Which of them CARTO tells is not certain, and what it does not tell is no difference.
        """
        mine = self.body()
        told = [key for key in ("grants", "allowed_apis", "referers") if isinstance(resource.get(key), list)]
        return all(_as_set(resource[key]) == _as_set(mine[key]) for key in told)

    def is_met_by(self, end: float) -> bool:
        """Whether a token that is good until ``end`` lasts as long as asked for: no longer, and half at least."""
        if self.expiration is None:
            return end >= LATEST_TIME
        now = time.time()
        return end <= self.expiration and end - now >= (self.expiration - now) / 2


def restricted_token(restriction: Restriction, api: TokensApi, store: Store) -> Token:
    """A token for ``restriction``: the one that is kept in ``store``, if CARTO knows it still, or a new one.

    However many threads and processes want it, one of them makes it.

    Raises:
        CredentialsError: CARTO makes none.
    """
    kept = _kept(restriction, api, store)
    if kept is not None:
        return kept
    with _alone(store) as lock:
        kept = _kept(restriction, api, store) if lock == Lock.HELD else None
        return kept or _made(restriction, api, store)


def forget(token: str, store: Store) -> None:
    """Take a deleted token out of ``store``, but not one that another process has put in its place."""
    with _alone(store):
        entry = store.load()
        if entry is None or entry.token.text != token:
            return
        try:
            store.forget()
        except OSError as error:  # the next start finds out that CARTO does not know it
            _log.debug("the deleted token stays in the cache: %s", error.strerror)


def store_beside(store: Store, access_token: str, restriction: Restriction, api_base_url: str) -> Store:
    """Where a restricted token is kept: beside the account's own, if it can be told whose it is."""
    claims = jwt_claims(access_token)
    # A person's login does not name the person: another one may log in after this one.
    account = f"{claims.get('sub', '')} {claims.get(ACCOUNT_CLAIM, '')}".strip()
    identity = store.identity.replaced(
        mode="restricted", api_base_url=api_base_url, account=account, restriction=restriction.digest()
    )
    return store.beside(identity) if account or store.identity.mode == "m2m" else Store(identity)


def _alone(store: Store) -> Lock:
    """Lock all restricted tokens of a login or application, so that not each map leaves a lock file."""
    identity = store.identity.replaced(account="", restriction="")
    return store.beside(identity).locked_within(_WAIT_SECONDS)


def _kept(restriction: Restriction, api: TokensApi, store: Store) -> Token | None:
    """The kept token, if it will do and CARTO still knows it as it was made. That is asked at each start."""
    entry = store.load()
    if entry is None or entry.is_flat or not restriction.is_met_by(entry.token.end or 0.0):
        return None
    return entry.token if api.confirms(entry.token.text, restriction) else None


def _made(restriction: Restriction, api: TokensApi, store: Store) -> Token:
    token = api.make(restriction)
    try:
        store.save(Entry(token, api.base_url))
    except OSError as error:
        _log.warn_once(
            f"The restricted token cannot be kept in {store.shown} ({error.strerror or error}). The next start makes "
            f"another, and they count towards a quota; {store.remedy}."
        )
    return token


# ---- CARTO's Tokens API --------------------------------------------------------------------------


class TokensApi:
    """``/v3/tokens``, on an account's behalf.

    Args:
        api_base_url: the account's API base URL.
        with_renewal: sends a request with the account's access token.
        is_api_access_token: whether that is an API access token itself, which cannot make others.
    """

    def __init__(self, api_base_url: str, with_renewal: WithRenewal, is_api_access_token: Callable[[], bool]) -> None:
        self.base_url: str = normalized_base_url(api_base_url)
        self._with_renewal = with_renewal
        self._is_api_access_token = is_api_access_token

    def make(self, restriction: Restriction) -> Token:
        """A new token.

        Raises:
            CredentialsError: CARTO makes none.
        """
        answer = self._request("POST", None, restriction.body(), "CARTO made no restricted token")
        token = answer.get("token")
        if not is_usable_token(token):
            raise InvalidAnswer(
                "CARTO's answer holds no restricted token that can be used.",
                remedy="Try again. If it happens again, ask CARTO's support.",
                status=200,
            )
        return Token.of(token, LATEST_TIME if restriction.expiration is None else restriction.expiration)

    def confirms(self, token: str, restriction: Restriction) -> bool:
        """Whether the token was neither deleted nor changed. Where CARTO cannot tell just now, it is taken for good.

        Raises:
            CredentialsError: the account may not ask.
        """
        try:
            resource = self._find("GET", token, "CARTO did not say whether the restricted token is still good")
        except (ServiceUnreachable, ServiceUnavailable, RateLimited) as error:
            _log.debug("using the kept restricted token unchecked: %s", error.message)
            return True
        return resource is not None and restriction.is_told_by(resource)

    def delete(self, token: str) -> bool:
        """Delete the token; ``False`` if CARTO did not know it any more.

        Raises:
            CredentialsError: CARTO did not delete it.
        """
        return self._find("DELETE", token, "CARTO did not delete the restricted token") is not None

    def _find(self, method: str, token: str, failure: str) -> dict[str, Any] | None:
        """The answer about a token; ``None`` if CARTO does not know it."""
        try:
            return self._request(method, token, None, failure)
        except CredentialsError as error:
            if error.status != 404:
                raise
        return None

    def _request(self, method: str, token: str | None, body: dict[str, Any] | None, failure: str) -> dict[str, Any]:
        url = f"{self.base_url}/v3/tokens" + (f"/{quote(token, safe='')}" if token else "")

        def ask(access_token: str) -> dict[str, Any]:
            try:
                return _http.request_json(
                    method, url, access_token=access_token, body=body, hidden=token, failure=failure
                )
            except RateLimited as error:
                advice = "Delete tokens that are no longer needed, by delete() or in the CARTO Workspace."
                error.remedy = f"{advice} {error.remedy}"
                raise
            except Unauthorized as error:
                error.remedy = error.remedy or self._remedy(error)
                raise

        return self._with_renewal(ask)

    def _remedy(self, error: Unauthorized) -> str | None:
        if self._is_api_access_token():
            return "An API access token cannot make tokens. Use CartoAuth.from_oauth() or CartoAuth.from_m2m()."
        if error.status == 403:
            return (
                "This account may not make API access tokens: ask the administrator of your CARTO organization. An M2M "
                "application may do what its owner may."
            )
        return None


def _as_set(values: list[Any]) -> set[object]:
    """A list of CARTO's to compare: grants by their connection and source, in any order."""
    return {(v.get("connection_name"), v.get("source")) if isinstance(v, Mapping) else str(v) for v in values}


# ---- checking arguments --------------------------------------------------------------------------


def _distinct(values: Any, name: str, checked: Callable[[Any, str], _Item]) -> tuple[_Item, ...]:
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise TypeError(f"{name} must be a list, not {type(values).__name__}")
    return tuple(dict.fromkeys(checked(value, name) for value in values))


def _pair(grant: Any, name: str) -> tuple[str, str]:
    # A text of two characters would pass for a pair, and so would a mapping of two keys, which is CARTO's own form.
    is_list = isinstance(grant, Iterable) and not isinstance(grant, (str, Mapping, AbstractSet))
    pair = list(grant) if is_list else []
    if len(pair) != 2:
        raise ValueError('each of grants must be a pair of a connection and a table or SQL: [("carto_dw", "a.b.c")]')
    connection, source = _text(pair[0], name), _text(pair[1], name)
    before, star, _ = source.replace("`", "").partition("*")
    if star and not re.search(r"\s", source) and len(list(filter(None, before.split(".")))) < 2:
        raise ValueError(f'a * in grants needs a project and a dataset before it ("project.dataset.*"), not {source!r}')
    return connection, source


def _origin(site: Any, name: str) -> str:
    """A web site as browsers name it (RFC 6454 section 6.2), which CARTO compares exactly: no slash, no usual port."""
    origin = _text(site, name).removesuffix("/").lower()
    if re.fullmatch(r"https?://[a-z0-9._*:\[\]-]+", origin) is None or not split_url(origin).netloc:
        raise ValueError('referers must be sites as browsers send them, without a path: "https://example.com"')
    return origin.removesuffix(":443" if origin.startswith("https:") else ":80")


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{name} must hold texts that are not empty")
    return value.strip()


def _time(expiration: Any) -> int:
    if isinstance(expiration, datetime):
        raise TypeError("expiration must be POSIX seconds, not a datetime: pass its .timestamp()")
    if not is_time(expiration) or is_token_expired(expiration):
        raise ValueError("expiration must be POSIX seconds, in the future and before the year 10000")
    return int(expiration)
