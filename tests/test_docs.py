"""The documents hold: their programs run, their links lead somewhere, and what they list is what there is."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import re
import shlex
import sys
from pathlib import Path

import pytest

import carto_auth
from carto_auth import _account, cli, credentials, pkce
from carto_auth._command import status
from carto_auth._http import sending
from carto_auth._login import callback, person
from carto_auth._stores import document as cache_document
from carto_auth._stores import redis_store
from carto_auth._token import RENEWAL_LEEWAY_SECONDS, RENEWAL_LEEWAY_SHARE
from carto_auth._warehouse.token import REUSE_LEEWAY_SECONDS, WAREHOUSE_TOKEN_SECONDS
from carto_auth.sandbox import walk_login
from carto_auth.sandbox.state import Switches

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PACKAGE = Path(carto_auth.__file__).parent
DOCUMENTS = {str(path.relative_to(ROOT)): path for path in [*ROOT.glob("*.md"), *DOCS.glob("**/*.md")]}
README = (ROOT / "README.md").read_text()
WALKER = f"{shlex.quote(sys.executable)} -m carto_auth.sandbox.walker %s"

#: The page whose programs need a library each: tests/peers runs them.
LIBRARIES = DOCS / "how-to" / "libraries.md"

#: What comes before a program that is not run, with the reason.
NOT_RUN = "<!-- not run: "


def programs(path):
    """A document's programs that are run; each may use what those before it have made, as cells of a notebook do."""
    found = re.finditer(r"^([^\n]*)\n```python\n(.*?)```", path.read_text(), re.DOTALL | re.MULTILINE)
    return [match[2] for match in found if not match[1].startswith(NOT_RUN)]


def page(name):
    return (DOCS / name).read_text()


def rows(text):
    """The tables of a text, as lists of cells."""
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines() if line[:1] == "|"]


# ---- the programs --------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*pandas_gbq:PendingDeprecationWarning")  # Google's, of to_dataframe
@pytest.mark.parametrize("name", [name for name, path in DOCUMENTS.items() if programs(path) and path != LIBRARIES])
def test_programs_run_from_an_empty_folder(name, request, tmp_path, monkeypatch, capsys, carto_sandbox):
    """Those of a page one after the other, and functions named ``test_...`` as pytest would. Each says something."""
    found = programs(DOCUMENTS[name])
    if "from_oauth(" in "".join(found):
        request.getfixturevalue("callback_port")
    names = {"__name__": "__main__"}
    carto_sandbox.credentials_file(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BROWSER", WALKER)
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr("builtins.input", lambda prompt="": walk_login(names["login"].url))
    for program in found:
        names["carto_sandbox"] = carto_sandbox
        exec(compile(program, name, "exec"), names)
        for test in [name for name in names if name.startswith("test_")]:
            names.pop(test)(carto_sandbox)
        quiet = "carto_sandbox." in program or "logging" in program
        assert capsys.readouterr().out or quiet, f"It prints nothing:\n{program}"


def test_readme_is_short_and_installs_ours():
    assert len(README.splitlines()) <= 100
    assert all(len(program.strip().splitlines()) <= 8 for program in programs(ROOT / "README.md"))
    assert "pip install carto-auth" not in README
    assert "carto-auth --version" in README


# ---- the links -----------------------------------------------------------------------------------


def anchors(path):
    """The names that a link into a document may have after its #."""
    text = path.read_text()
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings)
    return {*plain, *re.findall(r"^\(([\w-]+)\)=$", text, re.MULTILINE)}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_somewhere(name):
    folder = DOCUMENTS[name].parent
    text = re.sub(r"```.*?```", "", DOCUMENTS[name].read_text(), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)]+)\)", text):
        file, _, anchor = link.partition("#")
        if "://" not in link:
            target = (folder / file).resolve() if file else DOCUMENTS[name]
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


def test_every_page_is_in_the_site():
    listed = re.findall(r"^([\w/-]+)$", "".join(re.findall(r"```{toctree}(.*?)```", page("index.md"), re.DOTALL)), re.M)
    assert sorted(listed) == sorted(
        str(path.relative_to(DOCS))[:-3] for path in DOCS.rglob("*.md") if path.stem != "index"
    )


def test_pictures_are_there():
    for name, path in DOCUMENTS.items():
        for picture in re.findall(r"{image} (\S+)", path.read_text()):
            assert (path.parent / picture).exists(), (name, picture)


# ---- what they list ------------------------------------------------------------------------------

#: Variables that are read by libraries, or written by the sandbox.
OF_LIBRARIES = {"HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY", "XDG_CACHE_HOME"}


def test_environment_variables_are_those_of_the_code():
    listed = {
        name for row in rows(page("reference/environment.md")) for name in re.findall(r"`([A-Z][A-Z0-9_]+)`", row[0])
    }
    texts = set()
    for file in PACKAGE.rglob("*.py"):
        if "sandbox" not in file.parts:
            texts |= {node.value for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Constant)}
    variables = {text for text in texts if isinstance(text, str) and re.fullmatch(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)+", text)}
    assert {name for name in variables if name.startswith("CARTO_")} <= listed
    assert listed - OF_LIBRARIES <= texts
    read = set()
    for file in PACKAGE.rglob("*.py"):
        if "sandbox" not in file.parts:
            read |= set(re.findall(r'environ(?:\.get\(|\[)"(\w+)"', file.read_text()))
    assert read <= listed


def test_the_documented_switches_are_the_sandboxs():
    text = page("reference/sandbox.md")
    assert set(re.findall(r"carto_sandbox\.(\w+) =", text)) == {switch.name for switch in dataclasses.fields(Switches)}


def test_the_documented_json_is_that_of_status():
    listed = [row[0].strip("`") for row in rows(page("reference/command.md").partition("## `status --json`")[2])[2:]]
    assert listed == list(status.to_json(status.get_status()))


def test_every_command_and_option_is_documented(capsys):
    def help_of(*command):
        with contextlib.suppress(SystemExit):
            cli.main([*command, "--help"])
        return capsys.readouterr().out

    text = page("reference/command.md")
    commands = re.findall(r"^    (\w+) ", help_of().partition("\noptions:")[0], re.MULTILINE)
    assert len(commands) > 5
    for name in commands:
        assert f"carto-auth {name}" in text
        assert set(re.findall(r"--[\w-]+", help_of(name))) - {"--help"} <= set(re.findall(r"--[\w-]+", text))


def test_every_promise_names_its_test():
    named = re.findall(
        r"`(tests/[\w/]+\.py)::(\w+)`", page("explanation/security.md") + page("explanation/compatibility.md")
    )
    assert len(named) > 20
    for file, test in named:
        assert f"def {test}(" in (ROOT / file).read_text(), (file, test)


#: Each number of reference/limits.md, by the words before it.
LIMITS = {
    "to connect": f"{sending.CONNECT_SECONDS:.0f} s",
    "from one piece of the answer to the next": f"{sending.READ_SECONDS:.0f} s",
    "for the whole request, all tries included": f"{sending.TOTAL_SECONDS:.0f} s",
    "tries": f"{sending.TRIES}",
    "wait before the second try": f"{sending.BACKOFF_SECONDS} s, doubled before the third, and a random part of up "
    f"to {sending.JITTER_SECONDS} s",
    "a `Retry-After` that is waited for": f"up to {sending.LONGEST_RETRY_AFTER:.0f} s",
    "the longest answer": f"{sending.LARGEST_ANSWER // 1024} KiB",
    "a token is renewed": f"less than {RENEWAL_LEEWAY_SECONDS:.0f} s, or less than {RENEWAL_LEEWAY_SHARE:.0%} of",
    "after a failed renewal of a token that is still good": f"after {_account.RETRY_SECONDS:.0f} s",
    "a token that came in place of a refused one": f"for {_account.REFUSAL_SECONDS:.0f} s",
    "a lock in Redis ends by itself": f"after {redis_store.LOCK_SECONDS} s",
    "a program waits for a Redis": f"{redis_store.BUDGET_SECONDS:.0f} s in {redis_store.PAUSE_SECONDS:.0f} s",
    "a person has": f"{pkce.LOGIN_SECONDS:.0f} s",
    "an access code can be entered": f"{person.TRIES} times",
    "a connection to the callback": f"{callback.CONNECTION_SECONDS:.0f} s",
    "a warehouse token is taken to be good for": f"{WAREHOUSE_TOKEN_SECONDS / 60:.0f} min",
    "two calls share it": f"until {REUSE_LEEWAY_SECONDS / 60:.0f} min before",
    "a credentials file": f"up to {credentials.LARGEST_FILE // 1024} KiB",
    "a cache file": f"up to {cache_document.LARGEST_FILE // 1024**2} MiB",
}


def test_numbers_are_those_of_the_code():
    listed = {cells[0]: cells[1] for cells in rows(page("reference/limits.md").replace("%", "%")) if len(cells) == 2}
    for words, number in LIMITS.items():
        assert re.sub(r"(\d+)%", r"\1 %", number) in listed[words], words


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("how-to/clusters.md", f"(`SET ... NX EX {redis_store.LOCK_SECONDS}`"),
        ("explanation/cache.md", f"less than {RENEWAL_LEEWAY_SECONDS:.0f} s, or less than 10 %"),
        ("explanation/cache.md", f"what a request may take ({sending.TOTAL_SECONDS:.0f} s;"),
        ("how-to/log-in.md", f"up to {pkce.LOGIN_SECONDS / 60:.0f} minutes"),
        ("reference/cache-file.md", f"it expires after {redis_store.LOCK_SECONDS} s"),
        ("reference/cache-file.md", f"more than {cache_document.LARGEST_FILE // 1024**2} MiB"),
    ],
)
def test_numbers_in_prose(name, words):
    assert words in " ".join(page(name).split())
