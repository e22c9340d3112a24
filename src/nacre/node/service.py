"""A node's life: start everything, meet every control process of the cloud, then report to each, on change and as a
heartbeat. Whose orders are taken is decided here: those of the cloud that the host joined, and of no state of its
database that is older than what the host has seen."""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Sequence
from typing import Protocol

import structlog

from nacre import __version__
from nacre.base.errors import NacreError, Unavailable
from nacre.conductor.contract import Beat, Conductor, ControlAddress, Heard, NodeHello, Welcome
from nacre.node.journal import Facts
from nacre.node.manager import NodeManager
from nacre.node.ovs.contract import Standing
from nacre.scheduler.contract import DiskReport, HostReport

log = structlog.get_logger()

#: Changes that come together make one report (seconds): the longer, the more the report has to name.
GATHER, GATHER_EACH = 0.05, 0.0005
#: Seconds between two times that the database's position is kept.
KEEP_POSITION = 60.0
#: Between attempts to reach a control process (seconds), ever longer, and each by up to half shorter or longer.
RETRY, SELDOM = 0.5, 10.0


class Controls(Protocol):
    """The ways to the control processes."""

    def known(self) -> Sequence[ControlAddress]: ...
    def learn(self, controls: Sequence[ControlAddress]) -> None: ...
    def keep(self) -> None: ...
    def conductor(self, control: str) -> Conductor: ...


class NodeService:
    """Runs a manager on behalf of a host. Construct, `start`, later `stop`."""

    def __init__(self, manager: NodeManager, controls: Controls):
        self.manager, self._controls = manager, controls
        self.here = manager.here
        self.settings, self._clock = self.here.settings, self.here.clock
        self.greeted = asyncio.Event()
        self._beat: Beat | None = None
        self._kept, self._orphans = 0.0, frozenset[str]()
        self._refused, self._wrong = "", dict[str, str]()
        self._wanted: dict[str, float] = {}  # by control processes: seconds between two beats
        self._news: dict[str, asyncio.Event] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        #: Hosts that start, or lose a control process, at the same moment shall not all speak at the same moment.
        self._chance = random.Random(self.settings.host)  # noqa: S311 - spreads load, keeps no secret

    async def start(self) -> None:
        """Hypervisor and wiring are ready when this returns; the control processes are met in the background, as they
        may start later than we do (wait for `greeted`)."""
        await self.manager.start()
        await self.here.wiring.start()
        self._tasks[""] = asyncio.create_task(self._look())
        self._meet()

    async def stop(self) -> None:
        """Guests, their network and their claims stay."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        await self.manager.stop()
        await self.here.wiring.stop()

    async def report(self) -> HostReport:
        """Totals and usage, as of now."""
        incarnation, n = self.here.number()
        capabilities, tracker = await self.here.hypervisor.capabilities(), self.here.tracker
        held, s, used = await self.manager.held(n), self.settings, tracker.used
        disks = tuple(DiskReport(
            path=path, total_mb=capabilities.directories_mb.get(path, 0), used_mb=tracker.used_in(path).disk_mb,
            shares=shares, shares_used=tracker.used_in(path).disk_shares, bandwidth=s.disk_bandwidth)
            for path, shares in s.disks.items())
        return HostReport(
            host=s.host, incarnation=incarnation, n=n, hypervisor_type=capabilities.hypervisor_type,
            hypervisor_version=capabilities.hypervisor_version, vcpus=capabilities.vcpus,
            memory_mb=capabilities.memory_mb, vcpus_used=used.vcpus,
            disk_gb=sum(disk.total_mb for disk in disks) // 1024 if disks else capabilities.disk_gb,
            memory_mb_used=used.memory_mb, disk_gb_used=used.disk_mb / 1024,
            running=sum(1 for each in held if each.power == "running"), queue_name=s.queue_name,
            cpu_ratio=s.cpu_ratio, ram_ratio=s.ram_ratio, disk_ratio=s.disk_ratio,
            reserved_memory_mb=s.reserved_memory_mb, net_bandwidth=s.net_bandwidth,
            net_bandwidth_used=used.net_bandwidth,
            disk_bandwidth=s.disk_bandwidth * max(1, len(disks)), disk_bandwidth_used=used.disk_bandwidth,
            disks=disks, host_ip=s.host_ip, cpu_info=capabilities.cpu_info, architecture=capabilities.architecture,
            held=held)

    # --- what is told -----------------------------------------------------------------------------------------

    async def _look(self) -> None:
        """For ever: a report at each heartbeat and at each change, to be sent to every control process."""
        regular = self._clock.monotonic() - self._chance.random() * self.settings.heartbeat
        while True:
            with contextlib.suppress(TimeoutError):
                await self._until(self.here.changed.wait(), regular + self._period() - self._clock.monotonic())
            try:
                if self._clock.monotonic() >= regular + self._period():
                    regular = self._clock.monotonic()
                    self.manager.mend()
                    self._controls.keep()
                else:
                    await self._clock.sleep(GATHER + GATHER_EACH * len(self.here.journal.all()))
                self.here.changed.clear()
                self._beat = await self._say()
                for news in self._news.values():
                    news.set()
            except Exception as error:
                log.warning("a report could not be made", why=str(error), exc_info=not isinstance(error, NacreError))
                await self._clock.sleep(RETRY)

    def _period(self) -> float:
        """Seconds between two regular beats: ours, or what the busiest control process wants."""
        return max(self.settings.heartbeat, *self._wanted.values()) if self._wanted else self.settings.heartbeat

    async def _say(self) -> Beat:
        members, placed, routing = self.here.wiring.versions()
        return Beat(report=await self.report(), agent=self.here.wiring.report(), works=self.here.works.states(),
                    members=members, placed=placed, routing=routing)

    async def _until(self, event: Awaitable[object], seconds: float) -> None:
        """Raises TimeoutError when the clock says so first."""
        work = asyncio.ensure_future(event)
        limit = asyncio.ensure_future(self._clock.sleep(max(0.0, seconds)))
        try:
            await asyncio.wait({work, limit}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                raise TimeoutError
        finally:
            work.cancel()
            limit.cancel()

    # --- to whom ----------------------------------------------------------------------------------------------

    def _meet(self) -> None:
        """One session with every control process that is known."""
        known = {control.id for control in self._controls.known()}
        for control in known - self._tasks.keys():
            self._news[control] = asyncio.Event()
            self._tasks[control] = asyncio.create_task(self._session(control))
        for control in self._tasks.keys() - known - {""}:
            self._tasks.pop(control).cancel()
            self._news.pop(control)
            self._wanted.pop(control, None)

    async def _session(self, control: str) -> None:
        """For ever: hello until welcome, then a beat whenever there is news; anew when the other does not know us."""
        conductor, news, pause = self._controls.conductor(control), self._news[control], RETRY
        met = False
        while True:
            try:
                if not met:
                    await self._hello(conductor)
                    met, pause = True, RETRY
                await news.wait()
                news.clear()
                assert self._beat is not None
                heard = await conductor.beat(self._beat)
                met, pause = not heard.again and not self.here.barred, RETRY
                self._wanted[control] = heard.period
                self._complain(heard)
                await self._follow(heard)
                await self._keep(heard)
            except asyncio.CancelledError:
                raise
            except Exception as error:
                log.warning("a control process cannot be reached", control=control, why=str(error),
                            exc_info=not isinstance(error, NacreError))
                # No answer in time: who does not know us any more says so itself. A hello costs it many beats.
                met = met and isinstance(error, Unavailable)
                await self._clock.sleep(pause * self._chance.uniform(0.5, 1.5))
                pause = min(2 * pause, SELDOM)

    async def _hello(self, conductor: Conductor) -> None:
        facts, s = self.here.journal.facts, self.settings
        welcome = await conductor.hello(NodeHello(
            endpoint=s.endpoint, public_key=s.public_key, journal=facts.id, cloud=facts.cloud,
            position=facts.position, era=facts.era, version=__version__, beat=await self._say()))
        if welcome.controls:
            self._controls.learn(welcome.controls)
            self._meet()
        self._complain(welcome)
        await self._judge(welcome, facts)
        self.greeted.set()

    def _complain(self, answer: Heard | Welcome) -> None:
        """Once for each reason."""
        if answer.refused and answer.refused != self._refused:
            log.error("no port can be bound here", why=answer.refused)
        if answer.wrong and answer.wrong != self._wrong:
            log.error("a part of what this host says of itself is refused", wrong=answer.wrong)
        self._refused, self._wrong = answer.refused, answer.wrong

    async def _judge(self, welcome: Welcome, said: Facts) -> None:
        """Whether orders are taken: of our cloud, and of a database that is not behind what we said that we have seen
        of it. Raises Unavailable: meanwhile another process was believed."""
        here, facts, holds = self.here, self.here.journal.facts, bool(await self.manager.held())
        here.met = True
        if facts.cloud != welcome.cloud and (not facts.cloud or not holds or welcome.accepted):
            await here.journal.learn(cloud=welcome.cloud, position=welcome.position, era=welcome.era)
        elif facts.cloud != welcome.cloud:
            here.barred = (f"host {self.settings.host} has servers of cloud {facts.cloud}, and this is cloud "
                           f"{welcome.cloud}: put that cloud's database back, or let this one have the host with "
                           "`nacre host accept`")
            log.error("not our cloud; everything here stays as it is", ours=facts.cloud, theirs=welcome.cloud)
            return await self._follow()
        elif welcome.older and holds and not welcome.accepted:
            if facts.era != said.era:
                raise Unavailable("This host has been told of another state of the database since it said hello.")
            here.barred = (f"host {self.settings.host} has seen a later state of the cloud's database, at "
                           f"{facts.position}, than this one was made from: put the later one back, or say that this "
                           "one is right with `nacre host accept`")
            log.error("an older database; everything here stays as it is", seen=facts.position, now=welcome.position)
            return await self._follow()
        elif welcome.older or welcome.position > facts.position:
            await here.journal.learn(position=welcome.position, era=welcome.era)
        self._kept = self._clock.monotonic()
        here.barred = ""
        self._orphans = frozenset(welcome.orphans)
        for allocation in self._orphans:
            log.warning("the database does not know this; it is kept", allocation=allocation)
        await self._follow(Heard(era=welcome.era))

    async def _follow(self, heard: Heard = Heard()) -> None:
        """What the wiring is to believe. Guests that the database does not know keep their network."""
        spawned = [entry.spawn for entry in self.here.journal.all()
                   if entry.allocation in self._orphans and entry.stage == "running" and entry.spawn]
        await self.here.wiring.follow(Standing(
            trusted=not self.here.barred, n=heard.wiring, era=heard.era, members=heard.members, placed=heard.placed,
            routing=heard.routing, ports=tuple(port for spawn in spawned for port in spawn.ports),
            networks=tuple(network for spawn in spawned for network in spawn.networks)))

    async def _keep(self, heard: Heard) -> None:
        """How far the database has come, now and then: one that is restored from before will be known by it."""
        if heard.position > self.here.journal.facts.position and not self.here.barred and (
                self._clock.monotonic() - self._kept > KEEP_POSITION):
            self._kept = self._clock.monotonic()
            await self.here.journal.learn(position=heard.position, era=heard.era)
