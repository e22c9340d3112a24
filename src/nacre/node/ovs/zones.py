"""A conntrack zone for each guest's port: its own among all bridges of an Open vSwitch. Those of one datapath share the
zones, and with a zone in common one cloud's connections would open the other's ports.

The number is kept with the interface (external_ids), so that it and the connections in it outlive the node. Who gives
one reads what is taken and writes in one transaction of Open vSwitch's database, together with the last number given,
which is in the database's one root row: of two processes that give at the same time, one is told to try again.
Numbers go round, so that one that was given back rests; below FIRST are those of Neutron and OVN, who count from 1.
A zone is noted as unused in that transaction, until what another port left in it is gone: a node that dies in between
does that when it comes back, and touches no other zone.
"""

from collections.abc import Sequence
from itertools import chain, islice
from typing import Any

from nacre.base.errors import BuildFailed

KEY, LAST_KEY, UNUSED_KEY = "nacre-zone", "nacre-zone-last", "nacre-zone-unused"
FIRST, LAST = 0x8000, 0xFFFF


def number(row: Any) -> int | None:
    """The zone of an interface; None: it has none yet (or nonsense)."""
    text = row.external_ids.get(KEY, "")
    return int(text) if text.isdecimal() and FIRST <= int(text) <= LAST else None


def choose(taken: set[int], last: int, count: int) -> list[int]:
    """`count` free zones, from the one after `last` on and round. Raises BuildFailed: there are not as many."""
    around = chain(range(last + 1, LAST + 1), range(FIRST, last + 1))
    found = list(islice((zone for zone in around if zone not in taken), count))
    if len(found) < count:
        raise BuildFailed("Open vSwitch has no conntrack zone left for another port on this machine")
    return found


class GiveZones:
    """A command in ovsdbapp's sense: run again, on what is newer then, if another process wrote meanwhile."""

    def __init__(self, api: Any, interfaces: Sequence[str]):
        self._api, self._interfaces = api, interfaces
        self.result: dict[str, int] = {}

    def commit(self) -> dict[str, int]:
        """The zones by interface; one that has gone meanwhile is left out. Blocks."""
        from ovsdbapp.backend.ovs_idl.transaction import Transaction  # plain: vswitchd need not be waited for

        transaction = Transaction(self._api, self._api.ovsdb_connection, check_error=True)
        transaction.add(self)
        transaction.commit()
        return self.result

    def run_idl(self, _txn: Any) -> None:
        """Called in ovsdbapp's thread, where the copy of the database stands still."""
        (root,) = self._api.tables["Open_vSwitch"].rows.values()
        rows = {row.name: row for row in self._api.tables["Interface"].rows.values()}
        wanting = [rows[name] for name in self._interfaces if name in rows]
        taken = {zone for row in rows.values() if row not in wanting and (zone := number(row)) is not None}
        last = root.external_ids.get(LAST_KEY, "")
        zones = choose(taken, min(max(int(last), FIRST - 1), LAST) if last.isdecimal() else FIRST - 1, len(wanting))
        root.verify("external_ids")
        for row, zone in zip(wanting, zones, strict=True):
            row.setkey("external_ids", KEY, str(zone))
            row.setkey("external_ids", UNUSED_KEY, "yes")
        if zones:
            root.setkey("external_ids", LAST_KEY, str(zones[-1]))
        self.result = {row.name: zone for row, zone in zip(wanting, zones, strict=True)}

    def post_commit(self, _txn: Any) -> None:
        """Nothing is left to do."""
