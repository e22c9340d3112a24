"""Each stop, start or reboot is done once, by whichever control process: what a user asked for later stands."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
import sqlalchemy as sa

from nacre.base.durable.stories import Story
from nacre.base.errors import BuildFailed
from nacre.compute import history
from nacre.compute.contract import StoryOrder
from nacre.compute.records import get_row, move
from nacre.node.contract import PowerOrder, Work
from nacre.node.servers import works
from tests.cloud.conductor_lab import CONTEXT, Controller, Lab
from tests.cloud.test_fencing import silence


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    made = Lab(tmp_path)
    await made.start()
    yield made
    await made.stop()


async def power(control: Controller, server: str, action: str) -> None:
    """As the API would."""
    now = control.lab.clock.now().replace(tzinfo=None)

    def unit(c: sa.Connection) -> Story:
        move(c, get_row(c, server), action, now)
        history.begin(c, CONTEXT, [server], action, now)
        order = StoryOrder(context=CONTEXT, server_ids=(server,), action=action)
        return control.stories.insert(c, "power", msgspec.msgpack.encode(order), now)

    control.runner.run(await control.lab.db.run(unit))


async def built(lab: Lab) -> tuple[str, str]:
    """A server, and its host."""
    (server,) = await lab.accept()
    host = (await lab.until(server, "active"))["host"]
    await lab.quiet()
    return server, host


@pytest.mark.parametrize(("asked", "ends", "then", "wanted"), [
    ("stop", "stopped", "start", "active"), ("reboot-hard", "active", "stop", "stopped")])
async def test_a_thawed_control_process_undoes_nothing(
        lab: Lab, asked: str, ends: str, then: str, wanted: str) -> None:
    """It was answered `not done` and then frozen; another ended its story, and the user asked for something else."""
    server, host = await built(lab)
    node, thaw, lab.answer_within = lab.nodes[host], asyncio.Event(), 60
    real, orders = node.power, list[PowerOrder]()

    async def slow(order: PowerOrder) -> Work:
        orders.append(order)
        work = await real(order)
        if len(orders) == 1:
            await thaw.wait()
            return Work(done=False, step="the guest shuts down")
        return work

    node.power = slow  # type: ignore[method-assign]
    await power(lab.control, server, asked)
    while not orders:
        await asyncio.sleep(0.01)
    await silence(lab, lab.control)
    other = Controller(lab, "other")
    await other.start()
    await other.runner.look()
    await lab.until(server, ends)
    await power(other, server, then)
    await lab.until(server, wanted)
    before = len(orders)
    thaw.set()
    while len(orders) == before:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.2)
    assert orders[-1] == orders[0]  # it did ask again
    assert (await lab.row(server))["vm_state"] == wanted
    running = "running" if wanted == "active" else "shutdown"
    assert await lab.hypervisors[host].guests() == {server: running}
    await other.kill()


async def test_a_reboot_whose_answer_was_lost_is_done_once(lab: Lab) -> None:
    server, host = await built(lab)
    node, hypervisor = lab.nodes[host], lab.hypervisors[host]
    real, boot, boots, lost = node.power, hypervisor.boot, list[str](), asyncio.Event()

    async def count(server_id: str) -> None:
        boots.append(server_id)
        await boot(server_id)

    async def last_words(order: PowerOrder) -> Work:
        work = await real(order)
        if not lost.is_set():
            lost.set()
            await asyncio.sleep(3600)
        return work

    hypervisor.boot, node.power = count, last_words  # type: ignore[method-assign]
    await power(lab.control, server, "reboot-hard")
    await lost.wait()
    await lab.reborn()
    await lab.until(server, "active")
    await lab.quiet()
    assert boots == [server]


async def test_an_old_failure_is_no_answer_to_a_new_order(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """It failed when its host was cut off and the order given up: nobody heard of it."""
    server, host = await built(lab)
    await power(lab.control, server, "stop")
    await lab.until(server, "stopped")
    hypervisor, boot, failed = lab.hypervisors[host], lab.hypervisors[host].boot, asyncio.Event()
    monkeypatch.setattr(works, "ANSWER", 0.05)

    async def once(server_id: str) -> None:
        if not failed.is_set():
            await asyncio.sleep(0.3)
            failed.set()
            raise BuildFailed("libvirt was being restarted")
        await boot(server_id)

    hypervisor.boot = once  # type: ignore[method-assign]
    await power(lab.control, server, "start")
    await asyncio.sleep(0.1)
    lab.silent.add(host)
    lab.down.add(host)
    assert "does not answer" in (await lab.until(server, "stopped"))["fault"]["message"]
    await failed.wait()
    lab.silent.clear()
    lab.down.clear()
    await lab.quiet()
    await power(lab.control, server, "start")
    await lab.until(server, "active")


async def test_a_guest_that_halts_as_it_is_started_says_so(lab: Lab) -> None:
    server, host = await built(lab)
    hypervisor, resume = lab.hypervisors[host], lab.hypervisors[host].resume

    async def panic(server_id: str) -> None:
        await resume(server_id)
        await hypervisor.crash_guest(server_id)

    hypervisor.resume = panic  # type: ignore[method-assign]
    await power(lab.control, server, "reboot-hard")
    row = await lab.until(server, "active")
    assert row["fault"]["message"] == "Its guest is shutdown after that." and row["power_state"] == "shutdown"
