"""Methods run on cases, side by side: each step is played once and every method sees it in turn."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import ExitStack
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Protocol

import msgspec
import numpy as np

from kat_otel.lmdia.dataset.plan import Case
from kat_otel.lmdia.dataset.played import CannotPlayError, Played
from kat_otel.lmdia.evaluation.methods import ABLATIONS, TTAD
from kat_otel.lmdia.evaluation.records import Record, append, read_records
from kat_otel.lmdia.evaluation.ttad import Watch
from kat_otel.lmdia.scoring.match import score
from kat_otel.spans import SpanTable

__all__ = ["Opponent", "evaluate", "judge"]


class Opponent(Protocol):
    """Another method on one case."""

    def see(self, table: SpanTable) -> None:
        """Looks at the next step."""
        ...

    def scored(self) -> object:
        """Returns what it scored on all steps, for :mod:`msgspec` to write."""
        ...


Opponents = Callable[[], "dict[str, Opponent]"]


def judge(
    case: Case,
    play: Callable[[Case], Played],
    *,
    ablations: bool = False,
    opponents: Opponents | None = None,
) -> Record:
    """Plays a case, a step at a time, and returns what was said of it.

    Args:
        case: which one.
        play: makes it.
        ablations: whether TTAD is run without each of its parts as well.
        opponents: makes the other methods, by name.
    """
    begun = time.perf_counter()
    try:
        played = play(case)
    except CannotPlayError as error:
        return Record(case=case, refused=str(error))
    watches = {TTAD: Watch()} | (
        {name: Watch(settings) for name, settings in ABLATIONS.items()} if ablations else {}
    )
    others = opponents() if opponents else {}
    changed: list[list[np.ndarray]] = [[] for _ in played.label.faults]
    steps, spans, judging = 0, 0, 0.0
    elsewhere = 0.0
    for step in played.steps():
        steps, spans = steps + 1, spans + len(step.table)
        for of_fault, ids in zip(changed, step.affected, strict=False):
            of_fault.append(ids)
        before = time.perf_counter()
        watches[TTAD].see(step.table)
        after = time.perf_counter()
        for name, watch in watches.items():
            if name != TTAD:
                watch.see(step.table)
        for method in others.values():
            method.see(step.table)
        judging += after - before
        elsewhere += time.perf_counter() - after
    affected: list[Collection[int]] = [
        frozenset(np.concatenate(of_fault).tolist()) if of_fault else () for of_fault in changed
    ]
    requests = list(played.requests())
    said = {name: watch.alarms(requests, played.workers) for name, watch in watches.items()}
    label = played.label
    return Record(
        case=case,
        steps=steps,
        spans=spans,
        play_s=round(time.perf_counter() - begun - judging - elsewhere, 3),
        judge_s=round(judging, 3),
        outcomes={name: score(label, alarms, affected) for name, alarms in said.items()},
        pages=score(label, [a for a in said[TTAD] if a.page], affected),
        opponents={
            name: msgspec.Raw(msgspec.json.encode(method.scored()))
            for name, method in others.items()
        },
    )


def evaluate(
    cases: Sequence[Case],
    out: Path,
    work: Callable[[Case], Record],
    *,
    jobs: int = 1,
) -> Iterator[Record]:
    """Judges the cases that a file of records lacks; yields the records that it has first.

    Args:
        cases: which ones.
        out: the file of records; written a line a case, so that a run that was stopped goes on.
        work: judges one case; with several jobs it must be picklable.
        jobs: processes.
    """
    wanted = {case.name: case for case in cases}
    done = [r for r in read_records(out) if wanted.get(r.case.name) == r.case]
    yield from done
    seen = {r.case.name for r in done}
    left = [case for case in cases if case.name not in seen]
    for record in _in_turn(left, work) if jobs == 1 else _side_by_side(left, work, jobs):
        append(out, record)
        yield record


def _in_turn(cases: Sequence[Case], work: Callable[[Case], Record]) -> Iterator[Record]:
    return map(work, cases)


def _side_by_side(
    cases: Sequence[Case], work: Callable[[Case], Record], jobs: int
) -> Iterator[Record]:
    left = iter(cases)
    with ExitStack() as stack:
        pool = stack.enter_context(ProcessPoolExecutor(jobs, mp_context=get_context("spawn")))
        stack.callback(pool.shutdown, cancel_futures=True)
        running: set[Future[Record]] = {pool.submit(work, c) for c in islice(left, 2 * jobs)}
        while running:
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            running |= {pool.submit(work, c) for c in islice(left, len(finished))}
            yield from [future.result() for future in finished]
