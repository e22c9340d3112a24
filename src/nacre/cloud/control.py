"""The control process: APIs, conductor, scheduler, network, images, identity. Several may serve one database."""

import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import structlog

from nacre import __version__
from nacre.base.clock import Clock, RealClock
from nacre.base.db import Database
from nacre.base.db.together import Together
from nacre.base.durable.changes import Changes
from nacre.base.durable.eras import Position, later, position
from nacre.base.durable.files import write_whole
from nacre.base.durable.processes import Process, Processes
from nacre.base.durable.processes import nodes as nodes_of
from nacre.base.durable.stories import Stories
from nacre.base.errors import NotFound
from nacre.base.rpc.stub import stub
from nacre.base.serving.health import Health
from nacre.base.serving.inside import Inside
from nacre.base.serving.turns import Turns
from nacre.base.web import App, Service
from nacre.cloud.barred import barred_on, blocked
from nacre.cloud.contract import TARGET as JOIN
from nacre.cloud.contract import Joins
from nacre.cloud.introductions import ImagePeers, Introductions
from nacre.cloud.joining import JoinService
from nacre.cloud.membership import Membership
from nacre.cloud.running import Running, Transport
from nacre.compute import policies as compute_policies
from nacre.compute.allocations import Ledger
from nacre.compute.api.hosts.plans import Plans
from nacre.compute.api.placement.service import CandidateThreads, PlacementDeps
from nacre.compute.api.placement.service import service as placement_service
from nacre.compute.api.servers.limits import Limits as ServerLimits
from nacre.compute.api.service import ComputeDeps, Proxied
from nacre.compute.api.service import service as compute_service
from nacre.compute.catalog.aggregates import Aggregates
from nacre.compute.catalog.flavors import Flavors
from nacre.compute.catalog.keypairs import KeyPairs
from nacre.compute.catalog.quotas import Quotas
from nacre.compute.catalog.server_groups import ServerGroups
from nacre.compute.create import CreateDeps
from nacre.compute.history import History
from nacre.compute.ledger_admin import LedgerAdmin
from nacre.compute.progress import Progress
from nacre.compute.records import project_of
from nacre.compute.servers import Servers
from nacre.conductor.build import Builder
from nacre.conductor.contract import TARGET as CONDUCTOR
from nacre.conductor.contract import Conductor
from nacre.conductor.delete import Deleter
from nacre.conductor.deps import StoryDeps
from nacre.conductor.endings import Endings
from nacre.conductor.hosts import Hosts, Patience
from nacre.conductor.manager import ConductorDeps, ConductorManager
from nacre.conductor.orphans import OrphanDeps, Orphans
from nacre.conductor.power import Switch
from nacre.conductor.stories import StoryRunner
from nacre.config import Settings
from nacre.identity import policies as identity_policies
from nacre.identity.api.providers import UserLimits
from nacre.identity.api.service import front
from nacre.identity.api.service import service as identity_service
from nacre.identity.keys.ring import Ring, Signer
from nacre.identity.keys.seal import Seal
from nacre.identity.keys.store import Keys
from nacre.identity.passwords import Passwords
from nacre.identity.policy import PolicyEngine
from nacre.identity.service import IdentityService
from nacre.identity.store import Store
from nacre.image import policies as image_policies
from nacre.image.api.service import service as image_service
from nacre.image.contract import TARGET as IMAGE
from nacre.image.contract import Images
from nacre.image.data.cleanup import Cleanup
from nacre.image.data.locations import Locations, image_stores
from nacre.image.data.uploads import Uploads
from nacre.image.endpoint import ImagesEndpoint
from nacre.image.members import Members
from nacre.image.metadefs.service import Metadefs
from nacre.image.service import ImageService
from nacre.image.service import Settings as ImageLimits
from nacre.network import policies as network_policies
from nacre.network.api.service import service as network_service
from nacre.network.contract import TARGET as NETWORK
from nacre.network.contract import GroupMembers, Network
from nacre.network.hosts import trimming
from nacre.network.hosts.notifications import DifferenceNotifier, News, Notice
from nacre.network.manager import NetworkManager, NetworkParts
from nacre.network.ml2.type_drivers import SegmentTypes
from nacre.network.work import DEFAULT_QUOTAS, NetworkSettings
from nacre.node.contract import TARGET as NODE
from nacre.node.contract import Node
from nacre.scheduler.filter_scheduler import FilterScheduler
from nacre.scheduler.manager import Options, SchedulerDeps, SchedulerManager
from nacre.scheduler.registry import HostRegistry

log = structlog.get_logger()

#: Which roles may ask for which verb of the control process.
CONDUCTOR_ALLOW = dict.fromkeys(("hello", "beat", "guest_facts"), ("node",))
NETWORK_ALLOW = dict.fromkeys(("wiring", "differences", "members", "wired", "routing", "routed"), ("node",))
IMAGE_ALLOW = {"find": ("control",), "read": ("control", "node")}
JOIN_ALLOW = {"join": ("join",)}
#: Seconds until an order is given anew: a host answers sooner, done or not.
NODE_TIMEOUT = 15.0
#: Until a host counts as deaf to news of the network (seconds).
NOTICE_TIMEOUT = 5.0


@dataclass(frozen=True)
class Seams:
    """Where a simulation joins in. chance: the scheduler's dice; watch: what takes the scheduler's place, given it."""

    chance: random.Random | None = None
    watch: Callable[[Any], Any] = lambda scheduler: scheduler


@dataclass(frozen=True)
class Base:
    """What every service of a control process stands on. process: its id."""

    settings: Settings
    process: str
    db: Database
    clock: Clock
    transport: Transport
    running: Running
    policy: PolicyEngine
    processes: Processes
    changes: Changes
    ledger: Ledger


@dataclass(frozen=True)
class Control:
    """A control process, built."""

    base: Base
    app: App
    health: Health
    keys: Keys
    passwords: Passwords
    images: ImageService
    network: NetworkManager
    flavors: Flavors
    servers: Servers
    registry: HostRegistry
    conductor: ConductorManager
    stories: Stories
    endings: Endings
    introductions: Introductions

    @property
    def settings(self) -> Settings:
        return self.base.settings

    @property
    def db(self) -> Database:
        return self.base.db

    @property
    def running(self) -> Running:
        return self.base.running


def build_control(settings: Settings, transport: Transport, db: Database, clock: Clock | None = None,
                  seams: Seams = Seams()) -> Control:
    """The control process's objects. Nothing is started, no file but the process's id is touched."""
    clock = clock or RealClock()
    rules = (identity_policies, image_policies, network_policies, compute_policies)
    policy = PolicyEngine([r.POLICIES for r in rules], settings.data / "policy.yaml", [r.SCOPES for r in rules])
    base = Base(settings, process_id(settings.control), db, clock, transport, Running(), policy,
                Processes(db, clock), Changes(db, clock), Ledger(db, clock))
    keys, identity, passwords, identity_api = _identity(base)
    images, image_api = _images(base)
    network = _network(base)
    network_api, limits = network_service(network), settings.limits
    compute = _compute(base, seams, CreateDeps(
        flavors=Flavors(db, clock), keypairs=KeyPairs(db, clock), images=images, network=network, policy=policy,
        quotas=Quotas(db, _quotas(settings), limits.servers)), identity.project_exists, network)
    compute_api = compute_service(ComputeDeps(
        identity=identity, clock=clock, network=network,
        proxied=Proxied(image=Inside(image_api, policy.allows), network=Inside(network_api, policy.allows)),
        servers=compute.servers, history=History(db), node=compute.node, scheduler=compute.scheduler,
        hosts=compute.registry, controls=lambda: base.processes.all("control"),
        nodes=lambda: base.processes.all("node"), orphans=compute.orphans, planner=compute.plans,
        removal=compute.membership.removal(LedgerAdmin(db, clock), compute.endings),
        aggregates=compute.aggregates, groups=ServerGroups(db, clock), flavors=compute.ask.flavors,
        keypairs=compute.ask.keypairs, quotas=compute.ask.quotas, limits=ServerLimits(
            hints=limits.hints, hint_bytes=limits.hint_bytes, networks=limits.networks)))
    joins = JoinService(db, clock, Signer(Ring(keys, "join")), compute.around, settings.network.vxlan_port)
    _start(base, compute, joins, network)
    health = Health(lambda: db.read(lambda conn: conn.exec_driver_sql("SELECT 1")), clock)
    threads = CandidateThreads()
    base.running.stop.append(threads.close)
    placement_api = placement_service(PlacementDeps(
        compute.registry, base.ledger, compute.servers, compute.aggregates, clock, threads))
    services = [front(), identity_api, image_api, network_api, compute_api, placement_api, health.service()]
    app = App(services, identity.authenticate, policy.allows, nesting=limits.nesting,
              turns=Turns(limits.requests, limits.waiting))
    return Control(
        base, app, health, keys, passwords, images, network,
        compute.ask.flavors, compute.servers, compute.registry, compute.conductor, compute.stories, compute.endings,
        compute.around)


def _identity(base: Base) -> tuple[Keys, IdentityService, Passwords, Service]:
    own = base.settings.identity
    seal = Seal(base.settings.control / "seal-key", own.seal_key)
    keys = Keys(base.db, base.clock, seal, own.token_lifetime)
    base.running.start.append(keys.open)
    base.running.tasks.append(keys.tend)
    passwords = Passwords(time_cost=own.argon2[0], memory=own.argon2[1], waiting=own.logins)
    store, bounds = Store(base.db, base.clock), base.settings.limits
    base.running.start.append(store.open)
    identity = IdentityService(store, Ring(keys, "token"), passwords, own.token_lifetime)
    return keys, identity, passwords, identity_service(identity, keys.vault, UserLimits(
        **{name: getattr(bounds, name) for name in UserLimits.__struct_fields__}))


def _images(base: Base) -> tuple[ImageService, Service]:
    own = base.settings.images
    stores = image_stores(base.settings.control / "images", own.folder, own.s3)
    data = Locations(base.process, stores, ImagePeers(base.transport, base.processes))
    images = ImageService(base.db, base.policy, data, base.clock, ImageLimits(
        max_image_bytes=own.max_bytes, max_project_bytes=own.max_project_bytes or None,
        max_project_images=own.max_project_images or None, max_project_uploads=own.max_project_uploads or None))
    uploads, cleanup = Uploads(images), Cleanup(images)
    base.running.start.append(cleanup.start)
    base.running.tasks.append(cleanup.run)
    base.running.stop.append(uploads.close)
    base.transport.serve(IMAGE, ImagesEndpoint(images, base.ledger.reads), Images, IMAGE_ALLOW)
    return images, image_service(images, uploads, Members(images), Metadefs(images))


async def tell_differences(node: Node, news: News) -> None:
    said = news.message()
    try:
        await node.differ(said)
    except NotFound:
        if said.members:
            await _tell_members(node, said.members)


async def _tell_members(node: Node, members: tuple[GroupMembers, ...]) -> None:
    """A host of the release before hears of members alone (of ports elsewhere as of its own); one of the release that
    had them in its rules asks for all of these anew."""
    try:
        await node.regroup(members)
    except NotFound:
        await node.rewire((), 0, 0)


def _network(base: Base) -> NetworkManager:
    own, quotas, nodes = base.settings.network, base.settings.quotas, base.transport.client(NODE)

    async def notify(notice: Notice) -> None:
        node = stub(Node, nodes.prepare(server=notice.host, timeout=NOTICE_TIMEOUT))
        await node.rewire(tuple(sorted(notice.ports)), notice.n, notice.before)

    async def tell(news: News) -> None:
        await tell_differences(stub(Node, nodes.prepare(server=news.host, timeout=NOTICE_TIMEOUT)), news)

    network = NetworkManager(base.db, base.policy, base.clock, NetworkSettings(
        types=SegmentTypes(tenant_types=own.tenant_types, vlan_ranges=dict.fromkeys(
            base.settings.node.bridge_mappings, own.vlan_range), vni_range=own.vni_range, physical_mtu=own.mtu),
        drivers=own.mechanisms, dns_domain=own.dns_domain, own_host=base.settings.own_host,
        quotas={**DEFAULT_QUOTAS, "network": quotas.networks, "port": quotas.ports,
                "security_group": quotas.security_groups, "subnetpool": quotas.subnetpools,
                "address_group": quotas.address_groups, "address_scope": quotas.address_scopes}),
        NetworkParts(notify=notify, tell=tell, project_of=project_of, nodes=nodes_of))
    base.changes.subscribe(("differences",), network.difference_notifier.changed, network.difference_notifier.reload)
    base.running.tasks += [network.elections.run, lambda: trimming.run(
        base.db, base.clock, network.difference_notifier, network.shared, nodes_of)]
    base.transport.serve(NETWORK, network, Network, NETWORK_ALLOW)
    return network


def _quotas(settings: Settings) -> Mapping[str, int]:
    return {"instances": settings.quotas.instances, "cores": settings.quotas.cores, "ram": settings.quotas.ram_mb}


@dataclass(frozen=True)
class _Compute:
    """The servers' part, from the API's verbs to the hosts."""

    ask: CreateDeps
    aggregates: Aggregates
    scheduler: Any
    registry: HostRegistry
    stories: Stories
    runner: StoryRunner
    endings: Endings
    around: Introductions
    conductor: ConductorManager
    servers: Servers
    node: Callable[[str], Node]
    plans: Plans
    orphans: Orphans
    membership: Membership


def _compute(base: Base, seams: Seams, ask: CreateDeps,
             project_exists: Callable[[str], Awaitable[bool]], network: NetworkManager) -> _Compute:
    db, clock, ledger = base.db, base.clock, base.ledger
    own = base.settings.scheduler

    async def refresh() -> None:
        await scheduler.refresh()

    aggregates = Aggregates(db, clock, refresh)
    around = Introductions(base.transport, base.processes, base.changes, base.settings.rpc.node_keys)
    registry = HostRegistry(db, clock)
    scheduler = seams.watch(SchedulerManager(
        registry, clock, FilterScheduler(own.strategy, own.sign, own.best, filters=own.filters, chance=seams.chance),
        SchedulerDeps(aggregates=aggregates.by_host, allocations=ledger.of, expected=around.nodes),
        Options(default_queue=own.default_queue, rebuild_seconds=own.period)))
    nodes = base.transport.client(NODE).prepare(timeout=NODE_TIMEOUT)

    def node(host: str) -> Node:
        return stub(Node, nodes.prepare(server=host))

    async def alive(host: str) -> bool:
        state = await registry.get(host)  # its row may be written later than its first orders
        return state.up if state is not None else registry.awaits([host] if host in around.nodes() else [])

    patience = base.settings.conductor
    deps = StoryDeps(
        cloud=lambda: base.processes.cloud_id, ledger=ledger, progress=Progress(db, clock), scheduler=scheduler,
        registry=registry, network=ask.network, images=ask.images, clock=clock, zones=aggregates.zones,
        attempts=own.attempts, hosts=Hosts(node, alive, clock, Patience(
            stalled=patience.stalled, ceiling=patience.ceiling, silence=patience.silence), registry.check))
    endings, stories = Endings(deps), Stories(db, clock, base.processes)
    claimed = barred_on(registry, deps.progress.load)
    runner = StoryRunner(stories, {"build": Builder(deps, endings, claimed), "delete": Deleter(deps, endings),
                                   "power": Switch(deps)}, clock, blocked(registry, claimed, around.nodes))
    conductor = _conductor(base, deps, endings, around, network.difference_notifier)
    servers = Servers(db, clock, ask, stories, runner.run)
    return _Compute(ask, aggregates, scheduler, registry, stories, runner, endings, around, conductor, servers,
                    node, Plans(servers, conductor),
                    Orphans(deps, endings, OrphanDeps(
                        LedgerAdmin(db, clock), node, project_exists, conductor.meet_again)),
                    Membership(base.processes, registry, conductor, around, network.heard_lately,
                               (aggregates.forget_host, network.forget_host)))


def _conductor(base: Base, deps: StoryDeps, endings: Endings, around: Introductions,
               differences: DifferenceNotifier) -> ConductorManager:
    async def judge(seen: Sequence[Position]) -> list[tuple[Position, bool]]:
        here, older = await base.db.read(lambda connection: (position(connection), later(connection, seen)))
        return [(here, each in older) for each in seen]

    conductor = ConductorManager(deps, endings, ConductorDeps(
        introduce=around.of_node, admits=around.admits, controls=around.controls, wiring=around.wiring,
        behind=differences.behind, judge=Together(judge), seen=lambda: base.changes.seen))
    around.changed = conductor.meet_again
    return conductor


def _start(base: Base, compute: _Compute, joins: Joins, network: NetworkManager) -> None:
    """In this order: who we are, what is known, and only then the door opens to hosts."""
    async def enter() -> None:
        me, transport = base.transport.me, base.transport
        await base.processes.start(Process(
            id=base.process, role="control", name=me.name, address=transport.address,
            public_key=transport.public_key, version=__version__))

    async def open_door() -> None:
        base.transport.serve(CONDUCTOR, compute.conductor, Conductor, CONDUCTOR_ALLOW)
        base.transport.serve(JOIN, joins, Joins, JOIN_ALLOW)

    compute.membership.watch(base.changes)
    compute.scheduler.subscribe(base.changes)
    base.running.start += [enter, base.changes.start, compute.around.start, network.difference_notifier.reload,
                           compute.scheduler.start, open_door]
    base.running.tasks += [base.processes.run, base.changes.run, compute.scheduler.run, compute.runner.sweep,
                           compute.endings.sweep]
    base.running.stop += [base.processes.stop, compute.endings.stop, compute.runner.stop]


def process_id(folder: Path) -> str:
    """This process's, over all its lives: kept in its folder."""
    file = folder / "process-id"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        return str(UUID(file.read_text().strip()))
    except FileNotFoundError:
        pass
    except ValueError:  # a power cut, or a full disk, when it was made; what is in the folder is taken over
        log.warning("this process's id is lost, it gets another", file=str(file))
    write_whole(file, str(made := uuid4()))
    return str(made)
