"""The one fixture of the end-to-end tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.house import House


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """Processes that end with the test."""
    house = House(tmp_path)
    yield house
    house.close()
