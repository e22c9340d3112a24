"""PATCH in both dialects: what may change, and what is the service's own."""

from typing import Any

import httpx
import pytest
from image_cloud import register, send

V20 = {"Content-Type": "application/openstack-images-v2.0-json-patch"}
V21 = {"Content-Type": "application/openstack-images-v2.1-json-patch"}


async def patch(client: httpx.AsyncClient, image: dict[str, Any], *changes: Any) -> httpx.Response:
    return await client.patch(f"/v2/images/{image['id']}", json=list(changes), headers=V21)


async def test_both_dialects(a: httpx.AsyncClient) -> None:
    image = await register(a, color="red")
    new = await patch(a, image, {"op": "replace", "path": "/name", "value": "new"},
                      {"op": "add", "path": "/a~1b", "value": "slash"},
                      {"op": "replace", "path": "/color", "value": "blue"},
                      {"op": "replace", "path": "/tags", "value": ["t", "t"]})
    assert new.status_code == 200
    document = new.json()
    assert (document["name"], document["a/b"], document["color"], document["tags"]) == ("new", "slash", "blue", ["t"])
    old = await a.patch(f"/v2/images/{image['id']}", headers=V20, json=[
        {"replace": "/name", "value": "old"}, {"remove": "/color"}, {"add": "/size_hint", "value": "s"}])
    assert old.status_code == 200 and "color" not in old.json()
    shown = (await a.get(f"/v2/images/{image['id']}")).json()
    assert (shown["name"], shown["size_hint"]) == ("old", "s")
    again = await a.patch(f"/v2/images/{image['id']}", headers=V20, json=[{"add": "/name", "value": "x"}])
    assert again.status_code == 409


@pytest.mark.parametrize(("change", "status"), [
    ({"op": "replace", "path": "/id", "value": "x"}, 403),
    ({"op": "replace", "path": "/status", "value": "active"}, 403),
    ({"op": "replace", "path": "/size", "value": 1}, 403), ({"op": "add", "path": "/os_glance_foo", "value": "x"}, 403),
    ({"op": "add", "path": "/deleted", "value": "x"}, 403), ({"op": "remove", "path": "/name"}, 403),
    ({"op": "remove", "path": "/nothing"}, 409), ({"op": "replace", "path": "/nothing", "value": "x"}, 409),
    ({"op": "add", "path": "/locations/-", "value": {}}, 403),
    ({"op": "replace", "path": "/min_disk", "value": -1}, 400),
    ({"op": "replace", "path": "/min_ram", "value": 2**40}, 400), ({"op": "replace", "path": "/name", "value": 5}, 400),
    ({"op": "replace", "path": "/disk_format", "value": "exe"}, 400), ({"op": "add", "path": "/p", "value": 5}, 400),
    ({"op": "add", "path": "/p", "value": "a\x00b"}, 400), ({"op": "add", "path": "/p" * 200, "value": "x"}, 400),
    ({"op": "add", "path": "/" + "p" * 256, "value": "x"}, 400), ({"op": "move", "path": "/p", "value": "x"}, 400),
    ({"op": "add", "path": "p", "value": "x"}, 400), ({"op": "add", "path": "/p~2", "value": "x"}, 400),
    ({"op": "add", "path": 5, "value": "x"}, 400), ({"op": "add", "value": "x"}, 400),
    ({"op": "add", "path": "/p"}, 400),
    ("text", 400), ({"op": "add", "path": "/", "value": "x"}, 400)])
async def test_refused_changes_change_nothing(a: httpx.AsyncClient, change: Any, status: int) -> None:
    image = await register(a)
    reply = await patch(a, image, {"op": "replace", "path": "/name", "value": "changed"}, change)
    assert reply.status_code == status, reply.text
    assert (await a.get(f"/v2/images/{image['id']}")).json()["name"] == "i"


async def test_formats_are_fixed_once_there_is_data(a: httpx.AsyncClient) -> None:
    image = await register(a)
    assert (await patch(a, image, {"op": "replace", "path": "/disk_format", "value": "qcow2"})).status_code == 200
    assert (await patch(a, image, {"op": "replace", "path": "/disk_format", "value": "raw"})).status_code == 200
    await send(a, image["id"], b"data")
    assert (await patch(a, image, {"op": "replace", "path": "/disk_format", "value": "qcow2"})).status_code == 403


async def test_the_content_type_chooses_the_dialect(a: httpx.AsyncClient) -> None:
    image = await register(a)
    reply = await a.patch(f"/v2/images/{image['id']}", json=[])
    assert reply.status_code == 415
    reply = await a.patch(f"/v2/images/{image['id']}", content=b"{", headers=V21)
    assert reply.status_code == 400
    assert (await a.patch(f"/v2/images/{image['id']}", json={}, headers=V21)).status_code == 400


@pytest.mark.parametrize(("body", "status"), [
    ({"disk_format": "exe"}, 400), ({"container_format": "wrong"}, 400), ({"name": "x" * 256}, 400), ({"id": "5"}, 400),
    ({"min_disk": "4"}, 400), ({"protected": "yes"}, 400), ({"tags": "t"}, 400), ({"self": "/x"}, 403),
    ({"status": "active"}, 403), ({"os_glance_x": "y"}, 403), ({"p" * 256: "x"}, 400), ([], 400), (None, 400),
    ({"name": "a\x00"}, 400), ({"locations": []}, 403), ({"visibility": "secret"}, 400)])
async def test_refused_registrations(a: httpx.AsyncClient, body: Any, status: int) -> None:
    reply = await a.post("/v2/images", json=body)
    assert reply.status_code == status, reply.text
    assert reply.headers["content-type"].startswith("text/html")


async def test_a_chosen_id_is_taken_once(a: httpx.AsyncClient) -> None:
    image = await register(a, id="0aa1b0c2-0000-4000-8000-00000000ABCD")
    assert image["id"] == "0aa1b0c2-0000-4000-8000-00000000abcd"
    assert (await a.post("/v2/images", json={"id": image["id"]})).status_code == 409


async def test_tags(a: httpx.AsyncClient) -> None:
    image = await register(a)
    path = f"/v2/images/{image['id']}"
    assert (await a.put(f"{path}/tags/blue")).status_code == 204
    assert (await a.put(f"{path}/tags/blue")).status_code == 204
    assert (await a.get(path)).json()["tags"] == ["blue"]
    assert (await a.put(f"{path}/tags/{'x' * 256}")).status_code == 400
    assert (await a.delete(f"{path}/tags/blue")).status_code == 204
    assert (await a.delete(f"{path}/tags/blue")).status_code == 404
