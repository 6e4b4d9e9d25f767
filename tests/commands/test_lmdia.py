"""`kat lmdia` as people call it: cases made, judged, compared and told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from kat_otel.commands import kat
from kat_otel.lmdia.dataset.collection import cases_of
from kat_otel.lmdia.dataset.files import has_case
from kat_otel.made_files import put_between
from kat_otel.readers import read

pytest.importorskip("sklearn")
pytest.importorskip("pyarrow")

TESTED = "gpt-oss-120b.vllm.prefill"
CHOSEN_ON = "qwen3-8b.vllm.decode"


def _run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(kat, ["lmdia", *map(str, arguments)], catch_exceptions=False)


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("lmdia")
    assert _run("generate", "--size", "sample", "--out", out).exit_code == 0
    return out


def test_a_sample_is_small_and_says_what_it_is(sample: Path) -> None:
    cases = cases_of("sample", ["test"])
    assert [f.name for f in sorted((sample / "test").iterdir())] == sorted(c.name for c in cases)
    assert all(has_case(sample / "test" / c.name) for c in cases)
    assert sum(f.stat().st_size for f in sample.rglob("*") if f.is_file()) < 20e6
    card = (sample / "CARD.md").read_text()
    for said in ("gpu_instability", "clock_offset", "deepseek-v3.sglang.decode", "Limits"):
        assert said in card
    assert json.loads((sample / "croissant.json").read_text())["@type"] == "sc:Dataset"


def test_a_sample_is_read_as_any_trace(sample: Path) -> None:
    (case, *_) = sorted((sample / "test").iterdir())
    found = read([case])
    assert not found.errors
    assert len(found.table) > 1000


def test_what_is_whole_is_not_made_again(sample: Path) -> None:
    labels = {p: p.stat().st_mtime_ns for p in sample.rglob("label.json")}
    assert _run("generate", "--size", "sample", "--out", sample).exit_code == 0
    assert {p: p.stat().st_mtime_ns for p in sample.rglob("label.json")} == labels


@pytest.mark.slow
def test_cases_are_judged_compared_and_written_into_a_page(tmp_path: Path) -> None:
    records = tmp_path / "said.jsonl"
    few = ("gpu_instability", "clock_offset", "healthy")
    judge = ("evaluate", "--size", "small", "--out", records)
    judge = (*judge, *(word for name in few for word in ("--scenario", name)))
    one = _run(*judge, "--split", "test", "--task", TESTED)
    assert one.exit_code == 0
    assert "faults found" in one.output
    refused = CliRunner().invoke(kat, ["lmdia", "compare", str(records)])
    assert refused.exit_code != 0
    assert "--split validation" in str(refused.exception)
    assert _run(*judge, "--split", "validation", "--task", CHOSEN_ON).exit_code == 0
    page = tmp_path / "benchmark.md"
    page.write_text("before\n<!-- figures -->\nto go\n<!-- /figures -->\nafter\n")
    assert _run("compare", records, "--docs", tmp_path).exit_code == 0
    text = page.read_text()
    assert "to go" not in text
    assert text.startswith("before\n<!-- figures -->")
    assert text.endswith("<!-- /figures -->\nafter\n")
    for said in ("## By scenario", "`gpu_instability`", "| isolation forest |", "How soon"):
        assert said in text
    for plot in ("benchmark-severity.svg", "benchmark-false-alarms.svg"):
        assert (tmp_path / "images" / plot).read_text().startswith("<?xml")


def test_a_case_is_told() -> None:
    case = next(c for c in cases_of("small", ["test"]) if c.name.startswith(f"{TESTED}.gpu_inst"))
    told = _run("explain", case.name).output
    assert f"{case.name}: fault gpu_instability" in told
    assert "truth: the GPU's clock is locked low" in told
    assert "scored: " in told


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("explain", "gpt-oss-120b.vllm.prefill.nothing"), "no case of the benchmark"),
        (("generate", "--task", "gpt-5", "--out", "x"), "--task gpt-5: there is none"),
        (("generate", "--scenario", "flood", "--out", "x"), "--scenario flood: no case chosen"),
    ],
)
def test_what_is_not_there_is_named(arguments: tuple[str, ...], said: str) -> None:
    result = CliRunner().invoke(kat, ["lmdia", *arguments])
    assert result.exit_code != 0
    assert said in str(result.exception)


def test_a_page_without_marks_is_named(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("nothing\n")
    with pytest.raises(Exception, match="has no lines <!-- figures -->"):
        put_between(page, "figures", "x")
