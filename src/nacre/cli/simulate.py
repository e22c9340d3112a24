"""`nacre simulate`: many simulated hosts and a stream of creates and deletes, through the real control side and the
real host code in one process, under virtual time. One seed is one run."""

import asyncio
import gc
import json
import random
import resource
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import msgspec

from nacre.base import log
from nacre.base.context import Context
from nacre.base.db import Database
from nacre.base.errors import NacreError
from nacre.base.rpc.memory import CONTROL, Faults, MemoryHub, MemoryTransport
from nacre.base.rpc.server import Peer
from nacre.cloud.control import Control, Seams, build_control
from nacre.cloud.node import build_node
from nacre.compute.catalog.flavors import Flavor
from nacre.compute.contract import Server, ServerQuery, ServerSpec
from nacre.config import Settings, load
from nacre.network.contract import NetworkRequest
from nacre.node.hypervisor.fake import Faults as GuestFaults
from nacre.simulation import measures, plan
from nacre.simulation.load import Load
from nacre.simulation.measures import Decisions
from nacre.simulation.plan import Plan, Size
from nacre.simulation.seeds import seeded
from nacre.simulation.virtual_time import LoopClock, VirtualLoop

#: Files that the process needs beside a journal for each host.
FILES = 100
#: Seconds that a message takes, least and most.
LATENCY = (0.0002, 0.001)
WHO = Context(request_id="req-simulation", user_id="simulation", project_id="simulation", roles=("member", "reader"))


class SimulatedCloud:
    """The control side and its hosts, in this process. Implements what the load needs."""

    def __init__(self, settings: Settings, wishes: Plan):
        self._settings, self._wishes, seed = settings, wishes, wishes.seed
        self._hub = MemoryHub(clock=LoopClock(), faults=Faults(delay=LATENCY), seed=seed)
        self._db = Database("sqlite://", inline=True)
        self.clock, self.decisions = LoopClock(), Decisions(None, time.perf_counter)
        dice = random.Random(f"{seed}/scheduler")  # noqa: S311 - a simulation's dice
        self.control: Control = build_control(
            settings, MemoryTransport(self._hub), self._db, self.clock, Seams(chance=dice, watch=self._watch))
        self._image, self._networks = "", tuple[NetworkRequest, ...]()
        self._stack = AsyncExitStack()

    def _watch(self, scheduler: Any) -> Decisions:
        self.decisions = Decisions(scheduler, time.perf_counter)
        return self.decisions

    async def start(self, say: Callable[[int], None]) -> None:
        """Tables, flavors, an image, then the hosts, spread over one period of their reports; all have said hello."""
        from nacre.migrations.tables import create_all

        create_all(self._db.engine)
        self._stack.push_async_callback(self._db.close)
        await self._stack.enter_async_context(self.control.running())
        for size in self._wishes.sizes:
            await self.control.flavors.create(Flavor(
                id=size.name, name=size.name, memory_mb=size.memory_mb, vcpus=size.vcpus, root_gb=size.disk_gb))
        self._image = await self._make_image()
        if self._wishes.ports:
            self._networks = (NetworkRequest(network_id=await self._make_network()),)
        hosts = self._wishes.hosts
        for number in range(hosts):
            await self._start_host(number, f"host-{number:05}")
            say(number + 1)
            await asyncio.sleep(self._settings.node.report_period / hosts)
        while len(await self.control.registry.all()) < hosts:
            await self.clock.sleep(0.1)

    async def stop(self) -> None:
        """Everything ends, hosts first."""
        await self._stack.aclose()

    async def _start_host(self, number: int, name: str) -> None:
        own = msgspec.structs.replace(
            self._settings, data_dir=str(self._settings.data / "hosts" / name), node=msgspec.structs.replace(
                self._settings.node, name=name,
                tunnel_ip=f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"))
        faults = GuestFaults(delay={"define": self._wishes.spawn_seconds}, share=self._wishes.fault_rate,
                             dice=random.Random(f"{self._wishes.seed}/{name}"))  # noqa: S311 - a simulation's dice
        running = build_node(own, MemoryTransport(self._hub, me=Peer(name, "node")), self.clock, faults=faults)
        await self._stack.enter_async_context(running())

    async def _make_image(self) -> str:
        from nacre.image.data.uploads import Uploads

        async def data() -> Any:
            yield b"\0" * 512

        images = self.control.images
        image = await images.create(WHO, {"name": "image", "disk_format": "raw", "container_format": "bare"})
        await Uploads(images).upload(WHO, image.id, data(), 512)
        return str(image.id)

    async def _make_network(self) -> str:
        from nacre.network.addresses.subnets import Subnets
        from nacre.network.l2.networks import Networks
        from nacre.network.work import Work

        networks, subnets = Networks(), Subnets()

        def step(work: Work) -> str:
            made = networks.create(work, networks.resource.parse_create({"name": "network"}, WHO))
            subnets.create(work, subnets.resource.parse_create(
                {"name": "subnet", "network_id": made["id"], "ip_version": 4, "cidr": "172.16.0.0/12"}, WHO))
            return str(made["id"])

        found: str = await self.control.network.write(WHO, step)
        return found

    # -- for the load ----------------------------------------------------------------------------------------

    async def create(self, size: Size, number: int) -> str:
        """As the API would, once the request is parsed and its policy checked."""
        made = await self.control.servers.create(
            msgspec.structs.replace(WHO, request_id=f"req-create-{number}"),
            (ServerSpec(name=f"server-{number}", flavor_id=size.name, image_id=self._image, networks=self._networks),))
        return str(made[0].id)

    async def delete(self, server_id: str) -> None:
        servers = self.control.servers
        await servers.delete(msgspec.structs.replace(WHO, request_id=f"req-delete-{server_id}"),
                             await servers.get(server_id))

    async def busy(self) -> int:
        servers = self.control.servers
        building = await servers.search(ServerQuery(vm_states=("building",), limit=1))
        return len(building) + len(await servers.search(ServerQuery(task_states=("deleting",), limit=1)))

    # -- for the figures -------------------------------------------------------------------------------------

    async def sample(self, largest: Size) -> measures.Sample:
        """The hosts now."""
        hosts = await self.control.registry.all()
        return measures.sample(self.clock.monotonic(), (h.report for h in hosts), largest)

    async def servers(self) -> list[Server]:
        """All that ever were."""
        found: list[Server] = await self.control.servers.search(ServerQuery(
            deleted=None, limit=10_000_000, sort=(("created_at", False),)))
        return found


async def run(wanted: Plan, settings: Settings, say: Callable[[str, int], None]) -> dict[str, Any]:
    """The figures of a simulation. settings: a fake cloud's, with a data folder of its own."""
    begin = time.perf_counter()
    cloud, samples = SimulatedCloud(settings, wanted), list[measures.Sample]()

    async def look() -> None:
        while True:
            samples.append(await cloud.sample(wanted.largest))
            await asyncio.sleep(wanted.sample)

    try:
        await cloud.start(lambda number: say("hosts", number))
        started, watch = time.perf_counter(), asyncio.ensure_future(look())
        await Load(wanted, cloud, lambda number: say("servers", number)).run()
        watch.cancel()
        await asyncio.sleep(settings.node.report_period)
        samples.append(await cloud.sample(wanted.largest))
        took, servers = time.perf_counter() - started, await cloud.servers()
    finally:
        await cloud.stop()
    return {"seed": wanted.seed, "hosts": wanted.hosts, "servers": wanted.servers,
            **measures.summary(servers, samples, cloud.decisions),
            "real": {"start_s": round(started - begin, 1), "run_s": round(took, 1),
                     "servers_per_s": round(wanted.servers / took, 1),
                     "decision_us": measures.spread(cloud.decisions.seconds, 1e6, 1),
                     "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}}


def simulation(wanted: Plan, environ: dict[str, str], say: Callable[[str, int], None]) -> dict[str, Any]:
    """Runs it in a loop and a folder of its own. environ: options of the simulated cloud. Raises NacreError."""
    _raise_files(wanted.hosts + FILES)
    shared = Path("/dev/shm")  # noqa: S108 - only where to put a folder of our own
    with TemporaryDirectory(prefix="nacre-simulation-", dir=shared if shared.is_dir() else None) as folder:
        settings = load(Path(folder), environ={
            "NACRE_HYPERVISOR": "fake", "NACRE_RPC_CONTROL_NAME": CONTROL.name,
            "NACRE_QUOTAS_INSTANCES": "-1", "NACRE_QUOTAS_CORES": "-1", "NACRE_QUOTAS_RAM_MB": "-1",
            "NACRE_QUOTAS_PORTS": "-1", **environ})
        with seeded(wanted.seed), asyncio.Runner(loop_factory=VirtualLoop) as runner:
            return runner.run(run(wanted, settings, say))


def _raise_files(wanted: int) -> None:
    """A host keeps its journal open. Raises NacreError."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise NacreError(f"{wanted} open files are needed, {hard} are allowed: raise `ulimit -Hn`, or fewer --hosts.")
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


POSITIVE = click.FloatRange(min=0, min_open=True)


@click.command()
@click.option("--hosts", type=click.IntRange(1, 100_000), default=100, show_default=True)
@click.option("--servers", type=click.IntRange(1), default=1000, show_default=True, help="how many are created")
@click.option("--rate", type=POSITIVE, default=20.0, show_default=True, help="creates a virtual second")
@click.option("--lifetime", type=POSITIVE, default=600.0, show_default=True, help="a server's, mean, virtual seconds")
@click.option("--flavors", default="m1.tiny:512:1:1,m1.small:2048:1:20,m1.large:8192:4:80", show_default=True,
              help="NAME:MEMORY_MB:VCPUS:DISK_GB[:SHARE],...")
@click.option("--strategy", type=click.Choice(["memory", "cpu", "disk"]), default="memory", show_default=True)
@click.option("--sign", type=click.Choice(["1", "-1"]), default="-1", show_default=True, help="1 packs, -1 spreads")
@click.option("--best", type=click.IntRange(1), default=1, show_default=True, help="choose among that many of the best")
@click.option("--host-vcpus", type=click.IntRange(1), default=64, show_default=True)
@click.option("--host-memory-mb", type=click.IntRange(1024), default=262144, show_default=True)
@click.option("--host-disk-gb", type=click.IntRange(1), default=4096, show_default=True)
@click.option("--spawn-seconds", type=click.FloatRange(min=0), default=2.0, show_default=True,
              help="how long a host takes to start a guest")
@click.option("--fault-rate", type=click.FloatRange(0, 1), default=0.0, show_default=True,
              help="the share of guests that a host fails to start")
@click.option("--report-seconds", type=POSITIVE, default=10.0, show_default=True, help="between two reports of a host")
@click.option("--ports", is_flag=True, help="a port for each server, all on one network")
@click.option("--drain", is_flag=True, help="delete all servers at the end, and count what is left")
@click.option("--seed", type=int, default=0, show_default=True, help="the same seed is the same run")
@click.option("--json", "as_json", is_flag=True, help="the figures as JSON on standard output")
def simulate(as_json: bool, **given: Any) -> None:
    """Simulate hosts and a stream of creates and deletes through the real conductor and scheduler, in virtual time."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    named = {name: given[name] for name in Plan.__struct_fields__ if name in given}
    wanted = Plan(sizes=plan.sizes(given["flavors"]), **named)
    log.configure("ERROR")
    gc.freeze()
    gc.set_threshold(50_000, 50, 100)
    console = Console(stderr=True, highlight=False)
    with Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
                  console=console) as bars:
        tasks = {"hosts": bars.add_task("hosts started", total=wanted.hosts),
                 "servers": bars.add_task("servers created", total=wanted.servers)}
        result = simulation(wanted, _environ(given), lambda what, number: bars.update(tasks[what], completed=number))
    if as_json:
        click.echo(json.dumps(result, indent=1))
    else:
        show(result)


def _environ(given: dict[str, Any]) -> dict[str, str]:
    """The options of the simulated cloud."""
    return {name: str(given[key]) for name, key in (
        ("NACRE_SCHEDULER_STRATEGY", "strategy"), ("NACRE_SCHEDULER_SIGN", "sign"), ("NACRE_SCHEDULER_BEST", "best"),
        ("NACRE_FAKE_VCPUS", "host_vcpus"), ("NACRE_FAKE_MEMORY_MB", "host_memory_mb"),
        ("NACRE_FAKE_DISK_GB", "host_disk_gb"), ("NACRE_NODE_REPORT_PERIOD", "report_seconds"))}


def show(result: dict[str, Any]) -> None:
    """The figures for people."""
    from rich.console import Console
    from rich.table import Table

    def share(value: float) -> str:
        return f"{100 * value:.1f} %"

    table, real, builds = Table(box=None, show_header=False), result["real"], result["builds"]
    for name, used in result["utilisation"].items():
        table.add_row(f"{name} in use", f"mean {share(used['mean'])}, peak {share(used['peak'])}, "
                                        f"at the end {share(used['end'])}")
    scattered, active = result["fragmentation"], result["to_active_s"]
    table.add_row("fragmentation", f"mean {share(scattered['mean'])}, peak {share(scattered['peak'])}, at the end "
                  f"{share(scattered['end'])}; {scattered['largest_flavor_fits']} of the largest flavor would fit")
    table.add_row("hosts in use", f"peak {result['hosts_in_use']['peak']}, at the end {result['hosts_in_use']['end']}")
    table.add_row("over-committed hosts", str(result["over_committed_hosts"]))
    table.add_row("servers", f"{builds['active']} active, {builds['refused']} refused, {builds['deleted']} deleted")
    for why, count in result["refusals"].items():
        table.add_row("  refused", f"{count}: {why}")
    table.add_row("create to ACTIVE", f"median {active['median']:g} s, p99 {active['p99']:g} s, at most "
                  f"{active['max']:g} s (virtual)")
    table.add_row("decisions", f"{result['decisions']}, {result['tries_again']} after a host failed: median "
                  f"{real['decision_us']['median']:g} us, p99 {real['decision_us']['p99']:g} us (real)")
    table.add_row("took", f"{real['start_s']} s to start, {real['run_s']} s for {result['virtual_seconds']:.0f} "
                  f"virtual seconds: {real['servers_per_s']} servers/s, {real['memory_mb']} MB")
    Console(highlight=False).print(table)
