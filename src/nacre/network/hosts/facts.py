"""Ports and networks as hosts and servers' views see them, in a fixed number of statements."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import sqlalchemy as sa

from nacre.network import tables as t
from nacre.network.contract import AddressPair, FixedIp, NetworkFacts, PortFacts, SubnetFacts
from nacre.network.hosts import dhcp
from nacre.network.nouns.network import Network, NetworkSegment
from nacre.network.nouns.port import Placed
from nacre.network.nouns.subnet import Subnet
from nacre.network.ports import parts
from nacre.network.work import Work, columns

_NETWORKS: sa.BindParameter[Any] = sa.bindparam("networks", expanding=True)
#: The segments that bindings on a host use, the bottom one of each network last (dynamic ones lie below the others).
_USED = sa.select(*columns(NetworkSegment)).where(t.segments.c.network_id.in_(_NETWORKS), sa.exists().where(
    t.levels.c.segment_id == t.segments.c.id, t.levels.c.host == sa.bindparam("host"))).order_by(
        t.segments.c.dynamic, t.segments.c.position)
_DHCP = sa.select(t.ports.c.network_id, t.ports.c.mac_address, t.addresses.c.subnet_id, t.addresses.c.ip_address).where(
    t.ports.c.device_id.in_(_NETWORKS), t.ports.c.device_owner == dhcp.OWNER).outerjoin_from(
        t.ports, t.addresses, t.addresses.c.port_id == t.ports.c.id)


def ports(work: Work, found: Sequence[Placed]) -> tuple[PortFacts, ...]:
    """The contract's view of these ports, in their order."""
    if not found:
        return ()
    fixed, groups = parts(work, found)
    ids = {p.network_id for p in found}
    nets = {n.id: n for n in work.select(Network, id=ids)}
    return tuple(PortFacts(
        id=p.id, name=p.name, project_id=p.project_id, network_id=p.network_id,
        network_name=nets[p.network_id].name, device_id=p.server_id or "", mac_address=p.mac_address,
        fixed_ips=tuple(FixedIp(subnet_id=s, ip_address=a) for s, a in fixed[p.id]),
        admin_state_up=p.admin_state_up and nets[p.network_id].admin_state_up,
        port_security=p.port_security_enabled, security_groups=tuple(groups[p.id]),
        allowed_pairs=tuple(AddressPair(ip_address=pair["ip_address"], mac_address=pair.get("mac_address"))
                            for pair in p.allowed_address_pairs),
        vnic_type=p.vnic_type, vif_type=p.vif_type, vif_details=p.vif_details, host=p.host,
        active=p.active, status=p.status, preserve=p.preserve, tag=p.device_tag, position=p.position,
        qos=p.policy(nets[p.network_id].qos_policy_id),
        dhcp_options=tuple((o["opt_name"], o["opt_value"], o["ip_version"]) for o in p.extra_dhcp_opts
                           if o["opt_value"] is not None)) for p in found)


def networks(work: Work, ids: Iterable[str], host: str) -> tuple[NetworkFacts, ...]:
    """The networks as the host reaches them: by the segment at the bottom of its ports' bindings."""
    ids = set(ids)
    if not ids:
        return ()
    bottom: dict[str, NetworkSegment] = {}
    for row in work.conn.execute(_USED, {"host": host, "networks": list(ids)}):
        bottom[row.network_id] = NetworkSegment(*row)
    subnets, dhcp_ips, macs = defaultdict(list), dict[str, str](), dict[str, str]()
    for network_id, mac, subnet_id, address in work.conn.execute(_DHCP, {"networks": [dhcp.device(i) for i in ids]}):
        macs[network_id] = mac
        if subnet_id:
            dhcp_ips[subnet_id] = address
    for subnet in work.select(Subnet, network_id=ids):
        subnets[subnet.network_id].append(_subnet(subnet, dhcp_ips.get(subnet.id)))
    return tuple(NetworkFacts(
        id=n.id, name=n.name, project_id=n.project_id, mtu=n.mtu, dns_domain=n.dns_domain,
        network_type=bottom[n.id].network_type, physical_network=bottom[n.id].physical_network,
        segmentation_id=bottom[n.id].segmentation_id, subnets=tuple(subnets[n.id]), dhcp_mac=macs.get(n.id))
        for n in work.select(Network, id=ids) if n.id in bottom)


def _subnet(subnet: Subnet, dhcp_ip: str | None) -> SubnetFacts:
    return SubnetFacts(
        id=subnet.id, cidr=subnet.cidr, ip_version=subnet.ip_version, gateway_ip=subnet.gateway_ip,
        enable_dhcp=subnet.enable_dhcp, dhcp_ip=dhcp_ip, dns_nameservers=tuple(subnet.dns_nameservers),
        host_routes=tuple((r["destination"], r["nexthop"]) for r in subnet.host_routes),
        ipv6_address_mode=subnet.ipv6_address_mode, ipv6_ra_mode=subnet.ipv6_ra_mode)
