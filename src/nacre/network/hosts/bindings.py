"""The bindings of ports: where each is and where it shall be, with ml2's levels (FLOW B8-B11).

A port has one active binding; its host is "" while the port is on none. Inactive ones are prepared at other hosts for
a move: such a host gets all facts of the port, marked, and frames for the port go to the active one's host alone. To
activate another one is what moves the frames; the former stays bound, so that the way back is as short. What hangs on a
binding (levels, groups) goes with its row.

A port is `Placed` here: with one of its bindings.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
import structlog
from msgspec.structs import replace

from nacre.base.db import statements
from nacre.base.errors import NotFound
from nacre.network import tables as t
from nacre.network.hosts import agents
from nacre.network.l2 import numbers
from nacre.network.l3 import statuses
from nacre.network.ml2 import binding, manager
from nacre.network.ml2.driver_api import HostAgent, MechanismDriver, PortBinding, Segment
from nacre.network.nouns.network import NetworkSegment
from nacre.network.nouns.port import FAILED, Binding, BindingLevel, Placed
from nacre.network.work import Work

log = structlog.get_logger()

#: What a binding without a host says.
UNBOUND: dict[str, Any] = {"host": "", "active": True, "wired": False, "vif_type": "unbound", "vif_details": {}}

_PORTS: sa.BindParameter[Any] = sa.bindparam("ports", expanding=True)
_B, _HOST = t.bindings.c, sa.bindparam("of", type_=sa.String)
#: What makes room for a new active binding at a host.
_FORMER = sa.delete(t.bindings).where(_B.port_id.in_(_PORTS), sa.or_(_B.active, _B.host == _HOST))
#: These ports' groups count on the host.
_GROUPS = sa.insert(t.binding_groups).from_select(["group_id", "host", "port_id"], sa.select(
    t.port_groups.c.group_id, _HOST, t.port_groups.c.port_id).where(t.port_groups.c.port_id.in_(_PORTS)))
#: Or one port's on all its hosts.
_GROUPS_OF_PORT = sa.insert(t.binding_groups).from_select(["group_id", "host", "port_id"], sa.select(
    t.port_groups.c.group_id, _B.host, _B.port_id).join(t.bindings, _B.port_id == t.port_groups.c.port_id).where(
        _B.port_id == sa.bindparam("port"), _B.host != ""))
#: The dynamic segments that bindings of these ports use, and how those of them go that none uses.
_DYNAMIC = sa.select(t.segments.c.id).distinct().join(t.levels, t.levels.c.segment_id == t.segments.c.id).where(
    t.levels.c.port_id.in_(_PORTS), t.segments.c.dynamic)
_ENDING = sa.select(_B.port_id.label("id"), _B.host, _B.network_id, t.segments.c.id.label("segment_id")).where(
    _B.port_id.in_(_PORTS)).outerjoin_from(t.bindings, t.levels, sa.and_(
        t.levels.c.port_id == _B.port_id, t.levels.c.host == _B.host)).outerjoin(
            t.segments, sa.and_(t.segments.c.id == t.levels.c.segment_id, t.segments.c.dynamic))
_UNUSED = sa.delete(t.segments).where(t.segments.c.id.in_(sa.bindparam("segments", expanding=True)),
                                      ~sa.exists().where(t.levels.c.segment_id == t.segments.c.id))
#: The status of those of these ports that are the host's.
_STATUS = sa.update(t.ports).where(
    t.ports.c.id.in_(sa.select(_B.port_id).where(_B.port_id.in_(_PORTS), _B.host == _HOST, _B.active)),
    t.ports.c.status != sa.bindparam("said"), t.ports.c.admin_state_up).values(
        status=sa.bindparam("said"), updated_at=sa.bindparam("at"))


@lru_cache
def _drivers(names: tuple[str, ...]) -> tuple[MechanismDriver, ...]:
    return manager.load(names)


class DynamicSegments:
    """Segments that a higher-level driver hands down (FLOW B10): one per network, type and physical network."""

    def __init__(self, work: Work):
        self._work, self._made = work, set[str]()

    def allocate(self, network_id: str, network_type: str, physical_network: str) -> Segment:
        s = t.segments.c
        found = self._work.first(NetworkSegment, s.dynamic, network_id=network_id, network_type=network_type,
                                 physical_network=physical_network or None)
        if found is None:
            what = network_type, physical_network, None
            found = numbers.reserve(self._work, network_id, what, dynamic=True)
            self._made.add(found.id)
        return found.offered()

    def release(self, segment: Segment) -> None:
        # One that was there before belongs to other ports too.
        if segment.id in self._made:
            self._made.discard(segment.id)
            self._work.conn.execute(sa.delete(t.segments).where(t.segments.c.id == segment.id))


def missing(port_id: str, host: str) -> NotFound:
    """The 404 of a port that has no binding at that host."""
    return NotFound(f"Binding for port {port_id} for host {host[:64]} could not be found.", type="PortBindingNotFound")


def status(port: Placed) -> str:
    """A port's status by its active binding: one that its owner switched off is DOWN, whatever its host says."""
    return "ACTIVE" if port.admin_state_up and port.wired else "DOWN"


def failed(ports: Iterable[Placed]) -> list[str]:
    """The ids of those of these ports that no driver bound."""
    return [port.id for port in ports if port.vif_type == FAILED]


def bind(work: Work, ports: Sequence[Placed], host: str, *, fresh: bool = False) -> list[Placed]:
    """The ports bound to the host (empty: to none), actively; given with their active bindings, which go. Of those that
    no driver binds the vif_type says so. fresh: they have none yet."""
    ids = [p.id for p in ports]
    used, works = (set[str](), set[str]()) if fresh else (_dynamic(work, ids), _working(work, ids, host))
    if not fresh:
        statuses.moved(work, [port.id for port in ports if port.host != host])
        _left(work, ports)
        work.conn.execute(_FORMER, {"ports": ids, "of": host})
    found, levels = _ask(work, ports, host, works)
    found = [replace(port, status=status(port)) for port in found]
    if not fresh:
        statuses.moved(work, failed(found))
        for port in found:
            work.change(t.ports, port.id, {"status": port.status})
    _write(work, found, levels)
    free_dynamic(work, used)
    return found


def prepare(work: Work, ports: Sequence[Placed], host: str) -> list[Placed]:
    """As `bind`, at one more host, inactively and, where they are already, anew."""
    ids = [p.id for p in ports]
    used, works = _dynamic(work, ids), _working(work, ids, host)
    statements.delete(work.conn, t.bindings, port_id=ids, host=host, active=False)
    found, levels = _ask(work, ports, host, works)
    found = [replace(port, active=False) for port in found]
    for port in found:
        work.touch(t.ports, port.id)
    _write(work, found, levels)
    free_dynamic(work, used)
    return found


def _working(work: Work, port_ids: Sequence[str], host: str) -> set[str]:
    """Those that the host's agent says work. Bound again at the same host they still do: it sees no difference, and
    does not say so once more."""
    return {b.port_id for b in work.select(Binding, port_id=port_ids, host=host, wired=True)} if host else set()


def activate(work: Work, ports: Sequence[Placed]) -> None:
    """Makes these bindings the active ones of their ports; the others stay, inactive."""
    ids = [p.id for p in ports]
    statuses.moved(work, ids)
    statements.update(work.conn, t.bindings, {"active": False}, port_id=ids, active=True)
    statements.delete(work.conn, t.bindings, port_id=ids, host="")
    for port in ports:
        statements.update(work.conn, t.bindings, {"active": True}, port_id=port.id, host=port.host)
        work.change(t.ports, port.id, {"status": status(port)})
        work.changes.ports.add(port.id)
        work.changes.placed(port.network_id, port.id)


def clear(work: Work, ports: Sequence[Placed]) -> None:
    """Their active bindings are on no host any more."""
    if placed := [p for p in ports if p.host]:
        bind(work, placed, "")


def drop(work: Work, ports: Sequence[Placed]) -> None:
    """These inactive bindings are gone."""
    if ports:
        used = _dynamic(work, [p.id for p in ports])
        _left(work, ports)
        for host in {p.host for p in ports}:
            statements.delete(work.conn, t.bindings, port_id=[p.id for p in ports if p.host == host], host=host,
                              active=False)
        for port in ports:
            work.touch(t.ports, port.id)
        free_dynamic(work, used)


def wired(work: Work, host: str, port_ids: Sequence[str], up: bool) -> None:
    """What the host's agent says of its ports: only a host with a binding of a port may."""
    if not port_ids:
        return
    statements.update(work.conn, t.bindings, {"wired": up}, port_id=port_ids, host=host, wired=not up)
    work.conn.execute(_STATUS, {"ports": port_ids, "of": host, "said": "ACTIVE" if up else "DOWN", "at": work.now})


def end(work: Work, port_ids: Sequence[str]) -> set[str]:
    """The ports are about to be deleted, which concerns their hosts. The dynamic segments to be freed then."""
    dynamic = set[str]()
    for port_id, host, network_id, segment_id in work.conn.execute(_ENDING, {"ports": port_ids}):
        _left_one(work, port_id, host, network_id)
        dynamic |= {segment_id} - {None}
    return dynamic


def regroup(work: Work, port_id: str) -> None:
    """The port's groups are others now: where it is bound, they count."""
    statements.delete(work.conn, t.binding_groups, port_id=port_id)
    work.conn.execute(_GROUPS_OF_PORT, {"port": port_id})


def free_dynamic(work: Work, segment_ids: Collection[str]) -> None:
    """Frees those of these dynamic segments that carry no binding any more."""
    if segment_ids:
        work.conn.execute(_UNUSED, {"segments": list(segment_ids)})


def _dynamic(work: Work, port_ids: Sequence[str]) -> set[str]:
    return set(work.conn.execute(_DYNAMIC, {"ports": port_ids}).scalars())


def _left(work: Work, ports: Sequence[Placed]) -> None:
    for port in ports:
        _left_one(work, port.id, port.host, port.network_id)


def _left_one(work: Work, port_id: str, host: str, network_id: str) -> None:
    if host:
        work.changes.left[host].add(port_id)
        work.changes.placed(network_id, port_id)


def _write(work: Work, ports: Sequence[Placed], levels: Sequence[BindingLevel]) -> None:
    """The bindings of the ports as they say, with what hangs on them."""
    work.add_all(Binding, [port.binding() for port in ports])
    work.add_all(BindingLevel, levels)
    if host := ports[0].host:
        work.conn.execute(_GROUPS, {"ports": [p.id for p in ports], "of": host})
        for port in ports:
            work.changes.ports.add(port.id)
            work.changes.placed(port.network_id, port.id)


def _ask(work: Work, ports: Sequence[Placed], host: str,
         works: Collection[str]) -> tuple[list[Placed], list[BindingLevel]]:
    """The ports as the drivers bind them, actively, and their levels. works: those that the host has wired already."""
    if not host:
        return [replace(port, **UNBOUND) for port in ports], []
    found, levels = list[Placed](), list[BindingLevel]()
    segments = _segments(work, {p.network_id for p in ports})
    agent = agents.of_hosts(work, [host]).get(host)
    for port in ports:
        done = _bind(work, port, host, agent, segments[port.network_id])
        if done is None:
            found.append(replace(port, **UNBOUND | {"host": host, "vif_type": FAILED}))
            continue
        found.append(replace(port, host=host, active=True, wired=port.id in works, vif_type=done.bound.vif_type,
                             vif_details=dict(done.bound.vif_details)))
        levels += [BindingLevel(port_id=port.id, host=host, level=level.level, driver=level.driver,
                                segment_id=level.segment.id) for level in done.levels]
    return found, levels


def _bind(work: Work, port: Placed, host: str, agent: HostAgent | None,
          segments: Sequence[Segment]) -> binding.Binding | None:
    asked = PortBinding(port_id=port.id, network_id=port.network_id, host=host, vnic_type=port.vnic_type,
                        profile=port.profile, agent=agent)
    return binding.bind(
        asked, segments, _drivers(work.settings.drivers), DynamicSegments(work),
        lambda name, error: log.error("mechanism driver crashed", driver=name, port=port.id, error=repr(error)))


def _segments(work: Work, network_ids: set[str]) -> dict[str, list[Segment]]:
    found: dict[str, list[Segment]] = defaultdict(list)
    for segment in work.select(NetworkSegment, order=("position",), network_id=network_ids, dynamic=False):
        found[segment.network_id].append(segment.offered())
    return found
