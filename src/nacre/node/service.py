"""A node's life: start everything, say hello, then report on change and as a heartbeat."""

import asyncio
from typing import Any

import structlog

from nacre.base.errors import NacreError
from nacre.conductor.contract import Conductor, NodeHello
from nacre.network.contract import Network
from nacre.node.manager import NodeManager
from nacre.scheduler.contract import DiskReport, HostReport

log = structlog.get_logger()

#: Changes that come together make one report (seconds).
GATHER = 0.05
#: Between attempts to reach the control side at start (seconds).
RETRY = 0.5


class NodeService:
    """Runs a manager on behalf of a host. Construct, `start`, later `stop`."""

    def __init__(self, manager: NodeManager, conductor: Conductor, network: Network):
        self.manager, self._conductor, self._network = manager, conductor, network
        self.here = manager.here
        self.settings, self._clock = self.here.settings, self.here.clock
        self.greeted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Hypervisor and wiring are ready when this returns; the control side is greeted in the background, as it
        may start later than we do (wait for `greeted`)."""
        await self.manager.start(self._power_changed)
        await self.here.wiring.start()
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Guests, their network and their claims stay."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self.manager.stop()
        await self.here.wiring.stop()

    async def report(self) -> HostReport:
        """Totals and usage, as of now."""
        capabilities, tracker = await self.here.hypervisor.capabilities(), self.here.tracker
        guests, s, used = await self.here.hypervisor.guests(), self.settings, tracker.used
        disks = tuple(DiskReport(
            path=path, total_mb=capabilities.directories_mb.get(path, 0), used_mb=tracker.used_in(path).disk_mb,
            shares=shares, shares_used=tracker.used_in(path).disk_shares, bandwidth=s.disk_bandwidth)
            for path, shares in s.disks.items())
        return HostReport(
            host=s.host, hypervisor_type=capabilities.hypervisor_type,
            hypervisor_version=capabilities.hypervisor_version, vcpus=capabilities.vcpus,
            memory_mb=capabilities.memory_mb, vcpus_used=used.vcpus,
            disk_gb=sum(disk.total_mb for disk in disks) // 1024 if disks else capabilities.disk_gb,
            memory_mb_used=used.memory_mb, disk_gb_used=used.disk_mb / 1024,
            running=sum(1 for power in guests.values() if power == "running"), queue_name=s.queue_name,
            cpu_ratio=s.cpu_ratio, ram_ratio=s.ram_ratio, disk_ratio=s.disk_ratio,
            reserved_memory_mb=s.reserved_memory_mb, net_bandwidth=s.net_bandwidth,
            net_bandwidth_used=used.net_bandwidth, disk_bandwidth=s.disk_bandwidth * max(1, len(disks)),
            disk_bandwidth_used=used.disk_bandwidth, disks=disks, servers=tuple(sorted(tracker.servers)),
            host_ip=s.host_ip, cpu_info=capabilities.cpu_info,
            architecture=capabilities.architecture)

    async def _run(self) -> None:
        while not self.greeted.is_set():
            try:
                await self._hello()
            except Exception as error:
                log.info("the control side does not answer yet", why=str(error))
                await self._clock.sleep(RETRY)
        beat = self._next_beat()
        try:
            while True:
                news: asyncio.Future[Any] = asyncio.ensure_future(self.here.changed.wait())
                try:
                    await asyncio.wait({beat, news}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    news.cancel()
                # A host where something changes all the time has its regular beat all the same.
                if regular := beat.done():
                    beat = self._next_beat()
                try:
                    await self._beat(regular=regular)
                except Exception as error:
                    log.warning("a report did not get through", why=str(error),
                                exc_info=not isinstance(error, NacreError))
        finally:
            beat.cancel()

    def _next_beat(self) -> "asyncio.Future[Any]":
        return asyncio.ensure_future(self._clock.sleep(self.settings.heartbeat))

    async def _hello(self) -> None:
        """Our first word; what we must not have is taken back."""
        await self._network.agent_report(self.here.wiring.report())
        guests = await self.manager.inventory()
        unwanted = await self._conductor.hello(NodeHello(
            host=self.settings.host, endpoint=self.settings.endpoint, public_key=self.settings.public_key,
            report=await self.report(), guests=guests))
        self.here.told = {g.server_id: g.power for g in guests if g.claimed} | self.here.told
        epochs = {g.server_id: g.epoch for g in guests}
        for server_id in unwanted:
            log.warning("a server that is not ours any more is taken away", server=server_id)
            try:
                await self.manager.abort(server_id, epochs.get(server_id, 0))
            except NacreError as error:
                log.warning("could not be taken away", server=server_id, why=str(error))
        self.greeted.set()

    async def _beat(self, *, regular: bool) -> None:
        if regular:
            await self.manager.mend()
            await self.manager.observe()
            await self._network.agent_report(self.here.wiring.report())
        else:
            await self._clock.sleep(GATHER)
        self.here.changed.clear()
        await self._conductor.report(await self.report())

    async def _power_changed(self, server_id: str, power: str) -> None:
        await self._conductor.power_changed(self.settings.host, server_id, power)
