"""Steps on CPUs: what PyTorch itself records of a step becomes a step like a GPU's.

With PyTorch these run a real model; what needs it is left out where it is not installed.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec

import pytest

from kat_otel.errors import MissingDependencyError
from kat_otel.instrumentation.capture.torch_profiler import TorchProfilerSource
from kat_otel.instrumentation.settings import Settings
from kat_otel.instrumentation.steps.tree import StepMaker
from kat_otel.spans import SpanKind
from tests.instrumentation.programs import named


def test_without_torch_it_is_said_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingDependencyError, match=r"torch\.profiler"):
        TorchProfilerSource()


if find_spec("torch") is not None:
    import torch
    from torch import distributed

    def test_outermost_operators_are_kernels_in_the_ranges_of_the_program():
        source, maker = TorchProfilerSource(), StepMaker(Settings())
        model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU())
        for step in (3, 4):
            source.step_begin(step)
            with torch.profiler.record_function("layer"):
                model(torch.ones(2, 8))
            source.step_end()
        steps = [*maker.add(source.take(1)), *maker.flush()]
        assert [one.step for one in steps] == [3, 4]
        assert named(steps[1], SpanKind.KERNEL) == ["aten::ones", "aten::linear", "aten::relu"]
        assert named(steps[1], SpanKind.LAUNCH) == ["aten::ones", "aten::linear", "aten::relu"]
        table = steps[1].table
        calls = table.kind == SpanKind.LAUNCH
        assert {table.name_of(row) for row in table.parent[calls]} == {"layer"}
        assert "layer" in named(steps[1], SpanKind.HOST_OP)
        assert maker.counts.outside == 0

    def test_what_gloo_does_is_a_collective(tmp_path):
        distributed.init_process_group(
            "gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1
        )
        source, maker = TorchProfilerSource(), StepMaker(Settings())
        source.step_begin(0)
        distributed.all_reduce(torch.ones(4))
        source.step_end()
        steps = [*maker.add(source.take(1)), *maker.flush()]
        distributed.destroy_process_group()
        assert named(steps[0], SpanKind.COLLECTIVE) == ["all_reduce (gloo)"]

    def test_off_records_nothing():
        source = TorchProfilerSource()
        source.order("off")
        source.step_begin(0)
        source.step_end()
        assert len(source.take(0).steps) == 0
