"""The short way of a step: known work, and nothing in it that deviates.

Nearly every step ends like that, and of a few ranks' step the stages of the long way cost more
than what they do. So a step is looked at once, in one compiled call (:mod:`healthy_loops`), and
only where that is not sure that the long way would find nothing, the long way is gone, from its
beginning. What is learnt of a healthy step is the same either way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kat_otel.kernels import family, meanings
from kat_otel.per_string import PerString, text_hash
from kat_otel.spans import Resource, SpanTable
from kat_otel.ttad.align import TEXT_HASHES
from kat_otel.ttad.anchors import BLOCKED_NS, SLACK_NS, TO_HOST
from kat_otel.ttad.healthy_loops import DIFFERENT, HEALTHY, NEW_TEXTS, lanes_of_all, look
from kat_otel.ttad.history import History, Key, Shape
from kat_otel.ttad.loops import plain
from kat_otel.ttad.meetings import COINCIDENCE_NS
from kat_otel.ttad.settings import Settings

__all__ = ["HealthyStep", "ShortWay"]

Float = NDArray[np.float64]

_MAX_KEYS = 1 << 62
_FAMILIES = PerString(lambda name: text_hash(family(name)))
_NOT_IN_ORDER = np.empty((0, 0, 0))
_look: Any = look
_lanes_of_all: Any = lanes_of_all


@dataclass(frozen=True, slots=True)
class HealthyStep:
    """What a report and the history want of a step in which nothing deviates.

    Attributes:
        key, shape: of the history: what work it was.
        ranks: ascending.
        durations: ns ``(N, R)``.
        transfers: of the meeting at each node, ns ``(N,)``.
        entry_gap: as :attr:`Lateness.entry_gap`.
        origin_ns: Unix ns.
        begin, finish: first start and last end of all ranks, ns since the origin.
        longest: of the ranks' steps, ns.
        largest_offset: between clocks, which need no correction, ns.
        launches, work, launched: launch calls, spans on the GPU, and those whose launch is known.
    """

    key: Key
    shape: Shape
    ranks: list[int]
    durations: Float
    transfers: Float
    entry_gap: float | None
    origin_ns: int
    begin: float
    finish: float
    longest: float
    largest_offset: float
    launches: int
    work: int
    launched: int


@dataclass(frozen=True, slots=True)
class _Team:
    """The workers of a step, which are those of the last one mostly."""

    resources: tuple[Resource, ...]
    ranks: list[int]
    rank_bytes: bytes
    column: NDArray[np.int64]
    resolution_ns: int
    comparable: bool


@dataclass(frozen=True, slots=True)
class _Work:
    """The nodes of a shape, as the loops compare them."""

    nodes: tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int64]]
    family: tuple[NDArray[np.int32], int]

    @property
    def may_be_compared(self) -> bool:
        """Whether a stretch of work has a number of 62 bits."""
        families = self.family[1]
        return families * (families + 1) * (2 * len(self.nodes[0]) + 1) < _MAX_KEYS


class ShortWay:
    """Looks at the steps of one instance.

    Args:
        settings: thresholds.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._team: _Team | None = None

    def reload(self, settings: Settings) -> None:
        """Takes new thresholds."""
        self._settings = settings

    def look(self, table: SpanTable, history: History, gaps: Sequence[float]) -> HealthyStep | None:
        """Returns what there is to remember of a healthy step, None if it must go the long way.

        Args:
            table: the spans of all ranks of one step.
            history: of the instance; only looked at.
            gaps: at first meetings of earlier steps, ns.
        """
        team = self._team_of(table.resources)
        shapes = history.shapes()
        if not team.comparable or not shapes or not len(table):
            return None
        kind, resource = plain(table.kind), plain(table.resource)
        start = plain(table.start_ns)
        *lane, lane_stream, first = _lanes_of_all(
            kind, (resource, plain(table.stream)), start, team.column, len(team.ranks)
        )
        if not len(first):
            return None
        spans = (
            (kind, resource, plain(table.parent)),
            tuple(map(plain, (table.name, table.grid, table.block, table.group))),
            (start, plain(table.duration_ns)),
            (lane[0], lane[1], first),
            lane_stream,
        )
        for key, shape in reversed(shapes):
            if key[2] != team.rank_bytes or shape.count < self._settings.min_history:
                continue
            if shape.work is None:
                shape.work = _work(key, shape)
            if not shape.work.may_be_compared:
                continue
            answer = self._compare(table, spans, team, shape, np.array(gaps, np.float64))
            if answer[0][0] != DIFFERENT:
                return _healthy(answer, key, shape, team)
        return None

    def _compare(
        self, table: SpanTable, spans: tuple[Any, ...], team: _Team, shape: Shape, gaps: Float
    ) -> Any:
        """Returns what the loops say of a step beside a shape."""
        settings, strings = self._settings, table.strings
        of_names = meanings(settings.collectives), _FAMILIES, TO_HOST
        usual, resolution_ns = shape.usual(), team.resolution_ns
        measures = (
            resolution_ns,
            int(BLOCKED_NS) + resolution_ns,
            int(SLACK_NS),
            len(strings),
            COINCIDENCE_NS + 2 * resolution_ns,
        )
        limits = (
            float(settings.min_pool),
            settings.jitter_ns,
            settings.relative_jitter,
            settings.tail_freedom,
            settings.false_alarm_rate,
            settings.min_kernel_excess,
            settings.min_rank_excess,
            settings.min_transfer_excess,
        )
        ordered = _NOT_IN_ORDER if usual.ordered is None else usual.ordered
        earlier = usual.durations, usual.transfers[:, :, None], ordered
        answer: Any = None
        for _ in range(2):
            said, families, to_host = [numbers.values(strings) for numbers in of_names]
            of_text = said, families, TEXT_HASHES.values(strings), to_host
            known = shape.work.nodes, shape.work.family
            answer = _look(*spans, of_text, team.column, *known, earlier, gaps, measures, limits)
            if answer[0][0] != NEW_TEXTS:
                break
            for numbers in of_names:
                numbers.of(strings, table.name)
            TEXT_HASHES.of(strings, table.grid)
            TEXT_HASHES.of(strings, table.block)
        return answer

    def _team_of(self, resources: tuple[Resource, ...]) -> _Team:
        if self._team is None or self._team.resources != resources:
            self._team = _team(resources)
        return self._team


def _team(resources: tuple[Resource, ...]) -> _Team:
    ranks = sorted({r.rank for r in resources})
    place = {rank: at for at, rank in enumerate(ranks)}
    return _Team(
        resources=resources,
        ranks=ranks,
        rank_bytes=np.array(ranks, np.int32).tobytes(),
        column=np.array([place[r.rank] for r in resources], np.int64),
        resolution_ns=max((r.resolution_ns for r in resources), default=1),
        # one alone has no peers, and ranks of several stages are no peers of each other
        comparable=len(ranks) > 1 and len({r.pp for r in resources}) == 1,
    )


def _work(key: Key, shape: Shape) -> _Work:
    numbers = {name: number for number, name in enumerate(dict.fromkeys(shape.names))}
    hashes = np.array([text_hash(name) for name in numbers] or [0], np.int64)
    number = np.array([numbers[name] for name in shape.names], np.int32)
    streams, work = np.frombuffer(key[0], np.int32), np.frombuffer(key[1], np.int64)
    return _Work(
        (streams.copy(), hashes[number], work.copy()),  # a loop takes what may be written
        (number, len(numbers)),
    )


def _healthy(answer: Any, key: Key, shape: Shape, team: _Team) -> HealthyStep | None:
    (said, origin, launches, work, launched), (offset, gap), durations, of_rank = answer
    if said != HEALTHY:
        return None
    transfers, begin, finish = of_rank
    return HealthyStep(
        key=key,
        shape=shape,
        ranks=team.ranks,
        durations=durations,
        transfers=transfers,
        entry_gap=gap if gap >= 0 else None,
        origin_ns=origin,
        begin=float(begin.min()),
        finish=float(finish.max()),
        longest=float((finish - begin).max()),
        largest_offset=offset,
        launches=launches,
        work=work,
        launched=launched,
    )
