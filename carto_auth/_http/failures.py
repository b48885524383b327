"""Failures: why no answer came, or none that is HTTP, told as our errors. They hold neither a secret nor a request."""

from __future__ import annotations

import http.client
import os
import ssl
from collections.abc import Iterator
from typing import Any

import requests
from urllib3.exceptions import DecodeError

from carto_auth._http.redaction import quoted
from carto_auth.errors import InvalidAnswer, ServiceUnreachable

CAPTIVE_PORTAL = (
    "This happens in networks that want you to sign in first, such as a hotel's or a company's: open a web page in "
    "your browser, then try again."
)


class RequestFailed(ServiceUnreachable, requests.RequestException):
    """A :class:`ServiceUnreachable` from the network, which callers may also catch as ``requests`` raises it."""


class Unreadable(InvalidAnswer, requests.RequestException):
    """An :class:`InvalidAnswer` that ``requests`` has exceptions for too: not HTTP, not the JSON it should be."""


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
        return Unreadable(
            f"{host} sent something that is not an HTTP answer.", remedy="Check the address and its port."
        )
    if first(OSError):
        told_by_the_system = [one.strerror for one in reasons if isinstance(one, OSError) and one.strerror]
        words = quoted(told_by_the_system[-1]) if told_by_the_system else type(error).__name__
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
            f"Cannot make a secure connection to {host} ({quoted(reason)}).",
            remedy="Check the address and its port, and the proxy if there is one.",
        )
    return RequestFailed(
        f"The certificate of {host} was not accepted ({quoted(refused.verify_message.rstrip('.'))}).",
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
