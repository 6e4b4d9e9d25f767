"""The two tiers whole: eight workers send digests over HTTP to a real ``kat process``; one turns
slow; the process asks over the control channel; all eight send the same steps whole, recorded
and next; the full detector names the culprit and its kernel.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from pathlib import Path

import pytest
from pydantic import SecretStr

from kat_otel.config import (
    AuthConfig,
    Config,
    ControlConfig,
    DigestsConfig,
    ExporterConfig,
    HttpReceiverConfig,
    ReceiverConfig,
)
from kat_otel.identity import trace_ids
from kat_otel.instrumentation.sending.control import Control
from kat_otel.instrumentation.sending.counts import Counts
from kat_otel.instrumentation.sending.export import Exporter, deliveries
from kat_otel.instrumentation.sending.sender import Sender
from kat_otel.instrumentation.settings import Settings
from kat_otel.instrumentation.steps.step import Step
from kat_otel.kernels import semantics
from kat_otel.lmdia import kernel_names
from kat_otel.lmdia.inject import slow_kernels
from kat_otel.lmdia.recording import Group
from kat_otel.processor.server import Processor
from kat_otel.spans import SpanTable
from kat_otel.verdict import Report
from tests.instrumentation.simulated import NONCE, Track, program_of, steps_of, worker_of

TOKEN = "s3cret"
RANKS, CULPRIT, SICK_FROM, MOST_STEPS = 8, 5, 16, 400
CAPTURE_STEPS = 3
PACE_S = 0.03


class Judged:
    """What came out of the processor, by tier."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.digests: list[Report] = []
        self.whole: list[tuple[Report, SpanTable]] = []

    def all_whole(self) -> bool:
        """Whether all that was asked for is here: recorded steps, and those that came next."""
        return min(map(len, split_by_trace(self.whole))) >= CAPTURE_STEPS

    def take(self, report: Report, table: SpanTable) -> None:
        with self.changed:
            if table.on_gpu.any():
                self.whole.append((report, table))
            else:
                self.digests.append(report)
            self.changed.notify_all()


@pytest.mark.timeout(60)
def test_a_finding_on_digests_brings_whole_steps_of_all_eight_and_names_the_kernel(
    tmp_path: Path,
) -> None:
    token_file = tmp_path / "token"
    token_file.write_text(f"{TOKEN}\n")
    group = Group(program_of(RANKS, layers=6), 600)
    operations = group.program.operations
    attention = [i for i, op in enumerate(operations) if op.name == kernel_names.ATTENTION]
    sick = slow_kernels(group.program, CULPRIT, attention, 2.0).program
    judged = Judged()
    config = Config(
        receiver=ReceiverConfig(
            endpoint="127.0.0.1:0", http=HttpReceiverConfig(endpoint="127.0.0.1:0")
        ),
        exporter=ExporterConfig(endpoint=None),
        control=ControlConfig(
            endpoint="127.0.0.1:0", auth=AuthConfig(token=SecretStr(TOKEN)), poll_interval=0.1
        ),
        digests=DigestsConfig(capture_steps=CAPTURE_STEPS, captures_per_hour=1),
    )
    counts = [Counts() for _ in range(RANKS)]
    with Processor(config, on_report=judged.take) as processor:
        settings = Settings(
            control_endpoint=f"http://127.0.0.1:{processor.control_port}/v1/opamp",
            control_token_file=str(token_file),
            sample_every=0,
            budget=0.0,
        )
        environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{processor.http_port}"}
        tracks = [Track(worker_of(group, rank)) for rank in range(RANKS)]
        threads = [
            threading.Thread(
                target=Sender(
                    settings,
                    track,
                    track,
                    Exporter(deliveries(environment), counts[rank]),
                    Control(settings, counts[rank]),
                    counts=counts[rank],
                ).run,
                args=(10.0,),
            )
            for rank, track in enumerate(tracks)
        ]
        for thread in threads:
            thread.start()
        behind: list[Step] = []
        for step in range(MOST_STEPS):
            # The last rank is a step behind, so that one step always lacks it: there is no lull.
            *ones, last = steps_of(group, step, sick if step >= SICK_FROM else None)
            for track, one in zip(tracks, [*ones, *behind], strict=False):
                track.put(one)
            behind = [last]
            with judged.changed:
                if judged.changed.wait_for(judged.all_whole, PACE_S):
                    break
        came_in_the_stream = judged.all_whole()  # which has not paused
        tracks[-1].put(*behind)
        for track in tracks:
            track.put(None)
        for thread in threads:
            thread.join(15)

    assert came_in_the_stream
    failed = ("steps.failed", "batches.failed", "captures.missed", "whole.dropped:closed")
    assert {name: sum(c[name] for c in counts) for name in failed} == dict.fromkeys(failed, 0)
    early = [r for r in judged.digests if r.steps[0].step < SICK_FROM]
    assert [r.incidents for r in early if r.incidents] == []
    first = next(r for r in judged.digests if r.incidents)
    assert first.incidents[0].culprit.ranks == [CULPRIT]

    steps = {report.steps[0].step: table for report, table in judged.whole}
    recorded, coming = split_by_trace(judged.whole)
    assert len(recorded) == len(coming) == CAPTURE_STEPS
    assert max(recorded) < min(coming)
    for table in steps.values():
        assert sorted(set(table.rank.tolist())) == list(range(RANKS))
        assert (table.parent[table.on_gpu] >= 0).all()  # whole trees
    sick_ones = [report for report, _ in judged.whole if report.steps[0].step >= SICK_FROM]
    assert len(sick_ones) >= CAPTURE_STEPS
    for report in sick_ones:
        (incident,) = report.incidents
        assert incident.culprit.ranks == [CULPRIT]
        assert incident.id == first.incidents[0].id  # one cause, one incident, over both tiers
        assert incident.kind == "slow_kernel"
        work = [s for s in incident.spans if s.rank == CULPRIT and not semantics(s.name)]
        assert {span.name for span in work} == {kernel_names.ATTENTION}
    balance = processor.books.balance()
    assert balance.pending == 0, str(balance)


def split_by_trace(whole: list[tuple[Report, SpanTable]]) -> tuple[list[int], list[int]]:
    """Steps that came under a capture's trace, and those under their own."""
    own: dict[bool, list[int]] = defaultdict(list)
    for report, table in whole:
        step = report.steps[0].step
        high, low = trace_ids(NONCE, table.step[:1])
        mine = bool((table.trace_hi == high[0]).all() and (table.trace_lo == low[0]).all())
        own[mine].append(step)
    return own[False], own[True]
