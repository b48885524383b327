"""API access tokens that read what a map reads and nothing else, made by CARTO's Tokens API.

A map's page, and a notebook exported with one, holds the token it was drawn with, readable for everybody who
has the page. :meth:`carto_auth.CartoAuth.restricted_to` gives an object to draw it with instead of your own.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import datetime, timezone
from typing import Any, TypeVar
from urllib.parse import quote

from carto_auth import _http, _log, errors
from carto_auth._stores.base import Entry, Lock, Store
from carto_auth._token import ACCOUNT_CLAIM, LATEST_TIME, Token, is_time, is_usable_token, jwt_claims, jwt_expiration
from carto_auth._trust import split_url
from carto_auth._value import Value

#: Asks CARTO's API with an access token, which is renewed once when it is refused.
WithRenewal = Callable[[Callable[[str], dict[str, Any]]], dict[str, Any]]

_Item = TypeVar("_Item")

#: Seconds that a process waits for another one that makes the same token: as long as a request may take.
_WAIT_SECONDS = 60.0

_TOO_MANY = "Delete tokens that are no longer needed, by delete() or in the CARTO Workspace."
_NO_LOGIN = "An API access token cannot make tokens. Use CartoAuth.from_oauth() or CartoAuth.from_m2m()."
_NOT_ALLOWED = (
    "This account may not make API access tokens: ask the administrator of your CARTO organization. An M2M application "
    "may do what its owner may."
)


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

    def __init__(self, grants: Any, allowed_apis: Any, referers: Any, expiration: Any, name: Any = None) -> None:
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
        moment = self.expiration and datetime.fromtimestamp(self.expiration, timezone.utc)
        body = {
            "grants": [{"connection_name": connection, "source": source} for connection, source in self.grants],
            "allowed_apis": list(self.allowed_apis),
            "referers": list(self.referers),
            "name": self.name,
            "expiration_date": moment and moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        return {name: value for name, value in body.items() if value is not None}

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


def store_beside(store: Store, access_token: str, restriction: Restriction, api_base_url: str) -> Store:
    """Where a restricted token is kept: beside the account's own, if it can be told whose it is."""
    claims = jwt_claims(access_token)
    # A person's login does not name the person: another one may log in after this one.
    account = f"{claims.get('sub', '')} {claims.get(ACCOUNT_CLAIM, '')}".strip()
    identity = store.identity.replaced(
        mode="restricted", api_base_url=api_base_url, account=account, restriction=restriction.digest()
    )
    return store.beside(identity) if account or store.identity.mode == "m2m" else Store(identity)


class RestrictedTokens:
    """The tokens for one restriction, on an account's behalf: CARTO's ``/v3/tokens``, and the store that keeps one.

    Args:
        restriction: what they may do.
        store: where one is kept.
        base_url: the account's API base URL, without a slash at its end.
        with_renewal: sends a request with the account's access token.
    """

    def __init__(self, restriction: Restriction, store: Store, base_url: str, with_renewal: WithRenewal) -> None:
        self.base_url = base_url
        self._restriction = restriction
        self._store = store
        self._with_renewal = with_renewal

    def get(self) -> Token:
        """The token that is kept, if CARTO knows it still, or a new one.

        However many threads and processes want it, one of them makes it.

        Raises:
            CredentialsError: CARTO makes none.
        """
        kept = self._kept()
        if kept is not None:
            return kept
        with self._alone() as lock:
            return (self._kept() if lock == Lock.HELD else None) or self._made()

    def delete(self, token: str) -> bool:
        """Delete the token, at CARTO and where it is kept; ``False`` if CARTO did not know it any more.

        Raises:
            CredentialsError: CARTO did not delete it.
        """
        known = self._find("DELETE", token, "CARTO did not delete the restricted token") is not None
        with self._alone():
            entry = self._store.load()
            if entry is not None and entry.token.text == token:  # and not one that another process has put in its place
                with suppress(OSError):  # the next start finds out that CARTO does not know it
                    self._store.forget()
        return known

    def _alone(self) -> Lock:
        """Lock all restricted tokens of a login or application, so that not each map leaves a lock file."""
        identity = self._store.identity.replaced(account="", restriction="")
        return self._store.beside(identity).locked_within(_WAIT_SECONDS)

    def _kept(self) -> Token | None:
        """The kept token, if it will do and CARTO still knows it as it was made. That is asked at each start."""
        entry = self._store.load()
        if entry is None or entry.is_flat or not self._restriction.is_met_by(entry.token.end or 0.0):
            return None
        return entry.token if self._is_confirmed(entry.token.text) else None

    def _is_confirmed(self, token: str) -> bool:
        """Whether the token was neither deleted nor changed. Where CARTO cannot tell just now, it is taken for good."""
        try:
            resource = self._find("GET", token, "CARTO did not say whether the restricted token is still good")
        except (errors.ServiceUnreachable, errors.ServiceUnavailable, errors.RateLimited) as error:
            _log.debug("using the kept restricted token unchecked: %s", error.message)
            return True
        return resource is not None and self._restriction.is_told_by(resource)

    def _made(self) -> Token:
        answer = self._request("POST", None, self._restriction.body(), "CARTO made no restricted token")
        text = answer.get("token")
        if not is_usable_token(text):
            raise errors.InvalidAnswer(
                "CARTO's answer holds no restricted token that can be used.", remedy="Ask CARTO's support.", status=200
            )
        token = Token.of(text, self._restriction.expiration or LATEST_TIME)
        try:
            self._store.save(Entry(token, self.base_url))
        except OSError as error:
            _log.warn_once(
                f"The restricted token cannot be kept in {self._store.shown} ({error.strerror or error}). The next "
                f"start makes another, and they count towards a quota; {self._store.remedy}."
            )
        return token

    def _find(self, method: str, token: str, failure: str) -> dict[str, Any] | None:
        """The answer about a token; ``None`` if CARTO does not know it."""
        try:
            return self._request(method, token, None, failure)
        except errors.CredentialsError as error:
            if error.status != 404:
                raise
            return None

    def _request(self, method: str, token: str | None, body: dict[str, Any] | None, failure: str) -> dict[str, Any]:
        url = f"{self.base_url}/v3/tokens" + (f"/{quote(token, safe='')}" if token else "")

        def ask(own: str) -> dict[str, Any]:
            try:
                return _http.request_json(method, url, access_token=own, body=body, hidden=token, failure=failure)
            except errors.RateLimited as error:
                error.remedy = f"{_TOO_MANY} {error.remedy}"
                raise
            except errors.Unauthorized as error:
                if jwt_expiration(own) is None:  # an OAuth token of CARTO's is a JWT that ends
                    error.remedy = error.remedy or _NO_LOGIN
                elif error.status == 403:
                    error.remedy = error.remedy or _NOT_ALLOWED
                raise

        return self._with_renewal(ask)


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
    pair = grant if isinstance(grant, (tuple, list)) else ()
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
    if not is_time(expiration) or expiration <= time.time():
        raise ValueError("expiration must be POSIX seconds, in the future and before the year 10000")
    return int(expiration)
