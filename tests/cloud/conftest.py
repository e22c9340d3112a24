"""What several modules of these tests ask for by name."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cloud.folder_lab import reached_by_all


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that other accounts reach."""
    with reached_by_all() as path:
        yield path
