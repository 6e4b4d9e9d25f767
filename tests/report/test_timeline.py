from __future__ import annotations

import numpy as np
import pytest

from kat_otel.report.scene import step_of
from kat_otel.report.stage import Stage, stage_of
from kat_otel.report.timeline import MAX_LANES, MAX_SPANS, Band, Look, Role, Timeline, timeline
from kat_otel.spans import SpanTable
from tests.report import samples


def stage(table: SpanTable) -> Stage:
    made = stage_of(table, 12)
    assert made is not None
    return made


@pytest.fixture(scope="module")
def shown() -> Timeline:
    spans = samples.table()
    return timeline(stage(spans), samples.late_launch(spans))


def test_ranks_are_lanes_with_their_roles(shown: Timeline) -> None:
    assert [lane.rank for lane in shown.lanes] == list(range(8))
    assert shown.lanes[7].role == Role.CULPRIT
    assert {lane.role for lane in shown.lanes[:7]} == {Role.VICTIM}


def test_the_waiting_of_a_collective_is_apart_from_its_transfer(shown: Timeline) -> None:
    spans = shown.spans
    waits = (spans.look == Look.WAIT) & (spans.lane == 0) & (spans.duration > samples.LATE // 2)
    assert waits.sum() == 1
    end = spans.start[waits] + spans.duration[waits]
    transfers = spans.start[(spans.look == Look.TRANSFER) & (spans.lane == 0)]
    assert end[0] in transfers
    assert shown.lanes[0].wait_ns == pytest.approx(samples.LATE, rel=0.02)
    assert shown.lanes[7].wait_ns == 0


def test_the_expected_arrival_of_the_culprit_is_drawn(shown: Timeline) -> None:
    (ghost,) = shown.ghosts
    assert (ghost.lane, ghost.band, ghost.late) == (7, Band.COLLECTIVE, True)
    assert ghost.excess_ns == pytest.approx(samples.LATE, rel=0.02)
    assert ghost.actual_start - ghost.expected_start == ghost.excess_ns


def test_the_expected_duration_of_a_slow_kernel_is_drawn() -> None:
    spans = samples.table()
    ghosts = timeline(stage(spans), samples.slow_kernel(spans)).ghosts
    assert [(g.lane, g.band, g.late) for g in ghosts] == [(3, Band.WORK, False)]
    assert ghosts[0].excess_ns == pytest.approx(120 * samples.US, rel=0.02)


def test_the_view_holds_the_arrivals_of_all_ranks(shown: Timeline) -> None:
    found = shown.scene.stage.found
    third = np.flatnonzero(shown.scene.in_window)[0]
    first = int(found.start[third].min()) - shown.scene.stage.origin
    assert shown.view[0] <= first
    assert shown.view[1] >= int(found.end[third].max()) - shown.scene.stage.origin


def test_a_shifted_clock_is_corrected_before_drawing(shown: Timeline) -> None:
    spans = samples.table(clock_error_ns=3_000_000)
    corrected = timeline(stage(spans), samples.late_launch(spans))
    assert corrected.scene.stage.comparable
    assert corrected.lanes[1].wait_ns == pytest.approx(shown.lanes[1].wait_ns, rel=0.01)


def test_ranks_without_a_common_event_begin_each_at_its_own_first_span() -> None:
    spans = samples.table(clock_error_ns=3_000_000)
    lonely = spans.take((spans.kind != 9) & (spans.name != spans.strings.find(samples.ALL_REDUCE)))
    made = stage(lonely)
    assert not made.comparable
    begin = made.table.start_ns - made.shift[made.table.rank]
    gpu = made.table.on_gpu
    starts = {int(begin[gpu & (made.table.rank == k)].min()) for k in range(8)}
    assert len(starts) == 1


def test_a_fleet_is_drawn_by_its_culprit_and_its_longest_waiters() -> None:
    spans = samples.table(ranks=64, layers=3)
    incident = samples.late_launch(spans)
    incident.victims = [k for k in range(64) if k != 7]
    shown = timeline(stage(spans), incident)
    assert len(shown.lanes) == MAX_LANES
    assert shown.hidden_ranks == 64 - MAX_LANES
    assert Role.CULPRIT in {lane.role for lane in shown.lanes}


def test_the_drawing_is_bounded_and_loses_no_span() -> None:
    spans = samples.table(layers=400)
    incident = samples.late_launch(spans)
    drawn = timeline(stage(spans), incident).spans
    assert len(drawn) <= MAX_SPANS
    waits = int((drawn.merged * (drawn.look == Look.WAIT)).sum())
    before_the_gpu = samples.RANKS  # each rank's first launch, which ends before any GPU work
    assert int(drawn.merged.sum()) - waits == len(spans) - before_the_gpu
    assert set(drawn.band[drawn.flagged == 1]) == {Band.COLLECTIVE}


def test_nothing_is_merged_across_the_view() -> None:
    spans = samples.table(ranks=32, layers=400)
    shown = timeline(stage(spans), samples.late_launch(spans))
    drawn = shown.spans
    end = drawn.start + drawn.duration
    across = (drawn.start < shown.view[0]) & (end > shown.view[1])
    assert not across.any()
    inside = (drawn.start > shown.view[0]) & (end < shown.view[1])
    longest = drawn.duration[inside & (drawn.merged > 1)].max(initial=0)
    assert longest < (shown.view[1] - shown.view[0]) / 100, "what is merged stays invisible"
    assert len(drawn) <= MAX_SPANS


def test_a_merged_span_says_how_dense_it_is() -> None:
    spans = samples.table(layers=2000)
    drawn = timeline(stage(spans), samples.late_launch(spans)).spans
    launches = (drawn.look == Look.LAUNCH) & (drawn.merged > 10)
    assert launches.any()
    assert (drawn.fill[launches] < 15).all()  # 5 µs of every 300 µs
    assert (drawn.fill[drawn.merged == 1] == 100).all()


def test_step_of_finds_the_step_of_the_first_cited_span() -> None:
    spans = samples.table()
    assert step_of(spans, samples.late_launch(spans)) == 12
    elsewhere = samples.late_launch(spans)
    elsewhere.steps = [99]
    assert step_of(spans, elsewhere) is None


def test_a_step_without_gpu_work_has_no_stage() -> None:
    assert stage_of(SpanTable.empty(), None) is None
    spans = samples.table()
    assert stage_of(spans.take(~spans.on_gpu), 12) is None
