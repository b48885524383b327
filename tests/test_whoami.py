"""Who an account is and until when: what its token says, without a request."""

import base64
import json
import re
import time
from datetime import datetime, timedelta, timezone

import pytest

from carto_auth import CartoAuth
from carto_auth._identity import Owner
from carto_auth.sandbox.walker import walk_login


def jwt(**claims):
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"e30.{payload}.c2ln"


def test_a_person_of_an_organization(carto_sandbox):
    pending = CartoAuth.begin_oauth(org="acme")
    auth = pending.finish(walk_login(pending.url))
    asked = len(carto_sandbox.requests)
    assert auth.email == "ana@example.com"
    assert re.fullmatch("ac_[0-9a-f]+", auth.account_id)
    assert auth.organization_id == carto_sandbox.organization_id
    assert auth.expires_at.tzinfo is timezone.utc
    assert abs(auth.expires_at - datetime.now(timezone.utc) - timedelta(days=1)) < timedelta(minutes=1)
    assert len(carto_sandbox.requests) == asked


def test_an_application_and_a_person_without_sso_are_in_no_organization(carto_sandbox, tmp_path):
    auth = CartoAuth.from_m2m(carto_sandbox.credentials_file(tmp_path), use_cache=False)
    assert (auth.email, auth.organization_id) == ("owner@example.com", None)


@pytest.mark.parametrize("token", ["opaque", jwt(), jwt(org_id=7, **{"http://app.carto.com/email": "a\n@b"}), "a.b.c"])
def test_a_token_that_says_nothing(token):
    end = int(time.time()) + 60
    auth = CartoAuth("oauth", api_base_url="https://x.carto.com", access_token=token, expiration=end)
    assert (auth.email, auth.account_id, auth.organization_id) == (None, None, None)
    assert auth.expires_at == datetime.fromtimestamp(end, timezone.utc)


def test_no_token_and_a_token_without_an_end_have_no_end():
    assert CartoAuth("oauth").expires_at is None
    assert CartoAuth("oauth").email is None
    assert CartoAuth.from_access_token("a-token", "https://x.carto.com").expires_at is None


def local_time(*day_and_clock):
    """POSIX seconds of a local time in November 2026."""
    return time.mktime((2026, 11, *day_and_clock, 0, 0, 0, -1))


NOON = local_time(25, 12, 0)
ANA = {"http://app.carto.com/email": "ana@example.com"}


@pytest.mark.parametrize(
    ("claims", "end", "org", "said"),
    [
        (ANA, local_time(25, 18, 5), None, "Logged in as ana@example.com, until 18:05"),
        (ANA, local_time(26, 12, 0), None, "Logged in as ana@example.com, until 12:00 on 2026-11-26"),
        (ANA | {"org_id": "org_1"}, None, "acme", "Logged in as ana@example.com (organization acme)"),
        (ANA | {"org_id": "org_1"}, None, None, "Logged in as ana@example.com (organization org_1)"),
        (ANA, None, "no SSO", "Logged in as ana@example.com"),
        ({}, local_time(25, 18, 5), "acme", "Logged in, until 18:05"),
    ],
)
def test_who_logged_in_and_until_when(monkeypatch, claims, end, org, said):
    local = time.localtime
    monkeypatch.setattr(time, "time", lambda: NOON)
    monkeypatch.setattr(time, "localtime", lambda seconds=NOON: local(seconds))
    assert Owner(jwt(**claims)).logged_in(end, org) == said
