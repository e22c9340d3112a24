"""Whose a domain is: that of the cloud it names, whatever its folder is; of one that was made before domains named
their cloud, the folder says it."""

import re
import shutil
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.contract.test_hypervisor import orders
from tests.stories.node.orders import ControlSide, unheeded

from nacre.base.errors import BuildFailed, NotFound
from nacre.node.hypervisor.driver import Hypervisor, HypervisorSettings
from nacre.node.hypervisor.registry import HYPERVISORS
from nacre.node.names import Names
from nacre.node.ovs.fake import FakeWiring

pytestmark = pytest.mark.host


class Clouds:
    """Hypervisors of several clouds over one libvirt."""

    def __init__(self) -> None:
        self.folder = Path(f"/var/tmp/nacre-test-{uuid.uuid4().hex[:8]}")
        self.made: list[Hypervisor] = []

    async def start(self, folder: str) -> Hypervisor:
        control: Any = ControlSide()
        settings = HypervisorSettings(folder=self.folder / folder, names=Names(str(uuid.uuid4())))
        self.made.append(HYPERVISORS["libvirt"](settings, control, FakeWiring("h1", control)))

        async def told(server_id: str, power: str) -> None:
            pass

        await self.made[-1].start(told)
        return self.made[-1]


@pytest.fixture
async def clouds() -> AsyncIterator[Clouds]:
    made = Clouds()
    yield made
    for hypervisor in made.made:
        for server in await hypervisor.guests():
            await hypervisor.destroy(server)
        await hypervisor.stop()
    shutil.rmtree(made.folder)


async def test_another_clouds_domain_is_not_touched_even_if_its_folder_is_ours(clouds: Clouds) -> None:
    owner, other = await clouds.start("guests"), await clouds.start("guests")
    order, spawn = orders()
    await owner.prepare(order, unheeded)
    await owner.define(order, spawn)
    await owner.resume(order.server_id)
    assert await other.guests() == {}
    for call in (other.halt(order.server_id), other.resume(order.server_id), other.boot(order.server_id)):
        with pytest.raises(NotFound):
            await call
    with pytest.raises(BuildFailed, match="not this cloud's"):
        await other.define(order, spawn)  # a copy of a cloud's database has the same servers
    assert await owner.guests() == {order.server_id: "running"}


async def test_a_domain_of_before_belongs_by_its_folder(clouds: Clouds) -> None:
    import libvirt

    owner, other = await clouds.start("guests"), await clouds.start("elsewhere")
    order, spawn = orders()
    await owner.prepare(order, unheeded)
    await owner.define(order, spawn)
    await owner.halt(order.server_id)
    connection = libvirt.open("qemu:///system")
    try:
        domain = connection.lookupByUUIDString(order.server_id)
        xml = re.sub(r"<(\w+):cloud>.*?</\1:cloud>", "", domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
        assert "cloud" not in xml
        connection.defineXML(xml)
    finally:
        connection.close()
    assert await owner.guests() == {order.server_id: "shutdown"} and await other.guests() == {}
    await owner.boot(order.server_id)
    assert await owner.guests() == {order.server_id: "paused"}
