"""Where each engine says that a step begins and ends, and who runs it: tables of hooks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from kat_otel.instrumentation.engines import deepspeed, pytorch, sglang, tensorrt_llm, vllm
from kat_otel.instrumentation.engines.hooks import Hook

__all__ = ["ENGINES", "Engine"]


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine that is supported.

    Attributes:
        name: on the package index.
        oldest, newest: versions whose real packages the contract tests look into.
        hooks: what is wrapped.
        calls: what is called, and must be there as well.
        between: versions that differ from both, and are looked into as well.
        packaged: whether the package index has its Python files.
    """

    name: str
    oldest: str
    newest: str
    hooks: Sequence[Hook]
    calls: Sequence[Hook] = ()
    between: tuple[str, ...] = ()
    packaged: bool = True


ENGINES: Final = (
    Engine("vllm", "0.10.0", "0.33.0", vllm.HOOKS, vllm.CALLS, between=("0.20.0",)),
    Engine("sglang", "0.5.4", "0.5.23", sglang.HOOKS, sglang.CALLS),
    Engine("tensorrt-llm", "1.0.0", "1.2.1", tensorrt_llm.HOOKS, packaged=False),
    Engine("deepspeed", "0.14.0", "0.19.8", deepspeed.HOOKS),
    Engine("torch", "2.4.0", "2.15.0", (), pytorch.CALLS),
)
