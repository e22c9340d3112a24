"""The scheduler's endpoint: reports in, placements out. Reports are kept in memory, and rows written on change."""

import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from uuid import uuid4

import msgspec
import structlog

from nacre.base.clock import Clock, settle
from nacre.base.db import Database
from nacre.base.errors import NotFound, NoValidHost
from nacre.scheduler.contract import Amounts, HostLimits, HostReport, HostState, Placement, PlacementRequest
from nacre.scheduler.filter_scheduler import FilterScheduler
from nacre.scheduler.hosts import Aggregate, Kind, Kinds
from nacre.scheduler.metrics import HOSTS, PLACED, REFUSED, SECONDS, refused
from nacre.scheduler.query import compile_query
from nacre.scheduler.records import HostRecords

log = structlog.get_logger()

#: How often changed rows are written (seconds).
FLUSH = 1.0
#: Hosts that are rebuilt without letting others have the loop.
AT_ONCE = 250
#: The reasons of a host that takes no servers.
DISABLED, DOWN = "are disabled", "are down"


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What the scheduler asks of others."""

    #: host -> its aggregates: at each rebuild, and when told that they changed
    aggregates: Callable[[], Awaitable[Mapping[str, tuple[Aggregate, ...]]]]
    #: host -> the servers on it: at the start, until the hosts say it themselves
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
        self._records, self._clock, self._chooser = HostRecords(db), clock, chooser
        self._facts, self._options = facts, options
        self._states: dict[str, HostState] = {}
        self._aggregates: Mapping[str, tuple[Aggregate, ...]] = {}
        self._kinds = Kinds()

    async def start(self) -> None:
        """Load what is known and build the queues at once."""
        self._states = {state.report.host: state for state in await self._records.load()}
        self._aggregates, servers = await self._facts.aggregates(), await self._facts.servers()
        for name, state in self._states.items():
            self._chooser.add(state.report, self._kind(state.report), self._out(state), servers.get(name, ()))

    async def run(self) -> None:
        """The periodic tasks, for ever: rows of what changed, and the queues built anew (FLOW A6)."""
        rebuilt = self._clock.monotonic()
        while True:
            await self._clock.sleep(min(FLUSH, self._options.rebuild_seconds))
            try:
                await self._records.flush(self._states)
                if self._clock.monotonic() - rebuilt >= self._options.rebuild_seconds:
                    rebuilt = self._clock.monotonic()
                    await self.build_queue()
            except Exception:
                log.exception("queue rebuild failed; the old queues stay")

    async def build_queue(self) -> None:
        """Every host anew from its last report and what was placed and released since, a few at a time: a placement in
        between finds each host either before or after, which is the same."""
        await self.refresh()
        for n, name in enumerate(list(self._states)):
            if (state := self._states.get(name)) is not None:
                self._chooser.hear(state.report, self._clock.monotonic())
                self._look_at(name)
            if n % AT_ONCE == AT_ONCE - 1:
                await settle(1)
        HOSTS.set(len(self._states))

    async def refresh(self) -> None:
        """Aggregates or zones changed: look again, now."""
        aggregates = await self._facts.aggregates()
        changed = {h for h in {*aggregates, *self._aggregates} if aggregates.get(h) != self._aggregates.get(h)}
        self._aggregates = aggregates
        for name in changed & set(self._states):
            self._look_at(name)

    async def select(self, request: PlacementRequest) -> tuple[Placement, ...]:
        """Raises NoValidHost, BadRequest."""
        begin = time.perf_counter()
        try:
            placements = self._chooser.place(request, self._options.default_queue, self._clock.monotonic())
        except NoValidHost as error:
            refused(len(request.server_ids), error.reasons)
            log.info("no host fits", servers=len(request.server_ids), why=error.message, nearest=error.details)
            raise
        finally:
            SECONDS.observe(time.perf_counter() - begin)
        placed = sum(1 for p in placements if p.host)
        PLACED.inc(placed)
        REFUSED.inc(len(placements) - placed)
        log.debug("hosts chosen", servers=len(placements), placed=placed, first=placements[0].host)
        return placements

    async def plan(self, request: PlacementRequest) -> tuple[Placement, ...]:
        """As `select`, without taking anything. Raises BadRequest."""
        return self._chooser.place(request, self._options.default_queue, self._clock.monotonic(), keep=False)

    async def check(self, query: str) -> None:
        """Raises BadRequest: this `query` hint could not be answered."""
        compile_query(query)

    async def released(self, host: str, server_id: str, amounts: Amounts) -> None:
        """A refused, failed or deleted server's amounts, which its host confirmed to be free."""
        self._chooser.release(host, server_id, amounts)

    async def report(self, report: HostReport) -> None:
        """A node's news. Cheap if there are none: 1,000 a second are expected."""
        now, known = self._now(), self._states.get(report.host)
        if known is None:
            fresh = HostState(id=0, uuid=str(uuid4()), report=report, up=True, created_at=now, updated_at=now)
            self._states[report.host] = fresh  # another report of it may come in while the row is written
            number = await self._records.insert(fresh)
            self._states[report.host] = msgspec.structs.replace(self._states[report.host], id=number)
            self._chooser.add(self._states[report.host].report, self._kind(report), self._out(fresh))
            return
        self._states[report.host] = msgspec.structs.replace(known, report=report, updated_at=now)
        self._records.note(known, report, now)
        if self._chooser.host(report.host) is not None:
            if report != known.report:
                self._chooser.hear(report, self._clock.monotonic())
                self._look_at(report.host)
            elif not self._up(known, now):
                self._look_at(report.host)

    async def hosts(self) -> tuple[HostState, ...]:
        """Every host that ever reported, by name, as last heard."""
        now = self._now()
        return tuple(msgspec.structs.replace(s, up=self._up(s, now)) for _, s in sorted(self._states.items()))

    async def state(self, host: str) -> HostState | None:
        """One of them."""
        state = self._states.get(host)
        return None if state is None else msgspec.structs.replace(state, up=self._up(state, self._now()))

    async def limits(self, host: str, directory: str) -> HostLimits | None:
        """What a host may hold in all, in one of its directories. None: nothing is known of it."""
        found = self._chooser.host(host)
        return None if found is None else found.limits_in(directory)

    async def set_service(self, host: str, *, disabled: bool | None = None, reason: str | None = None,
                          forced_down: bool | None = None) -> HostState:
        """What an operator may change of a host's service. Raises NotFound."""
        state = _known(self._states, host)
        if disabled is not None:
            state = msgspec.structs.replace(state, disabled=disabled, disabled_reason=reason if disabled else None)
        if forced_down is not None:
            state = msgspec.structs.replace(state, forced_down=forced_down)
        if state != self._states[host]:
            await self._records.set_service(state)
            self._states[host] = msgspec.structs.replace(
                _known(self._states, host), disabled=state.disabled, disabled_reason=state.disabled_reason,
                forced_down=state.forced_down)
            self._look_at(host)
        return msgspec.structs.replace(self._states[host], up=self._up(self._states[host], self._now()))

    async def forget(self, host: str) -> None:
        """Remove a host's record (its service was deleted). Raises NotFound."""
        _known(self._states, host)
        await self._records.delete(host)
        self._states.pop(host, None)
        self._chooser.remove(host)

    def _look_at(self, name: str) -> None:
        """Tell the chooser what a host is by its last report, its aggregates, its operator and the clock."""
        host, state = self._chooser.host(name), self._states[name]
        if host is None:
            return
        out = self._out(state)
        if out is not None and out != host.out:
            log.warning("a host takes no servers", host=name, why=out)
        self._chooser.change(name, self._kind(state.report), out)

    def _kind(self, report: HostReport) -> Kind:
        aggregates = self._aggregates.get(report.host, ())
        zones = (a.metadata["availability_zone"] for a in aggregates if a.metadata.get("availability_zone"))
        return self._kinds.of(report, next(zones, self._options.default_zone), aggregates)

    def _out(self, state: HostState) -> str | None:
        if state.disabled:
            return DISABLED
        return None if self._up(state, self._now()) else DOWN

    def _up(self, state: HostState, now: datetime) -> bool:
        heard = state.updated_at
        return not state.forced_down and heard is not None and (
            now - heard).total_seconds() <= self._options.down_seconds

    def _now(self) -> datetime:
        return self._clock.now().replace(tzinfo=None)


def _known(states: Mapping[str, HostState], host: str) -> HostState:
    try:
        return states[host]
    except KeyError:
        raise NotFound(f"Compute host {host} could not be found.") from None
