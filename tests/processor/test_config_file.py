"""The configuration file: the collector's style, and errors that say the line."""

import re
from pathlib import Path

import pytest
import yaml

from kat_otel.config import Config
from kat_otel.errors import ConfigError
from kat_otel.processor.config_file import load_config, parse_config
from kat_otel.processor.defaults import CONVENTIONAL_PORTS, with_defaults

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
    assert load_config(EXAMPLE, environment={}) == Config()

    def said(tree: dict, prefix: str = "") -> set[str]:
        keys = {prefix + key for key in tree}
        for key, value in tree.items():
            if isinstance(value, dict):
                keys |= said(value, f"{prefix}{key}.")
        return keys

    whole = re.sub(r"^( +)# (\w+: )", r"\1\2", EXAMPLE.read_text(), flags=re.MULTILINE)
    assert said(yaml.safe_load(whole)) == every_key(Config())


def test_the_example_copied_whole_is_what_kat_process_does_without_a_file():
    """A null where `kat process` fills something in would shut a port, or keep no log."""
    home = {"XDG_STATE_HOME": "/state"}
    mine, filled = with_defaults(load_config(EXAMPLE, environment={}), home)
    bare, all_filled = with_defaults(Config(), home)
    assert (mine, filled) == (bare, all_filled)
    text = EXAMPLE.read_text()
    for endpoint in CONVENTIONAL_PORTS.values():
        assert f"# endpoint: {endpoint} #" in text


def test_the_example_made_secure_is_secure_on_every_way_in():
    text = EXAMPLE.read_text().replace("  auth: null # {token", "  auth: {token: abc} # {token", 1)
    config, _ = with_defaults(parse_config(text, "kat.yaml", {}), {"XDG_STATE_HOME": "/state"})
    assert config.receiver.auth is not None
    assert config.receiver.http.auth == config.control.auth == config.receiver.auth


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
        (
            "receiver:\n  tls:\n    cert_fle: a\n    key_file: b\n    cert_file: c",
            r"line 3: unknown setting 'receiver\.tls\.cert_fle' — did you mean 'cert_file'",
        ),
        ("receiver:\n  auth: {tokn: a}", r"'receiver\.auth\.tokn' — did you mean 'token'"),
        ("receiver:\n  http:\n    auth:\n      tokn: a", r"line 4: .*did you mean 'token'"),
        ("control:\n  tls:\n    key_fil: a", r"line 3: .*known here: cert_file, key_file"),
        (
            "detector:\n  collectives:\n    - pattern: a\n    - patern: b",
            r"line 4: unknown setting 'detector\.collectives\.1\.patern' — did you mean 'pattern'",
        ),
        ("exporter:\n  endpoint:\n    host: a", r"line 2: exporter\.endpoint"),
        ("receiver:\n  tls: [a, b]", r"line 2: receiver\.tls"),
        ("shutdown_timeout: ${env:S:-2026-13-40}", "line 1: shutdown_timeout: no value of YAML"),
    ],
)
def test_errors_name_the_file_the_line_and_the_remedy(text, message):
    with pytest.raises(ConfigError, match=message) as caught:
        parse_config(text, "kat.yaml", {})
    assert str(caught.value).startswith("kat.yaml")


PORTS = ["receiver", "receiver.http", "control", "health", "prometheus", "debug"]
TLS = "tls: {cert_file: a.pem, key_file: a.key}"


def port(key: str, endpoint: str, *more: str) -> str:
    """A file that says where one port listens."""
    lines = [f"endpoint: '{endpoint}'", *more]
    for name in reversed(key.split(".")):
        lines = [f"{name}:", *(f"  {line}" for line in lines)]
    return "\n".join(lines)


@pytest.mark.parametrize("key", PORTS)
@pytest.mark.parametrize("address", ["0.0.0.0", "10.1.2.3", "[::]", "gpu-node"])
def test_plain_text_that_others_reach_is_for_those_who_ask_for_it(key, address):
    endpoint = f"{address}:4711"
    with pytest.raises(ConfigError, match=rf"line \d: {key}: .*no loopback address") as caught:
        parse_config(port(key, endpoint), "kat.yaml", {})
    assert "insecure: true" in str(caught.value)
    parse_config(port(key, endpoint, "insecure: true"), "kat.yaml", {})
    parse_config(port(key, endpoint, TLS), "kat.yaml", {})


@pytest.mark.parametrize("key", PORTS)
@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.0.1", "[::1]", "localhost"])
def test_plain_text_on_loopback_harms_nobody(key, address):
    parse_config(port(key, f"{address}:4711"), "kat.yaml", {})


SECRET = "hunter2"


@pytest.mark.parametrize(
    "text",
    [
        "exporter:\n  headers:\n    authorization: [hunter2]",
        "exporter:\n  headers: hunter2",
        "receiver: {auth: {token: [hunter2]}}",
        "receiver: {auth: {token: {a: hunter2}}}",
        "receiver:\n  auth: {token: hunter2, tken: hunter2}",
        "receiver: {auth: hunter2}",
        "receiver:\n  auth:\n    token: hunter2: b",
        "receiver:\n  auth:\n    token: 'hunter2",
        "receiver:\n  auth:\n    token: hunter2${KAT}",
        "exporter:\n  headers:\n    authorization: Bearer hunter2${env:}",
    ],
)
def test_secrets_stand_in_no_error_and_no_traceback(text):
    import traceback

    with pytest.raises(ConfigError) as caught:
        parse_config(text, "kat.yaml", {})
    assert "kat.yaml, line " in str(caught.value)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("header", "why"),
    [
        ("authorization: Bearer hunter2\u00e9", "other characters than printable ASCII"),
        ('authorization: "Bearer\\nhunter2"', "other characters than printable ASCII"),
        ("x y: hunter2", "'x y' is no header"),
        ('"": hunter2', "'' is no header"),
        ("\u00e9: hunter2", "is no header"),
        (":path: hunter2", "':path' is no header"),
        ("trace-bin: hunter2", "binary headers are not supported"),
    ],
)
def test_a_header_that_cannot_be_sent_is_refused_before_any_span_is_taken(header, why):
    with pytest.raises(ConfigError, match=why) as caught:
        parse_config(f"exporter:\n  headers:\n    {header}", "kat.yaml", {})
    assert "kat.yaml, line 2: exporter.headers" in str(caught.value)
    assert SECRET not in str(caught.value)


def test_white_space_around_a_header_from_a_secrets_file_is_no_part_of_it():
    text = "exporter:\n  headers:\n    Authorization: Bearer ${env:TOKEN}"
    config = parse_config(text, "kat.yaml", {"TOKEN": "abc\n"})
    assert config.exporter.headers == {"authorization": "Bearer abc"}


@pytest.mark.parametrize("value", [SECRET, "0123", "1e5", "a: b", "[hunter2", "{x", "#no", "yes"])
def test_a_secret_from_the_environment_is_a_text_whatever_it_looks_like(value):
    text = """
receiver: {auth: {token: "${env:TOKEN}"}}
control:
  auth:
    token: ${env:TOKEN}
exporter:
  headers:
    authorization: Bearer ${env:TOKEN}
"""
    config = parse_config(text, "kat.yaml", {"TOKEN": value})
    for auth in (config.receiver.auth, config.control.auth):
        assert auth.token.get_secret_value() == value
    assert config.exporter.headers == {"authorization": f"Bearer {value}"}
    if value == SECRET:
        assert value not in repr(config)


def test_an_endpoint_can_be_switched_off_by_a_variable():
    text = "debug:\n  endpoint: ${env:KAT_DEBUG:-null}\n"
    assert parse_config(text, "kat.yaml", {}).debug.endpoint is None
    on = parse_config(text, "kat.yaml", {"KAT_DEBUG": "127.0.0.1:55679"})
    assert on.debug.endpoint == "127.0.0.1:55679"


def test_a_section_whose_lines_are_all_commented_out_means_its_defaults():
    text = "receiver:\n#  endpoint: 127.0.0.1:1\nexporter:\n  retry:\n  tls: null\n"
    assert parse_config(text, "kat.yaml", {}) == Config()


def test_a_missing_file_is_a_configuration_error(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path / "none.yaml")
