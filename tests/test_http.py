"""The door to the network, against servers that do everything wrong."""

import gzip
import os
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from datetime import datetime, timezone
from email.utils import format_datetime

import pytest
import requests
from servers import Server, answering, http, then_closing, wait_for

from carto_auth import _answers, _connections, _http
from carto_auth.errors import (
    CredentialsError,
    InvalidAnswer,
    InvalidCredential,
    RateLimited,
    ServerError,
    ServiceUnavailable,
    ServiceUnreachable,
    Unauthorized,
    UntrustedAddress,
)

FORM = {"grant_type": "client_credentials", "client_id": "an-id", "client_secret": "the-secret-of-the-tests"}
MIB = 1024 * 1024


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr(_connections, "BACKOFF_SECONDS", 0.0)
    monkeypatch.setattr(_connections, "JITTER_SECONDS", 0.0)


def wait_for_request_threads():
    for thread in threading.enumerate():
        if thread.name == _connections.THREAD_NAME:
            thread.join(5)
            assert not thread.is_alive(), "a request goes on for ever"


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(_http, "TOTAL_SECONDS", 0.3)


def post(server, **options):
    return _http.post_form(f"{server.url}/oauth/token", FORM, failure="CARTO handed out no token", **options)


def fails(server, kind=CredentialsError, **options):
    with pytest.raises(kind) as caught:
        post(server, **options)
    return caught.value


# ---- servers that do not come to an end ----------------------------------------------------------


def silent(line):
    line.request()
    line.wait_until_closed()


def deaf(line):
    line.wait_until_closed()


def drips_its_status(line):
    line.request()
    line.drip()


def drips_a_header(line):
    line.request()
    line.send(b"HTTP/1.1 200 OK\r\nX: ")
    line.drip()


def drips_its_body(line):
    line.request()
    line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    line.drip()


def drips_its_last_body(line):
    line.request()
    line.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
    line.drip()


def drips_chunks(line):
    line.request()
    line.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    line.drip(b"1\r\nx\r\n")


def drips_a_gzip_header(line):
    line.request()
    line.send(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n\x1f\x8b\x08\x08\0\0\0\0\0\xff")
    line.drip()


def goes_on_continuing(line):
    line.request()
    line.drip(b"HTTP/1.1 100 Continue\r\n\r\n")


def drips_an_outage(line):
    line.request()
    line.send(b"HTTP/1.1 503 Busy\r\n\r\n")
    line.drip()


ENDLESS = [silent, deaf, drips_its_status, drips_a_header, drips_its_body, drips_its_last_body, drips_chunks]
ENDLESS += [drips_a_gzip_header, goes_on_continuing, drips_an_outage]


@pytest.mark.parametrize("script", ENDLESS, ids=lambda script: script.__name__)
def test_a_server_without_an_end_is_left(script, impatient):
    with Server(script) as server:
        began = time.monotonic()
        error = fails(server, ServiceUnreachable)
        assert time.monotonic() - began < 2
        assert str(error) == f"127.0.0.1:{server.port} did not finish its answer within 0 s. Try again later."
        assert isinstance(error, requests.RequestException)
        wait_for_request_threads()


@pytest.mark.parametrize("script", [silent, drips_its_body], ids=lambda script: script.__name__)
def test_after_that_the_next_request_is_served(script, impatient):
    def once_bad(line):
        if line.number == 1:
            script(line)
        else:
            answering(http({"good": True}))(line)

    with Server(once_bad) as server:
        fails(server)
        assert post(server) == {"good": True}


def test_a_request_is_not_sent_after_its_failure_was_told(impatient, monkeypatch):
    """The name is looked up for so long that the caller was told already."""
    looked_up, told = threading.Event(), threading.Event()
    real = _connections._Cuttable._new_conn

    def slow(self):
        looked_up.set()
        assert told.wait(5)
        return real(self)

    monkeypatch.setattr(_connections._Cuttable, "_new_conn", slow)
    with Server(answering(http({}))) as server:
        fails(server, ServiceUnreachable)
        assert looked_up.is_set()
        told.set()
        wait_for_request_threads()
        assert server.requests == []


def test_silence_is_bounded_per_read_too(monkeypatch):
    monkeypatch.setattr(_http, "READ_SECONDS", 0.05)
    with Server(silent) as server:
        error = fails(server, ServiceUnreachable)
        assert str(error) == f"127.0.0.1:{server.port} did not answer in time. Try again later."
        wait_for(lambda: server.connections == 3)


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="no signal can be sent to a thread here")
def test_ctrl_c_ends_a_wait_at_once(monkeypatch):
    def interrupts(line):
        if line.request() is not None:
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            line.wait_until_closed()

    with Server(interrupts) as server:
        began = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            post(server)
        assert time.monotonic() - began < 5
        wait_for_request_threads()
        assert server.connections == 1  # nor is it tried again behind one's back
        monkeypatch.setattr(server, "script", answering(http({"good": True})))
        assert post(server) == {"good": True}


def test_without_a_thread_to_be_had_the_request_is_sent_all_the_same(monkeypatch):
    def start(self):
        if self.name == _connections.THREAD_NAME:
            raise RuntimeError("can't create new thread at interpreter shutdown")
        return real(self)

    real = threading.Thread.start
    with Server(answering(http({"good": True}))) as server:
        monkeypatch.setattr(threading.Thread, "start", start)
        assert post(server) == {"good": True}


# ---- servers that send too much ------------------------------------------------------------------


def gigabytes(head):
    def script(line):
        line.request()
        line.send(head)
        while True:
            line.send(b"x" * MIB)

    return script


BOMB = gzip.compress(b"0" * 64 * MIB)
TOO_MUCH = {
    "an endless body": gigabytes(b"HTTP/1.1 200 OK\r\n\r\n"),
    "a long body": gigabytes(b"HTTP/1.1 200 OK\r\nContent-Length: 9999999999\r\n\r\n"),
    "an endless error": gigabytes(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    "an endless outage": gigabytes(b"HTTP/1.1 503 Busy\r\n\r\n"),
    "a gzip bomb": answering(http(BOMB, Content_Encoding="gzip")),
    "a gzip bomb in a gzip bomb": answering(http(gzip.compress(BOMB), Content_Encoding="gzip, gzip")),
    "one byte over": answering(http(b" " * (MIB - 1) + b"{}")),
}


@pytest.mark.parametrize("script", TOO_MUCH.values(), ids=TOO_MUCH)
def test_too_much_is_not_read(script):
    with Server(script) as server:
        tracemalloc.start()
        try:
            error = fails(server, InvalidAnswer)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert str(error) == (
            f"127.0.0.1:{server.port} sent more than 1024 KiB, which is no answer of CARTO's. Check the address."
        )
        assert peak < 16 * MIB


def test_as_much_as_is_allowed_is_read():
    with Server(answering(http(b" " * (MIB - 2) + b"{}"))) as server:
        assert post(server) == {}


# ---- servers that send nonsense, or close --------------------------------------------------------

CLOSED = (ServiceUnreachable, "closed the connection before its answer was complete. Try again.")
NO_HTTP = (InvalidAnswer, "sent something that is no HTTP answer. Check the address and its port.")
NEGATIVE_CHUNK = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n"
NONSENSE = {
    # script, error, tries
    "closes at once": (lambda line: None, CLOSED, 3),
    "closes after the request": (then_closing(), CLOSED, 3),
    "closes in the status": (then_closing(b"HTTP/1."), NO_HTTP, 3),
    "closes in the body": (then_closing(b'HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"a'), CLOSED, 3),
    "closes in a chunk": (then_closing(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n{"), CLOSED, 3),
    "garbage": (then_closing(b"\0\xff\x16\x03 no HTTP at all\r\n\r\n"), NO_HTTP, 3),
    "SSH": (then_closing(b"SSH-2.0-OpenSSH_9.6\r\n"), NO_HTTP, 3),
    "an endless line": (then_closing(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000 + b"\r\n\r\n"), NO_HTTP, 3),
    "too many headers": (then_closing(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n"), NO_HTTP, 3),
    "garbled chunks": (
        then_closing(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnot hex\r\n{}"),
        CLOSED,
        3,
    ),
    "a chunk of a negative size": (
        lambda line: line.request() and [line.send(NEGATIVE_CHUNK), line.drip(b"x" * MIB)],
        CLOSED,
        3,
    ),
    "gzip that is none": (answering(http(b"{}", Content_Encoding="gzip")), NO_HTTP, 1),
}


@pytest.mark.parametrize(("script", "expected", "tries"), NONSENSE.values(), ids=NONSENSE)
def test_nonsense(script, expected, tries):
    kind, words = expected
    with Server(script) as server:
        error = fails(server, kind)
        assert str(error) == f"127.0.0.1:{server.port} {words}"
        assert isinstance(error, requests.RequestException)
        assert server.connections == tries


@pytest.mark.parametrize("script", [NONSENSE[name][0] for name in NONSENSE], ids=NONSENSE)
def test_what_must_not_be_repeated_is_sent_once(script):
    with Server(script) as server:
        fails(server, repeatable=False)
        assert server.connections == 1


# ---- retries -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "tries"),
    [
        (400, 1),
        (401, 1),
        (403, 1),
        (404, 1),
        (405, 1),
        (429, 3),
        (500, 3),
        (501, 3),
        (520, 3),
        (599, 3),
        (502, 3),
        (503, 3),
        (504, 3),
    ],
)
def test_tries_by_status(status, tries):
    with Server(answering(http({"error": "no"}, status=status))) as server:
        assert fails(server, ServerError).status == status
        assert len(server.requests) == tries
        server.requests.clear()
        fails(server, repeatable=False)
        assert len(server.requests) == 1


HALF = b'HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"good": '


@pytest.mark.parametrize("trouble", [http(status=503), http(status=429, Retry_After="0"), b"", HALF])
def test_a_passing_trouble_passes_unnoticed(trouble):
    def script(line):
        if line.number == 3:
            return answering(http({"good": True}))(line)
        return then_closing(trouble)(line)

    with Server(script) as server:
        assert post(server) == {"good": True}


def test_a_connection_that_failed_is_tried_again_even_for_a_code(monkeypatch):
    attempts = []

    def refused(self):
        attempts.append(1)
        if len(attempts) < 3:
            raise _http_new_connection_error(self)
        return real(self)

    real = _connections._Cuttable._new_conn
    monkeypatch.setattr(_connections._Cuttable, "_new_conn", refused)
    with Server(answering(http({"good": True}))) as server:
        assert post(server, repeatable=False) == {"good": True}
        assert len(server.requests) == 1
    assert len(attempts) == 3


def _http_new_connection_error(connection):
    from urllib3.exceptions import NewConnectionError

    return NewConnectionError(connection, "refused")


@pytest.fixture
def waits(monkeypatch):
    """Seconds that were slept between tries, without sleeping."""
    slept = []
    monkeypatch.setattr(time, "sleep", slept.append)
    return slept


def test_waits_grow_and_differ(waits, monkeypatch):
    monkeypatch.setattr(_connections, "BACKOFF_SECONDS", 0.3)
    monkeypatch.setattr(_connections, "JITTER_SECONDS", 0.3)
    with Server(answering(http(status=503))) as server:
        for _ in range(5):
            fails(server)
    assert len(waits) == 10
    assert all(0.3 <= wait <= 0.6 for wait in waits[::2])
    assert all(0.6 <= wait <= 0.9 for wait in waits[1::2])
    assert len(set(waits)) == 10


def http_date(seconds):
    return format_datetime(datetime.fromtimestamp(time.time() + seconds, timezone.utc), usegmt=True)


@pytest.mark.parametrize(
    ("retry_after", "tries", "about"),
    [
        ("7", 3, 7),
        ("10", 3, 10),
        ("11", 1, None),
        ("86400", 1, None),
        ("9" * 30, 1, None),
        ("9" * 5000, 3, 0),
        (lambda: http_date(8), 3, 8),
        (lambda: http_date(3600), 1, None),
        (lambda: http_date(-3600), 3, 0),
        ("Mon, 99 Foo 99999999 99:99:99 GMT", 3, 0),
        ("-5", 3, 0),
        ("nan", 3, 0),
        ("inf", 3, 0),
        ("1e9", 3, 0),
        ("soon", 3, 0),
    ],
)
def test_retry_after_is_obeyed_when_it_is_short(retry_after, tries, about, waits):
    if callable(retry_after):
        retry_after = retry_after()
    with Server(answering(http(status=429, Retry_After=retry_after))) as server:
        fails(server, RateLimited)
        assert len(server.requests) == tries
    assert len(waits) == (tries - 1 if about else 0)
    assert all(about - 5 < wait <= about + _connections.JITTER_SECONDS for wait in waits)


def test_those_who_failed_together_do_not_come_back_together(waits, monkeypatch):
    monkeypatch.setattr(_connections, "JITTER_SECONDS", 0.3)
    with Server(answering(http(status=429, Retry_After="2"))) as server:
        fails(server, RateLimited)
    assert len(set(waits)) == 2
    assert all(2 <= wait <= 2.3 for wait in waits)


def test_no_wait_beyond_the_deadline(impatient, waits):
    with Server(answering(http(status=503, Retry_After="5"))) as server:
        assert fails(server, ServiceUnavailable).retry_after == 5
        assert len(server.requests) == 1
    assert waits == []


# ---- answers -------------------------------------------------------------------------------------

PORTAL = _answers.CAPTIVE_PORTAL
NO_TOKEN = "CARTO handed out no token: {host} "
ANSWERS = {
    # answer, class, message, (status, error, error_description, retry_after)
    "Auth0, wrong secret": (
        http({"error": "access_denied", "error_description": "Unauthorized"}, status=401),
        Unauthorized,
        "answered 401 (Unauthorized).",
        (401, "access_denied", "Unauthorized", None),
    ),
    "Auth0, wrong audience": (
        http({"error": "access_denied", "error_description": "Service not found: x"}, status=403),
        Unauthorized,
        "answered 403 (Service not found: x).",
        (403, "access_denied", "Service not found: x", None),
    ),
    "Auth0, used code, with 400": (
        http({"error": "invalid_grant", "error_description": "Invalid code."}, status=400),
        Unauthorized,
        "answered 400 (Invalid code).",
        (400, "invalid_grant", "Invalid code.", None),
    ),
    "Auth0, too many": (
        http({"statusCode": 429, "error": "Too Many Requests", "message": "Global limit"}, status=429),
        RateLimited,
        "answered 429 (Too Many Requests. Global limit). Try again later.",
        (429, "Too Many Requests", "Global limit", None),
    ),
    "CARTO's API": (
        http({"error": ["not allowed", "really"], "status": 400, "hint": "log in"}, status=400),
        ServerError,
        "answered 400 (not allowed; really. log in).",
        (400, "not allowed; really", "log in", None),
    ),
    "BigQuery's shape": (
        http({"error": {"code": 400, "status": "INVALID", "message": "no such thing"}}, status=400),
        ServerError,
        "answered 400 (no such thing).",
        (400, "INVALID", "no such thing", None),
    ),
    "CARTO's API, one word": (
        http({"error": "No", "status": 400}, status=400),
        ServerError,
        "answered 400 (No).",
        (400, "No", None, None),
    ),
    "an error inside a 200": (
        http({"error": "temporarily_unavailable", "access_token": "x"}),
        ServerError,
        "answered 200 (temporarily_unavailable).",
        (200, "temporarily_unavailable", None, None),
    ),
    "a refusal inside a 200": (
        http({"error": "access_denied"}),
        Unauthorized,
        "answered 200 (access_denied).",
        (200, "access_denied", None, None),
    ),
    "errors of odd kinds": (
        http({"error": {"a": 1}, "error_description": ["b"]}, status=400),
        ServerError,
        "answered 400.",
        (400, None, None, None),
    ),
    "no words": (http(status=403), Unauthorized, "answered 403.", (403, None, None, None)),
    "a web page": (
        http("\n<!doctype html><p>Sign in"),
        InvalidAnswer,
        f"sent a web page where a JSON object was due. {PORTAL}",
        (200, None, None, None),
    ),
    "nothing": (
        http(status=204),
        InvalidAnswer,
        f"sent nothing where a JSON object was due. {PORTAL}",
        (204, None, None, None),
    ),
    "text": (
        http("token=abc"),
        InvalidAnswer,
        f"sent something else where a JSON object was due. {PORTAL}",
        (200, None, None, None),
    ),
    "a list": (
        http([1]),
        InvalidAnswer,
        f"sent a JSON list where a JSON object was due. {PORTAL}",
        (200, None, None, None),
    ),
    "a number": (
        http("17"),
        InvalidAnswer,
        f"sent a JSON int where a JSON object was due. {PORTAL}",
        (200, None, None, None),
    ),
    "brackets without an end": (
        http("[" * 100_000),
        InvalidAnswer,
        f"sent something else where a JSON object was due. {PORTAL}",
        (200, None, None, None),
    ),
    "a number without an end": (
        http('{"a": ' + "9" * 100_000 + "}"),
        InvalidAnswer,
        f"sent something else where a JSON object was due. {PORTAL}",
        (200, None, None, None),
    ),
    "no UTF-8": (
        http(b'{"a": "\xff"}'),
        InvalidAnswer,
        f"sent something else where a JSON object was due. {PORTAL}",
        (200, None, None, None),
    ),
    "a redirect": (
        http(status=307, Location="https://evil.example/oauth/token"),
        InvalidAnswer,
        "answered with a redirect (307) to evil.example, which is never followed with credentials. Check the "
        f"address; use the one it leads to if you trust it. {PORTAL}",
        (307, None, None, None),
    ),
    "a redirect to nowhere": (
        http(status=302),
        InvalidAnswer,
        "answered with a redirect (302), which is never followed with credentials. Check the address; use the one it "
        f"leads to if you trust it. {PORTAL}",
        (302, None, None, None),
    ),
    "a captive portal by its status": (
        http(status=511),
        ServiceUnavailable,
        f"answered 511. {PORTAL}",
        (511, None, None, None),
    ),
    "an outage": (
        http("<h1>Bad Gateway", status=502),
        ServiceUnavailable,
        "answered 502. The service has a problem; try again later.",
        (502, None, None, None),
    ),
    "an outage with an end": (
        http(status=503, Retry_After="120"),
        ServiceUnavailable,
        "answered 503. The service has a problem; try again in 120 s.",
        (503, None, None, 120),
    ),
    "control characters": (
        http({"error": "no", "error_description": "a\x1b[31mb\r\nc\u202ed\ud800e\0"}, status=400),
        ServerError,
        "answered 400 (a [31mb  c d e).",
        (400, "no", "a [31mb  c d e", None),
    ),
    "many words": (
        http({"error": "no", "error_description": "word " * 1000}, status=400),
        ServerError,
        f"answered 400 ({('word ' * 1000)[:197]}).",
        (400, "no", ("word " * 1000)[:197] + "...", None),
    ),
}


def public_class(error):
    """The class of ``errors`` that an error is; what is raised may also be one of ``requests``."""
    return next(kind for kind in type(error).__mro__ if kind.__module__ == "carto_auth.errors")


@pytest.mark.parametrize(("answer", "kind", "message", "details"), ANSWERS.values(), ids=ANSWERS)
def test_answers(answer, kind, message, details):
    with Server(answering(answer)) as server:
        error = fails(server)
        assert public_class(error) is kind
        assert isinstance(error, requests.RequestException) or kind is InvalidAnswer
        assert str(error) == NO_TOKEN.format(host=f"127.0.0.1:{server.port}") + message
        assert (error.status, error.error, error.error_description, error.retry_after) == details


def test_a_redirect_is_not_followed():
    with Server(answering(http({}))) as stranger:
        for status in (301, 302, 303, 307, 308):
            with Server(answering(http(status=status, Location=stranger.url))) as server:
                fails(server, InvalidAnswer)
                with pytest.raises(InvalidAnswer, match="redirect"):
                    _http.get_json(server.url, access_token="token", failure="It failed")
                with pytest.raises(InvalidAnswer, match="redirect"):
                    _http.get_text(server.url, failure="It failed")
        assert stranger.connections == 0


NOW = 1_800_000_000


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry_After": "17"}, 17),
        ({"Retry_After": "16.2"}, 16.2),
        ({"Retry_After": "Fri, 15 Jan 2027 08:01:40 GMT"}, 100),
        ({"Retry_After": "Fri, 15 Jan 2027 07:59:00 GMT"}, None),
        ({"Retry_After": "nan"}, None),
        ({"Retry_After": "inf"}, None),
        ({"Retry_After": "-1"}, None),
        ({"Retry_After": "1e300"}, None),
        ({"Retry_After": "soon", "x_ratelimit_reset": str(NOW + 30)}, 30),
        ({"x_ratelimit_reset": str(NOW + 30)}, 30),
        ({"x_ratelimit_reset": str(NOW - 30)}, None),
        ({"x_ratelimit_reset": "never"}, None),
        ({"Auth0_Client_Quota_Limit": "b=per_hour;q=100;r=0;t=1800"}, 1800),
        ({"Auth0_Client_Quota_Limit": "b=per_hour;q=100;r=5;t=1800,b=per_day;q=200;r=0;t=4000"}, 4000),
        ({"Auth0_Client_Quota_Limit": "b=per_hour;q=100;r=0;t=1800", "x_ratelimit_reset": str(NOW + 30)}, 1800),
        ({"Auth0_Client_Quota_Limit": "b=per_hour;q=100;r=5;t=1800", "x_ratelimit_reset": str(NOW + 30)}, 30),
        ({"Auth0_Client_Quota_Limit": ";;,=;t", "x_ratelimit_reset": str(NOW + 30)}, 30),
    ],
)
def test_when_to_try_again(headers, seconds, monkeypatch):
    monkeypatch.setattr(time, "time", lambda: NOW)
    monkeypatch.setattr(_connections, "LONGEST_RETRY_AFTER", -1)  # no second try: only the message is of interest
    with Server(answering(http(status=429, **headers))) as server:
        error = fails(server, RateLimited)
    assert error.retry_after == seconds
    expected = "Try again later." if seconds is None else f"Try again in {17 if seconds == 16.2 else seconds} s."
    assert error.remedy == expected


def test_get_text_wants_text():
    for body, words in ((b"<html>", "a web page"), (b"\xff\xfe", "something that is no text")):
        with Server(answering(http(body))) as server, pytest.raises(InvalidAnswer) as caught:
            _http.get_text(server.url, failure="It failed")
        assert str(caught.value) == f"It failed: 127.0.0.1:{server.port} sent {words}. {PORTAL}"
    with Server(answering(http(b"\xef\xbb\xbfa: b"))) as server:
        assert _http.get_text(server.url, failure="It failed") == "a: b"


def test_an_empty_success_only_where_it_is_fine():
    with Server(answering(http(status=200))) as server:
        assert post(server, empty_is_fine=True) == {}
        fails(server, InvalidAnswer)


# ---- what is sent --------------------------------------------------------------------------------


def test_what_is_sent():
    with Server(answering(http({}))) as server:
        post(server)
        _http.get_json(f"{server.url}/accounts", access_token="a.b.c", failure="It failed")
    form, account = server.requests
    assert (form.method, form.path) == ("POST", "/oauth/token")
    assert form.body == "grant_type=client_credentials&client_id=an-id&client_secret=the-secret-of-the-tests"
    assert form.headers["content-type"] == "application/x-www-form-urlencoded"
    assert "authorization" not in form.headers
    assert (account.method, account.path, account.body) == ("GET", "/accounts", "")
    assert account.headers["authorization"] == "Bearer a.b.c"


@pytest.mark.parametrize("token", ["", "a b", "a\r\nX-Evil: 1", "a\n", "tökén", "\x7f", "a" * 70_000])
def test_a_token_that_cannot_be_sent(token):
    with Server(answering(http({}))) as server:
        with pytest.raises(InvalidCredential, match="has characters that a token cannot have") as caught:
            _http.get_json(server.url, access_token=token, failure="It failed")
        assert server.connections == 0
    assert not token or token not in str(caught.value)


@pytest.mark.parametrize("url", ["http://auth.carto.com/x", "ftp://localhost/x", "https://u:p@localhost/x", "x", ""])
def test_an_address_that_is_not_secure(url, monkeypatch):
    monkeypatch.setattr(_http, "_run", lambda *_: pytest.fail("a request was sent"))
    with pytest.raises(UntrustedAddress, match=r"^The address in services= or api_base_url= "):
        _http.post_form(url, FORM, failure="It failed")


def test_netrc_is_not_read(monkeypatch, tmp_path):
    netrc = tmp_path / "netrc"
    netrc.write_text("default login somebody password something\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setattr(_http, "is_loopback", lambda host: False)  # where the environment is looked at
    assert requests.utils.get_netrc_auth("http://127.0.0.1/") == ("somebody", "something")
    with Server(answering(http({}))) as server:
        post(server)
        _http.get_json(server.url, access_token="a.b.c", failure="It failed")
    assert "authorization" not in server.requests[0].headers
    assert server.requests[1].headers["authorization"] == "Bearer a.b.c"


def test_cookies_are_not_kept():
    with Server(answering(http({}, Set_Cookie="session=1"))) as server:
        post(server)
        post(server)
    assert "cookie" not in server.requests[1].headers


# ---- connections ---------------------------------------------------------------------------------


def test_a_connection_is_kept():
    with Server(answering(http({}))) as server:
        for repeatable in (True, False, True):
            post(server, repeatable=repeatable)
        _http.get_text(server.url, failure="It failed")
        assert server.connections == 1


def test_a_connection_is_kept_after_an_error():
    with Server(answering(http({"error": "no"}, status=401), http({}))) as server:
        fails(server, Unauthorized)
        post(server)
        assert server.connections == 1


def test_an_old_connection_is_not_used(monkeypatch):
    with Server(answering(http({}))) as server:
        post(server)
        monkeypatch.setattr(_connections, "LONGEST_IDLE_SECONDS", -1)
        post(server, repeatable=False)
        assert server.connections == 2


def test_a_connection_that_the_server_closed_is_replaced():
    def script(line):
        line.request()
        line.send(http({}))

    with Server(script) as server:
        post(server)
        # A code is not lost on it either: that it is closed is seen before it is used.
        while server.open:
            pass
        post(server, repeatable=False)
        assert server.connections == 2


def test_threads_do_not_share_connections():
    with Server(answering(http({"good": True}))) as server:
        answers = []
        threads = [threading.Thread(target=lambda: answers.append(post(server))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers == [{"good": True}] * 8
        assert server.connections == 8


FORK = """
import os, sys
from carto_auth import _answers, _connections, _http
post = lambda: _http.post_form(sys.argv[1], {"pid": str(os.getpid())}, failure="It failed")
post()
child = os.fork()
if child == 0:
    post()
    sys.exit()
assert os.waitpid(child, 0)[1] == 0
post()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_fork_does_not_share_connections():
    lines = {}

    def script(line):
        while (request := line.request()) is not None:
            lines.setdefault(line.number, []).append(request.body)
            line.send(http({}))

    with Server(script) as server:
        run_python(FORK, server.url)
    (parent, same), (child,) = lines[1], lines[2]
    assert parent == same != child


def test_nothing_is_left_open():
    """At the end of a process, of a thread, and after every kind of failure."""
    program = """
import gc, sys, threading
from carto_auth import _answers, _connections, _http
from carto_auth.errors import CredentialsError
_connections.BACKOFF_SECONDS = _connections.JITTER_SECONDS = 0.0
def post():
    for path in ("good", "silent", "closing", "outage", "large", "good"):
        _http.TOTAL_SECONDS = 0.2 if path == "silent" else 60.0
        try:
            _http.post_form(f"{sys.argv[1]}/{path}", {}, failure="It failed")
        except CredentialsError as error:
            print(path, type(error).__name__)
post()
thread = threading.Thread(target=post)
thread.start()
thread.join()
del thread
gc.collect()
"""

    def script(line):
        while (request := line.request()) is not None:
            if request.path == "/silent":
                line.wait_until_closed()
            elif request.path == "/closing":
                return
            elif request.path == "/outage":
                line.send(http(status=503))
            elif request.path == "/large":
                line.send(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 2 * MIB)
                line.wait_until_closed()
            else:
                line.send(http({}))

    with Server(script) as server:
        printed = run_python(program, server.url)
    told = ["silent RequestFailed", "closing RequestFailed", "outage UnavailableAnswer", "large Unreadable"]
    assert printed.splitlines() == told * 2


def run_python(program, *arguments):
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


# ---- under requests_mock, as dependants test -----------------------------------------------------


def test_under_requests_mock(requests_mock):
    requests_mock.post("https://auth.carto.com/oauth/token", json={"good": True})
    assert _http.post_form("https://auth.carto.com/oauth/token", FORM, failure="It failed") == {"good": True}
    requests_mock.post("https://auth.carto.com/oauth/token", exc=requests.exceptions.ConnectTimeout)
    with pytest.raises(ServiceUnreachable, match=r"^Cannot reach auth.carto.com|did not answer"):
        _http.post_form("https://auth.carto.com/oauth/token", FORM, failure="It failed")
    requests_mock.post("https://auth.carto.com/oauth/token", status_code=503)
    with pytest.raises(ServiceUnavailable):
        _http.post_form("https://auth.carto.com/oauth/token", FORM, failure="It failed")
    assert requests_mock.call_count == 3  # retries are below what is mocked
