"""The network agent of a host: one worker brings bridge, DHCP and metadata to what the network service wants.

`wire` waits until the ports' interfaces are on the bridge, then asks the worker; requests that arrive while it works
are taken together in the next round: one question to the network service, one look at the bridge, one bundle of flows.
"""

import asyncio
import shutil
from collections.abc import Awaitable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from typing import TypeVar

import msgspec
import structlog

from nacre.base.clock import Clock, RealClock
from nacre.base.errors import BuildFailed, NotFound, Unavailable
from nacre.base.locks import file_lock
from nacre.network.contract import MOST_PORTS, AgentReport, Network, NetworkFacts, PortFacts
from nacre.node.contract import GuestFacts
from nacre.node.dhcp.config import DhcpSettings
from nacre.node.dhcp.server import Dhcp
from nacre.node.metadata import Facts, Metadata
from nacre.node.names import RUN, Names
from nacre.node.netns import Namespaces
from nacre.node.ovs.bridge import Bridge
from nacre.node.ovs.contract import Standing
from nacre.node.ovs.flows import Flow, Local, meters
from nacre.node.ovs.local import LocalNetworks
from nacre.node.ovs.ovsdb import BridgeSettings
from nacre.node.ovs.plan import Desired, changes, local_networks, numbered
from nacre.node.ovs.seal import Seal
from nacre.node.ovs.service import ensure_services
from nacre.node.ovs.switching import flow_table
from nacre.node.servers.limits import Rate

log = structlog.get_logger()

T = TypeVar("T")


class AgentSettings(msgspec.Struct, frozen=True, kw_only=True):
    """host: the name the network service knows us by. former: where an earlier release kept DHCP's files. Seconds:
    patience for an interface to appear; between looks for interfaces that came or went (from memory, so often), for
    lost flows (a program's run, so less often), between whole answers asked for, and between tries when no control
    process can be asked."""

    host: str
    former: Path | None = None
    plug_timeout: float = 20.0
    glance: float = 0.25
    look: float = 2.0
    whole: float = 600.0
    away: float = 1.0


class ControlAway(Exception):
    """The network service gave no answer."""


class OvsAgent:
    """Wires this host's ports. One per integration bridge."""

    def __init__(self, settings: AgentSettings, network: Network, bridge: Bridge, places: LocalNetworks,
                 clock: Clock | None = None):
        self.host, self.network, self.bridge, self.places = settings.host, network, bridge, places
        self.names, self.seal = bridge.names, Seal(bridge.names.table)
        self.settings, self.clock = settings, clock or RealClock()
        self.desired = Desired()
        self._applied: Sequence[Flow] | None = None  # None: the bridge's table is not known
        self._numbers: dict[str, int] = {}
        self._seen: dict[str, int] = {}
        self._up: set[str] = set()
        self._unsealed: dict[str, str] = {}  # id of a port, or of a network with an unsealed link -> why
        self._rates: dict[str, Rate] = {}
        self._asked: set[str] = set()
        self._whole, self._heard = True, 0  # the last change that is applied, or asked for
        self._standing = Standing(trusted=False)
        self._waiting: list[tuple[frozenset[str], asyncio.Future[None]]] = []
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._held = AsyncExitStack()

    async def start(self) -> None:
        """Services, bridge, everything of this host; then the worker and the look-out for drift. Raises Unavailable if
        another node process of this cloud runs on this machine, Conflict if another cloud has what is ours."""
        await self._held.enter_async_context(alone(self.names, patience=5.0))
        await ensure_services(self.bridge.settings.rundir)
        await self.bridge.ensure()
        if self.settings.former is not None:
            await self.places.dhcp.retire(self.settings.former)
        self._tasks = [asyncio.create_task(self._work()), asyncio.create_task(self._look())]

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
        await self._plugged(ids)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((ids, future))
        self._asked |= ids
        self._wake.set()
        await future

    async def unwire(self, port_ids: Sequence[str]) -> None:
        """These ports are gone: their interfaces and flows at once, their networks where nobody is left."""
        self.desired = self.desired.without(port_ids)
        self._up -= set(port_ids)
        self._rates = {port: rate for port, rate in self._rates.items() if port not in set(port_ids)}
        self._asked -= set(port_ids)
        await self.bridge.unplug(port_ids)
        self._wake.set()

    async def rewire(self, port_ids: Sequence[str], n: int = 0, before: int = 0) -> None:
        """Fetch and apply soon; everything if none are named, or a change was missed."""
        if port_ids and before <= self._heard:
            self._asked |= set(port_ids)
        else:
            self._whole = True
        self._heard = max(self._heard, n)
        self._wake.set()

    async def follow(self, standing: Standing) -> None:
        """Fetch everything soon if that became right, or something newer than what is here has changed."""
        before, self._standing = self._standing, standing
        if standing.trusted and (standing.n > self._heard or msgspec.structs.replace(standing, n=before.n) != before):
            self._heard, self._whole = max(self._heard, standing.n), True
            self._wake.set()

    def report(self) -> AgentReport:
        """For binding."""
        settings = self.bridge.settings
        return AgentReport(
            host=self.host, tunnel_ip=None if settings.alone else settings.tunnel_ip,
            bridge_mappings=settings.providers, tunnel_types=("vxlan",) if settings.tunnel_ip else (),
            datapath_type=self.bridge.datapath, bridge=self.bridge.name)

    async def _plugged(self, ids: frozenset[str]) -> None:
        end = self.clock.monotonic() + self.settings.plug_timeout
        while missing := ids - set(await self.bridge.ports()):
            if self.clock.monotonic() > end:
                raise BuildFailed(f"no interface for port {min(missing)} appeared on {self.bridge.name} within "
                                  f"{self.settings.plug_timeout:g} s")
            await self.clock.sleep(0.02)

    async def _work(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            waiting, self._waiting = self._waiting, []
            try:
                await self._round()
            except ControlAway as error:  # builds wait: to take them back is not this host's to say
                log.warning("the network service cannot be asked", why=str(error))
                self._waiting = [(ids, future) for ids, future in waiting if not future.done()] + self._waiting
                await self.clock.sleep(self.settings.away)
                self._wake.set()
                continue
            except Exception as error:  # the look-out tries the rest again
                log.warning("wiring failed", why=repr(error))
                self._whole, self._applied = True, None
                for _, future in waiting:
                    if not future.done():
                        future.set_exception(BuildFailed(f"wiring on {self.host} failed: {error}"))
                continue
            for ids, future in waiting:
                if not future.done():
                    self._settle(ids, future)

    def _settle(self, ids: frozenset[str], future: asyncio.Future[None]) -> None:
        named = {key for i in ids if (port := self.desired.ports.get(i)) for key in (port.id, port.network_id)}
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

    async def _round(self) -> None:
        """Ask, look, plan, apply, tell."""
        away: ControlAway | None = None
        if self._standing.trusted:
            try:
                await self._ask()
            except ControlAway as error:
                away = error  # meanwhile what is known here is kept right
        elif not self.desired.ports:
            return  # what is wired since before this process began stays
        here = await self._served()
        sealed = await self._sealed(here)
        wiring = self.desired.wiring(self._numbers)
        local = await self._local(sealed)
        self._seen = here
        await self.bridge.set_meters(meters(local), known=self._applied is not None)
        await self._apply(await asyncio.to_thread(flow_table, wiring, local))
        await self.bridge.drop_meters()
        await self._tell({p for p in sealed if p in local.zones and p in self.desired.ports})
        if away is not None:
            raise away

    async def _ask(self) -> None:
        asked, self._asked, whole, self._whole, heard = self._asked, set(), self._whole, False, self._heard
        try:
            if whole:
                answer = await _reached(self.network.wiring(self.host))
                self.desired = self.desired.merge(answer).beside(self._standing.ports, self._standing.networks)
                if self._heard == heard:  # also back: a database may have been restored
                    self._heard = answer.n
                asked -= self.desired.ports.keys()
                if self.desired.tunnels and self.bridge.settings.alone:
                    log.warning("other hosts' guests are not reached: node.tunnel_ip is a loopback address")
            for some in _parts(asked):
                answer = await _reached(self.network.wiring(self.host, some))
                self.desired = self.desired.without(some).merge(answer)
        except BaseException:
            self._asked |= asked
            self._whole = self._whole or whole
            raise

    async def _served(self) -> dict[str, int]:
        """Ports that are here, with DHCP and metadata ready for their networks and gone from others."""
        here = await self.bridge.ports()
        networks = local_networks(self.desired, here)
        self._numbers = numbered(self._numbers, networks)
        present = [port for port in self.desired.ports.values() if port.id in here]
        await self.places.serve([self.desired.networks[n] for n in networks], present, self.bridge)
        return {port: number for port, number in here.items() if port in self.desired.ports}

    async def _sealed(self, here: dict[str, int]) -> dict[str, int]:
        """Those of the ports whose links, and whose networks' links, the host's own stack is kept out of."""
        links = await self.bridge.links()
        failed = await self.seal.close(links, hook=self.bridge.datapath == "netdev")
        self._unsealed = {links[link]: why for link, why in failed.items()}
        ports = self.desired.ports  # some may be unwired by now
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
            uplinks={physical: by_name[name] for physical, name in uplinks.items() if name in by_name})

    async def _apply(self, flows: Sequence[Flow]) -> None:
        applied, self._applied = self._applied, None
        if applied is None:
            await self.bridge.replace(flows)
        else:
            await self.bridge.change(changes(applied, flows))
        self._applied = flows

    async def _tell(self, up: set[str]) -> None:
        """The network service hears what is new; a loss is told by `look`, the deletion of a port by no one."""
        lost = {port for port in self._up - up if port in self.desired.ports}
        for ports, state in ((up - self._up, True), (lost, False)):
            for some in _parts(ports):
                await _reached(self.network.wired(self.host, some, state))
        self._up = up

    async def _look(self) -> None:
        """Mends drift: a restarted vswitchd, interfaces that came or went, messages that were lost."""
        looked = asked = self.clock.monotonic()
        while True:
            await self.clock.sleep(self.settings.glance)
            now = self.clock.monotonic()
            try:
                here = {p: n for p, n in (await self.bridge.ports()).items() if p in self.desired.ports}
                if here != self._seen:
                    self._wake.set()
                if now - looked > self.settings.look:
                    looked = now
                    applied = self._applied
                    if applied and await self.bridge.flow_count() != len(applied) and self._applied is applied:
                        self._applied = None
                    if self._applied is None or self._unsealed or not await self.places.sound():
                        self._wake.set()
            except Exception as error:  # Open vSwitch is away for now; the look-out stays
                log.warning("the bridge cannot be looked at", why=repr(error))
            if now - asked > (self.settings.look if self._whole else self.settings.whole):
                asked, self._whole, self._applied = now, True, None
                self._wake.set()


def _parts(ports: Collection[str]) -> Iterator[tuple[str, ...]]:
    """As many ports as the network service takes at once."""
    ordered = sorted(ports)
    return (tuple(ordered[n:n + MOST_PORTS]) for n in range(0, len(ordered), MOST_PORTS))


async def _reached(question: Awaitable[T]) -> T:
    """The answer. Raises ControlAway if there was none, which says nothing about the ports."""
    try:
        return await question
    except Unavailable as error:
        raise ControlAway(error.message) from error


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
    return LocalNetworks(Namespaces(names), Dhcp(DhcpSettings(directory=names.run / "dhcp")), metadata)


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
