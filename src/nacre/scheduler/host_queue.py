"""The host queue: hosts in the order of one resource's free amount (FLOW A6, A10).

A walk starts at the found position, the first host with enough of that resource, so hosts without enough are counted
but never looked at. sign +1 walks up from there: the smallest that fits (packs). sign -1 walks down from the top to
that boundary: the emptiest (spreads).
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator

from sortedcontainers import SortedKeyList

from nacre.scheduler.contract import PlacementRequest
from nacre.scheduler.hosts import Host

#: Driver -> (the host's free amount, the requested amount, how a lack is worded).
DRIVERS = {
    "memory": (lambda h: h.free_memory_mb, lambda r: r.memory_mb, "lack {} MB of memory"),
    "cpu": (lambda h: h.free_vcpus, lambda r: r.vcpus, "lack {} vcpus"),
    "disk": (lambda h: h.free_disk_mb, lambda r: r.disk_mb, "lack {} MB of disk"),
}


class HostQueue:
    """The hosts of one queue name, ordered by the driver's resource."""

    def __init__(self, hosts: Iterable[Host], driver: str = "memory"):
        self._free, self._asked, self._lack = DRIVERS[driver]
        self._hosts = SortedKeyList(hosts, key=lambda h: (self._free(h), h.name))

    def __len__(self) -> int:
        return len(self._hosts)

    def lacking(self, request: PlacementRequest) -> tuple[int, str]:
        """How many hosts lie below the found position, and what they lack. A request of zero skips the check."""
        asked = self._asked(request)
        if not asked:
            return 0, ""
        return self._find_pos(asked), self._lack.format(asked)

    def walk(self, request: PlacementRequest, sign: int) -> Iterator[Host]:
        """The hosts from the found position on, in the direction of `sign`, up to the boundary host."""
        below, _ = self.lacking(request)
        positions = range(below, len(self._hosts)) if sign > 0 else range(len(self._hosts) - 1, below - 1, -1)
        for position in positions:
            yield self._hosts[position]

    def remove(self, host: Host) -> None:
        """Take a host out before its free amounts change; `add` puts it back at its new place."""
        self._hosts.remove(host)

    def add(self, host: Host) -> None:
        self._hosts.add(host)

    def _find_pos(self, asked: float) -> int:
        """The position of the first host with at least `asked` free."""
        return bisect_left(self._hosts, asked, key=self._free)
