"""What a detector has learnt, as bytes: history and incidents outlive the process that has them.

The bytes are a magic number with the version, and msgpack with arrays as raw little-endian bytes.
They come from a file that others can write to: every length and every value is checked before
it is believed, and nothing is allocated that the file's own size does not pay for.

Steps are kept exactly where they take little, so that a detector made from the bytes says what
the one before would have said. Of a large shape (512 ranks) the medians are kept alone: those are
what a step is judged by.
"""

from __future__ import annotations

import logging
from typing import Annotated, Any, Final, Literal

import array_api_compat.numpy as numpy_xp
import msgspec
import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

from kat_otel.spans import SpanTable
from kat_otel.ttad.detector import Detector
from kat_otel.ttad.history import MAX_SIGNATURES, History, Key, Shape
from kat_otel.ttad.settings import Settings
from kat_otel.ttad.tracker import MAX_LIVE, Life
from kat_otel.verdict import Incident

__all__ = ["MAX_BYTES", "restore", "snapshot"]

_MAGIC: Final = b"KATSTAT\x02"
"""The last byte is the version: raise it when the meaning of anything below changes."""

MAX_BYTES: Final = 32 << 20
"""Of one detector. Shapes that do not fit are learnt anew, the least recently used first."""
_MAX_LIVES_BYTES: Final = 16 << 20
_EXACT_BYTES: Final = 4 << 20
"""Of one shape, to keep its single steps."""

Float = NDArray[np.float64]
Width = Literal["<u4", "<f4", "<f8"]
"""Of durations. Nanoseconds are whole and below 4.3 s nearly always: then 4 bytes are exact."""
Amount = Annotated[float, Meta(ge=0, le=1e300)]

logger = logging.getLogger(__name__)


class _Shape(Struct, forbid_unknown_fields=True):
    streams: bytes  # <i4 (N,)
    work: bytes  # <i8 (N,), second part of the key
    names: list[str]
    name: bytes  # <i4 (N,), index into names
    ranks: bytes  # <i4 (R,)
    steps: Annotated[int, Meta(ge=1, le=10_000)]  # remembered
    kept: Annotated[int, Meta(ge=1, le=10_000)]  # the same, or 1: their medians
    width: Width
    durations: bytes  # (kept, N, R)
    transfers: bytes  # <f8 (kept, N)


class _Life(Struct, forbid_unknown_fields=True):
    incident: Incident
    impacts: Amount
    silent: Annotated[int, Meta(ge=0)]
    kinds: Annotated[dict[str, Amount], Meta(min_length=1, max_length=64)]


class _State(Struct, forbid_unknown_fields=True):
    gaps: bytes  # <f8
    born: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
    resolved: Annotated[dict[str, Annotated[int, Meta(ge=1)]], Meta(max_length=MAX_LIVE)]
    lives: Annotated[list[_Life], Meta(max_length=MAX_LIVE)]
    shapes: Annotated[list[_Shape], Meta(max_length=MAX_SIGNATURES)]  # least recently used first


class _Outgoing(Struct):
    gaps: bytes
    born: int
    resolved: dict[str, int]
    lives: list[_Life]
    shapes: list[msgspec.Raw]  # encoded before


def snapshot(detector: Detector) -> bytes:
    """Returns what a detector has learnt, at most ``MAX_BYTES``.

    A healthy shape of 1,000 nodes takes 1.2 MB for 8 ranks and 32 steps, 2.1 MB for 512 ranks.
    """
    lives = [_Life(x.incident, x.impacts, x.silent, x.kinds) for x in detector.tracker.lives()]
    gaps = _raw(np.array(detector.gaps, np.float64), "<f8")
    tracker = detector.tracker
    state = _Outgoing(gaps, tracker.born, dict(tracker.resolved), _fitting(lives), [])
    left = MAX_BYTES - len(msgspec.msgpack.encode(state)) - 1024
    for key, shape in reversed(detector.history.shapes()):
        if shape.saved is None or shape.saved[0] != shape.count:
            shape.saved = shape.count, msgspec.msgpack.encode(_written(key, shape))
        left -= len(shape.saved[1])
        if left < 0:
            logger.info("a history beyond %d bytes: its older shapes are not kept", MAX_BYTES)
            break
        state.shapes.insert(0, msgspec.Raw(shape.saved[1]))
    return _MAGIC + msgspec.msgpack.encode(state)


def restore(
    data: bytes,
    settings: Settings | None = None,
    *,
    baseline: SpanTable | None = None,
    xp: Any = numpy_xp,
) -> Detector:
    """Makes a detector that goes on where another stopped.

    Args:
        data: of :func:`snapshot`; not trusted.
        settings: thresholds; need not be those of before.
        baseline: as for :class:`Detector`.
        xp: array namespace for the statistics.

    Raises:
        ValueError: the data is damaged, too large, or of another version.
    """
    if len(data) > MAX_BYTES:
        raise ValueError(f"{len(data):,} bytes, more than the {MAX_BYTES:,} of any state")
    if data[:7] != _MAGIC[:7]:
        raise ValueError("not the state of a detector")
    if data[:8] != _MAGIC:
        raise ValueError(f"state of version {data[7:8].hex() or 'none'}, not {_MAGIC[7]:02x}")
    try:
        state = msgspec.msgpack.decode(memoryview(data)[8:], type=_State)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(f"damaged state: {error}") from error
    detector = Detector(settings, baseline=baseline, xp=xp)
    detector.gaps.extend(_array(state.gaps, "<f8", None, "gaps").tolist())
    detector.tracker.born = state.born
    detector.tracker.resolved.update(state.resolved)
    for life in state.lives:
        detector.tracker.adopt(Life(life.incident, life.impacts, life.silent, life.kinds))
    for written in state.shapes:
        key, shape = _read(written, detector.history)
        detector.history.adopt(key, shape)
    return detector


def _fitting(lives: list[_Life]) -> list[_Life]:
    """The incidents that fit, the latest; one is some KB, so that all do unless hundreds go on."""
    left = _MAX_LIVES_BYTES
    for at in range(len(lives) - 1, -1, -1):
        left -= len(msgspec.msgpack.encode(lives[at]))
        if left < 0:
            logger.warning("%d of %d open incidents are not kept", at + 1, len(lives))
            return lives[at + 1 :]
    return lives


def _written(key: Key, shape: Shape) -> _Shape:
    usual = shape.usual()
    steps, exact = usual.steps, 4 * usual.durations.size <= _EXACT_BYTES
    if exact:
        order = (shape.count + np.arange(steps)) % steps  # the oldest first
        durations, transfers = usual.durations[order], usual.transfers[order]
    else:
        nodes = np.arange(len(shape.streams), dtype=np.int64)
        durations, transfers = usual.duration[None], usual.transfer_of(nodes)[None]
    width = _width(durations, exact=exact)
    index = {name: i for i, name in enumerate(dict.fromkeys(shape.names))}
    return _Shape(
        streams=key[0],
        work=key[1],
        names=list(index),
        name=_raw(np.array([index[n] for n in shape.names], np.int32), "<i4"),
        ranks=key[2],
        steps=steps,
        kept=len(durations),
        width=width,
        durations=_raw(durations, width),
        transfers=_raw(transfers, "<f8"),
    )


def _width(durations: Float, *, exact: bool) -> Width:
    if not exact:
        return "<f4"  # seven digits of a median are more than any clock has
    small = durations.size and durations.min() >= 0 and durations.max() < 2**32
    whole = small and bool((durations == np.floor(durations)).all())
    return "<u4" if whole else "<f8"


def _read(written: _Shape, history: History) -> tuple[Key, Shape]:
    """Checks a shape and gives it a ring, which this history's settings may want smaller."""
    streams = _array(written.streams, "<i4", None, "streams").astype(np.int32)
    ranks = _array(written.ranks, "<i4", None, "ranks").astype(np.int32)
    nodes = len(streams)
    if not nodes or not len(ranks) or (np.diff(ranks) <= 0).any() or len(written.work) != 8 * nodes:
        raise ValueError("damaged state: a shape without order in its nodes or ranks")
    name = _array(written.name, "<i4", (nodes,), "names")
    if name.min() < 0 or name.max() >= len(written.names):
        raise ValueError("damaged state: a node without a name")
    kept, steps = written.kept, written.steps
    if kept not in {1, steps}:
        raise ValueError(f"damaged state: {kept} steps of {steps}")
    durations = _array(
        written.durations, written.width, (kept, nodes, len(ranks)), "durations", least=0
    )
    transfers = _array(written.transfers, "<f8", (kept, nodes), "transfers")
    size = history.ring(nodes, len(ranks))
    held = min(steps, size)
    shape = Shape(
        streams=streams,
        names=[written.names[i] for i in name.tolist()],
        ranks=ranks,
        limit=size,
        durations=np.empty((size, nodes, len(ranks))),
        transfers=np.zeros((size, nodes)),
        count=held,
    )
    shape.durations[:held] = durations[-held:]
    shape.transfers[:held] = transfers[-held:]
    return (written.streams, written.work, written.ranks), shape


def _raw(values: NDArray[Any], width: str) -> bytes:
    return np.ascontiguousarray(values).astype(width, copy=False).tobytes()


def _array(
    raw: bytes, width: str, shape: tuple[int, ...] | None, what: str, *, least: float = -1e300
) -> NDArray[Any]:
    """Returns a read-only view of raw bytes as finite numbers of the shape they must have."""
    item = np.dtype(width).itemsize
    expected = (
        len(raw) // item * item if shape is None else item * int(np.prod(shape, dtype=object))
    )
    if len(raw) != expected:
        raise ValueError(f"damaged state: {len(raw):,} bytes of {what}, not {expected:,}")
    array: NDArray[Any] = np.frombuffer(raw, width)
    if len(array) and not (least <= float(array.min()) <= float(array.max()) <= 1e300):  # or NaN
        raise ValueError(f"damaged state: {what} are no times")
    return array if shape is None else array.reshape(shape)
