"""The host queue: hosts in the order of one resource's free amount (FLOW A6, A10), twice.

Once as a sorted list, for the walk: it starts at the found position, the first host with enough of that resource, so
hosts without enough are never looked at. sign +1 walks up from there: the smallest that fits (packs). sign -1 walks
down from the top to that boundary: the emptiest (spreads). And once as columns, a number a host: what a walk does not
find soon is answered for all hosts by a few operations on whole columns (ADR 0010).
"""

from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray
from sortedcontainers import SortedList

from nacre.scheduler.hosts import DISK, MEMORY, RESOURCES, VCPUS, Host, Kind
from nacre.scheduler.name_match import NameIndex

#: Driver -> the resource that orders the queue.
DRIVERS = {"memory": RESOURCES.index("memory_mb"), "cpu": RESOURCES.index("vcpus"), "disk": RESOURCES.index("disk_mb")}

Rows = NDArray[np.intp]
Mask = NDArray[np.bool_]


class HostQueue:
    """The hosts of one queue name. Hosts of equal rank are in the order in which they came."""

    def __init__(self, driver: str = "memory"):
        self.driver = DRIVERS[driver]
        self._order: SortedList = SortedList()
        self.hosts: list[Host | None] = []
        self._gaps: list[int] = []
        #: Free amounts (a row a resource, a column a host) and kinds' numbers (-1: nobody, or out).
        self.free = np.zeros((len(RESOURCES), 16))
        self.kinds = np.full(16, -1, dtype=np.int32)
        #: Hosts that take no servers at present, by the reason.
        self.out: Counter[str] = Counter()
        #: Hosts without one vcpu or MB of memory left, or with too little disk: not in the order, or each walk of a
        #: queue that packs would begin by passing all of them.
        self.spent = 0
        self.names = NameIndex(self)
        #: The kinds that hosts of this queue had, by number.
        self.seen: dict[int, Kind] = {}
        self._named: dict[str, Host] = {}

    def __len__(self) -> int:
        return len(self._order) + self.spent + self.out.total()

    @property
    def size(self) -> int:
        """How many columns are in use."""
        return len(self.hosts)

    def add(self, host: Host) -> None:
        """A host that is in no queue."""
        if self._gaps:
            host.row = self._gaps.pop()
        else:
            host.row = len(self.hosts)
            self.hosts.append(None)
            if host.row == len(self.kinds):
                self.free = np.concatenate((self.free, np.zeros_like(self.free)), axis=1)
                self.kinds = np.concatenate((self.kinds, np.full_like(self.kinds, -1)))
        self.hosts[host.row] = self._named[host.name] = host
        self.names.forget()
        self._enter(host)

    def discard(self, host: Host) -> None:
        """The host is not of this queue any more. Call it before the host's `out` changes."""
        self._leave(host)
        self.hosts[host.row] = None
        del self._named[host.name]
        self._gaps.append(host.row)
        self.names.forget()

    def moved(self, host: Host) -> None:
        """The host's free amounts changed."""
        if host.out is None:
            self._unplace(host)
            self._place(host)

    def set_out(self, host: Host, out: str | None) -> None:
        """Why the host takes no servers; None: it does."""
        if host.out != out:
            self._leave(host)
            host.out = out
            self._enter(host)

    def set_kind(self, host: Host) -> None:
        """The host's kind changed."""
        if host.out is None:
            self._note_kind(host)

    def tidy(self) -> set[Kind]:
        """Only the kinds that its hosts have stay known. Which these are."""
        kinds = {host.kind for host in self._named.values()}
        self.seen = {kind.number: kind for kind in kinds}
        return kinds

    def named(self, names: Iterable[str]) -> list[Host]:
        """The hosts of these names that are in this queue."""
        return [host for name in names if (host := self._named.get(name)) is not None]

    def walk(self, need: float, sign: int) -> Iterator[Host]:
        """The hosts from the found position on, in the direction of `sign`, up to the boundary host."""
        for _, _, host in self._order.irange((need,), reverse=sign < 0):
            yield host

    def below(self, need: float) -> int:
        """How many hosts lie below the found position."""
        return int(self._order.bisect_left((need,)))

    def ordered(self, rows: Rows, sign: int, most: int) -> list[Host]:
        """The first `most` of these rows' hosts, in the order of the walk."""
        keys = self.free[self.driver, rows]
        if most == 1:
            best = int(keys.argmin()) if sign > 0 else len(keys) - 1 - int(keys[::-1].argmax())
            return [host] if (host := self.hosts[rows[best]]) is not None else []
        if len(rows) > 4 * most:  # only those that rank among the first, with all of equal rank
            edge = np.partition(keys, most - 1)[most - 1] if sign > 0 else np.partition(keys, -most)[-most]
            near = keys <= edge if sign > 0 else keys >= edge
            rows, keys = rows[near], keys[near]
        order = np.lexsort((rows, keys))
        first = order[:most] if sign > 0 else order[::-1][:most]
        return [host for row in rows[first] if (host := self.hosts[row]) is not None]

    def _enter(self, host: Host) -> None:
        if host.out is None:
            self._place(host)
            self._note_kind(host)
        else:
            self.out[host.out] += 1
            self.kinds[host.row] = -1

    def _leave(self, host: Host) -> None:
        if host.out is None:
            self._unplace(host)
        else:
            self.out[host.out] -= 1
        self.kinds[host.row] = -1

    def _note_kind(self, host: Host) -> None:
        self.kinds[host.row] = host.kind.number
        self.seen[host.kind.number] = host.kind

    def _place(self, host: Host) -> None:
        self.free[:, host.row] = free = host.free
        host.entry = (free[self.driver], host.row, host)
        if free[VCPUS] >= 1 and free[MEMORY] >= 1 and free[DISK] >= 0:
            self._order.add(host.entry)
        else:  # also what is no number: it has no place in an order
            host.spent = True
            self.spent += 1

    def _unplace(self, host: Host) -> None:
        if host.spent:
            host.spent = False
            self.spent -= 1
        else:
            self._order.discard(host.entry)
