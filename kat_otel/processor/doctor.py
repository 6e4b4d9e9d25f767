"""What ``kat doctor`` looks at, in the order in which one thing rests on another.

Every check says what it found; what is not right comes with the command or setting that mends it.
Nothing is changed on the way but for a file that is written and removed to time the disk.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from kat_otel.config import Config
from kat_otel.errors import ConfigError
from kat_otel.finding import Finding
from kat_otel.processor.config_file import load_config
from kat_otel.processor.defaults import with_defaults
from kat_otel.processor.doctor_disk import check_log, check_states
from kat_otel.processor.doctor_machine import check_machine
from kat_otel.processor.doctor_network import check_endpoint, check_ports
from kat_otel.processor.doctor_running import find_running

__all__ = ["examine"]


def examine(config_file: Path | None) -> Iterator[Finding]:
    """Yields the findings, each as soon as it is known.

    Args:
        config_file: the settings to check with; the defaults of ``kat process`` if None.
    """
    try:
        said = Config() if config_file is None else load_config(config_file)
        config, filled = with_defaults(said)
    except ConfigError as error:
        yield Finding("settings", "fail", str(error), "kat validate FILE names every line")
        yield from check_machine(Config())
        return
    name = "defaults" if config_file is None else str(config_file)
    yield Finding("settings", "ok", f"{name}: right")
    yield from check_machine(config)
    running = find_running(config)
    if running is not None:
        yield Finding("processor", "ok", running.detail)
    yield from check_ports(config, filled, running)
    yield from check_endpoint(config.exporter)
    yield from check_log(config.wal)
    yield from check_states(config.state)
