"""What is known of every host: its last report, whether it lives, and what operators said of it. In memory, with rows
that are written when something changed."""

from collections.abc import Callable, Collection
from datetime import datetime
from uuid import uuid4

import msgspec
import structlog

from nacre.base.clock import Clock
from nacre.base.db import Database
from nacre.base.durable.processes import Guard
from nacre.base.errors import Barred, NotFound, Unavailable
from nacre.scheduler.contract import HostReport, HostState
from nacre.scheduler.records import HostRecords, Word

log = structlog.get_logger()

#: The reasons of a host that takes no servers.
DISABLED, DOWN, BARRED, UNHEARD = "are disabled", "are down", "take no orders of this cloud", "have not reported yet"
#: A host is down when it was not heard of for so long (seconds).
DOWN_SECONDS = 60.0


class HostRegistry:
    """Implements `contract.Hosts`. look_at: called with the name of a host that is not as it was, or not any more."""

    def __init__(self, db: Database, clock: Clock, down_seconds: float = DOWN_SECONDS):
        self.records, self._clock, self._down = HostRecords(db, clock), clock, down_seconds
        self.look_at: Callable[[str], None] = lambda name: None
        self.states: dict[str, HostState] = {}
        #: Each that takes no orders of ours: the servers that it says it has.
        self._barred: dict[str, frozenset[str]] = {}
        #: When each was heard here, and since when we listen without a gap: nobody is down before that was long.
        self._heard: dict[str, float] = {}
        self._listening = clock.monotonic()

    async def load(self) -> None:
        """All rows; reports that came since stay, and hosts whose row is not written yet."""
        rows = {state.report.host: state for state in await self.records.load()}
        before, self.states = self.states, rows
        for name, state in before.items():
            if name in rows:
                rows[name] = msgspec.structs.replace(
                    rows[name], report=state.report, barred=state.barred, met=state.met, journal=state.journal)
            elif not state.id:
                rows[name] = state

    async def read(self, names: Collection[str]) -> None:
        """What operators, or other processes, wrote of these hosts."""
        rows = {state.report.host: state for state in await self.records.load(names)}
        for name in names:
            row, known = rows.get(name), self.states.get(name)
            if row is None and (known is None or known.id):  # else: its row is not written yet
                self.states.pop(name, None)
            elif row is None:
                continue
            elif known is None:
                self.states[name] = row
            else:
                self.states[name] = msgspec.structs.replace(
                    known, id=row.id, uuid=row.uuid, disabled=row.disabled, disabled_reason=row.disabled_reason,
                    forced_down=row.forced_down)
            self.look_at(name)

    def listen(self) -> None:
        """From now on hosts can be heard, for the first time or again: nobody is down before having had the chance."""
        self._listening = self._clock.monotonic()

    def awaits(self, names: Collection[str]) -> bool:
        """Whether one of these hosts has not had the chance yet to say that it lives."""
        return self._clock.monotonic() - self._listening <= self._down and any(n not in self._heard for n in names)

    def hear(self, report: HostReport, *, anew: bool) -> HostReport | None:
        """A report; the one before it, or itself of a new host. None: it is older than what is known."""
        name, now, known = report.host, _now(self._clock), self.states.get(report.host)
        if known is None:
            fresh = HostState(id=0, uuid=str(uuid4()), report=report, up=True, created_at=now, updated_at=now)
            self.states[name] = fresh
            self.records.add(name)
        elif report.number <= known.report.number and name in self._heard and not anew:
            return None
        else:
            self.states[name] = msgspec.structs.replace(known, report=report, updated_at=now)
            self.records.note(known, report, now, anew=anew)
        self._heard[name] = self._clock.monotonic()
        return report if known is None else known.report

    def out(self, name: str) -> str | None:
        """Why a host takes no servers; None: it does."""
        state = self.states[name]
        if state.disabled:
            return DISABLED
        if state.barred:
            return BARRED
        if not self._up(state):
            return DOWN
        return None if name in self._heard else UNHEARD

    # --- the contract -------------------------------------------------------------------------------------------

    async def all(self) -> tuple[HostState, ...]:
        """Every host that ever reported, by name, as last heard."""
        return tuple(msgspec.structs.replace(s, up=self._up(s)) for _, s in sorted(self.states.items()))

    async def get(self, host: str) -> HostState | None:
        """One of them."""
        state = self.states.get(host)
        return None if state is None else msgspec.structs.replace(state, up=self._up(state))

    async def heard_lately(self, host: str) -> bool:
        """Whether any control process heard of it in the last two minutes, as far as is written down."""
        return await self.records.heard(host)

    async def set_service(self, host: str, *, disabled: bool | None = None, reason: str | None = None,
                          forced_down: bool | None = None) -> HostState:
        """What an operator may change of a host's service. Raises NotFound."""
        state = self._known(host)
        if disabled is not None:
            state = msgspec.structs.replace(state, disabled=disabled, disabled_reason=reason if disabled else None)
        if forced_down is not None:
            state = msgspec.structs.replace(state, forced_down=forced_down)
        if state != self.states[host]:
            await self.records.set_service(state, _now(self._clock))
            self.states[host] = msgspec.structs.replace(
                self._known(host), disabled=state.disabled, disabled_reason=state.disabled_reason,
                forced_down=state.forced_down)
            self.look_at(host)
        return msgspec.structs.replace(self.states[host], up=self._up(self.states[host]))

    async def forget(self, host: str) -> None:
        """Remove a host's record (its service was deleted). Raises NotFound."""
        self._known(host)
        await self.records.delete(host, _now(self._clock))
        self.states.pop(host, None)
        self._heard.pop(host, None)
        self._barred.pop(host, None)
        self.look_at(host)

    async def bar(self, host: str, why: str, journal: str = "") -> None:
        """A host said hello. why: it takes no orders of ours, though it reports ("": it does)."""
        if (state := self.states.get(host)) is None:
            return
        self._barred.pop(host, None)
        if why:
            self._barred[host] = frozenset(held.server_id for held in state.report.held)
        self.states[host] = msgspec.structs.replace(state, barred=why, met=True, journal=journal or state.journal)
        if state.barred != why or not state.met:
            self.look_at(host)

    async def accept(self, host: str) -> None:
        """An operator says that this database is right for a host that holds on to another. Raises NotFound."""
        await self.records.accept(self._known(host), _now(self._clock))

    async def word(self, host: str) -> Guard | None:
        """An operator's, that was said so and has not been heard: a guard that uses it up. None: there is none."""
        return Word(host) if await self.records.is_accepted(host) else None

    def claimed(self, server_ids: Collection[str]) -> dict[str, str]:
        """Those of these servers that a host says it has which takes no orders of ours: id -> that host."""
        return {id: host for host, its in self._barred.items() if host in self.states for id in its.intersection(
            server_ids)}

    def unmet(self, names: Collection[str]) -> str | None:
        """One of these hosts that has not said hello to this process, and still has the chance to: also one whose row
        was never written."""
        for name in names:
            state = self.states.get(name)
            if self.awaits([name]) if state is None else not state.met and self._up(state):
                return name
        return None

    def check(self, host: str) -> None:
        """Whether it may be given orders. Raises Barred; Unavailable: it has not said yet what it has."""
        state = self.states.get(host)
        if state is None or not state.met:
            raise Unavailable(details=f"Host {host} has not said hello to this process yet.")
        if state.barred:
            raise Barred(details=f"Host {host} takes no orders of this cloud: {state.barred}.")

    def _known(self, host: str) -> HostState:
        try:
            return self.states[host]
        except KeyError:
            raise NotFound(f"Compute host {host} could not be found.") from None

    def _up(self, state: HostState) -> bool:
        """Whether it was heard of lately, or had no chance yet: nobody listened."""
        since = max(self._heard.get(state.report.host, self._listening), self._listening)
        return not state.forced_down and self._clock.monotonic() - since <= self._down


def _now(clock: Clock) -> datetime:
    return clock.now().replace(tzinfo=None)
