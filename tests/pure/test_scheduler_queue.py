"""The host queue and the choice, against a brute-force oracle."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nacre.base.errors import BadRequest, NoValidHost
from nacre.scheduler.contract import HostReport, PlacementRequest
from nacre.scheduler.filter_scheduler import FilterScheduler
from nacre.scheduler.filters import FILTERS
from nacre.scheduler.hosts import Host, host_of


def report(name: str, memory: int = 4096, vcpus: int = 4, disk: int = 40, queue: str = "kvm") -> HostReport:
    return HostReport(host=name, hypervisor_type="fake", hypervisor_version=1, vcpus=vcpus, memory_mb=memory,
                      disk_gb=disk, vcpus_used=0, memory_mb_used=0, disk_gb_used=0, queue_name=queue)


def hosts(*reports: HostReport, **state: bool) -> list[Host]:
    return [host_of(r, up=state.get("up", True), disabled=state.get("disabled", False)) for r in reports]


def ask(*servers: str, memory: int = 512, vcpus: int = 1, disk: int = 1024, **more: object) -> PlacementRequest:
    return PlacementRequest(server_ids=servers or ("s",), project_id="p", memory_mb=memory, vcpus=vcpus, disk_mb=disk,
                            **more)  # type: ignore[arg-type]


def scheduler(found: list[Host], **options: object) -> FilterScheduler:
    chooser = FilterScheduler(**{"best": 1, "chance": random.Random(1), **options})  # type: ignore[arg-type]
    chooser.rebuild(found)
    return chooser


SIZES = st.tuples(st.integers(0, 4096), st.integers(0, 8), st.integers(0, 40))
FREE = {"memory": "free_memory_mb", "cpu": "free_vcpus", "disk": "free_disk_mb"}


@given(st.lists(SIZES, max_size=12), SIZES, st.sampled_from(["memory", "cpu", "disk"]), st.sampled_from([1, -1]))
def test_the_choice_is_the_oracles(sizes: list[tuple[int, int, int]], wish: tuple[int, int, int], driver: str,
                                   sign: int) -> None:
    found = hosts(*(report(f"h{n:02}", *size) for n, size in enumerate(sizes)))
    request = ask(memory=wish[0], vcpus=wish[1], disk=wish[2] * 1024)
    fitting = [h for h in found if all(f(request, h) is None for f in FILTERS.values())]
    fitting.sort(key=lambda h: (getattr(h, FREE[driver]), h.name), reverse=sign < 0)
    chooser = scheduler(found, driver=driver, sign=sign)
    if not fitting:
        with pytest.raises(NoValidHost):
            chooser.place(request, "kvm")
        return
    expected = fitting[0].name
    placement = chooser.place(request, "kvm")[0]
    assert placement.host == expected
    assert len(placement.alternates) == min(2, len(fitting) - 1)


@given(st.lists(SIZES, min_size=1, max_size=6), st.lists(SIZES, max_size=30), st.integers(1, 3))
def test_no_host_ever_holds_more_than_it_has(sizes: list[tuple[int, int, int]], wishes: list[tuple[int, int, int]],
                                             best: int) -> None:
    found = hosts(*(report(f"h{n}", *size) for n, size in enumerate(sizes)))
    chooser = scheduler(found, best=best)
    for n, (memory, vcpus, disk) in enumerate(wishes):
        try:
            chooser.place(ask(f"s{n}", memory=memory, vcpus=vcpus, disk=disk * 1024), "kvm")
        except NoValidHost:
            continue
    for host in found:
        assert host.free_memory_mb >= 0
        assert host.free_vcpus >= 0
        assert host.free_disk_mb >= 0


def test_a_refusal_counts_its_reasons() -> None:
    found = hosts(*(report(f"small{n}", memory=256) for n in range(31))) + hosts(
        *(report(f"off{n}") for n in range(9)), disabled=True)
    with pytest.raises(NoValidHost, match=r"0 of 40 hosts fit: 31 lack 2048 MB of memory, 9 are disabled"):
        scheduler(found).place(ask(memory=2048), "kvm")


def test_many_servers_are_placed_all_or_none() -> None:
    found = hosts(report("a", memory=1024), report("b", memory=1024))
    chooser = scheduler(found)
    with pytest.raises(NoValidHost):
        chooser.place(ask(*(f"s{n}" for n in range(5))), "kvm")
    assert {h.free_memory_mb for h in found} == {1024}
    assert len(chooser.place(ask(*(f"s{n}" for n in range(4))), "kvm")) == 4


def test_spread_puts_each_on_a_host_of_its_own() -> None:
    found = hosts(*(report(f"h{n}") for n in range(3)))
    placed = scheduler(found, sign=1).place(ask("a", "b", "c", spread=True), "kvm")
    assert {p.host for p in placed} == {"h0", "h1", "h2"}


def test_staying_away_and_going_together() -> None:
    found = hosts(report("a"), report("b"))
    found[0].servers.add("old")
    chooser = scheduler(found)
    assert chooser.place(ask("x", different_host=("old",)), "kvm")[0].host == "b"
    assert chooser.place(ask("y", same_host=("old",)), "kvm")[0].host == "a"
    found[1].disabled = True
    assert chooser.place(ask("z", different_host=("old",), try_different_host=True), "kvm")[0].host == "a"
    with pytest.raises(NoValidHost, match="stay away"):
        chooser.place(ask("w", different_host=("old",)), "kvm")


def test_host_match_is_a_search_and_linear() -> None:
    found = hosts(report("rack1-a"), report("rack2-a"))
    assert scheduler(found).place(ask(host_match="ack2"), "kvm")[0].host == "rack2-a"
    with pytest.raises(BadRequest, match="scheduler_host_match"):
        scheduler(found).place(ask(host_match="("), "kvm")
    with pytest.raises(NoValidHost, match="2 do not match"):
        scheduler(found).place(ask(host_match="(a+)+$x"), "kvm")


def test_a_forced_host_and_a_queue() -> None:
    found = hosts(report("a"), report("b", queue="gpu"))
    assert scheduler(found).place(ask(host="b"), "kvm")[0].host == "b"
    assert scheduler(found).place(ask(queue_name="gpu"), "kvm")[0].host == "b"
    with pytest.raises(NoValidHost, match="no hosts in the queue"):
        scheduler(found).place(ask(queue_name="none"), "kvm")


def test_zero_memory_skips_the_check_but_disk_never() -> None:
    found = hosts(report("a", memory=0, vcpus=0, disk=1))
    assert scheduler(found).place(ask(memory=0, vcpus=0, disk=1024), "kvm")[0].host == "a"
    with pytest.raises(NoValidHost, match="lack 1 MB of disk"):
        scheduler(found).place(ask(memory=0, vcpus=0, disk=1), "kvm")
