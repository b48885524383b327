"""pydeck-carto, as it comes from PyPI, draws its maps with our object; and the notebook with one runs."""

import functools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import requests
from nbclient import NotebookClient

from carto_auth import CartoAuth

ROOT = Path(__file__).parents[2]

CITIES = "carto-demo-data.demo_tables.world_cities"

LOG_IN = f"""
import json, sys
import pydeck as pdk, pydeck_carto, carto_auth
account = carto_auth.CartoAuth.from_m2m()
auth = account if sys.argv[1] == "account" else account.restricted_to([("carto_dw", "{CITIES}")])
"""

DRAW = {
    "0.1.0": LOG_IN
    + f"""
pydeck_carto.register_carto_layer()
credentials = pydeck_carto.get_layer_credentials(auth)
layer = pdk.Layer(
    "CartoLayer",
    data="{CITIES}",
    type_=pydeck_carto.MapType.TABLE,
    connection=pydeck_carto.CartoConnection.CARTO_DW,
    credentials=credentials,
)
sources = {{"apiVersion": "v3", "apiBaseUrl": auth.get_api_base_url(), "accessToken": auth.get_access_token()}}
assert credentials == sources, credentials
""",
    "0.2.1": LOG_IN
    + f"""
pydeck_carto.register_layers()
given = {{
    "access_token": auth.get_access_token(), "api_base_url": auth.get_api_base_url(), "connection_name": "carto_dw"
}}
sources = pydeck_carto.sources
data = [
    sources.vector_table_source(table_name="{CITIES}", **given),
    sources.vector_query_source(sql_query="SELECT * FROM `{CITIES}`", **given),
    sources.vector_tileset_source(table_name="{CITIES}", **given),
    sources.h3_table_source(table_name="{CITIES}", aggregation_exp="sum(population)", **given),
    sources.quadbin_query_source(sql_query="SELECT 1", aggregation_exp="sum(population)", **given),
]
layer = [pdk.Layer("VectorTileLayer", data=one) for one in data]
""",
}

SHOW = """
from importlib.metadata import requires
from packaging.requirements import Requirement
[needed] = [needed for needed in map(Requirement, requires("pydeck-carto")) if needed.name == "carto-auth"]
page = pdk.Deck(layer if isinstance(layer, list) else [layer], map_style="light").to_html(as_string=True)
print(json.dumps({
    "page": page,
    "version": pydeck_carto.__version__,
    "takes_ours": carto_auth.__version__ in needed.specifier,
    "account": account.get_access_token(),
    "drawn_with": auth.get_access_token(),
}))
"""


@pytest.fixture(scope="session")
def folder_with(tmp_path_factory):
    """A folder with that pydeck-carto, without what it needs: that is here already, and its carto-auth is ours."""

    @functools.cache
    def install(version):
        folder = tmp_path_factory.mktemp("pydeck-carto")
        options = ["--quiet", "--no-deps", "--target", str(folder), f"pydeck-carto=={version}"]
        subprocess.run([sys.executable, "-m", "pip", "install", *options], check=True)
        return str(folder)

    return install


@pytest.fixture
def draw(folder_with, carto, tmp_path):
    """Draws a map with that pydeck-carto: what its program printed."""

    def run(version, drawn_with):
        done = subprocess.run(
            [sys.executable, "-c", DRAW[version] + SHOW, drawn_with],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": folder_with(version)},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


@pytest.mark.parametrize("version", DRAW)
def test_a_map_of_ones_own(version, draw):
    shown = draw(version, "account")
    assert shown["version"] == version
    assert shown["takes_ours"] is True
    assert shown["account"] == shown["drawn_with"]
    assert shown["account"] in shown["page"]  # which is why there is restricted_to


@pytest.mark.parametrize("version", DRAW)
def test_a_map_that_does_not_give_its_author_away(version, draw, carto):
    shown = draw(version, "restricted")
    assert shown["drawn_with"] in shown["page"]
    assert shown["account"] not in shown["page"]
    assert carto.client_secret not in shown["page"]

    [token] = set(re.findall(r'accessToken\W+([\w.-]{20,})"', shown["page"]))
    url = f"{carto.api_base_url}/v3/sql/carto_dw/query"
    statuses = [
        requests.get(url, params={"q": sql}, headers={"Authorization": f"Bearer {token}"}, timeout=30).status_code
        for sql in (f"SELECT * FROM `{CITIES}`", "SELECT * FROM shared.secrets")
    ]
    assert statuses == [200, 403]
    assert draw(version, "restricted")["drawn_with"] == token
    assert carto.count("/v3/tokens", "POST") == 1


# The Jupyter packages leave things open and call others by old names; that is theirs to change.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_notebook_with_a_map(folder_with, carto, tmp_path, monkeypatch):
    kernel = tmp_path / "jupyter" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    specification = {"argv": command, "display_name": "3", "language": "python"}
    (kernel / "kernel.json").write_text(json.dumps({**specification, "env": {"PYTHONPATH": folder_with("0.2.1")}}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "0")

    notebook = nbformat.read(ROOT / "examples" / "map.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "it must be kept without outputs"
    NotebookClient(notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()

    results = [out["data"]["text/plain"] for cell in notebook.cells for out in cell.get("outputs", []) if "data" in out]
    assert results == [
        f"<CartoAuth m2m {carto.api_base_url}>",
        f"<RestrictedAuth {carto.api_base_url}>",
        "[{'cities': 20, 'people': 174704000}]",
        """{"the map's token": True, 'mine': False}""",
    ]
    mine = {"Authorization": f"Bearer {CartoAuth.from_m2m().get_access_token()}"}
    [token] = [one["token"] for one in requests.get(f"{carto.api_base_url}/v3/tokens", headers=mine, timeout=30).json()]
    assert token in (tmp_path / "map.html").read_text()
    assert token not in nbformat.writes(notebook)
