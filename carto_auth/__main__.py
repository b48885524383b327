"""``python -m carto_auth`` is the ``carto-auth`` command."""

import sys

from carto_auth.cli import main

if __name__ == "__main__":
    sys.exit(main())
