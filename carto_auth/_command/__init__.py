"""What the ``carto-auth`` command does and shows; ``cli.py`` only reads its arguments."""
