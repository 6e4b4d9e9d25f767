"""A silenced incident is followed, and is no page, until the silence ends by itself."""

import msgspec
import pytest

from kat_otel.processor.silences import SilenceError, Silences
from kat_otel.verdict import Report
from tests.report import samples
from tests.report.live_samples import S, incident, silence


class Clock:
    now = 1_000 * S

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def report(*incidents) -> Report:
    return samples.report(samples.table(), *incidents)


def test_it_takes_the_page_and_leaves_the_judges_own_incident_as_it_is(clock):
    silences = Silences(clock=clock)
    made = silences.add(silence(), 60)
    found, other = incident(), incident("other", ranks=[3])
    said = report(found, other)
    assert silences.hush("llama", said) == {found.id: made}
    assert [one.page for one in said.incidents] == [False, True]
    assert found.page
    assert silences.hush("qwen", report(found)) == {}


def test_it_ends_by_itself(clock):
    silences = Silences(clock=clock)
    silences.add(silence(), 60)
    clock.now += 60 * S - 1
    assert silences.of("llama", incident()) is not None
    clock.now += 1
    assert silences.of("llama", incident()) is None
    assert silences.active() == []
    said = report(incident())
    assert silences.hush("llama", said) == {}
    assert said.incidents[0].page


def test_it_outlives_the_process_but_not_its_time(clock, tmp_path):
    file = tmp_path / "silences.jsonl"
    made = Silences(file, clock=clock).add(silence(), 60)
    assert Silences(file, clock=clock).active() == [made]
    clock.now += 61 * S
    assert Silences(file, clock=clock).active() == []


def test_of_several_the_one_that_ends_last_is_told(clock):
    silences = Silences(clock=clock)
    silences.add(silence(), 60)
    last = silences.add(silence(ranks=(), kind="late_launch"), 120)
    silences.add(silence(), 30)
    assert silences.of("llama", incident()) == last
    assert [one.end_unix_nano // S - 1_000 for one in silences.active()] == [30, 60, 120]


def test_it_can_be_ended_before_its_time(clock):
    silences = Silences(clock=clock)
    made, other = silences.add(silence(), 60), silences.add(silence(instance="qwen"), 60)
    assert silences.end(made.id, "ann") == made
    assert silences.active() == [other]
    with pytest.raises(SilenceError, match=f"in force: {other.id}"):
        silences.end(made.id, "ann")


def test_there_is_an_end_to_silences_but_ended_ones_make_room(clock):
    silences = Silences(clock=clock)
    for _ in range(1_000):
        silences.add(silence(), 60)
    with pytest.raises(SilenceError, match="end some"):
        silences.add(silence(), 60)
    clock.now += 61 * S
    assert silences.add(silence(), 60) in silences.active()


def test_an_incident_that_was_no_page_is_told_as_silenced_too(clock):
    silences = Silences(clock=clock)
    silences.add(silence(), 60)
    quiet = msgspec.structs.replace(incident(), page=False)
    assert list(silences.hush("llama", report(quiet))) == [quiet.id]
