from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version

import pytest

from kat_otel import cli, commands
from kat_otel.commands import COMMANDS, Entry


def test_help_lists_the_commands_and_imports_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    out = capsys.readouterr().out
    assert "analyze   Name the culprit in trace files." in out


def test_help_is_quick_because_commands_are_imported_when_called() -> None:
    code = (
        "import sys; from kat_otel.cli import main; main(['--help']);"
        "assert 'kat_otel.commands.analyze' not in sys.modules; assert 'rich' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize("name", ["top", "silence", "feedback", "capture"])
def test_what_asks_a_running_processor_starts_without_the_detector(name: str) -> None:
    """Numba and NumPy alone take longer to import than such a command may take to answer."""
    heavy = ["numpy", "numba", "pydantic", "jinja2", "yaml", "grpc", "kat_otel.ttad"]
    code = (
        f"import sys, kat_otel.commands.{name}; "
        f"assert not (found := set({heavy}) & set(sys.modules)), found"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_command_whose_module_is_absent_is_not_listed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table = {**COMMANDS, "absent": Entry("kat_otel.commands.absent", "Not there.")}
    monkeypatch.setattr(commands, "COMMANDS", table)
    assert cli.main(["--help"]) == 0
    assert "absent" not in capsys.readouterr().out
    assert cli.main(["absent"]) == 2
    assert "No such command 'absent'" in capsys.readouterr().err


def test_every_listed_command_shows_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    import click

    with click.Context(commands.kat) as context:
        names = commands.kat.list_commands(context)
    for name in names:
        assert cli.main([name, "--help"]) == 0
        assert f"Usage: kat {name}" in capsys.readouterr().out


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"kat, version {version('kat-otel')}\n"


def test_a_wrong_call_is_exit_code_2_with_a_hint(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["analyze"]) == 2
    assert "Missing argument 'PATHS...'" in capsys.readouterr().err


def test_without_the_extra_it_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['click'] = None\n"
        "from kat_otel.cli import main; sys.exit(main(['analyze', 'x']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "pip install 'kat-otel[processor]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_defect_of_our_own_is_not_called_a_missing_installation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(_: object) -> int:
        raise ModuleNotFoundError("No module named 'kat_otel.gone'", name="kat_otel.gone")

    monkeypatch.setattr(commands, "run", broken)
    with pytest.raises(ModuleNotFoundError):
        cli.main([])


def test_an_interrupt_is_exit_code_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "run", interrupted)
    assert cli.main([]) == 130
