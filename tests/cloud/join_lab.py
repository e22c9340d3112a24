"""Controls over one database in this process, on real sockets with real keys, for hosts to join."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from nacre.base.clock import Clock, RealClock
from nacre.base.db import Database
from nacre.base.rpc.keys import KeyPair, new_keys
from nacre.base.rpc.server import Peer
from nacre.base.rpc.stub import stub
from nacre.base.rpc.zmq import ZmqTransport
from nacre.cloud.contract import Joined, JoinRequest
from nacre.cloud.control import Control, build_control
from nacre.cloud.join_client import join
from nacre.cloud.joining import create
from nacre.conductor.contract import TARGET as CONDUCTOR
from nacre.conductor.contract import Beat, Conductor
from nacre.config import load
from nacre.identity.keys.ring import Ring, Signer
from nacre.network.contract import AgentReport
from nacre.scheduler.contract import HostReport


class Member:
    """One control, and its way to be asked."""

    def __init__(self, control: Control, transport: ZmqTransport, db: Database, clock: Clock):
        self.control, self.transport, self.db, self._clock = control, transport, db, clock

    async def token(self, seconds: float = 3600.0) -> str:
        """A new one, which this control knows already."""
        signer = Signer(Ring(self.control.keys, "join"))
        text, made = await create(self.db, self._clock, signer, seconds)
        await self.knows(made.keys.public)
        return text

    async def knows(self, key: str) -> None:
        """Until this control lets its holder in."""
        async with asyncio.timeout(5):
            while key not in self.transport.directory.peers:
                await asyncio.sleep(0.02)

    async def greets(self, name: str, keys: KeyPair) -> bool:
        """Whether a host of this name and key is let in here. Raises what stands against it."""
        transport = ZmqTransport(Peer(name, "node"), keys)
        transport.directory.route("control", "c", self.transport.address, self.transport.public_key)
        beat = Beat(report=HostReport(host=name, hypervisor_type="fake", hypervisor_version=1, vcpus=1, memory_mb=1,
                                      disk_gb=1, vcpus_used=0, memory_mb_used=0, disk_gb_used=0.0),
                    agent=AgentReport(host=name, tunnel_ip=None, bridge_mappings={}, tunnel_types=()))
        try:
            heard = await stub(Conductor, transport.client(CONDUCTOR).prepare(server="c", timeout=5)).beat(beat)
            return heard.again
        finally:
            await transport.close()


@asynccontextmanager
async def member(folder: Path, url: str, name: str = "one", seal_key: str = "") -> AsyncIterator[Member]:
    """A control over the database at `url` (all tables)."""
    environ = {"NACRE_IDENTITY_ARGON2": "1,64", "NACRE_HYPERVISOR": "fake", "NACRE_RPC_NAME": name,
               **({"NACRE_IDENTITY_SEAL_KEY": seal_key} if seal_key else {})}
    (folder / "control").mkdir(mode=0o700, parents=True)
    settings, clock = load(folder, environ=environ), RealClock()
    db, transport = Database(url), ZmqTransport(Peer(name, "control"), new_keys(), "tcp://127.0.0.1:0")
    control = build_control(settings, transport, db)
    await control.keys.open()
    await transport.start()
    try:
        async with control.running():
            yield Member(control, transport, db, clock)
    finally:
        await transport.close()
        await db.close()


async def enter(token: str, name: str = "host-1", keys: KeyPair | None = None) -> Joined:
    """As `nacre join`."""
    return await join(JoinRequest(token=token, name=name, public_key=(keys or new_keys()).public))
