"""The command ``kat``: turns what goes wrong into a message and an exit code.

Exit codes: 0 done; 1 an incident, where a command was asked to fail on one; 2 something
could not be read, or the command was called wrongly; 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from kat_otel.errors import KatError

__all__ = ["main"]

_FAILED = 2
_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code.

    Args:
        arguments: what stands after ``kat``; the process' own arguments if None.
    """
    try:
        # not at the top: the worker side installs without click, and this must say so kindly
        from kat_otel.commands import run  # noqa: PLC0415

        return run(arguments)
    except KatError as error:
        return _fail(str(error))
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in {"", "kat_otel"}:
            raise  # our own module is missing: a defect, not an installation to be completed
        return _fail(
            f"this command needs {package!r}, which is not installed: "
            "pip install 'kat-otel[processor]'"
        )
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:  # `kat analyze ... | head`: the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _fail(message: str) -> int:
    sys.stderr.write(f"kat: {message}\n")
    return _FAILED


if __name__ == "__main__":
    sys.exit(main())
