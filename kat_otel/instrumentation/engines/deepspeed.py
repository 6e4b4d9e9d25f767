"""DeepSpeed: a step is a forward pass of its engine; ranks are the launcher's (RANK, WORLD_SIZE).

The program calls the engine on all ranks alike, or its collectives would not meet.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from typing import Any, Final

from kat_otel.instrumentation.engines.hooks import Call, Hook
from kat_otel.instrumentation.identity.ranks import Who, from_environment
from kat_otel.instrumentation.session import Open, session

__all__ = ["HOOKS"]


def _who() -> Who:
    version = str(getattr(sys.modules.get("deepspeed"), "__version__", ""))
    return replace(from_environment(os.environ), engine="deepspeed", version=version)


def _before(_call: Call) -> Open | None:
    return session().begin(who=_who)


def _after(_call: Call, opened: Open | None, _result: Any, _failed: bool) -> None:
    session().end(opened)


HOOKS: Final = (
    Hook(
        "deepspeed.inference.engine",
        "InferenceEngine.forward",
        before=_before,
        after=_after,
        counts=True,
    ),
    Hook(
        "deepspeed.inference.v2.engine_v2",
        "InferenceEngineV2.put",
        before=_before,
        after=_after,
        counts=True,
    ),
    Hook(
        "deepspeed.runtime.engine",
        "DeepSpeedEngine.forward",
        before=_before,
        after=_after,
        counts=True,
    ),
)
