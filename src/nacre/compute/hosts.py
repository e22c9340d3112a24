"""The compute hosts as the API needs them: what they reported, and what the operator says of them."""

from datetime import datetime
from typing import Protocol

import msgspec

from nacre.scheduler.contract import HostReport


class HostState(msgspec.Struct, frozen=True, kw_only=True):
    """A compute host: its last report, and what the operator says of it."""

    id: int
    uuid: str
    report: HostReport
    up: bool
    updated_at: datetime | None = None  # of the last report
    disabled: bool = False
    disabled_reason: str | None = None
    forced_down: bool = False

    @property
    def name(self) -> str:
        """The host's name: also that of its hypervisor."""
        return self.report.host


class HostChange(msgspec.Struct, frozen=True, kw_only=True):
    """What the operator changes about a host; None leaves a thing as it is."""

    disabled: bool | None = None
    disabled_reason: str | None = None
    forced_down: bool | None = None


class Hosts(Protocol):
    """The compute hosts there are."""

    async def all(self) -> tuple[HostState, ...]: ...

    async def change(self, host: str, change: HostChange) -> HostState:
        """Raises NotFound."""
        ...

    async def forget(self, host: str) -> None:
        """The host will not come back. Raises NotFound."""
        ...
