"""To test with: a model of `SparseBuffer`, hypothesis strategies and a state machine.

Needs `hypothesis`, which the rest of the package does not.

Examples
--------
A test that a buffer, or something that is used like one, does what it must:

>>> from sparsearray.testing import SparseBufferMachine
>>> TestMyBuffer = SparseBufferMachine.TestCase
"""

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
