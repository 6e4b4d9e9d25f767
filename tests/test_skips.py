"""The promise of `make test`: nothing is left out silently (tests/conftest.py)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).with_name("conftest.py")


def run_pytest(
    folder: Path, test: str, *options: str, require_all: bool = False
) -> tuple[int, str]:
    """Runs one test file beside a copy of our conftest; returns exit code and output."""
    shutil.copy(CONFTEST, folder / "conftest.py")
    (folder / "test_it.py").write_text(f"import pytest\n{test}\n")
    (folder / "pytest.ini").write_text("[pytest]\nmarkers =\n    slow: x\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, str(folder)],
        capture_output=True,
        text=True,
        env={**os.environ, "KAT_REQUIRE_ALL": "1" if require_all else "0"},
        check=False,
    )
    return done.returncode, done.stdout


IN_THE_TEST = "def test_it():\n    pytest.skip('no Chromium: apt-get install chromium')"
OF_THE_MODULE = "pytest.skip('no Chromium: apt-get install chromium', allow_module_level=True)"


@pytest.mark.parametrize("test", [IN_THE_TEST, OF_THE_MODULE])
def test_the_run_ends_with_what_was_skipped_and_the_command_that_enables_it(
    tmp_path: Path, test: str
) -> None:
    _, output = run_pytest(tmp_path, test)
    _, _, summary = output.partition("not run, and how to run it")
    assert "1  no Chromium\n" in summary
    assert "-> apt-get install chromium\n" in summary


@pytest.mark.parametrize("test", [IN_THE_TEST, OF_THE_MODULE])
def test_where_all_is_required_a_skip_is_a_failure(tmp_path: Path, test: str) -> None:
    code, output = run_pytest(tmp_path, test, require_all=True)
    assert code != 0
    assert "KAT_REQUIRE_ALL=1, but skipped, no Chromium" in output


def test_a_skip_without_a_remedy_is_a_failure(tmp_path: Path) -> None:
    code, output = run_pytest(tmp_path, "def test_it():\n    pytest.skip('no Chromium')")
    assert code == 1
    assert "skipped without a remedy (no Chromium)" in output


def test_slow_tests_left_out_are_listed_too(tmp_path: Path) -> None:
    slow = "@pytest.mark.slow\ndef test_it(): ...\ndef test_other(): ..."
    code, output = run_pytest(tmp_path, slow, "-m", "not slow")
    assert code == 0
    assert "1  slow tests\n        -> make test-slow" in output


def test_an_expected_failure_is_no_skip(tmp_path: Path) -> None:
    expected = "@pytest.mark.xfail(reason='known')\ndef test_it(): assert False"
    code, output = run_pytest(tmp_path, expected, require_all=True)
    assert code == 0
    assert "not run" not in output
