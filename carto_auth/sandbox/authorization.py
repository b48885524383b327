"""The OAuth side: Authlib's authorization server on Flask, with Auth0's rules and the shapes of its errors."""

# Authlib has no types, and pyright guesses them from its source: the models by their mixins, None by defaults.
# pyright: reportIncompatibleMethodOverride=false, reportOptionalMemberAccess=false, reportArgumentType=false
# pyright: reportAttributeAccessIssue=false, reportAssignmentType=false, reportIncompatibleVariableOverride=false

from __future__ import annotations

import logging
import secrets
from typing import TYPE_CHECKING, Any

from authlib.integrations.flask_oauth2 import AuthorizationServer
from authlib.oauth2 import OAuth2Request
from authlib.oauth2.rfc6749 import (
    AccessDeniedError,
    InvalidGrantError,
    InvalidRequestError,
    OAuth2Error,
    OAuth2Payload,
)
from authlib.oauth2.rfc6749 import grants as authlib_grants
from authlib.oauth2.rfc6750 import BearerTokenGenerator
from authlib.oauth2.rfc7009 import RevocationEndpoint
from authlib.oauth2.rfc7636 import CodeChallenge
from authlib.oauth2.rfc9207 import IssuerParameter
from flask import Blueprint, Response, current_app, has_app_context, jsonify, request
from werkzeug.datastructures import MultiDict

from carto_auth._services import AUDIENCE, CLIENT_ID
from carto_auth.sandbox.state import CODE_LIFETIME, Application, Code, Login, RefreshToken

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flask import Request

    from carto_auth.sandbox.jwt_tokens import TokenMint
    from carto_auth.sandbox.state import State


class AuthorizationRefused(Exception):
    """An authorization request that must not be answered with a redirect (RFC 6749 section 4.1.2.1)."""


class SandboxAuthorizationServer(AuthorizationServer):  # type: ignore[misc]
    """Authlib's server, with the sandbox's state for its database."""

    def __init__(self, state: State, mint: TokenMint) -> None:
        _keep_authlib_quiet()
        super().__init__(query_client=state.application, save_token=self._keep_refresh_token)
        self.state = state
        self.register_token_generator(
            "default",
            BearerTokenGenerator(
                access_token_generator=lambda client, user, **_: mint.issue(client.client_id, user),
                refresh_token_generator=lambda **_: f"v1.{secrets.token_urlsafe(40)}",
                expires_generator=lambda *_: int(state.switches.token_lifetime),
            ),
        )
        self.register_grant(_AuthorizationCodeGrant, [_S256Only(), _Auth0Rules()])
        self.register_grant(_ClientCredentialsGrant)
        self.register_grant(_RefreshTokenGrant)
        self.register_endpoint(_Revocation)
        self._issuer = _Issuer(state.issuer)
        self.register_extension(self._issuer)

    def begin(self, parameters: dict[str, list[str]]) -> Response | None:
        """Check an authorization request: ``None`` if the person may be asked, else the error's redirect.

        Raises:
            AuthorizationRefused: where not even an error may go to the redirect URI.
        """
        oauth_request = _OAuthRequest("GET", parameters)
        try:
            self.get_consent_grant(oauth_request)
            if self.state.switches.deny_logins:
                raise AccessDeniedError(
                    "The sandbox denies all logins.",
                    redirect_uri=oauth_request.payload.redirect_uri,
                    state=oauth_request.payload.state,
                )
        except OAuth2Error as error:
            if not error.redirect_uri:
                raise AuthorizationRefused(f"{error.error}: {error.get_error_description()}") from error
            response: Response = self.handle_error_response(oauth_request, error)
            self._issuer.add_issuer_parameter(self, response)
            return response
        except ValueError as error:
            # Authlib repeats what it was sent in some messages, and refuses to build them from odd characters.
            raise AuthorizationRefused("invalid_request: a parameter holds characters it must not.") from error
        return None

    def answer(self, parameters: dict[str, list[str]], login: Login | None) -> Response:
        """The redirect that ends an authorization request: with a code, or (no login) with access_denied."""
        oauth_request = _OAuthRequest("GET", parameters)
        grant = self.get_consent_grant(oauth_request)
        response: Response = self.create_authorization_response(request=oauth_request, grant_user=login, grant=grant)
        return response

    def create_oauth2_request(self, request: OAuth2Request | None) -> OAuth2Request:
        """Authlib's view of a request: one that was remembered, or the one that Flask is serving."""
        return request if isinstance(request, OAuth2Request) else _OAuthRequest.of(_served())

    def handle_error_response(self, request: OAuth2Request, error: OAuth2Error) -> Any:
        """Give an error the status and the words of Auth0."""
        if error.error == "invalid_client":
            error = AccessDeniedError("Unauthorized", status_code=401)
        elif error.error == "invalid_grant":
            error.status_code = 403
        elif not error.description:
            error.description = error.get_error_description()
        return super().handle_error_response(request, error)

    def _keep_refresh_token(self, token: dict[str, Any], request: OAuth2Request) -> None:
        if "refresh_token" not in token:
            return
        previous = request.refresh_token
        self.state.save_refresh_token(
            RefreshToken(
                token["refresh_token"],
                previous.family if previous else secrets.token_hex(8),
                request.client.client_id,
                request.user,
            )
        )


def _keep_authlib_quiet() -> None:
    """Keep what Authlib logs for the sandbox out of the log of the program around it: there are tokens in it."""
    # A filter sees what its own logger is given, not what comes from the loggers below it: hence each of them.
    for name in [name for name in logging.root.manager.loggerDict if name.startswith("authlib.")]:
        logging.getLogger(name).addFilter(_is_not_the_sandboxs)


def _is_not_the_sandboxs(record: logging.LogRecord) -> bool:
    # The program may have a server on Authlib of its own, which logs as it likes.
    return not (has_app_context() and current_app.import_name.startswith("carto_auth.sandbox"))


class _OAuthRequest(OAuth2Request):  # type: ignore[misc]
    """A request that Authlib takes for secure: it refuses plain http, and this one never leaves the computer."""

    def __init__(
        self, method: str, query: Mapping[str, list[str]], form: Mapping[str, list[str]] | None = None
    ) -> None:
        super().__init__(method, "https://sandbox.invalid/")
        self._query: MultiDict[str, str] = MultiDict(query)
        self._form: MultiDict[str, str] = MultiDict(form or {})
        self.payload = _Payload(MultiDict([*self._query.items(multi=True), *self._form.items(multi=True)]))

    @classmethod
    def of(cls, served: Request) -> _OAuthRequest:
        return cls(served.method, served.args.to_dict(flat=False), served.form.to_dict(flat=False))

    @property
    def args(self) -> MultiDict[str, str]:
        return self._query

    @property
    def form(self) -> MultiDict[str, str]:
        return self._form


class _Payload(OAuth2Payload):  # type: ignore[misc]
    def __init__(self, values: MultiDict[str, str]) -> None:
        self._values = values

    @property
    def data(self) -> MultiDict[str, str]:
        return self._values

    @property
    def datalist(self) -> dict[str, list[str]]:
        return self._values.to_dict(flat=False)


class _Issuer(IssuerParameter):  # type: ignore[misc]
    """``iss`` in every redirect (RFC 9207)."""

    def __init__(self, issuer: str) -> None:
        self._issuer = issuer

    def get_issuer(self) -> str:
        return self._issuer


class _S256Only(CodeChallenge):  # type: ignore[misc]
    """PKCE with S256, and never without."""

    SUPPORTED_CODE_CHALLENGE_METHOD = ("S256",)
    CODE_CHALLENGE_METHODS = {"S256": CodeChallenge.CODE_CHALLENGE_METHODS["S256"]}  # noqa: RUF012 - Authlib's

    def validate_code_challenge(self, grant: Any, redirect_uri: str) -> None:
        # Authlib lets a request without any challenge pass, and takes a missing method for plain.
        for parameter in ("code_challenge", "code_challenge_method"):
            if not grant.request.payload.data.get(parameter):
                raise InvalidRequestError(f"Missing '{parameter}'")
        super().validate_code_challenge(grant, redirect_uri)


class _Auth0Rules:
    """Authlib knows neither Auth0's audiences nor its organizations."""

    def __call__(self, grant: Any) -> None:
        grant.register_hook("after_validate_authorization_request_payload", self.validate)

    @staticmethod
    def validate(grant: Any, redirect_uri: str) -> None:
        parameters = grant.request.payload.data
        _require_audience(parameters.get("audience"))
        organization = parameters.get("organization")
        if organization and organization != grant.server.state.organization_id:
            raise InvalidRequestError("parameter organization is invalid")


class _AuthorizationCodeGrant(authlib_grants.AuthorizationCodeGrant):  # type: ignore[misc]
    TOKEN_ENDPOINT_AUTH_METHODS = ("none",)

    @staticmethod
    def validate_authorization_redirect_uri(request: OAuth2Request, client: Application) -> str:
        redirect_uri: str | None = request.payload.redirect_uri
        if not redirect_uri or not client.check_redirect_uri(redirect_uri):
            raise InvalidRequestError("Callback URL mismatch. The redirect_uri is not registered.")
        return redirect_uri

    def create_authorization_response(self, redirect_uri: str, grant_user: Login | None) -> Any:
        if grant_user is None:
            raise AccessDeniedError("User did not authorize the request", redirect_uri=redirect_uri)
        return super().create_authorization_response(redirect_uri, grant_user)

    def save_authorization_code(self, code: str, request: OAuth2Request) -> None:
        state: State = self.server.state
        parameters = request.payload.data
        state.save_code(
            Code(
                code,
                request.client.client_id,
                parameters["redirect_uri"],
                parameters["code_challenge"],
                parameters["code_challenge_method"],
                request.user,
                state.now() + CODE_LIFETIME,
                # Whether CARTO's own client may have refresh tokens is not known: a switch decides.
                "offline_access" in parameters.get("scope", "").split() and request.client.client_id != CLIENT_ID,
            )
        )

    def query_authorization_code(self, code: str, client: Application) -> Code:
        found: Code | None = self.server.state.take_code(code)
        if found is None or found.client_id != client.client_id:
            raise InvalidGrantError("Invalid authorization code")
        return found

    def delete_authorization_code(self, authorization_code: Code) -> None:
        """It is gone already: taking it is what makes it single use."""

    def authenticate_user(self, authorization_code: Code) -> Login:
        return authorization_code.login

    def validate_token_request(self) -> None:
        audience = self.request.form.get("audience")
        if audience is not None:
            _require_audience(audience, 403)
        super().validate_token_request()

    def generate_token(self, *args: Any, include_refresh_token: bool = True, **kwargs: Any) -> Any:
        wanted = include_refresh_token and (
            self.server.state.switches.refresh_tokens or self.request.authorization_code.is_offline
        )
        return super().generate_token(*args, include_refresh_token=wanted, **kwargs)


class _ClientCredentialsGrant(authlib_grants.ClientCredentialsGrant):  # type: ignore[misc]
    TOKEN_ENDPOINT_AUTH_METHODS = ("client_secret_post",)

    def validate_token_request(self) -> None:
        super().validate_token_request()
        _require_audience(self.request.form.get("audience"), 403)


class _RefreshTokenGrant(authlib_grants.RefreshTokenGrant):  # type: ignore[misc]
    TOKEN_ENDPOINT_AUTH_METHODS = ("none",)
    INCLUDE_NEW_REFRESH_TOKEN = True

    def authenticate_refresh_token(self, refresh_token: str) -> RefreshToken:
        found: RefreshToken | None = self.server.state.use_refresh_token(refresh_token)
        if found is None:
            raise InvalidGrantError("Unknown or invalid refresh token.")
        return found

    def authenticate_user(self, refresh_token: RefreshToken) -> Login:
        return refresh_token.login

    def revoke_old_credential(self, refresh_token: RefreshToken) -> None:
        """It is used already, and stays known: presenting it again must be noticed."""


class _Revocation(RevocationEndpoint):  # type: ignore[misc]
    CLIENT_AUTH_METHODS = ("none",)

    def query_token(self, token_string: str, token_type_hint: str | None) -> RefreshToken | None:
        # Auth0 revokes refresh tokens only; a token that is not known is a success (RFC 7009 section 2.2).
        found: RefreshToken | None = self.server.state.refresh_token(token_string)
        return found

    def revoke_token(self, token: RefreshToken, request: OAuth2Request) -> None:
        self.server.state.revoke_family(token.family)


def _require_audience(audience: str | None, status: int | None = None) -> None:
    if audience == AUDIENCE:
        return
    # Only these characters may stand in an error_description (RFC 6749 section 4.1.2.1).
    shown = "".join(c for c in audience or "" if " " <= c <= "~" and c not in '"\\')
    raise AccessDeniedError(f"Service not found: {shown}", status_code=status)


def create_blueprint(server: SandboxAuthorizationServer) -> Blueprint:
    """The token and revocation endpoints; the authorization endpoint is with the pages it leads to."""
    blueprint = Blueprint("authorization", __name__)
    state = server.state

    @blueprint.post("/oauth/token")
    def token() -> Response:
        if state.switches.token_delay > 0:
            state.stopping.wait(state.switches.token_delay)
        if state.switches.rate_limited is not None:
            return _too_many_requests(state.switches.rate_limited, state.now())
        response: Response = server.create_token_response()
        return response

    @blueprint.post("/oauth/revoke")
    def revoke() -> Response:
        response: Response = server.create_endpoint_response("revocation")
        return response

    return blueprint


def _too_many_requests(seconds: int, now: float) -> Response:
    response = jsonify(statusCode=429, error="Too Many Requests", message="Global limit has been reached")
    response.status_code = 429
    response.headers["Retry-After"] = str(seconds)
    response.headers["x-ratelimit-limit"] = "10"
    response.headers["x-ratelimit-remaining"] = "0"
    response.headers["x-ratelimit-reset"] = str(int(now + seconds))
    return response


def _served() -> Request:
    return request
