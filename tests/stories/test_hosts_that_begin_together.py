"""After a power cut, or where the database was put back, all hosts of a large network ask for all of it at once."""

import asyncio
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from tests import schema
from tests.stories.network_cloud import Cloud
from tests.stories.test_network_growth import HOSTS, Growing

from nacre.base.clock import VirtualClock, settle
from nacre.base.durable.eras import Position
from nacre.base.rpc.memory import MemoryHub, MemoryTransport
from nacre.base.rpc.server import Peer
from nacre.base.rpc.stub import stub
from nacre.network.contract import TARGET, TOO_LATE, WAITS, Have, Network
from nacre.network.hosts import trimming
from nacre.network.hosts.wholes import LATE, PAGE, InTurn, Shared
from nacre.network.work import NetworkSettings
from nacre.node.ovs.client import AWAY, ControlAway, Pauses, WiringClient
from nacre.node.ovs.contract import Standing


class Slow:
    """A database that does one thing at a time, each read of which takes so many virtual seconds."""

    def __init__(self, db: Any, clock: VirtualClock, seconds: float):
        self._db, self._clock, self._seconds, self._turn = db, clock, seconds, asyncio.Lock()
        self.reads, self.busy = 0, False

    async def read(self, unit: Callable[[sa.Connection], Any]) -> Any:
        async with self._turn:
            self.reads += 1
            await self._clock.sleep(self._seconds)
            self.busy = True
            try:
                return await self._db.read(unit)
            finally:
                self.busy = False


class Beginner:
    """A host that has nothing, and asks as agents do."""

    def __init__(self, name: str, cloud: Cloud, hub: MemoryHub):
        me = MemoryTransport(hub, me=Peer(name, "node"))
        self.client = WiringClient(name, stub(Network, me.client(TARGET).prepare(timeout=WAITS)), cloud.clock)
        self.client.follow(Standing(trusted=True, n=1))
        self._name, self._clock, self.tries, self.late, self.done = name, cloud.clock, 0, 0, False

    async def run(self) -> None:
        pauses = Pauses(self._name)
        while not self.done:
            self.tries += 1
            try:
                await self.client.ask()
                self.done = True
            except ControlAway as error:
                self.late += error.late
                await self._clock.sleep(pauses.after(error))


async def begin(cloud: Cloud, names: list[str], seconds: float, most: float) -> tuple[list[Beginner], Slow, float]:
    """All of them at once. What they are then, what was read, and how long it took."""
    hub = MemoryHub(clock=cloud.clock)
    control = MemoryTransport(hub, me=Peer("control", "control"))
    control.serve(TARGET, cloud.network, Network, ("node",))
    slow = Slow(cloud.db, cloud.clock, seconds)
    cloud.network.db = slow  # type: ignore[assignment]
    hosts = [Beginner(name, cloud, hub) for name in names]
    began, tasks = cloud.clock.monotonic(), [asyncio.create_task(host.run()) for host in hosts]
    while not all(task.done() for task in tasks) and cloud.clock.monotonic() - began < most:
        await settle()
        await cloud.clock.advance(seconds / 4)
        while slow.busy:  # it has a thread, for which no time passes
            await asyncio.sleep(0.001)
    took = cloud.clock.monotonic() - began
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await control.close()
    return hosts, slow, took


async def test_every_host_has_its_first_answer_though_all_together_need_longer_than_each_waits() -> None:
    """Whom nobody answers in time asks anew; what it asked before costs nobody anything any more."""
    cloud = Cloud(schema.in_memory(), NetworkSettings())
    names = [f"h{n}" for n in range(40)]
    for n, name in enumerate(names):
        await cloud.host(name, f"192.0.2.{n + 1}")
    hosts, slow, took = await begin(cloud, names, 1.5, 300)
    assert all(host.done for host in hosts), [host.tries for host in hosts]
    # Who has to ask again was told why, and did not wait for nothing.
    assert max(host.tries for host in hosts) > 1 and all(host.late == host.tries - 1 for host in hosts)
    # Each needs two reads, of its wiring and of what it routes; the odd one's answer comes when it has just given up.
    assert slow.reads <= 2.25 * len(hosts) and took < 2.5 * 1.5 * len(hosts)
    await cloud.db.close()


async def test_what_all_ask_for_is_read_once_and_answered_in_pages() -> None:
    lab = Growing()
    await lab.start(PAGE + 100)  # one network, and one group that its own rules name
    whole = list[str]()

    def watch(_: Any, __: Any, text: str, *___: Any) -> None:
        whole.extend(key for key in ("port_bindings.network_id IN", "port_security_groups.group_id IN")
                     if key in text and "JOIN port_addresses" in text and "port_id IN" not in text)

    sa.event.listen(lab.db.engine, "before_cursor_execute", watch)
    hosts, slow, _ = await begin(lab.cloud, HOSTS, 0.25, 60)
    assert all(host.done for host in hosts)
    for host in hosts:
        assert len(host.client.places.of(lab.network)) == PAGE + 100 + len(HOSTS)
        assert not any(host.client.outdated())
    assert slow.reads == 4 * len(HOSTS)  # what to wire, what is routed, the network, the group: a page each
    assert sorted(whole) == ["port_bindings.network_id IN", "port_security_groups.group_id IN"]
    await lab.db.close()


async def test_what_was_read_for_others_a_moment_ago_is_as_good_as_new() -> None:
    lab = Growing()
    await lab.start(2000)
    network = lab.cloud.network

    async def known() -> tuple[int, dict[str, Any]]:
        answer = await network.differences("h0", (), (lab.network,), Have())
        assert not answer.rest
        return answer.placed[0].n, dict(answer.placed[0].ports)

    n, before = await known()
    server = await lab.plug("h1")
    [port] = (await network.ports_of((server,)))[server]
    [gone] = [id for id in before if id == "p7"]
    await lab.cloud.call("admin", "PUT", f"/ports/{gone}", {"port": {"binding:host_id": ""}})
    later, after = await known()
    assert later > n and after.keys() == (before.keys() | {port.id}) - {gone}
    await lab.cloud.clock.advance(60)
    assert (await known())[1] == after  # read anew
    await lab.db.close()


async def test_a_question_that_waited_too_long_is_not_answered() -> None:
    clock = VirtualClock()
    turns, ran = InTurn(clock), list[int]()

    async def ask(n: int) -> None:
        async with turns.turn(f"h{n}"):
            ran.append(n)
            await clock.sleep(LATE / 2 + 1)

    tasks = [asyncio.create_task(ask(n)) for n in range(4)]
    for _ in range(8):
        await settle()
        await clock.advance(LATE / 2 + 1)
    await asyncio.gather(*tasks, return_exceptions=True)
    assert ran == [0, 1] and [task.exception() is None for task in tasks] == [True, True, False, False]
    assert [getattr(task.exception(), "type", None) for task in tasks[2:]] == [TOO_LATE] * 2
    async with turns.turn("h9"):
        ran.append(9)
    assert ran[-1] == 9


async def test_of_a_hosts_questions_the_last_is_answered() -> None:
    """It asks one at a time, so the others it has given up. And who gives up while it waits leaves the turn free."""
    clock = VirtualClock()
    turns, ran = InTurn(clock), list[tuple[str, int]]()

    async def ask(host: str, n: int) -> None:
        async with turns.turn(host):
            ran.append((host, n))
            await clock.sleep(1)

    tasks = list[asyncio.Task[None]]()
    for n, host in enumerate(("h1", "h2", "h2", "h1", "h3", "h4")):
        tasks.append(asyncio.create_task(ask(host, n)))
        await settle()
    tasks[4].cancel()
    for _ in range(8):
        await clock.advance(1)
    await asyncio.gather(*tasks, return_exceptions=True)
    assert ran == [("h1", 0), ("h2", 2), ("h1", 3), ("h4", 5)]
    assert getattr(tasks[1].exception(), "type", None) == TOO_LATE and not turns._last


async def test_what_was_read_for_all_goes_though_nobody_asks_again() -> None:
    clock = VirtualClock()
    shared, db = Shared(clock), schema.in_memory()
    network = Cloud(db).network
    shared.put("network", "n", Position(n=1, era="e"), dict.fromkeys(map(str, range(1000)), ""))
    task = asyncio.create_task(trimming.run(db, clock, network.difference_notifier, shared, lambda _, names: names))
    await settle()
    assert shared._kept
    await clock.advance(trimming.TRIM + 1)
    assert not shared._kept and not shared._ports
    task.cancel()
    await db.close()


def test_pauses_grow_by_questions_that_came_too_late_and_no_two_hosts_make_the_same() -> None:
    late, away = ControlAway("", late=True), ControlAway("")
    waits, others = ([pauses.after(late) for _ in range(8)] for pauses in (Pauses("h1"), Pauses("h2")))
    assert all(AWAY[0] <= wait <= AWAY[1] for wait in waits) and min(waits[5:]) >= AWAY[1] / 2 > max(waits[:3])
    pauses = Pauses("h1")
    assert waits != others and max(pauses.after(away) for _ in range(100)) <= AWAY[0]
    assert [pauses.after(late) for _ in range(8)] == waits and max(pauses.after(late) for _ in range(2000)) <= AWAY[1]
    pauses.over()
    assert pauses.after(away) <= AWAY[0]
