"""A real Jaeger, and what it has of a trace."""

from __future__ import annotations

import signal
import urllib.error
from dataclasses import dataclass
from typing import Any

from tests.integration.servers import CONFIG, Server, Servers, binary, free_endpoints, get


@dataclass(frozen=True)
class Trace:
    """The spans of one trace, each span id once."""

    spans: dict[int, dict[str, Any]]
    """By id, as OTLP JSON."""
    resources: dict[int, dict[str, Any]]
    """By the same ids, who sent it: attributes of the resource."""

    @property
    def roots(self) -> list[dict[str, Any]]:
        return [span for span in self.spans.values() if not span.get("parentSpanId")]

    @property
    def orphans(self) -> list[str]:
        """Names of spans whose parent is not there."""
        return [
            span["name"]
            for span in self.spans.values()
            if span.get("parentSpanId") and int(span["parentSpanId"], 16) not in self.spans
        ]


@dataclass(frozen=True)
class Jaeger:
    """A running Jaeger, with its traces in memory."""

    server: Server
    endpoint: str
    """Where it receives OTLP over gRPC."""
    query: str

    @staticmethod
    def start(servers: Servers) -> Jaeger:
        at = free_endpoints("receiver", "query", "query_grpc")
        server = servers.start(
            "jaeger",
            [binary("jaeger"), "--config", str(CONFIG / "jaeger-memory.yaml")],
            KAT_JAEGER_ENDPOINT=at["receiver"],
            KAT_JAEGER_QUERY_ENDPOINT=at["query"],
            KAT_JAEGER_QUERY_GRPC_ENDPOINT=at["query_grpc"],
        )
        services = f"http://{at['query']}/api/v3/services"
        servers.until("Jaeger's API", lambda: get(services) is not None)
        return Jaeger(server, at["receiver"], at["query"])

    def trace(self, trace_id: str) -> Trace:
        """Returns what is there of a trace: no span at all if Jaeger does not know it."""
        try:
            found = get(f"http://{self.query}/api/v3/traces/{trace_id}")["result"]
        except urllib.error.HTTPError as error:
            if error.code != 404:
                raise
            error.close()
            found = {"resourceSpans": []}
        trace = Trace({}, {})
        for group in found["resourceSpans"]:
            said = attributes_of(group["resource"])
            # Either may be missing in what is read while it is written.
            for scope in group.get("scopeSpans", []):
                for span in scope.get("spans", []):
                    number = int(span["spanId"], 16)
                    trace.spans[number], trace.resources[number] = span, said
        return trace

    def goes_away(self) -> None:
        """Answers nobody any more, without forgetting what it has."""
        self.server.signal(signal.SIGSTOP)

    def comes_back(self) -> None:
        self.server.signal(signal.SIGCONT)


def attributes_of(holder: dict[str, Any]) -> dict[str, Any]:
    """OTLP JSON's list of pairs as a dictionary; integers are strings there."""
    return {pair["key"]: _value(pair["value"]) for pair in holder.get("attributes", [])}


def _value(said: dict[str, Any]) -> Any:
    ((kind, value),) = said.items()
    if kind == "arrayValue":
        return [_value(one) for one in value["values"]]
    return int(value) if kind == "intValue" else value
