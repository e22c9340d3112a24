"""What a host must have wired: its ports with everything around them, read in a fixed number of statements."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa
import structlog

from nacre.base.durable import eras
from nacre.base.errors import Forbidden
from nacre.network.contract import (
    Differences,
    GroupFacts,
    GroupMembers,
    Have,
    HostWiring,
    RemotePort,
    RuleFacts,
    Versions,
)
from nacre.network.hosts import facts, members, placed
from nacre.network.hosts.members import MEMBERS, Page
from nacre.network.hosts.placed import PLACED
from nacre.network.nouns.address import AddressGroup
from nacre.network.nouns.agent import OVS, Agent
from nacre.network.nouns.port import Placed
from nacre.network.nouns.security_group import SecurityGroup, SecurityGroupRule
from nacre.network.work import Work

log = structlog.get_logger()


def read(work: Work, host: str, port_ids: Sequence[str], known: Have, page: Page | None = None) -> HostWiring:
    """As the contract's `wiring`, in one consistent read. page: None, nothing is left out."""
    asked: dict[str, Any] = {"id": port_ids} if port_ids else {}
    mine = work.select(Placed, host=host, vif_type="ovs", **asked)
    networks = {port.network_id for port in mine}
    ports = facts.ports(work, mine)
    groups = _groups(work, {g for p in ports for g in p.security_groups})
    named = {rule.remote_group for group in groups for rule in group.rules if rule.remote_group}
    places = PLACED.read(work.conn, networks, known.networks, page)
    neighbours = placed.named_in(places) if port_ids else placed.neighbours(work.conn, host)
    at = eras.position(work.conn)
    return HostWiring(
        whole=not port_ids, n=at.n, era=at.era, ports=ports, groups=groups,
        networks=facts.networks(work, networks, host), members=MEMBERS.read(work.conn, named, known.groups, page),
        placed=places, peers=placed.peers(work.conn, neighbours))


def read_of_before(work: Work, host: str, port_ids: Sequence[str], have: Versions | None) -> HostWiring:
    """For a host of the release before: every port elsewhere, by its tunnel. have: None, it is of the one before that,
    and has the members in its rules. Raises Forbidden."""
    _refuse_newer(work, host)
    found = read(work, host, port_ids, Have(groups=have or {}))
    ways = {other: way for other, way in placed.tunnel_ips(work.conn, host).items() if other != host}
    return msgspec.structs.replace(
        found, groups=_filled(found.groups, found.members) if have is None else found.groups, placed=(), peers={},
        tunnels=tuple(sorted(ways.values())), remotes=tuple(RemotePort(
            network_id=each.id, mac_address=port.mac, ip_addresses=port.addresses, tunnel_ip=ways[port.host])
            for each in found.placed for port in each.ports.values() if port.host in ways))


def members_of_before(work: Work, host: str, groups: Collection[str], have: Versions) -> tuple[GroupMembers, ...]:
    """As the contract's `members`. Raises Forbidden."""
    _refuse_newer(work, host)
    return differences(work.conn, host, (groups, ()), Have(groups=have)).members


def _refuse_newer(work: Work, host: str) -> None:
    """What hosts of the release before ask is answered whole, however large it is: others do not ask so. Raises
    Forbidden."""
    if work.first(Agent, host=host, agent_type=OVS, takes_differences=True):
        raise Forbidden(f"Host {host} takes differences: it says what it has, and asks for what it lacks.")


def differences(connection: sa.Connection, host: str, wanted: tuple[Collection[str], Collection[str]],
                known: Have, page: Page | None = None) -> Differences:
    """As the contract's verb. wanted: groups, networks; page: None, all is answered at once."""
    groups, networks = wanted
    places = PLACED.read(connection, placed.kept(connection, host, networks), known.networks, page)
    return Differences(
        members=MEMBERS.read(connection, members.named(connection, host, groups), known.groups, page),
        placed=places, peers=placed.peers(connection, placed.named_in(places)),
        rest=tuple(sorted(page.rest)) if page else ())


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
