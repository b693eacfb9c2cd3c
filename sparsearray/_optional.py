"""Packages that are no dependencies: imported when used, and named where they are missing."""

from importlib import import_module
from typing import Any

__all__ = ["needed"]


def needed(name: str, what: str, extra: str) -> Any:
    """
    Import a module of an optional package.

    Parameters
    ----------
    name : str
        Of the module.
    what : str
        Which of our functions needs it.
    extra : str
        Which extra of ours installs it.

    Raises
    ------
    ImportError
        The package, or one that it needs itself, is not installed: with the command that does it.

    Examples
    --------
    >>> needed("no_such_package", "to_nothing", "all")
    Traceback (most recent call last):
    ImportError: to_nothing needs no_such_package: pip install 'sparsearray-numpy[all]'
    """
    try:
        return import_module(name)
    except ImportError as error:
        package = (error.name or name).partition(".")[0]
        msg = f"{what} needs {package}: pip install 'sparsearray-numpy[{extra}]'"
        raise ImportError(msg, name=package) from error
