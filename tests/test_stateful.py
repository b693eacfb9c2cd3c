"""Steps of all kinds in any order, taken by a buffer and by its model in plain Python."""

from hypothesis import HealthCheck, settings

from sparsearray.testing import SparseBufferMachine

# A step reads all bytes there are, so examples are slow to draw and no deadline fits all.
TestSparseBuffer = SparseBufferMachine.TestCase
TestSparseBuffer.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
