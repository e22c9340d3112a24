"""What a host knows itself that the flows of its routers and floating IPs need (ADR 0021)."""

from collections.abc import Mapping

import msgspec


class Surroundings(msgspec.Struct, frozen=True, kw_only=True):
    """What only this host knows. host: its name. numbers: its own number of each router. zones: the conntrack zones of
    floating IPs and routers, by id. hops: external network -> next hop there -> the MAC that answered for it. helpers:
    by an interface's port, the OpenFlow port of the namespace that makes ICMP errors in its name. peers: other hosts'
    tunnel addresses."""

    host: str = ""
    numbers: Mapping[str, int] = {}
    zones: Mapping[str, int] = {}
    hops: Mapping[str, Mapping[str, str]] = {}
    helpers: Mapping[str, int] = {}
    peers: Mapping[str, str] = {}
