"""The machine instructions behind :mod:`kat_otel.otlp.memory`: unaligned loads and stores."""
# Numba and llvmlite come without types; what leaves this file has them.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false
# pyright: reportMissingTypeStubs=false, reportUnknownLambdaType=false

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

__all__ = ["big_endian64", "load8", "load32", "load64", "store8", "store32", "store64"]

_any: Any = types


def _load(bits: int, returned: Any) -> Callable[[int], int]:
    def load(_typing: Any, address: Any) -> Any:  # noqa: ARG001
        def build(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            place = builder.inttoptr(arguments[0], ir.IntType(bits).as_pointer())
            value = builder.load(place)
            value.align = 1
            return value if bits == 64 else widen(builder, value)

        widen = (
            (lambda builder, value: builder.zext(value, ir.IntType(64)))
            if bits == 8
            else (lambda builder, value: builder.sext(value, ir.IntType(64)))
        )
        return returned(_any.int64), build

    made: Any = intrinsic(load)
    return made


def _store(bits: int) -> Callable[[int, int], None]:
    def store(_typing: Any, address: Any, value: Any) -> Any:  # noqa: ARG001
        def build(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            place = builder.inttoptr(arguments[0], ir.IntType(bits).as_pointer())
            number = arguments[1]
            if bits < 64:
                number = builder.trunc(number, ir.IntType(bits))
            builder.store(number, place).align = 1
            return context.get_dummy_value()

        return _any.void(_any.int64, _any.int64), build

    made: Any = intrinsic(store)
    return made


def _swap(_typing: Any, value: Any) -> Any:  # noqa: ARG001
    def build(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.bswap(arguments[0])

    return _any.uint64(_any.uint64), build


load8: Callable[[int], int] = _load(8, _any.int64)
"""Returns the byte at an address as int64."""
load32: Callable[[int], int] = _load(32, _any.int64)
"""Returns the int32 at an address as int64."""
load64: Callable[[int], int] = _load(64, _any.uint64)
"""Returns the eight bytes at an address, least significant first, as uint64."""
store8 = _store(8)
store32 = _store(32)
store64 = _store(64)
big_endian64: Callable[[int], int] = intrinsic(_swap)  # pyright: ignore[reportAssignmentType]
"""Returns the bytes of a uint64 in reverse order."""
