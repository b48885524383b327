"""Token, a value, and the pure functions around it: what a JWT hints at, what an answer of a token service holds."""

import base64
import json
import math

import pytest

from carto_auth import _token
from carto_auth._token import (
    LATEST_TIME,
    LONGEST_TOKEN,
    Token,
    is_time,
    is_token_expired,
    is_usable_token,
    jwt_claims,
    jwt_expiration,
    parse_token_answer,
)
from carto_auth.errors import InvalidAnswer

NOW = 1_800_000_000.5
DAY = 86_400


def jwt(claims, head='{"alg":"RS256"}'):
    parts = (head, claims if isinstance(claims, str) else json.dumps(claims))
    return ".".join([base64.urlsafe_b64encode(part.encode()).rstrip(b"=").decode() for part in parts] + ["c2ln"])


@pytest.fixture(autouse=True)
def stopped(monkeypatch):
    monkeypatch.setattr("time.time", lambda: NOW)
    monkeypatch.setattr(_token, "RENEWAL_SPREAD_SHARE", 0.0)


# ---- the value -----------------------------------------------------------------------------------


def test_a_token_is_replaced_and_not_changed_and_shows_no_secret():
    token = Token.of("a-token", NOW + 60, NOW, "a-refresh-token")
    other = token.replaced(refresh_token=None)
    assert (other.text, other.end, other.refresh_token) == ("a-token", NOW + 60, None)
    assert token == Token.of("a-token", NOW + 60, NOW, "a-refresh-token") != other
    assert len({token, token.replaced(), other}) == 2
    assert "-token" not in repr(token)


@pytest.mark.parametrize("end", [None, 0, -1, NOW - 1, NOW, NOW + 1, LATEST_TIME])
def test_a_token_is_over_at_its_very_end_and_when_that_is_not_known(end):
    expected = not end or end <= NOW
    assert is_token_expired(end) is expected
    assert Token.of("a-token", end).is_over() is expected


@pytest.mark.parametrize(
    ("lifetime", "leeway"), [(DAY, 60), (3600, 60), (600, 60), (300, 30), (10, 1), (0, 0), (None, 0)], ids=str
)
def test_a_token_is_due_ahead_of_its_end_in_proportion_to_a_lifetime_that_is_known(lifetime, leeway):
    end = int(NOW) + 10_000
    issued_at = None if lifetime is None else end - lifetime
    tokens = [Token.of("opaque", end, issued_at)]
    if lifetime:
        tokens.append(Token.of(jwt({"iat": issued_at, "exp": end}), None))
    assert {token.due for token in tokens} == {end - leeway}


def test_chance_spreads_a_fleets_renewals_over_a_tenth_of_the_lifetime_and_is_kept_with_the_token(monkeypatch):
    monkeypatch.setattr(_token, "RENEWAL_SPREAD_SHARE", 0.1)
    end = NOW + DAY
    fleet = [Token.of("the-same", end, NOW) for _ in range(2000)]
    begin, per_hour = end - 60 - 0.1 * DAY, [0, 0, 0]
    for token in fleet:
        per_hour[int((token.due - begin) // 3600)] += 1
    assert sum(per_hour) == 2000
    assert max(per_hour) < 1000  # the quota of one application
    again = [Token.of("the-same", end, NOW, due=token.due) for token in fleet]
    assert again == fleet
    assert Token.of("the-same", end, NOW, due=end + 1).due == end


ENDS = {
    # a JWT's exp, what is said beside it, when it was received: until when it is good (all from now, in seconds)
    "the JWT's own, beside nothing": (100, None, None, 100),
    "the JWT's own, beside a later one": (100, DAY, None, 100),
    "the JWT's own, beside an earlier one": (DAY, 100, None, DAY),
    "the JWT's own, although it is over": (-100, DAY, None, -100),
    "the earlier one: the clock is behind": (DAY + 500, DAY, -1, DAY),
    "what was counted: the clock is ahead": (-500, DAY, -1, DAY),
    "the JWT's own: the clock was put right": (DAY, 3 * DAY, 2 * DAY, DAY),
}


@pytest.mark.parametrize(("own", "beside", "received", "end"), ENDS.values(), ids=ENDS)
def test_until_when_a_jwt_is_good(own, beside, received, end):
    at = [None if moment is None else int(NOW) + moment for moment in (own, beside, received, end)]
    assert Token.of(jwt({"exp": at[0]}), at[1], at[2]).end == at[3]


# ---- hints ---------------------------------------------------------------------------------------

NO_JWTS = ["", "abc", "a.b", "a.b.c.d", "..", "a.!.c", "a.YQ.c", "a.__4.c", "a.\N{SNOWMAN}.c"]
NO_JWTS += [jwt(claims) for claims in ("[1]", "7", "null", "{", "[" * 100_000, '{"exp": ' + "9" * 5000 + "}")]


@pytest.mark.parametrize("token", NO_JWTS, ids=lambda token: token[:20])
def test_what_is_no_jwt_has_no_claims_and_the_end_that_is_said(token):
    assert (jwt_claims(token), jwt_expiration(token)) == ({}, None)
    assert Token.of(token, NOW + 5).end == NOW + 5


DAMAGE = [None, "200", True, 0, -1, LATEST_TIME + 1, math.nan, math.inf, [1]]


@pytest.mark.parametrize("value", DAMAGE, ids=str)
def test_damage_is_no_time(value):
    assert not is_time(value)
    token = Token.of(jwt({"exp": value, "iat": 100}), NOW + 5, issued_at=value)
    assert (jwt_expiration(token.text), token.end, token.due, token.issued_at) == (None, NOW + 5, NOW + 5, None)


def test_times():
    assert all(is_time(value) for value in (1, 0.5, LATEST_TIME))
    assert jwt_expiration(jwt({"exp": 200.9})) == 200


# ---- a token service's answer --------------------------------------------------------------------


def answer(**changes):
    whole = {"access_token": "abc", "token_type": "Bearer", "expires_in": DAY} | changes
    return {name: value for name, value in whole.items() if value is not ...}


GOOD = {
    "as CARTO sends it": (answer(), 1_800_086_400),
    "without a type": (answer(token_type=...), 1_800_086_400),
    "a small type": (answer(token_type="bearer"), 1_800_086_400),
    "parts of seconds": (answer(expires_in=10.5), 1_800_000_011),
    "a JWT that is good for less": (answer(access_token=jwt({"exp": 1_800_000_100})), 1_800_000_100),
    "a JWT that is good for more": (answer(access_token=jwt({"exp": 1_800_090_000})), 1_800_086_400),
    "a JWT alone": (answer(access_token=jwt({"exp": 1_800_000_100}), expires_in=...), 1_800_000_100),
    "a JWT beside damage": (answer(access_token=jwt({"exp": 1_800_000_100}), expires_in="soon"), 1_800_000_100),
    "a JWT that seems over": (answer(access_token=jwt({"exp": 1_700_000_000})), 1_800_086_400),
    "a JWT without a time": (answer(access_token=jwt({"exp": 1e300})), 1_800_086_400),
    "the last second of time": (answer(expires_in=LATEST_TIME - 1_800_000_001), LATEST_TIME - 1),
}


@pytest.mark.parametrize(("given", "expiration"), GOOD.values(), ids=GOOD)
def test_good_answers(given, expiration):
    info = parse_token_answer(given | {"refresh_token": "r"}, NOW)
    assert info.pop("refresh_token") == "r"
    assert info == {"access_token": given["access_token"], "expiration": expiration, "issued_at": 1_800_000_000}
    assert type(info["expiration"]) is int


BAD_SECONDS = [..., "86400", True, [1], 0, -0.5, LATEST_TIME - 1, math.nan, -math.inf, 1e300, 10**400]


@pytest.mark.parametrize("expires_in", BAD_SECONDS, ids=lambda value: str(value)[:20])
def test_an_answer_that_does_not_say_for_how_long(expires_in):
    shown = "missing" if expires_in is ... else "no possible number of seconds"
    with pytest.raises(InvalidAnswer, match=rf"expires_in is {shown}\)") as caught:
        parse_token_answer(answer(expires_in=expires_in), NOW)
    assert caught.value.status == 200
    assert caught.value.remedy


BAD_TOKENS = [..., None, "", 7, True, ["abc"], {"a": 1}, "two words", "abc\r\nX-Injected: 1", "\x00", "tökén", " abc"]
BAD_TOKENS += ["a" * (LONGEST_TOKEN + 1), "abc\N{ZERO WIDTH SPACE}"]


@pytest.mark.parametrize("token", BAD_TOKENS, ids=lambda value: repr(value)[:20])
def test_a_token_that_cannot_be_sent(token):
    assert not is_usable_token(token)
    with pytest.raises(InvalidAnswer, match="access token"):
        parse_token_answer(answer(access_token=token), NOW)
    assert "refresh_token" not in parse_token_answer(answer(refresh_token=token), NOW)


def test_tokens_that_can_be_sent():
    assert all(map(is_usable_token, ("ya29.c.a-b_c~d+e/f==", "a" * LONGEST_TOKEN)))


@pytest.mark.parametrize("token_type", [None, "", "DPoP", 7, ["Bearer"], "Bearer "])
def test_another_type_of_token(token_type):
    with pytest.raises(InvalidAnswer, match="another type than Bearer"):
        parse_token_answer(answer(token_type=token_type), NOW)
