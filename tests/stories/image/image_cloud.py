"""An image service of its own for each test: real SQL, real policy rules, a real directory; tokens are names."""

import datetime as dt
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

from nacre.base.clock import RealClock
from nacre.base.context import Context
from nacre.base.db import Database
from nacre.base.errors import Unauthenticated
from nacre.base.rpc.memory import MemoryHub, MemoryTransport
from nacre.base.rpc.server import Peer
from nacre.base.rpc.stub import stub
from nacre.base.web import App
from nacre.identity.policy import PolicyEngine
from nacre.image.api.service import service
from nacre.image.contract import TARGET, Images
from nacre.image.data.cleanup import GRACE, Cleanup
from nacre.image.data.files import FileStore
from nacre.image.data.locations import Locations, Peers
from nacre.image.data.store import Store
from nacre.image.data.uploads import Uploads
from nacre.image.endpoint import ImagesEndpoint, MayRead, anyone
from nacre.image.members import Members
from nacre.image.metadefs.service import Metadefs
from nacre.image.policies import POLICIES
from nacre.image.service import ImageService, Settings

A, B = "a" * 32, "b" * 32
ROLES = {"admin": ("admin", "manager", "member", "reader"), "member": ("member", "reader"), "reader": ("reader",)}


def context_of(token: str) -> Context:
    """`a-member` is a member of project A."""
    project, _, role = token.partition("-")
    if role not in ROLES:
        raise Unauthenticated
    return Context(request_id="req-x", user_id=f"user-{token}", project_id={"a": A, "b": B}.get(project, project),
                   roles=ROLES[role])


async def authenticate(token: str) -> Context:
    return context_of(token)


class Ahead(RealClock):
    """The machine's clock, set forward as told."""

    seconds = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.seconds

    def now(self) -> dt.datetime:
        return super().now() + dt.timedelta(seconds=self.seconds)


class Cloud:
    """The service of one control process, and clients for it. stores: without them, the directory alone."""

    def __init__(self, directory: Path, database: Database, settings: Settings, *, name: str = "control",
                 stores: Sequence[Store] = (), peers: Peers | None = None, may_read: MayRead = anyone):
        self.directory, self.database, self.name = directory, database, name
        rules = PolicyEngine([POLICIES])
        stores = stores or [FileStore(directory)]
        for store in stores:
            store.open(known=False)
        self.data = Locations(name, stores, peers)
        self.clock = Ahead()
        self.images = ImageService(database, rules, self.data, self.clock, settings)
        self.uploads, self.members, self.cleanup = Uploads(self.images), Members(self.images), Cleanup(self.images)
        self.endpoint = ImagesEndpoint(self.images, may_read)
        self.app = App([service(self.images, self.uploads, self.members, Metadefs(self.images))],
                       authenticate, rules.allows)

    def again(self) -> "Cloud":
        """The process after it was killed and started again; what it was doing never ends."""
        return Cloud(self.directory, self.database, self.images.settings, name=self.name,
                     stores=list(self.data.stores.values()), peers=self.data.peers)

    async def rounds(self) -> None:
        """Of the clean-up, until it takes processes that are silent all the while for gone."""
        await self.cleanup.round()
        self.clock.seconds += GRACE
        await self.cleanup.round()

    def client(self, token: str | None) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://cloud/image",
                                 headers={"X-Auth-Token": token} if token else {})

    def files(self) -> list[str]:
        return sorted(p.name for p in self.directory.iterdir())


class Controls(Peers):
    """Several control processes over one database, joined by the in-memory transport."""

    def __init__(self, folder: Path, database: Database, settings: Settings | None = None):
        self.hub, self.folder, self.database, self.settings = MemoryHub(), folder, database, settings or Settings()
        self.clouds: dict[str, Cloud] = {}
        self.may_read: MayRead = anyone
        self.silent = set[str]()  # they live, and their heartbeats do not come through
        self._transports: dict[str, MemoryTransport] = {}
        self._asking = MemoryTransport(self.hub, me=Peer("asking", "control"))

    def add(self, name: str, *stores: Store) -> Cloud:
        """A new process with a folder of its own."""
        return self._serve(Cloud(self.folder / name, self.database, self.settings, name=name, peers=self,
                                 may_read=self.may_read, stores=(*stores, FileStore(self.folder / name))))

    async def kill(self, name: str) -> None:
        """From one moment to the next."""
        await self._transports.pop(name).close()

    async def restart(self, name: str) -> Cloud:
        """It comes back, and cleans up."""
        if name in self._transports:
            await self.kill(name)
        cloud = self._serve(self.clouds[name].again())
        await cloud.cleanup.start()
        return cloud

    def node(self, host: str, control: str) -> Images:
        """How a host's node reads images through one of them."""
        asking = MemoryTransport(self.hub, me=Peer(host, "node"))
        return stub(Images, asking.client(TARGET).prepare(server=control, timeout=1))

    async def alive(self) -> set[str]:
        return set(self._transports) - self.silent

    async def name(self, process: str) -> str:
        return f"{process}.example.org"

    async def read(self, process: str, image_id: str, offset: int, length: int) -> bytes:
        other = stub(Images, self._asking.client(TARGET).prepare(server=process, timeout=1))
        return await other.read(image_id, offset, length)

    def _serve(self, cloud: Cloud) -> Cloud:
        self.clouds[cloud.name] = cloud
        transport = self._transports[cloud.name] = MemoryTransport(self.hub, me=Peer(cloud.name, "control"))
        transport.serve(TARGET, cloud.endpoint, Images, {"find": ("control",), "read": ("control", "node")})
        return cloud


async def register(client: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    """A queued image."""
    reply = await client.post("/v2/images", json={"name": "i", "disk_format": "raw", "container_format": "bare"} | body)
    assert reply.status_code == 201, reply.text
    document: dict[str, Any] = reply.json()
    return document


async def send(client: httpx.AsyncClient, image_id: str, data: bytes, to: str = "file") -> httpx.Response:
    """Its data."""
    return await client.put(f"/v2/images/{image_id}/{to}", content=data,
                            headers={"Content-Type": "application/octet-stream"})
