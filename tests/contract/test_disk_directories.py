"""Servers' disks in several directories, with the simulated hypervisor and the real one alike."""

import os
import shutil
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.stories.node.orders import ControlSide, build_order, spawn_order, unheeded

from nacre.base.errors import BuildFailed, NotFound
from nacre.node.contract import BuildOrder
from nacre.node.hypervisor.driver import Hypervisor, HypervisorSettings
from nacre.node.hypervisor.registry import HYPERVISORS
from nacre.node.names import Names
from nacre.node.ovs.fake import FakeWiring


class Machine:
    """A machine with one hypervisor, whose directories may be configured anew."""

    def __init__(self, kind: str, folder: Path):
        self.kind, self.folder, self.running = kind, folder, list[Hypervisor]()
        self.one, self.two = (str(folder / name) for name in ("one", "two"))
        self.ids = defaultdict[str, str](lambda: str(uuid.uuid4()))  # cloud -> its id

    async def start(self, *disks: str, cloud: str = "guests") -> Hypervisor:
        """In place of the one that ran."""
        await self.stop()
        control: Any = ControlSide()
        made = HYPERVISORS[self.kind](
            HypervisorSettings(folder=self.folder / cloud, names=Names(self.ids[cloud]), disks=disks), control,
            FakeWiring("h1", control))

        async def told(server_id: str, power: str) -> None:
            pass

        await made.start(told)
        self.running.append(made)
        return made

    async def stop(self) -> None:
        while self.running:
            await self.running.pop().stop()

    async def build(self, place: str) -> BuildOrder:
        order = build_order(image=None, memory_mb=64, selected_dir=place, domain_name=f"nacre-t-{os.urandom(4).hex()}")
        await self.running[-1].prepare(order, unheeded)
        await self.running[-1].define(order, msgspec.structs.replace(spawn_order(order, 0), networks=()))
        return order

    def files(self, server_id: str) -> list[Path]:
        """All that is called after the server, wherever it lies."""
        return [path for path in self.folder.rglob(f"{server_id}*") if path.name == server_id]


@pytest.fixture(params=["fake", pytest.param("libvirt", marks=pytest.mark.host)])
async def machine(request: pytest.FixtureRequest) -> AsyncIterator[Machine]:
    made = Machine(request.param, Path(f"/var/tmp/nacre-test-{uuid.uuid4().hex[:8]}"))
    yield made
    for cloud in {path.name for path in made.folder.iterdir()} - {"one", "two", "private"}:
        hypervisor = await made.start(cloud=cloud)
        for server in await hypervisor.guests():
            await hypervisor.destroy(server)
    await made.stop()
    shutil.rmtree(made.folder)


async def test_disks_lie_in_the_directory_that_the_order_names_and_go_with_the_server(machine: Machine) -> None:
    hypervisor = await machine.start(machine.one, machine.two)
    assert set((await hypervisor.capabilities()).directories_mb) == {machine.one, machine.two}
    assert all(size > 0 for size in (await hypervisor.capabilities()).directories_mb.values())
    order = await machine.build(machine.two)
    if machine.kind == "libvirt":
        assert [path.parent.parent for path in machine.files(order.server_id)] == [Path(machine.two)]
    await hypervisor.destroy(order.server_id)
    assert machine.files(order.server_id) == [] and await hypervisor.guests() == {}


@pytest.mark.parametrize("place", ["", "/elsewhere"])
async def test_another_directory_is_a_clear_refusal(machine: Machine, place: str) -> None:
    await machine.start(machine.one, machine.two)
    with pytest.raises(BuildFailed, match="this host has no disk directory"):
        await machine.build(place)


@pytest.mark.parametrize(("before", "after"), [((), ("two",)), (("one",), ()), (("one",), ("two",))])
async def test_servers_are_found_when_the_directories_are_others(
        machine: Machine, before: tuple[str, ...], after: tuple[str, ...]) -> None:
    """An operator gives a host with servers its disks, or takes one out: no server is lost by that."""
    await machine.start(*(str(machine.folder / name) for name in before))
    order = await machine.build(str(machine.folder / before[0]) if before else "")
    for _ in range(2):
        hypervisor = await machine.start(*(str(machine.folder / name) for name in after))
        assert await hypervisor.guests() == {order.server_id: "paused"}
    await hypervisor.resume(order.server_id)
    assert (await hypervisor.console(order.server_id, None)) is not None
    await hypervisor.halt(order.server_id)
    await hypervisor.destroy(order.server_id)
    assert machine.files(order.server_id) == [] and await hypervisor.guests() == {}
    with pytest.raises(NotFound):
        await hypervisor.console(order.server_id, None)


async def test_a_directory_is_one_clouds(machine: Machine) -> None:
    """Another cloud's servers are not taken for strays of ours, which go."""
    await machine.start(machine.one)
    order = await machine.build(machine.one)
    if machine.kind == "libvirt":
        with pytest.raises(BuildFailed, match=f"{machine.one} is used by the cloud {machine.ids['guests']}"):
            await machine.start(machine.one, cloud="second")
    assert order.server_id not in await (await machine.start(machine.two, cloud="third")).guests()
    assert order.server_id in await (await machine.start(machine.one)).guests()


async def test_a_directory_that_an_earlier_release_marked_with_our_folder_is_ours(machine: Machine) -> None:
    mark = Path(machine.one) / "nacre-servers" / ".cloud"
    mark.parent.mkdir(parents=True)
    mark.write_text(f"{machine.folder}/guests")
    if machine.kind != "libvirt":
        return
    with pytest.raises(BuildFailed, match="is used by the cloud"):
        await machine.start(machine.one, cloud="second")
    for _ in range(2):
        await machine.start(machine.one)
        assert mark.read_text() == machine.ids["guests"] and [p.name for p in mark.parent.iterdir()] == [".cloud"]


async def test_a_directory_that_guests_cannot_reach_is_said_at_the_start(machine: Machine) -> None:
    private = machine.folder / "private"
    private.mkdir(parents=True, mode=0o700)
    if machine.kind == "libvirt" and os.geteuid() == 0:
        with pytest.raises(BuildFailed, match=f"node.disks: .*cannot pass through {private}"):
            await machine.start(str(private / "disks"))
