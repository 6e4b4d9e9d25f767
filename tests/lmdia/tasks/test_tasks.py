"""The 42 tasks: real shapes, a causal step of each, and the same work for everybody who asks."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from kat_otel.errors import ConfigError
from kat_otel.kernels import Semantics, semantics
from kat_otel.lmdia.replay import simulate
from kat_otel.lmdia.table import to_table
from kat_otel.lmdia.tasks.catalog import TASKS, task_named
from kat_otel.lmdia.tasks.gpus import GPUS
from kat_otel.lmdia.tasks.models import MODELS, Model
from kat_otel.lmdia.tasks.names import names_of
from kat_otel.lmdia.tasks.step import MOST, resources, step_program
from kat_otel.lmdia.tasks.task import Task
from kat_otel.lmdia.tasks.work import schedule
from kat_otel.spans import SpanKind

_EVERY = pytest.mark.parametrize("task", TASKS, ids=lambda t: t.name)
_COLLECTIVES = {
    "all_reduce": Semantics.BARRIER,
    "ring_all_reduce": Semantics.BARRIER,
    "all_gather": Semantics.BARRIER,
    "dispatch": Semantics.PAIRWISE,
    "combine": Semantics.PAIRWISE,
    "send_recv": Semantics.PAIRWISE,
    "all_to_all": Semantics.PAIRWISE,
}


@pytest.mark.parametrize("model", MODELS.values(), ids=lambda m: m.name)
def test_shapes_have_as_many_parameters_as_published(model: Model) -> None:
    assert model.parameters == pytest.approx(model.published, rel=0.02)


def test_there_are_42_tasks_of_seven_models_on_2_to_64_ranks() -> None:
    assert len({t.name for t in TASKS}) == len(TASKS) == 42
    assert Counter(t.model.name for t in TASKS) == dict.fromkeys(MODELS, 6)
    ranks = {t.layout.ranks for t in TASKS}
    assert (min(ranks), max(ranks)) == (2, 64)
    assert {t.gpu.name for t in TASKS} == set(GPUS)


def test_splits_are_by_task_and_every_one_has_all_engines_and_loads() -> None:
    assert Counter(t.split for t in TASKS) == {"train": 21, "validation": 7, "test": 14}
    for split in ("train", "validation", "test"):
        chosen = [t for t in TASKS if t.split == split]
        assert {t.engine for t in chosen} == {"vllm", "sglang"}
        assert {t.load for t in chosen} == {"prefill", "decode", "mixed"}
    tested = [t.layout for t in TASKS if t.split == "test"]
    assert any(layout.pp > 1 for layout in tested)
    assert any(layout.ep > 1 and layout.dp > 1 for layout in tested)


def test_names_of_collectives_are_known_as_such_and_no_others() -> None:
    for engine in ("vllm", "sglang"):
        for gpu in GPUS:
            for eight in (False, True):
                names = names_of(engine, gpu, eight_bits=eight)
                known = {part: semantics(name) for part, name in names.items()}
                assert {p: s for p, s in known.items() if s != Semantics.NONE} == _COLLECTIVES


@_EVERY
def test_a_step_is_causal_and_of_a_bounded_size(task: Task) -> None:
    program = step_program(task, schedule(task, 1)(0))
    times = simulate(program)
    assert len(program) <= 1.1 * MOST
    assert program.ranks == task.layout.ranks
    here = program.present
    assert here.any(axis=0).all()
    on_gpu = np.array([op.kind.on_gpu for op in program.operations])
    assert (times.gpu_end >= times.gpu_start)[here & on_gpu].all()
    for i, op in enumerate(program.operations):
        if not op.kind.on_gpu:
            continue
        rows = np.flatnonzero(here[:, i])
        launch = times.call_start[rows, op.graph_launch if op.graph_launch >= 0 else i]
        assert (times.gpu_start[rows, i] > launch).all(), op.name
        if op.kind == SpanKind.COLLECTIVE:
            assert len(rows) > 1, op.name
            assert np.ptp(times.gpu_end[rows, i]) < 1.0, op.name


@_EVERY
def test_kernels_say_what_bounds_them(task: Task) -> None:
    program = step_program(task, schedule(task, 1)(0))
    shares = [op.memory_share for op in program.operations if op.kind == SpanKind.KERNEL]
    assert all(0 <= share < 1 for share in shares)
    by_time = np.array([op.memory_share for op in program.operations])
    of_memory = np.nansum(by_time * program.own * program.compute)
    share = of_memory / (program.own * program.compute).sum()
    if task.load == "decode" and task.model.kind != "diffusion":
        assert share > 0.5  # weights and caches are read for few tokens
    if task.load == "prefill" and task.model.kind != "moe":  # experts share few tokens
        assert share < 0.5


def test_ranks_have_their_place() -> None:
    task = task_named("llama-3.1-70b.vllm.mixed")
    workers = resources(task)
    assert [w.rank for w in workers] == list(range(16))
    assert [w.tp for w in workers] == [*range(8), *range(8)]
    assert [w.pp for w in workers] == [0] * 8 + [1] * 8
    assert {w.host for w in workers} == {"node-0", "node-1"}
    assert len({w.hardware_id for w in workers}) == 16


def test_stages_have_their_own_layers_and_pass_activations_on() -> None:
    task = task_named("llama-3.1-70b.vllm.mixed")
    program = step_program(task, schedule(task, 1)(0))
    pairs = [i for i, op in enumerate(program.operations) if op.group.startswith("pp:")]
    assert len(pairs) == 8 * task.layout.pp
    assert all(program.present[:, i].sum() == 2 for i in pairs)
    times = simulate(program)
    sampled = [i for i, op in enumerate(program.operations) if "ArgMax" in op.name]
    assert all(not program.present[:8, i].any() for i in sampled)
    assert times.step_ns > 0


def test_a_pure_decode_is_one_graph() -> None:
    task = task_named("qwen3-8b.vllm.decode")
    program = step_program(task, schedule(task, 1)(0))
    launches = [i for i, op in enumerate(program.operations) if op.call == "cudaGraphLaunch"]
    nodes = [op for op in program.operations if op.graph_launch == launches[0]]
    assert len(launches) == 1
    assert len(nodes) > 0.9 * len(program)
    assert [op.graph_node for op in nodes] == list(range(len(nodes)))


def test_more_tokens_show_in_the_launch_shape() -> None:
    task = task_named("deepseek-v3.sglang.prefill")
    work = schedule(task, 1)(0)
    table = to_table(program := step_program(task, work), simulate(program))
    assert program.grid is not None
    spread = np.ptp(program.grid, axis=0)
    assert (spread > 0).any()
    grids = {table.strings[i] for i in table.grid.tolist()}
    assert len(grids) > 100
    again = step_program(task, work)
    assert np.array_equal(again.own, program.own)


def test_work_is_the_same_for_everybody_and_changes_in_time() -> None:
    task = task_named("deepseek-v3.vllm.mixed")
    one, two, other = schedule(task, 1), schedule(task, 1), schedule(task, 2)
    steps = range(64)
    assert [one(s) for s in steps] == [two(s) for s in reversed(steps)][::-1]
    assert [one(s) for s in steps] != [other(s) for s in steps]
    assert len({one(s).sequences for s in steps}) > 1


def test_an_unknown_task_is_told_how_names_look() -> None:
    with pytest.raises(ConfigError, match="gpt-5: no task"):
        task_named("gpt-5")
