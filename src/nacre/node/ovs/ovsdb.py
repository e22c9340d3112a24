"""The integration bridge in Open vSwitch's database, through ovsdbapp. Every call here blocks: `bridge.Bridge` makes
them in a thread of their own."""

import ipaddress
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import msgspec

from nacre.base.errors import Conflict, Unavailable
from nacre.node.names import Names
from nacre.node.ovs.zones import UNUSED_KEY, GiveZones, number

#: On the bridge: the id of the cloud whose it is; an earlier release wrote the cloud's data folder.
MARK, FORMER_MARK = "nacre-cloud", "nacre-data"
GUEST, NETWORK = "iface-id", "nacre-network"


class BridgeSettings(msgspec.Struct, frozen=True, kw_only=True):
    """rundir: where Open vSwitch's sockets are. tunnel_ip: this host's address for vxlan (None: no vxlan). mappings:
    physical network -> provider bridge (empty: the cloud's own). datapath: system, netdev, or auto. folder: the
    cloud's data folder, by which an earlier release marked its bridge."""

    names: Names
    rundir: Path = Path("/run/openvswitch")
    tunnel_ip: str | None = None
    vxlan_port: int = 4789
    mappings: Mapping[str, str] = {}
    datapath: str = "auto"
    timeout: int = 10
    folder: str = ""

    @property
    def providers(self) -> dict[str, str]:
        """Physical network -> bridge."""
        return {physical: bridge or self.names.provider for physical, bridge in self.mappings.items()}

    @property
    def alone(self) -> bool:
        """No other host can be reached from this tunnel address."""
        return self.tunnel_ip is not None and ipaddress.ip_address(self.tunnel_ip).is_loopback


class Ovsdb:
    """One bridge's rows."""

    def __init__(self, settings: BridgeSettings):
        self.settings, self.names, self.name = settings, settings.names, settings.names.bridge
        self._api: Any = None

    def connected(self) -> Any:
        if self._api is None:
            self._api = connect(self.settings.rundir / "db.sock", self.settings.timeout)
        return self._api

    def ensure(self, datapath: str) -> None:
        """The bridge with what the settings say and no other way out of it. Raises Conflict: the bridge is another
        cloud's, or the tunnel's port is."""
        api = self.connected()
        bridges = self._bridges(api)
        with api.transaction(check_error=True) as txn:
            txn.add(api.add_br(self.name, datapath_type=datapath))
            txn.add(api.db_set("Bridge", self.name, ("fail_mode", "secure"), ("mcast_snooping_enable", False),
                               ("protocols", [f"OpenFlow1{minor}" for minor in (0, 3, 4, 5)]),
                               ("datapath_type", datapath), ("external_ids", {MARK: self.names.cloud})))
            wanted = self._add_tunnel(api, txn)
            for physical, provider in self.settings.providers.items():
                if provider not in bridges:  # an operator's own stays as it is
                    txn.add(api.add_br(provider, datapath_type=datapath))
                here, there = self.names.patches(physical)
                wanted.add(here)
                for bridge, name, peer in ((self.name, here, there), (provider, there, here)):
                    txn.add(api.add_port(bridge, name))
                    txn.add(api.db_set("Interface", name, ("type", "patch"), ("options", {"peer": peer})))
            for row in self.interfaces():
                if row.type in ("patch", "vxlan") and row.name not in wanted:
                    self._drop(api, txn, row)
        self._check_tunnel()

    def _bridges(self, api: Any) -> set[str]:
        """The names of all there are. Raises Conflict: the one of our name is marked as another cloud's."""
        bridges = set(api.list_br().execute(check_error=True))
        if self.name not in bridges:
            return bridges
        ids: dict[str, str] = api.db_get("Bridge", self.name, "external_ids").execute(check_error=True)
        if MARK not in ids and self.names.former:
            ours = ids.get(FORMER_MARK) == self.settings.folder
        else:
            ours = ids.get(MARK, self.names.cloud) == self.names.cloud
        if not ours:
            raise Conflict(f"The bridge {self.name} is not this cloud's: it is marked {dict(ids)}. If what is on it is "
                           f"ours, say so: `ovs-vsctl br-set-external-id {self.name} {MARK} {self.names.cloud}`.")
        return bridges

    def _add_tunnel(self, api: Any, txn: Any) -> set[str]:
        """The names of the tunnel ports wanted: none where there is nobody to reach."""
        if self.settings.tunnel_ip is None or self.settings.alone:
            return set()
        txn.add(api.add_port(self.name, self.names.tunnel))
        txn.add(api.db_set("Interface", self.names.tunnel, ("type", "vxlan"), ("options", {
            "local_ip": self.settings.tunnel_ip, "remote_ip": "flow", "key": "flow",
            "dst_port": str(self.settings.vxlan_port)})))
        return {self.names.tunnel}

    def _check_tunnel(self) -> None:
        for row in self.interfaces():
            if row.name == self.names.tunnel and row.error:
                raise Conflict(
                    f"The tunnel port of {self.name} cannot be added: {row.error[0]}. Perhaps another cloud on this "
                    f"machine has UDP port {self.settings.vxlan_port} at {self.settings.tunnel_ip}: give this cloud "
                    "another network.vxlan_port (NACRE_NETWORK_VXLAN_PORT, the same on all its hosts), or this host "
                    "another node.tunnel_ip.")

    def strayed(self, datapath: str, link: str) -> str:
        """Why no frame leaves by the tunnel, as far as can be seen here; "": it does. link: the host's that has the
        tunnel's address ("": none)."""
        given = self.settings.tunnel_ip
        if given is None or self.settings.alone:
            return ""
        if not link:
            return f"this host does not have the address of node.tunnel_ip, {given}"
        bridges = {row.name: row.datapath_type for row in self.connected().tables["Bridge"].rows.values()}
        if datapath == "netdev" and bridges.get(link) != "netdev":
            return (f"{given} is the address of {link}: Open vSwitch's userspace datapath wants it on a bridge of "
                    "its own that has the network card as a port")
        return ""

    def _drop(self, api: Any, txn: Any, row: Any) -> None:
        """A port of ours, and the other end of a patch."""
        txn.add(api.del_port(row.name, bridge=self.name, if_exists=True))
        if row.type == "patch" and "peer" in row.options:
            txn.add(api.del_port(row.options["peer"], if_exists=True))

    def remove(self) -> None:
        """The bridge, its patches, and the provider bridge that is the cloud's own."""
        api = self.connected()
        with api.transaction(check_error=True) as txn:
            for row in self.interfaces():
                if row.type == "patch":
                    self._drop(api, txn, row)
            txn.add(api.del_br(self.name))
            if not self.names.former:  # an operator may have plugged a network card into that
                txn.add(api.del_br(self.names.provider))

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
        return {row.external_ids[GUEST]: row.ofport[0] for row in self.interfaces()
                if GUEST in row.external_ids and row.ofport and row.ofport[0] > 0}

    def zones(self, port_ids: frozenset[str]) -> tuple[dict[str, int], set[str]]:
        """The conntrack zones of these of the bridge's ports, and those of the ports whose zone may still have another
        port's connections."""
        mine = {row.external_ids[GUEST]: row for row in self.interfaces() if row.external_ids.get(GUEST) in port_ids}
        zones = {port: zone for port, row in mine.items() if (zone := number(row)) is not None}
        unused = {port for port in zones if UNUSED_KEY in mine[port].external_ids}
        missing = [row.name for port, row in mine.items() if port not in zones]
        if not missing:
            return zones, unused
        made = GiveZones(self.connected(), missing).commit()
        given = {port: made[row.name] for port, row in mine.items() if row.name in made}
        return zones | given, unused | given.keys()

    def used(self, port_ids: Collection[str]) -> None:
        """What is in these ports' zones is theirs, from now on."""
        api = self.connected()
        with api.transaction(check_error=True) as txn:
            for row in self.interfaces():
                if row.external_ids.get(GUEST) in port_ids:
                    txn.add(api.db_remove("Interface", row.name, "external_ids", UNUSED_KEY, if_exists=True))

    def attach(self, interface: str, ids: dict[str, str]) -> None:
        api = self.connected()
        with api.transaction(check_error=True) as txn:
            txn.add(api.add_port(self.name, interface))
            txn.add(api.db_set("Interface", interface, ("external_ids", ids)))

    def links(self) -> dict[str, str]:
        """The host's links (taps, veths) that work as ports of the bridge -> the id of the port or network that each
        is for."""
        return {row.name: row.external_ids.get(GUEST) or row.external_ids.get(NETWORK, "")
                for row in self.interfaces() if row.type == "" and row.ofport and row.ofport[0] > 0}

    def networks(self) -> set[str]:
        """Those whose namespaces have a port on the bridge, working or not. Raises Conflict as `ensure` does."""
        self._bridges(self.connected())
        return {row.external_ids[NETWORK] for row in self.interfaces() if NETWORK in row.external_ids}

    def detach(self, interface: str) -> None:
        self.connected().del_port(interface, bridge=self.name, if_exists=True).execute(check_error=True)

    def unplug(self, port_ids: frozenset[str]) -> None:
        """No interface of these ports is on the bridge, working or not."""
        api = self.connected()
        with api.transaction(check_error=True) as txn:
            for row in self.interfaces():
                if row.external_ids.get(GUEST) in port_ids:
                    txn.add(api.del_port(row.name, bridge=self.name, if_exists=True))

    def stop(self) -> None:
        if self._api is not None:
            self._api.ovsdb_connection.stop()
            self._api = None


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
