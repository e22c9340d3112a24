"""A compute host with its network agent."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import structlog

from nacre.base.clock import Clock, RealClock
from nacre.base.durable.files import write_whole
from nacre.base.rpc.server import Peer
from nacre.base.rpc.stub import stub
from nacre.cloud.running import Running, Transport
from nacre.conductor.contract import TARGET as CONDUCTOR
from nacre.conductor.contract import Conductor, ControlAddress
from nacre.config import Settings, SettingsError, is_loopback, kept_external
from nacre.image.contract import TARGET as IMAGE
from nacre.image.contract import Images
from nacre.network.contract import DIFFERENCES, WAITS, AgentReport, Network
from nacre.network.contract import TARGET as NETWORK
from nacre.node.contract import TARGET as NODE
from nacre.node.contract import Node
from nacre.node.hypervisor.driver import Capabilities, HypervisorSettings
from nacre.node.hypervisor.fake import FakeHypervisor, Faults
from nacre.node.hypervisor.registry import HYPERVISORS
from nacre.node.journal import Journal
from nacre.node.manager import NodeManager, NodeSettings
from nacre.node.ovs.fake import AGENTS, FakeWiring
from nacre.node.service import NodeService

log = structlog.get_logger()


class ControlWays:
    """The control processes that a host speaks to: the one it was started with, then all that those name. Kept in a
    file, so that the host finds the others when it comes back and the first is gone."""

    def __init__(self, transport: Transport, file: Path, first: ControlAddress):
        self._transport, self._file = transport, file
        #: What the file says; and whether a control has named them since: only that is worth a file.
        self._kept, self._learned = (kept := _kept(file)), False
        self._known = [first, *(c for c in kept if c.id != first.id)] if first.id else kept
        for control in self._known:
            self._open(control)

    def known(self) -> Sequence[ControlAddress]:
        return self._known

    def learn(self, controls: Sequence[ControlAddress]) -> None:
        """Exactly these from now on, written down at once or, where that fails, when `keep` can."""
        if list(controls) != self._known:
            self._replace(controls)
        self._learned = True
        self.keep()

    def keep(self) -> None:
        """Write down what is known, unless it is: one that left would be believed again after a restart."""
        if not self._learned or self._kept == self._known:
            return
        try:
            write_whole(self._file, msgspec.json.encode(self._known))
            self._kept = self._known
        except OSError as error:
            log.warning("the control processes that this host knows are not written down yet", file=str(self._file),
                        why=str(error))

    def _replace(self, controls: Sequence[ControlAddress]) -> None:
        for gone in {c.id for c in self._known} - {c.id for c in controls}:
            self._transport.directory.unroute("control", gone)
        for key in {c.public_key for c in self._known} - {c.public_key for c in controls} - {""}:
            self._transport.directory.revoke(key)  # whoever has it gives no orders here any more
        self._known = list(controls)
        for control in self._known:
            self._open(control)

    def conductor(self, control: str) -> Conductor:
        return stub(Conductor, self._transport.client(CONDUCTOR).prepare(server=control, timeout=WAITS))

    def _open(self, control: ControlAddress) -> None:
        if control.public_key:
            self._transport.directory.register(control.public_key, Peer(control.id, "control"))
            self._transport.directory.route("control", control.id, control.address, control.public_key)


def _kept(file: Path) -> list[ControlAddress]:
    """Those of the file; none if it cannot be read: the first control that answers names all of them."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=list[ControlAddress])
    except FileNotFoundError:
        return []
    except msgspec.DecodeError as error:
        log.warning("the control processes that this host knew are lost", file=str(file), why=str(error))
        return []


@dataclass
class RunningNode(Running):
    """A compute host."""

    service: NodeService = field(kw_only=True)


def build_node(settings: Settings, transport: Transport, clock: Clock | None = None,
               faults: Faults | None = None) -> RunningNode:
    """The objects of a compute host. faults: a simulated hypervisor's."""
    clock, own, folder = clock or RealClock(), settings.node, settings.data / "node"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    journal = Journal(folder / "journal.db", clock)
    network = stub(Network, transport.client(NETWORK).prepare(timeout=WAITS))
    names = ""
    if settings.hypervisor == "fake":
        hypervisor, wiring = _fake_host(settings, network, clock, faults)
    else:
        names = joined_cloud(journal, settings.rpc.cloud)
        hypervisor, wiring = _libvirt_host(settings, transport, network, names)
    manager = NodeManager(NodeSettings(
        host=settings.host_name, max_builds=own.max_builds, heartbeat=own.report_period,
        queue_name=own.queue, cpu_ratio=own.cpu_ratio, ram_ratio=own.ram_ratio, disk_ratio=own.disk_ratio,
        reserved_memory_mb=own.reserved_memory_mb, net_bandwidth=own.net_bandwidth, disk_bandwidth=own.disk_bandwidth,
        disks=own.disks, host_ip=own.tunnel_ip, endpoint=transport.address), journal, hypervisor, wiring, clock)
    first = ControlAddress(settings.rpc.control_name, settings.rpc.control, settings.rpc.control_key)
    service = NodeService(manager, ControlWays(transport, folder / "controls.json", first))

    async def name() -> None:
        if names != journal.facts.names:
            await journal.learn(names=names)

    async def open_door() -> None:
        """Orders are taken when hypervisor and wiring are ready; until then the control side asks again."""
        transport.serve(NODE, manager, Node, ("control",))

    return RunningNode(start=[name, service.start, open_door], stop=[service.stop], ready=service.greeted,
                       tasks=_outside(settings, names, clock) if names else [], service=service)


def _outside(settings: Settings, cloud: str, clock: Clock) -> list[Any]:
    """What keeps the public network's way out as `nacre up` was told."""
    from nacre.node.hypervisor.libvirt.places import host_names
    from nacre.node.routing.external import Outside, Uplink

    told = kept_external(settings.data)
    if not told.leads:
        return []
    outside = Outside(Uplink(names=host_names(cloud, guests_folder(settings.data), tuple(settings.node.disks)),
                             cidr=told.cidr if told.kind == "nat" else "", interface=told.interface))
    return [lambda: outside.keep(clock)]


def _fake_host(settings: Settings, network: Network, clock: Clock, faults: Faults | None) -> tuple[Any, Any]:
    own = settings.fake
    capabilities = Capabilities(hypervisor_type="fake", hypervisor_version=1000000, vcpus=own.vcpus,
                                memory_mb=own.memory_mb, disk_gb=own.disk_gb,
                                directories_mb=dict.fromkeys(settings.node.disks, own.disk_gb * 1024))
    hypervisor = FakeHypervisor(
        capabilities, faults=faults or Faults(delay={"define": own.spawn_delay} if own.spawn_delay else {}),
        folder=settings.data / "node" / "fake-guests", clock=clock)
    address = settings.node.tunnel_ip
    report = AgentReport(host=settings.host_name, tunnel_ip=None if not address or is_loopback(address) else address,
                         tunnel_types=("vxlan",), bridge_mappings={
                             physical: bridge or "br-ex" for physical, bridge in settings.node.bridge_mappings.items()},
                         takes=(DIFFERENCES,), agents=AGENTS)
    return hypervisor, FakeWiring(settings.host_name, network, clock=clock, report=report)


def _libvirt_host(settings: Settings, transport: Transport, network: Network, cloud: str) -> tuple[Any, Any]:
    from nacre.node.hypervisor.libvirt.places import host_names
    from nacre.node.ovs.agent import OvsHost, ovs_wiring

    own, host = settings.node, settings.host_name
    conductor = stub(Conductor, transport.client(CONDUCTOR).prepare(timeout=WAITS))
    folder, disks = guests_folder(settings.data), tuple(own.disks)
    names = host_names(cloud, folder, disks)
    wiring = ovs_wiring(OvsHost(
        host=host, names=names, folder=settings.data, tunnel_ip=own.tunnel_ip or None,
        vxlan_port=settings.network.vxlan_port, bridge_mappings=own.bridge_mappings, datapath=own.datapath),
        network, lambda server_id: conductor.guest_facts(host, server_id))
    hypervisor = HYPERVISORS["libvirt"](HypervisorSettings(
        folder=folder, names=names, virt_type=own.virt_type, uri=own.libvirt_uri, disks=disks),
        stub(Images, transport.client(IMAGE)), wiring)
    return hypervisor, wiring


def joined_cloud(journal: Journal, given: str) -> str:
    """The cloud that names what is here: with anything held, that by which it was named (an operator may have given the
    host to another since); with nothing to lose, that which the host is given to."""
    facts = journal.facts
    kept = facts.names or facts.cloud if journal.all() else facts.cloud
    cloud = kept if journal.all() and kept else given or kept
    if not cloud:
        raise SettingsError("rpc.cloud: a host with guests must be given the id of the cloud that it joins.")
    return cloud


def guests_folder(data: Path) -> Path:
    """Where guests' disks lie: in the data folder if QEMU's own account can reach them there, else under /var/lib."""
    inside = data / "node"
    if all(p.stat().st_mode & 0o001 for p in data.parents if p.exists()):
        inside.chmod(0o711)
        data.chmod(data.stat().st_mode | 0o011)
        return inside / "guests"
    return Path("/var/lib/nacre") / hashlib.sha256(str(data).encode()).hexdigest()[:12]
