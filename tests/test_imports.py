"""The direction of imports: downwards only, and light at the top."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import carto_auth

PACKAGE = Path(carto_auth.__file__).parent

#: From the bottom to the top. A module may import from lower floors, and from its own unless it says otherwise.
FLOORS = [
    {"errors", "_log", "_typing", "_value", "_fork", "_redirect"},
    {"_token"},
    {"_trust"},
    {"_services", "_surroundings", "_loopback"},
    {"_http", "_request_auth"},
    {"_configuration"},
    {"pkce", "m2m", "_redis_cache", "cache", "discovery", "warehouse", "credentials", "_bigquery"},
    {"auth", "restricted"},
    {"__init__"},
    {"utils", "_command", "cli", "__main__", "sandbox"},
]
FLOOR_OF = {module: number for number, floor in enumerate(FLOORS) for module in floor}

#: Leaves: nobody imports them, but for the entry points named here.
LEAVES = {"utils": set(), "cli": {"__main__"}, "__main__": set(), "sandbox": {"cli", "_command"}}


def module_files() -> list[Path]:
    return sorted(PACKAGE.glob("*.py"))


def imported_modules(tree: ast.AST) -> set[str]:
    """The package's own modules that a module imports, but for those only a type checker imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("carto_auth.")}
        elif isinstance(node, ast.ImportFrom) and node.module == "carto_auth":
            found |= {alias.name if alias.name in FLOOR_OF else "__init__" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("carto_auth."):
            found.add(node.module.split(".")[1])
    return found


@pytest.mark.parametrize("file", module_files(), ids=lambda file: file.stem)
def test_imports_point_down(file):
    assert file.stem in FLOOR_OF, f"give {file.stem} a floor"
    for imported in imported_modules(ast.parse(file.read_text())):
        assert FLOOR_OF[imported] <= FLOOR_OF[file.stem], f"{file.stem} imports {imported}, which is above it"


@pytest.mark.parametrize("leaf", LEAVES)
def test_nobody_imports_a_leaf(leaf):
    importers = {file.stem for file in module_files() if leaf in imported_modules(ast.parse(file.read_text()))}
    assert importers - {leaf} <= LEAVES[leaf]


@pytest.mark.parametrize("module", ["errors", "_log"])
def test_the_lowest_floor_imports_nothing_of_ours(module):
    assert imported_modules(ast.parse((PACKAGE / f"{module}.py").read_text())) == set()


def test_the_check_sees_an_upward_import():
    assert imported_modules(ast.parse("from carto_auth.auth import CartoAuth")) == {"auth"}
    assert imported_modules(ast.parse("from carto_auth import _http, CartoAuth")) == {"_http", "__init__"}
    assert imported_modules(ast.parse("if TYPE_CHECKING:\n    from carto_auth.auth import CartoAuth")) == set()


def test_the_door_to_the_network_is_small():
    senders = set()
    for file in [*module_files(), *PACKAGE.glob("_http/*.py")]:
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(name.split(".")[0] in ("requests", "urllib3", "http", "httpx") for name in names):
                senders.add(file.relative_to(PACKAGE).parts[0].removesuffix(".py"))
    # The http of _loopback is the server's side.
    assert senders == {"_http", "_loopback"}


def test_utils_defines_nothing():
    tree = ast.parse((PACKAGE / "utils.py").read_text())
    assert not [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.ClassDef))]


def test_importing_the_package_imports_nothing_heavy():
    heavy = ["requests", "urllib3", "yaml", "platformdirs", "filelock", "google", "flask", "duckdb", "logging"]
    program = f"import sys, carto_auth; print([m for m in {heavy} if m in sys.modules])"
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"
