"""What stands for a person in part never becomes the whole; what is kept has an end."""

import hashlib
import json
from typing import Any

import httpx
import pytest
from identity_cloud import PASSWORDS, SYSTEM, Lab, by_password, by_token, made, project, role_id

Json = dict[str, Any]


async def me(lab: Lab, client: httpx.AsyncClient) -> tuple[str, str]:
    """The user and project of a client's token."""
    context = await lab.identity.authenticate(client.headers["X-Auth-Token"])
    return context.user_id or "", context.project_id or ""


async def lent(lab: Lab, demo: httpx.AsyncClient, how: str) -> httpx.AsyncClient:
    """A client that acts for demo by a trust or an application credential."""
    user, work = await me(lab, demo)
    if how == "trust":
        async with lab.client(await lab.token("demo-alt", "alt-pw", project("demo-alt"))) as alt:
            trustee, _ = await me(lab, alt)
        trust = await made(demo, "/OS-TRUST/trusts", "trust", trustor_user_id=user, trustee_user_id=trustee,
                           impersonation=True, project_id=work, roles=[{"name": "member"}])
        answer = await lab.post_auth(by_password("demo-alt", "alt-pw", {"OS-TRUST:trust": {"id": trust["id"]}}))
    else:
        key = await made(demo, f"/users/{user}/application_credentials", "application_credential", name="k",
                         unrestricted=how == "unrestricted")
        answer = await lab.post_auth({"identity": {"methods": ["application_credential"], "application_credential": {
            "id": key["id"], "secret": key["secret"]}}})
    assert answer.status_code == 201, answer.text
    return lab.client(answer.headers["X-Subject-Token"])


@pytest.mark.parametrize("how", ["trust", "restricted", "unrestricted"])
async def test_what_is_lent_opens_no_credential(lab: Lab, demo: httpx.AsyncClient, how: str) -> None:
    """As Keystone: with any of them one would have all that its user has, and for longer."""
    user, work = await me(lab, demo)
    own = await made(demo, "/credentials", "credential", type="cert", blob="secret", user_id=user, project_id=work)
    ec2 = f"/users/{user}/credentials/OS-EC2"
    access = (await demo.post(ec2, json={"tenant_id": work})).json()["credential"]["access"]
    async with await lent(lab, demo, how) as other:
        assert (await other.get("/credentials")).json()["credentials"] == []
        new = {"type": "ec2", "blob": json.dumps({"access": "a", "secret": "s"}), "user_id": user, "project_id": work}
        for method, path, body in (
                ("GET", f"/credentials/{own['id']}", None), ("DELETE", f"/credentials/{own['id']}", None),
                ("PATCH", f"/credentials/{own['id']}", {"credential": {"blob": "x"}}),
                ("POST", "/credentials", {"credential": new}),
                ("POST", "/credentials", {"credential": {**new, "type": "cert"}}),
                ("GET", ec2, None), ("POST", ec2, {"tenant_id": work}), ("GET", f"{ec2}/{access}", None),
                ("DELETE", f"{ec2}/{access}", None)):
            answer = await other.request(method, path, json=body)
            assert answer.status_code == 403, (method, path, answer.text)
    assert len((await demo.get("/credentials")).json()["credentials"]) == 2


def ec2_body(user: str, work: str | None, **blob: Any) -> Json:
    blob = {"access": "a", "secret": "s", **blob}
    return {"credential": {"type": "ec2", "user_id": user, "blob": json.dumps(blob),
                           **({"project_id": work} if work else {})}}


async def test_an_ec2_credential_is_for_a_project_of_its_user(
        lab: Lab, demo: httpx.AsyncClient, admin: httpx.AsyncClient) -> None:
    user, work = await me(lab, demo)
    other, elsewhere = await me(lab, admin)
    ec2 = f"/users/{user}/credentials/OS-EC2"
    for project_id, status in ((elsewhere, 403), ("nosuch", 404), (None, 400)):
        assert (await demo.post("/credentials", json=ec2_body(user, project_id))).status_code == status
        assert (await demo.post(ec2, json={"tenant_id": project_id})).status_code == status
    assert (await demo.post("/credentials", json=ec2_body(other, work))).status_code == 403
    assert (await demo.post(f"/users/{other}/credentials/OS-EC2", json={"tenant_id": work})).status_code == 403
    for project_id, access in ((work, "x"), (elsewhere, "y")):
        answer = await admin.post("/credentials", json=ec2_body(user, project_id, access=access))
        assert answer.status_code == 201, "the administrator may, for anybody"
        assert answer.json()["credential"]["id"] == hashlib.sha256(access.encode()).hexdigest()


async def test_a_reader_makes_no_ec2_credential(lab: Lab, admin: httpx.AsyncClient) -> None:
    """Not even by the other road: what it may see only, a credential would let it do."""
    _, work = await me(lab, admin)
    reader = await made(admin, "/users", "user", name="reader", password="pw")
    await admin.put(f"/projects/{work}/users/{reader['id']}/roles/{await role_id(admin, 'reader')}")
    async with lab.client(await lab.token("reader", "pw", project("admin"))) as client:
        for path, body in (("/credentials", ec2_body(reader["id"], work)),
                           (f"/users/{reader['id']}/credentials/OS-EC2", {"tenant_id": work})):
            answer = await client.post(path, json=body)
            assert answer.status_code == 403 and "ec2_create_credential" in answer.text
        assert (await client.post("/credentials", json={"credential": {
            "type": "cert", "blob": "x", "user_id": reader["id"]}})).status_code == 201


@pytest.mark.parametrize("key", ["trust_id", "app_cred_id", "access_token_id", "access_id"])
async def test_nobody_writes_into_a_credential_whose_rights_it_carries(
        lab: Lab, demo: httpx.AsyncClient, admin: httpx.AsyncClient, key: str) -> None:
    user, work = await me(lab, demo)
    for client in (demo, admin):
        answer = await client.post("/credentials", json=ec2_body(user, work, **{key: "x"}))
        assert answer.status_code == 400 and key in answer.text
    body = ec2_body(user, work)
    body["credential"]["type"] = "EC2"
    own = (await demo.post("/credentials", json=body)).json()["credential"]
    for client in (demo, admin):
        for blob in ({key: "x"}, {key: ["x"]}, {key: False}):
            changed = {"blob": json.dumps({"access": "a", "secret": "s", **blob})}
            answer = await client.patch(f"/credentials/{own['id']}", json={"credential": changed})
            assert answer.status_code == 400 and f"{key} can not be updated" in answer.text
    changed = {"blob": json.dumps({"access": "b", "secret": "t", key: None})}
    assert (await demo.patch(f"/credentials/{own['id']}", json={"credential": changed})).status_code == 200


async def test_only_a_credentials_blob_changes(lab: Lab, demo: httpx.AsyncClient, admin: httpx.AsyncClient) -> None:
    user, work = await me(lab, demo)
    other, elsewhere = await me(lab, admin)
    own = (await demo.post("/credentials", json=ec2_body(user, work))).json()["credential"]
    path = f"/credentials/{own['id']}"
    for client in (demo, admin):
        for change in ({"project_id": elsewhere}, {"project_id": None}, {"user_id": other}, {"type": "cert"},
                       {"type": "cert", "blob": "x"}, {"more": "x"}, {"blob": "x"}, {"blob": "[1]"}, {"blob": "{}"}):
            answer = await client.patch(path, json={"credential": change})
            assert answer.status_code == 400, (change, answer.text)
    same = {"type": "ec2", "user_id": user, "project_id": work, "blob": json.dumps({"access": "a", "secret": "t"})}
    answer = await demo.patch(path, json={"credential": same})  # `openstack credential set` sends all
    assert answer.status_code == 200
    assert {**own, **same} == answer.json()["credential"] == (await demo.get(path)).json()["credential"]


def deep(levels: int) -> Any:
    found: Any = "x"
    for _ in range(levels):
        found = [found]
    return found


@pytest.mark.parametrize(("value", "word"), [
    ("x" * 65536, "65535"), (deep(40), "16"), ([["x"] * 1001], "1000"), ({str(n): n for n in range(1001)}, "1000"),
    ({"y" * 256: 1}, "255"), ([[{"a": {"b": ["x" * 65536]}}]], "65535")])
async def test_every_body_has_limits(lab: Lab, admin: httpx.AsyncClient, value: Any, word: str) -> None:
    """Wherever it lies, and whether an attribute is known or not."""
    checked = 0
    for route in lab.service.routes:
        if route.body is None:
            continue
        checked += 1
        path = route.path.removeprefix("/v3")
        for name in ("domain_id", "user_id", "project_id", "group_id", "role_id", "id"):
            path = path.replace(f"{{{name}}}", "x")
        for body in ({"trust": {"zzz": value}}, {"zzz": value}):
            answer = await admin.request(route.method, path, json=body)
            assert answer.status_code == 400, (route.method, path, answer.text)
            assert word in answer.json()["error"]["message"]
    assert checked > 40


async def test_attributes_that_are_only_kept_do_not_pile_up(admin: httpx.AsyncClient) -> None:
    things = {f"/{plural}/{(await made(admin, f'/{plural}', plural[:-1], name='x'))['id']}": plural[:-1]
              for plural in ("users", "projects", "groups", "roles", "domains")}
    policy = await made(admin, "/policies", "policy", type="x", blob="x")
    for path, kind in {**things, f"/policies/{policy['id']}": "policy"}.items():
        answers = [await admin.patch(path, json={kind: {f"more{n}": "x" * 60_000}}) for n in range(3)]
        assert [a.status_code for a in answers] == [200, 200, 400], (path, answers[-1].text)
        assert "131072" in answers[-1].text


@pytest.mark.parametrize("how", ["trust", "restricted", "unrestricted"])
async def test_what_is_lent_is_exchanged_for_no_token(lab: Lab, demo: httpx.AsyncClient, how: str) -> None:
    """As Keystone: not even for one of the same scope, nor together with a password."""
    _, work = await me(lab, demo)
    async with await lent(lab, demo, how) as other:
        token = other.headers["X-Auth-Token"]
        for scope in (None, "unscoped", {"project": {"id": work}}):
            answer = await lab.post_auth(by_token(token, scope))
            assert answer.status_code == 403, (scope, answer.text)
            assert "to create another token" in answer.json()["error"]["message"]
        both = by_password("demo", "demo-pw")
        both["identity"] |= {"methods": ["password", "token"], "token": {"id": token}}
        assert (await lab.post_auth(both)).status_code == 403
        assert await lab.works(token)


async def test_a_token_for_the_system_is_exchanged_for_none_of_a_project(lab: Lab, admin: httpx.AsyncClient) -> None:
    token = await lab.token("admin", PASSWORDS["admin"], SYSTEM)
    for scope, status in ((None, 201), (SYSTEM, 201), (project("admin"), 403), ({"domain": {"id": "default"}}, 403)):
        assert (await lab.post_auth(by_token(token, scope))).status_code == status, scope
    me = (await admin.get("/auth/tokens", headers={"X-Subject-Token": admin.headers["X-Auth-Token"]})).json()["token"]
    await admin.patch(f"/users/{me['user']['id']}", json={"user": {"default_project_id": me["project"]["id"]}})
    unscoped = (await lab.post_auth(by_token(await lab.token("admin", PASSWORDS["admin"], SYSTEM)))).json()["token"]
    assert "project" not in unscoped, "nor of its default project, which nobody named"
    token = await lab.token("admin", PASSWORDS["admin"], project("admin"))
    assert (await lab.post_auth(by_token(token, SYSTEM))).status_code == 201, "the other way there is nothing against"


async def test_a_trust_whose_trustor_lost_a_role_of_it_lends_none(
        lab: Lab, admin: httpx.AsyncClient, demo: httpx.AsyncClient) -> None:
    """Also where others of its roles are left, and where it is one that a role implies; until it is there again."""
    user, work = await me(lab, demo)
    lost = (await made(admin, "/roles", "role", name="lost"))["id"]
    grant = f"/projects/{work}/users/{user}/roles/{lost}"
    assert (await admin.put(grant)).status_code == 204
    async with lab.client(await lab.token("demo", "demo-pw", project("demo"))) as trustor, lab.client(
            await lab.token("demo-alt", "alt-pw", project("demo-alt"))) as alt:
        trustee, _ = await me(lab, alt)
        trust = await made(trustor, "/OS-TRUST/trusts", "trust", trustor_user_id=user, trustee_user_id=trustee,
                           impersonation=False, project_id=work, roles=[{"name": "reader"}, {"id": lost}])
    login = by_password("demo-alt", "alt-pw", {"OS-TRUST:trust": {"id": trust["id"]}})
    token = (await lab.post_auth(login)).headers["X-Subject-Token"]
    assert (await admin.delete(grant)).status_code == 204
    answer = await lab.post_auth(login)
    assert (answer.status_code, answer.json()["error"]["message"]) == (403, "Trustee has no delegated roles.")
    assert not await lab.works(token)
    assert (await admin.put(grant)).status_code == 204
    answer = await lab.post_auth(login)
    assert {role["name"] for role in answer.json()["token"]["roles"]} == {"reader", "lost"}
    implied = (await made(admin, "/roles", "role", name="implied"))["id"]
    assert (await admin.put(f"/roles/{lost}/implies/{implied}")).status_code == 201
    assert (await admin.delete(grant)).status_code == 204
    assert (await admin.put(f"/projects/{work}/users/{user}/roles/{implied}")).status_code == 204
    assert (await lab.post_auth(login)).status_code == 403
