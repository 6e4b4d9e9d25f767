"""All ranks derive the same ids; the worker step says what the assembler wants to know."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from kat_otel import identity, semconv
from kat_otel.digest import decode
from kat_otel.fields import REST
from kat_otel.instrumentation.capture.records import StepFlag
from kat_otel.instrumentation.sending.digests import Digests
from kat_otel.instrumentation.sending.ids import (
    described,
    digest_span,
    identified,
    links_bytes,
    with_digest,
)
from kat_otel.instrumentation.sending.pack import Packer, request
from kat_otel.lmdia.recording import Group
from kat_otel.lmdia.table import to_table
from kat_otel.otlp import decode_traces, link_parents
from tests.instrumentation.simulated import NONCE, ZERO_NS, bare, steps_of, worker_of


def test_ids_are_those_of_the_simulator_and_so_of_all_parts(pair: Group) -> None:
    noisy, times = pair.play(7)
    theirs = to_table(noisy, times, step=7, zero_unix_ns=ZERO_NS, nonce=NONCE, rows=[1])
    ours = identified(described(bare(theirs), worker_of(pair, 1)), 1, NONCE, 7, 0)
    for name in ("trace_hi", "trace_lo", "span_id", "parent_id", "step"):
        assert (getattr(ours, name) == getattr(theirs, name)).all(), name
    assert ours.attributes == theirs.attributes
    assert ours.resources == theirs.resources


def test_ranks_share_the_trace_and_nothing_else(pair: Group) -> None:
    tables = [
        identified(described(step, worker_of(pair, rank)), rank, NONCE, 7, 0)
        for rank, step in enumerate(steps_of(pair, 7))
    ]
    assert len({(int(t.trace_hi[0]), int(t.trace_lo[0])) for t in tables}) == 1
    ids = np.concatenate([t.span_id for t in tables])
    assert len(np.unique(ids)) == len(ids)
    root = identity.root_span_id(tables[0].trace_lo[:1])[0]
    assert {int(t.parent_id[0]) for t in tables} == {int(root)}
    for table in tables:
        linked = link_parents(table)
        assert (linked.parent == table.parent).all()


def test_steps_and_micro_batches_are_traces_of_their_own(pair: Group) -> None:
    step = steps_of(pair, 7)[0]
    table = described(step, worker_of(pair, 0))
    keys = {
        int(identified(table, 0, nonce, number, micro).trace_lo[0])
        for nonce in (NONCE, NONCE + 1)
        for number in (7, 8)
        for micro in (0, 1, 2)
    }
    assert len(keys) == 12


def test_the_digest_is_of_the_whole_and_says_so_alone(pair: Group) -> None:
    step = replace(steps_of(pair, 7)[0], lost=3)
    worker, digests = worker_of(pair, 0), Digests()
    table = with_digest(step, worker, digests, named=True)
    packed = digest_span(Packer(), step, worker, digests, named=True)
    alone = decode_traces(b"".join(request(worker.resource, [packed])))
    assert len(alone) == 1
    said = alone.attributes[0]
    assert (said[semconv.SPAN_COUNT], said[semconv.GROUP_SIZE]) == (1, 2)
    digest = decode(said[semconv.DIGEST])
    assert digest.kernels > 10
    assert digest.dropped == said[semconv.DROPPED_COUNT] == 3
    assert "nvjet" in said[semconv.DIGEST_NAMES]
    whole = identified(table, 0, NONCE, 7, 0)
    for name in ("trace_hi", "trace_lo", "span_id", "parent_id", "start_ns", "duration_ns"):
        assert getattr(whole, name)[0] == getattr(alone, name)[0], name
    assert whole.attributes[0][semconv.SPAN_COUNT] == len(whole)
    unnamed = with_digest(step, worker, digests, named=False)
    assert semconv.DIGEST_NAMES not in unnamed.attributes[0]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (StepFlag.NONE, {}),
        (StepFlag.PREFILL, {semconv.PHASE: "prefill"}),
        (StepFlag.DECODE, {semconv.PHASE: "decode"}),
        (StepFlag.PREFILL | StepFlag.DECODE, {semconv.PHASE: "mixed"}),
        (StepFlag.DUMMY, {semconv.DUMMY: True}),
    ],
)
def test_what_the_engine_says_stands_on_the_worker_step(pair: Group, flags, said) -> None:
    step = replace(steps_of(pair, 7)[0], flags=flags, micro=1)
    attributes = described(step, worker_of(pair, 0)).attributes[0]
    known = {k: v for k, v in attributes.items() if k in {semconv.PHASE, semconv.DUMMY}}
    assert known == said
    assert attributes[semconv.MICRO] == 1


def test_links_that_are_none_are_left_out(pair: Group) -> None:
    good = ("ab" * 16, "cd" * 8)
    bad = [("", ""), ("ab", "cd"), ("zz" * 16, "cd" * 8), ("00" * 16, "cd" * 8), ("é", "è")]
    assert links_bytes((good, *bad)) == links_bytes((good,))
    assert len(links_bytes((good,) * 1_000)) == 128 * len(links_bytes((good,)))
    step = replace(steps_of(pair, 7)[0], links=(good,))
    assert described(step, worker_of(pair, 0)).attributes[0][REST] == links_bytes((good,))
    none = replace(step, links=tuple(bad))
    assert REST not in described(none, worker_of(pair, 0)).attributes[0]
