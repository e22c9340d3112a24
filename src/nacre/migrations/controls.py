"""Control processes that run on a database which is to be upgraded: they know neither a new table nor its rules."""

from datetime import timedelta

import sqlalchemy as sa

from nacre.base.clock import RealClock
from nacre.base.durable.processes import LEASE, database_now
from nacre.base.errors import NacreError

#: The columns that every revision has which has the table at all.
_PROCESSES = sa.table("processes", *(sa.column(name) for name in ("role", "name", "address", "version")),
                      sa.column("lease_until", sa.DateTime))
_C = _PROCESSES.c


def living(connection: sa.Connection, within: float | None = None) -> list[str]:
    """What to call each control whose lease holds. within: a lease that reaches further than so many seconds is of a
    clock that was set back since (None: it counts, too, for whoever lives soon writes another)."""
    if not sa.inspect(connection).has_table("processes"):
        return []
    now = database_now(connection, RealClock())
    found = sa.select(_PROCESSES).where(_C.role == "control", _C.lease_until > now).order_by(_C.name)
    if within is not None:
        found = found.where(_C.lease_until <= now + timedelta(seconds=within))
    return [f"{row.name}{f' at {row.address}' if row.address else ''} (release {row.version or 'unknown'})"
            for row in connection.execute(found)]


def refuse(connection: sa.Connection, before: str, after: str | None) -> None:
    """Raises NacreError where one runs while the database is to come from one revision to another."""
    if found := living(connection, LEASE):
        several = len(found) > 1
        raise NacreError(
            f"The database is at revision {before} of an earlier release, and {'controls' if several else 'control'} "
            f"{', '.join(found)} {'run' if several else 'runs'} on it: to bring it to revision {after} now would break "
            f"{'them' if several else 'it'}. Next: end {'all of them' if several else 'it'} (`nacre down` there), then "
            "do this again. The guests run on meanwhile.")
