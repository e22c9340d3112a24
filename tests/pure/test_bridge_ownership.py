"""Whose the integration bridge is: the rule."""

import pytest

from nacre.node.ovs.ownership import Facts, Holder, refusal

MINE, OTHER = "/srv/mine", "/srv/other"


@pytest.mark.parametrize("facts", [
    Facts(),
    Facts(exists=True),
    Facts(exists=True, mark=MINE, marked_lives=True, guests=7),
    Facts(exists=True, mark=MINE, foreign=("patch-tun",)),
    Facts(exists=True, mark=OTHER, marked_lives=True),  # down, and no server of it runs
    Facts(exists=True, mark=OTHER, guests=2),  # its folder is gone
    Facts(exists=True, holder=Holder(MINE, 7), mark=MINE),
])
def test_a_bridge_that_may_be_had(facts: Facts) -> None:
    assert refusal("br-int", MINE, facts) is None


@pytest.mark.parametrize(("facts", "words"), [
    (Facts(holder=Holder(OTHER, 7)), (OTHER, "process 7", f"nacre down --data {OTHER}", "--hypervisor fake")),
    (Facts(exists=True, mark=MINE, holder=Holder(OTHER, 7)), (f"nacre down --data {OTHER}",)),
    (Facts(exists=True, mark=OTHER, marked_lives=True, guests=2),
     ("2 with a port", f"nacre up --data {OTHER}", f"br-set-external-id br-int nacre-data {MINE}")),
    (Facts(exists=True, foreign=("patch-tun",)), ("patch-tun", "Neutron", "del-br br-int")),
    (Facts(exists=True, guests=3),
     ("ports of servers: 3", "del-br br-int", f"br-set-external-id br-int nacre-data {MINE}")),
])
def test_a_bridge_of_others_is_refused_with_the_next_step(facts: Facts, words: tuple[str, ...]) -> None:
    why = refusal("br-int", MINE, facts)
    assert why is not None and [w for w in words if w not in why] == []
