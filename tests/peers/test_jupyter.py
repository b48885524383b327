"""A real Jupyter kernel: it shows the link, asks for the code, and asks nobody when nobody is there."""

import queue
import re
import threading
import time

import nbformat
import pytest
from jupyter_client import BlockingKernelClient
from jupyter_client.manager import KernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from carto_auth.sandbox.walker import walk_login

# What the Jupyter packages themselves leave open or call by old names is not ours to repair.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

#: Seconds for a kernel to start and to answer; the machine may be busy.
PATIENCE = 60

#: Seconds that "at once" may take.
AT_ONCE = 5.0


class Notebook:
    """A front end: runs a cell, answers its prompts, and keeps what it showed."""

    def __init__(self, manager: KernelManager, client: BlockingKernelClient) -> None:
        self.manager, self.client = manager, client
        self.html, self.plain, self.error, self.prompts = "", "", "", []
        self.traceback = []
        #: What a saved notebook has: the outputs as they are in the end, by their display's id.
        self.saved = {}
        self._answered = 0

    def run(self, code, answer=None):
        """Execute ``code``; ``answer(self)`` gives the text for a prompt, and without it there is no input."""
        wanted = self.client.execute(code, allow_stdin=answer is not None)
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            try:
                message = self.client.get_iopub_msg(timeout=0.05)
            except queue.Empty:
                self._answer(answer)
                continue
            if message["parent_header"].get("msg_id") != wanted:
                continue
            content = message["content"]
            if message["msg_type"] in ("display_data", "update_display_data", "execute_result"):
                self.html += content["data"].get("text/html", "")
                self.plain += content["data"].get("text/plain", "")
                self.saved[content.get("transient", {}).get("display_id", len(self.saved))] = content["data"]
            elif message["msg_type"] == "stream":
                self.plain += content["text"]
                self.saved[len(self.saved)] = content["text"]
            elif message["msg_type"] == "error":
                self.error = f"{content['ename']}: {content['evalue']}"
                self.traceback = content["traceback"]
            elif message["msg_type"] == "status" and content["execution_state"] == "idle":
                return self
        raise AssertionError(f"the cell does not end: {self.plain} {self.prompts}")

    def _answer(self, answer):
        if answer is None:
            return
        try:
            message = self.client.get_stdin_msg(timeout=0.05)
        except queue.Empty:
            pass
        else:
            assert message["content"]["password"], "what is typed would be saved"
            self.prompts.append(message["content"]["prompt"])
        # The link comes by another channel, and may come after the prompt.
        if len(self.prompts) > self._answered and "/authorize?" in self.plain:
            self._answered += 1
            self.client.input(answer(self))


@pytest.fixture
def notebook(carto, tmp_path):
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel(cwd=str(tmp_path))
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=PATIENCE)
        yield Notebook(manager, client)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


@pytest.mark.parametrize(
    ("place", "arguments"),
    [
        ("", "open_browser=False"),
        ("import sys; sys.modules['google.colab'] = sys\n", ""),
        ("import os; os.environ['DATABRICKS_RUNTIME_VERSION'] = '15.4'\n", ""),
        ("import os; os.environ['JUPYTERHUB_API_URL'] = 'http://hub/api'\n", ""),
        ("import os; os.environ['KAGGLE_KERNEL_RUN_TYPE'] = 'Interactive'\n", ""),
        ("import os; os.environ['SAGEMAKER_INTERNAL_IMAGE_URI'] = 'image'\n", ""),
        ("import os; os.environ['SSH_CONNECTION'] = '1 2 3 4'\n", ""),
    ],
    ids=["open_browser=False", "Colab", "Databricks", "JupyterHub", "Kaggle", "SageMaker", "SSH"],
)
def test_a_notebook_shows_a_link_and_asks_for_the_code(notebook, carto, log_in, link_in, place, arguments):
    notebook.run(place + log_in(arguments), answer=lambda shown: walk_login(link_in(shown.plain)))
    assert notebook.error == ""
    assert f"API: {carto.url}" in notebook.plain
    assert notebook.plain.count("/authorize?") == 1
    escaped = link_in(notebook.plain).replace("&", "&amp;")
    assert f'<a href="{escaped}" target="_blank" rel="noopener noreferrer">Log in to CARTO</a>' in notebook.html
    assert f"Copy the code from the {carto.url} page to here. Never give it to anyone else." in notebook.html
    assert notebook.prompts == ["Access code: "]
    assert_nothing_is_left_lying_about(notebook)


def assert_nothing_is_left_lying_about(notebook):
    """A notebook is saved and shared."""
    saved = repr(notebook.saved)
    assert "authorize" not in saved
    assert "code" not in saved
    assert re.search(r"<p>Logged in as ana@example\.com, until \d\d:\d\d( on \d{4}-\d\d-\d\d)?</p>", saved)


def test_an_object_says_whose_it_is_and_an_error_begins_with_its_message(notebook, log_in, link_in):
    code = log_in("org='acme', open_browser=False")
    notebook.run(code, answer=lambda shown: walk_login(link_in(shown.plain)))
    notebook.html = ""
    notebook.run("auth")
    assert notebook.html.startswith("<p>Logged in as ana@example.com (organization acme), until ")
    notebook.run("def login():\n    CartoAuth.from_oauth(use_cache=False, interactive=False)\nlogin()")
    first, *program = notebook.traceback
    assert first.startswith("LoginRequired: A CARTO login needs a person")
    assert ["in <module>" in program[0], "in login" in program[1], len(program)] == [True, True, 2]


def test_a_forked_worker_of_a_notebook_asks_nobody(notebook, log_in):
    program = (
        "import multiprocessing\nfrom carto_auth import CartoAuth, LoginRequired\n"
        "def work(queue):\n"
        "    try:\n        CartoAuth.from_oauth()\n"
        "    except LoginRequired as error:\n        queue.put(str(error))\n"
        "fork = multiprocessing.get_context('fork')\nqueue = fork.Queue()\n"
        "child = fork.Process(target=work, args=(queue,))\nchild.start()\nprint(queue.get(timeout=30))\nchild.join()"
    )
    notebook.run(program, answer=lambda shown: "nobody")
    assert "this is a worker process" in notebook.plain
    assert notebook.prompts == []


def test_a_login_that_fails_leaves_no_link_either(notebook, log_in):
    notebook.run(log_in("open_browser=False"), answer=lambda shown: "")
    assert "given up after 3 tries" in notebook.error
    assert "authorize" not in repr(notebook.saved)


def test_a_local_notebook_opens_the_browser(notebook, carto, log_in, callback_port, monkeypatch):
    opened = (
        "import webbrowser, carto_auth.sandbox.walker as walker\n"
        "webbrowser.open = lambda url: walker.walk_login(url) is None\n"
    )
    notebook.run(opened + log_in("timeout=30"))
    assert notebook.error == ""
    assert f"API: {carto.url}" in notebook.plain
    assert "Log in to CARTO in your browser" in notebook.html
    assert "Waiting for the login in your browser (up to 30 seconds; interrupting the kernel stops it)" in notebook.html
    assert_nothing_is_left_lying_about(notebook)


def test_a_local_notebook_without_a_browser_asks_for_the_code(notebook, carto, log_in, link_in, callback_port):
    notebook.run(log_in("timeout=30"), answer=lambda shown: walk_login(link_in(shown.plain)))
    assert notebook.error == ""
    assert f"API: {carto.url}" in notebook.plain
    assert "by hand" in notebook.html
    assert notebook.plain.count("/authorize?") == 1


def test_interrupting_the_kernel_ends_the_wait_at_once(notebook, log_in, callback_port):
    notebook.run("import webbrowser; webbrowser.open = lambda url: True")
    began = []

    def interrupt():
        while "/authorize?" not in notebook.plain:
            if stop.wait(0.05):
                return
        began.append(time.monotonic())
        notebook.manager.interrupt_kernel()

    stop = threading.Event()
    thread = threading.Thread(target=interrupt)
    thread.start()
    notebook.run(log_in("timeout=50"))
    ended = time.monotonic()
    stop.set()
    thread.join()
    assert notebook.error.startswith("KeyboardInterrupt")
    assert ended - began[0] < AT_ONCE


@pytest.mark.parametrize("arguments", ["", "open_browser=False"])
def test_without_a_front_end_it_says_so_at_once(notebook, log_in, callback_port, arguments):
    began = time.monotonic()
    notebook.run(log_in(arguments))
    assert time.monotonic() - began < AT_ONCE
    assert notebook.error.startswith("LoginRequired: ")
    assert "from_m2m" in notebook.error
    assert "this notebook is run without a front end that takes input" in notebook.error
    assert notebook.html == ""


def test_a_notebook_that_is_run_by_a_program(carto, log_in, callback_port):
    cell = nbformat.v4.new_code_cell(log_in(""))
    with pytest.raises(CellExecutionError, match=r"(?s)LoginRequired.*from_m2m") as failed:
        NotebookClient(nbformat.v4.new_notebook(cells=[cell]), timeout=PATIENCE, kernel_name="python3").execute()
    assert "During handling" not in str(failed.value)
