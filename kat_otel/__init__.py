"""KAT-OTel: kernel-level anomaly detection for distributed inference, on OpenTelemetry.

``kat_otel.step()`` and ``kat_otel.instrument(model)`` mark the steps of a program that runs its
model itself; engines are instrumented without a word (``docs/instrumentation.md``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kat_otel.instrumentation.engines.pytorch import instrument, step

__all__ = ["instrument", "step"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'kat_otel' has no attribute {name!r}")
    from kat_otel.instrumentation.engines import pytorch  # noqa: PLC0415 — only who asks pays

    return getattr(pytorch, name)
