"""Where tokens are kept: whose an entry is, how private its file is, and that it is whole whatever happens."""

import base64
import errno
import gc
import itertools
import json
import multiprocessing
import os
import pickle
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from unittest.mock import Mock

import pytest
from clocks import StoppedClock
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from carto_auth import CartoAuth, CredentialsError, _log, auth, cache
from carto_auth._identity import Identity
from carto_auth._services import Services
from carto_auth._stores import FileStore, default_store, document, file_store, store_at
from carto_auth._stores.base import NO_TOKEN, Entry, Lock, Refusal
from carto_auth._token import is_time, is_usable_token, jwt_expiration
from carto_auth.cli import main

# Modes, signals and users here are those of POSIX.
resource = pytest.importorskip("resource")
fcntl = pytest.importorskip("fcntl")
as_root = pytest.mark.skipif("os.geteuid() != 0", reason="only root can become another user")
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")

BASE = "https://gcp-us-east1.api.carto.com"
ISSUER = "https://auth.carto.com/"
ANOTHER_USER = 12345
LATER = 4_000_000_000


def application(client_id="an-id"):
    return Identity.of_application(Services(), client_id, BASE)


def person(organization=None):
    return Identity.of_person(Services(), organization)


def jwt(**claims):
    parts = [json.dumps(part).encode() for part in ({"alg": "none"}, claims)]
    return ".".join([base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts] + ["signature"])


def kept(token="a-token", **more):
    """An entry as it stands in a file."""
    return {"api_base_url": BASE, "access_token": token, "expiration": LATER} | more


def a_file(token="a-token", **more):
    """The bytes of a cache file with one application's entry."""
    return json.dumps({"version": 1, "tokens": {str(application()): kept(token, **more)}}).encode()


def save(path, token="a-token", identity=None, **more):
    FileStore(identity or application(), path).save(Entry.of(kept(token, **more)))


def loaded(path, identity=None):
    """The text of an account's token in a file; ``None`` when there is none."""
    store = FileStore(identity or application(), path)
    entry = store.load()
    return entry.token.text if entry and store.owns(entry) else None


def log_in(path=None, token="fresh"):
    """The token of an M2M start to which CARTO would answer with ``token``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(auth, "get_m2m_token_info", Mock(return_value={"access_token": token, "expiration": LATER}))
        carto = CartoAuth.from_m2m(cache_filepath=path, api_base_url=BASE, client_id="an-id", client_secret="s")
        return carto.get_access_token()


def mode(path):
    return stat.S_IMODE(os.lstat(path).st_mode)


def names(folder):
    return {path.name for path in folder.iterdir()}


def in_child(function, uid=None):
    """Run ``function`` in a fork, as another user if told; the exit code of the fork, or minus its signal."""
    pid = os.fork()
    if pid == 0:
        try:
            if uid is not None and os.geteuid() == 0:
                os.setgroups([])
                os.setgid(uid)
                os.setuid(uid)
            function()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


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


@pytest.fixture
def their_folder(shared_folder):
    """Another user's folder, as far as this user can give it away."""
    folder = shared_folder / "theirs"
    folder.mkdir()
    if os.geteuid() == 0:
        os.chown(folder, ANOTHER_USER, ANOTHER_USER)
    return folder


# ---- whose an entry is ---------------------------------------------------------------------------


def test_accounts_share_a_file_and_are_forgotten_one_by_one(file):
    accounts = [application("a"), application("b"), person(), person("org_1")]
    for number, identity in enumerate(accounts):
        save(file, f"token-{number}", identity)
    assert [loaded(file, identity) for identity in accounts] == ["token-0", "token-1", "token-2", "token-3"]
    assert [FileStore(accounts[1], file).forget() for _ in range(2)] == [True, False]
    assert [loaded(file, identity) for identity in accounts] == ["token-0", None, "token-2", "token-3"]


texts = st.text(max_size=9) | st.lists(st.sampled_from(["&", "%", "%25", "%26", "=", "a"]), max_size=9).map("".join)


@settings(suppress_health_check=[HealthCheck.too_slow])  # a busy computer is no fault
@given(st.builds(Identity, *[texts] * 6))
def test_two_identities_never_have_one_name(identity):
    """For each can be had back from its name."""
    values = [part.partition("=")[2] for part in str(identity).split("&")]
    assert Identity(*[value.replace("%26", "&").replace("%25", "%") for value in values]) == identity


def test_an_identity_is_readable_and_stays_the_same_in_later_versions():
    assert str(person("org_1")) == (
        "mode=oauth&token_endpoint=https://auth.carto.com/oauth/token&audience=carto-cloud-native-api"
        "&client_id=0dxb8HR3ATXCxJiPOJVHsLoHoAtbRX6u&organization=org_1&api_base_url="
    )


OURS = {"iss": ISSUER, "azp": person().client_id}
FLAT = [
    # identity, claims of the token or None for an opaque one, base URL of the entry, is it ours?
    (application(), None, BASE, True),
    (application(), None, f"{BASE}/", True),
    (application(), None, "https://gcp-europe-west1.api.carto.com", False),
    (application(), None, None, False),
    (application(), {"azp": "an-id"}, BASE, True),
    (application(), {"azp": "another"}, BASE, False),
    (application(), {"azp": ["an-id"]}, BASE, False),
    (application(), {"azp": "an-id"}, "https://elsewhere.example.com", False),
    (person(), None, BASE, True),
    (person(), OURS, BASE, True),
    (person(), {"azp": "another"}, BASE, False),
    (person(), OURS | {"iss": "https://auth.example.com/"}, BASE, False),
    (person(), OURS | {"org_id": "org_1"}, BASE, False),
    (person("org_1"), OURS | {"org_id": "org_1"}, BASE, True),
    (person("org_1"), OURS | {"org_id": "org_2"}, BASE, False),
    (person("org_1"), OURS, BASE, False),
    (person("org_1"), None, BASE, True),
]


@pytest.mark.parametrize(("identity", "claims", "base_url", "ours"), FLAT)
def test_whose_a_flat_entry_is(identity, claims, base_url, ours, file):
    token = "opaque" if claims is None else jwt(**claims)
    file.write_text(json.dumps(kept(token, api_base_url=base_url)))
    assert loaded(file, identity) == (token if ours else None)
    assert FileStore(identity, file).forget() is ours


def test_a_flat_entry_goes_when_its_token_gets_an_owner_and_stays_until_then(file):
    cache.save_cache_file(file, kept("flat"))
    save(file, "another", application("a"))
    assert cache.load_cache_file(file)["access_token"] == "flat"
    save(file, "flat", application("b"))
    assert json.loads(file.read_text()).keys() == {"version", "tokens"}


def test_entries_that_are_long_over_go_with_the_next_save(file, monkeypatch):
    save(file, "long-over", application("a"), expiration=LATER)
    save(file, "renewable", application("b"), expiration=LATER, refresh_token="r")
    save(file, "over", application("c"), expiration=LATER + 2 * 86_400)
    monkeypatch.setattr(time, "time", lambda: LATER + 31.0 * 86_400)
    save(file, "new", application("d"), expiration=LATER + 32 * 86_400)
    assert [loaded(file, application(c)) for c in "abcd"] == [None, "renewable", "over", "new"]


def test_a_full_file_makes_room_of_what_has_ended_and_never_of_a_good_token(file, monkeypatch):
    monkeypatch.setattr(document, "LARGEST_FILE", 4000)
    now = time.time()
    save(file, "x" * 1500, application("ended"), expiration=now - 1)
    save(file, "x" * 1500, application("good"), expiration=now + 1)
    save(file, "new" * 500, application("renewable"), expiration=now - 1, refresh_token="r")
    assert [bool(loaded(file, application(name))) for name in ("ended", "good", "renewable")] == [False, True, True]
    with pytest.warns(UserWarning, match="full of other accounts' tokens"):
        assert log_in(file, "y" * 1500) == "y" * 1500
    assert [bool(loaded(file, application(name))) for name in ("good", "renewable", "an-id")] == [True, True, False]


def test_a_refusal_stands_beside_the_token_or_alone_and_is_no_login(file):
    refusal = Refusal(LATER, "Quota.")
    for entry in (Entry(NO_TOKEN, None, refusal=refusal), Entry.of(kept()).replaced(refusal=refusal)):
        FileStore(application(), file).save(entry)
        assert FileStore(application(), file).load() == entry
        save(file, "other", application("b"))
        FileStore(application("b"), file).forget()
        found = cache.load_cache_file(file)
        assert (found and found["access_token"]) == (entry.token.text or None)


@pytest.mark.parametrize("refusal", [7, {}, {"until": "x", "message": "m"}, {"until": LATER, "message": "a\nb"}])
def test_an_absurd_refusal_is_none(refusal, file):
    file.write_bytes(a_file(refusal=refusal))
    assert FileStore(application(), file).load().refusal is None


# ---- private -------------------------------------------------------------------------------------


@contextmanager
def umask(mask):
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077, 0o777], ids=oct)
def test_folder_and_file_are_the_users_alone_under_any_umask(mask, their_folder):
    __import__("filelock")  # under such an umask, Python could not write what it compiles, nor read it again
    """Asked of a plain user, whom modes can keep out."""
    path = their_folder / "home" / "token.json"

    def save_twice():
        with umask(mask):
            save(path, "one")
            save(path, "two")
        assert loaded(path) == "two"

    assert in_child(save_twice, ANOTHER_USER) == 0
    assert mode(path.parent) == 0o700
    assert {name: mode(path.parent / name) for name in names(path.parent)} == {
        "token.json": 0o600,
        ".token.json.lock": 0o600,
    }


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("name", ["token.json", ".token.json.lock"])
def test_nothing_is_written_through_a_symlink(name, there, tmp_path):
    victim, file = tmp_path / "victim", tmp_path / "folder" / "token.json"
    file.parent.mkdir()
    if there:
        victim.write_text("precious")
        victim.chmod(0o644)
    file.with_name(name).symlink_to(victim)
    assert log_in(file) == "fresh"
    assert loaded(file) == "fresh"
    assert not file.is_symlink()
    assert victim.exists() is there
    if there:
        assert (victim.read_text(), mode(victim)) == ("precious", 0o644)


@pytest.mark.parametrize("use", [loaded, save])
def test_loose_modes_of_0_2_0_are_repaired_and_those_of_the_users_own_folder_left(use, tmp_path):
    tmp_path.chmod(0o755)
    path = cache.get_cache_filepath("m2m")
    path.write_text(json.dumps(kept()))
    for loose in (path.parent, path):
        loose.chmod(0o755)
    use(path)
    use(tmp_path / "token.json")
    assert (mode(path.parent), mode(path), mode(tmp_path)) == (0o700, 0o600, 0o755)


@as_root
def test_a_file_of_another_user_is_neither_read_nor_replaced(file):
    save(file, "theirs")
    os.chown(file, ANOTHER_USER, ANOTHER_USER)
    with pytest.warns(UserWarning, match="cache_filepath=") as told:
        assert [log_in(file), log_in(file)] == ["fresh", "fresh"]
    assert ["belongs to another user" in str(warning.message) for warning in told] == [True]
    assert "theirs" in file.read_text()


# ---- whole: what a file may contain --------------------------------------------------------------


def nested(depth):
    return b'{"deep":' + b"[" * depth + b"]" * depth + b"}"


DAMAGE = [
    b"",
    b"\0" * 100,
    b"<html>",
    b"7",
    b"[{}]",
    b'{"version": 1, "tokens": "\xff\xfe"}',
    a_file().decode().encode("utf-16"),
    *map(nested, [900, 1500, 9000, 100_000]),  # json can read some that it cannot write
    b'{"expiration": ' + b"9" * 10_000 + b"}",
    b" " * (document.LARGEST_FILE + 1),
    b'{"tokens": []}',
    json.dumps({"tokens": {str(application()): "token"}}).encode(),
]
BAD = {
    "access_token": [None, "", 7, ["a"], "two words", "umläut", "line\nfeed", "\ud800", "x" * 70_000],
    "expiration": [None, True, "4000000000", -1, 0, 10**20, 10**400, 1e400, -1e400, float("nan"), [LATER]],
    "api_base_url": [7, ["https://a.b"], "\ud800", "https://a\nb"],
}
DAMAGE += [
    json.dumps({"tokens": {str(application()): kept() | {key: value}}}).encode() for key in BAD for value in BAD[key]
]


@pytest.mark.parametrize("content", DAMAGE, ids=lambda content: str(content[-40:]))
def test_damage_is_a_miss_and_heals(content, file):
    file.write_bytes(content)
    assert loaded(file) is None
    assert [log_in(file), log_in(file, "not asked for")] == ["fresh", "fresh"]
    assert loaded(file) == "fresh"


@pytest.mark.parametrize("key", ["issued_at", "refresh_token"])
@pytest.mark.parametrize("value", [10**400, 1e400, float("nan"), True, [], "", "two words", "\ud800", "x" * 70_000])
def test_an_absurd_addition_costs_no_token(key, value, file):
    file.write_bytes(json.dumps({"tokens": {str(application()): kept() | {key: value}}}).encode())
    token = FileStore(application(), file).load().token
    assert (token.text, token.issued_at, token.refresh_token) == ("a-token", None, None)


keys = st.sampled_from(["version", "tokens", str(application()), *kept(), "issued_at", "refresh_token"])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.sampled_from([BASE, "a", LATER]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=10,
)


@st.composite
def damaged_files(draw):
    """A good file of ours that was cut off, or in which something was cut out, put in or changed."""
    content = a_file()
    start = draw(st.integers(0, len(content)))
    end = draw(st.integers(start, len(content)))
    return content[:start] + draw(st.binary(max_size=20) | json_values.map(as_json)) + content[end:]


def as_json(value):
    return json.dumps(value).encode()


@settings(max_examples=100, deadline=None)
@given(damaged_files() | st.binary(max_size=300) | json_values.map(as_json))
def test_any_content_is_a_sound_entry_or_a_miss_and_heals(content):
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "token.json")
        file.write_bytes(content)
        found = FileStore(application(), file).load()
        assert found is None or (is_usable_token(found.token.text) and is_time(found.token.end))
        flat = cache.load_cache_file(file)
        assert flat is None or kept().keys() <= flat.keys()
        save(file, "fresh")
        assert loaded(file) == "fresh"


def test_what_is_not_ours_is_kept(file):
    others = {"comment": "hands off", "tokens": {"somebody": {"else": 1}}}
    file.write_text(json.dumps(others))
    save(file)
    FileStore(application(), file).forget()
    assert json.loads(file.read_text()) == others | {"version": 1}


# ---- whole: disks and kills ----------------------------------------------------------------------


@pytest.mark.parametrize("error", [errno.EIO, errno.ESTALE, errno.EMFILE, errno.EACCES], ids=errno.errorcode.get)
def test_what_cannot_be_read_is_no_damage_and_is_not_replaced(error, file, monkeypatch):
    save(file, "old")
    original = os.open

    def failing_open(path, flags, *arguments, **options):
        if os.fspath(path) == str(file):
            raise OSError(error, "as if")
        return original(path, flags, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", failing_open)
        with pytest.warns(UserWarning, match="cannot be kept"):
            assert log_in(file) == "fresh"
    assert loaded(file) == "old"


def test_a_write_that_fails_half_way_keeps_the_old_file_and_returns_the_new_token(file):
    """As on a full disk."""
    save(file, "old", expiration=1)
    before = file.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16, hard))
    try:
        with pytest.warns(UserWarning, match="cannot be kept") as told:
            assert [log_in(file, "new"), log_in(file, "newer")] == ["new", "newer"]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (len(told), file.read_bytes()) == (1, before)
    assert not list(file.parent.glob(".*.tmp"))
    assert log_in(file, "newest") == loaded(file) == "newest"


#: Calls to the operating system that change something.
STEPS = ("open", "fdopen", "fchmod", "flock", "write", "flush", "fsync", "close", "replace", "unlink")


def save_and_be_killed_at(step, file):
    """Save, and be killed before the step of that number."""
    steps = itertools.count(1)

    def kill(frame, event, function):
        if event != "c_call" or function.__name__ not in STEPS or isinstance(function.__self__, str):
            return
        if next(steps) == step:
            signal.raise_signal(signal.SIGKILL)

    sys.setprofile(kill)
    save(file, "new")
    sys.setprofile(None)


def test_killed_at_each_step_of_a_save(file):
    """What is there is the old file or the new one, nobody else's to read; the next save sweeps up after itself."""
    others = {".another.json.00.tmp", "token.json.tmp", ".token.json.tmp.bak"}
    for name in others:
        file.with_name(name).touch(mode=0o600)
    save(file)  # imports what a save needs
    found, code = [], None
    while code != 0:
        file.write_bytes(a_file(token="old"))
        file.with_name(".token.json.00.tmp").touch(mode=0o600)
        with umask(0):
            code = in_child(partial(save_and_be_killed_at, len(found) + 1, file))
        assert code in (0, -signal.SIGKILL)
        assert {mode(path) for path in file.parent.iterdir()} == {0o600}
        found.append(loaded(file))
        left = names(file.parent) ^ {"token.json", ".token.json.lock"} ^ others
        assert len(left) <= 1
        for name in left:
            file.with_name(name).unlink()
    before, after = found.count("old"), found.count("new")
    assert found == ["old"] * before + ["new"] * after
    assert (before > 5, after > 1, left) == (True, True, set())


def save_often(path, client_id):
    for number in range(10):
        save(path, f"{client_id}-{number}", application(client_id))


def test_parallel_saves_of_many_accounts_lose_none(file):
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=save_often, args=(file, client_id)) for client_id in "abcd"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [loaded(file, application(c)) for c in "abcd"] == ["a-9", "b-9", "c-9", "d-9"]


@pytest.fixture
def mounted(file):
    """A file that was mounted by itself, as Docker and Kubernetes' subPath do."""
    outside = file.with_name("outside.json")
    outside.touch(mode=0o600)
    file.touch()
    if subprocess.run(["mount", "--bind", outside, file], capture_output=True).returncode:
        pytest.skip("nothing can be mounted here")
    yield file
    subprocess.run(["umount", file], check=True)


@as_root
def test_a_file_that_can_only_be_written_in_place(mounted):
    save(mounted, "a-long-one" * 1000, application("another"))
    FileStore(application("another"), mounted).forget()
    assert [log_in(mounted), log_in(mounted, "not asked for"), loaded(mounted)] == ["fresh"] * 3
    assert loaded(mounted.with_name("outside.json")) == "fresh"
    assert names(mounted.parent) == {"token.json", "outside.json", *(p.name for p in mounted.parent.glob(".*.lock"))}


@pytest.mark.parametrize("error", [errno.EBUSY, errno.ENOSPC], ids=errno.errorcode.get)
@pytest.mark.parametrize("link", [None, "symlink_to", "hardlink_to"])
def test_what_is_written_in_place_is_the_users_own_file_and_not_on_a_full_disk(error, link, file, monkeypatch):
    victim = file.with_name("victim")
    victim.write_bytes(a_file("old"))
    victim.chmod(0o600)
    getattr(file, link)(victim) if link else victim.rename(file)

    def refuse(*_):
        raise OSError(error, "as if")

    monkeypatch.setattr(os, "replace", refuse)
    in_place = error == errno.EBUSY and link is None
    with nullcontext() if in_place else pytest.raises(OSError, match="as if"):
        save(file, "new")
    assert loaded(file) == ("new" if in_place else "old")
    assert not list(file.parent.glob(".*.tmp"))


# ---- places --------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["a\0b", "x" * 300, "a file/below", "/dev/null/x", ".", "a folder"])
def test_a_place_that_cannot_be_costs_one_warning(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a file").touch()
    Path("a folder").mkdir()
    with pytest.warns(UserWarning, match="cannot be kept") as told:
        assert [log_in(place, "one"), log_in(place, "two")] == ["one", "two"]
    assert len(told) == 1
    assert not list(tmp_path.rglob(".*.tmp"))


def test_a_named_pipe_in_the_place_of_the_file_makes_nobody_wait(file):
    os.mkfifo(file)
    assert loaded(file) is None
    assert log_in(file) == loaded(file) == "fresh"


@as_root
def test_a_device_is_never_replaced(file):
    os.mknod(file, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    with pytest.warns(UserWarning, match="device"):
        assert log_in(file) == "fresh"
    assert stat.S_ISCHR(file.stat().st_mode)
    assert names(file.parent) == {"token.json"}


@pytest.mark.parametrize("place", ["~/kept.json", b"~/kept.json", "~/kept.json/"])
def test_ways_to_write_one_place(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert [log_in(place), log_in(place, "not asked for")] == ["fresh", "fresh"]
    assert loaded(Path.home() / "kept.json") == "fresh"
    assert names(tmp_path) == set()


def test_the_default_place_is_that_of_the_moment(monkeypatch, tmp_path):
    """For a pickle may arrive in another home."""
    store = default_store(application())
    save(store.place, "here")
    monkeypatch.setenv("HOME", str(tmp_path))
    copy = pickle.loads(pickle.dumps(store))
    assert (copy.load(), copy.place) == (None, tmp_path / ".carto-auth" / "token_m2m.json")
    monkeypatch.setenv("CARTO_AUTH_CACHE", str(tmp_path / "named.json"))
    assert default_store(application()).place == str(tmp_path / "named.json")


def test_a_persons_login_goes_to_a_redis_only_when_the_call_names_it(monkeypatch):
    """Everybody who used the fleet's Redis would be that person."""
    monkeypatch.setenv("CARTO_AUTH_CACHE", "redis://127.0.0.1:9/0")
    assert default_store(person()).place == Path.home() / ".carto-auth" / "token_oauth.json"
    assert default_store(application()).place == store_at("redis://127.0.0.1:9/0", person()).place


def test_what_stays_behind_at_a_logout_is_told(monkeypatch, file):
    """A home that was lent to a container, where nothing can be written."""
    save(file, "lent")
    monkeypatch.setattr(file_store, "unwritable_filepath", lambda mode: str(file))
    carto = CartoAuth.from_m2m(api_base_url=BASE, client_id="an-id", client_secret="s")
    with pytest.raises(CredentialsError, match=f"stays in {file}"):
        carto.logout()


SHADOWED = """
import carto_auth
carto = carto_auth.CartoAuth.from_m2m()
print(carto.get_access_token().count("."))
pending = carto_auth.CartoAuth.begin_oauth()
print(len(pending.state))
"""


def test_scripts_that_are_called_like_modules_of_python_cost_no_token(carto_sandbox, tmp_path):
    """Python finds those beside the script before its own."""
    folder = tmp_path / "scripts"
    folder.mkdir()
    for name in ("secrets.py", "script.py"):
        (folder / name).write_text("raise ValueError('not for import')" if name != "script.py" else SHADOWED)
    done = subprocess.run([sys.executable, folder / "script.py"], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["2", "64"], done.stderr


def test_nothing_in_memory_has_the_token_after_a_logout(carto_sandbox):
    carto = CartoAuth.from_m2m()
    token = carto.get_access_token()
    carto.get_carto_dw_credentials()
    carto.logout()
    gc.collect()
    holders = [one for one in gc.get_objects() if isinstance(one, dict) and "__name__" not in one]
    assert [one for one in holders if any(isinstance(value, str) and value == token for value in one.values())] == []


def test_on_a_computer_whose_clock_is_behind_no_ended_token_is_used(carto_sandbox, monkeypatch):
    carto_sandbox.clock = StoppedClock()
    ours = StoppedClock(carto_sandbox.clock.now - 120)
    monkeypatch.setattr(time, "time", ours)
    carto, used = CartoAuth.from_m2m(), set()
    for _ in range(400):
        token = carto.get_access_token()
        assert jwt_expiration(token) > carto_sandbox.clock.now
        used.add(token)
        for clock in (ours, carto_sandbox.clock):
            clock.now += 600
    assert len(used) == carto_sandbox.count("/oauth/token")


# ---- homes ---------------------------------------------------------------------------------------


def start_twice():
    assert [log_in(token="one"), log_in(token="two")] == ["one", "one"]


def start_twice_without_a_home():
    with pytest.warns(UserWarning, match="cannot be kept.*CARTO_AUTH_HOME") as told:
        start_twice()  # the second time, the token comes from memory
    assert len(told) == 1


@as_root
@pytest.mark.parametrize("home", [None, "/dev/null/nobody", "."], ids=["none", "impossible", "read-only"])
def test_a_user_without_a_usable_home(home, monkeypatch, their_folder):
    monkeypatch.chdir(their_folder)
    monkeypatch.delenv("HOME")
    if home is not None:
        monkeypatch.setenv("HOME", str(their_folder.parent / home))
    assert in_child(start_twice_without_a_home, ANOTHER_USER) == 0
    assert (names(their_folder), names(their_folder.parent)) == (set(), {"theirs"})


@as_root
@pytest.mark.parametrize("cache_folder", [".", "cache"])
def test_the_systems_folder_for_caches_stands_in_for_a_read_only_home(cache_folder, monkeypatch, their_folder):
    monkeypatch.setenv("HOME", str(their_folder.parent))
    monkeypatch.setenv("XDG_CACHE_HOME", str(their_folder / cache_folder))
    assert in_child(start_twice, ANOTHER_USER) == 0
    assert len(list(their_folder.rglob("token_m2m.json"))) == 1


@as_root
def test_a_read_only_cache_folder_is_read_all_the_same(monkeypatch, their_folder):
    """Such a folder is lent to containers."""
    monkeypatch.setenv("HOME", str(their_folder.parent))
    monkeypatch.setenv("XDG_CACHE_HOME", str(their_folder))
    own = their_folder.parent / ".carto-auth"
    assert log_in(token="lent") == "lent"
    for path in (own, own / "token_m2m.json"):
        os.chown(path, ANOTHER_USER, ANOTHER_USER)
    own.chmod(0o500)

    def start():
        assert log_in(token="not asked for") == "lent"
        assert main(["logout", "--all"]) == 0
        assert log_in(token="another") == "another"

    assert in_child(start, ANOTHER_USER) == 0


def test_memory_keeps_no_refresh_token(monkeypatch):
    """A forked process has a copy of that memory, and a refresh token must not be used twice."""
    monkeypatch.setenv("HOME", "/dev/null/nobody")
    store = default_store(person())
    with pytest.raises(OSError, match="home folder does not exist"):
        store.save(Entry.of(kept(refresh_token="r")))
    assert [(entry.token.text, entry.token.refresh_token) for entry in store.spare_entries()] == [("a-token", None)]
    assert [store.forget(), store.forget()] == [True, False]


# ---- locks ---------------------------------------------------------------------------------------


def lock_within(seconds, store):
    with store.locked_within(seconds) as lock:
        return lock


def test_a_lock_is_one_accounts_and_no_thread_waits_for_itself(file):
    """A signal handler runs in a thread that may hold the lock."""
    ours, theirs = FileStore(application("a"), file), FileStore(application("b"), file)
    with ours.locked() as first, ThreadPoolExecutor(1) as another_thread:
        in_another = another_thread.submit(lock_within, 0.05, ours).result(30)
        found = (first, in_another, lock_within(100, ours), lock_within(0, theirs))
        assert found == (Lock.HELD, Lock.BUSY, Lock.IMPOSSIBLE, Lock.HELD)
    assert lock_within(0, ours) == Lock.HELD


@pytest.mark.parametrize("place", ["/dev/null", "/dev/null/x", "a\0b"])
def test_where_nothing_can_be_locked(place):
    with FileStore(application(), place).locked() as lock:
        assert lock == Lock.IMPOSSIBLE


@pytest.mark.parametrize("error", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EIO], ids=errno.errorcode.get)
def test_a_disk_without_locks_and_modes_keeps_the_token_and_makes_nobody_wait(error, tmp_path, monkeypatch):
    """As CIFS, FAT, NFS without its lock daemon and FUSE may be. No lock stays that outlives its holder."""

    def refuse(*_):
        raise OSError(error, "as if")

    for module, name in [(fcntl, "flock"), (os, "chmod"), (os, "fchmod")]:
        monkeypatch.setattr(module, name, refuse)
    monkeypatch.setattr(time, "sleep", refuse)
    file = tmp_path / "new" / "token.json"
    with pytest.warns(UserWarning, match="do not share a renewal") as told:
        assert [log_in(file), log_in(file, "not asked for")] == ["fresh", "fresh"]
    assert (len(told), loaded(file)) == (1, "fresh")
    assert lock_within(0, FileStore(application(), file)) == Lock.IMPOSSIBLE
    assert all(path.stat().st_size == 0 for path in file.parent.glob(".*"))


def test_a_hard_link_in_the_place_of_the_lock_does_no_harm(file):
    victim = file.with_name("victim")
    victim.write_text("precious")
    os.link(victim, file.with_name(".token.json.lock"))
    assert log_in(file) == loaded(file) == "fresh"
    assert victim.read_text() == "precious"


@as_root
def test_a_lock_file_of_another_user_is_replaced(their_folder):
    """As one call with sudo leaves it."""
    file = their_folder / "token.json"

    def lock():
        with FileStore(application(), file).locked() as held:
            assert held == Lock.HELD

    lock()
    assert in_child(lock, ANOTHER_USER) == 0
    [left] = their_folder.iterdir()
    assert left.stat().st_uid == ANOTHER_USER
