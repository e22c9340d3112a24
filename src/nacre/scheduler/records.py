"""The rows of compute hosts: read at the start, written when something changed, many in one transaction."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import msgspec
import sqlalchemy as sa

from nacre.base.db import Database
from nacre.scheduler.contract import HostReport, HostState
from nacre.scheduler.tables import compute_hosts

#: How often an unchanged host's row is refreshed, so that a restart knows who was there.
REFRESH = timedelta(minutes=1)
#: Rows in one transaction: no unit of writing may be long, others wait for it.
AT_ONCE = 200

_UPDATE = sa.update(compute_hosts).where(compute_hosts.c.host == sa.bindparam("of")).values(
    report=sa.bindparam("said"), updated_at=sa.bindparam("heard"))


class HostRecords:
    """Rows of `compute_hosts`. A report's list of servers is not kept: the database knows them better."""

    def __init__(self, db: Database):
        self._db = db
        self._dirty: set[str] = set()
        self._written: dict[str, datetime] = {}

    async def load(self) -> list[HostState]:
        """Every host there is a row of."""
        rows = await self._db.read(lambda c: c.execute(sa.select(compute_hosts)).mappings().all())
        return [_state(dict(row)) for row in rows]

    async def insert(self, state: HostState) -> int:
        """A new row; its number."""
        row = {"uuid": state.uuid, "host": state.report.host, "report": _said(state.report), "disabled": False,
               "disabled_reason": None, "forced_down": False, "created_at": state.created_at,
               "updated_at": state.updated_at}

        def unit(connection: sa.Connection) -> int:
            key = connection.execute(sa.insert(compute_hosts).values(row)).inserted_primary_key
            assert key is not None
            return int(key[0])

        return await self._db.run(unit)

    def note(self, known: HostState, report: HostReport, now: datetime) -> None:
        """A report came in: its row is written at the next flush if it is news, or old."""
        written = self._written.get(report.host, known.updated_at)
        if written is None or now - written > REFRESH or (report != known.report and _rest(report) != _rest(
                known.report)):
            self._dirty.add(report.host)

    async def flush(self, states: Mapping[str, HostState]) -> None:
        """Write what was noted."""
        while self._dirty:
            names = [self._dirty.pop() for _ in range(min(AT_ONCE, len(self._dirty)))]
            rows = [{"of": n, "said": _said(s.report), "heard": s.updated_at} for n in names if (s := states.get(n))]
            if not rows:
                continue
            try:
                await self._db.run(lambda c, rows=rows: c.execute(_UPDATE, rows))  # type: ignore[misc]
            except BaseException:
                self._dirty.update(names)
                raise
            self._written |= {row["of"]: row["heard"] for row in rows}

    async def set_service(self, state: HostState) -> None:
        """What an operator says of the host."""
        await self._db.run(lambda c: c.execute(
            sa.update(compute_hosts).where(compute_hosts.c.host == state.report.host).values(
                disabled=state.disabled, disabled_reason=state.disabled_reason, forced_down=state.forced_down)))

    async def delete(self, host: str) -> None:
        """The row is gone."""
        self._dirty.discard(host)
        await self._db.run(lambda c: c.execute(sa.delete(compute_hosts).where(compute_hosts.c.host == host)))


def _rest(report: HostReport) -> HostReport:
    return msgspec.structs.replace(report, servers=())


def _said(report: HostReport) -> Any:
    return msgspec.to_builtins(_rest(report))


def _state(row: Mapping[str, Any]) -> HostState:
    return HostState(
        id=row["id"], uuid=row["uuid"], report=msgspec.convert(row["report"], HostReport), up=False,
        disabled=row["disabled"], disabled_reason=row["disabled_reason"], forced_down=row["forced_down"],
        updated_at=row["updated_at"], created_at=row["created_at"])
