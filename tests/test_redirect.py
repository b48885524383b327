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


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("https://app.carto.com/auth/token?code=x", True),
        ("app.carto.com/auth/token?code=x", True),
        ("?code=x&state=y", True),
        ("x?error=access_denied", True),
        ("http://", True),
        ("a-code", False),
        ("a?b", False),
        ("a/b+c=", False),
    ],
)
def test_what_is_an_address(text, address):
    assert _redirect.is_address(text) is address


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("https://app.carto.com/auth/token?code=x", True),
        ("https://app.carto.com/auth/token/#x", True),
        ("app.carto.com/auth/token?code=x", True),
        ("?code=x", True),
        ("http://app.carto.com/auth/token?code=x", False),
        ("evil.example/auth/token?code=x", False),
        ("/auth/token?code=x", False),
    ],
)
def test_whether_an_address_is_of_a_page(text, same):
    assert _redirect.is_page(text, "https://app.carto.com/auth/token") is same


@pytest.mark.parametrize("pasted", ["'a-code'", ' "a-code" ', "\u201ca-code\u201d", "<a-code>", "\u00aba-code\u00bb"])
def test_blanks_and_quotes_around_a_code(pasted):
    assert _redirect.unquoted(pasted) == "a-code"


def test_an_error_without_a_word():
    response = authorization_response("error=&state=right", state="right", issuer=ISSUER)
    assert response == AuthorizationResponse(None, "no reason was given", None)
