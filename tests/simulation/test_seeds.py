"""Three control processes and twenty hosts under kills, freezes, cuts, outages and lost messages: whatever the seed,
no server is lost, stuck, doubled or leaked, and nothing unknown is destroyed. docs/architecture.md says how to read
one."""

import pytest

from tests.simulation import batch
from tests.simulation.settled import caused


def check(count: int) -> None:
    for result in batch.everywhere(count):
        if result["wrong"]:
            pytest.fail(batch.told(result), pytrace=False)


def test_a_build_that_ran_out_of_hosts_is_judged_by_each_of_its_reasons() -> None:
    tried, fault = "No valid host was found. 2 tried: ", "define of s: a fault was asked for"
    no_room = "No valid host was found. 0 of 20 hosts fit: 20 lack 512 MB of memory"
    for why in (no_room, f"{tried}{fault}; {no_room}", "Host h stopped answering while it started the server; so"):
        assert caused(why)
    for why in (f"{tried}{fault}; unexpected on host3: KeyError: 's'", f"{tried}server s already runs on this host",
                "No valid host was found. There are no hosts in the queue asked for", ""):
        assert not caused(why)


@pytest.mark.timeout(900)
def test_200_seeds() -> None:
    check(200)


@pytest.mark.slow
@pytest.mark.timeout(6 * 3600)
def test_10000_seeds() -> None:
    check(10_000)


def test_one_seed(sim_seed: int) -> None:
    """With --sim-seed only, which leaves out the others."""
    (result,) = batch.run(sim_seed, sim_seed, "--history")
    print("\n".join(result["history"]))
    if result["wrong"]:
        pytest.fail("\n".join(result["wrong"]), pytrace=False)


def test_a_seed_is_one_history() -> None:
    """Whatever the process that runs it, and whatever it ran before."""
    def digests(first: int, last: int) -> list[str]:
        return [result["digest"] for result in batch.run(first, last)]

    (seven, eight) = digests(7, 8)
    assert digests(8, 8) == [eight] != [seven]
