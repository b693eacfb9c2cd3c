"""Progress bars, for those who have tqdm."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ._optional import needed

__all__ = ["progress_bar"]


@contextmanager
def progress_bar(what: str, nbytes: int, *, shown: bool) -> Iterator[Callable[[int], object]]:
    """
    Show how far a long call is, if asked to.

    Parameters
    ----------
    what : str
        Label.
    nbytes : int
        What there is to do, in bytes.
    shown : bool
        Whether to show anything.

    Yields
    ------
    callable
        To be called with the bytes that were done since the last call.

    Raises
    ------
    ImportError
        It is to be shown, and tqdm is not installed.
    """
    if not shown:
        yield lambda _: None
        return
    tqdm = needed("tqdm.auto", "progress=True", "progress").tqdm
    with tqdm(total=nbytes, desc=what, unit="B", unit_scale=True, unit_divisor=1024) as bar:
        yield bar.update
