"""What came of a request, told as our errors: no answer, or an answer that is no success. No secret is in them."""

from __future__ import annotations

import http.client
import json
import math
import os
import ssl
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import Any

import requests
from urllib3.exceptions import DecodeError

from carto_auth._services import split_url
from carto_auth._token import without_secrets
from carto_auth.errors import (
    InvalidAnswer,
    RateLimited,
    ServerError,
    ServiceUnavailable,
    ServiceUnreachable,
    Unauthorized,
)

#: Characters of a server's words that are shown.
LONGEST_QUOTE = 200

CAPTIVE_PORTAL = (
    "A network that wants you to sign in first (a hotel's, a company's) does this: open a web page in the browser, "
    "then try again."
)


class RequestFailed(ServiceUnreachable, requests.RequestException):
    """A service gave no answer: as :class:`ServiceUnreachable`, and as ``requests`` tells it."""


class Unreadable(InvalidAnswer, requests.RequestException):
    """An answer that is no HTTP, or not the JSON it should be: as ``requests`` has exceptions for it."""


class UnauthorizedAnswer(Unauthorized, requests.HTTPError):
    """:class:`Unauthorized`, and as ``raise_for_status`` of ``requests`` tells it. Its ``response`` is ``None``."""


class RateLimitedAnswer(RateLimited, requests.HTTPError):
    """:class:`RateLimited`, and as ``requests`` tells it."""


class UnavailableAnswer(ServiceUnavailable, requests.HTTPError):
    """:class:`ServiceUnavailable`, and as ``requests`` tells it."""


class FailedAnswer(ServerError, requests.HTTPError):
    """:class:`ServerError`, and as ``requests`` tells it."""


class Response:
    """What is kept of an answer: no request, so that no secret hangs on it."""

    def __init__(self, host: str, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.host = host
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def is_success(self) -> bool:
        return 200 <= self.status < 300

    @property
    def is_web_page(self) -> bool:
        return self.body.lstrip()[:1] == b"<"


# ---- no answer -----------------------------------------------------------------------------------


def unreachable(host: str, error: Exception, bundle: str | None) -> RequestFailed | Unreadable:
    """Our error for one of ``requests`` or below; nothing of it is kept but a few words.

    ``bundle`` is the CA bundle that was used, ``None`` for that of ``requests``.
    """
    reasons = list(_reasons(error))

    def first(*kinds: type[BaseException]) -> Any:
        return next((reason for reason in reasons if isinstance(reason, kinds)), None)

    closed = (ConnectionResetError, ConnectionAbortedError, BrokenPipeError, http.client.IncompleteRead)
    if first(*closed, ssl.SSLEOFError, ssl.SSLZeroReturnError):
        return RequestFailed(f"{host} closed the connection before its answer was complete.", remedy="Try again.")
    if first(ssl.SSLError):
        return _insecure(host, first(ssl.SSLCertVerificationError), first(ssl.SSLError), bundle)
    if first(requests.exceptions.ProxyError, requests.exceptions.InvalidProxyURL, requests.exceptions.InvalidSchema):
        return RequestFailed(
            f"Cannot reach {host} through the proxy that the environment names.",
            remedy="Check HTTPS_PROXY and NO_PROXY. A SOCKS proxy needs the package PySocks.",
        )
    if first(TimeoutError):
        return RequestFailed(f"{host} did not answer in time.", remedy="Try again later.")
    if first(http.client.HTTPException, DecodeError):
        return Unreadable(f"{host} sent something that is no HTTP answer.", remedy="Check the address and its port.")
    if first(OSError):
        told_by_the_system = [one.strerror for one in reasons if isinstance(one, OSError) and one.strerror]
        words = _quoted(told_by_the_system[-1], []) if told_by_the_system else type(error).__name__
        return RequestFailed(
            f"Cannot reach {host} ({words}).", remedy="Check the network connection and the address, and try again."
        )
    return RequestFailed(
        f"The request to {host} failed ({type(error).__name__}).",
        remedy="Check the address, and the proxy in HTTPS_PROXY if there is one.",
    )


def _reasons(error: BaseException) -> Iterator[BaseException]:
    """``error`` and all that led to it, from the outermost on; urllib3 keeps some in attributes."""
    seen: set[int] = set()
    left = [error]
    while left:
        current = left.pop(0)
        if id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        attributes = (getattr(current, name, None) for name in ("reason", "original_error", "__cause__", "__context__"))
        left += [one for one in (*current.args, *attributes) if isinstance(one, BaseException)]


def _insecure(
    host: str, refused: ssl.SSLCertVerificationError | None, error: ssl.SSLError, bundle: str | None
) -> RequestFailed:
    if bundle is not None and not _is_ca_bundle(bundle):
        return RequestFailed(
            f"There are no certificates in {bundle}, which the environment names as the CA bundle.",
            remedy="Check REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE and SSL_CERT_FILE.",
        )
    if refused is None:
        reason = (error.reason or "no reason given").lower().replace("_", " ")
        return RequestFailed(
            f"No secure connection to {host} could be made ({_quoted(reason, [])}).",
            remedy="Check the address and its port, and the proxy if there is one.",
        )
    return RequestFailed(
        f"The certificate of {host} was not accepted ({_quoted(refused.verify_message.rstrip('.'), [])}).",
        remedy="Behind a company's proxy, or with a CARTO that has a private certificate authority, set "
        "REQUESTS_CA_BUNDLE to its CA bundle. If it has expired, check this computer's date. " + CAPTIVE_PORTAL,
    )


def _is_ca_bundle(path: str) -> bool:
    folder = os.path.isdir(path)
    try:
        ssl.create_default_context(cafile=None if folder else path, capath=path if folder else None)
    except OSError:
        return False
    return True


# ---- an answer -----------------------------------------------------------------------------------


def json_object(response: Response, *, failure: str, secrets: Collection[str]) -> dict[str, Any]:
    answer = _json(response)
    if not response.is_success or (isinstance(answer, dict) and answer.get("error")):
        raise translated(response, failure=failure, secrets=secrets)
    if not isinstance(answer, dict):
        raise Unreadable(
            f"{failure}: {response.host} sent {_kind(response, answer)} where a JSON object was due.",
            remedy=CAPTIVE_PORTAL,
            status=response.status,
        )
    return answer


def _json(response: Response) -> Any:
    try:
        return json.loads(response.body.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return None


def _kind(response: Response, answer: object) -> str:
    if not response.body:
        return "nothing"
    if response.is_web_page:
        return "a web page"
    return "something else" if answer is None else f"a JSON {type(answer).__name__}"


def translated(response: Response, *, failure: str, secrets: Collection[str]) -> ServerError:
    """The error for an answer that is no success, with the server's own words where it has any."""
    answer = _json(response)
    error, description = _server_words(answer if isinstance(answer, dict) else {}, secrets)
    hint = error if description and _is_sentence(error) else None
    words = ". ".join(one.rstrip(". ") for one in (hint, description or error) if one)
    told = f"{failure}: {response.host} answered {response.status}" + (f" ({words})." if words else ".")
    details: dict[str, Any] = {"status": response.status, "error": error, "error_description": description}
    if 300 <= response.status < 400:
        return InvalidAnswer(
            f"{failure}: {response.host} answered with a redirect ({response.status}){_target(response, secrets)}, "
            "which is never followed with credentials.",
            remedy=f"Check the address; use the one it leads to if you trust it. {CAPTIVE_PORTAL}",
            **details,
        )
    if response.status == 511:  # Network Authentication Required (RFC 6585 section 6)
        return UnavailableAnswer(told, remedy=CAPTIVE_PORTAL, **details)
    if response.status == 429 or response.status >= 500:
        details["retry_after"] = wait = _retry_after(response.headers)
        when = f"ry again in {math.ceil(wait)} s." if wait is not None else "ry again later."
        if response.status == 429:
            return RateLimitedAnswer(told, remedy=f"T{when}", **details)
        return UnavailableAnswer(told, remedy=f"The service has a problem; t{when}", **details)
    if response.status in (401, 403) or error in ("access_denied", "invalid_grant", "invalid_client"):
        return UnauthorizedAnswer(told, **details)
    return FailedAnswer(told, **details)


def _target(response: Response, secrets: Collection[str]) -> str:
    host = split_url(response.headers.get("Location", "")).netloc.rpartition("@")[2]
    return f" to {_quoted(host, secrets)}" if host else ""


def _server_words(answer: Mapping[str, Any], secrets: Collection[str]) -> tuple[str | None, str | None]:
    """``error`` and its description in Auth0's and CARTO's shapes of an error."""
    error = answer.get("error")
    if isinstance(error, dict):
        return _server_words({**error, "error": error.get("status") or error.get("code")}, secrets)
    description = answer.get("error_description") or answer.get("message") or answer.get("hint")
    if isinstance(error, list):
        error = "; ".join(one for one in error if isinstance(one, str))
    return (
        _quoted(error, secrets) if isinstance(error, str) and error else None,
        _quoted(description, secrets) if isinstance(description, str) and description else None,
    )


def _is_sentence(error: str | None) -> bool:
    """Whether an ``error`` is words of CARTO's, and not one of OAuth's codes, which its description explains."""
    return bool(error) and " " in str(error)


def _quoted(words: str, secrets: Collection[str]) -> str:
    """A server's words on one line, without our secrets and control characters, shortened."""
    words = without_secrets(words[: 5 * LONGEST_QUOTE], secrets)
    words = "".join(character if character.isprintable() else " " for character in words).strip()
    return words if len(words) <= LONGEST_QUOTE else f"{words[: LONGEST_QUOTE - 3]}..."


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds until another try makes sense: ``Retry-After``, Auth0's quota and rate-limit headers, in turn."""
    readers: list[Callable[[], float]] = [
        lambda: float(headers["Retry-After"]),
        lambda: parsedate_to_datetime(headers["Retry-After"]).timestamp() - time.time(),
        lambda: _quota_reset(headers["Auth0-Client-Quota-Limit"]),
        lambda: float(headers["x-ratelimit-reset"]) - time.time(),
    ]
    for read in readers:
        with suppress(KeyError, ValueError, TypeError, OverflowError):
            seconds = read()
            if 0 <= seconds < 31 * 86_400:
                return seconds
    return None


def _quota_reset(quotas: str) -> float:
    """Seconds until the last used-up quota is renewed: ``b=per_hour;q=100;r=0;t=1800``, and others after commas."""
    buckets = [dict(part.strip().split("=", 1) for part in quota.split(";")) for quota in quotas.split(",")]
    return max(float(bucket["t"]) for bucket in buckets if float(bucket.get("r", "0")) <= 0)
