"""The conversation with the person who logs in: by their browser, else by a code that they copy.

What a link, an answer or a code is, the login knows.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from carto_auth._login import browser, place, talk
from carto_auth._login.callback import CallbackServer, Page, PortBusy
from carto_auth._login.response import AuthorizationResponse, code_of, response_for
from carto_auth._services import REDIRECT_URI, Services
from carto_auth.errors import LoginDenied, LoginFailed, LoginRequired, LoginTimedOut

if TYPE_CHECKING:
    from carto_auth.pkce import CartoPKCE

#: How often a person is asked for a code that works.
TRIES = 3

#: Seconds that a browser has to fail before the link for it is shown: a link that is shown should work.
OPENING_SECONDS = 1.0

LOGGED_IN = Page(
    200, "Back to Python", "CARTO has confirmed who you are. You can close this tab and return to Python.", "good"
)
NOT_LOGGED_IN = Page(
    200, "Not logged in", "You are not logged in. Python tells you why; you can close this tab.", "bad"
)
NOT_THIS_LOGIN = Page(400, "Not this login", "No login that is waiting here expects this. Use the link in Python.")


def ask(prompt: str, seconds: float, *, timeout: float, anyway: bool) -> str:
    """Ask the person for a line of text.

    Args:
        prompt: what they are shown.
        seconds: how long they have; see :func:`carto_auth._login.talk.ask`.
        timeout: how many seconds they had in all, for the message.
        anyway: whether to ask even where nobody seems to be.

    Raises:
        LoginRequired: there is nobody to ask.
        LoginTimedOut: nobody answered in time.
        LoginFailed: the person ended the input (Ctrl-D).
    """
    reason = None
    if anyway or place.can_ask():
        try:
            return talk.ask(prompt, seconds)
        except TimeoutError:
            raise LoginTimedOut(
                f"No code was entered within {timeout:g} s.",
                remedy="Try again, with a longer timeout= if you need more time.",
            ) from None
        except UnicodeDecodeError:
            return "\ufffd"  # bytes that are no text, and so no code
        except EOFError:
            if place.is_terminal(sys.stdin):
                raise LoginFailed("No code was entered.", remedy="Begin a new login.") from None
            reason = "standard input is at its end"
        except (OSError, RuntimeError, ValueError):  # broken or missing; or a notebook's front end takes no input
            reason = "nothing can be entered here"
    raise place.login_required(reason)


class NoBrowser(Exception):
    """The browser cannot take this login; the text tells the person why, and what happens instead."""


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """A login's talk with a person.

    Attributes:
        login: makes the links, and knows the code in an answer.
        services: where the login ends.
        screen: shows the links.
        ask: asks the person for a line of text; raises ``LoginRequired`` where there is nobody.
        ask_anyway: whether to ask even where nobody seems to be.
        open_anyway: whether to open a browser even where nobody seems to be.
        timeout: the seconds that the person was given; ``seconds_left`` tells how many are left.
    """

    login: CartoPKCE
    services: Services
    screen: talk.Screen
    ask: Callable[[str], str]
    ask_anyway: bool
    open_anyway: bool
    timeout: float
    seconds_left: Callable[[], float]

    def code(self) -> str:
        """The code that the browser brings back; where it cannot, the one that the person copies.

        Raises:
            LoginRequired: the browser cannot, and there is nobody to ask.
            LoginDenied: the person or CARTO refused.
            LoginTimedOut: nobody finished in time.
            LoginFailed: no usable code was given.
        """
        if not (self.open_anyway or place.somebody_is_here()):
            return self.code_by_hand()
        try:
            return self._code_by_browser()
        except NoBrowser as error:
            told = str(error)
        try:
            return self.code_by_hand(told)
        except LoginRequired as error:
            error.message = f"{told} {error.message}"
            raise

    def _begin(self, redirect_uri: str) -> str:
        """Begin a new attempt and return its link; codes of earlier attempts are worth nothing now."""
        self.login.redirect_uri = redirect_uri
        self.login.get_pkce_handshake_parameters()
        return self.login.get_authorize_url()

    # ---- by the browser --------------------------------------------------------------------------

    def _code_by_browser(self) -> str:
        if not browser.can_open():
            raise NoBrowser(place.why_no_browser())
        url = self._begin(REDIRECT_URI)
        try:
            with CallbackServer(REDIRECT_URI, self._answer_and_page) as server:
                response = self._response_at(server, url)
        except PortBusy:
            raise NoBrowser(
                "Another program or login is using port 10000, so your browser cannot bring this login back to "
                "Python. Close it, or copy the access code by hand."
            ) from None
        except (OSError, RuntimeError):  # there is no loopback address, or no thread can be had
            raise NoBrowser(
                "On this computer your browser cannot bring the login back to Python, so this login needs an access "
                "code, copied by hand."
            ) from None
        if response is None:
            raise LoginTimedOut(
                f"Nobody finished the login in the browser within {self.timeout:g} s.",
                remedy="Try again, with open_browser=False if the browser cannot reach this computer.",
            )
        return code_of(response)

    def _response_at(self, server: CallbackServer[AuthorizationResponse], url: str) -> AuthorizationResponse | None:
        """Send the person to ``url``, and wait for what comes back; ``None`` when nothing does in time."""
        opening = browser.open_aside(url, lambda error: server.give_up(error or NoBrowser(place.why_no_browser())))
        opening.join(OPENING_SECONDS)
        server.wait(0)  # raises, if no browser could be opened
        before = "Log in to CARTO in your browser. If it does not open by itself, use this link:"
        self.screen.show_link(_paragraphs(self.login.notice(), before), url, self._waiting())
        return server.wait(self.seconds_left())

    def _waiting(self) -> str:
        stop = "interrupting the kernel stops it" if place.in_notebook() else "Ctrl-C stops it"
        minutes = self.timeout / 60
        limit = "" if minutes == float("inf") else f"up to {minutes:g} minutes; "
        if minutes < 2:
            limit = f"up to {self.timeout:g} seconds; "
        return f"Waiting for the login in your browser ({limit}{stop})"

    def _answer_and_page(self, query: str) -> tuple[AuthorizationResponse | None, Page]:
        state = self.login.attempt.state or ""
        response = response_for(query, state=state, issuer=self.services.auth_url)
        if response is None:
            return None, NOT_THIS_LOGIN
        return response, NOT_LOGGED_IN if response.code is None else LOGGED_IN

    # ---- by hand ---------------------------------------------------------------------------------

    def code_by_hand(self, told: str = "", refused: Collection[str] = ()) -> str:
        """The code that the person copies from CARTO's page.

        Args:
            told: what they have to know before.
            refused: codes that CARTO has refused; one of them may still be on the clipboard.

        Raises:
            LoginRequired: there is nobody to ask.
            LoginDenied: the person pasted the address of a refusal.
            LoginTimedOut: nobody answered in time.
            LoginFailed: no usable code was given.
        """
        if not (self.ask_anyway or place.can_ask()):
            raise place.login_required()
        prompt = self._first_prompt(told, self._begin(self.services.code_page_url))
        problem = ""
        for _ in range(TRIES):
            pasted = self.ask(prompt)
            try:
                code = self.login.get_authorization_code(pasted or "")  # it would ask again
                if code not in refused:
                    return code
                problem = "That code has already been refused."
            except LoginDenied:
                raise
            except LoginFailed as error:
                problem = error.message
            prompt = f"{problem} Access code: "
        raise LoginFailed(f"The login was given up after {TRIES} tries: {problem}", remedy="Begin a new login.")

    def _first_prompt(self, told: str, url: str) -> str:
        """The link and the request for the code: as one text, so that nothing is shown where nobody is asked."""
        before = _paragraphs(
            told, self.login.notice(), "Log in to CARTO with this link; it ends on a page that shows an access code:"
        )
        after = f"Copy the code from the {self.services.app_url} page to here. Never give it to anyone else."
        question = "Access code: "
        if place.in_notebook() and place.can_ask():
            self.screen.show_link(before, url, after)
            return question
        return f"{before}\n\n    {url}\n\n{after}\n{question}"


def _paragraphs(*texts: str) -> str:
    return "\n\n".join(filter(None, texts))
