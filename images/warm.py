"""Compiles every loop of the processor while its image is built, into the package's own folder.

``kat_otel.otlp.warm`` makes the decoder ready, which is what a first request waits for; the judge's
loops are compiled when they are imported. An image with a read-only root can keep neither later.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
import time
from pathlib import Path

import kat_otel
from kat_otel.compiled import BASELINE, cache_folder


def main() -> int:
    """Imports what has compiled loops; 1 if their code is not kept beside their source."""
    begin = time.perf_counter()
    for part in ("otlp", "processor", "ttad"):
        package = importlib.import_module(f"kat_otel.{part}")
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)
    root = Path(kat_otel.__file__).parent
    kept = len(list(root.rglob("*.nbi")))
    folder = cache_folder(str(root / "otlp" / "walk.py"))
    took = time.perf_counter() - begin
    sys.stdout.write(f"{kept} loops compiled in {took:.0f} s for {BASELINE}, kept in {folder}\n")
    return 0 if kept and folder and folder.is_relative_to(root) else 1


if __name__ == "__main__":
    sys.exit(main())
