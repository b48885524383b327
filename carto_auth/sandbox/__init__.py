"""A CARTO on your own computer, for demos and tests (extra ``sandbox``).

>>> from carto_auth.sandbox import CartoSandbox
>>> with CartoSandbox() as sandbox:  # doctest: +SKIP
...     auth = CartoAuth.from_m2m(sandbox.credentials_file("."), services=sandbox.services)

It enforces the rules that are known of the real CARTO, and invents nothing that a client could come to depend
on. It listens on this computer only, any e-mail and password log in, and everything is gone when it stops.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from carto_auth.sandbox.server import CartoSandbox as CartoSandbox
    from carto_auth.sandbox.walker import walk_login as walk_login

__all__ = ["CartoSandbox", "walk_login"]


# Lazy (PEP 562), because pytest imports this package at every start wherever the plugin is installed.
def __getattr__(name: str) -> Any:
    if name == "CartoSandbox":
        try:
            from carto_auth.sandbox.server import CartoSandbox
        except ModuleNotFoundError as error:
            from carto_auth.errors import MissingDependency

            raise MissingDependency(
                f"The CARTO sandbox needs the package {error.name!r}, which is not installed.",
                remedy="Run: pip install 'carto-auth[sandbox]'",
            ) from error
        return CartoSandbox
    if name == "walk_login":
        from carto_auth.sandbox.walker import walk_login

        return walk_login
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
