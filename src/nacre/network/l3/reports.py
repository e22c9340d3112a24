"""What hosts say of routers and floating IPs: their statuses, and nothing else, are made of it. A host is believed of
what is its own to serve, while its router is switched on."""

from collections.abc import Mapping, Sequence

import sqlalchemy as sa

from nacre.network import tables as t
from nacre.network.contract import Served
from nacre.network.l3.legs import GATEWAY, INTERFACE
from nacre.network.nouns.port import FAILED
from nacre.network.work import Work

_F, _P, _R, _B, _INNER = t.floatingips.c, t.ports.c, t.routers.c, t.bindings.c, t.ports.alias("inner_port")


def news(work: Work, host: str, served: Served, up: bool) -> bool:
    """Whether the status of anything of that is another by it. Hosts say again what they serve whenever they have heard
    of what they route, as it may have been taken away meanwhile; mostly that is a read."""
    return bool(_gateways(work, host, served.gateways, up)) or work.conn.execute(sa.select(
        sa.exists().where(_floating(host, served.floating, up))
        | sa.exists().where(_interfaces(host, served.routers if up else ())))).scalar_one()


def routed(work: Work, host: str, served: Served, up: bool) -> None:
    """As the contract's verb."""
    if served.floating:
        work.conn.execute(sa.update(t.floatingips).where(_floating(host, served.floating, up)).values(
            status=_word(up)))
    if gateways := _gateways(work, host, served.gateways, up):
        work.conn.execute(sa.update(t.ports).where(_P.id.in_(gateways)).values(status=_word(up)))
    if served.routers and up:
        work.conn.execute(sa.update(t.ports).where(_interfaces(host, served.routers)).values(status="ACTIVE"))


def _floating(host: str, floating_ids: Sequence[str], up: bool) -> sa.ColumnElement[bool]:
    """Those of these floating IPs that are the host's to serve, and said to be otherwise. It is the host of the port
    for which one stands, while that is switched on; of one that only forwards ports, its router's gateway host."""
    on = sa.select(_R.id).where(_R.admin_state_up)
    here = sa.select(_B.port_id).where(_B.host == host, _B.active, _B.vif_type != FAILED,
                                       _INNER.c.id == _B.port_id, _INNER.c.admin_state_up)
    served = sa.or_(
        sa.and_(_F.port_id.in_(here), _F.router_id.in_(on)),
        sa.and_(_F.port_id.is_(None), _F.router_id.in_(on.where(_R.gateway_host == host))))
    return sa.and_(_F.id.in_(floating_ids), served, _F.status != _word(up))


def _interfaces(host: str, router_ids: Sequence[str]) -> sa.ColumnElement[bool]:
    """Those of these routers' on networks that the host has ports of: it forwards between them. That others do not
    takes nothing away: each forwards for its own guests."""
    here = sa.select(_B.network_id).where(_B.host == host, _B.active)
    on = sa.select(_R.id).where(_R.id.in_(router_ids), _R.admin_state_up)
    return sa.and_(_P.device_id.in_(on), _P.device_owner == INTERFACE, _P.network_id.in_(here), _P.admin_state_up,
                   _P.status != "ACTIVE")


def _gateways(work: Work, host: str, terms: Mapping[str, int], up: bool) -> list[str]:
    """The ports of those of these routers for which the host translates, and that are said to be otherwise. terms: of
    the elections by which it would: an older one is not believed, for then it is another's to say."""
    rows = work.rows(sa.select(_R.id, _R.gateway_port_id, _R.gateway_term).join_from(
        t.routers, t.ports, _P.id == _R.gateway_port_id).where(
            _R.id.in_(sorted(terms)), _R.gateway_host == host, _R.admin_state_up, _P.device_owner == GATEWAY,
            _P.admin_state_up, _P.status != _word(up))) if terms else []
    return [row["gateway_port_id"] for row in rows if row["gateway_term"] == terms[row["id"]]]


def _word(up: bool) -> str:
    return "ACTIVE" if up else "DOWN"
