"""One nonce for all ranks of an instance, through what they share already.

Trace ids come from nonce and step number, so the nonce must be the same on all ranks and another
one for each replica and after each restart. In order of preference:

1. the store of torch's default process group. Whoever comes first sets the key, everybody else
   reads it: one atomic ``compare_set``, so no rank waits for another, and the key stays for those
   that start late. The group's members are those that share collectives: replicas have their own.
2. the launcher's environment, where it names this very start: a PMIx namespace, a Slurm job and
   step, torchrun's run id with its restart count and rendezvous.
3. a random number, where the process is alone.
4. ``KAT_INSTANCE_ID`` alone, for what shares nothing else: it cannot tell two starts apart.

An explicit ``KAT_INSTANCE_ID`` is mixed into whichever it is.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, Protocol

from kat_otel.identity import nonce_of

__all__ = ["KEY", "Shared", "Store", "from_environment", "from_store", "shared_nonce"]

KEY: Final = "kat_otel/nonce/1"
_LONGEST: Final = 64


class Store(Protocol):
    """What we use of torch's store."""

    def compare_set(self, key: str, expected: str, desired: str, /) -> bytes:
        """Sets ``desired`` if the key is not there (``expected`` empty); returns what stands."""
        ...


class Shared(NamedTuple):
    """A nonce and what it came from.

    Attributes:
        nonce: 64 bits.
        source: ``store``, ``launcher``, ``alone``, ``explicit`` or ``none``.
    """

    nonce: int
    source: str


def from_store(store: Store) -> str:
    """Returns the text that all ranks of the store read alike.

    Raises:
        Exception: whatever the store raises, usually that its server is gone.
        ValueError: something else stands under our key.
    """
    mine = secrets.token_hex(16)
    found: Any = store.compare_set(KEY, "", mine)
    text = found.decode("ascii") if isinstance(found, bytes) else str(found)
    if not text or len(text) > _LONGEST:
        raise ValueError(f"the store holds {text[:20]!r} under {KEY}")
    return text


def from_environment(environment: Mapping[str, str]) -> str:
    """Returns what tells this start of all ranks from any other; empty if nothing does."""
    get = environment.get
    if get("PMIX_NAMESPACE"):
        return f"pmix {get('PMIX_NAMESPACE')} {get('PMIX_SERVER_URI41', '')}"
    if get("OMPI_MCA_ess_base_jobid") or get("OMPI_MCA_orte_ess_jobid"):
        job = get("OMPI_MCA_ess_base_jobid") or get("OMPI_MCA_orte_ess_jobid")
        return f"mpi {job} {get('OMPI_MCA_orte_hnp_uri', '')}"
    if get("SLURM_JOB_ID") and get("SLURM_STEP_ID"):
        restarts = get("SLURM_RESTART_COUNT", "0")
        return f"slurm {get('SLURM_JOB_ID')} {get('SLURM_STEP_ID')} {restarts}"
    run = get("TORCHELASTIC_RUN_ID", "")
    if run and run != "none":  # what torchrun says without --rdzv-id is the same every time
        restarts = get("TORCHELASTIC_RESTART_COUNT", "0")
        return f"torchrun {run} {restarts} {get('MASTER_ADDR', '')} {get('MASTER_PORT', '')}"
    return ""


def shared_nonce(
    *, world_size: int, explicit: str, store: Store | None, environment: Mapping[str, str]
) -> Shared:
    """Returns the nonce of this start.

    Args:
        world_size: ranks of the instance.
        explicit: ``KAT_INSTANCE_ID``, or empty.
        store: of torch's default process group, or None.
        environment: of the process.

    Raises:
        Exception: of a store that does not answer: asking again later may help.
    """
    if store is not None:
        text, source = from_store(store), "store"
    elif world_size <= 1:
        text, source = secrets.token_hex(16), "alone"
    elif launcher := from_environment(environment):
        text, source = launcher, "launcher"
    elif explicit:
        text, source = "", "explicit"
    else:
        text, source = secrets.token_hex(16), "none"
    return Shared(nonce_of(f"{explicit}\n{text}"), source)
