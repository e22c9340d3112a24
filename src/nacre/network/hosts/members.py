"""What many hosts keep of the same thing: who is in the security groups that rules name (here), and the ports of
networks (placed.py). All of it once, then what changed since.

Every change writes down its ports under its number, in its own transaction. What a host lacks since a number is what
those ports are now: read from the rows that are the truth, so it does not matter how often, or in which pieces, it is
told. A number means something only in its era (base/durable/eras.py). What is older than every row of `changes` goes;
the last number that went is kept, for who is behind it is told all.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping
from typing import Any, Generic, Protocol, TypeVar

import sqlalchemy as sa

from nacre.base.bounds import pieces
from nacre.base.db import statements
from nacre.base.durable import eras
from nacre.base.durable.eras import Position
from nacre.base.durable.tables import changes
from nacre.network import tables as t
from nacre.network.contract import GroupMembers, Versions
from nacre.network.hosts.wholes import Shared
from nacre.network.work import MANY

M = TypeVar("M", bound="Difference")  # a difference of a thing
V = TypeVar("V")  # what it says of a port
#: thing -> port -> what there is to say of it
Found = Mapping[str, Mapping[str, V]]

_ID, _SINCE = sa.bindparam("id", type_=sa.String), sa.bindparam("since", type_=sa.BigInteger)
_IDS: sa.BindParameter[Any] = sa.bindparam("ids", expanding=True)
_KEPT = sa.select(sa.func.min(changes.c.n)).scalar_subquery()


class Difference(Protocol):
    """`GroupMembers`, or `NetworkPorts`."""

    @property
    def ports(self) -> Mapping[str, Any]: ...


class Page:
    """The room of one answer for things whose asker has nothing of them. least: whether one that is larger than a page
    is in it, alone. rest: those that did not fit."""

    def __init__(self, shared: Shared, room: int, *, least: bool):
        self.shared, self.room, self.rest = shared, room, set[str]()
        self._alone = least

    def fill(self, sizes: Mapping[str, int], more: str | None, wanted: set[str]) -> set[str]:
        """Those of the wanted that it holds. sizes: how many ports they have, as far as they were counted: to the one
        that has `more` than was counted (None: all were)."""
        fits = set(wanted) if more is None else set(sizes) - {more}
        if more is not None and not fits and self._alone:
            fits = {more}
        if fits:
            self._alone = False
        self.room = max(0, self.room - sum(sizes.get(id, 0) for id in fits))
        self.rest |= wanted - fits
        return fits


class Numbered(Generic[M, V]):
    """Things of a kind, each with ports that come and go. table: of their changes, by a key that is the owners' id.
    of: the column that says of which thing a port is; make: a message of one; find: what there is to say of ports of
    these things, of all of them or of some; gone: what is said of one of which there is nothing."""

    def __init__(self, table: sa.Table, of: tuple[sa.Table, sa.Column[Any]], make: Callable[..., M],
                 find: Callable[[sa.Connection, Collection[str], Collection[str] | None], Found[V]], gone: V):
        self._table, self._make, self._find, self._gone = table, make, find, gone
        (owners, thing), key, c = of, table.primary_key.columns[0], table.c
        own = owners.c.id
        self._key = key.name

        def end(last: bool, value: Any) -> Any:
            """Of a thing's first or last row."""
            return sa.select(value).where(key == own).order_by(
                c.n.desc() if last else c.n, c.port_id).limit(1).scalar_subquery()

        #: The number of the last change, and from which number on all of them are written down.
        self._ends_of = sa.select(own, sa.func.coalesce(end(True, c.n), 0), sa.func.coalesce(
            end(False, sa.case((c.port_id == "", c.n), else_=0)), 0)).where(own.in_(_IDS))
        self._sizes = sa.select(thing).where(thing.in_(_IDS)).order_by(thing).limit(sa.bindparam("most"))
        self._newer = sa.select(key, sa.func.max(c.n)).where(
            c.n > _SINCE, sa.exists().where(own == key)).group_by(key)
        self._touched = sa.select(c.port_id).distinct().where(key == _ID, c.n > _SINCE, c.port_id != "")
        self._owned = sa.select(own).where(own.in_(_IDS))
        old = sa.select(key, sa.func.max(c.n)).where(c.n < _KEPT).group_by(key)
        self._going = old.having(sa.or_(sa.func.max(c.port_id) != "", key.not_in(sa.select(own))))
        self._old = old.where(key.in_(_IDS))
        self._past = sa.delete(table).where(key == _ID, c.n <= sa.bindparam("to"))

    def note(self, connection: sa.Connection, moved: Mapping[str, Collection[str]], n: int) -> dict[str, int]:
        """Writes down the ports of things that a change of that number is about. Of each thing the change before."""
        moved = {id: ports for id, ports in moved.items() if ports}
        if not moved:
            return {}
        before = {id: last for id, (last, _) in self._ends(connection, moved).items()}  # not of what is gone
        if before:
            statements.insert(connection, self._table, [
                {self._key: id, "n": n, "port_id": port} for id in before for port in moved[id]])
        return before

    def read(self, connection: sa.Connection, ids: Collection[str], have: Versions,
             page: Page | None = None) -> tuple[M, ...]:
        """What somebody who has these versions lacks of these things. page: the room for those of which that is all
        (None: for any)."""
        if not ids:
            return ()
        at, known, wanted = eras.position(connection), dict[str, int](), set(ids)
        for era, until in eras.shared(connection, have).items():
            known |= {id: n for id, n in have[era].items() if id in wanted and n <= until}
        ends = self._ends(connection, ids)
        whole = {id: since for id, (_, since) in ends.items() if known.get(id, -1) < since}
        found = self._whole(connection, whole, at, page) if whole else {}
        ends = ends if len(found) == len(whole) else {id: ends[id] for id in ends.keys() - whole.keys() | found.keys()}
        return tuple(self._say(id, at, None, found[id]) if id in found else
                     self.since(connection, id, known[id], at) if last > known[id] else
                     self._say(id, at, known[id], {}) for id, (last, _) in ends.items())

    def _whole(self, connection: sa.Connection, whole: Mapping[str, int], at: Position,
               page: Page | None) -> Found[V]:
        """All ports of those of these things that the page has room for. whole: from which number on what changed of
        each is written down."""
        if page is None:
            found = self._find(connection, whole, None)
            return {id: found.get(id, {}) for id in whole}
        counted = connection.execute(self._sizes, {"ids": list(whole), "most": page.room + 1}).scalars().all()
        fits = page.fill(Counter(counted), counted[-1] if len(counted) > page.room else None, set(whole))
        made = dict[str, Mapping[str, V]]()
        for id in fits:
            kept = page.shared.get(self._key, id)
            if kept is not None and kept.at.era == at.era and whole[id] <= kept.at.n <= at.n:
                moved: Mapping[str, V] = self.since(connection, id, kept.at.n, at).ports
                ports = {**kept.ports, **moved}
                for port in moved:
                    if moved[port] == self._gone:
                        del ports[port]
                made[id] = ports
        found = self._find(connection, fits - made.keys(), None) if fits - made.keys() else {}
        for id in fits - made.keys():
            made[id] = found.get(id, {})
            page.shared.put(self._key, id, at, made[id])
        return made

    def since(self, connection: sa.Connection, id: str, n: int, at: Position) -> M:
        """What changed after that number, all of which must be written down. at: where the database is."""
        touched = list(connection.execute(self._touched, {"id": id, "since": n}).scalars())
        ports: dict[str, V] = dict.fromkeys(touched, self._gone)
        for some in pieces(touched, MANY):
            ports |= self._find(connection, [id], some).get(id, {})
        return self._say(id, at, n, ports)

    def news(self, connection: sa.Connection, due: Mapping[str, int]) -> list[M]:
        """As `since`, of each thing; where that is not all written down any more, only that something changed."""
        if not due:
            return []
        at, ends = eras.position(connection), self._ends(connection, due)
        return [self.since(connection, id, n, at) if n >= ends[id][1] else self._say(id, at, at.n, {})
                for id, n in due.items() if id in ends]

    def newer(self, connection: sa.Connection, n: int = 0) -> dict[str, int]:
        """The number of the last change of each thing, of those after that number."""
        return {row[0]: row[1] for row in connection.execute(self._newer, {"since": n})}

    def going(self, connection: sa.Connection) -> list[str]:
        """The things of which something is older than all changes that are kept, or that are gone."""
        return list(connection.execute(self._going).scalars())

    def trim(self, connection: sa.Connection, ids: Collection[str]) -> None:
        """Away with what of these is so."""
        last = {row[0]: row[1] for row in connection.execute(self._old, {"ids": list(ids)})}
        if last:
            connection.execute(self._past, [{"id": id, "to": n} for id, n in last.items()])
        if kept := self.owned(connection, last):
            statements.insert(connection, self._table, [
                {self._key: id, "n": last[id], "port_id": ""} for id in sorted(kept)])

    def owned(self, connection: sa.Connection, ids: Collection[str]) -> set[str]:
        """Those of these things that are not gone."""
        return set(connection.execute(self._owned, {"ids": list(ids)}).scalars()) if ids else set()

    def _say(self, id: str, at: Position, since: int | None, ports: Mapping[str, V]) -> M:
        return self._make(id=id, n=at.n, era=at.era, since=since, ports=dict(ports))

    def _ends(self, connection: sa.Connection, ids: Collection[str]) -> dict[str, tuple[int, int]]:
        return {id: (last, first) for id, last, first in connection.execute(self._ends_of, {"ids": list(ids)})}


_ON, _R = t.port_groups.c, t.security_group_rules.c
_ADDRESSES = sa.select(_ON.group_id, _ON.port_id, t.addresses.c.ip_address).where(_ON.group_id.in_(_IDS)).join_from(
    t.port_groups, t.addresses, t.addresses.c.port_id == _ON.port_id)
_PAIRS = sa.select(_ON.group_id, _ON.port_id, t.ports.c.allowed_address_pairs).where(
    _ON.group_id.in_(_IDS), sa.cast(t.ports.c.allowed_address_pairs, sa.String) != "[]").join_from(
        t.port_groups, t.ports, t.ports.c.id == _ON.port_id)
#: By lists, so that every planner looks at these ports only.
_ADDRESSES_OF, _PAIRS_OF = (every.where(_ON.port_id.in_(sa.bindparam("ports", expanding=True)))
                            for every in (_ADDRESSES, _PAIRS))
#: Those of these groups that rules of ports on a host name.
_NAMED = sa.select(_R.remote_group_id).distinct().where(_R.remote_group_id.in_(_IDS), sa.exists().where(
    t.binding_groups.c.group_id == _R.security_group_id, t.binding_groups.c.host == sa.bindparam("host")))


def named(connection: sa.Connection, host: str, groups: Collection[str]) -> list[str]:
    """Those of the groups that rules of ports on the host name."""
    return list(connection.execute(_NAMED, {"ids": list(groups), "host": host}).scalars()) if groups else []


def _cidrs(connection: sa.Connection, groups: Collection[str],
           ports: Collection[str] | None) -> Found[tuple[str, ...]]:
    """group -> port -> CIDRs: its addresses and the pairs allowed to it."""
    asked: dict[str, Any] = {"ids": list(groups)} if ports is None else {"ids": list(groups), "ports": ports}
    addresses, pairs = (_ADDRESSES, _PAIRS) if ports is None else (_ADDRESSES_OF, _PAIRS_OF)
    found: dict[str, dict[str, tuple[str, ...]]] = defaultdict(dict)
    for group, port, address in connection.execute(addresses, asked):
        found[group][port] = (*found[group].get(port, ()), _cidr(address))
    for group, port, allowed in connection.execute(pairs, asked):
        found[group][port] = (*found[group].get(port, ()), *(_cidr(pair["ip_address"]) for pair in allowed))
    return found


def _cidr(address: str) -> str:
    return address if "/" in address else f"{address}/{128 if ':' in address else 32}"


MEMBERS = Numbered[GroupMembers, tuple[str, ...]](
    t.member_changes, (t.security_groups, _ON.group_id), GroupMembers, _cidrs, ())
