"""
Windows: plain ndarrays over a buffer's memory, and what keeps that memory there.

A window is made from a lease, a small object that exports the memory through numpy's array interface.
Every array, memoryview or DLPack consumer derived from the window keeps the lease alive, and the lease
holds a native pin on the pages until the last of them is gone.
"""

from math import prod

import numpy as np

from ._binding import failure, ffi, frames, index, lib, out_of_bounds, place, plain_dtype, take

__all__ = ["make_window"]

_BYTE = np.dtype("u1")


class Lease:
    """Exports pinned memory to numpy. A read-only lease cannot be made writable by anybody."""

    __slots__ = ("__array_interface__", "__weakref__", "pin")

    def __init__(self) -> None:
        # The native call writes the pin in here, so that no interrupt can come between.
        self.pin = ffi.new("sa_pin **")

    def __del__(self, unpin=lib.sa_unpin) -> None:  # type: ignore[no-untyped-def]
        unpin(self.pin[0])


def _shape_of(shape: object) -> tuple[int, ...]:
    try:
        sizes = tuple(map(index, shape))  # type: ignore[call-overload]
    except TypeError:
        sizes = (index(shape),)  # type: ignore[arg-type]
    if any(size < 0 for size in sizes):
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


def make_window(
    reservation: object,
    address: int,
    total: int,
    offset: object,
    shape: object,
    dtype: object,
    writable: bool | None,
    strides: object,
    order: str,
) -> np.ndarray:
    """
    Pin what the array spans and make it.

    Parameters
    ----------
    reservation : cdata
        The native reservation.
    address : int
        Where it begins.
    total : int
        Its length in bytes.
    offset, shape, dtype, writable, strides, order
        As of `SparseBuffer.window`.
    """
    found = dtype if type(dtype) is np.dtype and not dtype.hasobject else plain_dtype(dtype)
    first = offset if type(offset) is int else index(offset)  # type: ignore[arg-type]
    if found.subdtype:
        sizes = _shape_of(shape) + found.subdtype[1]
        found = found.subdtype[0]
    else:
        sizes = (shape,) if type(shape) is int and shape >= 0 else _shape_of(shape)
    if order not in ("C", "F"):
        msg = f"order must be 'C' or 'F', not {order!r}"
        raise ValueError(msg)
    low, nbytes = 0, prod(sizes) * found.itemsize
    steps = None
    if strides is not None:
        steps = tuple(map(index, strides))  # type: ignore[call-overload]
        if len(steps) != len(sizes):
            msg = f"strides {steps} do not fit shape {sizes}"
            raise ValueError(msg)
        if nbytes:
            low, high = _span(sizes, steps, found.itemsize)
            nbytes = high - low
    what = place("window", first, nbytes)
    if first < 0 or first + low < 0:
        msg = f"{what}: negative"
        raise ValueError(msg)
    if first + low + nbytes > total:
        raise out_of_bounds(what, total)
    if nbytes == 0:
        return _empty(sizes, found, writable)
    lease, frame = Lease(), take()
    wanted = -1 if writable is None else bool(writable)
    code = lib.sa_pin_range(reservation, first + low, nbytes, wanted, lease.pin, frame.report)
    if code:
        raise failure(code, frame, "window", first + low, nbytes, total)
    lease.__array_interface__ = {
        "version": 3,
        "shape": (nbytes,),
        "typestr": "|u1",
        "data": (address + first + low, not frame.report.writable),
    }
    frames.append(frame)
    memory = np.asarray(lease)
    if found is _BYTE and steps is None and len(sizes) == 1:
        return memory
    return np.ndarray(sizes, found, memory, -low, steps, order)


def _empty(sizes: tuple[int, ...], dtype: np.dtype, writable: bool | None) -> np.ndarray:
    """Make a window of no bytes, which needs no memory and pins nothing."""
    array: np.ndarray = np.ndarray(sizes, dtype, np.empty(0, "u1"))
    if writable is not None and not writable:
        array.flags.writeable = False
    return array
