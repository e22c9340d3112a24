"""Where the ports of a network are, as its hosts keep it: the twin of members.py. Whatever others see of a port (its
host, its MAC, its addresses, where it is prepared) is written down as `Changes.placed` where it changes."""

from collections import defaultdict
from collections.abc import Collection

import sqlalchemy as sa

from nacre.network import tables as t
from nacre.network.contract import NetworkPorts, PlacedPort
from nacre.network.hosts.members import Found, Numbered

_B, _P, _A = t.bindings.c, t.ports.c, t.addresses.c
#: Where nothing could bind the port it is not.
_WIRED = _B.vif_type == "ovs"
_EVERY = sa.select(_B.network_id, _B.port_id, _P.mac_address, _B.host, _B.active, _A.ip_address).where(
    _B.host != "", _WIRED).join_from(t.bindings, t.ports, _P.id == _B.port_id).outerjoin(
        t.addresses, _A.port_id == _P.id)
_OF_NETWORKS = _EVERY.where(_B.network_id.in_(sa.bindparam("ids", expanding=True)))
_OF_PORTS = _EVERY.where(_B.port_id.in_(sa.bindparam("ports", expanding=True)))
#: Those of these networks that the host has ports of.
_ON = sa.select(_B.network_id).distinct().where(
    _B.host == sa.bindparam("host"), _WIRED, _B.network_id.in_(sa.bindparam("ids", expanding=True)))

#: It is on no host, nor prepared on one.
GONE = PlacedPort(mac="")


def here(connection: sa.Connection, host: str, networks: Collection[str]) -> list[str]:
    """Those of the networks that have ports on the host, active or prepared."""
    return list(connection.execute(_ON, {"ids": list(networks), "host": host}).scalars()) if networks else []


def _find(connection: sa.Connection, networks: Collection[str], ports: Collection[str] | None) -> Found[PlacedPort]:
    asked = (_OF_NETWORKS, {"ids": list(networks)}) if ports is None else (_OF_PORTS, {"ports": list(ports)})
    read = dict[str, tuple[str, str, dict[str, bool], set[str]]]()
    for network, port, mac, host, active, address in connection.execute(*asked):
        known = read.get(port) or read.setdefault(port, (network, mac, {}, set()))
        known[2][host] = active
        known[3].update([address] if address else ())
    found: dict[str, dict[str, PlacedPort]] = defaultdict(dict)
    for port, (network, mac, hosts, addresses) in read.items():
        found[network][port] = PlacedPort(
            mac=mac, addresses=tuple(sorted(addresses)), host=next((h for h, active in hosts.items() if active), ""),
            prepared=tuple(sorted(h for h, active in hosts.items() if not active)))
    return found


PLACED = Numbered[NetworkPorts, PlacedPort](t.placed_changes, (t.networks, _B.network_id), NetworkPorts, _find, GONE)
