"""The headers of a request to CARTO's API. The rest of the warehouse is in :mod:`carto_auth._warehouse`."""

from __future__ import annotations

__all__ = ["api_headers"]


def api_headers(access_token: str) -> dict[str, str]:
    """The headers of a request to CARTO's API with a JSON body (RFC 6750 section 2.1)."""
    return {"Content-Type": "application/json", "Authorization": f"Bearer {access_token}"}
