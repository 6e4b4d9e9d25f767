"""The published schema of the settings: up to date, and of one mind with the processor."""

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from kat_otel.errors import ConfigError
from kat_otel.processor.config_file import parse_config
from kat_otel.processor.config_schema import SCHEMA_FILE, config_schema, schema_text

FOLDER = Path(__file__).parents[2] / "collector-config"


def test_the_published_schema_is_that_of_the_settings():
    published = (FOLDER / SCHEMA_FILE).read_text("utf-8")
    assert published == schema_text(), "run: python -m kat_otel.processor.config_schema"


def test_the_schema_is_a_valid_schema():
    jsonschema.Draft202012Validator.check_schema(config_schema())


def test_editors_find_the_schema_by_the_first_line_of_the_example():
    first = (FOLDER / "kat-process.yaml").read_text().splitlines()[0]
    assert first == f"# yaml-language-server: $schema={SCHEMA_FILE}"


def test_every_setting_is_described():
    schema = config_schema()
    bare = [
        f"{section}.{name}"
        for section, found in [("", schema), *schema["$defs"].items()]
        for name, setting in found["properties"].items()
        if not setting.get("description")
    ]
    assert bare == []


GOOD = [
    "",
    "receiver:\n",
    "receiver: {endpoint: '127.0.0.1:4327', retry_after: 1m30s, tls: null}",
    "receiver: {auth: {token: x}, max_recv_msg_size_mib: 12}",
    "receiver: {max_recv_msg_size_mib: '${env:MIB:-16}', insecure: '${env:PLAIN:-true}'}",
    "exporter: {endpoint: 'backend${env:N:-1}:4317'}",
    "detector: {collectives: [{pattern: my_all_reduce, semantics: barrier}]}",
    "traces: {healthy: all}\nshutdown_timeout: 20",
    "telemetry: {level: '${env:LEVEL:-debug}'}",
    "exporter: {endpoint: null, headers: {authorization: abc}, retry: {initial_interval: 500ms}}",
]
BAD = [
    "receivr: {}",
    "receiver: {endpont: '127.0.0.1:1'}",
    "receiver: {endpoint: 'http://127.0.0.1:1'}",
    "receiver: {tls: {cert_file: a}}",
    "receiver: {auth: {tokn: a}}",
    "receiver: {max_recv_msg_size_mib: 0}",
    "detector: {collectives: [{patern: a}]}",
    "traces: {healthy: some}",
    "shutdown_timeout: 20 seconds",
    "exporter: {headers: [a]}",
]


@pytest.mark.parametrize("text", GOOD)
def test_what_the_processor_takes_the_schema_takes(text):
    parse_config(text, "kat.yaml", {})
    jsonschema.validate(yaml.safe_load(text) or {}, config_schema())


@pytest.mark.parametrize("text", BAD)
def test_what_the_processor_refuses_the_schema_refuses(text):
    with pytest.raises(ConfigError):
        parse_config(text, "kat.yaml", {})
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(yaml.safe_load(text), config_schema())


def test_the_example_fits_and_its_defaults_are_the_schemas():
    document = yaml.safe_load((FOLDER / "kat-process.yaml").read_text())
    jsonschema.validate(document, config_schema())
    schema = json.loads(schema_text())
    assert schema["$defs"]["AssemblerConfig"]["properties"]["order_wait"]["default"] == "500ms"
    assert document["assembler"]["order_wait"] == "500ms"
