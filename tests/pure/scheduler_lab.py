"""Hosts, requests and a scheduler in a few words, for tests of placement."""

import random
from typing import Any

import msgspec

from nacre.base.errors import NoValidHost
from nacre.scheduler.contract import Amounts, Held, HostReport, Placement, PlacementRequest
from nacre.scheduler.filter_scheduler import FilterScheduler
from nacre.scheduler.hosts import Host, Kinds


def report(name: str, memory: int = 4096, vcpus: int = 4, disk: int = 40, used: int = 0, **more: Any) -> HostReport:
    """A host's; `used`: MB of memory."""
    return HostReport(**{
        "host": name, "hypervisor_type": "QEMU", "hypervisor_version": 7002000, "vcpus": vcpus, "memory_mb": memory,
        "disk_gb": disk, "vcpus_used": 0, "memory_mb_used": used, "disk_gb_used": 0, **more})


def ask(*servers: str, memory: int = 512, vcpus: int = 1, disk: int = 1024, net: int = 0, io: int = 0, shares: int = 0,
        directory: str = "", **more: Any) -> PlacementRequest:
    amounts = Amounts(memory_mb=memory, vcpus=vcpus, disk_mb=disk, net_bandwidth=net, disk_bandwidth=io,
                      disk_shares=shares, disk=directory)
    return PlacementRequest(server_ids=servers or ("s",), project_id="p", amounts=amounts, **more)


def held(**servers: str) -> tuple[Held, ...]:
    """allocation -> server, as a report names them."""
    return tuple(Held(allocation=a, server_id=s, epoch=1) for a, s in servers.items())


class AggregateFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A host aggregate."""

    name: str
    metadata: dict[str, str] = {}


class Fleet(FilterScheduler):
    """A scheduler with time and kinds of its own."""

    def __init__(self, *, seed: int = 1, **options: Any):
        super().__init__(**{"best": 1, "chance": random.Random(seed), **options})
        self.kinds, self.now = Kinds(), 0.0

    def hosts(self) -> list[Host]:
        return list(self._hosts.values())

    def add(self, report: HostReport, zone: str = "nova", out: str | None = None,  # type: ignore[override]
            aggregates: tuple[AggregateFacts, ...] = ()) -> Host:
        super().add(report, self.kinds.of(report, zone, aggregates), out)
        return self.host(report.host)

    def host(self, name: str) -> Host:
        found = super().host(name)
        assert found is not None
        return found

    def free(self, name: str) -> float:
        """MB of memory."""
        return self.host(name).free[0]

    def hear(self, report: HostReport) -> None:  # type: ignore[override]
        self.now += 0.01
        super().hear(report, self.now)

    def change(self, name: str, **more: Any) -> None:  # type: ignore[override]
        host = self.host(name)
        super().change(name, more.get("kind", host.kind), more.get("out", host.out))

    def place(self, request: PlacementRequest) -> tuple[Placement, ...]:  # type: ignore[override]
        return super().place(request, "kvm", self.now)

    def plan(self, request: PlacementRequest) -> tuple[Placement, ...]:
        return super().place(request, "kvm", self.now, keep=False)

    def try_place(self, request: PlacementRequest) -> tuple[Placement, ...]:
        try:
            return self.place(request)
        except NoValidHost:
            return ()

    def of(self, server: str) -> list[str]:
        """The server's allocations."""
        return [a for host in self.hosts() for a, claim in host.claims.items() if claim.server_id == server]

    def release_all(self, *servers: str) -> None:
        """All that these servers have."""
        for server in servers:
            for allocation in self.of(server):
                self.release(allocation)
