"""The hosts' network agents: what they report, and whether they are alive."""

import uuid
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from nacre.network import tables as t
from nacre.network.contract import AgentReport
from nacre.network.ml2.driver import HostAgent
from nacre.network.work import Row, Work, missing

OVS = "Open vSwitch agent"
BINARY = {OVS: "nacre-node", "DHCP agent": "nacre-node", "Metadata agent": "nacre-node", "L3 agent": "nacre-node"}


def report(work: Work, said: AgentReport) -> bool:
    """Writes a report down. True if what the host can reach changed (it is new, or mapped otherwise)."""
    config = {"tunnel_ip": said.tunnel_ip, "bridge_mappings": said.bridge_mappings,
              "tunnel_types": list(said.tunnel_types), "datapath_type": said.datapath_type,
              "integration_bridge": said.bridge}
    known = {r["agent_type"]: r for r in work.rows(sa.select(t.agents).where(t.agents.c.host == said.host))}
    changed = False
    for kind in said.agents:
        found = known.get(kind)
        settings = config if kind == OVS else {}
        changed = changed or found is None or found["configurations"] != settings
        if found is None:
            work.insert(t.agents, {
                "id": str(uuid.uuid4()), "host": said.host, "agent_type": kind, "admin_state_up": True,
                "description": None, "configurations": settings, "created_at": work.now, "started_at": work.now,
                "heartbeat_at": work.now})
        else:
            work.conn.execute(sa.update(t.agents).where(t.agents.c.id == found["id"]).values(
                configurations=settings, heartbeat_at=work.now))
    return changed


def alive(work: Work, row: Row) -> bool:
    """Whether the agent reported lately enough."""
    return bool(work.now - row["heartbeat_at"] <= timedelta(seconds=work.settings.agent_down_after))


def of_hosts(work: Work, hosts: Iterable[str] | None = None) -> dict[str, HostAgent]:
    """The Open vSwitch agents of these hosts (or of all), as binding sees them."""
    named: Row = {} if hosts is None else {"host": list(hosts)}
    return {r["host"]: HostAgent(
        host=r["host"], alive=alive(work, r) and r["admin_state_up"],
        bridge_mappings=r["configurations"].get("bridge_mappings") or {},
        tunnel_types=tuple(r["configurations"].get("tunnel_types") or ()),
        datapath_type=r["configurations"].get("datapath_type") or "system",
        bridge=r["configurations"].get("integration_bridge") or "br-int")
        for r in work.find(t.agents, agent_type=OVS, **named)}


def tunnels(work: Work) -> dict[str, str]:
    """host -> tunnel address, of every host that has one."""
    return {r["host"]: r["configurations"]["tunnel_ip"] for r in work.find(t.agents, agent_type=OVS)
            if r["configurations"].get("tunnel_ip")}


def with_tunnels(work: Work, but: str) -> set[str]:
    """The hosts, all but one, that have bound ports and a tunnel address."""
    p = t.ports.c
    bound = set(work.conn.execute(sa.select(p.host).distinct().where(p.host.not_in(["", but]))).scalars())
    return bound & set(tunnels(work)) if bound else bound


def _iso(moment: Any) -> str:
    return str(moment.strftime("%Y-%m-%d %H:%M:%S"))


def views(work: Work) -> list[Row]:
    """All agents as the API shows them."""
    return [{
        "id": r["id"], "agent_type": r["agent_type"], "binary": BINARY.get(r["agent_type"], "nacre-node"),
        "host": r["host"], "topic": "N/A", "admin_state_up": r["admin_state_up"], "alive": alive(work, r),
        "availability_zone": "nova" if r["agent_type"] in ("DHCP agent", "L3 agent") else None,
        "configurations": r["configurations"], "description": r["description"], "resources_synced": None,
        "created_at": _iso(r["created_at"]), "started_at": _iso(r["started_at"]),
        "heartbeat_timestamp": _iso(r["heartbeat_at"])} for r in work.rows(sa.select(t.agents))]


def get(work: Work, agent_id: str) -> Row:
    """One agent's view. Raises NotFound."""
    found = next((v for v in views(work) if v["id"] == agent_id), None)
    if found is None:
        raise missing("agent", agent_id)
    return found
