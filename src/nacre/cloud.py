"""The only wiring: makes the objects of a role and joins them by a transport. Nothing else constructs across services.

A role is built over any transport: the network's in `nacre up`, the in-memory one in tests and simulations.
"""

import asyncio
import contextlib
import hashlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import structlog

from nacre.base.clock import Clock, RealClock
from nacre.base.errors import Unavailable
from nacre.base.rpc.keys import load_keys
from nacre.base.rpc.server import Allow, Peer
from nacre.base.rpc.stub import Client, stub
from nacre.base.rpc.target import Target
from nacre.base.signals import on_stop_signal
from nacre.conductor.contract import TARGET as CONDUCTOR
from nacre.conductor.contract import Conductor, NodeHello
from nacre.config import Settings
from nacre.image.contract import TARGET as IMAGE
from nacre.image.contract import Images
from nacre.network.contract import TARGET as NETWORK
from nacre.network.contract import AgentReport, Network
from nacre.node.contract import TARGET as NODE
from nacre.node.contract import Node

if TYPE_CHECKING:  # a node process never loads these
    from nacre.base.db import Database
    from nacre.base.web import App
    from nacre.node.hypervisor.fake import Faults

log = structlog.get_logger()

#: Which roles may ask for which verb of the control process.
CONDUCTOR_ALLOW = {**dict.fromkeys(("run", "plan"), ("control",)),
                   **dict.fromkeys(("hello", "report", "power_changed", "guest_facts"), ("node",))}
NETWORK_ALLOW = dict.fromkeys(("wiring", "wired", "agent_report"), ("node",))
IMAGE_ALLOW = {"find": ("control",), "read": ("control", "node")}
#: Seconds until a host that works is asked again; it joins the call to the work that runs.
NODE_TIMEOUT = 30.0


class Transport(Protocol):
    """What the wiring needs of a transport; the network's and the in-memory one both have it."""

    def client(self, target: Target) -> Client: ...
    def serve(self, target: Target, endpoint: Any, contract: type, allow: Allow = None) -> None: ...


@dataclass
class Running:
    """Something built: `start` in order, background tasks meanwhile, `stop` in reverse."""

    start: list[Callable[[], Awaitable[Any]]] = field(default_factory=list)
    tasks: list[Callable[[], Awaitable[Any]]] = field(default_factory=list)
    stop: list[Callable[[], Awaitable[Any]]] = field(default_factory=list)

    @contextlib.asynccontextmanager
    async def __call__(self) -> AsyncIterator[None]:
        """Runs until the block ends."""
        for step in self.start:
            await step()
        tasks = [asyncio.ensure_future(_keep(task)) for task in self.tasks]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for step in reversed(self.stop):
                try:
                    await step()
                except Exception:
                    log.exception("something did not stop cleanly")


async def _keep(task: Callable[[], Awaitable[Any]]) -> None:
    """A background task that shall run for ever does so, whatever it meets."""
    while True:
        try:
            await task()
        except Unavailable as error:
            log.warning("a background task waits", why=error.message)
        except Exception:
            log.exception("a background task failed and is started again")
        await asyncio.sleep(1)


@dataclass
class Control:
    """The control process: APIs, conductor, scheduler, network, images, identity."""

    settings: Settings
    db: "Database"
    app: "App"
    running: Running
    parts: dict[str, Any]


@dataclass(frozen=True)
class Seams:
    """Where a simulation joins in. chance: the scheduler's dice; watch: what takes the scheduler's place, given it."""

    chance: random.Random | None = None
    watch: Callable[[Any], Any] = lambda scheduler: scheduler


def build_control(settings: Settings, transport: Transport, db: "Database", clock: Clock | None = None,
                  seams: Seams = Seams()) -> Control:
    """The control process's objects. Nothing is started, no file but the token keys is touched."""
    from nacre.base.web import App

    clock, running = clock or RealClock(), Running()
    parts: dict[str, Any] = {"db": db, "clock": clock, "transport": transport, "seams": seams}
    policy = parts["policy"] = _policy(settings)
    services = [
        _identity(settings, parts, running),
        _images(settings, parts, running),
        _network(settings, parts, running),
        _compute(settings, parts, running),
    ]
    identity = parts["identity"]
    app = App(services, identity.authenticate, policy.check)
    return Control(settings, db, app, running, parts)


def _policy(settings: Settings) -> Any:
    from nacre.compute.policies import POLICIES as compute
    from nacre.identity.policies import POLICIES as identity
    from nacre.identity.policy import PolicyEngine
    from nacre.image.policies import POLICIES as image
    from nacre.network.policies import POLICIES as network

    return PolicyEngine((identity, image, network, compute), settings.data / "policy.yaml")


def _identity(settings: Settings, parts: dict[str, Any], running: Running) -> Any:
    from nacre.identity.api.service import service
    from nacre.identity.keys import Keyring
    from nacre.identity.passwords import Passwords
    from nacre.identity.service import IdentityService
    from nacre.identity.store import Store

    own = settings.identity
    parts["passwords"] = Passwords(time_cost=own.argon2[0], memory=own.argon2[1])
    parts["identity"] = IdentityService(
        Store(parts["db"], parts["clock"]), Keyring(settings.data / "control" / "token-keys"), parts["passwords"],
        own.token_lifetime)
    return service(parts["identity"], parts["policy"], Keyring(settings.data / "control" / "credential-keys"))


def _images(settings: Settings, parts: dict[str, Any], running: Running) -> Any:
    from nacre.image.api.service import service
    from nacre.image.members import Members
    from nacre.image.metadefs.service import Metadefs
    from nacre.image.service import ImageService
    from nacre.image.service import Settings as Limits
    from nacre.image.stores import FileStore
    from nacre.image.uploads import Uploads

    store = FileStore(settings.data / "control" / "images")
    images = parts["images"] = ImageService(parts["db"], parts["policy"], store, parts["clock"], Limits(
        max_image_bytes=settings.images.max_bytes, max_project_bytes=settings.images.max_project_bytes or None))
    uploads = Uploads(images)
    running.start.append(uploads.recover)
    running.stop.append(uploads.close)
    parts["transport"].serve(IMAGE, images, Images, IMAGE_ALLOW)
    return service(images, uploads, Members(images), Metadefs(images))


def _network(settings: Settings, parts: dict[str, Any], running: Running) -> Any:
    from nacre.network.api.service import service
    from nacre.network.manager import Around, NetworkManager
    from nacre.network.ml2.types import SegmentTypes
    from nacre.network.work import DEFAULT_QUOTAS, NetworkSettings

    own, quotas, nodes = settings.network, settings.quotas, parts["transport"].client(NODE)

    async def notify(hosts: set[str], port_ids: tuple[str, ...]) -> None:
        for host in hosts:
            await stub(Node, nodes.prepare(server=host)).rewire(port_ids)

    network = parts["network"] = NetworkManager(parts["db"], parts["policy"], parts["clock"], NetworkSettings(
        types=SegmentTypes(tenant_types=own.tenant_types, vlan_ranges=dict.fromkeys(
            settings.node.bridge_mappings, own.vlan_range), vni_range=own.vni_range, physical_mtu=own.mtu),
        drivers=own.mechanisms, dns_domain=own.dns_domain,
        quotas={**DEFAULT_QUOTAS, "network": quotas.networks, "port": quotas.ports,
                "security_group": quotas.security_groups}), Around(notify=notify))
    parts["transport"].serve(NETWORK, network, Network, NETWORK_ALLOW)
    return service(network)


def _compute(settings: Settings, parts: dict[str, Any], running: Running) -> Any:
    from nacre.compute.api.servers.desk import ServerDesk
    from nacre.compute.api.service import Parts, service
    from nacre.compute.catalog.aggregates import Aggregates
    from nacre.compute.catalog.flavors import Flavors
    from nacre.compute.catalog.keypairs import KeyPairs
    from nacre.compute.catalog.quotas import Quotas
    from nacre.compute.catalog.server_groups import ServerGroups
    from nacre.compute.history import History
    from nacre.compute.plans import Plans
    from nacre.compute.servers import Servers, Suppliers
    from nacre.conductor.hosts import Hosts

    db, clock, own, transport = parts["db"], parts["clock"], settings.quotas, parts["transport"]
    flavors = parts["flavors"] = Flavors(db, clock)
    quotas = Quotas(db, {"instances": own.instances, "cores": own.cores, "ram": own.ram_mb})
    keypairs = KeyPairs(db, clock)

    async def refresh() -> None:
        await parts["scheduler"].refresh()

    aggregates = Aggregates(db, clock, refresh)
    scheduler = _scheduler(settings, parts, running, aggregates)
    conductor = stub(Conductor, transport.client(CONDUCTOR))
    servers = parts["servers"] = Servers(db, clock, Suppliers(
        flavors=flavors, keypairs=keypairs, quotas=quotas, images=parts["images"], network=parts["network"]),
        conductor.run)
    nodes = transport.client(NODE).prepare(timeout=NODE_TIMEOUT)

    def node(host: str) -> Node:
        return stub(Node, nodes.prepare(server=host))

    desk = ServerDesk(db, servers, History(db), node)
    _conductor(settings, parts, running, Hosts(node, clock), aggregates.zones)
    return service(Parts(
        policy=parts["policy"], identity=parts["identity"], clock=clock, desk=desk, network=parts["network"],
        scheduler=scheduler, flavors=flavors, keypairs=keypairs, quotas=quotas, aggregates=aggregates,
        planner=Plans(servers, conductor), groups=ServerGroups(db, clock), images=parts["images"]))


def _scheduler(settings: Settings, parts: dict[str, Any], running: Running, aggregates: Any) -> Any:
    from nacre.compute.progress import Progress
    from nacre.scheduler.filter_scheduler import FilterScheduler
    from nacre.scheduler.manager import Facts, Options, SchedulerManager

    own, progress = settings.scheduler, Progress(parts["db"], parts["clock"])
    parts["progress"], seams = progress, parts["seams"]
    scheduler = parts["scheduler"] = seams.watch(SchedulerManager(
        parts["db"], parts["clock"],
        FilterScheduler(own.strategy, own.sign, own.best, filters=own.filters, chance=seams.chance),
        Facts(aggregates=aggregates.by_host, servers=progress.on_hosts),
        Options(default_queue=own.default_queue, rebuild_seconds=own.period)))
    running.start.append(scheduler.start)
    running.tasks.append(scheduler.run)
    return scheduler


def _conductor(settings: Settings, parts: dict[str, Any], running: Running, hosts: Any, zones: Any) -> None:
    from nacre.compute.stories import Stories
    from nacre.conductor.manager import ConductorManager
    from nacre.conductor.parts import Parts, Patience

    transport, clock = parts["transport"], parts["clock"]

    def introduce(hello: NodeHello) -> None:
        if hello.endpoint:
            transport.route("node", hello.host, hello.endpoint, hello.public_key)

    conductor = ConductorManager(Parts(
        progress=parts["progress"], scheduler=parts["scheduler"], network=parts["network"], images=parts["images"],
        hosts=hosts, clock=clock, zones=zones, patience=Patience(attempts=settings.scheduler.attempts)),
        Stories(parts["db"], clock, "control"), introduce)
    transport.serve(CONDUCTOR, conductor, Conductor, CONDUCTOR_ALLOW)
    running.start.append(conductor.start)
    running.tasks.append(conductor.sweep)
    running.stop.append(conductor.stop)


def build_node(settings: Settings, transport: Transport, clock: Clock | None = None,
               endpoint: tuple[str, str] = ("", ""), faults: "Faults | None" = None) -> Running:
    """The objects of a compute host. endpoint: where its transport answers, and its public key. faults: a simulated
    hypervisor's."""
    from nacre.node.manager import NodeManager, NodeSettings
    from nacre.node.service import NodeService

    clock, own, host = clock or RealClock(), settings.node, settings.host_name
    network = stub(Network, transport.client(NETWORK))
    conductor = stub(Conductor, transport.client(CONDUCTOR))
    folder = settings.data / "node"
    if settings.hypervisor == "fake":
        hypervisor, wiring = _fake_host(settings, network, clock, faults)
    else:
        hypervisor, wiring = _libvirt_host(settings, network, conductor, stub(Images, transport.client(IMAGE)))
    manager = NodeManager(NodeSettings(
        host=host, folder=folder, max_builds=own.max_builds, heartbeat=own.report_period, queue_name=own.queue,
        cpu_ratio=own.cpu_ratio, ram_ratio=own.ram_ratio, disk_ratio=own.disk_ratio,
        reserved_memory_mb=own.reserved_memory_mb, net_bandwidth=own.net_bandwidth, disk_bandwidth=own.disk_bandwidth,
        disks=own.disks, host_ip=own.tunnel_ip, endpoint=endpoint[0], public_key=endpoint[1],
    ), hypervisor, wiring, clock)
    service = NodeService(manager, conductor, network)

    async def open_door() -> None:
        """Orders are taken when hypervisor and wiring are ready; until then the control side asks again."""
        transport.serve(NODE, manager, Node, ("control",))

    return Running(start=[service.start, open_door], stop=[service.stop])


def _fake_host(settings: Settings, network: Network, clock: Clock, faults: "Faults | None") -> tuple[Any, Any]:
    from nacre.node.hypervisor.driver import Capabilities
    from nacre.node.hypervisor.fake import FakeHypervisor, Faults
    from nacre.node.ovs.fake import FakeWiring

    own = settings.fake
    capabilities = Capabilities(hypervisor_type="fake", hypervisor_version=1000000, vcpus=own.vcpus,
                                memory_mb=own.memory_mb, disk_gb=own.disk_gb,
                                directories_mb=dict.fromkeys(settings.node.disks, own.disk_gb * 1024))
    hypervisor = FakeHypervisor(
        capabilities, faults=faults or Faults(delay={"define": own.spawn_delay} if own.spawn_delay else {}),
        folder=settings.data / "node" / "fake-guests", clock=clock)
    report = AgentReport(host=settings.host_name, tunnel_ip=settings.node.tunnel_ip,
                         bridge_mappings=settings.node.bridge_mappings, tunnel_types=("vxlan",))
    return hypervisor, FakeWiring(settings.host_name, network, clock=clock, report=report)


def _libvirt_host(settings: Settings, network: Network, conductor: Conductor, images: Images) -> tuple[Any, Any]:
    from nacre.node.hypervisor.registry import HYPERVISORS, HypervisorSettings
    from nacre.node.ovs.agent import OvsHost, ovs_wiring

    own, host = settings.node, settings.host_name
    wiring = ovs_wiring(OvsHost(
        host=host, folder=settings.data / "node", cloud=settings.data, tunnel_ip=own.tunnel_ip or None,
        bridge_mappings=own.bridge_mappings, datapath=own.datapath),
        network, lambda server_id: conductor.guest_facts(host, server_id))
    hypervisor = HYPERVISORS["libvirt"](HypervisorSettings(
        folder=guests_folder(settings.data), virt_type=own.virt_type, uri=own.libvirt_uri,
        disks=tuple(own.disks)), images, wiring)
    return hypervisor, wiring


def guests_folder(data: Path) -> Path:
    """Where guests' disks lie: in the data folder if QEMU's own account can reach them there, else under /var/lib."""
    inside = data / "node"
    if all(p.stat().st_mode & 0o001 for p in data.parents if p.exists()):
        inside.chmod(0o711)
        data.chmod(data.stat().st_mode | 0o011)
        return inside / "guests"
    return Path("/var/lib/nacre") / hashlib.sha256(str(data).encode()).hexdigest()[:12]


async def run_control(settings: Settings) -> None:
    """The control process, until it is told to stop."""
    import uvicorn

    from nacre.base.db import Database
    from nacre.base.rpc.zmq import ZmqTransport
    from nacre.cli.bootstrap import first_rows

    own = settings.rpc
    transport = ZmqTransport(Peer("control", "control"), load_keys(settings.data / "control" / "rpc-key.json"),
                             f"tcp://{own.listen}:{own.port}")
    for host, introduction in own.node_keys.items():
        key, _, address = introduction.partition(" ")
        transport.register(key, Peer(host, "node"))
        if address:
            transport.route("node", host, address, key)
    db = Database(settings.database)
    control = build_control(settings, transport, db)
    server = uvicorn.Server(uvicorn.Config(
        control.app, settings.host, settings.port, loop="none", http="httptools", ws="none", lifespan="off",
        access_log=False, log_config=None, server_header=False, date_header=False, timeout_graceful_shutdown=3))
    try:
        await first_rows(control)
        await transport.start()
        async with control.running():
            await server.serve()
    finally:
        await transport.close()
        await db.close()


async def run_node(settings: Settings) -> None:
    """The node process, until it is told to stop."""
    from nacre.base.rpc.zmq import ZmqTransport

    own, keys = settings.rpc, load_keys(settings.data / "node" / "rpc-key.json")
    transport = ZmqTransport(Peer(settings.host_name, "node"), keys, f"tcp://{own.listen}:{own.port}")
    transport.register(own.control_key, Peer("control", "control"))
    transport.route("control", "control", own.control, own.control_key)
    await transport.start()
    stopping = asyncio.Event()
    on_stop_signal(stopping.set)
    try:
        async with build_node(settings, transport, endpoint=(transport.address, keys.public))():
            await stopping.wait()
    finally:
        await transport.close()
