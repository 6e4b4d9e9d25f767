"""The native library puts kernels and calls in the form that NumPy puts them in."""

from __future__ import annotations

from functools import partial

import numpy as np
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from kat_otel.instrumentation.capture.library import load
from kat_otel.instrumentation.capture.records import API, KERNEL, Batch
from kat_otel.instrumentation.steps.forms import CALL, WORK
from kat_otel.instrumentation.steps.names import Names
from kat_otel.instrumentation.steps.putting import Putting
from kat_otel.instrumentation.steps.waiting import Waiting
from tests.instrumentation import needs

needs.compiler()

TEXTS = (
    "", "cudaLaunchKernel", "cudaDeviceSynchronize", "cudaMalloc", "gemm", "_Z4gemmPf",
    "ncclDevKernel_AllReduce_Sum_f32_RING_LL(x)", "ncclDevKernel_SendRecv(x)",
)  # fmt: skip


def numbers(random: np.random.Generator, dtype: np.dtype, count: int) -> np.ndarray:
    """Anything that may stand in a record."""
    info = np.iinfo(dtype)
    wild = random.integers(info.min, info.max, count, dtype, endpoint=True)
    return np.where(random.random(count) < 0.8, random.integers(0, 9, count), wild).astype(dtype)


def batch(seed: int, texts: int, kernels: int, calls: int) -> Batch:
    random = np.random.default_rng(seed)
    work, apis = np.zeros(kernels, KERNEL), np.zeros(calls, API)
    for records in (work, apis):
        for name in set(records.dtype.names) - {"name", "grid", "block", "driver"}:
            records[name] = numbers(random, records.dtype[name], len(records))
        records["start"] &= 2**60
        records["name"] = random.integers(0, texts, len(records))
    for name in ("grid", "block"):
        for side in range(3):
            work[name][:, side] = numbers(random, np.dtype(np.int32), kernels)
    if seed % 2:
        work["graph"] = work["graph_node"] = 0
    return Batch(strings=TEXTS[:texts], kernels=work, apis=apis)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 999),
            st.integers(1, len(TEXTS)),
            st.integers(0, 400),
            st.integers(0, 400),
        ),
        min_size=1,
        max_size=4,
    )
)
@examples(max_examples=150, deadline=None)
def test_whatever_the_records(said) -> None:
    ours_named, theirs_named = Names(), Names()
    ours = Waiting(ours_named, partial(Putting, library=load()))
    theirs = Waiting(theirs_named, Putting)
    texts = 1
    for seed, more, kernels, calls in said:
        texts = max(texts, more)  # only ever grow
        one = batch(seed, texts, kernels, calls)
        ours.add(one)
        theirs.add(one)
    assert list(ours_named.strings) == list(theirs_named.strings)
    for form in (WORK, CALL):
        assert len(ours.of(form)) == len(theirs.of(form))
        for name in form.names:
            assert ours.of(form)[name].tolist() == theirs.of(form)[name].tolist(), name


def test_what_was_seen_once_is_found_by_the_library() -> None:
    names = Names()
    waiting = Waiting(names, partial(Putting, library=load()))
    one = batch(3, len(TEXTS), 300, 300)
    for column in ("grid", "block"):
        one.kernels[column] %= 5
    one.kernels["device"] = one.kernels["stream"] = 1
    waiting.add(one)
    putting = waiting._putting
    work, calls = np.zeros(300, WORK), np.zeros(300, CALL)
    library = load()
    assert putting._native(library.kat_form_kernels, one.kernels, TEXTS, work) is None
    assert putting._native(library.kat_form_calls, one.apis, TEXTS, calls) is None
    assert work.tolist() == waiting.of(WORK).tolist()


def test_names_beyond_the_batchs_texts_are_missed_not_read() -> None:
    putting = Putting(Names(), Waiting(Names()).lanes, load())
    kernels = np.zeros(2, KERNEL)
    kernels["name"] = 7, 2**32 - 1
    missed = putting._native(load().kat_form_kernels, kernels, ("",), np.zeros(2, WORK))
    assert missed is not None
    assert (missed & 1).all()
