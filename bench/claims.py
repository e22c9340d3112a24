"""Claims over RPC for bench/scheduler.py: a process that is all the hosts, each with its own tracker and journal."""

import asyncio
import gc
import multiprocessing
import resource
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

from nacre.base.errors import Refused
from nacre.base.rpc.keys import KeyPair, new_keys
from nacre.base.rpc.server import Peer
from nacre.base.rpc.stub import stub
from nacre.base.rpc.target import Target
from nacre.base.rpc.zmq import ZmqTransport
from nacre.node.contract import BuildOrder, GuestFacts
from nacre.node.journal import Entry, Journal
from nacre.node.servers.tracker import Tracker
from nacre.scheduler.contract import HostReport, Placement, PlacementRequest

TARGET = Target(topic="hosts", namespace="claims", version="1.0")
#: Schedulers there may be.
PEERS = 8


class Claims(Protocol):
    """What the hosts of the process answer."""

    async def claim(self, host: str, order: BuildOrder) -> None: ...
    async def overcommitted(self) -> tuple[str, ...]: ...


def order(request: PlacementRequest, placement: Placement, report: HostReport) -> BuildOrder:
    """What the conductor would send. What the host had before the benchmark comes off its limits."""
    a, limits, server = request.amounts, placement.limits, request.server_ids[0]
    assert limits is not None
    return BuildOrder(
        cloud="", allocation=placement.allocation, server_id=server, epoch=1, memory_mb=a.memory_mb, vcpus=a.vcpus,
        root_gb=a.disk_mb // 1024, ephemeral_gb=0, swap_mb=0, limit_vcpus=limits.vcpus - report.vcpus_used,
        limit_memory_mb=limits.memory_mb - report.memory_mb_used,
        limit_disk_mb=limits.disk_mb - (0 if report.disks else report.disk_gb_used * 1024),
        image=None, selected_dir="", guest=GuestFacts(
            id=server, name=server, hostname=server, project_id="p", user_id="u", availability_zone="nova"))


class Hosts:
    """The endpoint. A host's journal is opened with its first claim, and stays open."""

    def __init__(self, folder: Path, hosts: Iterable[str]):
        self._folder, self._known = folder, set(hosts)
        self._hosts: dict[str, tuple[Tracker, Journal]] = {}
        self._limits: dict[str, BuildOrder] = {}

    async def claim(self, host: str, order: BuildOrder) -> None:
        """As `node/servers/builds.py` does it: counted, then on disk, then answered."""
        if host not in self._hosts and host in self._known:
            self._hosts[host] = Tracker(), Journal(self._folder / host / "journal.db")
        tracker, journal = self._hosts[host]
        tracker.claim(order)
        self._limits[host] = order
        await journal.write(Entry(
            allocation=order.allocation, server_id=order.server_id, epoch=order.epoch, stage="claimed", order=order))

    async def overcommitted(self) -> tuple[str, ...]:
        """Hosts that granted more than they have."""
        used = {host: self._hosts[host][0].used for host in self._limits}
        return tuple(host for host, most in self._limits.items()
                     if used[host].memory_mb > most.limit_memory_mb or used[host].vcpus > most.limit_vcpus)


class ClaimServer:
    """The process of the hosts."""

    def __init__(self, child: Any, address: str, keys: list[tuple[KeyPair, str]]):
        self._child, self.address, self.keys = child, address, keys

    @classmethod
    async def start(cls, folder: Path, hosts: list[str]) -> "ClaimServer":
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        peers, own = [new_keys() for _ in range(PEERS)], new_keys()
        child = context.Process(target=_serve, args=(folder, hosts, own, [p.public for p in peers], theirs))
        child.start()
        address = await asyncio.to_thread(ours.recv)
        return cls(child, address, [(p, own.public) for p in peers])

    async def stop(self) -> tuple[str, ...]:
        """Hosts that are over-committed: none, or the figures are worth nothing."""
        client = ClaimClient(f"scheduler{PEERS - 1}", self.address, self.keys[PEERS - 1])
        over = await client.overcommitted()
        await client.close()
        self._child.terminate()
        await asyncio.to_thread(self._child.join)
        return over


def _serve(folder: Path, hosts: list[str], keys: KeyPair, peers: list[str], pipe: Any) -> None:
    async def run() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
        transport = ZmqTransport(Peer("hosts", "node"), keys, "tcp://127.0.0.1:0")
        await transport.start()
        for n, public in enumerate(peers):
            transport.directory.register(public, Peer(f"scheduler{n}", "control"))
        transport.serve(TARGET, Hosts(folder, hosts), Claims, {"claim": ("control",), "overcommitted": ("control",)})
        gc.freeze()
        pipe.send(transport.address)
        await asyncio.Event().wait()

    if sys.platform != "win32":
        import uvloop
        uvloop.run(run())


class ClaimClient:
    """A scheduler's way to the hosts."""

    def __init__(self, name: str, address: str, keys: tuple[KeyPair, str]):
        own, server = keys
        self._transport = ZmqTransport(Peer(name, "control"), own)
        self._transport.directory.route("hosts", "hosts", address, server)
        self._hosts = stub(Claims, self._transport.client(TARGET))

    async def claim(self, host: str, order: BuildOrder) -> bool:
        """Whether the host granted it."""
        try:
            await self._hosts.claim(host, order)
        except Refused:
            return False
        return True

    async def overcommitted(self) -> tuple[str, ...]:
        return await self._hosts.overcommitted()

    async def close(self) -> None:
        await self._transport.close()
