"""What others may ask of the conductor. Messages are only speed: the story row is what makes work happen."""

from typing import Protocol

import msgspec

from nacre.base.rpc.target import Target, cast
from nacre.compute.contract import Server, StoryOrder
from nacre.node.contract import Guest, GuestFacts
from nacre.scheduler.contract import HostReport, Placement

TARGET = Target(topic="control", namespace="conductor", version="1.0")


class NodeHello(msgspec.Struct, frozen=True, kw_only=True):
    """A node's first word after a start: where it listens, and what it has."""

    host: str
    endpoint: str
    public_key: str
    report: HostReport
    guests: tuple[Guest, ...]


class Conductor(Protocol):
    """Stories across services."""

    @cast
    async def run(self, story_id: str) -> None:
        """A story (build, delete, power, ...) was written: take its lease and run it."""
        ...

    async def plan(self, order: StoryOrder, servers: tuple[Server, ...]) -> tuple[Placement, ...]:
        """Where these servers, which need not exist, would be placed now. Changes nothing. Raises BadRequest."""
        ...

    async def hello(self, hello: NodeHello) -> tuple[str, ...]:
        """A node started. Answers with the server ids it must not have (to be aborted there)."""
        ...

    @cast
    async def report(self, report: HostReport) -> None:
        """A node's periodic totals and usage: also its heartbeat."""
        ...

    @cast
    async def power_changed(self, host: str, server_id: str, power: str) -> None:
        """A guest stopped or started by itself."""
        ...

    async def guest_facts(self, host: str, server_id: str) -> GuestFacts:
        """For the metadata service of the host the server is on. Raises NotFound for any other."""
        ...
