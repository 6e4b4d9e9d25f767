"""The settings in force as a person may see them."""

import pytest

from kat_otel.config import AuthConfig, Config, ControlConfig, ExporterConfig, ReceiverConfig
from kat_otel.processor.config_file import parse_config
from kat_otel.processor.effective import HIDDEN, duration_text, effective, effective_yaml


def test_what_is_shown_reads_back_as_what_is_in_force():
    config = parse_config(
        "assembler: {decision_wait: 1m30s}\ndetector: {collectives: [{pattern: a}]}", "kat.yaml", {}
    )
    assert parse_config(effective_yaml(config), "shown", {}) == config


def test_secrets_are_hidden_and_everything_else_is_said():
    config = Config(
        receiver=ReceiverConfig(auth=AuthConfig(token="hunter2")),
        control=ControlConfig(auth=AuthConfig(token_file="/etc/kat/tokens")),
        exporter=ExporterConfig(headers={"authorization": "Bearer hunter2"}),
    )
    assert "hunter2" not in effective_yaml(config)
    shown = effective(config)
    assert shown["receiver"]["auth"] == {"token": HIDDEN, "token_file": None}
    assert shown["control"]["auth"]["token_file"] == "/etc/kat/tokens"
    assert shown["exporter"]["headers"] == {"authorization": HIDDEN}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0s"),
        (0.5, "500ms"),
        (0.0005, "0.5ms"),
        (1.0, "1s"),
        (90.0, "1m30s"),
        (5400.25, "1h30m250ms"),
        (86_400.0, "24h"),
    ],
)
def test_durations_are_written_as_in_the_file(seconds, text):
    assert duration_text(seconds) == text
    config = parse_config(f"shutdown_timeout: {text}", "kat.yaml", {})
    assert config.shutdown_timeout == pytest.approx(seconds)
