"""From what was measured to the hardware or software component that explains it.

The table is the design's "signal to component": traces alone name candidates, hardware
metrics and logs raise or lower them (:func:`refine`). The probabilities are priors, said as such:
they order the candidates and never reach certainty.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import msgspec

from kat_otel.hardware.readings import Reading
from kat_otel.ttad.deviations import Observation, observe
from kat_otel.ttad.hardware_evidence import clean_evidence, deviation_evidence
from kat_otel.ttad.hardware_rules import ABSENT, ALSO, ANY_OTHER, RULES, SECOND, WATCHED, WEAK
from kat_otel.verdict import Component, ComponentCandidate, Evidence, Incident, Kind

__all__ = ["candidates", "refine"]

_COMPUTE_BOUND = re.compile(
    r"gemm|cutlass|nvjet|xmma|wgmma|cublas|conv|matmul|mma|Cijk", re.IGNORECASE
)

_UNTOUCHED = 0.3
_AS_SLOW = 0.7
"""Of short kernels' slowness against that of long ones: none to speak of, and about the same."""

_PRIORS: dict[Kind, tuple[tuple[Component, float], ...]] = {
    "slow_rank": (("gpu_clock", 0.5), ("gpu_power", 0.25), ("gpu_compute", 0.2)),
    "slow_kernel": (("gpu_compute", 0.45), ("hbm", 0.3), ("software", 0.2)),
    "late_launch": (("host_cpu", 0.7), ("host_memory", 0.2), ("software", 0.1)),
    "stall": (("host_cpu", 0.5), ("host_memory", 0.35), ("software", 0.1)),
    "slow_transfer": (("nvlink", 0.6), ("pcie", 0.2), ("nic", 0.2)),
    "slow_copy": (("pcie", 0.7), ("host_memory", 0.2)),
    "regression": (("software", 0.8), ("gpu_clock", 0.1)),
    "imbalance": (("software", 0.9),),
    "structure": (("software", 0.8), ("host_cpu", 0.1)),
}


def candidates(
    kind: Kind, kernels: Sequence[str] = (), *, hosts: int = 1, short: float = math.nan
) -> list[ComponentCandidate]:
    """Returns the candidates of an incident, the likeliest first.

    Args:
        kind: of the incident.
        kernels: names of the slow kernels or copies.
        hosts: hosts that the group spans; more than one brings in the network.
        short: by how much the rank's shortest kernels are slower, as a share of by how much its
            long ones are; NaN if not known. Those take as long as a launch takes: a low clock
            makes them slower too, low memory bandwidth does not.
    """
    priors: tuple[tuple[Component, float], ...] = _PRIORS[kind]
    if kind == "slow_transfer" and hosts > 1:
        priors = (("nic", 0.7), ("nvlink", 0.2), ("pcie", 0.1))
    if kind in ("slow_rank", "slow_kernel") and len(kernels) >= 3:
        bound = sum(bool(_COMPUTE_BOUND.search(name)) for name in kernels)
        if bound == 0:  # memory-bound kernels alone are slower
            priors = (("hbm", 0.6), ("gpu_compute", 0.2), ("gpu_clock", 0.15))
    if kind in ("slow_rank", "slow_kernel") and short < _UNTOUCHED:
        priors = (("hbm", 0.5), ("gpu_compute", 0.25), ("gpu_clock", 0.2))
    elif kind in ("slow_rank", "slow_kernel") and short > _AS_SLOW:
        priors = _PRIORS["slow_rank"]
    if kind == "slow_copy" and kernels and all("PtoP" in name for name in kernels):
        priors = (("nvlink", 0.7), ("pcie", 0.2))
    return [ComponentCandidate(component=c, probability=p) for c, p in priors]


_CERTAIN = 0.97
"""No sum of signs is a proof."""
_CANDIDATES = 3
_LEAST = 0.02
_FACTS = 6
_LED_BY = 2
"""Facts of the traces that go before those of the hardware: who is late, and who waits."""


def refine(incident: Incident, readings: Sequence[Reading]) -> Incident:
    """Returns the incident with its component judged anew in the light of hardware readings.

    The priors of the traces are multiplied with what the culprit's readings say (the rules are in
    :mod:`kat_otel.ttad.hardware_rules`). Who is the culprit, the kind and the cost stay as they
    are: hardware says why, never who.

    Args:
        incident: as the traces told it; it is not changed.
        readings: of the culprit and its peers, before and during the incident.

    Returns:
        A copy with component, candidates, confidence and evidence of its own; the incident itself
        if the readings say nothing.
    """
    seen = observe(incident, readings)
    for_it = [o for o in seen if o.deviates]
    quiet = _quiet(seen)
    if not for_it and not quiet:
        return incident
    one_host = len({r.host for r in readings if r.host}) < 2
    weights = _priors(incident)
    for component in weights:
        weights[component] *= _factor(component, for_it, quiet, one_host=one_host)
    total = sum(weights.values())
    ordered = sorted(weights.items(), key=lambda item: -item[1])
    found = [
        ComponentCandidate(component=c, probability=round(min(w / total, _CERTAIN), 3))
        for c, w in ordered[:_CANDIDATES]
        if w / total >= _LEAST
    ]
    named = {candidate.component for candidate in found}
    facts = _facts(incident, [o for o in for_it if o.rule.component in named], quiet)
    led = incident.evidence[:_LED_BY]
    return msgspec.structs.replace(
        incident,
        component=found[0].component,
        component_candidates=found,
        component_confidence=found[0].probability,
        evidence=[*led, *facts, *incident.evidence[_LED_BY:]],
    )


def _priors(incident: Incident) -> dict[Component, float]:
    weights: dict[Component, float] = dict.fromkeys((r.component for r in RULES), ANY_OTHER)
    weights |= ALSO.get(incident.kind, {})
    weights |= {c.component: c.probability for c in incident.component_candidates}
    return weights


def _quiet(seen: list[Observation]) -> dict[Component, list[Observation]]:
    """Components whose signs are measured since the onset and silent, all of them."""
    found: dict[Component, list[Observation]] = {}
    for component, signals in WATCHED.items():
        loud = any(o.deviates and o.rule.component == component for o in seen)
        silent = [o for o in seen if o.rule.signal in signals and o.since and not o.deviates]
        if silent and not loud:
            found[component] = silent
    return found


def _factor(
    component: Component,
    for_it: list[Observation],
    quiet: dict[Component, list[Observation]],
    *,
    one_host: bool,
) -> float:
    weights: dict[str, float] = {}
    for o in for_it:
        if o.rule.component == component:
            weights[o.rule.signal] = max(weights.get(o.rule.signal, 0.0), o.weight)
    if not weights:
        return ABSENT if component in quiet else 1.0
    strongest = max(weights.values())
    if component == "nic" and one_host:
        strongest = min(strongest, WEAK)  # what stays within a host passes no adapter
    return strongest * (SECOND if len(weights) > 1 else 1.0)


def _facts(
    incident: Incident,
    for_it: list[Observation],
    quiet: dict[Component, list[Observation]],
) -> list[Evidence]:
    by_weight = sorted(for_it, key=lambda o: -o.weight)
    once = {(o.rule.signal, o.reading.detail): o for o in reversed(by_weight)}
    told = [o for o in by_weight if once[o.rule.signal, o.reading.detail] is o][:_FACTS]
    facts = [deviation_evidence(n, o) for n, o in enumerate(told, start=1)]
    for candidate in incident.component_candidates:
        silent = quiet.get(candidate.component)
        if silent and len(facts) < _FACTS:
            facts.append(clean_evidence(len(facts) + 1, candidate.component, silent))
    return facts
