"""Trusts, credentials, domain configuration, limits, endpoint filters, OAuth: each from its making to its end."""

import re
import time
from typing import Any
from urllib.parse import parse_qs, quote

import httpx
import pytest
from identity_cloud import BASE, V3, Lab, by_password, by_token, made, project, role_id

from nacre.identity.api.extensions.oauth1_signature import signature


async def me(lab: Lab, client: httpx.AsyncClient) -> tuple[str, str]:
    """The user and project of a client's token."""
    context = await lab.identity.authenticate(client.headers["X-Auth-Token"])
    return context.user_id or "", context.project_id or ""


def by_trust(user: str, password: str, trust_id: str) -> dict[str, Any]:
    return by_password(user, password, {"OS-TRUST:trust": {"id": trust_id}})


@pytest.mark.parametrize("impersonation", [True, False])
async def test_a_trust_lends_roles(lab: Lab, demo: httpx.AsyncClient, impersonation: bool) -> None:
    trustor, work = await me(lab, demo)
    async with lab.client(await lab.token("demo-alt", "alt-pw", project("demo-alt"))) as alt:
        trustee, _ = await me(lab, alt)
        trust = await made(demo, "/OS-TRUST/trusts", "trust", trustor_user_id=trustor, trustee_user_id=trustee,
                           impersonation=impersonation, project_id=work, roles=[{"name": "reader"}], remaining_uses=2)
        answer = await lab.post_auth(by_trust("demo-alt", "alt-pw", trust["id"]))
        body = answer.json()["token"]
        assert answer.status_code == 201
        assert body["user"]["name"] == ("demo" if impersonation else "demo-alt")
        assert body["project"]["id"] == work
        assert [r["name"] for r in body["roles"]] == ["reader"]
        assert body["OS-TRUST:trust"]["trustor_user"] == {"id": trustor}
        token = answer.headers["X-Subject-Token"]
        assert (await lab.post_auth(by_token(token, project("demo")))).status_code == 403
        async with lab.client(token) as lent:
            grown = await lent.post("/OS-TRUST/trusts", json={"trust": {
                "trustor_user_id": trustor, "trustee_user_id": trustee, "impersonation": True, "project_id": work,
                "roles": [{"name": "member"}]}})
            assert grown.status_code == 403
            key = await lent.post(f"/users/{trustor}/application_credentials", json={
                "application_credential": {"name": "x"}})
            assert key.status_code == 403
        assert (await lab.post_auth(by_trust("demo", "demo-pw", trust["id"]))).status_code == 401, "not for others"
        assert (await alt.get(f"/OS-TRUST/trusts/{trust['id']}")).json()["trust"]["remaining_uses"] == 1
        assert (await alt.delete(f"/OS-TRUST/trusts/{trust['id']}")).status_code == 403
        assert (await lab.post_auth(by_trust("demo-alt", "alt-pw", trust["id"]))).status_code == 201
        assert (await lab.post_auth(by_trust("demo-alt", "alt-pw", trust["id"]))).status_code == 401, "used up"
        for method in ("GET", "DELETE"):
            assert (await alt.request(method, f"/OS-TRUST/trusts/{trust['id']}")).status_code == 404
    assert (await demo.delete(f"/OS-TRUST/trusts/{trust['id']}")).status_code == 204, "or it would count for ever"
    unlimited = await made(demo, "/OS-TRUST/trusts", "trust", trustor_user_id=trustor, trustee_user_id=trustee,
                           impersonation=True, project_id=work, roles=[{"name": "reader"}])
    token = (await lab.post_auth(by_trust("demo-alt", "alt-pw", unlimited["id"]))).headers["X-Subject-Token"]
    assert (await demo.delete(f"/OS-TRUST/trusts/{unlimited['id']}")).status_code == 204
    assert not await lab.works(token)


async def test_bad_trusts(lab: Lab, demo: httpx.AsyncClient, admin: httpx.AsyncClient) -> None:
    trustor, work = await me(lab, demo)
    other, _ = await me(lab, admin)
    good = {"trustor_user_id": trustor, "trustee_user_id": other, "impersonation": False, "project_id": work,
            "roles": [{"name": "member"}]}
    for change, status in (({"roles": [{"name": "admin"}]}, 404), ({"roles": []}, 400), ({"project_id": None}, 400),
                           ({"trustee_user_id": "none"}, 404), ({"expires_at": "2020-01-01T00:00:00Z"}, 400),
                           ({"expires_at": "soon"}, 400), ({"remaining_uses": 0}, 400), ({"impersonation": 1}, 400),
                           ({"trustor_user_id": other}, 403), ({"allow_redelegation": True}, 501)):
        answer = await demo.post("/OS-TRUST/trusts", json={"trust": {**good, **change}})
        assert answer.status_code == status, (change, answer.text)


async def test_application_credentials_end_with_their_time(lab: Lab, demo: httpx.AsyncClient) -> None:
    user, _ = await me(lab, demo)
    path = f"/users/{user}/application_credentials"
    key = await made(demo, path, "application_credential", name="k", expires_at="2026-01-01T00:10:00")
    assert key["expires_at"] == "2026-01-01T00:10:00.000000"
    auth = {"identity": {"methods": ["application_credential"], "application_credential": {
        "name": "k", "secret": key["secret"], "user": {"name": "demo", "domain": {"id": "default"}}}}}
    answer = await lab.post_auth(auth)
    assert answer.json()["token"]["expires_at"].startswith("2026-01-01T00:10:00")
    assert answer.json()["token"]["application_credential"] == {"id": key["id"], "name": "k", "restricted": True}
    assert (await demo.post(path, json={"application_credential": {"name": "k"}})).status_code == 409
    await lab.clock.advance(601)
    assert not await lab.works(answer.headers["X-Subject-Token"])
    assert (await lab.post_auth(auth)).status_code == 401
    past = await demo.post(path, json={"application_credential": {"name": "p", "expires_at": "2025-01-01T00:00:00"}})
    assert past.status_code == 400


async def test_credentials_are_their_owners(lab: Lab, demo: httpx.AsyncClient, admin: httpx.AsyncClient) -> None:
    user, work = await me(lab, demo)
    other, _ = await me(lab, admin)
    own = await made(demo, "/credentials", "credential", type="cert", blob="text", user_id=user)
    theirs = await made(admin, "/credentials", "credential", type="cert", blob="secret", user_id=other)
    assert [c["id"] for c in (await demo.get("/credentials")).json()["credentials"]] == [own["id"]]
    assert (await demo.get(f"/credentials/{theirs['id']}")).status_code == 403
    assert (await demo.patch(f"/credentials/{own['id']}", json={"credential": {"user_id": other}})).status_code == 400
    changed = await demo.patch(f"/credentials/{own['id']}", json={"credential": {"blob": "new"}})
    assert changed.json()["credential"]["blob"] == "new"
    ec2 = await demo.post(f"/users/{user}/credentials/OS-EC2", json={"tenant_id": work})
    access = ec2.json()["credential"]["access"]
    assert (await demo.get(f"/users/{user}/credentials/OS-EC2/{access}")).json() == ec2.json()
    assert (await demo.delete(f"/users/{user}/credentials/OS-EC2/{access}")).status_code == 204
    assert (await demo.get(f"/users/{user}/credentials/OS-EC2/{access}")).status_code == 404


async def test_domain_configuration(admin: httpx.AsyncClient) -> None:
    home = await made(admin, "/domains", "domain", name="acme")
    path = f"/domains/{home['id']}/config"
    assert (await admin.get(path)).status_code == 404
    whole = {"identity": {"driver": "ldap"}, "ldap": {"url": "ldap://x"}}
    assert (await admin.put(path, json={"config": whole})).status_code == 201
    assert (await admin.get(path + "/ldap/url")).json() == {"config": {"url": "ldap://x"}}
    assert (await admin.patch(path + "/ldap", json={"config": {"identity": {"driver": "x"}}})).status_code == 403
    assert (await admin.put(path, json={"config": {"odd": {"x": 1}}})).status_code == 403
    assert (await admin.put(path, json={"config": []})).status_code == 400
    assert (await admin.delete(path + "/ldap/url")).status_code == 204
    assert (await admin.get(path)).json() == {"config": {"identity": {"driver": "ldap"}}}
    assert (await admin.get("/domains/config/identity/default")).json()["config"]["identity"]["driver"] == "sql"


async def test_limits_need_a_registered_one(lab: Lab, admin: httpx.AsyncClient, demo: httpx.AsyncClient) -> None:
    service = (await admin.get("/services", params={"type": "compute"})).json()["services"][0]["id"]
    _, work = await me(lab, demo)
    limit = {"service_id": service, "resource_name": "cores", "resource_limit": 5, "project_id": work}
    assert (await admin.post("/limits", json={"limits": [limit]})).status_code == 403
    first = await admin.post("/registered_limits", json={"registered_limits": [
        {"service_id": service, "resource_name": "cores", "default_limit": 10}]})
    registered = first.json()["registered_limits"][0]
    answer = await admin.post("/limits", json={"limits": [limit]})
    assert answer.status_code == 201
    assert (await admin.post("/limits", json={"limits": [limit]})).status_code == 409
    assert (await admin.delete(f"/registered_limits/{registered['id']}")).status_code == 403
    assert len((await demo.get("/limits")).json()["limits"]) == 1
    async with lab.client(await lab.token("demo-alt", "alt-pw", project("demo-alt"))) as alt:
        assert (await alt.get("/limits")).json()["limits"] == []
        assert (await alt.get("/registered_limits")).status_code == 200
    id = answer.json()["limits"][0]["id"]
    changed = await admin.patch(f"/limits/{id}", json={"limit": {"resource_limit": 7}})
    assert changed.json()["limit"]["resource_limit"] == 7
    assert (await admin.delete(f"/limits/{id}")).status_code == 204
    assert (await admin.delete(f"/registered_limits/{registered['id']}")).status_code == 204


async def test_a_chosen_catalog(lab: Lab, admin: httpx.AsyncClient, demo: httpx.AsyncClient) -> None:
    _, work = await me(lab, demo)
    service = (await admin.get("/services", params={"type": "image"})).json()["services"][0]["id"]
    group = await made(admin, "/OS-EP-FILTER/endpoint_groups", "endpoint_group", name="images",
                       filters={"service_id": service, "interface": "public"})
    found = (await admin.get(f"/OS-EP-FILTER/endpoint_groups/{group['id']}/endpoints")).json()["endpoints"]
    assert [(e["service_id"], e["interface"]) for e in found] == [(service, "public")]

    async def types() -> list[str]:
        body = (await lab.post_auth(by_password("demo", "demo-pw", project("demo")))).json()["token"]
        return [s["type"] for s in body["catalog"]]
    assert len(await types()) == 5
    link = f"/OS-EP-FILTER/endpoint_groups/{group['id']}/projects/{work}"
    assert (await admin.put(link)).status_code == 204
    assert (await admin.get(link)).status_code == 200
    assert await types() == ["image"]
    assert (await admin.delete(f"/OS-EP-FILTER/endpoint_groups/{group['id']}")).status_code == 204
    assert len(await types()) == 5, "a choice goes with what was chosen"


def signed(url: str, when: int, consumer: dict[str, Any], token: tuple[str, str] = ("", ""), **more: str) -> str:
    """An Authorization header."""
    given = {"oauth_consumer_key": consumer["id"], "oauth_nonce": str(time.perf_counter_ns()),
             "oauth_timestamp": str(when), "oauth_signature_method": "HMAC-SHA1", "oauth_version": "1.0", **more}
    if token[0]:
        given["oauth_token"] = token[0]
    given["oauth_signature"] = signature("POST", url, given.items(), (consumer["secret"], token[1]))
    return "OAuth " + ", ".join(f'{k}="{quote(v, safe="~")}"' for k, v in given.items())


def read(answer: httpx.Response) -> tuple[str, str]:
    assert answer.status_code == 201, answer.text
    form = parse_qs(answer.text)
    return form["oauth_token"][0], form["oauth_token_secret"][0]


async def test_oauth_from_consumer_to_token(lab: Lab, admin: httpx.AsyncClient) -> None:
    _, work = await me(lab, admin)
    consumer = await made(admin, "/OS-OAUTH1/consumers", "consumer", description="c")
    now, root = int(lab.store.now()), f"{BASE}{V3}"
    async with lab.client() as anyone:
        async def ask(path: str, header: str, **rest: Any) -> httpx.Response:
            return await anyone.post(path, headers={"Authorization": header, "Requested-Project-Id": work}, **rest)
        first = signed(f"{root}/OS-OAUTH1/request_token", now, consumer, oauth_callback="oob")
        asked = read(await ask("/OS-OAUTH1/request_token", first))
        assert (await ask("/OS-OAUTH1/request_token", first)).status_code == 401, "a replay"
        for bad in (re.sub('signature="[^"]*"', 'signature="x"', first),
                    signed(f"{root}/OS-OAUTH1/request_token", now - 4000, consumer),
                    signed(f"{root}/OS-OAUTH1/request_token", now, {**consumer, "secret": "guess"}),
                    signed(f"{root}/OS-OAUTH1/access_token", now, consumer)):
            assert (await ask("/OS-OAUTH1/request_token", bad)).status_code == 401
        early = signed(f"{root}/OS-OAUTH1/access_token", now, consumer, asked, oauth_verifier="guess")
        assert (await ask("/OS-OAUTH1/access_token", early)).status_code == 401, "nobody consented yet"
        consent = await admin.put(f"/OS-OAUTH1/authorize/{asked[0]}", json={
            "roles": [{"id": await role_id(admin, "reader")}]})
        verifier = consent.json()["token"]["oauth_verifier"]
        good = signed(f"{root}/OS-OAUTH1/access_token", now, consumer, asked, oauth_verifier=verifier)
        access = read(await ask("/OS-OAUTH1/access_token", good))
        login = {"auth": {"identity": {"methods": ["oauth1"], "oauth1": {}}}}
        answer = await ask("/auth/tokens", signed(f"{root}/auth/tokens", now, consumer, access), json=login)
        body = answer.json()["token"]
        assert [r["name"] for r in body["roles"]] == ["reader"]
        assert body["project"]["id"] == work
        assert body["OS-OAUTH1"] == {"access_token_id": access[0], "consumer_id": consumer["id"]}
        unsigned = {"auth": {"identity": {"methods": ["oauth1"], "oauth1": {
            "user_id": body["user"]["id"], "id": access[0], "expires_at": 9e9}}}}
        assert (await anyone.post("/auth/tokens", json=unsigned)).status_code == 400
        forged = signed(f"{root}/auth/tokens", now, consumer, (access[0], "guess"))
        assert (await ask("/auth/tokens", forged, json=unsigned)).status_code == 401
    token = answer.headers["X-Subject-Token"]
    assert await lab.works(token)
    assert (await lab.post_auth(by_token(token, project("admin")))).status_code == 403
    await admin.delete(f"/OS-OAUTH1/consumers/{consumer['id']}")
    assert not await lab.works(token)


async def test_what_is_told_of_others_clouds(lab: Lab, admin: httpx.AsyncClient) -> None:
    path = "/OS-FEDERATION"
    idp = await admin.put(f"{path}/identity_providers/corp", json={"identity_provider": {"remote_ids": ["x"]}})
    assert idp.status_code == 201
    assert (await admin.get(f"/domains/{idp.json()['identity_provider']['domain_id']}")).status_code == 200
    rules = [{"local": [{"user": {"name": "{0}"}}], "remote": [{"type": "NAME"}]}]
    assert (await admin.put(f"{path}/mappings/m", json={"mapping": {"rules": rules}})).status_code == 201
    protocols = f"{path}/identity_providers/corp/protocols"
    assert (await admin.put(f"{protocols}/saml", json={"protocol": {"mapping_id": "none"}})).status_code == 400
    assert (await admin.put(f"{protocols}/saml", json={"protocol": {"mapping_id": "m"}})).status_code == 201
    assert [p["id"] for p in (await admin.get(protocols)).json()["protocols"]] == ["saml"]
    assert (await admin.put(f"{path}/identity_providers/corp", json={"identity_provider": {}})).status_code == 409
    assert (await admin.delete(f"{path}/identity_providers/corp")).status_code == 204
    assert (await admin.get(protocols)).json()["protocols"] == []
    other = {"service_provider": {"auth_url": "https://a/v3", "sp_url": "https://a/sso", "enabled": True}}
    await admin.put(f"{path}/service_providers/other", json=other)
    body = (await lab.post_auth(by_password("demo", "demo-pw"))).json()["token"]
    assert body["service_providers"] == [{"id": "other", "auth_url": "https://a/v3", "sp_url": "https://a/sso"}]


async def test_policies_are_kept(admin: httpx.AsyncClient) -> None:
    policy = await made(admin, "/policies", "policy", type="application/json", blob="{}")
    changed = await admin.patch(f"/policies/{policy['id']}", json={"policy": {"blob": "{1}"}})
    assert changed.json()["policy"]["blob"] == "{1}"
    assert [p["id"] for p in (await admin.get("/policies")).json()["policies"]] == [policy["id"]]
    assert (await admin.delete(f"/policies/{policy['id']}")).status_code == 204
    assert (await admin.get(f"/policies/{policy['id']}")).status_code == 404
