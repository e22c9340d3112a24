"""A host whose cloud's database is put back to a backup: what a lost history had it wire goes within seconds, and what
it must not lose stays."""

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

from nacre.base.context import Context
from nacre.network.contract import PortsOrder
from nacre.node.ovs.fake import FakeWiring
from tests.cloud.virtual_lab import VirtualCloud, virtually

WHO = Context(request_id="r", user_id="u", project_id="p", roles=("member", "reader"))
#: Virtual seconds in which a beat of a host is answered, and what it asks for then.
SOON = 20.0


def copied(cloud: VirtualCloud, other: sqlite3.Connection, *, back: bool = False) -> sqlite3.Connection:
    with cloud.db.engine.connect() as connection:
        raw: Any = connection.connection.dbapi_connection
        other.backup(raw) if back else raw.backup(other)
    return other


async def put_back(cloud: VirtualCloud, backup: sqlite3.Connection) -> None:
    await cloud.kill("control")
    copied(cloud, backup, back=True)
    await cloud.start_control()


def wiring(cloud: VirtualCloud, host: str = "host0") -> FakeWiring:
    here = cloud._services[host].here.wiring
    assert isinstance(here, FakeWiring)
    return here


def wired(cloud: VirtualCloud) -> dict[str, str]:
    """Port -> device, of what the host would have on its bridge."""
    return {port.id: port.device_id for port in wiring(cloud).client.desired.ports.values()}


async def plugged(cloud: VirtualCloud, server: str) -> str:
    """A port that is bound at the host; the host has heard of it, and asks no more."""
    found = await cloud.control.network.plug(
        PortsOrder(server_id=server, context=WHO, requests=cloud.networks), "host0")
    while found.ports[0].id not in wired(cloud):
        await wiring(cloud).wire(found.ports, found.networks)
    await asyncio.sleep(SOON)
    await wiring(cloud).wire(found.ports, found.networks)
    return found.ports[0].id


async def gone(cloud: VirtualCloud, port: str) -> None:
    async with asyncio.timeout(SOON):
        while port in wired(cloud):
            await asyncio.sleep(0.1)


def test_what_only_a_lost_history_had_a_host_wire_goes_with_the_next_beat(tmp_path: Path) -> None:
    async def story(cloud: VirtualCloud) -> None:
        await cloud.make_network("10.0.0.0/24")
        [kept] = await cloud.create()
        await cloud.until(kept, "active")
        backup = copied(cloud, sqlite3.connect(":memory:"))
        lost = await plugged(cloud, "lost")
        await put_back(cloud, backup)
        await gone(cloud, lost)
        assert not cloud._services["host0"].here.barred
        assert set(wired(cloud).values()) == {kept}

    virtually(tmp_path, story)


def test_a_guest_that_the_database_lost_keeps_its_wiring_and_what_was_no_guests_goes_once_an_operator_decided(
        tmp_path: Path) -> None:
    async def story(cloud: VirtualCloud) -> None:
        await cloud.make_network("10.0.0.0/24")
        backup = copied(cloud, sqlite3.connect(":memory:"))
        [late] = await cloud.create()
        await cloud.until(late, "active")
        lost = await plugged(cloud, "lost")
        await put_back(cloud, backup)
        wiring(cloud).client.whole = True
        assert await wiring(cloud).client.ask()  # as it does now and then: here before anybody has told it of the loss
        for _ in range(int(SOON)):
            await asyncio.sleep(1)
            assert set(wired(cloud).values()) == {late, "lost"}
        assert cloud._services["host0"].here.barred
        await cloud.control.registry.accept("host0")
        await gone(cloud, lost)
        assert set(wired(cloud).values()) == {late}

    virtually(tmp_path, story)


def test_a_control_process_that_goes_on_does_not_speak_of_changes_that_were_lost(tmp_path: Path) -> None:
    """The host would ask for everything after each beat, until the database has come as far again."""
    async def story(cloud: VirtualCloud) -> None:
        await cloud.make_network("10.0.0.0/24")
        backup = copied(cloud, sqlite3.connect(":memory:"))
        for n in range(5):  # so far the database does not come again here
            await cloud.control.network.plug(
                PortsOrder(server_id=f"other{n}", context=WHO, requests=cloud.networks), "host0")
        lost = await plugged(cloud, "lost")
        copied(cloud, backup, back=True)
        await gone(cloud, lost)
        await asyncio.sleep(SOON)
        heard, wholes = wiring(cloud).client, list[bool]()
        ask = heard.ask

        async def counted() -> bool:
            wholes.append(await ask())
            return wholes[-1]

        heard.ask = counted  # type: ignore[method-assign]
        await asyncio.sleep(2 * SOON)
        assert wholes == []

    virtually(tmp_path, story)
