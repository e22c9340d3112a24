"""The compute API in-process: real routes, real database, real policy rules; identity is one dict of tokens."""

from collections.abc import Mapping
from typing import Any

import httpx
import pytest
from oslo_config import cfg
from oslo_policy import policy as oslo

from nacre.base.clock import VirtualClock
from nacre.base.context import Context
from nacre.base.db import Database
from nacre.base.errors import Forbidden, Unauthenticated
from nacre.base.web import App
from nacre.compute.policies import POLICIES


def who(name: str, project: str, *roles: str) -> Context:
    return Context(request_id="req-test", user_id=name, user_name=name, project_id=project, project_name=project,
                   roles=roles)


PEOPLE = {
    "admin": who("root", "operators", "admin", "manager", "member", "reader"),
    "alice": who("alice", "red", "member", "reader"),
    "bob": who("bob", "blue", "member", "reader"),
    "rita": who("rita", "red", "reader"),
    "service": who("neutron", "service", "service", "admin", "manager", "member", "reader"),
}


class Rules:
    """Policy by oslo.policy's own engine."""

    def __init__(self, rules: Mapping[str, str]):
        conf = cfg.ConfigOpts()
        conf([])
        self._enforcer = oslo.Enforcer(conf, use_conf=False, rules=oslo.Rules.from_dict(dict(rules)))

    def allows(self, context: Context, rule: str, target: Mapping[str, Any] | None = None) -> bool:
        who = {"roles": list(context.roles), "user_id": context.user_id, "project_id": context.project_id}
        return bool(self._enforcer.enforce(rule, dict(target) if target is not None else who, who))

    def check(self, context: Context, rule: str, target: Mapping[str, Any] | None = None) -> None:
        if not self.allows(context, rule, target):
            raise Forbidden(f"Policy doesn't allow {rule} to be performed.")


class People:
    """Identity: whoever is in PEOPLE, and their projects."""

    async def authenticate(self, token: str) -> Context:
        if token not in PEOPLE:
            raise Unauthenticated
        return PEOPLE[token]

    async def project_exists(self, project_id: str) -> bool:
        return project_id in {p.project_id for p in PEOPLE.values()}


class Client:
    """`await client.get("/servers", version="2.96", who="bob")` -> (status, JSON)."""

    def __init__(self, app: App):
        self.http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://cloud")

    async def raw(self, method: str, path: str, body: Any = None, *, version: str | None = None,
                  who: str | None = "alice", headers: Mapping[str, str] | None = None) -> httpx.Response:
        sent = dict(headers or {})
        if who:
            sent["x-auth-token"] = who
        if version:
            sent["openstack-api-version"] = f"compute {version}"
        return await self.http.request(method, "/compute" + path, json=body, headers=sent)

    async def call(self, method: str, path: str, body: Any = None, **rest: Any) -> tuple[int, Any]:
        answer = await self.raw(method, "/v2.1" + path, body, **rest)
        is_json = answer.content and "json" in answer.headers.get("content-type", "")
        return answer.status_code, answer.json() if is_json else answer.text or None

    async def get(self, path: str, **rest: Any) -> tuple[int, Any]:
        return await self.call("GET", path, **rest)

    async def post(self, path: str, body: Any, **rest: Any) -> tuple[int, Any]:
        return await self.call("POST", path, body, **rest)

    async def put(self, path: str, body: Any, **rest: Any) -> tuple[int, Any]:
        return await self.call("PUT", path, body, **rest)

    async def delete(self, path: str, **rest: Any) -> tuple[int, Any]:
        return await self.call("DELETE", path, **rest)


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
async def db():
    database = Database("sqlite://", inline=True)
    await database.create_all()
    yield database
    await database.close()


@pytest.fixture
def policy() -> Rules:
    return Rules(POLICIES)


@pytest.fixture
async def client(db, clock, policy):
    from nacre.compute.api.service import Parts, service
    from nacre.compute.flavors import Flavors
    from nacre.compute.keypairs import KeyPairs
    from nacre.compute.quotas import Quotas
    people = People()
    made = service(Parts(policy=policy, identity=people, flavors=Flavors(db, clock), keypairs=KeyPairs(db, clock),
                         quotas=Quotas(db)))
    client = Client(App([made], people.authenticate, policy.check))
    yield client
    await client.http.aclose()
