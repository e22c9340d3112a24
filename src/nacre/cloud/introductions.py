"""Who may speak to a control process, and where others are found: from the table of processes, which all control
processes share. What one of them is told counts with all of them within a second."""

import ipaddress
from collections.abc import Callable, Collection, Mapping, Sequence

import structlog

from nacre.base.bounds import pieces
from nacre.base.db.together import VALUES, Together
from nacre.base.durable.changes import Change, Changes
from nacre.base.durable.processes import Process, Processes
from nacre.base.errors import Forbidden
from nacre.base.rpc.addresses import checked, host_of
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
        self._known: dict[tuple[str, str], Process] = {}
        self._controls: tuple[ControlAddress, ...] = ()
        self._wiring: dict[str, int] = {}
        self._renew = Together[Process, bool](lambda some: processes.renew(*some))
        self._introduce = Together[Process, None](self._introduce_all)
        self.changed: Callable[[], None] = lambda: None
        changes.subscribe(("process",), self._processes_changed, self.reload)
        changes.subscribe(("token",), self._tokens_changed, self._reload_tokens)
        changes.subscribe(("wiring",), self._wiring_changed, self._reload_wiring)

    async def start(self) -> None:
        """Those that are known, and those that this process was started with, unless they were removed since."""
        removed, given = await self._processes.removed_keys(), list[Process]()
        for host, introduction in self._given.items():
            key, _, address = introduction.partition(" ")
            if key in removed:
                log.warning("a host that was removed stays out; give it another key to let it in", host=host)
                continue
            given.append(Process(id=f"node:{host}", role="node", name=host, address=address, public_key=key))
        for some in pieces(given, VALUES):
            await self._processes.introduce(*some)
        await self.reload()
        await self._reload_tokens()
        await self._reload_wiring()

    async def reload(self) -> None:
        """Exactly the keys of the table open the door, besides those of join tokens."""
        self._accept(await self._processes.all(), None)

    async def meet(self, names: Collection[str]) -> None:
        """As `reload`, of processes of these names only."""
        self._accept(await self._processes.named(names), frozenset(names))

    def _accept(self, found: Sequence[Process], names: Collection[str] | None) -> None:
        """found: all processes of these names; None: all that there are."""
        now = {(p.role, p.name): p for p in found}
        asked = list(self._known) if names is None else [(role, name) for name in names for role in ("control", "node")]
        for place in asked:
            if place not in now and (process := self._known.pop(place, None)) is not None:
                self._shut_out(process.public_key)
                self._directory.unroute(*place)
        for place, process in now.items():
            before = self._known.get(place)
            self._known[place] = process
            if before is not None and before.public_key != process.public_key:
                self._shut_out(before.public_key)
            if process.public_key:
                self._directory.register(process.public_key, Peer(process.name, process.role))
            if process.address and process.name != self._transport.me.name:
                self._directory.route(process.role, process.name, process.address, process.public_key)
        controls = tuple(ControlAddress(p.name, p.address, p.public_key) for p in sorted(
            (p for p in self._known.values() if p.role == "control"), key=lambda p: p.name))
        if controls != self._controls:
            self._controls = controls
            self.changed()

    def _shut_out(self, key: str) -> None:
        peer = self._directory.peers.get(key)
        if peer is not None and key != self._transport.public_key and not any(
                p.public_key == key for p in self._known.values()):
            log.warning("a process is shut out", name=peer.name, role=peer.role)
            self._directory.revoke(key)

    async def of_node(self, hello: NodeHello) -> None:
        """A host said where it listens. Its key is the one that it proved to have. Raises Forbidden: it was removed, or
        another joined under its name, whether this process has read of that or not; BadRequest: nobody can listen
        there."""
        if hello.endpoint:
            checked(hello.endpoint, near=self._near())
        key = self._directory.key_of(Peer(hello.host, "node"))
        process = Process(id=f"node:{hello.host}", role="node", name=hello.host, address=hello.endpoint,
                          public_key=key, version=hello.version)
        if not key and self.admits(hello.host):  # in one process, where nobody has keys
            await self._introduce(process)
        elif not key or hello.public_key not in ("", key) or not await self._renew(process):
            raise Forbidden(f"Host {hello.host} is not of this cloud any more: let it join again.")
        if hello.endpoint:
            self._directory.route("node", hello.host, hello.endpoint, key)

    def _near(self) -> bool:
        """Whether hosts may be on this machine only: nobody else reaches this process either."""
        own = host_of(self._transport.address)
        try:
            return not own or ipaddress.ip_address(own).is_loopback
        except ValueError:  # a name that the operator gave
            return own == "localhost"

    def admits(self, host: str) -> bool:
        """Whether it may speak here, as far as this process has heard: it was not removed."""
        return bool(self._directory.key_of(Peer(host, "node"))) or host not in self._directory.shut_out

    async def _introduce_all(self, some: Sequence[Process]) -> Sequence[None]:
        await self._processes.introduce(*some)
        return [None] * len(some)

    async def controls(self) -> Sequence[ControlAddress]:
        """All control processes that hosts should report to."""
        return self._controls

    def nodes(self) -> Sequence[str]:
        """The hosts that belong to the cloud."""
        return tuple(name for role, name in self._known if role == "node")

    def wiring(self, host: str) -> int:
        """The number of the last change to a host's wiring."""
        return self._wiring.get(host, 0)

    async def _processes_changed(self, changes: Sequence[Change]) -> None:
        await self.meet({change.id for change in changes})

    async def _reload_tokens(self) -> None:
        """Whoever has a join token's key may ask to join, and hears why it does not count, if so."""
        keys = await self._processes.token_keys()
        for key in [k for k, peer in self._directory.peers.items() if peer.role == "join" and k not in keys]:
            self._directory.revoke(key)
        for key, token in keys.items():
            self._directory.register(key, Peer(token, "join"))

    async def _tokens_changed(self, changes: Sequence[Change]) -> None:
        for key, token in (await self._processes.token_keys({change.id for change in changes})).items():
            self._directory.register(key, Peer(token, "join"))

    async def _reload_wiring(self) -> None:
        self._wiring = await self._changes.latest("wiring")

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
