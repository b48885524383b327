"""carto_auth.cache: the four functions that carto-auth 0.2.0 documents."""

import json
import os
from pathlib import Path

import pytest

from carto_auth import cache

FLAT = {"api_base_url": "https://a.carto.com", "access_token": "one", "expiration": 4_000_000_000}


@pytest.fixture
def file(tmp_path):
    return tmp_path / "token.json"


def our_file(**tokens):
    return json.dumps({"version": 1, "tokens": {name: FLAT | {"access_token": name} for name in tokens}})


@pytest.mark.parametrize("named", [None, "deep/in/.carto-auth"])
def test_the_default_files_lie_in_a_folder_that_is_made(named, monkeypatch, tmp_path):
    folder = Path.home() / ".carto-auth"
    if named:
        folder = tmp_path / named
        monkeypatch.setenv("CARTO_AUTH_HOME", str(folder))
    assert cache.get_home_dir() == folder
    assert folder.is_dir()
    assert [cache.get_cache_filepath(mode) for mode in ("oauth", "m2m")] == [
        folder / "token_oauth.json",
        folder / "token_m2m.json",
    ]


@pytest.mark.parametrize("named", [{}, {"CARTO_AUTH_HOME": "~/tokens"}, {"XDG_CACHE_HOME": "{}/.cache"}])
def test_where_there_is_no_home_reading_and_writing_agree_on_one_place(monkeypatch, tmp_path, named):
    """The user may be root, who could make the home; then the next start would look in it."""
    home = tmp_path / "nobody"
    monkeypatch.setenv("HOME", str(home))
    for name, value in named.items():
        monkeypatch.setenv(name, value.format(home))
    place = cache.get_cache_filepath("oauth")
    with pytest.raises(OSError, match="home folder does not exist"):
        cache.save_cache_file(place, {"access_token": "t", "expiration": 1, "api_base_url": "https://x"})
    assert cache.get_cache_filepath("oauth") == place
    assert not home.exists()


def test_no_home_is_ever_made(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "nobody"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert cache.get_home_dir() in (tmp_path / "nobody" / ".carto-auth", tmp_path / "cache" / "carto-auth")
    assert not (tmp_path / "nobody").exists()


@pytest.mark.parametrize("kind", [str, Path, os.fsencode])
def test_a_flat_entry_comes_back_as_it_was_saved(kind, file):
    cache.save_cache_file(kind(file), FLAT | {"more": ["of", "it"]})
    assert cache.load_cache_file(kind(file)) == FLAT | {"more": ["of", "it"]} == json.loads(file.read_text())


def test_a_file_of_0_2_0_is_returned_whatever_is_in_it(file):
    odd = {"api_base_url": None, "access_token": 5, "expiration": "never"}
    file.write_text(json.dumps(odd))
    assert cache.load_cache_file(file) == odd


@pytest.mark.parametrize("missing", FLAT)
def test_an_entry_with_a_key_missing_is_none(missing, file):
    cache.save_cache_file(file, FLAT)
    cache.save_cache_file(file, {key: value for key, value in FLAT.items() if key != missing})
    assert cache.load_cache_file(file) is None


@pytest.mark.parametrize("place", ["", "no/such/file", "/dev/null", ".", "a\0b"])
def test_no_file_is_none(place):
    assert cache.load_cache_file(place) is None


def test_the_only_account_is_picked_and_of_several_none(file):
    file.write_text(our_file(**{"mode=oauth&one": 1, "mode=restricted&map": 1}))
    assert cache.load_cache_file(file)["access_token"] == "mode=oauth&one"
    file.write_text(our_file(**{"mode=oauth&one": 1, "mode=oauth&two": 1}))
    assert cache.load_cache_file(file) is None


def test_a_flat_save_leaves_the_accounts(file):
    file.write_text(our_file(a=1, b=1))
    cache.save_cache_file(file, FLAT)
    assert json.loads(file.read_text()) == json.loads(our_file(a=1, b=1)) | FLAT


def test_what_cannot_be_written_leaves_the_file(file):
    cache.save_cache_file(file, FLAT)
    with pytest.raises(TypeError):
        cache.save_cache_file(file, {"a": object()})
    assert cache.load_cache_file(file) == FLAT
    for place in ("/dev/null", "/dev/token.json"):  # and so /dev/stdout, which may be a pipe
        with pytest.raises(OSError, match="device"):
            cache.save_cache_file(place, FLAT)
