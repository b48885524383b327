"""The tree of errors: as drawn, as documented, and fit for pickling."""

import copy
import inspect
import pickle
import re
from pathlib import Path

import pytest
import requests

from carto_auth import CredentialsError, errors
from carto_auth._http import failures

DOCS = (Path(__file__).parent.parent / "docs" / "reference" / "errors.md").read_text()
CLASSES = {name: kind for name, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, Exception)}
DETAILS = {"remedy": "Do this.", "status": 429, "error": "code", "error_description": "words", "retry_after": 7.5}
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
#: Those that are errors of ``requests`` as well, with the error that each of them is.
OF_THE_NETWORK = {failures.RequestFailed: errors.ServiceUnreachable, failures.Unreadable: errors.InvalidAnswer}


def test_the_tree_is_drawn_as_it_is():
    path, drawn = [], {}
    for branches, name, other in re.findall(r"(?m)^    ([│├└─ ]*)(\w+)(?: {2,}|$)(\w+Error)?", errors.__doc__):
        depth = len(branches) // 4
        path[depth:] = [name]
        drawn[name] = tuple(filter(None, (path[depth - 1] if depth else "Exception", other)))
    assert drawn == {name: tuple(base.__name__ for base in kind.__bases__) for name, kind in CLASSES.items()}


@pytest.mark.parametrize(("name", "base"), OTHER_BASES.items())
def test_what_code_for_0_2_0_catches(name, base):
    assert issubclass(CLASSES[name], base)


@pytest.mark.parametrize(("kind", "ours"), OF_THE_NETWORK.items())
def test_what_comes_from_the_network_is_an_error_of_requests(kind, ours):
    assert issubclass(kind, requests.RequestException)
    assert issubclass(kind, ours)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))])
@pytest.mark.parametrize("kind", [*CLASSES.values(), *OF_THE_NETWORK], ids=lambda kind: kind.__name__)
def test_an_error_and_its_copies(kind, copied):
    error = copied(kind("It failed.", **DETAILS))
    assert type(error) is kind
    assert isinstance(error, CredentialsError)
    assert (str(error), error.message) == ("It failed. Do this.", "It failed.")
    assert {name: getattr(error, name) for name in DETAILS} == DETAILS
    assert (str(kind("It failed.")), str(kind())) == ("It failed.", "")


def test_every_class_is_documented_and_every_quoted_message_is_the_programs():
    """The second column's words are in the source, between the parts that differ each time (``…``)."""
    source = "".join(path.read_text() for path in Path(errors.__file__).parent.rglob("*.py"))
    source = re.sub(r'"\s*\n\s*f?"', "", source)
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in DOCS.splitlines() if row.startswith("| `")]
    assert {row[0].strip("`") for row in rows} == set(CLASSES)
    for row in rows:
        assert len(list(filter(None, row))) == 4, row
        assert [part for part in row[1].split("…") if part.strip(" :") not in source] == []
