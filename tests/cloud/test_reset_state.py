"""An administrator's word about a server's state: what goes on about it is over, nothing is left of it, and its host's
word about its guest counts as before."""

import asyncio
from pathlib import Path

import pytest

from nacre.base.errors import Conflict
from nacre.base.rpc.memory import Faults as Messages
from tests.cloud.test_delete_in_build import SLOW, STEP, TIMES
from tests.cloud.virtual_lab import WHO, VirtualCloud, virtually


async def reset(cloud: VirtualCloud, server: str, state: str) -> None:
    await cloud.control.servers.reset(WHO, await cloud.control.servers.get(server), state)


def test_a_build_is_ended_at_any_moment(tmp_path: Path) -> None:
    async def story(cloud: VirtualCloud) -> None:
        cloud.hub.faults = Messages(delay=(0.002, 0.02))
        for faults in cloud.faults.values():
            faults.delay.update(SLOW)
        for n in range(0, TIMES, 3):
            (server,) = await cloud.create()
            await asyncio.sleep(n * STEP)
            was = (await cloud.row(server)).vm_state
            if was == "building":
                with pytest.raises(Conflict, match="Cannot 'resetState'"):
                    await reset(cloud, server, "active")
            await reset(cloud, server, "error")
            await asyncio.sleep(8)
            row = await cloud.row(server)
            assert (row.vm_state, row.task_state) == ("error", None), n
            left = 1 if was == "active" else 0  # one that was built runs on
            assert sum(len(cloud.guests(host)) for host in cloud.faults) == left, n
            assert await cloud.left() == {"stories": 0, "ending": 0}, n
            if was == "building":
                assert row.fault is not None and row.fault.message == "An administrator ended its build."
            else:
                await reset(cloud, server, "active")
                assert (await cloud.row(server)).power_state == "running"
            await cloud.act(server, "delete")
            await cloud.until(server, "deleted", seconds=30)

    virtually(tmp_path, story, hosts=2)


def test_an_order_that_is_under_way_ends_nothing_that_came_later(tmp_path: Path) -> None:
    async def story(cloud: VirtualCloud) -> None:
        (server,) = await cloud.create()
        await cloud.until(server, "active")
        cloud.faults["host0"].delay["shutdown"] = 20.0
        await cloud.act(server, "stop")
        await asyncio.sleep(1)
        await reset(cloud, server, "active")
        row = await cloud.row(server)
        assert (row.vm_state, row.task_state, row.power_state) == ("active", None, "running")
        await cloud.act(server, "stop")  # waits for its turn behind the first
        await asyncio.sleep(1)
        assert (await cloud.row(server)).task_state == "powering-off"
        row = await cloud.until(server, "stopped", seconds=90)
        assert row.power_state == "shutdown" and row.fault is None
        await asyncio.sleep(10)
        assert await cloud.left() == {"stories": 0, "ending": 0}

    virtually(tmp_path, story)


def test_a_hosts_word_counts_as_before(tmp_path: Path) -> None:
    """What an administrator calls active, and is off, is stopped as soon as its host is heard of it."""
    async def story(cloud: VirtualCloud) -> None:
        (server,) = await cloud.create()
        await cloud.until(server, "active")
        await cloud.act(server, "stop")
        await cloud.until(server, "stopped")
        await reset(cloud, server, "active")
        assert (await cloud.row(server)).vm_state == "active"
        await cloud.until(server, "stopped", seconds=1200)
        await reset(cloud, server, "error")
        await asyncio.sleep(1200)
        assert (await cloud.row(server)).vm_state == "error"
        await cloud.act(server, "reboot-hard")
        assert (await cloud.until(server, "active")).power_state == "running"

    virtually(tmp_path, story)


def test_what_is_being_deleted_goes(tmp_path: Path) -> None:
    async def story(cloud: VirtualCloud) -> None:
        (server,) = await cloud.create()
        await cloud.until(server, "active")
        cloud.faults["host0"].delay["destroy"] = 5.0
        await cloud.act(server, "delete")
        with pytest.raises(Conflict, match="while it is in task_state deleting"):
            await reset(cloud, server, "error")
        await cloud.until(server, "deleted", seconds=60)

    virtually(tmp_path, story)
