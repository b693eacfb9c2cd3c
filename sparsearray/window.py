"""
Windows: plain ndarrays over a buffer's memory, and what keeps that memory there.

A window is made from a lease, a small object that exports the memory through numpy's array
interface. Every array, memoryview or DLPack consumer derived from the window keeps the lease alive,
and the lease holds a native pin on the pages until the last of them is gone.
"""

from collections.abc import Iterable
from math import prod
from typing import Any, Literal

import numpy as np

from ._binding import (
    failure,
    ffi,
    index,
    lib,
    out_of_bounds,
    place,
    plain_dtype,
    put_back,
    take,
)

__all__ = ["LONG", "as_shape", "make_window"]

LONG = 16 << 20  # bytes: more is kept for snapshots in pieces, between which Ctrl-C can come
_BYTE = np.dtype("u1")
_pin_range = lib.sa_pin_range


class Lease:
    """Exports pinned memory to numpy. A read-only lease cannot be made writable by anybody."""

    __slots__ = ("__array_interface__", "__weakref__", "owner", "pin")

    __array_interface__: dict[str, Any]

    def __init__(self, owner: object) -> None:
        self.owner = owner  # which tells of damage, at the latest when it goes
        # The native call writes the pin in here, and native code gives it back: no interrupt can
        # come between.
        self.pin = ffi.gc(ffi.new("sa_pin **"), lib.sa_unpin)


def as_integers(numbers: object) -> tuple[int, ...]:
    """Return an int, or a sequence of ints, as a tuple, as numpy takes shapes and strides."""
    if isinstance(numbers, Iterable):
        return tuple(map(index, numbers))
    return (index(numbers),)  # type: ignore[arg-type]


def as_shape(shape: object) -> tuple[int, ...]:
    """Return a shape argument as a tuple."""
    sizes = as_integers(shape)
    if sizes and min(sizes) < 0:
        msg = f"negative dimensions are not allowed: shape {sizes}"
        raise ValueError(msg)
    return sizes


def _span(sizes: tuple[int, ...], steps: tuple[int, ...], itemsize: int) -> tuple[int, int]:
    """
    Find the bytes that an array reaches, from its first element.

    With strides the first element need not be the lowest::

        low        first element                        high
        |<- steps<0 ->|<-- steps>0 -->|<- itemsize ->|
    """
    low = high = 0
    for size, step in zip(sizes, steps, strict=True):
        if step < 0:
            low += (size - 1) * step
        else:
            high += (size - 1) * step
    return low, high + itemsize


def _layout(
    shape: object, dtype: object, strides: object, order: str
) -> tuple[tuple[int, ...], np.dtype, tuple[int, ...] | None]:
    """Check the arguments that say how the array lies, and complete them."""
    found = plain_dtype(dtype)
    sizes = as_shape(shape)
    if found.subdtype:
        found, inner = found.subdtype
        sizes += inner
    if order not in ("C", "F"):
        msg = f"order must be 'C' or 'F', not {order!r}"
        raise ValueError(msg)
    if strides is None:
        return sizes, found, None
    steps = as_integers(strides)
    if len(steps) != len(sizes):
        msg = f"strides {steps} do not fit shape {sizes}"
        raise ValueError(msg)
    return sizes, found, steps


def make_window(
    owner: Any,
    reservation: object,
    address: int,
    total: int,
    offset: int,
    shape: object,
    dtype: object,
    writable: bool | None,
    strides: object,
    order: Literal["C", "F"],
) -> np.ndarray:
    """
    Pin what the array spans and make it.

    Parameters
    ----------
    owner : SparseBuffer
        Lives as long as the window.
    reservation : cdata
        The native reservation.
    address : int
        Where it begins.
    total : int
        Its length in bytes.
    offset, shape, dtype, writable, strides, order
        As of `SparseBuffer.window`.
    """
    sizes, found, steps = _layout(shape, dtype, strides, order)
    low, nbytes = 0, prod(sizes) * found.itemsize
    if steps is not None and nbytes:
        low, high = _span(sizes, steps, found.itemsize)
        nbytes = high - low
    start = index(offset) + low
    if start < 0 or start + nbytes > total:
        raise _outside(start, nbytes, total)
    if nbytes > LONG and writable is not False:
        owner._keep_pages(start, nbytes)
    lease, report = Lease(owner), take()
    wanted = -1 if writable is None else bool(writable)
    code = _pin_range(reservation, start, nbytes, wanted, lease.pin, report)
    if code:
        raise failure(code, report, "window", start, nbytes, total)
    if nbytes == 0:
        put_back(report)
        return _empty(sizes, found, writable)
    lease.__array_interface__ = {
        "version": 3,
        "shape": (nbytes,),
        "typestr": "|u1",
        "data": (address + start, not report.writable),
    }
    put_back(report)
    memory = np.asarray(lease)
    if found is _BYTE and steps is None and len(sizes) == 1:
        return memory
    return np.ndarray(sizes, found, memory, -low, steps, order)


def _outside(start: int, nbytes: int, total: int) -> Exception:
    what = place("window", start, nbytes)
    return ValueError(f"{what}: negative") if start < 0 else out_of_bounds(what, total)


def _empty(sizes: tuple[int, ...], dtype: np.dtype, writable: bool | None) -> np.ndarray:
    """Make a window of no bytes, which needs no memory and pins nothing."""
    array: np.ndarray = np.ndarray(sizes, dtype, np.empty(0, "u1"))
    if writable is not None and not writable:
        array.flags.writeable = False
    return array
