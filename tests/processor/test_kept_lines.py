"""Records of operators on disk: nobody undoes another's, and a spoilt file spoils nothing else."""

from pathlib import Path

import pytest

from kat_otel.operators import Silence
from kat_otel.processor import kept_lines, shared_folder
from kat_otel.processor.kept_lines import KeptLines
from kat_otel.telemetry import Books


def one(identity: str, reason: str = "") -> Silence:
    return Silence(id=identity, begin_unix_nano=1, end_unix_nano=2, ranks=(1,), reason=reason)


def kept(path: Path | None, most: int = 100, books: Books | None = None) -> KeptLines[Silence]:
    return KeptLines(path, Silence, most, (books or Books()).mark)


def add(lines: KeptLines[Silence], *identities: str) -> None:
    lines.change(lambda known: [*known, *map(one, identities)])


def ids(lines: KeptLines[Silence]) -> list[str]:
    return [record.id for record in lines.read()]


@pytest.fixture
def at_once(monkeypatch):
    """Looks at the file at every question instead of every second."""
    monkeypatch.setattr(kept_lines, "_LOOK_EVERY_S", 0.0)


def test_what_was_said_survives_the_process(tmp_path):
    add(kept(tmp_path / "new" / "silences.jsonl"), "a", "b")
    assert ids(kept(tmp_path / "new" / "silences.jsonl")) == ["a", "b"]


def test_without_a_file_it_is_kept_in_memory():
    lines = kept(None, most=2)
    add(lines, "a", "b", "c")
    assert ids(lines) == ["b", "c"]


def test_two_processors_of_a_folder_see_each_other_and_undo_nothing(tmp_path, at_once):
    path = tmp_path / "silences.jsonl"
    mine, other = kept(path), kept(path)
    add(mine, "a")
    add(other, "b")  # made to what the file holds, not to what was read before
    assert ids(mine) == ids(other) == ["a", "b"]
    mine.change(lambda known: [record for record in known if record.id != "a"])
    assert ids(other) == ["b"]


def test_beyond_the_bound_the_oldest_go(tmp_path, monkeypatch):
    lines = kept(tmp_path / "silences.jsonl", most=3)
    add(lines, *"abcd")
    assert ids(lines) == ["b", "c", "d"]
    monkeypatch.setattr(kept_lines, "_MAX_BYTES", 500)
    lines.change(lambda known: [*known, one("e", "x" * 250)])
    assert ids(lines) == ["e"]


@pytest.mark.parametrize(
    "spoilt", [b"{", b'{"id": "a"}\n', b"\xff\xfe\n", b"[]\n"], ids=["cut", "less", "bytes", "list"]
)
def test_a_spoilt_file_is_set_aside_and_counted_and_the_next_change_works(tmp_path, spoilt):
    path, books = tmp_path / "silences.jsonl", Books()
    path.write_bytes(spoilt)
    lines = kept(path, books=books)
    assert ids(lines) == []
    assert path.with_suffix(".bad").read_bytes() == spoilt
    assert books.marked("operators' files set aside") == 1
    add(lines, "a")
    assert ids(kept(path)) == ["a"]


def test_a_file_spoilt_while_running_leaves_what_it_said(tmp_path, at_once):
    path = tmp_path / "silences.jsonl"
    lines = kept(path)
    add(lines, "a")
    path.write_bytes(b"spoilt")
    assert ids(lines) == ["a"]
    add(lines, "b")
    assert ids(kept(path)) == ["a", "b"]


def test_a_disk_that_does_not_take_it_leaves_all_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "silences.jsonl"
    lines = kept(path)
    add(lines, "a")

    def full(file: int, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shared_folder, "_write_all", full)
    with pytest.raises(OSError, match="No space left"):
        add(lines, "b")
    assert ids(lines) == ids(kept(path)) == ["a"]
    assert [file.name for file in tmp_path.iterdir() if file.suffix == ".draft"] == []
