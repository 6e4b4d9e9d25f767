"""Asks a model for a diagnosis, checks it, asks once more; then the embedded one stands in."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast

import msgspec

from kat_otel.analyzer.answer_schema import Answer, answer_schema
from kat_otel.analyzer.check import Problem, check, object_in
from kat_otel.analyzer.clean import clean
from kat_otel.analyzer.compose import composed
from kat_otel.analyzer.context import Context
from kat_otel.analyzer.diagnose import diagnose
from kat_otel.analyzer.diagnosis import Diagnosis
from kat_otel.analyzer.endpoint import Client, Endpoint, Form, Reply, Tokens
from kat_otel.analyzer.knowledge import Knowledge, embedded
from kat_otel.analyzer.pack import MAX_TOKENS, Pack, make_pack
from kat_otel.analyzer.prompt import PROMPT_VERSION, Message, corrected, messages
from kat_otel.analyzer.reasons import Failure, WhyNot
from kat_otel.analyzer.send import EVERYTHING, Part
from kat_otel.errors import EndpointError
from kat_otel.verdict import Incident

__all__ = ["Explained", "Policy", "explain", "pack_of", "request_of", "reused"]

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
        answer: the model's own that was taken, which is the same for the same facts under other
            names, see :func:`reused`; None with the embedded diagnosis.
    """

    diagnosis: Diagnosis
    why_not: tuple[WhyNot, ...] = ()
    error: str = ""
    form: Form | None = None
    tokens: Tokens = field(default_factory=Tokens)
    seconds: float = 0.0
    answer: Answer | None = None


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
    pack = pack_of(incident, context, policy=rules, knowledge=known)
    asking = _Asking(incident, client, rules, known, pack)
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
        diagnosis=_signed(
            diagnosis or diagnose(incident, known), asking.pack, client.endpoint, asking.why_not
        ),
        why_not=tuple(asking.why_not),
        error=asking.error,
        form=asking.form,
        tokens=asking.tokens,
        seconds=time.monotonic() - begin,
        answer=None if diagnosis is None else asking.taken,
    )


def reused(
    answer: Answer, incident: Incident, pack: Pack, endpoint: Endpoint, knowledge: Knowledge
) -> Diagnosis:
    """Returns the diagnosis of an incident by an answer to the same facts, which need other names.

    Args:
        answer: that was taken for a pack with this fingerprint.
        incident: that ``pack`` is made of.
        pack: what a model would read of it.
        endpoint: that answered.
        knowledge: causes and actions.
    """
    return _signed(composed(answer, incident, pack, knowledge), pack, endpoint, [])


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
    pack = pack_of(incident, context, policy=rules, knowledge=known)
    schema = answer_schema(pack, prose=rules.prose)
    return pack, messages(pack, schema, shown=form != "json_schema"), schema


def pack_of(incident: Incident, context: Context, *, policy: Policy, knowledge: Knowledge) -> Pack:
    """Returns the evidence pack of an incident as the policy lets it leave."""
    return make_pack(
        incident, context, knowledge=knowledge, send=policy.send, max_tokens=policy.max_tokens
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
        self.taken: Answer | None = None
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
                self.taken = found
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


def _signed(
    diagnosis: Diagnosis, pack: Pack, endpoint: Endpoint, why_not: Sequence[WhyNot]
) -> Diagnosis:
    """Returns the diagnosis with who was asked and what became of it."""
    return msgspec.structs.replace(
        diagnosis,
        model=clean(endpoint.model, 120),
        prompt=PROMPT_VERSION,
        fingerprint=pack.fingerprint,
        rejected=list(dict.fromkeys(why_not)),
    )
