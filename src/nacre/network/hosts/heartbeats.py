"""Agents' reports that are no news: kept in memory, their rows refreshed together and seldom.

A host repeats its report every few seconds to say that it lives. Only what is new needs a transaction of its own. The
rows stay the truth for every reader: they are refreshed well within the time after which an agent counts as dead.
"""

import asyncio
from collections.abc import Iterable, Mapping

import sqlalchemy as sa
import structlog

from nacre.base.bounds import pieces
from nacre.base.clock import Clock
from nacre.base.db import Database, statements
from nacre.base.db.together import VALUES
from nacre.base.durable.processes import database_now
from nacre.base.errors import Interrupted, NacreError
from nacre.network import tables as t
from nacre.network.contract import AgentReport
from nacre.network.hosts.agents import Report, parse

log = structlog.get_logger()

#: Heartbeats that come within this time are written together (seconds).
GATHER = 1.0
#: A row is refreshed after this part of the time until its agent counts as dead.
PART = 1 / 3
#: The wall clock was set if it is so far from where it should be (seconds).
STEP = 5.0

_A = t.agents.c
_ROWS = sa.select(_A.host, sa.func.count(), sa.func.min(_A.heartbeat_at)).where(
    _A.host.in_(sa.bindparam("hosts", expanding=True))).group_by(_A.host)


class Heartbeats:
    """down_after: seconds without a report until an agent counts as dead."""

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
        """As `agents.parse`; who repeats itself was checked before."""
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
