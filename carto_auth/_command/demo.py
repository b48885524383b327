"""Show the main job on a sandbox."""

from __future__ import annotations

from carto_auth.sandbox import demo


def run(_: object) -> int:
    """Run the demo; its exit code."""
    return demo.run()
