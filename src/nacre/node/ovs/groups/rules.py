"""Security group rules as OpenFlow matches. A rule that cannot be expressed is refused alone: the others stand."""

import ipaddress

from nacre.network.contract import RuleFacts

#: Protocol names as Neutron takes them, with their IP protocol numbers.
PROTOCOLS = {"ah": 51, "dccp": 33, "egp": 8, "esp": 50, "gre": 47, "hopopt": 0, "icmp": 1, "igmp": 2, "ip": 0,
             "ipip": 4, "ipv6-encap": 41, "ipv6-frag": 44, "ipv6-icmp": 58, "icmpv6": 58, "ipv6-nonxt": 59,
             "ipv6-opts": 60, "ipv6-route": 43, "ospf": 89, "pgm": 113, "rsvp": 46, "sctp": 132, "tcp": 6,
             "udp": 17, "udplite": 136, "vrrp": 112}
_PORTED = {6: "tcp", 17: "udp", 132: "sctp"}
_ANY = {"IPv4": "0.0.0.0/0", "IPv6": "::/0"}


class PoisonedRule(ValueError):
    """The rule cannot be turned into flows; the text says why."""


def rule_matches(rule: RuleFacts) -> list[str]:
    """The OpenFlow matches that together are the rule, but for the members of a group that it names. Raises
    PoisonedRule."""
    if rule.ethertype not in _ANY:
        raise PoisonedRule(f"ethertype {rule.ethertype!r} is neither IPv4 nor IPv6")
    if rule.direction not in {"ingress", "egress"}:
        raise PoisonedRule(f"direction {rule.direction!r} is neither ingress nor egress")
    peers = _peers(rule)
    return [",".join(part for part in (protocol, peer) if part) for peer in peers for protocol in _protocol(rule)]


def port_masks(low: int, high: int) -> list[tuple[int, int]]:
    """The range of ports [low, high] as the fewest (value, mask) pairs."""
    if not 0 <= low <= high <= 0xFFFF:
        raise PoisonedRule(f"port range {low}-{high} is not within 0-65535")
    masks = []
    while low <= high:
        size = low & -low or 0x10000
        while low + size - 1 > high:
            size //= 2
        masks.append((low, 0x10000 - size))
        low += size
    return masks


def _peers(rule: RuleFacts) -> list[str]:
    if rule.remote is None or rule.remote_group is not None:
        return [""]
    side = "src" if rule.direction == "ingress" else "dst"
    field = f"nw_{side}" if rule.ethertype == "IPv4" else f"ipv6_{side}"
    peers: dict[str, None] = {}
    for text in rule.remote:
        try:
            network = ipaddress.ip_network(text, strict=False)
        except ValueError as error:
            raise PoisonedRule(f"remote {text!r}: {error}") from None
        if network.version != int(rule.ethertype[3:]):
            raise PoisonedRule(f"remote {text!r} is not {rule.ethertype}")
        peers["" if str(network) == _ANY[rule.ethertype] else f"{field}={network}"] = None
    return [""] if "" in peers else list(peers)


def _protocol(rule: RuleFacts) -> list[str]:
    family = "ip" if rule.ethertype == "IPv4" else "ipv6"
    number = _number(rule)
    if number is None:
        if rule.port_min is not None or rule.port_max is not None:
            raise PoisonedRule("ports without a protocol")
        return [family]
    six = "6" if family == "ipv6" else ""
    if number == (58 if six else 1):
        return [_icmp(rule, f"icmp{six}")]
    if number in _PORTED:
        return _ports(rule, _PORTED[number] + six)
    if rule.port_min is not None or rule.port_max is not None:
        raise PoisonedRule(f"protocol {rule.protocol} has no ports")
    return [f"{family},nw_proto={number}"]


def _number(rule: RuleFacts) -> int | None:
    name = rule.protocol
    if name is None or name in {"", "any", "ip", "0"}:
        return None
    if name == "icmp" and rule.ethertype == "IPv6":
        return 58  # Neutron's habit: `icmp` in an IPv6 rule means ICMPv6
    number = PROTOCOLS.get(name, int(name) if name.isdecimal() and name.isascii() else -1)
    if not 0 <= number <= 255:
        raise PoisonedRule(f"protocol {name!r} is unknown")
    return number


def _icmp(rule: RuleFacts, family: str) -> str:
    for what, value in (("type", rule.port_min), ("code", rule.port_max)):
        if value is not None and not 0 <= value <= 255:
            raise PoisonedRule(f"ICMP {what} {value} is not within 0-255")
    if rule.port_min is None and rule.port_max is not None:
        raise PoisonedRule("an ICMP code without a type")
    kind = f",icmp_type={rule.port_min}" if rule.port_min is not None else ""
    return family + kind + (f",icmp_code={rule.port_max}" if rule.port_max is not None else "")


def _ports(rule: RuleFacts, family: str) -> list[str]:
    low = rule.port_min if rule.port_min is not None else rule.port_max
    high = rule.port_max if rule.port_max is not None else rule.port_min
    if low is None or high is None or (low <= 1 and high == 0xFFFF):
        return [family]
    return [f"{family},tp_dst={value}" if mask == 0xFFFF else f"{family},tp_dst={value:#x}/{mask:#x}"
            for value, mask in port_masks(low, high)]
