"""What the servers of this host have taken, and whether one more fits. The journal makes it last; this only counts."""

import math

import msgspec

from nacre.base.errors import Refused
from nacre.node.contract import BuildOrder


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Memory and disk in MB."""

    vcpus: int = 0
    memory_mb: int = 0
    disk_mb: int = 0


class Tracker:
    """Claims by server. A server has one claim at most; claiming again and releasing twice are harmless."""

    def __init__(self) -> None:
        self._claims: dict[str, Usage] = {}

    def claim(self, order: BuildOrder) -> None:
        """Takes what the order needs, within its limits for the whole host. Raises Refused with every reason."""
        if order.server_id in self._claims:
            return
        used = self.used
        reasons = [
            reason for reason in (
                _lacking("vcpus", "", order.vcpus, used.vcpus, order.limit_vcpus) if order.vcpus else None,
                _lacking("memory", " MB", order.memory_mb, used.memory_mb, order.limit_memory_mb)
                if order.memory_mb else None,
                _lacking("disk", " MB", order.disk_mb, used.disk_mb, order.limit_disk_mb)) if reason]
        if reasons:
            raise Refused("; ".join(reasons))
        self.restore(order)

    def restore(self, order: BuildOrder) -> None:
        """Takes what the order needs without asking: it was granted before a restart."""
        self._claims[order.server_id] = Usage(vcpus=order.vcpus, memory_mb=order.memory_mb, disk_mb=order.disk_mb)

    def release(self, server_id: str) -> None:
        """Gives a server's claim back."""
        self._claims.pop(server_id, None)

    def holds(self, server_id: str) -> bool:
        return server_id in self._claims

    @property
    def servers(self) -> frozenset[str]:
        """Those with a claim."""
        return frozenset(self._claims)

    @property
    def used(self) -> Usage:
        """The sum of all claims."""
        claims = self._claims.values()
        return Usage(vcpus=sum(c.vcpus for c in claims), memory_mb=sum(c.memory_mb for c in claims),
                     disk_mb=sum(c.disk_mb for c in claims))


def _lacking(what: str, unit: str, wanted: int, used: int, limit: float) -> str | None:
    free = limit - used
    if wanted <= free:
        return None
    return f"{what}: {wanted}{unit} wanted, {math.floor(max(free, 0))}{unit} free of {math.floor(limit)}"
