"""Whom the processor asks to explain incidents, by its settings."""

from __future__ import annotations

import subprocess
import sys
from typing import Any, get_args

import pytest

from kat_otel.analyzer.send import EVERYTHING
from kat_otel.config import AnalyzerConfig, Config
from kat_otel.errors import ConfigError
from kat_otel.processor.asking import asking_of
from kat_otel.processor.config_file import parse_config
from kat_otel.processor.effective import effective_yaml
from kat_otel.processor.exhibits import Exhibits
from kat_otel.telemetry import Telemetry

URL = "http://127.0.0.1:9/v1"
KEY = "sk-test-0123456789abcdefghij"


def made(**analyzer: Any):
    return asking_of(Config(analyzer=AnalyzerConfig(**analyzer)), Telemetry(), Exhibits(0, 0), None)


def test_without_an_endpoint_nobody_is_asked_and_nothing_of_it_is_imported():
    assert made() is None
    code = (
        "import sys, kat_otel.processor.server, kat_otel.instrumentation.instrumentor\n"
        "assert not {'openai', 'httpx2', 'circuitbreaker'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_settings_are_the_clients():
    asking = made(endpoint=URL, model="m", key=KEY, timeout="7s", retries=3, send=("hardware",))
    assert asking is not None
    endpoint = asking.enrichment._client.endpoint
    assert (endpoint.url, endpoint.model, endpoint.key) == (URL, "m", KEY)
    assert (endpoint.timeout_s, endpoint.retries) == (7.0, 3)
    assert asking.enrichment._policy.send == {"hardware"}


def test_what_may_leave_is_named_as_the_command_names_it():
    assert set(AnalyzerConfig().send) == EVERYTHING
    (item, _) = get_args(AnalyzerConfig.model_fields["send"].annotation)
    assert set(get_args(item)) == EVERYTHING


def test_a_keys_file_is_read_and_one_that_is_missing_is_named(tmp_path):
    file = tmp_path / "key"
    file.write_text(f"{KEY}\n")
    asking = made(endpoint=URL, model="m", key_file=str(file))
    assert asking is not None
    assert asking.enrichment._client.endpoint.key == KEY
    with pytest.raises(ConfigError, match=r"analyzer\.key_file: .*nowhere cannot be read"):
        made(endpoint=URL, model="m", key_file=str(tmp_path / "nowhere"))


def test_a_missing_package_is_a_setting_that_cannot_be_kept(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(ConfigError, match=r"analyzer\.endpoint: .*pip install .*analyzer"):
        made(endpoint=URL, model="m")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{{endpoint: '{URL}'}}", "an endpoint needs a model"),
        ("{endpoint: 'llm:8000', model: m}", r"analyzer\.endpoint: .*https\?://"),
        ("{endpoint: 'https://user:secret@llm/v1', model: m}", "which is for key to hold"),
        ("{endpoint: 'http://llm:8000/v1', model: m}", "use https, or say insecure"),
        (f"{{endpoint: '{URL}', model: m, key: a, key_file: b}}", "give one of them"),
        (f"{{endpoint: '{URL}', model: m, money_per_hour: 1}}", "needs price_sent"),
        ("{send: [names]}", r"analyzer\.send"),
    ],
)
def test_what_cannot_be_asked_is_said_with_the_file_and_no_secret(text: str, message: str):
    with pytest.raises(ConfigError, match=message) as caught:
        parse_config(f"analyzer: {text}", "kat.yaml", {})
    assert "secret" not in str(caught.value)


def test_the_key_is_never_shown():
    config = Config(analyzer=AnalyzerConfig(endpoint=URL, model="m", key=KEY))
    assert KEY not in effective_yaml(config) + repr(config)
