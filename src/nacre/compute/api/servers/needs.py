"""What the server part of the API needs of the compute service besides the verbs of its contract."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

import msgspec

from nacre.base.context import Context
from nacre.compute.contract import Server, ServerQuery, Servers


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One step of an action."""

    event: str
    started_at: datetime
    finished_at: datetime | None = None
    result: str | None = None  # Success, Error
    details: str | None = None
    host: str = ""


class Action(msgspec.Struct, frozen=True, kw_only=True):
    """Something that was asked of a server. message: "Error" where it went wrong."""

    action: str
    request_id: str
    user_id: str | None
    project_id: str | None
    started_at: datetime
    updated_at: datetime | None = None
    message: str | None = None
    events: tuple[Event, ...] = ()


class ServerDesk(Servers, Protocol):
    """Servers: reading them, and the small changes that need no story."""

    async def find(self, server_id: str, *, deleted: bool = False) -> Server:
        """Of any project. deleted: deleted ones too. Raises NotFound."""
        ...

    async def search(self, query: ServerQuery) -> Sequence[Server]:
        """Raises BadRequest for a marker that is not there."""
        ...

    async def change(self, server_id: str, fields: Mapping[str, Any]) -> Server:
        """Sets name, description, hostname, access_ip_v4, access_ip_v6, disk_config, metadata, tags, locked_reason,
        locked (who locked it: "admin", "owner", or None) or pinned_zone. Raises NotFound."""
        ...

    async def actions(self, server_id: str) -> Sequence[Action]:
        """The newest first; without events."""
        ...

    async def action(self, server_id: str, request_id: str) -> Action | None:
        """With its events, the oldest first."""
        ...

    async def console(self, context: Context, server: Server, lines: int | None) -> str:
        """The end of the serial console's output. Raises Conflict where the server is on no host."""
        ...

    async def used(self, project_id: str | None, user_id: str | None) -> Mapping[str, int]:
        """instances, cores and ram (MB) in use."""
        ...

    async def members(self, group_ids: Sequence[str]) -> Mapping[str, Sequence[str]]:
        """The servers of each server group."""
        ...

    async def on_hosts(self, hosts: Sequence[str]) -> Mapping[str, Sequence[tuple[str, str]]]:
        """The servers on each host: (id, domain name)."""
        ...

    async def lived(self, start: datetime, end: datetime, project_id: str | None) -> Sequence[Server]:
        """Every server that existed at some time between `start` and `end`, deleted ones too."""
        ...
