"""A model explains incidents that have left: over HTTP, through real servers, whatever it does.

workers -> gateway.yaml -> kat process -> the same collector -> Jaeger; kat process -> the model
"""

from __future__ import annotations

import json
import re
import time
import urllib.parse

import pytest

from kat_otel import semconv
from tests.analyzer.model_server import MODEL, serving_model
from tests.analyzer.openai_server import Said, grounded, keeps_schemas, serving
from tests.integration.jaeger import Jaeger, attributes_of
from tests.integration.servers import get
from tests.integration.traffic import Instance, Sender

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

FAULTS = {
    "hangs": Said(drip_s=600.0),
    "500": Said(status=500),
    "429": Said(status=429, headers={"retry-after": "60"}),
    "takes the schema and ignores it": Said("Sure! The culprit is rank 0, which takes 99 s."),
    "garbage": Said(raw=b"\x00\xff{"),
    "slow": Said("{}", drip_s=0.5),
}


def events(servers, name):
    """The log events of that name that the collector has written."""
    file = servers.folder / "gateway" / "incidents.jsonl"
    if not file.exists():
        return []
    requests = [json.loads(line) for line in file.read_text().splitlines() if line.endswith("}")]
    return [
        record
        for request in requests
        for group in request["resourceLogs"]
        for scope in group["scopeLogs"]
        for record in scope["logRecords"]
        if record.get("eventName") == name
    ]


def metrics(servers, kat):
    """What kat process counts of explanations, by outcome."""
    port = re.search(r"prometheus:\n  endpoint: (\S+)", (servers.folder / "kat.yaml").read_text())
    assert port is not None
    text = get(f"http://{port[1]}/metrics")
    found = re.findall(r'kat_processor_explanations_total\{outcome="(\w+)"\} (\d+)', text)
    return {outcome: int(count) for outcome, count in found if int(count)}


def gateway(servers, jaeger, url, **analyzer):
    endpoint, back = servers.endpoint(), servers.endpoint()
    kat = servers.kat(
        "kat", back, analyzer={"endpoint": url, "model": "m"} | analyzer, telemetry={"traces": True}
    )
    servers.gateway(kat, endpoint=endpoint, back=back, traces=jaeger.endpoint)
    return kat, endpoint


def test_the_diagnosis_follows_in_jaeger_linked_to_the_culprits_span(servers):
    instance = Instance("explained")
    jaeger = Jaeger.start(servers)
    with serving(keeps_schemas(grounded)) as model:
        kat, endpoint = gateway(servers, jaeger, model.url)
        with Sender(endpoint) as sender:
            sender.send(instance.steps(range(5)))
            sender.send(instance.steps(range(5, 8), faulty=True))
            told = servers.until(
                "the model's diagnosis", lambda: events(servers, semconv.EVENT_DIAGNOSIS)
            )
    said = attributes_of(told[0])
    assert (said[semconv.DIAGNOSIS_MODE], said[semconv.MODEL]) == ("model", "m")
    assert said[semconv.REVISION] >= 1
    incident = said[semconv.INCIDENT_ID]

    asked = urllib.parse.urlencode(
        {"service": "kat", "operation": "kat.diagnosis", "limit": 20,
         "tags": json.dumps({semconv.INCIDENT_ID: incident})}
    )  # fmt: skip
    url = f"http://{jaeger.query}/api/traces?{asked}"
    found = servers.until("the spans in Jaeger", lambda: get(url)["data"])
    assert all(len(trace["spans"]) == 1 for trace in found), "each in a trace of its own"
    links = [link for trace in found for link in trace["spans"][0]["references"]]
    culprits = {(one["traceId"], one["spanId"]) for one in events(servers, semconv.EVENT_DIAGNOSIS)}
    assert {(one["traceID"], one["spanID"]) for one in links} <= culprits
    link = links[0]
    step = servers.until("the step's trace", lambda: jaeger.trace(link["traceID"]).spans)
    culprit = step[int(link["spanID"], 16)]
    marks = attributes_of(culprit)
    assert marks[semconv.INCIDENT_ID] == incident
    assert marks[semconv.ROLE] == "culprit"
    embedded = [e for e in culprit["events"] if e["name"] == semconv.EVENT_DIAGNOSIS]
    assert attributes_of(embedded[0])[semconv.DIAGNOSIS_MODE] == "rules"
    assert attributes_of(embedded[0])[semconv.REVISION] == 0

    # The call itself, by the GenAI conventions, and the page of the incident.
    asked = urllib.parse.urlencode({"service": "kat-process", "operation": "chat m"})
    calls = servers.until(
        "spans of the calls", lambda: get(f"http://{jaeger.query}/api/traces?{asked}")["data"]
    )
    tags = {tag["key"]: tag["value"] for tag in calls[0]["spans"][0]["tags"]}
    assert tags["gen_ai.request.model"] == "m"
    assert tags["gen_ai.usage.input_tokens"] == 700
    config = (servers.folder / "kat.yaml").read_text()
    (debug,) = re.findall(r"^debug:\n  endpoint: (\S+)", config, re.MULTILINE)
    report = get(f"http://{debug}/incidents/{incident}.json")
    assert report["incidents"][0]["diagnosis"]["mode"] == "model"
    page = get(f"http://{debug}/incidents/{incident}")
    assert "model m" in page
    assert kat.books().unexplained == 0


def test_whatever_the_endpoint_does_incidents_leave_on_time_and_stopping_is_bounded(servers, sink):
    answer = {"said": Said(status=500)}
    took: dict[str, float] = {}
    with serving(lambda _: answer["said"]) as model:
        kat = servers.kat(
            "kat",
            sink.endpoint,
            analyzer={
                "endpoint": model.url, "model": "m", "deadline": "3s", "breaker_failures": 1_000
            },
        )  # fmt: skip
        with Sender(kat.endpoint) as sender:
            for number, fault in enumerate(FAULTS):
                instance = Instance(f"fault-{number}")
                answer["said"] = FAULTS[fault]
                sender.send(instance.steps(range(3)))
                before = len(model.requests)
                sender.send(instance.steps([3], faulty=True))
                begin = time.monotonic()
                servers.until(fault, lambda name=instance.name: sink.faults(name), within=20)
                took[fault] = time.monotonic() - begin
                (told,) = sink.faults(instance.name)
                assert told["diagnosis"]["mode"] == "rules"
                servers.until("a request", lambda n=before: len(model.requests) > n)
                servers.until(
                    "what came of it",
                    lambda n=number: sum(metrics(servers, kat).values()) > n,
                )
            assert "model" not in metrics(servers, kat)
            answer["said"] = FAULTS["hangs"]
            last = Instance("last")
            before = len(model.requests)
            sender.send([*last.steps(range(3)), *last.steps([3], faulty=True)])
            servers.until("a request", lambda: len(model.requests) > before)
        books = kat.books()
        begin = time.monotonic()
        assert kat.stop() == 0
        assert time.monotonic() - begin < 15
    assert max(took.values()) < 3, f"seconds to an incident's event: {took}"
    assert (books.lost, books.unexplained) == (0, 0), books
    assert len(sink.faults("last")) == 1


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_real_model_explains_on_the_whole_way_or_the_rules_stand(servers, tmp_path):
    instance = Instance("real")
    jaeger = Jaeger.start(servers)
    with serving_model(tmp_path / "model.log") as url:
        kat, endpoint = gateway(
            servers, jaeger, url, model=MODEL, prose=False, deadline="170s", timeout="170s",
            concurrency=1, max_answer_tokens=500,
        )  # fmt: skip
        with Sender(endpoint) as sender:
            sender.send(instance.steps(range(5)))
            sender.send(instance.steps(range(5, 8), faulty=True))
            servers.until("the incident", lambda: events(servers, semconv.EVENT_INCIDENT))
            outcomes = servers.until(
                "an answer",
                lambda: metrics(servers, kat).keys() & {"model", "rejected"},
                within=400,
            )
    told = events(servers, semconv.EVENT_DIAGNOSIS)
    assert bool(told) == ("model" in outcomes)
    for record in told:
        said = attributes_of(record)
        assert said[semconv.CULPRIT_RANKS] == [instance.culprit]
        assert said[semconv.MODEL] == MODEL
