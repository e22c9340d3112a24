"""What a host must have wired: its ports with everything around them, read in a fixed number of statements."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

import sqlalchemy as sa
import structlog

from nacre.network import tables as t
from nacre.network.contract import GroupFacts, HostWiring, NetworkFacts, RemotePort, RuleFacts, SubnetFacts
from nacre.network.hosts import agents, dhcp, servers
from nacre.network.networks import among
from nacre.network.work import Row, Work

log = structlog.get_logger()


def read(work: Work, host: str, port_ids: Sequence[str]) -> HostWiring:
    """As the contract's `wiring`."""
    conditions = [t.ports.c.host == host, t.ports.c.vif_type == "ovs"]
    if port_ids:
        conditions.append(t.ports.c.id.in_(port_ids))
    rows = work.rows(sa.select(t.ports).where(*conditions))
    network_ids = {r["network_id"] for r in rows}
    tunnels = agents.tunnels(work)
    ports = servers.facts(work, rows)
    return HostWiring(
        whole=not port_ids, ports=ports, networks=networks(work, network_ids, host),
        groups=_groups(work, {g for p in ports for g in p.security_groups}),
        remotes=_remotes(work, network_ids, host, tunnels),
        tunnels=tuple(sorted(ip for other, ip in tunnels.items() if other != host)))


def networks(work: Work, ids: Iterable[str], host: str) -> tuple[NetworkFacts, ...]:
    """The networks as the host reaches them: by the segment at the bottom of its ports' bindings."""
    ids = set(ids)
    if not ids:
        return ()
    bottom: dict[str, Row] = {}
    for row in work.rows(sa.select(t.segments).join(t.levels, t.levels.c.segment_id == t.segments.c.id).where(
            t.levels.c.host == host, among(t.segments.c.network_id, ids)).order_by(t.levels.c.level)):
        bottom[row["network_id"]] = row
    subnets, dhcp_ips, macs = defaultdict(list), dict[str, str](), dict[str, str]()
    p, a = t.ports.c, t.addresses.c
    for row in work.rows(sa.select(p.network_id, p.mac_address, a.subnet_id, a.ip_address).outerjoin_from(
            t.ports, t.addresses, a.port_id == p.id).where(p.device_owner == dhcp.OWNER, among(p.network_id, ids))):
        macs[row["network_id"]] = row["mac_address"]
        if row["subnet_id"]:
            dhcp_ips[row["subnet_id"]] = row["ip_address"]
    for row in work.rows(sa.select(t.subnets).where(among(t.subnets.c.network_id, ids))):
        subnets[row["network_id"]].append(_subnet(row, dhcp_ips.get(row["id"])))
    return tuple(NetworkFacts(
        id=n["id"], name=n["name"], project_id=n["project_id"], mtu=n["mtu"], dns_domain=n["dns_domain"],
        network_type=bottom[n["id"]]["network_type"], physical_network=bottom[n["id"]]["physical_network"],
        segmentation_id=bottom[n["id"]]["segmentation_id"], subnets=tuple(subnets[n["id"]]), dhcp_mac=macs.get(n["id"]))
        for n in work.rows(sa.select(t.networks).where(among(t.networks.c.id, ids)))
        if n["id"] in ids and n["id"] in bottom)


def _subnet(row: Row, dhcp_ip: str | None) -> SubnetFacts:
    return SubnetFacts(
        id=row["id"], cidr=row["cidr"], ip_version=row["ip_version"], gateway_ip=row["gateway_ip"],
        enable_dhcp=row["enable_dhcp"], dhcp_ip=dhcp_ip, dns_nameservers=tuple(row["dns_nameservers"]),
        host_routes=tuple((r["destination"], r["nexthop"]) for r in row["host_routes"]),
        ipv6_address_mode=row["ipv6_address_mode"], ipv6_ra_mode=row["ipv6_ra_mode"])


def _groups(work: Work, ids: set[str]) -> tuple[GroupFacts, ...]:
    if not ids:
        return ()
    rules = t.security_group_rules
    rows = work.rows(sa.select(rules).where(among(rules.c.security_group_id, ids)))
    members = _members(work, {r["remote_group_id"] for r in rows if r["remote_group_id"]})
    lists = {r["id"]: r["addresses"] for r in work.rows(sa.select(t.address_groups).where(
        t.address_groups.c.id.in_({r["remote_address_group_id"] for r in rows if r["remote_address_group_id"]})))}
    found: dict[str, list[RuleFacts]] = defaultdict(list)
    for row in rows:
        try:
            found[row["security_group_id"]].append(_rule(row, members, lists))
        except Exception:
            # A rule that cannot be read must not take the other rules of the host with it: it opens nothing.
            log.exception("security group rule left out", rule=row["id"])
    return tuple(GroupFacts(id=g["id"], stateful=g["stateful"], rules=tuple(found[g["id"]])) for g in work.rows(
        sa.select(t.security_groups).where(among(t.security_groups.c.id, ids))) if g["id"] in ids)


def _rule(row: Row, members: dict[str, set[str]], lists: dict[str, list[str]]) -> RuleFacts:
    remote: Iterable[str] | None = None
    if row["remote_group_id"]:
        remote = members.get(row["remote_group_id"], set())
    elif row["remote_address_group_id"]:
        remote = lists[row["remote_address_group_id"]]
    elif row["remote_ip_prefix"]:
        remote = [row["remote_ip_prefix"]]
    if remote is not None:
        six = row["ethertype"] == "IPv6"
        remote = tuple(sorted(c for c in remote if (":" in c) == six))
    return RuleFacts(direction=row["direction"], ethertype=row["ethertype"], protocol=row["protocol"],
                     port_min=row["port_range_min"], port_max=row["port_range_max"], remote=remote)


def _cidr(address: str) -> str:
    return address if "/" in address else f"{address}/{128 if ':' in address else 32}"


def _members(work: Work, ids: set[str]) -> dict[str, set[str]]:
    """Group -> the CIDRs of its members: their addresses and the pairs allowed to them."""
    found: dict[str, set[str]] = defaultdict(set)
    if not ids:
        return found
    g, a, p = t.port_groups.c, t.addresses.c, t.ports.c
    for group, address in work.conn.execute(sa.select(g.group_id, a.ip_address).join_from(
            t.port_groups, t.addresses, a.port_id == g.port_id).where(g.group_id.in_(ids))):
        found[group].add(_cidr(address))
    for group, pairs in work.conn.execute(sa.select(g.group_id, p.allowed_address_pairs).join_from(
            t.port_groups, t.ports, p.id == g.port_id).where(
                g.group_id.in_(ids), sa.cast(p.allowed_address_pairs, sa.String) != "[]")):
        found[group].update(_cidr(pair["ip_address"]) for pair in pairs)
    return found


def _remotes(work: Work, network_ids: set[str], host: str, tunnels: dict[str, str]) -> tuple[RemotePort, ...]:
    if not network_ids:
        return ()
    p, a = t.ports.c, t.addresses.c
    found: dict[str, tuple[Row, list[str]]] = {}
    for row in work.rows(sa.select(p.id, p.network_id, p.mac_address, p.host, a.ip_address).outerjoin_from(
            t.ports, t.addresses, a.port_id == p.id).where(
                among(p.network_id, network_ids), p.host != "", p.host != host)):
        found.setdefault(row["id"], (row, []))[1].append(row["ip_address"])
    return tuple(RemotePort(network_id=r["network_id"], mac_address=r["mac_address"],
                            ip_addresses=tuple(ip for ip in ips if ip), tunnel_ip=tunnels[r["host"]])
                 for r, ips in found.values() if r["host"] in tunnels and r["network_id"] in network_ids)
