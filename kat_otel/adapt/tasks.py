"""What examples are about: a fault in the traces, what the machines show with it, and the truth.

The truth is what was injected, never what the embedded rules make of it: a model that is trained
on these can learn what the rules do not know.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

from kat_otel.analyzer.knowledge import UNEXPLAINED
from kat_otel.lmdia.hardware import Cause as MachineCause

__all__ = ["HELD_OUT", "TASKS", "Form", "Task", "TraceFault"]

TraceFault = Literal["slow_rank", "slow_kernel", "late_launch", "stall", "slow_transfer"]
"""What is put into the traces, by the injector of the same name (``lmdia/inject.py``).

Slow copies are not among them: of the steps here the detector calls them slow kernels.
"""

Form = Literal["alone", "shown", "confounded", "quiet", "torn"]
"""How the machines show it.

``alone``: nobody measures them. ``shown``: the sick part shows its sign. ``confounded``: and
another part of the same machine shows one that has nothing to do with it: a hard negative.
``quiet``: they are measured and nothing stands out. ``torn``: two parts show signs that would each
explain it.
"""


class Task(NamedTuple):
    """A kind of case; examples of one task differ in size, rank, noise, names and wording.

    Attributes:
        fault: in the traces.
        form: how the machines show it.
        shown: signs on the culprit's machine, what caused the fault first.
        truth: the cause that is right, by its id in the knowledge; ``unexplained`` where the facts
            decide for none, and the right answer is to abstain.
    """

    fault: TraceFault
    form: Form
    shown: tuple[MachineCause, ...]
    truth: str

    @property
    def name(self) -> str:
        """What tells it from other tasks."""
        return "/".join((self.fault, self.form, *self.shown))


_CAUSES: Final[dict[TraceFault, dict[MachineCause, str]]] = {
    "slow_rank": {
        "thermal": "thermal_throttling",
        "clock_lock": "clocks_set_low",
        "power_cap": "power_cap",
        "power_brake": "power_brake",
    },
    "slow_kernel": {"ecc": "gpu_memory_errors", "xid_ecc": "gpu_memory_errors"},
    "late_launch": {
        "steal": "cpu_contention",
        "cgroup": "cpu_contention",
        "swap": "host_memory_pressure",
    },
    "stall": {"swap": "host_memory_pressure", "disk": "slow_storage", "steal": "cpu_contention"},
    "slow_transfer": {
        "nvlink": "nvlink_errors",
        "xid_nvlink": "nvlink_errors",
        "nic": "network_errors",
        "nccl_ib": "network_errors",
    },
}
"""What of the machines has which effect in the traces, and what it is called."""

_ALONE: Final[dict[TraceFault, str]] = {
    "slow_rank": "low_clocks",
    "late_launch": "late_host",
    "stall": "late_host",
}
"""What is most likely where nobody measures the machines; of the others traces decide for none."""

_QUIET: Final[dict[TraceFault, str]] = {
    "late_launch": "late_host",
    "stall": "late_host",
}
"""What still stands where they are measured and nothing is found: of slow kernels nothing does."""

_BYSTANDERS: Final[dict[TraceFault, tuple[MachineCause, ...]]] = {
    "slow_rank": ("disk", "nic", "pcie_replays"),
    "slow_kernel": ("steal", "disk"),
    "late_launch": ("thermal", "nvlink", "ecc"),
    "stall": ("thermal", "nvlink"),
    "slow_transfer": ("steal", "disk"),
}
"""Signs that cannot have had this effect: other work than what deviates would be slow, too."""

_TORN: Final[dict[TraceFault, tuple[tuple[MachineCause, MachineCause], ...]]] = {
    "slow_rank": (("thermal", "power_cap"), ("power_brake", "thermal")),
    "late_launch": (("steal", "swap"),),
    "stall": (("swap", "disk"), ("steal", "disk")),
    "slow_transfer": (("nvlink", "nic"), ("xid_nvlink", "nccl_ib")),
}


def _tasks() -> tuple[Task, ...]:
    found: list[Task] = []
    for fault, causes in _CAUSES.items():
        found.append(Task(fault, "alone", (), _ALONE.get(fault, UNEXPLAINED)))
        found.append(Task(fault, "quiet", ("healthy",), _QUIET.get(fault, UNEXPLAINED)))
        for cause, truth in causes.items():
            found.append(Task(fault, "shown", (cause,), truth))
            found += [
                Task(fault, "confounded", (cause, other), truth) for other in _BYSTANDERS[fault]
            ]
        found += [Task(fault, "torn", pair, UNEXPLAINED) for pair in _TORN.get(fault, ())]
    return tuple(found)


TASKS: Final = _tasks()

HELD_OUT: Final = frozenset(
    {
        "slow_rank/torn/power_brake/thermal",
        "late_launch/shown/cgroup",
        "late_launch/confounded/steal/ecc",
        "late_launch/confounded/swap/thermal",
        "stall/shown/steal",
        "stall/confounded/swap/nvlink",
        "stall/confounded/disk/thermal",
        "stall/torn/steal/disk",
        "slow_kernel/shown/xid_ecc",
        "slow_transfer/shown/xid_nvlink",
        "slow_transfer/shown/nccl_ib",
        "slow_transfer/torn/xid_nvlink/nccl_ib",
    }
)
"""Tasks that no model is trained on; every cause of theirs is right in another task, too."""
