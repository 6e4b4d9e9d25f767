"""The Perfetto trace, read back by Perfetto's own trace_processor and by its protobuf classes."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import Trace

from kat_otel.report.perfetto import write_perfetto
from kat_otel.report.perfetto.lanes import MOST_LANES, lanes_of
from kat_otel.spans import Resource, SpanKind, SpanTable, SpanTableBuilder
from kat_otel.verdict import Report
from tests.report import samples
from tests.report.trace_processor import query

LOST = "select name from stats where severity in ('error', 'data_loss') and value > 0"


def written(report: Report, spans: SpanTable) -> bytes:
    out = io.BytesIO()
    write_perfetto(report, spans, out)
    return out.getvalue()


def of(report: Report, spans: SpanTable, tmp_path: Path, *queries: str) -> list[list[Any]]:
    """What trace_processor answers; that it lost nothing is part of every test."""
    path = tmp_path / "trace.pftrace"
    path.write_bytes(written(report, spans))
    lost, *answers = query(path, LOST, *queries)
    assert lost == []
    return answers


def hand_made(*rows: dict[str, Any]) -> SpanTable:
    builder = SpanTableBuilder()
    builder.add_resource(Resource(rank=0, source="r"))
    for row in rows:
        name = builder.strings.add(row.pop("name", "k"))
        usual = {"kind": SpanKind.KERNEL, "stream": 7, "resource": 0, "name": name}
        builder.append(1, **{**usual, **row})
    return builder.build()


def test_every_span_is_a_slice_to_the_nanosecond(
    two_incidents: Report, spans: SpanTable, tmp_path: Path
) -> None:
    kept = "category not like 'kat.%'"  # without what the verdict adds
    (slices,) = of(two_incidents, spans, tmp_path, f"select ts, dur from slice where {kept}")
    found = sorted((row["ts"], row["dur"]) for row in slices)
    expected = zip(spans.start_ns.tolist(), spans.duration_ns.tolist(), strict=True)
    assert found == sorted(expected)


def test_incidents_come_first_then_the_ranks_in_order(tmp_path: Path) -> None:
    spans = samples.table(ranks=12, layers=3)
    report = samples.report(spans, samples.late_launch(spans))
    tracks = (
        "include perfetto module viz.summary.track_event; select name, parent_id "
        "from _track_event_tracks_ordered_groups order by parent_id, order_id"
    )
    (rows,) = of(report, spans, tmp_path, tracks)
    top = [row["name"].partition(" (")[0] for row in rows if row["parent_id"] is None]
    assert top == ["Incidents", *(f"rank {rank:02d}" for rank in range(12))]
    assert "rank 07 (culprit)" in {row["name"] for row in rows}
    first = rows[[row["parent_id"] is None for row in rows].index(False)]["parent_id"]
    below = [row["name"] for row in rows if row["parent_id"] == first]
    assert below == ["host thread", "stream 7", "stream 20"]


def test_an_incident_is_a_slice_that_says_all(
    two_incidents: Report, spans: SpanTable, tmp_path: Path
) -> None:
    (rows,) = of(
        two_incidents,
        spans,
        tmp_path,
        "select s.name, key, display_value as value from slice s join args using (arg_set_id) "
        "where category like 'kat.incident%' and s.name like '1.%'",
    )
    said = {row["key"].removeprefix("debug."): row["value"] for row in rows}
    assert rows[0]["name"] == "1. rank 7 makes ranks 0-6 wait 2.0 ms per step"
    assert said["kind"] == "late_launch"
    assert said["component"] == "host_cpu"
    assert said["cost_per_step_ns"] == "1990000"
    assert said["evidence_e1"].startswith("rank 7 arrives 2.0 ms after")
    assert said["next"].startswith("See what held")


def test_anomalous_spans_have_a_category_a_role_and_what_was_expected(
    two_incidents: Report, spans: SpanTable, tmp_path: Path
) -> None:
    (rows,) = of(
        two_incidents,
        spans,
        tmp_path,
        "select s.name, s.dur, extract_arg(arg_set_id, 'debug.role') as role, "
        "extract_arg(arg_set_id, 'debug.expected_ns') as expected, "
        "extract_arg(arg_set_id, 'debug.excess_ns') as excess "
        "from slice s where category = 'kernel,kat.anomalous,kat.culprit'",
    )
    (slow,) = rows
    assert slow["name"] == "⚠ cutlass::gemm"
    assert (slow["role"], slow["expected"]) == ("culprit", 120_000)
    assert slow["excess"] == slow["dur"] - 120_000


def test_arrows_go_from_the_culprits_arrival_to_every_waiter(
    two_incidents: Report, spans: SpanTable, tmp_path: Path
) -> None:
    side = (
        "join slice {0} on flow.slice_{1} = {0}.id join track t{0} on {0}.track_id = t{0}.id "
        "join track r{0} on t{0}.parent_id = r{0}.id"
    )
    (rows,) = of(
        two_incidents,
        spans,
        tmp_path,
        f"select ra.name as culprit, rb.name as waiter from flow {side.format('a', 'out')} "
        f"{side.format('b', 'in')} where b.category = 'kat.transfer' and ra.name like 'rank 7%'",
    )
    assert {row["culprit"] for row in rows} == {"rank 7 (culprit)"}
    assert sorted(row["waiter"][:6] for row in rows) == [f"rank {rank}" for rank in range(7)]


def test_an_arrow_goes_from_a_launch_to_the_first_work_it_launched(tmp_path: Path) -> None:
    spans = hand_made(
        {"name": "graph", "kind": SpanKind.LAUNCH, "thread": 5, "stream": -1, "start_ns": 100},
        {"name": "second", "start_ns": 300, "duration_ns": 50, "parent": 0},
        {"name": "first", "start_ns": 200, "duration_ns": 50, "parent": 0},
    )
    (rows,) = of(
        samples.report(spans),
        spans,
        tmp_path,
        "select a.name as source, b.name as target from flow join slice a on slice_out = a.id "
        "join slice b on slice_in = b.id",
    )
    assert rows == [{"source": "graph", "target": "first"}]


def test_the_waiting_is_a_slice_inside_the_collective(
    two_incidents: Report, spans: SpanTable, tmp_path: Path
) -> None:
    (rows,) = of(
        two_incidents,
        spans,
        tmp_path,
        "select s.dur, p.name as inside from slice s join slice p on s.parent_id = p.id "
        "where s.name = 'waits for rank 7'",
    )
    assert len(rows) == 7
    assert all(row["inside"].startswith("⚠ nccl") for row in rows)
    assert max(row["dur"] for row in rows) == pytest.approx(samples.LATE, rel=0.02)


def test_clocks_are_aligned_as_the_verdict_has_them(tmp_path: Path) -> None:
    wrong = samples.table(clock_error_ns=3_000_000)
    report = samples.report(wrong, samples.late_launch(wrong))
    last = (
        "select r.name, max(s.ts + s.dur) as last from slice s join track t on s.track_id = t.id "
        "join track r on t.parent_id = r.id where s.category like 'collective%' group by r.name"
    )
    (rows,) = of(report, wrong, tmp_path, last)
    ends = [row["last"] for row in rows]
    assert len(ends) == 8
    assert max(ends) - min(ends) < 10_000, "the shifted rank ends with the others"


def test_spans_of_one_stream_that_cross_keep_their_durations(tmp_path: Path) -> None:
    spans = hand_made(
        {"name": "a", "start_ns": 100, "duration_ns": 100},
        {"name": "b", "start_ns": 150, "duration_ns": 100},
        {"name": "at once", "start_ns": 200, "duration_ns": 0},
        {"name": "next", "start_ns": 200, "duration_ns": 10},
    )
    (rows, tracks) = of(
        samples.report(spans),
        spans,
        tmp_path,
        "select name, dur from slice",
        "include perfetto module viz.summary.track_event; "
        "select name from _track_event_tracks_ordered_groups where parent_id is not null",
    )
    durations = {row["name"]: row["dur"] for row in rows}
    assert durations == {"a": 100, "b": 100, "at once": 0, "next": 10}
    assert [row["name"] for row in tracks] == ["stream 7"], "shown as one track"


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 60), st.integers(0, 30)), max_size=40))
def test_lanes_hold_only_spans_that_lie_in_one_another_or_apart(
    drawn: list[tuple[int, int, int]],
) -> None:
    track, start, length = np.array(drawn, dtype=np.int64).reshape(-1, 3).T
    lane, end = lanes_of(track, start, start + length)
    assert (lane < MOST_LANES).all()
    assert (end <= start + length).all()
    assert (end >= start).all()
    for i in range(len(track)):
        for j in range(len(track)):
            if track[i] == track[j] and lane[i] == lane[j]:
                assert not start[i] < start[j] < end[i] < end[j]


def test_more_crossing_spans_than_lanes_are_cut_and_not_confused() -> None:
    start = np.arange(100, dtype=np.int64)
    lane, end = lanes_of(np.zeros(100, np.int64), start, start + 1_000)
    assert int(lane.max()) == MOST_LANES - 1
    assert (end <= start + 1_000).all()
    last = np.flatnonzero(lane == MOST_LANES - 1)
    assert len(set(end[last].tolist())) == 1


def test_perfettos_own_classes_read_the_same(two_incidents: Report, spans: SpanTable) -> None:
    trace = Trace.FromString(written(two_incidents, spans))
    events = [packet.track_event for packet in trace.packet if packet.HasField("track_event")]
    begins = [event for event in events if event.type == event.TYPE_SLICE_BEGIN]
    ends = [event for event in events if event.type == event.TYPE_SLICE_END]
    assert len(begins) == len(ends) > len(spans)
    times = [packet.timestamp for packet in trace.packet if packet.HasField("track_event")]
    assert times == sorted(times)
    named = {
        track.uuid
        for packet in trace.packet
        if packet.HasField("track_descriptor")
        for track in [packet.track_descriptor]
    }
    assert {event.track_uuid for event in events} <= named
    texts = {name.iid for packet in trace.packet for name in packet.interned_data.event_names}
    assert {event.name_iid for event in begins if event.name_iid} <= texts


def test_hostile_names_are_shown_and_have_no_effect(
    two_incidents: Report, spans: SpanTable
) -> None:
    raw = written(two_incidents, spans)
    assert b"\x1b" not in Trace.FromString(raw).packet[-1].SerializeToString()
    names = [
        name.name
        for packet in Trace.FromString(raw).packet
        for name in packet.interned_data.event_names
    ]
    assert any("\\x1b[2J" in name for name in names)
    assert not any("\x1b" in name or "\u202e" in name for name in names)


@pytest.mark.parametrize("make", ["nothing", "abstained", "no ranks"])
def test_odd_recordings_are_traces_too(make: str, tmp_path: Path) -> None:
    spans = {
        "nothing": SpanTable.empty,
        "abstained": lambda: samples.table(ranks=2, layers=1),
        "no ranks": lambda: hand_made({"start_ns": -5, "duration_ns": 2**62, "stream": -1}),
    }[make]()
    report = samples.abstained()
    (rows,) = of(report, spans, tmp_path, "select count(*) as n from slice")
    assert rows == [{"n": len(spans)}]


def test_what_is_written_comes_in_pieces() -> None:
    spans = samples.table(layers=2_000)
    report = samples.report(spans, samples.late_launch(spans))
    sizes: list[int] = []

    class Out(io.BytesIO):
        def write(self, data: Any, /) -> int:
            sizes.append(len(data))
            return len(data)

    write_perfetto(report, spans, Out())
    assert sum(sizes) > 4_000_000
    assert max(sizes) < 8_000_000


def test_a_real_recording_loses_nothing(dlrm: SpanTable, tmp_path: Path) -> None:
    from kat_otel.kernels import classify
    from kat_otel.ttad import analyze

    table, _ = classify(dlrm)
    report = analyze(dlrm)
    kept = "select count(*) as n from slice where category not like 'kat.%'"
    (slices, arrows) = of(report, table, tmp_path, kept, "select count(*) as n from flow")
    assert slices == [{"n": len(table)}]
    assert arrows[0]["n"] > 1_000
