"""What the servers of this host have taken, and whether one more fits. The journal makes it last; this only counts."""

import math
from collections.abc import Collection

import msgspec

from nacre.base.errors import Refused
from nacre.node.contract import BuildOrder


class Usage(msgspec.Struct, kw_only=True):
    """Memory and disk in MB, bandwidth as in `BuildOrder`."""

    vcpus: int = 0
    memory_mb: int = 0
    disk_mb: int = 0
    net_bandwidth: int = 0
    disk_bandwidth: int = 0
    disk_shares: int = 0

    def add(self, order: BuildOrder, times: int) -> None:
        """One server more, or with times -1 one less."""
        self.vcpus += times * order.vcpus
        self.memory_mb += times * order.memory_mb
        self.disk_mb += times * order.disk_mb
        self.net_bandwidth += times * order.net_bandwidth
        self.disk_bandwidth += times * order.disk_bandwidth
        self.disk_shares += times * order.disk_shares


class Tracker:
    """Claims by allocation. Claiming again and releasing twice are harmless.

    directories: the host's disk directories, where it has several; disk and shares are counted in each.
    """

    def __init__(self, directories: Collection[str] = ()):
        self.directories = tuple(directories)
        self._claims: dict[str, BuildOrder] = {}
        self._used, self._within = Usage(), {path: Usage() for path in self.directories}

    def claim(self, order: BuildOrder) -> None:
        """Takes what the order needs, within its limits for the whole host. Raises Refused with every reason."""
        if order.allocation in self._claims:
            return
        if self.directories and order.selected_dir not in self._within:
            raise Refused(f"disk: {order.selected_dir or 'no directory'} is not one of this host's: "
                          f"{', '.join(self.directories)}")
        if order.selected_dir and not self.directories:
            raise Refused(f"disk: this host has no directory {order.selected_dir} of its own")
        used, there = self._used, self._within.get(order.selected_dir, self._used)
        wishes = (
            ("vcpus", "", order.vcpus, used.vcpus, order.limit_vcpus),
            ("memory", " MB", order.memory_mb, used.memory_mb, order.limit_memory_mb),
            ("disk", " MB", order.disk_mb, there.disk_mb, order.limit_disk_mb),
            ("network bandwidth", " Mbit/s", order.net_bandwidth, used.net_bandwidth, order.limit_net_bandwidth),
            ("disk bandwidth", " MB/s", order.disk_bandwidth, used.disk_bandwidth, order.limit_disk_bandwidth),
            ("disk shares", "", order.disk_shares, there.disk_shares, order.limit_disk_shares))
        if reasons := [f"{what}: {wanted}{unit} wanted, {math.floor(max(limit - taken, 0))}{unit} free of "
                       f"{math.floor(limit)}" for what, unit, wanted, taken, limit in wishes
                       if wanted > limit - taken and (wanted or what == "disk")]:
            raise Refused("; ".join(reasons), type="NoRoom")
        self.restore(order)

    def restore(self, order: BuildOrder) -> None:
        """Takes what the order needs without asking: it was granted before a restart."""
        self.release(order.allocation)
        self._claims[order.allocation] = order
        self._count(order, 1)

    def release(self, allocation: str) -> None:
        """Gives a claim back."""
        if (order := self._claims.pop(allocation, None)) is not None:
            self._count(order, -1)

    def holds(self, allocation: str) -> bool:
        return allocation in self._claims

    @property
    def allocations(self) -> frozenset[str]:
        """Those with a claim."""
        return frozenset(self._claims)

    @property
    def used(self) -> Usage:
        """The sum of all claims, as of now."""
        return msgspec.structs.replace(self._used)

    def used_in(self, directory: str) -> Usage:
        """The sum of the claims in one directory."""
        return msgspec.structs.replace(self._within[directory])

    def _count(self, order: BuildOrder, times: int) -> None:
        self._used.add(order, times)
        if (there := self._within.get(order.selected_dir)) is not None:
            there.add(order, times)
