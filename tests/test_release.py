"""What is released: the wheel and the sdist hold what they should, leave nothing behind, and work without extras."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

import carto_auth

ROOT = Path(__file__).parents[1]

#: The modules of all extras. What an interpreter finds None for in sys.modules, it cannot import.
EXTRAS = ("google", "redis", "flask", "werkzeug", "authlib", "joserfc", "duckdb", "sqlglot")
BARE = f"import sys; sys.modules.update(dict.fromkeys({EXTRAS})); "


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The wheel and the sdist."""
    folder = tmp_path_factory.mktemp("dist")
    before = set(ROOT.iterdir())
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", folder], cwd=ROOT, check=True, capture_output=True
    )
    assert {path.name for path in set(ROOT.iterdir()) - before} <= {".pytest_cache", ".hypothesis"}
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return wheel, sdist


@pytest.fixture
def bare(built, tmp_path):
    """A Python with the wheel and what it depends on, and with no extra: runs a program."""
    zipfile.ZipFile(built[0]).extractall(tmp_path / "site")

    def run(program):
        return subprocess.run(
            [sys.executable, "-c", BARE + program],
            env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )

    return run


def test_the_wheel(built):
    names = set(zipfile.ZipFile(built[0]).namelist())
    ours = {str(path.relative_to(ROOT)) for path in (ROOT / "carto_auth").rglob("*") if path.suffix != ".pyc"}
    ours = {name for name in ours if (ROOT / name).is_file()}
    info = f"carto_auth-{carto_auth.__version__}.dist-info"
    others = {f"{info}/{name}" for name in ("METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE")}
    share = f"carto_auth-{carto_auth.__version__}.data/data/share"
    places = ("bash-completion/completions/carto-auth", "fish/vendor_completions.d/carto-auth.fish")
    others |= {f"{share}/{name}" for name in (*places, "zsh/site-functions/_carto-auth")}
    assert names == ours | others
    assert "carto_auth/py.typed" in names


def test_what_the_wheel_says_of_itself(built):
    archive = zipfile.ZipFile(built[0])
    said = archive.read(f"carto_auth-{carto_auth.__version__}.dist-info/METADATA").decode()
    assert f"Version: {carto_auth.__version__}\n" in said
    assert "License-Expression: BSD-3-Clause\n" in said
    assert "Project-URL: " in said
    assert set(re.findall(r"Provides-Extra: (.*)", said)) >= {"carto-dw", "redis", "sandbox"}


def test_the_sdist_has_all_that_is_needed_to_test_it(built):
    with tarfile.open(built[1]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for needed in (
        "Makefile",
        ".ci/run",
        "SECURITY.md",
        "docs/index.md",
        "docs/conf.py",
        "tests/conftest.py",
        "LICENSE",
    ):
        assert needed in names
    assert [name for name in names if re.search(r"\.pyc$|^site/|^\.venv|^\.git/|\.so$", name)] == []


def test_without_extras_the_command_works(bare):
    done = bare("from carto_auth import __file__, cli; print(__file__); sys.exit(cli.main(['status']))")
    assert "site/carto_auth" in done.stdout
    assert "Run: carto-auth login" in done.stdout
    assert (done.returncode, done.stderr) == (4, "")  # a login is needed


@pytest.mark.parametrize(
    ("program", "line"),
    [
        ("CartoAuth('oauth', 'https://a.carto.com', 'token', 4e9).get_carto_dw_client()", "'carto-auth[carto-dw]'"),
        ("CartoAuth('oauth', cache_filepath='redis://127.0.0.1:1').logout()", "'carto-auth[redis]'"),
        ("sys.exit(__import__('carto_auth.cli').cli.main(['demo']))", "'carto-auth[sandbox]'"),
        ("sys.exit(__import__('carto_auth.cli').cli.main(['sandbox']))", "'carto-auth[sandbox]'"),
    ],
)
def test_a_missing_extra_says_its_line(program, line, bare):
    """It names no version: pip keeps the one that is installed, with ``--upgrade`` too, and adds what the extra needs.

    It gets 0.2.0 of the same name only where none is installed, and there nobody reads this line.
    """
    done = bare(f"from carto_auth import CartoAuth; {program}")
    assert done.returncode == 1
    assert f"pip install {line}" in done.stderr.splitlines()[-1]


def test_the_changelog_has_this_version_with_its_date():
    text = (ROOT / "CHANGELOG.md").read_text()
    version, date = re.search(r"^## ([\d.]+) - (\d{4}-\d\d-\d\d)$", text, re.MULTILINE).groups()
    assert version == carto_auth.__version__
    assert date >= "2026-11-25"


def test_the_conda_recipe_has_the_same_version_and_dependencies(built):
    said = zipfile.ZipFile(built[0]).read(f"carto_auth-{carto_auth.__version__}.dist-info/METADATA").decode()
    lines = re.findall(r"^Requires-Dist: (.+)$", said, re.MULTILINE)
    # One recipe serves every Python: of two floors, the newer Python's.
    needed = {line.partition(";")[0].lower() for line in lines if "extra ==" not in line and "<" not in line}
    recipe = yaml.safe_load((ROOT / "conda" / "recipe.yaml").read_text())
    run = {line.replace(" ", "") for line in recipe["requirements"]["run"] if not line.startswith("python ")}
    assert run == needed
    assert recipe["context"]["version"] == carto_auth.__version__
    (entry_point,) = recipe["build"]["python"]["entry_points"]
    assert entry_point in (ROOT / "pyproject.toml").read_text().replace('"', "")


def test_actions_are_pinned_by_hash():
    for workflow in (ROOT / ".github" / "workflows").glob("*.yml"):
        for used in re.findall(r"uses: (\S+)", workflow.read_text()):
            assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", used), used
