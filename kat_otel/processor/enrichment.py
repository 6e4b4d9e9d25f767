"""Has a model explain incidents that have left: a thread of its own that nobody waits for.

The judging thread puts an incident into a bounded queue and goes on. Here tasks of one event loop
take the costliest, ask within a deadline, a budget and a circuit breaker, and send what comes of it
as a later diagnosis (:mod:`kat_otel.processor.later_diagnoses`). Whatever happens, the embedded
diagnosis has left with the incident.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, NamedTuple

import msgspec
from circuitbreaker import CircuitBreaker  # pyright: ignore[reportMissingTypeStubs]

from kat_otel.analyzer import Diagnosis, embedded
from kat_otel.analyzer.answer_schema import Answer, answer_schema
from kat_otel.analyzer.context import context_of
from kat_otel.analyzer.endpoint import Client
from kat_otel.analyzer.explain import Explained, Policy, explain, pack_of, reused
from kat_otel.analyzer.pack import Pack, token_count
from kat_otel.analyzer.prompt import messages
from kat_otel.config import AnalyzerConfig
from kat_otel.processor.budget import Budget, Spent
from kat_otel.processor.exporter import Payload
from kat_otel.processor.later_diagnoses import Later, encode_later
from kat_otel.processor.questions import Question, Questions
from kat_otel.processor.rarely import Rarely
from kat_otel.telemetry import Explanations, Telemetry
from kat_otel.verdict import Incident, Report

__all__ = ["Enrichment"]

_REMEMBERED: Final = 10_000
_ANSWERS: Final = 1_000
_ROOM_S: Final = 30.0
"""How long a diagnosis waits for room in the exporter's queue."""
_CORRECTION: Final = 400
"""Tokens of what a corrected second question adds, beside the first answer."""

logger = logging.getLogger(__name__)


class _Asked(NamedTuple):
    gist: str
    revision: int


class _NoAnswerError(Exception):
    """The endpoint did not answer: what the breaker counts."""


class Enrichment:
    """``start``, :meth:`offer` from the judging thread, ``stop``.

    Args:
        config: whom to ask, and the limits.
        client: that asks.
        policy: what may leave, and how long an answer may take.
        send: takes a request if there is room.
        telemetry: where all of it is counted.
        on_diagnosis: told each diagnosis, in the asking thread.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        config: AnalyzerConfig,
        client: Client,
        policy: Policy,
        send: Callable[[Payload], bool],
        telemetry: Telemetry,
        *,
        on_diagnosis: Callable[[Incident, dict[str, Any]], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._client = client
        self._policy = policy
        self._send = send
        self._telemetry = telemetry
        self._on_diagnosis = on_diagnosis
        self._clock = clock
        self._known = embedded()
        self._counts = telemetry.explanations = Explanations()
        self._questions = Questions(config.queue, clock)
        telemetry.gauges.set("questions", lambda: len(self._questions))
        self._budget = Budget(config, clock)
        self._breaker: Any = CircuitBreaker(
            failure_threshold=config.breaker_failures,
            recovery_timeout=config.breaker_pause,
            expected_exception=_NoAnswerError,
        )
        self._asked: OrderedDict[str, _Asked] = OrderedDict()
        self._answers: OrderedDict[str, Answer] = OrderedDict()
        self._paid = client.tokens
        self._rarely = Rarely()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake, self._end = asyncio.Event(), asyncio.Event()
        self._running = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kat-analyzer", daemon=True)

    def start(self) -> None:
        """Starts the asking thread."""
        self._thread.start()
        self._running.wait()

    def offer(
        self, instance: str, incident: Incident, report: Report, span: tuple[bytes, bytes]
    ) -> None:
        """Takes an incident that has just left; never waits.

        Args:
            instance: its name.
            incident: with news, or long not told.
            report: of its step.
            span: trace and span id of the culprit's span, or empty ones.
        """
        if incident.status == "resolved" or not self._thread.is_alive():
            return
        if not self._questions.put(instance, incident, report, span):
            self._counts.count("queue_full")
        self._soon(self._wake.set)

    def stop(self, timeout: float) -> None:
        """Cuts off what is under way, within ``timeout`` seconds."""
        if not self._thread.is_alive():
            return
        self._soon(self._end.set)
        self._thread.join(timeout)
        if self._thread.is_alive():
            logger.warning("stopping: asking the model did not end in time; no incident waits")

    def _soon(self, call: Callable[[], object]) -> None:
        with suppress(RuntimeError):  # the loop has just ended
            if self._loop is not None:
                self._loop.call_soon_threadsafe(call)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception:
            # Incidents go on without: that is what the embedded diagnosis is for.
            logger.exception("asking the model has ended; incidents keep the embedded diagnosis")
            self._telemetry.books.mark("asking failed")
        finally:
            self._running.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._running.set()
        workers = [asyncio.create_task(self._work()) for _ in range(self._config.concurrency)]
        ending = asyncio.create_task(self._end.wait())
        try:
            done, _ = await asyncio.wait([ending, *workers], return_when="FIRST_COMPLETED")
            for task in done:
                task.result()  # a worker ends only by a defect, which is raised here
        finally:
            for task in (ending, *workers):
                task.cancel()
            await asyncio.gather(ending, *workers, return_exceptions=True)
            for _ in range(self._questions.clear()):
                self._counts.count("stopped")
            await self._client.close()

    async def _work(self) -> None:
        while True:
            await self._closed()
            question = self._questions.take()
            if question is None:
                self._wake.clear()
                await self._wake.wait()
                continue
            try:
                await self._handle(question)
            except asyncio.CancelledError:
                self._counts.count("stopped")
                raise
            except Exception:
                logger.exception("incident %s: asking the model failed", question.incident.id)
                self._telemetry.books.mark("asking failed")
                self._counts.count("failed")
            finally:
                self._questions.done(question)
                self._wake.set()

    async def _closed(self) -> None:
        """Waits while the breaker is open: it closes by the clock, and tells nobody."""
        while self._breaker.opened:  # noqa: ASYNC110
            await asyncio.sleep(min(1.0, max(0.05, self._breaker.open_remaining)))

    async def _handle(self, question: Question) -> None:
        if self._clock() - question.asked_at > self._config.max_wait:
            self._counts.count("waited_too_long")
            return
        incident, context = question.incident, context_of(question.report)
        pack = pack_of(incident, context, policy=self._policy, knowledge=self._known)
        before = self._asked.get(incident.id)
        if before is not None and before.gist == pack.gist:
            return  # nothing but numbers has changed
        if pack.why_not:
            self._counts.count("nothing_to_ask")
            self._note(incident, pack, 0)
        elif (answer := self._answers.get(pack.fingerprint)) is not None:
            begin = time.time_ns()
            made = reused(answer, incident, pack, self._client.endpoint, self._known)
            await self._tell(question, pack, made, begin, reuse=True)
        else:
            await self._ask(question, pack)

    async def _ask(self, question: Question, pack: Pack) -> None:
        most = self._most(pack)
        if not self._budget.hold(most):
            self._counts.count("over_budget")
            return
        spent, begin = most, time.time_ns()
        watch = self._telemetry.watch("explain")
        try:
            result = await self._guarded(question)
            spent = self._cost(most, result)
        finally:
            self._budget.settle(most, spent)
            watch.stop()
        if result.answer is not None:
            self._remember(pack, result.answer)
            await self._tell(question, pack, result.diagnosis, begin, why=result.why_not)
        elif result.error:
            # The endpoint's fault: asked again when the incident is told again.
            self._counts.count("failed", result.why_not)
            if self._rarely.unsaid(result.error) is not None:
                logger.warning("a model was asked: %s", result.error)
        else:
            self._counts.count("rejected", result.why_not)
            self._note(question.incident, pack, 0)
            reasons = ", ".join(result.why_not)
            logger.info("incident %s: answer not taken (%s)", question.incident.id, reasons)

    async def _guarded(self, question: Question) -> Explained:
        """Asks; the breaker hears of it if the endpoint does not answer."""
        result = await explain(
            question.incident,
            context_of(question.report),
            self._client,
            policy=self._policy,
            knowledge=self._known,
        )
        with suppress(_NoAnswerError), self._breaker:
            if result.error and not {"refused", "empty"} & set(result.why_not):
                raise _NoAnswerError
        return result

    async def _tell(
        self,
        question: Question,
        pack: Pack,
        diagnosis: Diagnosis,
        begin_ns: int,
        *,
        reuse: bool = False,
        why: tuple[str, ...] = (),
    ) -> None:
        incident = question.incident
        before = self._asked.get(incident.id)
        revision = 1 if before is None else before.revision + 1
        later = Later(diagnosis, revision, begin_ns, time.time_ns())
        said: dict[str, Any] = msgspec.to_builtins(diagnosis)
        trace, log = encode_later(question, later, said)
        if self._on_diagnosis is not None:
            self._on_diagnosis(incident, said)
        logger.info("incident %s: %s", incident.id, diagnosis.summary)
        sent = await self._sent(Payload("traces", trace)) and await self._sent(Payload("logs", log))
        self._counts.count(("reused" if reuse else "model") if sent else "unsent", why)
        if sent:
            self._note(incident, pack, 1)

    async def _sent(self, payload: Payload) -> bool:
        give_up = self._clock() + _ROOM_S
        while not self._send(payload):
            if self._clock() > give_up:
                return False
            await asyncio.sleep(0.2)
        return True

    def _note(self, incident: Incident, pack: Pack, more: int) -> None:
        before = self._asked.pop(incident.id, None)
        revision = (0 if before is None else before.revision) + more
        self._asked[incident.id] = _Asked(pack.gist, revision)
        if len(self._asked) > _REMEMBERED:
            self._asked.popitem(last=False)

    def _remember(self, pack: Pack, answer: Answer) -> None:
        self._answers[pack.fingerprint] = answer
        if len(self._answers) > _ANSWERS:
            self._answers.popitem(last=False)

    def _most(self, pack: Pack) -> Spent:
        """Returns what an incident may cost at most, with a second question."""
        schema = answer_schema(pack, prose=self._policy.prose)
        first = sum(token_count(one["content"]) for one in messages(pack, schema, shown=True))
        answer = self._config.max_answer_tokens
        return Spent(2 * first + answer + _CORRECTION, 2 * answer)

    def _cost(self, most: Spent, result: Explained) -> Spent:
        """Returns what was paid since the last time, the probe included.

        What an endpoint did for a request that was cut off nobody knows: then it is the most.
        """
        now, before = self._client.tokens, self._paid
        self._paid = now
        spent = Spent(now.prompt - before.prompt, now.completion - before.completion)
        self._counts.spend(*spent)
        return most if "timeout" in result.why_not else spent
