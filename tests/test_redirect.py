"""What comes back through the browser, judged without a browser."""

from __future__ import annotations

import pytest

from carto_auth import _redirect
from carto_auth._redirect import AuthorizationResponse, authorization_response

ISSUER = "https://auth.carto.com"


@pytest.mark.parametrize(
    "parameters",
    [
        "state=right&code=a-code",
        f"code=a-code&state=right&iss={ISSUER}",
        f"code=a-code&state=right&iss={ISSUER}/",
        "code=a-code&state=right&session_state=unknown",
    ],
)
def test_the_redirect_of_this_login(parameters):
    assert authorization_response(parameters, state="right", issuer=ISSUER) == AuthorizationResponse("a-code")


@pytest.mark.parametrize(
    "parameters",
    [
        "",
        "code=a-code",
        "code=a-code&state=",
        "code=a-code&state=wrong",
        "code=a-code&state=righ",
        "code=a-code&state=right&state=right",
        "code=a-code&code=b-code&state=right",
        "code=a-code&state=right&error=a&error=b",
        "state=right",
        "state=right&code=",
        "state=right&" + "&".join(f"a{n}=1" for n in range(100)),
    ],
)
def test_not_the_redirect_of_this_login(parameters):
    assert authorization_response(parameters, state="right", issuer=ISSUER) is None


def test_without_a_state_nothing_is_a_redirect():
    assert authorization_response("code=a-code&state=", state="", issuer=ISSUER) is None
    assert authorization_response("code=a-code", state="", issuer=ISSUER) is None


@pytest.mark.parametrize("issuer", ["https://evil.example", "https://auth.carto.com.evil.example", ""])
def test_a_redirect_from_another_issuer_ends_the_login(issuer):
    response = authorization_response(f"code=a-code&state=right&iss={issuer}", state="right", issuer=ISSUER)
    assert (response.code, response.error) == (None, "invalid_request")
    assert "another login service" in response.error_description


def test_a_refusal():
    parameters = "error=access_denied&error_description=No%0Abody.&state=right"
    response = authorization_response(parameters, state="right", issuer=ISSUER)
    assert response == AuthorizationResponse(None, "access_denied", "No body")


def test_the_state_is_compared_in_constant_time(monkeypatch):
    compared = []
    real = _redirect.compare_digest
    monkeypatch.setattr(
        _redirect, "compare_digest", lambda one, other: compared.append((one, other)) or real(one, other)
    )
    authorization_response("code=a-code&state=wrong", state="right", issuer=ISSUER)
    assert compared == [(b"wrong", b"right")]
