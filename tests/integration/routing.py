"""What must meet in one processor: an instance's steps, and what its machines say of themselves."""

from __future__ import annotations

from collections.abc import Sequence

from tests.integration.servers import Servers
from tests.integration.sink import Fact, Sink, lines_of, missing_everywhere, points_of, shown
from tests.integration.traffic import Instance, Request, Sender, span_ids

NCCL = (
    "{host}:77:91 [2] NCCL WARN NET/IB : Got completion from peer 10.0.0.7<51212> with status=12 "
    "opcode=0 len=0 vendor err 129 (Send)"
)
XID = "Xid 94 (contained ECC error)"


def readings(instance: Instance, step: int) -> list[Request]:
    """Returns counters of all GPUs, an Xid of the culprit's from this step on, a line of NCCL.

    The Xid names the GPU by its PCI address, the workers by its id: only who has the counters,
    which name both, knows that they are one.
    """
    line = instance.line(step, NCCL.format(host=instance.host))
    return [*instance.readings("xid_ecc", step), line]


def facts_of(requests: Sequence[Request]) -> set[Fact]:
    """Returns what these requests say, as a sink would note it."""
    found: set[Fact] = set()
    for request in requests:
        if request.signal != "traces":
            found |= (points_of if request.signal == "metrics" else lines_of)(request.data)
    return found


def meet(
    servers: Servers, sender: Sender, backends: Sequence[Sink], fleet: Sequence[Instance], at: int
) -> None:
    """Sends metrics and logs of each instance, then faulty steps: all of it must meet.

    Args:
        servers: to wait with.
        sender: on the way to the processors.
        backends: one for each processor: what comes there went through that one alone.
        fleet: the instances.
        at: number of the first faulty step.
    """
    said = [request for instance in fleet for request in readings(instance, at)]
    facts = facts_of(said)
    sender.send(said)
    servers.until("metrics and logs", lambda: not facts - facts_at(backends))
    numbers = range(at, at + 5)
    faulty = [r for number in numbers for i in fleet for r in i.steps([number], faulty=True)]
    sender.send(faulty)
    servers.until("every span", lambda: not missing_everywhere(backends, span_ids(faulty)))
    servers.until("every verdict", lambda: all(_judges(backends, i) for i in fleet))
    for instance in fleet:
        (judge,) = _judges(backends, instance)
        mine = {fact for fact in facts if fact.instance == instance.name}
        assert not mine - judge.facts, f"{instance.name}: what was said is not where it is judged"
        for other in backends:
            strays = {f for f in mine & other.facts if other is not judge}
            assert not strays, f"{instance.name}: {len(strays)} readings went elsewhere, too"
        (incident,) = found = judge.faults(instance.name)
        assert incident["component"] == "hbm", shown(found)
        said_so = [fact["text"] for fact in incident["evidence"]]
        assert any(XID in text for text in said_so), said_so


def one_incident(instance: Instance, backends: Sequence[Sink]) -> None:
    """Asserts that a fault was one incident all along, wherever it was judged.

    Args:
        instance: whose fault.
        backends: one for each processor; every step must have told its incident.
    """
    told = [report for backend in backends for report in backend.reports(instance.name)]
    assert {report["id"] for report in told} == {told[0]["id"]}, shown(told)
    assert {report["first_seen"] for report in told} == {told[0]["first_seen"]}, shown(told)
    assert told[0]["culprit"]["ranks"] == [instance.culprit]
    # Told as new once, where it began: the others went on counting.
    opened = [report for report in told if report["status"] == "open"]
    assert len(opened) == 1, shown(opened)
    for backend in backends:
        mine = backend.reports(instance.name)
        if mine and mine[0]["status"] != "open":
            assert mine[-1]["occurrences"] > len(mine), shown(mine)


def facts_at(backends: Sequence[Sink]) -> set[Fact]:
    """Returns what has come to any of the backends."""
    return set().union(*(backend.facts for backend in backends))


def _judges(backends: Sequence[Sink], instance: Instance) -> list[Sink]:
    return [backend for backend in backends if backend.faults(instance.name)]
