"""The page that a browser shows: one style for the callback's pages and for the sandbox's."""

from __future__ import annotations

from importlib import resources
from string import Template
from typing import Literal

#: What a page tells at a glance, by its colour and by a shape; ``""`` for a page that asks for something.
Kind = Literal["good", "bad", "other", ""]


def page(title: str, content: str, *, kind: Kind = "", banner: str = "") -> str:
    """A page of HTML. The texts are HTML too: what comes from elsewhere must be escaped.

    Args:
        title: the title of its tab.
        content: what it says, with its heading.
        kind: what it tells.
        banner: a line above all of it.
    """
    template = resources.files("carto_auth._login").joinpath("page.html").read_text("utf-8")
    return Template(template).substitute(title=title, content=content, kind=kind, banner=banner)
