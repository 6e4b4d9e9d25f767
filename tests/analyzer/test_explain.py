"""A model is asked over HTTP, and its answer checked; there is a diagnosis whatever happens."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from typing import Any

import pytest

from kat_otel.analyzer import diagnose
from kat_otel.analyzer.context import context_of
from kat_otel.analyzer.endpoint import Client, Endpoint
from kat_otel.analyzer.explain import Explained, Policy, explain
from kat_otel.analyzer.prompt import PROMPT_VERSION
from kat_otel.errors import ConfigError
from tests.analyzer.incidents import late_launch, report, steal
from tests.analyzer.openai_server import Answering, Said, Server, keeps_schemas, serving
from tests.analyzer.test_check import WRONG, good

INCIDENT = late_launch(more=(steal(),))
KEY = "sk-test-0123456789abcdefghij"


def asked(
    server: Server, *, incident=INCIDENT, policy: Policy | None = None, **settings: Any
) -> Explained:
    async def ask() -> Explained:
        end = Endpoint(server.url, "m", KEY, **{"retries": 0, "timeout_s": 5.0} | settings)
        client = Client(end)
        try:
            return await explain(incident, context_of(report(incident)), client, policy=policy)
        finally:
            await client.close()

    return asyncio.run(ask())


def always(text: str, **said: Any) -> Answering:
    return keeps_schemas(lambda _: Said(text, **said))


def in_turn(*texts: str) -> Answering:
    left = list(texts)
    return keeps_schemas(lambda _: Said(left.pop(0)))


GOOD = json.dumps(good())


def test_a_grounded_answer_becomes_the_diagnosis():
    with serving(always(GOOD)) as server:
        said = asked(server)
    assert (said.diagnosis.mode, said.diagnosis.model) == ("model", "m")
    assert said.diagnosis.prompt == PROMPT_VERSION
    assert len(said.diagnosis.fingerprint) == 32
    assert (said.why_not, said.error, said.form) == ((), "", "json_schema")
    assert (said.tokens.prompt, said.tokens.completion, said.tokens.estimated) == (700, 90, False)
    (request,) = server.about
    assert request["response_format"]["json_schema"]["strict"] is True
    assert request["temperature"] == 0
    assert "flash" not in json.dumps(request)


@pytest.mark.parametrize(("reason", "wrong"), WRONG)
def test_what_is_wrong_is_asked_once_more_and_corrected_it_is_taken(
    reason: str, wrong: dict[str, Any]
):
    with serving(in_turn(json.dumps(wrong), GOOD)) as server:
        said = asked(server)
    assert said.diagnosis.mode == "model"
    assert reason in said.why_not
    first, second = server.about
    assert second["messages"][:2] == first["messages"]
    assert second["messages"][3]["content"].startswith("That was not taken:\n- ")


@pytest.mark.parametrize(("reason", "wrong"), [*WRONG, ("no_json", None)])
def test_what_is_wrong_twice_leaves_the_embedded_diagnosis_with_the_reason(
    reason: str, wrong: dict[str, Any] | None
):
    with serving(always(json.dumps(wrong) if wrong else "I cannot say.")) as server:
        said = asked(server)
    assert len(server.about) == 2
    assert said.diagnosis.mode == "rules"
    assert said.diagnosis.root_cause == diagnose(INCIDENT).root_cause
    assert said.diagnosis.causal_chain == diagnose(INCIDENT).causal_chain
    assert reason in said.why_not
    assert reason in said.diagnosis.rejected
    assert said.tokens.prompt == 1_400


def test_an_answer_cut_at_the_most_tokens_is_truncated():
    with serving(always(GOOD[:80], finish="length")) as server:
        assert asked(server).why_not == ("truncated",)


@pytest.mark.parametrize(
    ("said", "reason", "calls"),
    [
        (Said(status=429), "overloaded", 3),
        (Said(status=500), "server_error", 3),
        (Said(status=503, headers={"retry-after": "0"}), "server_error", 3),
        (Said(status=401), "not_allowed", 1),
        (Said(status=403), "not_allowed", 1),
        (Said(status=404), "no_such_model", 1),
        (Said(status=418), "not_accepted", 1),
        (Said(text=None), "empty", 1),
        (Said(text=" "), "empty", 1),
        (Said(finish="content_filter"), "refused", 1),
        (Said(raw=b"<html>not an API</html>"), "unreachable", 1),
        (Said(raw=b"x" * (5 << 20)), "unreachable", 3),
    ],
)
def test_a_server_that_does_not_answer_leaves_the_embedded_diagnosis(said, reason, calls):
    with serving(keeps_schemas(lambda _: said)) as server:
        result = asked(server, retries=2)
    assert (result.why_not, result.diagnosis.mode) == ((reason,), "rules")
    assert result.error
    assert len(server.about) == calls, "retried where it may help, and only there"


def test_where_nobody_listens_the_embedded_diagnosis_stands(free_port: int):
    said = asked(Server(f"http://127.0.0.1:{free_port}/v1"))
    assert (said.why_not, said.diagnosis.mode) == (("unreachable",), "rules")
    assert "is it up" in said.error


def test_an_answer_that_drips_ends_at_the_deadline():
    with serving(keeps_schemas(lambda _: Said(GOOD, drip_s=0.05))) as server:
        begin = time.monotonic()
        said = asked(server, policy=Policy(deadline_s=0.6))
        assert time.monotonic() - begin < 3
    assert (said.why_not, said.diagnosis.mode) == (("timeout",), "rules")


def test_a_request_that_takes_too_long_is_a_timeout():
    with serving(keeps_schemas(lambda _: time.sleep(0.5) or Said(GOOD))) as server:
        assert asked(server, timeout_s=0.1).why_not == ("timeout",)


def test_nothing_is_sent_where_nothing_can_be_decided():
    with serving(always(GOOD)) as server:
        said = asked(server, incident=late_launch(sure=False))
    assert (said.why_not, said.diagnosis.abstained, server.requests) == (
        ("nothing_to_ask",),
        True,
        [],
    )


# --- what a server keeps to ---------------------------------------------------------------------


def refuses(*forms: str, status: int = 400) -> Answering:
    def answer(request: dict[str, Any]) -> Said:
        if request.get("response_format", {}).get("type") in forms:
            return Said(status=status, error="response_format is not supported")
        return Said('{"word": "hello"}' if len(request["messages"]) == 1 else GOOD)

    return answer


@pytest.mark.parametrize(
    ("answer", "form"),
    [
        (keeps_schemas(lambda _: Said(GOOD)), "json_schema"),
        (refuses("json_schema"), "json_object"),
        (refuses("json_schema", status=500), "json_object"),
        (refuses("json_schema", "json_object", status=422), "text"),
        (lambda r: Said("Hello!" if len(r["messages"]) == 1 else f"Here: {GOOD}"), "text"),
        (lambda r: Said('{"a": 1}' if len(r["messages"]) == 1 else GOOD), "json_object"),
    ],
    ids=["keeps", "refuses", "breaks", "refuses both", "ignores", "ignores the schema alone"],
)
def test_the_probe_finds_what_a_server_keeps_to(answer: Answering, form: str):
    with serving(answer) as server:
        said = asked(server)
    assert (said.form, said.diagnosis.mode) == (form, "model")
    (request,) = server.about
    assert request.get("response_format", {"type": "text"})["type"] == form
    shown = "JSON Schema of the object" in request["messages"][0]["content"]
    assert shown == (form != "json_schema"), "who is not held to a schema must be shown it"


def test_a_server_that_keeps_to_small_schemas_only_is_asked_for_less():
    def answer(request: dict[str, Any]) -> Said:
        wish = request.get("response_format", {})
        if "enum" in json.dumps(wish) and len(request["messages"]) > 1:
            return Said(status=400, error="schema too complex")
        return Said(GOOD)

    with serving(keeps_schemas(answer)) as server:
        said = asked(server)
    assert (said.form, said.diagnosis.mode) == ("json_object", "model")


def test_newer_names_of_parameters_are_learnt():
    def answer(request: dict[str, Any]) -> Said:
        for name in ("max_tokens", "temperature"):
            if name in request:
                return Said(status=400, error=f"Unsupported parameter: '{name}'")
        return Said(GOOD)

    def first(request: dict[str, Any]) -> Said:
        return (
            answer(request)
            if "max_tokens" in request or "temperature" in request
            else held(request)
        )

    held = keeps_schemas(answer)
    with serving(first) as server:
        said = asked(server)
    assert said.diagnosis.mode == "model"
    assert "max_completion_tokens" in server.about[-1]


def test_the_probe_is_made_once_for_many():
    async def many() -> list[Explained]:
        client = Client(Endpoint(server.url, "m"))
        try:
            one = context_of(report(INCIDENT))
            return list(await asyncio.gather(*(explain(INCIDENT, one, client) for _ in range(5))))
        finally:
            await client.close()

    with serving(always(GOOD)) as server:
        assert [r.diagnosis.mode for r in asyncio.run(many())] == ["model"] * 5
    assert len(server.requests) - len(server.about) == 1


def test_tokens_that_the_server_does_not_count_are_estimated():
    with serving(always(GOOD, usage=False)) as server:
        said = asked(server)
    assert said.tokens.estimated
    assert said.tokens.prompt > 500


# --- what stays secret ---------------------------------------------------------------------------


def test_the_key_is_sent_and_said_nowhere(caplog, capfd, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-somebody-else-012345")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-of-somebody")
    caplog.set_level(logging.DEBUG)
    echoing = keeps_schemas(lambda _: Said(status=400, error=f"Incorrect API key provided: {KEY}"))
    with serving(echoing) as server:
        said = asked(server)
        with serving(always(GOOD)) as other:
            asked(other)
    assert other.headers[0]["authorization"] == f"Bearer {KEY}"
    assert "org-of-somebody" not in str(other.headers)
    assert said.error
    told = capfd.readouterr()
    for text in (
        said.error,
        repr(said),
        caplog.text,
        told.out,
        told.err,
        repr(Endpoint("http://localhost/v1", "m", KEY)),
    ):
        assert KEY not in text
        assert "somebody-else" not in text


def test_nothing_follows_a_redirect():
    with serving(always(GOOD)) as elsewhere:
        moved = Said(status=307, headers={"location": f"{elsewhere.url}/chat/completions"})
        with serving(keeps_schemas(lambda _: moved)) as server:
            said = asked(server)
    assert said.why_not == ("not_accepted",)
    assert elsewhere.requests == []


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://llm.example/v1", "insecure"),
        ("llm.example/v1", "no URL of a server"),
        ("ftp://llm.example/v1", "no URL of a server"),
        ("https://me:secret@llm.example/v1", "password in the URL"),
    ],
)
def test_an_endpoint_that_would_leak_or_cannot_be_called_is_refused(url: str, message: str):
    with pytest.raises(ConfigError, match=message) as caught:
        Endpoint(url, "m")
    assert "secret" not in str(caught.value)
    assert Endpoint("http://llm.example/v1", "m", insecure=True).url


# --- what OpenTelemetry says of it ----------------------------------------------------------------


def test_calls_make_spans_and_metrics_by_the_genai_conventions_without_a_word_of_content():
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from kat_otel.analyzer.telemetry import instrument, uninstrument

    spans, metrics, tracers = InMemorySpanExporter(), InMemoryMetricReader(), TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(spans))
    instrument(tracers, MeterProvider([metrics]))
    try:
        with serving(always(GOOD)) as server:
            asked(server)
    finally:
        uninstrument()
    probe, chat = spans.get_finished_spans()
    assert probe.name == chat.name == "chat m"
    told = dict(chat.attributes or {})
    assert told["gen_ai.operation.name"] == "chat"
    assert told["gen_ai.request.model"] == "m"
    assert (told["gen_ai.usage.input_tokens"], told["gen_ai.usage.output_tokens"]) == (700, 90)
    assert "Facts:" not in chat.to_json()
    assert "gen_ai.client.token.usage" in metrics.get_metrics_data().to_json()
