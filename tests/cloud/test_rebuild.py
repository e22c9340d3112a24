"""A rebuild killed, silenced, deleted or overtaken at any moment: the server ends made anew, or in ERROR with a reason;
its room, its host and its ports are what they were."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from nacre.base.durable.stories import Story
from nacre.base.errors import Refused
from nacre.compute import history
from nacre.compute.contract import RebuildSpec, StoryOrder
from nacre.compute.records import get_row, move
from nacre.node.contract import RebuildOrder, Work
from nacre.scheduler.contract import PlacementRequest
from tests.cloud.conductor_lab import CONTEXT, IMAGE, Lab
from tests.cloud.test_power_orders import power
from tests.cloud.virtual_lab import VirtualCloud, virtually

OTHER = "11111111-30f1-4d6c-b6b7-0d4f2c9d8f11"


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    made = Lab(tmp_path)
    await made.start()
    yield made
    await made.stop()


async def rebuild(lab: Lab, server: str, image: str = OTHER) -> None:
    """As the API would."""
    now = lab.clock.now().replace(tzinfo=None)

    def unit(c: sa.Connection) -> Story:
        was = get_row(c, server)["image_id"]
        move(c, get_row(c, server), "rebuild", now, image_id=image, image_properties={"hw_architecture": "x86_64"})
        history.begin(c, CONTEXT, [server], "rebuild", now)
        return lab.story(c, "rebuild", StoryOrder(
            context=CONTEXT, server_ids=(server,), action="rebuild",
            rebuild=RebuildSpec(image_id=image, admin_password="anew", was=was)))

    lab.control.runner.run(await lab.db.run(unit))


async def built(lab: Lab) -> tuple[str, str]:
    (server,) = await lab.accept()
    host = (await lab.until(server, "active"))["host"]
    await lab.quiet()
    return server, host


async def test_it_is_of_the_other_image_with_the_same_room_and_port(lab: Lab) -> None:
    server, host = await built(lab)
    before, [room] = lab.network.ports[server], await lab.ledger.of_server(server)
    assert lab.hypervisors[host].servers[server].image == IMAGE
    await rebuild(lab, server)
    row = await lab.until(server, "active")
    await lab.quiet()
    assert (row["host"], row["power_state"], row["fault"]) == (host, "running", None)
    assert lab.hypervisors[host].servers[server].image == OTHER
    assert lab.hypervisors[host].servers[server].ports == (before.id,)
    assert lab.network.ports[server] == before and await lab.ledger.of_server(server) == [room]
    [entry] = lab.nodes[host].here.journal.all()
    assert entry.stage == "running" and entry.order is not None and entry.spawn is not None
    assert entry.order.guest.admin_password is None and entry.spawn.guest is None


@pytest.mark.parametrize("verb", ["prepare", "replace", "define", "resume"])
async def test_what_fails_is_an_error_and_can_be_rebuilt(lab: Lab, verb: str) -> None:
    server, host = await built(lab)
    lab.hypervisors[host].faults.fail[verb] = 1
    await rebuild(lab, server)
    row = await lab.until(server, "error")
    assert "a fault was asked for" in row["fault"]["message"] and row["host"] == host
    await lab.quiet()
    running = (await lab.hypervisors[host].guests())[server] == "running"
    assert running == (verb == "prepare")  # nothing was touched until all was there
    assert len(await lab.ledger.of_server(server)) == 1 and server in lab.network.ports
    await rebuild(lab, server)
    await lab.until(server, "active")
    assert lab.hypervisors[host].servers[server].image == OTHER


async def test_a_half_rebuilt_guest_is_not_started(lab: Lab) -> None:
    server, host = await built(lab)
    lab.hypervisors[host].faults.fail["replace"] = 1
    await rebuild(lab, server)
    await lab.until(server, "error")
    await lab.quiet()
    await power(lab.control, server, "reboot-hard")
    await lab.quiet()
    row = await lab.row(server)
    assert (row["vm_state"], row["task_state"]) == ("error", None)
    assert "it has to be rebuilt again" in row["fault"]["message"]


async def test_a_host_that_may_not_have_the_image(lab: Lab) -> None:
    server, host = await built(lab)

    async def misfit(request: PlacementRequest, where: str) -> str:
        return f"are not aarch64: {where}"

    lab.scheduler.misfit = misfit  # type: ignore[method-assign]
    await rebuild(lab, server, IMAGE)  # the same: nobody is asked
    await lab.until(server, "active")
    await lab.quiet()
    await rebuild(lab, server)
    row = await lab.until(server, "error")
    assert row["fault"]["message"].startswith("No valid host was found.") and "aarch64" in row["fault"]["message"]
    assert await lab.hypervisors[host].guests() == {server: "running"}


async def test_an_older_rebuild_is_refused_after_a_later_order(lab: Lab) -> None:
    server, host = await built(lab)
    orders, real = list[RebuildOrder](), lab.nodes[host].rebuild

    async def seen(order: RebuildOrder) -> Work:
        orders.append(order)
        return await real(order)

    lab.nodes[host].rebuild = seen  # type: ignore[method-assign]
    await rebuild(lab, server)
    await lab.until(server, "active")
    await lab.quiet()
    assert (await real(orders[0])).done  # repeated: answered with what there is
    await rebuild(lab, server, IMAGE)
    await lab.until(server, "active")
    with pytest.raises(Refused, match="a later order"):
        await real(orders[0])
    assert lab.hypervisors[host].servers[server].image == IMAGE


async def test_a_control_that_dies_is_gone_on_for(lab: Lab) -> None:
    server, host = await built(lab)
    lab.hypervisors[host].faults.delay["replace"] = 0.3
    await rebuild(lab, server)
    await asyncio.sleep(0.15)
    await lab.reborn()
    await lab.until(server, "active")
    assert lab.hypervisors[host].servers[server].image == OTHER


SLOW = {"prepare": 0.5, "replace": 0.3, "define": 0.5, "resume": 0.3, "destroy": 0.1, "halt": 0.1}


@pytest.mark.parametrize("victim", ["host0", "control"])
def test_a_process_that_is_killed_at_any_moment(tmp_path: Path, victim: str) -> None:
    async def story(cloud: VirtualCloud) -> None:
        (server,) = await cloud.create()
        await cloud.until(server, "active")
        cloud.faults["host0"].delay.update(SLOW)
        for n in range(12):
            await cloud.act(server, "rebuild")
            await asyncio.sleep(n * 0.2)
            await cloud.kill(victim)
            await asyncio.sleep(1)
            await (cloud.start_control() if victim == "control" else cloud.start_node(victim))
            row = await cloud.until(server, "active", seconds=400)
            assert row.fault is None and cloud.guests("host0") == {server: "running"}, n
            await asyncio.sleep(20)
            assert (await cloud.row(server)).vm_state == "active"
            assert await cloud.left() == {"stories": 0, "ending": 0}, n

    virtually(tmp_path, story)


def test_a_delete_at_any_moment(tmp_path: Path) -> None:
    async def story(cloud: VirtualCloud) -> None:
        for faults in cloud.faults.values():
            faults.delay.update(SLOW)
        for n in range(16):
            (server,) = await cloud.create()
            await cloud.until(server, "active")
            await cloud.act(server, "rebuild")
            await asyncio.sleep(n * 0.15)
            await cloud.act(server, "delete")
            await cloud.until(server, "deleted", seconds=60)
            await asyncio.sleep(5)
            assert not cloud.guests("host0") and await cloud.left() == {"stories": 0, "ending": 0}, n

    virtually(tmp_path, story)


def test_a_stopped_server_stays_so(tmp_path: Path) -> None:
    async def story(cloud: VirtualCloud) -> None:
        (server,) = await cloud.create()
        await cloud.until(server, "active")
        await cloud.act(server, "stop")
        await cloud.until(server, "stopped")
        await cloud.act(server, "rebuild")
        row = await cloud.until(server, "stopped")
        assert row.power_state == "shutdown" and cloud.guests("host0") == {server: "shutdown"}
        await cloud.act(server, "start")
        await cloud.until(server, "active")

    virtually(tmp_path, story)
