"""The ports of servers: what was asked for becomes ports, bound to a host, and goes again (FLOW B6)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import sqlalchemy as sa

from nacre.base.errors import BadRequest, Conflict, Forbidden, NotFound, QuotaExceeded
from nacre.network import ports
from nacre.network import tables as t
from nacre.network.addresses import ipam
from nacre.network.contract import AUTO, NetworkRequest, Plugged, PortFacts, PortsOrder
from nacre.network.hosts import bindings, dhcp, facts
from nacre.network.l2 import networks, trunk_ports
from nacre.network.l3 import topology
from nacre.network.nouns import checks
from nacre.network.nouns.attributes import Attributes
from nacre.network.nouns.network import Network
from nacre.network.nouns.port import PORT, Placed, Port, PortAddress
from nacre.network.nouns.subnet import Subnet
from nacre.network.policies import may_create_port, require
from nacre.network.sharing import access
from nacre.network.traffic import security_groups
from nacre.network.work import Work, conflict, missing

#: Of a port that is only asked about: no automatic address can be asked for by number.
NO_MAC = "00:00:00:00:00:00"


@dataclass(frozen=True)
class Interface:
    """One interface of the order, looked up: on a network, or a port that the user brought."""

    request: NetworkRequest
    network: Network
    port: Port | None = None


def resolve(work: Work, order: PortsOrder) -> list[Interface]:
    """The order's interfaces. Changes nothing; raises BadRequest, NotFound, Conflict, Forbidden."""
    if order.requests is None:
        return _automatic(work)
    if order.requests == (AUTO,):
        return _automatic(work)
    alike: dict[NetworkRequest, Interface] = {}  # a network named often is looked up once
    found = []
    for request in order.requests:
        key = msgspec.structs.replace(request, tag=None)
        if key not in alike:
            alike[key] = _one(work, order, request)
        found.append(replace(alike[key], request=request))
    brought = [i.port.id for i in found if i.port]
    if len(brought) != len(set(brought)):
        raise conflict("PortInUse", f"Port {brought[0]} is still in use.")
    group_ids(work, order)
    return found


def _allocatable(work: Work) -> str:
    """The project, which may get a network on demand, as by its route. Raises BadRequest, Forbidden."""
    project = work.context.project_id or ""
    require(work, "get_auto_allocated_topology", {"project_id": project})
    try:
        topology.required(work)
    except Conflict as error:
        raise BadRequest(f"Unable to automatically allocate a network for project {project}: it can "
                         f"use none, and {error.message} Make one, or ask for \"none\".", field="networks",
                         type="UnableToAutoAllocateNetwork") from None
    return project


def _automatic(work: Work) -> list[Interface]:
    n = t.networks.c
    found = work.search(Network, n.external.is_(False), sa.or_(
        n.project_id == work.context.project_id, n.id.in_(access.granted(work, "network"))), limit=2)
    if len(found) > 1:
        raise conflict("NetworkAmbiguous",
                       "Multiple possible networks found, use a Network ID to be more specific.")
    return [Interface(NetworkRequest(network_id=network.id), network) for network in found]


def _one(work: Work, order: PortsOrder, request: NetworkRequest) -> Interface:
    if request.port_id:
        return _brought(work, order, request)
    network = networks.get(work, request.network_id or "")
    _check_external(work, network)
    if work.first(Subnet, network_id=network.id) is None:
        raise BadRequest(f"Network {network.id} requires a subnet in order to boot instances on.",
                         type="NetworkRequiresSubnet")
    interface = Interface(request, network)
    if request.fixed_ip:
        _wish(work, order, interface, None)  # who may not choose an address does not hear which are taken
        _check_fixed(work, network.id, request.fixed_ip)
    return interface


def _brought(work: Work, order: PortsOrder, request: NetworkRequest) -> Interface:
    """A port that the user has already."""
    port = work.first(Port, ports.visible(work, t.ports), id=request.port_id)
    if port is None:
        raise missing("port", request.port_id or "")
    if port.project_id != work.context.project_id:
        raise BadRequest(f"Port {port.id} not usable for instance {order.server_id}.", type="PortNotUsable")
    if {port.device_id, port.server_id} - {"", None, order.server_id} or trunk_ports.is_carried(work, port.id):
        raise conflict("PortInUse", f"Port {port.id} is still in use.")
    if work.first(PortAddress, port_id=port.id) is None:
        raise BadRequest(f"Port {port.id} requires a FixedIP in order to be used.", type="PortRequiresFixedIP")
    network = networks.get(work, port.network_id)
    _check_external(work, network)
    return Interface(request, network, port)


def _check_external(work: Work, network: Network) -> None:
    """A server sits on an external network where that is shared too, or the operator lets its project."""
    if not network.external or work.policy.allows(
            work.context, "network:attach_external_network", msgspec.structs.asdict(network)):
        return
    if not access.is_shared(work, "network", network.id):
        raise Forbidden(f"It is not allowed to create an interface on external network {network.id}",
                        type="ExternalNetworkAttachForbidden")


def _check_fixed(work: Work, network_id: str, address: str) -> None:
    try:
        address = checks.ip(address)
    except ValueError:
        raise BadRequest(f"Fixed IP {address} is not a valid IP address.", field="fixed_ip") from None
    taken = work.row(sa.select(t.addresses.c.port_id).join(
        t.subnets, t.subnets.c.id == t.addresses.c.subnet_id).where(
            t.subnets.c.network_id == network_id, t.addresses.c.ip_address == address))
    if taken:
        raise BadRequest(f"Fixed IP address {address} is already in use on instance network {network_id}.",
                         field="fixed_ip", type="FixedIpAlreadyInUse")


def group_ids(work: Work, order: PortsOrder) -> list[str] | None:
    """The ids of the order's security groups (given by name or id). None: none were named."""
    if not order.security_groups:
        return None
    rows = work.rows(sa.select(t.security_groups.c.id, t.security_groups.c.name).where(
        security_groups.may_use(work), sa.or_(t.security_groups.c.name.in_(order.security_groups),
                                               t.security_groups.c.id.in_(order.security_groups)),
        t.security_groups.c.project_id == work.context.project_id))
    found = []
    for wanted in dict.fromkeys(order.security_groups):
        fitting = [r["id"] for r in rows if r["id"] == wanted] or [r["id"] for r in rows if r["name"] == wanted]
        if len(fitting) > 1:
            raise conflict("NoUniqueMatch", f"Multiple security_group matches found for name '{wanted}', use an ID to "
                           "be more specific.")
        if not fitting and wanted != "default":
            raise NotFound(f"Security group {wanted} not found.", type="SecurityGroupNotFound")
        found += fitting or [""]  # "": the default group, which is made when the ports are
    return found


def check(work: Work, order: PortsOrder, count: int, least: int) -> int:
    """As the contract's `check`. Counted before anything is looked up."""
    _room(work, sum(1 for r in order.requests or () if not r.port_id), count, least)
    if order.requests == (AUTO,) and not _automatic(work):
        _allocatable(work)
        return _room(work, 1, count, least)
    interfaces = resolve(work, order)
    made = [i for i in interfaces if i.port is None]
    if len(interfaces) != len(made) and count > 1:
        raise BadRequest("Unable to launch multiple instances with a single configured port ID. Please launch your "
                         "instance one by one with different ports.", type="MultiplePortsNotApplicable")
    for interface in made:
        data = _wish(work, order, interface, None)
        if "fixed_ips" in data:
            ipam.choose(work, ipam.AddressRequest(
                interface.network.id, NO_MAC, data["device_owner"], data["fixed_ips"]))
    return _room(work, len(made), count, least)


def _room(work: Work, each: int, count: int, least: int) -> int:
    """For how many of `count` servers with so many new ports each the quota has room. Raises QuotaExceeded: not for
    `least`."""
    left = work.left("port", work.context.project_id) if each and work.context.project_id else None
    if left is not None and left < each * least:
        raise QuotaExceeded("Maximum number of ports exceeded", type="OverQuota")
    return count if left is None else min(count, left // each)


def plug(work: Work, order: PortsOrder, host: str) -> tuple[Plugged, list[str]]:
    """As the contract's `plug`: one transaction for all the server's ports. And the ids of those that nothing binds."""
    found, tried = of_server(work, order.server_id), set[str]()
    if not found:
        if fresh := _make(work, order):
            found = bindings.bind(work, fresh, host, fresh=True)
            tried = {port.id for port in found}
        if any(request.port_id for request in order.requests or ()):
            found = of_server(work, order.server_id)
    if todo := [p for p in found if p.id not in tried and (p.host != host or not p.bound)]:
        anew = {port.id: port for port in bindings.bind(work, todo, host)}
        found = [anew.get(port.id, port) for port in found]
    return _plugged(work, found, host), bindings.failed(found)


def _plugged(work: Work, found: Sequence[Placed], host: str) -> Plugged:
    network_ids = {port.network_id for port in found}
    for network_id in network_ids:
        dhcp.ensure(work, network_id)
    return Plugged(ports=facts.ports(work, found), networks=facts.networks(work, network_ids, host))


def _make(work: Work, order: PortsOrder) -> list[Placed]:
    """The server's new ports, without a binding; of the user's own it is written down whose they are now."""
    if order.requests == (AUTO,) and not _automatic(work):
        topology.ensure(work, _allocatable(work))
    interfaces = resolve(work, order)
    groups = group_ids(work, order)
    project = work.context.project_id or ""
    if made := sum(1 for i in interfaces if i.port is None):
        work.room("port", project, made)
    if groups is not None:
        groups = [g or security_groups.ensure_default(work, project) for g in groups]
    fresh = []
    for position, interface in enumerate(interfaces):
        if interface.port:
            _adopt(work, order, interface, interface.port, position)
        else:
            fresh.append(ports.build(work, interface.network, _wish(work, order, interface, groups) | {
                "server_id": order.server_id, "position": position, "device_tag": interface.request.tag})[0])
    return fresh


def _adopt(work: Work, order: PortsOrder, interface: Interface, port: Port, position: int) -> None:
    work.change(t.ports, port.id, {
        "device_id": order.server_id, "server_id": order.server_id, "preserve": True,
        "device_owner": f"compute:{order.availability_zone}", "position": position,
        "device_tag": interface.request.tag, "dns_name": port.dns_name or _dns(order.hostname)})


def _wish(work: Work, order: PortsOrder, interface: Interface, groups: list[str] | None) -> Attributes:
    """The new port as its owner could ask for it at POST /ports, and with what is asked of them there. Raises
    BadRequest, Forbidden."""
    network = interface.network
    raw: Attributes = {"network_id": network.id, "device_id": order.server_id, "dns_name": _dns(order.hostname),
                "device_owner": f"compute:{order.availability_zone}"}
    if interface.request.fixed_ip:
        raw["fixed_ips"] = [{"ip_address": interface.request.fixed_ip}]
    if groups is not None and network.port_security_enabled:
        raw["security_groups"] = groups
    data = PORT.parse_create(raw, work.context)
    may_create_port(work, PORT, raw, data | ports.policy_target(work, network, data))
    return data


def _dns(hostname: str) -> str:
    try:
        return str(checks.dns_host(hostname))[:63]
    except ValueError:
        return ""


def of_server(work: Work, server_id: str) -> list[Placed]:
    """A server's ports with their active bindings, in their order."""
    return _of(work, server_id=server_id, active=True)


def _of(work: Work, **conditions: Any) -> list[Placed]:
    return work.select(Placed, order=("position",), **conditions)


def bind(work: Work, server_id: str, host: str) -> tuple[Plugged, list[str]]:
    """As the contract's `bind`, and the ids of the ports that nothing binds."""
    ready, found = _ready(work, server_id, host), of_server(work, server_id)
    todo = [port for port in found if port.id not in ready]
    # An active binding that failed at this host stays what it is until the port is plugged again.
    failed = [port.id for port in todo if port.host == host]
    if todo and not failed:
        anew = bindings.prepare(work, todo, host)
        ready |= {port.id: port for port in anew}
        failed = bindings.failed(anew)
    return _plugged(work, [ready.get(port.id, port) for port in found], host), failed


def activate(work: Work, server_id: str, host: str) -> None:
    """As the contract's `activate`. Raises NotFound, naming a port that is not bound at the host."""
    ready = _ready(work, server_id, host)
    if lacking := [port.id for port in of_server(work, server_id) if port.id not in ready]:
        raise bindings.missing(lacking[0], host)
    if todo := [port for port in ready.values() if not port.active]:
        bindings.activate(work, todo)


def _ready(work: Work, server_id: str, host: str) -> dict[str, Placed]:
    """The server's ports that are bound at the host, active or not, with that binding."""
    return {port.id: port for port in _of(work, server_id=server_id, host=host) if port.bound}


def unbind(work: Work, server_id: str, host: str) -> None:
    """As the contract's `unbind`."""
    found = _of(work, server_id=server_id, host=host)
    bindings.clear(work, [port for port in found if port.active])
    bindings.drop(work, [port for port in found if not port.active])


def deallocate(work: Work, server_id: str) -> None:
    """As the contract's `deallocate`."""
    found = of_server(work, server_id)
    ports.drop(work, [port.id for port in found if not port.preserve])
    kept = [port for port in found if port.preserve]
    bindings.clear(work, kept)
    bindings.drop(work, _of(work, id=[port.id for port in kept], active=False) if kept else [])
    for port in kept:
        work.change(t.ports, port.id, {"device_id": "", "device_owner": "", "server_id": None, "preserve": False,
                                       "position": 0, "device_tag": None})


def of_servers(work: Work, server_ids: Sequence[str]) -> dict[str, tuple[PortFacts, ...]]:
    """server id -> its ports in their order, in a few statements for any number of servers."""
    found: dict[str, tuple[PortFacts, ...]] = {}
    for port in facts.ports(work, _of(work, server_id=server_ids, active=True)):
        found[port.device_id] = (*found.get(port.device_id, ()), port)
    return found
