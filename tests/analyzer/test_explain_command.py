"""``kat explain`` and ``kat analyze --explain``: what is printed, and what would be sent."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from kat_otel.cli import main
from kat_otel.report.html import render_html
from kat_otel.report.text import render_text
from kat_otel.verdict import from_json, to_json
from tests.analyzer.incidents import late_launch, report, steal
from tests.analyzer.openai_server import Said, keeps_schemas, serving
from tests.analyzer.test_check import good

Capture = pytest.CaptureFixture[str]
GOOD = json.dumps(good())


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "report.json"
    path.write_bytes(to_json(report(late_launch(more=(steal(),)))))
    return path


def test_without_an_endpoint_the_embedded_knowledge_explains(file: Path, capsys: Capture):
    assert main(["explain", str(file)]) == 0
    out = capsys.readouterr()
    assert out.out.startswith(
        "1. rank 7 makes ranks 0-6 wait 2 ms per step\n   rank 7: the process"
    )
    assert "cpu_contention, host_cpu, confidence 0.7 — by rules, knowledge 1" in out.out
    assert "   Why:\n   - Others hold the CPU" in out.out
    assert "[H1, E3, E4]" in out.out
    assert out.err == ""


def test_a_model_explains_and_its_cost_is_said(file: Path, capsys: Capture):
    with serving(keeps_schemas(lambda _: Said(GOOD))) as server:
        assert main(["explain", str(file), "--endpoint", server.url, "--model", "m"]) == 0
    out = capsys.readouterr()
    assert "confidence 0.7 — by model m, prompt 1" in out.out
    assert "launches late on node-0" in " ".join(out.out.split())
    assert "- process_pause (host_memory 0.2): for it E3; against it H1" in out.out
    assert out.err.startswith("kat: 1 of 1 explained by the model, 700 tokens sent, 90 received, ")


def test_where_the_model_is_not_taken_the_reasons_are_counted(file: Path, capsys: Capture):
    wrong = json.dumps(good(culprit_ranks=[3]))
    with serving(keeps_schemas(lambda _: Said(wrong))) as server:
        assert main(["explain", str(file), "--endpoint", server.url, "--model", "m"]) == 0
    out = capsys.readouterr()
    assert "by rules, knowledge 1; model m was not taken: culprit outside" in " ".join(
        out.out.split()
    )
    assert "kat: 0 of 1 explained by the model" in out.err
    assert "kat: not taken: culprit_outside 1" in out.err


def test_json_is_the_report_with_the_diagnosis_and_both_pages_say_who_made_it(
    file: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
):
    cites = good(causal_chain=[{"evidence_ids": ["H1", "C2"], "claim": "It lacks its CPU"}])
    monkeypatch.setenv("KAT_ANALYZER_KEY", "very-secret-key")
    with serving(keeps_schemas(lambda _: Said(json.dumps(cites | {"summary": ""})))) as server:
        options = ["--endpoint", server.url, "--model", "m", "--format", "json"]
        assert main(["explain", str(file), *options]) == 0
    assert server.headers[-1]["authorization"] == "Bearer very-secret-key"
    said = capsys.readouterr()
    assert "very-secret-key" not in said.out + said.err
    read = from_json(said.out)
    diagnosis = read.incidents[0].diagnosis
    assert diagnosis is not None
    assert (diagnosis["mode"], diagnosis["model"], diagnosis["prompt"]) == ("model", "m", "1")
    assert "by model m, prompt 1" in " ".join(render_text(read).split())
    page = render_html(read)
    assert "<dd>model m, prompt 1</dd>" in page
    assert "replayed without it, the step would be 2.00 ms shorter" in page


def test_the_dry_run_prints_word_for_word_what_is_sent_and_sends_nothing(
    file: Path, capsys: Capture
):
    with serving(keeps_schemas(lambda _: Said(GOOD))) as server:
        options = [str(file), "--endpoint", server.url, "--model", "m", "--send", "hardware,logs"]
        assert main(["explain", *options, "--dry-run", "--format", "json"]) == 0
        (would,) = json.loads(capsys.readouterr().out)
        assert server.requests == []
        assert main(["explain", *options, "--dry-run"]) == 0
        shown = capsys.readouterr().out
        assert server.requests == []
        assert main(["explain", *options]) == 0
    assert server.about == [would]
    for message in would["messages"]:
        assert message["content"] in shown
    assert "UTC" not in shown


def test_the_dry_run_needs_no_endpoint_and_no_package(
    file: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "openai", None)
    assert main(["explain", str(file), "--dry-run"]) == 0
    assert "E3: walked back from its late arrivals" in capsys.readouterr().out


def test_a_missing_package_is_named_with_the_command_that_installs_it(
    file: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "openai", None)
    options = ["--endpoint", "http://127.0.0.1:9/v1", "--model", "m"]
    assert main(["explain", str(file), *options]) == 2
    assert "pip install 'kat-otel[processor,analyzer]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--endpoint", "http://127.0.0.1:9/v1"], "name both"),
        (["--endpoint", "http://llm.example/v1", "--model", "m"], "insecure"),
        (["--send", "kernel_names"], "'kernel_names' is not known"),
    ],
)
def test_wrong_options_are_exit_code_2(
    file: Path, capsys: Capture, options: list[str], message: str
):
    assert main(["explain", str(file), *options]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"{", b'{"schema": "other"}', b"\xff\xfe", b"[]"])
def test_what_is_no_report_is_exit_code_2(tmp_path: Path, capsys: Capture, content: bytes):
    path = tmp_path / "r.json"
    path.write_bytes(content)
    assert main(["explain", str(path)]) == 2
    assert "no kat.report/v1" in capsys.readouterr().err
    assert main(["explain", str(tmp_path / "gone.json")]) == 2
    assert "cannot be read" in capsys.readouterr().err


def test_a_report_without_an_incident_says_so(tmp_path: Path, capsys: Capture):
    path = tmp_path / "r.json"
    path.write_bytes(to_json(report()))
    assert main(["explain", str(path)]) == 0
    assert capsys.readouterr().out.startswith("No incident")
    assert main(["explain", str(path), "--dry-run"]) == 0
    assert capsys.readouterr().out == "# no incident: nothing is sent\n"


def test_analyze_explains_real_traces(traces: Path, capsys: Capture):
    def answer(request: dict[str, Any]) -> Said:
        properties = request["response_format"]["json_schema"]["schema"]["properties"]
        links = properties["causal_chain"]["items"]["properties"]["evidence_ids"]["items"]["enum"]
        return Said(
            json.dumps(
                good(
                    root_cause="late_host",
                    culprit_ranks=properties["culprit_ranks"]["items"]["enum"],
                    causal_chain=[{"evidence_ids": [i for i in links if i[0] == "E"][:3]}],
                    hypotheses=[],
                    actions=[],
                    summary="",
                )
            )
        )

    folder = str(traces / "dlrm_8rank")
    with serving(keeps_schemas(answer)) as server:
        options = ["--explain", "--endpoint", server.url, "--model", "m", "--incidents", "1"]
        assert main(["analyze", folder, *options]) == 0
    out = capsys.readouterr().out
    assert "by model m, prompt 1" in out
    assert "late_host, host_cpu, confidence 0.7" in out
    assert main(["analyze", folder, "--explain"]) == 0
    assert "by rules, knowledge 1" in capsys.readouterr().out
    assert main(["analyze", folder, "--explain", "--dry-run"]) == 0
    assert "E1: ranks 4-5 arrive last at" in capsys.readouterr().out
    assert main(["analyze", folder, "--dry-run"]) == 2
    assert "--explain" in capsys.readouterr().err
