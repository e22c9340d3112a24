"""The whole control plane and one simulated host in this process, over the in-memory transport, spoken to by HTTP."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
from tests import schema

from nacre.base.db import Database
from nacre.base.rpc.memory import CONTROL, MemoryHub, MemoryTransport
from nacre.base.rpc.server import Peer
from nacre.cli.bootstrap import first_rows
from nacre.cloud.control import Control, build_control
from nacre.cloud.node import build_node
from nacre.config import load

ROOTS = {"identity": "/identity/v3", "image": "/image/v2", "network": "/network/v2.0", "compute": "/compute/v2.1",
         "placement": "/placement"}


class WholeCloud:
    """Clients by user; `control` is the process's inside."""

    def __init__(self, control: Control, passwords: dict[str, str]):
        self.control, self.passwords = control, passwords
        self.http = httpx.AsyncClient(
            transport=httpx.ASGITransport(app=control.app, raise_app_exceptions=True), base_url="http://cloud.test")
        self.tokens: dict[str, str] = {}

    async def login(self, user: str, scope: dict[str, Any] | None = None, **password: str) -> httpx.Response:
        """A token by password. scope None: the project of the user's own name."""
        wanted = {"project": {"name": user, "domain": {"id": "default"}}} if scope is None else scope
        proof = {"name": user, "domain": {"id": "default"},
                 "password": password.get("password", self.passwords.get(user))}
        return await self.http.post("/identity/v3/auth/tokens", json={"auth": {
            "identity": {"methods": ["password"], "password": {"user": proof}},
            **({"scope": wanted} if wanted else {})}})

    async def token(self, user: str) -> str:
        if user not in self.tokens:
            self.tokens[user] = (await self.login(user)).headers["x-subject-token"]
        return self.tokens[user]

    async def ask(self, user: str, method: str, service: str, path: str, body: Any = None,
                  **headers: str) -> httpx.Response:
        """One request of a user ("": without a token)."""
        if user:
            headers["X-Auth-Token"] = await self.token(user)
        if service == "compute":
            headers.setdefault("OpenStack-API-Version", "compute 2.96")
        return await self.http.request(method, ROOTS[service] + path, json=body, headers=headers)


@asynccontextmanager
async def whole_cloud(folder: Path, url: str = "", *, host: bool = True) -> AsyncIterator[WholeCloud]:
    """A cloud over the database at `url` (all tables, no rows): a SQLite file unless given. host: it has one."""
    settings = load(folder, environ={"NACRE_IDENTITY_ARGON2": "1,64",
                                     "NACRE_HYPERVISOR": "fake", "NACRE_RPC_CONTROL_NAME": CONTROL.name})
    for name in ("control", "node"):
        (folder / name).mkdir(mode=0o700)
    hub = MemoryHub()
    db = Database(url or schema.in_file(folder / "nacre.db"))
    control = build_control(settings, MemoryTransport(hub), db)
    await first_rows(control)
    async with control.running():
        known = msgspec.json.decode((folder / "control" / "passwords.json").read_bytes())
        async with AsyncExitStack() as stack:
            if host:
                node = build_node(settings, MemoryTransport(hub, me=Peer(settings.host_name, "node")))
                await stack.enter_async_context(node())
            yield WholeCloud(control, known)
    await db.close()
