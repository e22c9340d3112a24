"""What a host is told of routers and floating IPs (ADR 0021), and what it knows itself that their flows need."""

from collections.abc import Mapping

import msgspec


class RouterLeg(msgspec.Struct, frozen=True, kw_only=True):
    """A router's interface: its port, and its addresses with the length of their networks ("10.0.0.1/24"). The same MAC
    on every host."""

    network_id: str
    port_id: str
    mac: str
    addresses: tuple[str, ...]


class GatewayFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A router's way out. next_hops: the gateways of the external subnets. host: which translates, by the election of
    the number `term`; "": none."""

    network_id: str
    port_id: str
    mac: str
    addresses: tuple[str, ...]
    next_hops: tuple[str, ...] = ()
    snat: bool = True
    host: str = ""
    term: int = 0


class ForwardingFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Ports (first, last) of a floating IP's address, which has that MAC outside, and where they lead: to an address on
    the inner network."""

    floating_id: str
    address: str
    mac: str
    protocol: str  # tcp, udp, sctp
    outer: tuple[int, int]
    inner_network_id: str
    inner_address: str
    inner: tuple[int, int]


class RouterFacts(msgspec.Struct, frozen=True, kw_only=True):
    """routes: (destination, next hop)."""

    id: str
    n: int = 0
    up: bool = True
    interfaces: tuple[RouterLeg, ...] = ()
    routes: tuple[tuple[str, str], ...] = ()
    gateway: GatewayFacts | None = None
    forwardings: tuple[ForwardingFacts, ...] = ()


class FloatingFacts(msgspec.Struct, frozen=True, kw_only=True):
    """An address of an external network that stands for one of a port's, on the inner network: translated on the port's
    host."""

    id: str
    n: int = 0
    network_id: str
    address: str
    mac: str
    port_id: str
    inner_network_id: str
    fixed_ip: str
    router_id: str


class Surroundings(msgspec.Struct, frozen=True, kw_only=True):
    """What only this host knows. host: its name. numbers: its own number of each router. zones: the conntrack zones of
    floating IPs and routers, by id. neighbours: network -> address -> MAC, of every port there that is known; of an
    external network, also of next hops outside, which the host has asked for. helpers: by an interface's port, the
    OpenFlow port of the namespace that makes ICMP errors in its name. peers: other hosts' tunnel addresses."""

    host: str = ""
    numbers: Mapping[str, int] = {}
    zones: Mapping[str, int] = {}
    neighbours: Mapping[str, Mapping[str, str]] = {}
    helpers: Mapping[str, int] = {}
    peers: Mapping[str, str] = {}
