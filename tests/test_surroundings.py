"""Where are we, and what follows from it? docs/logins.md has the same table in words."""

import io
import multiprocessing
import os
import sys
import threading
import webbrowser
from types import SimpleNamespace
from unittest.mock import Mock

import pytest

from carto_auth import _surroundings
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

    def terminal(self):
        self._monkeypatch.setattr(sys, "stdin", Stream(True))

    def desktop(self):
        self.env(DISPLAY=":0")

    def kernel(self, takes_input=True):
        shell = SimpleNamespace(kernel=SimpleNamespace(_allow_stdin=takes_input))
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
    "Databricks without IPython": (lambda p: p.env(DATABRICKS_RUNTIME_VERSION="9.1"), True, True),
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
    assert _surroundings.browser_is_elsewhere() is elsewhere
    assert _surroundings.can_ask() is askable
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
    assert _surroundings.browser_is_elsewhere() is False
    assert _surroundings.in_wsl() is False


@pytest.mark.parametrize(
    ("browser", "named"),
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
def test_the_browser_variable_names_a_command(place, command, browser, named):
    place.env(BROWSER=browser.format(command))
    assert _surroundings.has_named_browser() is named


# ---- nobody --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("look", "nobody"),
    [
        (lambda p: p.env(CI="true"), True),
        (lambda p: p.env(CI="1"), True),
        (lambda p: p.env(CI="false"), False),
        (lambda p: p.env(CI="0"), False),
        (lambda p: p.env(CI=""), False),
        (lambda p: [p.env(CI="true"), p.terminal()], False),
        (lambda p: [p.env(CI="true"), p.kernel()], False),
        (lambda p: [p.env(CI="true"), p.env(BROWSER=sys.executable)], False),
        (lambda p: [p.kernel(takes_input=False), p.desktop()], True),
        (lambda p: [p.kernel(takes_input=False), p.env(BROWSER=sys.executable)], False),
        (lambda p: [p.terminal(), p.module("pyspark.worker")], True),
        (lambda p: [p.terminal(), p.module("pyspark.daemon")], True),
        (lambda p: [p.terminal(), p.module("distributed", get_worker=lambda: "a worker")], True),
        (lambda p: [p.terminal(), p.module("distributed", get_worker=no_worker)], False),
        (lambda p: [p.terminal(), p.module("distributed")], False),  # half imported
    ],
)
def test_nobody_is_here(place, look, nobody):
    look(place)
    assert _surroundings.nobody_is_here() is nobody


def no_worker():
    raise ValueError("no worker found")


def test_a_worker_asks_nobody(place):
    place.terminal()
    place.module("distributed", get_worker=lambda: "a worker")
    assert _surroundings.can_ask() is False


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_child_of_multiprocessing_is_a_worker():
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(_surroundings.is_worker) is True
    assert _surroundings.is_worker() is False


def test_a_quote_without_its_companion_is_no_browser(place, monkeypatch):
    place.env(BROWSER="'w3m %s")
    monkeypatch.setattr(webbrowser, "_tryorder", None)  # so that webbrowser looks around
    assert _surroundings.open_browser(URL) is False


def test_a_program_that_brings_an_input_of_its_own_can_be_asked(monkeypatch):
    monkeypatch.setattr("builtins.input", lambda prompt: f"{prompt}a-code")
    assert _surroundings.can_ask() is True
    assert _surroundings.ask("Code: ", 0) == "Code: a-code"


@pytest.mark.parametrize("error", [AttributeError, OSError, ValueError])
def test_a_standard_input_that_is_no_real_file_is_no_terminal(monkeypatch, error):
    """As some web servers have it."""
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=Mock(side_effect=error)))
    assert _surroundings.can_ask() is False


def test_a_closed_standard_output_is_not_told(monkeypatch):
    stream = Stream(False)
    stream.close()
    stream.isatty = lambda: False
    monkeypatch.setattr(sys, "stdout", stream)
    _surroundings.tell("something")


@pytest.mark.parametrize("stream", [None, "closed"])
def test_no_standard_input_is_no_terminal(monkeypatch, stream):
    if stream == "closed":
        stream = Stream(True)
        stream.isatty = lambda: io.StringIO.isatty(stream)
        stream.close()
    monkeypatch.setattr(sys, "stdin", stream)
    assert _surroundings.can_ask() is False


# ---- the browser ---------------------------------------------------------------------------------


class Browser(webbrowser.GenericBrowser):
    """One that takes note, in the place of a command that shows a page."""

    def __init__(self, name, opens=True):
        super().__init__(name)
        self.opens, self.opened = opens, []

    def open(self, url, new=0, autoraise=True):
        self.opened.append(url)
        return self.opens


def found(name, opens=True):
    """A browser that webbrowser has found here."""
    browser = Browser(name, opens)
    webbrowser.register(name, None, browser)
    return browser


@pytest.mark.parametrize("name", ["firefox", "/usr/bin/chromium"])
def test_a_browser_with_windows(name):
    browser = found(name)
    assert _surroundings.has_window_browser() is True
    assert _surroundings.open_browser(URL) is True
    assert browser.opened == [URL]


@pytest.mark.parametrize("name", ["w3m", "lynx", "links", "elinks", "www-browser", "/usr/bin/w3m"])
def test_a_browser_in_the_terminal_is_none(name):
    browser = found(name)
    assert _surroundings.has_window_browser() is False
    assert _surroundings.open_browser(URL) is False
    assert browser.opened == []


def test_a_browser_that_fails_is_followed_by_the_next_with_a_window():
    broken, terminal, other = found("xdg-open", opens=False), found("w3m"), found("firefox")
    assert _surroundings.open_browser(URL) is True
    assert (broken.opened, terminal.opened, other.opened) == ([URL], [], [URL])


def test_a_browser_that_a_program_registered_has_a_window():
    class Opener:
        def open(self, url, new=0, autoraise=True):
            return True

    webbrowser.register("the program's", None, Opener())
    assert _surroundings.has_window_browser() is True
    assert _surroundings.open_browser(URL) is True


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


def test_a_browser_in_the_terminal_is_one_if_it_is_named(place, named, notes):
    place.env(BROWSER=named("w3m"))
    assert _surroundings.named_browser_takes_over_the_terminal() is True
    assert _surroundings.has_window_browser() is False
    assert _surroundings.open_browser(URL) is True
    assert notes.read_text() == f"w3m {URL}\n"
    place.env(BROWSER=named("a-browser"))
    assert _surroundings.named_browser_takes_over_the_terminal() is False
    assert _surroundings.has_window_browser() is True


def test_a_browser_that_is_named_after_webbrowser_was_first_used(place, named, notes):
    """As a notebook does with ``os.environ``; webbrowser looks at the variable only once."""
    other = found("firefox")
    place.env(BROWSER=named("a-browser") + " --new-window %s")
    assert _surroundings.open_browser(URL) is True
    assert notes.read_text() == f"a-browser --new-window {URL}\n"
    assert other.opened == []


def test_a_named_browser_that_fails_is_tried_once_and_followed_by_the_next(place, named, notes):
    other = found("firefox")
    place.env(BROWSER=f"{named('first', 1)}:{named('second', 2)}")
    webbrowser.register("first", None, webbrowser.GenericBrowser("first"), preferred=True)  # webbrowser does that
    assert _surroundings.open_browser(URL) is True
    assert notes.read_text() == f"first {URL}\nsecond {URL}\n"
    assert other.opened == [URL]


def test_a_browser_that_raises_is_followed_by_the_next():
    broken, other = found("xdg-open"), found("firefox")
    broken.open = Mock(side_effect=OSError)
    assert _surroundings.open_browser(URL) is True
    assert other.opened == [URL]


def test_a_way_of_webbrowsers_own_in_the_place_of_its_open(monkeypatch):
    other, program = found("firefox"), Browser("the program's")
    program.open = Mock(return_value=True)
    monkeypatch.setattr(webbrowser, "open", webbrowser.GenericBrowser.open.__get__(program))
    monkeypatch.setattr("subprocess.Popen", Mock(return_value=Mock(wait=lambda: 0)))
    assert _surroundings.open_browser(URL) is True
    assert other.opened == []


def test_no_browser():
    assert _surroundings.has_window_browser() is False
    assert _surroundings.open_browser(URL) is False


@pytest.mark.parametrize("look", [lambda: found("w3m"), lambda: None])
def test_a_function_in_the_place_of_webbrowsers_is_tried_all_the_same(monkeypatch, look):
    look()
    opened = Mock(return_value=True)
    monkeypatch.setattr(webbrowser, "open", opened)
    assert _surroundings.open_browser(URL) is True
    opened.assert_called_once_with(URL)


def test_a_browser_that_lasts_as_long_as_its_window(monkeypatch):
    closed = threading.Event()
    monkeypatch.setattr(webbrowser, "open", lambda url: closed.wait(10))
    failed = []
    opening = _surroundings.open_browser_aside(URL, failed.append)
    assert opening.is_alive()
    closed.set()
    opening.join(10)
    assert failed == []


@pytest.mark.parametrize(
    ("error", "told"),
    [(None, None), (ZeroDivisionError(), None), (webbrowser.Error(), None), (SystemExit(), SystemExit)],
)
def test_a_browser_that_fails_aside(monkeypatch, error, told):
    def fail(url):
        if error:
            raise error
        return False

    monkeypatch.setattr(webbrowser, "open", fail)
    failed = []
    _surroundings.open_browser_aside(URL, failed.append).join(10)
    assert [one and type(one) for one in failed] == [told]


@pytest.mark.parametrize(
    ("look", "words"),
    [
        (lambda p: p.env(WSL_DISTRO_NAME="Debian"), "from WSL; BROWSER may name"),
        (lambda p: p.file("/.dockerenv"), "in this container"),
        (lambda p: p.file("/run/.containerenv"), "in this container"),
        (lambda p: None, "here, so take the login's code here by hand"),
    ],
)
def test_why_there_is_no_browser(place, look, words):
    look(place)
    told = _surroundings.why_no_browser()
    assert words in told
    assert told.count(".") == 1


# ---- talking -------------------------------------------------------------------------------------

EVIL = 'https://x.example/?a=1&b="><script>alert(1)</script>'


def test_a_link_in_a_notebook_is_clickable_and_escaped():
    html = _surroundings.link_html("Log in & <b>", EVIL)
    assert "<script" not in html
    assert "<b>" not in html
    assert 'href="https://x.example/?a=1&amp;b=&quot;&gt;&lt;script&gt;' in html
    assert 'target="_blank" rel="noopener noreferrer"' in html


def test_a_link_in_a_notebook_is_readable_without_html(place, monkeypatch, capsys):
    place.kernel()
    shown = []
    display = SimpleNamespace(display=lambda content, raw: shown.append((content, raw)))
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    _surroundings.show_link("Log in:", URL)
    ((content, raw),) = shown
    assert raw is True
    assert URL in content["text/plain"]
    assert "a=1&amp;b=2" in content["text/html"]
    assert capsys.readouterr().out == ""


def test_a_link_elsewhere_is_plain(capsys):
    _surroundings.show_link("Log in:", URL)
    assert capsys.readouterr().out == f"Log in:\n\n    {URL}\n\n"


@pytest.mark.parametrize(
    ("stdout", "stderr", "read"),
    [(True, True, "stdout"), (True, False, "stdout"), (False, True, "stderr"), (False, False, "stdout")],
)
def test_words_and_prompts_go_where_a_person_reads_them(monkeypatch, stdout, stderr, read):
    streams = {"stdout": Stream(stdout), "stderr": Stream(stderr)}
    for name, stream in streams.items():
        monkeypatch.setattr(sys, name, stream)
    monkeypatch.setattr(sys, "stdin", Stream(True, "an answer\n"))
    _surroundings.tell("Hello.")
    assert _surroundings.ask("Code: ", 5) == "an answer"
    assert streams.pop(read).getvalue() == "Hello.\nCode: "
    assert streams.popitem()[1].getvalue() == ""
    assert sys.stdout.isatty() is stdout


def test_without_any_stream_nothing_is_said(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    _surroundings.tell("Hello.")
