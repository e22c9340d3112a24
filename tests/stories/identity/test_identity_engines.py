"""The same on each database engine: what SQL could make different."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from identity_cloud import Lab, by_password, made, project, role_id

from nacre.base.db import Database


@pytest.fixture
async def lab(tmp_path: Path, story_url: str) -> AsyncIterator[Lab]:
    database = Database(story_url)
    lab = Lab(tmp_path, database)
    await lab.start()
    yield lab
    await database.close()


async def test_a_day_of_identity(lab: Lab, admin: httpx.AsyncClient) -> None:
    home = await made(admin, "/domains", "domain", name="acme")
    work = await made(admin, "/projects", "project", name="work", domain_id=home["id"], tags=["a"])
    for name in ("Ann", "bob", "ann_b", "an%c"):
        await made(admin, "/users", "user", name=name, domain_id=home["id"], password="pw", enabled=name != "bob")
    assert (await admin.post("/users", json={"user": {"name": "Ann", "domain_id": home["id"]}})).status_code == 409

    async def names(**query: str) -> set[str]:
        answer = await admin.get("/users", params={"domain_id": home["id"], **query})
        assert answer.status_code == 200, answer.text
        return {u["name"] for u in answer.json()["users"]}
    assert await names(name__startswith="an") == {"ann_b", "an%c"}
    assert await names(name__istartswith="an") == {"Ann", "ann_b", "an%c"}
    assert await names(name__contains="%") == {"an%c"}
    assert await names(name__endswith="b") == {"bob", "ann_b"}
    assert await names(enabled="false") == {"bob"}
    assert await names(name__nonsense="x") == {"Ann", "bob", "ann_b", "an%c"}
    page = (await admin.get("/users", params={"limit": 3, "sort_key": "name", "domain_id": home["id"]})).json()
    rest = (await admin.get(page["links"]["next"])).json()
    assert len(page["users"]) == 3
    assert len(rest["users"]) == 1
    ann = (await admin.get("/users", params={"name": "Ann"})).json()["users"][0]["id"]
    inherited = f"/OS-INHERIT/domains/{home['id']}/users/{ann}/roles/{await role_id(admin, 'member')}"
    assert (await admin.put(inherited + "/inherited_to_projects")).status_code == 204
    token = await lab.token("Ann", "pw", {"project": {"id": work["id"]}}, home["id"])
    assert await lab.works(token)
    assert len((await admin.get("/role_assignments", params={"user.id": ann, "effective": ""})).json()[
        "role_assignments"]) == 2
    assert (await admin.get("/users/%00")).status_code in (400, 404)
    assert (await admin.get("/users", params={"name": "\x00"})).status_code in (200, 400)
    assert (await lab.post_auth(by_password("\x00", "x"))).status_code == 400
    await admin.patch(f"/domains/{home['id']}", json={"domain": {"enabled": False}})
    assert not await lab.works(token)
    assert (await admin.delete(f"/domains/{home['id']}")).status_code == 204
    assert await names() == set()
    assert (await lab.post_auth(by_password("demo", "demo-pw", project("demo")))).status_code == 201
