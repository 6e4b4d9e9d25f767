"""Hardware metrics and logs: what NVML, DCGM, the kernel and NCCL say, beside the traces.

``readings`` names the closed set of signals, ``metric_names`` and ``log_patterns`` say where they
come from, ``store`` remembers them for a while and finds those of an incident.
"""

from kat_otel.hardware.readings import SIGNALS, Reading, Signal
from kat_otel.hardware.store import HardwareStore, Wanted

__all__ = ["SIGNALS", "HardwareStore", "Reading", "Signal", "Wanted"]
