"""Which history a database has. Numbers of changes alone cannot tell: one that was restored from a backup passes any
number by and by. So each start of a control process begins an era, with a name that no other history has; whoever
keeps how far a database was keeps the era with it."""

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
_BEGIN = sa.select(_E.n).where(_E.id == sa.bindparam("era"))
_END = sa.select(sa.func.min(_E.n)).where(_E.n > sa.bindparam("begin"))


def begin(connection: sa.Connection) -> None:
    """From the last change on, which is this transaction's, it is another era."""
    statements.insert(connection, eras, {"n": position(connection).n, "id": str(uuid4())})


def position(connection: sa.Connection) -> Position:
    """How far this database is."""
    n, era = connection.execute(_POSITION).one()
    return Position(n, era)


def shared(connection: sa.Connection, era: str) -> int:
    """Up to which change this database's history is that of whoever saw the era; -1: it does not know the era."""
    start = connection.execute(_BEGIN, {"era": era}).scalar() if era else 0
    if start is None:
        return -1
    end = connection.execute(_END, {"begin": start}).scalar()
    return int(position(connection).n if end is None else end - 1)


def is_older(connection: sa.Connection, seen: Position) -> bool:
    """Whether this database lacks something of the history that was seen: it was restored from before that, however
    far it has come since."""
    return seen.n > shared(connection, seen.era)
