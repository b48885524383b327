"""One token for a fleet: the cache in a real Redis, in good and in bad health."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import trustme
from redis_servers import PASSWORD, Server, free_port
from servers import wait_for

from carto_auth import CartoAuth, _account, _log
from carto_auth._identity import Identity
from carto_auth._services import Services
from carto_auth._stores import redis_store, store_at
from carto_auth._stores.base import Entry, Lock
from carto_auth._stores.redis_store import BUDGET_SECONDS
from carto_auth.cli import main
from carto_auth.errors import CredentialsError, RateLimited

pytestmark = pytest.mark.skipif(
    shutil.which("redis-server") is None and not os.environ.get("CI"), reason="Debian: apt install redis-server"
)

TOKEN = "/oauth/token"
BASE = "https://gcp-us-east1.api.carto.com"
AN_ID = Identity.of_application(Services(), "an-id", BASE)
START = """
import sys
from carto_auth import CartoAuth
from carto_auth._stores import redis_store
redis_store.BUDGET_SECONDS = 20  # this computer may be busy
print(CartoAuth.from_m2m().get_access_token(), "redis" in sys.modules)
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with Server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(autouse=True)
def healthy(request, monkeypatch):
    """Warnings are given again, the tests' common Redis is empty, and a busy computer has more time for it."""
    monkeypatch.setattr(_log, "said", set())
    monkeypatch.setattr(redis_store, "BUDGET_SECONDS", 20)
    if "server" in request.fixturenames:
        request.getfixturevalue("server").client.flushall()


@pytest.fixture
def own_server(tmp_path):
    """Starts a Redis with options of its own."""
    with contextlib.ExitStack() as stack:
        yield lambda *options: stack.enter_context(Server(tmp_path, *options))


@pytest.fixture
def computer(monkeypatch, tmp_path):
    """Makes this process go on on another computer, as far as files go."""

    def go_to(name):
        monkeypatch.setenv("CARTO_AUTH_HOME", str(tmp_path / name))

    go_to("first")
    return go_to


def entry(token="T", **more):
    return Entry.of({"access_token": token, "expiration": 4155310800, **more})


def begin(tmp_path, address, name):
    """A program that starts on a computer of its own."""
    environment = {**os.environ, "CARTO_AUTH_CACHE": address, "CARTO_AUTH_HOME": str(tmp_path / name)}
    return subprocess.Popen([sys.executable, "-c", START], env=environment, stdout=subprocess.PIPE, text=True)


def warned(call):
    """What a call gives, and the one warning that it comes with."""
    with pytest.warns(UserWarning, match="cannot be kept in rediss?://127") as told:
        got = call()
    [warning] = {str(one.message) for one in told}
    assert "MARKED" not in warning
    return got, warning


# ---- a healthy one -------------------------------------------------------------------------------


def test_a_fleet_makes_one_request_and_warm_starts_have_no_word_with_redis(carto_sandbox, server, tmp_path):
    carto_sandbox.token_delay = 0.3
    cold = [begin(tmp_path, server.address, f"computer-{number}") for number in range(6)]
    first = {program.communicate(timeout=60)[0] for program in cold}
    assert [told.split()[1] for told in first] == ["True"]
    words = server.client.info()["total_commands_processed"]
    warm = {begin(tmp_path, server.address, f"computer-{number}").communicate(timeout=60)[0] for number in range(2)}
    assert warm == {told.replace("True", "False") for told in first}
    assert server.client.info()["total_commands_processed"] == words + 1
    assert carto_sandbox.count(TOKEN) == 1


def test_a_token_that_was_refused_is_replaced_once_for_the_fleet(carto_sandbox, server, computer):
    fleet = []
    for name in ("first", "second", "third"):
        computer(name)
        fleet.append((name, CartoAuth.from_m2m(cache_filepath=server.address)))
    carto_sandbox.revoke_access_tokens()
    for name, carto in fleet:
        computer(name)
        assert carto.get_carto_dw_credentials()
    assert len({carto.get_access_token() for _, carto in fleet}) == 1
    assert carto_sandbox.count(TOKEN) == 2


def test_an_entry_ends_with_its_token_and_holds_no_secret(carto_sandbox, server):
    carto = CartoAuth.from_m2m(cache_filepath=server.address)
    key = server.entry()
    assert 86_000 < server.client.ttl(key) <= 86_400
    kept = server.client.get(key).decode()
    assert carto.get_access_token() in kept
    assert carto_sandbox.client_secret not in kept + key.decode()


def test_a_persons_login_is_kept_for_good_and_in_redis_alone(server, computer, tmp_path):
    """A refresh token works once, so there must be one copy of it."""
    identity = Identity.of_person(Services(), None)
    store_at(server.address, identity).save(entry(refresh_token="R"))
    assert server.client.ttl(server.entry()) == -1
    assert store_at(server.address, identity).load().token.refresh_token == "R"
    assert not (tmp_path / "first").exists()


def test_accounts_do_not_mix_and_logout_forgets(carto_sandbox, server):
    first = CartoAuth.from_m2m(cache_filepath=server.address)
    other, secret = carto_sandbox.add_application()
    second = CartoAuth.from_m2m(client_id=other, client_secret=secret, cache_filepath=server.address)
    assert first.get_access_token() != second.get_access_token()
    assert first.logout() is True
    again = CartoAuth.from_m2m(client_id=other, client_secret=secret, cache_filepath=server.address)
    assert again.get_access_token() == second.get_access_token()
    CartoAuth.from_m2m(cache_filepath=server.address)
    assert carto_sandbox.count(TOKEN) == 3


def test_a_lock_is_one_accounts_and_that_of_a_killed_process_is_soon_free(server, computer):
    program = f"""
import os
from carto_auth._identity import Identity
from carto_auth._stores import redis_store
redis_store.LOCK_SECONDS = 1
with redis_store.RedisStore(Identity(**{vars(AN_ID)}), {server.address!r}).locked() as lock:
    assert lock == "held"
    os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", program]).returncode == -9
    computer("second")
    store, another = (store_at(server.address, one) for one in (AN_ID, AN_ID.replaced(client_id="b")))
    with store.locked() as lock, another.locked() as other:
        assert (lock, other) == (Lock.BUSY, Lock.HELD)
    with store.locked_within(10) as lock:
        assert lock == Lock.HELD
    with store.locked() as lock:
        assert lock == Lock.HELD


def test_a_lock_that_has_ended_is_left_to_whoever_has_it_now(server):
    with store_at(server.address, AN_ID).locked() as lock:
        assert lock == Lock.HELD
        [key] = server.client.scan_iter()
        assert 60 < server.client.ttl(key) <= 70
        server.client.set(key, "another's")
    assert server.client.get(key) == b"another's"


@pytest.mark.parametrize("content", ["", "no json", "[]", '{"access_token": 5}', "[" * 100_000])
def test_damage_is_a_miss_and_heals(carto_sandbox, server, computer, content):
    CartoAuth.from_m2m(cache_filepath=server.address)
    server.client.set(server.entry(), content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        computer("second")
        healed = CartoAuth.from_m2m(cache_filepath=server.address)
        computer("third")
        assert CartoAuth.from_m2m(cache_filepath=server.address).get_access_token() == healed.get_access_token()
    assert carto_sandbox.count(TOKEN) == 2


def test_a_worker_names_the_redis_of_its_own_environment(server, computer, monkeypatch):
    store = store_at(server.address, AN_ID)
    store.save(entry())
    computer("the worker's")
    arrived = pickle.loads(pickle.dumps(store))
    assert arrived.load() is None
    monkeypatch.setenv("CARTO_AUTH_CACHE", server.address)
    assert arrived.load().token.text == "T"


# ---- one that somebody else can write to ---------------------------------------------------------


def test_what_was_planted_is_judged_like_what_comes_from_the_network(carto_sandbox, server, computer):
    """Neither an API base URL that is not CARTO's, nor the token of another application."""
    inline = {"client_id": carto_sandbox.client_id, "client_secret": carto_sandbox.client_secret}
    first = CartoAuth.from_m2m(**inline, cache_filepath=server.address)
    key = server.entry()
    kept = json.loads(server.client.get(key))
    server.client.set(key, json.dumps({**kept, "api_base_url": "https://api.carto.com.evil.example"}))
    computer("second")
    second = CartoAuth.from_m2m(**inline, cache_filepath=server.address)
    assert second.get_api_base_url() == first.get_api_base_url()
    assert carto_sandbox.count(TOKEN) == 1

    other, secret = carto_sandbox.add_application()
    foreign = CartoAuth.from_m2m(client_id=other, client_secret=secret, use_cache=False).get_access_token()
    server.client.set(key, json.dumps({**kept, "access_token": foreign}))
    computer("third")
    assert CartoAuth.from_m2m(**inline, cache_filepath=server.address).get_access_token() != foreign


def test_a_quotas_refusal_is_shared_but_not_for_longer_than_a_day(carto_sandbox, server, computer, monkeypatch):
    carto_sandbox.rate_limited = 3600
    with pytest.raises(RateLimited):
        CartoAuth.from_m2m(cache_filepath=server.address)
    computer("second")
    monkeypatch.setattr(_account, "refusals", {})  # as in another process
    with pytest.raises(RateLimited, match=r"Try again in 3[56]\d\d s"):
        CartoAuth.from_m2m(cache_filepath=server.address)
    asked, key = carto_sandbox.count(TOKEN), server.entry()
    assert 3500 < server.client.ttl(key) <= 3600

    planted = {"refusal": {"until": time.time() + 10 * 86_400, "message": "Planted."}}
    server.client.set(key, json.dumps(planted))
    computer("third")
    monkeypatch.setattr(_account, "refusals", {})
    carto_sandbox.rate_limited = None
    assert CartoAuth.from_m2m(cache_filepath=server.address).get_access_token()
    assert carto_sandbox.count(TOKEN) == asked + 1


def test_an_api_base_url_of_cartos_is_taken(server, computer):
    store_at(server.address, AN_ID).save(
        Entry.of({"access_token": "T", "expiration": 4155310800, "api_base_url": BASE})
    )
    computer("second")
    assert store_at(server.address, AN_ID).load().api_base_url == BASE


# ---- one in bad health ---------------------------------------------------------------------------


def test_a_redis_that_hangs_costs_a_second_and_then_nothing(carto_sandbox, own_server, computer, monkeypatch):
    monkeypatch.setattr(redis_store, "BUDGET_SECONDS", BUDGET_SECONDS)
    server = own_server()
    server.process.send_signal(signal.SIGSTOP)
    try:
        began = time.monotonic()
        carto, warning = warned(lambda: CartoAuth.from_m2m(cache_filepath=server.address))
        took = time.monotonic() - began
        began = time.monotonic()
        again = CartoAuth.from_m2m(cache_filepath=server.address)
        computer("second")
        warned_already = CartoAuth.from_m2m(cache_filepath=server.address)
        assert time.monotonic() - began < BUDGET_SECONDS
    finally:
        server.process.send_signal(signal.SIGCONT)
    assert BUDGET_SECONDS <= took < BUDGET_SECONDS + 4  # a busy computer takes its time for the rest
    assert "(Redis: it does not answer within 1 s)" in warning
    assert again.get_access_token() == carto.get_access_token() != warned_already.get_access_token()
    assert carto_sandbox.count(TOKEN) == 2  # one on each computer


def test_a_program_that_waits_for_its_turn_uses_redis_all_the_same(server, computer, monkeypatch, carto_sandbox):
    """As 100 workers that start together on a busy computer: each word takes long, and Redis is not to blame."""
    seconds = itertools.count(0, 15)
    monkeypatch.setattr(redis_store, "time", SimpleNamespace(time=time.time, monotonic=lambda: next(seconds)))
    monkeypatch.setattr(redis_store, "PAUSE_SECONDS", 1000)
    monkeypatch.setattr(redis_store, "QUICK_SECONDS", 14)
    tokens = set()
    for name in ("first", "second", "third"):
        computer(name)
        tokens.add(CartoAuth.from_m2m(cache_filepath=server.address).get_access_token())
    assert len(tokens) == carto_sandbox.count(TOKEN) == 1


def test_a_token_is_renewed_ahead_of_its_end_without_redis(carto_sandbox, own_server, clock):
    server = own_server()
    carto = CartoAuth.from_m2m(cache_filepath=server.address)
    first = carto.get_access_token()
    server.kill()
    clock.ahead = 86_400 - 30
    renewed, warning = warned(carto.get_access_token)
    assert renewed != first
    assert "Connection refused" in warning


def test_a_redis_that_is_killed_and_started_again_in_mid_renewal(carto_sandbox, own_server, tmp_path):
    server = own_server()
    carto_sandbox.token_delay = 1.5
    fleet = [begin(tmp_path, server.address, f"computer-{number}") for number in range(3)]
    wait_for(lambda: carto_sandbox.count(TOKEN) or list(server.client.scan_iter("*:lock")))
    server.kill()
    server.start()
    assert all(program.communicate(timeout=60)[0] for program in fleet)
    assert carto_sandbox.count(TOKEN) <= 3
    asked = carto_sandbox.count(TOKEN)
    assert begin(tmp_path, server.address, "computer-0").communicate(timeout=60)[0]
    assert carto_sandbox.count(TOKEN) == asked


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--replicaof", "127.0.0.1", "1"], "it is a read-only replica"),
        (["--maxmemory", "1", "--maxmemory-policy", "noeviction"], "its memory is full"),
        (["--user", "default", "on", f">{PASSWORD}", "~*", "+@all", "-set"], "its ACL does not allow GET, SET and DEL"),
        (["--rename-command", "SET", ""], "it does not keep values, as a Sentinel does not"),
    ],
)
def test_a_redis_that_does_not_keep_it(carto_sandbox, own_server, options, reason):
    """One request on each computer, and the reason in the warning."""
    server = own_server(*options)
    carto, warning = warned(lambda: CartoAuth.from_m2m(cache_filepath=server.address))
    assert f"(Redis: {reason}" in warning
    assert carto.get_access_token() not in warning
    assert CartoAuth.from_m2m(cache_filepath=server.address).get_access_token() == carto.get_access_token()
    assert carto_sandbox.count(TOKEN) == 1


def test_a_redis_that_refuses_the_password(carto_sandbox, server):
    address = server.address.replace(PASSWORD, "MARKED-WRONG")
    _, warning = warned(lambda: CartoAuth.from_m2m(cache_filepath=address))
    assert "(Redis: it refuses the user name or the password)" in warning


def test_a_redis_that_is_not_there_and_a_logout_that_cannot_reach_it(carto_sandbox):
    address = f"redis://:{PASSWORD}@127.0.0.1:9/0"
    carto, _ = warned(lambda: CartoAuth.from_m2m(cache_filepath=address))
    with pytest.raises(CredentialsError, match=r"^The token could not be .* redis://127\.0\.0\.1:9/0 \(Redis: Conn"):
        carto.logout()


def test_more_workers_than_redis_has_room_for(own_server):
    """Whoever finds no place tries again for a moment, instead of going on without the lock."""
    server = own_server("--maxclients", "4")
    server.client.close()
    identity = Identity.of_person(Services(), None)  # which has no lock in a file, as on a computer of its own
    together = threading.Barrier(16, timeout=30)

    def outcome(_):
        together.wait()
        with store_at(server.address, identity).locked() as lock:
            together.wait()
            return lock

    with ThreadPoolExecutor(16) as pool:
        locks = list(pool.map(outcome, range(16)))
    assert (locks.count(Lock.HELD), locks.count(Lock.BUSY)) == (1, 15)


# ---- rights, TLS, clusters -----------------------------------------------------------------------


@pytest.mark.filterwarnings("error")
def test_the_rights_in_the_documents_are_enough(carto_sandbox, server, computer, monkeypatch, capsys):
    """Those of docs/how-to/clusters.md: no EVAL, no KEYS, no other keys. Without SCAN, nothing is listed as empty."""
    rights = "reset on >MARKED-FLEET ~carto-auth:* +get +set +del"
    server.client.execute_command("ACL", "SETUSER", "fleet", *rights.split())
    address = server.address.replace(f":{PASSWORD}", "fleet:MARKED-FLEET")
    carto = CartoAuth.from_m2m(cache_filepath=address)
    computer("second")
    assert CartoAuth.from_m2m(cache_filepath=address).get_access_token() == carto.get_access_token()
    assert carto_sandbox.count(TOKEN) == 1
    monkeypatch.setenv("CARTO_AUTH_CACHE", address)
    assert (main(["accounts"]), "or SCAN to list them" in capsys.readouterr().err) == (1, True)
    server.client.execute_command("ACL", "SETUSER", "fleet", "+scan")
    assert (main(["accounts"]), carto.get_api_base_url() in capsys.readouterr().out) == (0, True)
    assert carto.logout() is True
    assert not list(server.client.scan_iter())


@pytest.fixture
def tls(own_server, tmp_path):
    """A Redis that speaks TLS, with a certificate of a private CA; the CA's file."""
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    files = {"ca": authority.cert_pem, "key": issued.private_key_pem, "cert": issued.cert_chain_pems[0]}
    for name, pem in files.items():
        pem.write_to_path(tmp_path / f"{name}.pem")
    of_tls = {"port": (port := free_port()), "auth-clients": "no", "ca-cert-file": tmp_path / "ca.pem"}
    of_tls |= {"cert-file": tmp_path / "cert.pem", "key-file": tmp_path / "key.pem"}
    own_server(*(word for name, value in of_tls.items() for word in (f"--tls-{name}", value)))
    return f"rediss://:{PASSWORD}@127.0.0.1:{port}/0", str(tmp_path / "ca.pem")


@pytest.mark.parametrize("named", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "the address"])
@pytest.mark.filterwarnings("error")
def test_a_private_ca_counts_for_redis_too(carto_sandbox, tls, computer, monkeypatch, named):
    address, authority = tls
    if named == "the address":
        address += f"?ssl_ca_certs={authority}"
    else:
        monkeypatch.setenv(named, authority)
    carto = CartoAuth.from_m2m(cache_filepath=address)
    computer("second")
    assert CartoAuth.from_m2m(cache_filepath=address).get_access_token() == carto.get_access_token()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("", ""), r"its certificate is not accepted: self-signed"),
        (("127.0.0.1", "localhost"), r"Hostname mismatch.*localhost"),
    ],
)
def test_a_certificate_that_is_not_believed(carto_sandbox, tls, monkeypatch, change, reason):
    address, authority = tls
    if change[0]:
        monkeypatch.setenv("SSL_CERT_FILE", authority)
    with pytest.warns(UserWarning, match=rf"cannot be kept in rediss://.*\(Redis: .*{reason}"):
        CartoAuth.from_m2m(cache_filepath=address.replace(*change))


def test_a_redis_that_speaks_tls_to_a_client_that_does_not(carto_sandbox, tls):
    address, _ = tls
    _, warning = warned(lambda: CartoAuth.from_m2m(cache_filepath=address.replace("rediss:", "redis:")))
    assert "(Redis: it closed the connection; where it speaks TLS, its address begins with rediss://)" in warning


def test_a_socket(carto_sandbox, own_server, computer, tmp_path):
    own_server("--unixsocket", tmp_path / "s")
    address = f"unix://:{PASSWORD}@{tmp_path}/s?db=1"
    carto = CartoAuth.from_m2m(cache_filepath=address)
    computer("second")
    assert CartoAuth.from_m2m(cache_filepath=address).get_access_token() == carto.get_access_token()
    assert carto_sandbox.count(TOKEN) == 1


@pytest.mark.filterwarnings("error")
def test_a_cluster_is_reached_through_any_of_its_nodes(own_server, computer):
    buses = [free_port() for _ in range(3)]
    nodes = [
        own_server("--cluster-enabled", "yes", "--cluster-config-file", f"{bus}.conf", "--cluster-port", bus)
        for bus in buses
    ]
    first, *others = nodes
    for number, node in enumerate(nodes):
        slots = (number * 5461, 16_383 if number == 2 else number * 5461 + 5460)
        node.client.execute_command("CLUSTER", "ADDSLOTSRANGE", *slots)
    for node, bus in zip(others, buses[1:], strict=True):
        first.client.execute_command("CLUSTER", "MEET", "127.0.0.1", node.port, bus)
    wait_for(lambda: all(node.client.execute_command("CLUSTER INFO")["cluster_state"] == "ok" for node in nodes))
    accounts = [AN_ID.replaced(client_id=f"id-{number}") for number in range(8)]
    for account in accounts:
        with store_at(first.address, account).locked() as lock:
            assert lock == Lock.HELD
            store_at(first.address, account).save(
                Entry.of({"access_token": account.client_id, "expiration": 4155310800})
            )
    computer("second")
    for account in accounts:
        assert store_at(others[0].address, account).load().token.text == account.client_id
    assert all(node.client.dbsize() for node in nodes)
    assert sum(node.client.dbsize() for node in nodes) == 8


# ---- the command ---------------------------------------------------------------------------------


def test_the_command_knows_what_redis_keeps_and_tells_when_it_cannot_be_reached(
    server, computer, carto_sandbox, monkeypatch, capsys
):
    monkeypatch.setenv("CARTO_AUTH_CACHE", server.address)
    CartoAuth.from_m2m()
    computer("second")
    assert main(["accounts"]) == 0
    shown = capsys.readouterr().out
    assert f"Token of the M2M application {carto_sandbox.client_id}\n" in shown
    assert f"redis://127.0.0.1:{server.port}/0" in shown
    assert main(["logout", "--all"]) == 0
    assert server.client.keys("*mode=*") == []
    monkeypatch.setenv("CARTO_AUTH_CACHE", f"redis://:{PASSWORD}@127.0.0.1:{free_port()}/0")
    capsys.readouterr()
    assert main(["status"]) == 0, "programs go on without it"
    shown = capsys.readouterr().out
    assert "programs go on without it" in shown
    assert PASSWORD not in shown
