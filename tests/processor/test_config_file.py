"""The configuration file: the collector's style, and errors that say the line."""

from pathlib import Path

import pytest

from kat_otel.config import Config
from kat_otel.errors import ConfigError
from kat_otel.processor.config_file import load_config, parse_config

EXAMPLE = Path(__file__).parents[2] / "collector-config" / "kat-process.yaml"


def every_key(model: object, prefix: str = "") -> set[str]:
    fields = type(model).model_fields
    keys = set()
    for name in fields:
        value = getattr(model, name)
        keys.add(prefix + name)
        if hasattr(type(value), "model_fields"):
            keys |= every_key(value, f"{prefix}{name}.")
    return keys


def test_the_example_says_every_setting_with_its_default():
    import yaml

    assert load_config(EXAMPLE, environment={}) == Config()
    document = yaml.safe_load(EXAMPLE.read_text())

    def said(tree: dict, prefix: str = "") -> set[str]:
        keys = {prefix + key for key in tree}
        for key, value in tree.items():
            if isinstance(value, dict):
                keys |= said(value, f"{prefix}{key}.")
        return keys

    assert said(document) == every_key(Config())


def test_durations_and_variables_are_written_as_in_the_collector():
    text = """
receiver:
  endpoint: 0.0.0.0:${env:KAT_PORT:-4000}
  insecure: true
  max_recv_msg_size_mib: ${env:KAT_MIB}
assembler:
  decision_wait: 1m30s
  order_wait: 250ms
"""
    config = parse_config(text, "kat.yaml", {"KAT_MIB": "16"})
    assert config.receiver.endpoint == "0.0.0.0:4000"
    assert config.receiver.max_recv_msg_size_mib == 16
    assert (config.assembler.decision_wait, config.assembler.order_wait) == (90.0, 0.25)


@pytest.mark.parametrize("text", ["", "# nothing said\n", "~"])
def test_an_empty_file_means_the_defaults(text):
    assert parse_config(text, "kat.yaml", {}) == Config()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("receiver:\n  endpont: x:1", r"line 2: unknown setting .*did you mean 'endpoint'"),
        ("traces:\n\n  healthy: some", r"line 3: traces\.healthy: .*'summary' or 'all'"),
        ("assembler:\n  decision_wait: 5x", "line 2: .*write it as 500ms"),
        ("receiver:\n  endpoint: http://x:1", r"line 2: receiver\.endpoint"),
        ("a: [", "not YAML"),
        ("just words", "line 1: the file"),
        ("health:\n  endpoint: ${env:NOT_SET}", "line 2: .*NOT_SET is not set"),
        ("health:\n  endpoint: ${NOT_ENV}", "line 2: .*write variables as"),
        ("health: {}\nhealth: {}", "line 2: 'health' is said twice"),
    ],
)
def test_errors_name_the_file_the_line_and_the_remedy(text, message):
    with pytest.raises(ConfigError, match=message) as caught:
        parse_config(text, "kat.yaml", {})
    assert str(caught.value).startswith("kat.yaml")


def test_header_values_are_never_printed():
    with pytest.raises(ConfigError) as caught:
        parse_config("exporter:\n  headers:\n    authorization: [secret]", "kat.yaml", {})
    assert "secret" not in str(caught.value)
    config = parse_config("exporter: {headers: {authorization: secret}}", "kat.yaml", {})
    assert "secret" not in repr(config)


def test_a_missing_file_is_a_configuration_error(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path / "none.yaml")
