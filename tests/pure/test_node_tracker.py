"""Claims: never over the limits, never lost, always given back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nacre.base.errors import Refused
from nacre.node.servers.tracker import Tracker
from tests.stories.node.orders import build_order

SIZES = st.tuples(st.integers(0, 9), st.integers(0, 3000), st.integers(0, 9), st.booleans())


@given(st.lists(st.tuples(st.integers(0, 5), SIZES), max_size=30))
def test_the_sum_is_what_is_held_and_never_over_the_limits(steps: list) -> None:  # type: ignore[type-arg]
    tracker, held = Tracker(), {}
    for who, (vcpus, memory, root, release) in steps:
        server = f"s{who}"
        if release:
            tracker.release(f"{server}/1")
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
        assert tracker.allocations == {f"{server}/1" for server in held}


PLACES = ("/one", "/two")
LIMITS = {"limit_net_bandwidth": 90.0, "limit_disk_bandwidth": 60.0, "limit_disk_shares": 50.0}


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 9), st.integers(0, 40), st.sampled_from(PLACES),
                          st.sampled_from(["claim", "claim", "release", "restart"])), max_size=40))
def test_directories_and_bandwidth_add_up(steps: list) -> None:  # type: ignore[type-arg]
    tracker, held = Tracker(PLACES), {}
    for who, root, amount, place, what in steps:
        server = f"s{who}"
        order = build_order(server, root_gb=root, memory_mb=1, net_bandwidth=amount, disk_bandwidth=amount // 2,
                            disk_shares=amount, selected_dir=place, **LIMITS)
        if what == "release":
            tracker.release(order.allocation)
            held.pop(server, None)
        elif what == "restart":
            tracker = Tracker(PLACES)
            for kept in held.values():
                tracker.restore(kept)
        else:
            try:
                tracker.claim(order)
                held.setdefault(server, order)
            except Refused:
                assert server not in held
        used = tracker.used
        assert used.net_bandwidth == sum(o.net_bandwidth for o in held.values()) <= 90
        assert used.disk_bandwidth == sum(o.disk_bandwidth for o in held.values()) <= 60
        for path in PLACES:
            within, there = tracker.used_in(path), [o for o in held.values() if o.selected_dir == path]
            assert within.disk_mb == sum(o.disk_mb for o in there) <= 20480
            assert within.disk_shares == sum(o.disk_shares for o in there) <= 50
        assert used.disk_mb == sum(o.disk_mb for o in held.values())


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


def test_a_server_may_have_two_allocations() -> None:
    tracker = Tracker()
    for epoch in (1, 2):
        tracker.claim(build_order("s", epoch, memory_mb=512))
    assert tracker.used.memory_mb == 1024
    tracker.release("s/1")
    assert tracker.used.memory_mb == 512 and tracker.holds("s/2")
