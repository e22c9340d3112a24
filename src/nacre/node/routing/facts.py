"""What a host knows itself that the flows of its routers and floating IPs need (ADR 0021)."""

from collections.abc import Mapping

import msgspec


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
