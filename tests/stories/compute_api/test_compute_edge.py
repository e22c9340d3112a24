"""The compute API's edge: versions, headers, errors, as a real Nova answers (recorded answers)."""

import pytest


async def test_version_documents_need_no_token(client):
    answer = await client.raw("GET", "/", who=None)
    versions = answer.json()["versions"]
    assert [v["id"] for v in versions] == ["v2.0", "v2.1"]
    assert (versions[1]["min_version"], versions[1]["version"]) == ("2.1", "2.104")
    for version in versions:
        document = (await client.http.get(version["links"][0]["href"])).json()["version"]
        assert document["links"][0] == version["links"][0]


@pytest.mark.parametrize(("headers", "said"), [
    ({}, "2.1"),
    ({"openstack-api-version": "compute 2.37"}, "2.37"),
    ({"openstack-api-version": "identity 3.1, compute 2.9"}, "2.9"),
    ({"openstack-api-version": "compute latest"}, "2.104"),
    ({"x-openstack-nova-api-version": "2.3"}, "2.3"),
    ({"x-openstack-nova-api-version": "latest"}, "2.104"),
])
async def test_version_negotiated(client, headers, said):
    answer = await client.raw("GET", "/v2.1/flavors", headers=headers)
    assert answer.status_code == 200
    assert answer.headers["openstack-api-version"] == f"compute {said}"
    assert answer.headers["x-openstack-nova-api-version"] == said
    assert answer.headers.get_list("vary") == ["OpenStack-API-Version", "X-OpenStack-Nova-API-Version"]
    assert answer.headers["x-openstack-request-id"] == answer.headers["x-compute-request-id"]


async def test_versions_not_spoken(client):
    answer = await client.raw("GET", "/v2.1/flavors", version="2.999")
    assert answer.status_code == 406 and answer.json() == {"computeFault": {
        "code": 406, "message": "Version 2.999 is not supported by the API. Minimum is 2.1 and maximum is 2.104."}}
    assert answer.headers["openstack-api-version"] == "compute 2.999"
    for bad in ("2", "2.01", "two", "2.1.1", "-2.1", "2.1 ;"):
        status, body = await client.get("/flavors", version=bad)
        assert (status, "of invalid format" in body["badRequest"]["message"]) == (400, True), bad


async def test_unknown_urls_are_html(client):
    for method, path in (("PUT", "/v2.1/flavors"), ("GET", "/v2.1/bogus"), ("GET", "/v3")):
        answer = await client.raw(method, path)
        assert answer.status_code == 404 and answer.headers["content-type"] == "text/html; charset=UTF-8"
        assert "404 Not Found" in answer.text


async def test_no_token(client):
    answer = await client.raw("GET", "/v2.1/flavors", who=None)
    assert answer.status_code == 401 and answer.json() == {"error": {
        "code": 401, "title": "Unauthorized", "message": "The request you have made requires authentication."}}
    assert answer.headers["www-authenticate"] == 'Keystone uri="http://cloud/identity/v3"'


async def test_malformed_body(client):
    answer = await client.http.post("/compute/v2.1/os-keypairs", content=b'{"keypair": ', headers={
        "x-auth-token": "alice", "content-type": "application/json"})
    assert answer.status_code == 400 and answer.json() == {"badRequest": {
        "code": 400, "message": "Malformed request body"}}
    for body in (None, [], "x", {}, {"keypair": None}, {"keypair": {}, "more": 1}):
        assert (await client.post("/os-keypairs", body))[0] == 400


async def test_nul_is_refused_wherever_it_hides(client):
    for path in ("/servers/%00", "/flavors/%00", "/os-keypairs/a%00b"):
        assert (await client.get(path))[0] == 404, path
    status, body = await client.get("/servers?name=%00")
    assert status == 400 and "'name'" in body["badRequest"]["message"]
    status, body = await client.post("/os-server-groups", {"server_group": {"name": "a\0", "policies": ["affinity"]}})
    assert status == 400 and "name" in body["badRequest"]["message"]
    status, body = await client.post("/os-keypairs", {"keypair": {"name": "fine", "public_key": "x", "\0": "x"}})
    assert status == 400
    # A backslash and what follows it only look like one.
    flavor = {"name": "f", "ram": 1, "vcpus": 1, "disk": 1, "description": "\\u0000"}
    assert (await client.post("/flavors", {"flavor": flavor}, who="admin", version="2.55"))[0] == 200
