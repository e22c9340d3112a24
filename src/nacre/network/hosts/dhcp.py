"""The one distributed DHCP port of a network: the same MAC and addresses on every host."""

from collections.abc import Mapping
from types import MappingProxyType

import sqlalchemy as sa

from nacre.network import tables as t
from nacre.network.addresses import ipam
from nacre.network.hosts import bindings
from nacre.network.nouns.network import Network
from nacre.network.nouns.port import Binding, Placed, Port, PortAddress
from nacre.network.nouns.subnet import Subnet
from nacre.network.work import Work

OWNER = "network:dhcp"
NONE: Mapping[str, str] = MappingProxyType({})


def device(network_id: str) -> str:
    """The device_id of a network's DHCP port: found by it at the same cost however many ports the network has."""
    return f"dhcp-distributed-{network_id}"


def port_of(work: Work, network_id: str) -> Port | None:
    """The network's DHCP port, if it has one."""
    return work.first(Port, device_id=device(network_id), device_owner=OWNER)


def ensure(work: Work, network_id: str, mac: str | None = None, fixed: Mapping[str, str] = NONE) -> None:
    """The network has its DHCP port if one of its subnets wants DHCP. mac, fixed: what a new one shall have, its
    addresses by subnets."""
    if port_of(work, network_id) is None and _subnets(work, network_id):
        if network := work.first(Network, id=network_id):
            _make(work, network, mac or ipam.new_mac(work.rng))
            work.changes.networks.add(network_id)  # it is on each of the network's hosts
        sync(work, network_id, fixed)


def _make(work: Work, network: Network, mac: str) -> None:
    port = Placed(
        **work.new({"project_id": network.project_id}), name="", network_id=network.id, mac_address=mac,
        admin_state_up=True, status="ACTIVE", device_id=device(network.id), device_owner=OWNER,
        port_security_enabled=False, allowed_address_pairs=[], extra_dhcp_opts=[], dns_name="", server_id=None,
        preserve=False, device_tag=None, position=0, qos_policy_id=None, dns_domain="", vnic_type="normal", profile={},
        **bindings.UNBOUND | {"vif_type": "distributed"})
    work.add_all(Port, [port])
    work.add_all(Binding, [port.binding()])


def sync(work: Work, network_id: str, fixed: Mapping[str, str] = NONE) -> None:
    """The DHCP port (where there is one) has an address in each subnet that wants DHCP, and in no other."""
    port = port_of(work, network_id)
    if port is None:
        return
    a = t.addresses.c
    has = {address.subnet_id for address in work.select(PortAddress, port_id=port.id)}
    wants = {s.id: s for s in _subnets(work, network_id)}
    if gone := has - set(wants):
        work.conn.execute(sa.delete(t.addresses).where(a.port_id == port.id, a.subnet_id.in_(gone)))
    for subnet_id in set(wants) - has:
        subnet = wants[subnet_id]
        address = fixed.get(subnet_id) or (
            ipam.eui64(subnet.cidr, port.mac_address) if subnet.automatic else ipam.lowest_free(work, subnet))
        if address:  # a full subnet goes without DHCP rather than without ports
            work.add(PortAddress(subnet_id=subnet_id, ip_address=address, port_id=port.id, position=0))


def _subnets(work: Work, network_id: str) -> list[Subnet]:
    return work.select(Subnet, network_id=network_id, enable_dhcp=True)
