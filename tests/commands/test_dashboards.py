"""``kat dashboards``: writes the files, tells which are out of date, and what it needs."""

from __future__ import annotations

import importlib.util

import pytest

from kat_otel.cli import main


def test_it_writes_the_four_files_and_names_them(tmp_path, capsys):
    folder = tmp_path / "new" / "folder"
    assert main(["dashboards", "--out", str(folder)]) == 0
    named = capsys.readouterr().out.split()
    assert named == [str(folder / f"kat-{name}.json") for name in _NAMES]
    assert all((folder / f"kat-{name}.json").stat().st_size > 10_000 for name in _NAMES)


def test_a_check_tells_the_file_that_is_out_of_date_and_the_command(tmp_path, capsys):
    main(["dashboards", "--out", str(tmp_path)])
    assert main(["dashboards", "--out", str(tmp_path), "--check"]) == 0
    (tmp_path / "kat-fleet.json").write_text("{}")
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(["dashboards", "--out", str(tmp_path), "--check"])
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert said == (
        f"out of date: {tmp_path / 'kat-fleet.json'} -> kat dashboards --out {tmp_path}\n"
    )
    assert (tmp_path / "kat-fleet.json").read_text() == "{}"


def test_without_grafanas_sdk_it_says_what_to_install(tmp_path, monkeypatch, capsys):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "kat_otel.commands.dashboards.find_spec",
        lambda name: None if name == "grafana_foundation_sdk" else find(name),
    )
    assert main(["dashboards", "--out", str(tmp_path)]) == 2
    assert "pip install 'kat-otel[processor,dashboards]'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_an_error_with_its_name(tmp_path, capsys):
    file = tmp_path / "file"
    file.touch()
    assert main(["dashboards", "--out", str(file / "below")]) == 2
    assert f"{file / 'below'}: the dashboards cannot be written" in capsys.readouterr().err


_NAMES = ("fleet", "instance", "incident", "processor")
