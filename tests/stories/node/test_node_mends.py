"""What a host does about orders that did not get through: power in the middle of a restart, clean-ups that fail or
hang."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from tests.stories.node.orders import build_order, done, end_order, power_order
from tests.stories.node.test_node_manager import Host

from nacre.base.errors import Refused
from nacre.conductor.contract import Welcome


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    host = Host(tmp_path)
    await host.start()
    yield host
    host.faults.hang.clear()
    await host.service.stop()


async def killed_in(host: Host, verb: str, action: str) -> str:
    """A server that was being restarted when its node was killed, just there."""
    order, _ = await host.build()
    host.faults.hang.add(verb)
    switching = asyncio.ensure_future(host.node.power(power_order(order, action, 2)))
    await asyncio.sleep(0.1)
    await host.service.stop()
    switching.cancel()
    host.faults.hang.clear()
    return order.server_id


async def until(host: Host, guests: dict[str, str]) -> None:
    async with asyncio.timeout(5):
        while await host.guests() != guests:
            await asyncio.sleep(0.02)


async def test_a_guest_that_a_killed_node_left_paused_runs_again(host: Host) -> None:
    server = await killed_in(host, "resume", "reboot-soft")
    assert (await host.hypervisor.guests()) == {server: "paused"}
    await host.start()
    await until(host, {server: "running"})
    [entry] = host.node.here.journal.all()
    assert entry.switch is not None and entry.switch.done and set(host.wiring.up) == {p.id for p in entry.spawn.ports}  # type: ignore[union-attr]


async def test_it_stays_paused_while_it_is_not_known_whose_orders_count(host: Host) -> None:
    server = await killed_in(host, "resume", "reboot-hard")
    host.control.welcome = Welcome(cloud="cloud", position=0, older=True)
    await host.start()
    await asyncio.sleep(0.6)
    assert await host.guests() == {server: "paused"}
    host.control.welcome = msgspec.structs.replace(host.control.welcome, older=False, position=9)
    await until(host, {server: "running"})


async def test_a_guest_that_others_paused_stays_so(host: Host) -> None:
    """By an operator's hand, or because its disk is full."""
    order, _ = await host.build()
    await host.node.power(power_order(order, "reboot-hard", 2))
    await host.hypervisor.crash_guest(order.server_id, "paused")
    await asyncio.sleep(0.6)
    assert await host.guests() == {order.server_id: "paused"}


async def test_a_power_order_is_done_once_and_never_after_a_later_one(host: Host) -> None:
    order, _ = await host.build()
    await host.node.power(power_order(order, "stop", 2))
    await host.hypervisor.crash_guest(order.server_id, "running")
    again = await host.node.power(power_order(order, "stop", 2))
    assert again.guest is not None and again.guest.power == "running"
    await host.service.stop()
    await host.start()  # the journal knows
    await host.node.power(power_order(order, "stop", 2))
    assert await host.guests() == {order.server_id: "running"}
    await host.node.power(power_order(order, "reboot-hard", 3))
    with pytest.raises(Refused, match="a later order"):
        await host.node.power(power_order(order, "stop", 2))
    assert [held.epoch for held in await host.node.held()] == [3]


async def test_the_end_of_an_old_attempt_leaves_the_new_one_alone(host: Host) -> None:
    old = build_order(epoch=1)
    await host.node.prepare(old)
    host.faults.delay["prepare"] = 0.3
    preparing = asyncio.ensure_future(done(lambda: host.node.prepare(build_order(old.server_id, epoch=2))))
    await asyncio.sleep(0.1)
    assert (await host.node.end(end_order(old))).done
    await preparing
    assert [held.epoch for held in await host.node.held()] == [2]


async def test_a_clean_up_that_hangs_holds_up_no_beat_and_no_other(host: Host) -> None:
    (first, _), (second, _) = await host.build(), await host.build()
    for order in (first, second):
        host.faults.fail["destroy"] = 1
        with pytest.raises(Exception, match="destroy"):
            await host.node.end(end_order(order))

    async def hangs(server_id: str) -> None:
        if server_id == first.server_id:
            await asyncio.sleep(3600)

    host.faults.before["destroy"] = hangs
    await until(host, {first.server_id: "running"})
    before = len(host.control.beats)
    await asyncio.sleep(1)
    assert len(host.control.beats) >= before + 4
