"""What a placement decision costs: `python -m bench.scheduler [--quick] [--peer DIR] [--json FILE]`.

Three tables. In memory: choosing a host and the claim at it (`FilterScheduler.place` and `Tracker.claim`), at 100 to
100,000 hosts, with one scheduler and with four that know of each other only by the hosts' reports. Durable: the same,
with the claim over RPC (ZeroMQ with CURVE) in another process, written through to the host's journal. Nova: its own
filter scheduler on the same hosts, in the same run (peers/nova_scheduler.py; DIR: its environment).

Every decision is checked by the claim: a host never gets more than it has (an over-commit ends the run).
"""

import argparse
import asyncio
import gc
import json
import multiprocessing
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from pathlib import Path
from typing import Any

from bench.claims import ClaimClient, ClaimServer, order
from nacre.base.errors import NoValidHost, Refused
from nacre.node.servers.tracker import Tracker
from nacre.scheduler.contract import Amounts, DiskReport, GroupRule, Held, HostReport, Placement, PlacementRequest
from nacre.scheduler.filter_scheduler import FilterScheduler
from nacre.scheduler.hosts import Kinds

SCENARIOS = ("empty", "full90", "full90 packed", "nothing", "anti-affinity", "host match", "multi-disk")
#: A host, as for the peer.
VCPUS, MEMORY, DISK, RATIO = 64, 262144, 4096, 4.0
#: Decisions after which every scheduler has heard of every change, as by reports.
HEARD = 500
#: Servers that stay until they are deleted again: the fill level stays as it is.
STAY = 500


def host_name(number: int) -> str:
    return f"rack{number // 40:04}-node{number:06}"


class World:
    """N hosts with their claims, and schedulers that know them."""

    def __init__(self, scenario: str, count: int, schedulers: int = 1):
        chance, kinds = random.Random(3), Kinds()
        self.scenario, self.count, self.chance = scenario, count, chance
        self.trackers: dict[str, Tracker] = {}
        self.reports: dict[str, HostReport] = {}
        best = 1 if schedulers == 1 else 8
        self.schedulers = [FilterScheduler("memory", 1 if "packed" in scenario else -1, best,
                                           chance=random.Random(n)) for n in range(schedulers)]
        for n in range(count):
            name = host_name(n)
            full = 0.9 + chance.uniform(-0.05, 0.05) if "full" in scenario else 0.0
            disks = tuple(DiskReport(path=f"/disk{d}", total_mb=DISK * 256, used_mb=int(chance.random() * DISK * 200))
                          for d in range(4)) if scenario == "multi-disk" else ()
            self.reports[name] = report = HostReport(
                host=name, hypervisor_type="QEMU", hypervisor_version=7002000, vcpus=VCPUS, memory_mb=MEMORY,
                disk_gb=DISK, vcpus_used=int(VCPUS * RATIO * full), memory_mb_used=int(MEMORY * full),
                disk_gb_used=DISK * full, cpu_ratio=RATIO, disks=disks)
            self.trackers[name] = Tracker()
            for scheduler in self.schedulers:
                scheduler.add(report, kinds.of(report, "nova", ()), None)
        self.number, self.group = 0, tuple[str, ...]()
        self.changed: set[str] = set()
        self.claims: dict[str, dict[str, str]] = {}
        self.staying: deque[tuple[str, str]] = deque()
        self.refused = 0

    def request(self) -> PlacementRequest:
        """The next server's."""
        self.number += 1
        server, more = f"server-{self.number:08}", dict[str, Any]()
        if self.scenario == "anti-affinity":
            self.group = (*self.group, server) if len(self.group) < 10 else (server,)
            more["group"] = GroupRule(id="g", policy="anti-affinity", members=self.group[:-1])
        if self.scenario == "host match":
            more["host_match"] = f"^rack{self.chance.randrange(min(16, max(1, self.count // 40))):04}-"
        amounts = Amounts(memory_mb=512, vcpus=10**6 if self.scenario == "nothing" else 1, disk_mb=1024)
        return PlacementRequest(server_ids=(server,), project_id="p", amounts=amounts, **more)

    def decide(self, request: PlacementRequest, scheduler: FilterScheduler) -> Placement | None:
        """A host, with the claim at it; a refusal there means the next one."""
        tried: tuple[str, ...] = ()
        while True:
            try:
                (placement,) = scheduler.place(request, "kvm", 0.0)
            except NoValidHost:
                return None
            try:
                self.trackers[placement.host].claim(order(request, placement, self.reports[placement.host]))
                return placement
            except Refused:
                self.refused += 1
                scheduler.release(placement.allocation)
                tried = (*tried, placement.host)
                request = PlacementRequest(server_ids=request.server_ids, project_id="p", amounts=request.amounts,
                                           ignore_hosts=tried, group=request.group, host_match=request.host_match)

    def settle(self, placement: Placement, request: PlacementRequest) -> None:
        """After the clock stopped: the server stays for a while, and schedulers hear of hosts that changed."""
        (server,), host = request.server_ids, placement.host
        self.claims.setdefault(host, {})[placement.allocation] = server
        self.staying.append((host, placement.allocation))
        self.changed.add(host)
        if len(self.staying) > STAY:
            gone, allocation = self.staying.popleft()
            self.trackers[gone].release(allocation)
            del self.claims[gone][allocation]
            self.changed.add(gone)
            if len(self.schedulers) == 1:
                self.schedulers[0].release(allocation)
        if len(self.schedulers) > 1 and self.number % HEARD == 0:
            for name in self.changed:
                for scheduler in self.schedulers:
                    scheduler.hear(self.report(name), 0.0)
            self.changed = set()

    def report(self, name: str) -> HostReport:
        """A host's, as it would send it now."""
        import msgspec
        there, first = self.claims.get(name, {}), self.reports[name]
        return msgspec.structs.replace(
            first, held=tuple(Held(allocation=a, server_id=s, epoch=1) for a, s in there.items()),
            vcpus_used=first.vcpus_used + len(there),
            memory_mb_used=first.memory_mb_used + 512 * len(there), disk_gb_used=first.disk_gb_used + len(there))

    def check(self) -> None:
        """No host has more than it may. Else the figures are worth nothing."""
        for name, tracker in self.trackers.items():
            used, first = tracker.used, self.reports[name]
            if (used.memory_mb + first.memory_mb_used > MEMORY
                    or used.vcpus + first.vcpus_used > VCPUS * RATIO):
                raise SystemExit(f"{name} is over-committed: {used}")


def in_memory(scenario: str, hosts: int, schedulers: int, decisions: int) -> dict[str, Any]:
    """One line of the first table."""
    world = World(scenario, hosts, schedulers)
    times, fits = [], scenario != "nothing"
    gc.collect()
    gc.freeze()
    for n in range(decisions + 50):
        request, scheduler = world.request(), world.schedulers[n % schedulers]
        begin = time.perf_counter()
        placement = world.decide(request, scheduler)
        took = time.perf_counter() - begin
        if (placement is not None) != fits:
            raise SystemExit(f"{scenario}: {placement}")
        if n >= 50:  # the first are for the caches
            times.append(took)
        if placement is not None:
            world.settle(placement, request)
    gc.unfreeze()
    world.check()
    return {"scenario": scenario, "hosts": hosts, "schedulers": schedulers, **figures(times), "refused": world.refused}


def figures(times: list[float]) -> dict[str, Any]:
    ordered = sorted(times)
    return {"decisions": len(times), "median_us": round(statistics.median(times) * 1e6, 1),
            "p99_us": round(ordered[int(len(ordered) * 0.99)] * 1e6, 1),
            "per_second": round(len(times) / sum(times))}


async def durable(hosts: int, schedulers: int, seconds: float, at_once: int) -> dict[str, Any]:
    """Decisions with the claim over RPC in the hosts' journals. Each scheduler is a process of its own."""
    with tempfile.TemporaryDirectory(prefix="nacre-bench-") as folder:
        server = await ClaimServer.start(Path(folder), [host_name(n) for n in range(hosts)])
        try:
            context = multiprocessing.get_context("spawn")
            results: Any = context.Queue()
            children = [context.Process(target=_schedule, args=(n, server.address, server.keys[n], hosts, seconds,
                                                                max(1, at_once // schedulers), results))
                        for n in range(schedulers)]
            for child in children:
                child.start()
            found = [await asyncio.to_thread(results.get, True, seconds + 120) for _ in children]
            for child in children:
                child.join()
        finally:
            over = await server.stop()
    if over:
        raise SystemExit(f"over-committed: {over}")
    times = [t for one in found for t in one["times"]]
    return {"hosts": hosts, "schedulers": schedulers, "at_once": at_once, **figures(times),
            "per_second": round(sum(len(one["times"]) / one["seconds"] for one in found)),
            "refused": sum(one["refused"] for one in found)}


def _schedule(number: int, address: str, keys: Any, hosts: int, seconds: float, at_once: int, results: Any) -> None:
    """A scheduler's process."""
    async def run() -> None:
        world = World("full90", hosts)
        scheduler = world.schedulers[0] = FilterScheduler("memory", -1, 1 if number < 0 else 8,
                                                          chance=random.Random(number))
        kinds = Kinds()
        for report in world.reports.values():
            scheduler.add(report, kinds.of(report, "nova", ()), None)
        client, times, refused = ClaimClient(f"scheduler{number}", address, keys), [], 0
        await client.claim(*world_order(world, scheduler, f"first-{number}"))
        gc.collect()
        gc.freeze()
        end, begin, count = time.perf_counter() + seconds, time.perf_counter(), 0

        async def one() -> None:
            nonlocal refused, count
            while time.perf_counter() < end:
                count += 1
                started = time.perf_counter()
                host, wanted = world_order(world, scheduler, f"s{number}-{count}")
                if not await client.claim(host, wanted):
                    refused += 1
                    continue
                times.append(time.perf_counter() - started)

        await asyncio.gather(*(one() for _ in range(at_once)))
        results.put({"times": times, "refused": refused, "seconds": time.perf_counter() - begin})
        await client.close()

    asyncio.run(run())


def world_order(world: World, scheduler: FilterScheduler, server: str) -> tuple[str, Any]:
    request = PlacementRequest(server_ids=(server,), project_id="p",
                               amounts=Amounts(memory_mb=512, vcpus=1, disk_mb=1024))
    (placement,) = scheduler.place(request, "kvm", 0.0)
    return placement.host, order(request, placement, world.reports[placement.host])


def nova(environment: Path, hosts: list[int], seconds: float) -> dict[str, Any]:
    """The peer's figures."""
    program = Path(__file__).parent / "peers" / "nova_scheduler.py"
    done = subprocess.run([environment / "bin" / "python", program, "--hosts", ",".join(map(str, hosts)), "--seconds",
                           str(seconds)], capture_output=True, text=True, check=True, timeout=3600)
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="up to 1,000 hosts, few decisions")
    parser.add_argument("--durable", action="store_true", help="only the claims over RPC")
    parser.add_argument("--peer", type=Path, help="an environment with nova (see peers/README.md)")
    parser.add_argument("--json", type=Path, help="write all figures there")
    given = parser.parse_args()
    sizes, decisions = ([100, 1000], 300) if given.quick else ([100, 1000, 10_000, 100_000], 5000)
    found: dict[str, Any] = {"in_memory": [], "durable": [], "nova": None}
    for scenario in () if given.durable else SCENARIOS:
        for hosts in sizes:
            for schedulers in (1, 4) if scenario in ("empty", "full90") else (1,):
                line = in_memory(scenario, hosts, schedulers, decisions if scenario != "nothing" else decisions // 10)
                found["in_memory"].append(line)
                print(line, file=sys.stderr)
    for schedulers in (1, 4):
        line = asyncio.run(durable(1000 if given.quick else 10_000, schedulers, 2 if given.quick else 10, 4))
        found["durable"].append(line)
        print(line, file=sys.stderr)
    if given.peer:
        found["nova"] = nova(given.peer, [n for n in sizes if n <= 10_000], 5 if given.quick else 30)
        for line in found["nova"]["results"]:
            print(line, file=sys.stderr)
    if given.json:
        given.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
