"""Settings come from a configuration file, with the same defaults, and take effect."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from kat_otel.commands.analyze import analyze as command
from kat_otel.config import Config, DetectorConfig
from kat_otel.errors import ConfigError
from kat_otel.kernels import Semantics, classify
from kat_otel.processor.config_file import parse_config
from kat_otel.spans import SpanTable
from kat_otel.ttad import Settings, analyze

UNKNOWN_NAME = "acme_fused_exchange_kernel"


def renamed(table: SpanTable) -> SpanTable:
    """The table with its collectives under a name that nobody has heard of."""
    _, meaning = classify(table)
    index = table.strings.add(UNKNOWN_NAME)
    return table.with_columns(name=np.where(meaning > 0, index, table.name))


def test_a_configuration_that_says_nothing_gives_the_defaults() -> None:
    assert Settings.of(DetectorConfig()) == Settings()
    assert Settings.of(Config().detector) == Settings()


def test_an_unknown_collective_is_recognised_once_it_is_configured(dlrm: SpanTable) -> None:
    table = renamed(dlrm)
    config = parse_config("detector: {collectives: [{pattern: acme_.*exchange}]}", "kat.yaml")
    settings = Settings.of(config.detector)
    assert settings.collectives[0].semantics is Semantics.BARRIER
    assert [i for i in analyze(table).incidents if i.culprit.ranks == [7]] == []
    seen = {tuple(i.culprit.ranks) for i in analyze(table, settings=settings).incidents}
    assert seen == {(7,), (4, 5)}


def test_a_pattern_that_is_no_expression_is_refused_with_its_line() -> None:
    with pytest.raises(ConfigError, match="no regular expression"):
        parse_config("detector:\n  collectives:\n    - pattern: 'all(reduce'", "kat.yaml")


def test_kat_analyze_takes_the_detectors_settings(traces: Path, tmp_path: Path) -> None:
    config = tmp_path / "kat.yaml"
    config.write_text("detector: {min_impact_fraction: 0.5}\n")
    arguments = [str(traces / "dlrm_8rank"), "--config", str(config)]
    result = CliRunner().invoke(command, arguments, standalone_mode=False)
    assert result.exception is None
    assert result.output.startswith("No incident")
