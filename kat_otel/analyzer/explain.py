"""Asks a model for a diagnosis, checks it, asks once more; then the embedded one stands in."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast

import msgspec

from kat_otel.analyzer.answer_schema import answer_schema
from kat_otel.analyzer.check import Problem, check, object_in
from kat_otel.analyzer.clean import clean
from kat_otel.analyzer.compose import composed
from kat_otel.analyzer.context import Context
from kat_otel.analyzer.diagnose import diagnose
from kat_otel.analyzer.diagnosis import Diagnosis
from kat_otel.analyzer.endpoint import Client, Form, Reply, Tokens
from kat_otel.analyzer.knowledge import Knowledge, embedded
from kat_otel.analyzer.pack import MAX_TOKENS, Pack, make_pack
from kat_otel.analyzer.prompt import PROMPT_VERSION, Message, corrected, messages
from kat_otel.analyzer.reasons import Failure, WhyNot
from kat_otel.analyzer.send import EVERYTHING, Part
from kat_otel.errors import EndpointError
from kat_otel.verdict import Incident

__all__ = ["Explained", "Policy", "explain", "request_of"]

_ATTEMPTS: Final = 2


@dataclass(frozen=True, slots=True)
class Policy:
    """How a model is asked.

    Attributes:
        send: what may leave beside the facts of traces.
        prose: whether the model writes sentences; else all text is composed.
        max_tokens: of the evidence pack.
        deadline_s: over all of one incident: probe, both attempts, the library's own retries.
    """

    send: frozenset[Part] = EVERYTHING
    prose: bool = True
    max_tokens: int = MAX_TOKENS
    deadline_s: float = 120.0


@dataclass(frozen=True, slots=True)
class Explained:
    """What came of asking.

    Attributes:
        diagnosis: the model's, or the embedded one.
        why_not: reasons of all answers that were not taken, or of there being none; one may be
            there although the second answer was taken.
        error: what the endpoint said in a sentence; empty if it answered.
        form: what the server was asked for; None if nothing was sent.
        tokens: what the incident cost, without the probe.
        seconds: how long it took.
    """

    diagnosis: Diagnosis
    why_not: tuple[WhyNot, ...] = ()
    error: str = ""
    form: Form | None = None
    tokens: Tokens = field(default_factory=Tokens)
    seconds: float = 0.0


async def explain(
    incident: Incident,
    context: Context,
    client: Client,
    *,
    policy: Policy | None = None,
    knowledge: Knowledge | None = None,
) -> Explained:
    """Returns a diagnosis of an incident, always: the model's, or the embedded one and why.

    Never raises what an endpoint does, and never takes longer than the policy's deadline.

    Args:
        incident: as the detector and the hardware's readings tell it.
        context: what the report says around it.
        client: whom to ask.
        policy: what may leave, and how long it may take.
        knowledge: causes and actions; the package's own if None.
    """
    rules, known = policy or Policy(), knowledge or embedded()
    begin = time.monotonic()
    asking = _Asking(incident, client, rules, known, _pack(incident, context, rules, known))
    diagnosis: Diagnosis | None = None
    if asking.pack.why_not:
        asking.why_not.append("nothing_to_ask")
    else:
        try:
            async with asyncio.timeout(rules.deadline_s):
                diagnosis = await asking.answer()
        except TimeoutError:
            asking.why_not.append("timeout")
            asking.error = f"no diagnosis within {rules.deadline_s:g} s"
        except EndpointError as error:
            asking.why_not.append(cast("Failure", error.reason))
            asking.error = str(error)
    return Explained(
        diagnosis=_signed(diagnosis or diagnose(incident, known), asking),
        why_not=tuple(asking.why_not),
        error=asking.error,
        form=asking.form,
        tokens=asking.tokens,
        seconds=time.monotonic() - begin,
    )


def request_of(
    incident: Incident,
    context: Context,
    form: Form,
    *,
    policy: Policy | None = None,
    knowledge: Knowledge | None = None,
) -> tuple[Pack, list[Message], dict[str, Any]]:
    """Returns the pack, the messages and the schema of the first request about an incident."""
    rules, known = policy or Policy(), knowledge or embedded()
    pack = _pack(incident, context, rules, known)
    schema = answer_schema(pack, prose=rules.prose)
    return pack, messages(pack, schema, shown=form != "json_schema"), schema


def _pack(incident: Incident, context: Context, rules: Policy, known: Knowledge) -> Pack:
    return make_pack(
        incident, context, knowledge=known, send=rules.send, max_tokens=rules.max_tokens
    )


class _Asking:
    """One incident under way: what was answered so far, and what it cost."""

    def __init__(
        self, incident: Incident, client: Client, rules: Policy, known: Knowledge, pack: Pack
    ) -> None:
        self.pack, self.client = pack, client
        self.why_not: list[WhyNot] = []
        self.error = ""
        self.form: Form | None = None
        self.tokens = Tokens()
        self._incident, self._known = incident, known
        self._schema = answer_schema(pack, prose=rules.prose)

    async def answer(self) -> Diagnosis | None:
        """Returns the model's diagnosis; None if neither of two answers can be taken."""
        asked = await self._first_messages()
        for _ in range(_ATTEMPTS):
            reply = await self._ask(asked)
            found = object_in(reply.text)
            problems = [found] if isinstance(found, Problem) else check(found, self.pack)
            if not problems and not isinstance(found, Problem):
                return composed(found, self._incident, self.pack, self._known)
            if reply.cut:
                problems = [Problem("truncated", "the answer was too long: write less")]
            for problem in problems:
                if problem.reason not in self.why_not:
                    self.why_not.append(problem.reason)
            asked = corrected(await self._first_messages(), reply.text, problems)
        return None

    async def _first_messages(self) -> list[Message]:
        self.form = await self.client.form()
        return messages(self.pack, self._schema, shown=self.form != "json_schema")

    async def _ask(self, asked: Sequence[Message]) -> Reply:
        while True:
            form = self.form = await self.client.form()
            try:
                reply = await self.client.ask(asked, self._schema, form)
            except EndpointError as error:
                # It keeps to small schemas, and not to this one: less is asked for from now on.
                if error.status not in {400, 422} or form == "text":
                    raise
                self.client.step_down(form)
                asked = [*(await self._first_messages()), *asked[2:]]
                continue
            self.tokens += reply.tokens
            return reply


def _signed(diagnosis: Diagnosis, asking: _Asking) -> Diagnosis:
    """Returns the diagnosis with who was asked and what became of it."""
    return msgspec.structs.replace(
        diagnosis,
        model=clean(asking.client.endpoint.model, 120),
        prompt=PROMPT_VERSION,
        fingerprint=asking.pack.fingerprint,
        rejected=list(dict.fromkeys(asking.why_not)),
    )
