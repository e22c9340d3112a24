"""The integration bridge in Open vSwitch's database, through ovsdbapp. Every call here blocks: `bridge.Bridge` makes
them in a thread of their own."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from nacre.base.errors import Unavailable
from nacre.node.ovs.ownership import MARK


class BridgeSettings(msgspec.Struct, frozen=True, kw_only=True):
    """name: the integration bridge. rundir: where Open vSwitch's sockets are. tunnel_ip: this host's address for
    vxlan (None: no tunnels). mappings: physical network -> provider bridge. datapath: system, netdev, or auto. owner:
    the data folder of the cloud that wants the bridge for itself (None: nobody else can be meant, as in tests)."""

    name: str = "br-int"
    rundir: Path = Path("/run/openvswitch")
    tunnel_ip: str | None = None
    mappings: Mapping[str, str] = {}
    datapath: str = "auto"
    vxlan_port: int = 4789
    timeout: int = 10
    owner: Path | None = None


class Ovsdb:
    """One bridge's rows."""

    def __init__(self, settings: BridgeSettings):
        self.settings, self.name = settings, settings.name
        self._api: Any = None

    def connected(self) -> Any:
        if self._api is None:
            self._api = connect(self.settings.rundir / "db.sock", self.settings.timeout)
        return self._api

    def ensure(self, datapath: str) -> None:
        api = self.connected()
        bridges = set(api.list_br().execute(check_error=True))
        with api.transaction(check_error=True) as txn:
            txn.add(api.add_br(self.name, datapath_type=datapath))
            txn.add(api.db_set("Bridge", self.name, ("fail_mode", "secure"), ("mcast_snooping_enable", False),
                               ("protocols", [f"OpenFlow1{minor}" for minor in (0, 3, 4, 5)]),
                               ("datapath_type", datapath)))
            if self.settings.owner:
                txn.add(api.db_set("Bridge", self.name, ("external_ids", {MARK: str(self.settings.owner)})))
            if self.settings.tunnel_ip:
                self._add_tunnel(api, txn, self.settings.tunnel_ip)
            for physical, provider in self.settings.mappings.items():
                if provider not in bridges:  # an operator's own stays as it is
                    txn.add(api.add_br(provider, datapath_type=datapath))
                here, there = patch_names(self.name, physical)
                for bridge, name, peer in ((self.name, here, there), (provider, there, here)):
                    txn.add(api.add_port(bridge, name))
                    txn.add(api.db_set("Interface", name, ("type", "patch"), ("options", {"peer": peer})))

    def _add_tunnel(self, api: Any, txn: Any, address: str) -> None:
        name = tunnel_name(self.name)
        txn.add(api.add_port(self.name, name))
        txn.add(api.db_set("Interface", name, ("type", "vxlan"), ("options", {
            "local_ip": address, "remote_ip": "flow", "key": "flow", "dst_port": str(self.settings.vxlan_port)})))

    def remove(self) -> None:
        api = self.connected()
        with api.transaction(check_error=True) as txn:
            txn.add(api.del_br(self.name))
            for physical, provider in self.settings.mappings.items():
                txn.add(api.del_port(patch_names(self.name, physical)[1], bridge=provider, if_exists=True))

    def interfaces(self) -> list[Any]:
        for _ in range(20):
            try:
                bridges = [row for row in self.connected().tables["Bridge"].rows.values() if row.name == self.name]
                return [interface for bridge in bridges for port in bridge.ports for interface in port.interfaces]
            except RuntimeError:  # ovsdbapp's own thread took in a change meanwhile
                continue
        raise Unavailable("Open vSwitch's database changes too fast to be read")

    def ofports(self) -> dict[str, int]:
        return {row.name: row.ofport[0] for row in self.interfaces() if row.ofport and row.ofport[0] > 0}

    def ports(self) -> dict[str, int]:
        return {row.external_ids["iface-id"]: row.ofport[0] for row in self.interfaces()
                if "iface-id" in row.external_ids and row.ofport and row.ofport[0] > 0}

    def attach(self, interface: str, ids: dict[str, str]) -> None:
        api = self.connected()
        with api.transaction(check_error=True) as txn:
            txn.add(api.add_port(self.name, interface))
            txn.add(api.db_set("Interface", interface, ("external_ids", ids)))

    def links(self) -> list[str]:
        """The host's links (taps, veths) that are ports of the bridge."""
        return [row.name for row in self.interfaces() if row.type == "" and row.ofport]

    def detach(self, interface: str) -> None:
        self.connected().del_port(interface, bridge=self.name, if_exists=True).execute(check_error=True)

    def stop(self) -> None:
        if self._api is not None:
            self._api.ovsdb_connection.stop()
            self._api = None


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
