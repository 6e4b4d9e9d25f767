"""The native library's digests are those of NumPy, byte for byte."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kat_otel import semconv
from kat_otel.digest import decode, digest_of, encode
from kat_otel.instrumentation.capture.library import load
from kat_otel.instrumentation.sending.digests import Digests
from kat_otel.lmdia.recording import Group
from kat_otel.readers import read
from kat_otel.spans import NO_PARENT, Resource, SpanKind, SpanTable, SpanTableBuilder, StringTable
from tests.instrumentation import needs
from tests.instrumentation.simulated import steps_of

needs.compiler()

NAMES = (
    "gemm<float>(int)", "gemm<half>(int)", "attention", "Memcpy HtoD", "Memcpy DtoH", "Memcpy PtoP",
    "Memset (Device)", "ncclDevKernel_AllReduce_Sum_bf16_RING_LL()", "ncclDevKernel_SendRecv()", "",
)  # fmt: skip
GRIDS = ("", "1,1,1", "128,2,1", "no grid", "2147483647,65535,64")
GROUPS = ("", "tp", "00000000000abc12")


class Unmade(Digests):
    """Fails where NumPy would make the digest."""

    def of(self, table: SpanTable, resolution_ns: int, lost: int) -> bytes:
        length = self._native(table, resolution_ns, lost)
        assert length, "the native library did not make it"
        return self._digest[:length].tobytes()


def plain(table: SpanTable, resolution_ns: int = 1, lost: int = 0) -> bytes:
    return encode(replace(digest_of(table), dropped=lost, resolution_ns=resolution_ns))


def table_of(
    count: int, seed: int, *, worker_step: bool, launched: float, names: int, ordered: bool
) -> SpanTable:
    """Spans of all kinds whose times and parents are anyhow."""
    random = np.random.default_rng(seed)
    strings = StringTable()
    place = {text: strings.add(text) for text in (*NAMES, *GRIDS, *GROUPS)}
    many = [strings.add(f"kernel_{i}()") for i in range(names)]
    kinds = random.choice([0, 3, 4, 4, 4, 5, 6, 6, 6, 6, 7, 8, 9], count)
    if worker_step:
        kinds[0] = SpanKind.WORKER_STEP
    start = np.sort(random.integers(0, 10_000, count)) * 997 + 1_700_000_000_000_000_000
    if not ordered:
        random.shuffle(start)
    launches = np.flatnonzero(kinds == SpanKind.LAUNCH)
    parent = np.where(random.random(count) < 0.5, NO_PARENT, random.integers(0, count, count))
    some = random.random(count) < launched
    if len(launches):
        parent = np.where(some, launches[random.integers(0, len(launches), count)], parent)
    builder = SpanTableBuilder(strings)
    builder.add_resource(Resource())
    builder.append(
        count,
        kind=kinds,
        start_ns=start,
        duration_ns=random.integers(0, int(random.choice([10, 2_000, 10**7, 2**43])), count),
        parent=parent,
        name=random.choice([place[name] for name in NAMES] + many, count),
        grid=random.choice([place[grid] for grid in GRIDS], count),
        group=random.choice([place[group] for group in GROUPS], count),
        bytes=random.integers(-1, 2**40, count),
        resource=0,
    )
    return builder.build()


tables = st.builds(
    table_of,
    st.integers(1, 700),
    st.integers(0, 2**32),
    worker_step=st.booleans(),
    launched=st.sampled_from([0.0, 0.5, 1.0]),
    names=st.sampled_from([0, 3, 40, 200]),
    ordered=st.booleans(),
)


@settings(max_examples=300, deadline=None)
@given(tables, st.sampled_from([1, 1_000, 2**33]), st.integers(0, 2**34))
def test_bytes_are_numpys_whatever_the_spans(
    table: SpanTable, resolution_ns: int, lost: int
) -> None:
    assert Digests(load()).of(table, resolution_ns, lost) == plain(table, resolution_ns, lost)


def test_steps_that_share_their_texts_share_what_these_say(pair: Group) -> None:
    digests = Unmade(load())
    for number in range(4):
        for step in steps_of(pair, number):
            assert digests.of(step.table, 1, number) == plain(step.table, 1, number)


@pytest.mark.parametrize(
    "folder", ["dlrm_8rank", "nsys_h100_2gpu_wan_sp2", "vllm_gptoss_b200_tp8_rank0"]
)
def test_real_steps_are_made_by_the_library(traces: Path, folder: str) -> None:
    table = read([traces / folder]).table
    digests, seen = Unmade(load()), 0
    for rank in np.unique(table.rank).tolist():
        for step in np.unique(table.step[table.rank == rank]).tolist():
            one = table.take((table.rank == rank) & (table.step == step))
            one = replace(one, resources=(Resource(),), resource=np.zeros(len(one), np.int32))
            assert digests.of(one, 1, 0) == plain(one)
            seen += 1
    assert seen


def test_columns_of_one_value_are_read_as_such(pair: Group) -> None:
    table = steps_of(pair, 1)[0].table
    one = np.broadcast_to(table.group[:1], len(table))
    spread = replace(table, group=np.ascontiguousarray(one))
    assert Unmade(load()).of(replace(table, group=one), 1, 0) == plain(spread)


def test_what_does_not_fit_is_merged_by_numpy() -> None:
    table = table_of(3_000, 5, worker_step=True, launched=1.0, names=900, ordered=True)
    assert not Digests(load())._native(table, 1, 0)
    assert Digests(load()).of(table, 1_000, 7) == plain(table, 1_000, 7)


def test_rows_that_make_no_sense_are_left_to_numpy(pair: Group) -> None:
    table = steps_of(pair, 1)[0].table
    wrong = replace(table, parent=np.full(len(table), len(table), np.int32))
    assert not Digests(load())._native(wrong, 1, 0)
    unknown = replace(table, name=np.full(len(table), len(table.strings), np.int32))
    assert not Digests(load())._native(unknown, 1, 0)


def test_a_new_table_of_texts_is_not_taken_for_the_old_one() -> None:
    digests = Unmade(load())
    for seed in range(3):
        table = table_of(60, seed, worker_step=True, launched=1.0, names=seed, ordered=True)
        assert digests.of(table, 1, 0) == plain(table)


def test_without_the_library_numpy_makes_them(pair: Group) -> None:
    step = steps_of(pair, 1)[0]
    digest = decode(Digests().of(step.table, 1, 3))
    assert digest.dropped == 3
    assert semconv.DROPPED_COUNT not in step.table.attributes.get(0, {})


def test_nothing_has_no_digest() -> None:
    with pytest.raises(ValueError, match="there are none"):
        Digests(load()).of(SpanTable.empty(), 1, 0)
