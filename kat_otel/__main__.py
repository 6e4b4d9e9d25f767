"""Entry of ``kat``: the worker's install has no commands, and says so in one line."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Runs ``kat``; exit code 2 with the remedy if the extra that holds it is not installed."""
    try:
        from kat_otel.cli import main as run  # noqa: PLC0415 - imported where its lack is told
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("kat_otel"):
            raise  # a defect of this package, nothing that an extra would mend
        sys.stderr.write(
            f"kat: the module {error.name!r} is missing: this is the worker's install, which has "
            "no commands.\nInstall them: pip install 'kat-otel[processor]'\n"
        )
        sys.exit(2)
    run()


if __name__ == "__main__":
    main()
