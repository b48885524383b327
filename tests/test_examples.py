"""The examples run, against a sandbox, exactly as they are in the repository."""

from __future__ import annotations

import os
import shutil
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


def run(folder, *arguments):
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
        cwd=folder,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=100,
    )


@pytest.mark.parametrize("name", [file.name for file in EXAMPLES.glob("*.py") if not file.name.endswith("_app.py")])
def test_an_example(name, carto_sandbox, tmp_path):
    # Google's packages warn of Python 3.10.
    done = run(tmp_path, "-W", "error", "-W", "ignore::FutureWarning", EXAMPLES / name)
    assert (done.stdout, done.stderr) == (OUTPUT[name], "")


def test_a_project_outside_this_one_tests_its_job_with_the_fixture(tmp_path):
    project = tmp_path / "project"
    shutil.copytree(EXAMPLES / "tested_project", project, ignore=shutil.ignore_patterns("__pycache__"))
    (project / "pytest.ini").write_text("[pytest]\n")
    done = run(project, "-m", "pytest", "-q", "-p", "no:cacheprovider")
    assert "4 passed" in done.stdout, done.stdout + done.stderr
