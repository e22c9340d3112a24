"""How control processes bear the reports of very many hosts.

    python bench/reports.py --hosts 10000 --seconds 60 [--controls 3 --database postgresql://...] [--period 10]
                            [--changes 0.05] [--workers 2] [--json FILE]

What is real: the control processes are the product's own (`nacre control`, all its services; SQLite in a temporary data
folder, or several over an empty PostgreSQL). Every host has a CURVE key of its own that control knows by its name
(`rpc.node_keys`), and a ZeroMQ connection of its own to each control by the product's own socket settings: 10,000 hosts
are 10,000 connections to each, as a node may speak only for itself. Messages are made by the product's contracts and
codec. Each host does what `node/service.py` does: a hello to each control, then every period a beat to each. What is
not: hosts have no guests and take no orders, and they share worker processes on the same machine, whose CPU time is not
control's but is taken from the same cores.

Measured, after all hosts were greeted by all: each control's CPU (user and system, all threads) and memory (PSS), the
time from a beat's sending to its answer, and the time of a call that control answers from its database.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import platform
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import msgspec
import zmq

from nacre.base.errors import NacreError, NotFound, Unavailable
from nacre.base.rpc.codec import Answer, Request, decode_answer, encode
from nacre.base.rpc.keys import KeyPair, load_keys, new_keys
from nacre.base.rpc.link import DEFAULTS, dealer
from nacre.base.rpc.pump import Pump
from nacre.base.rpc.stub import Client, stub
from nacre.base.rpc.target import Target
from nacre.cli.supervisor import free_port
from nacre.conductor.contract import TARGET as CONDUCTOR
from nacre.conductor.contract import Beat, Conductor, NodeHello
from nacre.network.contract import AgentReport
from nacre.scheduler.contract import HostReport

#: Seconds after the last host should have joined until the run is given up.
GIVE_UP = 30.0


class Orders(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker process is to do. Times in seconds."""

    controls: list[tuple[str, str]]  # address and public key
    hosts: dict[str, KeyPair]
    period: float
    join: float
    changes: float


class Figures(msgspec.Struct, kw_only=True):
    """What a worker saw. Latencies in seconds."""

    hello: list[float] = []
    report: list[float] = []
    call: list[float] = []
    failed: int = 0


class Host:
    """One simulated host's session with one control: a key, a socket, its reports. A sender for the contract's stub."""

    def __init__(self, name: str, keys: KeyPair, context: "zmq.Context[Any]", control: tuple[str, str]):
        self.name, self._waiting = name, dict[bytes, asyncio.Future[Answer]]()
        self.latency = 0.0
        self._open = lambda: Pump(dealer(context, keys, control, DEFAULTS), self._receive)
        self._pump: Pump | None = None
        self._heard = False
        self.conductor = stub(Conductor, Client(self, CONDUCTOR))
        self.agent = AgentReport(host=name, tunnel_ip=None, bridge_mappings={}, tunnel_types=())
        self.now = HostReport(host=name, hypervisor_type="fake", hypervisor_version=1, vcpus=64, memory_mb=262144,
                              disk_gb=4096, vcpus_used=0, memory_mb_used=0, disk_gb_used=0.0)

    def close(self) -> None:
        if self._pump is not None:
            self._pump.close()
            self._pump = None

    async def ask(self, target: Target, request: Request, timeout: float) -> Answer:
        begin, future = time.perf_counter(), asyncio.get_running_loop().create_future()
        self._waiting[request.id] = future
        try:
            self._pump = self._pump or self._open()
            if not self._pump.send([encode(request)]):
                raise Unavailable("the queue is full")
            async with asyncio.timeout(timeout):
                answer: Answer = await future
        except TimeoutError:
            if not self._heard:  # as the product: a way that never worked is made anew
                self.close()
            raise Unavailable("no answer in time") from None
        finally:
            del self._waiting[request.id]
        self.latency = time.perf_counter() - begin
        return answer

    def _receive(self, frames: list[bytes], _: str) -> None:
        self._heard = True
        answer = decode_answer(frames[-1])
        if (future := self._waiting.get(answer.id)) is not None and not future.done():
            future.set_result(answer)

    async def join(self) -> None:
        """A node's first word."""
        welcome = await self.conductor.hello(NodeHello(
            endpoint="tcp://127.0.0.1:1", public_key="", journal=self.name, cloud="", position=0, beat=self._next()))
        if welcome.refused:
            raise SystemExit(welcome.refused)

    async def beat(self) -> None:
        """A node's regular word."""
        await self.conductor.beat(self._next())

    def _next(self) -> Beat:
        self.now = msgspec.structs.replace(self.now, n=self.now.n + 1)
        return Beat(report=self.now, agent=self.agent)


class Worker:
    """Many hosts in one process."""

    def __init__(self, orders: Orders, measure: Any, joined: Any):
        self._orders, self._measure, self._joined = orders, measure, joined
        self._dice, self.figures = random.Random(1), Figures()

    async def run(self, stop: Any) -> Figures:
        """Until `stop` is set."""
        context: zmq.Context[Any] = zmq.Context()
        context.set(zmq.MAX_SOCKETS, len(self._orders.hosts) * len(self._orders.controls) + 100)
        hosts = [Host(name, keys, context, control) for name, keys in self._orders.hosts.items()
                 for control in self._orders.controls]
        tasks = [asyncio.create_task(self._live(host, self._orders.join * n / len(hosts)))
                 for n, host in enumerate(hosts)]
        tasks.append(asyncio.create_task(self._probe(hosts)))
        await asyncio.get_running_loop().run_in_executor(None, stop.wait)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for host in hosts:
            host.close()
        context.destroy(linger=0)
        return self.figures

    async def _live(self, host: Host, after: float) -> None:
        await asyncio.sleep(after)
        while True:
            try:
                await host.join()
                break
            except NacreError:
                self.figures.failed += 1
                await asyncio.sleep(0.5)
        self.figures.hello.append(host.latency)
        with self._joined.get_lock():
            self._joined.value += 1
        due = time.monotonic()
        while True:
            due += self._orders.period
            await asyncio.sleep(due - time.monotonic())
            if self._dice.random() < self._orders.changes:
                used = self._dice.randrange(64)
                host.now = msgspec.structs.replace(host.now, vcpus_used=used, memory_mb_used=2048 * used)
            try:
                await host.beat()
            except NacreError:
                self.figures.failed += 1
                continue
            if self._measure.is_set():
                self.figures.report.append(host.latency)

    async def _probe(self, hosts: list[Host]) -> None:
        """A call that control answers from its database, ten times a second."""
        while True:
            await asyncio.sleep(0.1)
            host = self._dice.choice(hosts)
            if not self._measure.is_set():
                continue
            begin = time.perf_counter()
            try:
                await host.conductor.guest_facts(host.name, "no-such-server")
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


class ControlProcess:
    """`nacre control` over a data folder of its own, and what it costs. beside: a control of the same cloud, or None;
    database: the cloud's URL, "" for SQLite in the folder."""

    def __init__(self, folder: Path, nodes: dict[str, KeyPair], database: str, beside: "ControlProcess | None"):
        self.folder, self.port, self.rpc_port = folder, free_port(), free_port()
        for name in ("run", "logs", "control"):
            (folder / name).mkdir(mode=0o700, parents=True)
        for secret in ("seal-key", "passwords.json", "first-rows") if beside else ():
            shutil.copy(beside.folder / "control" / secret, folder / "control" / secret)
        where = f"database_url = '{database}'\n" if database else ""
        keys = "".join(f"{name} = '{pair.public}'\n" for name, pair in nodes.items())
        (folder / "nacre.toml").write_text(
            f"hypervisor = 'fake'\nport = {self.port}\nlog_level = 'WARNING'\n{where}[rpc]\nport = {self.rpc_port}\n"
            f"[rpc.node_keys]\n{keys}")
        self.key = load_keys(folder / "control" / "rpc-key.json").public
        self._environ = {k: v for k, v in os.environ.items() if not k.startswith("NACRE_")}
        if beside is None:
            self._run("db", "prepare").wait()
        self.process = self._run("control")
        end = time.monotonic() + 60
        while not self._answers():
            if time.monotonic() > end or self.process.poll() is not None:
                raise SystemExit((folder / "logs" / "control.log").read_text()[-3000:])
            time.sleep(0.1)

    def _run(self, *command: str) -> "subprocess.Popen[bytes]":
        with (self.folder / "logs" / f"{command[0]}.log").open("ab") as out:
            return subprocess.Popen([sys.executable, "-m", "nacre.cli.main", *command, "--data", str(self.folder)],
                                    stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=self._environ)

    def _answers(self) -> bool:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{self.port}/identity/v3", timeout=5)
        except urllib.error.HTTPError:
            return True
        except OSError:
            return False
        return True

    def memory_mb(self) -> float:
        """Its proportional set size."""
        rows = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text().splitlines()
        return round(next(int(r.split()[1]) for r in rows if r.startswith("Pss:")) / 1024, 1)

    def figures(self) -> dict[str, Any]:
        """As of now."""
        cpu, threads = self.cpu_seconds()
        return {"cpu": cpu, "threads": threads, "mb": self.memory_mb(), "connections": self.connections()}

    def cpu_seconds(self) -> tuple[float, dict[str, float]]:
        """Of the process, and of each of its threads by name."""
        tick = os.sysconf("SC_CLK_TCK")

        def used(stat: Path) -> float:
            fields = stat.read_text().rpartition(")")[2].split()
            return (int(fields[11]) + int(fields[12])) / tick

        found: dict[str, float] = {}
        for task in Path(f"/proc/{self.process.pid}/task").iterdir():
            name = (task / "comm").read_text().strip()
            found[name] = found.get(name, 0.0) + used(task / "stat")
        return used(Path(f"/proc/{self.process.pid}/stat")), found

    def connections(self) -> int:
        """Established TCP connections to its RPC port."""
        local = f":{self.rpc_port:04X}"
        return sum(1 for row in Path("/proc/net/tcp").read_text().splitlines()[1:]
                   if row.split()[1].endswith(local) and row.split()[3] == "01")

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)


def spread(seconds: list[float]) -> dict[str, float]:
    """Median, p99 and the greatest, in ms."""
    ordered = sorted(seconds) or [0.0]
    return {name: round(1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))], 2)
            for name, share in (("median", 0.5), ("p99", 0.99), ("max", 1.0))}


def measure(args: argparse.Namespace, controls: list[ControlProcess], nodes: dict[str, KeyPair]) -> dict[str, Any]:
    """The whole run over control processes that wait."""
    spawn = multiprocessing.get_context("spawn")
    begin, stop, joined, results = spawn.Event(), spawn.Event(), spawn.Value("i", 0), spawn.Queue()
    empty, names = [control.memory_mb() for control in controls], list(nodes)
    parts = [Orders(controls=[(f"tcp://127.0.0.1:{c.rpc_port}", c.key) for c in controls], period=args.period,
                    join=args.join, changes=args.changes, hosts={n: nodes[n] for n in names[w::args.workers]})
             for w in range(args.workers)]
    workers = [spawn.Process(target=work, daemon=True,
                             args=(msgspec.msgpack.encode(p), (begin, stop, joined, results)))
               for p in parts]
    started = time.monotonic()
    for worker in workers:
        worker.start()
    while joined.value < args.hosts * len(controls):
        if time.monotonic() - started > args.join + GIVE_UP:
            stop.set()
            said = "".join((control.folder / "logs" / "control.log").read_text()[-2000:] for control in controls)
            raise SystemExit(f"{said}\nonly {joined.value} sessions began; {[c.figures() for c in controls]}")
        time.sleep(0.1)
    greeted = time.monotonic() - started
    time.sleep(args.period)
    before = [control.figures() for control in controls]
    begin.set()
    at = time.monotonic()
    time.sleep(args.seconds)
    took, after = time.monotonic() - at, [control.figures() for control in controls]
    stop.set()
    seen = [msgspec.msgpack.decode(results.get(timeout=60), type=Figures) for _ in workers]
    for worker in workers:
        worker.join(30)
    reports = [r for s in seen for r in s.report]
    return {
        "hosts": args.hosts, "period_s": args.period, "changed_share": args.changes,
        "greeted_after_s": round(greeted, 1), "hello_ms": spread([r for s in seen for r in s.hello]),
        "reports_per_s": round(len(reports) / took, 1), "report_ms": spread(reports),
        "call_ms": spread([r for s in seen for r in s.call]), "failed": sum(s.failed for s in seen),
        "controls": [{
            "connections": old["connections"], "cpu": round((new["cpu"] - old["cpu"]) / took, 3),
            "cpu_by_thread": {n: round((s - old["threads"].get(n, 0.0)) / took, 3) for n, s in new["threads"].items()},
            "pss_mb": {"no hosts": mb, "all greeted": old["mb"], "at the end": new["mb"]}}
            for mb, old, new in zip(empty, before, after, strict=True)]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, default=10_000)
    parser.add_argument("--controls", type=int, default=1, help="how many (more than one: over --database)")
    parser.add_argument("--database", default="", help="an empty PostgreSQL's URL; SQLite without")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long is measured")
    parser.add_argument("--period", type=float, default=10.0, help="seconds between two reports of a host")
    parser.add_argument("--join", type=float, default=30.0, help="seconds over which the hosts come")
    parser.add_argument("--changes", type=float, default=0.05, help="the share of reports that differ from the last")
    parser.add_argument("--workers", type=int, default=2, help="processes that the hosts share")
    parser.add_argument("--json", default=None, help="also write the result here")
    args = parser.parse_args()
    nodes = {f"host-{n:05}": new_keys() for n in range(args.hosts)}
    controls: list[ControlProcess] = []
    with tempfile.TemporaryDirectory(prefix="nacre-reports-") as folder:
        try:
            for n in range(args.controls):
                beside = controls[0] if n else None
                controls.append(ControlProcess(Path(folder) / f"c{n}", nodes, args.database, beside))
            result = {"machine": f"{platform.machine()} {platform.release()}", "date": time.strftime("%Y-%m-%d"),
                      **measure(args, controls, nodes)}
        finally:
            for control in controls:
                control.stop()
    print(json.dumps(result, indent=1))
    if args.json:
        Path(args.json).write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
