"""How much of a host's network, disks and processors a server may use: pure, from its order.

Nova's extra specs (`quota:vif_*`, `quota:disk_*`, `quota:cpu_*`) limit each interface, each disk and each processor;
what the scheduler counted (`BuildOrder.net_bandwidth`, `disk_bandwidth`, `disk_shares`) limits the server, all its
interfaces or disks together.
"""

from collections.abc import Mapping, Sequence

import msgspec

from nacre.base.errors import BuildFailed
from nacre.node.contract import BuildOrder

#: Nova's names of a disk's limits, which are libvirt's too but for the prefix.
DISK_QUOTAS = ("read_bytes_sec", "write_bytes_sec", "total_bytes_sec", "read_iops_sec", "write_iops_sec",
               "total_iops_sec")
#: Nova's names of a processor's limits, which are libvirt's too but for the prefix, and what the kernel takes:
#: a weight, and microseconds of each period.
CPU_QUOTAS = {"shares": (2, 262144), "period": (1000, 10**6), "quota": (1000, 17592186044415)}
#: No limit is larger, as QEMU keeps them.
MOST = 10**15
#: Kbit/s: no meter of OpenFlow has more, so whoever asks for more has this.
MOST_RATE = 4 * 10**9
MEGA = 1_000_000


class Rate(msgspec.Struct, frozen=True):
    """One interface's, in kbit/s; 0: no limit. Bursts: kbit that may pass at once, if that is
    more than suits the rate."""

    from_guest: int = 0
    to_guest: int = 0
    burst_from: int = 0
    burst_to: int = 0


class Throttle(msgspec.Struct, frozen=True, kw_only=True):
    """A server's disks', by libvirt's names. shared: of all its disks together, else of every single one."""

    limits: dict[str, int] = {}
    shared: bool = False


def rates(order: BuildOrder, port_ids: Sequence[str]) -> dict[str, Rate]:
    """The limits of a server's interfaces; those without one are left out. Raises BuildFailed: no number."""
    out, inward, burst_out, burst_in, *_ = (
        min(MOST_RATE, 8 * _number(order.extra_specs, f"quota:vif_{way}_{what}"))  # kilobytes
        for what in ("average", "burst", "peak") for way in ("outbound", "inbound"))
    if order.net_bandwidth and not out and not inward and port_ids:
        out = inward = min(MOST_RATE, max(1, order.net_bandwidth * 1000 // len(port_ids)))
    rate = Rate(out, inward, out and burst_out, inward and burst_in)
    return dict.fromkeys(port_ids, rate) if out or inward else {}


def throttle(order: BuildOrder) -> Throttle:
    """The limits of a server's disks. Raises BuildFailed: no number, or a total beside its parts, which libvirt does
    not take."""
    each = {name: value for name in DISK_QUOTAS if (value := _number(order.extra_specs, f"quota:disk_{name}"))}
    for kind in ("bytes", "iops"):
        if f"total_{kind}_sec" in each:
            _apart(each, kind, f"quota:disk_total_{kind}_sec")
    told = [order.disk_bandwidth * MEGA] if order.disk_bandwidth and not any("bytes" in name for name in each) else []
    if order.disk_shares and order.directory_bandwidth and order.limit_disk_shares < float("inf"):
        told.append(int(order.directory_bandwidth * MEGA * order.disk_shares / order.limit_disk_shares))
    if not told:
        return Throttle(limits=each)
    _apart(each, "bytes", "disk_shares")
    # QEMU has one bucket a disk, so a quota that is lower counts for all disks together, too.
    least = max(1, min(*told, each.get("total_bytes_sec", MOST)))
    return Throttle(limits=each | {"total_bytes_sec": least}, shared=True)


def processors(order: BuildOrder) -> dict[str, int]:
    """The limits of each of a server's processors, by libvirt's names. Raises BuildFailed: no number, or too large."""
    specs = {name: text for name, text in order.extra_specs.items()
             if name != "quota:cpu_quota" or text != "-1"}  # Nova's other word for no limit
    return {name: value for name, bounds in CPU_QUOTAS.items()
            if (value := _number(specs, f"quota:cpu_{name}", bounds))}


def check(order: BuildOrder) -> None:
    """Raises BuildFailed: limits that no host can hold, before anything is done for them."""
    processors(order)
    throttle(order)
    rates(order, [""])


def _apart(each: Mapping[str, int], kind: str, other: str) -> None:
    if parts := [f"quota:disk_{name}" for way in ("read", "write") if (name := f"{way}_{kind}_sec") in each]:
        raise BuildFailed(f"{other} cannot stand beside {' and '.join(parts)}: a disk has one limit for both "
                          "directions, or one for each", type="BadExtraSpecs")


def _number(specs: Mapping[str, str], name: str, bounds: tuple[int, int] = (1, MOST)) -> int:
    """Within bounds, or 0: no limit."""
    text = specs.get(name) or "0"
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 17 else -1
    if number and not bounds[0] <= number <= bounds[1]:
        raise BuildFailed(f"extra spec {name} must be a whole number of {bounds[0]} to {bounds[1]}, or 0 for no limit, "
                          f"not {text[:40]}", type="BadExtraSpecs")
    return number
