"""What a sandbox knows: its switches, applications, logins, codes and tokens, and the requests it has seen."""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, NamedTuple

from carto_auth._services import CLIENT_ID, REDIRECT_URI

#: The Google project of the sandbox's warehouse; the real ones are called ``carto-dw-ac-<account>``.
PROJECT_ID = "carto-dw-ac-sandbox"

#: Seconds; RFC 6749 section 4.1.2 recommends at most ten minutes.
CODE_LIFETIME = 600

#: Unfinished logins that are remembered, for as long as a code is. Whatever a web page or a program sends in bulk
#: fills no memory.
MAX_PENDING = 1000

#: Codes and tokens of each kind that are remembered, and requests; the oldest are forgotten first.
MAX_KEPT = 10_000

#: Characters of a request's path that are remembered.
LONGEST_PATH = 500


def real_time() -> float:
    """POSIX seconds by this computer's clock.

    ``time.time`` is looked up at each call: a program that has replaced it now may put it back later.
    """
    return time.time()


@dataclass(kw_only=True, eq=False)
class Switches:
    """What can be changed while a sandbox runs; :class:`CartoSandbox` documents each of them."""

    token_lifetime: int = 86400
    warehouse_token_lifetime: int = 3600
    refresh_tokens: bool = False
    outage: int | Mapping[str, int] | None = None
    rate_limited: int | None = None
    deny_logins: bool = False
    has_tenant: bool = True
    has_warehouse: bool = True
    token_delay: float = 0.0
    token_quota: int | None = None
    may_make_tokens: bool = True
    clock: Callable[[], float] = real_time

    def __post_init__(self) -> None:
        """For the subclass: the ``__init__`` of a dataclass calls this only if it is there."""

    def __setattr__(self, name: str, value: object) -> None:
        """Refuse an unknown switch: with a misspelled ``outage`` there is no outage, and the test tests nothing."""
        if not name.startswith("_") and not hasattr(type(self), name) and name not in self._known_attributes:
            raise AttributeError(f"The sandbox has no switch {name!r}; it has {', '.join(sorted(_switch_names()))}.")
        super().__setattr__(name, value)

    #: What a subclass sets besides the switches.
    _known_attributes: ClassVar[frozenset[str]] = frozenset()


def _switch_names() -> list[str]:
    return [switch.name for switch in fields(Switches)]


class Request(NamedTuple):
    """One request that was answered: no query, no header and no body, so no secret is in it."""

    method: str
    path: str
    status: int


@dataclass(frozen=True)
class Login:
    """A person who logged in, and the organization (``org_...``) they did it for."""

    email: str
    organization_id: str | None = None

    @property
    def subject(self) -> str:
        """The ``sub`` claim, stable for an e-mail address."""
        return f"auth0|{_digest(self.email, 24)}"

    @property
    def account_id(self) -> str:
        """The CARTO account's id: one account per organization, else one per person."""
        return f"ac_{_digest(self.organization_id or self.email, 10)}"


@dataclass
class Application:
    """An OAuth client, with the methods by which Authlib asks about it."""

    client_id: str
    client_secret: str | None = field(repr=False)
    redirect_uris: frozenset[str]
    grants: frozenset[str]

    def get_client_id(self) -> str:
        return self.client_id

    def get_default_redirect_uri(self) -> None:
        return None

    def get_allowed_scope(self, scope: str | None) -> str:
        # Auth0 passes over scopes that it does not know; the tokens of CARTO's public client carry none.
        return ""

    def check_redirect_uri(self, redirect_uri: str) -> bool:
        return redirect_uri in self.redirect_uris

    def check_client_secret(self, client_secret: str) -> bool:
        expected = self.client_secret or ""
        return bool(expected) and secrets.compare_digest(client_secret.encode(), expected.encode())

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        return method == ("none" if self.client_secret is None else "client_secret_post")

    def check_response_type(self, response_type: str) -> bool:
        return response_type == "code" and "authorization_code" in self.grants

    def check_grant_type(self, grant_type: str) -> bool:
        return grant_type in self.grants


@dataclass
class Code:
    """An authorization code; Authlib reads the PKCE attributes by these names."""

    code: str = field(repr=False)
    client_id: str
    redirect_uri: str
    code_challenge: str = field(repr=False)
    code_challenge_method: str
    login: Login
    expires_at: float
    #: Whether the client asked for a refresh token, and may have one.
    is_offline: bool = False

    def get_redirect_uri(self) -> str:
        return self.redirect_uri

    def get_scope(self) -> str:
        return ""


@dataclass
class RefreshToken:
    """A refresh token. All that descend from one login are a family, and fall together."""

    token: str = field(repr=False)
    family: str
    client_id: str
    login: Login
    used: bool = False

    def check_client(self, client: Application) -> bool:
        return self.client_id == client.client_id

    def get_scope(self) -> str:
        return ""


@dataclass
class ApiToken:
    """An API access token, made by the Tokens API: it reads its grants, through its APIs, from its sites."""

    token: str = field(repr=False)
    account_id: str
    grants: list[tuple[str, str]]
    allowed_apis: list[str]
    referers: list[str]
    expires_at: float | None
    name: str


@dataclass
class PendingLogin:
    """A login between ``/authorize`` and its redirect, bound to the browser that began it."""

    id: str = field(repr=False)
    parameters: dict[str, list[str]] = field(repr=False)
    browser: str = field(repr=False)
    csrf: str = field(repr=False)
    begun_at: float
    #: Whether the browser that began it has come to the login page. Requests in bulk do not.
    is_seen: bool = False
    login: Login | None = None


@dataclass
class State:
    """Everything that a sandbox knows. Any thread may call its methods."""

    switches: Switches
    url: str
    organization_name: str = "acme"
    organization_id: str = field(default_factory=lambda: f"org_{secrets.token_hex(8)}")
    stopping: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._applications = {
            CLIENT_ID: Application(
                CLIENT_ID,
                None,
                frozenset({REDIRECT_URI, f"{self.url}/auth/token"}),
                frozenset({"authorization_code", "refresh_token"}),
            )
        }
        self._codes: dict[str, Code] = {}
        self._refresh_tokens: dict[str, RefreshToken] = {}
        self._access_tokens: dict[str, bool] = {}
        self._warehouse_tokens: dict[str, float] = {}
        self._api_tokens: dict[str, ApiToken] = {}
        self._pending: dict[str, PendingLogin] = {}
        self._requests: deque[Request] = deque(maxlen=MAX_KEPT)

    @property
    def issuer(self) -> str:
        """The ``iss`` of tokens and redirects; Auth0's ends in a slash."""
        return f"{self.url}/"

    @property
    def host(self) -> str:
        """Address and port, such as ``127.0.0.1:49152``."""
        return self.url.removeprefix("http://")

    def now(self) -> float:
        """POSIX seconds by the sandbox's clock."""
        return self.switches.clock()

    # -- applications

    def application(self, client_id: str) -> Application | None:
        """The OAuth client with that id."""
        return self._applications.get(client_id)

    def add_application(self, client_id: str | None = None) -> tuple[str, str]:
        """Register an M2M application, or give an existing one a new secret: its id and secret.

        Raises:
            ValueError: it is the id of CARTO's public client.
        """
        client_id = client_id or secrets.token_urlsafe(24)
        if client_id == CLIENT_ID:
            raise ValueError("This is the id of CARTO's public client, which has no secret. Choose another client id.")
        secret = secrets.token_urlsafe(48)
        self._applications[client_id] = Application(client_id, secret, frozenset(), frozenset({"client_credentials"}))
        return client_id, secret

    def add_web_application(self, redirect_uri: str) -> str:
        """Register a public OAuth client with one redirect URI: its id."""
        client_id = secrets.token_urlsafe(24)
        grants = frozenset({"authorization_code", "refresh_token"})
        self._applications[client_id] = Application(client_id, None, frozenset({redirect_uri}), grants)
        return client_id

    # -- logins under way

    def begin_login(self, parameters: dict[str, list[str]], browser: str) -> PendingLogin | None:
        """Remember an authorization request while its person logs in; ``None`` if too many do.

        Where there are too many, those go first whose browser never came to the login page.
        """
        pending = PendingLogin(secrets.token_urlsafe(24), parameters, browser, secrets.token_urlsafe(24), self.now())
        with self._lock:
            for old in [p for p in self._pending.values() if p.begun_at <= pending.begun_at - CODE_LIFETIME]:
                del self._pending[old.id]
            if len(self._pending) >= MAX_PENDING:
                unseen = next((p for p in self._pending.values() if not p.is_seen), None)
                if unseen is None:
                    return None
                del self._pending[unseen.id]
            self._pending[pending.id] = pending
        return pending

    def pending_login(self, pending_id: str) -> PendingLogin | None:
        """The login under way with that id."""
        return self._pending.get(pending_id)

    def end_login(self, pending: PendingLogin) -> bool:
        """Forget a login that was answered; false if another request was quicker."""
        with self._lock:
            return self._pending.pop(pending.id, None) is not None

    # -- codes and tokens

    def save_code(self, code: Code) -> None:
        """Remember a code until it is used."""
        with self._lock:
            _keep(self._codes, code.code, code)

    def take_code(self, code: str) -> Code | None:
        """The code, once: the first to ask gets it, even if the rest of that request is wrong."""
        with self._lock:
            found = self._codes.pop(code, None)
        return found if found and found.expires_at > self.now() else None

    def save_refresh_token(self, token: RefreshToken) -> None:
        """Remember a refresh token."""
        with self._lock:
            _keep(self._refresh_tokens, token.token, token)

    def use_refresh_token(self, token: str) -> RefreshToken | None:
        """The refresh token, once: presenting it again revokes its family (RFC 9700 section 4.14.2)."""
        with self._lock:
            found = self._refresh_tokens.get(token)
            if found and found.used:
                self._drop_family(found.family)
                return None
            if found:
                found.used = True
            return found

    def refresh_token(self, token: str) -> RefreshToken | None:
        """The refresh token, unused or not, without using it."""
        return self._refresh_tokens.get(token)

    def revoke_family(self, family: str) -> None:
        """Revoke all refresh tokens of a login."""
        with self._lock:
            self._drop_family(family)

    def revoke_refresh_tokens(self) -> None:
        """Stop accepting every refresh token issued so far."""
        with self._lock:
            self._refresh_tokens.clear()

    def _drop_family(self, family: str) -> None:
        for token in [t.token for t in self._refresh_tokens.values() if t.family == family]:
            del self._refresh_tokens[token]

    def save_access_token(self, token_id: str) -> None:
        """Accept a CARTO token from now on, by its ``jti``."""
        with self._lock:
            _keep(self._access_tokens, token_id, True)

    def knows_access_token(self, token_id: Any) -> bool:
        """Whether a CARTO token was issued and not revoked."""
        return token_id in self._access_tokens

    def revoke_access_tokens(self) -> None:
        """Stop accepting every CARTO token issued so far."""
        with self._lock:
            self._access_tokens.clear()

    def new_warehouse_token(self) -> str:
        """A token for the warehouse, in the form of a Google service account's."""
        token = f"ya29.c.{secrets.token_urlsafe(64)}"
        with self._lock:
            _keep(self._warehouse_tokens, token, self.now() + self.switches.warehouse_token_lifetime)
        return token

    def knows_warehouse_token(self, token: str) -> bool:
        """Whether a warehouse token was issued, is in its lifetime and not revoked."""
        return self._warehouse_tokens.get(token, 0.0) > self.now()

    def revoke_warehouse_tokens(self) -> None:
        """Stop accepting every warehouse token issued so far."""
        with self._lock:
            self._warehouse_tokens.clear()

    def save_api_token(self, token: ApiToken) -> bool:
        """Remember an API access token; false if its account has as many as it may."""
        with self._lock:
            quota = self.switches.token_quota
            if quota is not None and len(self._of_account(token.account_id)) >= quota:
                return False
            _keep(self._api_tokens, token.token, token)
            return True

    def api_token(self, token: str) -> ApiToken | None:
        """The API access token, if it is in its lifetime and was not deleted."""
        found = self._api_tokens.get(token)
        return found if found and (found.expires_at is None or found.expires_at > self.now()) else None

    def api_tokens(self, account_id: str) -> list[ApiToken]:
        """All API access tokens of an account, the oldest first."""
        with self._lock:
            return self._of_account(account_id)

    def delete_api_token(self, token: str) -> None:
        """Stop accepting an API access token."""
        with self._lock:
            self._api_tokens.pop(token, None)

    def delete_api_tokens(self) -> None:
        """Delete the API access tokens of all accounts."""
        with self._lock:
            self._api_tokens.clear()

    def _of_account(self, account_id: str) -> list[ApiToken]:
        return [t for t in self._api_tokens.values() if t.account_id == account_id]

    # -- what happened

    def record(self, request: Request) -> None:
        """Add to the list of requests."""
        with self._lock:
            self._requests.append(request._replace(path=request.path[:LONGEST_PATH]))

    def requests(self) -> list[Request]:
        """The requests so far, in the order of their answers."""
        with self._lock:
            return list(self._requests)


def _keep(kept: dict[str, Any], key: str, value: Any) -> None:
    """Remember something, and forget the oldest where there is too much."""
    kept[key] = value
    while len(kept) > MAX_KEPT:
        del kept[next(iter(kept))]


def _digest(text: str, length: int) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:length]
