"""Run a sandbox in a terminal, for the programs of another one."""

from __future__ import annotations

import contextlib
import shlex
import sys
import threading

from carto_auth.sandbox import CartoSandbox


def run(_: object) -> None:
    """Run a sandbox until Ctrl-C, and print the lines to export."""
    with CartoSandbox() as sandbox:
        print("# A CARTO sandbox is running until Ctrl-C. In another terminal:")
        for name, value in sandbox.environment().items():
            print(f"export {name}={shlex.quote(value)}" if value else f"unset {name}")
        sys.stdout.flush()
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()
