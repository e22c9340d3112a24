"""The metadata service: one process, a listening socket in every network's namespace.

Who asks is worked out from where the request arrived (the namespace: the network) and its source address, held against
our own wiring. What the request says of itself (X-Forwarded-For, X-Instance-ID, ...) is never read. One request a
connection, small limits, short patience: a rude guest only hurts itself.
"""

import asyncio
import ipaddress
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from http import HTTPStatus

import h11
import msgspec
import structlog

from nacre.base.clock import Clock, RealClock
from nacre.base.errors import NacreError, NotFound
from nacre.network.contract import NetworkFacts, PortFacts
from nacre.node.contract import GuestFacts
from nacre.node.metadata_content import listing, metadata_documents
from nacre.node.netns import inside

log = structlog.get_logger()

ADDRESSES = ("169.254.169.254", "fe80::a9fe:a9fe")
Facts = Callable[[str], Awaitable[GuestFacts]]


class MetadataLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Connections at once of one guest and of one network; seconds for a request; bytes of its head; seconds that
    a guest's facts may be old."""

    per_guest: int = 8
    per_network: int = 256
    seconds: float = 10.0
    head: int = 16384
    fresh: float = 5.0


class Metadata:
    """Serves guests their own metadata. facts: asks the conductor about a server; raises NotFound."""

    def __init__(self, facts: Facts, *, limits: MetadataLimits | None = None, clock: Clock | None = None,
                 port: int = 80):
        self._facts, self._limits = facts, limits or MetadataLimits()
        self._clock, self._port = clock or RealClock(), port
        self._servers: dict[str, tuple[str, list[asyncio.Server]]] = {}
        self._ports: dict[tuple[str, str], PortFacts] = {}
        self._of_server: dict[str, list[PortFacts]] = {}
        self._networks: dict[str, NetworkFacts] = {}
        self._busy: Counter[tuple[str, str]] = Counter()
        self._cache: dict[str, tuple[float, GuestFacts]] = {}

    def know(self, ports: Iterable[PortFacts], networks: Iterable[NetworkFacts]) -> None:
        """Replaces what is known of this host's ports: the only source of who a request is from."""
        self._ports, self._of_server = {}, {}
        self._networks = {network.id: network for network in networks}
        for port in ports:
            if not port.device_id:
                continue
            self._of_server.setdefault(port.device_id, []).append(port)
            for address in sources(port):
                self._ports[port.network_id, address] = port
        self._cache = {server: old for server, old in self._cache.items() if server in self._of_server}

    @property
    def serving(self) -> set[str]:
        """The networks that are listened in."""
        return set(self._servers)

    async def serve(self, network_id: str, namespace: str) -> None:
        """Listens in the network's namespace. Idempotent; a namespace of another name is taken anew."""
        if network_id in self._servers:
            if self._servers[network_id][0] == namespace:
                return
            await self.stop(network_id)
        sockets = await inside(namespace, lambda: listeners(self._port))
        servers = []
        for listener in sockets:
            servers.append(await asyncio.start_server(
                lambda r, w: self._connection(network_id, r, w), sock=listener, limit=self._limits.head))
        self._servers[network_id] = (namespace, servers)

    async def stop(self, network_id: str) -> None:
        """Listens there no longer."""
        for server in self._servers.pop(network_id, ("", []))[1]:
            server.close()

    async def close(self) -> None:
        """Listens nowhere."""
        for network_id in list(self._servers):
            await self.stop(network_id)

    async def answer(self, network_id: str, source: str, method: str, target: str) -> tuple[int, bytes, str]:
        """Status, body and content type for a request from this address in this network."""
        port = self._ports.get((network_id, source))
        if port is None:
            return 404, b"Not Found", "text/plain"
        if method not in {"GET", "HEAD"}:
            return 405, b"Method Not Allowed", "text/plain"
        try:
            facts = await self._guest(port.device_id)
        except NotFound:
            return 404, b"Not Found", "text/plain"
        if facts.project_id != port.project_id:  # a port of another project is no interface of the server
            return 404, b"Not Found", "text/plain"
        mine = [p for p in self._of_server.get(port.device_id, [port]) if p.project_id == facts.project_id]
        networks = [self._networks[p.network_id] for p in mine if p.network_id in self._networks]
        return lookup(metadata_documents(facts, mine, networks), target)

    async def _guest(self, server_id: str) -> GuestFacts:
        now = self._clock.monotonic()
        read, facts = self._cache.get(server_id, (-1e9, None))
        if facts is None or now - read > self._limits.fresh:
            facts = await self._facts(server_id)
            self._cache[server_id] = (now, facts)
        return facts

    async def _connection(self, network_id: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        source = plain(str(writer.get_extra_info("peername")[0]))
        guest, whole = (network_id, source), (network_id, "")
        room = self._busy[guest] < self._limits.per_guest and self._busy[whole] < self._limits.per_network
        self._busy.update((guest, whole))
        try:
            if room:
                async with asyncio.timeout(self._limits.seconds):
                    await self._exchange(guest, reader, writer)
        except (TimeoutError, OSError, h11.RemoteProtocolError):
            pass  # too slow, gone, or not HTTP: nothing is owed
        finally:
            self._busy.subtract((guest, whole))
            for key in (guest, whole):
                if self._busy[key] <= 0:
                    del self._busy[key]
            writer.close()

    async def _exchange(self, guest: tuple[str, str], reader: asyncio.StreamReader,
                        writer: asyncio.StreamWriter) -> None:
        http = h11.Connection(h11.SERVER, max_incomplete_event_size=self._limits.head)
        try:
            request = await _request(http, reader)
            if request is None:
                return
            method, target = request.method.decode(), request.target.decode("latin-1")
            status, body, kind = await self.answer(*guest, method, target)
        except h11.RemoteProtocolError as error:
            method, status, body, kind = "GET", error.error_status_hint, b"Bad Request", "text/plain"
        except (NacreError, TimeoutError) as error:
            log.warning("metadata not available", network=guest[0], source=guest[1], why=str(error))
            method, status, body, kind = "GET", 503, b"Service Unavailable", "text/plain"
        except Exception as error:  # no traceback: its frames hold the guest's facts
            log.error("metadata failed", network=guest[0], source=guest[1], why=type(error).__name__)
            method, status, body, kind = "GET", 500, b"Internal Server Error", "text/plain"
        writer.write(response(status, b"" if method == "HEAD" else body, kind, len(body)))
        await writer.drain()


def sources(port: PortFacts) -> list[str]:
    """The addresses a port's requests come from: its own, and its link-local one."""
    from nacre.node.ovs.antispoof import link_local

    return [*(plain(fixed.ip_address) for fixed in port.fixed_ips), link_local(port.mac_address)]


def plain(address: str) -> str:
    """An address in its one spelling, without a scope."""
    return str(ipaddress.ip_address(address.partition("%")[0]))


def lookup(documents: dict[str, bytes], target: str) -> tuple[int, bytes, str]:
    """The document or listing at the request's target."""
    path = "/".join(part for part in target.partition("?")[0].split("/") if part)
    if path == "":
        roots = sorted({name.partition("/")[0] for name in documents} - {"openstack"})
        return 200, "\n".join(roots).encode(), "text/plain"
    if path in documents:
        return 200, documents[path], "application/json" if path.endswith(".json") else "text/plain; charset=UTF-8"
    names = listing(documents, path)
    if names is None:
        return 404, b"Not Found", "text/plain"
    return 200, names, "text/plain; charset=UTF-8"


def response(status: int, body: bytes, kind: str, length: int) -> bytes:
    """A whole HTTP/1.1 answer that ends the connection."""
    return (f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n"
            "Connection: close\r\n\r\n").encode() + body


def listeners(port: int) -> list[socket.socket]:
    """The sockets of one namespace (run inside it). IPv6 is left out where the host has none."""
    found = []
    for address in ADDRESSES:
        six = ":" in address
        listener = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if six:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                listener.bind((address, port, 0, socket.if_nametoindex("dhcp0")))
            else:
                listener.bind((address, port))
        except OSError as error:
            listener.close()
            if not six:
                raise
            log.info("no metadata over IPv6", why=str(error))
            continue
        listener.listen(128)
        listener.setblocking(False)
        found.append(listener)
    return found


async def _request(http: h11.Connection, reader: asyncio.StreamReader) -> h11.Request | None:
    """The request's head; bodies are not read."""
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            data = await reader.read(4096)
            http.receive_data(data)
            if not data:
                return None
        elif isinstance(event, h11.Request):
            return event
        else:
            return None
