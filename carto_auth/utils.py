"""The functions that carto-auth 0.2.0 documents, each from the module where it belongs."""

from carto_auth._token import is_token_expired
from carto_auth.cache import get_cache_filepath, get_home_dir, load_cache_file, save_cache_file
from carto_auth.discovery import get_api_base_url
from carto_auth.m2m import get_m2m_token_info
from carto_auth.pkce import get_oauth_token_info
from carto_auth.warehouse import api_headers

__all__ = ["api_headers", "get_api_base_url", "get_m2m_token_info", "get_oauth_token_info", "is_token_expired"]
__all__ += ["get_cache_filepath", "get_home_dir", "load_cache_file", "save_cache_file"]
