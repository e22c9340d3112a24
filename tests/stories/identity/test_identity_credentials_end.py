"""When an application credential is over, by each way: what a login with it is answered (as by Keystone 30.0.0), and
that the tokens that it gave before are over with it, for good."""

from typing import Any

import httpx
import pytest
from identity_cloud import Json, Lab, by_token, made

OFF, ON = {"enabled": False}, {"enabled": True}
GONE, NO_PROJECT = "Could not find Application Credential: {key}.", "Could not find project: {work}."
UNAUTHORIZED = "The request you have made requires authentication."
ROLE = "/projects/{work}/users/{user}/roles/{member}"
#: How it is ended, how that is taken back; the status and message of a login meanwhile, the status of one afterwards.
ENDS = {
    "its user is disabled": (("PATCH", "/users/{user}", {"user": OFF}), ("PATCH", "/users/{user}", {"user": ON}),
                             401, UNAUTHORIZED, 201),
    "its user is deleted": (("DELETE", "/users/{user}", None), None, 404, GONE, 404),
    "its user loses the role": (("DELETE", ROLE, None), ("PUT", ROLE, None), 401, UNAUTHORIZED, 201),
    "its user loses the group": (("DELETE", "/groups/{group}/users/{user}", None),
                                 ("PUT", "/groups/{group}/users/{user}", None), 401, UNAUTHORIZED, 201),
    "the role is deleted": (("DELETE", "/roles/{member}", None), None, 404, GONE, 404),
    "the project is disabled": (("PATCH", "/projects/{work}", {"project": OFF}),
                                ("PATCH", "/projects/{work}", {"project": ON}), 404, NO_PROJECT, 201),
    "the project's domain is disabled": (("PATCH", "/domains/{far}", {"domain": OFF}),
                                         ("PATCH", "/domains/{far}", {"domain": ON}), 404, NO_PROJECT, 201),
    "its user's domain is disabled": (("PATCH", "/domains/{home}", {"domain": OFF}),
                                      ("PATCH", "/domains/{home}", {"domain": ON}), 401, UNAUTHORIZED, 201),
    "the project is deleted": (("DELETE", "/projects/{work}", None), None, 404, GONE, 404),
    "it is deleted": (("DELETE", "/users/{user}/application_credentials/{key}", None), None, 404, GONE, 404),
}


@pytest.fixture
async def ids(lab: Lab, admin: httpx.AsyncClient, how: str) -> Json:
    """A user of one domain with a role on a project of another, itself or by a group, and a credential for it."""
    home, far = [(await made(admin, "/domains", "domain", name=name))["id"] for name in ("home", "far")]
    work = (await made(admin, "/projects", "project", name="work", domain_id=far))["id"]
    user = (await made(admin, "/users", "user", name="u", domain_id=home, password="pw"))["id"]
    group = (await made(admin, "/groups", "group", name="g", domain_id=home))["id"]
    member = (await made(admin, "/roles", "role", name="passing"))["id"]
    found = {"home": home, "far": far, "work": work, "user": user, "group": group, "member": member}
    actor = f"groups/{group}" if "group" in how else f"users/{user}"
    for path in (f"/groups/{group}/users/{user}", f"/projects/{work}/{actor}/roles/{member}"):
        assert (await admin.put(path)).status_code == 204
    async with lab.client(await lab.token("u", "pw", {"project": {"id": work}}, home)) as client:
        key = await made(client, f"/users/{user}/application_credentials", "application_credential", name="k")
    return {**found, "key": key["id"], "secret": key["secret"]}


def login(ids: Json, **other: Any) -> Json:
    return {"identity": {"methods": ["application_credential"], "application_credential": {
        "id": ids["key"], "secret": ids["secret"], **other}}}


@pytest.mark.parametrize("how", ENDS)
async def test_the_login_is_refused_and_the_tokens_are_over(
        lab: Lab, admin: httpx.AsyncClient, ids: Json, how: str) -> None:
    end, again, status, message, afterwards = ENDS[how]
    first = (await lab.post_auth(login(ids))).headers["X-Subject-Token"]
    second = (await lab.post_auth(login(ids))).headers["X-Subject-Token"]
    assert await lab.works(first) and await lab.works(second)

    async def change(method: str, path: str, body: Any) -> None:
        answer = await admin.request(method, path.format(**ids), json=body)
        assert answer.status_code in (200, 204), answer.text

    async def tokens_are_over() -> None:
        for token in (first, second):
            assert not await lab.works(token)
            assert (await lab.post_auth(by_token(token))).status_code == 401
            shown = await admin.get("/auth/tokens", headers={"X-Subject-Token": token})
            assert shown.status_code == 404, "as services ask about it"

    await change(*end)
    answer = await lab.post_auth(login(ids))
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["message"].startswith(message.format(**ids)), answer.text
    await tokens_are_over()
    if again:
        await change(*again)
        await tokens_are_over()
    answer = await lab.post_auth(login(ids))
    assert answer.status_code == afterwards, answer.text
    if afterwards == 201:
        assert await lab.works(answer.headers["X-Subject-Token"])


@pytest.mark.parametrize("how", ["its user is disabled", "the project is disabled", "the project's domain is disabled"])
async def test_who_has_not_the_secret_learns_nothing(
        lab: Lab, admin: httpx.AsyncClient, ids: Json, how: str) -> None:
    method, path, body = ENDS[how][0]
    named = {"name": "k", "user": {"name": "u", "domain": {"id": ids["home"]}}}
    guesses = [login(ids, secret="guess"), login(ids, secret="guess")]
    guesses[1]["identity"]["application_credential"] = {**named, "name": "another", "secret": "guess"}
    before = [await lab.post_auth(guess) for guess in guesses]
    assert (await admin.request(method, path.format(**ids), json=body)).status_code == 200
    for was, guess in zip(before, guesses, strict=True):
        answer = await lab.post_auth(guess)
        assert (answer.status_code, answer.json()) == (was.status_code, was.json()), guess
        assert answer.status_code == 401
