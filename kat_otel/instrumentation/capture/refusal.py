"""Why capture did not start, in the words of whoever must mend it."""

from __future__ import annotations

from typing import Any, Final

from kat_otel.errors import CaptureError
from kat_otel.instrumentation.capture.library import Code, Outcome

__all__ = ["no_library", "refusal"]

_PATH: Final = "set KAT_CUPTI_LIBRARY to the libcupti of the CUDA that the server uses"


def refusal(outcome: Outcome, path: str) -> CaptureError:
    """Returns the error for an outcome that is not OK; ``path`` is the libcupti that was tried."""
    detail = _text(outcome.detail)
    function = _text(outcome.function)
    said = f"{function} says {detail} ({outcome.result})"
    match Code(outcome.code):
        case Code.ALREADY:
            return CaptureError("capture runs in this process already")
        case Code.NO_MEMORY:
            return CaptureError(f"no memory to share: {said}", "lower KAT_BUFFER_MIB")
        case Code.NO_LIBRARY:
            return CaptureError(f"libcupti does not load: {detail}", _PATH)
        case Code.NO_FUNCTION:
            return CaptureError(f"{path} has no {function}: it is no libcupti that we know", _PATH)
        case Code.UNKNOWN_VERSION:
            return CaptureError(
                f"{path} is CUPTI {outcome.version}, older than that of CUDA 12.1",
                "use CUDA 12.1 or newer",
            )
        case Code.BUSY:
            return CaptureError(
                f"another tool has CUPTI: {said}",
                "end it (nsys, torch.profiler, another tracer), or run without kernel spans",
            )
        case Code.NO_DRIVER:
            remedy = (
                "run nvidia-smi in the same place; a container needs the compute and utility"
                " capabilities of the NVIDIA runtime"
            )
            return CaptureError(f"CUPTI finds no NVIDIA driver that it can use: {said}", remedy)
        case Code.NO_PERMISSION:
            remedy = (
                "give the nvidia module NVreg_RestrictProfilingToAdminUsers=0, or the process"
                " CAP_SYS_ADMIN"
            )
            return CaptureError(f"the driver does not allow profiling: {said}", remedy)
        case _:
            return CaptureError(
                f"CUPTI refuses: {said}", "report it, with the versions of CUDA and the driver"
            )


def no_library(tried: str, outcome: Outcome) -> CaptureError:
    """Returns the error where none of several libraries could be used."""
    last = refusal(outcome, tried) if outcome.code else None
    remedy = (
        "pip install nvidia-cuda-cupti-cu12 (for CUDA 13: nvidia-cuda-cupti), or"
        " KAT_CUPTI_LIBRARY=/path/of/libcupti.so"
    )
    return CaptureError(f"no libcupti (tried: {tried}): {last.reason if last else 'none'}", remedy)


def _text(value: Any) -> str:
    return bytes(value).decode(errors="replace")
