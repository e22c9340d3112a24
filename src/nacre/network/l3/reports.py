"""What hosts say of routers and floating IPs: their statuses, and nothing else, are made of it. A host is believed of
what is its own to serve, while its router is switched on."""

from collections.abc import Mapping, Sequence

import sqlalchemy as sa

from nacre.network import tables as t
from nacre.network.contract import Served
from nacre.network.l3.legs import GATEWAY, INTERFACE
from nacre.network.nouns.port import FAILED
from nacre.network.work import Work


def news(work: Work, served: Served, up: bool) -> bool:
    """Whether the status of anything of that may be another. Hosts say again what they serve whenever they have heard
    of what they route, as it may have been taken away meanwhile; mostly that is a read."""
    f, p = t.floatingips.c, t.ports.c
    routers = {*served.gateways, *(served.routers if up else ())}
    return work.conn.execute(sa.select(
        sa.exists().where(f.id.in_(served.floating), f.status != _word(up))
        | sa.exists().where(p.device_id.in_(routers), p.device_owner.in_((INTERFACE, GATEWAY)),
                            p.status != _word(up)))).scalar_one()


def routed(work: Work, host: str, served: Served, up: bool) -> None:
    """As the contract's verb."""
    if served.floating:
        floating(work, host, served.floating, up)
    if served.gateways:
        gateways(work, host, served.gateways, up)
    if served.routers and up:
        interfaces(work, host, served.routers)


def floating(work: Work, host: str, floating_ids: Sequence[str], up: bool) -> None:
    """These floating IPs work at the host, or do not. It is the host of the port for which one stands; of one that
    only forwards ports, its router's gateway host."""
    f, b, r = t.floatingips.c, t.bindings.c, t.routers.c
    on = sa.select(r.id).where(r.admin_state_up)
    served = sa.or_(
        sa.and_(f.port_id.in_(sa.select(b.port_id).where(b.host == host, b.active, b.vif_type != FAILED)),
                f.router_id.in_(on)),
        sa.and_(f.port_id.is_(None), f.router_id.in_(on.where(r.gateway_host == host))))
    work.conn.execute(sa.update(t.floatingips).where(
        f.id.in_(floating_ids), served, f.status != _word(up)).values(status=_word(up)))


def interfaces(work: Work, host: str, router_ids: Sequence[str]) -> None:
    """The host forwards between the networks of these routers that it has ports of. That others do not takes nothing
    away: each forwards for its own guests."""
    p, b, r = t.ports.c, t.bindings.c, t.routers.c
    here = sa.select(b.network_id).where(b.host == host, b.active)
    on = sa.select(r.id).where(r.id.in_(router_ids), r.admin_state_up)
    work.conn.execute(sa.update(t.ports).where(
        p.device_id.in_(on), p.device_owner == INTERFACE, p.network_id.in_(here), p.admin_state_up,
        p.status != "ACTIVE").values(status="ACTIVE"))


def gateways(work: Work, host: str, terms: Mapping[str, int], up: bool) -> None:
    """The host translates for these routers, or does not. terms: of the elections by which it would: an older one is
    not believed, for then it is another's to say."""
    p, r = t.ports.c, t.routers.c
    rows = work.rows(sa.select(r.id, r.gateway_port_id, r.gateway_term).where(
        r.id.in_(sorted(terms)), r.gateway_host == host, r.admin_state_up))
    ports = [row["gateway_port_id"] for row in rows if row["gateway_term"] == terms[row["id"]]]
    work.conn.execute(sa.update(t.ports).where(
        p.id.in_(ports), p.device_owner == GATEWAY, p.admin_state_up, p.status != _word(up)).values(status=_word(up)))


def _word(up: bool) -> str:
    return "ACTIVE" if up else "DOWN"
