"""Junk from our own route table, found by hypothesis: whatever is sent to whichever route, in whichever field it knows,
no answer is an internal error, and every error has the shape of its OpenStack service."""

import asyncio
import copy
import json
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tests.stories.whole_cloud import WholeCloud, whole_cloud

from nacre.base.web import Route, Service
from nacre.image import schemas as image
from nacre.image.metadefs import schemas as metadefs
from nacre.network.api.service import STORES
from nacre.network.nouns.port import BINDING

#: Requests for each route, and for each known field of a route's body.
CASES = 20
RUN = settings(max_examples=CASES, derandomize=True, database=None, deadline=None, phases=(Phase.generate,),
               suppress_health_check=list(HealthCheck))

_LEAF = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40) | st.sampled_from([
    "", " ", "x" * 256, "x" * 70000, "\x00", "a\nb", "\u202e", "..", "%00", "' OR 1=1 --", "{{7*7}}", "not-a-uuid",
    "00000000-0000-0000-0000-000000000000", "2001:db8::/129", "10.0.0.0/33", "1.2.3.4.5", "fa:16:3e:zz", "-inf",
    "2026-13-45T99:99:99Z", "true", "1", -1, 1 << 40, 1 << 70])
JUNK = st.recursive(_LEAF, lambda inner: st.lists(inner, max_size=3) | st.just(["x"] * 300)
                    | st.dictionaries(st.text(max_size=9), inner, max_size=3) | st.just({"x" * 300: "y"}), max_leaves=5)
PATCHES = st.lists(st.fixed_dictionaries({
    "op": st.sampled_from(["add", "replace", "remove", "move"]) | JUNK,
    "path": st.sampled_from(["/" + name for name in image.IMAGE]) | JUNK, "value": JUNK}), max_size=3) | JUNK
_PART = st.sampled_from(["x", "0", "-1", "%00", "x" * 300, "..%2f", "null", "é", "%ff"])
_QUERY = st.sampled_from(["", "", "?limit=x", "?marker=x&limit=1", "?sort_key=x", "?fields=x&name=%00", "?limit=-1",
                          "?" + "a" * 3000 + "=1", "?name=%ff", "?limit=99999999999999999999", "?name=x&name=y"])
_VERSIONS = st.sampled_from(["2.1", "2.20", "2.37", "2.53", "2.79", "2.96", "2.104", "latest"])
_METADEFS = {"namespaces": metadefs.NAMESPACE, "objects": metadefs.OBJECT, "properties": metadefs.PROPERTY,
             "tags": metadefs.TAG}


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
    if route.method not in ("POST", "PUT", "PATCH"):
        return []
    schema = getattr(route.body, "_schema", None) or getattr(route.body, "schema", None)
    if schema is not None:
        return list(dict.fromkeys(properties(schema)))
    last = [part for part in route.path.split("/") if not part.startswith("{")][-1]
    if service.name == "image":
        return [(name,) for name in (image.IMAGE if last == "images" else _METADEFS.get(last, ()))]
    if service.name == "network":
        for resource in (*(store.resource for store in STORES), BINDING):
            if resource.path == last:
                return [(resource.name, a.name) for a in resource.attributes.values()]
    return []


def body_with(valid: Any, path: tuple[str, ...], value: Any) -> Any:
    """The valid body with that field replaced; only the field where no valid body is known."""
    body = copy.deepcopy(valid) if isinstance(valid, dict) else {}
    at = body
    for name in path[:-1]:
        at[name] = at[name] if isinstance(at.get(name), dict) else {}
        at = at[name]
    at[path[-1]] = value
    return body


class Fuzz:
    """Sends to one service, and says what was wrong."""

    def __init__(self, runner: asyncio.Runner, cloud: WholeCloud, service: Service):
        self.runner, self.cloud, self.service, self.sent = runner, cloud, service, 0
        self.ids, self.valid = runner.run(_things(cloud))

    def send(self, route: Route, data: st.DataObject, body: Any) -> None:
        """One request. Fails for an internal error, and for an error that looks like no error of this service."""
        part = _PART | st.sampled_from(self.ids)
        path = "/".join(data.draw(part) if p.startswith("{") else p for p in route.path.split("/"))
        user = data.draw(st.sampled_from(("admin", "demo", "demo-alt")))
        headers = {"X-Auth-Token": self.runner.run(self.cloud.token(user)), "X-Subject-Token": "A" * 40}
        if self.service.name == "compute":
            headers["OpenStack-API-Version"] = f"compute {data.draw(_VERSIONS)}"
        content = None if body is ... else json.dumps(body).encode()
        if content is not None:
            patch = self.service.name == "image" and route.method == "PATCH"
            headers["Content-Type"] = f"application/{'openstack-images-v2.1-json-patch' if patch else 'json'}"
        answer = self.runner.run(self.cloud.http.request(
            route.method, self.service.prefix + path + data.draw(_QUERY), headers=headers, content=content))
        self.sent += 1
        assert answer.status_code < 500 or answer.status_code == 501, answer.text
        if answer.status_code >= 400:
            assert self.shaped(answer.headers.get("content-type", ""), answer), answer.text

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

    def whole(self, route: Route) -> None:
        """Bodies that are junk altogether."""
        bodies = PATCHES if route.method == "PATCH" and self.service.name == "image" else JUNK

        @RUN
        @given(data=st.data(), body=bodies)
        def sends(data: st.DataObject, body: Any) -> None:
            wrap = route.action and data.draw(st.booleans())
            self.send(route, data, {route.action: body} if wrap else body)

        sends()

    def field(self, route: Route, field: tuple[str, ...]) -> None:
        """Bodies with junk in one field."""
        @RUN
        @given(data=st.data(), value=JUNK)
        def sends(data: st.DataObject, value: Any) -> None:
            self.send(route, data, body_with(self.valid.get(route.path), field, value))

        sends()

    def run(self) -> None:
        for route in self.service.routes:
            if route.method == "DELETE" and route.path.endswith("auth/tokens"):
                continue  # it would take the senders' own tokens
            self.whole(route)
            for field in fields_of(self.service, route):
                self.field(route, field)


async def _things(cloud: WholeCloud) -> tuple[list[str], dict[str, Any]]:
    """Ids of things of every kind that belong to `demo`, and a valid body for what is made most."""
    async def made(user: str, service: str, path: str, body: dict[str, Any]) -> str:
        answer = (await cloud.ask(user, "POST", service, path, body)).json()
        return str((answer if service == "image" else next(iter(answer.values())))["id"])

    net = await made("demo", "network", "/networks", network := {"network": {"name": "n"}})
    subnet = {"subnet": {"network_id": net, "ip_version": 4, "cidr": "192.0.2.0/24"}}
    sub = await made("demo", "network", "/subnets", subnet)
    port = await made("demo", "network", "/ports", ports := {"port": {"network_id": net}})
    group = await made("demo", "network", "/security-groups", {"security_group": {"name": "g"}})
    disk = await made("demo", "image", "/images", images := {
        "name": "i", "disk_format": "raw", "container_format": "bare"})
    user = (await cloud.ask("admin", "GET", "identity", "/users?name=demo-alt")).json()["users"][0]["id"]
    project = (await cloud.ask("admin", "GET", "identity", "/projects?name=demo")).json()["projects"][0]["id"]
    valid = {
        "/v2.0/networks": network, "/v2.0/subnets": subnet, "/v2.0/ports": ports, "/v2/images": images,
        "/v2.0/security-group-rules": {"security_group_rule": {
            "security_group_id": group, "direction": "ingress", "protocol": "tcp", "port_range_min": 1,
            "port_range_max": 2}},
        "/v3/users": {"user": {"name": "u", "password": "p"}}, "/v3/projects": {"project": {"name": "p"}},
        "/v2.1/servers": {"server": {"name": "s", "imageRef": disk, "flavorRef": "42", "networks": "none"}},
        "/v2.1/flavors": {"flavor": {"name": "f", "ram": 64, "vcpus": 1, "disk": 1}},
        "/v2.1/os-keypairs": {"keypair": {"name": "k"}}, "/v2.1/os-server-groups": {"server_group": {
            "name": "g", "policies": ["affinity"]}}}
    return [net, sub, port, group, disk, user, project, "42", "default"], valid


@pytest.mark.fuzz
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ["identity", "image", "network", "compute"])
def test_junk_is_refused_in_the_services_own_words(tmp_path: Path, name: str) -> None:
    stack = AsyncExitStack()
    with asyncio.Runner() as runner:
        cloud = runner.run(stack.enter_async_context(whole_cloud(tmp_path)))
        try:
            service = next(s for s in cloud.control.app.services if s.name == name)
            fuzz = Fuzz(runner, cloud, service)
            fuzz.run()
            fields = sum(len(fields_of(service, route)) for route in service.routes)
            assert fields > 20 and fuzz.sent >= CASES * (len(service.routes) - 1)
        finally:
            runner.run(stack.aclose())
