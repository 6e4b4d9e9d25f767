"""The picture of kat top: it fits every window, and the first line of an incident says it all."""

import io
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from kat_otel.live import LeftOut, LiveCondition, read_live
from kat_otel.report.top import Picture, render_top
from tests.report.live_samples import (
    NOW,
    WELL,
    S,
    incident,
    live,
    live_incident,
    live_instance,
    silence,
)

SOURCE = "http://127.0.0.1:55679"


def drawn(now, width: int = 80, height: int = 24, **said) -> list[str]:
    """The lines of a window, without what a terminal adds at their end."""
    out = io.StringIO()
    console = Console(file=out, width=width, height=height, force_terminal=True, color_system=None)
    console.print(Picture(now, SOURCE, **said), height=height)
    return [line.rstrip() for line in out.getvalue().splitlines()]


@pytest.mark.parametrize(("width", "height"), [(80, 24), (200, 50)])
def test_the_first_line_of_an_incident_says_who_whom_what_it_costs_and_which_component(
    width, height
):
    lines = drawn(live(), width, height)
    said = "rank 5 makes ranks 0-4 and 6-7 wait 2.4 ms per step: host_cpu 71 %"
    assert f" PAGE  {said}" in lines
    assert lines.index(f" PAGE  {said}") == 3  # after two lines of the processor's own, and a rule


def test_instances_say_step_time_pace_gpus_coverage_and_their_latest_ranks():
    text = "\n".join(drawn(live(), 200, 50))
    (row,) = re.findall(r"^llama  .*", text, re.MULTILINE)
    assert re.search(r"17.2 ms +55.2 +8/8 +99 % +5 ██████ +2.4 ms +1 \S+ +310 µs", row)
    (narrow,) = [line for line in drawn(live()) if line.startswith("llama")]
    assert re.search(r"17.2 ms +55.2 +8/8 +99 % +5 ██████ +2.4 ms$", narrow)
    assert any("63/64" in line for line in drawn(live()))


def test_all_sentences_come_before_the_proof_of_any():
    small = "\n".join(drawn(live(), 80, 14))
    assert "rank 1 makes" in small
    assert "fact 1" not in small
    large = "\n".join(drawn(live(), 80, 40))
    assert "fact 1" in large
    assert "next: See what held" in large


def test_a_silenced_incident_says_until_when_by_whom_and_why():
    text = "\n".join(drawn(live(), 80, 40))
    assert " mute  rank 1 makes" in text
    assert "silenced for 2 h by ann@ops, ticket 4711" in text
    assert "1 page  1 silenced" in text


def test_what_an_operator_said_of_it_stands_there():
    found = live(incidents=[live_incident(incident(), feedback="false")])
    assert "called false" in "\n".join(drawn(found))


def test_what_does_not_fit_is_counted():
    many = [live_incident(incident(f"{n:012x}", ranks=[n])) for n in range(8)] * 5
    lines = drawn(live(incidents=many, left_out=LeftOut(incidents=7)), 80, 20)
    shown = sum(" PAGE " in line for line in lines)
    assert shown > 4
    assert f"and {40 - shown + 7} more incidents" in "\n".join(lines)


def test_a_processor_that_is_away_leaves_its_last_picture_and_says_so():
    lines = drawn(
        live(), away=f"{SOURCE} does not answer (refused)", now_ns=NOW + 12 * S, seen_ns=NOW
    )
    text = "\n".join(lines)
    assert "○ away" in lines[0]
    assert "does not answer (refused)" in text
    assert "as it was 12 s ago" in text
    assert "rank 5 makes" in text
    first = "\n".join(drawn(None, away="refused"))
    assert "refused" in first
    assert "comes back by itself" in first


def test_what_must_hold_and_does_not_stands_at_the_top():
    full = LiveCondition(name="log", ok=False, detail="4,096 of 4,096 MiB in use")
    lines = drawn(live(conditions=[WELL, full]))
    assert "✗ log" in lines[0]
    assert lines[2] == "log: 4,096 of 4,096 MiB in use"


def test_silence_of_an_instance_and_what_was_not_judged_are_seen():
    gone = live_instance("gone", judged_unix_nano=NOW - 3_600 * S)
    unjudged = live_instance("odd", abstained="too few counterparts")
    text = "\n".join(drawn(live(instances=[gone, unjudged]), 200, 50))
    assert "silent 60 min gone" in text
    assert "not judged: too few counterparts" in text


def test_nothing_to_see_is_said():
    quiet = "\n".join(drawn(live(incidents=[])))
    assert "✓ no incident" in quiet
    assert "no step was judged yet" in "\n".join(drawn(live(incidents=[], instances=[])))


def test_names_from_workers_and_operators_move_no_cursor():
    evil = "\x1b[2J\u202eevil\n"
    found = live(
        instances=[live_instance(evil, model=evil)],
        incidents=[
            live_incident(incident(evil), instance=evil),
            live_incident(incident(), quiet=silence(by=evil, reason=evil)),
        ],
    )
    for text in ("\n".join(drawn(found, 80, 60)), render_top(found, SOURCE)):
        assert not re.search(r"\x1b\[2J|\u202e", text)
        assert r"\x1b[2J\u202eevil\n" in text


def test_a_pipe_gets_all_of_it_and_no_escape():
    text = render_top(live(), SOURCE)
    assert "\x1b" not in text
    assert text.count("fact 3") == 2  # of both that are not silenced
    assert all(line == line.rstrip() for line in text.splitlines())


@settings(max_examples=60, deadline=None)
@given(
    st.integers(40, 220),
    st.integers(10, 60),
    st.integers(0, 30),
    st.integers(0, 30),
    st.text(max_size=60),
)
def test_every_window_holds_it(width, height, incidents, instances, name):
    found = live(
        incidents=[
            live_incident(incident(f"{n:012x}", ranks=list(range(n))), instance=name)
            for n in range(incidents)
        ],
        instances=[live_instance(f"{name}{n}") for n in range(instances)],
        left_out=LeftOut(incidents=3, instances=2),
    )
    lines = drawn(found, width, height)
    assert len(lines) <= height
    assert max(cell_len(line) for line in lines) <= width
    assert any(line.startswith("instances ─") for line in lines)


def test_the_object_reads_back():
    import msgspec

    assert read_live(msgspec.json.encode(live())) == live()
