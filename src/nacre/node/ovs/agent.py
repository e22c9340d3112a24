"""The network agent of a host: one worker brings bridge, DHCP and metadata to what the network service wants.

`wire` waits until the ports' interfaces are on the bridge, then asks the worker; requests that arrive while it works
are taken together in the next round: one question to the network service, one look at the bridge, one bundle of flows.
"""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import structlog

from nacre.base.clock import Clock, RealClock
from nacre.base.errors import BuildFailed
from nacre.network.contract import AgentReport, Network, NetworkFacts, PortFacts
from nacre.node.dhcp import Dhcp
from nacre.node.dhcp_config import DhcpSettings
from nacre.node.metadata import Facts, Metadata
from nacre.node.netns import Namespaces
from nacre.node.ovs.bridge import Bridge
from nacre.node.ovs.flows import Flow, Local, meters
from nacre.node.ovs.local import LocalNetworks
from nacre.node.ovs.ovsdb import BridgeSettings, patch_names, tunnel_name
from nacre.node.ovs.plan import Desired, changes, local_networks, numbered
from nacre.node.ovs.seal import Seal
from nacre.node.ovs.service import ensure_services
from nacre.node.ovs.switching import flow_table
from nacre.node.servers.limits import Rate

log = structlog.get_logger()


class AgentSettings(msgspec.Struct, frozen=True, kw_only=True):
    """host: the name the network service knows us by. Seconds: patience for an interface to appear; between looks for
    interfaces that came or went (from memory, so often), for lost flows (a program's run, so less often), and between
    whole answers asked for."""

    host: str
    plug_timeout: float = 20.0
    glance: float = 0.25
    look: float = 2.0
    whole: float = 60.0


class OvsAgent:
    """Wires this host's ports. One per integration bridge."""

    def __init__(self, settings: AgentSettings, network: Network, bridge: Bridge, places: LocalNetworks,
                 clock: Clock | None = None):
        self.host, self.network, self.bridge, self.places = settings.host, network, bridge, places
        self.seal = Seal(bridge.name)
        self.settings, self.clock = settings, clock or RealClock()
        self.desired = Desired()
        self._applied: Sequence[Flow] | None = None  # None: the bridge's table is not known
        self._numbers: dict[str, int] = {}
        self._seen: dict[str, int] = {}
        self._up: set[str] = set()
        self._rates: dict[str, Rate] = {}
        self._asked: set[str] = set()
        self._whole, self._n = True, 0
        self._waiting: list[tuple[frozenset[str], asyncio.Future[None]]] = []
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Services, bridge, everything of this host; then the worker and the look-out for drift."""
        await ensure_services(self.bridge.settings.rundir)
        await self.bridge.ensure()
        try:
            await self._round()
        except Exception as error:  # the network service may start after us
            log.warning("first wiring failed, will be tried again", why=str(error))
            self._whole = True
        self._tasks = [asyncio.create_task(self._work()), asyncio.create_task(self._look())]

    async def stop(self) -> None:
        """Ends the loop; guests keep their network."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        await self.places.close()
        await self.bridge.close()

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
        """These ports are gone: their flows at once, their networks where nobody is left."""
        self.desired = self.desired.without(port_ids)
        self._up -= set(port_ids)
        self._rates = {port: rate for port, rate in self._rates.items() if port not in set(port_ids)}
        self._asked -= set(port_ids)
        self._wake.set()

    async def rewire(self, port_ids: Sequence[str]) -> None:
        """Fetch and apply soon; none named: everything."""
        if port_ids:
            self._asked |= set(port_ids)
        else:
            self._whole = True
        self._wake.set()

    async def changed(self, n: int) -> None:
        """Fetch everything soon if something newer than what is here has changed."""
        if n > self._n:
            self._n, self._whole = n, True
            self._wake.set()

    def report(self) -> AgentReport:
        """For binding."""
        settings = self.bridge.settings
        return AgentReport(
            host=self.host, tunnel_ip=settings.tunnel_ip, bridge_mappings=dict(settings.mappings),
            tunnel_types=("vxlan",) if settings.tunnel_ip else (), datapath_type=self.bridge.datapath)

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
            except Exception as error:
                self._failed(waiting, error)
                continue
            for ids, future in waiting:
                if not future.done():
                    self._settle(ids, future)

    def _failed(self, waiting: list[tuple[frozenset[str], asyncio.Future[None]]], error: Exception) -> None:
        """The round's waiters are told; the look-out tries the rest again."""
        log.warning("wiring failed", why=repr(error))
        self._whole = True
        self._applied = None
        for _, future in waiting:
            if not future.done():
                future.set_exception(BuildFailed(f"wiring on {self.host} failed: {error}"))

    def _settle(self, ids: frozenset[str], future: asyncio.Future[None]) -> None:
        if missing := ids - self._up:
            future.set_exception(BuildFailed(
                f"port {min(missing)} is not for this host or has lost its interface"))
        elif failed := {self.desired.ports[i].network_id for i in ids if i in self.desired.ports} & set(
                self.places.failed):
            future.set_exception(BuildFailed(f"network {min(failed)} has no DHCP and metadata on {self.host}: "
                                             f"{self.places.failed[min(failed)]}"))
        else:
            future.set_result(None)

    async def _round(self) -> None:
        """Ask, look, plan, apply, tell."""
        await self._ask()
        here = await self._served()
        wiring = self.desired.wiring(self._numbers)
        local = await self._local(here)
        await self.seal.close(await self.bridge.links(), hook=self.bridge.datapath == "netdev")
        for number in (n for p, n in here.items() if self._seen.get(p) != n):
            await self.bridge.flush_zone(number)  # its connections were those of the port that had the number before
        self._seen = here
        await self.bridge.set_meters(meters(local), known=self._applied is not None)
        await self._apply(await asyncio.to_thread(flow_table, wiring, local))
        await self.bridge.drop_meters()
        await self._tell({p for p in here if p in self.desired.ports})

    async def _ask(self) -> None:
        asked, self._asked, whole, self._whole = self._asked, set(), self._whole, False
        try:
            if whole:
                self.desired = self.desired.merge(await self.network.wiring(self.host))
                asked -= self.desired.ports.keys()
            if asked:
                answer = await self.network.wiring(self.host, tuple(sorted(asked)))
                self.desired = self.desired.without(asked).merge(answer)
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

    async def _local(self, here: dict[str, int]) -> Local:
        by_name = await self.bridge.ofports()
        outer = {network: self.places.outer(network) for network in self._numbers}
        uplinks = {physical: patch_names(self.bridge.name, physical)[0] for physical in self.bridge.settings.mappings}
        return Local(
            ofports=here, numbers=self._numbers, rates=self._rates, vxlan=by_name.get(tunnel_name(self.bridge.name)),
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
            if ports:
                await self.network.wired(self.host, tuple(sorted(ports)), state)
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
                    await self._flows_kept()
                    if not await self.places.sound():
                        self._wake.set()
            except Exception as error:  # Open vSwitch is away for now; the look-out stays
                log.warning("the bridge cannot be looked at", why=repr(error))
            if now - asked > (self.settings.look if self._whole else self.settings.whole):
                asked, self._whole, self._applied = now, True, None
                self._wake.set()

    async def _flows_kept(self) -> None:
        applied = self._applied
        if applied is not None and await self.bridge.flow_count() != len(applied) and self._applied is applied:
            self._applied = None
            self._wake.set()


class OvsHost(msgspec.Struct, frozen=True, kw_only=True):
    """One host's settings. folder: for DHCP's files; cloud: the cloud's data folder; the rest as in
    `BridgeSettings`."""

    host: str
    folder: Path
    cloud: Path | None = None
    tunnel_ip: str | None = None
    bridge_mappings: Mapping[str, str] = {}
    bridge: str = "br-int"
    datapath: str = "auto"
    rundir: Path = Path("/run/openvswitch")


def ovs_wiring(own: OvsHost, network: Network, facts: Facts, clock: Clock | None = None) -> OvsAgent:
    """The agent of a host with all its parts. facts: a server's id -> its GuestFacts (the conductor's
    `guest_facts` for this host)."""
    bridge = Bridge(BridgeSettings(name=own.bridge, rundir=own.rundir, tunnel_ip=own.tunnel_ip,
                                   mappings=own.bridge_mappings, datapath=own.datapath, owner=own.cloud))
    places = LocalNetworks(Namespaces(), Dhcp(DhcpSettings(directory=own.folder / "dhcp")),
                           Metadata(facts, clock=clock))
    return OvsAgent(AgentSettings(host=own.host), network, bridge, places, clock)
