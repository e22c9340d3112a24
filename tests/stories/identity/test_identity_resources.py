"""Users, groups, projects, domains, roles and the catalog: made, listed, changed, gone."""

import httpx
import pytest
import sqlalchemy as sa
from identity_cloud import BASE, V3, Lab, by_password, made, project

from nacre.identity import tables as t
from nacre.identity.catalog import First, bootstrap


async def test_extra_attributes_are_kept(admin: httpx.AsyncClient) -> None:
    user = await made(admin, "/users", "user", name="ann", email="a@b", colour={"x": [1]})
    assert (user["email"], user["colour"]) == ("a@b", {"x": [1]})
    assert user["links"]["self"] == f"{BASE}{V3}/users/{user['id']}"
    assert user["enabled"] is True
    assert user["domain_id"] == "default"
    assert user["password_expires_at"] is None
    assert "password" not in user
    changed = await admin.patch(f"/users/{user['id']}", json={"user": {"email": "c@d", "name": "anna"}})
    assert changed.json()["user"]["email"] == "c@d"
    assert changed.json()["user"]["colour"] == {"x": [1]}
    assert (await admin.get(f"/users/{user['id']}")).json()["user"]["name"] == "anna"
    assert (await admin.delete(f"/users/{user['id']}")).status_code == 204
    gone = await admin.get(f"/users/{user['id']}")
    assert gone.status_code == 404
    assert gone.json()["error"]["message"] == f"Could not find user: {user['id']}."


@pytest.mark.parametrize(("path", "kind"), [
    ("/users", "user"), ("/groups", "group"), ("/projects", "project"), ("/domains", "domain"), ("/roles", "role")])
async def test_names(admin: httpx.AsyncClient, path: str, kind: str) -> None:
    await made(admin, path, kind, name="same")
    again = await admin.post(path, json={kind: {"name": "same"}})
    assert again.status_code == 409
    assert again.json()["error"]["title"] == "Conflict"
    for name in ("", "   ", "x" * 256, None, 7, "nul\x00"):
        assert (await admin.post(path, json={kind: {"name": name}})).status_code == 400, name
    assert (await admin.post(path, json={kind: {}})).status_code == 400
    assert (await admin.post(path, json={})).status_code == 400
    assert (await admin.post(path, content="{")).status_code == 400
    listed = (await admin.get(path, params={"name": "same"})).json()
    assert [x["name"] for x in listed[kind + "s"]] == ["same"]
    assert listed["links"] == {"next": None, "previous": None, "self": f"{BASE}{V3}{path}?name=same"}


async def test_lists_are_filtered_sorted_and_paged(admin: httpx.AsyncClient) -> None:
    for name in ("n1", "n2", "N3", "m_x"):
        await made(admin, "/users", "user", name=name, enabled=name != "n2")

    async def names(**query: object) -> list[str]:
        answer = await admin.get("/users", params=query)
        assert answer.status_code == 200, answer.text
        return [u["name"] for u in answer.json()["users"]]
    assert await names(enabled="false") == ["n2"]
    assert set(await names(name__icontains="N")) >= {"n1", "n2", "N3"}
    assert await names(name__contains="_") == ["m_x"], "a filter is text, not a pattern"
    assert set(await names(no_such_filter="x")) >= {"n1", "n2", "N3"}
    assert await names(name__startswith="n", sort_key="name", sort_dir="desc") == ["n2", "n1"]
    first = (await admin.get("/users", params={"limit": 2, "sort_key": "name"})).json()
    assert len(first["users"]) == 2
    seen, following = [u["name"] for u in first["users"]], first["links"]["next"]
    while following:
        page = (await admin.get(following)).json()
        seen += [u["name"] for u in page["users"]]
        following = page["links"]["next"]
    assert seen == sorted(await names())
    for bad in ({"limit": "x"}, {"limit": "-1"}, {"sort_dir": "up"}):
        assert (await admin.get("/users", params=bad)).status_code == 400
    assert (await admin.get("/users", params={"marker": "none", "limit": 1})).status_code == 404


async def test_groups_hold_users(admin: httpx.AsyncClient) -> None:
    user, team = await made(admin, "/users", "user", name="ann"), await made(admin, "/groups", "group", name="team")
    path = f"/groups/{team['id']}/users/{user['id']}"
    assert (await admin.head(path)).status_code == 404
    for _ in range(2):
        assert (await admin.put(path)).status_code == 204
    assert (await admin.head(path)).status_code == 204
    assert [u["name"] for u in (await admin.get(f"/groups/{team['id']}/users")).json()["users"]] == ["ann"]
    assert [g["name"] for g in (await admin.get(f"/users/{user['id']}/groups")).json()["groups"]] == ["team"]
    assert (await admin.delete(path)).status_code == 204
    assert (await admin.delete(path)).status_code == 404
    assert (await admin.put(f"/groups/{team['id']}/users/none")).status_code == 404


async def test_projects_form_a_tree(admin: httpx.AsyncClient) -> None:
    top = await made(admin, "/projects", "project", name="top")
    assert (top["parent_id"], top["domain_id"], top["is_domain"]) == ("default", "default", False)
    sub = await made(admin, "/projects", "project", name="sub", parent_id=top["id"])
    leaf = await made(admin, "/projects", "project", name="leaf", parent_id=sub["id"])
    shown = (await admin.get(f"/projects/{sub['id']}?parents_as_ids&subtree_as_list")).json()["project"]
    assert shown["parents"] == {top["id"]: {"default": None}}
    assert [x["project"]["id"] for x in shown["subtree"]] == [leaf["id"]]
    assert (await admin.delete(f"/projects/{top['id']}")).status_code == 403
    off = {"project": {"enabled": False}}
    assert (await admin.patch(f"/projects/{top['id']}", json=off)).status_code == 403, "there are enabled ones below"
    assert (await admin.patch(f"/projects/{leaf['id']}", json={"project": {"parent_id": top["id"]}})).status_code == 403
    assert (await admin.patch(f"/projects/{leaf['id']}", json={"project": {"domain_id": "x"}})).status_code == 400
    deeper = leaf
    for n in range(2):
        deeper = await made(admin, "/projects", "project", name=f"deep{n}", parent_id=deeper["id"])
    beyond = await admin.post("/projects", json={"project": {"name": "beyond", "parent_id": deeper["id"]}})
    assert beyond.status_code == 403
    acting = await made(admin, "/projects", "project", name="acting", is_domain=True)
    assert acting["domain_id"] is None
    assert (await admin.get(f"/domains/{acting['id']}")).status_code == 200


async def test_tags(admin: httpx.AsyncClient) -> None:
    work = await made(admin, "/projects", "project", name="work", tags=["a", "b"])
    path = f"/projects/{work['id']}/tags"
    assert (await admin.put(f"{path}/c")).status_code == 201
    assert (await admin.get(path)).json()["tags"] == ["a", "b", "c"]
    assert (await admin.head(f"{path}/c")).status_code == 204
    assert (await admin.delete(f"{path}/a")).status_code == 204
    assert (await admin.get(f"{path}/a")).status_code == 404
    for query, found in (("tags=b,c", 1), ("tags=a,b", 0), ("tags-any=a,b", 1), ("not-tags=b,c", 0)):
        answer = (await admin.get(f"/projects?name=work&{query}")).json()["projects"]
        assert len(answer) == found, query
    assert (await admin.put(path, json={"tags": ["x", "x"]})).status_code == 400
    assert (await admin.put(path, json={"tags": ["x/y"]})).status_code == 400
    assert (await admin.put(path, json={"tags": ["z"]})).json()["tags"] == ["z"]
    assert (await admin.delete(path)).status_code == 204
    assert (await admin.get(path)).json()["tags"] == []


async def test_a_domain_goes_with_all_that_is_in_it(lab: Lab, admin: httpx.AsyncClient) -> None:
    home = await made(admin, "/domains", "domain", name="acme", description="d")
    user = await made(admin, "/users", "user", name="ann", domain_id=home["id"], password="pw")
    work = await made(admin, "/projects", "project", name="work", domain_id=home["id"])
    sub = await made(admin, "/projects", "project", name="sub", parent_id=work["id"])
    assert sub["domain_id"] == home["id"]
    token = await lab.token("ann", "pw", domain_id=home["id"])
    assert (await admin.delete(f"/domains/{home['id']}")).status_code == 403, "enabled"
    await admin.patch(f"/domains/{home['id']}", json={"domain": {"enabled": False}})
    assert not await lab.works(token)
    assert (await admin.delete(f"/domains/{home['id']}")).status_code == 204
    for path in (f"/domains/{home['id']}", f"/users/{user['id']}", f"/projects/{work['id']}", f"/projects/{sub['id']}"):
        assert (await admin.get(path)).status_code == 404
    off = await admin.patch("/domains/default", json={"domain": {"enabled": False}})
    assert off.status_code == 403


async def test_the_immutable_stays(admin: httpx.AsyncClient) -> None:
    role = await made(admin, "/roles", "role", name="fixed", options={"immutable": True})
    path = f"/roles/{role['id']}"
    assert (await admin.patch(path, json={"role": {"name": "other"}})).status_code == 403
    assert (await admin.delete(path)).status_code == 403
    assert (await admin.patch(path, json={"role": {"options": {"immutable": False}}})).status_code == 200
    assert (await admin.delete(path)).status_code == 204


async def test_inferences(admin: httpx.AsyncClient) -> None:
    one, two = [await made(admin, "/roles", "role", name=n) for n in ("one", "two")]
    path = f"/roles/{one['id']}/implies"
    made_rule = await admin.put(f"{path}/{two['id']}")
    assert made_rule.status_code == 201
    assert made_rule.json()["role_inference"]["implies"]["name"] == "two"
    assert [r["name"] for r in (await admin.get(path)).json()["role_inference"]["implies"]] == ["two"]
    assert (await admin.head(f"{path}/{two['id']}")).status_code == 204
    rules = (await admin.get("/role_inferences")).json()["role_inferences"]
    known = {r["prior_role"]["name"]: [i["name"] for i in r["implies"]] for r in rules}
    assert known == {"admin": ["manager"], "manager": ["member"], "member": ["reader"], "one": ["two"]}
    assert (await admin.delete(f"{path}/{two['id']}")).status_code == 204
    assert (await admin.delete(f"{path}/{two['id']}")).status_code == 404


async def test_regions_services_endpoints(lab: Lab, admin: httpx.AsyncClient) -> None:
    await made(admin, "/regions", "region", id="north")
    south = await made(admin, "/regions", "region", id="south", parent_region_id="north")
    assert south["parent_region_id"] == "north"
    circle = await admin.patch("/regions/north", json={"region": {"parent_region_id": "south"}})
    assert circle.status_code == 400
    assert (await admin.post("/regions", json={"region": {"id": "north"}})).status_code == 409
    assert (await admin.put("/regions/east", json={"region": {"description": "d"}})).json()["region"]["id"] == "east"
    store = await made(admin, "/services", "service", type="object-store", name="swift")
    end = await made(admin, "/endpoints", "endpoint", service_id=store["id"], interface="public", region_id="south",
                     url="http://swift/v1/AUTH_%(project_id)s")
    assert (await admin.delete("/regions/north")).status_code == 403, "an endpoint is below"
    for bad in ({"interface": "public", "url": "nonsense", "service_id": store["id"]},
                {"interface": "odd", "url": "http://x", "service_id": store["id"]},
                {"interface": "public", "url": "http://x", "service_id": store["id"], "enabled": "True"},
                {"interface": "public", "url": "http://x", "service_id": "none"}):
        assert (await admin.post("/endpoints", json={"endpoint": bad})).status_code == 400, bad

    async def swift() -> list[str]:
        body = (await lab.post_auth(by_password("demo", "demo-pw", project("demo")))).json()["token"]
        return [e["url"].replace(body["project"]["id"], "ID") for s in body["catalog"] if s["name"] == "swift"
                for e in s["endpoints"]]
    assert await swift() == ["http://swift/v1/AUTH_ID"]
    await admin.patch(f"/endpoints/{end['id']}", json={"endpoint": {"enabled": False}})
    assert await swift() == []
    listed = (await admin.get("/endpoints", params={"service_id": store["id"]})).json()["endpoints"]
    assert [e["id"] for e in listed] == [end["id"]]
    assert (await admin.delete(f"/services/{store['id']}")).status_code == 204
    assert (await admin.get(f"/endpoints/{end['id']}")).status_code == 404


async def test_the_first_rows_are_made_once(lab: Lab) -> None:
    def counts() -> list[int]:
        with lab.db.engine.connect() as connection:
            return [connection.scalar(sa.select(sa.func.count()).select_from(table)) or 0 for table in (
                t.users, t.projects, t.roles, t.assignments, t.implied_roles, t.services, t.endpoints, t.regions)]
    before = counts()
    await bootstrap(lab.db, First(base_url="http://elsewhere", passwords={"admin": "other"}), lab.passwords)
    assert counts() == before
    body = (await lab.post_auth(by_password("admin", "admin-pw", project("admin")))).json()["token"]
    assert {e["url"].split("/")[2] for s in body["catalog"] for e in s["endpoints"]} == {"elsewhere"}


async def test_a_users_password_by_the_administrator(lab: Lab, admin: httpx.AsyncClient) -> None:
    user = await made(admin, "/users", "user", name="ann")
    assert (await lab.post_auth(by_password("ann", ""))).status_code == 401
    await admin.patch(f"/users/{user['id']}", json={"user": {"password": "given"}})
    assert (await lab.post_auth(by_password("ann", "given"))).status_code == 201
    long = await admin.patch(f"/users/{user['id']}", json={"user": {"password": "x" * 5000}})
    assert long.status_code == 403
    home = await admin.patch(f"/users/{user['id']}", json={"user": {"default_project_id": "default"}})
    assert home.status_code == 400, "a domain is no project to work in"
