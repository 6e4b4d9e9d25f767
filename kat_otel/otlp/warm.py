"""Compiles the decoder and the encoder, or loads them, before the first request comes.

``python -m kat_otel.otlp.warm`` at installation or when an image is built: a start then takes
a second instead of half a minute, on read-only file systems too.
"""

from __future__ import annotations

import importlib
import logging
import sys
import time

__all__ = ["warm"]

logger = logging.getLogger(__name__)

_SLOW_S = 3.0


def warm() -> float:
    """Makes decoder and encoder ready in this process, says in the log if that took long.

    Returns:
        Seconds that it took.
    """
    begin = time.perf_counter()
    for module in ("request", "packed"):
        importlib.import_module(f"kat_otel.otlp.{module}")
    took = time.perf_counter() - begin
    if took > _SLOW_S:
        logger.warning(
            "compiled the OTLP decoder in %.0f s; `python -m kat_otel.otlp.warm` at installation "
            "saves that at every first start",
            took,
        )
    else:
        logger.info("the decoder is ready after %.1f s", took)
    return took


def main() -> int:
    """Warms, and prints where the compiled code is kept."""
    from kat_otel.compiled import BASELINE, cache_folder  # noqa: PLC0415 - loads Numba

    took = warm()
    folder = cache_folder(__file__)
    sys.stdout.write(
        f"decoder ready in {took:.1f} s for {BASELINE}, kept in {folder or 'memory alone'}\n"
    )
    return 0 if folder else 1


if __name__ == "__main__":
    sys.exit(main())
