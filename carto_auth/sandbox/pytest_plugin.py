"""The pytest fixture ``carto_sandbox``: a sandbox for one test, with environment and home set for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from carto_auth.sandbox import CartoSandbox


#: Variables of the developer's own that would win over the sandbox, or lead back to the real home.
_OTHERS = (
    "CARTO_ACCESS_TOKEN",
    "CARTO_API_TOKEN",
    "CARTO_AUTH_CACHE",
    "CARTO_AUTH_HOME",
    "CARTO_CREDENTIALS_FILE",
    "CARTO_M2M_CLIENT_ID",
    "CARTO_M2M_CLIENT_SECRET",
    "CARTO_PROFILE",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
)


@pytest.fixture
def carto_sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CartoSandbox]:
    """A running sandbox. The environment leads to it, and the home folder is the test's temporary one."""
    # Here and not above: pytest imports this module at every start wherever the package is installed.
    from carto_auth.sandbox import CartoSandbox

    with CartoSandbox() as sandbox:
        for name in _OTHERS:
            monkeypatch.delenv(name, raising=False)
        for name, value in sandbox.environment().items():
            monkeypatch.setenv(name, value)
        for name in ("HOME", "USERPROFILE"):
            monkeypatch.setenv(name, str(tmp_path))
        yield sandbox
