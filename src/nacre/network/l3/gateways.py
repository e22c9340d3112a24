"""What routers and floating IPs share: the cloud's own ports, and who needs whom."""

from collections.abc import Sequence

import sqlalchemy as sa

from nacre.network import ports
from nacre.network import tables as t
from nacre.network.hosts import agents
from nacre.network.nouns.network import Network
from nacre.network.nouns.port import Fixed, Placed
from nacre.network.work import Work, conflict


def service_port(work: Work, network: Network, device: tuple[str, str], fixed_ips: Sequence[dict[str, str]] | None,
                 project_id: str = "") -> tuple[Placed, Fixed]:
    """A port of the cloud's own (a gateway, a router's interface, a floating IP's address), and its addresses. device:
    (id, owner)."""
    device_id, owner = device
    data = ports.defaults() | {"project_id": project_id, "device_id": device_id, "device_owner": owner,
                               "port_security_enabled": False}
    if fixed_ips:
        data["fixed_ips"] = list(fixed_ips)
    port, fixed, _ = ports.insert(work, network, data)
    settle(work, port.id)
    return port, fixed


def settle(work: Work, port_id: str) -> None:
    """A port of the cloud's own is ACTIVE where somebody forwards for it: a living L3 agent. Else it stays DOWN."""
    if agents.routing(work):
        work.conn.execute(sa.update(t.ports).where(t.ports.c.id == port_id, t.ports.c.admin_state_up).values(
            status="ACTIVE"))


def refuse_floating(work: Work, router_id: str, kind: str, message: str) -> None:
    """Raises Conflict while floating IPs go through the router."""
    if work.row(sa.select(t.floatingips.c.id).where(t.floatingips.c.router_id == router_id).limit(1)):
        raise conflict(kind, message)
