"""What the control side may ask of a host. Every verb carries the attempt's epoch; a host refuses lower epochs than it
has seen for a server (Refused), joins a call that is still running, and answers a repeated one from what is there."""

from typing import Protocol

import msgspec

from nacre.base.rpc.target import Target, cast
from nacre.image.contract import ImageFacts
from nacre.network.contract import NetworkFacts, PortFacts

TARGET = Target(topic="node", namespace="node", version="1.0")


class GuestFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a guest is told about itself, by config drive and metadata alike."""

    id: str
    name: str
    hostname: str
    project_id: str
    user_id: str
    availability_zone: str
    launch_index: int = 0
    metadata: dict[str, str] = {}
    keys: tuple[tuple[str, str, str], ...] = ()  # (name, type, public key)
    user_data: str | None = None  # base64
    admin_password: str | None = None
    files: tuple[tuple[str, str], ...] = ()  # (path, base64 content)
    reservation_id: str = ""
    flavor_name: str = ""
    image_id: str = ""
    created_at: str = ""
    security_groups: tuple[str, ...] = ()


class BuildOrder(msgspec.Struct, frozen=True, kw_only=True):
    """One server for one host: made once in the conductor. Sizes: memory MB, disks GB, swap MB. limit_disk_mb: of
    selected_dir, where the host has several."""

    server_id: str
    epoch: int
    memory_mb: int
    vcpus: int
    root_gb: int
    ephemeral_gb: int
    swap_mb: int
    limit_vcpus: float
    limit_memory_mb: float
    limit_disk_mb: float
    guest: GuestFacts
    image: ImageFacts | None
    kernel: ImageFacts | None = None
    ramdisk: ImageFacts | None = None
    config_drive: bool = False
    inject_network: bool = False
    extra_specs: dict[str, str] = {}
    #: Claimed and enforced: Mbit/s each way, MB/s read and written together, parts of a directory's I/O.
    net_bandwidth: int = 0
    disk_bandwidth: int = 0
    disk_shares: int = 0
    selected_dir: str = ""  # which of the host's several disk directories; empty: it has one
    directory_bandwidth: int = 0  # MB/s that the directory's shares are parts of
    limit_net_bandwidth: float = float("inf")
    limit_disk_bandwidth: float = float("inf")
    limit_disk_shares: float = float("inf")
    domain_name: str = ""  # instance-0000002a-4e1fe8e1

    @property
    def disk_mb(self) -> int:
        """FLOW A9."""
        return 1024 * (self.root_gb + self.ephemeral_gb) + self.swap_mb


class SpawnOrder(msgspec.Struct, frozen=True, kw_only=True):
    """The interfaces to plug: goes with the BuildOrder the host already has."""

    server_id: str
    epoch: int
    ports: tuple[PortFacts, ...]
    networks: tuple[NetworkFacts, ...]
    paused: bool = False


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One timed piece of work on the host, for the server's timeline. Times: seconds since the epoch."""

    name: str
    started: float
    finished: float


class Guest(msgspec.Struct, frozen=True, kw_only=True):
    """A server as the host sees it. power: running, paused, shutdown, crashed, missing."""

    server_id: str
    epoch: int
    power: str
    claimed: bool
    steps: tuple[Step, ...] = ()


class Node(Protocol):
    """A compute host. Raises Refused (nothing changed here: next host) or BuildFailed (tried, taken back)."""

    async def claim(self, order: BuildOrder) -> None:
        """Takes cpu, memory and disk within the order's limits, written through to disk before it answers."""
        ...

    async def prepare(self, server_id: str, epoch: int) -> tuple[Step, ...]:
        """Image into the cache, checked; disks made."""
        ...

    async def spawn(self, order: SpawnOrder) -> Guest:
        """Config drive, domain, interfaces wired before its first frame, started, waited for."""
        ...

    async def abort(self, server_id: str, epoch: int) -> None:
        """Undoes whatever attempt `epoch` (or a lower one) had here: domain, disks, taps, claim. Later calls of that
        epoch are refused, so the answer is the proof that another host may be tried."""
        ...

    async def destroy(self, server_id: str, epoch: int) -> None:
        """The server is deleted: as `abort`, for a server that ran."""
        ...

    async def power(self, server_id: str, epoch: int, action: str) -> Guest:
        """action: start, stop, reboot-soft, reboot-hard (idempotent towards the wanted state)."""
        ...

    async def console(self, server_id: str, lines: int | None) -> str:
        """The end of the serial console's log; whole if `lines` is None."""
        ...

    async def inventory(self) -> tuple[Guest, ...]:
        """Every server this host knows of."""
        ...

    @cast
    async def rewire(self, port_ids: tuple[str, ...]) -> None:
        """Something about these ports (empty: anything) changed: fetch the wiring and apply it."""
        ...
