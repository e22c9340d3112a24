"""What is measured: pure over hosts' reports, servers and the times of decisions."""

import math
import re
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from nacre.compute.contract import Server
from nacre.scheduler.contract import HostReport
from nacre.simulation.plan import Size

RESOURCES = ("memory", "vcpus", "disk")
Amounts = tuple[float, float, float]


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """All hosts at one moment. used: shares of what may be used. scattered: the share of the places for the largest
    flavor that the free room would have, were it one host's, and has not."""

    at: float
    used: list[float]
    places: int
    scattered: float
    occupied: int
    over: int


def capacity(report: HostReport) -> Amounts:
    """What may be given away on a host, under its ratios: memory MB, vcpus, disk GB."""
    return (report.memory_mb * report.ram_ratio - report.reserved_memory_mb, report.vcpus * report.cpu_ratio,
            report.disk_gb * report.disk_ratio)


def sample(at: float, reports: Iterable[HostReport], largest: Size) -> Sample:
    """The hosts as they are by their own words."""
    need = (largest.memory_mb, largest.vcpus, largest.disk_gb)
    total, taken, free = [0.0] * 3, [0.0] * 3, [0.0] * 3
    places = occupied = over = 0
    for report in reports:
        has, used = capacity(report), (report.memory_mb_used, report.vcpus_used, report.disk_gb_used)
        left = [h - u for h, u in zip(has, used, strict=True)]
        over += any(x < -1e-6 for x in left)
        occupied += any(used)
        places += _places(left, need)
        for n in range(3):
            total[n] += has[n]
            taken[n] += used[n]
            free[n] += max(0.0, left[n])
    whole = _places(free, need)
    return Sample(
        at=round(at, 3), used=[round(t / h, 4) if h else 0.0 for t, h in zip(taken, total, strict=True)],
        places=places, scattered=round(1 - places / whole, 4) if whole else 0.0, occupied=occupied, over=over)


def _places(free: Sequence[float], need: Sequence[float]) -> int:
    """How many of that size fit."""
    return max(0, min(math.floor(f / n + 1e-9) for f, n in zip(free, need, strict=True) if n))


class Decisions:
    """A scheduler that is timed: everything else passes through."""

    def __init__(self, scheduler: Any, timer: Any):
        self._scheduler, self._timer = scheduler, timer
        self.seconds: list[float] = []
        self.again = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._scheduler, name)

    async def select(self, request: Any) -> Any:
        """The decision, its real time kept. A request that names hosts to avoid is another try."""
        self.again += bool(request.ignore_hosts)
        begin = self._timer()
        try:
            return await self._scheduler.select(request)
        finally:
            self.seconds.append(self._timer() - begin)


def reason(message: str) -> str:
    """A fault's most common reason, without its numbers of hosts: "lack 8192 MB of memory"."""
    first = (message.partition(" fit: ")[2].partition(", ")[0] or message).partition(";")[0]
    first = re.sub(r"^\d+ ", "", first.strip().rstrip("."))
    return re.sub(r"\bhost-\d+\b", "a host", first)[:200]


def percentile(values: Sequence[float], share: float) -> float:
    """The value that this share of them does not exceed; 0 of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)] if ordered else 0.0


def spread(values: Sequence[float], scale: float = 1.0, digits: int = 3) -> dict[str, float]:
    """Median, p99 and the greatest."""
    return {name: round(scale * value, digits) for name, value in (
        ("median", percentile(values, 0.5)), ("p99", percentile(values, 0.99)), ("max", max(values, default=0.0)))}


def summary(servers: Sequence[Server], samples: Sequence[Sample], decisions: Decisions) -> dict[str, Any]:
    """The figures that one seed repeats."""
    built = [s for s in servers if s.launched_at]
    waits = [(s.launched_at - s.created_at).total_seconds() for s in built if s.launched_at]
    refused = Counter(reason(s.fault.message) for s in servers if s.fault)
    last = samples[-1]
    return {
        "virtual_seconds": last.at,
        "builds": {"active": len(built), "refused": sum(refused.values()),
                   "deleted_in_building": sum(s.deleted and not s.launched_at and not s.fault for s in servers),
                   "deleted": sum(s.deleted for s in servers)},
        "to_active_s": spread(waits),
        "refusals": dict(sorted(refused.items(), key=lambda item: (-item[1], item[0]))),
        "decisions": len(decisions.seconds), "tries_again": decisions.again,
        "utilisation": {name: {
            "mean": round(statistics.fmean(s.used[n] for s in samples), 4),
            "peak": max(s.used[n] for s in samples), "end": last.used[n]} for n, name in enumerate(RESOURCES)},
        "fragmentation": {"mean": round(statistics.fmean(s.scattered for s in samples), 4),
                          "peak": max(s.scattered for s in samples), "end": last.scattered,
                          "largest_flavor_fits": last.places},
        "hosts_in_use": {"peak": max(s.occupied for s in samples), "end": last.occupied},
        "over_committed_hosts": max(s.over for s in samples),
    }
