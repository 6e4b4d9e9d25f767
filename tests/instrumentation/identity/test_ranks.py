"""Ranks as launchers say them."""

from __future__ import annotations

import pytest

from kat_otel.instrumentation.identity.ranks import from_environment, launched
from kat_otel.spans import UNKNOWN

SLURM = {"SLURM_PROCID": "5", "SLURM_NTASKS": "8", "SLURM_LOCALID": "1"}


@pytest.mark.parametrize(
    ("environment", "rank", "world", "local"),
    [
        ({}, 0, 1, UNKNOWN),
        ({"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}, 3, 8, 1),
        (
            {
                "OMPI_COMM_WORLD_RANK": "2",
                "OMPI_COMM_WORLD_SIZE": "4",
                "OMPI_COMM_WORLD_LOCAL_RANK": "0",
            },
            2,
            4,
            0,
        ),
        ({"PMI_RANK": "1", "PMI_SIZE": "2"}, 1, 2, UNKNOWN),
        ({**SLURM, "SLURM_STEP_ID": "0"}, 5, 8, 1),
        ({**SLURM, "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "6"}, 5, 6, 1),
        (SLURM, 0, 1, UNKNOWN),  # a batch script: srun did not start this process
        ({"KAT_RANK": "7", "KAT_WORLD_SIZE": "9", "RANK": "1", "WORLD_SIZE": "2"}, 7, 9, UNKNOWN),
        ({"RANK": "8", "WORLD_SIZE": "8"}, 0, 1, UNKNOWN),  # no such rank
        ({"RANK": "-1", "WORLD_SIZE": "8"}, 0, 1, UNKNOWN),
        ({"RANK": "two"}, 0, 1, UNKNOWN),
        ({"RANK": "9" * 40, "WORLD_SIZE": "8"}, 0, 1, UNKNOWN),
    ],
)
def test_ranks_of_a_launcher(
    environment: dict[str, str], rank: int, world: int, local: int
) -> None:
    who = from_environment(environment)
    assert (who.rank, who.world_size, who.local_rank) == (rank, world, local)
    assert who.device == local  # without torch, the local rank is the device


def test_whether_a_launcher_started_the_process() -> None:
    assert launched({"RANK": "0"})
    assert not launched(SLURM)
    assert not launched({})
