"""A healthy step of a task: every rank's kernels in order, as its architecture and engine have it.

What a rank does depends on its place: a pipeline stage has its layers, a data-parallel replica
its own batch, an expert rank its load. Layers are cut to what :data:`MOST` operations allow (the
program's notes say to how many): their kinds, order and durations stay as they are.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Final

import numpy as np

from kat_otel.lmdia.program import Mask, Program
from kat_otel.lmdia.tasks.builder import COPIES, GAP_NS, LAYER_GAP_NS, Builder
from kat_otel.lmdia.tasks.layers import Layers
from kat_otel.lmdia.tasks.names import names_of
from kat_otel.lmdia.tasks.task import Task, Work
from kat_otel.spans import Resource

__all__ = ["MOST", "resources", "step_program"]

MOST: Final = 1_000
"""Operations of a step, about."""

_INPUT_GAP_NS: Final = 60_000.0
_SCHEDULE_GAP_NS: Final = 25_000.0


def resources(task: Task) -> tuple[Resource, ...]:
    """Returns the ranks: tensor-parallel neighbours first, then stages, then replicas."""
    layout = task.layout
    found: list[Resource] = []
    for rank in range(layout.ranks):
        stages, tp = divmod(rank, layout.tp)
        dp, pp = divmod(stages, layout.pp)
        host = f"node-{rank // layout.per_host}"
        device = rank % layout.per_host
        found.append(
            Resource(
                rank=rank,
                world_size=layout.ranks,
                instance=task.name,
                device=device,
                host=host,
                hardware_id=f"GPU-{host}-{device}",
                tp=tp,
                pp=pp,
                dp=dp,
                ep=rank % layout.ep,
                source=f"simulated worker {rank}",
            )
        )
    return tuple(found)


def step_program(task: Task, work: Work) -> Program:
    """Returns one step of a task, without noise.

    Args:
        task: which one.
        work: what the scheduler gave it.
    """
    layers = _layers(task)
    step = _Step(task, work, layers)
    step.run()
    whole = task.model.layers
    note = f"simulated: {layers} of {whole} layers" if layers < whole else "simulated: all layers"
    return step.builder.program((f"{task.name}: {note}",))


@functools.cache
def _layers(task: Task) -> int:
    """How many layers a step of the task has: all, or what fits, the same in every stage."""
    prefill = Work(prompt_tokens=1024, sequences=16, context=1024)
    base, one = (_operations(task, prefill, n * task.layout.pp) for n in (1, 2))
    each = max(1, one - base) / task.layout.pp
    fitting = int((MOST - base) / each) + task.layout.pp
    layers = max(2 * task.layout.pp, min(task.model.layers, fitting))
    return layers - layers % task.layout.pp


def _operations(task: Task, work: Work, layers: int) -> int:
    step = _Step(task, work, layers)
    step.run()
    return len(step.builder)


class _Step:
    def __init__(self, task: Task, work: Work, layers: int) -> None:
        self.task, self.work, self.layers = task, work, layers
        self.builder = Builder(resources(task), task.gpu)
        self.names = names_of(task.engine, task.gpu.name, eight_bits=task.model.weight_bytes == 1.0)
        ranks = self.builder.resources
        self.stage = np.array([r.pp for r in ranks])
        self.micro = task.layout.pp  # as many batches are on the way as there are stages

    def run(self) -> None:
        """Adds all operations."""
        for _ in range(self.micro):
            self._batch()
        self._end()

    def _batch(self) -> None:
        b, pp = self.builder, self.task.layout.pp
        per_stage = self.layers // pp
        share = 1.0 / self.micro
        work = replace(
            self.work,
            prompt_tokens=-int(-self.work.prompt_tokens * share // 1),
            sequences=-int(-self.work.sequences * share // 1),
        )
        layers = Layers(self.task, work, b, self.names)
        for stage in range(pp):
            with b.only(self.stage == stage):
                if stage == 0:
                    self._inputs(layers)
                else:
                    b.host("recv")
                if stage:
                    self._between(stage, layers)
                b.host("forward")
                with b.graph(captured=layers.whole):
                    for at in range(per_stage):
                        layers.layer(stage * per_stage + at)
                if stage == pp - 1:
                    layers.head()
                    self._sample(layers)

    def _inputs(self, layers: Layers) -> None:
        b = self.builder
        sglang = self.task.engine == "sglang"
        b.host("prepare_for_forward" if sglang else "prepare_inputs")
        first = _SCHEDULE_GAP_NS if sglang else _INPUT_GAP_NS  # the overlap scheduler is ahead
        for index in range(3):
            b.copy("HtoD", 8.0 * layers.mean_tokens, gap=LAYER_GAP_NS if index else first)
        layers.embed()

    def _between(self, stage: int, layers: Layers) -> None:
        """Sends activations from the stage before: a pair of ranks each."""
        b, ranks = self.builder, self.builder.resources
        nbytes = 2.0 * layers.mean_tokens * self.task.model.hidden
        members = b.members
        for place in sorted({(r.dp, r.tp) for r in ranks}):
            pair: Mask = np.array(
                [(r.dp, r.tp) == place and r.pp in (stage - 1, stage) for r in ranks]
            )
            hosts = {r.host for r, there in zip(ranks, pair, strict=True) if there}
            rate = self.task.gpu.link if len(hosts) == 1 else self.task.gpu.nic
            b.members = pair
            group = f"pp:{stage - 1}-{stage}.{place[0]}.{place[1]}"
            b.collective(
                self.names["send_recv"],
                group,
                nbytes=nbytes,
                own=8_000.0 + nbytes / rate,
            )
        b.members = members

    def _sample(self, layers: Layers) -> None:
        b = self.builder
        if self.task.model.kind == "diffusion":
            return
        b.host("sample")
        vocabulary = self.task.model.vocabulary
        b.kernel(self.names["argmax"], nbytes=2.0 * layers.sampled * vocabulary)
        if self.task.engine == "sglang":  # results leave on a stream of their own
            with b.beside(COPIES):
                b.copy("DtoH", 8.0 * layers.mean_sampled, gap=GAP_NS, after=(b.last,))
        else:
            b.copy("DtoH", 8.0 * layers.mean_sampled, gap=GAP_NS)

    def _end(self) -> None:
        b = self.builder
        if self.task.model.kind == "diffusion":
            b.host("scheduler.step")
            b.wait(7)
            return
        with b.only(self.stage == self.task.layout.pp - 1):
            b.wait(COPIES if self.task.engine == "sglang" else 7)
