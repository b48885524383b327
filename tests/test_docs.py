"""The documents hold: their links lead somewhere, and the README's programs run."""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from carto_auth.sandbox import CartoSandbox
from carto_auth.sandbox.state import Switches

ROOT = Path(__file__).parents[1]
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]
README = (ROOT / "README.md").read_text()
WALKER = f"{shlex.quote(sys.executable)} -m carto_auth.sandbox.walker %s"


def programs(text):
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


@pytest.mark.parametrize("number", range(len(programs(README))))
def test_readme_programs_run(number, tmp_path, callback_port):
    program = programs(README)[number]
    assert len(program.strip().splitlines()) <= 8
    with CartoSandbox() as sandbox:
        sandbox.credentials_file(tmp_path)
        done = subprocess.run(
            # Google's packages warn of Python 3.10.
            [sys.executable, "-W", "error", "-W", "ignore::FutureWarning", "-c", program],
            env={**os.environ, **sandbox.environment(), "BROWSER": WALKER},
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.returncode == 0, done.stderr
    assert len(sandbox.requests) > 0


LIBRARIES = programs((ROOT / "docs" / "libraries.md").read_text())


@pytest.mark.parametrize("program", LIBRARIES, ids=lambda program: program.splitlines()[0])
def test_programs_with_other_libraries_run(program, tmp_path):
    for library in re.findall(r"(?m)^import (\w+)", program):
        pytest.importorskip(library)
    with CartoSandbox() as sandbox:
        sandbox.credentials_file(tmp_path)
        environment = {**os.environ, **sandbox.environment()}
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stderr
    assert sandbox.count("/oauth/token") == 1


def test_readme_is_short_and_installs_ours():
    assert len(README.splitlines()) <= 100
    assert "pip install carto-auth" not in README
    assert "carto_auth.__version__" in README


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere_and_python_is_python(document):
    text = document.read_text()
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    assert [link for link in links if link and not (document.parent / link).exists()] == []
    for program in programs(text):
        compile(program, str(document), "exec")


def test_the_documented_switches_are_the_sandboxs():
    text = (ROOT / "docs" / "sandbox.md").read_text()
    assert set(re.findall(r"carto_sandbox\.(\w+) =", text)) == {switch.name for switch in dataclasses.fields(Switches)}


def test_whole_programs_of_the_documents_run(tmp_path):
    program = next(one for one in programs((ROOT / "docs" / "sandbox.md").read_text()) if "CartoSandbox()" in one)
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("True\n", "")
