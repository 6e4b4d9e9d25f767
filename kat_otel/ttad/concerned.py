"""What hardware said of the ranks that an incident concerns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from kat_otel.hardware import HardwareStore, Reading
from kat_otel.spans import UNKNOWN, Resource
from kat_otel.verdict import Incident

__all__ = ["readings_on"]

_PEERS: Final = 32
"""Ranks beside the culprits that are looked at: their median does not change with more."""


def readings_on(
    incident: Incident, workers: Sequence[Resource], store: HardwareStore
) -> list[Reading]:
    """Returns the readings of the culprits and their peers around an incident.

    Args:
        incident: whose ranks and times.
        workers: of the instance.
        store: what hardware said lately.
    """
    members = _concerned(incident, workers)
    return store.lookup(
        instance=members[0].instance if members else "",
        hosts=[m.host for m in members],
        hardware_ids=[m.hardware_id for m in members],
        ranks=[m.rank for m in members],
        begin_ns=incident.first_seen,
        end_ns=incident.last_seen,
    )


def _concerned(incident: Incident, workers: Sequence[Resource]) -> list[Resource]:
    """The culprits, and peers spread over the others; of a group without culprit everybody."""
    by_rank = {r.rank: r for r in workers if r.rank != UNKNOWN}
    culprits = [by_rank[r] for r in incident.culprit.ranks if r in by_rank]
    others = [by_rank[r] for r in sorted(by_rank) if r not in incident.culprit.ranks]
    if not incident.culprit.ranks:
        return others
    return [*culprits, *others[:: max(1, -(-len(others) // _PEERS))]]
