"""What a transport promises, held against the network's and the simulated one alike."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Protocol

import msgspec
import pytest

from nacre.base.errors import BadRequest, Conflict, Forbidden, NacreError, NotFound, Unavailable
from nacre.base.rpc.codec import Request, latest, verbs
from nacre.base.rpc.keys import load_keys, new_keys
from nacre.base.rpc.link import Limits, UnknownKey
from nacre.base.rpc.memory import Faults, MemoryHub, MemoryTransport
from nacre.base.rpc.server import Peer, peer
from nacre.base.rpc.stub import stub
from nacre.base.rpc.target import Target
from nacre.base.rpc.zmq import ZmqTransport

TARGET = Target(topic="control", namespace="shelf", version="1.1")


class Report(msgspec.Struct, frozen=True):
    host: str
    load: float


class Shelf(Protocol):
    async def put(self, name: str, sizes: tuple[int, ...] = ()) -> dict[str, int]: ...
    async def fail(self, how: str) -> None: ...
    async def who(self) -> tuple[str, str]: ...
    async def slow(self, seconds: float) -> int: ...
    @latest
    async def report(self, report: Report) -> None: ...
    async def poke(self, number: int) -> None: ...


class RealShelf:
    def __init__(self) -> None:
        self.poked: list[int] = []
        self.calls = 0

    async def put(self, name: str, sizes: tuple[int, ...] = ()) -> dict[str, int]:
        self.calls += 1
        return {name: sum(sizes)}

    async def fail(self, how: str) -> None:
        raise Conflict("already there", field="name", type="ShelfFull") if how == "known" else KeyError("secret-detail")

    async def who(self) -> tuple[str, str]:
        sender = peer()
        assert sender is not None
        return sender.name, sender.role

    async def slow(self, seconds: float) -> int:
        await asyncio.sleep(seconds)
        return 1

    async def report(self, report: Report) -> None:
        return None

    async def poke(self, number: int) -> None:
        self.poked.append(number)


class World:
    """A control process that serves the shelf, and a way to add peers."""

    def __init__(self, shelf: RealShelf, add: Callable[[Peer], Awaitable[Any]], server: Any):
        self.shelf, self.add, self.server = shelf, add, server

    async def ask(self, name: str = "host-1", role: str = "node", **how: Any) -> Shelf:
        transport = await self.add(Peer(name, role))
        return stub(Shelf, transport.client(TARGET).prepare(**how))


@pytest.fixture(params=["memory", "zmq"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    shelf, made = RealShelf(), []
    if request.param == "memory":
        hub = MemoryHub()
        server: Any = MemoryTransport(hub, me=Peer("control", "control"))

        async def add(who: Peer) -> Any:
            made.append(MemoryTransport(hub, me=who))
            return made[-1]
    else:
        keys = new_keys()
        server = ZmqTransport(Peer("control", "control"), keys, "tcp://127.0.0.1:0")
        await server.start()

        async def add(who: Peer) -> Any:
            own = new_keys()
            server.directory.register(own.public, who)
            made.append(ZmqTransport(who, own))
            made[-1].directory.route("control", "control", server.address, keys.public)
            return made[-1]
    server.serve(TARGET, shelf, Shelf, {**dict.fromkeys(verbs(Shelf), ("node", "control")), "slow": ("control",)})
    yield World(shelf, add, server)
    for transport in (*made, server):
        await transport.close()


async def test_a_call_brings_its_result(world: World) -> None:
    shelf = await world.ask()
    assert await shelf.put("a", sizes=(1, 2)) == {"a": 3}
    assert await shelf.put("b") == {"b": 0}


async def test_an_error_is_raised_where_the_call_was_made(world: World) -> None:
    shelf = await world.ask()
    with pytest.raises(Conflict) as error:
        await shelf.fail("known")
    assert (error.value.message, error.value.field, error.value.type) == ("already there", "name", "ShelfFull")


async def test_an_unexpected_error_tells_no_detail(world: World) -> None:
    with pytest.raises(NacreError) as error:
        await (await world.ask()).fail("unknown")
    assert "secret-detail" not in error.value.message


async def test_the_sender_is_known_and_may_do_only_what_its_role_may(world: World) -> None:
    shelf = await world.ask("host-9")
    assert await shelf.who() == ("host-9", "node")
    with pytest.raises(Forbidden, match="node"):
        await shelf.slow(0)
    assert await (await world.ask("api-1", "control")).slow(0) == 1


async def test_a_node_speaks_only_for_itself(world: World) -> None:
    shelf = await world.ask("host-1")
    await shelf.report(Report("host-1", 0.5))
    with pytest.raises(Forbidden, match="host-2"):
        await shelf.report(Report("host-2", 0.5))


async def test_every_call_is_run_once(world: World) -> None:
    shelf = await world.ask()
    await asyncio.gather(*(shelf.poke(number) for number in range(20)))
    assert sorted(world.shelf.poked) == list(range(20))


async def test_silence_is_unavailable(world: World) -> None:
    shelf = await world.ask("api-1", "control", timeout=0.1)
    with pytest.raises(Unavailable, match=r"0\.1 s"):
        await shelf.slow(2)
    assert await shelf.put("still", (1,)) == {"still": 1}


async def test_nobody_is_unavailable_at_once(world: World) -> None:
    transport = await world.add(Peer("host-1", "node"))
    client = transport.client(Target(topic="node", namespace="node", server="nowhere"))
    with pytest.raises(Unavailable, match="nowhere"):
        await stub(Shelf, client).put("a")


async def test_versions(world: World) -> None:
    assert await (await world.ask(version="1.0")).put("old") == {"old": 0}
    for version in ("1.2", "2.0"):
        with pytest.raises(NotFound, match=version):
            await (await world.ask(version=version)).put("new")


async def test_a_process_asks_itself_through_the_same_codec(world: World) -> None:
    shelf = stub(Shelf, world.server.client(TARGET))
    assert await shelf.who() == ("control", "control")
    await shelf.poke(1)
    with pytest.raises(BadRequest):
        await shelf.put(3)  # type: ignore[arg-type]


async def test_many_at_once(world: World) -> None:
    shelf = await world.ask()
    answers = await asyncio.gather(*(shelf.put(str(n), (n,)) for n in range(200)))
    assert answers == [{str(n): n} for n in range(200)]


async def test_a_replayed_message_runs_nothing(world: World) -> None:
    transport = await world.add(Peer("host-1", "node"))
    client = transport.client(TARGET)
    args = msgspec.Raw(verbs(Shelf)["put"].pack("a"))
    request = Request(b"0123456789abcdef", "shelf", "1.1", "put", args)
    await client.sender.ask(TARGET, request, 2)
    with contextlib.suppress(Unavailable):  # the same answer again, or none
        await client.sender.ask(TARGET, request, 0.2)
    assert world.shelf.calls == 1


def test_an_endpoint_that_lacks_a_verb_is_not_served() -> None:
    with pytest.raises(TypeError, match="poke"):
        MemoryTransport().serve(TARGET, object(), Shelf)


async def test_an_unknown_key_runs_nothing() -> None:
    shelf, keys = RealShelf(), new_keys()
    server = ZmqTransport(Peer("control", "control"), keys, "tcp://127.0.0.1:0")
    server.serve(TARGET, shelf, Shelf)
    await server.start()
    stranger, own = ZmqTransport(Peer("control", "control"), key := new_keys()), Peer("host-1", "node")
    stranger.directory.route("control", "control", server.address, keys.public)
    asking = stub(Shelf, stranger.client(TARGET).prepare(timeout=0.3))
    for _ in range(2):
        async with asyncio.timeout(5):
            with pytest.raises(UnknownKey):
                await stub(Shelf, stranger.client(TARGET).prepare(timeout=60)).put("a")
    assert shelf.calls == 0
    server.directory.register(key.public, own)
    patient = stub(Shelf, stranger.client(TARGET).prepare(timeout=5))
    assert await patient.who() == ("host-1", "node"), "the name comes from the key, not from the sender"
    server.directory.revoke(key.public)
    with pytest.raises(Unavailable):
        await asking.put("a")
    await stranger.close()
    await server.close()


async def test_a_call_survives_the_death_of_the_process_that_was_asked() -> None:
    keys, own = new_keys(), new_keys()

    async def serve(address: str) -> tuple[ZmqTransport, RealShelf]:
        server, shelf = ZmqTransport(Peer("control", "control"), keys, address), RealShelf()
        server.serve(TARGET, shelf, Shelf)
        server.directory.register(own.public, Peer("host-1", "node"))
        await server.start()
        return server, shelf

    first, _ = await serve("tcp://127.0.0.1:0")
    client = ZmqTransport(Peer("host-1", "node"), own)
    client.directory.route("control", "control", first.address, keys.public)
    shelf = stub(Shelf, client.client(TARGET).prepare(timeout=10))
    assert await shelf.put("a", (1,)) == {"a": 1}
    lost = asyncio.create_task(shelf.slow(0.5))
    await asyncio.sleep(0.1)
    await first.close()
    second, _ = await serve(first.address)
    assert await lost == 1
    await client.close()
    await second.close()


async def test_a_message_over_the_limit_is_cut_off() -> None:
    shelf, keys, own = RealShelf(), new_keys(), new_keys()
    server = ZmqTransport(Peer("control", "control"), keys, "tcp://127.0.0.1:0", Limits(message=1000))
    server.serve(TARGET, shelf, Shelf)
    server.directory.register(own.public, Peer("host-1", "node"))
    await server.start()
    client = ZmqTransport(Peer("host-1", "node"), own)
    client.directory.route("control", "control", server.address, keys.public)
    with pytest.raises(Unavailable):
        await stub(Shelf, client.client(TARGET).prepare(timeout=0.3)).put("x" * 5000)
    assert shelf.calls == 0
    await client.close()
    await server.close()


async def test_a_full_queue_says_so() -> None:
    own, nobody = new_keys(), new_keys()
    client = ZmqTransport(Peer("host-1", "node"), own, limits=Limits(queue=5))
    client.directory.route("control", "control", "tcp://127.0.0.1:9", nobody.public)
    shelf = stub(Shelf, client.client(TARGET).prepare(timeout=0.2))
    results = await asyncio.gather(*(shelf.put("a") for _ in range(10)), return_exceptions=True)
    assert any("full" in str(r) for r in results) and all(isinstance(r, Unavailable) for r in results)
    await client.close()


async def test_a_network_that_doubles_and_reorders_runs_every_call_once() -> None:
    hub = MemoryHub(faults=Faults(double=0.3, reorder=0.3, delay=(0.0, 0.002)), seed=7)
    server, shelf = MemoryTransport(hub), RealShelf()
    server.serve(TARGET, shelf, Shelf)
    asking = stub(Shelf, MemoryTransport(hub, me=Peer("host-1", "node")).client(TARGET))
    await asyncio.gather(*(asking.poke(number) for number in range(30)))
    await asyncio.sleep(0.05)
    assert sorted(shelf.poked) == list(range(30))
    assert shelf.poked != sorted(shelf.poked)


async def test_a_network_that_loses_all_is_unavailable() -> None:
    hub = MemoryHub(faults=Faults(drop=1.0))
    server, shelf = MemoryTransport(hub), RealShelf()
    server.serve(TARGET, shelf, Shelf)
    asking = MemoryTransport(hub, me=Peer("host-1", "node")).client(TARGET).prepare(timeout=0.05)
    with pytest.raises(Unavailable):
        await stub(Shelf, asking).poke(1)
    assert shelf.poked == []


def test_keys_are_kept_and_kept_secret(tmp_path: Any) -> None:
    path = tmp_path / "keys" / "control.json"
    made = load_keys(path)
    assert load_keys(path) == made and path.stat().st_mode & 0o777 == 0o600
    assert made.secret not in repr(made)
    path.chmod(0o644)
    with pytest.raises(NacreError, match="chmod 600"):
        load_keys(path)


async def test_a_busy_process_says_so_at_once() -> None:
    shelf, keys, own = RealShelf(), new_keys(), new_keys()
    server = ZmqTransport(Peer("control", "control"), keys, "tcp://127.0.0.1:0", Limits(running=1))
    server.serve(TARGET, shelf, Shelf)
    server.directory.register(own.public, Peer("host-1", "node"))
    await server.start()
    client = ZmqTransport(Peer("host-1", "node"), own)
    client.directory.route("control", "control", server.address, keys.public)
    asked = stub(Shelf, client.client(TARGET))
    try:
        slow = asyncio.create_task(asked.slow(0.4))
        await asyncio.sleep(0.1)
        with pytest.raises(Unavailable, match="busy with 1 requests"):
            await asked.poke(7)
        assert shelf.poked == []
        assert await slow == 1
        await asked.poke(7)
        assert shelf.poked == [7]
    finally:
        await client.close()
        await server.close()


async def of_two_hosts(limits: Limits, shelf: RealShelf) -> tuple[ZmqTransport, list[ZmqTransport], list[Shelf]]:
    """A control process, two hosts' transports, and their ways to it."""
    keys, owns = new_keys(), (new_keys(), new_keys())
    server = ZmqTransport(Peer("control", "control"), keys, "tcp://127.0.0.1:0", limits)
    server.serve(TARGET, shelf, Shelf)
    clients = [ZmqTransport(Peer(f"host-{n}", "node"), own) for n, own in enumerate(owns)]
    await server.start()
    for client in clients:
        server.directory.register(client.public_key, client.me)
        client.directory.route("control", "control", server.address, server.public_key)
    return server, clients, [stub(Shelf, client.client(TARGET)) for client in clients]


class Counting(RealShelf):
    """Knows how many are at work."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.heard: list[float] = []

    async def slow(self, seconds: float) -> int:
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(seconds)
        self.now -= 1
        return 1

    async def report(self, report: Report) -> None:
        await self.slow(0.1)
        self.heard.append(report.load)


async def test_one_host_does_not_keep_a_process_busy_for_the_others() -> None:
    shelf = Counting()
    server, clients, (one, other) = await of_two_hosts(Limits(of_one=3, waiting=4), shelf)
    try:
        burst = await asyncio.gather(*(one.slow(0.3) for _ in range(10)), other.slow(0.1), return_exceptions=True)
        refused = [answer for answer in burst if isinstance(answer, Unavailable)]
        assert len(refused) == 3 and "requests of host-0" in refused[0].message and burst[-1] == 1
        assert shelf.most == 4, "those that wait are run as others are done"
        assert await one.slow(0.0) == 1 and not len(server._turns)
    finally:
        for transport in (*clients, server):
            await transport.close()


async def test_what_waits_for_one_host_is_small() -> None:
    server, clients, (one, _) = await of_two_hosts(Limits(of_one=1, held=100_000), RealShelf())
    try:
        slow = asyncio.create_task(one.slow(0.3))
        await asyncio.sleep(0.1)
        big = await asyncio.gather(*(one.put("x" * 30_000) for _ in range(5)), return_exceptions=True)
        assert sum(isinstance(answer, Unavailable) for answer in big) == 2 and await slow == 1
    finally:
        for transport in (*clients, server):
            await transport.close()


async def test_of_what_a_host_says_of_itself_only_the_last_waits() -> None:
    shelf = Counting()
    server, clients, (one, other) = await of_two_hosts(Limits(of_one=1), shelf)
    try:
        busy = asyncio.create_task(one.slow(2.0))  # what else it does holds its reports up in nothing
        said = await asyncio.gather(*(one.report(Report("host-0", float(n))) for n in range(6)),
                                    other.report(Report("host-1", 9.0)), return_exceptions=True)
        assert sorted(shelf.heard[:2]) == [0.0, 9.0] and shelf.heard[2:] == [5.0] and not busy.done()
        assert sum(isinstance(answer, Unavailable) and "took its place" in answer.message for answer in said) == 4
        await one.report(Report("host-0", 7.0))
        assert shelf.heard[-1] == 7.0 and await busy == 1 and not len(server._turns)
    finally:
        for transport in (*clients, server):
            await transport.close()


async def test_what_waits_for_a_host_that_is_shut_out_is_not_run() -> None:
    shelf = RealShelf()
    server, clients, (one, _) = await of_two_hosts(Limits(of_one=1), shelf)
    try:
        slow = asyncio.create_task(one.slow(0.4))
        await asyncio.sleep(0.1)
        waiting = asyncio.create_task(one.put("a"))
        await asyncio.sleep(0.1)
        server.directory.revoke(clients[0].public_key)
        assert await slow == 1
        with pytest.raises(Forbidden):
            await waiting
        assert shelf.calls == 0 and not len(server._turns)
    finally:
        for transport in (*clients, server):
            await transport.close()


async def test_what_a_control_process_is_sent_is_small() -> None:
    server, clients, (one, other) = await of_two_hosts(Limits(request=100_000), RealShelf())
    try:
        assert await one.put("x" * 90_000)
        with pytest.raises(Unavailable):
            await stub(Shelf, clients[0].client(TARGET).prepare(timeout=0.5)).put("x" * 110_000)
        assert await other.put("a") == {"a": 0}
    finally:
        for transport in (*clients, server):
            await transport.close()


async def test_a_call_that_any_may_answer_goes_on_when_one_is_silent() -> None:
    """As a control process that is frozen: its connection is there, and nothing comes."""
    shelves, servers, own = (RealShelf(), RealShelf()), list[ZmqTransport](), new_keys()
    client = ZmqTransport(Peer("host-1", "node"), own, limits=Limits(silence=0.2))
    asked = stub(Shelf, client.client(TARGET).prepare(timeout=5))
    try:
        for n, shelf in enumerate(shelves):
            servers.append(ZmqTransport(Peer(f"control-{n}", "control"), new_keys(), "tcp://127.0.0.1:0"))
            servers[n].serve(TARGET, shelf, Shelf)
            servers[n].directory.register(own.public, Peer("host-1", "node"))
            await servers[n].start()
            client.directory.route("control", f"control-{n}", servers[n].address, servers[n].public_key)
        for n in range(2):
            await stub(Shelf, client.client(TARGET).prepare(server=f"control-{n}")).who()

        async def never(name: str, sizes: tuple[int, ...] = ()) -> dict[str, int]:
            await asyncio.sleep(60)
            return {}

        shelves[0].put = never  # type: ignore[method-assign]
        took = []
        for _ in range(6):
            begin = asyncio.get_running_loop().time()
            assert await asked.put("a", sizes=(1, 2)) == {"a": 3}
            took.append(asyncio.get_running_loop().time() - begin)
        assert max(took) < 1.0
        assert sum(seconds > 0.15 for seconds in took) == 1  # it is asked last from then on
        assert await stub(Shelf, client.client(TARGET).prepare(server="control-0")).who()
        assert not any(link.silent for link in client._links.values())  # it was heard again
    finally:
        for transport in (client, *servers):
            await transport.close()
