"""Every query of every dashboard returns data: a real run, a real collector, Prometheus, Jaeger.

sender -> gateway.yaml -> kat process -> the same collector -> Jaeger, and Prometheus scrapes the
collector, the processor, and a stand-in for the page of vLLM and SGLang.

Variables are chosen as Grafana would: from what the same servers answer.
"""

from __future__ import annotations

import json
import shlex
import threading
import time
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from kat_otel import semconv
from kat_otel.dashboards.engines import ENGINE_HISTOGRAMS
from kat_otel.spans import Resource
from tests.dashboards.reading import (
    DASHBOARDS,
    Query,
    filled,
    jaeger_queries,
    label_values,
    prometheus_queries,
    variables,
)
from tests.integration.jaeger import Jaeger
from tests.integration.prometheus import EnginePage, Prometheus
from tests.integration.servers import Servers, get
from tests.integration.traffic import Instance, Sender

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(300)]

_WINDOW_S = 60
"""The time range that the dashboards show."""
_STEP_S = 5
_HEALTHY_STEPS = 40
QUERIES = [query for name in DASHBOARDS for query in prometheus_queries(name)]
SEARCHES = [search for name in DASHBOARDS for search in jaeger_queries(name)]


@dataclass(frozen=True)
class Fleet(Instance):
    """An instance on two hosts, of which it is known where they stand."""

    def workers(self) -> tuple[Resource, ...]:
        return tuple(
            replace(
                worker,
                host=f"node-{worker.rank // 2}",
                attributes={semconv.RACK: f"rack-{worker.rank // 2}", semconv.SWITCH: "leaf-1"},
            )
            for worker in super().workers()
        )


INSTANCE = Fleet("llama-70b")


@dataclass(frozen=True)
class Run:
    """What answers the dashboards' queries."""

    prometheus: Prometheus
    jaeger: Jaeger

    def values(self, name: str) -> dict[str, str]:
        """Chooses a dashboard's variables, as its reader would for the injected fault."""
        chosen = {
            "__range": f"{_WINDOW_S}s",
            "__interval": f"{_STEP_S}s",
            "__rate_interval": f"{3 * _STEP_S}s",
        }
        wanted = {
            "instance": INSTANCE.name,
            "kind": "late_launch",
            "rank": str(INSTANCE.culprit),
        }
        for variable in variables(name).values():
            if variable["type"] == "textbox":
                chosen[variable["name"]] = variable["query"]
            elif variable["type"] == "query":
                series, label = label_values(variable)
                offered = self.prometheus.label_values(label, filled(series, chosen))
                assert offered, f"{name}: nothing to choose for ${variable['name']} ({series})"
                first = wanted.get(variable["name"], offered[0])
                assert first in offered, f"{name}: ${variable['name']} offers {offered}"
                chosen[variable["name"]] = variable.get("allValue") or first
        return chosen


class Feeder(threading.Thread):
    """Keeps an instance working: healthy steps at first, then one host falls behind."""

    def __init__(self, endpoint: str, engines: EnginePage) -> None:
        super().__init__()
        self._endpoint, self._engines = endpoint, engines
        self._over = threading.Event()

    def run(self) -> None:
        with Sender(self._endpoint) as sender:
            number = 0
            while not self._over.wait(0.2):
                faulty = number >= _HEALTHY_STEPS
                sender.send(INSTANCE.steps(range(number, number + 5), faulty=faulty))
                if number == _HEALTHY_STEPS:  # a sender that heard no answer sends once more
                    sender.send(INSTANCE.steps([number], faulty=faulty))
                self._engines.observe(0.03 if faulty else 0.02, "llama-70b")
                number += 5

    def stop(self) -> None:
        self._over.set()
        self.join()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    servers = Servers(tmp_path_factory.mktemp("dashboards"))
    feeder = None
    with EnginePage(ENGINE_HISTOGRAMS) as engines:
        try:
            jaeger = Jaeger.start(servers)
            endpoint, back, own, found = (servers.endpoint() for _ in range(4))
            kat = servers.kat("kat", back, prometheus={"endpoint": own})
            servers.collector(
                "gateway",
                "gateway.yaml",
                KAT_COLLECTOR_GRPC_ENDPOINT=endpoint,
                KAT_COLLECTOR_HTTP_ENDPOINT=servers.endpoint(),
                KAT_PROCESS_ENDPOINT=kat.endpoint,
                KAT_RETURN_ENDPOINT=back,
                KAT_JAEGER_ENDPOINT=jaeger.endpoint,
                KAT_PROMETHEUS_ENDPOINT=found,
            )
            prometheus = Prometheus.start(
                servers, {"kat": [own], "kat-fleet": [found], "engines": [engines.endpoint]}
            )
            feeder = Feeder(endpoint, engines)
            feeder.start()
            page = 'kat_incident_impact_seconds{kat_page="true"}'
            servers.until("a page", lambda: prometheus.now(page, time.time()), within=120)
            began = time.time()
            servers.until("some time of it", lambda: time.time() > began + 4 * _STEP_S)
            yield Run(prometheus, jaeger)
        finally:
            if feeder is not None:
                feeder.stop()
            servers.stop()


@pytest.mark.parametrize("query", QUERIES, ids=[query.where for query in QUERIES])
def test_the_query_returns_data(run, query: Query):
    expression = filled(query.expression, run.values(query.where.partition(" / ")[0]))
    end = time.time()
    if query.over_time:
        found = run.prometheus.over_time(expression, end - _WINDOW_S, end, _STEP_S)
    else:
        found = run.prometheus.now(expression, end)
    assert found, expression
    assert any(numbers(series) for series in found), f"{expression}: {found[:3]}"


def found_by(run: Run, search: dict, values: dict[str, str]) -> list[dict]:
    """Asks as Grafana's Jaeger data source does: tags in logfmt, over HTTP as JSON."""
    tags = dict(pair.split("=", 1) for pair in shlex.split(filled(search["tags"], values)))
    asked = {"service": search["service"], "tags": json.dumps(tags), "limit": search["limit"]}
    url = f"http://{run.jaeger.query}/api/traces?{urllib.parse.urlencode(asked)}"
    found = get(url)["data"]
    assert found, tags
    return found


def numbers(series: dict) -> list[str]:
    """Values that are numbers."""
    points = series.get("values") or [series["value"]]
    return [value for _, value in points if value not in {"NaN", "+Inf", "-Inf"}]


@pytest.mark.parametrize(("where", "search"), SEARCHES, ids=[where for where, _ in SEARCHES])
def test_jaeger_finds_what_the_panel_shows(run, where, search):
    values = run.values(where.partition(" / ")[0])
    if search.get("queryType") != "search":  # a trace, of those that the search beside it finds
        (beside,) = [other for place, other in SEARCHES if place.startswith("kat-incident / Steps")]
        values["trace"] = found_by(run, beside, values)[0]["traceID"]
        trace = run.jaeger.trace(filled(search["query"], values))
        assert {"kat.diagnosis", "kat.incident"} <= {
            event["name"] for span in trace.spans.values() for event in span.get("events", [])
        }
        return
    for trace in found_by(run, search, values):
        said = {tag["key"]: tag["value"] for span in trace["spans"] for tag in span["tags"]}
        assert said[semconv.ANOMALOUS] is True


def test_a_point_on_the_step_time_leads_to_a_trace_that_jaeger_has(run):
    asked = [query for query in QUERIES if query.exemplars]
    assert [query.where.partition(" / ")[2][:9] for query in asked] == ["Step time"]
    end = time.time()
    found = run.prometheus.exemplars(
        filled(asked[0].expression, run.values("kat-instance")), end - _WINDOW_S, end
    )
    ids = {one["labels"]["trace_id"] for series in found for one in series["exemplars"]}
    assert ids
    newest = max(
        (one["timestamp"], one["labels"]["trace_id"])
        for series in found
        for one in series["exemplars"]
    )
    assert run.jaeger.trace(newest[1]).roots
