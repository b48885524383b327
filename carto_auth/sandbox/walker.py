"""The person at the sandbox's login: an HTTP client that fills in the forms.

``python -m carto_auth.sandbox.walker URL`` does it from a command line, so that ``BROWSER`` can name it.
"""

from __future__ import annotations

import ipaddress
import sys
from html.parser import HTMLParser
from urllib.parse import urljoin, urlsplit

import requests

#: Pages until the end; a login takes three.
MAX_STEPS = 12

#: Seconds for each request, the callback's included.
TIMEOUT = 30.0


class WalkFailed(RuntimeError):
    """A page was not one that a sandbox shows during a login."""


class _Form(HTMLParser):
    """The first form of a page: its fields, and the access code, if the page shows one."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.fields: dict[str, str] = {}
        self.found = False
        self.actions: set[str] = set()
        self.access_code: str | None = None
        self._in_code = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.found = True
        elif tag == "input" and "name" in given:
            self.fields[given["name"]] = given.get("value", "")
        elif tag == "button" and given.get("name") == "action":
            self.actions.add(given.get("value", ""))
        elif tag == "textarea" and given.get("name") == "access_code":
            self._in_code, self.access_code = True, ""

    def handle_endtag(self, tag: str) -> None:
        if tag == "textarea":
            self._in_code = False

    def handle_data(self, data: str) -> None:
        if self._in_code:
            self.access_code = (self.access_code or "") + data


def walk_login(url: str, *, approve: bool = True, email: str = "ana@example.com") -> str | None:
    """Log in at the sandbox's authorize page, as a person would.

    Args:
        url: the authorization request, as the library shows it.
        approve: ``False`` to press Cancel on the consent page.
        email: who logs in.

    Returns:
        The access code, when the login ends on the page that shows one; ``None`` when it ends at a callback
        on loopback, which has then been called, or was cancelled.

    Raises:
        WalkFailed: a page was not one of a sandbox, or the URL is not on loopback: this is not a tool for
            typing passwords into other people's pages.
        requests.RequestException: the sandbox, or the callback, did not answer.
    """
    origin = _origin(url)
    if not _is_loopback(url):
        raise WalkFailed(f"{origin} is not on this computer, so it is not a sandbox.")
    with requests.Session() as browser:
        # Loopback must not go through a proxy that the environment names.
        browser.trust_env = False
        answer = browser.get(url, allow_redirects=False, timeout=TIMEOUT)
        for _ in range(MAX_STEPS):
            if answer.is_redirect:
                target = urljoin(answer.url, answer.headers["Location"])
                if _origin(target) != origin:
                    _call_back(target)
                    return None
                answer = browser.get(target, allow_redirects=False, timeout=TIMEOUT)
                continue
            page = _Form(answer.text)
            if page.access_code:
                return page.access_code.strip()
            if not page.found or not page.actions or not answer.ok:
                if urlsplit(answer.url).path == "/auth/error":
                    return None
                raise WalkFailed(f"HTTP {answer.status_code} at {urlsplit(answer.url).path}, but no form to fill in.")
            fields = page.fields
            if "email" in fields:
                fields |= {"email": email, "password": "a password", "action": "continue"}
            else:
                fields["action"] = "allow" if approve else "cancel"
            answer = browser.post(answer.url, data=fields, allow_redirects=False, timeout=TIMEOUT)
    raise WalkFailed(f"The login did not end within {MAX_STEPS} pages.")


def _call_back(target: str) -> None:
    if not _is_loopback(target):
        raise WalkFailed(f"The login leads to {_origin(target)}, which is not on this computer.")
    with requests.Session() as browser:
        browser.trust_env = False
        # The callback's own redirect leads to a page to look at; nobody looks here.
        browser.get(target, allow_redirects=False, timeout=TIMEOUT)


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def main(arguments: list[str] | None = None) -> int:
    """Run the command: 0 if the login ended, 1 if it failed, 2 for wrong usage."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m carto_auth.sandbox.walker URL\n")
        return 2
    try:
        code = walk_login(arguments[0])
    except (WalkFailed, requests.RequestException) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    if code:
        sys.stdout.write(f"{code}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
