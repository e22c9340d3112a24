"""Key pairs through the API."""

import base64

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import pkcs12

from nacre.compute.catalog.keypairs import generate

KEYS = "/os-keypairs"


@pytest.fixture(scope="module")
def public_key():
    return generate()[1]


async def test_made_shown_listed_deleted(client):
    status, body = await client.post(KEYS, {"keypair": {"name": "k 1"}}, version="2.2")
    made = body["keypair"]
    assert status == 201 and made["private_key"].startswith("-----BEGIN RSA PRIVATE KEY") and made["type"] == "ssh"
    assert made["public_key"].startswith("ssh-rsa ") and len(made["fingerprint"]) == 47 and made["user_id"] == "alice"
    status, body = await client.get(KEYS + "/k 1")
    assert status == 200 and "private_key" not in body["keypair"] and body["keypair"]["deleted"] is False
    assert (await client.get(KEYS))[1]["keypairs"][0]["keypair"]["name"] == "k 1"
    assert (await client.get(KEYS, who="bob"))[1] == {"keypairs": []}
    assert await client.delete(KEYS + "/k 1") == (202, None)
    assert await client.delete(KEYS + "/k 1", version="2.2") == (404, {"itemNotFound": {
        "code": 404, "message": "Keypair k 1 not found for user alice"}})


async def test_import_and_what_is_refused(client, public_key):
    async def send(version=None, **fields):
        return await client.post(KEYS, {"keypair": {"name": "k", **fields}}, version=version)

    assert (await send(public_key=public_key))[0] == 200
    assert (await send(public_key=public_key))[1]["conflictingRequest"]["message"] == "Key pair 'k' already exists."
    for bad in ("", "ssh-rsa JUNK nova@ubuntu", "ssh-rsa " + "A" * 2048 + " openstack@ubuntu", "x" * 20000):
        status, body = await send(name="other", public_key=bad)
        assert (status, body["badRequest"]["message"]) == (
            400, "Keypair data is invalid: failed to generate fingerprint")
    for name in ("", "k" * 256, "a/b", "a.b", " a", "a\n"):
        assert (await send(name=name, public_key=public_key))[0] == 400, name
    assert (await send("2.92", name="a.b@c"))[0] == 400
    assert (await send("2.92", name="a.b@c", public_key=public_key))[0] == 201
    assert (await send(type="ssh"))[0] == 400
    assert (await send("2.2", type="gpg"))[0] == 400
    assert (await send("2.2", name="cert", type="x509", public_key="nonsense"))[0] == 400
    status, body = await send("2.2", name="cert", type="x509")
    made = body["keypair"]
    key, cert, _ = pkcs12.load_key_and_certificates(base64.b64decode(made["private_key"]), None)
    assert status == 201 and cert and key and cert == x509.load_pem_x509_certificate(made["public_key"].encode())
    assert key.public_key() == cert.public_key() and len(made["fingerprint"].split(":")) == 20


async def test_another_users_keys_are_for_administrators(client, public_key):
    wish = {"keypair": {"name": "k", "public_key": public_key, "user_id": "bob"}}
    assert (await client.post(KEYS, wish, version="2.10"))[0] == 403
    assert (await client.post(KEYS, wish, version="2.10", who="admin"))[0] == 201
    assert len((await client.get(KEYS + "?user_id=bob", version="2.10", who="admin"))[1]["keypairs"]) == 1
    assert (await client.get(KEYS + "?user_id=bob", version="2.10"))[0] == 403
    assert (await client.get(KEYS + "/k", who="bob"))[0] == 200
    assert (await client.get(KEYS + "/k"))[0] == 404


async def test_pages_and_strict_queries(client, public_key):
    for name in ("b", "a", "c"):
        await client.post(KEYS, {"keypair": {"name": name, "public_key": public_key}})
    _, body = await client.get(KEYS + "?limit=2", version="2.35")
    assert [k["keypair"]["name"] for k in body["keypairs"]] == ["a", "b"]
    assert body["keypairs_links"][0]["href"].endswith("/os-keypairs?limit=2&marker=b")
    assert (await client.get(KEYS + "?marker=nope", version="2.35"))[0] == 400
    assert (await client.get(KEYS + "?colour=red", version="2.75"))[0] == 400
