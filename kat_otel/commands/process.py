"""``kat process``: the OTLP service between two pipelines of a collector."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType

import click

from kat_otel.config import Config
from kat_otel.errors import ConfigError, KatError
from kat_otel.processor.config_file import load_config
from kat_otel.processor.server import Processor
from kat_otel.telemetry import configure_logging

__all__ = ["process", "with_log"]


def with_log(config: Config) -> Config:
    """Returns the settings with a directory for the write-ahead log, unless they name one.

    It is ``$XDG_STATE_HOME/kat-otel/PORT`` (``~/.local/state`` if that is not set), so that the
    same processor finds it again. Port 0 has none: it is another one at every start.
    """
    port = config.receiver.endpoint.rpartition(":")[2]
    if "directory" in config.wal.model_fields_set or port == "0":
        return config
    state = Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser()
    wal = config.wal.model_copy(update={"directory": str(state / "kat-otel" / port)})
    return config.model_copy(update={"wal": wal})


@click.command()
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Settings; without it the defaults of collector-config/kat-process.yaml.",
)
def process(config_file: Path | None) -> None:
    """Receive OTLP spans, judge every step, export traces, logs and metrics.

    Listens on 127.0.0.1:4327 and exports to 127.0.0.1:4337 unless told otherwise. Ends on
    SIGTERM or SIGINT after finishing what it acknowledged; a second signal ends it at once.
    What it acknowledges is in a write-ahead log first (wal.directory of the settings).
    Exit code 0: ended by a signal; 1: it failed; 2: the settings are wrong.
    """
    stop = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        del number, frame
        if stop.is_set():
            sys.exit(1)
        stop.set()

    try:
        config = with_log(load_config(config_file) if config_file else Config())
        configure_logging(config.telemetry.level)
        processor = Processor(config)
        signal.signal(signal.SIGTERM, on_signal)
        signal.signal(signal.SIGINT, on_signal)
        processor.start()
    except ConfigError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)
    try:
        # A signal wakes stop.wait(); half a second bounds how late a failure is seen.
        while not stop.wait(0.5):
            processor.wait(0)
    except KatError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(1)
    finally:
        processor.stop()
