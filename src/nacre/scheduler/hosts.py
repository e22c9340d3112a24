"""One host as the scheduler sees it: what is free under its ratios, and what it may hold in all.

free = what its last report says + what was given back since - what was placed since. A report names the allocations
that it counts, so each placement and each release is counted exactly once, in whatever order the news come.
"""

import hashlib
from collections.abc import Collection, Iterable
from functools import cached_property
from typing import Any, Protocol

import msgspec

from nacre.base import bounds
from nacre.scheduler.contract import Allocation, Amounts, HostLimits, HostReport

#: The order of a host's free amounts, and of a request's.
RESOURCES = ("memory_mb", "vcpus", "disk_mb", "net_bandwidth", "disk_bandwidth", "disk_shares")
MEMORY, VCPUS, DISK, NET, DISK_BANDWIDTH, SHARES = range(len(RESOURCES))

#: A placement that no report has shown by then is forgotten (seconds): whoever made it is gone. The claim is final.
PENDING_SECONDS = 300.0
INFINITE = float("inf")
#: So many kinds more than hosts are of may be known for a while.
SPARE = 32
_PLAIN = str.maketrans("", "", ".-_")


class Aggregate(Protocol):
    """What placement needs of one of a host's aggregates."""

    @property
    def name(self) -> str: ...
    @property
    def metadata(self) -> dict[str, str]: ...


class Kind:
    """What many hosts have in common, so that a filter answers once for all of them. Made by `Kinds` only."""

    def __init__(self, number: int, report: HostReport, zone: str, aggregates: tuple[Aggregate, ...]):
        self.number, self.zone, self.aggregates = number, zone, aggregates
        self.architecture, self.cpu_info = report.architecture, report.cpu_info
        self.hypervisor_type, self.hypervisor_version = report.hypervisor_type, report.hypervisor_version

    @cached_property
    def metadata(self) -> dict[str, set[str]]:
        """Key -> its values in all aggregates; a value may be a list with commas."""
        found: dict[str, set[str]] = {}
        for aggregate in self.aggregates:
            for key, value in aggregate.metadata.items():
                found.setdefault(key, set()).update(part.strip() for part in value.split(","))
        return found

    @cached_property
    def cpu(self) -> dict[str, Any]:
        """The host's `cpu_info`, read: a report whose facts cannot be read is refused."""
        return bounds.facts(self.cpu_info)

    @cached_property
    def features(self) -> frozenset[str]:
        """The processor's features as libvirt names them, without dots and dashes."""
        found = self.cpu.get("features")
        names = found if isinstance(found, list) else []
        return frozenset(str(name).lower().translate(_PLAIN) for name in names)


class Kinds:
    """Every kind there is, once, numbered; numbers that are free again are given anew. A kind is known by a digest of
    its texts."""

    def __init__(self) -> None:
        self._known: dict[tuple[Any, ...], Kind] = {}
        self._free: list[int] = []
        self._kept = 0

    def of(self, report: HostReport, zone: str, aggregates: tuple[Aggregate, ...]) -> Kind:
        cpu = hashlib.blake2b(report.cpu_info.encode(), digest_size=16).digest()
        key = (zone, report.architecture, report.hypervisor_type, report.hypervisor_version, cpu,
               tuple((a.name, tuple(sorted(a.metadata.items()))) for a in aggregates))
        if key not in self._known:
            number = self._free.pop() if self._free else len(self._known)
            self._known[key] = Kind(number, report, zone, aggregates)
        return self._known[key]

    @property
    def many(self) -> bool:
        """Whether most of them may be of no host any more."""
        return len(self._known) > 2 * self._kept + SPARE

    def keep(self, used: Collection[Kind]) -> None:
        """All others are forgotten: hosts may say that they are another kind as often as they like."""
        for key in [key for key, kind in self._known.items() if kind not in used]:
            self._free.append(self._known.pop(key).number)
        self._kept = len(self._known)


class Directory(msgspec.Struct):
    """One of several disk directories: free MB and shares, and what they are in all."""

    free_mb: float
    free_shares: float
    limit_mb: float
    limit_shares: float
    bandwidth: int


class Claim(msgspec.Struct):
    """An allocation as it is counted here. until: when it is forgotten if neither the database nor a report shows
    it."""

    server_id: str
    amounts: Amounts
    until: float = INFINITE


class Host:
    """Free amounts move with every placement, release and report. out: why no server is placed here at present."""

    __slots__ = ("_freed", "_listed", "claims", "directories", "entry", "free", "kind", "limits", "name", "out",
                 "queue_name", "report", "row", "servers", "spent")

    def __init__(self, report: HostReport, kind: Kind, out: str | None = None):
        self.name, self.queue_name, self.kind, self.out = report.host, report.queue_name, kind, out
        #: Allocations by id: of the database and of placements. What the last report counts is `_listed`, of which
        #: `_freed` was given back since.
        self.claims: dict[str, Claim] = {}
        self._freed: dict[str, Amounts] = {}
        self._listed: dict[str, str] = {}
        self.servers: set[str] = set()
        self.row, self.entry, self.spent = -1, (0.0, -1, self), False
        self.hear(report, 0.0)

    def hear(self, report: HostReport, now: float) -> None:
        """A report: the truth about all allocations that it names. now: seconds, of any clock that does not go back."""
        self.report, self.queue_name = report, report.queue_name
        self._listed = {held.allocation: held.server_id for held in report.held}
        self._freed = {a: amounts for a, amounts in self._freed.items() if a in self._listed}
        for allocation in [a for a, claim in self.claims.items() if claim.until <= now and a not in self._listed]:
            del self.claims[allocation]
        self._count()

    def settles(self, now: float) -> bool:
        """Whether the same report, heard again now, would change what is free: a placement is forgotten."""
        return any(claim.until <= now and a not in self._listed for a, claim in self.claims.items())

    def take(self, allocation: str, claim: Claim) -> None:
        """An allocation of this host. Its amounts have its directory, where the host has several. Taking again only
        makes sure of it."""
        if (known := self.claims.get(allocation)) is not None:
            known.until = max(known.until, claim.until)
        elif allocation not in self._freed:
            self.claims[allocation] = claim
            if allocation not in self._listed:
                self._add(claim.amounts, -1)
            self.servers.add(claim.server_id)
            self._roomiest()

    def give_back(self, allocation: str) -> bool:
        """The allocation is over. Whether there was one; giving back twice is harmless."""
        if (claim := self.claims.pop(allocation, None)) is None:
            return False
        if allocation in self._listed:
            self._freed[allocation] = claim.amounts
        self._add(claim.amounts, 1)
        self.servers = self._with_servers()
        self._roomiest()
        return True

    def uncommitted(self, server_id: str) -> list[str]:
        """The server's placements that neither the database nor a report has shown."""
        return [a for a, claim in self.claims.items()
                if claim.server_id == server_id and claim.until < INFINITE and a not in self._listed]

    def _count(self) -> None:
        """All amounts anew."""
        report = self.report
        self.limits = limits_of(report)
        self.directories = {d.path: Directory(
            free_mb=d.total_mb * report.disk_ratio - d.used_mb, limit_mb=d.total_mb * report.disk_ratio,
            free_shares=d.shares - d.shares_used, limit_shares=d.shares, bandwidth=d.bandwidth)
            for d in report.disks}
        self.free = [self.limits.memory_mb - report.memory_mb_used, self.limits.vcpus - report.vcpus_used,
                     self.limits.disk_mb - report.disk_gb_used * 1024,
                     self.limits.net_bandwidth - report.net_bandwidth_used,
                     self.limits.disk_bandwidth - report.disk_bandwidth_used, 0.0]
        for allocation, claim in self.claims.items():
            if allocation not in self._listed:
                self._add(claim.amounts, -1)
        for amounts in self._freed.values():
            self._add(amounts, 1)
        self.servers = self._with_servers()
        self._roomiest()

    def _with_servers(self) -> set[str]:
        return {claim.server_id for claim in self.claims.values()} | {
            server for allocation, server in self._listed.items() if allocation not in self._freed}

    def directory(self, amounts: Amounts, sign: int) -> str | None:
        """The directory for such a server: the fullest that has room, or with sign -1 the emptiest. None: none has.
        Empty where the host has only one."""
        if not self.directories:
            return "" if not amounts.disk else None
        fitting = [(d.free_mb, path) for path, d in self.directories.items()
                   if d.free_mb >= amounts.disk_mb and (not amounts.disk_shares or d.free_shares >= amounts.disk_shares)
                   and (not amounts.disk or path == amounts.disk)]
        if not fitting:
            return None
        return (min(fitting) if sign > 0 else max(fitting))[1]

    def limits_in(self, directory: str) -> HostLimits:
        """The limits for a server in one of the directories."""
        d = self.directories.get(directory)
        if d is None:
            return self.limits
        return msgspec.structs.replace(self.limits, disk_mb=d.limit_mb, disk_shares=d.limit_shares,
                                       directory_bandwidth=d.bandwidth)

    def _add(self, amounts: Amounts, times: int) -> None:
        free = self.free
        free[MEMORY] += times * amounts.memory_mb
        free[VCPUS] += times * amounts.vcpus
        free[NET] += times * amounts.net_bandwidth
        free[DISK_BANDWIDTH] += times * amounts.disk_bandwidth
        if (directory := self.directories.get(amounts.disk)) is not None:
            directory.free_mb += times * amounts.disk_mb
            directory.free_shares += times * amounts.disk_shares
        else:
            free[DISK] += times * amounts.disk_mb

    def _roomiest(self) -> None:
        """With several directories the free disk is that of the emptiest: a server's disks lie in one."""
        if self.directories:
            self.free[DISK] = max(d.free_mb for d in self.directories.values())
            self.free[SHARES] = max(d.free_shares for d in self.directories.values())


def claim_of(allocation: Allocation) -> Claim:
    """One that the database has."""
    return Claim(allocation.server_id, allocation.amounts)


def limits_of(report: HostReport) -> HostLimits:
    """What a host may hold in all (FLOW A6): totals by their ratios. Bandwidth that is not counted has no limit."""
    return HostLimits(
        vcpus=report.vcpus * report.cpu_ratio, disk_mb=report.disk_gb * report.disk_ratio * 1024,
        memory_mb=report.memory_mb * report.ram_ratio - report.reserved_memory_mb,
        net_bandwidth=report.net_bandwidth or INFINITE,
        disk_bandwidth=report.disk_bandwidth or INFINITE, disk_shares=0.0)


def needs(amounts: Amounts) -> tuple[float, ...]:
    """The least that must be free, in the order of RESOURCES. A request of none skips the check, but for disk (A12)."""
    wanted: Iterable[float] = (getattr(amounts, name) for name in RESOURCES)
    return tuple(w if w or n == DISK else -INFINITE for n, w in enumerate(wanted))
