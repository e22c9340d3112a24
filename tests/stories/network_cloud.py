"""A network service alone, behind HTTP, with two projects and an administrator."""

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import httpx
import sqlalchemy as sa

from nacre.base.clock import VirtualClock, settle
from nacre.base.context import Context, service_context
from nacre.base.db import Database
from nacre.base.errors import Unauthenticated
from nacre.base.web import App
from nacre.identity.policy import PolicyEngine
from nacre.network.api.service import service
from nacre.network.contract import DIFFERENCES, AgentReport
from nacre.network.hosts.notifications import News, Notice
from nacre.network.manager import NetworkManager, NetworkParts
from nacre.network.nouns.router import Router
from nacre.network.policies import POLICIES
from nacre.network.tables import agents
from nacre.network.work import NetworkSettings

ROLES = {"admin": ("admin", "manager", "member", "reader"), "manager": ("manager", "member", "reader"),
         "member": ("member", "reader"), "reader": ("reader",)}
#: The project of "three": such an id as the identity service gives.
THREE = "33333333333343338333333333333333"
CALLERS = {name: Context(request_id="req-test", user_id=f"u-{name}", project_id=project, roles=ROLES[role])
           for name, project, role in (("admin", "p-admin", "admin"), ("one", "p-one", "member"),
                                       ("two", "p-two", "member"), ("watcher", "p-one", "reader"),
                                       ("manager", "p-one", "manager"), ("three", THREE, "member"))}


class Asked(PolicyEngine):
    """Remembers which rules it was asked."""

    def __init__(self) -> None:
        super().__init__([POLICIES])
        self.rules: set[str] = set()

    def allows(self, context: Context, rule: str, target: Mapping[str, Any] | None = None) -> bool:
        self.rules.add(rule)
        return super().allows(context, rule, target)


class Cloud:
    """The service, its clients by caller name, and the messages to hosts."""

    def __init__(self, db: Database, settings: NetworkSettings | None = None):
        self.db = db
        self.clock = VirtualClock()
        self.notified: list[tuple[set[str], tuple[str, ...]]] = []
        self.notices: list[Notice] = []
        self.told: list[News] = []
        self.policy = Asked()
        self.network = NetworkManager(self.db, self.policy, self.clock, settings,
                                      NetworkParts(notify=self._notify, tell=self._tell))
        app = App([service(self.network)], self._authenticate, self.policy.allows)
        self._transport = httpx.ASGITransport(app=app)

    async def _notify(self, notice: Notice) -> None:
        self.notices.append(notice)
        self.notified.append(({notice.host}, tuple(sorted(notice.ports))))

    async def _tell(self, news: News) -> None:
        self.told.append(news)

    async def _authenticate(self, token: str) -> Context:
        if token not in CALLERS:
            raise Unauthenticated
        return CALLERS[token]

    def client(self, caller: str | None = None) -> httpx.AsyncClient:
        headers = {"x-auth-token": caller} if caller else {}
        return httpx.AsyncClient(transport=self._transport, base_url="http://cloud/network", headers=headers)

    async def pass_time(self, seconds: float) -> None:
        """Also where the database has a clock of its own: then its rows grow older."""
        if self.db.url.startswith("postgresql"):
            earlier = sa.update(agents).values(heartbeat_at=agents.c.heartbeat_at - timedelta(seconds=seconds))
            await self.db.run(lambda c: c.execute(earlier))
        await self.clock.advance(seconds)

    async def hear(self) -> list[News]:
        """What hosts were told of group members and ports elsewhere until a moment later."""
        while (task := self.network.difference_notifier._task) is not None and not task.done():
            await settle()
            await self.clock.advance(1)
            await asyncio.sleep(0.002)  # the database may have threads
        await settle()
        told, self.told = self.told, []
        return told

    async def host(self, name: str, tunnel_ip: str, *, before: bool = False) -> None:
        """before: it is of the release before."""
        await self.network.agent_report(AgentReport(
            host=name, tunnel_ip=tunnel_ip, bridge_mappings={"physnet1": "br-ex"}, tunnel_types=("vxlan",),
            bridge="br-int-c10d0000", takes=() if before else (DIFFERENCES,)))

    async def call(self, caller: str, method: str, path: str, body: Any = None, *, expect: int | None = None,
                   **rest: Any) -> Any:
        async with self.client(caller) as client:
            answer = await client.request(method, f"/v2.0{path}", json=body, **rest)
        wanted = expect or {"POST": 201, "DELETE": 204}.get(method, 200)
        assert answer.status_code == wanted, (method, path, answer.status_code, answer.text)
        return answer.json() if answer.content else None

    async def network_with_subnet(self, caller: str = "one", cidr: str = "10.0.0.0/24", **more: Any) -> tuple[str, str]:
        net = await self.call(caller, "POST", "/networks", {"network": {"name": "net", **more}})
        sub = await self.call(caller, "POST", "/subnets", {"subnet": {
            "network_id": net["network"]["id"], "cidr": cidr, "ip_version": 6 if ":" in cidr else 4}})
        return net["network"]["id"], sub["subnet"]["id"]


async def external(cloud: Cloud) -> str:
    """An external network with a subnet, on physnet1."""
    net = (await cloud.call("admin", "POST", "/networks", {"network": {
        "name": "public", "router:external": True, "provider:network_type": "flat",
        "provider:physical_network": "physnet1"}}))["network"]["id"]
    await cloud.call("admin", "POST", "/subnets", {"subnet": {
        "network_id": net, "cidr": "203.0.113.0/24", "ip_version": 4, "enable_dhcp": False}})
    return str(net)


async def gateway(cloud: Cloud, n: int, *, enabled: bool = True) -> None:
    """Host h<n> reports that it can be a gateway host; enabled: and an operator agrees."""
    await cloud.network.agent_report(AgentReport(
        host=f"h{n}", tunnel_ip=f"192.0.2.{n}", bridge_mappings={"physnet1": "br-ex"}, tunnel_types=("vxlan",),
        takes=(DIFFERENCES,), agents=("Open vSwitch agent", "L3 agent")))
    for agent in (await cloud.call("admin", "GET", f"/agents?host=h{n}&agent_type=L3%20agent"))["agents"]:
        if enabled and not agent["admin_state_up"]:
            await cloud.call("admin", "PUT", f"/agents/{agent['id']}", {"agent": {"admin_state_up": True}})


async def elected(cloud: Cloud, router: str) -> tuple[str | None, int]:
    """The router's gateway host, and by which term."""
    found = await cloud.network.read(service_context(), lambda work: work.first(Router, id=router))
    assert found
    return found.gateway_host, found.gateway_term
