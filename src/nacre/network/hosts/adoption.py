"""The network of a guest that its host has and the database does not know (it was restored, or is another): made again
as the host remembers it, under the same ids, so that the guest's interfaces, lease and metadata go on as they are."""

import ipaddress
import uuid
from collections.abc import Collection, Iterable
from typing import Any, TypeVar

import msgspec

from nacre.base.errors import BadRequest, Conflict
from nacre.network import ports
from nacre.network import tables as t
from nacre.network.addresses import ipam
from nacre.network.contract import (
    AddressPair,
    FixedIp,
    Named,
    NetworkFacts,
    Plugged,
    PortFacts,
    PortsOrder,
    SubnetFacts,
)
from nacre.network.hosts import dhcp, servers
from nacre.network.l2 import networks, numbers
from nacre.network.ml2 import type_drivers
from nacre.network.nouns import checks as c
from nacre.network.nouns import shapes
from nacre.network.nouns.attributes import Attributes
from nacre.network.nouns.network import Network
from nacre.network.nouns.noun import Noun
from nacre.network.nouns.port import Port, PortAddress
from nacre.network.nouns.security_group import SecurityGroup
from nacre.network.nouns.subnet import Subnet
from nacre.network.sharing import access
from nacre.network.work import Work, conflict

S = TypeVar("S", bound=msgspec.Struct)
#: The most ports, networks, and subnets of a network.
MOST = 200


def adopt(work: Work, order: PortsOrder, found: Plugged, host: str,
          named: Named = Named()) -> tuple[Plugged, list[str]]:
    """As the contract's `adopt`; and the ids of the ports that nothing binds. A host's word makes again what is gone,
    for the project that the operator named and for no other; of what is there it changes nothing that is not that
    project's own."""
    found = parse(found, work.settings.types)
    foreign, known = _known(work, order, found)
    own = [network for network in found.networks if network.id not in foreign]
    _fits(work, order, msgspec.structs.replace(found, networks=tuple(own)), known, named.segments)
    _may_keep(work, order, [port for port in found.ports if port.network_id in foreign], named.addresses)
    for network in own:
        _network(work, order, network)
    for port in found.ports:
        _port(work, order, port, made=port.network_id not in known)
    for network in own:  # after the ports: their addresses come first
        _dhcp(work, network)
    return servers.plug(work, order, host)


def _known(work: Work, order: PortsOrder, found: Plugged) -> tuple[set[str], set[str]]:
    """Of the networks that are there: those that are shared with the project, and all. Raises Conflict: another's, or
    one that is gone and was another's, by the host's word."""
    project = order.context.project_id
    ids = {network.id for network in found.networks} | {port.network_id for port in found.ports}
    owners = {network.id: network.project_id for network in work.select(Network, id=list(ids))}
    shared = access.shared(work, "network")
    for id, owner in owners.items():
        if owner != project and id not in shared:
            raise conflict("NetworkInUse", f"Network {id} is of project {owner}, and is not shared with {project}.")
    for network in found.networks:
        if network.id not in owners and network.project_id != project:
            raise conflict("NetworkInUse", (
                f"Network {network.id} is gone, and was project {network.project_id}'s, as the host says. It is made "
                f"again with a server of that project only: adopt one first, and share the network with {project}."))
    return {id for id, owner in owners.items() if owner != project}, set(owners)


def _fits(work: Work, order: PortsOrder, found: Plugged, known: Collection[str], segments: Collection[str]) -> None:
    """Whether that may be made of what the host says. Raises BadRequest: a network that is none of the guest's;
    Conflict: one of the operator's own wires, which the operator did not name; QuotaExceeded."""
    used = {port.network_id for port in found.ports}
    for network in found.networks:
        if network.id not in used:
            raise BadRequest(f"What the host says of the guest's networks is refused: no port of the guest is on "
                             f"network {network.id}.", type="InvalidInput")
        if type_drivers.of(network.network_type).physical and network.id not in known and _segment_name(
                network) not in segments:
            raise conflict("NetworkInUse", (
                f"Network {network.id} is gone, and its guest is wired to {_segment_name(network)}, as the host says. "
                "It is made again there only if you name that segment: --segment, or segments of the request."))
    project = order.context.project_id or ""
    subnets = sum(_missing(work, Subnet, {subnet.id for subnet in network.subnets}) for network in found.networks)
    for resource, new in (
            ("network", len({network.id for network in found.networks} - set(known))), ("subnet", subnets),
            ("port", _missing(work, Port, {port.id for port in found.ports}))):
        if new:
            work.room(resource, project, new)


def _may_keep(work: Work, order: PortsOrder, found: Collection[PortFacts], named: Collection[str]) -> None:
    """Whether the new ones of these ports, on networks that others share with the project, may have the addresses that
    the host says: those that a member of the project might ask for at `POST /ports`, and those that the operator named.
    Raises Conflict: others."""
    member = order.context.as_member()
    there = {port.id for port in work.select(Port, id=[port.id for port in found])} if found else set()
    for port in found:
        network = networks.get(work, port.network_id)
        facts = {"project_id": member.project_id} | ports.policy_target(work, network, {"fixed_ips": True})
        asked = {port.mac_address: "mac_address"} | {ip.ip_address: "fixed_ips:ip_address" for ip in port.fixed_ips}
        unnamed = [address for address, what in asked.items() if address not in {each.lower() for each in named}
                   and not work.policy.allows(member, f"create_port:{what}", facts)]
        if unnamed and port.id not in there:
            gateways = {subnet.gateway_ip for subnet in work.select(Subnet, network_id=port.network_id)}
            has = ", ".join(ip + " (its subnet's gateway)" * (ip in gateways) for ip in asked)
            raise conflict("NetworkInUse", (
                f"Network {port.network_id} is of project {network.project_id}, and shared with "
                f"{member.project_id}, which may not choose addresses there. Port {port.id} has {has}, as the host "
                f"says. It keeps them only if you name them: --address {' --address '.join(unnamed)}, or addresses of "
                "the request."))


def _missing(work: Work, kind: type[Noun], ids: set[str]) -> int:
    """How many of these there are not."""
    return len(ids) - len(work.select(kind, id=list(ids))) if ids else 0


def _segment_name(facts: NetworkFacts) -> str:
    """As the operator names one that is not the cloud's own affair: flat:PHYSICAL, vlan:PHYSICAL:NUMBER."""
    parts = (facts.network_type, facts.physical_network, facts.segmentation_id)
    return ":".join(str(part) for part in parts if part is not None)


def _network(work: Work, order: PortsOrder, facts: NetworkFacts) -> None:
    if work.first(Network, id=facts.id) is None:
        work.add(Network(
            **work.new({"project_id": facts.project_id}) | {"id": facts.id}, name=facts.name, mtu=facts.mtu,
            admin_state_up=True, port_security_enabled=True, external=False, is_default=False,
            dns_domain=facts.dns_domain, availability_zone_hints=[], qos_policy_id=None))
        _segment(work, facts)
    known = {subnet.id: subnet.cidr for subnet in work.select(Subnet, network_id=facts.id)}
    for subnet in facts.subnets:
        if subnet.id not in known:
            if ipam.overlap(subnet.cidr, known.values()):
                raise conflict("SubnetInUse", f"Network {facts.id} has another subnet now where {subnet.cidr} was.")
            work.add(_subnet(work, facts, subnet))


def _segment(work: Work, facts: NetworkFacts) -> None:
    """The number that it had. A tunnel's is the cloud's own affair: another one is as good."""
    what = (facts.network_type, facts.physical_network, facts.segmentation_id)
    try:
        numbers.reserve(work, facts.id, what)
    except Conflict:
        if not type_drivers.of(facts.network_type).overhead:
            raise
        numbers.reserve(work, facts.id, (*what[:2], None))


def _subnet(work: Work, network: NetworkFacts, facts: SubnetFacts) -> Subnet:
    return Subnet(
        **work.new({"project_id": network.project_id}) | {"id": facts.id}, name="", network_id=network.id,
        ip_version=facts.ip_version, cidr=facts.cidr, gateway_ip=facts.gateway_ip, enable_dhcp=facts.enable_dhcp,
        ipv6_ra_mode=facts.ipv6_ra_mode, ipv6_address_mode=facts.ipv6_address_mode, subnetpool_id=None,
        service_types=[], segment_id=None, allocation_pools=ipam.default_pools(facts.cidr, facts.gateway_ip),
        dns_nameservers=list(facts.dns_nameservers),
        host_routes=[{"destination": d, "nexthop": n} for d, n in facts.host_routes])


def _dhcp(work: Work, facts: NetworkFacts) -> None:
    """The guest knows its address, as that of its DHCP server and of the metadata."""
    fixed = {s.id: s.dhcp_ip for s in facts.subnets if s.dhcp_ip and s.enable_dhcp}
    taken = work.select(PortAddress, subnet_id=list(fixed), ip_address=list(fixed.values())) if fixed else []
    for address in taken:
        if fixed.get(address.subnet_id) == address.ip_address:
            del fixed[address.subnet_id]
    dhcp.ensure(work, facts.id, facts.dhcp_mac, fixed)


def _port(work: Work, order: PortsOrder, facts: PortFacts, *, made: bool) -> None:
    """made: its network was made again just now, so that what the host remembers of it is all that there is."""
    device = {"device_id": order.server_id, "server_id": order.server_id, "preserve": facts.preserve,
              "device_owner": f"compute:{order.availability_zone}", "position": facts.position,
              "device_tag": facts.tag}
    port = work.first(Port, id=facts.id)
    if port is None:
        ports.insert(work, networks.get(work, facts.network_id), _new_port(work, order, facts, made) | device)
    elif port.project_id != order.context.project_id:
        raise conflict("PortInUse", f"Port {facts.id} belongs to project {port.project_id}.")
    elif port.server_id not in (None, order.server_id) or (
            port.device_id not in ("", order.server_id)):
        raise conflict("PortInUse", f"Port {facts.id} belongs to {port.server_id or port.device_id} now.")
    elif not port.server_id:
        work.change(t.ports, port.id, device)


def _new_port(work: Work, order: PortsOrder, facts: PortFacts, made: bool) -> Attributes:
    project, loose = order.context.project_id or "", made and not facts.port_security
    shared = access.shared(work, "security_group")
    known = {g.id for g in work.select(SecurityGroup, id=list(facts.security_groups))
             if g.project_id == project or g.id in shared}
    groups = [group for group in facts.security_groups if group in known]
    subnets = {subnet.id: subnet for subnet in work.select(Subnet, network_id=facts.network_id)}
    return ports.defaults() | {
        "id": facts.id, "project_id": project, "name": facts.name,
        "mac_address": facts.mac_address, "admin_state_up": facts.admin_state_up, "dns_name": order.hostname[:63],
        "port_security_enabled": not loose, "binding:vnic_type": facts.vnic_type,
        # None: the project's default group, for a guest that would be open without: it was in some, or was open before.
        "security_groups": groups or (None if facts.security_groups or not (loose or facts.port_security) else []),
        "fixed_ips": [{"subnet_id": ip.subnet_id, "ip_address": ip.ip_address} for ip in facts.fixed_ips
                      if ip.subnet_id not in subnets or not subnets[ip.subnet_id].automatic],
        "allowed_address_pairs": [{"ip_address": pair.ip_address} | (
            {"mac_address": pair.mac_address} if pair.mac_address else {})
            for pair in facts.allowed_pairs] if made else [],
        "extra_dhcp_opts": [{"opt_name": n, "opt_value": v, "ip_version": i} for n, v, i in facts.dhcp_options]}


_MODE = c.one_of("slaac", "dhcpv6-stateful", "dhcpv6-stateless", None)
_ADDRESS = c.maybe(c.ip)


def _id(value: str) -> str:
    """As ids are written here: they become names of files and tags in configurations."""
    try:
        right = str(uuid.UUID(value)) == value
    except ValueError:
        right = False
    if not right:
        raise ValueError(f"{value[:64]!r} is not a UUID")
    return value


def _network_type(value: str) -> str:
    return str(c.one_of(*type_drivers.load())(value))


_NETWORK: dict[str, c.Check] = {
    "id": _id, "name": c.text(255), "project_id": c.text(64, lines=False), "mtu": c.number(0, 65535),
    "network_type": _network_type,
    "physical_network": c.maybe(c.text(64, lines=False)),
    "segmentation_id": c.maybe(c.number(1, type_drivers.MAX_VNI)), "dhcp_mac": c.maybe(c.mac),
    "dns_domain": c.dns_domain}
_SUBNET: dict[str, c.Check] = {
    "id": _id, "cidr": c.subnet_cidr, "ip_version": c.one_of(4, 6), "gateway_ip": _ADDRESS, "dhcp_ip": _ADDRESS,
    "ipv6_address_mode": _MODE, "ipv6_ra_mode": _MODE,
    "dns_nameservers": lambda given: tuple(c.nameservers(list(given))),
    "host_routes": lambda given: tuple((route["destination"], route["nexthop"]) for route in c.host_routes(
        [{"destination": to, "nexthop": via} for to, via in given]))}
_PORT: dict[str, c.Check] = {
    "id": _id, "name": c.text(255), "network_id": _id, "mac_address": c.mac, "position": c.number(0, MOST),
    "vnic_type": c.text(64, lines=False), "tag": c.maybe(c.text(60, lines=False)),
    "security_groups": lambda given: tuple(c.groups(list(given))),
    "fixed_ips": lambda given: tuple(FixedIp(**ip) for ip in shapes.fixed_ips(_plain(given))),
    "allowed_pairs": lambda given: tuple(AddressPair(**pair) for pair in shapes.address_pairs(
        [{name: value for name, value in pair.items() if value is not None} for pair in _plain(given)])),
    "dhcp_options": lambda given: tuple((o["opt_name"], o["opt_value"], o["ip_version"]) for o in shapes.dhcp_options(
        [{"opt_name": name, "opt_value": value, "ip_version": version} for name, value, version in given]))}


def parse(found: Plugged, known: type_drivers.SegmentTypes) -> Plugged:
    """What a host says of a guest's ports and networks, checked as what clients send is, in the form in which it would
    be kept: a network that is made again of it is wired by other hosts, as root. known: the physical networks that
    there are. Raises BadRequest naming what is wrong."""
    for what, those in (("ports", found.ports), ("networks", found.networks)):
        if len(those) > MOST:
            raise _refusal(what, f"there are {len(those)}, more than {MOST}")
    return Plugged(ports=tuple(_checked("port", port, _PORT) for port in found.ports),
                   networks=tuple(_checked_network(network, known) for network in found.networks))


def _checked_network(said: NetworkFacts, known: type_drivers.SegmentTypes) -> NetworkFacts:
    network = _checked("network", said, _NETWORK)
    type_drivers.validate(known, network.network_type, network.physical_network, network.segmentation_id)
    if len(network.subnets) > MOST:
        raise _refusal("network", f"it has {len(network.subnets)} subnets, more than {MOST}")
    return msgspec.structs.replace(network, subnets=tuple(_checked_subnet(subnet) for subnet in network.subnets))


def _checked_subnet(said: SubnetFacts) -> SubnetFacts:
    subnet = _checked("subnet", said, _SUBNET)
    net = ipaddress.ip_network(subnet.cidr)
    if net.version != subnet.ip_version:
        raise _refusal("subnet", f"ip_version: {subnet.cidr} is not of version {subnet.ip_version}")
    if net.version == 4 and (subnet.ipv6_address_mode or subnet.ipv6_ra_mode):
        raise _refusal("subnet", f"ipv6_ra_mode: {subnet.cidr} is of version 4")
    for name in ("gateway_ip", "dhcp_ip"):
        if (given := getattr(subnet, name)) and ipaddress.ip_address(given).version != net.version:
            raise _refusal("subnet", f"{name}: {given} is not of version {net.version}")
    if subnet.dhcp_ip and ipaddress.ip_address(subnet.dhcp_ip) not in net:
        raise _refusal("subnet", f"dhcp_ip: {subnet.dhcp_ip} is not in {net}")
    return subnet


def _checked(what: str, said: S, attributes: dict[str, c.Check]) -> S:
    """The struct with each of these attributes as its check gives it back."""
    changed = {}
    for name, check in attributes.items():
        try:
            changed[name] = check(getattr(said, name))
        except ValueError as error:
            raise _refusal(what, f"{name}: {str(error)[:200]}") from None
    return msgspec.structs.replace(said, **changed)


def _plain(structs: Iterable[Any]) -> list[dict[str, Any]]:
    return [msgspec.structs.asdict(struct) for struct in structs]


def _refusal(what: str, reason: str) -> BadRequest:
    return BadRequest(f"What the host says of the guest's {what} is refused: {reason}.", type="InvalidInput")
