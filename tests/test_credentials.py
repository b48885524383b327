"""Credentials: files, the environment, the CARTO CLI's profiles; which of them wins."""

from __future__ import annotations

import base64
import json
import os
import pickle
import threading
import time
import warnings
from pathlib import Path

import platformdirs
import pytest
from clocks import StoppedClock

from carto_auth import CartoAuth, CredentialsError, LoginRequired, Services, cache, credentials
from carto_auth.cli import main
from carto_auth.errors import (
    CredentialsFileNotFound,
    InvalidCredential,
    MissingCredential,
    TenantNotFound,
    UntrustedAddress,
)
from carto_auth.sandbox import walk_login

BASE_URL = "https://gcp-us-east1.api.carto.com"
GOOD = {"api_base_url": BASE_URL, "client_id": "an-id", "client_secret": "MARKED-SECRET"}
IN_ENVIRONMENT = {"CARTO_API_BASE_URL": BASE_URL, "CARTO_CLIENT_ID": "environment", "CARTO_CLIENT_SECRET": "s"}


def write(path, content):
    """Write a file that only its owner can read: bytes and text as they are, all else as JSON."""
    if not isinstance(content, bytes):
        content = (content if isinstance(content, str) else json.dumps(content)).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(0o600)
    return path


@pytest.fixture
def environment(monkeypatch):
    """Sets variables."""

    def set_all(values):
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    return set_all


@pytest.fixture
def fetched(monkeypatch):
    """The client id of each request for an M2M token, none of which is sent."""
    client_ids = []

    def fetch(client_id, client_secret):
        client_ids.append(client_id)
        return {"access_token": "fetched", "expiration": int(time.time()) + 1000}

    monkeypatch.setattr("carto_auth.auth.get_m2m_token_info", fetch)
    return client_ids


def read(path):
    return credentials.find_m2m(Services(), path)


def jwt(**claims):
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in ({}, claims)]
    return ".".join([*parts, "c2ln"])


# ---- the M2M file --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        GOOD,
        b"\xef\xbb\xbf" + json.dumps(GOOD).encode(),
        json.dumps(GOOD).encode("utf-16"),
        {"api_base_url": f"  {BASE_URL}/  ", "client_id": " an-id\n", "client_secret": "MARKED-SECRET ", "more": []},
    ],
    ids=["plain", "byte order mark", "UTF-16", "blanks and more keys"],
)
def test_a_good_file(content):
    write(Path.home() / "c.json", content)
    found = read("~/c.json")
    assert found == credentials.M2MCredentials(**GOOD)
    assert "MARKED" not in repr(found)


@pytest.mark.parametrize(
    ("content", "kind", "told"),
    [
        ({"api_base_url": BASE_URL, "client_secret": "MARKED-SECRET"}, MissingCredential, "no client_id"),
        ([GOOD], MissingCredential, "holds a list"),
        ("null", MissingCredential, "holds a NoneType"),
        ({"profiles": {"a": {"token": "MARKED-SECRET"}}}, MissingCredential, "from_cli"),
        ({**GOOD, "client_secret": ""}, InvalidCredential, "client_secret in .* is empty"),
        ({**GOOD, "client_secret": None}, InvalidCredential, "of type NoneType"),
        ({**GOOD, "client_secret": "  "}, InvalidCredential, "client_secret in .* is empty"),
        ({**GOOD, "client_secret": 5}, InvalidCredential, "of type int"),
        ({**GOOD, "client_secret": "XXXXXXXX-XXXX"}, InvalidCredential, "placeholder"),
        ({**GOOD, "client_id": "<your client id>"}, InvalidCredential, "placeholder"),
        ({**GOOD, "client_id": "a\nb"}, InvalidCredential, "control characters"),
        ({**GOOD, "api_base_url": "http://gcp-us-east1.api.carto.com"}, InvalidCredential, "unencrypted"),
        ({**GOOD, "api_base_url": "gcp-us-east1.api.carto.com"}, InvalidCredential, "https"),
        ({**GOOD, "api_base_url": "http://127.0.0.1:8000"}, InvalidCredential, "not https"),
        ({**GOOD, "api_base_url": "https://me:MARKED-SECRET@carto.com"}, InvalidCredential, "user name"),
        ('{"client_secret": "MARKED-SECRET"', InvalidCredential, "line 1, column"),
        ("[" * 100_000, InvalidCredential, "nested too deeply"),
        (b'{"client_id": "\xff\xfe"}', InvalidCredential, "not text in UTF-8"),
        (b" " * (credentials.LARGEST_FILE + 1), InvalidCredential, "larger than"),
    ],
)
def test_a_bad_file_is_told_without_its_content(tmp_path, content, kind, told):
    path = write(tmp_path / "carto_credentials.json", content)
    with pytest.raises(kind, match=told) as caught:
        read(path)
    assert str(path) in str(caught.value)
    assert caught.value.remedy
    everything = "".join(map(repr, (caught.value, caught.value.__cause__, caught.value.__context__)))
    assert "MARKED-SECRET" not in str(caught.value) + everything


@pytest.mark.parametrize(
    ("path", "kind"),
    [("none.json", FileNotFoundError), ("/", InvalidCredential), ("/dev/zero", ValueError), ("a\0b", ValueError)],
)
def test_what_is_no_file(path, kind):
    with pytest.raises(kind) as caught:
        CartoAuth.from_m2m(path)
    assert isinstance(caught.value, CredentialsError)


@pytest.mark.skipif(os.name != "posix", reason="other systems have no such modes")
@pytest.mark.parametrize("name", ["carto_credentials.json", ".carto_credentials.json"], ids=["M2M", "CLI"])
def test_a_file_that_others_can_read_earns_one_warning(name):
    profiles = {"current_profile": "a", "profiles": {"a": {"token": "tok", "tenant_id": "gcp-x"}}}
    path = write(Path.home() / name, profiles if name.startswith(".") else GOOD)
    path.chmod(0o644)
    use = CartoAuth.from_cli if name.startswith(".") else lambda: read(path)
    with pytest.warns(UserWarning, match="chmod 600") as warned:
        use()
    assert warned[0].filename == __file__, "it names the caller's line"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        use()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
def test_a_pipe_may_be_gone_when_it_was_read(tmp_path):
    """Shells and tools that hand out secrets do it like this."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o600)

    def hand_out():
        with open(pipe, "w") as end:
            pipe.unlink()
            json.dump(GOOD, end)

    writer = threading.Thread(target=hand_out)
    writer.start()
    assert read(pipe).client_id == "an-id"
    writer.join()


# ---- inline, the environment, and the default file -----------------------------------------------


def test_inline_credentials(fetched, environment):
    auth = CartoAuth.from_m2m(api_base_url=f"{BASE_URL}/", client_id="inline", client_secret="s")
    assert (auth.get_access_token(), auth.get_api_base_url(), fetched) == ("fetched", BASE_URL, ["inline"])
    with pytest.raises(CredentialsError, match="Both"):
        CartoAuth.from_m2m("a-file", client_id="x")
    environment({"CARTO_API_BASE_URL": BASE_URL})
    assert CartoAuth.from_m2m(client_id="other", client_secret="s").get_api_base_url() == BASE_URL
    with pytest.raises(MissingCredential, match="client_secret in the arguments"):
        CartoAuth.from_m2m(client_id="x")


@pytest.mark.parametrize("given", ["arguments", "environment"])
def test_an_application_finds_its_api_base_url_from_its_token(carto_sandbox, monkeypatch, environment, given):
    for variable in ("CARTO_API_BASE_URL", "CARTO_CLIENT_ID", "CARTO_CLIENT_SECRET"):
        monkeypatch.delenv(variable)
    own = {"client_id": carto_sandbox.client_id, "client_secret": carto_sandbox.client_secret}
    if given == "environment":
        environment({f"CARTO_M2M_{name.upper()}": value for name, value in own.items()})
        own = {}
    carto_sandbox.has_tenant = False
    with pytest.raises(TenantNotFound, match="set CARTO_API_BASE_URL"):
        CartoAuth.from_m2m(**own)
    carto_sandbox.has_tenant = True
    assert CartoAuth.from_m2m(**own).get_api_base_url() == carto_sandbox.url
    assert carto_sandbox.count("/oauth/token") == 1, "the token was earned, and so it was kept"
    before = len(carto_sandbox.requests)
    assert CartoAuth.from_m2m(**own).get_api_base_url() == carto_sandbox.url
    assert len(carto_sandbox.requests) == before, "a second start asks nothing"


CONTENT = json.dumps(GOOD)


@pytest.mark.parametrize(
    "content",
    [CONTENT, json.dumps(GOOD, indent=1), base64.b64encode(CONTENT.encode()).decode(), "MARKED-SECRET" * 4],
    ids=["JSON", "several lines", "Base64", "the secret"],
)
def test_content_where_a_path_was_due_is_shown_nowhere(content, environment, capsys):
    with pytest.raises(CredentialsFileNotFound, match="holds the credentials themselves") as caught:
        CartoAuth.from_m2m(content)
    shown = [str(caught.value), repr(caught.value.__context__)]
    environment({"CARTO_CREDENTIALS_FILE": content})
    for arguments, code in [(["token"], 1), (["status"], 1), (["status", "--json"], 1), (["logout"], 1)]:
        assert main(arguments) == code
        shown += capsys.readouterr()
        assert "the credentials themselves" in "".join(shown[-2:])
    environment({"CARTO_CREDENTIALS_FILE": "", "CARTO_PROFILE": content})
    cli_file()
    with pytest.raises(MissingCredential, match="no such profile; it has 'one', 'two'") as caught:
        CartoAuth.default()
    shown.append(str(caught.value))
    assert not [text for text in shown if "MARKED" in text or content[:24] in text]


def test_half_an_environment_is_an_error(environment):
    environment({"CARTO_CLIENT_ID": "e"})
    with pytest.raises(MissingCredential, match=r"no client_secret in the environment \(CARTO_CLIENT_ID, CARTO_"):
        CartoAuth.from_m2m()


def test_order_of_the_m2m_sources(fetched, environment, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    own = write(tmp_path / "carto_credentials.json", GOOD)
    with pytest.raises(CredentialsFileNotFound) as caught:  # one in the current folder does not count
        CartoAuth.from_m2m()
    for place in ("CARTO_CLIENT_ID", "CARTO_CREDENTIALS_FILE", credentials.default_file_path()):
        assert place in str(caught.value)
    write(Path(credentials.default_file_path()), {**GOOD, "client_id": "configured"})
    CartoAuth.from_m2m(use_cache=False)
    environment({"CARTO_CREDENTIALS_FILE": str(write(tmp_path / "named.json", {**GOOD, "client_id": "named"}))})
    CartoAuth.from_m2m(use_cache=False)
    environment({"CARTO_API_BASE_URL": BASE_URL, "CARTO_M2M_CLIENT_ID": "longer", "CARTO_M2M_CLIENT_SECRET": "s"})
    CartoAuth.from_m2m(use_cache=False)
    environment(IN_ENVIRONMENT)
    CartoAuth.from_m2m(use_cache=False)
    CartoAuth.from_m2m(own, use_cache=False)
    assert fetched == ["configured", "named", "longer", "environment", "an-id"]


@pytest.mark.parametrize("folder", [{}, {"XDG_CONFIG_HOME": "/configuration"}], ids=["default", "XDG"])
def test_the_users_configuration_is_where_platformdirs_has_it(folder, environment):
    environment(folder)
    assert Path(credentials.default_file_path()).parent == platformdirs.user_config_path("carto-auth")


def test_a_user_without_a_home_has_no_configuration(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    write(Path("~/.carto_credentials.json"), "somebody else's")
    write(Path("~/.config/carto-auth/carto_credentials.json"), "somebody else's")
    assert credentials.source_in_use().kind == "login"


# ---- API access tokens ---------------------------------------------------------------------------


def test_an_access_token_is_never_renewed_nor_cached(environment):
    ended = jwt(exp=1)
    environment({"CARTO_ACCESS_TOKEN": " of-the-environment ", "CARTO_API_BASE_URL": f"{BASE_URL}/"})
    for auth, token in [
        (CartoAuth.from_access_token(), "of-the-environment"),
        (CartoAuth.from_access_token(ended, BASE_URL), ended),
    ]:
        assert (auth.get_access_token(), auth.get_api_base_url()) == (token, BASE_URL)
        assert pickle.loads(pickle.dumps(auth)).get_access_token() == token
    assert not (Path.home() / ".carto-auth").exists()


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
    profiles = {"current_profile": "one", "profiles": {"one": entry, "two": {**entry, "token": "2"}}}
    write(Path.home() / ".carto_credentials.json", profiles if content is None else content)


def test_cli_profile(environment):
    cli_file()
    auth = CartoAuth.from_cli()
    assert (auth.get_access_token(), auth.get_api_base_url()) == ("cli-token", BASE_URL)
    assert CartoAuth.from_cli("two").get_access_token() == "2"
    environment({"CARTO_PROFILE": "two"})
    assert CartoAuth.from_cli().get_access_token() == "2"


@pytest.mark.parametrize("older", [".carto_credentials.json", ".carto/config.json"])
@pytest.mark.parametrize("no_profiles", [{}, {"profiles": None}], ids=["missing", "null"])
def test_an_older_file_of_the_cli_is_one_profile(no_profiles, older, environment):
    write(Path.home() / older, {"token": "of-the-root", "tenant_id": "gcp-us-east1", **no_profiles})
    for name in (None, "default"):
        assert CartoAuth.from_cli(name).get_access_token() == "of-the-root"
    assert CartoAuth.default().get_api_base_url() == BASE_URL
    with pytest.raises(MissingCredential, match="no profile 'x'; it has 'default'"):
        CartoAuth.from_cli("x")


def test_a_self_hosted_tenant_is_asked_at_its_own_domain(requests_mock, environment, capsys):
    cli_file(tenant_id="onp-acme", tenant_domain="carto.acme.com")
    configuration = requests_mock.get(
        "https://carto.acme.com/config.yaml", text="apis: {baseUrl: https://carto.acme.com/api}"
    )
    assert CartoAuth.from_cli().get_api_base_url() == "https://carto.acme.com/api"
    assert "Authorization" not in configuration.last_request.headers
    environment({"CARTO_API_TOKEN": "alone"})
    auth = CartoAuth.default()
    assert (auth.get_access_token(), auth.get_api_base_url()) == ("alone", "https://carto.acme.com/api")
    requests_mock.get("https://carto.acme.com/config.yaml", text="apis: {baseUrl: https://evil.example/api}")
    with pytest.raises(UntrustedAddress, match="evil"):
        CartoAuth.from_cli()
    told = "file named a tenant that is not a public host name: '127.0.0.1'. Run: carto auth login; or set CARTO_API_"
    cli_file(tenant_id="onp-acme", tenant_domain="127.0.0.1")
    with pytest.raises(UntrustedAddress, match=told):
        CartoAuth.from_cli()
    for token in ("", "alone"):  # the status knows what a program will meet
        environment({"CARTO_API_TOKEN": token})
        assert main(["status"]) == 1
        assert told in " ".join(capsys.readouterr().out.split())


def test_a_token_alone_is_for_the_cli_profiles_tenant(environment):
    cli_file()
    environment({"CARTO_API_TOKEN": "alone"})
    auth = CartoAuth.default()
    assert (auth.get_access_token(), auth.get_api_base_url()) == ("alone", BASE_URL)
    environment({"CARTO_API_BASE_URL": "https://other.api.carto.com"})
    assert CartoAuth.default().get_api_base_url() == "https://other.api.carto.com"
    environment({"CARTO_API_BASE_URL": ""})
    cli_file("{")
    with pytest.raises(MissingCredential, match="no API base URL"):
        CartoAuth.default()


@pytest.mark.parametrize(
    "content", ["{", {"a": 1}, {"current_profile": "x", "profiles": {"one": {}}}, {"token": "t", "tenant_id": "/"}]
)
def test_a_cli_file_that_cannot_be_used_keeps_nobody_from_what_comes_after_it(content, environment, carto_sandbox):
    for variable in ("CARTO_CLIENT_ID", "CARTO_CLIENT_SECRET"):
        environment({variable: ""})
    login = CartoAuth.begin_oauth()
    token = login.finish(walk_login(login.url)).get_access_token()
    kept = {"access_token": token, "expiration": time.time() + 1000, "api_base_url": BASE_URL}
    cache.save_cache_file(cache.get_cache_filepath("oauth"), kept)
    cli_file(content)
    assert CartoAuth.default(interactive=False).get_access_token() == token
    assert ".carto_credentials.json" in list(credentials.sources())[3].seen
    environment({"CARTO_PROFILE": "x"})  # now it is asked for
    with pytest.raises(CredentialsError, match=r"carto_credentials\.json"):
        CartoAuth.default()


def test_a_cli_login_that_has_ended_is_taken_up_again(monkeypatch):
    clock = StoppedClock()
    monkeypatch.setattr(time, "time", clock)
    cli_file(token=jwt(exp=int(clock.now) + 100))
    auth = CartoAuth.from_cli()
    clock.now += 200
    with pytest.raises(LoginRequired, match="carto auth login"):
        auth.get_access_token()
    later = jwt(exp=int(clock.now) + 1000)
    cli_file(token=later)
    assert auth.get_access_token() == later


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"current_profile": "x", "profiles": {"one": {}, "x": None, "MARKED-SECRET" * 4: {}}}, "'x'; it has 'one'\\."),
        ({"profiles": {}}, "no profiles"),
        ({"current_profile": "one", "profiles": {"one": {"tenant_id": "t"}}}, "has no token"),
        ({"current_profile": "one", "profiles": {"one": {"token": "t", "tenant_id": "a.evil.com/"}}}, "tenant_id"),
        (GOOD, "no profiles"),
        ({"a": 1}, "no profiles"),
        ([], r"holds a list, not a JSON object\. Run: carto auth login"),
    ],
)
def test_cli_file_that_cannot_be_used(content, told):
    with pytest.raises(CredentialsFileNotFound, match="carto auth login"):
        CartoAuth.from_cli()
    cli_file(content)
    with pytest.raises(MissingCredential if told != "tenant_id" else InvalidCredential, match=told):
        CartoAuth.from_cli()
    with pytest.raises(LoginRequired, match=r"[^.]; and no login is kept\."):
        CartoAuth.default()


# ---- which wins ----------------------------------------------------------------------------------


def test_default_takes_the_first_that_is_there(fetched, environment):
    with pytest.raises(LoginRequired):
        CartoAuth.default(interactive=False)
    cli_file()
    assert CartoAuth.default().get_access_token() == "cli-token"
    write(Path(credentials.default_file_path()), {**GOOD, "client_id": "configured"})
    assert CartoAuth.default().get_access_token() == "fetched"
    environment(IN_ENVIRONMENT)
    CartoAuth.default()
    assert fetched == ["configured", "environment"]
    environment({"CARTO_API_TOKEN": "a-token"})
    assert CartoAuth.default().get_access_token() == "a-token"


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        ({"CARTO_API_TOKEN": "a token"}, "CARTO_API_TOKEN"),
        ({"CARTO_CLIENT_SECRET": "s"}, "CARTO_CLIENT_ID"),
        ({"CARTO_CREDENTIALS_FILE": "/nowhere/c.json"}, "/nowhere/c.json"),
    ],
)
def test_default_does_not_skip_what_is_broken(environment, broken, told):
    cli_file()
    environment(broken)
    with pytest.raises(CredentialsError, match=told):
        CartoAuth.default()
