"""Many simulated hosts in a few worker processes, for `bench/reports.py`."""

import asyncio
import random
import resource
import time
from typing import Any

import msgspec
import zmq

from nacre.base.errors import NacreError, NotFound, Unavailable
from nacre.base.rpc.codec import Answer, Request, verbs
from nacre.base.rpc.keys import KeyPair
from nacre.base.rpc.link import DEFAULTS, Link, dealer
from nacre.base.rpc.stub import Client, stub
from nacre.base.rpc.target import Target
from nacre.conductor.contract import TARGET as CONDUCTOR
from nacre.conductor.contract import Beat, Conductor, Heard, NodeHello
from nacre.network.contract import AgentReport
from nacre.scheduler.contract import HostReport

BEAT = verbs(Conductor)["beat"]


class Orders(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker process is to do. Times in seconds."""

    controls: list[tuple[str, str]]  # address and public key
    hosts: dict[str, KeyPair]
    period: float
    join: float
    changes: float


class Figures(msgspec.Struct, kw_only=True):
    """What a worker saw. Latencies in seconds. again: hellos of hosts that had been greeted there before."""

    hello: list[float] = []
    report: list[float] = []
    call: list[float] = []
    failed: int = 0
    again: int = 0


class Host:
    """A simulated host: its sessions with the control processes, and its numbered reports."""

    def __init__(self, name: str, orders: Orders, context: "zmq.Context[Any]", dice: random.Random):
        self.sessions = [Session(name, orders.hosts[name], context, control) for control in orders.controls]
        self._orders, self._dice = orders, dice
        self._agent = AgentReport(host=name, tunnel_ip=None, bridge_mappings={}, tunnel_types=())
        self._now = HostReport(host=name, hypervisor_type="fake", hypervisor_version=1, vcpus=64, memory_mb=262144,
                               disk_gb=4096, vcpus_used=0, memory_mb_used=0, disk_gb_used=0.0)

    def next(self) -> Beat:
        """Its next word: now and then with other usage."""
        more: dict[str, int] = {"n": self._now.n + 1}
        if self._dice.random() < self._orders.changes:
            used = self._dice.randrange(64)
            more |= {"vcpus_used": used, "memory_mb_used": 2048 * used}
        self._now = msgspec.structs.replace(self._now, **more)
        return Beat(report=self._now, agent=self._agent)


class Session:
    """A host's session with one control: a socket of its own. A sender for the contract's stub. latency: of the last
    answer, in seconds."""

    def __init__(self, name: str, keys: KeyPair, context: "zmq.Context[Any]", control: tuple[str, str]):
        self.name, self.latency, self.period, self.met, self.known = name, 0.0, 0.0, False, False
        self._open = lambda: Link(dealer(context, keys, control, DEFAULTS), control[0], DEFAULTS.queue)
        self._link: Link | None = None
        self._client = Client(self, CONDUCTOR)
        self.conductor = stub(Conductor, self._client)

    def close(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None

    async def ask(self, target: Target, request: Request, timeout: float) -> Answer:
        begin, link = time.perf_counter(), self._link or self._open()
        self._link, future = link, link.send(request)
        try:
            async with asyncio.timeout(timeout):
                answer = await future
        except TimeoutError:
            raise Unavailable("no answer in time") from None
        finally:
            link.waiting.pop(request.id, None)
            if link.lost and not link.waiting:  # as the product
                self.close()
        self.latency = time.perf_counter() - begin
        return answer

    async def hello(self, beat: Beat) -> None:
        """A node's first word."""
        welcome = await self.conductor.hello(NodeHello(
            endpoint="tcp://127.0.0.1:1", public_key="", journal=self.name, cloud="", position=0, beat=beat))
        if welcome.refused:
            raise SystemExit(welcome.refused)
        self.met = self.known = True

    async def beat(self, beat: bytes) -> None:
        """A node's regular word, as it goes to each control."""
        heard: Heard = await self._client.send(BEAT, beat)
        self.met, self.period = not heard.again, heard.period


class Worker:
    """Many hosts in one process."""

    def __init__(self, orders: Orders, measure: Any, joined: Any):
        self._orders, self._measure, self._joined = orders, measure, joined
        self._dice, self.figures = random.Random(1), Figures()

    async def run(self, stop: Any) -> Figures:
        """Until `stop` is set."""
        context: zmq.Context[Any] = zmq.Context()
        context.set(zmq.MAX_SOCKETS, 3 * len(self._orders.hosts) * len(self._orders.controls) + 100)
        hosts = [Host(name, self._orders, context, self._dice) for name in self._orders.hosts]
        tasks = [asyncio.create_task(self._live(host, self._orders.join * n / len(hosts)))
                 for n, host in enumerate(hosts)]
        tasks.append(asyncio.create_task(self._probe(hosts)))
        await asyncio.get_running_loop().run_in_executor(None, stop.wait)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for host in hosts:
            for session in host.sessions:
                session.close()
        context.destroy(linger=0)
        return self.figures

    async def _live(self, host: Host, after: float) -> None:
        """As `node/service.py`: each period a word to each control, hello first to whom it has not met."""
        await asyncio.sleep(after)
        due, said = time.monotonic(), set[asyncio.Task[None]]()
        busy = set[Session]()
        while True:
            beat = host.next()
            packed = BEAT.pack(beat)
            for session in host.sessions:
                if session not in busy:
                    busy.add(session)
                    said.add(task := asyncio.create_task(self._say(session, beat, packed, host)))
                    task.add_done_callback(lambda task, session=session: (said.discard(task), busy.discard(session)))
            due += max(self._orders.period, *(session.period for session in host.sessions))
            await asyncio.sleep(due - time.monotonic())

    async def _say(self, session: Session, beat: Beat, packed: bytes, host: Host) -> None:
        pause, first = 0.5, not session.known
        while not session.met:
            try:
                await session.hello(beat)
                self.figures.hello.append(session.latency)
                self.figures.again += not first
            except NacreError:
                self.figures.failed += 1
                await asyncio.sleep(pause * self._dice.uniform(0.5, 1.5))
                pause, beat = min(2 * pause, 10.0), host.next()
                continue
            if first:
                with self._joined.get_lock():
                    self._joined.value += 1
            return
        try:
            await session.beat(packed)
        except NacreError:
            self.figures.failed += 1
        else:
            if self._measure.is_set():
                self.figures.report.append(session.latency)

    async def _probe(self, hosts: list[Host]) -> None:
        """A call that control answers from its database, ten times a second."""
        while True:
            await asyncio.sleep(0.1)
            session = self._dice.choice(self._dice.choice(hosts).sessions)
            if not self._measure.is_set():
                continue
            begin = time.perf_counter()
            try:
                await session.conductor.guest_facts(session.name, "no-such-server")
            except NotFound:
                self.figures.call.append(time.perf_counter() - begin)
            except NacreError:
                self.figures.failed += 1


def work(orders: bytes, events: tuple[Any, Any, Any, Any]) -> None:
    """A worker process."""
    measure, stop, joined, results = events
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    worker = Worker(msgspec.msgpack.decode(orders, type=Orders), measure, joined)
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        results.put(msgspec.msgpack.encode(runner.run(worker.run(stop))))
