"""Every name of a rule is asked by some route, and an operator's file that forbids it is felt there."""

from pathlib import Path
from typing import Any

import httpx
import yaml
from identity_cloud import BASE, PASSWORDS, V3, Lab, by_password, project, role_id

from nacre.base.context import Context
from nacre.base.serving.gate import ADMIN
from nacre.base.web import App
from nacre.identity.api.service import service
from nacre.identity.policies import POLICIES
from nacre.identity.policy import PolicyEngine

Json = dict[str, Any]
PREFIX = "identity:"


class Operator:
    """A policy whose file forbids everything but what was allowed, and what was asked of it meanwhile."""

    def __init__(self, folder: Path):
        self._file, self.allowed, self.refused = folder / "policy.yaml", set[str](), ""
        self.asked = set[str]()
        self.write()

    def write(self) -> None:
        self._file.write_text(yaml.safe_dump({name: "!" for name in POLICIES if name not in self.allowed}))
        self._engine = PolicyEngine([POLICIES], self._file)

    def allows(self, context: Context, rule: str, target: Any = None) -> bool:
        self.asked.add(rule)
        passed = self._engine.allows(context, rule, target)
        if not passed:
            self.refused = rule
        return passed


class Tour:
    """The administrator's way through the routes: each request is refused for every rule that it asks, then done."""

    def __init__(self, lab: Lab, operator: Operator, token: str):
        self.operator, self.felt = operator, set[str]()
        app = App([service(lab.identity, lab.keys.vault)], lab.identity.authenticate, operator.allows)
        self._http = httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url=BASE + V3,
                                       headers={"X-Auth-Token": token})

    async def go(self, method: str, path: str, body: Any = None, **headers: str) -> Json:
        self.operator.allowed = set()
        for _ in range(5):
            self.operator.write()
            answer = await self._http.request(method, path, json=body, headers=headers)
            if answer.status_code != 403:
                assert answer.status_code < 300, (method, path, answer.text)
                return answer.json() if answer.content else {}
            rule = self.operator.refused
            assert rule and rule not in self.operator.allowed, (method, path, answer.text)
            self.felt.add(rule)
            self.operator.allowed.add(rule)
        raise AssertionError(f"{method} {path} asks without end")

    async def life(self, path: str, kind: str, body: Json, change: Json, put: str = "") -> Json:
        """All verbs of a thing but DELETE."""
        made = await self.go("PUT" if put else "POST", f"{path}/{put}" if put else path, {kind: body})
        found: Json = made[kind]
        await self.go("GET", path)
        await self.go("GET", f"{path}/{found['id']}")
        await self.go("PATCH", f"{path}/{found['id']}", {kind: change})
        return found


async def _people(tour: Tour) -> dict[str, str]:
    """Users, groups, projects, domains, roles, and who has which."""
    home = (await tour.life("/domains", "domain", {"name": "acme"}, {"description": "x"}))["id"]
    await tour.go("GET", "/domains/config/default")
    config: Json = {"config": {"identity": {"driver": "sql"}, "security_compliance": {"password_regex": "."}}}
    for method, rest, body in (("PUT", "", config), ("PATCH", "", config), ("GET", "", None),
                               ("GET", "/security_compliance", None), ("DELETE", "", None)):
        await tour.go(method, f"/domains/{home}/config{rest}", body)
    user = (await tour.life("/users", "user", {"name": "u"}, {"email": "x"}))["id"]
    group = (await tour.life("/groups", "group", {"name": "g"}, {"description": "x"}))["id"]
    work = (await tour.life("/projects", "project", {"name": "p"}, {"description": "x"}))["id"]
    role = (await tour.life("/roles", "role", {"name": "r"}, {"description": "x"}))["id"]
    local = (await tour.life("/roles", "role", {"name": "l", "domain_id": home}, {"description": "x"}))["id"]
    await tour.go("GET", f"/roles?domain_id={home}")
    other = (await tour.go("GET", "/roles?name=reader"))["roles"][0]["id"]
    for method in ("PUT", "GET", "HEAD", "DELETE"):
        await tour.go(method, f"/roles/{role}/implies/{other}")
    await tour.go("GET", f"/roles/{role}/implies")
    await tour.go("GET", "/role_inferences")
    for method in ("PUT", "GET", "DELETE"):
        await tour.go(method, f"/groups/{group}/users/{user}")
    for path in (f"/groups/{group}/users", f"/users/{user}/groups", f"/users/{user}/projects", "/role_assignments",
                 f"/role_assignments?include_subtree&scope.project.id={work}"):
        await tour.go("GET", path)
    for where in (f"/projects/{work}/users/{user}", f"/system/users/{user}", f"/system/groups/{group}"):
        await tour.go("PUT", f"{where}/roles/{role}")
        await tour.go("GET", f"{where}/roles")
        await tour.go("GET", f"{where}/roles/{role}")
        await tour.go("DELETE", f"{where}/roles/{role}")
    for method, rest, body in (("PUT", "", {"tags": ["a"]}), ("PUT", "/b", None), ("GET", "/b", None),
                               ("GET", "", None), ("DELETE", "/b", None), ("DELETE", "", None)):
        await tour.go(method, f"/projects/{work}/tags{rest}", body)
    return {"domains": home, "users": user, "groups": group, "projects": work, "roles": role, "roles/": local}


async def _catalog(tour: Tour, work: str) -> dict[str, str]:
    region = (await tour.life("/regions", "region", {"id": "R"}, {"description": "x"}))["id"]
    kind = (await tour.life("/services", "service", {"type": "x"}, {"description": "x"}))["id"]
    point = (await tour.life("/endpoints", "endpoint", {"service_id": kind, "interface": "public", "url": "http://x"},
                             {"name": "x"}))["id"]
    group = (await tour.life("/OS-EP-FILTER/endpoint_groups", "endpoint_group",
                             {"name": "x", "filters": {"interface": "public"}}, {"description": "x"}))["id"]
    for path in (f"/OS-EP-FILTER/projects/{work}/endpoints/{point}",
                 f"/OS-EP-FILTER/endpoint_groups/{group}/projects/{work}"):
        await tour.go("PUT", path)
        await tour.go("GET", path)
    for path in (f"endpoints/{point}/projects", f"endpoint_groups/{group}/projects",
                 f"endpoint_groups/{group}/endpoints", f"projects/{work}/endpoints",
                 f"projects/{work}/endpoint_groups"):
        await tour.go("GET", f"/OS-EP-FILTER/{path}")
    for path in (f"/OS-EP-FILTER/projects/{work}/endpoints/{point}",
                 f"/OS-EP-FILTER/endpoint_groups/{group}/projects/{work}"):
        await tour.go("DELETE", path)
    what = {"service_id": kind, "resource_name": "x"}
    known = (await tour.go("POST", "/registered_limits", {"registered_limits": [{**what, "default_limit": 1}]})
             )["registered_limits"][0]["id"]
    limit = (await tour.go("POST", "/limits", {"limits": [{**what, "resource_limit": 1, "project_id": work}]})
             )["limits"][0]["id"]
    for path, body in ((f"/limits/{limit}", {"limit": {"resource_limit": 2}}),
                       (f"/registered_limits/{known}", {"registered_limit": {"default_limit": 2}})):
        await tour.go("PATCH", path, body)
        await tour.go("GET", path)
    for path in ("/limits", "/registered_limits", "/limits/model"):
        await tour.go("GET", path)
    await tour.go("DELETE", f"/limits/{limit}")
    await tour.go("DELETE", f"/registered_limits/{known}")
    return {"OS-EP-FILTER/endpoint_groups": group, "endpoints": point, "services": kind, "regions": region}


async def _documents(tour: Tour) -> dict[str, str]:
    rules = [{"local": [], "remote": [{"type": "x"}]}]
    policy = (await tour.life("/policies", "policy", {"blob": "x", "type": "x"}, {"blob": "y"}))["id"]
    consumer = (await tour.life("/OS-OAUTH1/consumers", "consumer", {}, {"description": "x"}))["id"]
    federation = "/OS-FEDERATION"
    await tour.life(f"{federation}/service_providers", "service_provider",
                    {"auth_url": "http://x", "sp_url": "http://x"}, {"enabled": True}, put="sp")
    await tour.life(f"{federation}/mappings", "mapping", {"rules": rules}, {"rules": rules}, put="m")
    await tour.life(f"{federation}/identity_providers", "identity_provider", {}, {"enabled": True}, put="idp")
    await tour.life(f"{federation}/identity_providers/idp/protocols", "protocol", {"mapping_id": "m"},
                    {"mapping_id": "m"}, put="saml2")
    return {"policies": policy, "OS-OAUTH1/consumers": consumer, "OS-FEDERATION/service_providers": "sp",
            "OS-FEDERATION/identity_providers/idp/protocols": "saml2", "OS-FEDERATION/identity_providers": "idp",
            "OS-FEDERATION/mappings": "m"}


async def _lent(tour: Tour, me: str, work: str, other: str, member: str) -> None:
    """Credentials, application credentials, trusts."""
    made = await tour.life("/credentials", "credential", {"type": "x", "blob": "x", "user_id": me}, {"blob": "y"})
    await tour.go("DELETE", f"/credentials/{made['id']}")
    mine = f"/users/{me}"
    access = (await tour.go("POST", f"{mine}/credentials/OS-EC2", {"tenant_id": work}))["credential"]["access"]
    await tour.go("GET", f"{mine}/credentials/OS-EC2")
    await tour.go("GET", f"{mine}/credentials/OS-EC2/{access}")
    await tour.go("DELETE", f"{mine}/credentials/OS-EC2/{access}")
    key = (await tour.go("POST", f"{mine}/application_credentials", {"application_credential": {
        "name": "x", "access_rules": [{"service": "x", "path": "/", "method": "GET"}]}}))["application_credential"]
    await tour.go("GET", f"{mine}/application_credentials")
    await tour.go("GET", f"{mine}/application_credentials/{key['id']}")
    await tour.go("DELETE", f"{mine}/application_credentials/{key['id']}")
    rule = (await tour.go("GET", f"{mine}/access_rules"))["access_rules"][0]["id"]
    await tour.go("GET", f"{mine}/access_rules/{rule}")
    await tour.go("DELETE", f"{mine}/access_rules/{rule}")
    trust = (await tour.go("POST", "/OS-TRUST/trusts", {"trust": {
        "trustor_user_id": me, "trustee_user_id": other, "impersonation": False, "project_id": work,
        "roles": [{"id": member}]}}))["trust"]["id"]
    for rest in ("", f"?trustor_user_id={me}", f"?trustee_user_id={other}", f"/{trust}", f"/{trust}/roles",
                 f"/{trust}/roles/{member}"):
        await tour.go("GET", f"/OS-TRUST/trusts{rest}")
    await tour.go("DELETE", f"/OS-TRUST/trusts/{trust}")


async def test_every_rule_is_felt(lab: Lab, tmp_path: Path) -> None:
    answer = await lab.post_auth(by_password("admin", PASSWORDS["admin"], project("admin")))
    token, said = answer.headers["X-Subject-Token"], answer.json()["token"]
    tour = Tour(lab, Operator(tmp_path), token)
    async with lab.client(token) as admin:
        member = await role_id(admin, "member")
    me, work = said["user"]["id"], said["project"]["id"]
    things = await _people(tour)
    await _lent(tour, me, work, things["users"], member)
    things = {**await _catalog(tour, work), **await _documents(tour), **things}
    for path in ("/auth/catalog", "/auth/projects", "/auth/domains", "/auth/system"):
        await tour.go("GET", path)
    for method in ("GET", "HEAD", "DELETE"):
        await tour.go(method, "/auth/tokens", **{"X-Subject-Token": await lab.token("demo", PASSWORDS["demo"])})
    await tour.go("PATCH", f"/domains/{things['domains']}", {"domain": {"enabled": False}})
    order = ["users", "groups", "projects", "roles", "roles/", "domains"]
    for path in sorted(things, key=lambda p: order.index(p) if p in order else -1):
        await tour.go("DELETE", f"/{path.rstrip('/')}/{things[path]}")
    await _consent(lab, tour, me, work, member)
    names = {name for name in POLICIES if name.startswith(PREFIX)}
    assert tour.operator.asked - names == {ADMIN}, "asked, and declared by nobody"
    assert names - tour.felt == set(), "declared, and felt nowhere"


async def _consent(lab: Lab, tour: Tour, me: str, work: str, member: str) -> None:
    """OAuth: the rows of a request and an access are laid down, as a signature is not the point here."""
    from nacre.identity.api.extensions.oauth1 import _put

    row = {"consumer_id": "c", "project_id": work, "user_id": me, "role_ids": [member],
           "expires_at": lab.store.now() + 9}
    for kind in ("oauth_request", "oauth_access"):
        await lab.store.write(lambda conn, kind=kind: _put(conn, kind, {**row, "id": kind}))  # type: ignore[misc]
    await tour.go("PUT", "/OS-OAUTH1/authorize/oauth_request", {"roles": [{"id": member}]})
    mine = f"/users/{me}/OS-OAUTH1/access_tokens"
    for rest in ("", "/oauth_access", "/oauth_access/roles", f"/oauth_access/roles/{member}"):
        await tour.go("GET", mine + rest)
    await tour.go("DELETE", f"{mine}/oauth_access")
