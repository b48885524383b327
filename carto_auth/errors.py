"""What can go wrong, as exceptions. One root, so that one ``except CredentialsError`` is enough.

::

    CredentialsError
    ├── CredentialsFileNotFound     FileNotFoundError  the credentials file is not there
    ├── MissingCredential           AttributeError     a key is missing from it
    ├── InvalidCredential           ValueError         a value or the whole file cannot be used
    ├── MissingDependency           ImportError        an extra of this package is not installed
    ├── LoginRequired                                  a person has to log in, and none can be asked here
    ├── LoginFailed                                    a person was asked, and the login did not succeed
    │   ├── LoginDenied                                ... because CARTO or the person refused
    │   └── LoginTimedOut                              ... because nobody answered in time
    ├── UntrustedAddress            ValueError         a token would be sent where it must not go
    ├── ServiceUnreachable          OSError            no answer came: offline, wrong name, no TLS, too slow
    └── ServerError                                    an answer came, and it was not a success
        ├── Unauthorized                               wrong or expired credentials, or no permission
        ├── RateLimited                                too many requests; try again later
        ├── ServiceUnavailable                         the service has a problem
        ├── InvalidAnswer           ValueError         the answer makes no sense
        ├── TenantNotFound                             the account has no CARTO organization yet
        └── WarehouseUnavailable                       the account has no CARTO Data Warehouse

The second column is the built-in exception that an error also is, because code written for carto-auth 0.2.0
may catch that one. An error that comes from the network is a ``requests.RequestException`` too, and one for an
HTTP status a ``requests.HTTPError``. Those classes are not here, because this module imports nothing.
"""

from __future__ import annotations


class CredentialsError(Exception):
    """The root of all errors of this package.

    Its text says what failed, what was seen and, last, what to do. It never contains a secret.

    Attributes:
        message (str): what failed and what was seen; the text without its advice.
        remedy (str | None): what to do; ``None`` when there is nothing to advise.
        status (int | None): the HTTP status of the answer that failed; ``None`` when no service answered.
        error (str | None): the error code in the answer, such as ``"access_denied"`` (RFC 6749 section 5.2);
            ``None`` when it has none.
        error_description (str | None): the server's own words, shortened; ``None`` when there are none.
        retry_after (float | None): seconds to wait before another try may succeed; ``None`` when not known.
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

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows, which asks for it by this name: first the message, then the program's own lines."""
        import traceback

        package = __file__.rpartition("errors")[0]
        lines = [f"{type(self).__name__}: {self}"]
        for frame in traceback.extract_tb(self.__traceback__):
            if frame.filename.startswith(package):
                break
            lines += traceback.format_list([frame]) if "IPython" not in frame.filename else []
        return lines


class CredentialsFileNotFound(CredentialsError, FileNotFoundError):
    """No credentials file was found at its path, or in any of the usual places."""


class MissingCredential(CredentialsError, AttributeError):
    """A credential is missing: from the file, from the arguments or from the environment."""


class InvalidCredential(CredentialsError, ValueError):
    """A credential is empty or of the wrong kind, or its file cannot be read as JSON."""


class MissingDependency(CredentialsError, ImportError):
    """A part of this package was used whose extra is not installed."""


class LoginRequired(CredentialsError):
    """Only a person can get this token, and there is nobody to ask: no terminal, no notebook, a worker process."""


class LoginFailed(CredentialsError):
    """A login was begun and did not succeed."""


class LoginDenied(LoginFailed):
    """CARTO, or the person on its consent page, refused the login."""


class LoginTimedOut(LoginFailed):
    """Nobody finished the login in time."""


class UntrustedAddress(CredentialsError, ValueError):
    """No token may be sent to this address: it is not secure, or nobody who may name an address has named it."""


class ServiceUnreachable(CredentialsError, OSError):
    """A service gave no answer, or no complete one."""


class ServerError(CredentialsError):
    """A service answered, and the answer was not a success."""


class Unauthorized(ServerError):
    """The service did not accept the credentials: HTTP 401 or 403, ``access_denied``, ``invalid_grant``."""


class RateLimited(ServerError):
    """There were too many requests: HTTP 429. ``retry_after`` has the seconds to wait if the service gave them."""


class ServiceUnavailable(ServerError):
    """The service has a problem: HTTP 5xx, after all tries."""


class InvalidAnswer(ServerError, ValueError):
    """The answer is a success by its status, but cannot be used."""


class TenantNotFound(ServerError):
    """The login is good, but the account does not belong to a CARTO organization yet."""


class WarehouseUnavailable(ServerError):
    """The account has no CARTO Data Warehouse, or may not use it."""
