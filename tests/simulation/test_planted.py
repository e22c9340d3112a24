"""The simulation can see: each of the bugs of `planted.py`, made by taking out one check, is found within 200 seeds."""

import pytest

from tests.simulation import batch
from tests.simulation.planted import PLANTED


@pytest.mark.timeout(600)
@pytest.mark.parametrize("bug", PLANTED)
def test_a_planted_bug_is_found(bug: str) -> None:
    found = [r for r in batch.run(0, 199, "--plant", bug, "--until-wrong") if r["wrong"]]
    assert found, f"200 seeds did not show that there was no {bug}"
    print(f"{bug}: seed {found[0]['seed']}: {found[0]['wrong'][0]}")
