"""The hosts' network agents: what is kept of them, and what the API says of them."""

from datetime import datetime
from typing import Any

from nacre.network import tables as t
from nacre.network.nouns import checks as c
from nacre.network.nouns.attributes import FLAG, Resource
from nacre.network.nouns.attributes import Attribute as A
from nacre.network.nouns.noun import Noun, View

OVS, DHCP, METADATA, L3 = "Open vSwitch agent", "DHCP agent", "Metadata agent", "L3 agent"
#: Which program each is part of.
BINARY = dict.fromkeys((OVS, DHCP, METADATA, L3), "nacre-node")


class Agent(Noun, frozen=True):
    """tunnel_ip: where frames for its host go, whatever the configurations say. takes_differences: as
    `contract.DIFFERENCES`."""

    TABLE = t.agents
    id: str
    host: str
    agent_type: str
    description: str | None
    admin_state_up: bool
    configurations: dict[str, Any]
    tunnel_ip: str | None
    created_at: datetime
    started_at: datetime
    heartbeat_at: datetime
    takes_differences: bool = False


_TIME: dict[str, Any] = {"filter": False, "sort": True}
#: What is asked for in a list, and what may be changed.
AGENT = Resource("agent", "agents", {each.name: each for each in (
    *map(A, ("id", "agent_type", "host", "binary", "availability_zone", "topic")),
    A("description", c.maybe(c.text(255)), put=True), A("alive", convert=c.boolean),
    A("admin_state_up", put=True, **FLAG), A("created_at", **_TIME), A("started_at", **_TIME),
    A("heartbeat_timestamp", **_TIME))})


def view(agent: Agent, *, alive: bool) -> View:
    return {
        "id": agent.id, "agent_type": agent.agent_type, "binary": BINARY.get(agent.agent_type, "nacre-node"),
        "host": agent.host, "topic": "N/A", "admin_state_up": agent.admin_state_up, "alive": alive,
        "availability_zone": "nova" if agent.agent_type in (DHCP, L3) else None,
        "configurations": agent.configurations, "description": agent.description, "resources_synced": None,
        "created_at": _iso(agent.created_at), "started_at": _iso(agent.started_at),
        "heartbeat_timestamp": _iso(agent.heartbeat_at)}


def _iso(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%S")
