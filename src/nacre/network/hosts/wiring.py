"""What a host must have wired: its ports with everything around them, read in a fixed number of statements."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

import msgspec
import sqlalchemy as sa
import structlog

from nacre.base.durable import eras
from nacre.network import tables as t
from nacre.network.contract import GroupFacts, GroupMembers, HostWiring, RemotePort, RuleFacts, Versions
from nacre.network.hosts import facts, members, reach
from nacre.network.work import Row, Work

log = structlog.get_logger()


def read(work: Work, host: str, port_ids: Sequence[str], have: Versions | None) -> HostWiring:
    """As the contract's `wiring`, in one consistent read. have: None, a host of the release that had the members in its
    rules asks, and has them there."""
    asked: Row = {"id": port_ids} if port_ids else {}
    rows = work.find(t.placed, host=host, vif_type="ovs", **asked)
    network_ids = {r["network_id"] for r in rows}
    tunnels = reach.tunnels(work, host)
    ports = facts.ports(work, rows)
    groups = _groups(work, {g for p in ports for g in p.security_groups})
    named = {rule.remote_group for group in groups for rule in group.rules if rule.remote_group}
    found = members.read(work.conn, named, have or {})
    if have is None:
        groups = _filled(groups, found)
    return HostWiring(
        whole=not port_ids, n=eras.position(work.conn).n, ports=ports, groups=groups,
        networks=facts.networks(work, network_ids, host), members=found,
        remotes=_remotes(work, network_ids, host, tunnels),
        tunnels=tuple(sorted(tunnels.values())))


def _groups(work: Work, ids: set[str]) -> tuple[GroupFacts, ...]:
    if not ids:
        return ()
    rows = work.find(t.security_group_rules, security_group_id=ids)
    named = {r["remote_address_group_id"] for r in rows if r["remote_address_group_id"]}
    lists = {r["id"]: r["addresses"] for r in work.find(t.address_groups, id=named)} if named else {}
    found: dict[str, list[RuleFacts]] = defaultdict(list)
    for row in rows:
        try:
            found[row["security_group_id"]].append(_rule(row, lists))
        except Exception:
            # A rule that cannot be read must not take the other rules of the host with it: it opens nothing.
            log.exception("security group rule left out", rule=row["id"])
    return tuple(GroupFacts(id=g["id"], stateful=g["stateful"], rules=tuple(found[g["id"]])) for g in work.find(
        t.security_groups, id=ids))


def _filled(groups: Iterable[GroupFacts], found: Iterable[GroupMembers]) -> tuple[GroupFacts, ...]:
    """The rules that name a group, with its members."""
    cidrs = {each.id: {cidr for its in each.ports.values() for cidr in its} for each in found}
    return tuple(msgspec.structs.replace(group, rules=tuple(
        rule if rule.remote_group is None else msgspec.structs.replace(rule, remote=_of_family(
            cidrs.get(rule.remote_group, ()), rule.ethertype)) for rule in group.rules)) for group in groups)


def _of_family(cidrs: Iterable[str], ethertype: str) -> tuple[str, ...]:
    return tuple(sorted(c for c in cidrs if (":" in c) == (ethertype == "IPv6")))


def _rule(row: Row, lists: dict[str, list[str]]) -> RuleFacts:
    remote: Iterable[str] | None = None
    if row["remote_group_id"]:
        remote = ()  # they come beside
    elif row["remote_address_group_id"]:
        remote = lists[row["remote_address_group_id"]]
    elif row["remote_ip_prefix"]:
        remote = [row["remote_ip_prefix"]]
    if remote is not None:
        remote = _of_family(remote, row["ethertype"])
    return RuleFacts(direction=row["direction"], ethertype=row["ethertype"], protocol=row["protocol"],
                     port_min=row["port_range_min"], port_max=row["port_range_max"], remote=remote,
                     remote_group=row["remote_group_id"])


_B, _P = t.bindings.c, t.ports.c
#: The ports of networks that are on other hosts than one.
_ELSEWHERE = sa.select(_P.id, _P.network_id, _P.mac_address, _B.host, t.addresses.c.ip_address).where(
    _B.network_id.in_(sa.bindparam("networks", expanding=True)), _B.host != "", _B.host != sa.bindparam("host"),
    _B.active).join_from(t.bindings, t.ports, _P.id == _B.port_id).outerjoin(
        t.addresses, t.addresses.c.port_id == _P.id)


def _remotes(work: Work, network_ids: set[str], host: str, tunnels: dict[str, str]) -> tuple[RemotePort, ...]:
    if not network_ids:
        return ()
    found: dict[str, tuple[str, str, str, list[str]]] = {}
    for port_id, network_id, mac, other, address in work.conn.execute(
            _ELSEWHERE, {"networks": list(network_ids), "host": host}):
        if other in tunnels:
            addresses = found.setdefault(port_id, (network_id, mac, other, []))[3]
            if address:
                addresses.append(address)
    return tuple(RemotePort(network_id=network_id, mac_address=mac, ip_addresses=tuple(addresses),
                            tunnel_ip=tunnels[other]) for network_id, mac, other, addresses in found.values())
