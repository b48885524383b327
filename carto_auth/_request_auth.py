"""A ``CartoAuth`` as the ``auth=`` of ``requests`` and of ``httpx``, and what a 401 does, also for our own requests.

Neither library is imported here.

``requests`` calls the object with each request, and a hook then sees the answer. ``httpx`` takes a callable
too, but would never show it a 401; it does that for its own ``httpx.Auth``, asked with ``isinstance``. To be
one without importing ``httpx``, :class:`RequestAuth` names a class that is both whenever ``httpx`` is there.
"""

from __future__ import annotations

import sys
import time

from carto_auth._frames import clears_its_frames
from carto_auth._trust import require_secure, split_url
from carto_auth.errors import CredentialsError, Unauthorized

# Type checkers take this name for true; typing would cost a start more than all of this package does.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator
    from typing import Any, TypeVar

    from carto_auth._account import Account

    _Request = TypeVar("_Request")
    _Answer = TypeVar("_Answer")


@clears_its_frames
class RequestAuth:
    """What makes a ``CartoAuth`` an ``auth=``.

    The bearer header (RFC 6750 section 2.1) goes to the API's own origin only: scheme, host and port of the
    API base URL. On a 401 the token is renewed once, unless somebody else has done so meanwhile, and the
    request is repeated once. A body that can be read only once is not repeated: its 401 is the answer.
    """

    _account: Account

    if TYPE_CHECKING:

        def get_api_base_url(self) -> str: ...
        def get_access_token(self) -> str: ...

    # ---- requests ------------------------------------------------------------------------------

    def __call__(self, request: _Request) -> _Request:
        """Authorize ``request`` if it is for CARTO's API. ``requests`` calls this, for each request once.

        Raises:
            CredentialsError: there is no token, or no API base URL.
        """
        sent = self._authorize(request)
        register_hook = getattr(request, "register_hook", None)
        if sent is not None and register_hook is not None:
            register_hook("response", sent)
        return request

    # ---- httpx ---------------------------------------------------------------------------------

    #: As ``httpx.Auth`` has them: the flows need to see no body.
    requires_request_body = False
    requires_response_body = False

    def sync_auth_flow(self, request: Any) -> Generator[Any, Any, None]:
        """The requests that ``httpx.Client`` sends for ``request``: itself, and its repetition after a 401."""
        sent = self._authorize(request)
        response = yield request
        if sent is not None and sent.is_repeated(response.request, response):
            yield response.request

    async def async_auth_flow(self, request: Any) -> AsyncGenerator[Any, Any]:
        """As :meth:`sync_auth_flow`, for ``httpx.AsyncClient``: its event loop goes on during a renewal."""
        if self._is_for_the_api(request) and time.time() >= self._account.token.due:
            await _in_thread(self.get_access_token)
        sent = self._authorize(request)
        response = yield request
        if sent and response.status_code == 401 and await _in_thread(sent.is_repeated, response.request, response):
            yield response.request

    @property  # type: ignore[misc]  # for the type checker, object has it as a plain attribute
    def __class__(self) -> type:  # pyright: ignore[reportIncompatibleMethodOverride]
        """This object's type, which is an ``httpx.Auth`` too if there is an ``httpx`` to ask for it."""
        return _as_httpx_auth(type(self))

    # ---- all of them ---------------------------------------------------------------------------

    def _token_instead_of(self, refused: str) -> str | None:
        """The token to use where ``refused`` was refused; ``None`` if no better one can be had.

        However many threads it was refused to, one of them renews it. A token that replaced a refused one a moment ago
        is not replaced again: whatever refuses it would refuse the next one too, and each counts towards a quota.

        Raises:
            CredentialsError: it could not be renewed.
        """
        account = self._account
        token = account.token
        if token.text == refused:
            if account.has_just_replaced_a_refused_token() or not account.source.renews_quietly(token):
                return None
            account.renew(token, refused=True)
        another = self.get_access_token()
        return another if another != refused else None

    def _authorize(self, request: Any) -> _Sent | None:
        """Give ``request`` the bearer header if it is for the API: with the token that it has now."""
        if not self._is_for_the_api(request):
            return None
        sent = _Sent(self, self.get_access_token())
        request.headers["Authorization"] = _bearer(sent.token)
        return sent

    def _is_for_the_api(self, request: Any) -> bool:
        base_url = base_url_for(self, "auth=")
        require_secure(base_url, "api_base_url")
        return _origin(str(request.url)) == _origin(base_url)


@clears_its_frames
class _Sent:
    """The token that a request was sent with. It is the hook, too, by which ``requests`` shows an answer."""

    def __init__(self, carto_auth: RequestAuth | None, token: str) -> None:
        self._carto_auth = carto_auth
        self.token = token

    def is_repeated(self, request: Any, response: Any) -> bool:
        """Whether ``request``, a copy of the one that was answered, is to be sent with the token that it now has.

        That is so where the API refused the token, and there is another one. After a redirect to elsewhere a request
        carries no token of ours any more, and must get none: whoever sent it along, even back to the API, is not the
        caller.
        """
        auth, headers = self._carto_auth, response.request.headers
        if auth is None or response.status_code != 401 or headers.get("Authorization") != _bearer(self.token):
            return False
        another = auth._token_instead_of(self.token) if auth._is_for_the_api(response.request) else None
        if another is None or not _can_be_repeated(request):
            return False
        request.headers["Authorization"] = _bearer(another)
        return True

    def __call__(self, response: Any, **options: Any) -> Any:
        """The answer to use; ``options`` are those that the request was sent with."""
        again = response.request.copy()
        try:
            if not self.is_repeated(again, response):
                return response
        except BaseException:
            response.close()  # nobody will see it, and so nobody else can close it
            raise
        _ = response.content  # read, so that its connection can be used again
        response.close()
        answer = response.connection.send(again, **options)
        answer.history.append(response)
        answer.request = again
        return answer

    def __reduce__(self) -> tuple[Any, ...]:
        # A response that is pickled, as caches do, takes its hooks along, and must not take credentials.
        return _Sent, (None, "")


def base_url_for(auth: RequestAuth, what: str) -> str:
    """The API base URL, which ``what`` needs.

    Raises:
        CredentialsError: there is none.
    """
    base_url = auth.get_api_base_url()
    if not base_url:
        raise CredentialsError(
            f"There is no API base URL, and {what} needs one.",
            remedy="Pass api_base_url=, or use CartoAuth.from_oauth() or from_m2m().",
        )
    return base_url


def with_renewal(auth: RequestAuth, ask: Callable[[str], _Answer]) -> _Answer:
    """What ``ask`` answers to the access token; a 401 renews the token once and asks once more.

    Raises:
        CredentialsError: what ``ask`` raises, with what to do about a token that was refused.
    """
    token = auth.get_access_token()
    try:
        try:
            return ask(token)
        except Unauthorized as error:
            another = auth._token_instead_of(token) if error.status == 401 else None
            if another is None:
                raise
        return ask(another)
    except Unauthorized as error:
        if error.status == 401 and error.remedy is None:
            error.remedy = auth._account.source.advice
        raise


def _bearer(token: str) -> str:
    return f"Bearer {token}"


def _can_be_repeated(request: Any) -> bool:
    """Whether the body is in memory, and not a stream that has been read."""
    if hasattr(request, "register_hook"):
        return request.body is None or isinstance(request.body, (str, bytes))
    in_memory = getattr(sys.modules.get("httpx"), "ByteStream", None)
    return isinstance(in_memory, type) and isinstance(request.stream, in_memory)


def _origin(url: str) -> tuple[str, str | None, int | None]:
    """Scheme, host and port (RFC 6454 section 4); no host for what is no plain address."""
    parts = split_url("" if "\\" in url else url)
    return parts.scheme, parts.hostname, parts.port or {"https": 443, "http": 80}.get(parts.scheme)


async def _in_thread(function: Callable[..., _Answer], *arguments: Any) -> _Answer:
    """Call ``function``, which may wait, while the event loop goes on. A cancellation does not wait for it."""
    from anyio import to_thread  # httpx itself depends on it, and it knows whether this is asyncio or trio

    try:
        running = to_thread.run_sync(function, *arguments, abandon_on_cancel=True)
    except TypeError:  # anyio before 4.1 has another name for it
        running = to_thread.run_sync(function, *arguments, cancellable=True)
    return await running


# ---- being an httpx.Auth -------------------------------------------------------------------------

_httpx_types: dict[tuple[type, type], type] = {}


def _as_httpx_auth(own: type) -> type:
    base = getattr(sys.modules.get("httpx"), "Auth", None)  # not there yet while httpx is being imported
    if not isinstance(base, type) or issubclass(own, base):
        return own
    known = _httpx_types.get((own, base))
    if known is None:
        namespace = {
            "__module__": own.__module__,
            "__qualname__": own.__qualname__,
            "__doc__": own.__doc__,
            # It is there to be asked for. Who calls it, as type(self)'s other name, gets the real thing.
            "__new__": lambda cls, *arguments, **options: own(*arguments, **options),
        }
        known = _httpx_types[own, base] = type(own.__name__, (own, base), namespace)
    return known
