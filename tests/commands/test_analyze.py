"""``kat analyze`` on real traces: what it prints, what it writes, how it ends."""

from __future__ import annotations

import json
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from kat_otel.cli import main
from kat_otel.report.schema import published_schema
from kat_otel.verdict import Report, from_json

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def dlrm_files(traces: Path) -> Path:
    return traces / "dlrm_8rank"


@pytest.fixture
def healthy(traces: Path) -> Path:
    return traces / "nsys_h100_2gpu_wan_sp2"


def report_of(capsys: Capture) -> Report:
    out = capsys.readouterr().out
    jsonschema.validate(json.loads(out), published_schema())
    return from_json(out)


def test_text_names_a_culprit_in_the_first_line(dlrm_files: Path, capsys: Capture) -> None:
    assert main(["analyze", str(dlrm_files)]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith("rank")
    assert " wait " in first
    assert first.endswith("— sure")


def test_json_is_the_report_object_and_names_rank_7(dlrm_files: Path, capsys: Capture) -> None:
    assert main(["analyze", str(dlrm_files), "--format", "json"]) == 0
    report = report_of(capsys)
    assert [7] in [incident.culprit.ranks for incident in report.incidents]
    assert len(report.source.files) == 8


def test_html_goes_to_a_file_that_is_named(
    dlrm_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["analyze", str(dlrm_files), "--format", "html"]) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "kat: wrote kat-report.html\n"
    assert 'data-kat="timeline"' in (tmp_path / "kat-report.html").read_text("utf-8")


def test_a_perfetto_trace_goes_to_a_file_that_is_named(
    dlrm_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["analyze", str(dlrm_files), "--format", "perfetto"]) == 0
    assert "kat: wrote kat-report.pftrace" in capsys.readouterr().err
    made = (tmp_path / "kat-report.pftrace").read_bytes()
    assert b"make ranks 0-3 and 6-7 wait" in made
    assert main(["analyze", str(dlrm_files), "--output", "again.pftrace"]) == 0
    assert (tmp_path / "again.pftrace").read_bytes() == made


@pytest.mark.parametrize(
    ("name", "begins"), [("r.json", "{"), ("r.html", "<!doctype html>"), ("r.txt", "rank")]
)
def test_the_ending_of_the_output_tells_its_form(
    dlrm_files: Path, tmp_path: Path, name: str, begins: str
) -> None:
    target = tmp_path / name
    assert main(["analyze", str(dlrm_files), "--output", str(target)]) == 0
    assert target.read_text("utf-8").lstrip().startswith(begins)
    assert [path.name for path in tmp_path.iterdir()] == [name], "a temporary file was left"
    assert stat.S_IMODE(target.stat().st_mode) & 0o444 == 0o444


def test_an_output_that_cannot_be_written_is_exit_code_2(
    dlrm_files: Path, tmp_path: Path, capsys: Capture
) -> None:
    target = tmp_path / "missing" / "r.json"
    assert main(["analyze", str(dlrm_files), "--output", str(target)]) == 2
    error = capsys.readouterr().err
    assert str(target) in error
    assert "choose another --output" in error


def test_fail_on_incident_is_exit_code_1(dlrm_files: Path, healthy: Path) -> None:
    assert main(["analyze", str(dlrm_files), "--fail-on-incident"]) == 1
    assert main(["analyze", str(healthy), "--fail-on-incident"]) == 0


def test_a_healthy_recording_says_so_in_the_first_line(healthy: Path, capsys: Capture) -> None:
    assert main(["analyze", str(healthy)]) == 0
    assert capsys.readouterr().out.startswith("No incident: ranks 0-1")


def test_an_abstention_says_why_in_the_first_line(traces: Path, capsys: Capture) -> None:
    assert main(["analyze", str(traces / "hta_sampled_2of128"), "--fail-on-incident"]) == 0
    assert capsys.readouterr().out.startswith("No verdict: not alignable — only ")


def test_a_file_that_cannot_be_read_is_exit_code_2_and_the_others_are_reported(
    dlrm_files: Path, tmp_path: Path, capsys: Capture
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(dlrm_files, folder)
    broken = folder / "worker9.json"
    broken.write_bytes(b'{"traceEvents": [{"ph": "X", "na')
    assert main(["analyze", str(folder), "--format", "json", "--fail-on-incident"]) == 2
    captured = capsys.readouterr()
    assert str(broken) in captured.err
    assert len(captured.err.splitlines()) == 1
    assert "Traceback" not in captured.err
    report = from_json(captured.out)
    assert [7] in [incident.culprit.ranks for incident in report.incidents]


def test_a_path_that_does_not_exist_is_exit_code_2(tmp_path: Path, capsys: Capture) -> None:
    assert main(["analyze", str(tmp_path / "gone")]) == 2
    captured = capsys.readouterr()
    assert "gone" in captured.err
    assert captured.out == ""


def test_an_empty_folder_is_exit_code_2_with_a_remedy(tmp_path: Path, capsys: Capture) -> None:
    assert main(["analyze", str(tmp_path)]) == 2
    assert str(tmp_path) in capsys.readouterr().err


def test_a_baseline_of_itself_shows_no_regression(healthy: Path, capsys: Capture) -> None:
    assert main(["analyze", str(healthy), "--baseline", str(healthy)]) == 0
    assert capsys.readouterr().out.startswith("No incident")


def test_a_baseline_that_cannot_be_read_is_no_silent_comparison_with_nothing(
    healthy: Path, tmp_path: Path, capsys: Capture
) -> None:
    assert main(["analyze", str(healthy), "--baseline", str(tmp_path / "gone")]) == 2
    assert "no healthy recording could be read" in capsys.readouterr().err


def test_a_reader_that_hangs_up_is_no_error(dlrm_files: Path) -> None:
    script = "import sys; from kat_otel.cli import main; sys.exit(main(sys.argv[1:]))"
    with subprocess.Popen(
        [sys.executable, "-c", script, "analyze", str(dlrm_files), "--format", "json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        said = process.stderr.read()
        process.wait(timeout=60)
    assert "Traceback" not in said
    assert "Exception ignored" not in said
