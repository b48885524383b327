"""The pytest fixture ``carto_sandbox``: a sandbox for one test, with environment and home set for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from carto_auth.sandbox import CartoSandbox


#: Variables of the developer's own that would lead back to the real home.
_OF_THE_HOME = ("CARTO_AUTH_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME")


@pytest.fixture
def carto_sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CartoSandbox]:
    """A running sandbox. The environment leads to it, and the home folder is the test's temporary one."""
    # Here and not above: pytest imports this module at every start wherever the package is installed.
    from carto_auth.sandbox import CartoSandbox
    from carto_auth.sandbox._turns import CallbackInTurn

    with CartoSandbox() as sandbox:
        # Tests may run at the same time (pytest-xdist), and all logins come back to the same port.
        monkeypatch.setattr("carto_auth._login.person.CallbackServer", CallbackInTurn)
        for name, value in (sandbox.environment() | dict.fromkeys(_OF_THE_HOME, "")).items():
            if value:
                monkeypatch.setenv(name, value)
            else:
                monkeypatch.delenv(name, raising=False)
        for name in ("HOME", "USERPROFILE"):
            monkeypatch.setenv(name, str(tmp_path))
        yield sandbox
