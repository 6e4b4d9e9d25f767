"""One file a command of ``kat``; ``cli.py`` gathers them."""
