"""Orders and a control side for the node's tests."""

import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from nacre.base.errors import Unavailable
from nacre.conductor.contract import Beat, ControlAddress, Heard, NodeHello, Welcome
from nacre.image.contract import ImageFacts
from nacre.network.contract import Differences, Have, HostWiring, NetworkFacts, PortFacts, Routing, Versions
from nacre.node.contract import BuildOrder, EndOrder, Guest, GuestFacts, PowerOrder, SpawnOrder, Work
from nacre.scheduler.contract import HostReport


def unheeded(done: int, total: int) -> None:
    """Progress that nobody watches."""


async def done(give: Callable[[], Awaitable[Work]]) -> Guest:
    """The order's guest, once its work is done."""
    while not (work := await give()).done:
        pass
    assert work.guest is not None
    return work.guest


def build_order(server_id: str | None = None, epoch: int = 1, **changes: Any) -> BuildOrder:
    server_id = server_id or str(uuid.uuid4())
    order = BuildOrder(
        cloud="cloud", allocation=f"{server_id}/{epoch}", server_id=server_id, epoch=epoch,
        memory_mb=512, vcpus=1, root_gb=1, ephemeral_gb=0, swap_mb=0,
        limit_vcpus=16, limit_memory_mb=4096, limit_disk_mb=20480, image=image_facts(),
        guest=GuestFacts(id=server_id, name="web", hostname="web", project_id="p", user_id="u",
                         availability_zone="nova"))
    return msgspec.structs.replace(order, **changes)


def end_order(order: BuildOrder, epoch: int | None = None) -> EndOrder:
    return EndOrder(cloud=order.cloud, allocation=order.allocation, server_id=order.server_id,
                    epoch=epoch or order.epoch)


def power_order(order: BuildOrder, action: str, epoch: int | None = None) -> PowerOrder:
    return PowerOrder(cloud=order.cloud, allocation=order.allocation, server_id=order.server_id,
                      epoch=epoch or order.epoch, action=action)


def image_facts(**changes: Any) -> ImageFacts:
    facts = ImageFacts(id="img", name="tiny", owner=None, status="active", disk_format="qcow2",
                       container_format="bare", size=1, virtual_size=1, checksum=None, os_hash_algo="sha512",
                       os_hash_value="0" * 128)
    return msgspec.structs.replace(facts, **changes)


def spawn_order(order: BuildOrder, ports: int = 1) -> SpawnOrder:
    network = NetworkFacts(id=str(uuid.uuid4()), name="net", project_id="p", mtu=1450, network_type="local",
                           physical_network=None, segmentation_id=None)
    secrets = msgspec.structs.replace(order.guest, admin_password="sesame-7731", user_data="c2VjcmV0")
    return SpawnOrder(cloud=order.cloud, allocation=order.allocation, server_id=order.server_id, epoch=order.epoch,
                      networks=(network,), guest=secrets, ports=tuple(
        PortFacts(id=str(uuid.uuid4()), name="", project_id="p", network_id=network.id, network_name="net",
                  device_id=order.server_id, mac_address=f"fa:16:3e:00:00:{i:02x}", fixed_ips=(), position=i)
        for i in range(ports)))


class ControlSide:
    """The conductor and the network as a node meets them: remembers, and knows every port it was shown."""

    def __init__(self) -> None:
        self.hellos: list[NodeHello] = []
        self.beats: list[Beat] = []
        self.welcome, self.away, self.again = Welcome(cloud="cloud", position=1), False, False
        self.period = 0.0
        self.ports: dict[str, PortFacts] = {}
        self.active: set[str] = set()

    async def hello(self, hello: NodeHello) -> Welcome:
        if self.away:
            raise Unavailable("away")
        self.hellos.append(hello)
        return self.welcome

    async def beat(self, beat: Beat) -> Heard:
        if self.away:
            raise Unavailable("away")
        self.beats.append(beat)
        return Heard(again=self.again, period=self.period)

    @property
    def reports(self) -> list[HostReport]:
        return [beat.report for beat in self.beats]

    def powers(self) -> dict[str, str]:
        """What the last beat said of guests."""
        return {held.server_id: held.power for held in self.beats[-1].report.held} if self.beats else {}

    async def wiring(self, host: str, port_ids: tuple[str, ...] = (), have: Versions | None = None,
                     known: Have | None = None) -> HostWiring:
        return HostWiring(whole=not port_ids, ports=tuple(
            p for p in self.ports.values() if not port_ids or p.id in port_ids))

    async def differences(self, host: str, groups: tuple[str, ...], networks: tuple[str, ...],
                          known: Have) -> Differences:
        return Differences()

    async def routing(self, host: str) -> Routing:
        return Routing()

    async def wired(self, host: str, port_ids: tuple[str, ...], up: bool) -> None:
        self.active = self.active | set(port_ids) if up else self.active - set(port_ids)

    def show(self, spawn: SpawnOrder) -> SpawnOrder:
        self.ports |= {port.id: port for port in spawn.ports}
        return spawn


class Controls:
    """The ways to control sides, by name."""

    def __init__(self, **sides: ControlSide):
        self.sides, self.listed = sides, list(sides)

    def known(self) -> list[ControlAddress]:
        return [ControlAddress(name, "", "") for name in self.listed]

    def learn(self, controls: Any) -> None:
        self.listed = [control.id for control in controls]

    def keep(self) -> None:
        """Nothing is written down."""

    def conductor(self, control: str) -> Any:
        return self.sides[control]
