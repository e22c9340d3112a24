"""The hosts' network agents: what they report, their rows, their heartbeats, and whether they are alive."""

import asyncio
import ipaddress
import re
import uuid
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

import msgspec
import sqlalchemy as sa
import structlog

from nacre.base.bounds import pieces
from nacre.base.clock import Clock
from nacre.base.db import Database, statements
from nacre.base.db.together import VALUES
from nacre.base.durable.processes import database_now
from nacre.base.errors import BadRequest, Interrupted, NacreError
from nacre.network import tables as t
from nacre.network.contract import DIFFERENCES, AgentReport
from nacre.network.ml2 import type_drivers
from nacre.network.ml2.driver_api import HostAgent
from nacre.network.nouns.agent import BINARY, L3, OVS, Agent, view
from nacre.network.nouns.noun import View
from nacre.network.work import Work, missing

log = structlog.get_logger()

_A = t.agents.c
_OTHER = sa.update(t.agents).where(_A.id == sa.bindparam("of")).values(
    configurations=sa.bindparam("new_configurations"), tunnel_ip=sa.bindparam("new_tunnel_ip"),
    takes_differences=sa.bindparam("new_takes_differences"), heartbeat_at=sa.bindparam("now"))
_WITH_PORTS = sa.select(_A.host).distinct().where(
    _A.host.in_(sa.bindparam("hosts", expanding=True)), sa.or_(
        sa.exists().where(t.bindings.c.host == _A.host), sa.exists().where(t.routers.c.gateway_host == _A.host)))
_ROWS = sa.select(_A.host, sa.func.count(), sa.func.min(_A.heartbeat_at)).where(
    _A.host.in_(sa.bindparam("hosts", expanding=True))).group_by(_A.host)

#: The most bridge mappings of a host; what a physical network and a bridge may be called.
MAX_MAPPINGS = 100
_PHYSICAL, _BRIDGE = re.compile(r"[!-~]{1,64}"), re.compile(r"[\w.-]{1,15}", re.ASCII)
#: Heartbeats that come within this time are written together (seconds).
GATHER = 1.0
#: A row is refreshed after this part of the time until its agent counts as dead.
PART = 1 / 3
#: The wall clock was set if it is so far from where it should be (seconds).
STEP = 5.0


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """An agent's report that can do no harm: other hosts' flows are made of it."""

    host: str
    tunnel_ip: ipaddress.IPv4Address | None
    bridge_mappings: Mapping[str, str]
    tunnel_types: tuple[str, ...]
    datapath_type: str
    bridge: str
    agents: tuple[str, ...]
    takes_differences: bool = False


def parse(said: AgentReport) -> Report:
    """What a host says, checked. Raises BadRequest naming what is wrong with it."""
    _check(0 < len(said.host) <= 255, "host", said.host, "a host's name has 1 to 255 characters")
    _check(len(said.bridge_mappings) <= MAX_MAPPINGS, "bridge_mappings", len(said.bridge_mappings),
           f"a host has at most {MAX_MAPPINGS}")
    for physical, bridge in said.bridge_mappings.items():
        _check(_PHYSICAL.fullmatch(physical), "bridge_mappings", physical,
               "a physical network has 1 to 64 printable characters without spaces")
        _check(_BRIDGE.fullmatch(bridge), "bridge_mappings", bridge,
               "a bridge has 1 to 15 letters, digits, dots, hyphens and underscores")
    _check(_BRIDGE.fullmatch(said.bridge), "bridge", said.bridge,
           "a bridge has 1 to 15 letters, digits, dots, hyphens and underscores")
    tunnels = [name for name, driver in type_drivers.load().items() if driver.overhead]
    for names, known, field in ((said.tunnel_types, tunnels, "tunnel_types"), (said.agents, BINARY, "agents"),
                                ((said.datapath_type,), ("system", "netdev"), "datapath_type")):
        for name in names:
            _check(name in known, field, name, f"known are {', '.join(known)}")
    tunnel_ip = None if said.tunnel_ip is None else _tunnel_ip(said.tunnel_ip)
    return Report(host=said.host, tunnel_ip=tunnel_ip, bridge_mappings=dict(said.bridge_mappings),
                  tunnel_types=tuple(dict.fromkeys(said.tunnel_types)), datapath_type=said.datapath_type,
                  bridge=said.bridge, agents=tuple(dict.fromkeys(said.agents)),
                  takes_differences=DIFFERENCES in said.takes)


def _tunnel_ip(given: str) -> ipaddress.IPv4Address:
    try:
        address = ipaddress.ip_address(given)
    except ValueError:
        raise _refusal("tunnel_ip", given, "it is not an IP address") from None
    if isinstance(address, ipaddress.IPv6Address):
        raise _refusal("tunnel_ip", given, "tunnels over IPv6 are not carried yet")
    if address.is_loopback:
        raise _refusal("tunnel_ip", given, "no other host reaches a loopback address; without tunnels it is left out")
    if address.is_multicast or address.is_unspecified or address.is_reserved:
        raise _refusal("tunnel_ip", given, "no host can have this address")
    return address


def _check(right: object, field: str, given: object, reason: str) -> None:
    if not right:
        raise _refusal(field, given, reason)


def _refusal(field: str, given: object, reason: str) -> BadRequest:
    return BadRequest(f"The network agent's report is refused: {field} {str(given)[:64]!r}: {reason}.", field=field)


def claimed(work: Work, reports: Sequence[Report]) -> dict[str, BadRequest]:
    """Of these hosts, those whose address is another's, and why that is refused: frames for that one's guests would go
    to them. A host that is gone gives its address back when it is removed, one that moved when it says so."""
    known = work.select(Agent, tunnel_ip=sorted({str(r.tunnel_ip) for r in reports if r.tunnel_ip}))
    owners, found = {str(agent.tunnel_ip): agent.host for agent in known}, dict[str, BadRequest]()
    for said in reports:
        owner = owners.setdefault(str(said.tunnel_ip), said.host) if said.tunnel_ip else said.host
        if owner != said.host:
            found[said.host] = _refusal("tunnel_ip", said.tunnel_ip,
                                        f"it is host {owner[:64]}'s (if that is gone, remove it)")
    return found


def report(work: Work, reports: Iterable[Report]) -> set[str]:
    """Writes down what hosts report. Those that are reached elsewhere than before, and have ports or routers of which
    they are the gateway hosts; of such that changed anything, what they route is news. An agent that its host does not
    name any more is gone, but for one that an operator switched off: it would come back switched on. A new L3 agent is
    switched off, but for our own machine's: which hosts all that routers send goes through is not theirs to say
    (l3/gateway_hosts.py)."""
    reports = list(reports)
    values = {(said.host, kind): row for said in reports for kind, row in rows_of(said).items()}
    known = {(agent.host, agent.agent_type): agent for agent in work.select(Agent, host={r.host for r in reports})}
    gone = [place for place, agent in known.items() if place not in values and not _kept(work, agent)]
    if gone:
        statements.delete(work.conn, t.agents, id=[known[place].id for place in gone])
    same = [place for place, row in values.items() if place in known and says(known[place], row)]
    other = [place for place in values if place in known and place not in set(same)]
    fresh = [place for place in values if place not in known]
    work.add_all(Agent, [Agent(
        id=str(uuid.uuid4()), host=host, agent_type=kind, description=None, created_at=work.now,
        started_at=work.now, heartbeat_at=work.shared_now,
        admin_state_up=_begins(work, host, kind), **values[host, kind]) for host, kind in fresh])
    if other:
        work.conn.execute(_OTHER, [{"of": known[place].id, "now": work.shared_now, **{
            f"new_{name}": value for name, value in values[place].items()}} for place in other])
    if same:
        statements.update(work.conn, t.agents, {"heartbeat_at": work.shared_now}, id=[known[p].id for p in same])
    before = {(agent.host, agent.tunnel_ip) for agent in known.values() if agent.tunnel_ip}
    now = {(host, row["tunnel_ip"]) for (host, _), row in values.items() if row["tunnel_ip"]}
    elsewhere, changed = {host for host, _ in before ^ now}, {host for host, kind in (*other, *fresh) if kind == OVS}
    if not (asked := list(elsewhere | changed)):
        return set()
    used = set(work.conn.execute(_WITH_PORTS, {"hosts": asked}).scalars())
    work.changes.routing.update(used & changed)  # by which segments it reaches networks
    return used & elsewhere


def _begins(work: Work, host: str, kind: str) -> bool:
    """Whether a new agent is switched on."""
    return kind != L3 or host == work.settings.own_host


def _kept(work: Work, agent: Agent) -> bool:
    """Whether its row stays though its host does not name it."""
    return not agent.admin_state_up and _begins(work, agent.host, agent.agent_type)


def fresh(work: Work, reports: Iterable[Report], seconds: float) -> dict[str, float]:
    """How old the rows of each of these hosts are (seconds), of such as say just what it reports, no more either, and
    are not older than that: another control process wrote them."""
    values, known = {said.host: rows_of(said) for said in reports}, defaultdict[str, list[Agent]](list)
    for agent in work.select(Agent, host=list(values)):
        known[agent.host].append(agent)
    found: dict[str, float] = {}
    for host, wanted in values.items():
        theirs = [agent for agent in known[host] if agent.agent_type in wanted or not _kept(work, agent)]
        if theirs and {agent.agent_type for agent in theirs} == wanted.keys() and all(
                says(agent, wanted[agent.agent_type]) for agent in theirs):
            ages = [(work.shared_now - agent.heartbeat_at).total_seconds() for agent in theirs]
            if min(ages) >= 0 and max(ages) < seconds:
                found[host] = max(ages)
    return found


def rows_of(said: Report) -> dict[str, dict[str, Any]]:
    """What a host's report means for its agents, by their types."""
    tunnel_ip = str(said.tunnel_ip) if said.tunnel_ip else None
    config = {"tunnel_ip": tunnel_ip, "bridge_mappings": said.bridge_mappings,
              "tunnel_types": list(said.tunnel_types), "datapath_type": said.datapath_type,
              "integration_bridge": said.bridge}
    nothing: dict[str, Any] = {"configurations": {}, "tunnel_ip": None, "takes_differences": False}
    switch = {"configurations": config, "tunnel_ip": tunnel_ip, "takes_differences": said.takes_differences}
    return {kind: switch if kind == OVS else nothing for kind in said.agents}


def says(agent: Agent, values: Mapping[str, Any]) -> bool:
    """Whether the agent is written down so already."""
    return all(getattr(agent, name) == value for name, value in values.items())


def alive(work: Work, agent: Agent) -> bool:
    """Whether the agent reported lately enough, to whichever control process."""
    return work.heard(agent.host) or bool(
        work.shared_now - agent.heartbeat_at <= timedelta(seconds=work.settings.agent_down_after))


def of_hosts(work: Work, hosts: Iterable[str]) -> dict[str, HostAgent]:
    """The Open vSwitch agents of these hosts, as binding sees them."""
    return {agent.host: HostAgent(
        host=agent.host, alive=alive(work, agent) and agent.admin_state_up,
        bridge_mappings=agent.configurations.get("bridge_mappings") or {},
        tunnel_types=tuple(agent.configurations.get("tunnel_types") or ()),
        datapath_type=agent.configurations.get("datapath_type") or "system",
        bridge=agent.configurations.get("integration_bridge") or "br-int", tunnelled=agent.tunnel_ip is not None)
        for agent in work.select(Agent, agent_type=OVS, host=list(hosts))}


def routing(work: Work) -> bool:
    """Whether somebody forwards between networks: a living L3 agent that an operator has switched on."""
    return any(alive(work, agent) for agent in work.select(Agent, agent_type=L3, admin_state_up=True))


def views(work: Work, found: Iterable[Agent]) -> list[View]:
    """Agents as the API shows them."""
    return [view(agent, alive=alive(work, agent)) for agent in found]


def get(work: Work, agent_id: str) -> Agent:
    """One agent. Raises NotFound."""
    found = work.first(Agent, id=agent_id)
    if found is None:
        raise missing("agent", agent_id)
    return found


class Heartbeats:
    """Agents' reports that are no news: kept in memory, their rows refreshed together and seldom. A host repeats its
    report every few seconds to say that it lives. Only what is new needs a transaction of its own. The rows stay the
    truth for every reader: they are refreshed well within the time after which an agent counts as dead.

    down_after: that time, in seconds without a report."""

    def __init__(self, db: Database, clock: Clock, down_after: float):
        self._db, self._clock, self._down_after, self.period = db, clock, down_after, down_after * PART
        self._heard: dict[str, float] = {}
        #: What each said last, as it came and checked.
        self._said: dict[str, tuple[AgentReport, Report]] = {}
        #: host -> what its rows say, when they were last written, and where the wall clock stood then (`_offset`)
        self._written: dict[str, tuple[Report, float, float]] = {}
        self._due: set[str] = set()
        self._task: asyncio.Task[None] | None = None

    def parsed(self, said: AgentReport) -> Report:
        """As `parse`; who repeats itself was checked before."""
        known = self._said.get(said.host)
        if known is None or known[0] != said:
            known = self._said[said.host] = said, parse(said)
        return known[1]

    def repeated(self, report: Report) -> bool:
        """Whether the report only says that the host lives; then its rows are refreshed when it is time."""
        self._heard[report.host] = self._clock.monotonic()
        known = self._written.get(report.host)
        if known is None or known[0] != report:
            return False
        if abs(self._offset() - known[2]) > STEP:
            return False  # the clock by which the row is judged may have been set, too: every agent would look dead
        age = self._clock.monotonic() - known[1]
        if age >= 2 * self.period:
            return False  # it was silent, and may count as dead: that is news
        if age >= self.period:
            self._due.add(report.host)
            if self._task is None or self._task.done():
                self._task = asyncio.get_running_loop().create_task(self._flush())
        return True

    def heard(self, host: str) -> bool:
        """Whether it reported to this process lately, by the steady clock: its row may look old as a clock was set, or
        the machine slept."""
        return self._clock.monotonic() - self._heard.get(host, -self._down_after) < self._down_after

    def written(self, report: Report, age: float = 0.0) -> None:
        """The rows say this, since so many seconds."""
        self._written[report.host] = (report, self._clock.monotonic() - age, self._offset())

    def forget(self, hosts: Iterable[str]) -> None:
        """Rows of these hosts may be gone: their next reports are written as new."""
        for host in hosts:
            for known in (self._said, self._written, self._heard):
                known.pop(host, None)

    def _offset(self) -> float:
        """From the steady clock to the wall clock, in seconds: it changes when that is set, or the machine slept."""
        return self._clock.now().timestamp() - self._clock.monotonic()

    async def _flush(self) -> None:
        await self._clock.sleep(min(GATHER, self.period))
        due, self._due = sorted(self._due), set()
        known = {host: self._written[host][0] for host in due if host in self._written}
        for hosts in pieces(known, VALUES):
            try:
                ages = await self._refresh({host: len(known[host].agents) for host in hosts})
            except (NacreError, Interrupted) as error:
                log.warning("heartbeats are not written yet", hosts=len(hosts), why=str(error))
                continue
            self.forget(set(hosts) - ages.keys())
            for host, age in ages.items():
                self.written(known[host], age)

    async def _refresh(self, counts: Mapping[str, int]) -> dict[str, float]:
        """Writes the rows of hosts with so many agents, unless another control process did lately. How old they are
        then; hosts that are left out do not have the rows that they should have."""
        def read(connection: sa.Connection) -> dict[str, float]:
            now, rows = database_now(connection, self._clock), connection.execute(_ROWS, {"hosts": list(counts)})
            return {host: (now - at).total_seconds() for host, count, at in rows if count == counts[host]}

        ages = await self._db.read(read)
        due = [host for host, age in ages.items() if not 0 <= age < self.period]
        if due:
            await self._db.run(lambda connection: statements.update(
                connection, t.agents, {"heartbeat_at": database_now(connection, self._clock)}, host=due))
        return ages | dict.fromkeys(due, 0.0)
