"""Steps of all kinds in any order, taken by an array of either layout, in memory or a file, and by numpy's."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

import sparsearray
from sparsearray.testing import ArrayMachine

_SETTINGS: dict[str, Any] = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large],
}


@pytest.fixture(scope="module", autouse=True)
def _pages_of_this_core(linux_core: bool) -> Iterator[None]:
    before, ArrayMachine.counts_pages = ArrayMachine.counts_pages, linux_core
    yield
    ArrayMachine.counts_pages = before


class TiledMachine(ArrayMachine):
    """Begins with tiles always."""

    def make_array(
        self, shape: tuple[int, ...], dtype: Any, tiles: Any, maxshape: Any, path: Any
    ) -> Any:
        """Take tiles where none were wanted."""
        return super().make_array(shape, dtype, tiles or "auto", maxshape, path)


class LongMachine(ArrayMachine):
    """The same, for longer."""


TestArray = ArrayMachine.TestCase
TestArray.settings = settings(max_examples=300, stateful_step_count=30, **_SETTINGS)
TestTiledArray = TiledMachine.TestCase
TestTiledArray.settings = settings(max_examples=300, stateful_step_count=30, **_SETTINGS)
TestArrayForLonger = pytest.mark.slow(LongMachine.TestCase)
TestArrayForLonger.settings = settings(max_examples=1500, stateful_step_count=60, **_SETTINGS)


def test_a_wrong_item_is_a_failure() -> None:
    """The machine sees an array that does not do what numpy does."""
    machine = ArrayMachine()
    try:
        machine.start(shape=(70, 90), dtype="u1", tiles="auto", grows=False, in_file=False)
        machine.items_agree()
        machine.real[3, 4] = 5
        with pytest.raises(AssertionError, match="items"):
            machine.items_agree()
        assert isinstance(machine.real, sparsearray.TiledArray)
    finally:
        machine.teardown()


@pytest.mark.usefixtures("told_pages")
def test_a_page_too_many_is_a_failure() -> None:
    """The machine sees an array that stores what was not written."""
    machine = ArrayMachine()
    try:
        machine.start(shape=(70, 90), dtype="u1", tiles="auto", grows=False, in_file=False)
        machine.costs_what_was_touched()
        machine.real[3, 4] = 5
        with pytest.raises(AssertionError, match="nothing was written to"):
            machine.costs_what_was_touched()
    finally:
        machine.teardown()
