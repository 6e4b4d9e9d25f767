"""The knowledge file is refused as a whole, with the cause and what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from kat_otel.analyzer import embedded, load
from kat_otel.analyzer import knowledge as module
from kat_otel.errors import ConfigError

FILE = Path(module.__file__).with_name("knowledge.yaml")


def test_the_packages_own_is_sound():
    assert embedded() is embedded(), "read once"
    assert embedded().version


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("component: gpu_clock", "component: gpu_clok", "gpu_clok"),
        ("id: power_brake", "id: power_cap", "'power_cap' stands there 2 times"),
        ("title: the GPU is held", "title: 3 GPUs are held", "a number in title or says"),
        ("needs: [{signal: disk_error}]", "", "component 'storage' has 2 causes"),
        ("id: unexplained", "id: other", "'unexplained' is not there"),
        ("taskset -cp CORES PID", "taskset -cp {cores} PID", "{cores} is none of"),
        ("below: 4", "under: 4", "under"),
        ("causes:\n", "causes: [\n", "line"),
    ],
)
def test_what_is_wrong_is_named_with_file_and_place(tmp_path, old, new, said):
    text = FILE.read_text()
    assert old in text
    wrong = tmp_path / "mine.yaml"
    wrong.write_text(text.replace(old, new))
    with pytest.raises(ConfigError) as caught:
        load(wrong)
    assert said in str(caught.value)
    assert str(wrong) in str(caught.value)


def test_a_file_that_is_not_there_is_an_error_too(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path / "none.yaml")
