"""Which record layout is taken for a version of CUPTI; the table itself is in native/layouts.c.

The native side chooses and uses it, in servers without Python too; here it is for those who want
to know: ``kat doctor``, log lines, tests.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from kat_otel.instrumentation.capture.library import load

__all__ = ["NAMES", "Layout"]

NAMES: Final[Mapping[int, str]] = {
    18: "CUDA 12.1",
    22: "CUDA 12.4",
    24: "CUDA 12.6",
    26: "CUDA 12.8",
    27: "CUDA 12.9",
    130000: "CUDA 13.0",
    130200: "CUDA 13.2",
    130400: "CUDA 13.4",
    130500: "CUDA 13.5",
}
"""What cuptiGetVersion says, and which toolkit that is; cupti_version.h has the whole list."""

_KINDS: Final = 64


@dataclass(frozen=True, slots=True)
class Layout:
    """Sizes of the activity records of one version.

    Attributes:
        version: as cuptiGetVersion says it.
        taken: the version whose layout is taken: the nearest older one that is known.
        sizes: bytes of a record by its kind (CUpti_ActivityKind).
    """

    version: int
    taken: int
    sizes: Mapping[int, int]

    @staticmethod
    def of(version: int) -> Layout | None:
        """Returns the layout for a version; None if it is older than CUDA 12.1.

        Raises:
            CaptureError: the native library is missing.
        """
        native = load()
        row = native.kat_layout_of(version)
        if row < 0:
            return None
        sizes = native.kat_layout_sizes(row)
        return Layout(
            version,
            native.kat_layout_version(row),
            {kind: sizes[kind] for kind in range(_KINDS) if sizes[kind]},
        )

    @property
    def note(self) -> str:
        """What a user should know of the choice; ``""`` if nothing.

        Between two known versions there is nothing to say: structs only ever grew, and the first
        buffer is checked against cuptiActivityGetNextRecord whatever the version.
        """
        newest = max(NAMES)
        if self.version // 100 <= newest // 100:
            return ""
        return (
            f"CUPTI {self.version} is newer than this KAT-OTel knows: its records are read as those"
            f" of {NAMES[self.taken]}, after a check of the first ones"
        )
