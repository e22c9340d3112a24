"""Who is in the security groups that rules name, as hosts keep it: all members once, then what changed since.

Every change of members writes down its ports under its number, in its own transaction. What a host lacks since a number
is what those ports are now: read from the rows that are the truth, so it does not matter how often, or in which pieces,
it is told. A number means something only in its era (base/durable/eras.py). What is older than every row of `changes`
goes; the last number that went is kept, for who is behind it is told all.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import sqlalchemy as sa

from nacre.base.bounds import pieces
from nacre.base.db import statements
from nacre.base.durable import changes as outbox
from nacre.base.durable import eras
from nacre.base.durable.eras import Position
from nacre.base.durable.tables import changes
from nacre.network import tables as t
from nacre.network.contract import GroupMembers, Versions
from nacre.network.work import MANY, Work

_C, _ON, _G, _R = t.member_changes.c, t.port_groups.c, t.security_groups.c, t.security_group_rules.c
_GROUPS: sa.BindParameter[Any] = sa.bindparam("groups", expanding=True)
_GROUP, _SINCE = sa.bindparam("group", type_=sa.String), sa.bindparam("since", type_=sa.BigInteger)


def _end(last: bool, value: Any) -> Any:
    """Of a group's first or last row."""
    return sa.select(value).where(_C.group_id == _G.id).order_by(
        _C.n.desc() if last else _C.n, _C.port_id).limit(1).scalar_subquery()


#: Of groups: the number of the last change, and from which number on all of them are written down.
_ENDS = sa.select(_G.id, sa.func.coalesce(_end(True, _C.n), 0), sa.func.coalesce(
    _end(False, sa.case((_C.port_id == "", _C.n), else_=0)), 0)).where(_G.id.in_(_GROUPS))
_NEWER = sa.select(_C.group_id, sa.func.max(_C.n)).where(_C.n > _SINCE).group_by(_C.group_id)

_ADDRESSES = sa.select(_ON.group_id, _ON.port_id, t.addresses.c.ip_address).where(_ON.group_id.in_(_GROUPS)).join_from(
    t.port_groups, t.addresses, t.addresses.c.port_id == _ON.port_id)
_PAIRS = sa.select(_ON.group_id, _ON.port_id, t.ports.c.allowed_address_pairs).where(
    _ON.group_id.in_(_GROUPS), sa.cast(t.ports.c.allowed_address_pairs, sa.String) != "[]").join_from(
        t.port_groups, t.ports, t.ports.c.id == _ON.port_id)
_TOUCHED = sa.select(_C.port_id).distinct().where(_C.group_id == _GROUP, _C.n > _SINCE, _C.port_id != "")
#: By lists, so that every planner looks at these ports only.
_ADDRESSES_OF, _PAIRS_OF = (every.where(_ON.port_id.in_(sa.bindparam("ports", expanding=True)))
                            for every in (_ADDRESSES, _PAIRS))

#: Those of these groups that rules of ports on a host name.
_NAMED = sa.select(_R.remote_group_id).distinct().where(_R.remote_group_id.in_(_GROUPS), sa.exists().where(
    t.binding_groups.c.group_id == _R.security_group_id, t.binding_groups.c.host == sa.bindparam("host")))

_KEPT = sa.select(sa.func.min(changes.c.n)).scalar_subquery()
_GOING = sa.select(_C.group_id, sa.func.max(_C.n)).where(_C.n < _KEPT).group_by(_C.group_id).having(
    sa.func.max(_C.port_id) != "")
_GONE = sa.delete(t.member_changes).where(_C.group_id == _GROUP, _C.n <= sa.bindparam("to"))


def note(work: Work) -> dict[str, tuple[int, int]]:
    """Writes down whose members the unit changed. group -> the number of the change before, and of this one."""
    moved = {group: ports for group, ports in work.changes.members.items() if ports}
    if not moved:
        return {}
    before = {group: last for group, (last, _) in _ends(work.conn, moved).items()}
    n = outbox.number(work.conn, work.now, "members")
    statements.insert(work.conn, t.member_changes, [
        {"group_id": group, "n": n, "port_id": port} for group, ports in moved.items() for port in ports])
    return {group: (before.get(group, 0), n) for group in moved}


def read(connection: sa.Connection, groups: Collection[str], have: Versions) -> tuple[GroupMembers, ...]:
    """What somebody who has these versions lacks of these groups."""
    if not groups:
        return ()
    at, known, wanted = eras.position(connection), dict[str, int](), set(groups)
    for era, until in eras.shared(connection, have).items():
        known |= {group: n for group, n in have[era].items() if group in wanted and n <= until}
    ends = _ends(connection, groups)
    whole = {group for group, (_, since) in ends.items() if known.get(group, -1) < since}
    asked = {"groups": list(whole)}
    found = _ports(connection.execute(_ADDRESSES, asked), connection.execute(_PAIRS, asked)) if whole else {}
    return tuple(GroupMembers(id=group, n=at.n, era=at.era, ports=found.get(group, {})) if group in whole else
                 since(connection, group, known[group], at) if last > known[group] else
                 GroupMembers(id=group, n=at.n, era=at.era, since=known[group])
                 for group, (last, _) in ends.items())


def since(connection: sa.Connection, group: str, n: int, at: Position) -> GroupMembers:
    """What changed after that number, all of which must be written down. at: where the database is."""
    touched = list(connection.execute(_TOUCHED, {"group": group, "since": n}).scalars())
    ports: dict[str, tuple[str, ...]] = dict.fromkeys(touched, ())
    for some in pieces(touched, MANY):
        asked = {"groups": [group], "ports": some}
        ports |= _ports(connection.execute(_ADDRESSES_OF, asked), connection.execute(_PAIRS_OF, asked)).get(group, {})
    return GroupMembers(id=group, n=at.n, era=at.era, since=n, ports=ports)


def news(connection: sa.Connection, due: Mapping[str, int]) -> list[GroupMembers]:
    """As `since`, of each group after its number. Where that is not all written down any more, as whoever asks waited
    for long, it is only said that something changed: who hears it asks."""
    at, ends = eras.position(connection), _ends(connection, due)
    return [since(connection, group, n, at) if n >= ends[group][1] else
            GroupMembers(id=group, n=at.n, era=at.era, since=at.n) for group, n in due.items() if group in ends]


def named(connection: sa.Connection, host: str, groups: Collection[str]) -> list[str]:
    """Those of the groups that rules of ports on the host name."""
    return list(connection.execute(_NAMED, {"groups": list(groups), "host": host}).scalars())


def newer(connection: sa.Connection, n: int = 0) -> dict[str, int]:
    """The number of the last change of each group's members, of those after that number."""
    return {row[0]: row[1] for row in connection.execute(_NEWER, {"since": n})}


def trim(connection: sa.Connection) -> None:
    """Away with what is older than all changes that are kept."""
    for group, last in connection.execute(_GOING).all():
        connection.execute(_GONE, {"group": group, "to": last})
        statements.insert(connection, t.member_changes, {"group_id": group, "n": last, "port_id": ""})


def _ends(connection: sa.Connection, groups: Collection[str]) -> dict[str, tuple[int, int]]:
    return {group: (last, first) for group, last, first in connection.execute(_ENDS, {"groups": list(groups)})}


def _ports(addresses: Iterable[Any], pairs: Iterable[Any]) -> Mapping[str, dict[str, tuple[str, ...]]]:
    """group -> port -> CIDRs: its addresses and the pairs allowed to it."""
    found: dict[str, dict[str, tuple[str, ...]]] = defaultdict(dict)
    for group, port, address in addresses:
        found[group][port] = (*found[group].get(port, ()), _cidr(address))
    for group, port, allowed in pairs:
        found[group][port] = (*found[group].get(port, ()), *(_cidr(pair["ip_address"]) for pair in allowed))
    return found


def _cidr(address: str) -> str:
    return address if "/" in address else f"{address}/{128 if ':' in address else 32}"
