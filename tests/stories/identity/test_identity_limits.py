"""What one user may have is finite, and what others have costs nobody's list."""

from datetime import timedelta
from typing import Any

import httpx
import pytest
from identity_cloud import Lab, made, role_id

from nacre.base.web import App
from nacre.identity.api.providers import UserLimits
from nacre.identity.api.service import service
from nacre.identity.keys import vault

FEW = UserLimits(credentials=2, application_credentials=2, access_rules=2, trusts=2, credential_bytes=100)


@pytest.fixture
async def few(lab: Lab) -> Lab:
    lab.app = App([service(lab.identity, lab.keys.vault, FEW)], lab.identity.authenticate, lab.policy.allows)
    return lab


async def me(client: httpx.AsyncClient) -> tuple[str, str]:
    token = (await client.get("/auth/tokens", headers={"X-Subject-Token": client.headers["X-Auth-Token"]})).json()
    return token["token"]["user"]["id"], token["token"]["project"]["id"]


async def refused_third(client: httpx.AsyncClient, path: str, bodies: list[Any]) -> list[Any]:
    """The answers of the first two; the third is refused, and says so."""
    answers = [await client.post(path, json=body) for body in bodies]
    assert [a.status_code for a in answers] == [201, 201, 403], answers[-1].text
    assert "maximum of 2 already exceeded" in answers[-1].text
    return [a.json() for a in answers[:2]]


async def test_credentials_of_a_user_are_few_and_short(few: Lab, demo: httpx.AsyncClient) -> None:
    user, project = await me(demo)
    body = {"credential": {"type": "cert", "blob": "b", "user_id": user}}
    first, _ = await refused_third(demo, "/credentials", [body] * 3)
    path = f"/users/{user}/credentials/OS-EC2"
    assert (await demo.post(path, json={"tenant_id": project})).status_code == 403
    one = f"/credentials/{first['credential']['id']}"
    assert (await demo.patch(one, json={"credential": {"blob": "b" * 101}})).status_code == 400
    assert (await demo.delete(one)).status_code == 204
    long = {"credential": {**body["credential"], "blob": "é" * 51}}
    assert "102 bytes, and 100 are allowed" in (await demo.post("/credentials", json=long)).text
    assert (await demo.post(path, json={"tenant_id": project})).status_code == 201


async def test_application_credentials_and_access_rules_are_few(few: Lab, demo: httpx.AsyncClient) -> None:
    user, _ = await me(demo)
    path = f"/users/{user}/application_credentials"
    rules = [{"service": "compute", "path": f"/v2.1/{n}", "method": "GET"} for n in range(3)]
    many = await demo.post(path, json={"application_credential": {"name": "x", "access_rules": rules}})
    assert many.status_code == 403 and "access rules" in many.text
    await refused_third(demo, path, [{"application_credential": {"name": f"n{n}"}} for n in range(3)])


async def test_trusts_are_few_and_those_that_ended_do_not_count(
        few: Lab, demo: httpx.AsyncClient, admin: httpx.AsyncClient) -> None:
    user, project = await me(demo)
    trust = {"trustor_user_id": user, "trustee_user_id": user, "impersonation": True, "project_id": project,
             "roles": [{"id": await role_id(admin, "member")}], "expires_at": (few.clock.now() + timedelta(
                 seconds=600)).strftime("%Y-%m-%dT%H:%M:%SZ")}
    await refused_third(demo, "/OS-TRUST/trusts", [{"trust": trust}] * 3)
    await few.clock.advance(601)
    await made(demo, "/OS-TRUST/trusts", "trust", **{k: v for k, v in trust.items() if k != "expires_at"})


async def test_a_list_opens_what_it_shows_alone(
        lab: Lab, demo: httpx.AsyncClient, admin: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    (mine, _), (theirs, _) = await me(demo), await me(admin)
    for n in range(5):
        await made(admin, "/credentials", "credential", type="cert", blob=f"b{n}", user_id=theirs)
    own = await made(demo, "/credentials", "credential", type="cert", blob="own", user_id=mine)
    opened: list[str] = []
    decrypt = vault.Unlocked.decrypt
    monkeypatch.setattr(vault.Unlocked, "decrypt", lambda self, kept: opened.append(kept) or decrypt(self, kept))
    assert [c["id"] for c in (await demo.get("/credentials")).json()["credentials"]] == [own["id"]]
    assert len(opened) == 1
    listed = (await admin.get("/credentials")).json()["credentials"]
    assert len(listed) == 6 and {c["blob"] for c in listed} == {"own", *(f"b{n}" for n in range(5))}
    opened.clear()
    foreign = next(c["id"] for c in listed if c["user_id"] == theirs)
    assert (await demo.get(f"/credentials/{foreign}")).status_code == 403 and not opened
