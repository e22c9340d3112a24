"""What a node asks of the thing that runs guests. Every verb may be repeated without harm.

Interfaces are plugged by the hypervisor (each is on the integration bridge with its port's id) while the guest is
paused; the node has them wired and only then says `resume`: no frame of a guest meets an unguarded bridge.
"""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

import msgspec

from nacre.node.contract import BuildOrder, SpawnOrder, Step
from nacre.node.names import Names

#: (server id, power): a guest changed by itself. power as in `Guest.power`.
PowerChanged = Callable[[str, str], Awaitable[None]]
#: (done, all): bytes of a piece of work, as far as they are known. Called as often as something moves, in the loop: it
#: must be quick and must not raise. While it is called the work is alive; `done` may grow unevenly, never shrinks.
Progress = Callable[[int, int], None]


class HypervisorSettings(msgspec.Struct, frozen=True, kw_only=True):
    """folder: disks, images and state of this host's guests. names: whose guests they are, and where interfaces are
    plugged. virt_type: kvm, qemu, or auto (a trial guest decides). cache_gb: images kept that no guest uses. disks:
    directories for guests' disks; none: `folder`."""

    folder: Path
    names: Names
    virt_type: str = "auto"
    uri: str = "qemu:///system"
    cache_gb: int = 20
    disks: tuple[str, ...] = ()


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What the host has in all. hypervisor_type: as OpenStack names it (QEMU, fake); version: 7002000 for 7.2.0."""

    hypervisor_type: str
    hypervisor_version: int
    vcpus: int
    memory_mb: int
    disk_gb: int
    architecture: str = "x86_64"
    cpu_info: str = "{}"
    directories_mb: dict[str, int] = {}  # the sizes of the host's several disk directories


def last_lines(text: str, lines: int | None) -> str:
    """The end of a console's text as Nova counts it: what follows the last newline is a line too. None is all."""
    return text if lines is None else "\n".join(text.split("\n")[-lines:] if lines > 0 else [])


class Hypervisor(Protocol):
    """Guests of one host. Verbs raise BuildFailed, or NotFound for a server that is not here."""

    async def start(self, on_power: PowerChanged) -> None:
        """Ready to work, with its services running; tells of guests that change by themselves from now on."""
        ...

    async def stop(self) -> None:
        """No more events. Guests stay as they are."""
        ...

    async def capabilities(self) -> Capabilities: ...

    async def prepare(self, order: BuildOrder, progress: Progress) -> tuple[Step, ...]:
        """The image fetched and checked, the disks made. progress: of all images together; not called where there is
        nothing to fetch. A fetch may outlive the call, so that a repeated one finds it further on."""
        ...

    async def define(self, order: BuildOrder, spawn: SpawnOrder) -> tuple[Step, ...]:
        """Config drive and domain; started, but paused, with its interfaces plugged. A half-made one is replaced."""
        ...

    async def boot(self, server_id: str) -> None:
        """A guest that is shut down is started, paused; any other is left as it is."""
        ...

    async def resume(self, server_id: str) -> None:
        """Lets a paused guest run; waits until it does."""
        ...

    async def shutdown(self, server_id: str) -> None:
        """Asks the guest to shut down (its power button). Does not wait."""
        ...

    async def halt(self, server_id: str) -> None:
        """Cuts the power."""
        ...

    async def destroy(self, server_id: str) -> None:
        """Domain, interfaces, disks and files of the server are gone, whatever there was of it."""
        ...

    async def console(self, server_id: str, lines: int | None) -> str:
        """The end of the serial console's log."""
        ...

    async def guests(self) -> dict[str, str]:
        """The power of every server here: running, paused, shutdown, crashed."""
        ...
