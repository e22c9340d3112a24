"""A host that was removed: its key opens nothing on any control, on connections that it has neither; what it goes on
saying brings nothing back; under its name a host may join again. Two controls and a host over real CURVE sockets."""

import asyncio
import contextlib
import shutil
import time
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import pytest
import sqlalchemy as sa

from nacre.base.db import Database
from nacre.base.durable.processes import Process
from nacre.base.errors import BadRequest, Forbidden, Unavailable
from nacre.base.rpc.keys import KeyPair, new_keys
from nacre.base.rpc.server import Peer
from nacre.base.rpc.stub import stub
from nacre.base.rpc.zmq import ZmqTransport
from nacre.cli.bootstrap import first_rows
from nacre.cloud.control import Control, build_control
from nacre.cloud.introductions import Introductions
from nacre.cloud.node import build_node
from nacre.compute.tables import allocations
from nacre.conductor.contract import TARGET as CONDUCTOR
from nacre.conductor.contract import Beat, Conductor, NodeHello
from nacre.config import load
from nacre.network.contract import AgentReport
from nacre.network.tables import agents
from nacre.scheduler.contract import HostReport
from nacre.scheduler.tables import compute_hosts
from tests import schema
from tests.stories.whole_cloud import WholeCloud

pytestmark = pytest.mark.timeout(120)
HOST = "leaves"
REPORT: dict[str, Any] = {"hypervisor_type": "fake", "hypervisor_version": 1, "vcpus": 1, "memory_mb": 1, "disk_gb": 1,
                          "vcpus_used": 0, "memory_mb_used": 0, "disk_gb_used": 0.0}


class TwoControls:
    """Two controls over one database, each with its own sockets."""

    def __init__(self, folder: Path):
        self.folder, self.url = folder, schema.in_file(folder / "nacre.db")
        self.controls: list[Control] = []
        self.transports: list[ZmqTransport] = []
        self.cloud: WholeCloud

    @contextlib.asynccontextmanager
    async def control(self, name: str) -> AsyncIterator[None]:
        folder = self.folder / name
        (folder / "control").mkdir(parents=True, mode=0o700)
        if self.controls:  # they share what opens the keys
            for file in ("seal-key", "passwords.json"):
                shutil.copy(self.folder / "one" / "control" / file, folder / "control" / file)
        settings = load(folder, environ={"NACRE_IDENTITY_ARGON2": "1,64", "NACRE_HYPERVISOR": "fake",
                                         "NACRE_DATABASE_URL": self.url, "NACRE_RPC_NAME": name})
        transport = ZmqTransport(Peer(name, "control"), new_keys(), "tcp://127.0.0.1:0")
        db = Database(self.url)
        control = build_control(settings, transport, db)
        await control.keys.open()
        await first_rows(control)
        await control.introductions.start()
        await transport.start()
        try:
            async with control.running():
                self.controls.append(control)
                self.transports.append(transport)
                yield
        finally:
            await transport.close()
            await db.close()

    @contextlib.asynccontextmanager
    async def node(self, keys: KeyPair, number: int) -> AsyncIterator[ZmqTransport]:
        """A host of that key, introduced as by a join."""
        first = self.transports[0]
        settings = load(self.folder / f"node{number}", environ={
            "NACRE_HYPERVISOR": "fake", "NACRE_NODE_NAME": HOST, "NACRE_NODE_REPORT_PERIOD": "0.3",
            "NACRE_RPC_CONTROL": first.address, "NACRE_RPC_CONTROL_NAME": first.me.name,
            "NACRE_RPC_CONTROL_KEY": first.public_key})
        transport = ZmqTransport(Peer(HOST, "node"), keys, "tcp://127.0.0.1:0")
        await transport.start()
        await self.controls[0].base.processes.introduce(Process(
            id=f"node:{HOST}", role="node", name=HOST, address=transport.address, public_key=keys.public))
        try:
            async with build_node(settings, transport)():
                yield transport
        finally:
            await transport.close()

    def met(self) -> list[bool]:
        """Whether the host said hello, at each control."""
        return [bool((state := c.registry.states.get(HOST)) and state.met) for c in self.controls]

    async def remove(self, query: str = "") -> tuple[int, str]:
        answer = await self.cloud.ask("admin", "DELETE", "compute", f"/os-nacre-hosts/{HOST}{query}")
        return answer.status_code, answer.text


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[TwoControls]:
    made = TwoControls(tmp_path)
    async with made.control("one"), made.control("two"):
        known = msgspec.json.decode((tmp_path / "one" / "control" / "passwords.json").read_bytes())
        made.cloud = WholeCloud(made.controls[0], known)
        yield made


async def until(check: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end, "not in time"
        await asyncio.sleep(0.02)


def asker(transport: ZmqTransport, control: str) -> Conductor:
    return stub(Conductor, transport.client(CONDUCTOR).prepare(server=control, timeout=0.7))


async def opens(transport: ZmqTransport, control: str) -> bool:
    """Whether that control hears what comes by this transport."""
    try:
        await asker(transport, control).guest_facts(HOST, "none")
    except Unavailable:
        return False
    except Exception:  # it answered: there is no such server
        return True
    return True


async def test_a_removed_hosts_key_opens_nothing_and_its_name_is_free(lab: TwoControls) -> None:
    keys = new_keys()
    async with lab.node(keys, 1) as transport:
        await until(lambda: lab.met() == [True, True], 30)
        assert [await opens(transport, name) for name in ("one", "two")] == [True, True]
        assert (await lab.remove())[0] == 204
        removed = time.monotonic()
        while [await opens(transport, name) for name in ("one", "two")] != [False, False]:
            assert time.monotonic() - removed < 2
        stranger = ZmqTransport(Peer(HOST, "node"), keys)  # the same key on a new connection
        for control in lab.transports:
            stranger.directory.register(control.public_key, control.me)
            stranger.directory.route("control", control.me.name, control.address, control.public_key)
        assert [await opens(stranger, name) for name in ("one", "two")] == [False, False]
        await stranger.close()
        await asyncio.sleep(2)  # it goes on speaking meanwhile
        assert [HOST in c.registry.states for c in lab.controls] == [False, False]
        found = (await lab.cloud.ask("admin", "GET", "compute", "/os-nacre-hosts")).json()
        agents = (await lab.cloud.ask("admin", "GET", "network", f"/agents?host={HOST}")).json()
        assert found == {"hosts": []} and agents == {"agents": []}
        assert (await lab.remove())[0] == 404
    async with lab.node(new_keys(), 2):
        await until(lambda: lab.met() == [True, True], 30)


async def test_a_host_that_says_hello_while_it_is_removed_does_not_come_back(lab: TwoControls) -> None:
    keys = new_keys()
    async with lab.node(keys, 1) as transport:
        await until(lambda: lab.met() == [True, True], 30)
        one, two = lab.controls
        report = msgspec.structs.replace(two.registry.states[HOST].report, n=1 << 30)
        hello = NodeHello(endpoint=transport.address, public_key="", journal="j", cloud="", position=0, beat=Beat(
            report=report, agent=AgentReport(host=HOST, tunnel_ip=None, bridge_mappings={}, tunnel_types=())))
        assert await one.base.processes.remove("node", HOST)
        with pytest.raises((Forbidden, Unavailable)):  # the other has hardly read of it yet
            await asker(transport, "two").hello(hello)
        await asyncio.sleep(1)
        assert not await one.base.processes.all("node")
        assert [await opens(transport, name) for name in ("one", "two")] == [False, False]


async def test_who_reads_late_of_a_removal_gives_no_old_key_the_new_hosts_place(
        lab: TwoControls, monkeypatch: pytest.MonkeyPatch) -> None:
    """A control was frozen while a host was removed and another joined under its name; it thaws, and takes first what
    the old one had said to it."""
    one, two = lab.controls
    read, thawed = two.base.changes.look, asyncio.Event()
    old, new, address = new_keys(), new_keys(), "tcp://192.0.2.9:1"

    async def look() -> None:
        await thawed.wait()
        await read()

    async def known() -> list[tuple[str, str]]:
        return [(node.public_key, node.address) for node in await one.base.processes.all("node")]

    def introduced(keys: KeyPair, address: str) -> Process:
        return Process(id=f"node:{HOST}", role="node", name=HOST, address=address, public_key=keys.public)

    await one.base.processes.introduce(introduced(old, address))
    await two.introductions.reload()
    monkeypatch.setattr(two.base.changes, "look", look)
    await asyncio.sleep(0.3)
    assert await one.base.processes.remove("node", HOST)
    await one.base.processes.introduce(introduced(new, address))
    for says, said in (("", "tcp://127.0.0.1:1"), (old.public, "tcp://127.0.0.1:2")):
        hello = NodeHello(endpoint=said, public_key=says, journal="j", cloud="", position=0, beat=Beat(
            report=HostReport(host=HOST, **REPORT), agent=AgentReport(
                host=HOST, tunnel_ip=None, bridge_mappings={}, tunnel_types=())))
        with pytest.raises(Forbidden):
            await two.introductions.of_node(hello)
        assert await known() == [(new.public, address)]
    thawed.set()
    directory = two.base.transport.directory
    await until(lambda: directory.key_of(Peer(HOST, "node")) == new.public, 5)
    assert old.public not in directory.peers
    with pytest.raises(Forbidden):  # it was on its way through this process meanwhile
        await two.introductions.of_node(hello)
    assert await one.base.processes.renew(introduced(old, "x"), introduced(new, "y"), introduced(old, "z")) == [
        False, True, False] and await known() == [(new.public, "y")]


async def test_a_host_that_has_servers_stays(lab: TwoControls) -> None:
    async with lab.node(new_keys(), 1) as transport:
        await until(lambda: lab.met() == [True, True], 30)
        server, db = str(uuid4()), lab.controls[0].db
        await db.run(lambda c: c.execute(sa.insert(allocations).values(
            id=str(uuid4()), server_id=server, host=HOST, epoch=1, purpose="build", state="held", memory_mb=1, vcpus=1,
            disk_mb=1, created_at=sa.func.current_timestamp())))
        status, said = await lab.remove()
        assert status == 409 and f"{server} (held)" in said
        assert all([await opens(transport, name) for name in ("one", "two")])
        found = (await lab.cloud.ask("admin", "GET", "compute", "/os-services?binary=nova-compute")).json()["services"]
        assert [s["status"] for s in found] == ["enabled"]
        assert (await lab.cloud.ask("admin", "DELETE", "compute", f"/os-services/{found[0]['id']}")).status_code == 409


async def ending(db: Database) -> None:
    """Something of the host that only it can confirm as gone."""
    await db.run(lambda c: c.execute(sa.insert(allocations).values(
        id=str(uuid4()), server_id=str(uuid4()), host=HOST, epoch=1, purpose="build", state="ending", memory_mb=1,
        vcpus=1, disk_mb=1, created_at=sa.func.current_timestamp())))


async def test_a_dead_host_goes_with_what_it_cannot_confirm_any_more(lab: TwoControls) -> None:
    async with lab.node(new_keys(), 1):
        await until(lambda: lab.met() == [True, True], 30)
    db, one = lab.controls[0].db, lab.controls[0]
    await ending(db)
    status, said = await lab.remove("?dead=true")
    assert status == 409 and "counts as alive" in said
    assert (await lab.remove("?dead=perhaps"))[0] == 400
    await one.registry.set_service(HOST, forced_down=True)
    status, said = await lab.remove()
    assert status == 409 and f"nacre host remove {HOST} --dead" in said
    assert (await lab.remove("?dead=true"))[0] == 409  # what an operator calls it kills no host
    await db.run(lambda c: c.execute(sa.update(agents).values(heartbeat_at=datetime(2020, 1, 1))))
    one.network.heartbeats.forget([HOST])
    assert (await lab.remove("?dead=true"))[0] == 409  # nor does that its agent is silent
    await db.run(lambda c: c.execute(sa.update(compute_hosts).values(updated_at=datetime(2020, 1, 1))))
    assert (await lab.remove("?dead=true"))[0] == 204
    assert await one.base.ledger.of(None) == [] and not await one.base.processes.all("node")


@pytest.mark.parametrize("refused", [False, True], ids=["whole", "its agent's report is refused"])
async def test_a_host_that_another_control_hears_is_not_dead(
        lab: TwoControls, monkeypatch: pytest.MonkeyPatch, refused: bool) -> None:
    """The way to this one is cut."""
    async def cut(*_: object) -> None:
        raise Unavailable("cut")

    async def refuse(*_: object) -> None:
        raise BadRequest("its address is another's")

    one, two = lab.controls
    for control in lab.controls if refused else ():
        monkeypatch.setattr(control.network, "agent_report", refuse)
    async with lab.node(new_keys(), 1):
        await until(lambda: lab.met() == [True, True], 30)
        for verb in ("hello", "beat"):
            monkeypatch.setattr(one.conductor, verb, cut)
        monkeypatch.setattr(two.endings, "begin", lambda *_: None)
        monkeypatch.setattr(one.registry, "_down", 0.0)
        await ending(one.db)
        state = await one.registry.get(HOST)
        assert state is not None and not state.up
        await two.registry.records.flush(two.registry.states)
        status, said = await lab.remove("?dead=true")
        assert status == 409 and "heard it lately" in said
        assert [a.state for a in await one.base.ledger.of(None)] == ["ending"]


async def test_a_host_whose_control_was_started_with_its_key_stays_out_once_it_was_removed(lab: TwoControls) -> None:
    old, new = new_keys(), new_keys()

    def started_with(keys: KeyPair) -> Introductions:
        base = lab.controls[0].base
        return Introductions(base.transport, base.processes, base.changes, {
            HOST: f"{keys.public} tcp://127.0.0.1:9", "other": new_keys().public})

    async def nodes() -> dict[str, str]:
        return {node.name: node.public_key for node in await lab.controls[0].base.processes.all("node")}

    await started_with(old).start()
    assert (await nodes())[HOST] == old.public
    assert await lab.controls[0].base.processes.remove("node", HOST)
    for _ in range(2):
        await started_with(old).start()
        assert list(await nodes()) == ["other"]
    await started_with(new).start()  # the operator gave it another key
    assert (await nodes())[HOST] == new.public


async def test_a_host_that_says_it_listens_nowhere_is_refused_and_keeps_its_way(lab: TwoControls) -> None:
    async with lab.node(new_keys(), 1) as transport:
        await until(lambda: lab.met() == [True, True], 30)
        report = msgspec.structs.replace(lab.controls[0].registry.states[HOST].report, n=1 << 30)
        hello = NodeHello(endpoint="nonsense", public_key="", journal="j", cloud="", position=0, beat=Beat(
            report=report, agent=AgentReport(host=HOST, tunnel_ip=None, bridge_mappings={}, tunnel_types=())))
        with pytest.raises(BadRequest, match="no place where a process answers"):
            await asker(transport, "one").hello(hello)
        [node] = await lab.controls[0].base.processes.all("node")
        assert node.address == transport.address


async def test_an_agents_report_that_meets_its_hosts_removal_is_not_written(lab: TwoControls) -> None:
    """Its tunnel address would be its own for ever: no successor could have it."""
    one, two = lab.controls
    report = AgentReport(host=HOST, tunnel_ip="192.0.2.77", bridge_mappings={}, tunnel_types=("vxlan",))
    successor = msgspec.structs.replace(report, host="successor")
    for name in (HOST, "successor"):
        await one.base.processes.introduce(Process(
            id=f"node:{name}", role="node", name=name, public_key=new_keys().public))
    await one.base.processes.remove("node", HOST)
    await one.network.forget_host(HOST)
    await two.network.agent_report(report)  # it has come too late
    await one.network.agent_report(successor)
    found = (await lab.cloud.ask("admin", "GET", "network", "/agents")).json()["agents"]
    assert {agent["host"] for agent in found} == {"successor"}
