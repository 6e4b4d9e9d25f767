"""Programs of launches and GPU work, and their records cut into batches as capture might."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import numpy as np
from hypothesis import strategies as st

from kat_otel.instrumentation.capture.records import KINDS, STEP, Batch, Edge, Loss
from kat_otel.instrumentation.settings import Settings
from kat_otel.instrumentation.steps.filling import Fill
from kat_otel.instrumentation.steps.step import Step
from kat_otel.instrumentation.steps.tree import StepMaker
from kat_otel.spans import NO_PARENT

T0 = 1_700_000_000_000_000_000


@dataclass
class Said:
    """One record: the kind it is of, its fields, and when capture can have it."""

    kind: str
    fields: dict
    launched: int
    """Before this time nothing is known of it; a batch says `until` no later if it lacks it."""
    last: bool = False
    """Comes with the last batch: until then it may be that only its call has not come yet."""


@dataclass
class Program:
    """What a worker did, in ns after T0; every method adds to it and returns itself."""

    said: list[Said] = field(default_factory=list)
    marks: list[tuple] = field(default_factory=list)
    strings: list[str] = field(default_factory=lambda: [""])
    correlation: int = 0

    def text(self, text: str) -> int:
        if text not in self.strings:
            self.strings.append(text)
        return self.strings.index(text)

    def mark(self, at: int, step: int, edge: Edge, *, micro=0, thread=1, flags=0) -> Program:
        self.marks.append((T0 + at, thread, step, micro, edge, flags))
        return self

    def step(self, step: int, begin: int, end: int, **more) -> Program:
        return self.mark(begin, step, Edge.BEGIN, **more).mark(end, step, Edge.END, **more)

    def call(self, at: int, took: int = 2, name="cudaLaunchKernel", *, thread=1, correlation=None):
        if correlation is None:
            self.correlation += 1
            correlation = self.correlation
        fields = {"start": T0 + at, "end": T0 + at + took, "correlation": correlation}
        fields |= {"thread": thread, "name": self.text(name)}
        self.said.append(Said("apis", fields, T0 + at))
        return correlation

    def work(self, form: str, at: int, took: int, correlation: int, launched: int, **more) -> None:
        fields = {"start": T0 + at, "end": T0 + at + took, "correlation": correlation, "stream": 7}
        if form == "kernels":
            fields["name"] = self.text(more.pop("name", "k"))
        last = more.pop("last", False)
        self.said.append(Said(form, fields | more, T0 + launched, last))

    def kernel(self, launch: int, at: int, took: int = 5, *, thread=1, call=True, **more) -> int:
        """A launch and its kernel; without the call's record if ``call`` is false."""
        if call:
            correlation = self.call(launch, thread=thread)
        else:
            self.correlation += 1
            correlation = self.correlation
        self.work("kernels", at, took, correlation, launch, **more)
        return correlation

    def marker(self, at: int, took: int, name: str, *, thread=1, **more) -> Program:
        fields = {
            "start": T0 + at,
            "end": T0 + at + took,
            "thread": thread,
            "bytes": -1,
            "peer": -1,
        }
        fields |= {"name": self.text(name), "domain": self.text(more.pop("domain", ""))}
        self.said.append(Said("markers", fields | more, T0 + at))
        return self

    def other(self, form: str, at: int, took: int, **fields) -> None:
        """A record of any form."""
        fields |= {"start": T0 + at, "end": T0 + at + took}
        self.said.append(Said(form, fields, T0 + at))

    def batches(self, cuts: int = 1, seed: int = 0, last: int = 10**10) -> list[Batch]:
        """The program in ``cuts`` batches, records in any order, marks in theirs.

        A batch holds everything that was launched before its `until`, and any of the rest.
        """
        draw = random.Random(seed)
        place = {id(one): cuts - 1 if one.last else draw.randrange(cuts) for one in self.said}
        when = sorted(draw.randrange(cuts) for _ in self.marks)
        made: list[Batch] = []
        for cut in range(cuts):
            mine = [one for one in self.said if place[id(one)] == cut]
            draw.shuffle(mine)
            rest = [one.launched for one in self.said if place[id(one)] > cut]
            rest += [m[0] for m, at in zip(self.marks, when, strict=True) if at > cut]
            marks = [m for m, at in zip(self.marks, when, strict=True) if at == cut]
            until = min(rest, default=T0 + last)
            made.append(batch(self.strings, mine, marks, until))
        return made


def batch(strings, said: list[Said], marks: list[tuple], until: int, **more) -> Batch:
    columns = {}
    for kind, dtype in KINDS.items():
        rows = [one.fields for one in said if one.kind == kind]
        columns[kind] = np.zeros(len(rows), dtype)
        for place, fields in enumerate(rows):
            for name, value in fields.items():
                columns[kind][name][place] = value
    return Batch(
        strings=tuple(strings),
        steps=np.array(marks, STEP) if marks else np.empty(0, STEP),
        until_ns=until,
        loss=more.pop("loss", Loss()),
        **columns,
        **more,
    )


def made(
    batches: list[Batch], settings: Settings | None = None, fill: Fill | None = None
) -> tuple[list[Step], StepMaker]:
    """The steps that come of the batches, in order, and who made them."""
    maker = StepMaker(settings or Settings(), fill)
    steps = [step for one in batches for step in maker.add(one)]
    steps += maker.flush()
    return sorted(steps, key=lambda s: (int(s.table.start_ns[0]), s.step, s.micro)), maker


def spelled(step: Step) -> list[tuple]:
    """A step's spans in words, each with its parent's, in order."""
    t = step.table
    words = [
        (
            t.kind[i].item(),
            t.name_of(i),
            t.start_ns[i].item() - T0,
            t.duration_ns[i].item(),
            t.thread[i].item(),
            t.stream[i].item(),
            t.correlation[i].item(),
            t.text(t.group[i]),
            t.sequence[i].item(),
            t.bytes[i].item(),
            t.text(t.grid[i]),
            t.graph[i].item(),
            t.graph_node[i].item(),
            t.step[i].item(),
        )
        for i in range(len(t))
    ]
    return [
        (word, words[p] if p != NO_PARENT else None)
        for word, p in zip(words, t.parent, strict=True)
    ]


def named(step: Step, kind: int | None = None) -> list[str]:
    """Names of a step's spans, of one kind or all, row by row."""
    t = step.table
    return [t.name_of(i) for i in range(len(t)) if kind is None or t.kind[i] == kind]


@st.composite
def programs(draw) -> Program:
    """Steps of two threads at most, their launches anyhow."""
    program = Program()
    at = 0
    free = {7: 0, 8: 0, 9: 0}  # a stream does one thing after another
    threads = draw(st.integers(1, 2))
    for number in range(draw(st.integers(1, 5))):
        begin = at = at + draw(st.integers(1, 30))
        for _ in range(draw(st.integers(0, 6))):
            at += draw(st.integers(1, 9))
            what = draw(st.sampled_from(["kernel", "orphan", "call", "marker", "copy", "graph"]))
            thread, stream = draw(st.integers(1, 3)), draw(st.integers(7, 9))
            delay, took = draw(st.integers(1, 60)), draw(st.integers(1, 9))
            more = {"stream": stream}
            runs = max(at + delay, free[stream])
            if what in {"kernel", "orphan"}:
                name = draw(st.sampled_from(["k", "ncclDevKernel_AllReduce_Sum_f32_RING_LL(x)"]))
                program.kernel(at, runs, took, thread=thread, name=name, **more)
                if what == "orphan":  # behind work whose call is known
                    runs += took
                    program.kernel(at, runs, took, call=False, name="orphan", last=True, **more)
            elif what == "copy":
                copy = program.call(at, name="cudaMemcpyAsync", thread=thread)
                program.work("copies", runs, took, copy, at, bytes=5, kind=2, **more)
            elif what == "graph":
                launch = program.call(at, name="cudaGraphLaunch", thread=thread)
                program.work("graphs", runs, took, launch, at, graph=stream, **more)
            elif what == "call":
                name = draw(
                    st.sampled_from(["cudaDeviceSynchronize", "cudaMalloc", "cudaLaunchKernel"])
                )
                program.call(at, draw(st.sampled_from([3, 60_000])), name, thread=thread)
            else:
                nccl = draw(st.booleans())
                more = {"domain": "NCCL", "group": stream, "bytes": 64} if nccl else {}
                program.marker(at, took, "ncclAllReduce" if nccl else "r", thread=thread, **more)
            if what in {"kernel", "orphan", "copy", "graph"}:
                free[stream] = runs + took
        end = at = at + draw(st.integers(1, 30))
        micro = draw(st.integers(0, 1))
        program.step(number, begin, end, thread=1 + micro % threads, micro=micro)
    return program
