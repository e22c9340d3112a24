"""What is to be simulated."""

import msgspec

from nacre.base.errors import NacreError


class Size(msgspec.Struct, frozen=True, kw_only=True):
    """A flavor and how often it is asked for, against the others' shares."""

    name: str
    memory_mb: int
    vcpus: int
    disk_gb: int
    share: float = 1.0


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """rate: creates a virtual second, at random moments. lifetime: a server's mean one, in virtual seconds (half to one
    and a half of it). spawn_seconds: how long a host takes to start a guest; fault_rate: the share that it fails to.
    ports: one for each server. sample: virtual seconds between two looks at the hosts. drain: delete all at the end."""

    hosts: int
    servers: int
    rate: float
    lifetime: float
    sizes: tuple[Size, ...]
    seed: int = 0
    spawn_seconds: float = 0.0
    fault_rate: float = 0.0
    ports: bool = False
    sample: float = 2.0
    drain: bool = False

    @property
    def largest(self) -> Size:
        """The flavor that is hardest to place."""
        return max(self.sizes, key=lambda s: (s.memory_mb, s.vcpus, s.disk_gb))


def sizes(text: str) -> tuple[Size, ...]:
    """`m1.tiny:512:1:1,m1.large:8192:4:80:0.1`: name, memory MB, vcpus, disk GB, share. Raises NacreError."""
    found = []
    for part in text.split(","):
        try:
            name, memory, vcpus, disk, *rest = part.strip().split(":")
            size = Size(name=name, memory_mb=int(memory), vcpus=int(vcpus), disk_gb=int(disk),
                        share=float(rest[0]) if rest else 1.0)
        except ValueError:
            raise NacreError(f"--flavors: {part!r} is not NAME:MEMORY_MB:VCPUS:DISK_GB or that with :SHARE.") from None
        if not name or min(size.memory_mb, size.vcpus) < 1 or size.disk_gb < 0 or not size.share > 0 or len(rest) > 1:
            raise NacreError(f"--flavors: {part!r} has a number that no flavor may have.")
        found.append(size)
    if len({s.name for s in found}) < len(found):
        raise NacreError("--flavors: two flavors have the same name.")
    return tuple(found)
