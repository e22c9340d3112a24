"""What the control side may ask of a host.

Every order names its cloud and epoch: a host takes orders of its own cloud, and none of a lower epoch than it has seen
for a server. Long work is answered soon, done or not: who waits asks again (a repeated order joins the work) and sees.
"""

from typing import Annotated, Protocol

import msgspec
from msgspec import Meta

from nacre.base import bounds
from nacre.base.rpc.target import Target
from nacre.image.contract import ImageFacts
from nacre.network.contract import MOST_GROUPS, Differences, GroupMembers, NetworkFacts, PortFacts

#: The step of work that has not begun: others of the host come first.
WAITING = "waits for its turn"
#: The most of a console's log that is shown, in characters, as in Nova: each may be 6 bytes of JSON. And what a host of
#: the release before answers at most.
CONSOLE, MOST_CONSOLE = 100 << 10, 1 << 20
TARGET = Target(topic="node", namespace="node", version="2.0", foreign=True)


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
    """One server for one host. Sizes: memory MB, disks GB, swap MB. limit_disk_mb: of selected_dir, where the host has
    several. guest: without what only the guest is to know. position, era: of the database, when this was decided."""

    cloud: str
    allocation: str
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
    position: int = 0
    era: str = ""
    domain_name: str = ""  # instance-0000002a-4e1fe8e1

    @property
    def disk_mb(self) -> int:
        """FLOW A9."""
        return 1024 * (self.root_gb + self.ephemeral_gb) + self.swap_mb


class SpawnOrder(msgspec.Struct, frozen=True, kw_only=True):
    """The interfaces to plug, beside the BuildOrder that the host has; guest: never in the host's journal."""

    cloud: str
    allocation: str
    server_id: str
    epoch: int
    ports: tuple[PortFacts, ...]
    networks: tuple[NetworkFacts, ...]
    guest: GuestFacts | None = None


class EndOrder(msgspec.Struct, frozen=True, kw_only=True):
    """Whatever the host has of an allocation goes: its row in the database says so, with this epoch."""

    cloud: str
    allocation: str
    server_id: str
    epoch: int


class PowerOrder(msgspec.Struct, frozen=True, kw_only=True):
    """action: start, stop, reboot-soft, reboot-hard. epoch: its own, so that it is done once."""

    cloud: str
    allocation: str
    server_id: str
    epoch: int
    action: str


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One timed piece of work on the host, for the server's timeline. Times: seconds since the epoch."""

    name: bounds.Short
    started: bounds.Size
    finished: bounds.Size


class Guest(msgspec.Struct, frozen=True, kw_only=True):
    """A server as its host sees it. number: later than every report that does not know of this yet."""

    server_id: bounds.Id
    power: bounds.Word
    number: tuple[bounds.Count, bounds.Count] = (0, 0)
    steps: Annotated[tuple[Step, ...], Meta(max_length=100)] = ()


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """How far an order is. guest: once done. step, moved, total (bytes): while they change, the work moves."""

    done: bool
    step: bounds.Short = ""
    moved: bounds.Count = 0
    total: bounds.Count = 0
    guest: Guest | None = None


class Orphan(msgspec.Struct, frozen=True, kw_only=True):
    """Something that a host has, as it remembers it: unchecked. order None: its journal lost it. stage: as there."""

    allocation: bounds.Id
    server_id: bounds.Id
    power: bounds.Word
    order: BuildOrder | None
    epoch: bounds.Epoch = 0
    stage: bounds.Word = ""
    ports: Annotated[tuple[PortFacts, ...], Meta(max_length=1000)] = ()
    networks: Annotated[tuple[NetworkFacts, ...], Meta(max_length=1000)] = ()


class Node(Protocol):
    """A compute host. Raises Refused (nothing changed here: next host) or BuildFailed (tried, taken back)."""

    async def prepare(self, order: BuildOrder) -> Work:
        """The claim: cpu, memory and disk within the order's limits, on disk before anything is done. Then the image
        into the cache, checked, and the disks made."""
        ...

    async def spawn(self, order: SpawnOrder) -> Work:
        """Config drive, domain, interfaces wired before its first frame, started, waited for."""
        ...

    async def end(self, order: EndOrder) -> Work:
        """Undoes whatever the allocation has here: domain, disks, taps, claim. Later orders of that epoch are refused,
        so the answer is the proof that another host may be tried."""
        ...

    async def power(self, order: PowerOrder) -> Work:
        """Done once: repeated, it is answered with what there is. Raises Refused: a later order was seen."""
        ...

    async def console(self, server_id: str, lines: int | None) -> Annotated[str, Meta(max_length=MOST_CONSOLE)]:
        """The end of the serial console's log; whole if `lines` is None."""
        ...

    async def describe(self, allocations: tuple[str, ...]) -> Annotated[tuple[Orphan, ...], Meta(max_length=10_000)]:
        """What is known here of these allocations."""
        ...

    async def rewire(self, port_ids: tuple[str, ...], n: int = 0, before: int = 0) -> None:
        """These ports (empty: any) changed: fetch and apply. n, before: this host's change and the one before it."""
        ...

    async def differ(self, news: Differences) -> None:
        """Members of security groups, or ports of networks, changed: to be taken where nothing is missed between."""
        ...

    async def regroup(self, news: Annotated[tuple[GroupMembers, ...], Meta(max_length=MOST_GROUPS)]) -> None:
        """As `differ`; so a host of the release before hears of members."""
        ...
