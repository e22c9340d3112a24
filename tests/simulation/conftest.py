"""`--sim-seed N`: that seed alone, with its whole history."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--sim-seed", type=int, default=None, help="run this seed of the simulation, show its history")


@pytest.fixture
def sim_seed(request: pytest.FixtureRequest) -> int | None:
    found: int | None = request.config.getoption("--sim-seed")
    return found
