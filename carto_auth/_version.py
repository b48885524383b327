"""The version, where carto-auth 0.2.0 had it."""

from carto_auth import __version__

__all__ = ["__version__"]
