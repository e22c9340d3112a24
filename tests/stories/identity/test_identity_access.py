"""Who may do what: readers, members, managers and administrators, of a project, a domain, the system."""

import httpx
import pytest
from identity_cloud import SYSTEM, Lab, domain, made, project, role_id

ADMIN_ONLY = (
    ("GET", "/users"), ("POST", "/users", {"user": {"name": "x"}}), ("GET", "/projects"),
    ("POST", "/projects", {"project": {"name": "x"}}), ("GET", "/groups"),
    ("POST", "/groups", {"group": {"name": "x"}}),
    ("GET", "/roles"), ("POST", "/roles", {"role": {"name": "x"}}), ("POST", "/domains", {"domain": {"name": "x"}}),
    ("GET", "/domains"), ("GET", "/services"), ("POST", "/services", {"service": {"type": "x"}}), ("GET", "/endpoints"),
    ("POST", "/regions", {"region": {"id": "x"}}), ("GET", "/role_assignments"), ("GET", "/role_inferences"),
    ("GET", "/policies"), ("POST", "/policies", {"policy": {"type": "x", "blob": "x"}}), ("GET", "/OS-TRUST/trusts"),
    ("GET", "/domains/default/config"), ("GET", "/OS-FEDERATION/identity_providers"),
    ("GET", "/OS-EP-FILTER/endpoint_groups"), ("DELETE", "/users/none"), ("GET", "/users/none"),
    ("PATCH", "/projects/none", {"project": {"name": "x"}}), ("DELETE", "/projects/none"), ("GET", "/groups/none"))


@pytest.mark.parametrize("call", ADMIN_ONLY, ids=lambda c: f"{c[0]} {c[1]}")
async def test_a_member_of_a_project_manages_nothing(demo: httpx.AsyncClient, call: tuple) -> None:
    method, path, *body = call
    answer = await demo.request(method, path, json=body[0] if body else None)
    assert answer.status_code == 403, answer.text
    error = answer.json()["error"]
    assert error["title"] == "Forbidden"
    assert error["message"].startswith("You are not authorized to perform the requested action: identity:")


async def test_one_sees_oneself(demo: httpx.AsyncClient, admin: httpx.AsyncClient) -> None:
    own = (await admin.get("/users", params={"name": "demo"})).json()["users"][0]["id"]
    other = (await admin.get("/users", params={"name": "admin"})).json()["users"][0]["id"]
    assert (await demo.get(f"/users/{own}")).status_code == 200
    assert (await demo.get(f"/users/{own}/projects")).status_code == 200
    assert (await demo.get(f"/users/{own}/groups")).status_code == 200
    for path in ("", "/projects", "/groups", "/application_credentials", "/access_rules", "/credentials/OS-EC2"):
        assert (await demo.get(f"/users/{other}{path}")).status_code == 403, path
    assert (await demo.patch(f"/users/{own}", json={"user": {"enabled": True}})).status_code == 403


async def test_the_systems_reader_sees_all_and_changes_nothing(lab: Lab, admin: httpx.AsyncClient) -> None:
    user = await made(admin, "/users", "user", name="auditor", password="pw")
    await admin.put(f"/system/users/{user['id']}/roles/{await role_id(admin, 'reader')}")
    async with lab.client(await lab.token("auditor", "pw", SYSTEM)) as reader:
        for method, path, *body in ADMIN_ONLY:
            answer = await reader.request(method, path, json=body[0] if body else None)
            if method == "GET":
                assert answer.status_code in (200, 404), (path, answer.text)
            else:
                assert answer.status_code == 403, (path, answer.text)


async def test_a_domains_manager_rules_the_domain_alone(lab: Lab, admin: httpx.AsyncClient) -> None:
    home = await made(admin, "/domains", "domain", name="acme")
    boss = await made(admin, "/users", "user", name="boss", domain_id=home["id"], password="pw")
    other = await made(admin, "/users", "user", name="other", password="pw")
    elsewhere = await made(admin, "/projects", "project", name="elsewhere")
    await admin.put(f"/domains/{home['id']}/users/{boss['id']}/roles/{await role_id(admin, 'manager')}")
    member, high = await role_id(admin, "member"), await role_id(admin, "admin")
    async with lab.client(await lab.token("boss", "pw", domain(home["id"]), home["id"])) as manager:
        work = await made(manager, "/projects", "project", name="work")
        ann = await made(manager, "/users", "user", name="ann", password="pw")
        team = await made(manager, "/groups", "group", name="team")
        assert {work["domain_id"], ann["domain_id"], team["domain_id"]} == {home["id"]}
        assert (await manager.put(f"/groups/{team['id']}/users/{ann['id']}")).status_code == 204
        grants = f"/projects/{work['id']}/users/{ann['id']}/roles"
        assert (await manager.put(f"{grants}/{member}")).status_code == 204
        assert (await manager.put(f"{grants}/{high}")).status_code == 403, "no manager makes administrators"
        assert [u["name"] for u in (await manager.get("/users")).json()["users"]] in (["ann", "boss"], ["boss", "ann"])
        assert [p["name"] for p in (await manager.get("/projects")).json()["projects"]] == ["work"]
        for path in (f"/users/{other['id']}", f"/projects/{elsewhere['id']}"):
            assert (await manager.get(path)).status_code == 403
            assert (await manager.delete(path)).status_code == 403
        for path in (f"/projects/{elsewhere['id']}/users/{ann['id']}/roles/{member}",
                     f"/projects/{work['id']}/users/{other['id']}/roles/{member}",
                     f"/groups/{team['id']}/users/{other['id']}"):
            assert (await manager.put(path)).status_code == 403, path
        stranger = await manager.post("/users", json={"user": {"name": "x", "domain_id": "default"}})
        assert stranger.status_code == 403


async def test_roles_imply(lab: Lab, admin: httpx.AsyncClient) -> None:
    user = await made(admin, "/users", "user", name="ann", password="pw")
    work = await made(admin, "/projects", "project", name="work")
    expected = {"reader": {"reader"}, "member": {"member", "reader"}, "manager": {"manager", "member", "reader"},
                "admin": {"admin", "manager", "member", "reader"}}
    for name, roles in expected.items():
        path = f"/projects/{work['id']}/users/{user['id']}/roles/{await role_id(admin, name)}"
        await admin.put(path)
        token = await lab.token("ann", "pw", project("work"))
        assert set((await lab.identity.authenticate(token)).roles) == roles
        await admin.delete(path)


async def test_inherited_roles_hold_below_only(lab: Lab, admin: httpx.AsyncClient) -> None:
    home = await made(admin, "/domains", "domain", name="acme")
    top = await made(admin, "/projects", "project", name="top", domain_id=home["id"])
    sub = await made(admin, "/projects", "project", name="sub", parent_id=top["id"])
    user = await made(admin, "/users", "user", name="ann", domain_id=home["id"], password="pw")
    reader = await role_id(admin, "reader")
    path = f"/OS-INHERIT/projects/{top['id']}/users/{user['id']}/roles/{reader}/inherited_to_projects"
    assert (await admin.get(path)).status_code == 404
    assert (await admin.put(path)).status_code == 204
    assert (await admin.head(path)).status_code == 204
    listed = await admin.get(f"/OS-INHERIT/projects/{top['id']}/users/{user['id']}/roles/inherited_to_projects")
    assert [r["name"] for r in listed.json()["roles"]] == ["reader"]
    await lab.token("ann", "pw", {"project": {"id": sub["id"]}}, home["id"])
    from identity_cloud import by_password
    assert (await lab.post_auth(by_password("ann", "pw", {"project": {"id": top["id"]}}, home["id"]))
            ).status_code == 401
    effective = await admin.get("/role_assignments", params={"user.id": user["id"], "effective": ""})
    assert [a["scope"]["project"]["id"] for a in effective.json()["role_assignments"]] == [sub["id"]]
    await admin.delete(path)
    of_domain = f"/OS-INHERIT/domains/{home['id']}/users/{user['id']}/roles/{reader}/inherited_to_projects"
    await admin.put(of_domain)
    for id in (top["id"], sub["id"]):
        await lab.token("ann", "pw", {"project": {"id": id}}, home["id"])


async def test_assignments_are_listed(lab: Lab, admin: httpx.AsyncClient) -> None:
    work = await made(admin, "/projects", "project", name="work")
    user = await made(admin, "/users", "user", name="ann")
    team = await made(admin, "/groups", "group", name="team")
    await admin.put(f"/groups/{team['id']}/users/{user['id']}")
    await admin.put(f"/projects/{work['id']}/groups/{team['id']}/roles/{await role_id(admin, 'member')}")
    plain = (await admin.get("/role_assignments", params={"group.id": team["id"]})).json()["role_assignments"]
    assert len(plain) == 1
    assert plain[0]["links"]["assignment"].endswith(
        f"/projects/{work['id']}/groups/{team['id']}/roles/{await role_id(admin, 'member')}")
    worked_out = (await admin.get("/role_assignments", params={
        "user.id": user["id"], "effective": "", "include_names": ""})).json()["role_assignments"]
    assert {a["role"]["name"] for a in worked_out} == {"member", "reader"}
    assert {a["user"]["name"] for a in worked_out} == {"ann"}
    assert worked_out[0]["scope"]["project"]["domain"] == {"id": "default", "name": "Default"}
    for query in ("user.id=a&group.id=b", "scope.project.id=a&scope.domain.id=b", "effective&group.id=a",
                  "include_subtree", "include_subtree&scope.project.id=a&scope.project.id="):
        assert (await admin.get(f"/role_assignments?{query}")).status_code == 400, query


async def test_no_token_no_answer(lab: Lab) -> None:
    async with lab.client() as client:
        for path in ("/users", "/auth/tokens", "/nonsense"):
            answer = await client.get(path)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"].startswith("Keystone uri=")
