"""Rules of security groups: their normal form, and which are the same. Pure."""

import ipaddress
from typing import Any

from nacre.network.nouns.attributes import Attributes
from nacre.network.nouns.security_group import (
    PROTOCOLS,
    DefaultRule,
    SecurityGroupRule,
    bad,
    port,
    prefix,
    protocol,
)

_WITH_PORTS = (6, 17, 33, 132, 136)
_ONLY_V6 = ("ipv6-encap", "ipv6-frag", "ipv6-icmp", "icmpv6", "ipv6-nonxt", "ipv6-opts", "ipv6-route")
_V6_NUMBERS = {str(PROTOCOLS[name]) for name in _ONLY_V6}


def protocol_number(value: str | None) -> int | None:
    """The IP protocol number of a rule's protocol; None for any."""
    if value is None or value == "ip":
        return None
    return PROTOCOLS[value] if value in PROTOCOLS else int(value)


def normalise(data: Attributes) -> Attributes:
    """A rule as it is kept: canonical protocol, ports as integers, prefix as given but checked. Raises BadRequest."""
    rule = dict(data)
    rule["protocol"] = protocol(data["protocol"])
    rule["port_range_min"], rule["port_range_max"] = port(data["port_range_min"]), port(data["port_range_max"])
    if sum(1 for k in ("remote_ip_prefix", "remote_group_id", "remote_address_group_id") if data.get(k)) > 1:
        raise bad("SecurityGroupMultipleRemoteEntites", "Only one of remote_ip_prefix or remote_group_id or "
                   "remote_address_group_id may be provided.", "remote_ip_prefix")
    rule["remote_ip_prefix"] = prefix(data["remote_ip_prefix"])
    _check_family(rule["remote_ip_prefix"], data["ethertype"])
    if (rule["protocol"] in _ONLY_V6 or rule["protocol"] in _V6_NUMBERS) and rule["ethertype"] != "IPv6":
        raise bad("SecurityGroupEthertypeConflictWithProtocol",
                   f"Invalid ethertype {rule['ethertype']} for protocol {rule['protocol']}.", "ethertype")
    _check_ports(rule)
    return rule


def _check_family(prefix: str | None, ethertype: str) -> None:
    if prefix and ipaddress.ip_interface(prefix).version != (4 if ethertype == "IPv4" else 6):
        raise bad("SecurityGroupRuleParameterConflict", f"Conflicting value ethertype {ethertype} for CIDR {prefix}",
                  "remote_ip_prefix")


def _check_ports(rule: Attributes) -> None:
    low, high, number = rule["port_range_min"], rule["port_range_max"], protocol_number(rule["protocol"])
    if low is None and high is None:
        return
    if rule["protocol"] is None:
        raise bad("SecurityGroupProtocolRequiredWithPorts", "Must also specify protocol if port range is given.",
                   "protocol")
    if number in (1, 58):
        for value, name, words in ((low, "port_range_min", "type"), (high, "port_range_max", "code")):
            if value is not None and not 0 <= value <= 255:
                raise bad("SecurityGroupInvalidIcmpValue", f"Invalid value for ICMP {words} ({name}) {value}. "
                           "It must be 0 to 255.", name)
        if low is None:
            raise bad("SecurityGroupMissingIcmpType", f"ICMP code (port-range-max) {high} is provided but ICMP type "
                       "(port-range-min) is missing.", "port_range_min")
        return
    if number not in _WITH_PORTS:
        raise bad("SecurityGroupInvalidProtocolForPort", f"Ports cannot be specified for protocol {rule['protocol']}. "
                   "Ports are only supported for dccp, sctp, tcp, udp and udplite.", "port_range_min")
    if low is None or high is None or low > high or (number in (6, 17) and low == 0 and high == 0):
        raise bad("SecurityGroupInvalidPortRange", "For TCP/UDP protocols, port_range_min must be <= port_range_max",
                   "port_range_min")


def same(rule: SecurityGroupRule | DefaultRule) -> tuple[Any, ...]:
    """What two rules of a group may not have in common."""
    prefix = rule.remote_ip_prefix
    net = str(ipaddress.ip_network(prefix, strict=False)) if prefix else None
    return (rule.direction, rule.ethertype, protocol_number(rule.protocol), rule.port_range_min, rule.port_range_max,
            None if net in ("0.0.0.0/0", "::/0") else net, rule.remote_group_id, rule.remote_address_group_id)
