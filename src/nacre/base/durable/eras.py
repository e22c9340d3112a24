"""Which history a database has. Numbers of changes alone cannot tell: one that was restored from a backup passes any
number by and by. So each start of a control process begins an era, with a name that no other history has; whoever
keeps how far a database was keeps the era with it."""

from collections.abc import Collection
from uuid import uuid4

import msgspec
import sqlalchemy as sa

from nacre.base.db import statements
from nacre.base.durable.tables import changes, eras


class Position(msgspec.Struct, frozen=True):
    """How far a database is: the number of its last change, and the era of that."""

    n: int = 0
    era: str = ""


_E = eras.c
#: In one statement: an era that another transaction begins comes with its change, or not at all.
_POSITION = sa.select(
    sa.func.coalesce(sa.select(sa.func.max(changes.c.n)).scalar_subquery(), 0),
    sa.func.coalesce(sa.select(_E.id).order_by(_E.n.desc()).limit(1).scalar_subquery(), ""))
_BEGINS = sa.select(_E.id, _E.n).where(_E.id.in_(sa.bindparam("eras", expanding=True)))
_END = sa.select(sa.func.min(_E.n)).where(_E.n > sa.bindparam("begin"))


def begin(connection: sa.Connection) -> None:
    """From the last change on, which is this transaction's, it is another era."""
    statements.insert(connection, eras, {"n": position(connection).n, "id": str(uuid4())})


def cut(connection: sa.Connection, n: int) -> None:
    """From change n on this database has another history than that which went by the era of before."""
    if not connection.execute(sa.select(_E.n).where(_E.n == n)).first():
        statements.insert(connection, eras, {"n": n, "id": str(uuid4())})


def position(connection: sa.Connection) -> Position:
    """How far this database is."""
    n, era = connection.execute(_POSITION).one()
    return Position(n, era)


def shared(connection: sa.Connection, seen: Collection[str]) -> dict[str, int]:
    """Of each of these eras that this database knows: up to which change its history is that of whoever saw the era."""
    begins = {"": 0} | {row.id: row.n for row in connection.execute(_BEGINS, {"eras": list(seen)})}
    known, here = begins.keys() & set(seen), position(connection).n
    ends = {era: connection.execute(_END, {"begin": begins[era]}).scalar() for era in known}
    return {era: here if end is None else end - 1 for era, end in ends.items()}


def later(connection: sa.Connection, seen: Collection[Position]) -> set[Position]:
    """Those of what was seen that this database lacks something of: it was restored from before that, however far it
    has come since."""
    until = shared(connection, {each.era for each in seen})
    return {each for each in seen if each.n > until.get(each.era, -1)}
