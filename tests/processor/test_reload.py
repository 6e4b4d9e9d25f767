"""Which settings a running processor takes, and which wait for a restart."""

import pytest

from kat_otel.config import Config
from kat_otel.errors import ConfigError
from kat_otel.processor.config_file import parse_config
from kat_otel.processor.reload import RESTART_KEYS, check_tokens, plan_reload
from kat_otel.processor.settings_tree import field_of


def settings(text: str) -> Config:
    return parse_config(text, "kat.yaml", {})


def test_the_same_settings_change_nothing():
    plan = plan_reload(Config(), settings("receiver:\n  endpoint: 127.0.0.1:4327\n"))
    assert (plan.config, plan.changed, plan.restart) == (Config(), [], [])


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("detector: {min_impact_fraction: 0.1}", "detector.min_impact_fraction"),
        ("detector: {collectives: [{pattern: mine}]}", "detector.collectives"),
        ("traces: {healthy: all}", "traces.healthy"),
        ("logs: {ongoing_interval: 5m}", "logs.ongoing_interval"),
        ("metrics: {interval: 1s}", "metrics.interval"),
        ("exporter: {retry: {max_interval: 5s}}", "exporter.retry.max_interval"),
        ("exporter: {headers: {authorization: abc}}", "exporter.headers"),
        ("telemetry: {level: debug}", "telemetry.level"),
        ("receiver: {auth: {token: abc}}", "receiver.auth"),
        ("debug: {steps: 5}", "debug.steps"),
        ("assembler: {decision_wait: 1s}", "assembler.decision_wait"),
        ("digests: {captures_per_hour: 1}", "digests.captures_per_hour"),
        ("hardware: {enabled: false}", "hardware.enabled"),
        ("shutdown_timeout: 1s", "shutdown_timeout"),
    ],
)
def test_taken_at_once(text, key):
    new = settings(text)
    plan = plan_reload(Config(), new)
    assert (plan.config, plan.changed, plan.restart) == (new, [key], [])


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("receiver: {endpoint: '127.0.0.1:1'}", "receiver.endpoint"),
        ("receiver: {http: {endpoint: '127.0.0.1:1'}}", "receiver.http.endpoint"),
        ("receiver: {tls: {cert_file: a, key_file: b}}", "receiver.tls"),
        ("wal: {directory: /tmp/a}", "wal.directory"),
        ("exporter: {endpoint: null}", "exporter.endpoint"),
        ("exporter: {tls: {ca_file: a}}", "exporter.tls.ca_file"),
        ("debug: {endpoint: '127.0.0.1:1'}", "debug.endpoint"),
    ],
)
def test_waits_for_a_restart_and_leaves_the_old_in_force(text, key):
    plan = plan_reload(Config(), settings(text + "\nshutdown_timeout: 1s"))
    assert (plan.changed, plan.restart) == (["shutdown_timeout"], [key])
    assert plan.config == settings("shutdown_timeout: 1s")


def test_every_key_that_waits_is_a_setting():
    assert [key for key in RESTART_KEYS if field_of(tuple(key.split("."))) is None] == []


def test_a_token_file_that_cannot_be_read_is_found_before_anything_changes(tmp_path):
    check_tokens(settings("receiver: {auth: {token: abc}}"))
    config = settings(f"prometheus: {{auth: {{token_file: {tmp_path / 'none'}}}}}")
    with pytest.raises(ConfigError, match=r"prometheus\.auth\.token_file"):
        check_tokens(config)
