"""A hypervisor without guests: the same verbs, no root, faults and delays as parameters.

With a folder its state, a file a guest, outlives the process, as libvirt's guests outlive a killed node.
"""

import os
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from nacre.base.clock import Clock, RealClock
from nacre.base.errors import BuildFailed, NotFound, Refused
from nacre.node.contract import BuildOrder, SpawnOrder, Step
from nacre.node.hypervisor.driver import Capabilities, PowerChanged, Progress, last_lines
from nacre.node.servers.step_timer import StepTimer

#: A host as any, where nobody says how large it is.
CAPABILITIES = Capabilities(
    hypervisor_type="fake", hypervisor_version=1000000, vcpus=64, memory_mb=131072, disk_gb=2048)


class Faults(msgspec.Struct, kw_only=True):
    """By verb ("prepare", "define", "resume", ...; * is any): seconds of delay; how many of the next calls fail or are
    refused; verbs that never return; what to call before the effect (to kill the node just there). fetch: seconds that
    an image takes, in ten parts that are reported. share: of all guests, how many cannot be defined, by these dice."""

    delay: dict[str, float] = {}
    fail: dict[str, int] = {}
    refuse: dict[str, int] = {}
    hang: set[str] = set()
    before: dict[str, Callable[[str], Awaitable[None]]] = {}
    fetch: float = 0.0
    #: Guests ignore their power button.
    deaf: bool = False
    share: float = 0.0
    dice: random.Random = msgspec.field(default_factory=random.Random)


class FakeGuest(msgspec.Struct, kw_only=True):
    """A pretended server. power None: only its disks are there."""

    name: str
    power: str | None = None
    ports: tuple[str, ...] = ()
    console: str = ""


class FakeHypervisor:
    """Guests are entries in a dict."""

    def __init__(self, capabilities: Capabilities | None = None, *, faults: Faults | None = None,
                 folder: Path | None = None, clock: Clock | None = None):
        self._capabilities = capabilities or CAPABILITIES
        self.faults, self._folder, self._clock = faults or Faults(), folder, clock or RealClock()
        self._on_power: PowerChanged | None = None
        self.servers: dict[str, FakeGuest] = {}
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            self.servers = {f.stem: msgspec.json.decode(f.read_bytes(), type=FakeGuest) for f in folder.glob("*.json")}

    async def start(self, on_power: PowerChanged) -> None:
        self._on_power = on_power

    async def stop(self) -> None:
        self._on_power = None

    async def capabilities(self) -> Capabilities:
        return self._capabilities

    async def prepare(self, order: BuildOrder, progress: Progress) -> tuple[Step, ...]:
        timer = StepTimer(self._clock)
        with timer.step("disks"):
            await self._pretend_fetch(order, progress)
            await self._fault("prepare", order.server_id)
            if order.selected_dir not in (self._capabilities.directories_mb or {""}):
                raise BuildFailed(f"this host has no disk directory {order.selected_dir or 'of its own'}")
            self.servers.setdefault(order.server_id, FakeGuest(name=order.guest.name))
            self._save(order.server_id)
        return timer.steps

    async def define(self, order: BuildOrder, spawn: SpawnOrder) -> tuple[Step, ...]:
        timer = StepTimer(self._clock)
        with timer.step("domain"):
            await self._fault("define", order.server_id)
            guest = self._guest(order.server_id)
            guest.power, guest.ports = "paused", tuple(port.id for port in spawn.ports)
            self._save(order.server_id)
        return timer.steps

    async def boot(self, server_id: str) -> None:
        await self._fault("boot", server_id)
        guest = self._guest(server_id)
        if guest.power not in ("running", "paused"):
            guest.power = "paused"
            self._save(server_id)

    async def resume(self, server_id: str) -> None:
        await self._fault("resume", server_id)
        guest = self._guest(server_id)
        if guest.power != "running":
            guest.power = "running"
            guest.console += (f"Nacre simulated guest {guest.name}\n" + "".join(
                f"net{n}: port {port}\n" for n, port in enumerate(guest.ports))
                + f"READY host={guest.name}\n\n{guest.name} login: ")
            self._save(server_id)

    async def shutdown(self, server_id: str) -> None:
        await self._fault("shutdown", server_id)
        if not self.faults.deaf:
            self._guest(server_id).power = "shutdown"
            self._save(server_id)

    async def halt(self, server_id: str) -> None:
        await self._fault("halt", server_id)
        self._guest(server_id).power = "shutdown"
        self._save(server_id)

    async def destroy(self, server_id: str) -> None:
        await self._fault("destroy", server_id)
        self.servers.pop(server_id, None)
        self._save(server_id)

    async def console(self, server_id: str, lines: int | None) -> str:
        return last_lines(self._guest(server_id).console, lines)

    async def guests(self) -> dict[str, str]:
        return {server: guest.power for server, guest in self.servers.items() if guest.power}

    async def crash_guest(self, server_id: str, power: str = "shutdown") -> None:
        """The guest changes by itself, as seen from here."""
        self._guest(server_id).power = power
        self._save(server_id)
        if self._on_power is not None:
            await self._on_power(server_id, power)

    def _guest(self, server_id: str) -> FakeGuest:
        if server_id not in self.servers:
            raise NotFound(f"Server {server_id} is not on this host.")
        return self.servers[server_id]

    async def _pretend_fetch(self, order: BuildOrder, progress: Progress) -> None:
        size = sum(image.size or 0 for image in (order.image, order.kernel, order.ramdisk) if image)
        for part in range(11 if size else 0):
            progress(size * part // 10, size)
            if part < 10 and self.faults.fetch:
                await self._clock.sleep(self.faults.fetch / 10)

    async def _fault(self, verb: str, server_id: str) -> None:
        faults = self.faults
        if before := faults.before.get(verb):
            await before(server_id)
        if delay := faults.delay.get(verb, faults.delay.get("*", 0.0)):
            await self._clock.sleep(delay)
        if verb in faults.hang:
            await self._clock.sleep(1e9)
        for counts, error in ((faults.refuse, Refused), (faults.fail, BuildFailed)):
            if counts.get(verb, 0) > 0:
                counts[verb] -= 1
                raise error(f"{verb} of {server_id}: a fault was asked for")
        if verb == "define" and faults.share and faults.dice.random() < faults.share:
            raise BuildFailed("the guest could not be defined: a fault was asked for")

    def _save(self, server_id: str) -> None:
        if self._folder is None:
            return
        file, guest = self._folder / f"{server_id}.json", self.servers.get(server_id)
        if guest is None:
            file.unlink(missing_ok=True)
        else:
            new = file.with_suffix(".new")
            new.write_bytes(msgspec.json.encode(guest))
            os.replace(new, file)
