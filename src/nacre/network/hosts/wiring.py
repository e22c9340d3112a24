"""What a host must have wired: its ports with everything around them, read in a fixed number of statements."""

import threading
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa
import structlog

from nacre.base.durable import changes as outbox
from nacre.base.durable import eras
from nacre.network import tables as t
from nacre.network.contract import GroupFacts, GroupMembers, HostWiring, RemotePort, RuleFacts, Versions
from nacre.network.hosts import facts, members, notifications
from nacre.network.nouns.address import AddressGroup
from nacre.network.nouns.port import Placed
from nacre.network.nouns.security_group import SecurityGroup, SecurityGroupRule
from nacre.network.work import Work

log = structlog.get_logger()


def read(work: Work, host: str, port_ids: Sequence[str], have: Versions | None, elsewhere: "Elsewhere") -> HostWiring:
    """As the contract's `wiring`, in one consistent read. have: None, a host of the release that had the members in its
    rules asks, and has them there."""
    asked: dict[str, Any] = {"id": port_ids} if port_ids else {}
    placed = work.select(Placed, host=host, vif_type="ovs", **asked)
    network_ids = {port.network_id for port in placed}
    tunnel_ips = notifications.tunnel_ips(work, host)
    ports = facts.ports(work, placed)
    groups = _groups(work, {g for p in ports for g in p.security_groups})
    named = {rule.remote_group for group in groups for rule in group.rules if rule.remote_group}
    found = members.read(work.conn, named, have or {})
    if have is None:
        groups = _filled(groups, found)
    at = eras.position(work.conn)
    return HostWiring(
        whole=not port_ids, n=at.n, era=at.era, ports=ports, groups=groups,
        networks=facts.networks(work, network_ids, host), members=found,
        remotes=elsewhere.of(work, network_ids, host, tunnel_ips),
        tunnels=tuple(sorted(address for other, address in tunnel_ips.items() if other != host)))


def _groups(work: Work, ids: set[str]) -> tuple[GroupFacts, ...]:
    if not ids:
        return ()
    rules = work.select(SecurityGroupRule, security_group_id=ids)
    named = {rule.remote_address_group_id for rule in rules if rule.remote_address_group_id}
    lists = {group.id: group.addresses for group in work.select(AddressGroup, id=named)} if named else {}
    found: dict[str, list[RuleFacts]] = defaultdict(list)
    for rule in rules:
        try:
            found[rule.security_group_id].append(_rule(rule, lists))
        except Exception:
            # A rule that cannot be read must not take the other rules of the host with it: it opens nothing.
            log.exception("security group rule left out", rule=rule.id)
    return tuple(GroupFacts(id=g.id, stateful=g.stateful, rules=tuple(found[g.id])) for g in work.select(
        SecurityGroup, id=ids))


def _filled(groups: Iterable[GroupFacts], found: Iterable[GroupMembers]) -> tuple[GroupFacts, ...]:
    """The rules that name a group, with its members."""
    cidrs = {each.id: {cidr for its in each.ports.values() for cidr in its} for each in found}
    return tuple(msgspec.structs.replace(group, rules=tuple(
        rule if rule.remote_group is None else msgspec.structs.replace(rule, remote=_of_family(
            cidrs.get(rule.remote_group, ()), rule.ethertype)) for rule in group.rules)) for group in groups)


def _of_family(cidrs: Iterable[str], ethertype: str) -> tuple[str, ...]:
    return tuple(sorted(c for c in cidrs if (":" in c) == (ethertype == "IPv6")))


def _rule(rule: SecurityGroupRule, lists: dict[str, list[str]]) -> RuleFacts:
    remote: Iterable[str] | None = None
    if rule.remote_group_id:
        remote = ()  # they come beside
    elif rule.remote_address_group_id:
        remote = lists[rule.remote_address_group_id]
    elif rule.remote_ip_prefix:
        remote = [rule.remote_ip_prefix]
    if remote is not None:
        remote = _of_family(remote, rule.ethertype)
    return RuleFacts(direction=rule.direction, ethertype=rule.ethertype, protocol=rule.protocol,
                     port_min=rule.port_range_min, port_max=rule.port_range_max, remote=remote,
                     remote_group=rule.remote_group_id)


_B, _P = t.bindings.c, t.ports.c
#: The ports of networks, where they are.
_PLACED = sa.select(_P.id, _P.network_id, _P.mac_address, _B.host, t.addresses.c.ip_address).where(
    _B.network_id.in_(sa.bindparam("networks", expanding=True)), _B.host != "", _B.active).join_from(
        t.bindings, t.ports, _P.id == _B.port_id).outerjoin(t.addresses, t.addresses.c.port_id == _P.id)
#: Networks of fewer ports are read each time; of others so many ports are remembered, in all.
LARGE, MOST = 200, 200_000


class _Network(NamedTuple):
    """Its ports by their hosts, when the database was there."""

    at: eras.Position
    ports: Sequence[tuple[str, RemotePort]]


class Elsewhere:
    """The ports of large networks, as the last who asked was told. After a change each host of a network asks, and all
    are told nearly the same. What changes in a network is a change of each of its hosts (notifications.py): with what
    was read since its own last one a host has missed nothing."""

    def __init__(self) -> None:
        self._known: dict[str, _Network] = {}
        self._one = threading.Lock()  # with PostgreSQL reads have threads: one reads for those who wait

    def of(self, work: Work, network_ids: set[str], host: str, tunnel_ips: Mapping[str, str]) -> tuple[RemotePort, ...]:
        """Those on other hosts. tunnel_ips: tunnel addresses, its own too."""
        if not network_ids:
            return ()
        here, changed = eras.position(work.conn), outbox.latest(work.conn, "wiring", ids=[host]).get(host, 0)
        with self._one:
            known = {id: network for id in network_ids if (network := self._known.get(id)) is not None
                     and network.at.era == here.era and network.at.n >= changed}
            if lacking := network_ids - known.keys():
                known |= {id: _Network(here, ports) for id, ports in _read(work, lacking, tunnel_ips).items()}
                self._keep({id: known[id] for id in lacking})
        return tuple(port for network in known.values() for other, port in network.ports if other != host)

    def _keep(self, read: Mapping[str, _Network]) -> None:
        for id, network in read.items():
            self._known.pop(id, None)
            if LARGE <= len(network.ports) <= MOST:
                self._known[id] = network  # the latest last
        while sum(len(network.ports) for network in self._known.values()) > MOST:
            del self._known[next(iter(self._known))]


def _read(work: Work, network_ids: set[str], tunnel_ips: Mapping[str, str]) -> dict[str, list[tuple[str, RemotePort]]]:
    found: dict[str, tuple[str, str, str, list[str]]] = {}
    for port_id, network_id, mac, host, address in work.conn.execute(_PLACED, {"networks": list(network_ids)}):
        if host in tunnel_ips:
            addresses = found.setdefault(port_id, (network_id, mac, host, []))[3]
            if address:
                addresses.append(address)
    ports: dict[str, list[tuple[str, RemotePort]]] = {id: [] for id in network_ids}
    for network_id, mac, host, addresses in found.values():
        ports[network_id].append((host, RemotePort(
            network_id=network_id, mac_address=mac, ip_addresses=tuple(addresses), tunnel_ip=tunnel_ips[host])))
    return ports
