"""Where are we, and what follows from it: which browser, which prompt? docs/how-to/log-in.md has the table."""

import io
import multiprocessing
import os
import sys
import threading
import webbrowser
from types import SimpleNamespace
from unittest.mock import Mock

import pytest

from carto_auth._login import browser, talk
from carto_auth._login import place as places
from carto_auth.errors import LoginRequired
from carto_auth.pkce import CartoPKCE

URL = "https://auth.carto.com/authorize?a=1&b=2"


#: Files that tell where we are.
TELLING = ("/opt/ml/metadata/resource-metadata.json", "/.dockerenv", "/run/.containerenv")


def only(monkeypatch, there, exists=os.path.exists):
    """Of the files that tell where we are, only ``there`` is there."""
    monkeypatch.setattr(os.path, "exists", lambda path: path == there if path in TELLING else exists(path))


class Stream(io.StringIO):
    """A standard stream that is a terminal, or not."""

    def __init__(self, terminal, text=""):
        super().__init__(text)
        self.terminal = terminal

    def isatty(self):
        return self.terminal


@pytest.fixture(autouse=True)
def a_plain_place(monkeypatch):
    """Neither a terminal nor a notebook, and no file that tells of a SageMaker or a container."""
    monkeypatch.setattr(sys, "stdin", Stream(False))
    only(monkeypatch, None)
    for module in ("IPython", "google.colab", "pyspark.worker", "pyspark.daemon", "distributed"):
        monkeypatch.delitem(sys.modules, module, raising=False)


class Place:
    """What a surrounding looks like from inside."""

    def __init__(self, monkeypatch):
        self._monkeypatch = monkeypatch

    def env(self, **variables):
        for name, value in variables.items():
            self._monkeypatch.setenv(name, value)

    def stdin(self, stream):
        self._monkeypatch.setattr(sys, "stdin", stream)

    def terminal(self):
        self.stdin(Stream(True))

    def desktop(self):
        self.env(DISPLAY=":0")

    def kernel(self, takes_input=True, pid=None):
        session = SimpleNamespace(pid=pid or os.getpid())
        shell = SimpleNamespace(kernel=SimpleNamespace(_allow_stdin=takes_input, session=session))
        self.module("IPython", get_ipython=lambda: shell)

    def ipython(self):
        self.module("IPython", get_ipython=lambda: SimpleNamespace())

    def module(self, name, **content):
        self._monkeypatch.setitem(sys.modules, name, SimpleNamespace(**content))

    def file(self, path):
        only(self._monkeypatch, path)


@pytest.fixture
def place(monkeypatch):
    return Place(monkeypatch)


@pytest.fixture
def command(tmp_path, monkeypatch):
    """A command on the PATH, to be named by BROWSER."""
    path = tmp_path / "a-browser"
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    return "a-browser"


# name: how it looks; whether the browser is elsewhere; whether somebody can be asked
SURROUNDINGS = {
    "terminal on a desktop": (lambda p: [p.terminal(), p.desktop()], False, True),
    "terminal without a display": (lambda p: p.terminal(), False, True),
    "IPython in a terminal": (lambda p: [p.terminal(), p.ipython()], False, True),
    "Jupyter on this computer": (lambda p: [p.kernel(), p.desktop()], False, True),
    "Jupyter run without a front end": (lambda p: p.kernel(takes_input=False), False, False),
    "Colab": (lambda p: [p.kernel(), p.module("google.colab")], True, True),
    "Databricks": (lambda p: [p.kernel(), p.env(DATABRICKS_RUNTIME_VERSION="15.4")], True, True),
    "Databricks job": (lambda p: [p.kernel(False), p.env(DATABRICKS_RUNTIME_VERSION="15.4")], True, False),
    "JupyterHub": (lambda p: [p.kernel(), p.env(JUPYTERHUB_API_URL="http://hub/api")], True, True),
    "JupyterHub, by the user's name": (lambda p: [p.kernel(), p.env(JUPYTERHUB_USER="ana")], True, True),
    "Kaggle": (lambda p: [p.kernel(), p.env(KAGGLE_KERNEL_RUN_TYPE="Interactive")], True, True),
    "Kaggle batch": (lambda p: [p.kernel(False), p.env(KAGGLE_KERNEL_RUN_TYPE="Batch")], True, False),
    "SageMaker": (lambda p: [p.kernel(), p.env(SAGEMAKER_INTERNAL_IMAGE_URI="x")], True, True),
    "SageMaker Studio": (lambda p: [p.kernel(), p.file("/opt/ml/metadata/resource-metadata.json")], True, True),
    "SageMaker job": (lambda p: p.env(SM_CURRENT_HOST="algo-1"), True, False),
    "Codespaces": (lambda p: [p.terminal(), p.env(CODESPACES="true")], True, True),
    "VS Code, remote": (lambda p: [p.terminal(), p.env(VSCODE_IPC_HOOK_CLI="/run/vscode.sock")], True, True),
    "VS Code, dev container": (lambda p: [p.terminal(), p.env(REMOTE_CONTAINERS="true")], True, True),
    "SSH": (lambda p: [p.terminal(), p.env(SSH_CONNECTION="1 2 3 4")], True, True),
    "SSH, by its terminal": (lambda p: [p.terminal(), p.env(SSH_TTY="/dev/pts/1")], True, True),
    "SSH with a display": (lambda p: [p.terminal(), p.env(SSH_TTY="x", DISPLAY="localhost:10.0")], False, True),
    "SSH with Wayland": (lambda p: [p.terminal(), p.env(SSH_TTY="x", WAYLAND_DISPLAY="wayland-0")], False, True),
    "WSL": (lambda p: [p.terminal(), p.env(WSL_DISTRO_NAME="Debian")], False, True),
    "container": (lambda p: [p.terminal(), p.file("/.dockerenv")], False, True),
    "cron": (lambda p: None, False, False),
    "CI": (lambda p: p.env(CI="true"), False, False),
}


@pytest.mark.parametrize("name", SURROUNDINGS)
def test_surroundings(place, name):
    look, elsewhere, askable = SURROUNDINGS[name]
    look(place)
    assert places.can_ask() is askable
    assert CartoPKCE().open_browser is not elsewhere
    assert CartoPKCE(open_browser=False).open_browser is False


BEATEN = ["JupyterHub", "Kaggle", "SageMaker", "VS Code, remote", "VS Code, dev container", "SSH"]


@pytest.mark.parametrize("name", BEATEN)
def test_a_named_browser_is_a_browser_display_or_not(place, command, name):
    SURROUNDINGS[name][0](place)
    place.env(BROWSER=command)
    assert CartoPKCE().open_browser is True


@pytest.mark.parametrize("name", ["Colab", "Databricks", "Codespaces"])
def test_but_not_where_nothing_forwards_the_callback(place, command, name):
    SURROUNDINGS[name][0](place)
    place.env(BROWSER=command)
    assert CartoPKCE().open_browser is False


@pytest.mark.parametrize("system", ["win32", "darwin"])
def test_windows_and_macos_have_a_display(monkeypatch, place, system):
    monkeypatch.setattr(sys, "platform", system)
    place.env(SSH_CONNECTION="1 2 3 4", WSL_DISTRO_NAME="Debian")
    assert CartoPKCE().open_browser is True
    assert "WSL" not in places.why_no_browser()


@pytest.mark.parametrize(
    ("variable", "named"),
    [
        ("{}", True),
        ("{} %s", True),
        ("'{}' --new-window %s &", True),
        ("not-there:{}", True),
        ("not-there", False),
        ("not-there %s", False),
        ("{} --an-option", False),  # webbrowser takes that for the name of a command
        ("'{} %s", False),
        (":", False),
        ("'{}", False),
        ("%s", False),
        ("", False),
        (" ", False),
    ],
)
def test_the_browser_variable_names_a_command(place, command, variable, named):
    place.env(BROWSER=variable.format(command))
    assert bool(places.named_browsers()) is named


# ---- a person ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("look", "somebody"),
    [
        (lambda p: None, False),
        (lambda p: p.desktop(), True),
        (lambda p: [p.desktop(), p.env(CI="1")], False),
        (lambda p: [p.desktop(), p.env(CI="false")], True),
        (lambda p: [p.env(CI="true"), p.terminal()], True),
        (lambda p: [p.env(CI="true"), p.kernel()], True),
        (lambda p: [p.env(CI="true"), p.desktop()], False),
        (lambda p: p.env(BROWSER=sys.executable), False),  # which browser, not that there is a person
        (lambda p: [p.env(BROWSER=sys.executable), p.desktop()], True),
        (lambda p: [p.kernel(takes_input=False), p.desktop()], False),
        (lambda p: [p.kernel(takes_input=False), p.env(BROWSER=sys.executable)], False),
        (lambda p: [p.kernel(pid=os.getpid()), p.desktop()], True),
        (lambda p: [p.kernel(pid=1), p.desktop()], False),  # a fork of a notebook's kernel
        (lambda p: p.env(CARTO_AUTH_INTERACTIVE="1"), False),
        (lambda p: [p.terminal(), p.env(CARTO_AUTH_INTERACTIVE="1")], True),
        (lambda p: [p.terminal(), p.desktop(), p.env(CARTO_AUTH_INTERACTIVE="0")], False),
        (lambda p: [p.kernel(), p.desktop(), p.env(CARTO_AUTH_INTERACTIVE=" False ")], False),
    ],
)
def test_whether_somebody_is_here(place, look, somebody):
    look(place)
    assert places.somebody_is_here() is somebody
    if not somebody:
        assert places.can_ask() is False


def test_who_runs_a_notebook_may_bring_its_own_way_to_open_pages(place, monkeypatch):
    place.kernel(takes_input=False)
    monkeypatch.setattr(webbrowser, "open", lambda url: True)
    assert places.somebody_is_here() is True


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_child_of_multiprocessing_is_a_worker(place):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(places.is_worker) is True
    assert places.is_worker() is False


@pytest.mark.parametrize(
    ("look", "reason"),
    [
        (lambda p: None, "standard input is not a terminal"),
        (lambda p: p.stdin(None), "standard input is closed"),
        (lambda p: p.stdin(closed()), "standard input is closed"),
        (lambda p: p.kernel(takes_input=False), "this notebook is run without a front end that takes input"),
        (lambda p: p.kernel(pid=1), "this is a worker process"),
        (lambda p: [p.terminal(), p.env(CARTO_AUTH_INTERACTIVE="0")], "CARTO_AUTH_INTERACTIVE forbids it"),
    ],
)
def test_why_there_is_nobody(place, look, reason):
    look(place)
    with pytest.raises(LoginRequired, match=f"there is nobody to ask here: .*{reason}. Log in once where"):
        CartoPKCE(open_browser=False).get_auth_response()


def closed():
    stream = Stream(True)
    stream.isatty = lambda: io.StringIO.isatty(stream)
    stream.close()
    return stream


def broken(error):
    return SimpleNamespace(isatty=Mock(side_effect=error))


@pytest.mark.parametrize("stream", [None, closed(), broken(AttributeError), broken(OSError)])
def test_a_standard_input_that_is_missing_closed_or_no_real_file_is_no_terminal(monkeypatch, stream):
    monkeypatch.setattr(sys, "stdin", stream)
    assert places.can_ask() is False


# ---- the browser ---------------------------------------------------------------------------------


class Browser(webbrowser.GenericBrowser):
    """One that takes note, in the place of a command that shows a page."""

    def __init__(self, name, opens=True):
        super().__init__(name)
        self.opens, self.opened = opens, []

    def open(self, url, new=0, autoraise=True):
        self.opened.append(url)
        if isinstance(self.opens, Exception):
            raise self.opens
        return self.opens


@pytest.fixture
def found():
    """Makes a browser that webbrowser has found here; the first one is the one that it prefers."""

    def make(name, opens=True):
        made = Browser(name, opens)
        webbrowser.register(name, None, made)
        return made

    return make


@pytest.mark.parametrize("name", ["firefox", "/usr/bin/chromium"])
def test_a_browser_with_windows(found, name):
    preferred, other = found(name), found("another")
    assert browser.can_open() is True
    assert browser.open_browser(URL) is True
    assert (preferred.opened, other.opened) == ([URL], [])


@pytest.mark.parametrize("name", ["w3m", "lynx", "links", "elinks", "www-browser", "/usr/bin/w3m"])
def test_a_browser_in_the_terminal_is_none(found, name):
    text = found(name)
    assert browser.can_open() is False
    assert browser.open_browser(URL) is False
    assert text.opened == []


@pytest.mark.parametrize("opens", [False, OSError(), webbrowser.Error()])
def test_a_browser_that_fails_does_not_hand_the_terminal_to_another(found, opens):
    failing, text = found("xdg-open", opens), found("w3m")
    assert browser.open_browser(URL) is False
    assert (failing.opened, text.opened) == ([URL], [])


@pytest.fixture
def notes(tmp_path):
    """What the commands of ``named`` were called with."""
    return tmp_path / "notes"


@pytest.fixture
def named(tmp_path, monkeypatch, notes):
    """A command on the PATH that notes its arguments and ends with the given exit code."""
    monkeypatch.setenv("PATH", str(tmp_path))

    def make(name, code=0):
        path = tmp_path / name
        path.write_text(f'#!/bin/sh\necho {name} "$@" >> "{notes}"\nexit {code}\n')
        path.chmod(0o755)
        return name

    return make


def test_a_browser_in_the_terminal_is_none_although_it_is_named(place, named, notes):
    place.env(BROWSER=f"{named('w3m')}:{named('lynx')} %s")
    assert browser.can_open() is False
    assert browser.open_browser(URL) is False
    assert not notes.exists()
    place.env(BROWSER=f"w3m:{named('a-browser')}")
    assert browser.open_browser(URL) is True
    assert notes.read_text() == f"a-browser {URL}\n"


def test_a_browser_that_is_named_after_webbrowser_was_first_used(place, found, named, notes):
    """As a notebook does with ``os.environ``; webbrowser looks at the variable only once."""
    other = found("firefox")
    place.env(BROWSER=named("a-browser") + " --new-window %s")
    assert browser.open_browser(URL) is True
    assert notes.read_text() == f"a-browser --new-window {URL}\n"
    assert other.opened == []


def test_a_named_browser_that_fails_is_followed_by_the_next_that_is_named(place, found, named, notes):
    text = found("w3m")
    place.env(BROWSER=f"{named('first', 1)}:{named('second', 2)}")
    assert browser.open_browser(URL) is False
    assert notes.read_text() == f"first {URL}\nsecond {URL}\n"
    assert text.opened == []


@pytest.mark.parametrize("variable", ["'w3m %s", "not-there"])
def test_without_a_browser_none_is_opened(place, monkeypatch, variable):
    place.env(BROWSER=variable)
    monkeypatch.setattr(webbrowser, "_tryorder", None)  # so that webbrowser looks around
    monkeypatch.setenv("PATH", "")
    assert browser.open_browser(URL) is False


@pytest.mark.parametrize(("returned", "opens"), [(True, True), (None, True), (False, False)])
def test_a_function_in_the_place_of_webbrowsers_is_tried_whatever_was_found(monkeypatch, found, returned, opens):
    text = found("w3m")
    opened = Mock(return_value=returned)
    monkeypatch.setattr(webbrowser, "open", opened)
    assert browser.open_browser(URL) is opens
    opened.assert_called_once_with(URL)
    assert text.opened == []


def test_a_browser_that_lasts_as_long_as_its_window(monkeypatch):
    closed = threading.Event()
    monkeypatch.setattr(webbrowser, "open", lambda url: closed.wait(10))
    failed = []
    opening = browser.open_aside(URL, failed.append)
    assert opening.is_alive()
    closed.set()
    opening.join(10)
    assert failed == []


@pytest.mark.parametrize(
    ("opened", "told"),
    [
        (Mock(return_value=False), None),
        (Mock(side_effect=ZeroDivisionError), None),
        (Mock(side_effect=SystemExit), SystemExit),
    ],
)
def test_a_browser_that_fails_aside(monkeypatch, opened, told):
    monkeypatch.setattr(webbrowser, "open", opened)
    failed = []
    browser.open_aside(URL, failed.append).join(10)
    assert [one and type(one) for one in failed] == [told]


@pytest.mark.parametrize(
    ("look", "words"),
    [
        (lambda p: p.env(WSL_DISTRO_NAME="Debian"), "from WSL. BROWSER may name"),
        (lambda p: p.file("/.dockerenv"), "here, so this login needs an access code, copied by hand."),
    ],
)
def test_why_there_is_no_browser(place, look, words):
    look(place)
    assert words in places.why_no_browser()


# ---- talking -------------------------------------------------------------------------------------


class Displays:
    """IPython's display: what stands in the notebook, one text for each display."""

    def __init__(self):
        self.shown = []

    def display(self, content, raw, display_id):
        assert raw
        assert display_id
        self.shown.append(content)
        number = len(self.shown) - 1
        return SimpleNamespace(update=lambda content, raw: self.shown.__setitem__(number, content))


@pytest.fixture
def displays(place, monkeypatch):
    place.kernel()
    displays = Displays()
    monkeypatch.setitem(sys.modules, "IPython.display", displays)
    return displays


def test_a_link_in_a_notebook_is_short_escaped_and_readable_without_html(displays, capsys):
    evil = f'{URL}"><script>alert(1)</script>'
    talk.Screen().show_link("Log in & <b>", evil, "It <i>ends</i>.")
    (content,) = displays.shown
    assert content["text/plain"] == f"Log in & <b>\n\n    {evil}\n\nIt <i>ends</i>."
    for tag in ("<script", "<b>&", "<i>"):
        assert tag not in content["text/html"]
    assert 'href="https://auth.carto.com/authorize?a=1&amp;b=2&quot;&gt;&lt;script&gt;' in content["text/html"]
    assert 'target="_blank" rel="noopener noreferrer">Log in to CARTO</a>' in content["text/html"]
    assert capsys.readouterr().out == ""


def test_what_ends_a_login_replaces_its_links_in_a_notebook(displays, capsys):
    screen = talk.Screen()
    screen.show_link("One", URL, "")
    screen.show_link("Two", URL, "")
    screen.end("Logged in as <ana>")
    assert URL not in repr(displays.shown)
    assert [content["text/plain"] for content in displays.shown] == ["Logged in as <ana>", ""]
    assert "&lt;ana&gt;" in displays.shown[0]["text/html"]
    assert capsys.readouterr().out == ""


def test_a_link_elsewhere_is_plain_and_what_ends_a_login_follows_it(capsys):
    screen = talk.Screen()
    screen.show_link("Log in:", URL, "Waiting")
    screen.end("Logged in")
    assert capsys.readouterr().out == f"Log in:\n\n    {URL}\n\nWaiting\nLogged in\n"


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_words_reach_a_person_on_a_stream_of_any_encoding(monkeypatch, encoding):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
    monkeypatch.setattr("builtins.input", lambda prompt: sys.stdout.write(prompt) and "a-code")
    talk.tell("Organización Łódź")
    assert talk.ask("Łódź\nCode Ł: ", 5) == "a-code"
    sys.stdout.flush()
    for word in ("Organizaci", "Code "):
        assert word in raw.getvalue().decode(encoding)


def test_of_a_long_prompt_only_the_last_line_is_asked(monkeypatch, capsys):
    """The REPL of Python 3.13 draws a prompt again at every key."""
    asked = []
    monkeypatch.setattr("builtins.input", lambda prompt: asked.append(prompt) or "a-code")
    CartoPKCE(open_browser=False).get_auth_response()
    assert asked == ["Access code: "]
    assert capsys.readouterr().out.count("/authorize?") == 1


@pytest.mark.parametrize(
    ("stdout", "stderr", "read"),
    [(True, True, "stdout"), (True, False, "stdout"), (False, True, "stderr"), (False, False, "stdout")],
)
def test_words_and_prompts_go_where_a_person_reads_them(monkeypatch, stdout, stderr, read):
    streams = {"stdout": Stream(stdout), "stderr": Stream(stderr)}
    for name, stream in streams.items():
        monkeypatch.setattr(sys, name, stream)
    monkeypatch.setattr(sys, "stdin", Stream(True, "an answer\n"))
    talk.tell("Hello.")
    assert talk.ask("Code: ", 5) == "an answer"
    assert streams.pop(read).getvalue() == "Hello.\nCode: "
    assert streams.popitem()[1].getvalue() == ""
    assert sys.stdout.isatty() is stdout


@pytest.mark.parametrize("stream", [None, closed()])
def test_without_an_output_nothing_is_said(monkeypatch, stream):
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", stream)
    talk.tell("Hello.")


def test_a_program_that_brings_its_own_input_is_asked(monkeypatch):
    monkeypatch.setattr("builtins.input", lambda prompt: f"{prompt}a-code")
    assert places.can_ask() is True
    assert talk.ask("Code: ", 0) == "Code: a-code"
