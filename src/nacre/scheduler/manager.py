"""The scheduler's endpoint: reports in, placements out.

Every control process has one, of all hosts: each host reports to all of them, and what the others placed is read from
the outbox. So their choices may collide; the claim at the host decides.
"""

import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

import msgspec
import structlog

from nacre.base.clock import Clock, settle
from nacre.base.durable.changes import Change, Changes
from nacre.base.errors import Interrupted, NoValidHost
from nacre.scheduler.contract import Allocation, HostLimits, HostReport, Placement, PlacementRequest, TooEarly
from nacre.scheduler.filter_scheduler import FilterScheduler
from nacre.scheduler.hosts import Aggregate, Kind, Kinds
from nacre.scheduler.metrics import HOSTS, PLACED, REFUSED, SECONDS, refused
from nacre.scheduler.query import compile_query
from nacre.scheduler.records import same
from nacre.scheduler.registry import UNHEARD, HostRegistry

log = structlog.get_logger()

#: How often changed rows are written (seconds).
FLUSH = 1.0
#: Hosts that are rebuilt without letting others have the loop.
AT_ONCE = 250


class SchedulerDeps(msgspec.Struct, frozen=True, kw_only=True):
    """What the scheduler asks of others."""

    #: host -> its aggregates: at each rebuild, and when they changed
    aggregates: Callable[[], Awaitable[Mapping[str, tuple[Aggregate, ...]]]]
    #: the allocations of the database: all, or those of these ids
    allocations: Callable[[Collection[str] | None], Awaitable[Sequence[Allocation]]]
    #: the names of hosts that belong to the cloud, whether they ever reported or not
    expected: Callable[[], Collection[str]] = tuple


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """The scheduler's settings. Times in seconds. frozen_seconds: who did not run for so long was not there to hear."""

    default_queue: str = "kvm"
    default_zone: str = "nova"
    rebuild_seconds: float = 10.0
    frozen_seconds: float = 5.0


class SchedulerManager:
    """Implements `contract.Scheduler` over a `FilterScheduler`."""

    def __init__(self, registry: HostRegistry, clock: Clock, chooser: FilterScheduler, facts: SchedulerDeps,
                 options: Options = Options()):
        self.registry, self._clock, self._chooser = registry, clock, chooser
        self._facts, self._options = facts, options
        self._aggregates: Mapping[str, tuple[Aggregate, ...]] = {}
        self._kinds = Kinds()
        registry.look_at = self._look_at

    def subscribe(self, changes: Changes) -> None:
        """What others place, release, or say of hosts comes from the outbox."""
        changes.subscribe(("allocation",), self._allocations_changed, self.start)
        changes.subscribe(("host", "aggregate"), self._hosts_changed, self.start)

    async def start(self) -> None:
        """Load what is known and build the queues at once; again after a time in which too much was missed."""
        self.registry.listen()
        await self.registry.load()
        self._aggregates = await self._facts.aggregates()
        on_host: dict[str, list[Allocation]] = {}
        for allocation in await self._facts.allocations(None):
            on_host.setdefault(allocation.host, []).append(allocation)
        self._chooser.clear()
        for name, state in self.registry.states.items():
            self._chooser.add(state.report, self._kind(state.report), self.registry.out(name), on_host.get(name, ()))

    async def run(self) -> None:
        """The periodic tasks, for ever: rows of what changed, and the queues built anew (FLOW A6)."""
        rebuilt = last = self._clock.monotonic()
        while True:
            await self._clock.sleep(min(FLUSH, self._options.rebuild_seconds))
            now = self._clock.monotonic()
            if now - last > self._options.frozen_seconds:
                self.registry.listen()
            last = now
            try:
                await self.registry.records.flush(self.registry.states)
                if now - rebuilt >= self._options.rebuild_seconds:
                    rebuilt = now
                    await self.build_queue()
            except Interrupted as error:
                log.warning("the queues stay as they are", why=str(error))
            except Exception:
                log.exception("queue rebuild failed; the old queues stay")

    async def build_queue(self) -> None:
        """Every host as by its last report and what was placed and released since, where that is not how it is counted
        already; a few at a time: a placement in between finds each host either before or after, which is the same."""
        await self.refresh()
        for n, name in enumerate(list(self.registry.states)):
            self._hear_again(name)
            if n % AT_ONCE == AT_ONCE - 1:
                await settle(1)
        self._kinds.keep(self._chooser.tidy())
        HOSTS.set(len(self.registry.states))

    def _hear_again(self, name: str) -> None:
        """One host that cannot be counted does not keep the others from it."""
        try:
            if (state := self.registry.states.get(name)) is not None:
                now, host = self._clock.monotonic(), self._chooser.host(name)
                anew = host is not None and (host.settles(now) or not same(state.report, host.report))
                if anew:
                    self._chooser.hear(state.report, now)
                if anew or not self._as_counted(name):
                    self._look_at(name)
        except Exception:
            log.exception("a host cannot be counted", host=name)

    async def refresh(self) -> None:
        """Aggregates or zones changed: look again, now."""
        aggregates = await self._facts.aggregates()
        changed = {h for h in {*aggregates, *self._aggregates} if aggregates.get(h) != self._aggregates.get(h)}
        self._aggregates = aggregates
        for name in changed & set(self.registry.states):
            self._look_at(name)

    async def select(self, request: PlacementRequest) -> tuple[Placement, ...]:
        """One placement a server, in order. Raises NoValidHost if fewer than min_count find a place, TooEarly,
        BadRequest."""
        begin = time.perf_counter()
        try:
            placements = self._chooser.place(request, self._options.default_queue, self._clock.monotonic())
        except NoValidHost as error:
            if error.reasons.get(UNHEARD) or self.registry.awaits(self._facts.expected()):
                raise TooEarly(error.message, details=error.details, reasons=error.reasons) from None
            refused(len(request.server_ids), error.reasons)
            log.info("no host fits", servers=len(request.server_ids), why=str(error), nearest=error.details)
            raise
        finally:
            SECONDS.observe(time.perf_counter() - begin)
        placed = sum(1 for p in placements if p.host)
        PLACED.inc(placed)
        REFUSED.inc(len(placements) - placed)
        log.debug("hosts chosen", servers=len(placements), placed=placed, first=placements[0].host)
        return placements

    async def plan(self, request: PlacementRequest) -> tuple[Placement, ...]:
        """What `select` would answer now, with as many as find a place; changes nothing. Raises BadRequest."""
        return self._chooser.place(request, self._options.default_queue, self._clock.monotonic(), keep=False)

    async def check(self, query: str) -> None:
        """Raises BadRequest: this `query` hint could not be answered."""
        compile_query(query)

    async def released(self, allocation: str) -> None:
        """An allocation is over, as its host confirmed."""
        self._chooser.release(allocation)

    async def withdrawn(self, server_id: str) -> None:
        """What was chosen for the server was not written down, as far as is known. What was all the same stays."""
        self._chooser.withdraw(server_id)

    async def report(self, report: HostReport, *, anew: bool = False) -> bool:
        """A node's news. Cheap if there are none: 1,000 a second are expected. anew: the host counts from the start, as
        it lost what it knew. False: it is older than what is known, and changes nothing."""
        before = self.registry.hear(report, anew=anew)
        if before is None:
            return False
        if before is report or not same(report, before):
            self._look_at(report.host)
            self._chooser.hear(report, self._clock.monotonic())
        elif not self._as_counted(report.host):
            self._look_at(report.host)
        return True

    async def limits(self, host: str, directory: str) -> HostLimits | None:
        """What a host may hold in all, in one of its directories. None: nothing is known of it."""
        found = self._chooser.host(host)
        return None if found is None else found.limits_in(directory)

    async def _allocations_changed(self, changes: Sequence[Change]) -> None:
        ids = list(dict.fromkeys(change.id for change in changes))
        there = {allocation.id: allocation for allocation in await self._facts.allocations(ids)}
        for id in ids:
            if id in there:
                self._chooser.take(there[id])
            else:
                self._chooser.release(id)

    async def _hosts_changed(self, changes: Sequence[Change]) -> None:
        if names := {change.id for change in changes if change.kind == "host"}:
            await self.registry.read(names)
        await self.refresh()

    def _as_counted(self, name: str) -> bool:
        """Whether a host of which nothing but the time has changed takes servers as before, or takes none. (When
        aggregates or an operator's word change, it is looked at by `refresh` and the registry.)"""
        host = self._chooser.host(name)
        return host is not None and host.out == self.registry.out(name)

    def _look_at(self, name: str) -> None:
        """Tell the chooser what a host is by its last report, its aggregates, its operator and the clock."""
        host, state = self._chooser.host(name), self.registry.states.get(name)
        if state is None:
            self._chooser.remove(name)
            return
        out, kind = self.registry.out(name), self._kind(state.report)
        if host is None:
            self._chooser.add(state.report, kind, out)
            return
        if out is not None and out != host.out:
            log.warning("a host takes no servers", host=name, why=out)
        self._chooser.change(name, kind, out)
        if self._kinds.many:
            self._kinds.keep(self._chooser.tidy())

    def _kind(self, report: HostReport) -> Kind:
        aggregates = self._aggregates.get(report.host, ())
        zones = (a.metadata["availability_zone"] for a in aggregates if a.metadata.get("availability_zone"))
        return self._kinds.of(report, next(zones, self._options.default_zone), aggregates)
