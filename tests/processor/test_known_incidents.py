"""Which incidents can be spoken of, and what is said of those that cannot."""

import msgspec
import pytest

from kat_otel.processor.known_incidents import KnownIncidents, UnknownIncidentError
from tests.report.live_samples import incident


@pytest.fixture
def known() -> KnownIncidents:
    found = KnownIncidents()
    for identity in ("3fa90c12ab77", "3fa9ffffab77", "99110c12ab77"):
        found.update("llama", incident(identity))
    return found


def resolved(identity: str):
    return msgspec.structs.replace(incident(identity), status="resolved")


def test_an_id_or_a_beginning_that_fits_one_alone_is_enough(known):
    assert known.find("3fa90c12ab77").incident.id == "3fa90c12ab77"
    assert known.find("9911").incident.id == "99110c12ab77"
    with pytest.raises(UnknownIncidentError, match=r"3fa9 may be 3fa90c12ab77, 3fa9ffffab77"):
        known.find("3fa9")


@pytest.mark.parametrize("short", ["", "9", "991"])
def test_a_beginning_must_not_be_too_short(known, short):
    with pytest.raises(UnknownIncidentError, match="live are"):
        known.find(short)


def test_an_unknown_id_names_the_nearest_or_those_that_live(known):
    with pytest.raises(UnknownIncidentError, match="did you mean 99110c12ab77"):
        known.find("99110c21ab77")
    with pytest.raises(UnknownIncidentError, match="live are 99110c12ab77, 3fa9ffffab77"):
        known.find("zzzzzzzz")
    with pytest.raises(UnknownIncidentError, match="live are none"):
        KnownIncidents().find("zzzzzzzz")


def test_what_was_resolved_can_still_be_spoken_of_and_lives_again(known):
    known.update("llama", resolved("99110c12ab77"))
    assert known.find("9911").incident.status == "resolved"
    assert len(known.live()) == 2
    known.update("llama", incident("99110c12ab77"))
    assert known.find("9911").incident.status == "ongoing"


def test_it_is_bounded(known):
    for number in range(2_000):
        known.update("llama", incident(f"live-{number}"))
        known.update("llama", resolved(f"done-{number}"))
    assert len(known.live()) == 1_000
    with pytest.raises(UnknownIncidentError):
        known.find("done-1000")
    assert known.find("done-1999").instance == "llama"


def test_incidents_of_an_instance_that_is_gone_no_longer_live(known):
    known.update("qwen", incident("another-one"))
    known.forget("llama")
    assert [one.instance for one in known.live()] == ["qwen"]
    assert known.find("9911").instance == "llama"
