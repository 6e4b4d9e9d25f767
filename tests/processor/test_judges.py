"""What a judge has learnt outlives the process, and a shelf that fails never stops judging."""

import pytest

from kat_otel.processor.judges import Judges, Memory
from kat_otel.telemetry import Books


class Counting:
    """A judge that has learnt a number."""

    def __init__(self, learnt: int = 0) -> None:
        self.learnt = learnt


class Shelf(dict):
    """Keeps what is saved; broken if told so."""

    broken = False
    saves = 0

    def load(self, instance, *, back=False):
        del back
        return self.get(instance)

    def is_elsewhere(self, _instance):
        return False

    def save(self, instance, data):
        if self.broken:
            raise OSError("disk full")
        self.saves += 1
        self[instance] = data


def restore(data: bytes) -> Counting:
    return Counting(int(data))


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def books() -> Books:
    return Books()


@pytest.fixture
def make(shelf, books):
    def of() -> Judges:
        memory = Memory(shelf, lambda judge: str(judge.learnt).encode(), restore, 10.0)
        return Judges(Counting, books, memory)

    return of


def test_a_new_process_goes_on_where_the_old_one_stopped(make, books):
    old = make()
    old.of("a").learnt = 7
    old.judged("a", 0.0, news=False)
    old.close()
    assert make().of("a").learnt == 7
    assert books.marked("states restored") == 1


def test_news_are_written_at_once_and_the_rest_every_interval(make, shelf):
    judges = make()
    judges.of("a")
    for now, news, saves in [(0.0, False, 1), (1.0, False, 1), (2.0, True, 2), (11.9, False, 2)]:
        judges.judged("a", now, news=news)
        assert shelf.saves == saves
    judges.judged("a", 12.0, news=False)
    assert shelf.saves == 3


def test_a_damaged_state_is_said_and_the_judge_starts_anew(make, shelf, books, caplog):
    shelf["a"] = b"no number"
    assert make().of("a").learnt == 0
    assert books.marked("states unreadable") == 1
    assert "starts anew" in caplog.text


def test_a_shelf_that_fails_is_said_and_judging_goes_on(make, shelf, books):
    judges = make()
    judges.of("a")
    shelf.broken = True
    judges.judged("a", 0.0, news=True)
    assert books.marked("states not written") == 1
    assert judges.of("a").learnt == 0


def test_a_dismissed_judge_leaves_no_half_changed_state(make, shelf):
    judges = make()
    judges.of("a").learnt = 3
    judges.dismiss("a")
    judges.close()
    assert "a" not in shelf
    assert judges.of("a").learnt == 0


def test_a_retired_judge_comes_back_with_what_it_knew(make):
    judges = make()
    judges.of("a").learnt = 5
    judges.judged("a", 0.0, news=False)
    judges.of("a").learnt = 6
    judges.judged("a", 1.0, news=False)
    judges.retire("a")
    assert judges.of("a").learnt == 6


def test_without_a_memory_nothing_is_kept(books):
    judges = Judges(Counting, books)
    judges.of("a").learnt = 5
    judges.judged("a", 0.0, news=True)
    judges.retire("a")
    assert judges.of("a").learnt == 0


@pytest.fixture
def two_processors(tmp_path, books):
    """Judges of two processors that share a directory, and the clock that both look at."""
    from kat_otel.processor.state import StateStore

    clock = [0.0]

    def make() -> Judges:
        memory = Memory(
            StateStore(tmp_path), lambda judge: str(judge.learnt).encode(), restore, 0.0
        )
        return Judges(Counting, books, memory, clock=lambda: clock[0])

    return make(), make(), clock


def judge(judges: Judges, clock: list[float], learnt: int) -> None:
    judges.of("a").learnt += learnt
    judges.judged("a", clock[0], news=True)


def test_an_instance_that_comes_back_brings_what_was_learnt_elsewhere(two_processors):
    here, there, clock = two_processors
    judge(here, clock, 1)
    judge(there, clock, 10)
    clock[0] += 60.0
    judge(here, clock, 100)
    assert here.of("a").learnt == 111
    clock[0] += 60.0
    assert there.of("a").learnt == 111


def test_the_last_steps_of_an_instance_that_has_left_do_not_take_it_back(two_processors):
    here, there, clock = two_processors
    judge(here, clock, 1)
    judge(there, clock, 10)
    clock[0] += 0.1
    judge(here, clock, 1)  # had waited for a rank
    judge(there, clock, 10)
    clock[0] += 60.0
    assert here.of("a").learnt == 21


def test_old_steps_of_a_log_take_nothing_from_whoever_judges_the_instance_now(two_processors):
    here, there, clock = two_processors  # here is one that died, and is back
    judge(there, clock, 10)
    here.of("a", back=True).learnt += 1
    here.judged("a", clock[0], news=True)
    judge(there, clock, 10)
    clock[0] += 60.0
    assert there.of("a").learnt == 20
    # What is sent here says that the instance is here again, however soon it comes.
    here.of("a", back=True)
    assert here.of("a").learnt == 20
