"""How much of a host's network and disks a server may use: pure, from its order.

Nova's extra specs (`quota:vif_*`, `quota:disk_*`) limit each interface and each disk; what the scheduler counted
(`BuildOrder.net_bandwidth`, `disk_bandwidth`, `disk_shares`) limits the server, all its interfaces or disks together.
"""

from collections.abc import Mapping, Sequence

import msgspec

from nacre.base.errors import BuildFailed
from nacre.node.contract import BuildOrder

#: Nova's names of a disk's limits, which are libvirt's too but for the prefix.
DISK_QUOTAS = ("read_bytes_sec", "write_bytes_sec", "total_bytes_sec", "read_iops_sec", "write_iops_sec",
               "total_iops_sec")
#: No limit is larger, as libvirt and Open vSwitch keep them.
MOST = 10**15
MEGA = 1_000_000


class Rate(msgspec.Struct, frozen=True):
    """One interface's, in kbit/s; 0: no limit."""

    from_guest: int = 0
    to_guest: int = 0


class Throttle(msgspec.Struct, frozen=True, kw_only=True):
    """A server's disks'. each: limits of every single disk, by libvirt's names; together: bytes a second of all."""

    each: dict[str, int] = {}
    together: int = 0


def rates(order: BuildOrder, port_ids: Sequence[str]) -> dict[str, Rate]:
    """The limits of a server's interfaces; those without one are left out. Raises BuildFailed: no number."""
    out, inward = (8 * _number(order.extra_specs, f"quota:vif_{way}_average") for way in ("outbound", "inbound"))
    if order.net_bandwidth and not out and not inward and port_ids:
        out = inward = max(1, order.net_bandwidth * 1000 // len(port_ids))
    return dict.fromkeys(port_ids, Rate(out, inward)) if out or inward else {}


def throttle(order: BuildOrder) -> Throttle:
    """The limits of a server's disks. Raises BuildFailed: no number, or a total beside its parts."""
    each = {name: value for name in DISK_QUOTAS if (value := _number(order.extra_specs, f"quota:disk_{name}"))}
    for kind in ("bytes", "iops"):
        if f"total_{kind}_sec" in each and {f"read_{kind}_sec", f"write_{kind}_sec"} & set(each):
            raise BuildFailed(f"quota:disk_total_{kind}_sec cannot stand beside quota:disk_read_{kind}_sec or "
                              f"quota:disk_write_{kind}_sec")
    told = [order.disk_bandwidth * MEGA] if order.disk_bandwidth and not any("bytes" in name for name in each) else []
    if order.disk_shares and order.directory_bandwidth and order.limit_disk_shares < float("inf"):
        told.append(int(order.directory_bandwidth * MEGA * order.disk_shares / order.limit_disk_shares))
    return Throttle(each=each, together=min(told, default=0))


def _number(specs: Mapping[str, str], name: str) -> int:
    text = specs.get(name, "")
    if text and not (text.isascii() and text.isdigit() and len(text) < 17 and int(text) <= MOST):
        raise BuildFailed(f"extra spec {name} must be a whole number of 0 to {MOST}, not {text[:40]}")
    return int(text or 0)
