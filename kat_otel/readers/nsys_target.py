"""What an Nsight Systems export says of the machine: clock, host, devices, ranks."""

from __future__ import annotations

import re
import sqlite3
from dataclasses import dataclass, field

from kat_otel.readers.nsys_tables import columns_of
from kat_otel.spans import UNKNOWN

__all__ = ["Target", "read_target"]

_RANK_VARIABLES = ("RANK", "OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID")
_SIZE_VARIABLES = ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_NTASKS")
_VARIABLE = re.compile(r'(\w+)="?([0-9]{1,6})"?$')


@dataclass(slots=True)
class Target:
    """The machine and session of an export.

    Attributes:
        epoch_ns: Unix time of the session's start, or None if not said.
        clock_at_start: what the events' clock showed then, or None if not said.
        system_clock_at_start: what the system's monotonic clock showed then, or None.
        host: name of the machine, or ``""``.
        hardware_ids: device number -> uuid.
        rank, world_size: from the environment nsys ran in; it is one rank's only if one
            device was profiled.
    """

    epoch_ns: int | None = None
    clock_at_start: int | None = None
    system_clock_at_start: int | None = None
    host: str = ""
    hardware_ids: dict[int, str] = field(default_factory=dict[int, str])
    rank: int = UNKNOWN
    world_size: int = UNKNOWN

    def epoch_of_clock(self, earliest: int) -> int | None:
        """Returns the Unix time at which the events' clock showed 0, or None if not said.

        Exports count from the session's start or go on with the system's clock; the analysis
        details tell which. Where they are missing, events before the clock's value at the
        session's start can only be counted from the session's start.

        Args:
            earliest: the smallest time stamp of an event.
        """
        if self.epoch_ns is None:
            return None
        at_start = self.clock_at_start
        if at_start is None:
            system = self.system_clock_at_start or 0
            at_start = system if earliest >= system else 0
        return self.epoch_ns - at_start


def read_target(database: sqlite3.Connection) -> Target:
    """Returns what the export says of the machine; tables that are missing leave their part open.

    Raises:
        sqlite3.Error: the file is damaged.
    """
    target = Target()
    start = _first(database, "TARGET_INFO_SESSION_START_TIME", ("utcEpochNs", "systemClockNs"))
    target.epoch_ns, target.system_clock_at_start = _integer(start[0]), _integer(start[1])
    target.clock_at_start = _integer(_first(database, "ANALYSIS_DETAILS", ("startTime",))[0])
    if {"name", "value"} <= columns_of(database, "TARGET_INFO_SYSTEM_ENV"):
        query = "SELECT value FROM TARGET_INFO_SYSTEM_ENV WHERE name = 'Hostname'"
        for (value,) in database.execute(query):
            target.host = str(value)
    for table, device in (("TARGET_INFO_CUDA_DEVICE", "cudaId"), ("TARGET_INFO_GPU", "cuDevice")):
        if {device, "uuid"} <= columns_of(database, table):
            for number, uuid in database.execute(f'SELECT "{device}", "uuid" FROM "{table}"'):  # noqa: S608
                if isinstance(number, int) and uuid:
                    target.hardware_ids.setdefault(number, str(uuid))
    _read_environment(database, target)
    return target


def _read_environment(database: sqlite3.Connection, target: Target) -> None:
    if not {"name", "value"} <= columns_of(database, "META_DATA_CAPTURE"):
        return
    query = "SELECT value FROM META_DATA_CAPTURE WHERE name LIKE '%:ENVIRONMENT_VARIABLE'"
    variables = {
        match[1]: int(match[2])
        for (value,) in database.execute(query)
        if (match := _VARIABLE.match(str(value)))
    }
    target.rank = next((variables[v] for v in _RANK_VARIABLES if v in variables), UNKNOWN)
    target.world_size = next((variables[v] for v in _SIZE_VARIABLES if v in variables), UNKNOWN)


def _first(
    database: sqlite3.Connection, table: str, columns: tuple[str, ...]
) -> tuple[object, ...]:
    if not set(columns) <= columns_of(database, table):
        return (None,) * len(columns)
    listed = ", ".join(f'"{column}"' for column in columns)
    row = database.execute(f'SELECT {listed} FROM "{table}" LIMIT 1').fetchone()  # noqa: S608
    return (None,) * len(columns) if row is None else tuple(row)


def _integer(value: object) -> int | None:
    return value if isinstance(value, int) and 0 <= value < 2**62 else None
