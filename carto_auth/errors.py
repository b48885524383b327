"""What can go wrong, as exceptions. One root, so that one ``except CredentialsError`` is enough.

::

    CredentialsError
    ├── CredentialsFileNotFound     FileNotFoundError  the credentials file is not there
    ├── MissingCredential           AttributeError     a key is missing in it
    ├── InvalidCredential           ValueError         a value or the whole file cannot be used
    ├── MissingDependency           ImportError        an extra of this package is not installed
    ├── LoginRequired                                  a person has to log in, and none can be asked here
    ├── LoginFailed                                    a person was asked, and no login came of it
    │   ├── LoginDenied                                ... CARTO or the person said no
    │   └── LoginTimedOut                              ... nobody answered in time
    ├── UntrustedAddress            ValueError         a token would go where it must not go
    ├── ServiceUnreachable          OSError            no answer came: offline, wrong name, no TLS, too slow
    └── ServerError                                    an answer came, and it was no success
        ├── Unauthorized                               wrong or expired credentials, or no permission
        ├── RateLimited                                too many requests; try again later
        ├── ServiceUnavailable                         the service is in trouble
        ├── InvalidAnswer           ValueError         the answer makes no sense
        ├── TenantNotFound                             the account has no CARTO organization yet
        └── WarehouseUnavailable                       the account has no CARTO Data Warehouse

The second column is the built-in (or ``requests``) exception that an error also is, because code written
for carto-auth 0.2.0 may catch that. A ``ServiceUnreachable`` that comes from the network is a
``requests.RequestException`` as well, and an error for an HTTP status a ``requests.HTTPError``; this module cannot
say so without importing ``requests``.
"""

from __future__ import annotations

__all__ = [
    "CredentialsError",
    "CredentialsFileNotFound",
    "InvalidAnswer",
    "InvalidCredential",
    "LoginDenied",
    "LoginFailed",
    "LoginRequired",
    "LoginTimedOut",
    "MissingCredential",
    "MissingDependency",
    "RateLimited",
    "ServerError",
    "ServiceUnavailable",
    "ServiceUnreachable",
    "TenantNotFound",
    "Unauthorized",
    "UntrustedAddress",
    "WarehouseUnavailable",
]


class CredentialsError(Exception):
    """The root of all errors of this package.

    Its text says what failed, what was seen and, last, what to do. It never holds a secret.

    Attributes:
        remedy: what to do, apart from the message; ``None`` when there is nothing to advise.
        status: the HTTP status of the answer that failed, or ``None``.
        error: the error code of the answer (RFC 6749 section 5.2, such as ``"access_denied"``), or ``None``.
        error_description: the server's own words, shortened, or ``None``.
        retry_after: seconds after which another try may succeed, or ``None``.
    """

    def __init__(
        self,
        message: str = "",
        *,
        remedy: str | None = None,
        status: int | None = None,
        error: str | None = None,
        error_description: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.status = status
        self.error = error
        self.error_description = error_description
        self.retry_after = retry_after

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}" if self.remedy else self.message


class CredentialsFileNotFound(CredentialsError, FileNotFoundError):
    """There is no credentials file where it was looked for."""


class MissingCredential(CredentialsError, AttributeError):
    """A key that a credentials file must have is not in it."""


class InvalidCredential(CredentialsError, ValueError):
    """A credential is empty or of the wrong kind, or the file that holds it cannot be read as JSON."""


class MissingDependency(CredentialsError, ImportError):
    """An optional part was used whose packages are not installed."""


class LoginRequired(CredentialsError):
    """Only a person can get this token, and there is nobody to ask: no terminal, no notebook, a worker."""


class LoginFailed(CredentialsError):
    """A login was begun and came to nothing."""


class LoginDenied(LoginFailed):
    """CARTO, or the person on its consent page, refused the login."""


class LoginTimedOut(LoginFailed):
    """Nobody finished the login before its deadline."""


class UntrustedAddress(CredentialsError, ValueError):
    """An address was named to which no token may be sent."""


class ServiceUnreachable(CredentialsError, OSError):
    """A service gave no answer at all."""


class ServerError(CredentialsError):
    """A service answered, and the answer was not a success."""


class Unauthorized(ServerError):
    """The service did not accept the credentials: HTTP 401 or 403, ``access_denied``, ``invalid_grant``."""


class RateLimited(ServerError):
    """Too many requests: HTTP 429. ``retry_after`` is in seconds where the service said so."""


class ServiceUnavailable(ServerError):
    """The service is in trouble: HTTP 5xx, after the retries."""


class InvalidAnswer(ServerError, ValueError):
    """A success by its status, but not an answer that can be used."""


class TenantNotFound(ServerError):
    """The login is good, but the account does not belong to a CARTO organization yet."""


class WarehouseUnavailable(ServerError):
    """The account has no CARTO Data Warehouse, or may not use it."""
