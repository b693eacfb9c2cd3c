"""To test with: a model of `SparseBuffer`, hypothesis strategies and state machines.

Needs `hypothesis`, which the rest of the package does not.

Examples
--------
A test that a buffer, or something that is used like one, does what it must:

>>> from sparsearray.testing import SparseBufferMachine
>>> TestMyBuffer = SparseBufferMachine.TestCase

And one that an array does what numpy does, in memory and in files:

>>> from sparsearray.testing import ArrayMachine
>>> TestMyArray = ArrayMachine.TestCase
"""

from sparsearray.testing.arrays import ArrayMachine
from sparsearray.testing.model import ModelBuffer
from sparsearray.testing.model_pages import ModelFile, ModelPage
from sparsearray.testing.model_views import ModelAtomicSlice, ModelWindow
from sparsearray.testing.outcomes import Outcome, agree, outcome
from sparsearray.testing.stateful import SparseBufferMachine
from sparsearray.testing.strategies import (
    LAYOUTS,
    Layout,
    dtypes,
    layouts,
    lengths,
    offsets,
    page_ranges,
)

__all__ = [
    "LAYOUTS",
    "ArrayMachine",
    "Layout",
    "ModelAtomicSlice",
    "ModelBuffer",
    "ModelFile",
    "ModelPage",
    "ModelWindow",
    "Outcome",
    "SparseBufferMachine",
    "agree",
    "dtypes",
    "layouts",
    "lengths",
    "offsets",
    "outcome",
    "page_ranges",
]
