"""What floating IPs and their forwardings lose when a port goes or changes its addresses."""

from collections.abc import Collection, Sequence

import sqlalchemy as sa

from nacre.base.db import statements
from nacre.base.errors import BadRequest
from nacre.network import tables as t
from nacre.network.nouns.attributes import Attributes
from nacre.network.nouns.port import Port
from nacre.network.nouns.router import FloatingIp, PortForwarding
from nacre.network.work import Work, conflict

#: What a floating IP stands for while it stands for nothing.
NOTHING: Attributes = {"port_id": None, "fixed_ip_address": None, "router_id": None, "status": "DOWN"}


def changed(work: Work, floating: FloatingIp, port_id: str | None = None) -> None:
    """The floating IP is not what hosts have of it: that of the port for which it stands, or stood, or this one."""
    work.changes.floated.update(each for each in (floating.port_id, port_id) if each)


def forwarded(work: Work, *router_ids: str | None) -> None:
    """Other ports are forwarded by the gateway hosts of these routers."""
    work.changes.forwarding.update(each for each in router_ids if each)


def outside(work: Work, floating_id: str) -> None:
    """The port that holds the floating IP's address has another address, or MAC."""
    for floating in work.select(FloatingIp, id=floating_id):
        changed(work, floating)
        forwarded(work, floating.router_id)


def release(work: Work, port_ids: Sequence[str]) -> None:
    """These ports go: floating IPs stand for them no more, and nothing is forwarded to them. Raises Conflict where one
    is neither the asker's nor of the port's own project: whose network it is may have others' ports off it."""
    found = work.select(FloatingIp, port_id=port_ids)
    owners = {port.id: port.project_id for port in work.select(
        Port, id=[each.port_id for each in found if each.port_id])} if found else {}
    for floating in found:
        if not work.context.sees_all and floating.project_id not in (
                work.context.project_id, owners[floating.port_id or ""]):
            raise conflict("FipAssociated", f"Unable to complete the operation on port {floating.port_id} because the "
                           "port still has an associated floating IP.")
        changed(work, floating)
    statements.update(work.conn, t.floatingips, NOTHING, port_id=port_ids)
    forget(work, work.select(PortForwarding, internal_port_id=port_ids))


def readdressed(work: Work, port_id: str, addresses: Collection[str]) -> None:
    """The port is to have these addresses and no others: what is forwarded to one that it loses goes. Raises BadRequest
    where a floating IP stands for such."""
    for floating in work.select(FloatingIp, port_id=port_id):
        if floating.fixed_ip_address not in addresses:
            raise BadRequest(f"Bad port request: Cannot update the fixed_ips of the port {port_id}, because its "
                             "original fixed_ip has been associated to a floating ip.", field="fixed_ips",
                             type="BadRequest")
    forget(work, [each for each in work.select(PortForwarding, internal_port_id=port_id)
                  if each.internal_ip_address not in addresses])


def forget(work: Work, gone: Sequence[PortForwarding]) -> None:
    """Deletes forwardings. A floating IP without any is no router's."""
    if not gone:
        return
    statements.delete(work.conn, t.port_forwardings, id=[each.id for each in gone])
    floating_ids = sorted({each.floatingip_id for each in gone})
    left = {each.floatingip_id for each in work.select(PortForwarding, floatingip_id=floating_ids)}
    for floating in work.select(FloatingIp, id=floating_ids):
        forwarded(work, floating.router_id)
        if floating.id not in left:
            work.conn.execute(sa.update(t.floatingips).where(t.floatingips.c.id == floating.id).values(
                router_id=None, status="DOWN"))
