"""Junk from our own route table: whatever is sent to whichever route, no answer is an internal error, and every error
has the shape of its OpenStack service."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.stories.whole_cloud import WholeCloud, whole_cloud

from nacre.base.web import Route, Service
from nacre.network.api import definitions

#: Requests for each route, and for each known field of a route's body.
CASES = 20
PREFIX = {"identity": "/identity", "image": "/image", "network": "/network", "compute": "/compute"}

BAD: list[Any] = [
    None, True, 0, -1, 1 << 40, 1 << 70, 1.5, "", " ", "x" * 256, "x" * 70000, "\x00", "a\nb", "\u202e", "\U0001f600",
    "\u0663", "..", "%00", "' OR 1=1 --", "{{7*7}}", "00000000-0000-0000-0000-000000000000", "not-a-uuid",
    "2001:db8::/129",
    "10.0.0.0/33", "1.2.3.4.5", "fa:16:3e:zz", [], [None], [[]], [{}], ["x"] * 300, {}, {"a": None}, {"": ""},
    {"x" * 300: "y"}, [1, "a", None], {"id": {}}, "2026-13-45T99:99:99Z", "-inf", "NaN"]


def deep(levels: int) -> Any:
    value: Any = "end"
    for _ in range(levels):
        value = {"a": [value]}
    return value


def properties(schema: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The paths of every property of a JSON schema, objects inside objects too."""
    parts = getattr(schema, "_parts", None)
    if parts is not None:  # a part that changed with a microversion: its newest form
        schema = parts[0][1]
    if isinstance(schema, Mapping):
        for name, inner in (schema.get("properties") or {}).items():
            yield (*path, name)
            yield from properties(inner, (*path, name))


def fields_of(service: Service, route: Route) -> list[tuple[str, ...]]:
    """The known fields of a route's body, by what checks it."""
    schema = getattr(route.body, "_schema", None)
    if schema is not None:
        return list(dict.fromkeys(properties(schema)))
    if service.name == "network":
        for resource in vars(definitions).values():
            if getattr(resource, "plural", None) and resource.path in (route.path, route.path.rpartition("/")[0]):
                return [(resource.name, a.name) for a in resource.attributes.values()]
    return []


def body_with(path: tuple[str, ...], value: Any) -> Any:
    for name in reversed(path):
        value = {name: value}
    return value


@pytest.fixture
async def cloud(tmp_path: Path, story_url: str) -> AsyncIterator[WholeCloud]:
    async with whole_cloud(tmp_path, story_url) as made:
        yield made


class Fuzz:
    """Sends to one service, and keeps what was wrong."""

    def __init__(self, cloud: WholeCloud, service: Service, ids: list[str]):
        self.cloud, self.service, self.ids = cloud, service, ids
        self.dice = random.Random(service.name)
        self.wrong: dict[str, str] = {}
        self.sent = 0

    def path(self, route: Route) -> str:
        parts = []
        for part in route.path.split("/"):
            junk = ["x", "0", "%00", "x" * 300, "..%2f", "null", "é", *self.ids, *self.ids]
            parts.append(self.dice.choice(junk) if part.startswith("{") else part)
        return self.service.prefix + "/".join(parts)

    async def send(self, route: Route, body: Any, query: str = "") -> None:
        user = self.dice.choice(("admin", "demo", "demo-alt"))
        headers = {"X-Auth-Token": await self.cloud.token(user), "X-Subject-Token": self.dice.choice(("x", "A" * 200))}
        if self.service.name == "compute":
            version = self.dice.choice(("2.1", "2.20", "2.37", "2.53", "2.79", "2.96", "2.104", "latest"))
            headers["OpenStack-API-Version"] = f"compute {version}"
        where = f"{route.method} {route.path} {route.action or ''}"
        answer = await self.cloud.http.request(
            route.method, self.path(route) + query, headers=headers, **({"json": body} if body is not ... else {}))
        self.sent += 1
        if answer.status_code >= 500 and answer.status_code != 501:
            self.wrong.setdefault(f"{answer.status_code} {where}", repr(body)[:200] + query)
        elif answer.status_code >= 400 and not self.shaped(answer.headers.get("content-type", ""), answer):
            self.wrong.setdefault(f"shape {answer.status_code} {where}", answer.text[:200])

    def shaped(self, kind: str, answer: Any) -> bool:
        if "html" in kind:
            return self.service.name in ("image", "compute")
        if not answer.content:
            return True
        body = answer.json()
        if self.service.name == "network":
            return (set(body) in ({"NeutronError"}, {"error"}) and answer.status_code != 401) or "error" in body
        inner = next(iter(body.values()))
        return isinstance(inner, dict) and inner.get("code") == answer.status_code and "message" in inner

    async def run(self) -> None:
        for route in self.service.routes:
            if "{" not in route.path and route.method == "DELETE" and route.path.endswith("auth/tokens"):
                continue
            for n in range(CASES):
                junk = self.dice.choice((..., *BAD, deep(60)))
                body = {route.action: None if junk is ... else junk} if route.action and n % 4 else junk
                query = self.dice.choice(("", "", "?limit=x", "?marker=x&limit=1", "?sort_key=x", "?fields=x&name=%00",
                                          "?limit=-1", "?" + "a" * 3000 + "=1"))
                await self.send(route, body, query)
            for field in fields_of(self.service, route):
                for value in self.dice.sample(BAD, CASES):
                    await self.send(route, body_with(field, value))
            await asyncio.sleep(0)


async def ids_of(cloud: WholeCloud) -> list[str]:
    """Things of every kind that belong to `demo`."""
    net = (await cloud.ask("demo", "POST", "network", "/networks", {"network": {"name": "n"}})).json()["network"]["id"]
    sub = (await cloud.ask("demo", "POST", "network", "/subnets", {"subnet": {
        "network_id": net, "ip_version": 4, "cidr": "192.0.2.0/24"}})).json()["subnet"]["id"]
    port = (await cloud.ask("demo", "POST", "network", "/ports", {"port": {"network_id": net}})).json()["port"]["id"]
    image = (await cloud.ask("demo", "POST", "image", "/images", {
        "name": "i", "disk_format": "raw", "container_format": "bare"})).json()["id"]
    user = (await cloud.ask("admin", "GET", "identity", "/users?name=demo-alt")).json()["users"][0]["id"]
    return [net, sub, port, image, user, "42"]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ["identity", "image", "network", "compute"])
async def test_junk_is_refused_in_the_services_own_words(cloud: WholeCloud, name: str) -> None:
    service = next(s for s in cloud.control.app.services if s.name == name)
    fuzz = Fuzz(cloud, service, await ids_of(cloud))
    await fuzz.run()
    assert not fuzz.wrong, "\n".join(f"{k}: {v}" for k, v in fuzz.wrong.items())
    assert fuzz.sent >= CASES * (len(service.routes) - 1)
