"""What others may ask of compute: servers as they are, what a create asks for, and the verbs of both."""

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Protocol

import msgspec

from nacre.base.context import Context
from nacre.base.durable.processes import Guard
from nacre.base.durable.stories import Lease
from nacre.network.contract import NetworkRequest
from nacre.node.contract import Guest, GuestFacts, Orphan
from nacre.scheduler.contract import Allocation, Amounts, Held


class ServerFlavor(msgspec.Struct, frozen=True, kw_only=True):
    """The size a server was made with: a copy, so that it outlives the flavor. Memory and swap MB, disks GB."""

    id: str
    name: str
    memory_mb: int
    vcpus: int
    root_gb: int
    ephemeral_gb: int = 0
    swap_mb: int = 0
    extra_specs: dict[str, str] = {}


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """Why a server is in ERROR."""

    code: int
    message: str
    created_at: datetime
    details: str = ""


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """One server, with all that its views need but its ports. Times are naive UTC."""

    id: str
    name: str
    project_id: str
    user_id: str
    vm_state: str  # building, active, stopped, error, deleted, ...
    created_at: datetime
    flavor: ServerFlavor
    task_state: str | None = None
    power_state: str = ""  # running, paused, shutdown, crashed; empty: not known
    epoch: int = 0
    allocation_id: str = ""
    host: str = ""
    availability_zone: str | None = None
    pinned_zone: str | None = None  # the zone the user asked for
    updated_at: datetime | None = None
    launched_at: datetime | None = None
    terminated_at: datetime | None = None
    deleted: bool = False
    metadata: dict[str, str] = {}
    tags: tuple[str, ...] = ()
    image_id: str = ""
    image_properties: dict[str, str] = {}
    kernel_id: str = ""
    ramdisk_id: str = ""
    key_name: str | None = None
    description: str | None = None
    hostname: str = ""
    access_ip_v4: str | None = None
    access_ip_v6: str | None = None
    disk_config: str = "MANUAL"
    config_drive: bool = False
    user_data: str | None = None
    reservation_id: str = ""
    launch_index: int = 0
    root_device_name: str = "/dev/vda"
    domain_name: str = ""
    locked: bool = False
    locked_reason: str | None = None
    locked_by: str | None = None  # owner; admin: somebody of another project
    trusted_certs: tuple[str, ...] = ()
    group_id: str | None = None
    hints: dict[str, object] = {}
    fault: Fault | None = None


class ServerSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What a create asks for, already parsed: FLOW A2. `networks` None: the client named none; empty is "none"."""

    name: str
    flavor_id: str
    image_id: str
    networks: tuple[NetworkRequest, ...] | None = None
    min_count: int = 1
    max_count: int = 1
    description: str | None = None
    hostname: str | None = None
    metadata: dict[str, str] = {}
    tags: tuple[str, ...] = ()
    key_name: str | None = None
    security_groups: tuple[str, ...] = ()
    availability_zone: str | None = None
    host: str | None = None  # forced: administrators only, checked at the edge
    user_data: str | None = None
    files: tuple[tuple[str, str], ...] = ()
    admin_password: str | None = None
    access_ip_v4: str | None = None
    access_ip_v6: str | None = None
    config_drive: bool = False
    disk_config: str = "MANUAL"
    kernel_id: str = ""
    ramdisk_id: str = ""
    trusted_certs: tuple[str, ...] = ()
    hints: dict[str, object] = {}


class ServerQuery(msgspec.Struct, frozen=True, kw_only=True):
    """All conditions hold at once. Field names are those of `Server`; `flavor_id` is the flavor's id.

    deleted None: deleted servers as well. addresses: (IP version, regular expression). sort: (field, descending).
    """

    fields: tuple[tuple[str, str], ...] = ()
    patterns: tuple[tuple[str, str], ...] = ()
    vm_states: tuple[str, ...] = ()
    task_states: tuple[str, ...] = ()
    power_states: tuple[str, ...] = ()
    changes_since: datetime | None = None
    changes_before: datetime | None = None
    times: tuple[tuple[str, datetime], ...] = ()
    deleted: bool | None = False
    tags: tuple[str, ...] = ()
    tags_any: tuple[str, ...] = ()
    not_tags: tuple[str, ...] = ()
    not_tags_any: tuple[str, ...] = ()
    locked: bool | None = None
    config_drive: bool | None = None
    addresses: tuple[tuple[int, str], ...] = ()
    sort: tuple[tuple[str, bool], ...] = (("created_at", True),)
    limit: int = 1000
    marker: str | None = None


class StoryOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What a story works on. A build: all the servers of one request, and what only their build needs."""

    context: Context
    server_ids: tuple[str, ...]
    spec: ServerSpec | None = None
    action: str = ""  # of a power story


class Action(msgspec.Struct, frozen=True, kw_only=True):
    """Something that was done to a server."""

    action: str
    request_id: str
    project_id: str | None
    user_id: str | None
    started_at: datetime
    updated_at: datetime | None = None
    message: str | None = None


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One timed step of an action. result: Success or Error."""

    name: str
    started_at: datetime
    finished_at: datetime | None = None
    host: str | None = None
    result: str | None = None
    details: str | None = None


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where an attempt builds a server. allocation: the id that it will have."""

    allocation: str
    host: str
    zone: str
    amounts: Amounts


class Audit(msgspec.Struct, frozen=True, kw_only=True):
    """What the database says of a host's allocations: which it must give up, which the database does not know, and
    which are of a later epoch than it knows (so that it is older than the host's own knowledge)."""

    ending: tuple[Allocation, ...] = ()
    unknown: tuple[str, ...] = ()
    later: tuple[str, ...] = ()


class Adoption(msgspec.Struct, frozen=True, kw_only=True):
    """A guest that a host has and the database does not know, to be a server of this project again."""

    context: Context  # the operator's
    host: str
    found: Orphan
    name: str
    project_id: str
    user_id: str
    zone: str
    amounts: Amounts


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """A server group with its members of now."""

    policy: str
    max_per_host: int
    members: tuple[str, ...]


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How a story ended for one server. message: the fault's words, for the user; details: for administrators.
    task: the server's that ends with it, where another may have begun meanwhile."""

    server_id: str
    request_id: str
    task: str = ""
    steps: tuple[Event, ...] = ()
    guest: Guest | None = None  # as its host saw it last
    message: str | None = None
    details: str = ""

    @property
    def action_message(self) -> str | None:
        """What the action's record says of a failure."""
        return "Error" if self.message else None


class Servers(Protocol):
    """The verbs of servers that stories (build, delete, power) begin with."""

    async def create(self, context: Context, specs: tuple[ServerSpec, ...]) -> tuple[Server, ...]:
        """All or none; committed, with their stories, when this answers. Raises BadRequest, NotFound, QuotaExceeded."""
        ...

    async def delete(self, context: Context, server: Server) -> None: ...

    async def power(self, context: Context, server: Server, action: str) -> None:
        """action: start, stop, reboot-soft, reboot-hard. Raises Conflict in a state that forbids it."""
        ...


class Ledger(Protocol):
    """The allocations (implemented in `allocations.py`, where each verb is described)."""

    async def of_server(self, server_id: str) -> list[Allocation]: ...
    async def of(self, ids: Collection[str] | None) -> Sequence[Allocation]: ...
    async def ending(self) -> list[Allocation]: ...
    async def audit(self, host: str, held: Iterable[Held]) -> Audit: ...
    async def allocate(self, lease: Lease, server_id: str, place: Place) -> tuple[Allocation, GuestFacts] | None: ...
    async def give_up(self, lease: Lease, allocation: Allocation) -> bool: ...
    async def end_all(self, lease: Lease, server_id: str) -> list[Allocation]: ...
    async def ended(self, allocation: Allocation, *, freed: bool) -> None: ...
    async def is_over(self, allocation: Allocation) -> bool: ...
    def over(self, allocation: Allocation) -> Guard: ...
    def alone(self, allocation: Allocation) -> Guard: ...
    async def catch_up(self, host: str, held: Iterable[Held], word: Guard) -> None: ...


class LedgerAdmin(Protocol):
    """What operators do to it (implemented in `ledger_admin.py`, where each verb is described)."""

    async def check(self, guard: Guard) -> None: ...
    def free_of(self, host: str, *, dead: bool = False) -> Guard: ...
    def unknown(self, found: Orphan) -> Guard: ...
    async def adopt(self, order: Adoption) -> Server: ...
    async def forget(self, host: str, found: Orphan, amounts: Amounts, *, sure: bool = False) -> Allocation: ...


class Progress(Protocol):
    """How stories move servers on (implemented in `progress.py`, where each verb is described)."""

    async def load(self, server_ids: Iterable[str]) -> list[Server]: ...
    async def group(self, group_id: str) -> Group | None: ...
    async def guest_facts(self, host: str, server_id: str) -> GuestFacts: ...
    async def built(self, lease: Lease, allocation: Allocation, outcome: Outcome, *, last: bool) -> bool: ...
    async def failed(self, lease: Lease, outcome: Outcome, *, freed: bool) -> bool: ...
    async def powered(self, lease: Lease, event: str, outcome: Outcome) -> bool: ...
    async def deleted(self, lease: Lease, outcome: Outcome, gone: Sequence[Allocation]) -> bool: ...
    async def noticed(self, host: str, number: tuple[int, int], held: Iterable[Held]) -> set[str]: ...
    async def missed(self, host: str, number: tuple[int, int], held: Iterable[Held], *,
                     settled: bool) -> Sequence[str]: ...
    async def finish(self, lease: Lease) -> None: ...
