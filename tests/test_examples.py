"""The examples run, against a sandbox, exactly as they are in the repository."""

from __future__ import annotations

import os
import re
import runpy
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import requests
from werkzeug.serving import make_server

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


@pytest.fixture
def flask_app(carto_sandbox, monkeypatch):
    """The Flask app, served, and registered with the sandbox: its address."""
    server = make_server("localhost", 0, None, threaded=True)
    url = f"http://localhost:{server.server_port}"
    monkeypatch.setenv("CALLBACK", f"{url}/login/done")
    monkeypatch.setenv("CARTO_AUTH_CLIENT_ID", carto_sandbox.add_web_application(f"{url}/login/done"))
    server.app = runpy.run_path(str(EXAMPLES / "flask_app.py"))["app"]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield url
    server.shutdown()
    thread.join()
    server.server_close()


def test_visitors_of_the_flask_app_come_back_by_themselves(flask_app, carto_sandbox):
    with requests.Session() as visitor, requests.Session() as another:
        assert "Log in" in visitor.get(flask_app).text
        page = visitor.get(f"{flask_app}/login")
        for fields in ({"email": "a@example.com", "password": "x", "action": "continue"}, {"action": "allow"}):
            assert page.url.startswith(carto_sandbox.url)
            csrf = re.search('name="csrf_token" value="(.+?)"', page.text)[1]
            page = visitor.post(page.url, data={**fields, "csrf_token": csrf}, allow_redirects="email" in fields)
        back = page.headers["Location"]
        assert back.startswith(f"{flask_app}/login/done?code=")
        # A link that somebody sends logs nobody in.
        assert another.get(back).status_code == 400
        assert "Log in" in another.get(flask_app).text
        assert visitor.get(back).text == f"You are logged in. The API is at {carto_sandbox.url}"
        assert visitor.get(back).status_code == 400


def test_a_project_outside_this_one_tests_its_job_with_the_fixture(tmp_path):
    project = tmp_path / "project"
    shutil.copytree(EXAMPLES / "tested_project", project, ignore=shutil.ignore_patterns("__pycache__"))
    (project / "pytest.ini").write_text("[pytest]\n")
    done = run(project, "-m", "pytest", "-q", "-p", "no:cacheprovider")
    assert "4 passed" in done.stdout, done.stdout + done.stderr
