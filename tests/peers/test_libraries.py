"""The programs of the page on other libraries, each of which needs its library."""

import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "libraries.md").read_text()
PROGRAMS = re.findall(r"(?ms)^```python\n(.*?)^```", PAGE)


@pytest.mark.filterwarnings("ignore")  # the libraries' own
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.splitlines()[0])
def test_a_program_with_another_library(program, carto, tmp_path, monkeypatch):
    carto.credentials_file(tmp_path)
    monkeypatch.chdir(tmp_path)
    before = carto.count("/oauth/token")
    exec(compile(program, "libraries.md", "exec"), {"__name__": "__main__"})
    assert carto.count("/oauth/token") - before == 1
