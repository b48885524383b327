"""The tree of errors: as drawn, as documented, and fit for pickling."""

import ast
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


ROWS = [[cell.strip() for cell in row.strip("|").split(" | ")] for row in DOCS.splitlines() if row.startswith("| `")]
#: What the page quotes, by class, with … for what differs each time.
QUOTED = [(row[0].strip("`"), quote) for row in ROWS for quote in row[1].split("<br>")]

#: The documented class of what is called with a message, where that is another name.
KINDS = {name: name for name in CLASSES} | {"_unusable": "InvalidAnswer", "_wrong": "LoginFailed"}
KINDS |= {kind.__name__: ours.__name__ for kind, ours in OF_THE_NETWORK.items()}

#: Messages that come from somewhere else in the package, where they are looked at too.
PASSED_ON = {"error.message", "message", "self._ended"}


def words_of(message):
    """A message in the source, with … for what differs each time."""
    if isinstance(message, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else "…" for part in message.values)
    return message.value if isinstance(message, ast.Constant) else f"no text: {ast.unparse(message)}"


def messages_of(call):
    kind = KINDS.get(ast.unparse(call.func).rpartition(".")[2])
    if kind and call.args and ast.unparse(call.args[0]) not in (*PASSED_ON, "''"):
        yield kind, words_of(call.args[0])
    for keyword in call.keywords:
        if keyword.arg == "failure" and not isinstance(keyword.value, ast.Name):
            yield None, f"{words_of(keyword.value)}: "  # its class depends on the answer


def messages():
    """All that the package may say in an error: its class and its words. ``carto-auth status --check`` says its own."""
    package = Path(errors.__file__).parent
    for path in package.rglob("*.py"):
        if "sandbox" not in path.parts and path.name != "check.py":
            for node in ast.walk(ast.parse(path.read_text())):
                yield from messages_of(node) if isinstance(node, ast.Call) else ()


def with_gaps(text):
    """A pattern for what has anything in the place of each …"""
    return ".*".join(map(re.escape, text.split("…")))


def is_quoted(kind, words):
    """Whether the page has the words, or an example of them: what differs in one may be spelled out in the other."""
    quotes = [quote for name, quote in QUOTED if kind in (None, name)]
    whole = with_gaps(words.rstrip(".")) if re.search("[a-z]", words) else "nothing"
    return any(re.search(with_gaps(quote), words) or re.match(whole, quote) for quote in quotes)


def test_every_class_and_every_message_is_documented():
    assert {row[0].strip("`") for row in ROWS} == set(CLASSES)
    assert [row for row in ROWS if len(list(filter(None, row))) != 4] == []
    found = list(messages())
    assert len(found) > 80
    assert [message for message in found if not is_quoted(*message)] == []


def test_every_quoted_message_is_the_programs():
    source = "".join(path.read_text() for path in Path(errors.__file__).parent.rglob("*.py"))
    source = re.sub(r'"\s*\n\s*f?"', "", source)
    assert [part for _, quote in QUOTED for part in quote.split("…") if part.strip(" :") not in source] == []
