"""Failures: why no answer came, or none that is HTTP, told as our errors. They hold neither a secret nor a request."""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Iterable
from typing import TypeVar

import requests
from urllib3.exceptions import DecodeError

from carto_auth._http.redaction import quoted
from carto_auth.errors import InvalidAnswer, ServiceUnreachable

_Error = TypeVar("_Error", bound=BaseException)

#: What to do where somebody else answers in the place of a service.
CAPTIVE_PORTAL = (
    "This happens in networks that want you to sign in first, such as a hotel's or a company's: open a web page in "
    "your browser, then try again."
)


class RequestFailed(ServiceUnreachable, requests.RequestException):
    """A :class:`ServiceUnreachable` from the network, which callers may also catch as ``requests`` raises it."""


class Unreadable(InvalidAnswer, requests.RequestException):
    """An :class:`InvalidAnswer` that ``requests`` has exceptions for too: not HTTP, not the JSON it should be."""


_CLOSED = (
    ConnectionResetError,
    ConnectionAbortedError,
    BrokenPipeError,
    http.client.IncompleteRead,
    ssl.SSLEOFError,
    ssl.SSLZeroReturnError,
)
_BY_A_PROXY = (requests.exceptions.ProxyError, requests.exceptions.InvalidProxyURL, requests.exceptions.InvalidSchema)


def unreachable(host: str, error: Exception, bundle: str | None) -> RequestFailed | Unreadable:
    """Our error for one of ``requests`` or below; nothing of it is kept but a few words.

    Args:
        host: who was asked.
        error: what was raised.
        bundle: the path of the CA bundle that was used; ``None`` for the one that ``requests`` brings.
    """
    reasons = _reasons(error)
    if _first(reasons, *_CLOSED):
        return RequestFailed(f"{host} closed the connection before its answer was complete.", remedy="Try again.")
    if by_tls := _first(reasons, ssl.SSLError):
        return _insecure(host, by_tls, bundle)
    if _first(reasons, *_BY_A_PROXY):
        return RequestFailed(
            f"Cannot reach {host} through the proxy that the environment names.",
            remedy="Check HTTPS_PROXY and NO_PROXY. A SOCKS proxy needs the package PySocks.",
        )
    if _first(reasons, TimeoutError):
        return RequestFailed(f"{host} did not answer in time.", remedy="Try again later.")
    if _first(reasons, http.client.HTTPException, DecodeError):
        return Unreadable(
            f"{host} sent something that is not an HTTP answer.", remedy="Check the address and its port."
        )
    words = [one.strerror for one in reasons if isinstance(one, OSError) and one.strerror]
    return RequestFailed(
        f"Cannot reach {host} ({quoted(words[-1]) if words else type(error).__name__}).",
        remedy="Check the network connection, the address, and HTTPS_PROXY if you use a proxy. Then try again.",
    )


def _first(reasons: Iterable[BaseException], *kinds: type[_Error]) -> _Error | None:
    return next((reason for reason in reasons if isinstance(reason, kinds)), None)


def _reasons(error: BaseException) -> list[BaseException]:
    """``error`` and all that led to it, from the outermost on; urllib3 keeps some in attributes."""
    found = [error]
    for one in found:  # which grows meanwhile
        attributes = (getattr(one, name, None) for name in ("reason", "original_error", "__cause__", "__context__"))
        found += [led for led in (*one.args, *attributes) if isinstance(led, BaseException) and led not in found]
    return found


def _insecure(host: str, error: ssl.SSLError, bundle: str | None) -> RequestFailed:
    if error.library == "X509":  # which reads certificates
        return RequestFailed(
            f"There are no certificates in {bundle}, which the environment names as the CA bundle.",
            remedy="Check REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE and SSL_CERT_FILE.",
        )
    if isinstance(error, ssl.SSLCertVerificationError):
        return RequestFailed(
            f"The certificate of {host} was not accepted ({quoted(error.verify_message.rstrip('.'))}).",
            remedy=_remedy_for_certificate(error.verify_code, bundle),
        )
    reason = (error.reason or "no reason given").lower().replace("_", " ")
    return RequestFailed(
        f"Cannot make a secure connection to {host} ({quoted(reason)}).",
        remedy="Check the address and its port, and the proxy if there is one.",
    )


def _remedy_for_certificate(code: int, bundle: str | None) -> str:
    """What to do by OpenSSL's reason: a time, a name, or an authority that is not in ``bundle``."""
    if code in (9, 10):  # X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED
        return "Check this computer's date and time. If they are right, whoever runs that host has to renew it."
    if code in (62, 64):  # X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH
        return f"Check the address. {CAPTIVE_PORTAL}"
    if bundle is not None:
        return f"Its authority is not in {bundle}, the CA bundle that the environment names: add it there."
    return (
        "Behind a company's proxy, or with a CARTO that has a private certificate authority, set REQUESTS_CA_BUNDLE "
        f"to its CA bundle. {CAPTIVE_PORTAL}"
    )
