"""The times that are shipped fit together: what takes long on a host is waited for, and what is said of it is true.
Virtual time, every time-out as its default."""

import asyncio
from pathlib import Path

import pytest

from nacre.conductor.hosts import Patience
from nacre.node.manager import NodeSettings
from tests.cloud.virtual_lab import VirtualCloud, virtually


@pytest.mark.parametrize("action", ["stop", "reboot-soft"])
def test_a_guest_that_ignores_its_power_button(tmp_path: Path, action: str) -> None:
    """It is cut off when its time is over, and the database says what is."""
    async def story(cloud: VirtualCloud) -> None:
        (server,) = await cloud.create()
        await cloud.until(server, "active")
        cloud.faults["host0"].deaf = True
        begin = cloud.clock.monotonic()
        await cloud.act(server, action)
        wanted, power = ("stopped", "shutdown") if action == "stop" else ("active", "running")
        row = await cloud.until(server, wanted, seconds=300)
        assert NodeSettings(host="").shutdown_timeout <= cloud.clock.monotonic() - begin < 90
        assert (row.fault, row.power_state, cloud.guests("host0")) == (None, power, {server: power})
        await asyncio.sleep(30)  # the beats that follow say the same
        row = await cloud.row(server)
        assert (row.vm_state, row.power_state) == (wanted, power)
        assert await cloud.left() == {"stories": 0, "ending": 0}

    virtually(tmp_path, story)


@pytest.mark.parametrize("seconds", [61, 600, 2400])
def test_an_image_takes_long_to_reach_a_cold_host(tmp_path: Path, seconds: int) -> None:
    async def story(cloud: VirtualCloud) -> None:
        cloud.faults["host0"].fetch = seconds
        begin = cloud.clock.monotonic()
        (server,) = await cloud.create()
        row = await cloud.until(server, "active", "error", seconds=7200)
        assert (row.vm_state, row.epoch) == ("active", 1), row.fault
        assert cloud.clock.monotonic() - begin >= seconds

    virtually(tmp_path, story)


def test_waiting_for_a_place_among_a_hosts_builds_is_not_standing_still(tmp_path: Path) -> None:
    """30 servers, ten at once, each taking nearly as long as work may stand still: the last waits twice as long."""
    async def story(cloud: VirtualCloud) -> None:
        slow = Patience().stalled - 20
        cloud.faults["host0"].delay["prepare"] = slow
        begin = cloud.clock.monotonic()
        servers = await cloud.create(30)
        rows = [await cloud.until(server, "active", "error", seconds=7200) for server in servers]
        assert {(row.vm_state, row.epoch) for row in rows} == {("active", 1)}
        assert cloud.clock.monotonic() - begin >= 3 * slow

    virtually(tmp_path, story)


def test_work_that_stands_still_is_given_up_and_says_so(tmp_path: Path) -> None:
    async def story(cloud: VirtualCloud) -> None:
        cloud.faults["host0"].hang.add("prepare")
        begin = cloud.clock.monotonic()
        (server,) = await cloud.create()
        row = await cloud.until(server, "error", seconds=7200)
        assert row.fault is not None and "stands still" in row.fault.message
        assert Patience().stalled <= cloud.clock.monotonic() - begin < 2 * Patience().stalled
        await asyncio.sleep(30)
        assert await cloud.left() == {"stories": 0, "ending": 0} and cloud.guests("host0") == {}

    virtually(tmp_path, story)


@pytest.mark.parametrize("power_cut", [70, 3600, 3 * 86400])
@pytest.mark.parametrize("host_later", [0, 5, 45])
def test_a_create_that_was_accepted_outlives_a_power_cut(tmp_path: Path, power_cut: int, host_later: int) -> None:
    """The machine goes before a host was found, and its host is back some time after its control."""
    async def story(cloud: VirtualCloud) -> None:
        (stands,) = await cloud.create()
        await cloud.until(stands, "active")
        accepted = await cloud.create(3)
        for name in ("control", "host0"):
            await cloud.kill(name)
        await asyncio.sleep(power_cut)
        await cloud.start_control()
        await asyncio.sleep(host_later)
        await cloud.start_node("host0")
        for server in accepted:
            row = await cloud.until(server, "active", "error", seconds=120)
            assert row.vm_state == "active", row.fault
        assert set(cloud.guests("host0")) == {stands, *accepted}
        assert await cloud.left() == {"stories": 0, "ending": 0}

    virtually(tmp_path, story)


def test_a_host_that_does_not_come_back_is_said_to_be_down(tmp_path: Path) -> None:
    async def story(cloud: VirtualCloud) -> None:
        await asyncio.sleep(5)
        for name in ("control", "host0"):
            await cloud.kill(name)
        await cloud.start_control()
        begin = cloud.clock.monotonic()
        (server,) = await cloud.create()
        row = await cloud.until(server, "active", "error", seconds=300)
        assert row.fault is not None and "1 is down" in row.fault.message
        assert 55 < cloud.clock.monotonic() - begin < 90

    virtually(tmp_path, story)


@pytest.mark.parametrize(("victims", "seconds"), [
    (("control",), 300), (("host0",), 30), (("control", "host0"), 300)], ids=["control", "host", "both"])
@pytest.mark.parametrize("action", ["stop", "start", "reboot-soft", "reboot-hard"])
def test_a_power_action_survives_the_death_of_who_is_at_it(
        tmp_path: Path, action: str, victims: tuple[str, ...], seconds: float) -> None:
    """Of control for longer than any message lives; of the host for less than it takes to be down."""
    async def story(cloud: VirtualCloud) -> None:
        (server,) = await cloud.create()
        await cloud.until(server, "active")
        if action == "start":
            await cloud.act(server, "stop")
            await cloud.until(server, "stopped")
        cloud.faults["host0"].delay.update(dict.fromkeys(("shutdown", "boot", "halt", "resume"), 3.0))
        await cloud.act(server, action)
        await asyncio.sleep(1)
        for name in victims:
            await cloud.kill(name)
        await asyncio.sleep(seconds)
        for name in victims:
            await (cloud.start_control() if name == "control" else cloud.start_node(name))
        wanted, power = ("stopped", "shutdown") if action == "stop" else ("active", "running")
        row = await cloud.until(server, wanted, seconds=60)
        await asyncio.sleep(30)
        assert (row.fault, cloud.guests("host0")) == (None, {server: power})
        assert (await cloud.row(server)).power_state == power
        assert await cloud.left() == {"stories": 0, "ending": 0}

    virtually(tmp_path, story)


@pytest.mark.parametrize("victim", ["control", "host0", "the line"])
def test_a_guest_that_stops_by_itself_while_nobody_hears_it(tmp_path: Path, victim: str) -> None:
    """For longer than a message is sent again (120 s)."""
    async def story(cloud: VirtualCloud) -> None:
        stopped, other = await cloud.create(2)
        for server in (stopped, other):
            await cloud.until(server, "active")
        await asyncio.sleep(5)
        if victim == "the line":
            cloud.hub.cut.add("host0")
        else:
            await cloud.kill(victim)
        await asyncio.sleep(1)
        await cloud.stops_by_itself("host0", stopped)
        await asyncio.sleep(500)
        if victim == "the line":
            cloud.hub.cut.clear()
        else:
            await (cloud.start_control() if victim == "control" else cloud.start_node(victim))
        row = await cloud.until(stopped, "stopped", seconds=30)
        assert row.power_state == "shutdown"
        row = await cloud.row(other)
        assert (row.vm_state, row.power_state) == ("active", "running")

    virtually(tmp_path, story)
