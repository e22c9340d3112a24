"""The identity API in-process, first rows and all, with a clock that tests move."""

from pathlib import Path
from typing import Any

import httpx

from nacre.base.clock import VirtualClock
from nacre.base.db import Database
from nacre.base.web import App
from nacre.identity.api.service import service
from nacre.identity.catalog import First, bootstrap
from nacre.identity.keys.ring import Ring
from nacre.identity.keys.seal import Seal
from nacre.identity.keys.store import Keys
from nacre.identity.passwords import Passwords
from nacre.identity.policies import POLICIES
from nacre.identity.policy import PolicyEngine
from nacre.identity.service import IdentityService
from nacre.identity.store import Store

BASE = "http://cloud"
V3 = "/identity/v3"
PASSWORDS = {"admin": "admin-pw", "demo": "demo-pw", "demo-alt": "alt-pw", "service": "service-pw"}
CHEAP = {"time_cost": 1, "memory": 8}

Json = dict[str, Any]


def project(name: str, domain: str = "default") -> Json:
    return {"project": {"name": name, "domain": {"id": domain}}}


def domain(id: str) -> Json:
    return {"domain": {"id": id}}


SYSTEM = {"system": {"all": True}}


class Lab:
    """One identity service; `client` talks to it."""

    def __init__(self, folder: Path, db: Database):
        self.db, self.clock, self.folder = db, VirtualClock(), folder
        self.passwords = Passwords(**CHEAP)
        self.store = Store(db, self.clock)
        self.keys = Keys(db, self.clock, Seal(folder / "seal-key"), token_lifetime=3600)
        self.identity = IdentityService(self.store, Ring(self.keys, "token"), self.passwords, lifetime=3600)
        self.policy = PolicyEngine([POLICIES])
        self.service = service(self.identity, self.keys.vault)
        self.app = App([self.service], self.identity.authenticate, self.policy.allows)

    async def start(self) -> None:
        await self.keys.open()
        await bootstrap(self.db, First(base_url=BASE, passwords=PASSWORDS), self.passwords)

    def client(self, token: str | None = None) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.ASGITransport(app=self.app), base_url=BASE + V3,
                                 headers={"X-Auth-Token": token} if token else {})

    async def post_auth(self, auth: Json, query: str = "") -> httpx.Response:
        async with self.client() as client:
            return await client.post(f"/auth/tokens{query}", json={"auth": auth})

    async def token(self, user: str, password: str, scope: Any = None, domain_id: str = "default") -> str:
        """A token by name and password. scope None: not named at all."""
        answer = await self.post_auth(by_password(user, password, scope, domain_id))
        assert answer.status_code == 201, answer.text
        return answer.headers["X-Subject-Token"]

    async def admin(self, scope: Any = None) -> httpx.AsyncClient:
        return self.client(await self.token("admin", PASSWORDS["admin"], scope or project("admin")))

    async def demo(self, scope: Any = None) -> httpx.AsyncClient:
        return self.client(await self.token("demo", PASSWORDS["demo"], scope or project("demo")))

    async def works(self, token: str) -> bool:
        async with self.client(token) as client:
            return (await client.get("/auth/projects")).status_code == 200


def by_password(user: str, password: str, scope: Any = None, domain_id: str = "default") -> Json:
    auth: Json = {"identity": {"methods": ["password"], "password": {
        "user": {"name": user, "domain": {"id": domain_id}, "password": password}}}}
    return auth if scope is None else {**auth, "scope": scope}


def by_token(token: str, scope: Any = None) -> Json:
    auth: Json = {"identity": {"methods": ["token"], "token": {"id": token}}}
    return auth if scope is None else {**auth, "scope": scope}


async def made(client: httpx.AsyncClient, path: str, kind: str, **values: Any) -> Json:
    """What a POST makes."""
    answer = await client.post(path, json={kind: values})
    assert answer.status_code == 201, answer.text
    found: Json = answer.json()[kind]
    return found


async def role_id(client: httpx.AsyncClient, name: str) -> str:
    return str((await client.get("/roles", params={"name": name})).json()["roles"][0]["id"])
