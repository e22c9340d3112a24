"""What hosts said of routers and floating IPs is over where the place changes: it is written DOWN in the transaction
that changes it, and only who serves it since says otherwise (reports.py)."""

from collections.abc import Collection
from typing import Any

import sqlalchemy as sa

from nacre.network import tables as t
from nacre.network.work import Work

_F, _P, _R, _B = t.floatingips.c, t.ports.c, t.routers.c, t.bindings.c
_PORTS: sa.BindParameter[Any] = sa.bindparam("ports", expanding=True)
_ROUTERS: sa.BindParameter[Any] = sa.bindparam("routers", expanding=True)
_STANDING = sa.select(_F.port_id).distinct().where(_F.port_id.in_(_PORTS))
_OF_PORTS = sa.update(t.floatingips).where(_F.port_id.in_(_PORTS), _F.status != "DOWN").values(status="DOWN")
_AT = sa.select(_B.host).where(_B.port_id.in_(_PORTS), _B.active, _B.host != "")
#: The ports of routers, and floating IPs that only forward, which their gateway hosts serve; or all.
_GATEWAYS = sa.update(t.ports).where(_P.id.in_(sa.select(_R.gateway_port_id).where(_R.id.in_(_ROUTERS)))).values(
    status="DOWN")
_FORWARDING = sa.update(t.floatingips).where(_F.router_id.in_(_ROUTERS), _F.port_id.is_(None)).values(status="DOWN")
_LEGS = sa.update(t.ports).where(_P.device_id.in_(_ROUTERS), _P.device_owner.like("network:router%")).values(
    status="DOWN")
_FLOATING = sa.update(t.floatingips).where(_F.router_id.in_(_ROUTERS)).values(status="DOWN")


def moved(work: Work, port_ids: Collection[str]) -> None:
    """These ports are about to be on other hosts, or on none, or are switched on or off."""
    if port_ids and (ports := work.conn.execute(_STANDING, {"ports": list(port_ids)}).scalars().all()):
        work.conn.execute(_OF_PORTS, {"ports": ports})
        work.changes.routing.update(work.conn.execute(_AT, {"ports": ports}).scalars())
        work.changes.floated.update(ports)


def elected(work: Work, router_ids: Collection[str]) -> None:
    """These routers have other gateway hosts, or none."""
    for statement in (_GATEWAYS, _FORWARDING):
        work.conn.execute(statement, {"routers": list(router_ids)})


def off(work: Work, router_ids: Collection[str]) -> None:
    """Nobody forwards for these routers any more."""
    for statement in (_LEGS, _FLOATING):
        work.conn.execute(statement, {"routers": list(router_ids)})
