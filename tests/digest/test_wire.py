"""The digest's bytes: bounded, exact to the stated quantum, and never trusted."""

from __future__ import annotations

import tracemalloc
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kat_otel.digest import MAX_BYTES, Digest, class_hash, decode, encode
from kat_otel.digest.form import MAX_POSITIONS, OTHER, WHAT, pack_short, unpack_short
from kat_otel.errors import DecodeError
from kat_otel.kernels import Semantics

HOUR_NS = 3_600_000_000_000


def a_digest(
    seed: int = 1, *, collectives: int = 40, classes: int = 12, whats: int = 2, leads: bool = True
) -> Digest:
    """A digest with numbers drawn from a seed, in the sizes asked for."""
    rng = np.random.default_rng(seed)
    table = np.zeros(whats, WHAT)
    table["family"] = rng.integers(1, 2**32, whats)
    table["group"] = rng.integers(0, 2**32, whats)
    table["semantics"] = rng.integers(1, 3, whats)
    spent = (10 ** rng.uniform(3, 8, collectives)).astype(np.int64)
    shape = (classes, MAX_POSITIONS)
    hashes = np.unique(rng.integers(1, 2**32, 4 * classes + 4))[:classes]
    return Digest(
        start_ns=1_800_000_000_000_000_000 + seed,
        duration_ns=int(10 ** rng.uniform(5, 11)),
        ends=np.cumsum(spent + rng.integers(0, 10**6, collectives)),
        spent=spent,
        lead=rng.integers(0, 10**7, collectives) if leads else np.full(collectives, -1),
        what=rng.integers(0, max(whats, 1), collectives),
        whats=table,
        classes=hashes.astype(np.uint32),
        time=(10 ** rng.uniform(0, 9, shape)).astype(np.int64),
        longest=(10 ** rng.uniform(0, 9, shape)).astype(np.int64),
        count=rng.integers(0, 5000, shape),
        order=seed,
        kernels=123,
        dropped=4,
        launches=500,
        gap_ns=10**6,
        gap_max_ns=10**5,
        gap_at=7,
        sync_ns=99,
        blocks=10**9,
        copies=np.array([1, 2, 3, 4]),
        copy_bytes=np.array([5, 6, 7, 2**40]),
        copy_ns=np.array([10, 20, 30, 10**9]),
    )


def near(told: np.ndarray, true: np.ndarray) -> bool:
    """Within half a unit of the eleventh significant bit."""
    return bool((np.abs(told - true) <= np.maximum(true, 0) / 2048).all())


@given(st.lists(st.integers(0, HOUR_NS), min_size=1, max_size=50))
def test_a_short_is_right_to_one_part_in_2048(numbers: list[int]) -> None:
    values = np.array(numbers, np.int64)
    told = unpack_short(pack_short(values))
    assert near(told, values)
    assert (told[values < 2048] == values[values < 2048]).all()


def test_every_short_stands_for_itself() -> None:
    packed = pack_short(np.arange(2**16))
    assert (pack_short(unpack_short(packed)) == packed).all()


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**31),
    st.integers(0, 100),
    st.integers(0, 30),
    st.integers(1, 4),
    st.booleans(),
)
def test_what_fits_comes_back_to_its_quantum(
    seed: int, collectives: int, classes: int, whats: int, leads: bool
) -> None:
    true = a_digest(seed, collectives=collectives, classes=classes, whats=whats, leads=leads)
    told = decode(encode(true))
    assert (told.ends == true.ends).all()  # to the ns: the step is shorter than 4.29 s
    assert (told.what == true.what).all()
    assert (told.whats == true.whats).all()
    assert (told.classes == true.classes).all()
    for name in ("spent", "lead", "time", "longest", "count", "copy_ns"):
        assert near(getattr(told, name), getattr(true, name)) or not leads
    for field in fields(Digest):
        value = getattr(true, field.name)
        if isinstance(value, int):
            assert getattr(told, field.name) == value
    assert (told.copies == true.copies).all()
    assert (told.copy_bytes == true.copy_bytes).all()


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**31),
    st.integers(0, 20_000),
    st.integers(0, 600),
    st.integers(1, 400),
    st.booleans(),
)
def test_no_digest_is_longer_than_4096_bytes_and_it_says_what_was_merged(
    seed: int, collectives: int, classes: int, whats: int, leads: bool
) -> None:
    true = a_digest(seed, collectives=collectives, classes=classes, whats=whats, leads=leads)
    data = encode(true)
    told = decode(data)
    assert len(data) <= MAX_BYTES
    assert told.merged == 1 or len(told.ends) == -(-collectives // told.merged)
    kept = len(told.classes) - int(told.other_classes > 0)
    assert kept + told.other_classes == classes
    assert near(told.time.sum(), true.time.sum())  # nothing is lost, only merged
    assert near(told.spent.sum(), true.spent.sum())
    assert encode(true) == data


def test_a_large_step_keeps_its_collectives_and_its_largest_classes() -> None:
    true = a_digest(3, collectives=250, classes=60)
    told = decode(encode(true))
    assert told.merged == 1
    assert len(told.ends) == 250
    biggest = true.classes[np.argsort(-true.time.sum(axis=1))[:16]]
    assert np.isin(biggest, told.classes).all()


def test_classes_that_do_not_fit_are_other() -> None:
    told = decode(encode(a_digest(3, collectives=380, classes=100)))
    assert told.classes[0] == OTHER
    assert told.other_classes > 0


def test_a_pair_is_a_meeting_only_if_both_are() -> None:
    whats = np.zeros(2, WHAT)
    whats["semantics"] = [Semantics.BARRIER, Semantics.PAIRWISE]
    count = 1_000
    plain = a_digest(5, collectives=count, leads=False)
    true = Digest(
        **{f.name: getattr(plain, f.name) for f in fields(Digest)}
        | {"whats": whats, "what": np.arange(count) % 2}
    )
    told = decode(encode(true))
    assert told.merged > 1
    assert (told.whats["semantics"][told.what] == Semantics.PAIRWISE).all()


def test_an_unknown_version_is_refused_by_name() -> None:
    data = bytearray(encode(a_digest()))
    data[2] = 9
    with pytest.raises(DecodeError, match=r"version 9, version 1 is known"):
        decode(bytes(data))


@pytest.mark.parametrize("length", [0, 1, 139, 140, 4097, 10**6])
def test_other_lengths_are_refused(length: int) -> None:
    with pytest.raises(DecodeError):
        decode(bytes(length))


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 4095), st.integers(0, 255)), max_size=8),
    st.integers(-40, 40),
)
def test_mutated_bytes_are_a_digest_or_an_error(changes: list[tuple[int, int]], cut: int) -> None:
    data = bytearray(encode(a_digest(2)))
    data = data[:cut] if cut < 0 else data + bytes(cut)
    for place, value in changes:
        data[place % len(data)] = value
    try:
        told = decode(bytes(data))
    except DecodeError:
        return
    assert len(told.ends) == len(told.what)
    assert told.time.shape == told.count.shape


def test_no_header_makes_the_decoder_allocate_much() -> None:
    data = bytearray(encode(a_digest()))
    decode(bytes(data))
    tracemalloc.start()
    for place in range(140):
        for value in (0, 1, 127, 255):
            wrong = bytearray(data)
            wrong[place] = value
            try:
                decode(bytes(wrong))
            except DecodeError:
                continue
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 256 * 1024


def test_a_class_is_named_by_a_stable_number() -> None:
    assert class_hash("nvjet_tst") == 0xF0D65DAA
    assert class_hash("") == OTHER
    assert class_hash("a") != class_hash("b")
