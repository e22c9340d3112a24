"""What the service says of itself: stores, usage, tasks, the cache list; and URLs that are not there."""

import httpx
import pytest
from image_cloud import register, send


async def test_stores_and_usage(a: httpx.AsyncClient, admin: httpx.AsyncClient) -> None:
    assert [s["id"] for s in (await a.get("/v2/info/stores")).json()["stores"]] == ["file"]
    assert (await a.get("/v2/info/stores/detail")).status_code == 403
    assert (await admin.get("/v2/info/stores/detail")).json()["stores"][0]["type"] == "file"
    assert (await a.get("/v2/info/import")).json()["import-methods"]["value"] == ["glance-direct"]
    image = await register(a)
    await send(a, image["id"], b"12345")
    usage = (await a.get("/v2/info/usage")).json()["usage"]
    assert usage["image_size_total"] == {"usage": 5, "limit": -1} and usage["image_count_total"]["usage"] == 1
    assert (await a.get(f"/v2/images/{image['id']}")).json()["stores"] == "file"
    assert (await a.delete(f"/v2/stores/file/{image['id']}")).status_code == 403
    assert (await admin.delete(f"/v2/stores/other/{image['id']}")).status_code == 404


async def test_the_cache_list(a: httpx.AsyncClient, admin: httpx.AsyncClient) -> None:
    image = await register(a)
    assert (await a.get("/v2/cache")).status_code == 403
    assert (await a.put(f"/v2/cache/{image['id']}")).status_code == 403
    assert (await admin.put("/v2/cache/none")).status_code == 404
    for _ in range(2):
        assert (await admin.put(f"/v2/cache/{image['id']}")).status_code == 202
    assert (await admin.get("/v2/cache")).json() == {"cached_images": [], "queued_images": [image["id"]]}
    await send(a, image["id"], b"data")
    listed = (await admin.get("/v2/cache")).json()
    assert [c["image_id"] for c in listed["cached_images"]] == [image["id"]] and listed["queued_images"] == []
    assert (await admin.delete("/v2/cache", headers={"x-image-cache-clear-target": "bad"})).status_code == 400
    await admin.delete("/v2/cache", headers={"x-image-cache-clear-target": "queue"})
    assert len((await admin.get("/v2/cache")).json()["cached_images"]) == 1
    assert (await admin.delete(f"/v2/cache/{image['id']}")).status_code == 204
    assert (await admin.delete("/v2/cache")).status_code == 204
    assert (await admin.get("/v2/cache")).json()["cached_images"] == []


async def test_tasks_are_for_administrators(a: httpx.AsyncClient, admin: httpx.AsyncClient) -> None:
    assert (await a.get("/v2/tasks")).status_code == 403
    assert (await admin.get("/v2/tasks")).json()["tasks"] == []
    assert (await admin.get("/v2/tasks/none")).status_code == 404
    assert (await admin.post("/v2/tasks", json={"type": "import"})).status_code == 400


@pytest.mark.parametrize(("method", "path", "status"), [
    ("GET", "/v2/images/", 404), ("DELETE", "/v2/images/", 404), ("GET", "/v2/nothing", 404),
    ("PUT", "/v2/images", 405),
    ("GET", "/v1/images", 404), ("POST", "/v2/schemas/image", 405), ("GET", "/v2/images/%00", 404),
    ("GET", "/v2/images/%ff%fe", 404), ("DELETE", "/v2/images/a%00b", 404)])
async def test_what_is_not_there(a: httpx.AsyncClient, method: str, path: str, status: int) -> None:
    reply = await a.request(method, path)
    assert reply.status_code == status and reply.headers["content-type"].startswith("text/html")
    if status == 405:
        assert "GET" in reply.headers["allow"]
