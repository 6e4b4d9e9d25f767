"""Files that the code makes: written, and told apart from what was changed by hand."""

from kat_otel.made_files import differing, write


def test_a_file_that_was_changed_or_is_missing_is_noticed(tmp_path):
    made = {"a.json": "{}\n", "b.json": "[]\n", "c.yaml": "x: 1\n"}
    first, second, last = write(made, tmp_path / "new" / "folder")
    assert differing(made, tmp_path / "new" / "folder") == []
    first.write_text("{ }\n")
    last.unlink()
    assert differing(made, tmp_path / "new" / "folder") == [first, last]
    assert second.read_text() == "[]\n"
