"""An image service of its own for each test: real SQL, real policy rules, a real directory; tokens are names."""

from pathlib import Path
from typing import Any

import httpx

from nacre.base.clock import RealClock
from nacre.base.context import Context
from nacre.base.db import Database
from nacre.base.errors import Unauthenticated
from nacre.base.web import App
from nacre.identity.policy import PolicyEngine
from nacre.image.api.service import service
from nacre.image.members import Members
from nacre.image.metadefs.service import Metadefs
from nacre.image.policies import POLICIES
from nacre.image.service import ImageService, Settings
from nacre.image.stores import FileStore
from nacre.image.uploads import Uploads

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


class Cloud:
    """The service, and clients for it."""

    def __init__(self, directory: Path, database: Database, settings: Settings):
        self.directory, self.database = directory, database
        rules = PolicyEngine([POLICIES])
        self.images = ImageService(database, rules, FileStore(directory), RealClock(), settings)
        self.uploads, self.members = Uploads(self.images), Members(self.images)
        self.app = App([service(self.images, self.uploads, self.members, Metadefs(self.images))],
                       authenticate, rules.check)

    def client(self, token: str | None) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://cloud/image",
                                 headers={"X-Auth-Token": token} if token else {})

    def files(self) -> list[str]:
        return sorted(p.name for p in self.directory.iterdir())


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
