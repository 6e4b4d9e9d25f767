"""States of instances outlive their process, move with the instance, and never harm the next."""

from __future__ import annotations

import logging
import os
import resource
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kat_otel.errors import ConfigError
from kat_otel.processor import shared_folder, state, state_file
from kat_otel.processor.state import StateStore, owner_of


def files(directory: Path, suffix: str = ".state") -> list[Path]:
    return sorted(p for p in directory.iterdir() if p.suffix == suffix)


def test_a_state_is_there_after_a_restart(tmp_path: Path) -> None:
    StateStore(tmp_path).save("a", b"first")
    store = StateStore(tmp_path)
    assert store.load("a") == b"first"
    assert store.load("b") is None
    store.save("a", b"second")
    assert StateStore(tmp_path).load("a") == b"second"


def test_without_a_directory_nothing_is_kept() -> None:
    store = StateStore(None)
    store.save("a", b"data")
    assert store.load("a") is None


def test_only_the_owner_may_read_the_directory(tmp_path: Path) -> None:
    StateStore(tmp_path / "deep" / "state").save("a", b"data")
    assert (tmp_path / "deep" / "state").stat().st_mode & 0o777 == 0o700
    assert {p.stat().st_mode & 0o777 for p in files(tmp_path / "deep" / "state")} == {0o600}


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.text(), st.binary(min_size=1), max_size=5))
def test_any_name_is_a_good_name(
    tmp_path_factory: pytest.TempPathFactory, kept: dict[str, bytes]
) -> None:
    directory = tmp_path_factory.mktemp("names")
    store = StateStore(directory)
    for instance, data in kept.items():
        store.save(instance, data)
    assert {p.parent for p in directory.rglob("*")} <= {directory}
    again = StateStore(directory)
    assert {instance: again.load(instance) for instance in kept} == kept


def test_a_directory_that_cannot_be_made_is_a_matter_of_configuration(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"state\.directory: .*file/state: .* — give"):
        StateStore(tmp_path / "file" / "state")


# --- two processors ------------------------------------------------------------------------


def test_the_newer_owner_wins_and_the_older_stops_writing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    marks: Counter[str] = Counter()
    older = StateStore(tmp_path, mark=lambda name: marks.update([name]))
    older.load("a")
    older.save("a", b"before the move")
    newer = StateStore(tmp_path)
    assert newer.load("a") == b"before the move"
    with caplog.at_level(logging.WARNING):
        older.save("a", b"stale")
        older.save("a", b"staler")
    assert not older.owns("a")
    assert newer.owns("a")
    assert marks == {"states taken over": 1}
    assert [r.message.split(";")[0] for r in caplog.records] == [
        "instance a: another processor has taken it over"
    ]
    newer.save("a", b"after the move")
    assert StateStore(tmp_path).load("a") == b"after the move"


def test_an_owner_that_has_not_saved_yet_is_an_owner_too(tmp_path: Path) -> None:
    older, newer = StateStore(tmp_path), StateStore(tmp_path)
    older.load("a")
    newer.load("a")
    older.save("a", b"stale")
    newer.save("a", b"new")
    assert StateStore(tmp_path).load("a") == b"new"


def test_an_instance_that_moves_back_is_owned_again(tmp_path: Path) -> None:
    first, second = StateStore(tmp_path), StateStore(tmp_path)
    first.load("a")
    second.load("a")
    second.save("a", b"second")
    first.save("a", b"stale")
    assert first.load("a") == b"second"
    first.save("a", b"first again")
    second.save("a", b"stale")
    assert first.owns("a")
    assert not second.owns("a")
    assert StateStore(tmp_path).load("a") == b"first again"


def test_old_steps_read_what_another_has_by_now_and_take_nothing(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.mkdir()
    former = StateStore(tmp_path / "state", owner=owner_of(log))
    for instance in ("moved", "stayed"):
        former.load(instance)
        former.save(instance, b"before the death")
    other = StateStore(tmp_path / "state")
    other.load("moved")
    other.save("moved", b"since then")
    again = StateStore(tmp_path / "state", owner=owner_of(log))
    assert again.load("moved", back=True) == b"since then"
    assert again.load("stayed", back=True) == b"before the death"
    again.save("moved", b"old steps")
    again.save("stayed", b"old steps")
    other.save("moved", b"and on")
    assert other.owns("moved")
    assert StateStore(tmp_path / "state").load("stayed") == b"old steps"
    # What is sent here now says that the instance is here.
    assert again.is_elsewhere("moved")
    assert again.load("moved") == b"and on"
    again.save("moved", b"new steps")
    assert other.is_elsewhere("moved")


def test_other_instances_are_not_touched_by_a_move(tmp_path: Path) -> None:
    first, second = StateStore(tmp_path), StateStore(tmp_path)
    first.save("a", b"a")
    first.save("b", b"b")
    second.load("a")
    first.save("b", b"b2")
    assert second.load("b") == b"b2"


def test_a_clock_that_stands_behind_does_not_make_an_older_owner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    older, newer = StateStore(tmp_path), StateStore(tmp_path)
    older.load("a")
    monkeypatch.setattr(state.time, "time_ns", lambda: 1)
    newer.load("a")
    older.save("a", b"stale")
    assert not older.owns("a")
    assert newer.owns("a")


def test_a_directory_locked_for_long_is_an_error_not_a_standstill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = StateStore(tmp_path)
    store.save("a", b"data")
    monkeypatch.setattr(shared_folder, "_LOCK_WAIT_S", 0.02)
    with (
        shared_folder.locked(tmp_path),
        pytest.raises(TimeoutError, match="keeps the directory locked"),
    ):
        store.save("a", b"more")


# --- files that are not what was written ---------------------------------------------------


def spoiled(raw: bytes) -> dict[str, bytes]:
    return {
        "empty": b"",
        "cut in the head": raw[:10],
        "cut in the data": raw[:-1],
        "longer": raw + b"x",
        "a bit": raw[:-3] + bytes([raw[-3] ^ 1]) + raw[-2:],
        "another format": b"\x00" * 100,
        "another version": raw[:7] + b"\x02" + raw[8:],
    }


@pytest.mark.parametrize("how", spoiled(b" " * 60))
def test_a_damaged_file_is_set_aside_and_said(
    tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    StateStore(tmp_path).save("a", b"precious data")
    (path,) = files(tmp_path)
    path.write_bytes(spoiled(path.read_bytes())[how])
    kept = path.read_bytes()
    store = StateStore(tmp_path)
    with caplog.at_level(logging.WARNING):
        assert store.load("a") is None
    assert path.with_suffix(".bad").read_bytes() == kept
    assert "instance a: its state is set aside as" in caplog.text
    store.save("a", b"new")
    assert StateStore(tmp_path).load("a") == b"new"


def test_a_file_damaged_while_it_is_ours_is_set_aside_too(tmp_path: Path) -> None:
    store = StateStore(tmp_path)
    store.save("a", b"data")
    (path,) = files(tmp_path)
    path.write_bytes(b"rot")
    store.save("a", b"more")
    assert StateStore(tmp_path).load("a") == b"more"
    assert path.with_suffix(".bad").read_bytes() == b"rot"


def test_the_file_of_another_instance_is_not_believed(tmp_path: Path) -> None:
    store = StateStore(tmp_path)
    store.save("a", b"of a")
    store.save("b", b"of b")
    of_a = state_file.path_of(tmp_path, "a")
    of_a.replace(state_file.path_of(tmp_path, "b"))
    assert StateStore(tmp_path).load("b") is None


def test_a_huge_file_is_set_aside_without_being_read(tmp_path: Path) -> None:
    path = state_file.path_of(tmp_path, "a")
    with path.open("wb") as file:
        file.truncate(1 << 40)  # sparse
    assert StateStore(tmp_path).load("a") is None
    assert path.with_suffix(".bad").exists()


def test_a_state_too_large_is_refused_and_the_last_one_stays(tmp_path: Path) -> None:
    store = StateStore(tmp_path)
    store.save("a", b"small")
    with pytest.raises(OSError, match="too large"):
        store.save("a", bytes(state_file.MAX_BYTES))
    assert store.load("a") == b"small"


# --- bounds --------------------------------------------------------------------------------


def test_old_states_and_what_was_left_half_written_go(tmp_path: Path) -> None:
    store = StateStore(tmp_path)
    for instance in ("old", "new"):
        store.save(instance, b"data")
    old = state_file.path_of(tmp_path, "old")
    draft = old.with_suffix(".1234.draft")
    draft.write_bytes(b"half")
    for path in (old, draft):
        os.utime(path, (0, 0))
    StateStore(tmp_path)
    assert files(tmp_path) == [state_file.path_of(tmp_path, "new")]
    assert not draft.exists()


def test_files_are_bounded_in_number_and_the_longest_unchanged_go(tmp_path: Path) -> None:
    store = StateStore(tmp_path)
    for number in range(6):
        store.save(str(number), b"data")
        os.utime(state_file.path_of(tmp_path, str(number)), (1e9 * 1.7 + number,) * 2)
    StateStore(tmp_path, max_instances=4, max_age=1e10)
    left = {state_file.path_of(tmp_path, str(number)) for number in range(2, 6)}
    assert set(files(tmp_path)) == left


def test_what_is_not_ours_in_the_directory_stays(tmp_path: Path) -> None:
    (tmp_path / "README").write_text("mine")
    os.utime(tmp_path / "README", (0, 0))
    StateStore(tmp_path)
    assert (tmp_path / "README").exists()


# --- death and a full disk -----------------------------------------------------------------

SAVER = """
import sys
from pathlib import Path
from kat_otel.processor.state import StateStore
store = StateStore(Path(sys.argv[1]))
number = 0
while True:
    number += 1
    store.save("a", number.to_bytes(8, "big") * 50_000)
    print(number, flush=True)
"""


@pytest.mark.parametrize("after", [1, 7, 23])
def test_a_kill_in_the_middle_of_a_save_leaves_the_last_or_the_next(
    tmp_path: Path, after: int
) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", SAVER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    lines = [child.stdout.readline() for _ in range(after)]
    child.send_signal(signal.SIGKILL)
    lines += child.stdout.readlines()
    child.wait()
    child.stdout.close()
    said = max(int(line) for line in lines if line.endswith("\n"))
    data = StateStore(tmp_path).load("a")
    assert data is not None
    assert data == data[:8] * 50_000
    assert said <= int.from_bytes(data[:8], "big") <= said + 1


def test_a_disk_that_takes_no_more_leaves_the_last_state(tmp_path: Path) -> None:
    store = StateStore(tmp_path)
    store.save("a", b"small")
    _, hard = limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(OSError, match="too large"):
            store.save("a", bytes(200_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert store.load("a") == b"small"
    assert files(tmp_path, ".draft") == []


def test_a_name_too_long_for_the_file_costs_the_memory_not_the_step(tmp_path: Path) -> None:
    marks = Counter[str]()
    store = StateStore(tmp_path, mark=lambda name: marks.update([name]))
    name = "n" * 70_000
    assert store.load(name) is None
    assert marks == {"states not written": 1}
    with pytest.raises(OSError, match="name of 70,000 bytes"):
        store.save(name, b"data")
    assert files(tmp_path) == []
