"""Pure: what a server takes of its host, from its flavor, the flavor's extra specs and the user's hints.

A flavor's word counts before a hint: whoever may choose a flavor cannot ask for more than it gives.
"""

import math
from collections.abc import Mapping

from nacre.base.errors import BadRequest
from nacre.compute.contract import Server
from nacre.scheduler.contract import Amounts

#: Our own extra specs begin so; the rest of the name is the hint's.
SCOPE = "nacre:"
#: No amount is larger.
MOST = 10**7


def amounts(server: Server) -> Amounts:
    """FLOW A9 and the extra resources. Raises BadRequest: an extra spec or hint is no number."""
    f, specs, hints = server.flavor, server.flavor.extra_specs, server.hints
    network = _number(specs, SCOPE + "network_bandwidth") or _network(specs) or _number(hints, "network_bandwidth")
    disk = _number(specs, SCOPE + "disk_bandwidth") or _disk(specs) or _number(hints, "disk_bandwidth")
    return Amounts(
        memory_mb=f.memory_mb, vcpus=f.vcpus, disk_mb=1024 * (f.root_gb + f.ephemeral_gb) + f.swap_mb,
        net_bandwidth=network, disk_bandwidth=disk,
        disk_shares=_number(specs, SCOPE + "disk_shares") or _number(hints, "disk_shares"),
        disk=specs.get(SCOPE + "selected_dir") or str(hints.get("selected_dir") or ""))


def _network(specs: Mapping[str, str]) -> int:
    """Nova's `quota:vif_*_average` are kilobytes a second; the larger direction counts, in Mbit/s."""
    most = max(_number(specs, f"quota:vif_{way}_average", 1 << 40) for way in ("inbound", "outbound"))
    return math.ceil(most * 8 / 1000)


def _disk(specs: Mapping[str, str]) -> int:
    """Nova's `quota:disk_*_bytes_sec`, in MB/s; reading and writing together."""
    total = _number(specs, "quota:disk_total_bytes_sec", 1 << 50) or sum(
        _number(specs, f"quota:disk_{way}_bytes_sec", 1 << 50) for way in ("read", "write"))
    return math.ceil(total / 1e6)


def _number(given: Mapping[str, object], name: str, most: int = MOST) -> int:
    """A number of 0 to `most`; 0 if there is none."""
    value = given.get(name)
    if value is None or value == "":
        return 0
    text = str(value)
    if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text) <= most):
        raise BadRequest(f"{name} must be a whole number of 0 to {most}.", field=name)
    return int(text)
