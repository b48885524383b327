"""The house holds: imports point down, and a private name is read where it was written."""

from __future__ import annotations

import ast
import graphlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import carto_auth

PACKAGE = Path(carto_auth.__file__).parent
TESTS = Path(__file__).parent

#: The rooms, from the bottom to the top: modules, and whole packages. Each imports from lower floors and its own.
FLOORS = [
    {"errors", "_log", "_fork", "_frames", "_value"},
    {"_token"},
    {"_services", "_configuration", "_trust", "_identity", "_single_flight"},
    {"_http"},
    {"_stores"},
    {"_login"},
    {"m2m", "pkce", "discovery", "credentials", "cache", "restricted", "_warehouse", "warehouse"},
    {"_sources"},
    {"_account"},
    {"_request_auth", "_facade"},
    {"auth"},
    {"__init__"},
    {"utils", "_version", "_command", "cli", "__main__", "sandbox"},
]
FLOOR_OF = {room: number for number, floor in enumerate(FLOORS) for room in floor}

#: Nobody imports these but the rooms named here.
LEAVES = {
    "utils": set(),
    "_version": set(),
    "__main__": set(),
    "cli": {"__main__"},
    "_command": {"cli"},
    "sandbox": {"cli", "_command"},
}


def module_of(file: Path) -> str:
    """A file's module, without the package's own name: ``_http.answers``; ``__init__`` is the package itself."""
    *folders, name = file.relative_to(PACKAGE).with_suffix("").parts
    return ".".join([*folders, name] if name != "__init__" or not folders else folders)


MODULES = {module_of(file): ast.parse(file.read_text(encoding="utf-8")) for file in sorted(PACKAGE.rglob("*.py"))}


def room(module: str) -> str:
    return module.partition(".")[0]


def imports(tree: ast.AST) -> Iterator[str]:
    """The package's own modules that a module imports anywhere, but for those that only a type checker imports."""
    if isinstance(tree, ast.If) and ast.unparse(tree.test) == "TYPE_CHECKING":
        return
    if isinstance(tree, ast.Import):
        yield from (alias.name.partition(".")[2] for alias in tree.names if alias.name.startswith("carto_auth."))
    elif isinstance(tree, ast.ImportFrom) and re.match(r"carto_auth(\.|$)", tree.module or ""):
        folder = (tree.module or "").partition(".")[2]
        for alias in tree.names:
            module = f"{folder}.{alias.name}".lstrip(".")
            yield module if module in MODULES else folder or "__init__"
    for child in ast.iter_child_nodes(tree):
        yield from imports(child)


IMPORTS = {module: set(imports(tree)) - {module} for module, tree in MODULES.items()}


def rooms_that_import(name: str) -> set[str]:
    return {room(module) for module, imported in IMPORTS.items() if name in map(room, imported)} - {name}


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module):
    assert room(module) in FLOOR_OF, f"give {room(module)} a floor"
    above = {other for other in IMPORTS[module] if FLOOR_OF.get(room(other), 99) > FLOOR_OF[room(module)]}
    assert not above, f"{module} imports what is above it"


@pytest.mark.parametrize("module", sorted(FLOORS[0]))
def test_the_ground_floor_imports_nothing_of_ours(module):
    assert IMPORTS[module] == set()


def test_nothing_imports_itself_by_a_detour():
    of_rooms = {
        name: {room(o) for m, others in IMPORTS.items() if room(m) == name for o in others} for name in FLOOR_OF
    }
    for graph in (IMPORTS, {name: others - {name} for name, others in of_rooms.items()}):
        list(graphlib.TopologicalSorter(graph).static_order())  # a CycleError names the circle


@pytest.mark.parametrize("leaf", LEAVES)
def test_nobody_imports_a_leaf(leaf):
    assert rooms_that_import(leaf) <= LEAVES[leaf]


def test_the_check_sees_every_import():
    def of(text):
        return set(imports(ast.parse(text)))

    assert of("from carto_auth.auth import CartoAuth") == {"auth"}
    assert of("from carto_auth import _token, CartoAuth") == {"_token", "__init__"}
    assert of("def f():\n    import carto_auth.cache") == {"cache"}
    assert of("if TYPE_CHECKING:\n    from carto_auth.auth import CartoAuth") == set()


def test_the_door_to_the_network_is_one_room():
    """``http`` is Python's, of which the callback needs the server's side."""

    def libraries(tree):
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            yield from (name for name in names if re.match(r"(requests|urllib3|httpx|http)\b", name))

    used = {(room(m), name.partition(".")[0]) for m, tree in MODULES.items() for name in libraries(tree)}
    assert {(where, name) for where, name in used if where != "sandbox"} <= {
        ("_http", "requests"),
        ("_http", "urllib3"),
        ("_http", "http"),
        ("_login", "http"),
    }


def test_utils_defines_nothing():
    assert not [node for node in ast.walk(MODULES["utils"]) if isinstance(node, (ast.FunctionDef, ast.ClassDef))]


def test_importing_the_package_imports_nothing_heavy(unmeasured):
    heavy = {
        "requests",
        "urllib3",
        "yaml",
        "platformdirs",
        "filelock",
        "google",
        "flask",
        "duckdb",
        "logging",
        "typing",
    }
    program = f"import sys, carto_auth; print({heavy} & set(sys.modules))"
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "set()"


# -- private names

#: What programs in the wild read of 0.2.0's objects, and we keep.
OF_THE_CONTRACT = {
    *("_mode", "_api_base_url", "_cache_filepath", "_use_cache", "_access_token", "_expiration", "_open_browser"),
    *("_org", "_client_id", "_client_secret", "_input", "_code_verifier", "_code_challenge"),
}

#: Private names of libraries, with the reason why nothing public will do.
OF_LIBRARIES = {
    "_asdict": "documented: a namedtuple's methods begin with an underscore so as not to be fields",
    "_fields": "the same",
    "_replace": "the same",
    "_exit": "documented: os._exit ends a process without its handlers",
    "_allow_stdin": "ipykernel tells by nothing else whether its front end can answer a question",
    "_browsers": "webbrowser has no other way to forget the browsers that it has found",
    "_tryorder": "the same",
    "_initializing": "Python says in no other place that a module is still being imported",
    "_ensure_bqstorage_client": "Google's client has no switch for its Storage API, which is always Google's own",
    "_credentials": "Google's client does not show the credentials that it was given",
    "_helpers": "google-auth has no public clock",
    "_quota_project_id": "google-auth asks subclasses to set it",
}


def is_private(name: object) -> bool:
    return isinstance(name, str) and name.isidentifier() and name.startswith("_") and not name.startswith("__")


def names_defined(tree: ast.AST) -> set[str]:
    """All names that a module gives to something: its own, its classes' and its objects'."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and is_self(node.value):
            found.add(node.attr)
    return found


def is_self(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def private_names(tree: ast.AST, own: set[str], home: str = "") -> Iterator[str]:
    """The private names of others that a module reads, sets or replaces: as attributes, imports or text.

    Args:
        tree: the module.
        own: the names that its room defines.
        home: its room; empty for a test, which is in none.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            # A private module may be imported by its neighbours: its own private names are what counts.
            if node.attr not in own and node.attr not in FLOOR_OF:
                yield node.attr
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("carto_auth"):
            path = [*(node.module or "").split(".")[1:], ""]
            if not home or path[0] != home:
                imported = [*path[1:], *(alias.name for alias in node.names if alias.name not in FLOOR_OF)]
                yield from filter(is_private, imported)
        elif isinstance(node, ast.Call) and re.search(r"(get|set|del)attr$", ast.unparse(node.func)):
            texts = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
            paths = [text.split(".")[2:] if text.startswith("carto_auth.") else [text] for text in texts]
            yield from (name for path in paths for name in path if is_private(name) and name not in own)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and "import" in node.value:
            yield from private_names_in_program(node.value, own, home)


def private_names_in_program(text: str, own: set[str], home: str) -> Iterator[str]:
    """The same of a text, if it is a program: tests run some in processes of their own."""
    try:
        program = ast.parse(text)
    except (SyntaxError, ValueError):
        return
    yield from private_names(program, own | names_defined(program), home)


def test_a_private_name_is_read_in_its_own_room_only():
    own: dict[str, set[str]] = {}
    for module, tree in MODULES.items():
        own.setdefault(room(module), set()).update(names_defined(tree))
    found = {m: set(private_names(tree, own[room(m)], room(m))) for m, tree in MODULES.items()}
    for file in sorted({*TESTS.rglob("*.py")} - {Path(__file__)}):  # there are examples of such names below
        tree = ast.parse(file.read_text(encoding="utf-8"))
        found[str(file.relative_to(TESTS.parent))] = set(private_names(tree, names_defined(tree))) - OF_THE_CONTRACT
    found = {where: sorted(names - OF_LIBRARIES.keys()) for where, names in found.items()}
    assert {where: names for where, names in found.items() if names} == {}


@pytest.mark.parametrize(
    "text",
    [
        "account._secret",
        "from carto_auth._token import _secret",
        "from carto_auth._http._secret import send",
        "monkeypatch.setattr(cache, '_secret', 1)",
        "monkeypatch.setattr('carto_auth._http._secret', 1)",
        "run('from carto_auth import cache; cache._secret')",
    ],
)
def test_the_check_sees_a_private_name(text):
    assert list(private_names(ast.parse(text), set())) == ["_secret"]
    assert list(private_names(ast.parse(text.replace("_secret", "shown")), set())) == []
