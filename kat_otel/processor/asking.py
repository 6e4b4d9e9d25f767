"""Whom the processor asks to explain incidents: made from the settings, only if they name somebody.

What is needed to ask a model is an extra, so nothing of it is imported before.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kat_otel.config import AnalyzerConfig, Config
from kat_otel.errors import ConfigError, MissingDependencyError
from kat_otel.processor.exhibits import Exhibits
from kat_otel.processor.exporter import Exporter, Payload
from kat_otel.telemetry import Telemetry
from kat_otel.verdict import Incident, Report

if TYPE_CHECKING:
    from kat_otel.processor.enrichment import Enrichment
    from kat_otel.processor.model_calls import ModelCalls

__all__ = ["Asking", "asking_of"]


@dataclass(frozen=True, slots=True)
class Asking:
    """The asking thread, and what tells of its calls."""

    enrichment: Enrichment
    calls: ModelCalls

    def start(self) -> None:
        """Starts both."""
        self.calls.start()
        self.enrichment.start()

    def offer(
        self, instance: str, incident: Incident, report: Report, span: tuple[bytes, bytes], /
    ) -> None:
        """Takes an incident that has left, see :meth:`.Enrichment.offer`."""
        self.enrichment.offer(instance, incident, report, span)

    def stop(self, timeout: float) -> None:
        """Ends both, within ``timeout`` seconds and half a second for the last metrics."""
        self.enrichment.stop(timeout)
        self.calls.stop()


def asking_of(
    config: Config, telemetry: Telemetry, exhibits: Exhibits, exporter: Exporter | None
) -> Asking | None:
    """Returns what asks a model; None if the settings name no endpoint.

    Args:
        config: all settings.
        telemetry: where it counts.
        exhibits: whose pages show what comes of it.
        exporter: that sends it; None if nothing is exported.

    Raises:
        ConfigError: the package to ask with is not installed, or the key's file can't be read.
    """
    if config.analyzer.endpoint is None:
        return None

    def send(payload: Payload) -> bool:
        return exporter is None or exporter.try_offer(payload)

    try:
        # an extra, see above
        from kat_otel.analyzer.endpoint import Client, Endpoint  # noqa: PLC0415
        from kat_otel.analyzer.explain import Policy  # noqa: PLC0415
        from kat_otel.processor.enrichment import Enrichment  # noqa: PLC0415
        from kat_otel.processor.model_calls import ModelCalls  # noqa: PLC0415

        asked = config.analyzer
        endpoint = Endpoint(
            config.analyzer.endpoint,
            asked.model,
            _key(asked),
            insecure=asked.insecure,
            timeout_s=asked.timeout,
            retries=asked.retries,
            max_tokens=asked.max_answer_tokens,
        )
        policy = Policy(frozenset(asked.send), prose=asked.prose, deadline_s=asked.deadline)
        client = Client(endpoint)
        calls = ModelCalls(
            send, metrics_interval=config.metrics.interval, traces=config.telemetry.traces
        )
    except (ModuleNotFoundError, MissingDependencyError) as error:
        raise ConfigError(
            f"analyzer.endpoint: {error} — pip install 'kat-otel[processor,analyzer]', or name no "
            "endpoint"
        ) from error
    return Asking(
        Enrichment(asked, client, policy, send, telemetry, on_diagnosis=exhibits.diagnosed), calls
    )


def _key(config: AnalyzerConfig) -> str:
    if config.key_file is None:
        return "" if config.key is None else config.key.get_secret_value().strip()
    try:
        return Path(config.key_file).expanduser().read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"analyzer.key_file: {config.key_file} cannot be read ({error}) — name a file with "
            "the endpoint's key"
        ) from error
