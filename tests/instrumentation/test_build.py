"""The native part is built at install where there is a compiler; without one the rest works."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType

from tests.instrumentation import needs

needs.compiler()

REPOSITORY = Path(__file__).resolve().parents[2]
LIBRARY = "kat_otel/instrumentation/native/libkat_capture.so"


def hook() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hatch_build", REPOSITORY / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def wheel(folder: Path, **environment: str) -> Path:
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    env = {**os.environ, **environment}
    done = subprocess.run(
        build, cwd=REPOSITORY, env=env, capture_output=True, text=True, check=True
    )
    (made,) = folder.glob("*.whl")
    (made.parent / "log").write_text(done.stdout + done.stderr)
    return made


def test_a_wheel_has_the_library_and_is_of_a_platform(tmp_path: Path) -> None:
    made = wheel(tmp_path)
    assert made.name.endswith(f"-py3-none-linux_{os.uname().machine}.whl")
    assert LIBRARY in zipfile.ZipFile(made).namelist()


def test_without_a_compiler_the_wheel_is_pure_and_says_what_is_off(tmp_path: Path) -> None:
    made = wheel(tmp_path, CC="/nowhere/cc")
    assert made.name.endswith("-py3-none-any.whl")
    assert LIBRARY not in zipfile.ZipFile(made).namelist()
    assert "without capture by CUPTI: no C compiler" in (tmp_path / "log").read_text()


def test_sources_that_do_not_compile_are_no_error_of_the_install(tmp_path: Path) -> None:
    native = tmp_path / "kat_otel" / "instrumentation" / "native"
    native.mkdir(parents=True)
    (native / "broken.c").write_text("this is no C")
    problem = hook().build(tmp_path, native / "libkat_capture.so")
    assert "broken.c" in problem
    assert [path.name for path in native.iterdir()] == ["broken.c"]


def test_there_are_no_warnings(tmp_path: Path) -> None:
    assert hook().build(REPOSITORY, tmp_path / "libkat_capture.so", "-Werror") is None
