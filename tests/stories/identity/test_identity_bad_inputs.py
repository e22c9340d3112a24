"""Attacks on identity that hit others: leaked secrets, unsigned logins, forged headers, tokens that should be dead."""

import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from identity_cloud import SYSTEM, Lab, by_password, by_token, made, project

from nacre.base.db import metadata

CANARY = "canary-8f3a1c-secret"


@pytest.fixture
def heard() -> Iterator[io.StringIO]:
    """Everything that is logged, by structlog and by logging, down to debug."""
    said = io.StringIO()
    handler = logging.StreamHandler(said)
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    before = structlog.get_config()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(said), cache_logger_on_first_use=False)
    yield said
    structlog.configure(**before)
    root.setLevel(level)
    root.removeHandler(handler)


def secrets_in_every_field(user_id: str) -> list[tuple[str, str, object]]:
    return [
        ("POST", "/auth/tokens", {"auth": by_password("demo", CANARY, project("demo"))}),
        ("POST", "/auth/tokens", {"auth": by_password("nobody", CANARY)}),
        ("POST", "/auth/tokens", {"auth": by_token(CANARY)}),
        ("POST", "/auth/tokens", {"auth": {"identity": {"methods": ["password"], "password": {
            "user": {"password": CANARY}}}}}),
        ("POST", "/auth/tokens", {"auth": {"identity": {"methods": ["password"], "password": {
            "user": {"name": 7, "password": CANARY}}}}}),
        ("POST", "/auth/tokens", {"auth": {"identity": {"methods": ["password"], "password": CANARY}}}),
        ("POST", "/auth/tokens", {"auth": {"identity": {"methods": ["token"], "token": {"id": [CANARY]}}}}),
        ("POST", "/auth/tokens", {"auth": {"identity": {
            "methods": ["application_credential"], "application_credential": {"id": "x", "secret": CANARY}}}}),
        ("POST", "/auth/tokens", {"auth": {"identity": {
            "methods": ["application_credential"], "application_credential": {"secret": CANARY}}}}),
        ("POST", "/users", {"user": {"name": "", "password": CANARY}}),
        ("POST", "/users", {"user": {"name": "x", "password": [CANARY]}}),
        ("POST", "/users", {"user": {"name": "x", "password": {"a": CANARY}}}),
        ("POST", "/users", {"user": {"password": CANARY}}),
        ("POST", "/users", {"user": {"name": "x", "password": CANARY * 300}}),
        ("PATCH", f"/users/{user_id}", {"user": {"password": 5, "secret": CANARY}}),
        ("PATCH", f"/users/{user_id}", {"user": {"password": CANARY, "domain_id": "other"}}),
        ("POST", f"/users/{user_id}/password", {"user": {"original_password": CANARY, "password": CANARY}}),
        ("POST", f"/users/{user_id}/password", {"user": {"original_password": CANARY}}),
        ("POST", "/credentials", {"credential": {"blob": CANARY, "type": "ec2", "user_id": user_id}}),
        ("POST", "/credentials", {"credential": {"blob": [CANARY], "type": "x", "user_id": user_id}}),
        ("POST", f"/users/{user_id}/application_credentials", {"application_credential": {"secret": CANARY}}),
        ("POST", f"/users/{user_id}/application_credentials", {"application_credential": {
            "name": "x", "secret": [CANARY]}}),
        ("POST", "/OS-OAUTH1/consumers", {"consumer": {"secret": CANARY}}),
    ]


async def test_no_secret_in_a_log_or_a_fault(
        lab: Lab, admin: httpx.AsyncClient, heard: io.StringIO, capsys: pytest.CaptureFixture[str]) -> None:
    user = await made(admin, "/users", "user", name="ann", password="pw")
    for method, path, body in secrets_in_every_field(user["id"]):
        answer = await admin.request(method, path, json=body)
        assert 400 <= answer.status_code < 500, (path, body, answer.text)
        assert CANARY not in answer.text, (path, body)
        assert CANARY not in str(answer.headers)
    token = await lab.token("ann", "pw")
    async with lab.client(token) as ann:
        await ann.get("/users")
        await ann.get("/auth/tokens", headers={"X-Subject-Token": token})
    said = heard.getvalue() + "".join(capsys.readouterr())
    assert CANARY not in said
    assert token not in said


async def test_no_secret_is_stored_in_the_open(lab: Lab, admin: httpx.AsyncClient, tmp_path: Path) -> None:
    user = await made(admin, "/users", "user", name="ann", password=CANARY)
    await made(admin, "/credentials", "credential", type="cert", blob=CANARY, user_id=user["id"])
    own = (await admin.get("/users", params={"name": "admin"})).json()["users"][0]["id"]
    await made(admin, f"/users/{own}/application_credentials", "application_credential", name="x", secret=CANARY)
    consumer = await made(admin, "/OS-OAUTH1/consumers", "consumer", description="x")
    with lab.db.engine.connect() as connection:
        dump = "\n".join(repr(row) for table in metadata.sorted_tables for row in connection.execute(sa.select(table)))
    assert user["id"] in dump
    assert CANARY not in dump
    assert consumer["secret"] not in dump
    for path in (f"/users/{user['id']}", "/users", f"/users/{own}/application_credentials", "/OS-OAUTH1/consumers"):
        text = (await admin.get(path)).text
        assert CANARY not in text
        assert consumer["secret"] not in text
        assert "password_hash" not in text and "secret_hash" not in text and "argon2" not in text


async def test_a_client_cannot_set_what_is_not_shown(lab: Lab, admin: httpx.AsyncClient) -> None:
    known = await lab.passwords.hash("planted")
    user = await made(admin, "/users", "user", name="ann", password="pw", password_hash=known,
                      id="mine", extra={"x": 1})
    assert user["id"] != "mine"
    await admin.patch(f"/users/{user['id']}", json={"user": {"password_hash": known}})
    assert (await lab.post_auth(by_password("ann", "planted"))).status_code == 401
    assert (await lab.post_auth(by_password("ann", "pw"))).status_code == 201


@pytest.mark.parametrize("path", ["/ec2tokens", "/s3tokens"])
async def test_a_presigned_url_is_no_login(lab: Lab, demo: httpx.AsyncClient, path: str) -> None:
    user = (await demo.get("/auth/tokens", headers={"X-Subject-Token": demo.headers["X-Auth-Token"]})).json()["token"]
    key = await demo.post(f"/users/{user['user']['id']}/credentials/OS-EC2", json={
        "tenant_id": user["project"]["id"]})
    body = {"credentials": {
        "access": key.json()["credential"]["access"], "signature": "c2ln", "token": "R0VUCgoKMTIz",
        "host": "cloud", "verb": "GET", "path": "/", "params": {}}}
    async with lab.client() as anyone:
        answer = await anyone.post(path, json=body)
    assert answer.status_code == 401
    assert "x-subject-token" not in answer.headers
    assert (await demo.post(path, json=body)).status_code == 404, "there is no such endpoint at all"


FORGED = st.dictionaries(
    st.sampled_from(["X-Roles", "X-Role", "X-User-Id", "X-User", "X-Project-Id", "X-Tenant-Id", "X-Is-Admin-Project",
                     "X-Identity-Status", "X-Service-Token", "X-Service-Roles", "OpenStack-System-Scope", "X-Domain-Id",
                     "X-User-Domain-Id", "X_ROLES", "X-Is-Admin", "REMOTE_USER", "Remote-User", "X-Forwarded-User"]),
    st.sampled_from(["admin", "all", "True", "Confirmed", "default", "admin,member", "1"]), min_size=1)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(headers=FORGED)
async def test_forged_identity_headers_give_nothing(
        lab: Lab, demo: httpx.AsyncClient, headers: dict[str, str]) -> None:
    async with lab.client() as anyone:
        assert (await anyone.get("/users", headers=headers)).status_code == 401
    assert (await demo.get("/users", headers=headers)).status_code == 403
    assert (await demo.post("/roles", json={"role": {"name": "x"}}, headers=headers)).status_code == 403


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
async def test_a_changed_token_is_no_token(lab: Lab, demo: httpx.AsyncClient, data: st.DataObject) -> None:
    token = bytearray(demo.headers["X-Auth-Token"], "ascii")
    at = data.draw(st.integers(0, len(token) - 1))
    token[at] ^= 1 << data.draw(st.integers(0, 6))
    text = token.decode("ascii")
    if text.strip() != text or not text.isprintable():
        return  # no header can carry it
    assert not await lab.works(text)
    assert (await lab.post_auth(by_token(text))).status_code == 401


async def test_lent_tokens_do_not_grow(lab: Lab, admin: httpx.AsyncClient, demo: httpx.AsyncClient) -> None:
    me = (await demo.get("/auth/tokens", headers={"X-Subject-Token": demo.headers["X-Auth-Token"]})).json()["token"]
    user_id, project_id = me["user"]["id"], me["project"]["id"]
    path = f"/users/{user_id}/application_credentials"
    key = await made(demo, path, "application_credential", name="k", roles=[{"name": "reader"}])
    auth = {"identity": {"methods": ["application_credential"], "application_credential": {
        "id": key["id"], "secret": key["secret"]}}}
    answer = await lab.post_auth(auth)
    assert [r["name"] for r in answer.json()["token"]["roles"]] == ["reader"]
    token = answer.headers["X-Subject-Token"]
    for scope in (project("demo"), SYSTEM, "unscoped"):
        assert (await lab.post_auth({**auth, "scope": scope})).status_code == 401
        assert (await lab.post_auth(by_token(token, scope))).status_code == 403
    assert (await lab.post_auth(by_token(token))).status_code == 403
    async with lab.client(token) as lent:
        assert (await lent.post(path, json={"application_credential": {"name": "k2"}})).status_code == 403
        assert (await lent.delete(f"{path}/{key['id']}")).status_code == 403
        assert (await lent.post("/OS-TRUST/trusts", json={"trust": {
            "trustor_user_id": user_id, "trustee_user_id": user_id, "impersonation": True, "project_id": project_id,
            "roles": [{"name": "member"}]}})).status_code == 403
    more = await demo.post(path, json={"application_credential": {"name": "k3", "roles": [{"name": "admin"}]}})
    assert more.status_code == 404, "only roles that one has"
    await demo.delete(f"{path}/{key['id']}")
    assert not await lab.works(token)
    assert (await lab.post_auth(auth)).status_code == 404


async def test_a_token_with_access_rules_opens_nothing_that_they_do_not_name(lab: Lab, demo: httpx.AsyncClient) -> None:
    me = (await demo.get("/auth/tokens", headers={"X-Subject-Token": demo.headers["X-Auth-Token"]})).json()["token"]
    key = await made(demo, f"/users/{me['user']['id']}/application_credentials", "application_credential", name="k",
                     access_rules=[{"service": "compute", "method": "GET", "path": "/v2.1/servers"}])
    answer = await lab.post_auth({"identity": {"methods": ["application_credential"], "application_credential": {
        "id": key["id"], "secret": key["secret"]}}})
    assert answer.status_code == 201
    assert not await lab.works(answer.headers["X-Subject-Token"])


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-2**70, 2**70) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20) | st.just("\x00") | st.just("x" * 70000),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(
        ["id", "name", "domain", "password", "user", "methods", "enabled", "roles", "type", "x"]), inner, max_size=4),
    max_leaves=8)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), junk=JUNK)
async def test_junk_is_refused_and_breaks_nothing(
        lab: Lab, admin: httpx.AsyncClient, data: st.DataObject, junk: object) -> None:
    route = data.draw(st.sampled_from([r for r in lab.service.routes if r.body]))
    path = route.path
    for name in ("user_id", "group_id", "project_id", "domain_id", "role_id", "id", "idp_id", "group", "option"):
        path = path.replace("{" + name + "}", data.draw(st.sampled_from(["default", "x", "%00", "é", "a" * 300])))
    key = path.strip("/").split("/")[-1].rstrip("s")
    body = data.draw(st.sampled_from([junk, {key: junk}, {"auth": junk}, {"auth": {"identity": junk}},
                                      {"user": junk}, {key: {"name": junk}}, {key: {"name": "n", "x": junk}}]))
    answer = await admin.request(route.method, path.removeprefix("/v3"), content=json.dumps(body))
    assert answer.status_code < 500 or answer.status_code == 501, (route.method, path, body, answer.text)
