"""``kat rules``: writes the files, tells which are out of date, and takes a budget."""

from __future__ import annotations

import pytest

from kat_otel.cli import main


def test_it_writes_both_files_and_names_them(tmp_path, capsys):
    assert main(["rules", "--out", str(tmp_path / "new")]) == 0
    named = capsys.readouterr().out.split()
    assert named == [str(tmp_path / "new" / f"kat-{name}.yaml") for name in ("recording", "alerts")]


def test_a_check_of_another_budget_tells_the_command_that_makes_its_files(tmp_path, capsys):
    main(["rules", "--out", str(tmp_path), "--budget", "0.02"])
    assert main(["rules", "--out", str(tmp_path), "--budget", "0.02", "--check"]) == 0
    (tmp_path / "kat-alerts.yaml").write_text("groups: []\n")
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(["rules", "--out", str(tmp_path), "--budget", "0.02", "--check"])
    assert ended.value.code == 1
    assert capsys.readouterr().err == (
        f"out of date: {tmp_path / 'kat-alerts.yaml'} -> kat rules --budget 0.02 --out {tmp_path}\n"
    )
    assert (tmp_path / "kat-alerts.yaml").read_text() == "groups: []\n"


@pytest.mark.parametrize("budget", ["0", "0.2", "1%"])
def test_a_budget_that_could_not_be_exceeded_or_always_is_no_budget(tmp_path, capsys, budget):
    assert main(["rules", "--out", str(tmp_path), "--budget", budget]) == 2
    assert "--budget" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
