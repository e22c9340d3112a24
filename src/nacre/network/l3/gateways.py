"""The cloud's own ports for routers and floating IPs, and a router's way out: its gateway on an external network."""

import ipaddress
from collections.abc import Sequence

import sqlalchemy as sa

from nacre.network import ports
from nacre.network import tables as t
from nacre.network.l2 import networks
from nacre.network.l3 import extraroutes
from nacre.network.l3.legs import GATEWAY, INTERFACE, bad, refuse_overlap
from nacre.network.nouns.attributes import Attributes
from nacre.network.nouns.network import Network
from nacre.network.nouns.port import Fixed, Placed, PortAddress
from nacre.network.nouns.router import FloatingIp, Router
from nacre.network.nouns.subnet import Subnet
from nacre.network.work import Work, conflict

#: The most addresses that a gateway has.
MAX_ADDRESSES = 10


def service_port(work: Work, network: Network, device: tuple[str, str], fixed_ips: Sequence[dict[str, str]] | None,
                 project_id: str = "") -> tuple[Placed, Fixed]:
    """A port of the cloud's own (a gateway, a router's interface, a floating IP's address), and its addresses. device:
    (id, owner). It is DOWN until a host says that it serves it (reports.py)."""
    device_id, owner = device
    data = ports.defaults() | {"project_id": project_id, "device_id": device_id, "device_owner": owner,
                               "port_security_enabled": False}
    if fixed_ips:
        data["fixed_ips"] = list(fixed_ips)
    port, fixed, _ = ports.insert(work, network, data)
    return port, fixed


def replace(work: Work, router: Router, info: Attributes | None) -> None:
    """Gives the router this gateway, or takes it away (None). Raises NotFound; BadRequest where it does not fit, or
    routes need the one that goes; Conflict while floating IPs do."""
    if info is None:
        extraroutes.check(router.routes, extraroutes.reach(work, router.id, (INTERFACE,)))
        take(work, router)
        return
    wanted = info.get("external_fixed_ips") or []
    values: Attributes = {"enable_snat": info.get("enable_snat", True)}
    network = _network(work, router, info["network_id"], wanted)
    if router.gateway_port_id is None or router.gateway_network_id != network.id:
        take(work, router)
        refuse_overlap(work, router.id, work.select(Subnet, network_id=network.id))
        port, _ = service_port(work, network, (router.id, GATEWAY), wanted)
        values |= {"gateway_port_id": port.id, "gateway_network_id": network.id}
    elif wanted and _other(work, router.gateway_port_id, wanted):
        port = work.select(Placed, id=router.gateway_port_id, active=True)[0]
        ports.Ports().update(work, port, {"fixed_ips": wanted})
    _write(work, router, values)  # who translates for it is elected after that (gateway_hosts.py)


def take(work: Work, router: Router) -> None:
    """Takes the router's gateway away, if it has one. Raises Conflict while floating IPs go through it."""
    if router.gateway_port_id is not None:
        if work.first(FloatingIp, router_id=router.id):
            raise conflict("RouterExternalGatewayInUseByFloatingIp", (
                f"Gateway cannot be updated for router {router.id}, since a gateway to external network "
                f"{router.gateway_network_id} is required by one or more floating IPs."))
        ports.drop(work, [router.gateway_port_id])
        work.changes.routing.update([router.gateway_host] if router.gateway_host else ())
    _write(work, router, {"gateway_port_id": None, "gateway_network_id": None, "gateway_host": None,
                             "enable_snat": True})


def _write(work: Work, router: Router, values: Attributes) -> None:
    if any(getattr(router, name) != value for name, value in values.items()):
        work.conn.execute(sa.update(t.routers).where(t.routers.c.id == router.id).values(**values))
        work.changes.routers.add(router.id)


def _network(work: Work, router: Router, network_id: str, wanted: Sequence[dict[str, str]]) -> Network:
    network = networks.get(work, network_id)
    if not network.external:
        raise bad(f"Network {network.id} is not an external network", "external_gateway_info")
    if len(wanted) > MAX_ADDRESSES:
        raise bad(f"A gateway has at most {MAX_ADDRESSES} addresses", "external_fixed_ips")
    subnets = work.select(Subnet, network_id=network.id)
    gateways = {subnet.gateway_ip for subnet in subnets if subnet.gateway_ip}
    for each in wanted:
        if each.get("ip_address") in gateways:
            raise bad(f"External IP {each['ip_address']} is the same as the gateway IP", "external_fixed_ips")
    if router.routes:
        own = extraroutes.reach(work, router.id, (INTERFACE,))
        extraroutes.check(router.routes, extraroutes.Reach(
            (*own.networks, *(ipaddress.ip_network(subnet.cidr) for subnet in subnets)), own.addresses))
    return network


def _other(work: Work, port_id: str, wanted: Sequence[dict[str, str]]) -> bool:
    """Whether the gateway has not these subnets and addresses already."""
    has = work.select(PortAddress, port_id=port_id)
    return ({a.subnet_id for a in has} != {w["subnet_id"] for w in wanted if w.get("subnet_id")}
            or {a.ip_address for a in has} != {w["ip_address"] for w in wanted if w.get("ip_address")})
