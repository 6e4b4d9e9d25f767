"""``kat process``: the OTLP service between two pipelines of a collector."""

from __future__ import annotations

import logging
import signal
import sys
from pathlib import Path
from queue import Empty, SimpleQueue
from types import FrameType
from typing import Literal

import click

from kat_otel.config import Config
from kat_otel.errors import ConfigError, KatError
from kat_otel.processor.config_file import load_config
from kat_otel.processor.defaults import shut, taken_ports, with_defaults
from kat_otel.processor.heap import keep_heap, leave_alone
from kat_otel.processor.server import Processor
from kat_otel.report.incident_page import incident_page
from kat_otel.telemetry import configure_logging

__all__ = ["process"]

logger = logging.getLogger(__name__)


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
    Reads its settings again on SIGHUP. What it acknowledges is in a write-ahead log first
    (wal.directory of the settings).

    \b
    Unless the settings say otherwise it also listens on
      127.0.0.1:4328   OTLP over HTTP
      127.0.0.1:4329   the control channel of the workers
      127.0.0.1:13133  /healthz and /readyz
      127.0.0.1:8888   /metrics for Prometheus
      127.0.0.1:55679  /debug/steps: the last steps and verdicts; /incidents/ID: its report
    where those ports are free.

    Exit code 0: ended by a signal; 1: it failed; 2: the settings are wrong.
    """  # noqa: D301 - the backslash is click's own sign
    signals = _Signals()
    try:
        config, shut_ports = _settings(config_file)
        configure_logging(config.telemetry.level)
        for key, reason in shut_ports.items():
            logger.warning("%s stays shut: %s; the settings can name another port", key, reason)
        keep_heap()
        processor = Processor(config, pages=incident_page)
        signals.listen()
        processor.start()
        leave_alone()
    except ConfigError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)
    try:
        # A signal wakes the wait; half a second bounds how late a failure is seen.
        while (asked := signals.wait(0.5)) != "stop":
            processor.wait(0)
            if asked == "reload":
                _reload(processor, config_file, frozenset(shut_ports))
    except KatError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(1)
    finally:
        processor.stop()


def _settings(config_file: Path | None) -> tuple[Config, dict[str, str]]:
    """Returns the settings with the ports of a service, and those that are taken, with why."""
    config, filled = with_defaults(load_config(config_file) if config_file else Config())
    taken = taken_ports(config, filled)
    return shut(config, taken), taken


def _reload(processor: Processor, config_file: Path | None, shut_ports: frozenset[str]) -> None:
    if config_file is None:
        logger.warning("SIGHUP: started without --config, there is no file to read again")
        return
    try:
        config, filled = with_defaults(load_config(config_file))
        # A port that stayed shut at the start is no news now.
        processor.reload(shut(config, shut_ports & filled))
    except ConfigError as error:
        logger.warning("SIGHUP: the settings are wrong, the old ones stay in force: %s", error)
        return
    configure_logging(config.telemetry.level)


class _Signals:
    """What supervisors ask for. Handlers only note it: they run in the middle of anything.

    Even in the middle of the wait: an Event's set() would then wait for ever for the lock that the
    wait holds. A SimpleQueue may be put to from there.
    """

    def __init__(self) -> None:
        self._asked: SimpleQueue[Literal["stop", "reload"]] = SimpleQueue()
        self._stopping = False
        self._reload_waits = False

    def listen(self) -> None:
        """Takes the place of what the signals do by default."""
        signal.signal(signal.SIGTERM, self._on_stop)
        signal.signal(signal.SIGINT, self._on_stop)
        signal.signal(signal.SIGHUP, self._on_reload)

    def wait(self, seconds: float) -> Literal["stop", "reload"] | None:
        """Returns what was asked for first, None if nothing was within ``seconds``."""
        try:
            asked = self._asked.get(timeout=seconds)
        except Empty:
            return None
        if asked == "reload":
            self._reload_waits = False  # before the file is read: who asks from now on asks anew
        return asked

    def _on_stop(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if self._stopping:
            sys.exit(1)
        self._stopping = True
        self._asked.put("stop")

    def _on_reload(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if not self._reload_waits:
            self._reload_waits = True
            self._asked.put("reload")
