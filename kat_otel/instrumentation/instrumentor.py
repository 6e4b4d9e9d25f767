"""The entry points: ``opentelemetry-instrument``, the plugins of vLLM and SGLang, the ``.pth``.

All of them come to :func:`ensure`, and coming twice changes nothing. Putting hooks on imports no
engine and starts nothing: that is left to the first step.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Mapping
from typing import Any, Final, cast

import wrapt
from opentelemetry.instrumentation.instrumentor import (  # pyright: ignore[reportMissingTypeStubs]
    BaseInstrumentor,
)

from kat_otel.instrumentation.engines import ENGINES, pytorch, vllm_kv
from kat_otel.instrumentation.engines.hooks import HookSet
from kat_otel.instrumentation.session import forget_session, is_off
from kat_otel.instrumentation.start import is_asked

__all__ = ["NAME", "KatInstrumentor", "ensure", "plugin"]

logger: Final = logging.getLogger(__name__)

NAME: Final = "kat_otel"
_DISABLED: Final = "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"


class KatInstrumentor(BaseInstrumentor):
    """Marks the steps of inference engines, and captures what they do.

    ``uninstrument()`` gives every hooked function back and ends capture.
    """

    _hooks = HookSet()
    _searching = False

    def instrumentation_dependencies(self) -> Collection[str]:
        """Returns nothing: engines are hooked when they are imported, whichever is there."""
        return ()

    def _instrument(self, **kwargs: Any) -> None:  # noqa: ARG002 — the base class's form
        if is_off(os.environ):
            logger.info("switched off: nothing is instrumented")
            return
        for engine in ENGINES:
            self._hooks.put_on(engine.hooks)
        KatInstrumentor._searching = True
        wrapt.register_post_import_hook(_search, pytorch.MODULE)

    def _uninstrument(self, **kwargs: Any) -> None:  # noqa: ARG002
        KatInstrumentor._searching = False
        self._hooks.take_off()
        pytorch.stop_finding()
        vllm_kv.unwatch()
        forget_session()

    @property
    def hooked(self) -> frozenset[str]:
        """Whole names of the functions that are wrapped now."""
        return self._hooks.worn


def _search(module: Any) -> None:
    if KatInstrumentor._searching:  # pyright: ignore[reportPrivateUsage]
        pytorch.find_model(module)


def _is_disabled(environment: Mapping[str, str]) -> bool:
    names = [name.strip() for name in environment.get(_DISABLED, "").split(",")]
    return NAME in names or "*" in names


def ensure() -> None:
    """Instruments this process, if nobody did and nothing forbids it."""
    instrumentor = cast(Any, KatInstrumentor())
    if instrumentor.is_instrumented_by_opentelemetry or _is_disabled(os.environ):
        return
    instrumentor.instrument(skip_dep_check=True)


def plugin() -> None:
    """The plugin of vLLM and SGLang: acts where ``KAT_OTEL=on``, and never raises."""
    if not is_asked(os.environ):
        return
    try:
        ensure()
    except Exception as error:  # noqa: BLE001 — the server starts, whatever happens here
        logger.warning("nothing is instrumented: %r", error)
