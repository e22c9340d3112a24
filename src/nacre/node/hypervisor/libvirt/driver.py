"""Guests by libvirt: disks, config drive, domain, paused start; then events and polling until it runs."""

import asyncio
import contextlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import structlog

from nacre.base.clock import Clock, RealClock
from nacre.base.errors import BuildFailed, NotFound
from nacre.image.contract import Images
from nacre.node.contract import CONSOLE, BuildOrder, SpawnOrder, Step
from nacre.node.hypervisor.driver import Capabilities, HypervisorSettings, PowerChanged, Progress, last_lines
from nacre.node.hypervisor.libvirt import domain
from nacre.node.hypervisor.libvirt.config_drive import drive_documents, iso
from nacre.node.hypervisor.libvirt.disk_info import disk_info, needs_drive
from nacre.node.hypervisor.libvirt.host import Host, capabilities, kvm_works
from nacre.node.hypervisor.libvirt.images import check_size, convert, link, make_disk, write_file
from nacre.node.hypervisor.libvirt.places import Places
from nacre.node.hypervisor.libvirt.service import ensure_services
from nacre.node.hypervisor.libvirt.xml import Place, domain_xml
from nacre.node.image_cache import CacheSettings, ImageCache, cache_name, work
from nacre.node.servers.step_timer import StepTimer

log = structlog.get_logger()
T = TypeVar("T")

#: FLOW A20: how often it is looked whether a guest runs (seconds), and how long that may take.
POLL, PATIENCE = 0.5, 60.0
#: No kernel and no ramdisk is larger (bytes).
BOOT_FILE = 1 << 30


class LibvirtHypervisor:
    """Guests in `servers` below `settings.folder`, or below the directory that their order names of `settings.disks`;
    images in `settings.folder`/images. datapath: Open vSwitch's type, asked when a guest is defined ("netdev" is the
    userspace one)."""

    def __init__(self, settings: HypervisorSettings, images: Images, datapath: Callable[[], str],
                 clock: Clock | None = None):
        self._settings, self._datapath, self._clock = settings, datapath, clock or RealClock()
        self._places = Places(settings.folder.absolute(), settings.disks)
        self._cloud = settings.names.cloud
        self.cache = ImageCache(
            CacheSettings(folder=settings.folder.absolute() / "images", limit=settings.cache_gb << 30),
            images, convert, self._bases_in_use, self._clock)
        self._host = Host(settings.uri)
        self._virt_type = settings.virt_type
        self._loop: asyncio.AbstractEventLoop | None = None
        self._on_power: PowerChanged | None = None
        self._told: set[asyncio.Task[None]] = set()

    async def start(self, on_power: PowerChanged) -> None:
        """Folders, libvirt's services, the kind of virtualisation, events."""
        self._settings.folder.mkdir(parents=True, exist_ok=True)
        self._places.make(self._cloud)
        self._settings.folder.chmod(0o711)
        if self._settings.uri.startswith("qemu:///system"):
            await ensure_services()
        if self._virt_type == "auto":
            self._virt_type = "kvm" if await asyncio.to_thread(kvm_works) else "qemu"
        log.info("virtualisation", type=self._virt_type)
        self._loop, self._on_power = asyncio.get_running_loop(), on_power
        self._host.watch(self._changed)
        await self._host.call(lambda connection: connection.getVersion())
        await self.cache.clean()

    async def stop(self) -> None:
        """Guests stay as they are."""
        self._on_power = None
        await self.cache.close()
        await self._host.close()

    async def capabilities(self) -> Capabilities:
        found = await self._host.call(lambda c: capabilities(c, self._virt_type, self._settings.folder))
        sizes = {path: await asyncio.to_thread(_size_mb, path) for path in self._settings.disks}
        return msgspec.structs.replace(found, directories_mb=sizes) if sizes else found

    async def prepare(self, order: BuildOrder, progress: Progress) -> tuple[Step, ...]:
        """Image, kernel and ramdisk into the cache; the disks but for the config drive."""
        timer, folder = StepTimer(self._clock), self._places.of(order)
        largest = order.root_gb << 30 or None
        parts = {"disk": order.image, "kernel": order.kernel, "ramdisk": order.ramdisk}
        images = {name: image for name, image in parts.items() if image is not None}
        if order.image is not None:
            check_size(order.image, order.image.virtual_size, largest)
        for name in images.keys() - {"disk"}:
            check_size(images[name], max(images[name].size or 0, images[name].virtual_size or 0), BOOT_FILE)
        folder.mkdir(exist_ok=True, mode=0o711)
        # Before they are there: what a build waits for must not be dropped from under it.
        write_file(folder / "bases", "\n".join(map(cache_name, images.values())).encode())
        files, before, total = dict[str, Path](), 0, sum(map(work, images.values()))
        with timer.step("image"):
            for name, image in images.items():
                files[name] = await self.cache.fetch(
                    image, largest if name == "disk" else BOOT_FILE, _shifted(progress, before, total))
                before += work(image)
            if order.image is not None:
                check_size(order.image, files["disk"].stat().st_size, largest)
        with timer.step("disks"):
            for name in files.keys() & {"kernel", "ramdisk"}:
                await asyncio.to_thread(link, files[name], folder / name)
            for disk in disk_info(order):
                if disk.file != "disk.config":
                    await make_disk(folder, disk, files.get("disk") if disk.file == "disk" else None)
        return timer.steps

    async def define(self, order: BuildOrder, spawn: SpawnOrder) -> tuple[Step, ...]:
        """Config drive and domain, started but paused."""
        timer, folder = StepTimer(self._clock), self._places.of(order)
        if needs_drive(order):
            with timer.step("config drive"):
                data = await asyncio.to_thread(lambda: iso(drive_documents(order, spawn)))
                write_file(folder / "disk.config", data)
        with timer.step("domain"):
            xml = domain_xml(order, spawn, disk_info(order), Place(
                folder=str(folder), names=self._settings.names, virt_type=self._virt_type,
                offloads=self._datapath() != "netdev", kernel=_if_there(folder / "kernel"),
                ramdisk=_if_there(folder / "ramdisk")))
            write_file(folder / "domain.xml", xml.encode())
            owner = self._owner
            await self._host.call(lambda connection: domain.define_paused(connection, order.server_id, xml, owner))
        return timer.steps

    async def boot(self, server_id: str) -> None:
        await self._on(server_id, domain.boot)

    async def resume(self, server_id: str) -> None:
        """Runs when this returns. Raises BuildFailed: it went down at once, or never came up."""
        await self._on(server_id, domain.resume)
        end = self._clock.monotonic() + PATIENCE
        while (power := await self._on(server_id, domain.power)) != "running":
            if power in ("shutdown", "crashed") or self._clock.monotonic() > end:
                raise BuildFailed(f"the guest does not run: it is {power}")
            await self._clock.sleep(POLL)

    async def shutdown(self, server_id: str) -> None:
        await self._on(server_id, domain.shutdown)

    async def halt(self, server_id: str) -> None:
        await self._on(server_id, domain.halt)

    async def destroy(self, server_id: str) -> None:
        with contextlib.suppress(NotFound):
            await self._on(server_id, domain.remove)
        if (folder := self._places.find(server_id)) is not None:
            await asyncio.to_thread(shutil.rmtree, folder)

    async def console(self, server_id: str, lines: int | None) -> str:
        """The end of the console's log; at most its last megabyte."""
        folder = self._places.find(server_id)
        if folder is None:
            raise NotFound(f"Server {server_id} is not on this host.")
        text = await asyncio.to_thread(_tail, folder / "console.log", CONSOLE)
        return last_lines(text, lines)

    async def guests(self) -> dict[str, str]:
        owner = self._owner
        return await self._host.call(lambda connection: domain.powers(connection, owner))

    @property
    def _owner(self) -> domain.Owner:
        return domain.Owner(self._cloud, self._places.all)

    async def _on(self, server_id: str, work: Callable[[Any], T]) -> T:
        owner = self._owner

        def do(connection: Any) -> T:
            found = domain.find(connection, server_id)
            if found is None or not domain.belongs(found, owner):
                raise NotFound(f"Server {server_id} is not on this host.")
            return work(found)

        return await self._host.call(do)

    def _changed(self, server_id: str) -> None:
        """Called in libvirt's thread."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._tell, server_id)

    def _tell(self, server_id: str) -> None:
        task = asyncio.ensure_future(self._look(server_id))
        self._told.add(task)
        task.add_done_callback(self._told.discard)

    async def _look(self, server_id: str) -> None:
        try:
            power = await self._on(server_id, domain.power)
            if self._on_power is not None:
                await self._on_power(server_id, power)
        except NotFound:
            return
        except Exception as error:
            log.warning("a guest's change could not be told", server=server_id, why=str(error))

    def _bases_in_use(self) -> set[str]:
        found = set[str]()
        for note in self._places.notes("bases"):
            with contextlib.suppress(OSError):
                found |= set(note.read_text().split())
        return found


def _shifted(progress: Progress, before: int, total: int) -> Progress:
    """The progress of one image of several: `before` bytes of `total` are done when it begins."""
    return lambda done, _: progress(before + done, total)


def _size_mb(directory: str) -> int:
    """Of a directory; a disk that has failed has no room, and the host's others still work."""
    try:
        return shutil.disk_usage(directory).total >> 20
    except OSError as error:
        log.error("a disk directory cannot be used", directory=directory, why=error.strerror)
        return 0


def _if_there(file: Path) -> str | None:
    return str(file) if file.exists() else None


def _tail(file: Path, limit: int) -> str:
    try:
        with open(file, "rb", opener=lambda path, flags: os.open(path, flags | os.O_NOFOLLOW)) as source:
            source.seek(max(0, os.fstat(source.fileno()).st_size - limit))
            return source.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
