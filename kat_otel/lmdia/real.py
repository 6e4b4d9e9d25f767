"""Healthy groups made of real traces: what faults are put into where no simulation will do.

Semi-synthetic (:mod:`kat_otel.lmdia.semi`): kernels, their order and times are real, the
differences between ranks are not.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

from kat_otel.lmdia.extract import extract
from kat_otel.lmdia.program import Program
from kat_otel.lmdia.semi import cloned, without_lateness
from kat_otel.readers import read
from kat_otel.spans import Resource

__all__ = ["RANKS", "groups"]

RANKS: Final = 8
_WHOLE: Final = {"dlrm": "dlrm_8rank"}
_ONE_RANK: Final = {"vllm": "vllm_gptoss_b200_tp8_rank0"}


def groups(folder: Path, resources: tuple[Resource, ...]) -> dict[str, Program]:
    """Returns a healthy group for each of the real traces in a folder that are there, by name.

    Args:
        folder: of the traces, a folder each.
        resources: who the ``RANKS`` ranks are.
    """
    found: dict[str, Program] = {}
    for name, trace in _WHOLE.items():
        if (folder / trace).is_dir():
            healed = without_lateness(extract(read([folder / trace]).table))
            found[name] = replace(healed, resources=resources)
    for name, trace in _ONE_RANK.items():
        if (folder / trace).is_dir():
            found[name] = cloned(extract(read([folder / trace]).table), resources)
    return found
