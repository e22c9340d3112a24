"""Who may speak to a control process, and where others are found: from the table of processes, which all control
processes share. What one of them is told counts with all of them within a second."""

from collections.abc import Callable, Mapping, Sequence

import structlog

from nacre.base.durable.changes import Change, Changes
from nacre.base.durable.processes import Process, Processes
from nacre.base.errors import Forbidden
from nacre.base.rpc.server import Peer
from nacre.base.rpc.stub import stub
from nacre.cloud.running import Transport
from nacre.conductor.contract import ControlAddress, NodeHello
from nacre.image.contract import TARGET as IMAGE
from nacre.image.contract import Images

log = structlog.get_logger()


class Introductions:
    """given: host -> its public key, and its address if that is known, of hosts that this process was started with.
    changed: called when hosts should hear of the control processes anew."""

    def __init__(self, transport: Transport, processes: Processes, changes: Changes, given: Mapping[str, str]):
        self._transport, self._processes, self._changes, self._given = transport, processes, changes, given
        self._directory = transport.directory
        self._controls: tuple[ControlAddress, ...] = ()
        self._nodes: tuple[str, ...] = ()
        self._wiring: dict[str, int] = {}
        self.changed: Callable[[], None] = lambda: None
        changes.subscribe(("process",), self._processes_changed, self.reload)
        changes.subscribe(("wiring",), self._wiring_changed, self._reload_wiring)

    async def start(self) -> None:
        """Those that are known, and those that this process was started with."""
        for host, introduction in self._given.items():
            key, _, address = introduction.partition(" ")
            await self._processes.introduce(Process(
                id=f"node:{host}", role="node", name=host, address=address, public_key=key))
        await self.reload()
        await self._reload_wiring()

    async def reload(self) -> None:
        """Exactly the keys of the table open the door."""
        known = await self._processes.all()
        for process in known:
            if process.public_key:
                self._directory.register(process.public_key, Peer(process.name, process.role))
            if process.address and process.name != self._transport.me.name:
                self._directory.route(process.role, process.name, process.address, process.public_key)
        keys = {process.public_key for process in known} | {self._transport.public_key}
        for key, peer in list(self._directory.peers.items()):
            if key not in keys:
                log.warning("a process is shut out", name=peer.name, role=peer.role)
                self._directory.revoke(key)
                self._directory.unroute(peer.role, peer.name)
        self._nodes = tuple(p.name for p in known if p.role == "node")
        controls = tuple(ControlAddress(p.name, p.address, p.public_key) for p in known if p.role == "control")
        if controls != self._controls:
            self._controls = controls
            self.changed()

    async def of_node(self, hello: NodeHello) -> None:
        """A host said where it listens. Its key is the one that it proved to have. Raises Forbidden: it was removed."""
        key = self._directory.key_of(Peer(hello.host, "node"))
        process = Process(id=f"node:{hello.host}", role="node", name=hello.host, address=hello.endpoint,
                          public_key=key, version=hello.version)
        if not key and hello.host not in self._directory.shut_out:  # in one process, where nobody has keys
            await self._processes.introduce(process)
        elif not key or not await self._processes.renew(process):
            raise Forbidden(f"Host {hello.host} is not of this cloud any more: let it join again.")
        if hello.endpoint:
            self._directory.route("node", hello.host, hello.endpoint, key)

    async def controls(self) -> Sequence[ControlAddress]:
        """All control processes that hosts should report to."""
        return self._controls

    def nodes(self) -> Sequence[str]:
        """The hosts that belong to the cloud."""
        return self._nodes

    def wiring(self, host: str) -> int:
        """The number of the last change to a host's wiring."""
        return self._wiring.get(host, 0)

    async def _processes_changed(self, changes: Sequence[Change]) -> None:
        await self.reload()

    async def _reload_wiring(self) -> None:
        self._wiring |= await self._changes.latest("wiring")

    async def _wiring_changed(self, changes: Sequence[Change]) -> None:
        self._wiring |= await self._changes.latest("wiring", changes[0].n - 1)


class ImagePeers:
    """Implements `image.data.locations.Peers`: the other control processes, for the data that only they can read."""

    def __init__(self, transport: Transport, processes: Processes):
        self._client, self._processes = transport.client(IMAGE), processes

    async def alive(self) -> set[str]:
        return {process.id for process in await self._processes.all("control") if process.alive}

    async def name(self, process: str) -> str:
        return next((p.name for p in await self._processes.all("control") if p.id == process), process)

    async def read(self, process: str, image_id: str, offset: int, length: int) -> bytes:
        there = self._client.prepare(server=await self.name(process))
        return await stub(Images, there).read(image_id, offset, length)
