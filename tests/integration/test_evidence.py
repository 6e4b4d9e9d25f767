"""What the kernel says of a GPU becomes an incident's cause: a file, two collectors, one verdict.

sender and log file -> agent.yaml -> gateway.yaml -> kat process -> the gateway -> incidents file
"""

from __future__ import annotations

import itertools
import json
import time

import pytest
import yaml

from kat_otel import semconv
from tests.integration.jaeger import attributes_of
from tests.integration.routing import XID
from tests.integration.traffic import Instance, Sender

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(240)]


def test_an_xid_in_the_kernels_log_changes_the_component_of_an_incident(servers, sink, tmp_path):
    # The line's time is the moment at which it is read: the fault is to be one of now.
    instance = Instance("sick", begin_ns=time.time_ns())
    # A loaded machine may need longer than half a minute for it all.
    kat, gateway = _gateway(servers, sink, hardware={"window": "5m"})
    log = tmp_path / "kernel.log"
    log.touch()
    agent = _agent(servers, instance, gateway, log)
    told = servers.folder / "gateway" / "incidents.jsonl"
    with Sender(agent) as sender:
        sender.send(instance.steps(range(20)))
        # The GPUs' counters, in which nothing is wrong; they say which address is which GPU.
        sender.send(instance.readings("healthy", 20))
        # The gateway joins them: one request may bring them all.
        servers.until("the counters", lambda: kat.books().events.get("metrics requests"))
        sender.send(instance.steps(range(20, 25), faulty=True))
        before = servers.until("an incident", lambda: _incidents(told))
        assert before[-1]["component"] == "host_cpu", "a launch that is late, by the traces alone"
        assert not _evidence(before[-1])

        line = "NVRM: Xid (PCI:0000:12:00): 94, pid=1234, name=python3, Contained ECC error"
        with log.open("a") as file:
            file.write(f"[ 1234.5] {line}\n")
        servers.until("the line", lambda: kat.books().events.get("logs requests"))
        # The fault goes on, and the readings are looked at again once a second.
        for number in itertools.count(25):
            sender.send(instance.steps([number], faulty=True))
            if found := [one for one in _incidents(told) if one["component"] == "hbm"]:
                break
            assert number < 1000, "the Xid did not become the incident's cause"
    after = found[-1]
    assert _evidence(after), after["evidence"]
    assert (after["id"], after["culprit"]) == (before[0]["id"], before[0]["culprit"])
    assert after["first_seen"] == before[0]["first_seen"]


def _gateway(servers, sink, **settings):
    endpoint, back = servers.endpoint(), servers.endpoint()
    kat = servers.kat("kat", back, **settings)
    servers.gateway(kat, endpoint=endpoint, back=back, traces=sink.endpoint)
    return kat, endpoint


def _agent(servers, instance, gateway, log):
    endpoint = servers.endpoint()
    # Without what belongs to the machine that the test runs on: its journal and its own load.
    own = {"metrics/in": {"receivers": ["otlp"]}, "logs/in": {"receivers": ["otlp", "filelog"]}}
    file = servers.folder / "own.yaml"
    file.write_text(yaml.safe_dump({"service": {"pipelines": own}}))
    servers.collector(
        "agent",
        ["agent.yaml", file],
        KAT_COLLECTOR_GRPC_ENDPOINT=endpoint,
        KAT_COLLECTOR_HTTP_ENDPOINT=servers.endpoint(),
        KAT_GATEWAY_ENDPOINT=gateway,
        KAT_GATEWAY_INSECURE="true",
        KAT_AGENT_LOGS=json.dumps([str(log)]),
        KAT_INSTANCE_ID=instance.name,
        KAT_HOST_NAME=instance.host,
    )
    return endpoint


def _incidents(file):
    """The fault's incident as it was told, again and again."""
    if not file.exists():
        return []
    *lines, _ = file.read_text().split("\n")  # the last is empty, or being written
    reports = [
        json.loads(attributes_of(record)[semconv.REPORT])
        for line in lines
        for resource in json.loads(line)["resourceLogs"]
        for scope in resource["scopeLogs"]
        for record in scope["logRecords"]
        if record.get("eventName") == semconv.EVENT_INCIDENT
    ]
    return [report for report in reports if report["kind"] == "late_launch"]


def _evidence(incident):
    return [fact["text"] for fact in incident["evidence"] if XID in fact["text"]]
