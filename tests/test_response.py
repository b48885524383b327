"""What comes back from the authorization server, judged without a browser."""

import pytest

from carto_auth._login.response import (
    AuthorizationResponse,
    checked_code_in,
    code_in,
    code_of,
    ends_login,
    response_for,
)
from carto_auth._services import Services
from carto_auth.errors import LoginDenied, LoginFailed

ISSUER = "https://auth.carto.com"
CARTO = Services()
CODE_PAGE = CARTO.code_page_url
OWN_CLIENT = Services(client_id="an SPA OAuth client")
SELF_HOSTED = Services(
    "https://sso.acme.example/auth-api", "https://sso.acme.example/accounts", "https://acme.example:8443"
)
SANDBOX = Services("http://127.0.0.1:4000", "http://127.0.0.1:4000", "http://127.0.0.1:4000")
OWN_PAGE = "https://maps.example.com/login"


# ---- by the browser ------------------------------------------------------------------------------


@pytest.mark.parametrize("more", ["", f"&iss={ISSUER}", f"&iss={ISSUER}/", "&session_state=unknown"])
def test_the_answer_to_this_login(more):
    response = response_for(f"state=right&code=a-code{more}", state="right", issuer=ISSUER)
    assert response == AuthorizationResponse("a-code")
    assert code_of(response) == "a-code"
    assert "a-code" not in repr(response)


@pytest.mark.parametrize(
    "query",
    [
        "",
        "code=a-code",
        "code=a-code&state=",
        "code=a-code&state=righ",
        "code=a-code&state=right&state=right",
        "code=a-code&code=b-code&state=right",
        "code=a-code&state=right&error=a&error=b",
        "state=right",
        "state=right&code=",
        "state=right&" + "&".join(f"a{n}=1" for n in range(100)),
    ],
)
def test_not_the_answer_to_this_login(query):
    assert response_for(query, state="right", issuer=ISSUER) is None


@pytest.mark.parametrize("query", ["code=a-code&state=", "code=a-code"])
def test_without_a_state_nothing_is_an_answer(query):
    assert response_for(query, state="", issuer=ISSUER) is None


@pytest.mark.parametrize("issuer", ["https://evil.example", "https://auth.carto.com.evil.example", ""])
def test_an_answer_from_another_issuer_ends_the_login(issuer):
    response = response_for(f"code=a-code&state=right&iss={issuer}", state="right", issuer=ISSUER)
    with pytest.raises(LoginDenied, match="from another login service"):
        code_of(response)


@pytest.mark.parametrize(
    ("query", "text"),
    [
        (
            "error=access_denied&error_description=User%0Ais not in the organization.",
            "CARTO did not log you in: User is not in the organization (access_denied). Try again, and allow access",
        ),
        ("error=server_error", "CARTO did not log you in (server_error). Begin a new login."),
        ("error=", "CARTO did not log you in (no reason was given). Begin a new login."),
    ],
)
def test_a_refusal_has_the_servers_words_and_its_code(query, text):
    response = response_for(f"{query}&state=right", state="right", issuer=ISSUER)
    with pytest.raises(LoginDenied) as denied:
        code_of(response)
    assert str(denied.value).startswith(text)
    assert (denied.value.error, denied.value.error_description) == (response.error, response.error_description)


# ---- pasted --------------------------------------------------------------------------------------


@pytest.mark.parametrize("services", [CARTO, OWN_CLIENT, Services(app_url="https://acme.example")])
@pytest.mark.parametrize(
    "page",
    [
        "https://app.carto.com/auth/token",
        "https://app.carto.com/auth/token/",
        "https://APP.carto.com/auth/success",
        "app.carto.com/auth/error",
        "https://carto.com",
        "carto.com/login/",
        "https://acme.app.carto.com/a/b",
        "http://localhost:10000/callback/",
        "localhost:10000/callback",
        OWN_PAGE,
        "maps.example.com/login/",
        "",
    ],
)
def test_a_login_may_end_anywhere_at_carto_and_at_its_redirect_uri(services, page):
    for more in ("", "?code=a-code&state=right", "?code=a-code#top"):
        assert ends_login(page + more, OWN_PAGE, services)


@pytest.mark.parametrize(
    ("page", "services"),
    [
        ("https://sso.acme.example/any", SELF_HOSTED),
        ("sso.acme.example/auth-api/done", SELF_HOSTED),
        ("https://acme.example:8443/auth/token", SELF_HOSTED),
        ("http://127.0.0.1:4000/any", SANDBOX),
        ("127.0.0.1:4000/auth/token", SANDBOX),
    ],
)
def test_or_at_the_hosts_of_the_services(page, services):
    assert ends_login(page, OWN_PAGE, services)
    assert not ends_login(page, OWN_PAGE, CARTO)


FOREIGN = [
    "https://evil.example/auth/token",
    "evil.example/auth/token",
    "https://carto.com.evil.example/auth/token",
    "https://evilcarto.com",
    "https://carto.com@evil.example",
    "https://carto.com:x@evil.example/",
    "https://evil.example\\@carto.com",
    "https://evil.example\\.carto.com",
    "https://evil.example/carto.com",
    "https://evil.example?@carto.com/",
    "https://evil.example#@carto.com/",
    "https://evil.example:443@carto.com",
    "https://app.carto.com:8443/auth/token",
    "app.carto.com:443/auth/token",
    "https://app.carto.com./auth/token",
    "http://app.carto.com/auth/token",
    "javascript://carto.com/%0Aalert(1)",
    "https://[carto.com",
    "https://c\u0430rto.com",
    "https://evil.example\t.carto.com",
    "https://.carto.com.",
    "https:carto.com",
    "//carto.com",
    "/auth/token",
    "http://localhost:10001/callback/",
    "http://localhost:10000/callback/more",
    f"{OWN_PAGE}/more",
]


@pytest.mark.parametrize("page", FOREIGN)
def test_a_foreign_site_ends_no_login(page):
    assert not ends_login(f"{page}{'&' if '?' in page else '?'}code=a-code&state=right", OWN_PAGE, CARTO)


@pytest.mark.parametrize("services", [SELF_HOSTED, SANDBOX])
def test_of_a_carto_elsewhere_cartos_cloud_is_foreign(services):
    assert not ends_login(CODE_PAGE, services.code_page_url, services)


def pasted(text, redirect_uri=CODE_PAGE, state="right"):
    return checked_code_in(text, redirect_uri=redirect_uri, state=state, services=CARTO)


@pytest.mark.parametrize(
    "text",
    [
        "a-code",
        " \t'a-code'\n",
        "\u201ca-code\u201d",
        "<a-code>",
        "\u00aba-code\u00bb",
        f"{CODE_PAGE}?code=a-code&state=right",
        f' "{CODE_PAGE}/?state=right&code=a-code#top" ',
        f"{CODE_PAGE}?code=a-code",
        f"{CODE_PAGE}?code=a-code&iss={ISSUER}/",
        "app.carto.com/auth/success?code=a-code",
        "http://localhost:10000/callback/?code=a-code&state=right",
        "?code=a-code&state=right",
    ],
)
def test_a_code_or_the_address_that_holds_it(text):
    assert pasted(text) == code_in(text) == "a-code"


@pytest.mark.parametrize("code", ["a/b+c=", "a?b", "a.b~c"])
def test_what_is_no_address_is_the_code_itself(code):
    assert pasted(code) == code_in(code) == code


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("https://evil.example/?code=a-code&state=right", "is not CARTO's. This login ends at https://app.carto.com/"),
        (f"{CODE_PAGE}?code=a-code&state=foreign", "belongs to another login"),
        (f"{CODE_PAGE}?code=a-code&state=", "belongs to another login"),
        (f"{CODE_PAGE}?code=a-code&code=b-code&state=right", "the same parameter twice"),
        (f"{CODE_PAGE}?code=a-code&iss=https://evil.example", "another login service"),
        (f"{CODE_PAGE}?state=right", "holds no code"),
        ("https://auth.carto.com/authorize?client_id=x", "holds no code"),
        ("http://", "is not CARTO's"),
        ("", "No code was entered"),
        ("this is no code", "not an access code"),
        ("c\u00f6d\u00e9", "not an access code"),
        ("\udc80", "not an access code"),
    ],
)
def test_a_wrong_answer_says_why(text, reason):
    with pytest.raises(LoginFailed, match=reason):
        pasted(text)


def test_a_page_of_the_programs_own_must_bring_the_state():
    assert pasted(f"{OWN_PAGE}?code=a-code&state=right", OWN_PAGE) == "a-code"
    with pytest.raises(LoginFailed, match="another login"):
        pasted(f"{OWN_PAGE}?code=a-code", OWN_PAGE)


def test_before_a_login_has_begun_no_state_is_foreign():
    assert pasted(f"{CODE_PAGE}?code=a-code&state=any", state=None) == "a-code"


def test_the_address_of_a_refusal():
    address = "https://app.carto.com/auth/error?error=access_denied&error_description=Ana+said+no.&state=right"
    for read in (pasted, code_in):
        with pytest.raises(LoginDenied, match=r"Ana said no \(access_denied\)\. Try again"):
            read(address)


def test_an_address_without_a_code():
    with pytest.raises(LoginFailed, match="holds no code"):
        code_in(CODE_PAGE)
