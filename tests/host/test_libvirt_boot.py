"""A real guest from order to console, by the node's own verbs; and images that would harm the host."""

import asyncio
import hashlib
import json
import os
import subprocess
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from nacre import guest
from nacre.base.errors import BuildFailed
from nacre.image.contract import ImageFacts
from nacre.node.contract import BuildOrder
from nacre.node.hypervisor.driver import HypervisorSettings
from nacre.node.hypervisor.registry import HYPERVISORS
from nacre.node.journal import Journal
from nacre.node.manager import NodeManager, NodeSettings
from nacre.node.names import Names
from nacre.node.ovs.fake import FakeWiring
from tests.stories.node.orders import (
    ControlSide,
    build_order,
    done,
    end_order,
    image_facts,
    power_order,
    spawn_order,
)

pytestmark = [pytest.mark.host, pytest.mark.timeout(400)]
NAMES = Names(str(uuid.uuid4()))
BRIDGE = NAMES.bridge


def sh(*args: str) -> str:
    """What the command prints."""
    return subprocess.run(args, check=True, text=True, capture_output=True).stdout


class FileImages:
    """Images from files."""

    def __init__(self) -> None:
        self.files: dict[str, Path] = {}
        self.sent = 0

    def add(self, file: Path, **changes: Any) -> ImageFacts:
        facts = image_facts(id=str(uuid.uuid4()), size=file.stat().st_size, virtual_size=None,
                            os_hash_value=hashlib.sha512(file.read_bytes()).hexdigest(), **changes)
        self.files[facts.id] = file
        return facts

    async def read(self, image_id: str, offset: int, length: int) -> bytes:
        self.sent += length
        return self.files[image_id].read_bytes()[offset:offset + length]


class RealHost:
    def __init__(self, folder: Path):
        self.folder, self.images, self.control = folder, FileImages(), ControlSide()
        self.wiring = FakeWiring("h1", self.control)  # type: ignore[arg-type]
        self.hypervisor: Any = HYPERVISORS["libvirt"](
            HypervisorSettings(folder=folder, names=NAMES), self.images, self.wiring)  # type: ignore[arg-type]
        self.node = NodeManager(NodeSettings(host="h1", shutdown_timeout=40),
                                Journal(folder / "journal" / "journal.db"), self.hypervisor, self.wiring)

    async def build(self, order: BuildOrder, ports: int = 1) -> Any:
        spawn = self.control.show(spawn_order(order, ports))
        await done(lambda: self.node.prepare(order))
        return spawn, await done(lambda: self.node.spawn(spawn))

    async def power(self, order: BuildOrder, action: str) -> str:
        return (await done(lambda: self.node.power(power_order(order, action)))).power

    async def end(self, order: BuildOrder) -> None:
        while not (await self.node.end(end_order(order))).done:
            pass

    async def console(self, server_id: str, word: str, times: int = 1) -> str:
        end = time.monotonic() + 120
        while (text := await self.node.console(server_id, None)).count(word) < times:
            assert time.monotonic() < end, text[-3000:]
            await asyncio.sleep(0.2)
        return text


@pytest.fixture(scope="session")
def guest_images() -> guest.GuestImages:
    folder = Path("/var/tmp/nacre-test-guest")
    return asyncio.run(guest.build(folder))


@pytest.fixture
async def host() -> AsyncIterator[RealHost]:
    from nacre.node.ovs.service import ensure_services

    folder = Path(f"/var/tmp/nacre-test-{uuid.uuid4().hex[:8]}")
    await ensure_services()
    sh("ovs-vsctl", "--may-exist", "add-br", BRIDGE, "--", "set", "bridge", BRIDGE, "datapath_type=netdev")
    host = RealHost(folder)
    await host.node.start()
    await host.node.here.journal.learn(cloud="cloud")
    host.node.here.met = True
    try:
        yield host
    finally:
        for held in await host.node.held():
            await host.end(build_order(held.server_id, held.epoch))
        await host.node.stop()
        sh("ovs-vsctl", "--if-exists", "del-br", BRIDGE)
        sh("rm", "-rf", str(folder))


def domains() -> set[str]:
    return set(sh("virsh", "-c", "qemu:///system", "list", "--all", "--uuid").split())


def interfaces() -> set[str]:
    return set(sh("ovs-vsctl", "list-ports", BRIDGE).split())


def tiny(host: RealHost, images: guest.GuestImages, **changes: Any) -> BuildOrder:
    return build_order(image=host.images.add(images.disk), memory_mb=128, domain_name=f"nacre-t-{uuid.uuid4().hex[:8]}",
                       **changes)


async def test_a_guest_lives_and_leaves_nothing_behind(host: RealHost, guest_images: guest.GuestImages) -> None:
    order = tiny(host, guest_images, config_drive=True, ephemeral_gb=1, swap_mb=16)
    spawn, seen = await host.build(order)
    print([(s.name, round(s.finished - s.started, 2)) for s in seen.steps])
    assert seen.power == "running"
    text = await host.console(order.server_id, "READY")
    assert "READY host=web from=drive" in text
    assert interfaces() == {NAMES.tap(spawn.ports[0].id)}

    assert await host.power(order, "reboot-hard") == "running"
    await host.console(order.server_id, "READY", 2)
    assert await host.power(order, "stop") == "shutdown"
    assert "TINY power button" in await host.node.console(order.server_id, None)
    assert interfaces() == set()
    assert await host.power(order, "start") == "running"
    text = await host.console(order.server_id, "READY", 3)
    assert "boots=3" in text
    assert await host.power(order, "reboot-soft") == "running"
    await host.console(order.server_id, "READY", 4)

    await host.end(order)
    assert order.server_id not in domains() and interfaces() == set()
    assert not (host.folder / "servers" / order.server_id).exists()
    assert not host.node.here.tracker.allocations and await host.node.held() == ()


async def test_kernel_ramdisk_and_root_in_three_images(host: RealHost, guest_images: guest.GuestImages) -> None:
    order = build_order(
        memory_mb=128, kernel=host.images.add(guest_images.kernel, disk_format="aki"),
        ramdisk=host.images.add(guest_images.initrd, disk_format="ari"),
        image=host.images.add(guest_images.root), domain_name=f"nacre-t-{uuid.uuid4().hex[:8]}")
    await host.build(order, ports=0)
    assert "host=tiny" in await host.console(order.server_id, "READY")


async def test_a_guest_that_stops_by_itself_is_seen(host: RealHost, guest_images: guest.GuestImages) -> None:
    order = tiny(host, guest_images)
    await host.build(order, ports=0)
    host.node.here.changed.clear()
    sh("virsh", "-c", "qemu:///system", "destroy", order.server_id)
    await asyncio.wait_for(host.node.here.changed.wait(), 5)
    assert [held.power for held in await host.node.held()] == ["shutdown"]


async def test_two_builds_fetch_one_image_once_and_neither_can_change_it(
        host: RealHost, guest_images: guest.GuestImages) -> None:
    facts = host.images.add(guest_images.disk)
    orders = [build_order(memory_mb=128, image=facts) for _ in range(2)]
    await asyncio.gather(*(done(lambda order=order: host.node.prepare(order)) for order in orders))  # type: ignore[misc]
    size = guest_images.disk.stat().st_size
    assert host.images.sent == size
    [base] = (host.folder / "images").iterdir()
    assert base.stat().st_uid == 0 and base.stat().st_mode & 0o222 == 0o200
    assert [p.name for p in (host.folder / "images").iterdir() if ".part" in p.name or ".new" in p.name] == []


def harmful(folder: Path, kind: str) -> tuple[Path, dict[str, Any]]:
    """An image that has harmed clouds before, and how it is declared."""
    file = folder / f"{kind}.img"
    canary = folder / "canary"
    canary.write_text("a secret of the host")
    match kind:
        case "backing-file":  # CVE-2015-5163
            sh("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(canary), str(file), "1M")
            return file, {}
        case "data-file":  # CVE-2024-32498
            sh("qemu-img", "create", "-q", "-f", "qcow2", "-o", f"data_file={folder}/data.raw", str(file), "1M")
            return file, {}
        case "raw-is-qcow2":  # CVE-2024-40767
            sh("qemu-img", "create", "-q", "-f", "qcow2", str(file), "1M")
            return file, {"disk_format": "raw"}
        case "huge":  # CVE-2013-2096
            sh("qemu-img", "create", "-q", "-f", "qcow2", str(file), "3G")
            return file, {}
        case _:
            file.write_bytes(os.urandom(1 << 16))
            return file, {"os_hash": "wrong"}


@pytest.mark.parametrize("kind", ["backing-file", "data-file", "raw-is-qcow2", "huge", "wrong-digest"])
async def test_a_harmful_image_is_refused_and_leaves_nothing(host: RealHost, kind: str, tmp_path: Path) -> None:
    file, declared = harmful(tmp_path, kind)
    wrong = declared.pop("os_hash", None)
    facts = host.images.add(file, **declared)
    if wrong:
        file.write_bytes(b"something else".ljust(1 << 16))
    order = build_order(image=facts)
    with pytest.raises(BuildFailed) as caught:
        await done(lambda: host.node.prepare(order))
    assert "image" in caught.value.message
    print(caught.value.message)
    assert list((host.folder / "images").iterdir()) == []
    assert not host.node.here.tracker.allocations and not (host.folder / "servers" / order.server_id).exists()


async def test_every_call_of_qemu_img_names_its_formats() -> None:
    """CVE-2026-24708: a format that is guessed is a format that a guest chooses."""
    source = Path(__file__).parents[2] / "src" / "nacre" / "node"
    calls = [text for f in source.rglob("*.py") for text in f.read_text().split('"qemu-img"')[1:]]
    assert calls and all('"-f"' in call.split("]")[0] for call in calls)


async def test_a_header_that_a_guest_writes_on_its_disk_stays_data(
        host: RealHost, guest_images: guest.GuestImages, tmp_path: Path) -> None:
    """CVE-2015-7548: the guest's raw bytes become a qcow2 that names a file of the host; nothing may believe it."""
    canary = tmp_path / "canary"
    canary.write_text("a secret of the host")
    evil = tmp_path / "evil.qcow2"
    sh("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(canary), str(evil), "1M")
    order = tiny(host, guest_images)
    await host.build(order, ports=0)
    await host.power(order, "stop")
    disk = host.folder / "servers" / order.server_id / "disk"
    sh("qemu-io", "-f", "qcow2", "-c", f"write -s {evil} 0 64k", str(disk))
    await host.power(order, "start")
    xml = sh("virsh", "-c", "qemu:///system", "dumpxml", order.server_id)
    assert "canary" not in xml and "<driver name='qemu' type='qcow2'" in xml and "<format type='raw'/>" in xml


def test_the_processors_features_are_told_by_their_names() -> None:
    """What `trait:HW_CPU_X86_...` is held against, where guests run on the host's processor."""
    import libvirt

    from nacre.node.hypervisor.libvirt.host import capabilities
    from nacre.node.hypervisor.libvirt.service import ensure_services

    asyncio.run(ensure_services())
    connection, here = libvirt.open("qemu:///system"), Path("/var/tmp")
    try:
        facts = {kind: json.loads(capabilities(connection, kind, here).cpu_info) for kind in ("kvm", "qemu")}
    finally:
        connection.close()
    flags = set(Path("/proc/cpuinfo").read_text().partition("flags")[2].partition("\n")[0].split())
    assert {"sse2", "cx16"} & flags <= set(facts["kvm"]["features"]) and facts["kvm"]["model"]
    assert facts["qemu"]["features"] == []
