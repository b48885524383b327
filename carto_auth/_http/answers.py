"""Answers: what is kept of one, the JSON in it, and our error for one that is not a success."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

import requests

from carto_auth._http.failures import CAPTIVE_PORTAL, Unreadable
from carto_auth._http.redaction import quoted
from carto_auth._trust import split_url
from carto_auth.errors import InvalidAnswer, RateLimited, ServerError, ServiceUnavailable, Unauthorized

#: What to do about a refusal that is not in CARTO's form.
_SOMETHING_BETWEEN = (
    "Something between you and CARTO answered, such as a company's proxy or firewall: ask whoever runs it to let "
    "requests to {} through. If this network wants you to sign in first, open a web page in your browser, then try "
    "again."
)


class UnauthorizedAnswer(Unauthorized, requests.HTTPError):
    """:class:`Unauthorized`, and as ``raise_for_status`` of ``requests`` tells it. Its ``response`` is ``None``."""


class RateLimitedAnswer(RateLimited, requests.HTTPError):
    """:class:`RateLimited`, and as ``requests`` tells it."""


class UnavailableAnswer(ServiceUnavailable, requests.HTTPError):
    """:class:`ServiceUnavailable`, and as ``requests`` tells it."""


class FailedAnswer(ServerError, requests.HTTPError):
    """:class:`ServerError`, and as ``requests`` tells it."""


class Response(NamedTuple):
    """What is kept of an answer. The request is not, so that no secret hangs on it."""

    host: str
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def is_success(self) -> bool:
        return 200 <= self.status < 300

    @property
    def is_web_page(self) -> bool:
        return self.body.lstrip()[:1] == b"<"


def json_object(
    response: Response, *, failure: str, secrets: Collection[str], empty_is_fine: bool = False
) -> dict[str, Any]:
    """The JSON object that a successful answer holds.

    Args:
        response: the answer.
        failure: what failed if it is not that, for the message.
        secrets: what the message must not show.
        empty_is_fine: whether a success may come without a body; ``{}`` is returned then.

    Raises:
        Unauthorized, RateLimited, ServiceUnavailable, ServerError: it is not a success, or it names an error.
        InvalidAnswer: it is a success without a JSON object, or a redirect.
    """
    is_empty = response.is_success and not response.body
    answer = {} if is_empty and empty_is_fine else _json(response)
    if not response.is_success or (isinstance(answer, dict) and answer.get("error")):
        raise translated(response, failure=failure, secrets=secrets)
    if isinstance(answer, dict):
        return answer
    kind = "nothing" if not response.body else "a web page" if response.is_web_page else "something else"
    raise Unreadable(
        f"{failure}: {response.host} sent {kind} instead of a JSON object.",
        remedy=CAPTIVE_PORTAL,
        status=response.status,
    )


def _json(response: Response) -> Any:
    try:
        return json.loads(response.body.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return None


def translated(response: Response, *, failure: str, secrets: Collection[str]) -> ServerError:
    """The error for an answer that is not a success, with the server's own words where it has any."""
    answer = _json(response)
    error, description = _server_words(answer if isinstance(answer, dict) else {}, secrets)
    details: dict[str, Any] = {"status": response.status, "error": error, "error_description": description}
    words = _sentences(error, description) or ("a web page" if response.is_web_page else "")
    told = f"{failure}: {response.host} answered {response.status}" + (f" ({words})." if words else ".")
    if 300 <= response.status < 400:
        return InvalidAnswer(
            f"{failure}: {response.host} answered with a redirect ({response.status}){_target(response, secrets)}, "
            "which is never followed with credentials.",
            remedy=f"Check the address; use the one it leads to if you trust it. {CAPTIVE_PORTAL}",
            **details,
        )
    if response.status == 511:  # Network Authentication Required (RFC 6585 section 6)
        return UnavailableAnswer(told, remedy=CAPTIVE_PORTAL, **details)
    if response.status == 429 or response.status >= 500:  # which may be another answer later
        wait = seconds_to_wait(response.status, response.headers)
        when = "later" if wait is None else f"in {math.ceil(wait)} s"
        if response.status == 429:
            return RateLimitedAnswer(told, remedy=f"Try again {when}.", retry_after=wait, **details)
        remedy = f"The service has a problem; try again {when}."
        return UnavailableAnswer(told, remedy=remedy, retry_after=wait, **details)
    is_refusal = response.status in (401, 403) or error in ("access_denied", "invalid_grant", "invalid_client")
    # CARTO refuses in JSON. What is not there (404) may be a page of CARTO's all the same.
    is_cartos = answer is not None or not response.body or response.status == 404
    kind = UnauthorizedAnswer if is_refusal else FailedAnswer
    return kind(told, remedy=None if is_cartos else _SOMETHING_BETWEEN.format(response.host), **details)


def _target(response: Response, secrets: Collection[str]) -> str:
    host = split_url(response.headers.get("Location", "")).netloc.rpartition("@")[2]
    return f" to {quoted(host, secrets)}" if host else ""


def _server_words(answer: Mapping[str, Any], secrets: Collection[str]) -> tuple[str | None, str | None]:
    """``error`` and its description in the shapes that Auth0, CARTO and Google's servers give an error."""
    error = answer.get("error")
    if isinstance(error, dict):
        answer, error = error, error.get("status")
    description = answer.get("error_description") or answer.get("message") or answer.get("hint")
    if isinstance(error, list):
        error = "; ".join(one for one in error if isinstance(one, str))
    return (
        quoted(error, secrets) if isinstance(error, str) and error else None,
        quoted(description, secrets) if isinstance(description, str) and description else None,
    )


def _sentences(error: str | None, description: str | None) -> str:
    """What a message shows of the two. ``error`` may be words of CARTO's, or a code that the description explains."""
    if description and not (error and " " in error):
        error = None
    return ". ".join(words.rstrip(". ") for words in (error, description) if words)


# ---- when to try again ---------------------------------------------------------------------------


def seconds_to_wait(status: int, headers: Mapping[str, str]) -> float | None:
    """Seconds until another try makes sense; ``None`` where nothing sensible is said of that.

    ``Retry-After`` (RFC 9110 section 10.2.3) says it, in seconds or as a date; where there were too many requests, also
    Auth0's headers for quotas and for rate limits, the last of which are in every answer.
    """
    readers: list[Callable[[], float]] = [
        lambda: float(headers["Retry-After"]),
        lambda: parsedate_to_datetime(headers["Retry-After"]).timestamp() - time.time(),
    ]
    if status == 429:
        readers.append(lambda: _quota_reset(headers["Auth0-Client-Quota-Limit"]))
        readers.append(lambda: float(headers["x-ratelimit-reset"]) - time.time())
    for read in readers:
        with suppress(KeyError, ValueError, TypeError, OverflowError):
            seconds = read()
            if 0 <= seconds < 31 * 86_400:
                return seconds
    return None


def _quota_reset(quotas: str) -> float:
    """Seconds until the last quota that is used up begins again: ``b=per_hour;q=100;r=0;t=1800``, more after commas."""
    buckets = [dict(part.strip().split("=", 1) for part in quota.split(";")) for quota in quotas.split(",")]
    return max(float(bucket["t"]) for bucket in buckets if float(bucket.get("r", "0")) <= 0)
