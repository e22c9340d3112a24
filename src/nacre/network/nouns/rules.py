"""The values of a security group's rule: each takes what the client sent and returns what is kept.

What is wrong raises BadRequest by the name that Neutron gives it.
"""

import ipaddress
from typing import Any

from nacre.base.errors import BadRequest
from nacre.base.serving.inputs import whole_number

PROTOCOLS = {
    "ah": 51, "dccp": 33, "egp": 8, "esp": 50, "gre": 47, "hopopt": 0, "icmp": 1, "igmp": 2, "ip": 0, "ipip": 4,
    "ipv6-encap": 41, "ipv6-frag": 44, "ipv6-icmp": 58, "icmpv6": 58, "ipv6-nonxt": 59, "ipv6-opts": 60,
    "ipv6-route": 43, "ospf": 89, "pgm": 113, "rsvp": 46, "sctp": 132, "tcp": 6, "udp": 17, "udplite": 136,
    "vrrp": 112,
}
ETHERTYPES = ("IPv4", "IPv6")


def bad(kind: str, message: str, field: str) -> BadRequest:
    return BadRequest(message, field=field, type=kind)


def protocol(value: Any) -> str | None:
    """A protocol's name in lower case, or its number as a string; None for any. Raises BadRequest."""
    if value in (None, "any"):
        return None
    word = str(value).lower()
    number = whole_number(word)
    if not isinstance(value, bool) and (word in PROTOCOLS or (number is not None and number <= 255)):
        return word if word in PROTOCOLS else str(number)
    raise bad("SecurityGroupRuleInvalidProtocol", f"Security group rule protocol {str(value)[:64]} not supported. Only "
              f"protocol values {[None, 'any', *PROTOCOLS]} and integer representations [0 to 255] are supported.",
              "protocol")


def port(value: Any) -> int | None:
    """An end of a range of ports (or an ICMP type or code). Raises BadRequest."""
    try:
        if value is None or 0 <= int(value) <= 65535:
            return None if value is None else int(value)
    except (TypeError, ValueError, OverflowError):
        pass
    raise bad("SecurityGroupInvalidPortValue", f"Invalid value for port {str(value)[:64]}", "port_range_min")


def ethertype(value: Any) -> str:
    """"IPv4" or "IPv6", in whatever letters. Raises BadRequest."""
    found = next((e for e in ETHERTYPES if isinstance(value, str) and e.lower() == value.lower()), None)
    if found is None:
        raise bad("SecurityGroupRuleInvalidEtherType", f"Security group rule for ethertype '{str(value)[:64]}' not "
                  f"supported. Allowed values are {list(ETHERTYPES)}.", "ethertype")
    return found


def prefix(value: Any) -> str | None:
    """An address or a network as a CIDR that keeps its host bits; None for anything empty. Raises BadRequest."""
    if not value:
        return None
    try:
        if not isinstance(value, str) or "%" in value:
            raise ValueError
        interface = ipaddress.ip_interface(value)
    except ValueError:
        raise bad("InvalidCIDR", f"Invalid CIDR {str(value)[:64]} given as IP prefix.", "remote_ip_prefix") from None
    return f"{interface.ip}/{interface.network.prefixlen}"
