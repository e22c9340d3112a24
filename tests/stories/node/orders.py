"""Orders and a control side for the node's tests."""

import uuid
from typing import Any

import msgspec

from nacre.conductor.contract import NodeHello
from nacre.image.contract import ImageFacts
from nacre.network.contract import AgentReport, HostWiring, NetworkFacts, PortFacts
from nacre.node.contract import BuildOrder, GuestFacts, SpawnOrder
from nacre.scheduler.contract import HostReport


def build_order(server_id: str | None = None, epoch: int = 1, **changes: Any) -> BuildOrder:
    server_id = server_id or str(uuid.uuid4())
    order = BuildOrder(
        server_id=server_id, epoch=epoch, memory_mb=512, vcpus=1, root_gb=1, ephemeral_gb=0, swap_mb=0,
        limit_vcpus=16, limit_memory_mb=4096, limit_disk_mb=20480, image=image_facts(),
        guest=GuestFacts(id=server_id, name="web", hostname="web", project_id="p", user_id="u",
                         availability_zone="nova", admin_password="sesame-7731", user_data="c2VjcmV0"))
    return msgspec.structs.replace(order, **changes)


def image_facts(**changes: Any) -> ImageFacts:
    facts = ImageFacts(id="img", name="tiny", owner=None, status="active", disk_format="qcow2",
                       container_format="bare", size=1, virtual_size=1, checksum=None, os_hash_algo="sha512",
                       os_hash_value="0" * 128)
    return msgspec.structs.replace(facts, **changes)


def spawn_order(order: BuildOrder, ports: int = 1) -> SpawnOrder:
    network = NetworkFacts(id=str(uuid.uuid4()), name="net", project_id="p", mtu=1450, network_type="local",
                           physical_network=None, segmentation_id=None)
    return SpawnOrder(server_id=order.server_id, epoch=order.epoch, networks=(network,), ports=tuple(
        PortFacts(id=str(uuid.uuid4()), name="", project_id="p", network_id=network.id, network_name="net",
                  device_id=order.server_id, mac_address=f"fa:16:3e:00:00:{i:02x}", fixed_ips=(), position=i)
        for i in range(ports)))


class ControlSide:
    """The conductor and the network as a node meets them: remembers, and knows every port it was shown."""

    def __init__(self) -> None:
        self.hellos: list[NodeHello] = []
        self.reports: list[HostReport] = []
        self.agent_reports = 0
        self.power: list[tuple[str, str]] = []
        self.unwanted: tuple[str, ...] = ()
        self.ports: dict[str, PortFacts] = {}
        self.active: set[str] = set()

    async def hello(self, hello: NodeHello) -> tuple[str, ...]:
        self.hellos.append(hello)
        return self.unwanted

    async def report(self, report: HostReport) -> None:
        self.reports.append(report)

    async def power_changed(self, host: str, server_id: str, power: str) -> None:
        self.power.append((server_id, power))

    async def wiring(self, host: str, port_ids: tuple[str, ...] = ()) -> HostWiring:
        return HostWiring(whole=not port_ids, ports=tuple(
            p for p in self.ports.values() if not port_ids or p.id in port_ids))

    async def wired(self, host: str, port_ids: tuple[str, ...], up: bool) -> None:
        self.active = self.active | set(port_ids) if up else self.active - set(port_ids)

    async def agent_report(self, report: AgentReport) -> None:
        self.agent_reports += 1

    def show(self, spawn: SpawnOrder) -> SpawnOrder:
        self.ports |= {port.id: port for port in spawn.ports}
        return spawn
