"""What may leave the cluster for the endpoint of a model: the policy ``analyzer.send``.

Names of kernels, hosts, devices, models and groups never leave, whatever is allowed: the model
reads aliases. Nor do log lines, file names, ids of incidents, spans and traces.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal, get_args

from kat_otel.errors import ConfigError

__all__ = ["EVERYTHING", "Part", "parts"]

Part = Literal["hardware", "logs", "times", "engine", "topology", "coverage"]
"""Beside the facts of the traces themselves, without which there is nothing to ask:

``hardware``: what metrics of GPUs and hosts said. ``logs``: that a log line of a known kind was
seen, in our words. ``times``: the time of day in these. ``engine``: which engine runs.
``topology``: number of ranks and the ways of parallelism. ``coverage``: how much could not be
    judged.
"""

EVERYTHING: Final[frozenset[Part]] = frozenset(get_args(Part))


def parts(names: Iterable[str]) -> frozenset[Part]:
    """Returns the parts of that name.

    Raises:
        ConfigError: there is none of a name.
    """
    wanted = {name.strip() for name in names} - {"", "none"}
    unknown = sorted(wanted - EVERYTHING)
    if unknown:
        raise ConfigError(
            f"send: {', '.join(map(repr, unknown))} is not known — choose among "
            f"{', '.join(sorted(EVERYTHING))}, or none"
        )
    return frozenset(part for part in EVERYTHING if part in wanted)
