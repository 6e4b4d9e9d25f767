"""A batch is settled when the last claim on it goes, and never before."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kat_otel.processor.ledger import Ledger


def test_a_batch_is_settled_with_its_last_claim():
    settled = []
    ledger = Ledger(settled.extend)
    ledger.claim([1, 2])
    ledger.claim([2])
    ledger.release([1, 2])
    assert settled == [1]
    ledger.release([2])
    assert settled == [1, 2]
    assert len(ledger) == 0


def test_letting_go_of_what_nobody_claimed_is_a_defect():
    ledger = Ledger([].extend)
    ledger.claim([1])
    ledger.release([1])
    with pytest.raises(KeyError):
        ledger.release([1])


def test_batches_released_together_are_settled_together():
    calls = []
    ledger = Ledger(calls.append)
    ledger.claim([3, 4, 5])
    ledger.release([3, 4, 5])
    assert calls == [[3, 4, 5]]


@given(st.lists(st.integers(0, 5), min_size=1, max_size=60), st.randoms())
def test_whatever_the_order_every_batch_is_settled_once(claims, random):
    settled = []
    ledger = Ledger(settled.extend)
    ledger.claim(claims)
    released = list(claims)
    random.shuffle(released)
    for at, receipt in enumerate(released):
        ledger.release([receipt])
        assert (receipt in settled) == (receipt not in released[at + 1 :])
    assert sorted(settled) == sorted(set(claims))


def test_threads_do_not_lose_a_claim():
    settled = []
    ledger = Ledger(settled.extend)
    ledger.claim([7] * 4_000)

    def let_go() -> None:
        for _ in range(1_000):
            ledger.release([7])

    threads = [threading.Thread(target=let_go) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert settled == [7]
