"""A router's interfaces: the ports by which it is on networks."""

import ipaddress
from collections.abc import Sequence

import sqlalchemy as sa

from nacre.base.errors import BadRequest, NotFound, QuotaExceeded
from nacre.network import ports
from nacre.network import tables as t
from nacre.network.addresses import ipam, subnets
from nacre.network.l2 import networks, trunk_ports
from nacre.network.l3.gateways import service_port
from nacre.network.l3.legs import (
    INTERFACE,
    bad,
    refuse_advertised,
    refuse_overlap,
    refuse_unfit,
    refuse_used,
    six_of,
)
from nacre.network.nouns.attributes import Attributes
from nacre.network.nouns.noun import View
from nacre.network.nouns.port import Placed, Port
from nacre.network.nouns.router import Router, interface_view
from nacre.network.nouns.subnet import Subnet
from nacre.network.sharing import access
from nacre.network.work import Work, missing

#: On each network of another project: the most routers of one project; and the most interfaces of a router that is on
#: such a network: each of its hosts has all of these to route.
MAX_ABROAD, MAX_JOINED = 5, 20


def add(work: Work, router: Router, body: Attributes) -> View:
    """Joins a subnet (with its gateway address) or a port to the router. Raises BadRequest, NotFound, Conflict,
    QuotaExceeded."""
    if {"port_id", "subnet_id"} <= body.keys():
        raise bad("Cannot specify both subnet-id and port-id")
    if not body.keys() & {"port_id", "subnet_id"}:
        raise bad("Either subnet_id or port_id must be specified")
    found = _by_port(work, router, body["port_id"]) if "port_id" in body else _by_subnet(
        work, router, subnets.get(work, body["subnet_id"]))
    if not work.context.is_admin:
        _refuse_many_abroad(work, router, found["network_id"])
    work.touch(t.routers, router.id)
    work.changes.routers.add(router.id)
    return found


def _refuse_many_abroad(work: Work, router: Router, joined_id: str) -> None:
    """joined_id: the network that it joined just now. Raises QuotaExceeded."""
    p, n, r = t.ports.c, t.networks.c, t.routers.c
    rows = work.rows(sa.select(p.network_id, n.project_id).join(t.networks, n.id == p.network_id).where(
        p.device_id == router.id, p.device_owner == INTERFACE))
    abroad = {row["network_id"] for row in rows if row["project_id"] != router.project_id}
    if abroad and len(rows) > MAX_JOINED:
        raise QuotaExceeded(f"A router on another project's network has at most {MAX_JOINED} interfaces.",
                            type="OverQuota")
    if joined_id in abroad and work.conn.execute(sa.select(sa.func.count(r.id.distinct())).join_from(
            t.ports, t.routers, r.id == p.device_id).where(
                p.network_id == joined_id, p.device_owner == INTERFACE,
                r.project_id == router.project_id)).scalar_one() > MAX_ABROAD:
        raise QuotaExceeded(f"At most {MAX_ABROAD} routers of a project are on a network of another project.",
                            type="OverQuota")


def _by_port(work: Work, router: Router, port_id: str) -> View:
    found = ports.Ports().list(work, {"id": [port_id]})
    if not found or (found[0].project_id != work.context.project_id and not work.context.is_admin):
        raise missing("port", port_id)
    port = found[0]
    ports.refuse_used(port)
    trunk_ports.refuse_carried(work, port.id)
    fixed = ports.parts(work, [port])[0][port.id]
    if not fixed:
        raise bad("Router port must have at least one fixed IP")
    joined = [subnets.get(work, subnet_id) for subnet_id, _ in fixed]
    refuse_unfit(work, (router.id, port.id), joined)
    refuse_overlap(work, router.id, joined)
    _refuse_outside(work, port, joined, [address for _, address in fixed])
    work.change(t.ports, port.id, {"device_id": router.id, "device_owner": INTERFACE})
    return interface_view(router, port.id, port.network_id, [subnet.id for subnet in joined])


def _refuse_outside(work: Work, port: Port, joined: Sequence[Subnet], fixed: Sequence[str]) -> None:
    """On another project's subnet a router has an address that anybody may get. Raises BadRequest."""
    for subnet, given in zip(joined, fixed, strict=True):
        address = int(ipaddress.ip_address(given))
        free = any(first <= address <= last for first, last in ipam.spans(subnet.allocation_pools))
        if not free and subnet.project_id != work.context.project_id and not work.context.is_admin:
            raise bad(f"Cannot add interface to router because specified port {port.id} has an IP address out of the "
                      f"allocation pool of subnet {subnet.id}, which is not owned by the project making the request")


def _by_subnet(work: Work, router: Router, subnet: Subnet) -> View:
    if not subnet.gateway_ip:
        raise bad("Subnet for router interface must have a gateway IP")
    # What is shared with all is not: whoever came first would be everybody's gateway.
    if subnet.project_id != work.context.project_id and not work.context.is_admin and not access.is_given(
            work, "network", subnet.network_id):
        raise bad(f"Cannot add interface to router because subnet {subnet.id} is not owned by project making the "
                  "request")
    refuse_advertised(subnet)
    refuse_overlap(work, router.id, [subnet])
    wanted = {"subnet_id": subnet.id, "ip_address": subnet.gateway_ip}
    if subnet.ip_version == 6 and (six := six_of(work, router.id, subnet.network_id)):
        port = work.select(Placed, id=six, active=True)[0]
        fixed = ports.parts(work, [port])[0][port.id]
        ports.Ports().update(work, port, {"fixed_ips": [
            *({"subnet_id": s, "ip_address": a} for s, a in fixed), wanted]})
    else:
        network = networks.get(work, subnet.network_id)
        port, _ = service_port(work, network, (router.id, INTERFACE), [wanted], router.project_id)
    return interface_view(router, port.id, subnet.network_id, [subnet.id])


def joined(work: Work, router_id: str, network_id: str) -> list[str]:
    """The subnets of the network that the router is on."""
    p = t.ports.c
    return list(work.conn.execute(sa.select(t.addresses.c.subnet_id).join(t.ports, t.addresses.c.port_id == p.id).where(
        p.device_id == router_id, p.device_owner == INTERFACE, p.network_id == network_id).distinct()).scalars())


def remove(work: Work, router: Router, body: Attributes) -> View:
    """Takes a subnet's or port's interface away. Raises BadRequest, NotFound; Conflict while floating IPs, forwardings
    or routes need it."""
    if not body.keys() & {"port_id", "subnet_id"}:
        raise bad("Either subnet_id or port_id must be specified")
    p, a = t.ports.c, t.addresses.c
    rows = work.rows(sa.select(p.id, p.network_id, a.subnet_id, a.ip_address).join(
        t.addresses, a.port_id == p.id).where(p.device_id == router.id, p.device_owner == INTERFACE))
    if "port_id" in body:
        port_id, ids = _named_port(router, body, rows)
        kept = []
    else:
        wanted = subnets.get(work, body["subnet_id"])
        port_id = next((str(row["id"]) for row in rows if row["subnet_id"] == wanted.id), "")
        if not port_id:
            raise NotFound(f"Router {router.id} has no interface on subnet {wanted.id}",
                           type="RouterInterfaceNotFoundForSubnet")
        ids = [wanted.id]
        kept = [row for row in rows if row["id"] == port_id and row["subnet_id"] != wanted.id]
    refuse_used(work, router, ids)
    network_id = next(row["network_id"] for row in rows if row["id"] == port_id)
    work.changes.routed.add(network_id)
    if kept:
        port = work.select(Placed, id=port_id, active=True)[0]
        ports.Ports().update(work, port, {"fixed_ips": [
            {"subnet_id": row["subnet_id"], "ip_address": row["ip_address"]} for row in kept]})
    else:
        trunk_ports.release(work, work.select(Port, id=port_id)[0])
        ports.drop(work, [port_id])
    work.touch(t.routers, router.id)
    work.changes.routers.add(router.id)
    return interface_view(router, port_id, network_id, ids)


def _named_port(router: Router, body: Attributes, rows: Sequence[Attributes]) -> tuple[str, list[str]]:
    port_id, subnet_id = str(body["port_id"]), body.get("subnet_id")
    ids = [str(row["subnet_id"]) for row in rows if row["id"] == port_id]
    if not ids:
        raise NotFound(f"Router {router.id} does not have an interface with id {port_id}",
                       type="RouterInterfaceNotFound")
    if subnet_id and subnet_id not in ids:
        raise BadRequest(f"Subnet on port {port_id} does not match the requested subnet {subnet_id}.",
                         field="subnet_id", type="SubnetMismatchForPort")
    return port_id, ids
