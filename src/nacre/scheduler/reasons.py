"""Why: the words of a decision, for the user who asked and for the operator."""

from collections import Counter
from collections.abc import Sequence

from nacre.scheduler.hosts import RESOURCES

#: How a resource's amount is said.
UNITS = {"memory_mb": "{} MB of memory", "vcpus": "{} vcpus", "disk_mb": "{} MB of disk",
         "net_bandwidth": "{} Mbit/s of network bandwidth", "disk_bandwidth": "{} MB/s of disk bandwidth",
         "disk_shares": "{} shares of a disk"}
LACK = tuple("lack " + UNITS[name] for name in RESOURCES)


def amount(resource: int, value: float) -> str:
    """"512 MB of memory"."""
    return UNITS[RESOURCES[resource]].format(f"{value:g}" if value != int(value) else int(value))


def explain(reasons: Counter[str], fit: int = 0) -> str:
    """"0 of 40 hosts fit: 31 lack 2048 MB of memory, 1 is disabled"."""
    others = [(n, why) for why, n in reasons.most_common() if n]
    total = fit + sum(n for n, _ in others)
    if not total:
        return "There are no hosts in the queue asked for"
    words = f"{fit} of {total} hosts looked at fit" if fit else f"0 of {total} hosts fit"
    return words + (": " + ", ".join(f"{n} {of_one(why) if n == 1 else why}" for n, why in others) if others else "")


_SINGULAR = {"are": "is", "have": "has", "do": "does"}


def of_one(reason: str) -> str:
    """What is said of several hosts, of one: "are disabled" becomes "is disabled", "take no orders" "takes no
    orders"."""
    verb, _, rest = reason.partition(" ")
    return f"{_SINGULAR.get(verb, verb + 's')} {rest}"


def near_miss(free: Sequence[float], need: Sequence[float]) -> str:
    """"lacks 512 MB of memory and 1 vcpus": what the nearest host has too little of."""
    lacks = [amount(n, wanted - has) for n, (has, wanted) in enumerate(zip(free, need, strict=True)) if has < wanted]
    return f"lacks {' and '.join(lacks)}"
