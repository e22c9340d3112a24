"""The integration bridge: Open vSwitch's database through ovsdbapp, its flows through ovs-ofctl's atomic bundles."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import structlog

from nacre.base.errors import Unavailable
from nacre.base.shell import CommandFailed, run
from nacre.node.ovs.flows import Flow

log = structlog.get_logger()
T = TypeVar("T")


class BridgeSettings(msgspec.Struct, frozen=True, kw_only=True):
    """name: the integration bridge. rundir: where Open vSwitch's sockets are. tunnel_ip: this host's address for
    vxlan (None: no tunnels). mappings: physical network -> provider bridge. datapath: system, netdev, or auto."""

    name: str = "br-int"
    rundir: Path = Path("/run/openvswitch")
    tunnel_ip: str | None = None
    mappings: Mapping[str, str] = {}
    datapath: str = "auto"
    vxlan_port: int = 4789
    timeout: int = 10


class Bridge:
    """One bridge of one Open vSwitch. Calls of ovsdbapp block, so they run in one thread of their own."""

    def __init__(self, settings: BridgeSettings):
        self.settings, self.name = settings, settings.name
        self.datapath = settings.datapath
        self._api: Any = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"ovsdb-{settings.name}")

    async def ensure(self) -> None:
        """The bridge, its tunnel port and its patches to the provider bridges, as the settings say. Idempotent."""
        if self.datapath == "auto":
            self.datapath = await probe_datapath(self.settings.rundir)
        await self._off_loop(self._ensure)

    async def close(self) -> None:
        """Ends the connection; the bridge stays."""
        if self._api is not None:
            await self._off_loop(self._api.ovsdb_connection.stop)
            self._api = None
        self._thread.shutdown(wait=False)

    async def remove(self) -> None:
        """Deletes the bridge and our patches (tests, decommissioning)."""
        await self._off_loop(self._remove)

    async def ports(self) -> dict[str, int]:
        """OpenFlow port numbers by iface-id, of every port of the bridge that has both."""
        return await self._off_loop(self._ports)

    async def ofports(self) -> dict[str, int]:
        """OpenFlow port numbers by interface name."""
        return await self._off_loop(self._ofports)

    async def links(self) -> list[str]:
        """The host's links (taps, veths) that are ports of the bridge."""
        return await self._off_loop(lambda: [row.name for row in self._interfaces() if row.type == "" and row.ofport])

    async def attach(self, interface: str, ids: Mapping[str, str]) -> None:
        """Adds a link of the host (a veth's end) as a port, with these external ids. Idempotent."""
        await self._off_loop(lambda: self._attach(interface, dict(ids)))

    async def detach(self, interface: str) -> None:
        """Takes a port off the bridge, if it is there."""
        await self._off_loop(
            lambda: self._connected().del_port(interface, bridge=self.name, if_exists=True).execute(check_error=True))

    async def replace(self, flows: Sequence[Flow]) -> None:
        """Makes the bridge's table exactly this, in one atomic step, touching only what differs."""
        await self._ofctl("replace-flows", [flow.text for flow in flows])

    async def change(self, lines: Sequence[str]) -> None:
        """Applies lines made by `plan.changes`, all or none."""
        if lines:
            await self._ofctl("add-flows", lines)

    async def flow_count(self) -> int:
        """How many flows the bridge has: after a restart of vswitchd, none of ours."""
        out = await run(["ovs-ofctl", "-O", "OpenFlow14", "dump-aggregate", self._management])
        return int(out.rpartition(b"flow_count=")[2].split()[0])

    async def flush_zone(self, zone: int) -> None:
        """Forgets the connections of a port that had this number before."""
        await run(["ovs-ofctl", "-O", "OpenFlow14", "ct-flush-zone", self._management, str(zone)])

    @property
    def _management(self) -> str:
        return f"unix:{self.settings.rundir}/{self.name}.mgmt"

    async def _ofctl(self, verb: str, lines: Sequence[str]) -> None:
        await run(["ovs-ofctl", "-O", "OpenFlow14", "--bundle", verb, self._management, "-"],
                  stdin=("\n".join(lines) + "\n").encode())

    async def _off_loop(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _connected(self) -> Any:
        if self._api is None:
            self._api = connect(self.settings.rundir / "db.sock", self.settings.timeout)
        return self._api

    def _ensure(self) -> None:
        api = self._connected()
        with api.transaction(check_error=True) as txn:
            txn.add(api.add_br(self.name, datapath_type=self.datapath))
            txn.add(api.db_set("Bridge", self.name, ("fail_mode", "secure"), ("mcast_snooping_enable", False),
                               ("protocols", [f"OpenFlow1{minor}" for minor in (0, 3, 4, 5)]),
                               ("datapath_type", self.datapath)))
            if self.settings.tunnel_ip:
                self._add_tunnel(api, txn, self.settings.tunnel_ip)
            for physical, provider in self.settings.mappings.items():
                txn.add(api.add_br(provider, datapath_type=self.datapath))
                here, there = patch_names(self.name, physical)
                for bridge, name, peer in ((self.name, here, there), (provider, there, here)):
                    txn.add(api.add_port(bridge, name))
                    txn.add(api.db_set("Interface", name, ("type", "patch"), ("options", {"peer": peer})))

    def _add_tunnel(self, api: Any, txn: Any, address: str) -> None:
        name = tunnel_name(self.name)
        txn.add(api.add_port(self.name, name))
        txn.add(api.db_set("Interface", name, ("type", "vxlan"), ("options", {
            "local_ip": address, "remote_ip": "flow", "key": "flow", "dst_port": str(self.settings.vxlan_port)})))

    def _remove(self) -> None:
        api = self._connected()
        with api.transaction(check_error=True) as txn:
            txn.add(api.del_br(self.name))
            for physical, provider in self.settings.mappings.items():
                txn.add(api.del_port(patch_names(self.name, physical)[1], bridge=provider, if_exists=True))

    def _interfaces(self) -> list[Any]:
        for _ in range(20):
            try:
                bridges = [row for row in self._connected().tables["Bridge"].rows.values() if row.name == self.name]
                return [interface for bridge in bridges for port in bridge.ports for interface in port.interfaces]
            except RuntimeError:  # ovsdbapp's own thread took in a change meanwhile
                continue
        raise Unavailable("Open vSwitch's database changes too fast to be read")

    def _ofports(self) -> dict[str, int]:
        return {row.name: row.ofport[0] for row in self._interfaces() if row.ofport and row.ofport[0] > 0}

    def _ports(self) -> dict[str, int]:
        return {row.external_ids["iface-id"]: row.ofport[0] for row in self._interfaces()
                if "iface-id" in row.external_ids and row.ofport and row.ofport[0] > 0}

    def _attach(self, interface: str, ids: dict[str, str]) -> None:
        api = self._connected()
        with api.transaction(check_error=True) as txn:
            txn.add(api.add_port(self.name, interface))
            txn.add(api.db_set("Interface", interface, ("external_ids", ids)))


def patch_names(bridge: str, physical: str) -> tuple[str, str]:
    """The patch ports between the integration bridge and a provider bridge: (on ours, on theirs)."""
    return f"int-{physical}-{bridge}"[:60], f"phy-{physical}-{bridge}"[:60]


def tunnel_name(bridge: str) -> str:
    """The one vxlan port: its peers are chosen by flows. At most 15 characters, one per bridge."""
    return f"vx-{bridge}"[:15]


def connect(socket: Path, timeout: int) -> Any:
    """ovsdbapp on this socket. Blocks until the database is read. Raises Unavailable."""
    from ovsdbapp.backend.ovs_idl import connection
    from ovsdbapp.schema.open_vswitch import impl_idl

    class Api(impl_idl.OvsdbIdl):  # type: ignore[misc]
        """A class of its own each time: ovsdbapp keeps its connection on the class."""

    try:
        idl = connection.OvsdbIdl.from_server(f"unix:{socket}", "Open_vSwitch")
        return Api(connection.Connection(idl=idl, timeout=timeout))
    except Exception as error:
        raise Unavailable(f"Open vSwitch's database at {socket} does not answer: {error}") from error


async def probe_datapath(rundir: Path) -> str:
    """`system` where the kernel's datapath can really be made, else `netdev` (user space)."""
    appctl = ["env", f"OVS_RUNDIR={rundir}", "ovs-appctl", "-t", "ovs-vswitchd"]
    try:
        await run([*appctl, "dpctl/add-dp", "system@nacre-probe"])
        await run([*appctl, "dpctl/del-dp", "system@nacre-probe"])
    except CommandFailed:
        return "netdev"
    return "system"
