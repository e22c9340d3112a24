"""The network agent of a host: one worker brings bridge, DHCP and metadata to what the network service wants.

`wire` waits until the ports' interfaces are on the bridge, then asks the worker; requests that arrive while it works
are taken together in the next round: one question to the network service, one look at the bridge, one bundle of flows.
"""

import asyncio
import grp
import pwd
import shutil
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path

import msgspec
import structlog

from nacre.base.bounds import pieces
from nacre.base.clock import Clock, RealClock
from nacre.base.errors import BuildFailed, NotFound
from nacre.base.locks import file_lock
from nacre.network.contract import (
    DIFFERENCES,
    MOST_PORTS,
    AgentReport,
    Differences,
    Network,
    NetworkFacts,
    PortFacts,
)
from nacre.node.contract import GuestFacts
from nacre.node.dhcp.config import DhcpSettings
from nacre.node.dhcp.server import Dhcp
from nacre.node.metadata import Facts, Metadata
from nacre.node.names import RUN, Names
from nacre.node.netns import Namespaces
from nacre.node.ovs.bridge import Bridge, FlowTable
from nacre.node.ovs.client import ControlAway, Pauses, WiringClient, reached
from nacre.node.ovs.contract import Standing
from nacre.node.ovs.flows import Local, meters
from nacre.node.ovs.groups.elsewhere import Here
from nacre.node.ovs.groups.peers import uses
from nacre.node.ovs.local import LocalNetworks
from nacre.node.ovs.ovsdb import BridgeSettings
from nacre.node.ovs.plan import beside, local_networks, numbered
from nacre.node.ovs.seal import Seal
from nacre.node.ovs.service import ensure_services
from nacre.node.ovs.switching import flow_table
from nacre.node.routing.routers import Routers, routed_networks
from nacre.node.servers.limits import Rate

log = structlog.get_logger()

AGENTS = "Open vSwitch agent", "DHCP agent", "Metadata agent", "L3 agent"


class AgentSettings(msgspec.Struct, frozen=True, kw_only=True):
    """host: the name the network service knows us by. former: where an earlier release kept DHCP's files. Seconds:
    patience for an interface to appear; between looks for interfaces that came or went (from memory, so often), for
    lost flows (a program's run, so less often), and between whole answers asked for."""

    host: str
    former: Path | None = None
    plug_timeout: float = 20.0
    glance: float = 0.25
    look: float = 2.0
    whole: float = 600.0


class OvsAgent:
    """Wires this host's ports. One per integration bridge."""

    def __init__(self, settings: AgentSettings, network: Network, bridge: Bridge, places: LocalNetworks,
                 clock: Clock | None = None):
        self.host, self.network, self.bridge, self.places = settings.host, network, bridge, places
        self.names, self.seal = bridge.names, Seal(bridge.names.table)
        self.settings, self.clock = settings, clock or RealClock()
        self.client = WiringClient(settings.host, network, self.clock)
        self.table = FlowTable(bridge, self.client.members, self.client.places)
        self.routers = Routers(settings.host, network, bridge, self.clock)
        self._numbers: dict[str, int] = {}  # of networks
        self._groups: dict[str, int] = {}  # of groups that rules name
        self._seen: dict[str, int] = {}
        self._up: set[str] = set()
        self._made = False  # flows, by this process: those that are there are not of a former one
        self._unsealed: dict[str, str] = {}  # id of a port, or of a network with an unsealed link -> why
        self._rates: dict[str, Rate] = {}
        self._waiting: list[tuple[frozenset[str], asyncio.Future[None]]] = []
        self._wake, self._moved = asyncio.Event(), asyncio.Event()
        self._turn = asyncio.Lock()  # who asks, and changes flows
        self._tasks: list[asyncio.Task[None]] = []
        self._held = AsyncExitStack()

    async def start(self) -> None:
        """Services, bridge, everything of this host; then the worker and the look-out for drift. Raises Unavailable if
        another node process of this cloud runs on this machine, Conflict if another cloud has what is ours."""
        await self._held.enter_async_context(alone(self.names, patience=5.0))
        await ensure_services(self.bridge.settings.rundir)
        await self.bridge.ensure()
        # Whatever happened to it while no node ran, and before anybody is asked.
        await self.seal.close(await self.bridge.links(), hook=self.bridge.datapath == "netdev")
        if self.settings.former is not None:
            await self.places.dhcp.retire(self.settings.former)
        self._tasks = [asyncio.create_task(each) for each in (
            self._work(), self._look(), self._follow_differences(), self.routers.follow(self._wake.set))]

    async def stop(self) -> None:
        """Ends the loop; guests keep their network."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        await self.places.close()
        await self.bridge.close()
        await self._held.aclose()

    async def limit(self, rates: Mapping[str, Rate]) -> None:
        """These ports are no faster, from their next wiring on."""
        self._rates |= rates

    async def wire(self, ports: Sequence[PortFacts], networks: Sequence[NetworkFacts]) -> None:
        """These ports work when this returns. Raises BuildFailed."""
        ids = frozenset(port.id for port in ports)
        if not ids:
            return
        await _plugged(ids, self.bridge, self.clock, self.settings.plug_timeout)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((ids, future))
        self.client.asked |= ids
        self._wake.set()
        await future

    async def unwire(self, port_ids: Sequence[str]) -> None:
        """These ports are gone: their interfaces and flows at once, their networks where nobody is left."""
        self.client.forget(port_ids)
        self._up -= set(port_ids)
        self._rates = {port: rate for port, rate in self._rates.items() if port not in set(port_ids)}
        await self.bridge.unplug(port_ids)
        self._wake.set()

    async def rewire(self, port_ids: Sequence[str], n: int = 0, before: int = 0) -> None:
        """Fetch and apply soon; everything if none are named, or a change was missed."""
        self.client.changed(port_ids, n, before)
        self._wake.set()

    async def differ(self, news: Differences) -> None:
        """Apply what joins on to what is here, and ask for the rest."""
        self.client.differ(news)
        (self._wake if self.client.routing_outdated() else self._moved).set()

    def versions(self) -> tuple[dict[str, int], dict[str, int], int]:
        """For beats."""
        return self.client.versions()

    async def follow(self, standing: Standing) -> None:
        """Fetch everything soon if that became right, or something newer than what is here has changed."""
        if self.client.follow(standing) or self.client.routing_outdated():
            self._wake.set()
        elif any(self.client.outdated()):
            self._moved.set()

    def report(self) -> AgentReport:
        """For binding."""
        settings = self.bridge.settings
        return AgentReport(
            host=self.host, tunnel_ip=None if settings.alone else settings.tunnel_ip,
            bridge_mappings=settings.providers, tunnel_types=("vxlan",) if settings.tunnel_ip else (),
            datapath_type=self.bridge.datapath, bridge=self.bridge.name, takes=(DIFFERENCES,), agents=AGENTS)

    async def _work(self) -> None:
        pauses = Pauses(self.host)
        while True:
            await self._wake.wait()
            self._wake.clear()
            waiting, self._waiting = self._waiting, []
            try:
                async with self._turn:
                    await self._round()
            except ControlAway as error:  # builds wait: to take them back is not this host's to say
                log.warning("the network service cannot be asked", why=str(error))
                self._waiting = [(ids, future) for ids, future in waiting if not future.done()] + self._waiting
                await self.clock.sleep(pauses.after(error))
                self._wake.set()
                continue
            except Exception as error:  # the look-out tries the rest again
                log.warning("wiring failed", why=repr(error))
                self.client.whole, self.table.applied = True, None
                for _, future in waiting:
                    if not future.done():
                        future.set_exception(BuildFailed(f"wiring on {self.host} failed: {error}"))
                continue
            pauses.over()
            for ids, future in waiting:
                if not future.done():
                    self._settle(ids, future)

    def _settle(self, ids: frozenset[str], future: asyncio.Future[None]) -> None:
        named = {key for i in ids if (port := self.client.desired.ports.get(i)) for key in (port.id, port.network_id)}
        if refused := named & self._unsealed.keys():
            future.set_exception(BuildFailed(f"{min(refused)} could not be kept from the host's own network stack on "
                                             f"{self.host}: {self._unsealed[min(refused)]}"))
        elif missing := ids - self._up:
            future.set_exception(BuildFailed(
                f"port {min(missing)} is not for this host or has lost its interface"))
        elif failed := named & self.places.failed.keys():
            future.set_exception(BuildFailed(f"network {min(failed)} has no DHCP and metadata on {self.host}: "
                                             f"{self.places.failed[min(failed)]}"))
        else:
            future.set_result(None)

    async def _follow_differences(self) -> None:
        """For ever: who joined or left a group, or came or went elsewhere, costs what it changes, and no round. What
        does not join on to what is here is asked for, after a moment: what lies between may be under way."""
        pauses = Pauses(self.host)
        while True:
            await self._moved.wait()
            self._moved.clear()
            try:
                async with self._turn:
                    await self.table.update(self.client.tunnels())
                if self.client.standing.trusted and any(self.client.outdated()):
                    await self.clock.sleep(self.settings.glance)
                    async with self._turn:
                        await self.client.ask_differences()
                        await self.table.update(self.client.tunnels())
                if self.routers.outdated(self.client.routing, self.client.tunnels()):
                    self._wake.set()
                pauses.over()
            except Exception as error:
                log.warning("differences are not applied", why=repr(error))
                await self.clock.sleep(pauses.after(error))
                self._moved.set()

    async def _round(self) -> None:
        """Ask, look, plan, apply, tell."""
        away: ControlAway | None = None
        if self.client.standing.trusted:
            try:
                if await self.client.ask() and self.bridge.settings.alone and self.client.peers.keys() - {self.host}:
                    log.warning("other hosts' guests are not reached: node.tunnel_ip is a loopback address")
            except ControlAway as error:
                unheard = self.table.applied is None and not self.client.routing.era  # what it routed before stays, too
                if unheard or not (self.client.desired.ports or self.client.routing.routers) or not (
                        self._made or self.client.complete()):
                    raise  # as below
                away = error  # meanwhile what is known here is kept right
        elif not (self.client.desired.ports or self.client.routing.routers):
            return  # what is wired since before this process began stays
        here = await self._served()
        sealed = await self._sealed(here)
        wiring, routing, tunnels = self.client.desired.wiring(
            local_networks(self.client.desired, here)), self.client.routing, self.client.tunnels()
        self._groups = numbered(self._groups, sorted(self.client.desired.named()))
        local = await self._local(sealed)
        self._seen = here
        await self.bridge.set_meters(meters(local), known=self.table.applied is not None)
        named = uses(wiring.ports, self.client.desired.groups, self._groups)
        plan = await self.routers.make(routing, local, tunnels)
        switched, reach = await asyncio.to_thread(flow_table, wiring, local), _here(self.host, self.client, local)
        try:
            await self.table.make(beside(switched, plan.flows), named, reach, plan.joined)
        except Exception as error:
            if not plan.served.routers and not plan.served.gateways:
                raise
            await self.table.make(switched, named, reach)  # if that fails, too, it is not for what is routed
            self.routers.refused(error)
        self._made = True
        self.routers.done()
        await self.bridge.drop_meters()
        await self._tell({p for p in sealed if p in local.zones and p in self.client.desired.ports})
        if away is not None:
            raise away

    async def _served(self) -> dict[str, int]:
        """Ports that are here, with DHCP and metadata ready for their networks and gone from others."""
        here = await self.bridge.ports()
        networks = local_networks(self.client.desired, here)
        self._numbers = numbered(self._numbers, [*networks, *routed_networks(self.client.routing)])
        present = [port for port in self.client.desired.ports.values() if port.id in here]
        await self.places.serve([self.client.desired.networks[n] for n in networks], present, self.bridge)
        return {port: number for port, number in here.items() if port in self.client.desired.ports}

    async def _sealed(self, here: dict[str, int]) -> dict[str, int]:
        """Those of the ports whose links, and whose networks' links, the host's own stack is kept out of."""
        self._unsealed = await self.seal.close(await self.bridge.links(), hook=self.bridge.datapath == "netdev")
        ports = self.client.desired.ports  # some may be unwired by now
        return {port: number for port, number in here.items()
                if port in ports and not {port, ports[port].network_id} & self._unsealed.keys()}

    async def _local(self, here: dict[str, int]) -> Local:
        by_name = await self.bridge.ofports()
        outer = {network: self.names.veth(network) for network in self._numbers}
        uplinks = {physical: self.names.patches(physical)[0] for physical in self.bridge.settings.mappings}
        return Local(
            ofports=here, zones=await self.bridge.zones(here), numbers=self._numbers, rates=self._rates,
            vxlan=by_name.get(self.names.tunnel),
            dhcp={network: by_name[name] for network, name in outer.items() if name in by_name},
            uplinks={physical: by_name[name] for physical, name in uplinks.items() if name in by_name},
            groups=self._groups)

    async def _tell(self, up: set[str]) -> None:
        """The network service hears what is new; a loss is told by `look`, the deletion of a port by no one."""
        lost = {port for port in self._up - up if port in self.client.desired.ports}
        for ports, state in ((up - self._up, True), (lost, False)):
            for some in pieces(sorted(ports), MOST_PORTS):
                await reached(self.network.wired(self.host, some, state))
        self._up = up

    async def _look(self) -> None:
        """Mends drift: a restarted vswitchd, interfaces that came or went, messages that were lost."""
        looked = asked = self.clock.monotonic()
        while True:
            await self.clock.sleep(self.settings.glance)
            now = self.clock.monotonic()
            try:
                here = {p: n for p, n in (await self.bridge.ports()).items() if p in self.client.desired.ports}
                if here != self._seen or self.client.overdue():
                    self._wake.set()
                if now - looked > self.settings.look:
                    looked = now
                    if not await self.table.stands():
                        self.table.applied = None
                    if self.table.applied is None or self._unsealed or not await self.seal.stands() \
                            or not await self.places.sound():
                        self._wake.set()
            except Exception as error:  # Open vSwitch is away for now; the look-out stays
                log.warning("the bridge cannot be looked at", why=repr(error))
            if now - asked > (self.settings.look if self.client.whole else self.settings.whole):
                asked, self.client.whole, self.table.applied = now, True, None
                self._wake.set()


def _here(host: str, client: WiringClient, local: Local) -> Here:
    """With the networks that go by tunnels."""
    return Here(host=host, vxlan=local.vxlan, tunnels=client.tunnels(), networks={
        network.id: (local.numbers[network.id], network.segmentation_id or 0)
        for network in (*client.routing.networks, *client.desired.networks.values())
        if network.network_type == "vxlan" and network.id in local.numbers})


async def _plugged(ids: frozenset[str], bridge: Bridge, clock: Clock, patience: float) -> None:
    end = clock.monotonic() + patience
    while missing := ids - set(await bridge.ports()):
        if clock.monotonic() > end:
            raise BuildFailed(f"no interface for port {min(missing)} appeared on {bridge.name} within {patience:g} s")
        await clock.sleep(0.02)


def alone(names: Names, patience: float) -> AbstractAsyncContextManager[None]:
    """For one process of the cloud on this machine at a time."""
    for folder in (RUN, names.run):
        folder.mkdir(exist_ok=True)
        folder.chmod(0o755)
    return file_lock(names.run / "lock", patience)


class OvsHost(msgspec.Struct, frozen=True, kw_only=True):
    """One host's settings. folder: the cloud's data folder; the rest as in `BridgeSettings`."""

    host: str
    names: Names
    folder: Path
    tunnel_ip: str | None = None
    vxlan_port: int = 4789
    bridge_mappings: Mapping[str, str] = {}
    datapath: str = "auto"
    rundir: Path = Path("/run/openvswitch")


def ovs_wiring(own: OvsHost, network: Network, facts: Facts, clock: Clock | None = None) -> OvsAgent:
    """The agent of a host with all its parts. facts: a server's id -> its GuestFacts (the conductor's
    `guest_facts` for this host)."""
    bridge = Bridge(BridgeSettings(
        names=own.names, rundir=own.rundir, tunnel_ip=own.tunnel_ip, vxlan_port=own.vxlan_port,
        mappings=own.bridge_mappings, datapath=own.datapath, folder=str(own.folder)))
    return OvsAgent(AgentSettings(host=own.host, former=own.folder / "node" / "dhcp"), network, bridge,
                    _places(own.names, Metadata(facts, clock=clock)), clock)


def _places(names: Names, metadata: Metadata) -> LocalNetworks:
    group = grp.getgrgid(pwd.getpwnam("nobody").pw_gid).gr_name  # nogroup, or nobody, by distribution
    return LocalNetworks(Namespaces(names), Dhcp(DhcpSettings(directory=names.run / "dhcp", group=group)), metadata)


async def decommission(names: Names, rundir: Path = Path("/run/openvswitch")) -> None:
    """Nothing of the cloud's networks is left on this host: bridges, namespaces, veths, DHCP servers, nftables table.
    Its guests must be gone. Raises Unavailable while its node runs, Conflict if the bridge is another cloud's."""
    async def nobody(server_id: str) -> GuestFacts:
        raise NotFound

    async with alone(names, patience=0.0):
        bridge = Bridge(BridgeSettings(names=names, rundir=rundir))
        try:
            await _places(names, Metadata(nobody)).forget(bridge)
            await bridge.remove()
        finally:
            await bridge.close()
        await Seal(names.table).open()
        await asyncio.to_thread(shutil.rmtree, names.run)
