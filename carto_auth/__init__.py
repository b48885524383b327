"""Log in to CARTO from Python: access tokens, the API base URL and the CARTO Data Warehouse."""

from carto_auth._services import Services
from carto_auth.auth import CartoAuth
from carto_auth.errors import CredentialsError, LoginRequired

__version__ = "1.0.0"

__all__ = ["CartoAuth", "CredentialsError", "LoginRequired", "Services", "__version__"]
