"""A conntrack zone for each guest's port, floating IP and gateway: its own among all bridges of an Open vSwitch. Those
of one datapath share the zones, and with a zone in common one cloud's connections would open the other's ports.

The number is kept with the interface (external_ids), or with the bridge where there is none, so that it and the
connections in it outlive the node. Who gives one reads what is taken and writes in one transaction of Open vSwitch's
database, together with the last number given, which is in the database's one root row: of two processes that give at
the same time, one is told to try again.
Numbers go round, so that one that was given back rests; below FIRST are those of Neutron and OVN, who count from 1.
A zone is noted as unused in that transaction, until what another port left in it is gone: a node that dies in between
does that when it comes back, and touches no other zone.
"""

from collections.abc import Callable, Sequence
from itertools import chain, islice
from typing import Any

from nacre.base.errors import BuildFailed

KEY, LAST_KEY, UNUSED_KEY = "nacre-zone", "nacre-zone-last", "nacre-zone-unused"
#: On a bridge, before the owner: "nacre-zone-of-<owner>" = "<zone>", or "<zone> unused".
OWNED_KEY = "nacre-zone-of-"
FIRST, LAST = 0x8000, 0xFFFF


def number(row: Any) -> int | None:
    """The zone of an interface; None: it has none yet (or nonsense)."""
    text = row.external_ids.get(KEY, "")
    return int(text) if text.isdecimal() and FIRST <= int(text) <= LAST else None


def choose(taken: set[int], last: int, count: int) -> list[int]:
    """`count` free zones, or as many as there are, from the one after `last` on and round."""
    around = chain(range(last + 1, LAST + 1), range(FIRST, last + 1))
    return list(islice((zone for zone in around if zone not in taken), count))


def kept(row: Any) -> dict[str, tuple[int, bool]]:
    """What a bridge's record keeps: owner -> its zone, and whether there may still be another's connections in it."""
    found = {}
    for key, text in row.external_ids.items():
        zone, _, unused = text.partition(" ")
        if key.startswith(OWNED_KEY) and zone.isdecimal() and FIRST <= int(zone) <= LAST:
            found[key.removeprefix(OWNED_KEY)] = int(zone), bool(unused)
    return found


def transact(api: Any, command: Any) -> None:
    """The command in a transaction of its own: vswitchd need not be waited for. Blocks."""
    from ovsdbapp.backend.ovs_idl.transaction import Transaction

    transaction = Transaction(api, api.ovsdb_connection, check_error=True)
    transaction.add(command)
    transaction.commit()


def give(api: Any, count: int, wanting: Sequence[Any] = ()) -> list[int]:
    """`count` zones that nothing in the database has, but for these interfaces, or as many as there are; within a
    command."""
    (root,) = api.tables["Open_vSwitch"].rows.values()
    taken = {zone for row in api.tables["Interface"].rows.values()
             if row not in wanting and (zone := number(row)) is not None}
    taken |= {zone for row in api.tables["Bridge"].rows.values() for zone, _ in kept(row).values()}
    last = root.external_ids.get(LAST_KEY, "")
    zones = choose(taken, min(max(int(last), FIRST - 1), LAST) if last.isdecimal() else FIRST - 1, count)
    root.verify("external_ids")
    if zones:
        root.setkey("external_ids", LAST_KEY, str(zones[-1]))
    return zones


class GiveZones:
    """A command in ovsdbapp's sense: run again, on what is newer then, if another process wrote meanwhile."""

    def __init__(self, api: Any, interfaces: Sequence[str]):
        self._api, self._interfaces = api, interfaces
        self.result: dict[str, int] = {}

    def commit(self) -> dict[str, int]:
        """The zones by interface; one that has gone meanwhile is left out. Blocks. Raises BuildFailed: there are not as
        many."""
        transact(self._api, self)
        return self.result

    def run_idl(self, _txn: Any) -> None:
        """Called in ovsdbapp's thread, where the copy of the database stands still."""
        rows = {row.name: row for row in self._api.tables["Interface"].rows.values()}
        wanting = [rows[name] for name in self._interfaces if name in rows]
        zones = give(self._api, len(wanting), wanting)
        if len(zones) < len(wanting):
            raise BuildFailed("Open vSwitch has no conntrack zone left for another port on this machine")
        for row, zone in zip(wanting, zones, strict=True):
            row.setkey("external_ids", KEY, str(zone))
            row.setkey("external_ids", UNUSED_KEY, "yes")
        self.result = {row.name: zone for row, zone in zip(wanting, zones, strict=True)}

    def post_commit(self, _txn: Any) -> None:
        """Nothing is left to do."""


class KeepZones:
    """The same for what has no interface: these owners have zones in the bridge's record, and no others do. Where there
    are not as many, some that had none have none."""

    def __init__(self, connected: Callable[[], Any], bridge: str, owners: frozenset[str]):
        self._connected, self._bridge, self._owners = connected, bridge, owners
        self._clean: frozenset[str] = frozenset()
        self.result: tuple[dict[str, int], set[str]] = {}, set()

    def commit(self) -> tuple[dict[str, int], set[str]]:
        """The zones by owner, and those whose zone may still have another's connections. Blocks."""
        found: dict[str, tuple[int, bool]] | None
        try:
            found = kept(self._row())
        except RuntimeError:  # ovsdbapp's own thread took in a change meanwhile
            found = None
        if found is not None and found.keys() == self._owners and not any(unused for _, unused in found.values()):
            return {owner: zone for owner, (zone, _) in found.items()}, set()
        transact(self._connected(), self)
        return self.result

    def used(self, owners: frozenset[str]) -> None:
        """What is in the zones of these is theirs, from now on. Blocks."""
        self._clean = owners
        transact(self._connected(), self)

    def _row(self) -> Any:
        (row,) = [row for row in self._connected().tables["Bridge"].rows.values() if row.name == self._bridge]
        return row

    def run_idl(self, _txn: Any) -> None:
        """As that of `GiveZones`."""
        row = self._row()
        row.verify("external_ids")
        found = kept(row)
        for owner in found.keys() - self._owners:
            row.delkey("external_ids", OWNED_KEY + owner)
        missing = sorted(self._owners - found.keys())
        given = zip(missing, give(self._connected(), len(missing)), strict=False) if missing else ()
        now = {owner: found[owner] for owner in self._owners & found.keys()} | {
            owner: (zone, True) for owner, zone in given}
        now = {owner: (zone, unused and owner not in self._clean) for owner, (zone, unused) in now.items()}
        for owner, (zone, unused) in now.items():
            if found.get(owner) != (zone, unused):
                row.setkey("external_ids", OWNED_KEY + owner, f"{zone} unused" if unused else str(zone))
        self.result = ({owner: zone for owner, (zone, _) in now.items()},
                       {owner for owner, (_, unused) in now.items() if unused})

    def post_commit(self, _txn: Any) -> None:
        """Nothing is left to do."""
