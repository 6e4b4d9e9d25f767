"""Settings of a worker: one row each, from the environment, read once at the start.

The names of OpenTelemetry are kept where they exist (``OTEL_EXPORTER_OTLP_ENDPOINT``,
``OTEL_RESOURCE_ATTRIBUTES``, ``OTEL_SDK_DISABLED``); the rest begins with ``KAT_``. A value that
makes no sense is named in a log line and its default taken: a worker starts whatever stands there.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final, Literal, cast, get_args

from kat_otel.capture import Mode

__all__ = ["Graphs", "Settings", "Tool", "Where"]

logger: Final = logging.getLogger(__name__)

Where = Literal["process", "thread"]
Graphs = Literal["graph", "node"]
Tool = Literal["cupti", "torch", "none"]


def _choice(kind: Any) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in get_args(kind):
            raise ValueError(f"none of {', '.join(get_args(kind))}")
        return text

    return read


def _number(least: float, most: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        value = float(text)
        if not least <= value <= most:
            raise ValueError(f"not between {least:g} and {most:g}")
        return value

    return read


def _whole(least: int, most: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        value = int(text)
        if not least <= value <= most:
            raise ValueError(f"not between {least} and {most}")
        return value

    return read


def _flag(text: str) -> bool:
    if text.lower() not in {"true", "false", "1", "0"}:
        raise ValueError("neither true nor false")
    return text.lower() in {"true", "1"}


def _pattern(text: str) -> str:
    re.compile(text)
    return text


def _setting(variable: str, default: Any, read: Callable[[str], Any], doc: str) -> Any:
    return field(default=default, metadata={"variable": variable, "read": read, "doc": doc})


@dataclass(frozen=True, slots=True)
class Settings:
    """What the environment says; ``docs/instrumentation.md`` shows the same table."""

    disabled: bool = _setting(
        "OTEL_SDK_DISABLED", default=False, read=_flag, doc="true: nothing is instrumented"
    )
    mode: Mode = _setting(
        "KAT_MODE",
        "full",
        _choice(Mode),
        "full: digests, sampled and asked steps; digest: digests alone; off: the kill switch",
    )
    sample_every: int = _setting(
        "KAT_SAMPLE_EVERY",
        100,
        _whole(0, 2**31 - 1),
        "steps whose number it divides are sent whole, on all ranks alike; 0: none, 1: every one",
    )
    recorder_seconds: float = _setting(
        "KAT_RECORDER_SECONDS", 10.0, _number(0, 600), "whole steps kept for those who ask later"
    )
    recorder_mib: int = _setting(
        "KAT_RECORDER_MIB", 64, _whole(1, 4_096), "memory of what is kept, at most"
    )
    budget: float = _setting(
        "KAT_OVERHEAD_BUDGET",
        0.01,
        _number(0, 1),
        "share of a step's time that capture may cost; above it less is recorded",
    )
    tool: Tool = _setting(
        "KAT_CAPTURE",
        "cupti",
        _choice(Tool),
        "cupti: GPU work; torch: operators of programs without a GPU, by torch.profiler; none: "
        "steps alone",
    )
    where: Where = _setting(
        "KAT_SENDER",
        "process",
        _choice(Where),
        "who makes spans of records: a helper process, or a thread of the worker",
    )
    graphs: Graphs = _setting(
        "KAT_CUDA_GRAPHS",
        "graph",
        _choice(Graphs),
        "CUDA graphs as one record a launch, or node by node (costs more)",
    )
    buffer_mib: int = _setting(
        "KAT_BUFFER_MIB", 32, _whole(2, 4_096), "pool of CUPTI's buffers, shared with the helper"
    )
    step_range: str = _setting(
        "KAT_STEP_RANGE",
        "",
        _pattern,
        "pattern of the NVTX ranges that are steps, where no engine hook says it (C++ servers)",
    )
    cupti: str = _setting(
        "KAT_CUPTI_LIBRARY", "", str, "path of libcupti; else the mapped one, wheels, the toolkit"
    )
    instance: str = _setting(
        "KAT_INSTANCE_ID", "", str, "kat.instance.id, where the engine shares none"
    )
    control_endpoint: str = _setting(
        "KAT_CONTROL_ENDPOINT",
        "",
        str,
        "http://host:4329/v1/opamp of kat process; none if empty. Of several, a name with the "
        "addresses of all",
    )
    control_token_file: str = _setting(
        "KAT_CONTROL_TOKEN_FILE", "", str, "file with the bearer token of the control channel"
    )
    control_ca_file: str = _setting(
        "KAT_CONTROL_CERTIFICATE", "", str, "PEM file of the authority to trust there"
    )
    hardware_seconds: float = _setting(
        "KAT_HARDWARE_INTERVAL", 1.0, _number(0, 3_600), "between hardware metrics; 0: none"
    )

    @staticmethod
    def read(environment: Mapping[str, str]) -> Settings:
        """Returns the settings; what makes no sense is logged and left at its default."""
        given: dict[str, Any] = {}
        for one in fields(Settings):
            text = environment.get(cast(str, one.metadata["variable"]), "").strip()
            if not text:
                continue
            try:
                given[one.name] = one.metadata["read"](text)
            except (ValueError, re.error) as error:
                logger.warning(
                    "%s=%s: %s; %r is taken", one.metadata["variable"], text, error, one.default
                )
        return Settings(**given)
