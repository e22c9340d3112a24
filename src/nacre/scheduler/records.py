"""The rows of compute hosts: read at the start, written when something changed, many in one transaction. All control
processes hear the same of each host: who comes first writes it down, the others find that it is done."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec
import sqlalchemy as sa
import structlog

from nacre.base.bounds import pieces
from nacre.base.clock import Clock
from nacre.base.db import Database, statements
from nacre.base.db.together import Together
from nacre.base.durable import changes
from nacre.base.durable.processes import database_now, nodes
from nacre.base.errors import Unavailable
from nacre.scheduler.contract import HostReport, HostState
from nacre.scheduler.tables import compute_hosts

log = structlog.get_logger()

#: How often an unchanged host's row is refreshed, so that a restart knows who was there.
REFRESH = timedelta(minutes=1)
#: Rows in one transaction: no unit of writing may be long, others wait for it.
AT_ONCE = 200

_H = compute_hosts.c
_ACCEPTED = sa.select(_H.host).where(_H.host.in_(sa.bindparam("hosts", expanding=True)), _H.accepted.is_(sa.true()))
_NUMBERS = sa.select(_H.host, _H.incarnation, _H.n).where(_H.host.in_(sa.bindparam("hosts", expanding=True)))
_I, _N = sa.bindparam("said_incarnation", type_=sa.BigInteger), sa.bindparam("said_n", type_=sa.BigInteger)
_UPDATE = sa.update(compute_hosts).where(_H.host == sa.bindparam("of"), sa.or_(
    sa.bindparam("anew", type_=sa.Boolean), _H.incarnation < _I, sa.and_(_H.incarnation == _I, _H.n < _N))).values(
    report=sa.bindparam("said"), incarnation=_I, n=_N, updated_at=sa.bindparam("heard"))


class Word(msgspec.Struct, frozen=True):
    """A guard of what is done by an operator's word about a host, which is used up by it."""

    host: str

    def check(self, connection: sa.Connection) -> None:
        """Raises Unavailable: it is used up."""
        if not statements.update(connection, compute_hosts, {"accepted": False}, host=self.host, accepted=True):
            raise Unavailable(f"The operator's word about host {self.host} was heard at the same time.")


class HostRecords:
    """Rows of `compute_hosts`. A report's allocations are not kept: the database knows them better."""

    def __init__(self, db: Database, clock: Clock):
        self._db, self._clock = db, clock
        self._accepted = Together[str, bool](self._are_accepted)
        self._new: set[str] = set()
        self._dirty: set[str] = set()
        self._anew: set[str] = set()
        self._written: dict[str, datetime] = {}

    async def load(self, names: Collection[str] | None = None) -> list[HostState]:
        """The hosts of these names, or all, as far as there are rows."""
        named: dict[str, Any] = {} if names is None else {"host": names}
        return [_state(row) for row in await self._db.read(lambda c: statements.find(c, compute_hosts, **named))]

    def add(self, host: str) -> None:
        """A host without a row: the next flush writes one."""
        self._new.add(host)

    def note(self, known: HostState, report: HostReport, now: datetime, *, anew: bool = False) -> None:
        """A report came in: its row is written at the next flush if it is news, or old. anew: whatever its number, as
        the host lost what it knew."""
        written = self._written.get(report.host, known.updated_at)
        if anew or report.incarnation < known.report.incarnation:
            self._anew.add(report.host)
            self._dirty.add(report.host)
        elif written is None or now - written > REFRESH or (
                not same(report, known.report) and _rest(report) != _rest(known.report)):
            self._dirty.add(report.host)

    async def flush(self, states: Mapping[str, HostState]) -> None:
        """Write what was noted until now; what is noted meanwhile is for the next time. Raises what the database
        raises: then it stays noted."""
        for names in map(set, pieces(self._new, AT_ONCE)):
            self._new -= names
            try:
                await self._add(states, names)
            except BaseException:
                self._new |= names
                raise
        for names in map(set, pieces(self._dirty, AT_ONCE)):
            anew = self._anew & names
            self._dirty -= names
            self._anew -= names
            try:
                await self._renew(states, names, anew)
            except BaseException:
                self._dirty |= names
                self._anew |= anew
                raise

    async def _add(self, states: Mapping[str, HostState], names: Collection[str]) -> None:
        written = await self._db.read(lambda c: _numbers(c, names))
        rows = [state for name in names if name not in written and (state := states.get(name)) is not None]
        if rows:
            await self._db.run(lambda c: _insert(c, rows))

    async def _renew(self, states: Mapping[str, HostState], names: Collection[str], anew: Collection[str]) -> None:
        noted = [state for name in names if (state := states.get(name)) is not None]
        written = await self._db.read(lambda c: _numbers(c, names))
        updates = [_update(s, anew=s.report.host in anew) for s in noted if s.report.host in anew
                   or written.get(s.report.host, s.report.number) < s.report.number]
        if updates:
            await self._db.run(lambda c: self._write(c, updates))
        self._written |= {state.report.host: state.updated_at for state in noted if state.updated_at}

    def _write(self, connection: sa.Connection, rows: Sequence[dict[str, Any]]) -> None:
        now = database_now(connection, self._clock)  # by which all processes tell whether a host was heard lately
        connection.execute(_UPDATE, [row | {"heard": now} for row in rows])

    async def heard(self, host: str) -> bool:
        """Whether any control process heard the host lately, whatever else of what it says is refused."""
        def read(connection: sa.Connection) -> bool:
            row = statements.one(connection, compute_hosts, host=host)
            return row is not None and row["updated_at"] is not None and (
                database_now(connection, self._clock) - row["updated_at"] < 2 * REFRESH)

        return await self._db.read(read)

    async def set_service(self, state: HostState, now: datetime) -> None:
        """What an operator says of the host."""
        def unit(connection: sa.Connection) -> None:
            _insert(connection, [state])
            statements.update(connection, compute_hosts, {
                "disabled": state.disabled, "disabled_reason": state.disabled_reason,
                "forced_down": state.forced_down}, host=state.report.host)
            changes.note(connection, now, ("host", state.report.host))

        await self._db.run(unit)

    async def accept(self, state: HostState, now: datetime) -> None:
        """An operator's word about a host that holds on to another database."""
        def unit(connection: sa.Connection) -> None:
            _insert(connection, [state])
            statements.update(connection, compute_hosts, {"accepted": True}, host=state.report.host)
            changes.note(connection, now, ("host", state.report.host))

        await self._db.run(unit)

    async def is_accepted(self, host: str) -> bool:
        """Whether there is such a word."""
        return await self._accepted(host)

    async def _are_accepted(self, hosts: Sequence[str]) -> list[bool]:
        found = await self._db.read(lambda c: set(c.execute(_ACCEPTED, {"hosts": list(hosts)}).scalars()))
        return [host in found for host in hosts]

    async def delete(self, host: str, now: datetime) -> None:
        """The row is gone."""
        def unit(connection: sa.Connection) -> None:
            statements.delete(connection, compute_hosts, host=host)
            changes.note(connection, now, ("host", host))

        await self._db.run(unit)
        self._new.discard(host)
        self._dirty.discard(host)
        self._anew.discard(host)


def _insert(connection: sa.Connection, states: Sequence[HostState]) -> None:
    """Rows of hosts that have none yet (another process may have been first), and were not removed meanwhile."""
    there = _numbers(connection, [state.report.host for state in states])
    members = nodes(connection, [state.report.host for state in states])
    if rows := [{"uuid": s.uuid, "host": s.report.host, "report": _said(s.report),
                 "incarnation": s.report.incarnation, "n": s.report.n, "disabled": False, "disabled_reason": None,
                 "forced_down": False, "created_at": s.created_at, "updated_at": s.updated_at}
                for s in states if s.report.host in members - there.keys()]:
        statements.insert(connection, compute_hosts, rows)
        changes.note(connection, rows[0]["created_at"], *(("host", row["host"]) for row in rows))


def _numbers(connection: sa.Connection, hosts: Collection[str]) -> dict[str, tuple[int, int]]:
    """The numbers of the reports that the hosts' rows were written by, as far as there are rows."""
    return {host: (incarnation, n) for host, incarnation, n in connection.execute(_NUMBERS, {"hosts": list(hosts)})}


def _update(state: HostState, *, anew: bool) -> dict[str, Any]:
    report = state.report
    return {"of": report.host, "said": _said(report), "said_incarnation": report.incarnation, "said_n": report.n,
            "anew": anew}


def same(one: HostReport, other: HostReport) -> bool:
    """Whether two reports say the same, but for their numbers. Asked for every beat."""
    return msgspec.structs.replace(other, incarnation=one.incarnation, n=one.n) == one


def _rest(report: HostReport) -> HostReport:
    return msgspec.structs.replace(report, held=(), incarnation=0, n=0)


def _said(report: HostReport) -> Any:
    return msgspec.to_builtins(_rest(report))


def _state(row: Mapping[str, Any]) -> HostState:
    return HostState(
        id=row["id"], uuid=row["uuid"], up=False, report=msgspec.structs.replace(
            _read(row["host"], row["report"]), incarnation=row["incarnation"], n=row["n"]),
        disabled=row["disabled"], disabled_reason=row["disabled_reason"], forced_down=row["forced_down"],
        updated_at=row["updated_at"], created_at=row["created_at"])


def _read(host: str, said: Any) -> HostReport:
    """A report that cannot be read says nothing; nothing is placed on its host until it is heard again."""
    try:
        return msgspec.convert(said, HostReport)
    except msgspec.ValidationError as error:
        log.error("what is written of a host cannot be read", host=host, why=str(error))
        return HostReport(host=host, hypervisor_type="", hypervisor_version=0, vcpus=0, memory_mb=0, disk_gb=0,
                          vcpus_used=0, memory_mb_used=0, disk_gb_used=0.0)
