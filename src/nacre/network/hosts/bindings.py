"""Writes ml2's bindings to the tables: a port gets a host, levels and what the host needs to plug it (FLOW B8-B11)."""

from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache

import sqlalchemy as sa
import structlog

from nacre.base.db import statements
from nacre.network import networks
from nacre.network import tables as t
from nacre.network.hosts import agents
from nacre.network.ml2 import binding, manager
from nacre.network.ml2.driver import HostAgent, MechanismDriver, PortBinding, Segment
from nacre.network.work import Row, Work

log = structlog.get_logger()


@lru_cache
def _drivers(names: tuple[str, ...]) -> tuple[MechanismDriver, ...]:
    return manager.load(names)


class DynamicSegments:
    """Segments that a higher-level driver hands down (FLOW B10): one per network, type and physical network."""

    def __init__(self, work: Work):
        self._work, self._made = work, set[str]()

    def allocate(self, network_id: str, network_type: str, physical_network: str) -> Segment:
        s = t.segments.c
        row = self._work.row(sa.select(t.segments).where(
            s.network_id == network_id, s.network_type == network_type, s.physical_network == physical_network,
            s.dynamic))
        if row is None:
            row = networks.reserve(self._work, network_id, (network_type, physical_network, None), dynamic=True)
            self._made.add(row["id"])
        return networks.segment(row)

    def release(self, segment: Segment) -> None:
        # One that was there before belongs to other ports too.
        if segment.id in self._made:
            self._made.discard(segment.id)
            self._work.conn.execute(sa.delete(t.segments).where(t.segments.c.id == segment.id))


def bind_or_mark(work: Work, ports: Sequence[Row], host: str) -> list[str]:
    """Binds the ports to the host (empty: unbinds them). The ids of those that no driver binds come back; their
    vif_type says `binding_failed`."""
    clear(work, ports)
    if not host:
        return []
    segments = _segments(work, {p["network_id"] for p in ports})
    agent = agents.of_hosts(work, [host]).get(host)
    failed = []
    for port in ports:
        done = _bind(work, port, host, agent, segments[port["network_id"]])
        if done is None:
            failed.append(port["id"])
            values: Row = {"host": host, "vif_type": "binding_failed", "vif_details": {}, "status": "DOWN"}
        else:
            statements.insert(work.conn, t.levels, [
                {"port_id": port["id"], "level": lv.level, "host": host, "driver": lv.driver,
                 "segment_id": lv.segment.id} for lv in done.levels])
            values = {"host": host, "vif_type": done.bound.vif_type, "vif_details": dict(done.bound.vif_details),
                      "status": "DOWN"}
        work.change(t.ports, port["id"], values)
        port.update(values)
        work.changes.ports[port["id"]] = host
        work.changes.networks.add(port["network_id"])
    return failed


def _bind(work: Work, port: Row, host: str, agent: HostAgent | None,
          segments: Sequence[Segment]) -> binding.Binding | None:
    asked = PortBinding(port_id=port["id"], network_id=port["network_id"], host=host, vnic_type=port["vnic_type"],
                        profile=port["profile"], agent=agent)
    return binding.bind(
        asked, segments, _drivers(work.settings.drivers), DynamicSegments(work),
        lambda name, error: log.error("mechanism driver crashed", driver=name, port=port["id"], error=repr(error)))


def clear(work: Work, ports: Sequence[Row]) -> None:
    """Takes bindings back: no host, no levels. Dynamic segments that nobody uses any more are freed."""
    bound = [p for p in ports if p["host"]]
    if not bound:
        return
    ids = [p["id"] for p in bound]
    used = {level["segment_id"] for level in work.find(t.levels, port_id=ids)}
    statements.delete(work.conn, t.levels, port_id=ids)
    values: Row = {"host": "", "vif_type": "unbound", "vif_details": {}, "status": "DOWN"}
    for port in bound:
        work.changes.ports[port["id"]] = port["host"]
        work.changes.networks.add(port["network_id"])
        port.update(values)
    statements.update(work.conn, t.ports, {**values, "updated_at": work.now}, id=ids)
    free_dynamic(work, used)


def free_dynamic(work: Work, segment_ids: set[str]) -> None:
    """Frees those of the segments that were allocated for bindings and carry none any more."""
    if work.find(t.segments, id=segment_ids, dynamic=True):
        work.conn.execute(sa.delete(t.segments).where(
            t.segments.c.id.in_(segment_ids), t.segments.c.dynamic,
            t.segments.c.id.not_in(sa.select(t.levels.c.segment_id))))


def _segments(work: Work, network_ids: set[str]) -> dict[str, list[Segment]]:
    found: dict[str, list[Segment]] = defaultdict(list)
    for row in work.find(t.segments, ("position",), network_id=network_ids, dynamic=False):
        found[row["network_id"]].append(networks.segment(row))
    return found
