"""The scheduler's endpoint: reports in, placements out. Reports are kept in memory and written when they change."""

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import msgspec
import sqlalchemy as sa
import structlog

from nacre.base.clock import Clock
from nacre.base.db import Database
from nacre.base.errors import NotFound
from nacre.scheduler.contract import HostReport, HostState, Placement, PlacementRequest
from nacre.scheduler.filter_scheduler import FilterScheduler
from nacre.scheduler.hosts import host_of
from nacre.scheduler.tables import compute_hosts

log = structlog.get_logger()

#: A claim reaches its host's report within this time of the placement.
CLAIM_SECONDS = 5.0
#: How often an unchanged host's row is refreshed, so that a restart knows who was there.
REFRESH = timedelta(minutes=1)


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What the scheduler asks of others at each rebuild."""

    #: host -> availability zone, for hosts that are not in the default zone
    zones: Callable[[], Awaitable[Mapping[str, str]]]
    #: host -> the servers on it
    servers: Callable[[], Awaitable[Mapping[str, set[str]]]]


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """The scheduler's settings. Times in seconds."""

    default_queue: str = "kvm"
    default_zone: str = "nova"
    rebuild_seconds: float = 10.0
    down_seconds: float = 60.0


class SchedulerManager:
    """Implements `Scheduler` over a `FilterScheduler`."""

    def __init__(self, db: Database, clock: Clock, chooser: FilterScheduler, facts: Facts,
                 options: Options = Options()):
        self._db, self._clock, self._chooser, self._facts, self._options = db, clock, chooser, facts, options
        self._states: dict[str, HostState] = {}
        #: server -> (host, its request, when): placements that a report may not show yet
        self._recent: dict[str, tuple[str, PlacementRequest, datetime]] = {}

    async def start(self) -> None:
        """Load what is known and build the queues at once."""
        rows = await self._db.read(lambda c: c.execute(sa.select(compute_hosts)).mappings().all())
        for row in rows:
            self._states[row["host"]] = _state(dict(row), self._now(), self._options.down_seconds)
        await self.build_queue()

    async def run(self) -> None:
        """The periodic task (FLOW A6): rebuild the queues, for ever."""
        while True:
            await self._clock.sleep(self._options.rebuild_seconds)
            try:
                await self.build_queue()
            except Exception:
                log.exception("queue rebuild failed; the old queues stay")

    async def build_queue(self) -> None:
        """Rebuild the host queues from the last reports. Disabled hosts stay in, to be counted with their reason."""
        zones, servers, now = await self._facts.zones(), await self._facts.servers(), self._now()
        hosts = {}
        for state in self._states.values():
            up = self._up(state, now)
            host = host_of(state.report, up=up, disabled=state.disabled,
                           zone=zones.get(state.report.host, self._options.default_zone))
            host.servers = set(servers.get(host.name, ()))
            hosts[host.name] = host
        for server, (name, request, when) in list(self._recent.items()):
            heard = self._states[name].updated_at if name in self._states else None
            if name not in hosts or (heard and heard - when > timedelta(seconds=CLAIM_SECONDS)):
                del self._recent[server]
            elif heard is None or heard < when or server not in hosts[name].servers:
                hosts[name].take(request, server)
        self._chooser.rebuild(hosts.values())

    async def select(self, request: PlacementRequest) -> tuple[Placement, ...]:
        placements = self._chooser.place(request, self._options.default_queue)
        now = self._now()
        for p in placements:
            self._recent[p.server_id] = (p.host, request, now)
        return placements

    async def released(self, host: str, memory_mb: int, vcpus: int, disk_mb: int) -> None:
        self._chooser.give_back(host, (memory_mb, vcpus, disk_mb))

    async def report(self, report: HostReport) -> None:
        now, known = self._now(), self._states.get(report.host)
        changed = known is None or known.report != report or not self._up(known, now)
        stale = known is None or known.updated_at is None or now - known.updated_at > REFRESH
        if known is None:
            self._states[report.host] = await self._insert(report, now)
        else:
            self._states[report.host] = msgspec.structs.replace(known, report=report, up=True, updated_at=now)
            if changed or stale:
                await self._update(report.host, report=msgspec.to_builtins(report), updated_at=now)
        if known is None or not self._up(known, now):
            await self.build_queue()

    async def hosts(self) -> tuple[HostState, ...]:
        now = self._now()
        return tuple(msgspec.structs.replace(s, up=self._up(s, now)) for _, s in sorted(self._states.items()))

    async def set_service(self, host: str, *, disabled: bool | None = None, reason: str | None = None,
                          forced_down: bool | None = None) -> HostState:
        state = self._known(host)
        changes: dict[str, Any] = {}
        if disabled is not None:
            changes |= {"disabled": disabled, "disabled_reason": reason if disabled else None}
        if forced_down is not None:
            changes["forced_down"] = forced_down
        if changes:
            await self._update(host, **changes)
            self._states[host] = msgspec.structs.replace(state, **changes)
            await self.build_queue()
        return msgspec.structs.replace(self._states[host], up=self._up(self._states[host], self._now()))

    async def forget(self, host: str) -> None:
        self._known(host)
        await self._db.run(lambda c: c.execute(sa.delete(compute_hosts).where(compute_hosts.c.host == host)))
        del self._states[host]
        await self.build_queue()

    def _known(self, host: str) -> HostState:
        try:
            return self._states[host]
        except KeyError:
            raise NotFound(f"Compute host {host} could not be found.") from None

    def _up(self, state: HostState, now: datetime) -> bool:
        return _alive(state.updated_at, now, self._options.down_seconds) and not state.forced_down

    def _now(self) -> datetime:
        return self._clock.now().replace(tzinfo=None)

    async def _insert(self, report: HostReport, now: datetime) -> HostState:
        row = {"uuid": str(uuid4()), "host": report.host, "report": msgspec.to_builtins(report), "disabled": False,
               "disabled_reason": None, "forced_down": False, "created_at": now, "updated_at": now}

        def unit(connection: sa.Connection) -> int:
            key = connection.execute(sa.insert(compute_hosts).values(row)).inserted_primary_key
            assert key is not None
            return int(key[0])

        return _state({**row, "id": await self._db.run(unit)}, now, self._options.down_seconds)

    async def _update(self, host: str, **values: Any) -> None:
        await self._db.run(lambda c: c.execute(
            sa.update(compute_hosts).where(compute_hosts.c.host == host).values(**values)))


def _alive(heard: datetime | None, now: datetime, limit: float) -> bool:
    return heard is not None and (now - heard).total_seconds() <= limit


def _state(row: Mapping[str, Any], now: datetime, limit: float) -> HostState:
    return HostState(
        id=row["id"], uuid=row["uuid"], report=msgspec.convert(row["report"], HostReport),
        up=_alive(row["updated_at"], now, limit) and not row["forced_down"], disabled=row["disabled"],
        disabled_reason=row["disabled_reason"], forced_down=row["forced_down"], updated_at=row["updated_at"],
        created_at=row["created_at"])
