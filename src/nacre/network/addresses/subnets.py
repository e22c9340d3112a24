"""Subnets: their address plan, checked against one another and against the ports that use them."""

import ipaddress
import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from nacre.base.errors import BadRequest, NotBuilt
from nacre.network import tables as t
from nacre.network.addresses import ipam, subnetpools
from nacre.network.hosts import dhcp, placed
from nacre.network.l2 import networks
from nacre.network.nouns.attributes import Attributes
from nacre.network.nouns.network import NetworkSegment
from nacre.network.nouns.noun import View
from nacre.network.nouns.port import PortAddress
from nacre.network.nouns.subnet import AUTO_MODES, SUBNET, Subnet, view
from nacre.network.sharing import access
from nacre.network.sharing.access import EXTERNAL, SHARED
from nacre.network.work import Work, among, conflict, missing, where

_PLAIN = ("name", "description", "enable_dhcp", "dns_nameservers", "host_routes", "gateway_ip", "allocation_pools",
          "service_types", "segment_id")


def _bad(message: str, field: str | None = None) -> BadRequest:
    return BadRequest(f"Invalid input for operation: {message}.", field=field, type="InvalidInput")


class Subnets:
    """The store behind /subnets."""

    resource = SUBNET

    def list(self, work: Work, filters: Attributes) -> list[Subnet]:
        return work.search(Subnet, self._visible(work), *where(t.subnets, filters))

    def views(self, work: Work, found: Sequence[Subnet]) -> Sequence[View]:
        shared = access.shared(work, "network")
        n = t.networks.c
        external = set(work.conn.execute(sa.select(n.id).where(
            n.external, among(n.id, {subnet.network_id for subnet in found}))).scalars())
        return [view(s, external=s.network_id in external, shared=s.network_id in shared) for s in found]

    def _visible(self, work: Work) -> sa.ColumnElement[bool]:
        mine = sa.select(t.networks.c.id).where(access.own(work, t.networks))
        return sa.true() if work.context.sees_all else sa.or_(
            access.own(work, t.subnets), t.subnets.c.network_id.in_(mine),
            t.subnets.c.network_id.in_(access.granted(work, "network", SHARED, EXTERNAL)))

    def target(self, work: Work, data: Attributes) -> Attributes:
        return {"network:project_id": networks.get(work, data["network_id"]).project_id}

    def create(self, work: Work, data: Attributes) -> View:
        network = networks.get(work, data["network_id"])
        work.room("subnet", data["project_id"])
        pool_id = subnetpools.choose(work, data)
        cidr = data.get("cidr")
        if not cidr:
            raise BadRequest("Bad subnets request: a subnetpool must be specified in the absence of a cidr.",
                             field="cidr", type="BadRequest")
        _check_version(cidr, data)
        networks.check_subnet_mtu(network.id, network.mtu, data["ip_version"])
        _check_modes(data, cidr)
        if data["enable_dhcp"]:
            _check_dhcp(cidr)
        self._check_overlap(work, network.id, cidr)
        gateway = data["gateway_ip"] if "gateway_ip" in data else ipam.default_gateway(cidr)
        if gateway:
            _check_gateway(gateway, cidr)
        pools = data.get("allocation_pools")
        if pools:
            _check_pools(pools, cidr)
            _check_gateway_outside(gateway, pools)
        _check_families(data, ipaddress.ip_network(cidr).version)
        subnet = work.add(Subnet(
            **work.new(data), **{k: data[k] for k in (
                "name", "network_id", "ip_version", "enable_dhcp", "dns_nameservers", "host_routes", "ipv6_ra_mode",
                "ipv6_address_mode", "service_types")},
            cidr=cidr, gateway_ip=gateway, subnetpool_id=pool_id, segment_id=self._segment(work, network.id, data),
            allocation_pools=pools if pools is not None else ipam.default_pools(cidr, gateway)))
        work.touch(t.networks, network.id)
        self._add_auto_addresses(work, subnet)
        dhcp.ensure(work, network.id)
        work.changes.networks.add(network.id)
        work.changes.subnets.add(network.id)
        return view(subnet, external=network.external, shared=access.is_shared(work, "network", network.id))

    def _segment(self, work: Work, network_id: str, data: Attributes) -> str | None:
        """The segment that a subnet is on. Raises NotFound, BadRequest; NotBuilt: only some hosts would reach it, and
        addresses are not given by hosts."""
        wanted: str | None = data.get("segment_id")
        if wanted is None:
            return None
        segments = work.select(NetworkSegment, network_id=network_id, dynamic=False)
        found = work.first(NetworkSegment, id=wanted)
        if found is None:
            raise missing("segment", wanted)
        if found.network_id != network_id or found.dynamic:
            raise _bad(f"Segment {wanted} is no segment of network {network_id} that a subnet can be on", "segment_id")
        if len(segments) > 1:
            raise NotBuilt("A subnet is on a segment only where that is its network's only one: addresses are not "
                           "given by the segments of hosts.")
        return wanted

    def _add_auto_addresses(self, work: Work, subnet: Subnet) -> None:
        """Guests on the network give themselves an address in a new SLAAC subnet: write it down."""
        if not subnet.automatic:
            return
        owners = ["network:dhcp", "network:router_gateway", "network:router_interface"]
        rows = work.rows(sa.select(t.ports.c.id, t.ports.c.mac_address).where(
            t.ports.c.network_id == subnet.network_id, t.ports.c.device_owner.not_in(owners)))
        if rows:
            work.add_all(PortAddress, [PortAddress(
                subnet_id=subnet.id, ip_address=ipam.eui64(subnet.cidr, r["mac_address"]), port_id=r["id"], position=90)
                for r in rows])
            _every_port(work, subnet.network_id)

    def _check_overlap(self, work: Work, network_id: str, cidr: str) -> None:
        others = work.rows(sa.select(t.subnets.c.id, t.subnets.c.cidr).where(t.subnets.c.network_id == network_id))
        if ipam.overlap(cidr, [o["cidr"] for o in others]):
            raise _bad(f"Requested subnet with cidr: {cidr} for network: {network_id} overlaps with another subnet",
                       "cidr")

    def update(self, work: Work, current: Subnet, data: Attributes) -> None:
        cidr = current.cidr
        new = msgspec.structs.replace(current, **{k: data[k] for k in _PLAIN if k in data})
        if "allocation_pools" in data:
            _check_pools(data["allocation_pools"], cidr)
        if data.get("gateway_ip") and data["gateway_ip"] != current.gateway_ip:
            _check_gateway(data["gateway_ip"], cidr)
            self._check_gateway_free(work, current, data["gateway_ip"])
        if "gateway_ip" in data or "allocation_pools" in data:
            self._check_gateway_used(work, current, data)
            _check_gateway_outside(new.gateway_ip, new.allocation_pools)
        _check_families(data, current.ip_version)
        if "segment_id" in data:
            self._segment(work, current.network_id, data)
        if "enable_dhcp" in data and not data["enable_dhcp"] and (current.ipv6_ra_mode
                                                                 or current.ipv6_address_mode):
            raise _bad("Subnet has ipv6_address_mode or ipv6_ra_mode set; enable_dhcp cannot be False", "enable_dhcp")
        if data.get("enable_dhcp") and not current.enable_dhcp:
            _check_dhcp(cidr)
        work.change(t.subnets, current.id, {k: data[k] for k in _PLAIN if k in data})
        work.touch(t.networks, current.network_id)
        work.changes.networks.add(current.network_id)
        work.changes.subnets.add(current.network_id)

    def _check_gateway_free(self, work: Work, subnet: Subnet, gateway: str) -> None:
        holder = work.row(sa.select(t.ports.c.id, t.ports.c.device_owner).join(
            t.addresses, t.addresses.c.port_id == t.ports.c.id).where(
                t.addresses.c.subnet_id == subnet.id, t.addresses.c.ip_address == gateway))
        if holder and not holder["device_owner"].startswith("network:router"):
            raise conflict("GatewayIpInUse", f"Current gateway ip {gateway} already in use by port {holder['id']}. "
                           "Unable to update.")

    def _check_gateway_used(self, work: Work, subnet: Subnet, data: Attributes) -> None:
        old = subnet.gateway_ip
        if "gateway_ip" not in data or not old or data["gateway_ip"] == old:
            return
        holder = work.row(sa.select(t.ports.c.id).join(t.addresses, t.addresses.c.port_id == t.ports.c.id).where(
            t.addresses.c.subnet_id == subnet.id, t.addresses.c.ip_address == old,
            t.ports.c.device_owner.like("network:router%")))
        if holder:
            raise conflict("GatewayIpInUse", f"Current gateway ip {old} already in use by port {holder['id']}. "
                           "Unable to update.")

    def delete(self, work: Work, current: Subnet) -> None:
        a, p = t.addresses.c, t.ports.c
        rows = work.rows(sa.select(p.id, p.device_owner).join(t.addresses, a.port_id == p.id).where(
            a.subnet_id == current.id))
        auto = current.automatic
        kept = [r for r in rows if r["device_owner"] not in networks.AUTO_DELETE
                and not (auto and not r["device_owner"].startswith("network:"))]
        if kept:
            raise conflict("SubnetInUse", f"Unable to complete operation on subnet {current.id}: One or more ports "
                           "have an IP allocation from this subnet.")
        work.conn.execute(sa.delete(t.addresses).where(a.subnet_id == current.id))
        own = [r["id"] for r in rows if r["device_owner"] in networks.AUTO_DELETE]
        left = {address.port_id for address in work.select(PortAddress, port_id=own)} if own else set()
        if gone := [i for i in own if i not in left]:
            work.remove(t.ports, id=gone)
        work.remove(t.subnets, id=current.id)
        work.touch(t.networks, current.network_id)
        if auto:
            _every_port(work, current.network_id)
        work.changes.networks.add(current.network_id)
        work.changes.subnets.add(current.network_id)


def _every_port(work: Work, network_id: str) -> None:
    """Guests' addresses came or went: what each of the network's ports may send is not what it was."""
    work.changes.hosts.update(host for _, host in placed.hosts_of_networks(work.conn, [network_id]))
    p, g = t.ports.c, t.port_groups.c
    for port_id, group_id in work.conn.execute(sa.select(g.port_id, g.group_id).join_from(
            t.ports, t.port_groups, g.port_id == p.id).where(p.network_id == network_id)):
        work.changes.moved(port_id, [group_id])
    b = t.bindings.c
    work.changes.placed(network_id, *work.conn.execute(sa.select(b.port_id).where(
        b.network_id == network_id, b.host != "")).scalars())


def get(work: Work, subnet_id: str) -> Subnet:
    """A subnet, if the caller may see it. Raises NotFound."""
    found = Subnets().list(work, {"id": [subnet_id]})
    if not found:
        raise missing("subnet", subnet_id)
    return found[0]


def _check_version(cidr: str, data: Attributes) -> None:
    net = ipaddress.ip_network(cidr)
    if net.version != data["ip_version"]:
        raise _bad(f"Invalid CIDR {cidr} given as IP address version {data['ip_version']}: it does not match the "
                   f"ip_version '{data['ip_version']}'", "cidr")
    if net.prefixlen == 0:
        raise _bad("0 is not allowed as CIDR prefix length", "cidr")
    if net.version == 6 and int(net.network_address) == 0:
        raise _bad("IPv6 subnet '::' is not supported", "cidr")
    if net.is_multicast or net.is_loopback:
        raise _bad(f"multicast and loopback networks cannot be subnets: {cidr}", "cidr")


def _check_dhcp(cidr: str) -> None:
    """DHCP needs an address of its own beside a guest's and the gateway's."""
    net = ipaddress.ip_network(cidr)
    if net.prefixlen > net.max_prefixlen - 2:
        raise _bad("Subnet has a prefix length that is incompatible with DHCP service enabled", "cidr")
    if int(net.network_address) == 0:
        raise _bad("First IP '0.0.0.0' of network is not supported if enable_dhcp is True", "cidr")


def _check_modes(data: Attributes, cidr: str) -> None:
    ra, address = data["ipv6_ra_mode"], data["ipv6_address_mode"]
    if not ra and not address:
        return
    if data["ip_version"] != 6:
        raise _bad("ipv6_ra_mode and ipv6_address_mode are only valid when ip_version is 6", "ipv6_ra_mode")
    if not data["enable_dhcp"]:
        raise _bad("ipv6_ra_mode or ipv6_address_mode cannot be set when enable_dhcp is set to False", "ipv6_ra_mode")
    if ra and address and ra != address:
        raise _bad(f"ipv6_ra_mode set to '{ra}' with ipv6_address_mode set to '{address}' is not valid. If both "
                   "attributes are set, they must be the same value", "ipv6_address_mode")
    if (ra in AUTO_MODES or address in AUTO_MODES) and ipaddress.ip_network(cidr).prefixlen != 64:
        raise _bad(f"Invalid CIDR {cidr} for IPv6 address mode. OpenStack uses the EUI-64 address format, which "
                   "requires the prefix to be /64", "cidr")


def _check_gateway(gateway: str, cidr: str) -> None:
    net, ip = ipaddress.ip_network(cidr), ipaddress.ip_address(gateway)
    if ip.version != net.version:
        raise _bad(f"gateway_ip '{gateway}' is not an IPv{net.version} address", "gateway_ip")
    # An IPv6 gateway may be a link-local address; an IPv4 one outside the subnet may be on its link.
    if ip in net and net.version == 4 and not ipam.usable(gateway, cidr):
        raise _bad(f"Gateway is not valid on subnet: {gateway}", "gateway_ip")


def _check_gateway_outside(gateway: str | None, pools: Iterable[dict[str, str]]) -> None:
    if gateway is None:
        return
    value = ipaddress.ip_address(gateway)
    for pool in pools:
        start = ipaddress.ip_address(pool["start"])
        if start.version == value.version and int(start) <= int(value) <= int(ipaddress.ip_address(pool["end"])):
            raise conflict("GatewayConflictWithAllocationPools",
                           f"Gateway ip {gateway} conflicts with allocation pool {pool['start']}-{pool['end']}.")


def _check_pools(pools: list[dict[str, str]], cidr: str) -> None:
    net = ipaddress.ip_network(cidr)
    ranges: list[tuple[int, int, str]] = []
    for pool in pools:
        words = f"{pool['start']}-{pool['end']}"
        start, end = ipaddress.ip_address(pool["start"]), ipaddress.ip_address(pool["end"])
        if start.version != net.version or end.version != net.version or int(end) < int(start):
            raise BadRequest(f"The allocation pool {words} is not valid.", field="allocation_pools",
                             type="InvalidAllocationPool")
        if start not in net or end not in net or not ipam.usable(pool["start"], cidr) or not ipam.usable(
                pool["end"], cidr):
            raise BadRequest(f"The allocation pool {words} spans beyond the subnet cidr {cidr}.",
                             field="allocation_pools", type="OutOfBoundsAllocationPool")
        ranges.append((int(start), int(end), words))
    ranges.sort()
    for (_, last, one), (begin, _, two) in itertools.pairwise(ranges):
        if begin <= last:
            raise conflict("OverlappingAllocationPools",
                           f"Found overlapping allocation pools: {one} {two} for subnet {cidr}.")


def _check_families(data: Attributes, version: int) -> None:
    def wrong(address: str) -> bool:
        return ipaddress.ip_network(address).version != version

    if bad := [n for n in data.get("dns_nameservers", ()) if wrong(n)]:
        raise _bad(f"{bad[0]} in dns_nameservers is not an IPv{version} address", "dns_nameservers")
    routes: list[Any] = data.get("host_routes", [])
    if any(wrong(r["destination"]) or wrong(r["nexthop"]) for r in routes):
        raise _bad(f"host_routes must be IPv{version} throughout", "host_routes")

