"""carto_auth.cache: whose an entry is, how safe its file is, and that it is whole whatever happens."""

import base64
import json
import multiprocessing
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
import traceback
from contextlib import contextmanager, suppress
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from unittest.mock import Mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carto_auth import CartoAuth, _log, auth, cache
from carto_auth._services import Services
from carto_auth.cache import AccountFile, Identity

BASE = "https://gcp-us-east1.api.carto.com"
ANOTHER_USER = 12345
LATER = 4_000_000_000

# Modes, signals and users here are those of POSIX.
resource = pytest.importorskip("resource")
as_root = pytest.mark.skipif("os.geteuid() != 0", reason="only root can become another user")


@pytest.fixture(autouse=True)
def nothing_was_said(monkeypatch):
    monkeypatch.setattr(_log, "said", set())


@pytest.fixture
def file(tmp_path):
    return tmp_path / "token.json"


@pytest.fixture
def shared_folder():
    """A folder that every user can reach, unlike pytest's."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@contextmanager
def umask(mask):
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def application(client_id="an-id"):
    return Identity.of_application(Services(), client_id, BASE)


def person(organization=None):
    return Identity.of_person(Services(), organization)


def jwt(**claims):
    parts = [json.dumps(part).encode() for part in ({"alg": "none"}, claims)]
    return ".".join([base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts] + ["signature"])


def entry(token="a-token", **more):
    return {"api_base_url": BASE, "access_token": token, "expiration": LATER} | more


def save(path, token="a-token", identity=None, **more):
    cache.save_cache_file(path, {"identity": str(identity or application()), **entry(token, **more)})


def load(path, identity=None):
    return cache.load_cache_file(AccountFile.at(path, identity or application()))


def loaded_token(path, identity=None):
    found = load(path, identity)
    return found and found["access_token"]


def mode(path):
    return stat.S_IMODE(os.lstat(path).st_mode)


def litter(folder):
    return [path.name for path in folder.iterdir() if path.name.endswith(".tmp")]


def log_in(path=None, token="fresh", client_id="an-id"):
    """An M2M start, with CARTO's answer given."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(auth, "get_m2m_token_info", Mock(return_value={"access_token": token, "expiration": LATER}))
        carto = CartoAuth.from_m2m(cache_filepath=path, api_base_url=BASE, client_id=client_id, client_secret="s")
        return carto.get_access_token()


def in_child(function, uid=None):
    """Run ``function`` in a fork, as another user if told; the exit code of the fork, or minus its signal."""
    pid = os.fork()
    if pid == 0:
        try:
            if uid is not None:
                os.setgroups([])
                os.setgid(uid)
                os.setuid(uid)
            function()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


# ---- whose ---------------------------------------------------------------------------------------


def test_accounts_share_a_file(file):
    identities = [application("a"), application("b"), person(), person("org_1")]
    for number, identity in enumerate(identities):
        save(file, f"token-{number}", identity)
    assert [loaded_token(file, identity) for identity in identities] == ["token-0", "token-1", "token-2", "token-3"]


texts = st.text() | st.lists(st.sampled_from(["&", "%", "%25", "%26", "=", "a"])).map("".join)


@given(st.builds(Identity, *[texts] * 6))
def test_two_identities_never_have_one_name(identity):
    """For each can be had back from its name."""
    values = [part.partition("=")[2] for part in str(identity).split("&")]
    assert Identity(*[value.replace("%26", "&").replace("%25", "%") for value in values]) == identity


def test_identity_is_readable_and_says_all():
    assert str(person("org_1")) == (
        "mode=oauth&token_endpoint=https://auth.carto.com/oauth/token&audience=carto-cloud-native-api"
        "&client_id=0dxb8HR3ATXCxJiPOJVHsLoHoAtbRX6u&organization=org_1&api_base_url="
    )


def test_from_several_accounts_none_is_picked(file):
    save(file, "one", application("a"))
    assert cache.load_cache_file(file)["access_token"] == "one"
    save(file, "two", application("b"))
    assert cache.load_cache_file(file) is None


def test_what_is_not_ours_is_kept(file):
    document = {"comment": "hands off", "tokens": {"somebody": {"else": 1}}}
    file.write_text(json.dumps(document))
    save(file)
    written = json.loads(file.read_text())
    assert (written["comment"], written["tokens"]["somebody"]) == ("hands off", {"else": 1})


FLAT = [
    # identity, claims of the token or None for one that is no JWT, base URL of the entry, is it ours?
    (application(), None, BASE, True),
    (application(), None, f"{BASE}/", True),
    (application(), None, "https://gcp-europe-west1.api.carto.com", False),
    (application(), None, None, False),
    (application(), {"azp": "an-id"}, BASE, True),
    (application(), {"azp": "another"}, BASE, False),
    (application(), {"azp": ["an-id"]}, BASE, False),
    (application(), {"azp": "an-id"}, "https://elsewhere.example.com", False),
    (person(), None, BASE, True),
    (person(), {"azp": person().client_id}, BASE, True),
    (person(), {"azp": "another"}, BASE, False),
    (person(), {"azp": person().client_id, "org_id": "org_1"}, BASE, False),
    (person("org_1"), {"azp": person().client_id, "org_id": "org_1"}, BASE, True),
    (person("org_1"), {"azp": person().client_id, "org_id": "org_2"}, BASE, False),
    (person("org_1"), {"azp": person().client_id}, BASE, False),
    (person("org_1"), None, BASE, False),
]


@pytest.mark.parametrize(("identity", "claims", "base_url", "ours"), FLAT)
def test_whose_a_flat_entry_is(identity, claims, base_url, ours):
    token = "opaque" if claims is None else jwt(**claims)
    assert identity.owns_flat_entry(entry(token, api_base_url=base_url)) is ours


def test_flat_entry_cannot_say_itself_whose_it_is(file):
    file.write_text(json.dumps(entry("theirs", identity=str(application()))))
    assert "identity" not in load(file)


def test_forgetting_takes_one_account(file):
    save(file, "one", application("a"))
    save(file, "two", application("b"))
    assert [cache.forget_entry(file, application("a")) for _ in range(2)] == [True, False]
    assert (load(file, application("a")), loaded_token(file, application("b"))) == (None, "two")


# ---- safe ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077, 0o277, 0o777], ids=oct)
def test_folder_and_file_are_private_under_any_umask(mask, tmp_path):
    with umask(mask):
        save(tmp_path / "home" / "token.json")
    assert mode(tmp_path / "home") == 0o700
    assert {path.name: mode(path) for path in (tmp_path / "home").iterdir()} == {
        "token.json": 0o600,
        ".token.json.lock": 0o600,
    }


@as_root
@pytest.mark.parametrize("mask", [0o000, 0o077, 0o777], ids=oct)
def test_a_plain_user_can_read_it_back_under_any_umask(mask, shared_folder):
    os.chown(shared_folder, ANOTHER_USER, ANOTHER_USER)
    path = shared_folder / "home" / "token.json"

    def save_and_load():
        with umask(mask):
            save(path, "one")
            save(path, "two")
        assert loaded_token(path) == "two"

    assert in_child(save_and_load, ANOTHER_USER) == 0


def test_file_is_private_from_its_first_byte(file, monkeypatch):
    seen = []

    def fchmod(descriptor, wanted):
        status = os.fstat(descriptor)
        seen.append((status.st_size, stat.S_IMODE(status.st_mode)))

    monkeypatch.setattr(cache.os, "fchmod", fchmod)
    with umask(0):
        save(file)
    assert (0, 0o600) in seen
    assert mode(file) == 0o600


@as_root
def test_another_user_cannot_read_it(shared_folder):
    path = shared_folder / "token.json"
    with umask(0):
        save(path, "a-secret-token")
    reading = subprocess.run(["cat", path], user=ANOTHER_USER, capture_output=True, text=True)
    assert reading.returncode != 0
    assert "a-secret-token" not in reading.stdout
    path.chmod(0o644)
    assert "a-secret-token" in subprocess.run(["cat", path], user=ANOTHER_USER, capture_output=True, text=True).stdout


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("name", ["token.json", ".token.json.lock"])
def test_nothing_is_written_through_a_symlink(name, there, tmp_path):
    victim, folder = tmp_path / "victim", tmp_path / "folder"
    folder.mkdir()
    if there:
        victim.write_text("precious")
        victim.chmod(0o644)
    (folder / name).symlink_to(victim)
    load(folder / "token.json")
    save(folder / "token.json")
    assert loaded_token(folder / "token.json") == "a-token"
    assert not (folder / "token.json").is_symlink()
    assert victim.exists() is there
    if there:
        assert (victim.read_text(), mode(victim)) == ("precious", 0o644)


def test_modes_are_not_repaired_through_a_hard_link(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("{}")
    victim.chmod(0o644)
    os.link(victim, tmp_path / "token.json")
    load(tmp_path / "token.json")
    assert mode(victim) == 0o644


def test_folder_that_somebody_put_there_meanwhile_is_left_alone(tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    elsewhere.chmod(0o755)
    folder = tmp_path / "folder"
    monkeypatch.setattr(Path, "is_dir", lambda self: False)  # it was not there yet when it was looked for
    folder.symlink_to(elsewhere)
    save(folder / "token.json")
    assert mode(elsewhere) == 0o755


@as_root
def test_file_of_another_user_is_neither_read_nor_replaced(file):
    save(file, "theirs")
    os.chown(file, ANOTHER_USER, ANOTHER_USER)
    with pytest.warns(UserWarning, match="belongs to another user"):
        assert load(file) is None
    with pytest.raises(PermissionError):
        save(file, "ours")
    assert "theirs" in file.read_text()


@as_root
def test_a_start_beside_another_users_file_works_and_says_so(file):
    save(file, "theirs")
    os.chown(file, ANOTHER_USER, ANOTHER_USER)
    with pytest.warns(UserWarning, match="CARTO_AUTH_HOME"):
        assert log_in(file) == "fresh"
    assert log_in(file) == "fresh"  # and says it once: a second warning would be an error here


@pytest.mark.parametrize("repair", [load, save])
def test_loose_modes_of_0_2_0_are_repaired(repair):
    path = cache.get_cache_filepath("m2m")
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(entry()))
    path.parent.chmod(0o755)
    path.chmod(0o644)
    repair(path)
    assert (mode(path.parent), mode(path)) == (0o700, 0o600)


def test_modes_of_a_folder_of_the_users_own_choice_are_left(tmp_path):
    tmp_path.chmod(0o755)
    save(tmp_path / "token.json")
    assert (mode(tmp_path), mode(tmp_path / "token.json")) == (0o755, 0o600)


def test_named_pipe_in_the_place_of_the_file_makes_nobody_wait(file):
    os.mkfifo(file)
    assert load(file) is None
    save(file)
    assert loaded_token(file) == "a-token"


# ---- whole: what a file may contain --------------------------------------------------------------


def a_file(token="a-token"):
    return {"version": 1, "tokens": {str(application()): entry(token)}}


def nested(depth):
    return b'{"deep":' + b"[" * depth + b"]" * depth + b"}"


DAMAGE = {
    "empty": b"",
    "zero bytes": b"\0" * 100,
    "not JSON": b"<html>",
    "a number": b"7",
    "null": b"null",
    "a list": b"[{}]",
    "not UTF-8": b'{"version": 1, "tokens": "\xff\xfe"}',
    "UTF-16": json.dumps(a_file()).encode("utf-16"),
    "nested": nested(100_000),
    "a number of many digits": b'{"expiration": ' + b"9" * 10_000 + b"}",
    "too large": b" " * (cache.LARGEST_FILE + 1),
    "tokens of the wrong type": b'{"tokens": []}',
    "an entry of the wrong type": json.dumps({"tokens": {str(application()): "token"}}).encode(),
}
BAD_ENTRIES = [
    {"access_token": bad} for bad in (None, "", 7, ["a"], "two words", "umläut", "line\nfeed", "\ud800", "x" * 70_000)
]
BAD_ENTRIES += [
    {"expiration": bad}
    for bad in (None, True, "4000000000", -1, 0, 10**20, 10**400, 1e400, -1e400, float("nan"), [LATER], {})
]
BAD_ENTRIES += [{"api_base_url": bad} for bad in (7, ["https://a.b"], "\ud800", "https://a\nb")]
DAMAGE |= {
    f"bad {bad}"[:40]: json.dumps({"tokens": {str(application()): entry() | bad}}).encode() for bad in BAD_ENTRIES
}


@pytest.mark.parametrize("content", DAMAGE.values(), ids=DAMAGE)
def test_damage_is_a_miss_and_heals(content, file):
    file.write_bytes(content)
    assert load(file) is None
    assert log_in(file) == "fresh"
    assert loaded_token(file) == "fresh"
    assert log_in(file, "not asked for") == "fresh"


@pytest.mark.parametrize("depth", [100, 500, 900, 1500, 3000, 9000])
def test_what_is_nested_too_deeply_to_be_written_again_heals(depth, file):
    file.write_bytes(nested(depth))
    assert log_in(file) == "fresh"
    assert loaded_token(file) == "fresh"


def test_what_is_nested_too_deeply_is_forgotten_all_the_same(file, monkeypatch):
    """Where exactly Python's limits lie depends on its version, so one is put here."""
    save(file)
    original = json.dumps

    def dumps(document, **options):
        if document:
            raise RecursionError
        return original(document, **options)

    monkeypatch.setattr(cache.json, "dumps", dumps)
    assert cache.forget_entry(file, application())
    assert file.read_bytes() == b"{}"


def test_every_torn_file_is_a_miss(file):
    content = json.dumps(a_file()).encode()
    for length in range(len(content)):
        file.write_bytes(content[:length])
        assert load(file) is None


@pytest.mark.parametrize("issued_at", [10**400, -(10**400), 1e400, float("nan"), "now", True, [], -1])
def test_absurd_time_of_issue_counts_as_unknown(issued_at, file):
    save(file, "kept", issued_at=issued_at, expiration=time.time() + 1)
    assert log_in(file) == "kept"


@pytest.mark.parametrize("refresh_token", ["\ud800", "", 7, "two words", "x" * 70_000])
def test_absurd_refresh_token_is_not_used(refresh_token, file):
    save(file, "kept", person(), refresh_token=refresh_token, expiration=1)
    carto = CartoAuth("oauth", BASE, cache_filepath=file, interactive=False)
    carto._adopt(load(file, person()))
    assert carto._refresh_token is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=10,
)
keys = st.sampled_from([*entry(), "issued_at", "refresh_token", "identity", "another"])
entries = st.dictionaries(keys, json_values | st.sampled_from([BASE, "a-token", LATER, 1])) | json_values
names = st.sampled_from([str(application()), str(person())]) | st.text(max_size=10)
documents = st.fixed_dictionaries(
    {}, optional={"version": json_values, "tokens": st.dictionaries(names, entries) | json_values}
)
flat_documents = st.tuples(documents, entries.filter(lambda value: isinstance(value, dict))).map(lambda d: d[0] | d[1])


@st.composite
def damaged_files(draw):
    """A good file of ours in which some bytes were cut out, put in or changed."""
    content = bytearray(json.dumps(a_file(), indent=1).encode())
    start = draw(st.integers(0, len(content)))
    content[start : start + draw(st.integers(0, 20))] = draw(st.binary(max_size=20))
    return bytes(content)


contents = st.binary(max_size=300) | damaged_files()
contents |= (json_values | documents | flat_documents).map(lambda value: json.dumps(value).encode())


@settings(max_examples=200, deadline=None)
@given(contents)
def test_any_content_is_a_sound_entry_or_a_miss(content):
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "token.json")
        file.write_bytes(content)
        for identity in (application(), person()):
            found = load(file, identity)
            assert found is None or all(key in found for key in ("access_token", "expiration"))
            assert found is None or "identity" not in found or found["identity"] == str(identity)
        any_entry = cache.load_cache_file(file)
        assert any_entry is None or all(key in any_entry for key in cache.FLAT_KEYS)


@settings(max_examples=100, deadline=None)
@given(contents)
def test_any_content_heals(content):
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "token.json")
        file.write_bytes(content)
        token = log_in(file)
        found = load(file)
        assert cache.is_sound_entry(found)
        assert (found["access_token"], log_in(file, "not asked for")) == (token, token)


# ---- whole: disks, kills, homes ------------------------------------------------------------------


@contextmanager
def limited_file_size(folder):
    """No file may grow beyond 16 bytes, so that a write fails half-way, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def full_disk(folder):
    """A file system of its own in memory, filled to the last byte."""
    ballast = folder / "ballast"
    with open(ballast, "wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"x" * 4096)
    yield
    ballast.unlink()


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    mounting = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True)
    if mounting.returncode != 0:
        pytest.skip("no file system may be mounted here; the limit on a file's size stands for it")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def assert_a_write_that_fails_changes_nothing(folder, failing):
    file = folder / "token.json"
    save(file, "old", expiration=1)
    before = file.read_bytes()
    with failing(folder):
        with pytest.warns(UserWarning, match="cannot be kept"):
            assert log_in(file, "new") == "new"
        assert log_in(file, "newer") == "newer"  # a second warning would be an error here
        assert (file.read_bytes(), litter(folder)) == (before, [])
    assert log_in(file, "newest") == "newest"
    assert loaded_token(file) == "newest"


def test_write_that_fails_half_way_keeps_the_old_file_and_returns_the_new_token(tmp_path):
    assert_a_write_that_fails_changes_nothing(tmp_path, limited_file_size)


def test_full_disk_keeps_the_old_file_and_returns_the_new_token(small_disk):
    assert_a_write_that_fails_changes_nothing(small_disk, full_disk)


@pytest.mark.parametrize("call", ["open", "fchmod", "fdopen", "fsync", "replace"])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_killed_at_a_certain_call_of_a_save(call, moment, file):
    save(file, "old")

    def save_and_die():
        original, temporary = getattr(os, call), f".{file.name}."

        def lethal(*arguments, **options):
            writes = call not in ("open",) or (temporary in str(arguments[0]) and ".tmp" in str(arguments[0]))
            if writes and moment == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            result = original(*arguments, **options)
            if writes:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        with cache.locked(file, timeout=1):  # imports what a lock needs, which calls os.open too
            pass
        setattr(os, call, lethal)
        save(file, "new")

    for _ in range(3):
        assert in_child(save_and_die) == -signal.SIGKILL
        assert loaded_token(file) == ("new" if (call, moment) == ("replace", "after") else "old")
        assert len(litter(file.parent)) <= 1
    save(file, "newest")
    assert (loaded_token(file), litter(file.parent)) == ("newest", [])


SAVING_LOOP = """
import itertools, sys
from carto_auth import cache
path, identity, first = sys.argv[1], sys.argv[2], int(sys.argv[3])
for number in itertools.count(first):
    entry = {"api_base_url": None, "access_token": f"{number}-" + "x" * 30_000, "expiration": 4_000_000_000}
    cache.save_cache_file(path, {"identity": identity, **entry})
    print(number, flush=True)
"""


def test_killed_at_many_moments_of_a_saving_loop(file):
    number = 0
    for round_number in range(12):
        command = [sys.executable, "-c", SAVING_LOOP, file, str(application()), str(number)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as saving:
            assert saving.stdout.readline() == f"{number}\n"
            time.sleep(round_number * 0.0017)  # a save takes some milliseconds
            saving.kill()
            printed = saving.stdout.read().split()
        last = int(printed[-1]) if printed else number
        found = load(file)
        assert found is not None
        number = int(found["access_token"].partition("-")[0])
        assert number in (last, last + 1)
        assert len(litter(file.parent)) <= 1
        number += 1
    save(file)
    assert {path.name for path in file.parent.iterdir()} == {"token.json", ".token.json.lock"}


def test_only_litter_of_this_very_file_is_swept(file):
    ours = [file.with_name(f".token.json.{number:016x}.tmp") for number in range(5)]
    theirs = [file.with_name(name) for name in (".another.json.00.tmp", "token.json.tmp", ".token.json.tmp.bak")]
    for path in (*ours, *theirs):
        path.touch()
    save(file)
    assert [path.exists() for path in (*ours, *theirs)] == [False] * 5 + [True] * 3


def save_often(path, client_id):
    for number in range(10):
        save(path, f"{client_id}-{number}", application(client_id))


def test_parallel_saves_of_many_accounts_lose_none(file):
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=save_often, args=(file, client_id)) for client_id in "abcd"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [loaded_token(file, application(c)) for c in "abcd"] == ["a-9", "b-9", "c-9", "d-9"]


@pytest.mark.parametrize("name", ["token.json", "."])
def test_folder_in_the_place_of_the_file(name, tmp_path):
    path = tmp_path / name
    path.mkdir(exist_ok=True)
    with pytest.warns(UserWarning, match="cannot be kept") as warned:
        assert (log_in(path, "one"), log_in(path, "two")) == ("one", "two")
    assert len(warned) == 1
    assert litter(tmp_path) == []


@pytest.mark.parametrize("path", ["a\0b", "x" * 300, "file/below", "/dev/null/x"])
def test_path_that_cannot_be(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    with pytest.warns(UserWarning, match="cannot be kept"):
        assert log_in(path) == "fresh"


def log_in_without_a_home():
    with pytest.warns(UserWarning, match="cannot be kept.*CARTO_AUTH_HOME") as warned:
        assert (log_in(token="one"), log_in(token="two")) == ("one", "one")  # in memory
    assert len(warned) == 1


def test_missing_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", "/dev/null/nobody")
    log_in_without_a_home()


@as_root
def test_read_only_home(monkeypatch, shared_folder):
    monkeypatch.setenv("HOME", str(shared_folder))
    assert in_child(log_in_without_a_home, ANOTHER_USER) == 0
    assert list(shared_folder.iterdir()) == []


@as_root
@pytest.mark.parametrize("existing", [True, False])
def test_cache_folder_of_the_system_stands_in_for_a_read_only_home(existing, monkeypatch, shared_folder):
    scratch = shared_folder / "scratch"
    scratch.mkdir()
    os.chown(scratch, ANOTHER_USER, ANOTHER_USER)
    monkeypatch.setenv("HOME", str(shared_folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(scratch if existing else scratch / "cache"))

    def start_twice():
        assert (log_in(token="one"), log_in(token="two")) == ("one", "one")

    assert in_child(start_twice, ANOTHER_USER) == 0
    assert len(list(scratch.rglob("token_m2m.json"))) == 1


def test_home_can_be_named(monkeypatch, tmp_path):
    monkeypatch.setenv("CARTO_AUTH_HOME", str(tmp_path / "mine"))
    assert cache.get_cache_filepath("oauth") == tmp_path / "mine" / "token_oauth.json"
    assert log_in() == "fresh"
    assert loaded_token(tmp_path / "mine" / "token_m2m.json") == "fresh"


# ---- what is no file, and who has no home --------------------------------------------------------


@as_root
@pytest.mark.parametrize("link", [False, True])
def test_a_device_is_never_replaced(tmp_path, link):
    device = named = tmp_path / "device"
    os.mknod(device, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    if link:
        named = tmp_path / "link"
        named.symlink_to(device)
    with pytest.warns(UserWarning, match="device"):
        auth = CartoAuth("oauth", "https://x.carto.com", "tok", 4155310800, cache_filepath=named)
    assert auth.get_access_token() == "tok"
    assert stat.S_ISCHR(device.stat().st_mode)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted({"device", named.name})


@pytest.mark.parametrize("kind", [str, os.fsencode])
def test_tilde_is_the_home(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    CartoAuth("oauth", "https://x.carto.com", "tok", 4155310800, cache_filepath=kind("~/kept.json"))
    assert cache.load_cache_file("~/kept.json")["access_token"] == "tok"
    assert (Path.home() / "kept.json").exists()
    assert list(tmp_path.iterdir()) == []


HOMELESS = """
import json, os, sys, warnings
os.setgid(12345); os.setuid(12345)
del os.environ["HOME"]
warnings.simplefilter("ignore")
from carto_auth import CartoAuth, CredentialsError
import carto_auth.auth as auth
auth.get_m2m_token_info = lambda *_: {"access_token": "T", "expiration": 4155310800}
given = {"api_base_url": "https://x.carto.com", "client_id": "i", "client_secret": "s"}
for options in ({}, {"use_cache": False}):
    assert CartoAuth.from_m2m(**given, **options).get_access_token() == "T"
for ask in (CartoAuth.from_m2m, CartoAuth.from_cli, lambda: CartoAuth.default(interactive=False)):
    try:
        ask()
    except CredentialsError as error:
        print(type(error).__name__)
assert not os.path.exists("~")
"""


@as_root
def test_a_user_without_a_home(tmp_path):
    os.chmod(tmp_path, 0o777)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        [sys.executable, "-c", f"import carto_auth.cli, requests, yaml, filelock, platformdirs\n{HOMELESS}"],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    told = ["CredentialsFileNotFound", "CredentialsFileNotFound", "LoginRequired"]
    assert done.stdout.split() == told, done.stderr
    assert list(tmp_path.iterdir()) == []


# ---- beside others -------------------------------------------------------------------------------


@as_root
def test_a_read_only_folder_is_read_all_the_same(monkeypatch, shared_folder):
    """Such a folder is lent to containers."""
    own = shared_folder / ".carto-auth"
    monkeypatch.setenv("HOME", str(shared_folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(shared_folder / "scratch"))
    (shared_folder / "scratch").mkdir()
    os.chown(shared_folder / "scratch", ANOTHER_USER, ANOTHER_USER)
    assert log_in(token="kept") == "kept"
    for path in (own, own / "token_m2m.json"):
        os.chown(path, ANOTHER_USER, ANOTHER_USER)
    own.chmod(0o500)

    def start():
        assert log_in(token="not asked for") == "kept"

    assert in_child(start, ANOTHER_USER) == 0


@as_root
def test_a_lock_file_of_another_user_is_replaced(shared_folder, monkeypatch):
    """As one call with sudo leaves it."""
    folder = shared_folder / "own"
    folder.mkdir()
    os.chown(folder, ANOTHER_USER, ANOTHER_USER)
    lock = folder / ".token.json.lock"
    lock.touch(mode=0o600)

    def locked():
        with cache.locked(folder / "token.json", timeout=5) as held:
            assert held

    assert in_child(locked, ANOTHER_USER) == 0
    assert lock.stat().st_uid == ANOTHER_USER


def test_a_flat_save_is_not_mixed_with_what_was_flat_before(file):
    cache.save_cache_file(file, {"api_base_url": "https://a.carto.com", "access_token": "one", "expiration": 4e9})
    cache.save_cache_file(file, {"api_base_url": "https://b.carto.com", "access_token": "two"})
    assert cache.load_cache_file(file) is None


@pytest.mark.parametrize("token", [{"expiration": None}, {"expiration": 5}, {"access_token": "bad token\n"}])
def test_the_constructor_does_not_replace_a_good_token_with_a_useless_one(file, token):
    arguments = {"api_base_url": "https://x.carto.com", "access_token": "tok", "expiration": 4155310800}
    CartoAuth("oauth", cache_filepath=file, **arguments)
    CartoAuth("oauth", cache_filepath=file, **{**arguments, "access_token": "other", **token})
    assert CartoAuth.from_oauth(cache_filepath=file, interactive=False).get_access_token() == "tok"


def test_what_a_path_has_an_account_file_has(file):
    account_file = AccountFile.at(file, application())
    assert account_file.parent == file.parent
    assert account_file.exists() is file.exists()
    assert account_file == file
    assert not (account_file != file)  # noqa: SIM202 - that is another method


def test_a_named_folder_may_lie_deep(monkeypatch, tmp_path):
    monkeypatch.setenv("CARTO_AUTH_HOME", str(tmp_path / "srv" / "app" / ".carto-auth"))
    assert log_in() == "fresh"
    assert (tmp_path / "srv" / "app" / ".carto-auth" / "token_m2m.json").exists()


@pytest.mark.parametrize("number", [Decimal(4155310800), Fraction(4155310800), float("inf")])
def test_numbers_of_any_library_will_do(file, number):
    CartoAuth("oauth", "https://x.carto.com", "tok", number, cache_filepath=file)
    assert CartoAuth.from_oauth(cache_filepath=file, interactive=False).get_access_token() == "tok"


def test_entries_that_are_long_over_go_with_the_next_save(file):
    now = time.time()
    save(file, "long over", application("a"), expiration=now - 31 * 86_400)
    save(file, "over", application("b"), expiration=now - 29 * 86_400)
    save(file, "good", application("c"))
    assert [loaded_token(file, application(c)) for c in "abc"] == [None, "over", "good"]


def test_a_slash_at_the_end_of_a_file_is_none(file):
    assert log_in(f"{file}/") == "fresh"
    assert log_in(f"{file}/", "not asked for") == "fresh"
    assert loaded_token(file) == "fresh"
