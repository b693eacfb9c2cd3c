"""`Image`: memory of somebody else's, read at its own addresses."""

from __future__ import annotations

import re
from collections.abc import Iterator
from math import prod
from typing import Any, Literal, NoReturn, overload

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from sparsearray._binding import describe, index, place, plain_dtype
from sparsearray._closing import Closing
from sparsearray._memory import UNCHECKED, available_memory
from sparsearray._spans import Absent, SpanTable
from sparsearray._text import count, printable, size
from sparsearray.buffer import SparseBuffer
from sparsearray.errors import AccessError, ClosedError
from sparsearray.window import as_shape

from ._hexdump import hexdump
from ._search import find_bytes, find_matches, of_bytes, pattern_bytes
from .segment import Segment

__all__ = ["Image"]

_END = 1 << 64  # of all address spaces


class Image(Closing):
    r"""
    An address space, made by `open_elf`, `open_ihex`, `open_srec` and `open_raw`.

    Addresses are those of the process, or the machine, that the file tells of: any from 0 up to
    2**64. What the file does not have is not there, to the byte, and no access to it succeeds.
    Nothing can be written.

    Attributes
    ----------
    name : str
        The file.
    segments : tuple of Segment
        What the file has, in its order.
    pointer : numpy.dtype or None
        Of an address in its memory: its size, in its byte order. None where the file does not say.

    Notes
    -----
    What lies on whole pages of the file is a window of it, which costs no memory; the rest is a
    copy. All methods may be called from any thread.

    Examples
    --------
    >>> import sys
    >>> from sparsearray.images import open_elf
    >>> with open_elf(sys.executable) as image:
    ...     start = next(image.search(b"\x7fELF"))
    ...     image.read_at(start, 4), start in image, 2**64 - 1 in image
    (b'\x7fELF', True, False)
    """

    __slots__ = ("_buffer", "_table", "name", "pointer", "segments")

    def __init__(
        self,
        name: str,
        segments: tuple[Segment, ...],
        buffer: SparseBuffer,
        table: SpanTable,
        pointer: np.dtype | None = None,
    ) -> None:
        self.name = name
        self.segments = segments
        self.pointer = pointer
        self._buffer = buffer
        self._table = table

    # What it is

    @property
    def byteorder(self) -> Literal["little", "big"] | None:
        """``'little'`` or ``'big'``; None where the file does not say."""
        if self.pointer is None:
            return None
        return "big" if self.pointer.str[0] == ">" else "little"

    @property
    def nbytes(self) -> int:
        """Bytes that are there."""
        return self._table.nbytes

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._buffer.closed

    def __contains__(self, address: object) -> bool:
        """Tell whether the byte at an address is there; ClosedError once the image is closed."""
        where = index(address)  # type: ignore[arg-type]
        self._check_open(f"look at address {describe(where)}")
        return any(True for _ in self._table.between(where, where + 1))

    # Reading

    def read_at(self, address: int, nbytes: int, pad: int | None = None) -> bytes:
        r"""
        Read bytes.

        Parameters
        ----------
        address : int
            Of the first byte.
        nbytes : int
            How many.
        pad : int, optional
            0 to 255: what to put in the place of bytes that are not there.

        Raises
        ------
        AccessError
            A byte is not there; `offset` is its address. Also with `pad`: the file has lost it
            since it was opened.
        ValueError
            A negative argument, or `pad` is no byte.
        MemoryError
            There is not as much memory.
        ClosedError
            The image is closed.

        Examples
        --------
        >>> import tempfile
        >>> from sparsearray.images import open_raw
        >>> with tempfile.NamedTemporaryFile() as file:
        ...     _ = file.write(b"spam"), file.flush()
        ...     image = open_raw([(0xFFFF_FFFF_0000_0000, file.name, 0, 4)])
        >>> image.read_at(0xFFFF_FFFF_0000_0002, 4, pad=0xFF)
        b'am\xff\xff'
        >>> image.read_at(0xFFFF_FFFF_0000_0002, 4)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        sparsearray.errors.AccessError: read of 4 bytes ...: nothing is at address 0xffffffff00...
        """
        start, length = index(address), index(nbytes)
        if pad is None:
            offset = self._find("read", start, length)
            _check_room("read", start, length)
            try:
                return self._buffer.read_at(offset, length)
            except (AccessError, ClosedError) as error:
                raise self._at_address(error, "read") from None
        value = index(pad)
        if not 0 <= value <= 255:
            msg = f"pad {value} is not in range(256)"
            raise ValueError(msg)
        self._check("read", start, length)
        _check_room("read", start, length)
        result = np.full(length, value, "u1")
        for span in self._table.between(start, start + length):
            part = result[span.address - start :][: span.nbytes]
            try:
                self._buffer.read_into(span.offset, part)
            except (AccessError, ClosedError) as error:
                raise self._at_address(error, "read") from None
        return result.tobytes()

    def read_plain(self, address: int, dtype: DTypeLike, shape: Any = ()) -> Any:
        """
        Read a value of a dtype, at any byte.

        Parameters
        ----------
        address : int
            Of its first byte; it need not be aligned.
        dtype : dtype
            Any without objects. numpy's default is the byte order of this machine: see `pointer`
            and `byteorder` for that of the image.
        shape : int or tuple of ints, optional
            Read an array of this shape instead, in C order.

        Returns
        -------
        scalar, record or ndarray
            Owned.

        Raises
        ------
        AccessError, ValueError, MemoryError, ClosedError
            As `read_at`.
        TypeError
            The dtype holds objects.
        """
        start, found, sizes = index(address), plain_dtype(dtype), as_shape(shape)
        length = found.itemsize * prod(sizes)
        offset = self._find("read", start, length)
        _check_room("read", start, length)
        try:
            return self._buffer.read_plain(offset, found, sizes)
        except (AccessError, ClosedError) as error:
            raise self._at_address(error, "read") from None

    def gather(self, addresses: ArrayLike, dtype: DTypeLike) -> NDArray[Any]:
        """
        Read many records at once.

        Parameters
        ----------
        addresses : array of ints
            Of the records, in any order, any shape. Pointers that were read from the image may be
            used as they are.
        dtype : dtype
            Of a record; any without objects.

        Returns
        -------
        ndarray
            Of the shape of `addresses`, owned.

        Raises
        ------
        AccessError, ValueError
            For the first bad record, as `read_plain`.
        MemoryError, ClosedError
            As `read_at`.
        TypeError
            The dtype holds objects, or `addresses` are no ints.

        Examples
        --------
        >>> import tempfile
        >>> from sparsearray.images import open_raw
        >>> with tempfile.NamedTemporaryFile() as file:
        ...     _ = file.write(bytes(range(100))), file.flush()
        ...     image = open_raw([(0xFFFF_FFFF_0000_0000, file.name, 0, 100)])
        >>> image.gather([[0xFFFF_FFFF_0000_0000, 0xFFFF_FFFF_0000_0063]], "u1")
        array([[ 0, 99]], dtype=uint8)
        """
        self._check_open("gather")
        found = plain_dtype(dtype)
        places = self._addresses(addresses, found.itemsize)
        if not found.itemsize:
            return np.zeros(places.shape, found)
        length = places.size * found.itemsize
        if length > UNCHECKED:
            _check_room("gather", int(places.flat[0]), length)
        out: NDArray[Any] = np.empty(places.shape, found)
        try:
            self._table.gather(self._buffer, places, found.itemsize, out)
        except Absent as error:
            start = int(places.reshape(-1)[error.index])
            raise _absent("gather", start, found.itemsize, error.address) from None
        except (AccessError, ClosedError) as error:
            raise self._at_address(error, "gather") from None
        return out

    def window(self, address: int, shape: Any, dtype: DTypeLike = "u1") -> NDArray[Any]:
        """
        Make a read-only numpy array of the image's memory, without a copy.

        Parameters
        ----------
        address : int
            Of the array's first element.
        shape : int or tuple of ints
            As of any array, in C order.
        dtype : dtype
            Any without objects.

        Returns
        -------
        numpy.ndarray
            Plain. While it or anything made from it is alive, `close` raises BufferError.

        Raises
        ------
        AccessError, ValueError, TypeError
            As `read_plain`.
        """
        start, found, sizes = index(address), plain_dtype(dtype), as_shape(shape)
        offset = self._find("window", start, found.itemsize * prod(sizes))
        try:
            return self._buffer.window(offset, sizes, found, writable=False)
        except (AccessError, ClosedError) as error:
            raise self._at_address(error, "window") from None

    def hexdump(self, address: int, nbytes: int = 256) -> str:
        """
        Show bytes as ``hexdump -C`` does, those that are not there as ``--``.

        Parameters
        ----------
        address : int
            Of the first byte.
        nbytes : int
            How many. Lines like the one before them are left out, as ``*``.

        Raises
        ------
        AccessError
            The file has lost bytes since it was opened.
        ValueError
            A negative argument, or one beyond 2**64.
        ClosedError
            The image is closed.

        Examples
        --------
        >>> import tempfile
        >>> from sparsearray.images import open_raw
        >>> with tempfile.NamedTemporaryFile() as file:
        ...     _ = file.write(b"spam and eggs"), file.flush()
        ...     image = open_raw([(0x1002, file.name, 0, 13)])
        >>> print(image.hexdump(0x1000, 18))
        00001000  -- -- 73 70 61 6d 20 61  6e 64 20 65 67 67 73 --  |  spam and eggs |
        00001010  -- --                                             |  |
        00001012
        """
        start, length = index(address), index(nbytes)
        self._check("hexdump", start, length)
        if max(start, length) > _END:
            msg = f"{_place('hexdump', start, length)}: address spaces have {_END:#x} bytes at most"
            raise ValueError(msg)
        return hexdump(self._table.between, self.read_at, start, start + length)

    # Searching

    @overload
    def search(
        self,
        pattern: bytes | bytearray | memoryview | int,
        start: int = 0,
        stop: int | None = None,
        *,
        dtype: DTypeLike | None = None,
    ) -> Iterator[int]: ...
    @overload
    def search(
        self, pattern: re.Pattern[bytes], start: int = 0, stop: int | None = None
    ) -> Iterator[tuple[int, bytes]]: ...
    def search(
        self,
        pattern: bytes | bytearray | memoryview | int | re.Pattern[bytes],
        start: int = 0,
        stop: int | None = None,
        *,
        dtype: DTypeLike | None = None,
    ) -> Iterator[int] | Iterator[tuple[int, bytes]]:
        r"""
        Find where something is.

        Parameters
        ----------
        pattern : bytes-like, int or compiled regular expression of bytes
            What to look for. An int is looked for as a value of `dtype`.
        start, stop : int, optional
            Addresses between which all of it lies; by default anywhere.
        dtype : dtype, optional
            Of an int: any integer type. By default `pointer`.

        Yields
        ------
        int
            Addresses of bytes and ints in order, overlapping and unaligned ones included.
        (int, bytes)
            For a regular expression: the address of a match, and what matched. As with
            ``re.finditer``, matches do not overlap.

        Raises
        ------
        ValueError
            Nothing to look for, or an int that its dtype cannot hold.
        TypeError
            `pattern` is none of these, or an int for which there is no dtype.
        AccessError
            The file has lost bytes since it was opened: each time, for a regular expression as soon
            as it comes to a run of bytes that has lost some.

        Notes
        -----
        A match lies in bytes that are there, without a gap. Holes of files and pages of zeros are
        skipped, and what reaches into them is found all the same; only a pattern of zeros alone is
        looked for byte by byte. A regular expression sees each run of bytes as one string, zeros
        and all, in which ``^`` and ``$`` are the ends of the run.

        Examples
        --------
        >>> import re, tempfile
        >>> from sparsearray.images import open_raw
        >>> with tempfile.NamedTemporaryFile() as file:
        ...     _ = file.write(b"ababa \x00\x10\x00\x00"), file.flush()
        ...     image = open_raw([(0x1000, file.name, 0, 10)])
        >>> list(map(hex, image.search(b"aba")))
        ['0x1000', '0x1002']
        >>> list(map(hex, image.search(0x1000, dtype="<u4")))
        ['0x1006']
        >>> list(image.search(re.compile(b"b(a| )")))
        [(4097, b'ba'), (4099, b'ba')]
        """
        first = index(start)
        last = _END if stop is None else index(stop)
        self._check("search", first, max(last - first, 0))
        if isinstance(pattern, re.Pattern):
            expression = of_bytes(pattern)
            return self._told(find_matches(self._buffer, self._table, expression, first, last))
        wanted = pattern_bytes(pattern, self.pointer if dtype is None else np.dtype(dtype))
        return self._told(find_bytes(self._buffer, self._table, wanted, first, last))

    def _told(self, found: Iterator[Any]) -> Iterator[Any]:
        """Go through what is found, and have errors tell addresses."""
        try:
            yield from found
        except (AccessError, ClosedError) as error:
            raise self._at_address(error, "search") from None

    # What methods share

    def _check_open(self, call: str) -> None:
        if self._buffer.closed:
            raise self._closed_error(call)

    def _closed_error(self, call: str) -> ClosedError:
        return ClosedError(f"{call}: {printable(self.name)}: the image is closed")

    def _check(self, operation: str, address: int, nbytes: int) -> None:
        if address < 0 or nbytes < 0:
            msg = f"{_place(operation, address, nbytes)}: negative"
            raise ValueError(msg)
        if self._buffer.closed:
            raise self._closed_error(_place(operation, address, nbytes))

    def _find(self, operation: str, address: int, nbytes: int) -> int:
        """Find the offset of bytes that are all there; that of no bytes is any."""
        self._check(operation, address, nbytes)
        if not nbytes:
            return 0
        try:
            return self._table.find(address, nbytes)
        except Absent as error:
            raise _absent(operation, address, nbytes, error.address) from None

    def _addresses(self, addresses: ArrayLike, nbytes: int) -> NDArray[np.uint64]:
        """Return addresses as an array of 64-bit integers."""
        array = np.asarray(addresses)
        if not isinstance(addresses, np.ndarray):
            # Beside integers, numpy takes bools for such.
            if isinstance(addresses, list | tuple) and array.dtype.kind in "iuf":
                _refuse_bools(np.asarray(addresses, object))
            if array.size == 0:
                array = array.astype(np.uint64)
            elif array.dtype.kind == "f":  # what numpy makes of integers beyond 2**63 among others
                array = np.asarray(addresses, object)
        if array.dtype.kind == "O":
            _refuse_bools(array)
            for address in array.flat:
                number = index(address)
                self._check("gather", number, nbytes)
                if number >= _END:
                    raise _absent("gather", number, nbytes, number)
        elif array.dtype.kind not in "iu":
            msg = f"addresses must be integers, not {array.dtype}"
            raise TypeError(msg)
        elif array.dtype.kind == "i" and array.size and array.min() < 0:
            self._check("gather", int(array[array < 0][0]), nbytes)
        return np.ascontiguousarray(array, np.uint64).reshape(array.shape)

    def _at_address(self, error: AccessError | ClosedError, call: str) -> AccessError | ClosedError:
        """Make an error of the buffer one of the image."""
        if isinstance(error, ClosedError):  # meanwhile
            return self._closed_error(call)
        return self._lost(error)

    def _lost(self, error: AccessError) -> AccessError:
        """Make the error for a byte that the file has lost."""
        address = self._table.address_of(error.offset)
        message = (
            f"{printable(self.name)}: the byte at address {describe(address)} cannot be read any "
            f"more: {error.strerror}"
        )
        return AccessError(
            message, address, error.operation, error.reason, error.transferred, error.filename
        )

    # Life

    def close(self) -> None:
        """
        Give addresses, memory and files back. More than once is fine.

        Raises
        ------
        BufferError
            Windows are alive: how many, and where in the image's own buffer.
        """
        self._buffer.close()

    def _settle(self) -> AccessError | None:
        error = self._buffer._settle()
        return None if error is None else self._lost(error)

    def __reduce__(self) -> NoReturn:
        msg = "an Image cannot be pickled or copied: open its file again"
        raise TypeError(msg)

    def __repr__(self) -> str:
        name = printable(self.name)
        if self.closed:
            return f"<Image {name}, closed>"
        kind = "" if self.pointer is None else f", {8 * self.pointer.itemsize}-bit {self.byteorder}"
        return (
            f"<Image {name}{kind}, {size(self.nbytes)} in {count(len(self.segments), 'segment')}>"
        )

    def _repr_html_(self) -> str:
        from ._html import image_html

        return image_html(self)

    def plot(self, ax: Any = None) -> Any:
        """
        Draw with matplotlib the bar that notebooks show: its segments side by side.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw; by default in a new figure.

        Returns
        -------
        matplotlib.axes.Axes
            Gaps are squeezed, so the x axis has the first and the last address only.

        Raises
        ------
        ImportError
            matplotlib is not installed.
        ClosedError
            The image is closed.
        """
        from ._plot import plot_image

        return plot_image(self, ax)


def _place(operation: str, address: int, nbytes: int) -> str:
    return place(operation, address, nbytes).replace(" at ", " at address ")


def _refuse_bools(addresses: NDArray[Any]) -> None:
    """Refuse what Python takes for 0 and 1 with TypeError."""
    if any(isinstance(address, bool | np.bool_) for address in addresses.flat):
        msg = "addresses must be integers, not bool"
        raise TypeError(msg)


def _check_room(operation: str, address: int, nbytes: int) -> None:
    """Raise MemoryError for what does not fit: on Linux numpy's own is often none, and a kill."""
    free = available_memory() if nbytes > UNCHECKED else None
    if free is not None and nbytes > free:
        msg = f"{_place(operation, address, nbytes)}: {size(free)} are free"
        raise MemoryError(msg)


def _absent(operation: str, address: int, nbytes: int, bad: int) -> AccessError:
    message = f"{_place(operation, address, nbytes)}: nothing is at address {describe(bad)}"
    return AccessError(message, bad, "read", "unmapped")
