"""The integration bridge: Open vSwitch's database through ovsdbapp, its flows through ovs-ofctl's atomic bundles."""

import asyncio
import re
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import msgspec
import structlog

from nacre.base.shell import CommandFailed, run
from nacre.node.ovs.flows import COOKIE, Flow, Meter
from nacre.node.ovs.groups.elsewhere import ElsewhereFlows, Here
from nacre.node.ovs.groups.members import Members, Places
from nacre.node.ovs.groups.peers import PeerFlows, Uses
from nacre.node.ovs.ovsdb import BridgeSettings, Ovsdb
from nacre.node.ovs.plan import changes
from nacre.node.ovs.zones import KeepZones
from nacre.node.routing.near import Joined, NearFlows

log = structlog.get_logger()
T = TypeVar("T")

#: In the output of dump-meters: a meter, the rate of its band, its burst.
_METER = re.compile(r"meter=(\d+).*?rate=(\d+)\s+burst_size=(\d+)", re.DOTALL)


class OpenFlow:
    """A bridge's flows, by ovs-ofctl."""

    def __init__(self, settings: BridgeSettings):
        self._socket = f"unix:{settings.rundir}/{settings.names.bridge}.mgmt"

    async def run(self, verb: str, *args: str) -> bytes:
        """What the program says. Raises CommandFailed."""
        return await run(["ovs-ofctl", "-O", "OpenFlow14", verb, self._socket, *args])

    async def bundle(self, verb: str, lines: Sequence[str]) -> None:
        """All of these lines, or none. Raises CommandFailed."""
        await run(["ovs-ofctl", "-O", "OpenFlow14", "--bundle", verb, self._socket, "-"],
                  stdin=("\n".join(lines) + "\n").encode())


class Bridge:
    """One bridge of one Open vSwitch. Calls of ovsdbapp block, so they run in one thread of their own."""

    def __init__(self, settings: BridgeSettings):
        self.settings, self.names, self.name = settings, settings.names, settings.names.bridge
        self.datapath, self.openflow = settings.datapath, OpenFlow(settings)
        self._db = Ovsdb(settings)
        self._meters: dict[int, Meter] = {}
        self._wanted: set[int] = set()
        self._used: set[tuple[str, int]] = set()  # ports with zones that were flushed for them
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"ovsdb-{self.name}")

    async def ensure(self) -> None:
        """The bridge, its tunnel port and its patches to the provider bridges, as the settings say. Idempotent.
        Raises Conflict where it, or its tunnel, is another cloud's."""
        if self.datapath == "auto":
            self.datapath = await probe_datapath(self.settings.rundir, self.names.datapath)
        await self._off_loop(lambda: self._db.ensure(self.datapath))
        if why := await self._off_loop(lambda: self._db.strayed(self.datapath, _link_of(self.settings.tunnel_ip))):
            log.error("other hosts' guests are not reached", why=why)

    async def close(self) -> None:
        """Ends the connection; the bridge stays."""
        await self._off_loop(self._db.stop)
        self._thread.shutdown(wait=False)

    async def remove(self) -> None:
        """Deletes the bridge, our patches, and the provider bridge that is the cloud's own."""
        await self._off_loop(self._db.remove)

    async def ports(self) -> dict[str, int]:
        """OpenFlow port numbers by iface-id, of every port of the bridge that has both."""
        return await self._off_loop(self._db.ports)

    async def ofports(self) -> dict[str, int]:
        """OpenFlow port numbers by interface name."""
        return await self._off_loop(self._db.ofports)

    async def links(self) -> dict[str, str]:
        """The host's links (taps, veths) that work as ports of the bridge -> the id of the port or network that each
        is for."""
        return await self._off_loop(self._db.links)

    async def networks(self) -> set[str]:
        """The ids of the networks whose namespaces have a port on the bridge, working or not. Raises Conflict where it
        is another cloud's."""
        return await self._off_loop(self._db.networks)

    async def zones(self, port_ids: Iterable[str]) -> dict[str, int]:
        """The conntrack zones of these ports. A port that has none yet is given one, without a connection in it; what
        was there of a port keeps its zone and its connections. Raises BuildFailed: there is none left."""
        zones, unused = await self._off_loop(lambda: self._db.zones(frozenset(port_ids)))
        self._used &= zones.items()
        for port in sorted(unused):
            if (port, zones[port]) not in self._used:
                await self.openflow.run("ct-flush-zone", str(zones[port]))
                self._used.add((port, zones[port]))
        if unused:
            await self._off_loop(lambda: self._db.used(unused))
        return zones

    async def owned_zones(self, owners: Iterable[str]) -> dict[str, int]:
        """Conntrack zones of what has no port, kept in the bridge's record: as `zones`. Those of others that had one
        are given back. Who can have none, as there is none left or it cannot be flushed, is left out alone."""
        keep, clean = KeepZones(self._db.connected, self.name, frozenset(owners)), set[str]()
        zones, unused = await self._off_loop(keep.commit)
        for owner in sorted(unused):
            try:
                await self.openflow.run("ct-flush-zone", str(zones[owner]))
                clean.add(owner)
            except CommandFailed as error:
                log.warning("a conntrack zone cannot be flushed", zone=zones[owner], owner=owner, why=str(error))
        if clean:
            await self._off_loop(lambda: keep.used(frozenset(clean)))
        return {owner: zone for owner, zone in zones.items() if owner not in unused - clean}

    async def attach(self, interface: str, ids: Mapping[str, str]) -> None:
        """Adds a link of the host (a veth's end) as a port, with these external ids. Idempotent."""
        await self._off_loop(lambda: self._db.attach(interface, dict(ids)))

    async def detach(self, interface: str) -> None:
        """Takes a port off the bridge, if it is there."""
        await self._off_loop(lambda: self._db.detach(interface))

    async def unplug(self, port_ids: Iterable[str]) -> None:
        """No interface of these ports is on the bridge any more, nor one that is written there and does not exist: who
        loses power has nobody to take guests' interfaces off. Idempotent."""
        await self._off_loop(lambda: self._db.unplug(frozenset(port_ids)))

    async def replace(self, flows: Sequence[Flow]) -> None:
        """Makes the bridge's table exactly this, in one atomic step, touching only what differs."""
        await self.openflow.bundle("replace-flows", await asyncio.to_thread(lambda: [flow.text for flow in flows]))

    async def change(self, lines: Sequence[str]) -> None:
        """Applies lines made by `plan.changes`, all or none."""
        if lines:
            await self.openflow.bundle("add-flows", lines)

    async def set_meters(self, wanted: Mapping[int, Meter], *, known: bool) -> None:
        """These meters, by number, are there; flows that name them may come. known: nobody else changed them
        since the last call."""
        if not known:
            told = await self.openflow.run("dump-meters")
            self._meters = {int(number): Meter(int(rate), int(burst))
                            for number, rate, burst in _METER.findall(told.decode())}
        for number, meter in wanted.items():
            if self._meters.get(number) != meter:
                verb = "mod-meter" if number in self._meters else "add-meter"
                await self.openflow.run(
                    verb, f"meter={number},kbps,burst,band=type=drop,rate={meter.rate},burst_size={meter.burst}")
                self._meters[number] = meter
        self._wanted = set(wanted)

    async def drop_meters(self) -> None:
        """Those that the last `set_meters` did not name go: no flow needs them any more."""
        for number in self._meters.keys() - self._wanted:
            await self.openflow.run("del-meter", f"meter={number}")
            del self._meters[number]

    async def flow_count(self) -> int:
        """How many of our flows the bridge has (of those that it learnt, none): after a restart of vswitchd none."""
        out = await self.openflow.run("dump-aggregate", f"cookie={COOKIE:#x}/-1")
        return int(out.rpartition(b"flow_count=")[2].split()[0])

    async def _off_loop(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


class FlowTable:
    """A bridge's flows, as they were last made: those of the wiring, and beside them those of what many hosts keep:
    members of security groups, ports elsewhere, neighbours of routers."""

    def __init__(self, bridge: Bridge, members: Members, places: Places):
        self._bridge, self._members, self._places = bridge, members, places
        self._peers, self._elsewhere, self._near = PeerFlows(), ElsewhereFlows(), NearFlows()
        self._here, self._joined = Here(), Joined()
        self.applied: Sequence[Flow] | None = None  # None: what the bridge has is not known

    async def make(self, flows: Sequence[Flow], uses: Uses, here: Here, joined: Joined = Joined()) -> None:
        """Exactly these, and beside them the members' where they are used and those of ports elsewhere and near, in one
        atomic step."""
        applied, self.applied, self._here, self._joined = self.applied, None, here, joined
        if applied is None:
            for each in (self._peers, self._elsewhere, self._near):
                each.forget()
        beside = [*self._peers.lines(self._members, uses), *self._placed()]
        if applied is None:
            await self._bridge.replace([*flows, *self._peers.all(), *self._elsewhere.all(), *self._near.all()])
        else:
            await self._bridge.change([*await asyncio.to_thread(changes, applied, flows), *beside])
        self.applied = flows

    async def update(self, tunnels: Mapping[str, str]) -> None:
        """Other members, or other ports elsewhere, and nothing else changed: the cost is that of the difference.
        tunnels: as in `Here`."""
        applied, self.applied = self.applied, None
        if applied is not None:
            self._here = msgspec.structs.replace(self._here, tunnels=tunnels)
            await self._bridge.change([*self._peers.lines(self._members), *self._placed()])
        self.applied = applied

    async def stands(self) -> bool:
        """Whether the bridge has as many, if what it has is known: after a restart of vswitchd it has none."""
        applied, beside = self.applied, self._beside()
        return not applied or await self._bridge.flow_count() == len(applied) + beside or (
            self.applied is not applied or self._beside() != beside)  # they were changed meanwhile

    def _placed(self) -> list[str]:
        touched = frozenset(self._places.changed)
        return [*self._elsewhere.lines(self._places, self._here), *self._near.lines(
            self._places, touched, self._joined, (self._here, self._elsewhere.hosts))]

    def _beside(self) -> int:
        return len(self._peers) + len(self._elsewhere) + len(self._near)


def _link_of(address: str | None) -> str:
    """The link of this host that has the address; "": none."""
    from pyroute2 import IPRoute

    with IPRoute() as host:
        return next((socket.if_indextoname(found["index"]) for found in host.get_addr()
                     if found.get_attr("IFA_LOCAL") == address), "")


async def probe_datapath(rundir: Path, name: str) -> str:
    """`system` where the kernel's datapath can really be made (and a trial one is, of this name), else `netdev` (user
    space)."""
    appctl = ["env", f"OVS_RUNDIR={rundir}", "ovs-appctl", "-t", "ovs-vswitchd"]
    await run([*appctl, "dpctl/del-dp", f"system@{name}"], ok=(0, 2))  # of a trial that was cut short
    try:
        await run([*appctl, "dpctl/add-dp", f"system@{name}"])
        await run([*appctl, "dpctl/del-dp", f"system@{name}"])
    except CommandFailed:
        return "netdev"
    return "system"
