"""Vocabularies: an administrator writes them, everybody reads the public ones."""

from typing import Any

import httpx
import pytest
from image_cloud import Cloud

NS = "/v2/metadefs/namespaces"


async def made(admin: httpx.AsyncClient, name: str = "ns", **more: Any) -> dict[str, Any]:
    reply = await admin.post(NS, json={"namespace": name, "visibility": "public", **more})
    assert reply.status_code == 201, reply.text
    document: dict[str, Any] = reply.json()
    return document


async def test_a_whole_vocabulary(admin: httpx.AsyncClient, a: httpx.AsyncClient) -> None:
    color = {"title": "Color", "type": "string", "enum": ["red", "blue"]}
    await made(admin, properties={"color": color}, tags=[{"name": "t"}], protected=True,
               objects=[{"name": "o", "required": ["color"], "properties": {"color": color}}],
               resource_type_associations=[{"name": "OS::Nova::Server", "prefix": "hw_"}])
    shown = (await a.get(f"{NS}/ns")).json()
    assert shown["properties"]["color"]["enum"] == ["red", "blue"] and shown["tags"][0]["name"] == "t"
    assert shown["objects"][0]["self"] == f"{NS}/ns/objects/o"
    as_server = (await a.get(f"{NS}/ns?resource_type=OS::Nova::Server")).json()
    assert list(as_server["properties"]) == ["hw_color"] and as_server["objects"][0]["required"] == ["hw_color"]
    listed = (await a.get(NS)).json()["namespaces"][0]
    assert listed["namespace"] == "ns" and listed["resource_type_associations"][0]["name"] == "OS::Nova::Server"
    assert (await admin.delete(f"{NS}/ns")).status_code == 403
    assert (await admin.delete(f"{NS}/ns/objects")).status_code == 403
    after = await admin.put(f"{NS}/ns", json={"namespace": "renamed", "visibility": "private"})
    assert after.json()["protected"] is False and after.json()["visibility"] == "private"
    assert (await a.get(f"{NS}/renamed")).status_code == 404 and (await a.get(NS)).json()["namespaces"] == []
    assert (await admin.get(f"{NS}/renamed/objects/o")).status_code == 200
    assert (await admin.delete(f"{NS}/renamed")).status_code == 204
    assert (await admin.get(f"{NS}/renamed")).status_code == 404


@pytest.mark.parametrize(("kind", "body", "key"), [
    ("objects", {"name": "x", "description": "d"}, "objects"),
    ("properties", {"name": "OS::Glance::Image", "title": "T", "type": "string"}, "properties")])
async def test_items(admin: httpx.AsyncClient, a: httpx.AsyncClient, kind: str, body: dict[str, Any], key: str) -> None:
    await made(admin)
    path, name = f"{NS}/ns/{kind}", body["name"]
    assert (await a.post(path, json=body)).status_code == 403
    assert (await admin.post(path, json=body)).status_code == 201
    assert (await admin.post(path, json=body)).status_code == 409
    assert (await a.get(f"{path}/{name}")).json()["name"] == name
    renamed = await admin.put(f"{path}/{name}", json={**body, "name": "new", "title": "N"} if kind == "properties"
                              else {**body, "name": "new"})
    assert renamed.status_code == 200 and renamed.json()["name"] == "new"
    assert (await a.get(f"{path}/{name}")).status_code == 404
    assert len((await a.get(path)).json()[key]) == 1
    assert (await admin.delete(f"{path}/new")).status_code == 204
    assert (await admin.delete(f"{path}/new")).status_code == 404
    await admin.post(path, json=body)
    assert (await admin.delete(path)).status_code == 204
    assert not (await a.get(path)).json()[key]


async def test_tags(admin: httpx.AsyncClient) -> None:
    await made(admin)
    path = f"{NS}/ns/tags"
    three = {"tags": [{"name": n} for n in "abc"]}
    assert (await admin.post(path, json=three)).status_code == 201
    assert (await admin.post(f"{path}/d")).status_code == 201
    assert (await admin.put(f"{path}/d", json={"name": "e"})).json()["name"] == "e"
    assert {t["name"] for t in (await admin.get(path)).json()["tags"]} == set("abce")
    assert (await admin.post(path, json={"tags": [{"name": "f"}]}, headers={"X-Openstack-Append": "True"})
            ).status_code == 201
    assert {t["name"] for t in (await admin.get(path)).json()["tags"]} == set("abcef")
    await admin.post(path, json={"tags": [{"name": "z"}]})
    assert {t["name"] for t in (await admin.get(path)).json()["tags"]} == {"z"}
    assert (await admin.delete(path)).status_code == 204 and (await admin.get(path)).json()["tags"] == []


async def test_resource_types(admin: httpx.AsyncClient, a: httpx.AsyncClient) -> None:
    await made(admin)
    known = [t["name"] for t in (await a.get("/v2/metadefs/resource_types")).json()["resource_types"]]
    assert "OS::Glance::Image" in known
    path = f"{NS}/ns/resource_types"
    assert (await admin.post(path, json={"name": "Mine", "prefix": "m:"})).json()["prefix"] == "m:"
    assert [t["name"] for t in (await a.get(path)).json()["resource_type_associations"]] == ["Mine"]
    known = [t["name"] for t in (await a.get("/v2/metadefs/resource_types")).json()["resource_types"]]
    assert "Mine" in known
    assert [n["namespace"] for n in (await a.get(f"{NS}?resource_types=Mine")).json()["namespaces"]] == ["ns"]
    assert (await a.get(f"{NS}?resource_types=Other")).json()["namespaces"] == []
    assert (await admin.delete(f"{path}/Mine")).status_code == 204
    assert (await admin.delete(f"{path}/Mine")).status_code == 404


async def test_pages(admin: httpx.AsyncClient) -> None:
    for number in range(5):
        await made(admin, f"ns{number}")
    url, seen = f"{NS}?limit=2&sort_key=namespace&sort_dir=asc", []
    for _ in range(9):
        page = (await admin.get(url)).json()
        seen += [n["namespace"] for n in page["namespaces"]]
        if "next" not in page:
            break
        url = page["next"]
    assert seen == [f"ns{n}" for n in range(5)]


@pytest.mark.parametrize("body", [
    None, [], {}, {"namespace": ""}, {"namespace": "x" * 81}, {"namespace": "n", "visibility": "shared"},
    {"namespace": "n", "bogus": 1}, {"namespace": "n", "objects": [{}]}, {"namespace": "n", "tags": [{"name": 5}]},
    {"namespace": "n", "properties": {"p": {"title": "t"}}}, {"namespace": "n\x00"}])
async def test_bad_vocabularies(admin: httpx.AsyncClient, body: Any) -> None:
    assert (await admin.post(NS, json=body)).status_code == 400


async def test_taken_and_foreign(admin: httpx.AsyncClient, a: httpx.AsyncClient, cloud: Cloud) -> None:
    await made(admin)
    assert (await admin.post(NS, json={"namespace": "ns"})).status_code == 409
    twice = {"namespace": "two", "tags": [{"name": "t"}, {"name": "t"}]}
    assert (await admin.post(NS, json=twice)).status_code == 409
    assert (await admin.get(f"{NS}/two")).status_code == 404
    assert (await a.post(NS, json={"namespace": "mine"})).status_code == 403
    assert (await a.delete(f"{NS}/ns")).status_code == 403
    for name in ("image", "images", "member", "members", "task", "metadefs/namespace", "metadefs/tags",
                 "metadefs/resource_types", "metadefs/properties", "metadefs/object"):
        document = (await a.get(f"/v2/schemas/{name}")).json()
        assert document["name"] and document["properties"]
