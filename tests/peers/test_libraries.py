"""The programs of the page on other libraries: they print what the page shows, and outlive their tokens."""

import doctest
import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import google.auth
import pytest
from IPython.core.interactiveshell import InteractiveShell
from servers import Server, answering, http

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "libraries.md").read_text()

#: By heading: a section's programs, each with what it prints.
SECTIONS = {
    heading: re.findall(r"(?ms)^```(?:python|sql)\n(.*?)^```(?:\n\n```text\n(.*?)^```)?", text)
    for heading, text in re.findall(r"(?ms)^## (.*?)\n(.*?)(?=^## |\Z)", PAGE)
}

#: What a library prints as 7 when it asks again, with what its program holds, after all tokens have come to their ends.
AGAIN = {
    "pandas": 'client.query("SELECT 7 AS seven").to_dataframe().seven[0]',
    "pandas-gbq": 'pandas_gbq.read_gbq("SELECT 7 AS seven", progress_bar_type=None).seven[0]',
    "`%%bigquery`": 'get_ipython().run_cell_magic("bigquery", "", "SELECT 7 AS seven").seven[0]',
    "Ibis": 'connection.sql("SELECT 7 AS seven").execute().seven[0]',
    "SQLAlchemy": 'engine.connect().execute(sqlalchemy.text("SELECT 7")).scalar()',
    "BigQuery DataFrames": "len(cities) - 13",
    "raster-loader": 'connection.execute_to_dataframe("SELECT 7 AS seven").seven[0]',
    "requests and httpx": '*{c.get(url, params={"q": "SELECT 7"}).json()["rows"][0]["f0_"] for c in (session, client)}',
    "aiohttp": "asyncio.run(over_an_end())",
    "DuckDB": 'ask("SELECT 7 AS seven")[0][0]',
    "Workers and pickles": 'next(client.query("SELECT 7").result())[0]',
}

#: An end between two requests of one session.
OVER_AN_END = """
async def over_an_end():
    async with aiohttp.ClientSession() as session:
        await ask(session, "SELECT 6 AS six")
        let_tokens_end()
        return (await ask(session, "SELECT 7 AS seven"))[0]["seven"]
"""

#: Its wheel is for one DuckDB, and brings that along: there is no httpfs where the sandbox has a newer DuckDB.
HAS_HTTPFS = find_spec("duckdb_extension_httpfs") is not None


@pytest.fixture
def outside(monkeypatch):
    """What would have left this computer, by gRPC too: a proxy's requests; and searches for a login of Google's."""
    searches = []
    monkeypatch.setattr(google.auth, "default", lambda *_, **options: searches.append(options))
    with Server(answering(http(status=403))) as proxy:
        for name in ("http_proxy", "https_proxy", "grpc_proxy"):
            monkeypatch.setenv(name, proxy.url)
        yield lambda: [*searches, *((request.method, request.path) for request in proxy.requests)]


@pytest.fixture
def names(carto, clock):
    """What the programs begin with; their own names come to it."""

    def let_tokens_end():
        clock.ahead += 2 * 24 * 3600

    names = {"__name__": "__main__", "let_tokens_end": let_tokens_end}
    yield names
    if "bigframes" in names:
        names["bigframes"].pandas.close_session()  # else it asks the sandbox at the end of this process


@pytest.fixture
def notebook():
    """Runs a cell, with its magics."""
    yield lambda code, names: InteractiveShell.instance(user_ns=names).run_cell(code).raise_error()
    InteractiveShell.clear_instance()


def run_program(code, names):
    exec(compile(code, "libraries.md", "exec"), names)


def put_httpfs_where_duckdb_looks():
    """As DuckDB's ``INSTALL httpfs`` does, which needs the network."""
    import duckdb
    import duckdb_extension_httpfs

    [extension] = Path(duckdb_extension_httpfs.__file__).parent.rglob("*.duckdb_extension")
    [platform] = duckdb.sql("PRAGMA platform").fetchone()
    folder = Path.home() / ".duckdb" / "extensions" / f"v{duckdb.__version__}" / platform
    folder.mkdir(parents=True)
    shutil.copy(extension, folder)


@pytest.mark.filterwarnings("ignore")  # the libraries' own
@pytest.mark.parametrize("library", [name for name in SECTIONS if SECTIONS[name] and (name != "DuckDB" or HAS_HTTPFS)])
def test_a_library(library, carto, names, outside, notebook, tmp_path, monkeypatch, capsys):
    if library == "DuckDB":
        put_httpfs_where_duckdb_looks()
    run = notebook if "%" in library else run_program
    monkeypatch.chdir(tmp_path)
    for program, printed in SECTIONS[library]:
        run(program, names)
        assert_printed(printed or "...", capsys)  # a magic tells how far it is
    assert printed, "the last program shows nothing"
    assert carto.count("/oauth/token") == 1

    if library in AGAIN:
        names["let_tokens_end"]()
        run(OVER_AN_END, names)
        run(f"print('again:', {AGAIN[library]})", names)
        assert_printed("...again: 7\n", capsys)
        assert carto.count("/oauth/token") > 1
    assert outside() == []


def assert_printed(expected, capsys):
    """``...`` in what is expected is for what differs from run to run."""
    printed = capsys.readouterr().out
    assert doctest.OutputChecker().check_output(expected, printed, doctest.ELLIPSIS), printed


@pytest.mark.timeout(300)  # it installs
def test_duckdb(tmp_path_factory):
    """In a process that has the DuckDB for which there is an httpfs; the sandbox runs on that one too."""
    folder = str(tmp_path_factory.mktemp("duckdb"))
    install = ["--quiet", "--target", folder, "duckdb-extension-httpfs"]
    subprocess.run([sys.executable, "-m", "pip", "install", *install], check=True)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"{__file__}::test_a_library[DuckDB]"],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": folder},
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout


def test_every_library_that_holds_a_token_asks_again():
    assert set(SECTIONS) - set(AGAIN) == {"pydeck-carto", "CARTO's MCP server", "With the sandbox"}
