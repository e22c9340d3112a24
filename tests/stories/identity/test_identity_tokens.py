"""The life of a token: got, scoped, looked at, handed on, void."""

import httpx
import pytest
from identity_cloud import BASE, SYSTEM, V3, Lab, by_password, by_token, domain, made, project, role_id


async def test_versions_need_no_token(lab: Lab) -> None:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=lab.app), base_url=BASE) as client:
        root = await client.get("/identity/")
        one = await client.get("/identity/v3/")
    assert root.status_code == 300
    assert root.headers["location"] == f"{BASE}{V3}/"
    assert root.json()["versions"]["values"][0]["links"] == [{"rel": "self", "href": f"{BASE}{V3}/"}]
    assert one.json()["version"]["id"] == "v3.14"


async def test_a_password_gives_a_token_of_a_project(lab: Lab) -> None:
    answer = await lab.post_auth(by_password("demo", "demo-pw", project("demo")))
    body = answer.json()["token"]
    assert answer.status_code == 201
    assert body["methods"] == ["password"]
    assert body["user"]["name"] == "demo"
    assert body["user"]["domain"] == {"id": "default", "name": "Default"}
    assert body["project"]["name"] == "demo"
    assert {r["name"] for r in body["roles"]} == {"member", "reader"}, "implied roles are in the token"
    assert len(body["audit_ids"]) == 1
    assert body["expires_at"].endswith("Z")
    assert {s["type"] for s in body["catalog"]} == {"identity", "image", "compute", "network", "placement"}
    compute = next(s for s in body["catalog"] if s["type"] == "compute")
    assert {e["interface"] for e in compute["endpoints"]} == {"public", "internal", "admin"}
    assert compute["endpoints"][0]["url"] == f"{BASE}/compute/v2.1"
    assert compute["endpoints"][0]["region_id"] == "RegionOne"


async def test_scopes(lab: Lab) -> None:
    for scope, key in ((project("admin"), "project"), (domain("default"), "domain"), (SYSTEM, "system"),
                       ({"domain": {"name": "Default"}}, "domain")):
        body = (await lab.post_auth(by_password("admin", "admin-pw", scope))).json()["token"]
        assert key in body, scope
        assert "admin" in {r["name"] for r in body["roles"]}
    bare = (await lab.post_auth(by_password("admin", "admin-pw"))).json()["token"]
    assert not {"project", "domain", "system", "roles", "catalog"} & set(bare)


async def test_the_default_project_is_the_scope_that_was_not_named(lab: Lab, admin: httpx.AsyncClient) -> None:
    own = (await admin.get("/projects", params={"name": "demo"})).json()["projects"][0]["id"]
    user = (await admin.get("/users", params={"name": "demo"})).json()["users"][0]["id"]
    await admin.patch(f"/users/{user}", json={"user": {"default_project_id": own}})
    assert (await lab.post_auth(by_password("demo", "demo-pw"))).json()["token"]["project"]["id"] == own
    assert "project" not in (await lab.post_auth(by_password("demo", "demo-pw", "unscoped"))).json()["token"]
    await admin.patch(f"/projects/{own}", json={"project": {"enabled": False}})
    assert "project" not in (await lab.post_auth(by_password("demo", "demo-pw"))).json()["token"]


async def test_no_role_no_scope(lab: Lab) -> None:
    for scope in (project("admin"), project("nowhere"), SYSTEM, domain("default"), domain("none")):
        assert (await lab.post_auth(by_password("demo", "demo-pw", scope))).status_code == 401, scope


@pytest.mark.parametrize(("user", "password"), [("demo", "wrong"), ("nobody", "demo-pw"), ("demo", "")])
async def test_wrong_proof_says_nothing_more(lab: Lab, user: str, password: str) -> None:
    answer = await lab.post_auth(by_password(user, password))
    assert answer.status_code == 401
    assert answer.json() == {"error": {
        "code": 401, "message": "The request you have made requires authentication.", "title": "Unauthorized"}}
    assert answer.headers["www-authenticate"] == f'Keystone uri="{BASE}{V3}"'


async def test_a_token_of_a_token_lives_no_longer(lab: Lab) -> None:
    first = await lab.post_auth(by_password("demo", "demo-pw"))
    await lab.clock.advance(1000)
    again = await lab.post_auth(by_token(first.headers["X-Subject-Token"], project("demo")))
    one, two = first.json()["token"], again.json()["token"]
    assert two["expires_at"] == one["expires_at"]
    assert two["methods"] == ["password", "token"]
    assert two["audit_ids"][1] == one["audit_ids"][0] != two["audit_ids"][0]
    third = await lab.post_auth(by_token(again.headers["X-Subject-Token"], project("demo")))
    assert third.json()["token"]["audit_ids"][1] == one["audit_ids"][0], "the chain keeps its first link"
    assert third.json()["token"]["expires_at"] == one["expires_at"]
    await lab.clock.advance(2601)
    for token in (first, again, third):
        assert not await lab.works(token.headers["X-Subject-Token"])
        assert (await lab.post_auth(by_token(token.headers["X-Subject-Token"]))).status_code == 401


async def test_looking_at_a_token(lab: Lab, admin: httpx.AsyncClient, demo: httpx.AsyncClient) -> None:
    subject = demo.headers["X-Auth-Token"]
    shown = await admin.get("/auth/tokens", headers={"X-Subject-Token": subject})
    assert shown.status_code == 200
    assert shown.headers["X-Subject-Token"] == subject
    assert "catalog" in shown.json()["token"]
    bare = await admin.get("/auth/tokens?nocatalog", headers={"X-Subject-Token": subject})
    assert "catalog" not in bare.json()["token"]
    head = await admin.head("/auth/tokens", headers={"X-Subject-Token": subject})
    assert (head.status_code, head.content) == (200, b"")
    assert (await demo.get("/auth/tokens", headers={"X-Subject-Token": subject})).status_code == 200, "one's own"
    others = await demo.get("/auth/tokens", headers={"X-Subject-Token": admin.headers["X-Auth-Token"]})
    assert others.status_code == 403
    assert (await admin.get("/auth/tokens", headers={"X-Subject-Token": "nonsense"})).status_code == 404
    assert (await demo.get("/auth/tokens", headers={"X-Subject-Token": "nonsense"})).status_code == 404
    assert (await admin.get("/auth/tokens")).status_code == 400


async def test_a_revoked_token_is_void_at_once_and_alone(lab: Lab, admin: httpx.AsyncClient) -> None:
    one, two = [await lab.token("demo", "demo-pw", project("demo")) for _ in range(2)]
    assert await lab.works(one)
    gone = await admin.delete("/auth/tokens", headers={"X-Subject-Token": one})
    assert gone.status_code == 204
    assert not await lab.works(one)
    assert (await lab.post_auth(by_token(one))).status_code == 401
    assert await lab.works(two)
    assert (await admin.get("/auth/tokens", headers={"X-Subject-Token": one})).status_code == 404


async def test_what_a_token_reaches(lab: Lab, demo: httpx.AsyncClient) -> None:
    assert [p["name"] for p in (await demo.get("/auth/projects")).json()["projects"]] == ["demo"]
    assert (await demo.get("/auth/domains")).json()["domains"] == []
    assert (await demo.get("/auth/system")).json()["system"] == []
    assert {s["name"] for s in (await demo.get("/auth/catalog")).json()["catalog"]} == {
        "keystone", "nova", "neutron", "glance", "placement"}
    async with lab.client(await lab.token("demo", "demo-pw", "unscoped")) as bare:
        assert [p["name"] for p in (await bare.get("/auth/projects")).json()["projects"]] == ["demo"]
        assert (await bare.get("/auth/catalog")).status_code == 401
    async with await lab.admin(SYSTEM) as system:
        assert (await system.get("/auth/system")).json()["system"] == [{"all": True}]


async def test_a_password_change_ends_every_token(lab: Lab, admin: httpx.AsyncClient) -> None:
    user = await made(admin, "/users", "user", name="ann", password="first")
    token = await lab.token("ann", "first")
    async with lab.client() as anyone:
        wrong = await anyone.post(f"/users/{user['id']}/password", json={
            "user": {"original_password": "guess", "password": "second"}})
        assert wrong.status_code == 401
        assert await lab.works(token)
        await lab.clock.advance(1)
        done = await anyone.post(f"/users/{user['id']}/password", json={
            "user": {"original_password": "first", "password": "second"}})
        assert done.status_code == 204
    assert not await lab.works(token)
    assert (await lab.post_auth(by_password("ann", "first"))).status_code == 401
    assert await lab.works(await lab.token("ann", "second"))


@pytest.mark.parametrize("what", ["user", "project", "domain", "role", "assignment", "user deleted", "group"])
async def test_what_is_taken_away_counts_at_once(lab: Lab, admin: httpx.AsyncClient, what: str) -> None:
    home = await made(admin, "/domains", "domain", name="acme")
    work = await made(admin, "/projects", "project", name="work", domain_id=home["id"])
    user = await made(admin, "/users", "user", name="ann", domain_id=home["id"], password="pw")
    role = await made(admin, "/roles", "role", name="special")
    team = await made(admin, "/groups", "group", name="team", domain_id=home["id"])
    await admin.put(f"/groups/{team['id']}/users/{user['id']}")
    actor = f"groups/{team['id']}" if what == "group" else f"users/{user['id']}"
    grant = f"/projects/{work['id']}/{actor}/roles/{role['id']}"
    assert (await admin.put(grant)).status_code == 204
    token = await lab.token("ann", "pw", project("work", home["id"]), home["id"])
    assert await lab.works(token)
    off = {"enabled": False}
    match what:
        case "user":
            await admin.patch(f"/users/{user['id']}", json={"user": off})
        case "project":
            await admin.patch(f"/projects/{work['id']}", json={"project": off})
        case "domain":
            await admin.patch(f"/domains/{home['id']}", json={"domain": off})
        case "role":
            await admin.delete(f"/roles/{role['id']}")
        case "assignment":
            await admin.delete(grant)
        case "user deleted":
            await admin.delete(f"/users/{user['id']}")
        case "group":
            await admin.delete(f"/groups/{team['id']}/users/{user['id']}")
    assert not await lab.works(token)
    assert (await lab.post_auth(by_token(token))).status_code == 401
    check = await admin.get("/auth/tokens", headers={"X-Subject-Token": token})
    assert check.status_code == 404


async def test_another_process_notices_within_a_second(lab: Lab, admin: httpx.AsyncClient) -> None:
    other = Lab(lab.folder, lab.db)
    other.clock = other.store.clock = lab.clock  # type: ignore[misc]
    token = await lab.token("demo", "demo-pw", project("demo"))
    assert await other.works(token)
    await admin.delete("/auth/tokens", headers={"X-Subject-Token": token})
    await lab.clock.advance(1.01)
    assert not await other.works(token)


async def test_a_role_that_is_given_counts_at_once(lab: Lab, admin: httpx.AsyncClient, demo: httpx.AsyncClient) -> None:
    user = (await admin.get("/users", params={"name": "demo"})).json()["users"][0]["id"]
    own = (await admin.get("/projects", params={"name": "demo"})).json()["projects"][0]["id"]
    assert (await demo.get("/users")).status_code == 403
    await admin.put(f"/projects/{own}/users/{user}/roles/{await role_id(admin, 'admin')}")
    assert (await demo.get("/users")).status_code == 200
