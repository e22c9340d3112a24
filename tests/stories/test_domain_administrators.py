"""Who administers a domain is nobody special to the rest of the cloud: who is its administrator says the policy in
force, of what a token is for too, and not the name of a role."""

from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.stories.whole_cloud import WholeCloud, whole_cloud

from nacre.base.context import Context
from nacre.base.errors import Unavailable
from nacre.base.serving.gate import AUTHENTICATED
from nacre.base.web import App, Reply, Request, Route, Service
from nacre.identity.policy import PolicyEngine

REQUESTS: list[tuple[str, str, Any]] = [
    ("GET", "", None), ("PUT", "", {"server": {"name": "mine"}}), ("DELETE", "", None), ("GET", "/ips", None),
    ("GET", "/metadata", None), ("GET", "/os-instance-actions", None), ("GET", "/diagnostics", None),
    ("GET", "/migrations", None), ("POST", "/action", {"lock": None}),
    ("POST", "/action", {"os-resetState": {"state": "active"}}), ("POST", "/action", {"reboot": {"type": "HARD"}})]


async def user(cloud: WholeCloud, name: str, where: str, role: str) -> None:
    """A user with a role there, logged in for it."""
    made = await cloud.ask("admin", "POST", "identity", "/users", {"user": {"name": name, "password": "pw"}})
    roles = await cloud.ask("admin", "GET", "identity", f"/roles?name={role}")
    grant = f"/{where}/users/{made.json()['user']['id']}/roles/{roles.json()['roles'][0]['id']}"
    assert (await cloud.ask("admin", "PUT", "identity", grant)).status_code == 204
    kind, _, id = where.partition("/")
    answer = await cloud.login(name, {kind[:-1]: {"id": id}}, password="pw")
    cloud.tokens[name] = answer.headers["x-subject-token"]


async def of_demo(cloud: WholeCloud) -> str:
    """A server of demo's project."""
    image = (await cloud.ask("demo", "POST", "image", "/images", {
        "name": "i", "disk_format": "raw", "container_format": "bare"})).json()["id"]
    data = await cloud.http.put(f"/image/v2/images/{image}/file", content=bytes(65536), headers={
        "X-Auth-Token": await cloud.token("demo"), "Content-Type": "application/octet-stream"})
    assert data.status_code == 204
    made = await cloud.ask("demo", "POST", "compute", "/servers", {"server": {
        "name": "s", "imageRef": image, "flavorRef": "42", "networks": "none"}})
    assert made.status_code == 202, made.text
    return str(made.json()["server"]["id"])


async def test_what_is_not_a_domains_is_not_there_for_its_administrator(tmp_path: Path) -> None:
    async with whole_cloud(tmp_path, host=False) as cloud:
        domain = await cloud.ask("admin", "POST", "identity", "/domains", {"domain": {"name": "acme"}})
        project = await cloud.ask("admin", "POST", "identity", "/projects", {"project": {"name": "elsewhere"}})
        await user(cloud, "boss", f"domains/{domain.json()['domain']['id']}", "admin")
        await user(cloud, "stranger", f"projects/{project.json()['project']['id']}", "member")
        server = await of_demo(cloud)
        for method, rest, body in REQUESTS:
            answers = [await cloud.ask(who, method, "compute", f"/servers/{server}{rest}", body)
                       for who in ("boss", "stranger")]
            assert [answer.status_code for answer in answers] == [404, 404], (method, rest, body)
            assert answers[0].json() == answers[1].json()
        assert (await cloud.ask("admin", "GET", "compute", f"/servers/{server}")).status_code == 200
        for who in ("boss", "stranger"):
            assert (await cloud.ask(who, "GET", "compute", "/servers?all_tenants=1")).status_code == 403
        users = await cloud.ask("boss", "GET", "identity", "/users")
        assert users.json()["users"] == [], "of its own domain there are none"


async def test_an_operator_says_who_administers_the_cloud(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text('"context_is_admin": "role:cloud_admin"\n')
    async with whole_cloud(tmp_path, host=False) as cloud:
        server = await of_demo(cloud)
        assert (await cloud.ask("demo", "GET", "compute", f"/servers/{server}")).status_code == 200
        for method, rest, body in REQUESTS:
            answer = await cloud.ask("admin", method, "compute", f"/servers/{server}{rest}", body)
            assert answer.status_code == 404, (method, rest, body)


@pytest.mark.parametrize(("role", "scope", "told"), [
    ("admin", {"project_id": "p"}, True), ("admin", {"domain_id": "d"}, False), ("admin", {"system": True}, False),
    ("reader", {"project_id": "p"}, False)])
async def test_what_went_wrong_where_is_the_administrators_to_know(
        role: str, scope: dict[str, Any], told: bool) -> None:
    async def away(_: Request) -> None:
        raise Unavailable("It is away.", details="h1 said nothing")

    async def who(_: str) -> Context:
        return Context(request_id="r", user_id="u", roles=(role,), **scope)

    service = Service("s", "/s", [Route("GET", "/it", away, AUTHENTICATED)],
                      lambda error, status, _: Reply({"message": error.message}, status))
    app = App([service], who, PolicyEngine([]).allows)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://cloud") as client:
        answer = await client.get("/s/it", headers={"x-auth-token": "t"})
    assert answer.status_code == 503 and ("h1" in answer.text) is told
