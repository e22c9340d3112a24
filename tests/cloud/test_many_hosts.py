"""What it costs when very many hosts speak at once: counted in transactions and statements, not in time. Two control
processes of one database; nothing runs in the background."""

import asyncio
import sys
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa

import nacre
from nacre.base.rpc.memory import MemoryHub, MemoryTransport
from nacre.base.rpc.server import Peer
from nacre.cloud.control import Control, build_control
from nacre.compute.tables import allocations, servers
from nacre.conductor.contract import Beat, NodeHello, Welcome
from nacre.conductor.manager import WHOLE, ConductorManager
from nacre.config import load
from nacre.network.contract import AgentReport
from nacre.scheduler.contract import Held, HostReport
from nacre.simulation.virtual_time import LoopClock, VirtualLoop
from tests import schema
from tests.cloud.test_growth import NOW, fill
from tests.cloud.virtual_lab import VirtualCloud, virtually

MANY = 150


class Cost:
    """transactions, and statements in them: all, and those that write."""

    def __init__(self) -> None:
        self.transactions, self.all = 0, list[str]()

    @property
    def statements(self) -> int:
        return len(self.all)

    @property
    def writes(self) -> int:
        return sum(1 for statement in self.all if not statement.startswith(("SELECT", "WITH")))

    def __repr__(self) -> str:
        return "\n".join([f"{self.transactions} transactions", *self.all])


class Two:
    """Two control processes, `one` and `two`."""

    def __init__(self, folder: Path):
        self.db, hub = schema.in_memory(), MemoryHub(clock=LoopClock())
        self.one, self.two = (self._control(folder, hub, name) for name in ("one", "two"))
        self.n = 0

    def _control(self, folder: Path, hub: MemoryHub, name: str) -> Control:
        settings = load(folder / name, environ={"NACRE_HYPERVISOR": "fake", "NACRE_RPC_NAME": name})
        (folder / name / "control").mkdir(parents=True)
        return build_control(settings, MemoryTransport(hub, me=Peer(name, "control")), self.db, LoopClock())

    @contextmanager
    def counted(self) -> Iterator[Cost]:
        cost = Cost()

        def begun(_: Any) -> None:
            cost.transactions += 1

        def executed(_: Any, __: Any, statement: str, *___: Any) -> None:
            if not statement.startswith("BEGIN"):
                cost.all.append(statement)

        sa.event.listen(self.db.engine, "begin", begun)
        sa.event.listen(self.db.engine, "before_cursor_execute", executed)
        try:
            yield cost
        finally:
            sa.event.remove(self.db.engine, "begin", begun)
            sa.event.remove(self.db.engine, "before_cursor_execute", executed)

    def beats(self, count: int, first: int = 0, **more: Any) -> list[Beat]:
        """The next of so many hosts. more: what their reports say."""
        self.n += 1
        return [Beat(agent=AgentReport(host=f"h{n}", tunnel_ip=f"192.0.{n // 250}.{n % 250 + 1}", bridge_mappings={},
                                       tunnel_types=("vxlan",)),
                     report=HostReport(
                         host=f"h{n}", incarnation=1, n=self.n, hypervisor_type="fake", hypervisor_version=1, vcpus=8,
                         memory_mb=4096, disk_gb=40, **{"vcpus_used": 0, "memory_mb_used": 0, "disk_gb_used": 0.0,
                                                        **more})) for n in range(first, first + count)]

    async def greet(self, control: Control, beats: list[Beat]) -> list[Welcome]:
        return await asyncio.gather(*(control.conductor.hello(NodeHello(
            endpoint=f"tcp://192.0.2.1:{n + 1}", public_key="", journal="j", cloud="", position=0, version="1",
            beat=beat)) for n, beat in enumerate(beats)))

    async def say(self, control: Control, beats: list[Beat]) -> list[bool]:
        """Whether each is to say hello."""
        heard = await asyncio.gather(*(control.conductor.beat(beat) for beat in beats))
        return [each.again for each in heard]

    async def flush(self, control: Control) -> None:
        await control.registry.records.flush(control.registry.states)


@pytest.fixture
async def two(tmp_path: Path) -> AsyncIterator[Two]:
    made = Two(tmp_path)
    for control in (made.one, made.two):
        await control.base.changes.start()
    yield made
    await made.db.close()


async def test_hosts_that_greet_together_cost_as_much_as_one(two: Two) -> None:
    with two.counted() as alone:
        await two.greet(two.one, two.beats(1))
        await two.flush(two.one)
    with two.counted() as all_at_once:
        welcomes = await two.greet(two.one, two.beats(MANY, first=1))
        await two.flush(two.one)
    assert len(welcomes) == MANY and not any(w.older or w.refused for w in welcomes)
    assert alone.transactions <= 9
    assert all_at_once.transactions <= alone.transactions + 1
    assert all_at_once.statements <= alone.statements + 6
    found = await two.db.read(lambda c: c.execute(sa.text(
        "select (select count(*) from processes where role = 'node'), (select count(*) from network_agents), "
        "(select count(*) from compute_hosts)")).one())
    assert found[0] == found[2] == MANY + 1 and found[1] >= MANY + 1


async def test_what_one_control_wrote_of_hosts_the_others_do_not_write_again(two: Two) -> None:
    beats = two.beats(MANY)
    for control in (two.one, two.two):
        with two.counted() as cost:
            await two.greet(control, beats)
            await two.flush(control)
        assert cost.transactions <= 9
        assert bool(cost.writes) == (control is two.one)
    busy = two.beats(MANY, vcpus_used=3)
    for control in (two.one, two.two):
        with two.counted() as cost:
            await two.say(control, busy)
            await two.flush(control)
        assert cost.transactions <= 2 and cost.writes == (control is two.one)


async def test_reports_without_news_cost_nothing(two: Two) -> None:
    await two.greet(two.one, two.beats(MANY))
    await two.flush(two.one)
    with two.counted() as cost:
        for _ in range(5):
            assert not any(await two.say(two.one, two.beats(MANY)))
            await two.flush(two.one)
    assert cost.statements == 0
    with two.counted() as cost:  # now and then all their guests are looked at
        for _ in range(WHOLE):
            await two.say(two.one, two.beats(MANY))
    assert cost.transactions == cost.statements == 1


async def test_hosts_that_lack_something_hear_so_by_one_read(two: Two) -> None:
    """As when a network or a group that all of them have changes."""
    await two.greet(two.one, two.beats(MANY))
    last = two.one.network.difference_notifier.last
    last["group"], last["network"] = {"g": 7}, {"n": 8}
    for n, transactions in ((8, 0), (1, 1)):  # a number that is level, and one that is not
        beats = [msgspec.structs.replace(beat, members={"g": n}, placed={"n": n}) for beat in two.beats(MANY)]
        with two.counted() as cost:
            assert not any(await two.say(two.one, beats))
        assert cost.transactions == transactions, cost


async def test_guests_of_hosts_that_greet_together_are_looked_up_together(two: Two) -> None:
    await two.db.run(lambda connection: fill(connection, 500))  # ten on each of 50 hosts
    beats = [msgspec.structs.replace(beat, report=msgspec.structs.replace(beat.report, held=tuple(
        Held(allocation=f"a{n}", server_id=f"s{n}", epoch=1, power="running", since=1)
        for n in range(host, 500, 50)))) for host, beat in enumerate(two.beats(50))]
    with two.counted() as cost:
        welcomes = await two.greet(two.one, beats)
    assert cost.transactions <= 9 + 50 and cost.writes  # that they run is new to the database, once for each host
    assert not any(w.orphans or w.older for w in welcomes)
    with two.counted() as cost:
        await two.greet(two.two, beats)
    assert cost.transactions <= 9 and not cost.writes


async def test_each_host_hears_what_is_true_of_its_own(two: Two) -> None:
    """However many were judged with it: what of its own is unknown, ends, is another host's, or later than known."""
    def unit(connection: sa.Connection) -> None:
        fill(connection, 4)  # a0 on h0, a1 on h1, ...
        connection.execute(sa.update(allocations).where(allocations.c.id == "a1").values(state="ending"))
        connection.execute(sa.update(servers).where(servers.c.id == "s3").values(created_at=NOW, epoch=7))

    await two.db.run(unit)

    def held(n: int, epoch: int = 1) -> Held:
        return Held(allocation=f"a{n}", server_id=f"s{n}", epoch=epoch)

    has = [(held(0), held(9)), (held(1),), (held(0),), (held(3, epoch=8),), ()]
    found = await asyncio.gather(*(two.one.conductor._deps.ledger.audit(f"h{n}", each) for n, each in enumerate(has)))
    assert [each.unknown for each in found] == [("a9",), (), ("a0",), (), ()]
    assert [[a.id for a in each.ending] for each in found] == [[], ["a1"], [], [], []]
    assert [each.later for each in found] == [(), (), (), ("a3",), ()]


async def test_a_host_that_moved_has_nothing_to_say_that_it_did_not_say(two: Two) -> None:
    for control in (two.one, two.two):
        await two.greet(control, two.beats(3))
        for each in (two.one, two.two):
            await each.base.changes.look()
    assert [sorted(c.conductor.sessions()) for c in (two.one, two.two)] == [["h0", "h1", "h2"]] * 2
    await two.one.base.processes.remove("node", "h1")
    for each in (two.one, two.two):
        await each.base.changes.look()
    assert [sorted(c.conductor.sessions()) for c in (two.one, two.two)] == [["h0", "h2"]] * 2


def test_agents_rows_are_refreshed_once_for_all_controls(tmp_path: Path) -> None:
    async def story() -> None:
        two = Two(tmp_path)
        for control in (two.one, two.two):
            await two.greet(control, two.beats(MANY))
        with two.counted() as cost:
            for _ in range(30):  # five minutes
                await asyncio.sleep(10)
                for control in (two.one, two.two):
                    await two.say(control, two.beats(MANY))
        assert 8 <= cost.writes <= 12, cost
        ages = await two.db.read(lambda c: c.execute(sa.text(
            "select count(distinct host), min(heartbeat_at) from network_agents")).one())
        assert ages[0] == MANY
        await two.db.close()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(story())


def test_hosts_that_start_or_come_back_at_once_do_not_all_speak_at_once(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = defaultdict[str, list[float]](list)

    def watched(verb: str) -> None:
        real = getattr(ConductorManager, verb)

        async def watch(self: ConductorManager, **word: Any) -> Any:
            said[verb].append(asyncio.get_running_loop().time())
            return await real(self, **word)

        monkeypatch.setattr(ConductorManager, verb, watch)

    def spread(verb: str, seconds: float) -> float:
        """The greatest share of the words that came within one tenth of so many seconds."""
        tenths = Counter(int(moment % seconds * 10 / seconds) for moment in said[verb])
        return max(tenths.values()) / tenths.total()

    async def story(cloud: VirtualCloud) -> None:
        await asyncio.sleep(5)
        said.clear()
        await asyncio.sleep(10)
        assert len(said["beat"]) == 40 and spread("beat", 10) < 0.4
        await cloud.kill("control")
        await asyncio.sleep(120)
        said.clear()
        await cloud.start_control()
        await asyncio.sleep(16)
        assert len(said["hello"]) == 40 and spread("hello", 10) < 0.4

    for verb in ("hello", "beat"):
        watched(verb)
    virtually(tmp_path, story, hosts=40)


async def test_a_word_without_news_takes_few_steps(two: Two) -> None:
    """Counted in calls of our functions, as each control hears some hundred such words a second."""
    await two.greet(two.one, two.beats(MANY))
    await two.say(two.one, two.beats(MANY))
    beats, calls, ours = two.beats(MANY), Counter[str](), str(Path(nacre.__file__).parent)

    def count(frame: Any, event: str, _: Any) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(ours):
            calls[frame.f_code.co_qualname] += 1

    sys.setprofile(count)
    try:
        assert not any(await two.say(two.one, beats))
    finally:
        sys.setprofile(None)
    assert calls.total() <= 50 * MANY, calls.most_common()
