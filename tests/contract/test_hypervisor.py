"""What every hypervisor does, the simulated one and the real one alike."""

import asyncio
import hashlib
import os
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.stories.node.orders import ControlSide, build_order, image_facts, spawn_order, unheeded

from nacre.base.errors import NotFound
from nacre.node.contract import BuildOrder, SpawnOrder
from nacre.node.hypervisor.driver import Hypervisor, HypervisorSettings
from nacre.node.hypervisor.registry import HYPERVISORS
from nacre.node.names import Names
from nacre.node.ovs.fake import FakeWiring

DISK = os.urandom(1 << 20) * 3


class WithImage(ControlSide):
    """Has one image."""

    async def read(self, image_id: str, offset: int, length: int) -> bytes:
        await asyncio.sleep(0.05)
        return DISK[offset:offset + length]


@pytest.fixture(params=["fake", pytest.param("libvirt", marks=pytest.mark.host)])
async def hypervisor(request: pytest.FixtureRequest) -> AsyncIterator[Hypervisor]:
    folder = Path(f"/var/tmp/nacre-test-{uuid.uuid4().hex[:8]}")
    control: Any = WithImage()
    made = HYPERVISORS[request.param](HypervisorSettings(folder=folder, names=Names(str(uuid.uuid4()))), control,
                                      FakeWiring("h1", control))

    async def told(server_id: str, power: str) -> None:
        pass

    await made.start(told)
    yield made
    for server in await made.guests():
        await made.destroy(server)
    await made.stop()
    leftovers = list((folder / "servers").glob("*"))
    remove(folder)
    assert leftovers == []


def remove(folder: Path) -> None:
    for file in sorted(folder.rglob("*"), reverse=True):
        (file.rmdir if file.is_dir() else file.unlink)()
    folder.rmdir()


def orders() -> tuple[BuildOrder, SpawnOrder]:
    """A guest without an image and without interfaces: its firmware finds nothing to boot, which is enough here."""
    order = build_order(image=None, memory_mb=64, domain_name=f"nacre-t-{os.urandom(4).hex()}")
    return order, msgspec.structs.replace(spawn_order(order, 0), networks=())


async def test_a_guest_is_paused_until_it_is_let_go(hypervisor: Hypervisor) -> None:
    order, spawn = orders()
    for _ in range(2):
        steps = await hypervisor.prepare(order, unheeded)
        assert all(step.started <= step.finished for step in steps)
    assert order.server_id not in await hypervisor.guests()
    for _ in range(2):
        await hypervisor.define(order, spawn)
        assert (await hypervisor.guests())[order.server_id] == "paused"
    for _ in range(2):
        await hypervisor.resume(order.server_id)
        assert (await hypervisor.guests())[order.server_id] == "running"


async def test_prepare_shows_how_far_the_image_is(hypervisor: Hypervisor) -> None:
    """Also to whoever asks again, and when the one who asked first has gone away."""
    order = msgspec.structs.replace(orders()[0], image=image_facts(
        disk_format="raw", size=len(DISK), virtual_size=len(DISK), os_hash_value=hashlib.sha512(DISK).hexdigest()))
    first = asyncio.create_task(hypervisor.prepare(order, unheeded))
    await asyncio.sleep(0.05)
    first.cancel()
    seen: list[tuple[int, int]] = []
    await hypervisor.prepare(order, lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen) and seen[-1] == (len(DISK), len(DISK)) and {total for _, total in seen} == {len(DISK)}
    await hypervisor.destroy(order.server_id)


async def test_power_goes_and_comes_back(hypervisor: Hypervisor) -> None:
    order, spawn = orders()
    await hypervisor.prepare(order, unheeded)
    await hypervisor.define(order, spawn)
    await hypervisor.resume(order.server_id)
    await hypervisor.shutdown(order.server_id)
    for _ in range(2):
        await hypervisor.halt(order.server_id)
        assert (await hypervisor.guests())[order.server_id] == "shutdown"
    for _ in range(2):
        await hypervisor.boot(order.server_id)
        assert (await hypervisor.guests())[order.server_id] == "paused"
    await hypervisor.resume(order.server_id)
    assert (await hypervisor.guests())[order.server_id] == "running"


async def test_nothing_is_left_of_a_destroyed_guest_however_far_it_got(hypervisor: Hypervisor) -> None:
    order, spawn = orders()
    await hypervisor.destroy(order.server_id)
    await hypervisor.prepare(order, unheeded)
    await hypervisor.destroy(order.server_id)
    await hypervisor.prepare(order, unheeded)
    await hypervisor.define(order, spawn)
    for _ in range(2):
        await hypervisor.destroy(order.server_id)
        assert order.server_id not in await hypervisor.guests()
    with pytest.raises(NotFound):
        await hypervisor.console(order.server_id, None)


async def test_a_server_that_is_not_here_is_not_found(hypervisor: Hypervisor) -> None:
    nobody = str(uuid.uuid4())
    for call in (hypervisor.boot(nobody), hypervisor.resume(nobody), hypervisor.halt(nobody),
                 hypervisor.shutdown(nobody), hypervisor.console(nobody, 5)):
        with pytest.raises(NotFound):
            await call


async def test_capabilities_are_those_of_a_host(hypervisor: Hypervisor) -> None:
    has = await hypervisor.capabilities()
    assert has.vcpus > 0 and has.memory_mb > 0 and has.disk_gb > 0 and has.hypervisor_version > 0


async def test_the_console_gives_its_last_lines(hypervisor: Hypervisor) -> None:
    order, spawn = orders()
    await hypervisor.prepare(order, unheeded)
    await hypervisor.define(order, spawn)
    await hypervisor.resume(order.server_id)
    whole = await hypervisor.console(order.server_id, None)
    assert whole.endswith(await hypervisor.console(order.server_id, 1))
    assert await hypervisor.console(order.server_id, 0) == ""
