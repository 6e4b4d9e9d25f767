"""``python -m kat_otel``: the command ``kat`` where its script is not on the PATH."""

import sys

from kat_otel.cli import main

if __name__ == "__main__":
    sys.exit(main())
