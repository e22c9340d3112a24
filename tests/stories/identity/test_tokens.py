"""A token's life: proofs, scopes, what it may do, and how it ends."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.stories.whole_cloud import WholeCloud, whole_cloud


@pytest.fixture
async def cloud(tmp_path: Path, story_url: str) -> AsyncIterator[WholeCloud]:
    async with whole_cloud(tmp_path, story_url) as made:
        yield made


async def check(cloud: WholeCloud, subject: str, method: str = "GET") -> int:
    """What validating a token answers, asked by the administrator."""
    answer = await cloud.ask("admin", method, "identity", "/auth/tokens", None, **{"X-Subject-Token": subject})
    return answer.status_code


async def user_id(cloud: WholeCloud, name: str) -> str:
    users = (await cloud.ask("admin", "GET", "identity", f"/users?name={name}")).json()["users"]
    return str(users[0]["id"])


async def test_a_password_gives_a_token_that_says_who_one_is(cloud: WholeCloud) -> None:
    answer = await cloud.login("demo")
    token = answer.json()["token"]
    assert answer.status_code == 201
    assert (token["user"]["name"], token["project"]["name"]) == ("demo", "demo")
    assert {r["name"] for r in token["roles"]} >= {"member", "reader"}
    assert {s["type"] for s in token["catalog"]} >= {"identity", "image", "compute", "network"}
    assert await check(cloud, answer.headers["x-subject-token"]) == 200
    assert await check(cloud, answer.headers["x-subject-token"], "HEAD") == 200


@pytest.mark.parametrize(("user", "password"), [("demo", "wrong"), ("nobody", "wrong"), ("demo", "")])
async def test_a_wrong_proof_tells_nothing(cloud: WholeCloud, user: str, password: str) -> None:
    answer = await cloud.login(user, password=password)
    assert answer.status_code == 401
    assert answer.json()["error"]["message"] == "The request you have made requires authentication."
    assert answer.headers["www-authenticate"].startswith("Keystone uri=")


async def test_scopes(cloud: WholeCloud) -> None:
    system = await cloud.login("admin", {"system": {"all": True}})
    assert system.json()["token"]["system"] == {"all": True}
    assert (await cloud.login("demo", {"system": {"all": True}})).status_code == 401
    foreign = {"project": {"name": "demo-alt", "domain": {"id": "default"}}}
    assert (await cloud.login("demo", foreign)).status_code == 401
    unscoped = await cloud.login("demo", {})
    assert "roles" not in unscoped.json()["token"] or unscoped.json()["token"].get("project")


@pytest.mark.parametrize(("path", "status"), [
    ("/", 300), ("/identity", 300), ("/identity/", 300), ("/image/", 300), ("/compute/", 200), ("/network/", 200)])
async def test_every_service_says_its_versions_to_anybody(cloud: WholeCloud, path: str, status: int) -> None:
    answer = await cloud.http.get(path)
    assert answer.status_code == status
    versions = answer.json()["versions"]
    for version in versions["values"] if isinstance(versions, dict) else versions:
        self = next(link["href"] for link in version["links"] if link["rel"] == "self")
        assert self.startswith(str(cloud.http.base_url)), "where the client asked"
        assert version["status"] in ("stable", "CURRENT", "SUPPORTED", "DEPRECATED")


async def test_a_token_for_a_token_never_lives_longer(cloud: WholeCloud) -> None:
    first = await cloud.login("demo")
    again = await cloud.http.post("/identity/v3/auth/tokens", json={"auth": {
        "identity": {"methods": ["token"], "token": {"id": first.headers["x-subject-token"]}},
        "scope": {"project": {"name": "demo", "domain": {"id": "default"}}}}})
    assert again.status_code == 201
    assert again.json()["token"]["expires_at"] == first.json()["token"]["expires_at"]
    assert set(again.json()["token"]["methods"]) == {"password", "token"}


async def test_a_revoked_token_is_refused_at_once(cloud: WholeCloud) -> None:
    token = (await cloud.login("demo")).headers["x-subject-token"]
    mine = {"X-Auth-Token": token, "X-Subject-Token": token}
    assert (await cloud.http.get("/compute/v2.1/servers", headers=mine)).status_code == 200
    assert (await cloud.http.delete("/identity/v3/auth/tokens", headers=mine)).status_code == 204
    assert (await cloud.http.get("/compute/v2.1/servers", headers=mine)).status_code == 401
    assert await check(cloud, token) == 404


async def change_user(cloud: WholeCloud, **changes: Any) -> None:
    path = f"/users/{await user_id(cloud, 'demo')}"
    await cloud.ask("admin", "PATCH", "identity", path, {"user": changes})


async def disable_user(cloud: WholeCloud) -> None:
    await change_user(cloud, enabled=False)


async def change_password(cloud: WholeCloud) -> None:
    await change_user(cloud, password="new")


async def disable_project(cloud: WholeCloud) -> None:
    project = (await cloud.ask("demo", "GET", "identity", "/auth/projects")).json()["projects"][0]["id"]
    await cloud.ask("admin", "PATCH", "identity", f"/projects/{project}", {"project": {"enabled": False}})


async def take_roles(cloud: WholeCloud) -> None:
    me = await user_id(cloud, "demo")
    grants = await cloud.ask("admin", "GET", "identity", f"/role_assignments?user.id={me}")
    for grant in grants.json()["role_assignments"]:
        path = f"/projects/{grant['scope']['project']['id']}/users/{me}/roles/{grant['role']['id']}"
        assert (await cloud.ask("admin", "DELETE", "identity", path)).status_code == 204


async def delete_user(cloud: WholeCloud) -> None:
    await cloud.ask("admin", "DELETE", "identity", f"/users/{await user_id(cloud, 'demo')}")


@pytest.mark.parametrize("end", [disable_user, change_password, disable_project, take_roles, delete_user])
async def test_what_ends_a_token(cloud: WholeCloud, end: Any) -> None:
    token = (await cloud.login("demo")).headers["x-subject-token"]
    assert (await cloud.http.get("/compute/v2.1/servers", headers={"X-Auth-Token": token})).status_code == 200
    await end(cloud)
    assert (await cloud.http.get("/compute/v2.1/servers", headers={"X-Auth-Token": token})).status_code == 401


async def test_a_changed_bit_is_no_token(cloud: WholeCloud) -> None:
    token = (await cloud.login("demo")).headers["x-subject-token"]
    for position in range(0, len(token), 7):
        forged = token[:position] + chr(ord(token[position]) ^ 1) + token[position + 1:]
        answer = await cloud.http.get("/compute/v2.1/servers", headers={"X-Auth-Token": forged})
        assert answer.status_code == 401, position


async def test_forged_identity_headers_give_nothing(cloud: WholeCloud) -> None:
    forged = {"X-Roles": "admin", "X-Role": "admin", "X-User-Id": await user_id(cloud, "admin"),
              "X-Is-Admin-Project": "True", "X-Identity-Status": "Confirmed", "X-System-Scope": "all",
              "X-Project-Id": "x", "X-Service-Roles": "admin"}
    assert (await cloud.http.get("/identity/v3/users", headers=forged)).status_code == 401
    answer = await cloud.ask("demo", "GET", "identity", "/users", None, **forged)
    assert answer.status_code == 403
    mine = await cloud.ask("demo", "GET", "network", "/networks", None, **forged)
    assert all(n["project_id"] != "x" for n in mine.json()["networks"])


@pytest.mark.parametrize("path", ["/identity/v3/ec2tokens", "/identity/v3/s3tokens"])
async def test_presigned_urls_buy_no_token(cloud: WholeCloud, path: str) -> None:
    body = {"credentials": {"access": "a", "signature": "s", "host": "h", "verb": "GET", "path": "/", "params": {}}}
    assert (await cloud.http.post(path, json=body)).status_code in (401, 404)


@pytest.mark.parametrize(("body", "word"), [
    ({"user": {"name": 7}}, "name"), ({"user": {"name": "x" * 256}}, "name"), ({"user": {}}, "name"),
    ({"user": {"name": "x", "enabled": "maybe"}}, "enabled"), ({"nobody": {}}, "user"), (None, "")])
async def test_bad_users_are_refused_by_field(cloud: WholeCloud, body: Any, word: str) -> None:
    answer = await cloud.ask("admin", "POST", "identity", "/users", body)
    assert answer.status_code == 400
    assert word in answer.json()["error"]["message"]
