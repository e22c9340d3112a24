"""What hosts say comes late, twice, in another order, or not at all: the scheduler knows the latest, and nobody is down
who had no chance to speak."""

import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nacre.base.clock import VirtualClock
from nacre.base.db import Database, DatabaseUnavailable
from nacre.base.durable.changes import Changes
from nacre.base.durable.processes import Process, Processes
from nacre.base.errors import NoValidHost
from nacre.scheduler.contract import Allocation, Amounts, HostReport, TooEarly
from nacre.scheduler.filter_scheduler import FilterScheduler
from nacre.scheduler.manager import SchedulerDeps, SchedulerManager
from nacre.scheduler.registry import HostRegistry
from tests import schema
from tests.pure.scheduler_lab import ask, held, report

SMALL = Amounts(memory_mb=512, vcpus=1, disk_mb=0)


class Lab:
    """A scheduler over a database, with allocations of its own."""

    def __init__(self, db: Database | None = None, clock: VirtualClock | None = None):
        self.db, self.clock = db or schema.in_memory(), clock or VirtualClock()
        self.allocations: dict[str, Allocation] = {}
        self.chooser = FilterScheduler(best=1)
        self.registry = HostRegistry(self.db, self.clock)
        self.manager = SchedulerManager(self.registry, self.clock, self.chooser, SchedulerDeps(
            aggregates=self._none, allocations=self._allocations))
        self.changes = Changes(self.db, self.clock)
        self.manager.subscribe(self.changes)

    async def _none(self) -> dict[str, tuple[()]]:
        return {}

    async def _allocations(self, ids: object) -> list[Allocation]:
        return [a for a in self.allocations.values() if ids is None or a.id in ids]  # type: ignore[operator]

    async def start(self) -> None:
        await Processes(self.db, self.clock).introduce(*(
            Process(id=f"node:{name}", role="node", name=name) for name in ("h", "other", "evil", "good")))
        await self.changes.start()
        await self.manager.start()

    def free(self, host: str) -> float:
        found = self.chooser.host(host)
        assert found is not None
        return found.free[0]


def numbered(n: int, incarnation: int = 1, **more: object) -> HostReport:
    return msgspec.structs.replace(report("h", 4096), incarnation=incarnation, n=n, **more)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=30), st.integers(0, 1 << 30))
def test_an_older_report_changes_nothing_and_who_is_where_is_kept(order: list[int], seed: int) -> None:
    import asyncio

    chance = random.Random(seed)
    said = {}
    for n in range(1, 13):
        servers = {f"a{i}": f"s{i}" for i in range(chance.randrange(4))}
        said[n] = numbered(n, memory_mb_used=512 * len(servers), held=held(**servers))

    async def story() -> None:
        lab, highest = Lab(), 0
        await lab.start()
        for n in order:
            fresh = await lab.manager.report(said[n])
            assert fresh == (n > highest)
            highest = max(highest, n)
            there = {h.server_id for h in said[highest].held}
            assert lab.free("h") == 4096 - 512 * len(there)
            assert {s for s in ("s0", "s1", "s2") if "h" in lab.chooser.where(s)} == there

    asyncio.run(story())


async def test_a_late_report_of_an_earlier_life_changes_nothing() -> None:
    lab = Lab()
    await lab.start()
    await lab.manager.report(numbered(1, incarnation=2, memory_mb_used=512, held=held(a="s")))
    assert not await lab.manager.report(numbered(900, incarnation=1))
    assert lab.free("h") == 3584 and list(lab.chooser.where("s")) == ["h"]
    assert await lab.manager.report(numbered(1, incarnation=1), anew=True)  # its journal was lost


async def test_nobody_is_refused_before_every_host_had_the_chance_to_speak() -> None:
    """A laptop that was switched off for an hour: its host reports some seconds after control is up."""
    lab = Lab()
    await lab.start()
    await lab.manager.report(numbered(1))
    await lab.registry.records.flush(lab.registry.states)
    await lab.clock.advance(3600)
    again = Lab(lab.db, lab.clock)
    await again.start()
    state = await again.registry.get("h")
    assert state is not None and state.up
    with pytest.raises(TooEarly):
        await again.manager.select(ask("s"))
    await again.manager.report(numbered(1, incarnation=2))
    assert (await again.manager.select(ask("s")))[0].host == "h"
    silent = Lab(lab.db, lab.clock)
    await silent.start()
    await lab.clock.advance(61)
    await silent.manager.build_queue()
    with pytest.raises(NoValidHost, match="1 is down") as refused:
        await silent.manager.select(ask("s"))
    assert not isinstance(refused.value, TooEarly)


async def test_a_process_that_was_frozen_does_not_take_its_own_sleep_for_hosts_silence(
        monkeypatch: pytest.MonkeyPatch) -> None:
    import asyncio

    lab = Lab()
    await lab.start()
    await lab.manager.report(numbered(1))
    running = asyncio.ensure_future(lab.manager.run())
    await lab.clock.advance(5)
    lab.clock.jump(120)  # SIGSTOP, SIGCONT
    await lab.clock.advance(2)
    state = await lab.registry.get("h")
    assert state is not None and state.up
    running.cancel()


async def test_a_host_whose_row_cannot_be_written_is_used_all_the_same_and_written_later(
        monkeypatch: pytest.MonkeyPatch) -> None:
    lab = Lab()
    await lab.start()
    run = lab.db.run

    async def away(unit: object) -> object:
        raise DatabaseUnavailable("away")

    monkeypatch.setattr(lab.db, "run", away)
    await lab.manager.report(numbered(1))
    await lab.manager.report(msgspec.structs.replace(numbered(1), host="other"))
    assert {p.host for p in await lab.manager.select(ask("a", "b", spread=True))} == {"h", "other"}
    await lab.manager.build_queue()  # nothing stops the others
    with pytest.raises(DatabaseUnavailable):
        await lab.registry.records.flush(lab.registry.states)
    monkeypatch.setattr(lab.db, "run", run)
    await lab.registry.records.flush(lab.registry.states)
    assert {s.report.host for s in await lab.registry.records.load()} == {"h", "other"}


async def test_what_another_process_placed_or_released_is_read_from_the_outbox() -> None:
    from nacre.base.durable import changes

    first = Lab()
    second = Lab(first.db, first.clock)
    second.allocations = first.allocations
    for lab in (first, second):
        await lab.start()
        await lab.manager.report(numbered(1))
    (placed,) = await first.manager.select(ask("s", memory=512))
    made = Allocation(id=placed.allocation, server_id="s", host="h", epoch=1, purpose="build", state="wanted",
                      amounts=SMALL)
    first.allocations[made.id] = made

    async def note() -> None:
        now = first.clock.now().replace(tzinfo=None)
        await first.db.run(lambda c: changes.note(c, now, ("allocation", made.id)))
        for lab in (first, second):
            await lab.changes.look()

    await note()
    assert first.free("h") == second.free("h") == 3584
    assert list(second.chooser.where("s")) == ["h"]
    for lab in (first, second):  # the host says it too: counted once
        await lab.manager.report(numbered(2, memory_mb_used=512, held=held(**{made.id: "s"})))
        assert lab.free("h") == 3584
    del first.allocations[made.id]
    await note()
    assert first.free("h") == second.free("h") == 4096
    for lab in (first, second):
        await lab.manager.report(numbered(3))
        assert lab.free("h") == 4096


async def test_an_operators_word_about_a_host_reaches_every_process() -> None:
    first = Lab()
    second = Lab(first.db, first.clock)
    for lab in (first, second):
        await lab.start()
        await lab.manager.report(numbered(1))
        await lab.registry.records.flush(lab.registry.states)
    await first.registry.set_service("h", disabled=True, reason="repair")
    await second.changes.look()
    with pytest.raises(NoValidHost, match="1 is disabled"):
        await second.manager.select(ask("s"))
    await first.registry.forget("h")
    await second.changes.look()
    assert await second.registry.all() == ()


async def test_an_operators_word_about_a_host_whose_row_is_not_written_yet_is_kept() -> None:
    """It was lost, and with it the host, for whoever read the change."""
    lab = Lab()
    await lab.start()
    await lab.manager.report(numbered(1))
    await lab.registry.read(["h"])
    assert (await lab.registry.get("h")) is not None
    await lab.registry.accept("h")
    assert await lab.registry.word("h") is not None
    await lab.registry.read(["h"])
    state = await lab.registry.get("h")
    assert state is not None and state.id and state.report.number == numbered(1).number
    await lab.registry.forget("h")
    await lab.registry.read(["h"])
    assert await lab.registry.get("h") is None


async def test_no_row_is_written_of_a_host_that_was_removed_meanwhile() -> None:
    lab = Lab()
    await lab.start()
    await lab.manager.report(numbered(1))
    await Processes(lab.db, lab.clock).remove("node", "h")
    await lab.registry.records.flush(lab.registry.states)
    assert await lab.registry.records.load() == []


async def test_a_row_that_is_written_late_undoes_no_later_one() -> None:
    """A process was frozen between hearing a report and writing it; another has heard and written a later one."""
    late = Lab()
    other = Lab(late.db, late.clock)

    async def row() -> tuple[tuple[int, int], int]:
        (found,) = await late.registry.records.load()
        return found.report.number, found.report.memory_mb_used

    for lab in (late, other):
        await lab.start()
        await lab.manager.report(numbered(1))
        await lab.registry.records.flush(lab.registry.states)
    await late.manager.report(numbered(2, memory_mb_used=512))
    await other.manager.report(numbered(3, memory_mb_used=1024))
    await other.registry.records.flush(other.registry.states)
    await late.registry.records.flush(late.registry.states)
    assert await row() == ((1, 3), 1024)
    await other.manager.report(numbered(1, incarnation=0, memory_mb_used=256), anew=True)  # its journal was lost
    await other.registry.records.flush(other.registry.states)
    assert await row() == ((0, 1), 256)


async def test_hosts_are_counted_anew_only_where_that_changes_something() -> None:
    lab, heard = Lab(), list[str]()
    await lab.start()
    for name in ("h", "other"):
        await lab.manager.report(msgspec.structs.replace(numbered(1), host=name))
    [placed] = await lab.manager.select(ask("s", host="h"))
    assert lab.free("h") < lab.free("other")
    hear = lab.chooser.hear

    def watch(report: HostReport, now: float) -> None:
        heard.append(report.host)
        hear(report, now)

    lab.chooser.hear = watch  # type: ignore[method-assign]
    for n in range(2, 40):
        await lab.clock.advance(10)
        for name in ("h", "other"):
            await lab.manager.report(msgspec.structs.replace(numbered(n), host=name))
        await lab.manager.build_queue()
    assert heard == ["h"]  # when the placement that came to nothing was forgotten
    assert lab.free("h") == lab.free("other")
    await lab.clock.advance(61)
    await lab.manager.build_queue()
    with pytest.raises(NoValidHost, match="2 are down"):
        await lab.manager.select(ask("t"))
    await lab.manager.report(msgspec.structs.replace(numbered(40), host="other"))
    assert [p.host for p in await lab.manager.select(ask("t"))] == ["other"] and placed.host == "h"
