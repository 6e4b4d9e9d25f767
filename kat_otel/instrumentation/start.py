"""What the ``.pth`` file of the wheel runs at the start of every interpreter of the environment.

Imports the standard library's ``os`` and ``sys`` alone, and does nothing unless ``KAT_OTEL=on``.
vLLM and SGLang have plugins of their own; this is for programs that have none: TensorRT-LLM's MPI
workers, DeepSpeed, torchrun. The hooks are put on when one of them is imported, so that all other
programs never pay for them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["SWITCH", "is_asked", "run"]

SWITCH = "KAT_OTEL"
_WATCHED = ("tensorrt_llm", "deepspeed", "torch", "vllm", "sglang")


def is_asked(environment: Mapping[str, str]) -> bool:
    """Returns whether the environment asks for instrumentation."""
    asked = environment.get(SWITCH, "").strip().lower() in ("on", "1", "true")
    return asked and environment.get("KAT_HELPER") != "1"


class _Watch:
    """A finder that finds nothing: it sees that an engine is about to be imported."""

    def find_spec(self, name: str, _path: Sequence[str] | None, _target: Any = None) -> None:
        """Puts the hooks on at the first import that matters; the import itself goes on."""
        if name not in _WATCHED:
            return
        # First, for what we import now is not to be watched; a new list, for whoever asks us is
        # on its way through the old one.
        sys.meta_path = [finder for finder in sys.meta_path if finder is not self]
        try:
            from kat_otel.instrumentation.instrumentor import ensure  # noqa: PLC0415 — only here

            ensure()
        except Exception as error:  # noqa: BLE001 — the program's import must not fail
            sys.stderr.write(f"kat_otel: nothing is instrumented: {error!r}\n")


def run() -> None:
    """Watches for engines, where it is asked for."""
    if is_asked(os.environ) and not any(isinstance(one, _Watch) for one in sys.meta_path):
        sys.meta_path.insert(0, _Watch())  # pyright: ignore[reportArgumentType]
