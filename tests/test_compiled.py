"""Compiled code is kept where it can be, for any CPU, and never believed when it is stale."""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from kat_otel import compiled

SOURCE = """
from kat_otel.compiled import njit
import helper

@njit("int64(int64)", uses=(helper,))
def twice(value):
    return 2 * value
"""


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """A package folder, a home cache and a temporary directory of their own."""
    made = {name: tmp_path / name for name in ("package", "cache", "temporary")}
    for folder in made.values():
        folder.mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(made["cache"]))
    monkeypatch.setattr(compiled.tempfile, "tempdir", str(made["temporary"]))
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    return made


def block(folder: Path, name: str) -> None:
    """Nobody can make a folder where a file is: holds for root too, unlike permissions."""
    (folder / name).write_text("in the way")


def load(folder: Path, monkeypatch: pytest.MonkeyPatch, helper: str = "") -> Any:
    (folder / "helper.py").write_text(helper)
    (folder / "kernel.py").write_text(SOURCE)
    spec = importlib.util.spec_from_file_location("helper", folder / "helper.py")
    assert spec is not None
    monkeypatch.setitem(sys.modules, "helper", importlib.util.module_from_spec(spec))
    spec = importlib.util.spec_from_file_location("kernel", folder / "kernel.py")
    assert spec is not None
    assert spec.loader is not None
    module: ModuleType = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "kernel", module)  # the kept code names its module
    spec.loader.exec_module(module)
    return module.twice


def was_kept(function: Any) -> bool:
    return bool(sum(function.stats.cache_hits.values()))


def test_the_first_folder_that_can_be_written_keeps_the_code(folders, caplog):
    source = str(folders["package"] / "kernel.py")
    assert compiled.cache_folder(source) == folders["package"] / "__pycache__"
    (folders["package"] / "__pycache__").rmdir()
    block(folders["package"], "__pycache__")
    assert folders["cache"] in compiled.cache_folder(source).parents
    for made in sorted(folders["cache"].rglob("*"), reverse=True):
        made.rmdir()
    block(folders["cache"], "kat-otel")
    assert folders["temporary"] in compiled.cache_folder(source).parents


def test_numbas_own_setting_goes_before_all(folders, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(folders["temporary"] / "mine"))
    found = compiled.cache_folder(str(folders["package"] / "kernel.py"))
    assert found.parent == folders["temporary"] / "mine"


def test_where_nothing_can_be_written_code_is_compiled_in_memory_and_that_is_said(
    folders, monkeypatch, caplog
):
    monkeypatch.setattr(compiled, "_is_ours_to_write", lambda _: False)
    with caplog.at_level(logging.WARNING):
        twice = load(folders["package"], monkeypatch)
    assert twice(21) == 42
    assert "can be kept nowhere" in caplog.text
    assert "NUMBA_CACHE_DIR" in caplog.text


def test_code_that_was_warmed_beside_the_source_is_used_from_a_read_only_file_system(
    folders, monkeypatch, caplog
):
    assert not was_kept(load(folders["package"], monkeypatch))
    monkeypatch.setattr(compiled, "_is_ours_to_write", lambda _: False)
    with caplog.at_level(logging.WARNING):
        twice = load(folders["package"], monkeypatch)
    assert was_kept(twice)
    assert twice(21) == 42
    assert caplog.text == ""


def test_kept_code_is_stale_when_an_inlined_module_changes(folders, monkeypatch):
    load(folders["package"], monkeypatch)
    assert was_kept(load(folders["package"], monkeypatch))
    assert not was_kept(load(folders["package"], monkeypatch, helper="changed = True\n"))


@pytest.mark.parametrize("kept", ["*.nbi", "*.nbc"])
def test_damaged_code_is_made_anew_and_that_is_said(folders, monkeypatch, caplog, kept):
    load(folders["package"], monkeypatch)
    (file,) = (folders["package"] / "__pycache__").glob(kept)
    file.write_bytes(file.read_bytes()[:-9])  # a power failure in mid-write
    with caplog.at_level(logging.WARNING):
        twice = load(folders["package"], monkeypatch)
    assert twice(21) == 42
    assert not was_kept(twice)
    assert "damaged" in caplog.text
    assert was_kept(load(folders["package"], monkeypatch))


def test_a_folder_that_others_may_write_is_not_trusted(folders):
    beside = folders["package"] / "__pycache__"
    beside.mkdir()
    beside.chmod(0o777)
    assert compiled.cache_folder(str(folders["package"] / "kernel.py")) != beside


@pytest.mark.skipif(
    "NUMBA_CPU_NAME" in os.environ, reason="another CPU was asked for: unset NUMBA_CPU_NAME"
)
def test_code_is_compiled_for_the_baseline_not_for_the_machine_at_hand(folders, monkeypatch):
    twice = load(folders["package"], monkeypatch)
    _, cpu, features = twice.targetctx.codegen().magic_tuple()
    assert (cpu, features) == (compiled.BASELINE, "")
