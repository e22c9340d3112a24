"""Flavors through the API: who sees which, what is refused, what each microversion shows."""

import pytest

SMALL = {"name": "m1.small", "ram": 512, "vcpus": 1, "disk": 1}


async def make(client, **more):
    status, body = await client.post("/flavors", {"flavor": {**SMALL, **more}}, who="admin")
    assert status == 200, body
    return body["flavor"]


async def test_made_shown_listed_deleted(client):
    made = await make(client, id="1")
    assert made["id"] == "1" and made["swap"] == "" and made["os-flavor-access:is_public"] is True
    assert made["links"] == [{"rel": "self", "href": "http://cloud/compute/v2.1/flavors/1"},
                             {"rel": "bookmark", "href": "http://cloud/compute/flavors/1"}]
    assert (await client.get("/flavors/1"))[1]["flavor"] == made
    assert (await client.get("/flavors/detail"))[1]["flavors"] == [made]
    assert set((await client.get("/flavors"))[1]["flavors"][0]) == {"id", "name", "links"}
    assert await client.delete("/flavors/1") == (403, {"forbidden": {
        "code": 403, "message": "Policy doesn't allow os_compute_api:os-flavor-manage:delete to be performed."}})
    assert await client.delete("/flavors/1", who="admin") == (202, None)
    assert await client.get("/flavors/1") == (404, {"itemNotFound": {
        "code": 404, "message": "Flavor 1 could not be found."}})
    assert (await client.delete("/flavors/1", who="admin"))[0] == 404


async def test_microversions_change_what_is_shown(client):
    await make(client, id="1")
    old = (await client.get("/flavors/1"))[1]["flavor"]
    assert "description" not in old and "extra_specs" not in old and old["rxtx_factor"] == 1.0
    new = (await client.get("/flavors/1", version="2.75"))[1]["flavor"]
    assert new["description"] is None and new["extra_specs"] == {} and new["swap"] == 0
    assert "rxtx_factor" not in (await client.get("/flavors/1", version="2.102"))[1]["flavor"]
    assert (await client.put("/flavors/1", {"flavor": {"description": "x"}}, who="admin"))[0] == 404
    status, body = await client.put("/flavors/1", {"flavor": {"description": "x"}}, who="admin", version="2.55")
    assert status == 200 and body["flavor"]["description"] == "x"


@pytest.mark.parametrize(("change", "words"), [
    ({"name": ""}, "Invalid input for field/attribute name. Value: . '' is too short"),
    ({"name": "a" * 256}, "is too long"),
    ({"name": "a\x07b"}, "An invalid 'name' value was provided. The name must be: printable characters."),
    ({"name": " a"}, "Can not start or end with whitespace"),
    ({"ram": 0}, "Invalid input for field/attribute ram. Value: 0. 0 is less than the minimum of 1"),
    ({"ram": "abc"}, "Invalid input for field/attribute ram. Value: abc."),
    ({"ram": 2 ** 31}, "is greater than the maximum of 2147483647"),
    ({"ram": str(2 ** 40)}, "field/attribute ram"),
    ({"vcpus": 1.5}, "1.5 is not of type"),
    ({"disk": -1}, "-1 is less than the minimum of 0"),
    ({"swap": None}, "None is not of type"),
    ({"id": "a/b"}, "does not match"),
    ({"rxtx_factor": 0}, "rxtx_factor"),
    ({"os-flavor-access:is_public": "maybe"}, "is not one of"),
    ({"description": "too early"}, "Additional properties are not allowed ('description' was unexpected)"),
    ({"colour": "red"}, "Additional properties are not allowed ('colour' was unexpected)"),
])
async def test_bad_flavors_are_refused_by_name(client, change, words):
    status, body = await client.post("/flavors", {"flavor": {**SMALL, **change}}, who="admin")
    assert status == 400, body
    assert words in body["badRequest"]["message"]


async def test_required_and_duplicates(client):
    status, body = await client.post("/flavors", {"flavor": {"name": "x", "vcpus": 1, "disk": 1}}, who="admin")
    assert (status, body["badRequest"]["message"]) == (
        400, "Invalid input for field/attribute flavor. Value: {'name': 'x', 'vcpus': 1, 'disk': 1}. "
             "'ram' is a required property")
    await make(client, id="1")
    status, body = await client.post("/flavors", {"flavor": {**SMALL, "id": "2"}}, who="admin")
    assert (status, body["conflictingRequest"]["message"]) == (409, "Flavor with name m1.small already exists.")
    status, body = await client.post("/flavors", {"flavor": {**SMALL, "id": "1", "name": "other"}}, who="admin")
    assert (status, body["conflictingRequest"]["message"]) == (409, "Flavor with ID 1 already exists.")


async def test_private_flavors_are_for_their_projects(client):
    await make(client, id="p", **{"os-flavor-access:is_public": False})
    assert (await client.get("/flavors/p"))[0] == 404
    assert (await client.get("/flavors/p/os-flavor-access", who="admin"))[1] == {"flavor_access": []}
    access = {"addTenantAccess": {"tenant": "red"}}
    assert (await client.post("/flavors/p/action", access))[0] == 403
    assert await client.post("/flavors/p/action", access, who="admin") == (
        200, {"flavor_access": [{"flavor_id": "p", "tenant_id": "red"}]})
    assert (await client.post("/flavors/p/action", access, who="admin"))[0] == 409
    assert (await client.get("/flavors/p"))[0] == 200
    assert [f["id"] for f in (await client.get("/flavors"))[1]["flavors"]] == ["p"]
    assert (await client.get("/flavors/p", who="bob"))[0] == 404
    assert (await client.post("/flavors/p/action", {"addTenantAccess": {"tenant": "nobody"}}, who="admin"))[0] == 400
    gone = {"removeTenantAccess": {"tenant": "red"}}
    assert (await client.post("/flavors/p/action", gone, who="admin"))[1] == {"flavor_access": []}
    assert (await client.post("/flavors/p/action", gone, who="admin"))[0] == 404


async def test_extra_specs(client):
    await make(client, id="1")
    path = "/flavors/1/os-extra_specs"
    assert await client.post(path, {"extra_specs": {"a:b": "1", "n": 2}}, who="admin") == (
        200, {"extra_specs": {"a:b": "1", "n": 2}})
    assert await client.get(path) == (200, {"extra_specs": {"a:b": "1", "n": "2"}})
    assert await client.put(path + "/n", {"n": "3"}, who="admin") == (200, {"n": "3"})
    assert (await client.put(path + "/n", {"m": "3"}, who="admin"))[0] == 400
    assert (await client.put(path + "/n", {"n": "3", "m": "1"}, who="admin"))[0] == 400
    assert await client.get(path + "/n") == (200, {"n": "3"})
    assert await client.delete(path + "/n", who="admin") == (200, None)
    assert await client.delete(path + "/n", who="admin") == (404, {"itemNotFound": {
        "code": 404, "message": "Flavor 1 has no extra specs with key n."}})
    assert (await client.post(path, {"extra_specs": {"é": "1"}}, who="admin"))[0] == 400
    assert (await client.post(path, {"extra_specs": {"a": "1"}}))[0] == 403


async def test_lists_are_filtered_sorted_paged(client):
    for number, ram in (("1", 512), ("2", 256), ("3", 1024)):
        await make(client, id=number, name=f"f{number}", ram=ram)

    async def ids(query, **rest):
        return [f["id"] for f in (await client.get("/flavors?" + query, **rest))[1]["flavors"]]

    assert await ids("minRam=512") == ["1", "3"]
    assert await ids("sort_key=memory_mb&sort_dir=desc") == ["3", "1", "2"]
    assert await ids("marker=1&limit=1") == ["2"]
    _, page = await client.get("/flavors?limit=2")
    assert page["flavors_links"] == [{"rel": "next", "href": "http://cloud/compute/v2.1/flavors?limit=2&marker=2"}]
    for bad in ("minRam=x", "minDisk=x", "limit=-1", "limit=x", "marker=nope", "sort_key=colour", "sort_dir=up"):
        assert (await client.get("/flavors?" + bad))[0] == 400, bad
    assert (await client.get("/flavors?colour=red"))[0] == 200
    status, body = await client.get("/flavors?colour=red", version="2.75")
    assert (status, body["badRequest"]["message"]) == (
        400, "Additional properties are not allowed ('colour' was unexpected)")
    assert (await client.get("/flavors?is_public=maybe", who="admin"))[0] == 400
    assert await ids("is_public=None", who="admin") == ["1", "2", "3"]
    assert await ids("is_public=False", who="admin") == []
