"""The choice of hosts against a brute-force oracle, and what must hold under any order of events."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nacre.base.errors import NoValidHost
from nacre.scheduler.contract import HostReport, PlacementRequest
from nacre.scheduler.host_queue import DRIVERS
from nacre.scheduler.hosts import needs
from tests.pure.scheduler_lab import Fleet, ask, held, report

SIZES = st.tuples(st.integers(0, 4096), st.integers(0, 8), st.integers(0, 40))
#: Few different amounts, so that hosts are often of equal rank; many hosts, so that columns are asked too.
COARSE = st.tuples(st.sampled_from([0, 512, 1024]), st.integers(0, 3), st.integers(0, 3))

def oracle(fleet: Fleet, request: PlacementRequest, driver: str, sign: int) -> list[str]:
    """Every host that fits, best first: one by one, from the definition."""
    need = needs(request.amounts)
    fits = [h for h in fleet.hosts() if h.out is None and h.name not in request.ignore_hosts
            and all(has >= wanted for has, wanted in zip(h.free, need, strict=True))
            and (request.availability_zone is None or h.kind.zone == request.availability_zone)
            and (request.host_match is None or request.host_match in h.name)]
    fits.sort(key=lambda h: (h.free[DRIVERS[driver]], h.row), reverse=sign < 0)
    return [h.name for h in fits]

@settings(deadline=None, max_examples=400)
@given(st.lists(st.tuples(SIZES | COARSE, st.sampled_from(["east", "west"]), st.sampled_from([None, None, "are down"])),
                max_size=160),
       SIZES | COARSE, st.sampled_from(["memory", "cpu", "disk"]), st.sampled_from([1, -1]), st.integers(1, 4),
       st.sampled_from([{}, {"availability_zone": "east"}, {"host_match": "7"}, {"ignore_hosts": ("h001", "h002")}]))
def test_the_choice_is_among_the_oracles_best(
        sizes: list[tuple[tuple[int, int, int], str, str | None]], wish: tuple[int, int, int], driver: str, sign: int,
        best: int, more: dict[str, object]) -> None:
    fleet = Fleet(driver=driver, sign=sign, best=best)
    for n, (size, zone, out) in enumerate(sizes):
        fleet.add(report(f"h{n:03}", *size), zone=zone, out=out)
    request = ask("s", memory=wish[0], vcpus=wish[1], disk=wish[2] * 1024, **more)
    expected = oracle(fleet, request, driver, sign)
    if not expected:
        with pytest.raises(NoValidHost) as refused:
            fleet.place(request)
        reasons = refused.value.message.partition(": ")[2].partition(";")[0]
        counted = sum(int(part.split()[0]) for part in reasons.split(", ") if part)
        assert counted == len(sizes)  # every host is counted once, with one reason
        return
    (placement,) = fleet.place(request)
    assert placement.host in expected[:best]

@settings(deadline=None)
@given(st.lists(COARSE, min_size=1, max_size=80), st.integers(2, 30), st.sampled_from([1, -1]),
       st.sampled_from([{}, {"spread": True}]))
def test_many_at_once_are_as_many_one_by_one(sizes: list[tuple[int, int, int]], count: int, sign: int,
                                             more: dict[str, object]) -> None:
    servers = [f"s{n}" for n in range(count)]
    at_once, one_by_one = Fleet(sign=sign), Fleet(sign=sign)
    for fleet in (at_once, one_by_one):
        for n, size in enumerate(sizes):
            fleet.add(report(f"h{n:02}", *size))
    placed = at_once.try_place(ask(*servers, memory=512, disk=1024, min_count=1, **more))
    hosts, tried = [], ()
    for server in servers:
        found = one_by_one.try_place(ask(server, memory=512, disk=1024, ignore_hosts=tried))
        if not found:
            break
        hosts.append(found[0].host)
        tried = tuple(hosts) if more else ()
    assert [p.host for p in placed if p.host] == hosts

class Model:
    """Hosts that grant claims up to their limits, and a scheduler that hears of them late, doubled or never. claims: of
    each host, allocation -> (server, memory)."""

    def __init__(self, seed: int, hosts: int, best: int):
        self.chance = random.Random(seed)
        self.fleet = Fleet(best=best, seed=seed)
        self.claims: dict[str, dict[str, tuple[str, int]]] = {f"h{n}": {} for n in range(hosts)}
        self.sizes = {name: self.chance.choice([1024, 2048, 4096]) for name in self.claims}
        for name in self.claims:
            self.fleet.add(self.report(name))
        self.count, self.over = 0, 0

    def report(self, name: str):  # type: ignore[no-untyped-def]
        claims = self.claims[name]
        return report(name, self.sizes[name], 64, 1000, used=self.used(name),
                      held=held(**{a: server for a, (server, _) in claims.items()}))

    def used(self, name: str) -> int:
        return sum(memory for _, memory in self.claims[name].values())

    def create(self) -> None:
        self.count += 1
        server, memory = f"s{self.count}", self.chance.choice([256, 512, 1024])
        for p in self.fleet.try_place(ask(server, memory=memory)):
            if self.used(p.host) + memory > self.sizes[p.host]:
                self.over += 1
            self.claims[p.host][p.allocation] = server, memory
            if self.chance.random() < 0.2:  # the build fails: the host takes it back, and the release may be doubled
                del self.claims[p.host][p.allocation]
                for _ in range(self.chance.choice([1, 2])):
                    self.fleet.release(p.allocation)

    def delete(self) -> None:
        name = self.chance.choice(list(self.claims))
        if self.claims[name]:
            allocation = self.chance.choice(list(self.claims[name]))
            del self.claims[name][allocation]
            self.fleet.release(allocation)

@settings(deadline=None)
@given(st.integers(0, 1 << 30), st.integers(1, 6), st.integers(1, 3))
def test_no_host_gets_more_than_it_has_whatever_it_reports_when(seed: int, hosts: int, best: int) -> None:
    """Reports come between placements and releases at any time, doubled too: they name what they count."""
    model = Model(seed, hosts, best)
    for _ in range(120):
        step = model.chance.random()
        if step < 0.5:
            model.create()
        elif step < 0.7:
            model.delete()
        else:
            name = model.chance.choice(list(model.claims))
            model.fleet.hear(model.report(name))  # doubled reports change nothing
            model.fleet.hear(model.report(name))
    assert model.over == 0
    for name in model.claims:
        model.fleet.hear(model.report(name))
        assert model.fleet.free(name) == model.sizes[name] - model.used(name)
        assert model.fleet.host(name).servers == {server for server, _ in model.claims[name].values()}

@settings(deadline=None)
@given(st.integers(0, 1 << 30))
def test_a_rebuild_in_the_middle_of_placements_changes_nothing(seed: int) -> None:
    chance = random.Random(seed)
    sizes = [(chance.choice([1024, 2048]), 4, 40) for _ in range(12)]

    def run(rebuild: bool) -> list[str]:
        fleet = Fleet(seed=1, best=2)
        for n, size in enumerate(sizes):
            fleet.add(report(f"h{n:02}", *size))
        hosts = []
        for n in range(30):
            hosts += [p.host for p in fleet.try_place(ask(f"s{n}", memory=512))]
            if rebuild:
                for name in [h.name for h in fleet.hosts()]:
                    fleet.hear(fleet.host(name).report)
                    fleet.change(name)
        return hosts

    assert run(rebuild=True) == run(rebuild=False)

@settings(deadline=None)
@given(st.lists(COARSE, min_size=1, max_size=80), st.integers(1, 20))
def test_a_plan_says_what_would_be_done_and_does_nothing(sizes: list[tuple[int, int, int]], count: int) -> None:
    fleet = Fleet()
    for n, size in enumerate(sizes):
        fleet.add(report(f"h{n:02}", *size))
    before = [(h.name, list(h.free), set(h.servers), h.entry[:2]) for h in fleet.hosts()]
    request = ask(*(f"s{n}" for n in range(count)), memory=512, min_count=1)
    planned = fleet.plan(request)
    assert [(h.name, list(h.free), set(h.servers), h.entry[:2]) for h in fleet.hosts()] == before
    assert [p.host for p in planned if p.host] == [p.host for p in fleet.try_place(request) if p.host]



@settings(deadline=None)
@given(st.integers(0, 1 << 30), st.integers(2, 4), st.integers(1, 4))
def test_several_schedulers_never_over_commit_and_waste_nothing(seed: int, schedulers: int, best: int) -> None:
    """Each hears of the others by hosts' reports only, and those come late. The claim at the host is final: a refusal
    means the next host; when the reports are in, what is free can be had by everyone."""
    chance, truth = random.Random(seed), {f"h{n}": dict[str, str]() for n in range(4)}
    fleets = [Fleet(seed=n, best=best) for n in range(schedulers)]

    def said(name: str) -> HostReport:
        return report(name, 2048, 64, 1000, used=512 * len(truth[name]), held=held(**truth[name]))

    for fleet in fleets:
        for name in truth:
            fleet.add(said(name))
    placed = 0
    for n in range(40):
        fleet, tried, server = chance.choice(fleets), (), f"s{n}"
        while found := fleet.try_place(ask(server, memory=512, ignore_hosts=tried)):
            name = found[0].host
            if 512 * len(truth[name]) + 512 <= 2048:
                truth[name][found[0].allocation] = server
                placed += 1
                break
            fleet.release(found[0].allocation)
            tried = (*tried, name)
        if chance.random() < 0.3:
            name = chance.choice(list(truth))
            chance.choice(fleets).hear(said(name))
    assert placed == 16  # all the room there is, and none twice
    for fleet in fleets:
        for name in truth:
            fleet.hear(said(name))
            assert fleet.free(name) == 0
        assert fleet.try_place(ask("more", memory=512)) == ()
