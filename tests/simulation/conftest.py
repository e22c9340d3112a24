"""`--sim-seed N`: that seed alone, with its whole history."""

from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--sim-seed", type=int, default=None, help="run this seed of the simulation, show its history")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    one = config.getoption("--sim-seed") is not None
    items[:] = [item for item in items if HERE not in item.path.parents or (item.name == "test_one_seed") == one]


@pytest.fixture
def sim_seed(request: pytest.FixtureRequest) -> int:
    return int(request.config.getoption("--sim-seed"))
