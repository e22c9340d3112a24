"""Every route at its gate: who passes, without anything being done. The routes are the cloud's own, with their gates
and tables; what lies behind them is replaced by a handler that says that it was reached."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
from tests.stories.test_cross_project import ACTIONS, BODIES, Things

from nacre.base.context import Context
from nacre.base.errors import Unauthenticated
from nacre.base.serving.gate import ADMIN
from nacre.base.web import App, Reply, Request, Route, Service

ALL = ("admin", "manager", "member", "reader")
#: What an owner could send, where the gate looks at the body. Values that begin with "=" stand for demo's things.
WISHES: dict[str, Any] = {
    "POST /v3/users": {"user": {"name": "u"}}, "POST /v3/groups": {"group": {"name": "g"}},
    "POST /v3/roles": {"role": {"name": "r"}}, "POST /v3/projects": {"project": {"name": "p"}},
    "POST /v3/credentials": {"credential": {"blob": "b", "type": "cert", "user_id": "=/v3/users"}},
    "POST /v3/OS-TRUST/trusts": {"trust": {
        "trustor_user_id": "=/v3/users", "trustee_user_id": "x", "impersonation": False}},
    "POST /v2.1/os-keypairs": {"keypair": {"name": "k", "public_key": "x"}},
    "POST /v2.1/servers": {"server": {
        "name": "s", "imageRef": "=/v2/images", "flavorRef": "42", "networks": "none"}},
    "POST /v2.0/networks": {"network": {}}, "POST /v2.0/subnets": {"subnet": {
        "network_id": "=/v2.0/networks", "ip_version": 4, "cidr": "203.0.113.0/24"}},
    "POST /v2.0/ports": {"port": {"network_id": "=/v2.0/networks"}},
    "POST /v2.0/security-groups": {"security_group": {"name": "g"}},
    "POST /v2.0/security-group-rules": {"security_group_rule": {
        "security_group_id": "=/v2.0/security-groups", "direction": "ingress"}},
    "POST /v2.0/routers": {"router": {}}, "POST /v2.0/floatingips": {"floatingip": {
        "floating_network_id": "=public"}},
    "POST /v2.0/subnetpools": {"subnetpool": {"name": "p", "prefixes": ["10.8.0.0/16"]}},
    "POST /v2.0/address-scopes": {"address_scope": {"name": "s", "ip_version": 4}},
    "POST /v2.0/address-groups": {"address_group": {"name": "a"}},
    "POST /v2.0/rbac-policies": {"rbac_policy": {
        "object_type": "network", "object_id": "=/v2.0/networks", "action": "access_as_shared",
        "target_tenant": "f" * 32}},
    "POST /v2.0/qos/policies": {"policy": {"name": "p"}},
    "POST /v2.0/default-security-group-rules": {"default_security_group_rule": {
        "direction": "egress", "used_in_default_sg": False, "used_in_non_default_sg": True}},
    "POST /v2.0/network-segment-ranges": {"network_segment_range": {
        "network_type": "vxlan", "minimum": 5, "maximum": 6}},
    "POST /v2.0/segments": {"segment": {"network_id": "=/v2.0/networks", "network_type": "vxlan"}},
    "POST /v2.0/trunks": {"trunk": {"port_id": "=/v2.0/ports"}},
    "POST /v2/images": {"name": "i"}, "POST /v2/metadefs/namespaces": {"namespace": "n"},
}
#: What `naming` sends, where it is not the same: its own thing is to have something of demo's.
NAMING: dict[str, Any] = {
    **{f"POST /v2.0/{name.replace('_', '-')}s": {name: {**_body, "project_id": "=/v3/projects"}} for name, _body in (
        ("network", {}), ("router", {}), ("security_group", {"name": "g"}), ("address_group", {"name": "a"}),
        ("address_scope", {"name": "s", "ip_version": 4}), ("floatingip", {"floating_network_id": "=public"}),
        ("subnetpool", {"name": "p", "prefixes": ["10.8.0.0/16"]}))},
    "POST /v2.1/servers": {"server": {**WISHES["POST /v2.1/servers"]["server"], "networks": [
        {"port": "=/v2.0/ports"}]}},
    "POST /v2.1/os-keypairs": {"keypair": {"name": "k", "public_key": "x", "user_id": "=/v3/users"}},
    "POST /v2.1/servers/{server_id}/os-interface": {"interfaceAttachment": {"port_id": "=/v2.0/ports"}},
    "POST /v2.1/servers/{server_id}/action rebuild": {"rebuild": {"imageRef": "=/v2/images"}},
    "POST /v2.1/servers/{server_id}/action addSecurityGroup": {"addSecurityGroup": {"name": "=/v2.0/security-groups"}},
    "PUT /v2.0/ports/{id}": {"port": {"fixed_ips": [{"subnet_id": "=/v2.0/subnets"}], "security_groups": [
        "=/v2.0/security-groups"]}},
    "PUT /v2.0/routers/{id}": {"router": {"external_gateway_info": {"network_id": "=/v2.0/networks"}}},
    "PUT /v2.0/routers/{id}/add_router_interface": {"subnet_id": "=/v2.0/subnets"},
    "PUT /v2.0/floatingips/{id}": {"floatingip": {"port_id": "=/v2.0/ports"}},
    "PUT /v2.0/subnetpools/{id}": {"subnetpool": {"address_scope_id": "=/v2.0/address-scopes"}},
    "PUT /v2.0/subnetpools/{id}/onboard_network_subnets": {"network_id": "=/v2.0/networks"},
    "POST /v3/users/{user_id}/credentials/OS-EC2": {"tenant_id": "=/v3/projects"},
}
#: Who asks. The things are `member`'s, who is the user demo, in the project demo. `elsewhere` and `naming` are
#: demo-alt, in a project of their own; `naming`'s paths have demo-alt's own things.
PEOPLE = ("reader", "member", "elsewhere", "naming", "other_domain_admin", "system_reader", "service", "admin",
          "nobody")
SIGNS = {204: "+", 400: "0", 401: "1", 403: "3", 404: "4"}


@dataclass
class Cell:
    """What one route answered one caller, and what the policy was asked meanwhile: (rule, facts, whether it passed)."""

    sign: str
    asked: list[tuple[str, Mapping[str, Any], bool]] = field(default_factory=list)
    text: str = ""


class Gates:
    """The routes of a cloud whose handlers were taken out."""

    def __init__(self, things: Things, own: Things):
        self.things, self.own, self.cloud = things, own, things.cloud
        self.asked: list[tuple[str, Mapping[str, Any], bool]] = []
        self.policy = things.cloud.control.base.policy
        self.services = [replace(s, routes=[_hollow(s, r) for r in s.routes]) for s in self.cloud.control.app.services]
        self.people: dict[str, Context] = {}
        self.app = App(self.services, self._who, self._allows)
        self.token = ""

    async def meet(self) -> None:
        """Makes the callers."""
        whole = self.cloud
        self.token = await whole.token("demo")
        ids: dict[str, str] = {}
        for name in ("demo", "demo-alt", "admin"):
            for kind in ("users", "projects"):
                rows = (await whole.ask("admin", "GET", "identity", f"/{kind}?name={name}")).json()[kind]
                ids[f"{name} {kind}"] = rows[0]["id"]
        public = (await whole.ask("demo", "GET", "network", "/networks?router:external=true")).json()["networks"]
        group = await whole.ask("admin", "POST", "identity", "/groups", {"group": {"name": "g"}})
        for things in (self.things, self.own):
            name = things.owner
            access = await whole.ask(name, "POST", "identity", f"/users/{ids[f'{name} users']}/credentials/OS-EC2", {
                "tenant_id": ids[f"{name} projects"]})
            things.ids |= {"/v3/groups": group.json()["group"]["id"],
                           "/v3/users/{user_id}/credentials/OS-EC2": access.json()["credential"]["access"]}
        multi = await whole.ask("admin", "POST", "network", "/networks", {"network": {
            "segments": [{"provider:network_type": "vxlan"}] * 2}})
        spaces = (await whole.ask("admin", "GET", "image", "/metadefs/namespaces")).json()["namespaces"]
        zero = await whole.ask("admin", "POST", "compute", "/flavors", {"flavor": {
            "name": "zero", "ram": 64, "vcpus": 1, "disk": 0}})
        self.things.ids |= {"multi": multi.json()["network"]["id"], "zero": zero.json()["flavor"]["id"],
                            "/v2/metadefs/namespaces": spaces[0]["namespace"]}
        server = f"/servers/{self.things.ids['/v2.1/servers']}"
        while (await whole.ask("demo", "GET", "compute", server)).json()["server"]["status"] == "BUILD":
            await asyncio.sleep(0.05)
        self.things.ids |= {"public": public[0]["id"], "/v3/roles": (await whole.ask(
            "admin", "GET", "identity", "/roles?name=member")).json()["roles"][0]["id"]}
        self.own.ids |= {name: self.things.ids[name] for name in ("/v3/roles", "/v2/metadefs/namespaces")}

        def who(user: str, project: str | None, *roles: str, **more: Any) -> Context:
            return Context(request_id="req-gate", user_id=user, user_name=user, roles=roles, project_id=project,
                           **{"user_domain_id": "default", "project_domain_id": "default" if project else None, **more})

        demo, alt = ids["demo projects"], ids["demo-alt projects"]
        elsewhere = who(ids["demo-alt users"], alt, "member", "reader")
        self.people = {
            "reader": who("reader", demo, "reader"), "member": who(ids["demo users"], demo, "member", "reader"),
            "elsewhere": elsewhere, "naming": elsewhere,
            "other_domain_admin": who("da", None, *ALL, user_domain_id="other", domain_id="other"),
            "system_reader": who("sr", None, "reader", system=True),
            "service": who("service", "service", "service"),
            "admin": who(ids["admin users"], ids["admin projects"], *ALL)}

    async def ask(self, person: str, service: Service, route: Route, body: Any = None) -> Cell:
        """One route, of one caller. body: None, the one that an owner would send."""
        self.asked = []
        if body is None:
            body = self.filled(_wish(person, route))
        if route.method in ("GET", "HEAD"):
            body = None
        headers = {"openstack-api-version": "placement 1.39" if service.name == "placement" else (
            "compute 2.1" if route.until else "compute 2.96"), "x-subject-token": self.token}
        if person != "nobody":
            headers["x-auth-token"] = person
        query = f"project_id={self.things.ids['/v3/projects']}" if route.path == "/usages" else ""
        status, text = await self._send(route.method, service.prefix + self.path(
            route.path, self.own if person == "naming" else self.things), query, headers, body)
        return Cell(SIGNS.get(status, f"?{status}"), self.asked, text)

    async def _send(self, method: str, path: str, query: str, headers: Mapping[str, str], body: Any
                    ) -> tuple[int, str]:
        """One request, without a client: thousands of them are sent."""
        answered: list[Any] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"" if body is None else msgspec.json.encode(body)}

        async def send(message: Any) -> None:
            answered.append(message)

        await self.app({"type": "http", "method": method, "path": path, "query_string": query.encode(), "headers": [
            (k.encode(), v.encode()) for k, v in headers.items()], "client": ("192.0.2.1", 1)}, receive, send)
        return answered[0]["status"], b"".join(m.get("body", b"") for m in answered[1:]).decode("latin-1")

    def path(self, template: str, things: Things) -> str:
        """The path with the ids of such things; parameters that name nothing of its own get a word."""
        found, parts = list[str](), template.split("/")
        for at, part in enumerate(parts):
            before = parts[at - 1] if at else ""
            known = things.ids.get("/".join(parts[:at])) or things.ids.get(
                NAMED.get(part, "") or AFTER.get(before, ""))
            found.append((known or "x") if part.startswith("{") else part)
        return "/".join(found)

    def filled(self, value: Any) -> Any:
        """A body with the ids of things."""
        if isinstance(value, dict):
            return {k: self.filled(v) for k, v in value.items()}
        if isinstance(value, list):
            return [self.filled(v) for v in value]
        return self.things.ids[value[1:]] if isinstance(value, str) and value.startswith("=") else value

    async def _who(self, token: str) -> Context:
        if token not in self.people:
            raise Unauthenticated
        return msgspec.structs.replace(self.people[token])

    def _allows(self, context: Context, rule: str, facts: Mapping[str, Any]) -> bool:
        passed = self.policy.allows(context, rule, facts)
        if rule != ADMIN:  # of every request, before its gate
            self.asked.append((rule, facts, passed))
        return passed


#: Parameters that name the same thing wherever they stand.
NAMED = {"{user_id}": "/v3/users", "{project_id}": "/v3/projects", "{role_id}": "/v3/roles",
         "{implied_id}": "/v3/roles", "{image_id}": "/v2/images", "{group_id}": "/v3/groups",
         "{domain_id}": "/v3/domains"}
#: Parameters without a name of their own: what the part of the path before them says.
AFTER = {"users": "/v3/users", "groups": "/v3/groups", "projects": "/v3/projects", "domains": "/v3/domains"}


def _hollow(service: Service, route: Route) -> Route:
    """The route with its gate, and nothing behind it."""
    async def reached(request: Request) -> Reply:
        return Reply(status=204)

    def taken(request: Request, body: Any) -> Any:
        return body

    key = f"{route.method} {route.path}"
    body = route.body if key in WISHES else (taken if route.body else None)
    return replace(route, handler=reached, body=body, query=None, raw=False)


def _wish(person: str, route: Route) -> Any:
    """What this caller sends: as an owner would."""
    key = f"{route.method} {route.path}"
    naming = f"{key} {route.action or ''}".rstrip()
    if person == "naming" and naming in NAMING:
        return NAMING[naming]
    if key in WISHES:
        return WISHES[key]
    if route.action:
        return {route.action: ACTIONS.get(route.action)}
    return next((body for end, body in BODIES.items() if route.path.endswith(end)), {})


def rows(services: Sequence[Service]) -> list[tuple[Service, Route]]:
    """Every route of every service."""
    return [(service, route) for service in services for route in service.routes]
