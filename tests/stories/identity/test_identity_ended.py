"""What was disabled or taken away and is there again revives no token; what a token stands for ends with it."""

import time
from datetime import timedelta
from typing import get_args, get_type_hints

import httpx
import msgspec
import pytest
import sqlalchemy as sa
from identity_cloud import PASSWORDS, SYSTEM, Json, Lab, by_password, by_token, domain, made, project, role_id

from nacre.config.sections import Identity
from nacre.identity.ended import KEEP, end
from nacre.identity.service import IdentityService
from nacre.identity.tables import ended, revision
from nacre.identity.tokens import seal

OFF, ON = {"enabled": False}, {"enabled": True}


@pytest.fixture
async def ids(lab: Lab, admin: httpx.AsyncClient) -> dict[str, str]:
    """A domain of its own with a user, a group, a project below another; roles for each."""
    home = (await made(admin, "/domains", "domain", name="home"))["id"]
    above = (await made(admin, "/projects", "project", name="above", domain_id=home))["id"]
    work = (await made(admin, "/projects", "project", name="work", domain_id=home, parent_id=above))["id"]
    user = (await made(admin, "/users", "user", name="u", domain_id=home, password="pw"))["id"]
    group = (await made(admin, "/groups", "group", name="g", domain_id=home))["id"]
    member, reader = await role_id(admin, "member"), await role_id(admin, "reader")
    found = {"home": home, "above": above, "work": work, "user": user, "group": group, "member": member,
             "reader": reader}
    for path in (f"/projects/{work}/users/{user}/roles/{member}", f"/projects/{work}/groups/{group}/roles/{reader}",
                 f"/groups/{group}/users/{user}", f"/domains/{home}/users/{user}/roles/{member}",
                 f"/OS-INHERIT/domains/{home}/users/{user}/roles/{reader}/inherited_to_projects",
                 f"/system/users/{user}/roles/{reader}"):
        assert (await admin.put(path)).status_code == 204
    return found


#: An end and its beginning again; the scopes of the tokens that it ends, and of those that it does not.
ENDS = [
    (("PATCH", "/users/{user}", {"user": OFF}), ("PATCH", "/users/{user}", {"user": ON}),
     "project domain system none", ""),
    (("PATCH", "/projects/{work}", {"project": OFF}), ("PATCH", "/projects/{work}", {"project": ON}), "project",
     "domain system none"),
    (("PATCH", "/domains/{home}", {"domain": OFF}), ("PATCH", "/domains/{home}", {"domain": ON}),
     "project domain system none", ""),
    (("PATCH", "/projects/{home}", {"project": OFF}), ("PATCH", "/projects/{home}", {"project": ON}),
     "project domain system none", ""),
    (("DELETE", "/projects/{work}/users/{user}/roles/{member}", None),
     ("PUT", "/projects/{work}/users/{user}/roles/{member}", None), "project", "domain system none"),
    (("DELETE", "/projects/{work}/groups/{group}/roles/{reader}", None),
     ("PUT", "/projects/{work}/groups/{group}/roles/{reader}", None), "project", "domain system none"),
    (("DELETE", "/domains/{home}/users/{user}/roles/{member}", None),
     ("PUT", "/domains/{home}/users/{user}/roles/{member}", None), "domain", "project system none"),
    (("DELETE", "/system/users/{user}/roles/{reader}", None), ("PUT", "/system/users/{user}/roles/{reader}", None),
     "system", "project domain none"),
    (("DELETE", "/OS-INHERIT/domains/{home}/users/{user}/roles/{reader}/inherited_to_projects", None),
     ("PUT", "/OS-INHERIT/domains/{home}/users/{user}/roles/{reader}/inherited_to_projects", None), "project", ""),
    (("DELETE", "/groups/{group}/users/{user}", None), ("PUT", "/groups/{group}/users/{user}", None), "project", ""),
]


@pytest.mark.parametrize(("end", "again", "dead", "living"), ENDS, ids=[f"{e[0][0]} {e[0][1]}" for e in ENDS])
async def test_what_ended_and_began_again_revives_no_token(
        lab: Lab, admin: httpx.AsyncClient, ids: dict[str, str], end: tuple, again: tuple, dead: str,
        living: str) -> None:
    scopes = {"project": {"project": {"id": ids["work"]}}, "domain": domain(ids["home"]), "system": SYSTEM,
              "none": None}

    async def tokens() -> dict[str, str]:
        return {name: await lab.token("u", "pw", scope, ids["home"]) for name, scope in scopes.items()}

    before = await tokens()
    for method, path, body in (end, again):
        answer = await admin.request(method, path.format(**ids), json=body)
        assert answer.status_code in (200, 204), answer.text
    after = await tokens()
    # Another control process, which remembers nothing, says the same.
    for identity in (lab.identity, IdentityService(lab.store, lab.identity.keys, lab.passwords, 3600)):
        lab.identity = identity
        for name in scopes:
            assert await lab.works(after[name]), name
            if name in dead.split():
                assert not await lab.works(before[name]), name
                assert (await lab.post_auth(by_token(before[name]))).status_code == 401
            if name in living.split():
                assert await lab.works(before[name]), name


async def test_what_ended_is_forgotten_when_no_token_of_before_can_live(
        lab: Lab, admin: httpx.AsyncClient, ids: dict[str, str]) -> None:
    users = [(await made(admin, "/users", "user", name=name, domain_id=ids["home"]))["id"] for name in "abc"]

    async def end(user: str) -> set[str]:
        for change in (OFF, ON):
            assert (await admin.patch(f"/users/{user}", json={"user": change})).status_code == 200
        rows = await lab.store.read(lambda conn: conn.execute(sa.select(ended.c.id)).scalars().all())
        return {user for user in users if f"user:{user}" in rows}

    await end(users[0])
    assert await end(users[1]) == {*users[:2]}
    age = sa.update(ended).where(ended.c.id == f"user:{users[0]}").values(ended_at=ended.c.ended_at - KEEP - 1)
    await lab.store.write(lambda conn: conn.execute(age))
    admin.headers["X-Auth-Token"] = await lab.token("admin", PASSWORDS["admin"], project("admin"))  # issued since
    assert await end(users[2]) == {*users[1:]}
    longest = get_args(get_type_hints(Identity, include_extras=True)["token_lifetime"])[1].le
    assert longest + 86400 <= KEEP


@pytest.mark.parametrize("ahead", ["database", "process"])
async def test_one_clock_that_is_wrong_forgets_nothing(
        lab: Lab, monkeypatch: pytest.MonkeyPatch, ahead: str) -> None:
    """Nor is anything forgotten of which a control process of the release before did not say when."""
    def kept() -> set[str]:
        return set(conn.execute(sa.select(ended.c.id).where(ended.c.ended_at > 0)).scalars())

    with lab.db.engine.begin() as conn:
        end(conn, ["user:a"])
        conn.execute(sa.insert(ended).values(id="user:b", revision=1, ended_at=0))
        end(conn, ["user:c"])
        assert kept() >= {"user:a", "user:b", "user:c"}
        wrong = time.time() + KEEP + 86400
        with monkeypatch.context() as patch:
            if ahead == "database":
                patch.setattr("nacre.identity.ended._NOW", sa.select(sa.literal(wrong)))
            else:
                patch.setattr(time, "time", lambda: wrong)
            end(conn, ["user:d"])
        assert kept() >= {"user:a", "user:b", "user:c", "user:d"}


async def test_clocks_that_are_both_wrong_revive_no_token(
        lab: Lab, admin: httpx.AsyncClient, ids: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A database on control's machine has control's clock. It is 33 days ahead, and is set right."""
    async def off_and_on() -> None:
        for change in (OFF, ON):
            assert (await admin.patch(f"/users/{ids['user']}", json={"user": change})).status_code == 200

    async def rows() -> dict[str, float]:
        query = sa.select(ended.c.id, ended.c.ended_at)
        return dict(await lab.store.read(lambda conn: conn.execute(query).all()))

    async def wrong_for_a_while(days: int) -> None:
        with monkeypatch.context() as patch:
            wrong = time.time() + days * 86400
            patch.setattr("nacre.identity.ended._NOW", sa.select(sa.literal(wrong)))
            patch.setattr(time, "time", lambda: wrong)
            await lab.store.write(lambda conn: end(conn, ["user:another"]))

    before = await lab.token("u", "pw", {"project": {"id": ids["work"]}}, ids["home"])
    await off_and_on()
    assert not await lab.works(before)
    await wrong_for_a_while(33)
    assert f"user:{ids['user']}" not in await rows() and not await lab.works(before)
    for days in (33, 3650):
        admin.headers["X-Auth-Token"] = await lab.token("admin", PASSWORDS["admin"], project("admin"))
        after = await lab.token("u", "pw", {"project": {"id": ids["work"]}}, ids["home"])
        assert await lab.works(after)
        await off_and_on()
        assert await lab.works(await lab.token("u", "pw", {"project": {"id": ids["work"]}}, ids["home"]))
        assert not await lab.works(before) and not await lab.works(after)
        assert max((await rows()).values()) < time.time() + 60, "nor does what is written down then stay for years"
        await wrong_for_a_while(days)


async def test_a_token_of_a_clock_that_is_ahead_is_none(lab: Lab) -> None:
    """It would live longer than others, and longer than it is remembered what ended meanwhile."""
    payload = (await lab.identity.inspect(await lab.token("demo", "demo-pw", project("demo")))).payload
    for ahead, works in ((40 * 86400, False), (600, False), (60, True)):
        later = {name: getattr(payload, name) + ahead for name in ("issued_at", "expires_at")}
        token = seal(msgspec.structs.replace(payload, **later), await lab.identity.keys.primary())
        assert await lab.works(token) is works, ahead


async def test_a_clock_that_is_ahead_for_a_while_revives_no_revoked_token(
        lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    async def revoked() -> str:
        token = await lab.token("demo", "demo-pw", project("demo"))
        await lab.identity.revoke(token)
        return token

    first, right = await revoked(), lab.store.now
    with monkeypatch.context() as patch:
        patch.setattr(lab.store, "now", lambda: right() + 30 * 86400)
        await revoked()
    for each in (first, await revoked()):
        assert not await lab.works(each)


async def test_who_takes_back_too_many_tokens_loses_all_of_theirs_and_nobody_elses(
        lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    async def tokens(user: str, n: int) -> list[str]:
        return [await lab.token(user, f"{user}-pw", project(user)) for _ in range(n)]

    async def rows(*, owned: bool = True) -> int:
        return await lab.store.read(lambda conn: conn.execute(sa.select(sa.func.count()).select_from(ended).where(
            ended.c.owner.is_not(None) if owned else sa.true())).scalar_one())

    monkeypatch.setattr("nacre.identity.ended.MOST", 3)
    before, others, mine = await rows(owned=False), await tokens("admin", 2), await tokens("demo", 5)
    for n, token in enumerate(mine[:3], 1):
        await lab.identity.revoke(token)
        assert await rows() == n and await lab.works(mine[4])
    await lab.identity.revoke(mine[3])
    assert not [token for token in mine if await lab.works(token)], "the first ones are not good again either"
    assert await rows() == 0 and await rows(owned=False) == before + 1
    assert [await lab.works(token) for token in (*others, *await tokens("demo", 1))] == [True] * 3


async def test_what_is_lent_and_taken_back_is_remembered_in_bounds(
        lab: Lab, demo: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Living loans have limits, and ended ones would have none."""
    async def rows() -> list[str]:
        return await lab.store.read(lambda conn: list(conn.execute(sa.select(ended.c.id).where(
            ended.c.owner.is_not(None))).scalars()))

    monkeypatch.setattr("nacre.identity.ended.MOST", 4)
    me = (await demo.get("/auth/tokens", headers={"X-Subject-Token": demo.headers["X-Auth-Token"]})).json()
    path = f"/users/{me['token']['user']['id']}/application_credentials"
    for n in range(4):
        lent = await made(demo, path, "application_credential", name=f"c{n}")
        login = {"identity": {"methods": ["application_credential"], "application_credential": {
            "id": lent["id"], "secret": lent["secret"]}}}
        for _ in range(2):
            await lab.identity.revoke((await lab.post_auth(login)).headers["X-Subject-Token"])
        assert (await demo.delete(f"{path}/{lent['id']}")).status_code == 204
        assert [id.partition(":")[0] for id in await rows()] == ["loan"] * (n + 1)
    lent = await made(demo, path, "application_credential", name="last")
    assert (await demo.delete(f"{path}/{lent['id']}")).status_code == 204
    assert await rows() == [] and not await lab.works(demo.headers["X-Auth-Token"])


async def test_tokens_of_trusts_that_expired_are_remembered_in_bounds(lab: Lab, demo: httpx.AsyncClient) -> None:
    """Once it is gone it leads to no token, and those of its tokens counted for nobody."""
    async def rows() -> list[str]:
        return await lab.store.read(lambda conn: list(conn.execute(sa.select(ended.c.id).where(
            ended.c.owner.is_not(None))).scalars()))

    me = (await demo.get("/auth/tokens", headers={"X-Subject-Token": demo.headers["X-Auth-Token"]})).json()["token"]

    async def lend() -> str:
        end = lab.clock.now() + timedelta(seconds=60)
        trust = await made(demo, "/OS-TRUST/trusts", "trust", trustor_user_id=me["user"]["id"],
                           trustee_user_id=me["user"]["id"], project_id=me["project"]["id"], impersonation=True,
                           roles=[{"name": "member"}], expires_at=end.strftime("%Y-%m-%dT%H:%M:%S.000000Z"))
        return str(trust["id"])

    for _ in range(3):
        trust = await lend()
        login = by_password("demo", PASSWORDS["demo"], {"OS-TRUST:trust": {"id": trust}})
        tokens = [(await lab.post_auth(login)).headers["X-Subject-Token"] for _ in range(3)]
        for token in tokens[:2]:
            await lab.identity.revoke(token)
        assert sorted(id.partition(":")[0] for id in await rows()) == ["token"] * 2
        lab.clock.jump(61)
        assert not [token for token in tokens if await lab.works(token)]
        await lend()
        assert await rows() == [] and not [token for token in tokens if await lab.works(token)]
        lab.clock.jump(61)


async def test_a_password_that_a_clock_which_is_ahead_changes_locks_nobody_out(
        lab: Lab, admin: httpx.AsyncClient, ids: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two control processes the one whose clock is right issues tokens meanwhile."""
    before, right = await lab.token("u", "pw", domain_id=ids["home"]), lab.store.now
    with monkeypatch.context() as patch:
        patch.setattr(lab.store, "now", lambda: right() + 240)
        answer = await admin.patch(f"/users/{ids['user']}", json={"user": {"password": "new"}})
        assert answer.status_code == 200, answer.text
    assert await lab.works(await lab.token("u", "new", domain_id=ids["home"]))
    assert not await lab.works(before)


def kept() -> list[sa.Table]:
    """Identity's tables but those that say what changed."""
    return [each for each in ended.metadata.sorted_tables
            if each.name.startswith("identity_") and each not in (ended, revision)]


async def lend(lab: Lab, ids: dict[str, str], how: str) -> tuple[str, Json]:
    """The path of what the user lends or stands for, and what proves it."""
    scope = {"project": {"id": ids["work"]}}
    if how in ("user", "work"):
        return {"user": "/users/{user}", "work": "/projects/{work}"}[how].format(**ids), by_password(
            "u", "pw", scope, ids["home"])
    async with lab.client(await lab.token("u", "pw", scope, ids["home"])) as user:
        if how == "credential":
            proof = await credential(lab, ids, ids["work"])
            key = proof["identity"]["application_credential"]["id"]
            return f"/users/{ids['user']}/application_credentials/{key}", proof
        trust = await made(user, "/OS-TRUST/trusts", "trust", trustor_user_id=ids["user"], trustee_user_id=ids["user"],
                           impersonation=False, project_id=ids["work"], roles=[{"name": "reader"}])
        return f"/OS-TRUST/trusts/{trust['id']}", by_password(
            "u", "pw", {"OS-TRUST:trust": {"id": trust["id"]}}, ids["home"])


@pytest.mark.parametrize("how", ["user", "work", "trust", "credential"])
async def test_what_was_deleted_and_is_put_back_revives_no_token(
        lab: Lab, admin: httpx.AsyncClient, ids: dict[str, str], how: str) -> None:
    """By an operator, row by row, out of a backup."""
    path, proof = await lend(lab, ids, how)
    before = (await lab.post_auth(proof)).headers["X-Subject-Token"]
    assert await lab.works(before)
    rows = await lab.store.read(lambda conn: {
        table: [dict(row) for row in conn.execute(sa.select(table)).mappings()] for table in kept()})
    assert (await admin.delete(path)).status_code == 204

    def put_back(conn: sa.Connection) -> None:
        for table, found in rows.items():
            conn.execute(sa.delete(table))
            if found:
                conn.execute(sa.insert(table), found)
    await lab.store.write(put_back)
    answer = await lab.post_auth(proof)
    assert answer.status_code == 201, answer.text
    assert await lab.works(answer.headers["X-Subject-Token"])
    assert not await lab.works(before)


async def test_other_changes_end_nothing(lab: Lab, admin: httpx.AsyncClient, ids: dict[str, str]) -> None:
    token = await lab.token("u", "pw", {"project": {"id": ids["work"]}}, ids["home"])
    for path, body in ((f"/users/{ids['user']}", {"user": {"description": "x", **ON}}),
                       (f"/projects/{ids['work']}", {"project": {"description": "x", **ON}}),
                       (f"/projects/{ids['work']}", {"project": {"password_hash": "an attribute as any"}})):
        assert (await admin.patch(path, json=body)).status_code == 200
    assert (await admin.put(f"/projects/{ids['work']}/users/{ids['user']}/roles/{ids['member']}")).status_code == 204
    assert await lab.works(token)


@pytest.mark.parametrize("path", ["/projects/default", "/domains/default"])
async def test_nobody_locks_everybody_out(lab: Lab, admin: httpx.AsyncClient, path: str) -> None:
    kind = path.split("/")[1][:-1]
    for off in (False, "false", 0):
        answer = await admin.patch(path, json={kind: {"enabled": off}})
        assert answer.status_code in (400, 403), answer.text
    assert (await admin.patch(path, json={kind: {"enabled": False}})).status_code == 403
    assert (await admin.delete(path)).status_code == 403
    assert (await admin.patch(path, json={kind: {"description": "ours"}})).status_code == 200
    assert await lab.works(await lab.token("admin", PASSWORDS["admin"], project("admin")))


async def test_a_trusts_token_ends_with_the_trust(lab: Lab, demo: httpx.AsyncClient) -> None:
    async def me(client: httpx.AsyncClient) -> tuple[str, str]:
        body = (await client.get("/auth/tokens", headers={"X-Subject-Token": client.headers["X-Auth-Token"]})).json()
        return body["token"]["user"]["id"], body["token"]["project"]["id"]

    trustor, work = await me(demo)
    async with lab.client(await lab.token("demo-alt", "alt-pw", project("demo-alt"))) as alt:
        trustee, _ = await me(alt)
    trust = await made(demo, "/OS-TRUST/trusts", "trust", trustor_user_id=trustor, trustee_user_id=trustee,
                       impersonation=True, project_id=work, roles=[{"name": "reader"}],
                       expires_at="2026-01-01T00:10:00Z")
    answer = await lab.post_auth(by_password("demo-alt", "alt-pw", {"OS-TRUST:trust": {"id": trust["id"]}}))
    token = answer.headers["X-Subject-Token"]
    assert answer.json()["token"]["expires_at"].startswith("2026-01-01T00:10:00")
    assert await lab.works(token)
    await lab.clock.advance(599)
    assert await lab.works(token)
    await lab.clock.advance(2)
    assert not await lab.works(token)


async def test_a_revoked_token_has_no_second_spelling(lab: Lab) -> None:
    token = await lab.token("demo", "demo-pw", project("demo"))
    spelled = [token + "=", token + "==", token.partition(".")[2], token.upper(), token.lower(), "0" + token]
    for other in spelled:
        assert not await lab.works(other), other
    async with lab.client(token) as client:
        assert (await client.delete("/auth/tokens", headers={"X-Subject-Token": token})).status_code == 204
    for other in (token, *spelled):
        assert not await lab.works(other), other


async def test_a_token_of_a_history_that_was_lost_ends_as_others_do(
        lab: Lab, admin: httpx.AsyncClient, ids: dict[str, str]) -> None:
    """A backup is restored: counting begins anew below what its tokens say."""
    async def count(value: int) -> None:
        await lab.db.run(lambda conn: conn.execute(sa.update(revision).values(value=value)))

    await lab.store.open()
    before = (await lab.store.read(lambda conn: conn.scalar(sa.select(revision.c.value)))) - 3600
    await count(before)  # as it started an hour ago
    for n in range(30):
        assert (await admin.patch(f"/users/{ids['user']}", json={"user": {"description": f"{n}"}})).status_code == 200
    token = await lab.token("u", "pw", {"project": {"id": ids["work"]}}, ids["home"])
    await count(before)
    await lab.store.open()
    assert await lab.works(token)
    for change in (OFF, ON):
        assert (await admin.patch(f"/users/{ids['user']}", json={"user": change})).status_code == 200
    assert not await lab.works(token)


async def credential(lab: Lab, ids: dict[str, str], project_id: str) -> Json:
    """What proves to be an application credential of the user's for a project."""
    token = await lab.token("u", "pw", {"project": {"id": project_id}}, ids["home"])
    async with lab.client(token) as user:
        key = await made(user, f"/users/{ids['user']}/application_credentials", "application_credential",
                         name=project_id)
    return {"identity": {"methods": ["application_credential"], "application_credential": {
        "id": key["id"], "secret": key["secret"]}}}


@pytest.mark.parametrize("path", [
    "/projects/{project}/users/{user}/roles/{member}", "/projects/{project}/groups/{group}/roles/{member}",
    "/OS-INHERIT/domains/{home}/users/{user}/roles/{member}/inherited_to_projects"], ids=["user", "group", "inherited"])
async def test_an_application_credential_works_while_its_user_has_a_role(
        lab: Lab, admin: httpx.AsyncClient, ids: dict[str, str], path: str) -> None:
    """As in Keystone: it stays when a grant is taken, and is found to allow nothing, or what is left."""
    where = {**ids, "project": (await made(admin, "/projects", "project", name="other", domain_id=ids["home"]))["id"]}
    inherited = "/OS-INHERIT/domains/{home}/users/{user}/roles/{reader}/inherited_to_projects".format(**ids)
    assert (await admin.delete(inherited)).status_code == 204
    grant = path.format(**where)
    assert (await admin.put(grant)).status_code == 204
    mine = await credential(lab, ids, where["project"])
    for change, status in ((admin.delete, 401), (admin.put, 201)):
        assert (await change(grant)).status_code == 204
        assert (await lab.post_auth(mine)).status_code == status
    assert (await admin.put(inherited)).status_code == 204
    assert (await admin.delete(grant)).status_code == 204
    answer = await lab.post_auth(mine)
    assert [role["name"] for role in answer.json()["token"]["roles"]] == ["reader"], "what the credential has of it"


async def test_application_credentials_go_with_a_role_that_is_deleted(
        lab: Lab, admin: httpx.AsyncClient, ids: dict[str, str]) -> None:
    """Those of the users who have it themselves, for the project on which they do, whatever else they have there."""
    other = (await made(admin, "/projects", "project", name="other", domain_id=ids["home"]))["id"]
    role = (await made(admin, "/roles", "role", name="passing"))["id"]
    for path in (f"/projects/{ids['work']}/users/{ids['user']}", f"/projects/{other}/groups/{ids['group']}"):
        assert (await admin.put(f"{path}/roles/{role}")).status_code == 204
    mine, theirs = await credential(lab, ids, ids["work"]), await credential(lab, ids, other)
    assert (await admin.delete(f"/roles/{role}")).status_code == 204
    assert (await lab.post_auth(mine)).status_code == 404
    assert (await lab.post_auth(theirs)).status_code == 201
    async with lab.client(await lab.token("u", "pw", {"project": {"id": ids["work"]}}, ids["home"])) as user:
        answer = await user.get(f"/users/{ids['user']}/application_credentials")
        assert [each["project_id"] for each in answer.json()["application_credentials"]] == [other]
