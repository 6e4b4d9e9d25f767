"""The commands of ``kat``, one module each, imported when it is called.

A command module ``kat_otel/commands/<module>.py`` has a click command that bears the
command's name. Nothing but this table has to know it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import NamedTuple

import click

__all__ = ["COMMANDS", "kat", "run"]


class Entry(NamedTuple):
    """Where a command lives, and what ``kat --help`` says of it."""

    module: str
    help: str


COMMANDS: Mapping[str, Entry] = {
    "analyze": Entry("kat_otel.commands.analyze", "Name the culprit in trace files."),
    "explain": Entry("kat_otel.commands.explain", "Say why incidents happen, and what to do."),
    "process": Entry("kat_otel.commands.process", "Judge live OTLP spans, between two pipelines."),
    "replay": Entry("kat_otel.commands.replay", "Send trace files as OTLP, by rank and step."),
    "demo": Entry("kat_otel.commands.demo", "See a fault found: eight simulated workers."),
    "top": Entry("kat_otel.commands.top", "Watch a running kat process: incidents and ranks."),
    "feedback": Entry("kat_otel.commands.feedback", "Say that an incident was right or wrong."),
    "silence": Entry("kat_otel.commands.silence", "Keep incidents from paging for a while."),
    "capture": Entry("kat_otel.commands.capture", "Ask an instance's ranks for whole steps."),
    "dashboards": Entry("kat_otel.commands.dashboards", "Write the Grafana dashboards."),
    "rules": Entry("kat_otel.commands.rules", "Write Prometheus' rules and alerts."),
    "validate": Entry("kat_otel.commands.validate", "Check a configuration file."),
    "lmdia": Entry("kat_otel.commands.lmdia", "Make and judge an open benchmark of anomalies."),
    "adapt": Entry("kat_otel.commands.adapt", "Adapt a model, and see how right it is."),
    "doctor": Entry("kat_otel.commands.doctor", "See what is missing here, and how to mend it."),
}
"""Name of the command -> its module, and one line of help."""


class LazyGroup(click.Group):
    """Lists commands from the table and imports a command's module only when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click gives it
        """Returns the names of the commands that are present, in the table's order."""
        return [name for name, entry in COMMANDS.items() if find_spec(entry.module)]

    def get_command(
        self,
        ctx: click.Context,  # noqa: ARG002 - click gives it
        cmd_name: str,
    ) -> click.Command | None:
        """Returns the command, imported; None if there is none of that name."""
        entry = COMMANDS.get(cmd_name)
        if entry is None or find_spec(entry.module) is None:
            return None
        command = getattr(import_module(entry.module), cmd_name)
        if not isinstance(command, click.Command):
            raise TypeError(f"{entry.module}.{cmd_name} is no click command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the table's own help lines: `kat --help` imports no command."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name].help) for name in self.list_commands(ctx)])


def _version() -> str:
    try:
        return version("kat-otel")
    except PackageNotFoundError:  # run from a source tree that was never installed
        return "unknown"


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(_version(), prog_name="kat")
def kat() -> None:
    """Finds which rank, kernel and component makes a distributed inference fleet wait."""


def run(arguments: Sequence[str] | None = None) -> int:
    """Runs ``kat`` and returns its exit code; what click itself reports goes to stderr.

    Raises:
        KatError: what a command reports to the user; the caller prints it.
    """
    try:
        result = kat.main(
            None if arguments is None else list(arguments), prog_name="kat", standalone_mode=False
        )
    except click.exceptions.Abort:  # click's form of Ctrl-C and Ctrl-D
        raise KeyboardInterrupt from None
    except click.ClickException as error:
        error.show()
        return 2
    return result if isinstance(result, int) else 0
