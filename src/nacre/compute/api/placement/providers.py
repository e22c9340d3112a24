"""Hosts as resource providers: what each has, and what of it is taken. Pure."""

import math
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

import msgspec

from nacre.scheduler.contract import Allocation, Amounts, HostState

#: What servers take of a host.
CLASSES = ("DISK_GB", "MEMORY_MB", "VCPU")
_IMAGES = tuple(f"COMPUTE_IMAGE_TYPE_{name}" for name in (
    "AKI", "AMI", "ARI", "ISO", "QCOW2", "RAW", "VDI", "VHD", "VHDX", "VMDK"))
_NONE = frozenset[str]()


class Provider(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """A host with its allocations."""

    uuid: str
    name: str
    generation: int
    inventories: dict[str, dict[str, Any]]
    traits: frozenset[str]
    allocations: tuple[Allocation, ...] = ()
    aggregates: tuple[str, ...] = ()
    roomiest_gb: float = float("inf")  # free in the disk directory that has most: a server's disks lie in one

    @cached_property
    def usages(self) -> dict[str, int]:
        """What its allocations take, by class."""
        return total(allocation.amounts for allocation in self.allocations)

    def has(self, name: str, amount: int) -> bool:
        """Whether so much of a class is free."""
        own = self.inventories.get(name)
        return own is not None and own["min_unit"] <= amount <= own["max_unit"] and (
            self.usages[name] + amount <= self.capacity(name)) and (name != "DISK_GB" or amount <= self.roomiest_gb)

    def capacity(self, name: str) -> int:
        """How much of a class there is for allocations."""
        own = self.inventories[name]
        return int((own["total"] - own["reserved"]) * own["allocation_ratio"])


def provider(host: HostState, allocations: Iterable[Allocation], aggregates: Iterable[str]) -> Provider:
    """The provider that a host is."""
    r, taken = host.report, tuple(allocations)
    free = {d.path: d.total_mb * r.disk_ratio for d in r.disks}
    for each in taken:
        if each.amounts.disk in free:
            free[each.amounts.disk] -= each.amounts.disk_mb
    # What is reserved is so after the ratio where servers are placed, and before it in placement's words.
    reserved = min(math.ceil(r.reserved_memory_mb / r.ram_ratio), r.memory_mb)
    return Provider(
        uuid=host.uuid, name=r.host, generation=r.n, allocations=taken, aggregates=tuple(aggregates),
        roomiest_gb=max(free.values(), default=float("inf")) / 1024,
        inventories={"VCPU": _inventory(r.vcpus, r.cpu_ratio),
                     "MEMORY_MB": _inventory(r.memory_mb, r.ram_ratio, reserved),
                     "DISK_GB": _inventory(r.disk_gb, r.disk_ratio)},
        traits=frozenset({*_IMAGES, "COMPUTE_NODE", f"HW_ARCH_{r.architecture.upper()}",
                          *(("COMPUTE_STATUS_DISABLED",) if host.disabled else ())}))


def _inventory(amount: int, ratio: float, reserved: int = 0) -> dict[str, Any]:
    return {"total": amount, "reserved": reserved, "min_unit": 1, "max_unit": max(amount, 1), "step_size": 1,
            "allocation_ratio": ratio}


def resources(amounts: Amounts) -> dict[str, int]:
    """What one allocation takes, by class; without what it takes nothing of."""
    found = {"VCPU": amounts.vcpus, "MEMORY_MB": amounts.memory_mb, "DISK_GB": -(-amounts.disk_mb // 1024)}
    return {name: amount for name, amount in found.items() if amount}


def total(all_amounts: Iterable[Amounts]) -> dict[str, int]:
    """The sum, every class named."""
    found = dict.fromkeys(CLASSES, 0)
    for amounts in all_amounts:
        for name, amount in resources(amounts).items():
            found[name] += amount
    return found


def traits(providers: Iterable[Provider], *, associated: bool | None = None) -> list[str]:
    """Every trait known here. associated: only those that some provider has, or has not."""
    had = {trait for one in providers for trait in one.traits}
    every = {*_IMAGES, "COMPUTE_NODE", "COMPUTE_STATUS_DISABLED"} | had
    return sorted(every if associated is None else had if associated else every - had)


def fits(one: Provider, wanted: Mapping[str, Any]) -> bool:
    """Whether a provider is one that a list asks for, by `name`, `uuid`, `in_tree`, `resources`, and lists of sets of
    `required` and `member_of`: one of each set; `forbidden`, `not_in`: none of these."""
    return (
        wanted.get("name") in (None, one.name) and wanted.get("uuid") in (None, one.uuid)
        and wanted.get("in_tree") in (None, one.uuid)
        and all(one.has(name, amount) for name, amount in wanted.get("resources", {}).items())
        and not any(one.traits.isdisjoint(some) for some in wanted.get("required", ()))
        and one.traits.isdisjoint(wanted.get("forbidden", ()))
        and not any(some.isdisjoint(one.aggregates) for some in wanted.get("member_of", ()))
        and wanted.get("not_in", _NONE).isdisjoint(one.aggregates))
