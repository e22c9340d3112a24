"""The compute API in-process: real routes, real database, real policy rules; identity is one dict of tokens."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import httpx
import msgspec
import pytest
from oslo_config import cfg
from oslo_policy import policy as oslo

from nacre.base.clock import VirtualClock
from nacre.base.context import Context
from nacre.base.db import Database
from nacre.base.durable.processes import Process, Processes
from nacre.base.durable.stories import Stories, Story
from nacre.base.errors import Conflict, Forbidden, NotFound, Unauthenticated
from nacre.base.serving.gate import ADMIN
from nacre.base.web import App
from nacre.compute.api.service import ComputeDeps, Proxied, service
from nacre.compute.catalog.aggregates import Aggregates
from nacre.compute.catalog.flavors import Flavors
from nacre.compute.catalog.keypairs import KeyPairs
from nacre.compute.catalog.quotas import Quotas
from nacre.compute.catalog.server_groups import ServerGroups
from nacre.compute.contract import ServerSpec
from nacre.compute.create import CreateDeps
from nacre.compute.history import History
from nacre.compute.policies import POLICIES
from nacre.compute.servers import Servers
from nacre.image.contract import ImageFacts
from nacre.network.contract import PortFacts
from nacre.scheduler.contract import HostReport, HostState, Placement
from nacre.scheduler.query import compile_query


def who(name: str, project: str, *roles: str) -> Context:
    return Context(request_id="req-test", user_id=name, user_name=name, project_id=project, project_name=project,
                   roles=roles)


#: When hosts were heard of last.
HEARD = datetime(2026, 1, 1)
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
        self._enforcer = oslo.Enforcer(conf, use_conf=False, rules=oslo.Rules.from_dict({ADMIN: "role:admin", **rules}))

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


class FakeNetwork:
    """Ports as a test puts them; every order is fine."""

    def __init__(self):
        self.ports: dict[str, tuple[PortFacts, ...]] = {}
        self.refuses: Exception | None = None

    async def check(self, order: Any, count: int, least: int = 0) -> int:
        if self.refuses:
            raise self.refuses
        return count

    async def ports_of(self, server_ids: tuple[str, ...]) -> dict[str, tuple[PortFacts, ...]]:
        return {s: self.ports.get(s, ()) for s in server_ids}

    async def group_names(self, group_ids: tuple[str, ...]) -> dict[str, str]:
        return {g: f"name-of-{g}" for g in group_ids}


class FakeImages:
    """One image for all, and nothing else."""

    async def find(self, context: Context, image_id: str) -> ImageFacts:
        if image_id != IMAGE:
            raise NotFound(f"Image {image_id} could not be found.")
        return ImageFacts(id=IMAGE, name="cirros", owner=None, status="active", disk_format="qcow2",
                          container_format="bare", size=1000, virtual_size=1000, checksum=None, os_hash_algo=None,
                          os_hash_value=None, properties={"hw_disk_bus": "virtio"})


class FakeNodes:
    """Every host is this one."""

    def __call__(self, host: str) -> "FakeNodes":
        return self

    async def console(self, server_id: str, lines: int | None) -> str:
        return "\n".join([f"line {n}" for n in range(20)][-(lines or 20):])


class FakeHosts:
    """The scheduler's side of hosts."""

    def __init__(self, *names: str):
        self._hosts = {name: HostState(id=n, uuid=f"00000000-0000-4000-9000-{n:012d}", up=True, updated_at=HEARD,
                                        report=HostReport(
            host=name, hypervisor_type="QEMU", hypervisor_version=8000000, vcpus=8, memory_mb=16384, disk_gb=100,
            vcpus_used=2, memory_mb_used=1024, disk_gb_used=10.5, running=1)) for n, name in enumerate(names, 1)}

    async def all(self) -> tuple[HostState, ...]:
        return tuple(self._hosts.values())

    async def refresh(self) -> None:
        """Aggregates changed: nothing of it here."""

    async def check(self, query: str) -> None:
        compile_query(query)

    async def set_service(self, host: str, *, disabled: bool | None = None, reason: str | None = None,
                          forced_down: bool | None = None) -> HostState:
        if host not in self._hosts:
            raise NotFound(f"Compute host {host} could not be found.")
        old = self._hosts[host]
        self._hosts[host] = msgspec.structs.replace(
            old, disabled=old.disabled if disabled is None else disabled,
            disabled_reason=reason if disabled else (None if disabled is False else old.disabled_reason),
            forced_down=old.forced_down if forced_down is None else forced_down)
        return self._hosts[host]

    async def remove(self, host: str, *, dead: bool = False) -> None:
        if host == "host-2":
            raise Conflict("Host host-2 has 1 allocations: s (held).")
        if host not in self._hosts:
            raise NotFound(f"Compute host {host} could not be found.")
        del self._hosts[host]

    async def get(self, host: str) -> HostState | None:
        return self._hosts.get(host)

    async def accept(self, host: str) -> None:
        self._hosts[host] = msgspec.structs.replace(self._hosts[host], barred="")

    def bar(self, host: str, why: str) -> None:
        self._hosts[host] = msgspec.structs.replace(self._hosts[host], barred=why)


class FakeOrphans:
    """No host has any."""

    async def counts(self) -> dict[str, int]:
        return {"host-1": 2}

    async def all(self, host: str | None = None) -> tuple[()]:
        return ()

    async def adopt(self, context: Context, guest: str, wish: Any) -> Any:
        raise NotFound(f"No host has a guest {guest} that is unknown here.")

    async def forget(self, guest: str) -> Any:
        raise NotFound(f"No host has a guest {guest} that is unknown here.")


def nobody_runs(story: Story) -> None:
    """Nobody runs stories here."""


IMAGE = "11111111-2222-4333-8444-555555555555"


class Nothing:
    """A service that is asked by the proxies, and has nothing: `stories/test_proxies.py` asks the real ones."""

    async def ask(self, context: Context, line: str, body: Any = None, query: Any = ()) -> Any:
        method, _, path = line.partition(" ")
        if method == "POST":
            raise Forbidden
        if path.startswith("/v2.0/security-groups") and path.count("/") == 2:
            return {"security_groups": []}
        if path.count("/") == 2:
            return {path.rpartition("/")[2]: []}
        raise NotFound


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def db(story_db: Database) -> Database:
    return story_db


@pytest.fixture
def policy() -> Rules:
    return Rules(POLICIES)


@pytest.fixture
async def client(db, clock, policy):
    people, network, nodes = People(), FakeNetwork(), FakeNodes()
    images = FakeImages()
    flavors, keypairs, quotas = Flavors(db, clock), KeyPairs(db, clock), Quotas(db)
    scheduler = FakeHosts("host-1", "host-2")
    processes = Processes(db, clock)
    await processes.start(Process(id="control", role="control", name="control"))
    servers = Servers(db, clock, CreateDeps(flavors=flavors, keypairs=keypairs, quotas=quotas, images=images,
                                           network=network, policy=policy), Stories(db, clock, processes), nobody_runs)

    async def planner(context: Context, spec: ServerSpec) -> tuple[Placement, ...]:
        return tuple(Placement(server_id=str(n), host="host-1" if n < 2 else "", why="0 of 2 hosts fit", details="h")
                     for n, _ in enumerate(await servers.sketch(context, spec)))

    made = service(ComputeDeps(
        planner=planner, identity=people, clock=clock, servers=servers,
        history=History(db), node=nodes, network=network, scheduler=scheduler, hosts=scheduler,
        controls=lambda: processes.all("control"),
        nodes=lambda: processes.all("node"), orphans=FakeOrphans(), removal=scheduler,
        flavors=flavors, keypairs=keypairs, quotas=quotas,
        aggregates=Aggregates(db, clock, scheduler.refresh), groups=ServerGroups(db, clock),
        proxied=Proxied(image=Nothing(), network=Nothing())))
    client = Client(App([made], people.authenticate, policy.allows))
    client.db, client.network, client.scheduler, client.clock = db, network, scheduler, clock
    yield client
    await client.http.aclose()
