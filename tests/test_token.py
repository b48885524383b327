"""Pure functions on tokens."""

import base64
import json
import math

import pytest

from carto_auth._token import (
    LATEST_TIME,
    is_time,
    is_token_expired,
    is_usable_token,
    jwt_claims,
    jwt_expiration,
    jwt_lifetime,
    parse_token_answer,
    renewal_leeway,
)
from carto_auth.errors import CredentialsError, InvalidAnswer

NOW = 1_800_000_000.5


def jwt(claims, head='{"alg":"RS256"}'):
    def part(text):
        return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()

    return f"{part(head)}.{part(claims if isinstance(claims, str) else json.dumps(claims))}.c2ln"


def answer(**changes):
    whole = {"access_token": "abc", "token_type": "Bearer", "expires_in": 86400} | changes
    return {name: value for name, value in whole.items() if value is not ...}


GOOD = {
    "as CARTO sends it": (answer(), 1_800_086_400),
    "without a type": (answer(token_type=...), 1_800_086_400),
    "a small type": (answer(token_type="bearer"), 1_800_086_400),
    "parts of seconds": (answer(expires_in=10.5), 1_800_000_011),
    "a JWT that agrees": (answer(access_token=jwt({"exp": 1_800_086_399})), 1_800_086_399),
    "a JWT that knows better": (answer(access_token=jwt({"exp": 1_800_000_100})), 1_800_000_100),
    "a JWT alone": (answer(access_token=jwt({"exp": 1_800_000_100}), expires_in=...), 1_800_000_100),
    "a JWT without exp": (answer(access_token=jwt({})), 1_800_086_400),
    "a JWT that has ended": (answer(access_token=jwt({"exp": 1_700_000_000})), 1_800_086_400),
    "a JWT with a mad exp": (answer(access_token=jwt({"exp": 1e300})), 1_800_086_400),
    "a JWT with exp in words": (answer(access_token=jwt({"exp": "1900000000"})), 1_800_086_400),
    "the last second of time": (answer(expires_in=LATEST_TIME - 1_800_000_001), LATEST_TIME - 1),
}
# Every expires_in that is none, beside a JWT that says it as well.
NO_SECONDS = {
    None: "missing",
    "": "a str, not a number",
    "86400": "a str, not a number",
    True: "a bool, not a number",
    (1,): "a tuple, not a number",
    0: "0",
    -5: "-5",
    -0.5: "-0.5",
    math.nan: "no possible number of seconds",
    math.inf: "no possible number of seconds",
    -math.inf: "no possible number of seconds",
    1e300: "no possible number of seconds",
    10**400: "no possible number of seconds",
    LATEST_TIME - 1: "253402300798",
}


@pytest.mark.parametrize(("given", "expiration"), GOOD.values(), ids=GOOD)
def test_good_answers(given, expiration):
    info = parse_token_answer(given, NOW)
    assert info == {"access_token": given["access_token"], "expiration": expiration, "issued_at": 1_800_000_000}
    assert type(info["expiration"]) is int


@pytest.mark.parametrize("expires_in", NO_SECONDS, ids=lambda value: str(value)[:20])
def test_an_expires_in_that_is_none(expires_in):
    with pytest.raises(InvalidAnswer) as caught:
        parse_token_answer(answer(expires_in=expires_in), NOW)
    assert caught.value.message == (
        f"CARTO's answer does not say for how long the token is good (expires_in is {NO_SECONDS[expires_in]})."
    )
    assert caught.value.status == 200
    assert caught.value.remedy
    with_jwt = answer(expires_in=expires_in, access_token=jwt({"exp": 1_800_000_100}))
    assert parse_token_answer(with_jwt, NOW)["expiration"] == 1_800_000_100


NO_TOKENS = [..., None, "", 7, True, ["abc"], {"a": 1}, "two words", "abc\n", "abc\r\nX-Injected: 1", "\x00", "tökén"]
NO_TOKENS += ["a" * 70_000, " abc", "abc\N{ZERO WIDTH SPACE}"]


@pytest.mark.parametrize("token", NO_TOKENS, ids=lambda value: repr(value)[:20])
def test_an_access_token_that_is_none(token):
    with pytest.raises(InvalidAnswer, match=r"^CARTO's answer to the token request holds no usable access token\. "):
        parse_token_answer(answer(access_token=token), NOW)
    assert "refresh_token" not in parse_token_answer(answer(refresh_token=token), NOW)


@pytest.mark.parametrize("token_type", [None, "", "DPoP", "mac", 7, ["Bearer"], "Bearer "])
def test_another_type_of_token(token_type):
    with pytest.raises(InvalidAnswer, match=r"^CARTO's answer holds a token of another type than Bearer\. "):
        parse_token_answer(answer(token_type=token_type), NOW)


def test_a_refresh_token_is_kept():
    assert parse_token_answer(answer(refresh_token="r"), NOW)["refresh_token"] == "r"


@pytest.mark.parametrize(
    "token",
    [
        "",
        "abc",
        "a.b",
        "a.b.c.d",
        "..",
        "a.!.c",
        "a.YQ.c",
        jwt("[1]"),
        jwt("7"),
        jwt("null"),
        jwt("{"),
        jwt("[" * 100_000),
        jwt('{"exp": ' + "9" * 5000 + "}"),
        f"a.{base64.urlsafe_b64encode(bytes([0xFF, 0xFE])).decode()}.c",
        "a.\N{SNOWMAN}.c",
    ],
    ids=lambda token: token[:20],
)
def test_what_is_no_jwt_has_no_claims(token):
    assert jwt_claims(token) == {}
    assert jwt_expiration(token) is None
    assert jwt_lifetime(token) is None


@pytest.mark.parametrize(
    ("claims", "expiration", "lifetime"),
    [
        ({"exp": 200, "iat": 100}, 200, 100.0),
        ({"exp": 200.9, "iat": 100}, 200, 100.9),
        ({"exp": 200}, 200, None),
        ({"iat": 100}, None, None),
        ({"exp": 100, "iat": 200}, 100, None),
        ({"exp": "200", "iat": 100}, None, None),
        ({"exp": True, "iat": False}, None, None),
        ({"exp": -1}, None, None),
        ({"exp": LATEST_TIME + 1}, None, None),
        ('{"exp": NaN}', None, None),
        ('{"exp": 1e999}', None, None),
    ],
)
def test_the_times_of_a_jwt(claims, expiration, lifetime):
    assert jwt_expiration(jwt(claims)) == expiration
    assert jwt_lifetime(jwt(claims)) == (None if lifetime is None else pytest.approx(lifetime))


@pytest.mark.parametrize(
    ("expiration", "expired"),
    [(None, True), (0, True), (NOW - 1, True), (NOW, True), (NOW + 1, False), (LATEST_TIME, False)],
)
def test_expired(expiration, expired, monkeypatch):
    monkeypatch.setattr("time.time", lambda: NOW)
    assert is_token_expired(expiration) is expired


@pytest.mark.parametrize(
    ("lifetime", "leeway"), [(None, 0), (0, 0), (-5, 0), (10, 1), (600, 60), (86400, 60), (math.inf, 60)]
)
def test_leeway(lifetime, leeway):
    assert renewal_leeway(lifetime) == leeway


def test_damage_is_no_time():
    assert [value for value in (1, 0.5, LATEST_TIME) if not is_time(value)] == []
    damage = (0, -1, LATEST_TIME + 1, math.nan, math.inf, True, None, "1", [1])
    assert [value for value in damage if is_time(value)] == []


def test_usable_tokens():
    assert is_usable_token("ya29.c.a-b_c~d+e/f==")
    assert is_usable_token("a" * 65_536)
    assert not is_usable_token("a" * 65_537)


def test_what_is_raised_is_ours():
    for junk in ({}, {"access_token": None}, {"access_token": "x", "expires_in": []}):
        with pytest.raises(CredentialsError):
            parse_token_answer(junk, NOW)
