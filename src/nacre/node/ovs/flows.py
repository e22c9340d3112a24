"""Flows as values: the tables of the integration bridge, and how a flow is written for ovs-ofctl.

A frame runs CLASSIFY (whose port, which network) -> ANTISPOOF -> ND -> EGRESS -> EGRESS_TRACKED -> DELIVER (who gets
it) -> UNKNOWN or FLOOD -> INGRESS -> INGRESS_TRACKED -> OUT; and from UNKNOWN or FLOOD -> AWAY, to other hosts. In
ANSWER a neighbour solicitation that is answered here becomes the answer. What no flow names is dropped. Nothing is
learnt from frames.
"""

from collections.abc import Iterable, Mapping

import msgspec

from nacre.node.servers.limits import Rate

OUT = 60
CLASSIFY, ANTISPOOF, ND, EGRESS, EGRESS_TRACKED = 0, 10, 11, 20, 21
DELIVER, UNKNOWN, FLOOD, INGRESS, INGRESS_TRACKED = 30, 41, 40, 50, 51
AWAY, ANSWER = 42, 43

#: Registers: whether others get the frame in the same pass, the port it goes to, its network's number on this host,
#: where it came from, and which part of very many hosts is still to get it.
SHARED, TO, NET, FROM, PART = "reg4", "reg5", "reg6", "reg7", "reg8"
GUEST, OUTSIDE, DHCP = 0, 1, 2

#: Priorities of rules: of those that let in whoever it is, or fixed addresses; and of those that name a group.
RULES, MEMBERS = 70, 71

#: Kbit; a meter with less lets no whole frame pass.
LEAST_BURST = 100

#: Marks what is ours, for people who look at a bridge.
COOKIE = 0x6E616372


class Flow(msgspec.Struct, frozen=True, order=True):
    """One flow; table, priority and match are its identity."""

    table: int
    priority: int
    match: str
    actions: str

    @property
    def key(self) -> str:
        return f"table={self.table},priority={self.priority}" + (f",{self.match}" if self.match else "")

    @property
    def text(self) -> str:
        return f"cookie={COOKIE:#x},{self.key},actions={self.actions}"


class Meter(msgspec.Struct, frozen=True):
    """What passes: kbit/s, and kbit at once."""

    rate: int
    burst: int


class Local(msgspec.Struct, frozen=True, kw_only=True):
    """What only this host knows: OpenFlow port numbers, conntrack zones, and its own numbers of networks.

    ofports, zones, rates: by port id; numbers, dhcp (the port of the DHCP namespace): by network id; uplinks: by
    physical network; groups: the numbers of security groups that rules name.
    """

    ofports: Mapping[str, int] = {}
    zones: Mapping[str, int] = {}
    numbers: Mapping[str, int] = {}
    dhcp: Mapping[str, int] = {}
    uplinks: Mapping[str, int] = {}
    vxlan: int | None = None
    rates: Mapping[str, Rate] = {}
    groups: Mapping[str, int] = {}


def entering(network: int, source: int, table: int) -> str:
    """Actions for a frame that comes in. network: its number here."""
    return f"load:{network}->NXM_NX_REG6[],load:{source}->NXM_NX_REG7[],resubmit(,{table})"


def to_port(ofport: int, *, shared: bool = False) -> str:
    """Actions that hand the frame to a guest's port, through its security groups."""
    return ("load:1->NXM_NX_REG4[]," if shared else "") + f"load:{ofport}->NXM_NX_REG5[],resubmit(,{INGRESS})"


def meters(local: Local) -> dict[int, Meter]:
    """Every meter that the flows name, by its number. A port has the two after twice its own number. It lets
    0.8 s' worth pass at once, as Neutron's, or more if that is asked for: with less, TCP does not get up to the
    rate."""
    wanted = dict[int, Meter]()
    for port, rate in local.rates.items():
        if (ofport := local.ofports.get(port)) is not None:
            both = ((2 * ofport, rate.from_guest, rate.burst_from), (2 * ofport + 1, rate.to_guest, rate.burst_to))
            wanted |= {number: Meter(kbits, max(burst, kbits * 8 // 10, LEAST_BURST))
                       for number, kbits, burst in both if kbits}
    return wanted


def unique(flows: Iterable[Flow]) -> tuple[Flow, ...]:
    """The flows without repetitions, in the tables' order; of two with one identity the first counts."""
    by_key: dict[str, Flow] = {}
    for flow in flows:
        by_key.setdefault(flow.key, flow)
    return tuple(sorted(by_key.values(), key=lambda f: (f.table, -f.priority, f.match)))
