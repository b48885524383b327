"""The examples run, against the sandbox, as they stand in the repository."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"

#: What each prints.
OUTPUT = {
    "etl.py": """\
Japan             1 cities  13,960,000 people
United States     2 cities  12,080,000 people
Kenya             1 cities   4,400,000 people
Spain             1 cities   3,330,000 people
""",
    "sql_api.py": """\
Shanghai    China         24,870,000
Delhi       India         16,790,000
Istanbul    Türkiye       15,660,000
""",
}


@pytest.mark.parametrize("name", OUTPUT)
def test_an_example(name, carto_sandbox, tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-W", "ignore::FutureWarning", str(EXAMPLES / name)],
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=60,
    )
    assert (done.stdout, done.stderr) == (OUTPUT[name], "")


def test_no_example_is_forgotten():
    assert {file.name for file in EXAMPLES.glob("*.py")} - {"streamlit_app.py"} == set(OUTPUT)
