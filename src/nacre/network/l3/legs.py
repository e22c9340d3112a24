"""A router's legs, its ports on networks: what they may be, and what needs them."""

import ipaddress
from collections.abc import Collection, Sequence

import sqlalchemy as sa

from nacre.base.errors import BadRequest
from nacre.network import tables as t
from nacre.network.addresses import ipam
from nacre.network.nouns.port import Fixed, Port, PortAddress
from nacre.network.nouns.router import FloatingIp, PortForwarding, Router
from nacre.network.nouns.subnet import Subnet
from nacre.network.work import Work, conflict

INTERFACE, GATEWAY, FLOATING = "network:router_interface", "network:router_gateway", "network:floatingip"


def bad(message: str, field: str | None = None) -> BadRequest:
    """Neutron's 400 of a router."""
    return BadRequest(f"Bad router request: {message}.", field=field, type="BadRequest")


def changed(work: Work, before: Port, after: Port) -> None:
    """A port is to be this, whoever wishes so: a router may have got it, or lost it."""
    if all(getattr(before, name) == getattr(after, name) for name in ("admin_state_up", "device_id", "device_owner")):
        return
    for port in (before, after):
        if port.device_owner in (INTERFACE, GATEWAY):
            work.changes.routers.add(port.device_id)
            work.changes.routed.update([port.network_id] if port.device_owner == INTERFACE else ())


def readdressed(work: Work, leg: Port, before: Fixed, after: Fixed) -> None:
    """The leg is to have these addresses in place of those, whoever wishes so. Raises BadRequest, Conflict."""
    router = work.first(Router, id=leg.device_id)
    if router is None:
        return
    work.changes.routers.add(router.id)
    if leg.device_owner == INTERFACE:
        had, has = {subnet_id for subnet_id, _ in before}, [subnet_id for subnet_id, _ in after]
        known = {subnet.id: subnet for subnet in work.select(Subnet, id=sorted({*has}))} if has else {}
        refuse_unfit(work, (router.id, leg.id), [known[subnet_id] for subnet_id in has])
        refuse_overlap(work, router.id, [subnet for subnet in known.values() if subnet.id not in had])
        refuse_used(work, router, had - known.keys())


def refuse_unfit(work: Work, leg: tuple[str, str], joined: Sequence[Subnet]) -> None:
    """joined: the subnet of each of the addresses of a leg: (router, port). Raises BadRequest."""
    router_id, port_id = leg
    for subnet in joined:
        refuse_advertised(subnet)
    if len([subnet for subnet in joined if subnet.ip_version == 4]) > 1:
        raise bad("Cannot have multiple IPv4 subnets on router port")
    six = next((subnet for subnet in joined if subnet.ip_version == 6), None)
    if six and (other := six_of(work, router_id, six.network_id)) not in (None, port_id):
        raise bad(f"Router already contains IPv6 port {other} belonging to network id {six.network_id}. Only one "
                  "IPv6 port from the same network subnet can be connected to a router")


def refuse_advertised(subnet: Subnet) -> None:
    if subnet.ip_version == 6 and subnet.ipv6_ra_mode is None and subnet.ipv6_address_mode is not None:
        raise bad(f"IPv6 subnet {subnet.id} configured to receive RAs from an external router cannot be added to "
                  "Neutron Router")


def six_of(work: Work, router_id: str, network_id: str) -> str | None:
    """The router's port with IPv6 addresses on the network: there is one at most."""
    p, a, s = t.ports.c, t.addresses.c, t.subnets.c
    found = work.row(sa.select(p.id).join_from(t.ports, t.addresses, a.port_id == p.id).join(
        t.subnets, s.id == a.subnet_id).where(p.device_id == router_id, p.device_owner == INTERFACE,
                                              p.network_id == network_id, s.ip_version == 6).limit(1))
    return str(found["id"]) if found else None


def refuse_overlap(work: Work, router_id: str, new: Sequence[Subnet]) -> None:
    """A router gets one port on a subnet, and no subnet with an address in common with one that it has: each subnet of
    its gateway's network counts. One that comes to that network later is not held up by what members have inside, as
    with Neutron: it is theirs not to reach it. Raises BadRequest."""
    p, a = t.ports.c, t.addresses.c
    rows = work.rows(sa.select(p.device_owner, p.network_id, a.subnet_id).join(t.addresses, a.port_id == p.id).where(
        p.device_id == router_id, p.device_owner.in_((INTERFACE, GATEWAY))))
    there, ids = {row["subnet_id"] for row in rows}, {subnet.id for subnet in new}
    if twice := sorted(there & ids):
        raise bad(f"Router already has a port on subnet {twice[0]}")
    outside = {row["network_id"] for row in rows if row["device_owner"] == GATEWAY}
    known = work.select(Subnet, id=sorted(there)) + (
        work.select(Subnet, network_id=sorted(outside)) if outside else [])
    for one in known:
        for two in new:
            if one.id != two.id and ipam.overlap(two.cidr, [one.cidr]):
                raise bad(f"Cidr {two.cidr} of subnet {two.id} overlaps with cidr {one.cidr} of subnet {one.id}")


def refuse_used(work: Work, router: Router, subnet_ids: Collection[str]) -> None:
    """Raises Conflict while something goes through one of these subnets."""
    floating = work.select(FloatingIp, router_id=router.id)
    inner = {(each.port_id, each.fixed_ip_address or "") for each in floating if each.port_id}
    if floating:
        inner |= {(each.internal_port_id, each.internal_ip_address) for each in work.select(
            PortForwarding, floatingip_id=[each.id for each in floating])}
    if inner:
        places = {(each.port_id, each.ip_address): each.subnet_id for each in work.select(
            PortAddress, port_id=sorted({port_id for port_id, _ in inner}))}
        if used := next((places[each] for each in inner if places.get(each, "") in subnet_ids), None):
            raise conflict("RouterInterfaceInUseByFloatingIP",
                           f"Router interface for subnet {used} on router {router.id} cannot be deleted, "
                           "as it is required by one or more floating IPs.")
    for subnet in work.select(Subnet, id=list(subnet_ids)):
        net = ipaddress.ip_network(subnet.cidr)
        if any(ipaddress.ip_address(route["nexthop"]) in net for route in router.routes):
            raise conflict("RouterInterfaceInUseByRoute",
                           f"Router interface for subnet {subnet.id} on router {router.id} cannot be "
                           "deleted, as it is required by one or more routes.")
