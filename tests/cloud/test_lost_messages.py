"""Messages are only speed: what was committed is accepted whether a message passes or not, a silent host costs nobody
else time, and what a guest may still use is not given to another. Virtual time, every time-out as its default."""

import asyncio
from pathlib import Path

import sqlalchemy as sa

from nacre.base.rpc.memory import Faults as Messages
from nacre.network import tables as network
from tests.cloud.virtual_lab import VirtualCloud, virtually


def test_requests_are_accepted_though_no_message_passes(tmp_path: Path) -> None:
    """More creates, deletes and stops than any queue held: each is answered at once, and done once."""
    async def story(cloud: VirtualCloud) -> None:
        there = await cloud.create(60)
        for server in there:
            await cloud.until(server, "active")
        cloud.hub.faults = Messages(drop=1.0)
        begin = cloud.clock.monotonic()
        made = [(await cloud.create())[0] for _ in range(300)]
        for server in there[:20]:
            await cloud.act(server, "delete")
        for server in there[20:40]:
            await cloud.act(server, "stop")
        for server in made[:50]:
            await cloud.act(server, "delete")
        assert cloud.clock.monotonic() - begin < 1
        await asyncio.sleep(20)
        cloud.hub.faults = Messages()
        for server in (*there[:20], *made[:50]):
            await cloud.until(server, "deleted", seconds=120)
        for server in there[20:40]:
            await cloud.until(server, "stopped", seconds=120)
        for server in made[50:]:
            row = await cloud.until(server, "active", "error", seconds=120)
            assert row.vm_state == "active", row.fault
        await asyncio.sleep(10)
        assert await cloud.left() == {"stories": 0, "ending": 0}
        running = {s for host in cloud.faults for s, power in cloud.guests(host).items() if power == "running"}
        assert running == {*there[40:], *made[50:]}

    virtually(tmp_path, story, hosts=10, NACRE_FAKE_MEMORY_MB="65536", NACRE_FAKE_VCPUS="128")


def test_silent_hosts_hold_up_nobody_else(tmp_path: Path) -> None:
    """Nine of ten hosts fall silent with servers to be ended: the tenth's ends, builds and sweeps take their usual
    time, whether the others count as down already or not."""
    async def story(cloud: VirtualCloud) -> None:
        servers = [(await cloud.create(scheduler_host=f"host{n % 10}"))[0] for n in range(60)]
        for server in servers:
            await cloud.until(server, "active")
        cloud.hub.cut = {f"host{n}" for n in range(1, 10)}

        async def usual() -> None:
            begin = cloud.clock.monotonic()
            mine = servers.pop(0)
            (new,) = await cloud.create(scheduler_host="host0")
            await cloud.act(mine, "delete")
            await cloud.until(mine, "deleted")
            await cloud.until(new, "active")
            assert cloud.clock.monotonic() - begin < 2
            servers[:] = [server for server in servers if server != mine]

        mine = [server for n, server in enumerate(servers) if n % 10 == 0]
        theirs = [server for n, server in enumerate(servers) if n % 10]
        servers[:] = mine
        for server in theirs:
            await cloud.act(server, "delete")
        await usual()
        await asyncio.sleep(30)
        await usual()
        for server in theirs:  # gone for their users, once their hosts count as down
            await cloud.until(server, "deleted", seconds=90)
        await usual()
        await asyncio.sleep(100)
        await usual()
        # What host0 must yet confirm is confirmed though the sweep has 54 of the others' before it.
        cloud.faults["host0"].fail["destroy"] = 3
        await cloud.act(servers[0], "delete")
        await cloud.until(servers.pop(0), "deleted", seconds=30)
        await asyncio.sleep(30)
        assert (await cloud.left())["ending"] == len(theirs)
        cloud.hub.cut = set()
        await asyncio.sleep(40)
        assert await cloud.left() == {"stories": 0, "ending": 0}
        assert not any(cloud.guests(f"host{n}") for n in range(1, 10))

    virtually(tmp_path, story, hosts=10)


def test_an_address_is_not_given_back_while_the_guest_may_use_it(tmp_path: Path) -> None:
    """A subnet of two addresses: the gateway's, and one."""
    async def addresses(cloud: VirtualCloud) -> list[str]:
        return await cloud.db.read(lambda c: list(c.execute(sa.select(network.addresses.c.ip_address)).scalars()))

    async def story(cloud: VirtualCloud) -> None:
        await cloud.make_network("192.0.2.0/30")
        (first,) = await cloud.create()
        await cloud.until(first, "active")
        assert await addresses(cloud) == ["192.0.2.2"]
        (held,) = [host for host in cloud.faults if cloud.guests(host)]
        cloud.hub.cut.add(held)
        await cloud.act(first, "delete")
        await cloud.until(first, "deleted", seconds=120)
        for _ in range(3):
            (second,) = await cloud.create()
            row = await cloud.until(second, "error", seconds=120)
            assert row.fault is not None and "addresses" in row.fault.message, row.fault
            assert await addresses(cloud) == ["192.0.2.2"] and cloud.guests(held) == {first: "running"}
            await asyncio.sleep(300)
        cloud.hub.cut.clear()
        await asyncio.sleep(30)
        assert await addresses(cloud) == [] and cloud.guests(held) == {}
        (third,) = await cloud.create()
        await cloud.until(third, "active")
        assert await addresses(cloud) == ["192.0.2.2"]

    virtually(tmp_path, story, hosts=2)
