"""Account: one account's token, taken from its store and renewed in time."""

from __future__ import annotations

import time

from carto_auth import _log
from carto_auth._fork import import_whole
from carto_auth._frames import clears_frames
from carto_auth._single_flight import SingleFlight
from carto_auth._sources import RENEWAL_WAIT_SECONDS, TokenSource
from carto_auth._stores.base import LONGEST_REFUSAL_SECONDS, NO_TOKEN, Entry, Lock, Refusal, Store, looks
from carto_auth._token import Token, jwt_claims
from carto_auth.errors import CredentialsError, InvalidAnswer, LoginRequired, RateLimited

# Type checkers take this name for true; typing would cost a start more than all of this package does.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from carto_auth._identity import Identity
    from carto_auth.auth import Seams


#: Seconds until a renewal that failed while the token was still good is tried again.
RETRY_SECONDS = 10.0

#: Seconds until somebody whose token is still good looks again whether another process has renewed it.
_LOOK_AGAIN_SECONDS = 1.0

#: Seconds for which the token that replaced a refused one is not replaced again: then the refusal is the answer.
REFUSAL_SECONDS = 60.0

#: The quotas' refusals that this process knows of; also for those who use no cache.
refusals: dict[Identity, Refusal] = {}


class Account:
    """One account's token: from its store, else from its source; renewed in time, kept for others.

    Attributes:
        token: the token that is used now; ``NO_TOKEN`` if there is none. One assignment publishes all of it.
        source: where the next token comes from.
        store: where tokens are kept.
        given_base_url: the API base URL as the program gave it, or ``None``.
        found_base_url: the API base URL that was found, now or by whoever kept the token, or ``None``.
    """

    def __init__(self, source: TokenSource, store: Store, seams: Seams, api_base_url: str | None = None) -> None:
        self.source = source
        self.store = store
        self.token = NO_TOKEN
        self.given_base_url = api_base_url
        self.found_base_url: str | None = None
        self._seams = seams
        self._flight = SingleFlight()
        self._login = object()  # another one after each logout
        self._retry_at = 0.0
        self._refused_at = 0.0

    @property
    def api_base_url(self) -> str | None:
        """The API base URL: as it was given, else as it was found."""
        return self.given_base_url or self.found_base_url

    # ---- at a start ----------------------------------------------------------------------------

    def start(self) -> None:
        """Begin with the token that is kept, or with a new one.

        Raises:
            CredentialsError: there is neither, or its API base URL cannot be found.
        """
        entry = next((entry for entry in self._kept() if self._adopt(entry)), None)
        if entry is None:
            self.renew(self.token)
            return
        _log.debug("found a good token in %s", self.store.shown)
        self.source.tell_whose(entry.token)
        if self.api_base_url is None:
            self._find_base_url()
        elif entry.is_flat:  # kept by carto-auth 0.2.0: now it is known whose it is
            self.keep()

    def _kept(self) -> Iterator[Entry]:
        entry = self._seams.load(self.store)
        if entry is not None:
            yield entry
        yield from self.store.spare_entries()  # which are not looked for where that was good

    def _adopt(self, entry: Entry) -> bool:
        """Take a kept entry's token, if it is ours; whether it is good. A refresh token is taken in any case."""
        if not self.store.owns(entry) or self._is_of_another_person(entry.token):
            return False
        token = entry.token
        if not self.source.renews_quietly(token):
            token = token.replaced(refresh_token=None)
        if not token.is_over() or token.refresh_token is not None:
            if entry.found_by == self.source.found_by:
                self.found_base_url = entry.api_base_url or self.found_base_url
            self.token = token
        return not token.is_over()

    def _is_of_another_person(self, token: Token) -> bool:
        """Whether somebody else has logged in to the same store since the token here was got."""
        one, other = (jwt_claims(text).get("sub") for text in (self.token.text, token.text))
        return None not in (one, other) and one != other

    # ---- in use --------------------------------------------------------------------------------

    @clears_frames
    def good_token(self) -> str:
        """The text of a token that is good; renewed first if it has ended, or if it is due and nobody need be asked.

        Raises:
            CredentialsError: it has ended, and no new one could be had.
        """
        token = self.token
        if not token.is_over():
            self._renew_ahead(token)
            token = self.token
        if token.is_over():
            self.renew(token)
            token = self.token
        if not token.text:
            raise LoginRequired("This account was logged out meanwhile.", remedy="Log in again.")
        return token.text

    def _renew_ahead(self, token: Token) -> None:
        """Renew a token if it is due. It is still good, so nobody waits, and a failure is not raised."""
        if time.time() < max(token.due, self._retry_at) or not self.source.renews_quietly(token):
            return
        self._retry_at = time.time() + _LOOK_AGAIN_SECONDS
        try:
            self._flight.do(lambda _: self._renew_once(token, 0.0, ahead=True), wait=0.0)
        except CredentialsError as error:
            self._retry_at = time.time() + RETRY_SECONDS
            _log.debug("the token could not be renewed ahead of its end: %s", error.message)

    def renew(self, before: Token, *, refused: bool = False) -> None:
        """Replace the token ``before``: one request, however many threads and processes want it.

        Args:
            before: the token to replace. Where it is no longer in use, another thread was quicker.
            refused: whether a service refused it, whatever its end says.

        Raises:
            CredentialsError: no new token could be had.
        """
        patience = self.source.patience(before)
        self._flight.do(
            lambda may_wait: self._renew_once(before, patience if may_wait else 0.0, refused=refused),
            wait=patience or RENEWAL_WAIT_SECONDS,
        )

    def has_just_replaced_a_refused_token(self) -> bool:
        """Whether the token replaced a refused one so recently that another one would be refused as well."""
        return time.time() - self._refused_at < REFUSAL_SECONDS

    # ---- renewing ------------------------------------------------------------------------------

    def _renew_once(self, before: Token, patience: float, *, refused: bool = False, ahead: bool = False) -> None:
        """Look whether another process has renewed the token; else get a new one, while the others wait for it."""
        if self.token is not before:
            return  # another thread has
        import_whole("filelock", "carto_auth._http")
        for is_last in looks(patience, self.source.tell_of_waiting):
            if self._adopt_newer(before):
                return
            with self.store.locked() as lock:
                if lock == Lock.BUSY and (ahead or not is_last):
                    continue
                if lock != Lock.HELD or not self._adopt_newer(before):
                    self._get_new(refused=refused, ahead=ahead)
                return

    def _adopt_newer(self, before: Token) -> bool:
        """Take what another process has put into the store since; whether that is good."""
        entry = self.store.latest(before)
        if entry is not None and entry.token.text != before.text and self._adopt(entry):
            _log.debug("another process has renewed the token")
            return True
        for refusal in (refusals.get(self.source.identity), entry.refusal if entry is not None else None):
            if refusal is not None and (left := refusal.until - time.time()) > 0:
                raise _refused_again(refusal, left)
        return False

    def _get_new(self, *, refused: bool, ahead: bool) -> None:
        login = self._login
        token = self.token
        try:
            info = self.source.quietly(token)
        except RateLimited as error:
            self._remember(error)
            raise
        if info is None:
            if self.source.renews_quietly(token):  # not any more; the access token may be good all the same
                self.token = self.token.replaced(refresh_token=None)
                self.keep()
            if ahead:
                return
            info = self.source.by_a_person(token)
        if refused:
            self._refused_at = time.time()
        if self._login is login:
            self.take(info)
        if self._login is not login:  # somebody has logged out meanwhile
            self._take_back(info)

    def _remember(self, error: RateLimited) -> None:
        """Have nobody who shares the quota ask again before it is time."""
        from contextlib import suppress

        if not error.retry_after:
            return
        refusal = Refusal(time.time() + min(error.retry_after, LONGEST_REFUSAL_SECONDS), error.message)
        refusals[self.source.identity] = refusal
        kept = self.store.load()
        entry = kept if kept is not None and not kept.is_flat else Entry(NO_TOKEN, None)
        with suppress(Exception):
            self.store.save(entry.replaced(refusal=refusal))

    # ---- taking and keeping --------------------------------------------------------------------

    def take(self, info: Mapping[str, Any]) -> None:
        """Use a token info that was just earned, find its API base URL, and keep both.

        Raises:
            InvalidAnswer: there is no token in it.
            CredentialsError: the API base URL cannot be found. The token is kept all the same.
        """
        text = info.get("access_token")
        if not text:
            raise InvalidAnswer("The login gave no access token.", remedy="Try again.")
        token = self.token = Token.of(text, info.get("expiration"), info.get("issued_at"), info.get("refresh_token"))
        if token.refresh_token is not None and self.api_base_url is None:
            self.keep()  # it may be the only one that works, and finding the base URL may take its time
        self._find_base_url()

    def _take_back(self, info: Mapping[str, Any]) -> None:
        """Undo :meth:`take` after a logout: the logout has been too early to find what was taken."""
        if self.token.text == info["access_token"]:
            self.token = NO_TOKEN
        kept = self.store.load()
        if kept is not None and kept.token.text == info["access_token"]:
            self._forget_kept()
        if info.get("refresh_token"):
            self._revoke(info["refresh_token"])

    def _find_base_url(self) -> None:
        token = self.token
        try:
            if self.api_base_url is None and token.text:
                self.found_base_url = self.source.base_url(token.text)
        finally:
            self.keep()

    def keep(self) -> None:
        """Keep the token in the store. That it cannot be kept costs a warning, never the token."""
        token = self.token
        if not token.text:
            return
        # Only what was found is kept, or belongs to the identity: one program's argument is not everybody's.
        base_url = self.source.identity.api_base_url or self.found_base_url
        try:
            entry = Entry(token, base_url or None, found_by=self.source.found_by)
            self._seams.save(self.store, entry, self.api_base_url)
        except Exception as error:  # whatever it is: the token was earned
            reason = getattr(error, "strerror", None) or error
            _log.warn_once(
                f"The CARTO token cannot be kept in {self.store.shown} ({reason}). "
                f"It is used all the same; {self.store.remedy}."
            )

    def forget(self) -> bool:
        """Forget the token, here and in the store, and revoke the refresh token; whether there was one to forget.

        A renewal that is under way comes to nothing.

        Raises:
            CredentialsError: the token is still in the store, or the refresh token is still good.
        """
        self._login = object()
        token, self.token = self.token, NO_TOKEN
        refusals.pop(self.source.identity, None)
        with self.store.locked_within(RENEWAL_WAIT_SECONDS):
            kept = self.store.load()
            found = self._forget_kept() or token != NO_TOKEN
        for refresh_token in {token.refresh_token, kept.token.refresh_token if kept else None} - {None}:
            self._revoke(str(refresh_token))
        return found

    def _forget_kept(self) -> bool:
        try:
            return self.store.forget()
        except OSError as error:
            raise CredentialsError(
                f"The token could not be taken out of {self.store.shown} ({error.strerror}).",
                remedy="Delete it there yourself.",
            ) from None

    def _revoke(self, refresh_token: str) -> None:
        try:
            self.source.revoke(refresh_token)
        except CredentialsError as error:
            error.message = f"The login is forgotten here, but CARTO did not revoke it: {error.message}"
            error.remedy = "A copy of it stays good at CARTO. Log in and log out again to try once more."
            raise

    def copied(self) -> Account:
        """An account that goes its own way: without the refresh token, which must not be used twice."""
        copy = Account.__new__(Account)
        vars(copy).update(vars(self), token=self.token.replaced(refresh_token=None), _flight=SingleFlight())
        return copy

    def __getstate__(self) -> dict[str, Any]:
        """What travels to another process. The store is the business of whoever arrives there."""
        return {**vars(self.copied()), "store": Store(self.source.identity)}


def _refused_again(refusal: Refusal, left: float) -> CredentialsError:
    """The error of a quota that was told of before, with the seconds that are left."""
    from carto_auth._http.answers import RateLimitedAnswer

    return RateLimitedAnswer(refusal.message, remedy=f"Try again in {int(left) + 1} s.", status=429, retry_after=left)
