"""The door to the network, against servers that do everything wrong."""

import gzip
import io
import os
import signal
import socket
import threading
import time
import tracemalloc
from datetime import datetime, timezone
from email.utils import format_datetime
from pathlib import Path

import pytest
import requests
from requests.adapters import HTTPAdapter
from servers import Server, answering, http, then_closing, wait_for

from carto_auth import CartoAuth, _http
from carto_auth._http import sending
from carto_auth._http.failures import CAPTIVE_PORTAL
from carto_auth._services import Services
from carto_auth.discovery import get_api_base_url
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
from carto_auth.m2m import get_m2m_token_info
from carto_auth.pkce import CartoPKCE

CARTO = "https://auth.carto.com/oauth/token"
FORM = {"grant_type": "client_credentials", "client_id": "an-id", "client_secret": "the-secret-of-the-tests"}
MIB = 1024 * 1024


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr(sending, "BACKOFF_SECONDS", 0.0)
    monkeypatch.setattr(sending, "JITTER_SECONDS", 0.0)


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(sending, "TOTAL_SECONDS", 0.3)


def post_to(url, **options):
    return _http.post_form(url, FORM, failure="CARTO handed out no token", **options)


def post(server, **options):
    return post_to(f"{server.url}/oauth/token", **options)


def fails(server, kind=CredentialsError, **options):
    with pytest.raises(kind) as caught:
        post(server, **options)
    return caught.value


def request_threads():
    return [thread for thread in threading.enumerate() if thread.name == sending.THREAD_NAME]


# ---- servers that do not come to an end ----------------------------------------------------------


def after_the_request(head, drip=b""):
    """A script: send ``head``, then ``drip`` again and again, or nothing more."""

    def script(line):
        line.request()
        line.send(head)
        line.drip(drip) if drip else line.wait_until_closed()

    return script


ENDLESS = {
    "silence": after_the_request(b""),
    "a status": after_the_request(b"HTTP/1.1 200 ", b"x"),
    "headers": after_the_request(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
    "a body": after_the_request(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b"x"),
    "chunks": after_the_request(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    "continuations": after_the_request(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "an outage": after_the_request(b"HTTP/1.1 503 Busy\r\n\r\n", b"x"),
}


@pytest.mark.parametrize("script", ENDLESS.values(), ids=ENDLESS)
def test_a_server_without_an_end_is_left(script, impatient):
    with Server(script) as server:
        began = time.monotonic()
        error = fails(server, ServiceUnreachable)
        assert time.monotonic() - began < 2
        assert str(error) == f"127.0.0.1:{server.port} did not finish its answer within 0 s. Try again later."
        assert isinstance(error, requests.RequestException)
    wait_for(lambda: not request_threads())


def test_a_name_lookup_without_an_end_is_left(impatient, monkeypatch):
    told = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: told.wait(20) and [])
    with pytest.raises(ServiceUnreachable, match=r"^auth\.carto\.com did not finish its answer"):
        post_to(CARTO)
    told.set()
    wait_for(lambda: not request_threads())


def test_silence_is_bounded_per_read_too(monkeypatch):
    monkeypatch.setattr(sending, "READ_SECONDS", 0.05)
    with Server(ENDLESS["silence"]) as server:
        error = fails(server, ServiceUnreachable)
        assert str(error) == f"127.0.0.1:{server.port} did not answer in time. Try again later."
        wait_for(lambda: server.connections == 3)


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="no signal can be sent to a thread here")
def test_ctrl_c_ends_a_wait_at_once():
    def interrupts(line):
        if line.request() is not None:
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            line.wait_until_closed()

    with Server(interrupts) as server:
        began = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            post(server, repeatable=False)
        assert time.monotonic() - began < 5
    wait_for(lambda: not request_threads())


@pytest.mark.parametrize("step", ["__init__", "start"])  # a subinterpreter refuses to make one
def test_without_a_thread_to_be_had_the_request_is_sent_all_the_same(monkeypatch, step):
    def refused(self, **options):
        if sending.THREAD_NAME in (options.get("name"), step == "start" and self.name):
            raise RuntimeError("can't start new thread")
        return real(self, **options)

    real = getattr(threading.Thread, step)
    with Server(answering(http({"good": True}))) as server:
        monkeypatch.setattr(threading.Thread, step, refused)
        assert post(server) == {"good": True}


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="only Linux says which descriptors are open")
def test_threads_leave_no_descriptor_and_no_connection():
    """500 threads that have each sent a request, and go on: as in a server that has a thread for each visitor."""
    done, end = threading.Semaphore(0), threading.Event()

    def visitor(server):
        try:
            post(server)
        finally:
            done.release()
        end.wait(100)

    with Server(answering(http({"good": True}))) as server:
        post(server)
        before = len(os.listdir("/proc/self/fd"))
        threads = [threading.Thread(target=visitor, args=(server,)) for _ in range(500)]
        for first in range(0, 500, 20):  # a few at a time: the server is small
            for thread in threads[first : first + 20]:
                thread.start()
            for _ in threads[first : first + 20]:
                assert done.acquire(timeout=60)
        wait_for(lambda: not server.open)
        assert len(os.listdir("/proc/self/fd")) <= before
        assert len(server.requests) == 501
        end.set()
        for thread in threads:
            thread.join()


# ---- servers that send too much ------------------------------------------------------------------

TOO_MUCH = {
    "an endless body": after_the_request(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * MIB),
    "an endless error": after_the_request(b"HTTP/1.1 400 Bad Request\r\n\r\n", b"x" * MIB),
    "an endless redirect": after_the_request(b"HTTP/1.1 302 Found\r\nLocation: http://[\r\n\r\n", b"x" * MIB),
    "a gzip bomb": answering(http(gzip.compress(gzip.compress(b"0" * 64 * MIB)), Content_Encoding="gzip, gzip")),
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
            f"127.0.0.1:{server.port} sent more than 1024 KiB. No answer from CARTO is that long. Check the address."
        )
        assert peak < 16 * MIB


# ---- servers that send nonsense, or close --------------------------------------------------------

CLOSED = (ServiceUnreachable, "closed the connection before its answer was complete. Try again.")
NO_HTTP = (InvalidAnswer, "sent something that is not an HTTP answer. Check the address and its port.")
HALF = b'HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"good": '
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
NONSENSE = {
    # script, error, tries
    "closes at once": (lambda line: None, CLOSED, 3),
    "closes after the request": (then_closing(), CLOSED, 3),
    "closes in the body": (then_closing(HALF), CLOSED, 3),
    "closes in a chunk": (then_closing(CHUNKED + b"9\r\n{"), CLOSED, 3),
    "garbled chunks": (then_closing(CHUNKED + b"not hex\r\n{}"), CLOSED, 3),
    "garbage": (then_closing(b"\0\xff\x16\x03 no HTTP at all\r\n\r\n"), NO_HTTP, 3),
    "too many headers": (then_closing(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n"), NO_HTTP, 3),
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
        fails(server, kind, repeatable=False)
        assert server.connections == tries + 1


# ---- retries -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("status", "tries"), [(400, 1), (401, 1), (404, 1), (429, 3), (500, 3), (503, 3), (599, 3)])
def test_tries_by_status(status, tries):
    with Server(answering(http({"error": "no"}, status=status))) as server:
        assert fails(server, ServerError).status == status
        assert len(server.requests) == tries
        server.requests.clear()
        fails(server, repeatable=False)
        assert len(server.requests) == 1


#: Auth0 says in every answer when its limit of requests begins again.
IN_AN_HOUR = str(int(time.time()) + 3600)


@pytest.mark.parametrize(
    "trouble",
    [http(status=503), http(status=503, x_ratelimit_reset=IN_AN_HOUR), http(status=429, Retry_After="0"), b""],
    ids=["an outage", "an outage far from a limit", "a limit", "no answer"],
)
def test_a_passing_trouble_passes_unnoticed(trouble):
    def script(line):
        if line.number == 3:
            return answering(http({"good": True}))(line)
        return then_closing(trouble)(line)

    with Server(script) as server:
        assert post(server) == {"good": True}


def test_a_connection_that_failed_is_tried_again_even_for_a_code(monkeypatch):
    lookups = []

    def getaddrinfo(*arguments, **options):
        lookups.append(arguments)
        if len(lookups) < 3:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return real(*arguments, **options)

    real = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with Server(answering(http({"good": True}))) as server:
        assert post(server, repeatable=False) == {"good": True}
        assert (len(lookups), len(server.requests)) == (3, 1)


@pytest.fixture
def waits(monkeypatch):
    """Seconds that were slept between tries, without sleeping."""
    slept = []
    monkeypatch.setattr(time, "sleep", lambda seconds: slept.append(seconds) if seconds else None)
    return slept


def test_waits_grow_and_differ(waits, monkeypatch):
    monkeypatch.setattr(sending, "BACKOFF_SECONDS", 0.3)
    monkeypatch.setattr(sending, "JITTER_SECONDS", 0.3)
    with Server(answering(http(status=503))) as server:
        fails(server)
        fails(server)
    assert all(0.3 <= wait <= 0.6 for wait in waits[::2])
    assert all(0.6 <= wait <= 0.9 for wait in waits[1::2])
    assert len(set(waits)) == 4
    waits.clear()
    with Server(answering(http(status=429, Retry_After="2"))) as server:
        fails(server)
    assert all(2 <= wait <= 2.3 for wait in waits)
    assert len(set(waits)) == 2


def http_date(seconds):
    return format_datetime(datetime.fromtimestamp(time.time() + seconds, timezone.utc), usegmt=True)


@pytest.mark.parametrize(
    ("retry_after", "tries", "about"),
    [
        ("7", 3, 7),
        ("10", 3, 10),
        ("11", 1, None),
        ("86400", 1, None),
        (lambda: http_date(8), 3, 8),
        (lambda: http_date(3600), 1, None),
        (lambda: http_date(-3600), 3, 0),
        ("Mon, 99 Foo 99999999 99:99:99 GMT", 3, 0),
        ("-5", 3, 0),
        ("nan", 3, 0),
        ("9" * 5000, 3, 0),
    ],
)
def test_retry_after_is_obeyed_when_it_is_short(retry_after, tries, about, waits):
    if callable(retry_after):
        retry_after = retry_after()
    with Server(answering(http(status=429, Retry_After=retry_after))) as server:
        fails(server, RateLimited)
        assert len(server.requests) == tries
    assert len(waits) == (tries - 1 if about else 0)
    assert all(about - 5 < wait <= about for wait in waits)


def test_no_wait_beyond_the_deadline(impatient, waits):
    with Server(answering(http(status=503, Retry_After="5"))) as server:
        assert fails(server, ServiceUnavailable).retry_after == 5
        assert len(server.requests) == 1
    assert waits == []


# ---- answers -------------------------------------------------------------------------------------

HTML = "\n<!doctype html><p>Sign in"
LONG = "word " * 1000
ANSWERS = [
    # status, body, class, what the message says
    (401, {"error": "access_denied", "error_description": "Unauthorized"}, Unauthorized, "401 (Unauthorized)."),
    (403, {"error": "access_denied", "error_description": "No service: x"}, Unauthorized, "403 (No service: x)."),
    (400, {"error": "invalid_grant", "error_description": "Invalid code."}, Unauthorized, "400 (Invalid code)."),
    (200, {"error": "access_denied"}, Unauthorized, "200 (access_denied)."),
    (403, "", Unauthorized, "403."),
    (429, {"error": "Too Many", "message": "A limit"}, RateLimited, "429 (Too Many. A limit). Try again later."),
    (400, {"error": ["not allowed", "really"], "hint": "log in"}, ServerError, "400 (not allowed; really. log in)."),
    (200, {"error": "unavailable", "access_token": "x"}, ServerError, "200 (unavailable)."),
    (400, {"error": {"a": 1}, "error_description": ["b"]}, ServerError, "400."),
    (403, {"error": {"code": 403, "status": "DENIED", "message": "Not you."}}, Unauthorized, "403 (Not you)."),
    (400, {"error": "a\x1b[31mb\r\nc\u202ed\ud800e\0"}, ServerError, "400 (a [31mb  c d e)."),
    (400, {"error": LONG}, ServerError, f"400 ({LONG[:197]})."),
    (502, HTML, ServiceUnavailable, "502 (a web page). The service has a problem; try again later."),
    (511, HTML, ServiceUnavailable, f"511 (a web page). {CAPTIVE_PORTAL}"),
]
BLOCKED = (
    "Something between you and CARTO answered, such as a company's proxy or firewall: ask whoever runs it to let "
    "requests to {} through. If this network wants you to sign in first, open a web page in your browser, then try "
    "again."
)
CALLS_THAT_ARE_BLOCKED = {
    "a token": lambda services: get_m2m_token_info("an-id", "a-secret", services=services),
    "a code": lambda services: CartoPKCE(open_browser=False, services=services).get_token_info("a-code"),
    "discovery": lambda services: get_api_base_url("a-token", services=services),
    "the warehouse": lambda services: account(services).get_carto_dw_credentials(),
    "a restricted token": lambda services: account(services).restricted_to([("carto_dw", "a.b.c")]),
}


def account(services):
    return CartoAuth("oauth", services.auth_url, "a-token", 4155310800, interactive=False, services=services)


@pytest.mark.parametrize("call", CALLS_THAT_ARE_BLOCKED.values(), ids=CALLS_THAT_ARE_BLOCKED)
@pytest.mark.parametrize(("status", "body"), [(403, "<html>Blocked by policy"), (401, "<p>No"), (403, "Forbidden.")])
def test_a_refusal_by_something_between_is_told_as_one(call, status, body):
    """CARTO refuses in JSON; what a proxy or a firewall says is not about the credentials."""
    with Server(answering(http(body, status=status))) as server, pytest.raises(CredentialsError) as caught:
        call(Services(server.url, server.url, server.url))
    assert caught.value.remedy == BLOCKED.format(f"127.0.0.1:{server.port}")


NO_OBJECTS = [
    (HTML, "a web page"),
    ("", "nothing"),
    ("token=abc", "something else"),
    ([1], "something else"),
    ("[" * 100_000, "something else"),
    (b'{"a": "\xff"}', "something else"),
]


def public_class(error):
    """The class of ``errors`` that an error is; what is raised may also be one of ``requests``."""
    return next(kind for kind in type(error).__mro__ if kind.__module__ == "carto_auth.errors")


@pytest.mark.parametrize(("status", "body", "kind", "words"), ANSWERS)
def test_answers_that_are_no_success(status, body, kind, words):
    with Server(answering(http(body, status=status))) as server:
        error = fails(server)
    assert public_class(error) is kind
    assert isinstance(error, requests.RequestException)
    assert str(error) == f"CARTO handed out no token: 127.0.0.1:{server.port} answered {words}"
    assert error.status == status


def test_the_details_of_an_error():
    body = {"error": "access_denied", "error_description": "No, not now."}
    with Server(answering(http(body, status=503, Retry_After="120"))) as server:
        error = fails(server, ServiceUnavailable)
    assert (error.error, error.error_description, error.retry_after) == ("access_denied", "No, not now.", 120)
    assert error.remedy == "The service has a problem; try again in 120 s."


@pytest.mark.parametrize(("body", "what"), NO_OBJECTS)
def test_successes_without_an_object(body, what):
    with Server(answering(http(body))) as server:
        error = fails(server, InvalidAnswer)
    where = f"127.0.0.1:{server.port}"
    assert str(error) == f"CARTO handed out no token: {where} sent {what} instead of a JSON object. {CAPTIVE_PORTAL}"


def test_a_redirect_is_not_followed():
    with Server(answering(http({}))) as stranger:
        for status in (301, 303, 308):
            with Server(answering(http(status=status, Location=f"{stranger.url}/a?b"))) as server:
                error = fails(server, InvalidAnswer)
                with pytest.raises(InvalidAnswer, match="redirect"):
                    _http.get_text(server.url, failure="It failed")
            assert str(error) == (
                f"CARTO handed out no token: 127.0.0.1:{server.port} answered with a redirect ({status}) to "
                f"127.0.0.1:{stranger.port}, which is never followed with credentials. Check the address; use the one "
                f"it leads to if you trust it. {CAPTIVE_PORTAL}"
            )
        assert stranger.connections == 0
    with Server(answering(http(status=302, Location="http://[::1/"))) as server:
        assert fails(server, InvalidAnswer).status == 302


NOW = 1_800_000_000
USED_UP = "b=per_hour;q=100;r=0;t=1800"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry_After": "17"}, 17),
        ({"Retry_After": "16.2"}, 16.2),
        ({"Retry_After": "Fri, 15 Jan 2027 08:01:40 GMT"}, 100),
        ({"Retry_After": "Fri, 15 Jan 2027 07:59:00 GMT"}, None),
        ({"Retry_After": "inf"}, None),
        ({"Retry_After": "-1"}, None),
        ({"Retry_After": "soon", "x_ratelimit_reset": str(NOW + 30)}, 30),
        ({"x_ratelimit_reset": str(NOW - 30)}, None),
        ({"Auth0_Client_Quota_Limit": f"{USED_UP},b=per_day;q=200;r=0;t=4000"}, 4000),
        ({"Auth0_Client_Quota_Limit": USED_UP, "x_ratelimit_reset": str(NOW + 30)}, 1800),
        ({"Auth0_Client_Quota_Limit": USED_UP.replace("r=0", "r=5"), "x_ratelimit_reset": str(NOW + 30)}, 30),
        ({"Auth0_Client_Quota_Limit": ";;,=;t", "x_ratelimit_reset": str(NOW + 30)}, 30),
    ],
)
def test_when_to_try_again(headers, seconds, monkeypatch):
    monkeypatch.setattr(time, "time", lambda: NOW)
    with Server(answering(http(status=429, **headers))) as server:
        error = fails(server, RateLimited, repeatable=False)
    assert error.retry_after == seconds
    expected = "Try again later." if seconds is None else f"Try again in {17 if seconds == 16.2 else seconds} s."
    assert error.remedy == expected


def test_get_text_wants_text():
    with Server(answering(http(b"<html>"))) as server, pytest.raises(InvalidAnswer) as caught:
        _http.get_text(server.url, failure="It failed")
    assert str(caught.value) == f"It failed: 127.0.0.1:{server.port} sent a web page. {CAPTIVE_PORTAL}"
    with Server(answering(http(b"\xef\xbb\xbfa: \xff"))) as server:
        assert _http.get_text(server.url, failure="It failed") == "a: \ufffd"


def test_as_much_as_is_allowed_is_read():
    with Server(answering(http(b" " * (MIB - 2) + b"{}"))) as server:
        assert post(server) == {}


def test_an_empty_success_only_where_it_is_fine():
    with Server(answering(http(status=200))) as server:
        assert post(server, empty_is_fine=True) == {}
        assert _http.request_json("DELETE", server.url, access_token="a.b.c", failure="It failed") == {}
        fails(server, InvalidAnswer)


# ---- what is sent --------------------------------------------------------------------------------


def test_what_is_sent():
    with Server(answering(http({}))) as server:
        post(server)
        _http.get_json(f"{server.url}/accounts", access_token="a.b.c", failure="It failed")
        _http.request_json("POST", f"{server.url}/v3", access_token="a.b.c", body={"a": [1]}, failure="It failed")
    form, account, body = server.requests
    assert (form.method, form.path) == ("POST", "/oauth/token")
    assert form.body == "grant_type=client_credentials&client_id=an-id&client_secret=the-secret-of-the-tests"
    assert form.headers["content-type"] == "application/x-www-form-urlencoded"
    assert "authorization" not in form.headers
    assert (account.method, account.path, account.body) == ("GET", "/accounts", "")
    assert account.headers["authorization"] == body.headers["authorization"] == "Bearer a.b.c"
    assert (body.body, body.headers["content-type"]) == ('{"a": [1]}', "application/json")


@pytest.mark.parametrize("token", ["", "a b", "a\r\nX-Evil: 1", "tökén", "\x7f", "a" * 70_000])
def test_a_token_that_cannot_be_sent(token, requests_mock):
    with pytest.raises(InvalidCredential, match="has characters that a token cannot have") as caught:
        _http.get_json(CARTO, access_token=token, failure="It failed")
    assert requests_mock.call_count == 0
    assert not token or token not in str(caught.value)


@pytest.mark.parametrize("url", ["http://auth.carto.com/x", "ftp://localhost/x", "https://u:p@localhost/x", "x", ""])
def test_an_address_that_is_not_secure(url, requests_mock):
    with pytest.raises(UntrustedAddress, match=r"^The address in services= or api_base_url= "):
        post_to(url)
    assert requests_mock.call_count == 0


def test_netrc_is_not_read(monkeypatch, tmp_path, requests_mock):
    netrc = tmp_path / "netrc"
    netrc.write_text("default login somebody password something\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    requests_mock.get(CARTO, json={})
    requests.get(CARTO)
    assert requests_mock.last_request.headers["authorization"].startswith("Basic ")
    _http.get_json(CARTO, failure="It failed")
    assert "authorization" not in requests_mock.last_request.headers
    _http.get_json(CARTO, access_token="a.b.c", failure="It failed")
    assert requests_mock.last_request.headers["authorization"] == "Bearer a.b.c"


# ---- what is left --------------------------------------------------------------------------------


def test_every_request_has_a_connection_of_its_own():
    """No other thread, fork or account can get an answer or a cookie of it."""
    with Server(answering(http({"good": True}, Set_Cookie="session=1"))) as server:
        answers = []
        threads = [threading.Thread(target=lambda: answers.append(post(server))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        post(server)
        assert answers == [{"good": True}] * 8
        assert server.connections == 9
        wait_for(lambda: not server.open)
        assert not any("cookie" in request.headers for request in server.requests)
    assert request_threads() == []


@pytest.mark.parametrize("script", [answering(http(status=503)), then_closing(HALF), *TOO_MUCH.values()])
def test_failures_leave_nothing_open(script):
    with Server(script) as server:
        error = fails(server)
        wait_for(lambda: not server.open)
        assert request_threads() == []
        del error  # until here, nothing was open that it could hold


# ---- under the tools that dependants test with ---------------------------------------------------


def test_under_requests_mock(requests_mock):
    requests_mock.post(CARTO, json={"good": True})
    assert post_to(CARTO) == {"good": True}
    requests_mock.post(CARTO, exc=requests.exceptions.ConnectTimeout)
    with pytest.raises(ServiceUnreachable, match=r"^Cannot reach auth.carto.com|did not answer"):
        post_to(CARTO)
    requests_mock.post(CARTO, status_code=503)
    with pytest.raises(ServiceUnavailable):
        post_to(CARTO)
    assert requests_mock.call_count == 3  # retries are below what is mocked


def test_under_a_mock_of_the_adapter(monkeypatch):
    """As the package responses mocks."""

    def send(self, request, **_):
        response = requests.Response()
        response.status_code, response.url, response.request = 200, request.url, request
        response.raw = io.BytesIO(b'{"good": true}')
        return response

    monkeypatch.setattr(HTTPAdapter, "send", send)
    assert post_to(CARTO) == {"good": True}


def test_a_session_that_caches_for_the_whole_process_is_not_used(monkeypatch):
    """As requests_cache.install_cache() has it: it could answer one account with the token of another."""

    class Caching(requests.Session):
        def send(self, *_, **__):
            raise AssertionError("this may be an old answer")

    for place in (requests, requests.sessions):
        monkeypatch.setattr(place, "Session", Caching)
    with Server(answering(http({"good": True}))) as server:
        assert post(server) == {"good": True}
