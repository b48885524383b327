"""The tree of errors: as drawn, as documented, and fit for pickling."""

import copy
import inspect
import pickle
import re
from pathlib import Path

import pytest
import requests

from carto_auth import CredentialsError, _answers, errors

DOCS = Path(__file__).parent.parent / "docs" / "errors.md"
CLASSES = {name: getattr(errors, name) for name in errors.__all__}
DETAILS = {
    "remedy": "Do this.",
    "status": 429,
    "error": "code",
    "error_description": "words",
    "retry_after": 7.5,
}
#: What code written for carto-auth 0.2.0 may catch.
OTHER_BASES = {
    "CredentialsFileNotFound": FileNotFoundError,
    "MissingCredential": AttributeError,
    "InvalidCredential": ValueError,
    "MissingDependency": ImportError,
    "UntrustedAddress": ValueError,
    "ServiceUnreachable": OSError,
    "InvalidAnswer": ValueError,
}
every_class = pytest.mark.parametrize(
    "kind", [*CLASSES.values(), _answers.RequestFailed, _answers.Unreadable], ids=lambda kind: kind.__name__
)


def test_every_class_is_exported():
    defined = {name for name, kind in inspect.getmembers(errors, inspect.isclass) if kind.__module__ == errors.__name__}
    assert defined == set(errors.__all__)
    assert errors.__all__ == sorted(errors.__all__)


def test_the_tree_is_drawn_as_it_is():
    drawn = re.findall(r"^    ([│├└─ ]*)(\w+)(?: {2,}|$)(\w+Error)?", tree(), re.MULTILINE)
    path, found = [], {}
    for branches, name, other in drawn:
        depth = len(branches) // 4
        path[depth:] = [name]
        found[name] = (path[depth - 1] if depth else None, other or None)
    expected = {}
    for name, kind in CLASSES.items():
        ours = kind.__bases__[0].__name__ if kind is not CredentialsError else None
        expected[name] = (ours, OTHER_BASES[name].__name__ if name in OTHER_BASES else None)
    assert found == expected


def tree():
    return inspect.getdoc(errors).split("::")[1].split("The second column")[0]


@every_class
def test_an_error(kind):
    error = kind("It failed.", **DETAILS)
    assert isinstance(error, CredentialsError)
    assert str(error) == "It failed. Do this."
    assert error.message == "It failed."
    assert {name: getattr(error, name) for name in DETAILS} == DETAILS
    assert str(kind("It failed.")) == "It failed."
    assert str(kind()) == ""


@every_class
@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))])
def test_an_error_travels(kind, copied):
    error = copied(kind("It failed.", **DETAILS))
    assert type(error) is kind
    assert str(error) == "It failed. Do this."
    assert {name: getattr(error, name) for name in DETAILS} == DETAILS


@pytest.mark.parametrize(("name", "base"), OTHER_BASES.items())
def test_other_bases(name, base):
    assert issubclass(CLASSES[name], base)


def test_what_comes_from_the_network_is_an_error_of_requests():
    assert issubclass(_answers.RequestFailed, requests.RequestException)
    assert issubclass(_answers.RequestFailed, errors.ServiceUnreachable)
    assert issubclass(_answers.Unreadable, requests.RequestException)
    assert issubclass(_answers.Unreadable, errors.InvalidAnswer)


@pytest.mark.parametrize("name", CLASSES)
def test_every_class_is_documented(name):
    rows = [row for row in DOCS.read_text().splitlines() if row.startswith(f"| `{name}`")]
    assert rows, f"docs/errors.md has no row for {name}"
    for row in rows:
        assert len([cell for cell in row.strip("|").split("|") if cell.strip()]) == 4


def test_nothing_else_is_documented():
    named = re.findall(r"^\| `(\w+)`", DOCS.read_text(), re.MULTILINE)
    assert set(named) == set(CLASSES)


def test_quoted_messages_are_those_of_the_program():
    """What stands in the second column is found in the source, between the parts that differ each time."""
    source = "".join(path.read_text() for path in Path(errors.__file__).parent.rglob("*.py"))
    source = re.sub(r'"\s*\n\s*f?"', "", source)
    for row in DOCS.read_text().splitlines():
        if row.startswith("| `"):
            for part in row.split("|")[2].strip().split("…"):
                assert part.strip(" :") in source, f"no message has {part.strip()!r}"
