"""Windows and macOS, as far as they can be had here: the name of the system, and without what it does not have."""

from __future__ import annotations

import errno
import importlib
import os
import select
import shlex
import socket
import sys
from unittest.mock import Mock

import filelock
import pytest

from carto_auth import CartoAuth, cli

#: What Windows does not have.
MISSING = ("geteuid", "fchmod", "tcgetpgrp", "getpgrp", "register_at_fork", "O_NOFOLLOW")


class SimpleLock:
    """In place of filelock's, whose lock for Windows cannot run here, nor Linux's without its calls."""

    def __init__(self, path, timeout, mode):
        self.path, self.mode = path, mode

    def acquire(self):
        os.close(os.open(self.path, os.O_CREAT | os.O_EXCL, self.mode))

    def release(self):
        os.unlink(self.path)


@pytest.fixture
def windows(monkeypatch, carto_sandbox, tmp_path):
    """What is loaded later, such as a module of the standard library, must be loaded by now: it is Linux's."""
    CartoAuth.from_m2m(use_cache=False)
    importlib.import_module("carto_auth._login.callback")
    monkeypatch.setattr(sys, "platform", "win32")
    for name in MISSING:
        monkeypatch.delattr(os, name)
    monkeypatch.delattr(select, "select")
    monkeypatch.setattr(filelock, "FileLock", SimpleLock)
    monkeypatch.setattr(socket, "SO_EXCLUSIVEADDRUSE", socket.SO_REUSEADDR, raising=False)
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    return carto_sandbox


@pytest.fixture
def macos(monkeypatch, carto_sandbox):
    monkeypatch.setattr(sys, "platform", "darwin")
    return carto_sandbox


@pytest.mark.parametrize("system", ["windows", "macos"])
def test_a_job_keeps_its_token(system, request, capsys):
    carto = request.getfixturevalue(system)
    before = carto.count("/oauth/token")
    tokens = {CartoAuth.from_m2m().get_access_token() for _ in range(3)}
    assert (len(tokens), carto.count("/oauth/token") - before) == (1, 1)
    assert cli.main(["status"]) == 0
    assert "good until" in capsys.readouterr().out


def test_a_file_that_another_program_has_open(windows, monkeypatch):
    """Windows does not replace it: the token is used all the same, by this program at least."""
    monkeypatch.setattr(os, "replace", Mock(side_effect=PermissionError(errno.EACCES, "Access is denied")))
    before = windows.count("/oauth/token")
    with pytest.warns(UserWarning, match="cannot be kept"):
        tokens = {CartoAuth.from_m2m().get_access_token() for _ in range(3)}
    assert (len(tokens), windows.count("/oauth/token") - before) == (1, 1)


@pytest.mark.parametrize("system", ["windows", "macos"])
def test_a_person_logs_in_with_the_browser(system, request, monkeypatch, callback_port):
    carto = request.getfixturevalue(system)
    monkeypatch.setenv("BROWSER", f"{shlex.quote(sys.executable)} -m carto_auth.sandbox.walker %s")
    auth = CartoAuth.from_oauth()
    assert CartoAuth.from_oauth(interactive=False).get_access_token() == auth.get_access_token()
    assert auth.logout()
    assert carto.count("/oauth/token", "POST") >= 1
