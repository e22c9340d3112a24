"""Claims: never over the limits, never lost, always given back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nacre.base.errors import Refused
from nacre.node.tracker import Tracker
from tests.stories.node.orders import build_order

SIZES = st.tuples(st.integers(0, 9), st.integers(0, 3000), st.integers(0, 9), st.booleans())


@given(st.lists(st.tuples(st.integers(0, 5), SIZES), max_size=30))
def test_the_sum_is_what_is_held_and_never_over_the_limits(steps: list) -> None:  # type: ignore[type-arg]
    tracker, held = Tracker(), {}
    for who, (vcpus, memory, root, release) in steps:
        server = f"s{who}"
        if release:
            tracker.release(server)
            held.pop(server, None)
            continue
        order = build_order(server, vcpus=vcpus, memory_mb=memory, root_gb=root)
        try:
            tracker.claim(order)
            held.setdefault(server, order)
        except Refused:
            assert server not in held
        used = tracker.used
        assert used.vcpus == sum(o.vcpus for o in held.values()) <= 16
        assert used.memory_mb == sum(o.memory_mb for o in held.values()) <= 4096
        assert used.disk_mb == sum(o.disk_mb for o in held.values()) <= 20480
        assert tracker.servers == set(held)


def test_every_reason_is_named() -> None:
    with pytest.raises(Refused) as caught:
        Tracker().claim(build_order(vcpus=17, memory_mb=5000, root_gb=21))
    assert caught.value.message == ("vcpus: 17 wanted, 16 free of 16; memory: 5000 MB wanted, 4096 MB free of 4096; "
                                    "disk: 21504 MB wanted, 20480 MB free of 20480")


def test_a_wish_for_no_memory_is_not_held_against_a_full_host() -> None:
    tracker = Tracker()
    tracker.claim(build_order(memory_mb=4096))
    tracker.claim(build_order(memory_mb=0, limit_memory_mb=1.0))
    with pytest.raises(Refused, match="disk"):
        tracker.claim(build_order(memory_mb=0, limit_disk_mb=1.0))
