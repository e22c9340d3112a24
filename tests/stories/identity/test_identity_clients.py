"""What clients of Keystone rely on beside the main road: how lists are filtered, what null is, what order is kept.

The expected answers were looked up at a running Keystone 30.0.
"""

import httpx
import pytest
from identity_cloud import BASE, Lab, by_password, made

from nacre.base.web import App
from nacre.identity.api.service import front

NAMES = ("The", "The Ministry", "The Ministry of", "the ministry of silly walks OF", "MÜNSTER")


@pytest.mark.parametrize(("wish", "found"), [
    ("contains=Ministry", (1, 2)), ("icontains=miNIstry", (1, 2, 3)), ("startswith=The", (0, 1, 2)),
    ("istartswith=the", (0, 1, 2, 3)), ("endswith=of", (2,)), ("iendswith=OF", (2, 3)), ("contains=%", ()),
    ("contains=T_e", ()), ("icontains=münster", (4,)), ("contains=münster", ()), ("equals=The", (0,)),
    ("nonsense=The", (0, 1, 2, 3, 4))])
async def test_inexact_filters_mind_the_case_unless_told_otherwise(
        admin: httpx.AsyncClient, wish: str, found: tuple[int, ...]) -> None:
    for name in NAMES:
        await made(admin, "/groups", "group", name=name)
    answer = await admin.get(f"/groups?name__{wish}")
    assert {g["name"] for g in answer.json()["groups"]} == {NAMES[n] for n in found}


async def test_inexact_filters_and_pages(admin: httpx.AsyncClient) -> None:
    for number in range(5):
        await made(admin, "/groups", "group", name=f"Group {number}")
        await made(admin, "/groups", "group", name=f"other {number}")
    first = (await admin.get("/groups?name__icontains=GROUP&limit=3&sort_key=name")).json()
    rest = (await admin.get(first["links"]["next"])).json()
    assert [g["name"] for page in (first, rest) for g in page["groups"]] == [f"Group {n}" for n in range(5)]


async def test_documents_are_filtered_inexactly_too(admin: httpx.AsyncClient) -> None:
    await made(admin, "/policies", "policy", type="application/json", blob="{}")
    for query, count in (("type__contains=json", 1), ("type__contains=JSON", 0), ("type__icontains=JSON", 1),
                         ("type__contains=foobar", 0), ("type=application/json", 1), ("type__startswith=app", 1)):
        assert len((await admin.get(f"/policies?{query}")).json()["policies"]) == count, query
    services = (await admin.get("/services?type__contains=ident")).json()["services"]
    assert [s["name"] for s in services] == ["keystone"]


@pytest.mark.parametrize(("plural", "body", "absent", "null"), [
    ("users", {"name": "x"}, ..., None), ("projects", {"name": "x"}, "", None), ("groups", {"name": "x"}, "", None),
    ("domains", {"name": "x"}, "", None), ("roles", {"name": "x"}, None, None), ("regions", {}, "", ""),
    ("services", {"type": "x"}, ..., None)])
async def test_null_descriptions(
        admin: httpx.AsyncClient, plural: str, body: dict[str, str], absent: object, null: object) -> None:
    """... is an attribute that is not there."""
    kind = plural[:-1]
    given = await made(admin, f"/{plural}", kind, **body, description=None)
    assert given.get("description", ...) is null or given["description"] == null
    assert (await admin.get(f"/{plural}/{given['id']}")).json()[kind]["description"] == null
    without = await made(admin, f"/{plural}", kind, **{k: v + "2" for k, v in body.items()})
    assert without.get("description", ...) == absent
    path = f"/{plural}/{without['id']}"
    for value in ("text", None):
        changed = (await admin.patch(path, json={kind: {"description": value}})).json()[kind]
    assert changed["description"] == null
    assert (await admin.get(path)).json()[kind]["description"] == null


async def test_access_rules_stay_in_their_order(lab: Lab, demo: httpx.AsyncClient) -> None:
    me = (await demo.get("/auth/tokens", headers={"X-Subject-Token": demo.headers["X-Auth-Token"]})).json()["token"]
    mine = f"/users/{me['user']['id']}"
    wanted = [("compute", f"/z{n}", "GET") for n in (9, 1, 5, 7, 3, 8, 2)]

    def plain(rules: list[dict[str, str]]) -> list[tuple[str, str, str]]:
        return [(r["service"], r["path"], r["method"]) for r in rules]
    key = await made(demo, f"{mine}/application_credentials", "application_credential", name="k", access_rules=[
        dict(zip(("service", "path", "method"), rule, strict=True)) for rule in wanted])
    assert plain(key["access_rules"]) == wanted
    shown = (await demo.get(f"{mine}/application_credentials/{key['id']}")).json()["application_credential"]
    assert plain(shown["access_rules"]) == wanted
    listed = (await demo.get(f"{mine}/access_rules")).json()["access_rules"]
    assert plain(listed) == wanted
    pages, url = [], f"{mine}/access_rules?limit=3"
    while url:
        page = (await demo.get(url)).json()
        pages += page["access_rules"]
        url = page["links"]["next"]
    assert plain(pages) == wanted
    answer = await lab.post_auth({"identity": {"methods": ["application_credential"], "application_credential": {
        "id": key["id"], "secret": key["secret"]}}})
    assert plain(answer.json()["token"]["application_credential"]["access_rules"]) == wanted
    again = await made(demo, f"{mine}/application_credentials", "application_credential", name="k2", access_rules=[
        {"id": listed[4]["id"]}, {"id": listed[0]["id"]}])
    assert plain(again["access_rules"]) == [wanted[4], wanted[0]]


async def test_services_have_the_names_that_clients_look_for(admin: httpx.AsyncClient) -> None:
    named = {s["type"]: s["name"] for s in (await admin.get("/services")).json()["services"]}
    assert named == {"identity": "keystone", "compute": "nova", "network": "neutron", "image": "glance",
                     "placement": "placement"}


@pytest.mark.parametrize("plural", ["domains", "projects"])
async def test_a_domain_goes_with_its_people_by_either_name(admin: httpx.AsyncClient, plural: str) -> None:
    home = (await made(admin, "/domains", "domain", name="acme"))["id"]
    inside = {f"/users/{(await made(admin, '/users', 'user', name='x', domain_id=home))['id']}",
              f"/groups/{(await made(admin, '/groups', 'group', name='x', domain_id=home))['id']}",
              f"/roles/{(await made(admin, '/roles', 'role', name='x', domain_id=home))['id']}"}
    await admin.patch(f"/{plural}/{home}", json={plural[:-1]: {"enabled": False}})
    assert (await admin.delete(f"/{plural}/{home}")).status_code == 204
    for path in (*inside, f"/domains/{home}", f"/projects/{home}"):
        assert (await admin.get(path)).status_code == 404, path


@pytest.mark.parametrize(("rules", "enabled", "password", "both"), [
    ([["password", "token"]], True, 401, 201), ([["password", "token"]], None, 401, 201),
    ([["password", "token"]], False, 201, 201), ([["token"], ["password"]], True, 201, 201),
    ([["application_credential"]], True, 401, 401),
    # totp is not known here: it does not count, and a rule of nothing else asks for nothing
    ([["password", "totp"]], True, 201, 201), ([["totp"]], True, 201, 201), ([["totp"], ["oauth1"]], True, 401, 401),
    ([], True, 201, 201)])
async def test_who_has_rules_of_several_factors_logs_in_by_one_of_them(
        admin: httpx.AsyncClient, lab: Lab, rules: list[list[str]], enabled: bool | None, password: int, both: int
        ) -> None:
    user = await made(admin, "/users", "user", name="a", password="long enough")
    first = await lab.client().post("/auth/tokens", json={"auth": by_password("a", "long enough")})
    assert first.status_code == 201
    options = {"multi_factor_auth_rules": rules, "multi_factor_auth_enabled": enabled}
    answer = await admin.patch(f"/users/{user['id']}", json={"user": {"options": options}})
    assert answer.status_code == 200
    assert answer.json()["user"]["options"] == {k: v for k, v in options.items() if v is not None}
    alone = await lab.client().post("/auth/tokens", json={"auth": by_password("a", "long enough")})
    assert alone.status_code == password, alone.text
    body = by_password("a", "long enough")
    body["identity"]["methods"].append("token")
    body["identity"]["token"] = {"id": first.headers["x-subject-token"]}
    together = await lab.client().post("/auth/tokens", json={"auth": body})
    assert together.status_code == both, together.text


async def test_whoever_knows_only_the_port_learns_where_to_log_in(lab: Lab) -> None:
    app = App([front(), lab.service], lab.identity.authenticate, lab.policy.allows)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url=BASE) as anybody:
        answer = await anybody.get("/")
        assert answer.status_code == 300
        assert answer.json()["versions"]["values"][0]["links"][0]["href"] == f"{BASE}/identity/v3/"
        assert answer.headers["Location"] == f"{BASE}/identity/v3/"
        assert (await anybody.get("/nosuch")).status_code == 404
        assert (await anybody.post("/")).status_code in (401, 405)
