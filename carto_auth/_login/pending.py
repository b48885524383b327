"""A login that a web app has begun and does not wait for."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from carto_auth._frames import clears_its_frames
from carto_auth._trust import require_secure
from carto_auth.errors import LoginDenied, LoginFailed

if TYPE_CHECKING:
    from carto_auth.pkce import CartoPKCE

Account = TypeVar("Account")


@clears_its_frames
class PendingLogin(Generic[Account]):
    """A login in two calls, neither of which waits for the person.

    Made by :meth:`carto_auth.CartoAuth.begin_oauth`. It belongs to one person: keep it where only their
    session finds it, on the server. It can be pickled, and then holds a secret.

    Args:
        account: makes the account from a token info.
        login: the protocol of one login, a :class:`carto_auth.pkce.CartoPKCE`.
        redirect_uri: where the person ends; without one, where ``login`` says.

    Attributes:
        url: the page to send the person to.
        notice: what to tell the person beside it: that the organization has no single sign-on, or that its name has a
            typing error, and that ``url`` is the usual login; ``""`` when there is nothing to tell.
        state: the random text that ``url`` carries and the answer brings back (RFC 6749 section 4.1.1). An app must
            find the login by the browser's own session, and not by this alone (section 10.12).

    Raises:
        UntrustedAddress: ``redirect_uri`` is neither https nor on this computer.
        ServerError, ServiceUnreachable: CARTO did not say which organization the login's name is.
    """

    def __init__(
        self, account: Callable[[dict[str, Any]], Account], login: CartoPKCE, redirect_uri: str | None = None
    ) -> None:
        if redirect_uri is not None:
            require_secure(str(redirect_uri).partition("?")[0], "redirect_uri")
            login.redirect_uri = redirect_uri
        self.state: str = os.urandom(32).hex()
        self.url: str = login.get_authorize_url(self.state)
        self.notice: str = login.notice()
        self._account = account
        self._login = login
        self._token_info: dict[str, Any] | None = None
        self._is_over = False
        self._sent_codes: dict[str, object] = {}

    def finish(self, answer: str) -> Account:
        """The account, from the access code that the person copied, or from the whole URL they came back with.

        An answer that is not this login's, or a code that CARTO refuses, leaves it waiting for the right one; no
        code is sent twice. A login answers once. Only if a token came and the API base URL could not be found, the
        same answer may try that again, and nothing else.

        Raises:
            LoginDenied: the person or CARTO refused.
            LoginFailed: the answer is empty, of another site or of another login, or this login was answered.
            Unauthorized: CARTO did not accept the code.
            TenantNotFound: the account belongs to no CARTO organization yet.
            ServerError, ServiceUnreachable: no token came, or no API base URL.
        """
        if self._is_over:
            raise _answered()
        try:
            code = self._login.get_authorization_code(answer or "")  # it would ask for one
        except LoginDenied:
            self._is_over = True
            raise
        if self._token_info is None:
            mine = object()
            if self._sent_codes.setdefault(code, mine) is not mine:  # of all the threads one is the first
                raise _answered()
            self._token_info = self._login.get_token_info(code)
            self._sent_codes = {code: mine}  # from now on no other answer is the right one
        elif code not in self._sent_codes:
            raise _answered()
        account = self._account(self._token_info)
        self._is_over = True
        return account


def _answered() -> LoginFailed:
    return LoginFailed("This login has already been answered.", remedy="Begin a new login.")
