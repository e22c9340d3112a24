"""Who sees which image: two projects, a reader and an administrator, every visibility."""

import httpx
import pytest
from image_cloud import A, B, Cloud, register

V21 = {"Content-Type": "application/openstack-images-v2.1-json-patch"}


async def names(client: httpx.AsyncClient, query: str = "") -> set[str]:
    reply = await client.get(f"/v2/images?{query}")
    assert reply.status_code == 200, reply.text
    return {image["name"] for image in reply.json()["images"]}


@pytest.mark.parametrize(("visibility", "listed", "shown"), [
    ("private", False, 404), ("shared", False, 404), ("community", False, 200), ("public", True, 200)])
async def test_matrix(admin: httpx.AsyncClient, b: httpx.AsyncClient, visibility: str, listed: bool,
                      shown: int) -> None:
    image = await register(admin, name="theirs", visibility=visibility, owner=A)
    assert ("theirs" in await names(b)) == listed
    path = f"/v2/images/{image['id']}"
    assert (await b.get(path)).status_code == shown
    refused = 404 if shown == 404 else 403
    change = [{"op": "replace", "path": "/name", "value": "mine"}]
    assert (await b.patch(path, json=change, headers=V21)).status_code == refused
    assert (await b.delete(path)).status_code == refused
    assert (await b.put(f"{path}/tags/t")).status_code == refused
    assert (await b.put(f"{path}/file", content=b"x", headers={"Content-Type": "application/octet-stream"})
            ).status_code == refused
    assert (await b.post(f"{path}/actions/deactivate")).status_code == refused
    assert (await b.get(f"{path}/members")).status_code == refused
    assert (await b.post(f"{path}/members", json={"member": B})).status_code == refused


async def test_sharing(a: httpx.AsyncClient, b: httpx.AsyncClient, cloud: Cloud) -> None:
    image = await register(a, name="gift")
    path = f"/v2/images/{image['id']}"
    assert (await a.post(f"{path}/members", json={"member": B})).json()["status"] == "pending"
    assert (await a.post(f"{path}/members", json={"member": B})).status_code == 409
    assert "gift" not in await names(b) and (await b.get(path)).status_code == 200
    assert "gift" in await names(b, "member_status=pending")
    assert (await a.put(f"{path}/members/{B}", json={"status": "accepted"})).status_code == 403
    assert (await b.put(f"{path}/members/{B}", json={"status": "nonsense"})).status_code == 400
    accepted = await b.put(f"{path}/members/{B}", json={"status": "accepted"})
    assert accepted.status_code == 200 and accepted.json()["status"] == "accepted"
    assert "gift" in await names(b) and "gift" in await names(b, "visibility=shared")
    assert [m["member_id"] for m in (await a.get(f"{path}/members")).json()["members"]] == [B]
    assert (await b.get(f"{path}/members/{B}")).json()["image_id"] == image["id"]
    assert (await b.delete(f"{path}/members/{B}")).status_code == 403
    await a.post(f"{path}/members", json={"member": "c" * 32})
    assert [m["member_id"] for m in (await b.get(f"{path}/members")).json()["members"]] == [B]
    assert (await b.get(f"{path}/members/{'c' * 32}")).status_code == 404
    assert (await a.delete(f"{path}/members/{B}")).status_code == 204
    assert "gift" not in await names(b) and (await b.get(path)).status_code == 404


async def test_only_shared_images_have_members(a: httpx.AsyncClient) -> None:
    image = await register(a, visibility="private")
    assert (await a.post(f"/v2/images/{image['id']}/members", json={"member": B})).status_code == 403


async def test_what_takes_an_administrator(a: httpx.AsyncClient, admin: httpx.AsyncClient) -> None:
    assert (await a.post("/v2/images", json={"visibility": "public"})).status_code == 403
    assert (await a.post("/v2/images", json={"owner": B})).status_code == 403
    image = await register(a)
    for name, value in (("visibility", "public"), ("owner", B)):
        change = [{"op": "replace", "path": f"/{name}", "value": value}]
        assert (await a.patch(f"/v2/images/{image['id']}", json=change, headers=V21)).status_code == 403
        assert (await admin.patch(f"/v2/images/{image['id']}", json=change, headers=V21)).status_code == 200
    community = await register(a, visibility="community", name="for all")
    assert "for all" in await names(a) and "for all" not in await names(admin)
    assert "for all" in await names(admin, "visibility=community")
    assert (await admin.delete(f"/v2/images/{community['id']}")).status_code == 204


async def test_a_reader_reads(a: httpx.AsyncClient, cloud: Cloud) -> None:
    image = await register(a, name="seen")
    async with cloud.client("a-reader") as reader:
        assert "seen" in await names(reader)
        assert (await reader.post("/v2/images", json={"name": "x"})).status_code == 403
        assert (await reader.delete(f"/v2/images/{image['id']}")).status_code == 403
        assert (await reader.get(f"/v2/images/{image['id']}/file")).status_code == 403


async def test_no_token(cloud: Cloud) -> None:
    async with cloud.client(None) as nobody:
        reply = await nobody.get("/v2/images")
        assert reply.status_code == 401 and reply.headers["www-authenticate"].startswith("Keystone uri=")
        assert "This server could not verify" in reply.text and reply.headers["content-type"].startswith("text/html")
        choices = await nobody.get("/")
        assert choices.status_code == 300 and choices.json()["versions"][0]["status"] == "CURRENT"
        assert (await nobody.get("/versions")).status_code == 200
