"""Credentials: files, the environment, the CARTO CLI's profiles; which of them wins."""

from __future__ import annotations

import base64
import json
import os
import pickle
import sys
import threading
import time
import warnings
from pathlib import Path

import pytest

from carto_auth import CartoAuth, CredentialsError, LoginRequired, Services, _log, credentials
from carto_auth.errors import CredentialsFileNotFound, InvalidCredential, MissingCredential

BASE_URL = "https://gcp-us-east1.api.carto.com"
GOOD = {"api_base_url": BASE_URL, "client_id": "an-id", "client_secret": "MARKED-SECRET"}
CARTOS_OWN = Services()


@pytest.fixture
def file(tmp_path):
    """Writes a credentials file that only its owner can read, and returns its path."""

    def write(content, name="carto_credentials.json"):
        path = tmp_path / name
        if not isinstance(content, bytes):
            content = (content if isinstance(content, str) else json.dumps(content)).encode()
        path.write_bytes(content)
        path.chmod(0o600)
        return path

    return write


@pytest.fixture
def fetched(monkeypatch):
    """The arguments of each request for an M2M token, none of which is sent."""
    calls = []

    def fetch(client_id, client_secret):
        calls.append((client_id, client_secret))
        return {"access_token": "fetched", "expiration": int(time.time()) + 1000}

    monkeypatch.setattr("carto_auth.auth.get_m2m_token_info", fetch)
    return calls


def jwt(**claims):
    def part(content):
        return base64.urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=").decode()

    return f"{part({'alg': 'RS256'})}.{part(claims)}.c2ln"


# ---- the M2M file --------------------------------------------------------------------------------


def test_good_file_is_read(file):
    assert credentials.read_m2m_file(file(GOOD), CARTOS_OWN) == (BASE_URL, "an-id", "MARKED-SECRET")


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf" + json.dumps(GOOD).encode(),
        {**GOOD, "api_base_url": f"  {BASE_URL}/  ", "client_id": " an-id\n", "client_secret": "MARKED-SECRET "},
        {**GOOD, "more": ["is", "ignored"]},
    ],
    ids=["byte order mark", "blanks", "more keys"],
)
def test_harmless_oddities_are_read(file, content):
    assert credentials.read_m2m_file(file(content), CARTOS_OWN) == (BASE_URL, "an-id", "MARKED-SECRET")


def test_tilde_is_the_home():
    path = Path.home() / "carto_credentials.json"
    path.write_text(json.dumps(GOOD))
    path.chmod(0o600)
    assert credentials.read_m2m_file("~/carto_credentials.json", CARTOS_OWN).client_id == "an-id"


def without(key):
    return {name: value for name, value in GOOD.items() if name != key}


@pytest.mark.parametrize(
    ("content", "kind", "told"),
    [
        (without("client_id"), MissingCredential, "no client_id"),
        (without("api_base_url"), MissingCredential, "no api_base_url"),
        ([GOOD], MissingCredential, "holds a list"),
        ("null", MissingCredential, "holds a NoneType"),
        ({"profiles": {"a": {"token": "MARKED-SECRET"}}}, MissingCredential, "from_cli"),
        ({**GOOD, "client_secret": ""}, InvalidCredential, "client_secret in .* is empty"),
        ({**GOOD, "client_secret": None}, InvalidCredential, "client_secret in .* is empty"),
        ({**GOOD, "client_secret": "  "}, InvalidCredential, "is blank"),
        ({**GOOD, "client_secret": 5}, InvalidCredential, "is a int"),
        ({**GOOD, "client_secret": "XXXXXXXX-XXXX"}, InvalidCredential, "placeholder"),
        ({**GOOD, "client_id": "<your client id>"}, InvalidCredential, "placeholder"),
        ({**GOOD, "client_id": "a\nb"}, InvalidCredential, "control characters"),
        ({**GOOD, "api_base_url": "http://gcp-us-east1.api.carto.com"}, InvalidCredential, "unencrypted"),
        ({**GOOD, "api_base_url": "gcp-us-east1.api.carto.com"}, InvalidCredential, "https"),
        ({**GOOD, "api_base_url": "http://127.0.0.1:8000"}, InvalidCredential, "not https"),
        ({**GOOD, "api_base_url": "https://me:MARKED-SECRET@carto.com"}, InvalidCredential, "user name"),
        ('{"client_id": "a", "client_id": "b"}', InvalidCredential, "'client_id' twice"),
        ('{"client_secret": "MARKED-SECRET"', InvalidCredential, "line 1, column"),
        ("", InvalidCredential, "line 1, column 1"),
        ("[" * 100_000, InvalidCredential, "not valid JSON"),
        (json.dumps(GOOD).encode("utf-16"), InvalidCredential, "UTF-16"),
        (b'{"client_id": "\xff\xfe"}', InvalidCredential, "not UTF-8"),
    ],
)
def test_bad_file_is_told_without_its_content(file, content, kind, told):
    path = file(content)
    with pytest.raises(kind, match=told) as caught:
        credentials.read_m2m_file(path, CARTOS_OWN)
    assert str(path) in str(caught.value)
    assert caught.value.remedy
    everything = "".join(map(repr, (caught.value, caught.value.__cause__, caught.value.__context__)))
    assert "MARKED-SECRET" not in str(caught.value) + everything


def test_missing_file_says_where_and_what(tmp_path):
    with pytest.raises(CredentialsFileNotFound, match=r"none\.json") as caught:
        CartoAuth.from_m2m(tmp_path / "none.json")
    assert isinstance(caught.value, FileNotFoundError)


@pytest.mark.skipif(os.name != "posix", reason="other systems have no such modes")
def test_file_that_others_can_read_earns_one_warning(file, monkeypatch):
    monkeypatch.setattr(_log, "_said", set())
    path = file(GOOD)
    path.chmod(0o644)
    with pytest.warns(UserWarning, match="chmod 600"):
        credentials.read_m2m_file(path, CARTOS_OWN)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        credentials.read_m2m_file(path, CARTOS_OWN)


def test_loopback_is_for_named_services(file):
    sandbox = Services("http://127.0.0.1:1", "http://127.0.0.1:1", "http://127.0.0.1:1")
    path = file({**GOOD, "api_base_url": "http://127.0.0.1:1/"})
    assert credentials.read_m2m_file(path, sandbox).api_base_url == "http://127.0.0.1:1"


def test_no_secret_in_a_repr():
    assert "MARKED" not in repr(credentials.M2MCredentials("u", "i", "MARKED"))
    assert "MARKED" not in repr(credentials.AccessToken("u", "MARKED"))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
def test_a_pipe_is_read_but_not_awaited_for_ever(tmp_path, monkeypatch):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o600)
    monkeypatch.setattr(credentials, "PIPE_SECONDS", 0.05)
    with pytest.raises(InvalidCredential, match="nothing came out of this pipe"):
        credentials.read_m2m_file(pipe, CARTOS_OWN)
    monkeypatch.setattr(credentials, "PIPE_SECONDS", 10.0)
    writer = threading.Thread(target=lambda: pipe.write_text(json.dumps(GOOD)))
    writer.start()
    assert credentials.read_m2m_file(pipe, CARTOS_OWN).client_id == "an-id"
    writer.join()


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/random", "a\0b"])
def test_what_is_no_file(path):
    with pytest.raises(InvalidCredential):
        credentials.read_m2m_file(path, CARTOS_OWN)


# ---- inline and from the environment -------------------------------------------------------------


def set_environment(monkeypatch, **values):
    for name, value in values.items():
        monkeypatch.setenv(name, value)


def test_inline_credentials(fetched):
    auth = CartoAuth.from_m2m(api_base_url=f"{BASE_URL}/", client_id="inline", client_secret="s")
    assert (auth.get_access_token(), auth.get_api_base_url(), fetched) == ("fetched", BASE_URL, [("inline", "s")])


def test_inline_takes_the_base_url_of_the_environment(fetched, monkeypatch):
    set_environment(monkeypatch, CARTO_API_BASE_URL=BASE_URL)
    assert CartoAuth.from_m2m(client_id="inline", client_secret="s").get_api_base_url() == BASE_URL


def test_inline_and_a_file_are_too_much(file):
    with pytest.raises(CredentialsError, match="Both"):
        CartoAuth.from_m2m(file(GOOD), client_id="x")


def test_inline_without_a_secret():
    with pytest.raises(MissingCredential, match="client_secret in the arguments"):
        CartoAuth.from_m2m(api_base_url=BASE_URL, client_id="x")


@pytest.mark.parametrize("infix", ["", "M2M_"])
def test_environment(fetched, monkeypatch, infix):
    set_environment(
        monkeypatch,
        **{"CARTO_API_BASE_URL": BASE_URL, f"CARTO_{infix}CLIENT_ID": "e", f"CARTO_{infix}CLIENT_SECRET": "s"},
    )
    assert CartoAuth.from_m2m().get_access_token() == "fetched"
    assert fetched == [("e", "s")]


def test_half_an_environment_is_an_error(monkeypatch):
    set_environment(monkeypatch, CARTO_CLIENT_ID="e")
    with pytest.raises(
        MissingCredential, match="has CARTO_CLIENT_ID, but not CARTO_API_BASE_URL and CARTO_CLIENT_SECRET"
    ):
        CartoAuth.from_m2m()


def configuration_file():
    path = credentials.default_file_path()
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({**GOOD, "client_id": "configured"}))
    path.chmod(0o600)
    return path


def test_order_of_the_m2m_sources(fetched, file, monkeypatch):
    configuration_file()
    CartoAuth.from_m2m(use_cache=False)
    monkeypatch.setenv("CARTO_CREDENTIALS_FILE", str(file({**GOOD, "client_id": "named"})))
    CartoAuth.from_m2m(use_cache=False)
    set_environment(monkeypatch, CARTO_API_BASE_URL=BASE_URL, CARTO_CLIENT_ID="environment", CARTO_CLIENT_SECRET="s")
    CartoAuth.from_m2m(use_cache=False)
    CartoAuth.from_m2m(file(GOOD, "argument.json"), use_cache=False)
    assert [client_id for client_id, _ in fetched] == ["configured", "named", "environment", "an-id"]


def test_the_current_folder_is_never_looked_in(file, monkeypatch, tmp_path):
    file(GOOD)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CredentialsFileNotFound):
        CartoAuth.from_m2m()


def test_nothing_found_names_every_place():
    with pytest.raises(CredentialsFileNotFound) as caught:
        CartoAuth.from_m2m()
    for place in ("CARTO_CLIENT_ID", "CARTO_CREDENTIALS_FILE", str(credentials.default_file_path())):
        assert place in str(caught.value)


@pytest.mark.skipif(sys.platform != "linux", reason="the short cut is for Linux")
def test_the_short_cut_looks_where_platformdirs_does(monkeypatch, tmp_path):
    assert credentials._linux_configuration_folder() == str(credentials.default_file_path().parent)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert credentials._linux_configuration_folder() == str(credentials.default_file_path().parent)
    assert credentials.default_file() is None
    assert str(configuration_file()) == credentials.default_file()


# ---- API access tokens ---------------------------------------------------------------------------


def test_access_token_is_never_renewed_nor_cached(monkeypatch):
    ended = jwt(exp=1)
    auth = CartoAuth.from_access_token(ended, BASE_URL)
    assert (auth.get_access_token(), auth.get_api_base_url()) == (ended, BASE_URL)
    assert not (Path.home() / ".carto-auth").exists()
    assert pickle.loads(pickle.dumps(auth)).get_access_token() == ended


@pytest.mark.parametrize("variable", ["CARTO_API_TOKEN", "CARTO_ACCESS_TOKEN"])
def test_access_token_of_the_environment(monkeypatch, variable):
    set_environment(monkeypatch, **{variable: " a-token ", "CARTO_API_BASE_URL": f"{BASE_URL}/"})
    auth = CartoAuth.from_access_token()
    assert (auth.get_access_token(), auth.get_api_base_url()) == ("a-token", BASE_URL)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [((), "CARTO_API_TOKEN is not set"), (("a-token",), "no API base URL"), (("a\ntoken", BASE_URL), "cannot have")],
)
def test_access_token_that_cannot_be_used(arguments, told):
    with pytest.raises(CredentialsError, match=told):
        CartoAuth.from_access_token(*arguments)


# ---- the CARTO CLI -------------------------------------------------------------------------------


def cli_file(content=None, **profile):
    entry = {"token": "cli-token", "tenant_id": "gcp-us-east1", **profile}
    path = Path.home() / ".carto_credentials.json"
    path.write_text(
        json.dumps(content or {"current_profile": "one", "profiles": {"one": entry, "two": {**entry, "token": "2"}}})
    )
    return path


def test_cli_profile(monkeypatch):
    cli_file()
    auth = CartoAuth.from_cli()
    assert (auth.get_access_token(), auth.get_api_base_url()) == ("cli-token", BASE_URL)
    assert CartoAuth.from_cli("two").get_access_token() == "2"
    monkeypatch.setenv("CARTO_PROFILE", "two")
    assert CartoAuth.from_cli().get_access_token() == "2"


def test_cli_login_that_has_ended_is_taken_up_again():
    cli_file(token=jwt(exp=int(time.time()) - 1))
    with pytest.raises(LoginRequired, match="carto auth login"):
        CartoAuth.from_cli()
    soon = jwt(exp=int(time.time()) + 100)
    cli_file(token=soon)
    auth = CartoAuth.from_cli()
    auth._expiration = time.time() - 1
    later = jwt(exp=int(time.time()) + 1000)
    cli_file(token=later)
    assert auth.get_access_token() == later


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"current_profile": "x", "profiles": {"one": {}}}, "no profile 'x'; it has 'one'"),
        ({"current_profile": "one", "profiles": {"one": {"tenant_id": "t"}}}, "has no token"),
        ({"current_profile": "one", "profiles": {"one": {"token": "t", "tenant_id": "a.evil.com/"}}}, "tenant_id"),
        (GOOD, "from_m2m"),
        ({"a": 1}, "no profiles"),
    ],
)
def test_cli_file_that_cannot_be_used(content, told):
    cli_file(content)
    with pytest.raises(CredentialsError, match=told):
        CartoAuth.from_cli()


def test_no_cli():
    with pytest.raises(CredentialsFileNotFound, match="carto auth login"):
        CartoAuth.from_cli()


# ---- which wins ----------------------------------------------------------------------------------


def test_default_takes_the_first_that_is_there(fetched, monkeypatch):
    with pytest.raises(LoginRequired):
        CartoAuth.default(interactive=False)
    cli_file()
    assert CartoAuth.default().get_access_token() == "cli-token"
    configuration_file()
    assert (CartoAuth.default().get_access_token(), fetched) == ("fetched", [("configured", "MARKED-SECRET")])
    set_environment(monkeypatch, CARTO_API_BASE_URL=BASE_URL, CARTO_CLIENT_ID="environment", CARTO_CLIENT_SECRET="s")
    CartoAuth.default()
    assert fetched[1:] == [("environment", "s")]
    monkeypatch.setenv("CARTO_API_TOKEN", "a-token")
    assert CartoAuth.default().get_access_token() == "a-token"


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        ({"CARTO_API_TOKEN": "a-token"}, "CARTO_API_TOKEN"),
        ({"CARTO_CLIENT_SECRET": "s"}, "CARTO_CLIENT_ID"),
        ({"CARTO_CREDENTIALS_FILE": "/nowhere/c.json"}, "/nowhere/c.json"),
    ],
)
def test_default_does_not_skip_what_is_broken(monkeypatch, broken, told):
    cli_file()
    set_environment(monkeypatch, **broken)
    with pytest.raises(CredentialsError, match=told):
        CartoAuth.default()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
def test_a_pipe_that_is_gone_when_it_was_read(tmp_path):
    """As tools that hand out secrets do it."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o600)

    def write():
        with open(pipe, "w") as file:
            pipe.unlink()
            json.dump({"api_base_url": "https://x.carto.com", "client_id": "an-id", "client_secret": "a-secret"}, file)

    writer = threading.Thread(target=write)
    writer.start()
    found = credentials.read_m2m_file(pipe, Services())
    writer.join()
    assert found.client_id == "an-id"


@pytest.mark.skipif(os.name != "posix", reason="other systems have no such modes")
def test_a_cli_file_that_others_can_read():
    file = Path.home() / ".carto_credentials.json"
    file.write_text(json.dumps({"current_profile": "a", "profiles": {"a": {"token": "tok", "tenant_id": "gcp-x"}}}))
    file.chmod(0o644)
    with pytest.warns(UserWarning, match="chmod 600"):
        assert credentials.CliProfile.default().read().access_token == "tok"


def test_a_cli_file_that_is_a_list_is_not_told_to_be_an_m2m_file():
    file = Path.home() / ".carto_credentials.json"
    file.write_text("[]")
    file.chmod(0o600)
    with pytest.raises(MissingCredential, match=r"holds a list, not a JSON object\. Run: carto auth login"):
        credentials.CliProfile.default().read()
