"""Numbers as people read them."""

__all__ = ["count", "printable", "size"]

_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def size(nbytes: int) -> str:
    """
    Write a number of bytes in the largest unit that it fills.

    Examples
    --------
    >>> size(1 << 40), size((1 << 40) - 1), size(1536), size(0)
    ('1 TiB', '1 TiB', '1.5 KiB', '0 bytes')
    """
    power, shown = 0, float(nbytes)
    while shown >= 1024 and power + 1 < len(_UNITS):
        power += 1
        shown = float(f"{nbytes / (1 << 10 * power):.4g}")
    return f"{shown:g} {_UNITS[power]}"


def count(number: int, what: str) -> str:
    """
    Write how many there are.

    Examples
    --------
    >>> count(1, "hole"), count(12000, "hole")
    ('1 hole', '12,000 holes')
    """
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def printable(name: str) -> str:
    r"""
    Return a file's name as it is, or quoted where it would not print as one line.

    Examples
    --------
    >>> printable("libc.so.6"), printable(""), printable("two\nlines")
    ('libc.so.6', "''", "'two\\nlines'")
    """
    return name if name and name.isprintable() else repr(name)
