"""What a host says of a guest's ports and networks, checked as what clients send is. A network that is made again of it
is wired by other hosts, as root: no word may reach them that the API would not have taken."""

import ipaddress
import uuid
from collections.abc import Iterable
from typing import Any, TypeVar

import msgspec

from nacre.base.errors import BadRequest
from nacre.network.attributes import checks as c
from nacre.network.attributes import shapes
from nacre.network.contract import AddressPair, FixedIp, NetworkFacts, Plugged, SubnetFacts
from nacre.network.ml2 import types

S = TypeVar("S", bound=msgspec.Struct)
#: The most ports, networks, and subnets of a network.
MOST = 200
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


_NETWORK: dict[str, c.Check] = {
    "id": _id, "name": c.text(255), "project_id": c.text(64, lines=False), "mtu": c.number(0, 65535),
    "network_type": c.one_of("flat", "vlan", "vxlan", "local"), "physical_network": c.maybe(c.text(64, lines=False)),
    "segmentation_id": c.maybe(c.number(1, types.MAX_VNI)), "dhcp_mac": c.maybe(c.mac), "dns_domain": c.dns_domain}
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


def parse(found: Plugged, known: types.SegmentTypes) -> Plugged:
    """The same, in the form in which it would be kept. known: the physical networks that there are. Raises BadRequest
    naming what is wrong."""
    for what, those in (("ports", found.ports), ("networks", found.networks)):
        if len(those) > MOST:
            raise _refusal(what, f"there are {len(those)}, more than {MOST}")
    return Plugged(ports=tuple(_checked("port", port, _PORT) for port in found.ports),
                   networks=tuple(_network(network, known) for network in found.networks))


def _network(said: NetworkFacts, known: types.SegmentTypes) -> NetworkFacts:
    network = _checked("network", said, _NETWORK)
    types.validate(known, network.network_type, network.physical_network, network.segmentation_id)
    if len(network.subnets) > MOST:
        raise _refusal("network", f"it has {len(network.subnets)} subnets, more than {MOST}")
    return msgspec.structs.replace(network, subnets=tuple(_subnet(subnet) for subnet in network.subnets))


def _subnet(said: SubnetFacts) -> SubnetFacts:
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
