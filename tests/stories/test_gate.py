"""One gate: every route of every service, each kind of caller, and the answer that is expected; an operator's file is
felt on every name of a policy."""

import re
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog
import yaml
from tests.stories.gate_lab import PEOPLE, WISHES, Cell, Gates, rows
from tests.stories.test_cross_project import Things, _fill
from tests.stories.whole_cloud import whole_cloud

from nacre.base.serving.gate import AUTHENTICATED, PUBLIC
from nacre.base.web import Reply, Request, Route, Service
from nacre.compute import policies as compute
from nacre.identity import policies as identity
from nacre.identity.policy import PolicyEngine
from nacre.image import policies as image
from nacre.network import policies as network

#: service, method, path, action, rules, what PEOPLE get here, and by OpenStack's defaults ("." where it has no such
#: rule). "+": passes; "0", "1", "3", "4": 400, 401, 403, 404.
TABLE = Path(__file__).parent / "gate.tsv"
DOCS = Path(__file__).parents[2] / "docs" / "policy.md"
ALL = (identity, image, network, compute)
#: Rules that others are made of; no route asks them by name.
SHARED = {name for name in compute.POLICIES if name.startswith("compute:") and name.count(":") == 1}
#: Identity's names are held by a tour of their own: `identity/test_identity_rules.py:test_every_rule_is_felt`.
NAMES = sorted({name for each in (image, network, compute) for name in each.POLICIES} - SHARED)

VALUES: dict[str, Any] = {
    "shared": True, "router:external": True, "is_default": True, "segments": [{"provider:network_type": "vxlan"}],
    "provider:network_type": "vxlan", "provider:physical_network": "physnet1", "provider:segmentation_id": 5,
    "port_security_enabled": False, "device_owner": "network:x",
    "fixed_ips": [{"ip_address": "192.0.2.77", "subnet_id": "=/v2.0/subnets"}],
    "allowed_address_pairs": [{"ip_address": "192.0.2.8"}], "binding:host_id": "h", "binding:vnic_type": "direct",
    "binding:profile": {"a": "b"},
    "mac_address": "fa:16:3e:00:00:01", "service_types": ["compute:nova"],
    "segment_id": "00000000-0000-4000-8000-000000000001", "distributed": False, "ha": False,
    "floating_ip_address": "198.51.100.77", "target_tenant": "e" * 32, "tags": ["a"], "external_gateway_info": {
        "network_id": "=public", "enable_snat": True, "external_fixed_ips": [{"ip_address": "198.51.100.78"}]}}
_SERVER = WISHES["POST /v2.1/servers"]["server"]
#: Bodies that ask for what is a rule's own, of routes that are at their gate only: rule -> (service, route, body).
GATED: dict[str, tuple[str, str, Any]] = {
    "compute:servers:create:requested_destination": ("compute", "POST /v2.1/servers", {
        "server": {**_SERVER, "host": "h1"}}),
    "os_compute_api:servers:create:forced_host": ("compute", "POST /v2.1/servers", {
        "server": {**_SERVER, "availability_zone": "nova:h1"}}),
    "os_compute_api:servers:create:attach_network": ("compute", "POST /v2.1/servers", {
        "server": {**_SERVER, "networks": [{"uuid": "=/v2.0/networks"}]}}),
    "os_compute_api:servers:create:trusted_certs": ("compute", "POST /v2.1/servers", {
        "server": {**_SERVER, "trusted_image_certificates": ["00000000-0000-4000-8000-000000000001"]}}),
    "os_compute_api:os-lock-server:unlock:unlock_override": (
        "compute", "POST /v2.1/servers/{server_id}/action", {"unlock": None}),
    "publicize_image": ("image", "POST /v2/images", {"name": "i", "visibility": "public"}),
    "communitize_image": ("image", "POST /v2/images", {"name": "i", "visibility": "community"}),
    "identity:ec2_create_credential": ("identity", "POST /v3/credentials", {"credential": {
        "type": "ec2", "blob": "{}", "user_id": "=/v3/users"}})}
#: Requests whose handlers ask: rule -> (method, service, path, body). The administrator's answer changes.
ASKED: dict[str, tuple[str, str, str, Any]] = {
    **{f"get_network:{name}": ("GET", "network", "/networks/{/v2.0/networks}", None) for name in (
        "provider:network_type", "provider:physical_network", "provider:segmentation_id")},
    "get_network:segments": ("GET", "network", "/networks/{multi}", None),
    **{f"get_port:{name}": ("GET", "network", "/ports/{/v2.0/ports}", None) for name in (
        "binding:host_id", "binding:profile", "binding:vif_details", "binding:vif_type", "resource_request")},
    **{f"get_router:{name}": ("GET", "network", "/routers/{/v2.0/routers}", None) for name in ("distributed", "ha")},
    "get_subnet:segment_id": ("GET", "network", "/subnets/{/v2.0/subnets}", None),
    "get_agent": ("GET", "network", "/agents", None),
    "network:attach_external_network": ("POST", "compute", "/servers", {"server": {
        **_SERVER, "networks": [{"uuid": "=public"}]}}),
    "os_compute_api:servers:create:zero_disk_flavor": ("POST", "compute", "/servers", {"server": {
        **_SERVER, "flavorRef": "=zero"}}),
    "os_compute_api:limits:other_project": ("GET", "compute", "/limits?tenant_id={/v3/projects}", None),
    "os_compute_api:os-extended-server-attributes": ("GET", "compute", "/servers/{/v2.1/servers}", None),
    "os_compute_api:servers:show:host_status": ("GET", "compute", "/servers/{/v2.1/servers}", None),
    "os_compute_api:servers:show:flavor-extra-specs": ("GET", "compute", "/servers/{/v2.1/servers}", None),
    "os_compute_api:os-server-groups:index:all_projects": ("GET", "compute", "/os-server-groups?all_projects=1", None),
    "os_compute_api:servers:index:get_all_tenants": ("GET", "compute", "/servers?all_tenants=1", None),
    "os_compute_api:servers:detail:get_all_tenants": ("GET", "compute", "/servers/detail?all_tenants=1", None),
    "os_compute_api:servers:allow_all_filters": ("GET", "compute", "/servers?all_tenants=1&host=nowhere", None),
    **{f"os_compute_api:os-instance-actions:{name}": (
        "GET", "compute", "/servers/{/v2.1/servers}/os-instance-actions/{action}", None)
       for name in ("events", "events:details")}}


#: A request, and what it answers.
Way = Callable[[], Awaitable[str]]


@pytest.fixture
async def gates(tmp_path: Path) -> AsyncIterator[Gates]:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    try:
        async with whole_cloud(tmp_path) as cloud:
            things, own = Things(cloud), Things(cloud, "demo-alt")
            for each in (things, own):
                await _fill(each)
            made = Gates(things, own)
            await made.meet()
            yield made
    finally:
        structlog.reset_defaults()


@contextmanager
def forbidden(gates: Gates, rule: str, folder: Path) -> Iterator[None]:
    """The cloud as if the operator's file had said that nobody may."""
    file = folder / "policy.yaml"
    file.write_text(yaml.safe_dump({rule: "!"}))
    before = dict(vars(gates.policy))
    vars(gates.policy).update(vars(PolicyEngine([p.POLICIES for p in ALL], file, [p.SCOPES for p in ALL])))
    try:
        yield
    finally:
        vars(gates.policy).update(before)


async def fault(error: Any, status: int, request: Request) -> Reply:
    raise NotImplementedError


async def handler(request: Request) -> None:
    raise NotImplementedError


def test_a_table_with_a_route_that_names_no_policy_does_not_start() -> None:
    routes = [Route("GET", "/a", handler, PUBLIC), Route("POST", "/b", handler, action="c"),
              Route("GET", "/d", handler, AUTHENTICATED), Route("GET", "/e", handler, "rule")]
    with pytest.raises(ValueError, match=r"Routes of s that name no policy: POST /b c$"):
        Service("s", "/s", routes, fault)  # type: ignore[arg-type]
    Service("s", "/s", [r for r in routes if r.policy], fault)  # type: ignore[arg-type]


def name_of(service: Service, route: Route) -> tuple[str, ...]:
    """The first columns of a route's line."""
    return service.name, route.method, route.path, route.action or "", " ".join(route.gate.rules) or "public"


async def test_the_gate(gates: Gates, tmp_path: Path) -> None:
    """The table, and then each name of a policy: both look at the same cells."""
    cells = [(service, route, [await gates.ask(who, service, route) for who in PEOPLE])
             for service, route in rows(gates.services)]
    found = Counter("\t".join((*name_of(s, r), "".join(c.sign for c in line))) for s, r, line in cells)
    expected = Counter(line.rpartition("\t")[0] for line in TABLE.read_text().splitlines())
    assert found == expected, "\n".join(sorted([*(f"+ {k}" for k in found - expected),
                                                *(f"- {k}" for k in expected - found)]))
    for _, route, line in cells:  # no route asks a rule that its gate does not name
        assert {rule for cell in line for rule, _, _ in cell.asked} <= route.gate.names, route.path
    ways = {**_passed(gates, cells), **await _gated(gates), **{
        rule: _request(gates, *line) for rule, line in ASKED.items()}}
    assert not (idle := sorted(set(NAMES) - set(ways))), f"asked by no request: {idle}"
    silent = [rule for rule in NAMES if not await _felt(gates, rule, ways[rule], tmp_path)]
    assert not silent, f"forbidden, and nothing is refused: {silent}"


async def _felt(gates: Gates, rule: str, way: Way, folder: Path) -> bool:
    """Whether the answer is another one where the operator's file forbids the rule. Asked for without it last, since
    then the request may have made something."""
    with forbidden(gates, rule, folder):
        refused = await way()
    passed = await way()
    assert not passed.startswith(("403", "3")), (rule, passed)
    return refused != passed


def _passed(gates: Gates, cells: list[tuple[Service, Route, list[Cell]]]) -> dict[str, Way]:
    """Requests of the table that passed, by the rules that were asked."""
    found: dict[str, Way] = {}
    for service, route, line in cells:
        for who, cell in zip(PEOPLE, line, strict=True):
            if all(passed for _, _, passed in cell.asked):
                for rule, _, _ in cell.asked:
                    found.setdefault(rule, _at_gate(gates, who, (service, route)))
    return found


async def _gated(gates: Gates) -> dict[str, Way]:
    """Requests of the administrator that name what has a rule of its own, which the gate asks."""
    locked = await gates.cloud.ask("demo", "POST", "compute", f"/servers/{gates.things.ids['/v2.1/servers']}/action",
                                   {"lock": None})
    assert locked.status_code == 202
    lines = {f"{s.name} {r.method} {r.path} {r.action or ''}".rstrip(): (s, r) for s, r in rows(gates.services)}
    found = {rule: _at_gate(gates, "admin", lines[f"{name} {line}{' unlock' if 'unlock' in rule else ''}"],
                            gates.filled(body)) for rule, (name, line, body) in GATED.items()}
    for rule in NAMES:
        match = re.fullmatch(r"(create|update)_([a-z_]+):(.+)", rule)
        if match and match[3] != "tags":
            verb, name, attribute = match.groups()
            attribute = next(name for name in VALUES if re.fullmatch(f"{name}(:.+)?", attribute))
            whole = WISHES[f"POST {_url(name, 'create')}"][name] if verb == "create" else {}
            found[rule] = _at_gate(gates, "admin", lines[
                f"network {'POST' if verb == 'create' else 'PUT'} {_url(name, verb)}"],
                gates.filled({name: {**whole, attribute: VALUES[attribute]}}))
    return found


def _at_gate(gates: Gates, who: str, line: tuple[Service, Route], body: Any = None) -> Way:
    async def way() -> str:
        return (await gates.ask(who, *line, body)).sign
    return way


def _url(name: str, verb: str) -> str:
    plural = {"address_scope": "address-scopes", "rbac_policy": "rbac-policies"}.get(name, f"{name}s")
    return f"/v2.0/{plural}" + ("" if verb == "create" else "/{id}")


def _request(gates: Gates, method: str, service: str, path: str, body: Any) -> Way:
    async def way() -> str:
        server = gates.things.ids["/v2.1/servers"]
        if "{action}" in path:
            done = await gates.cloud.ask("admin", "GET", "compute", f"/servers/{server}/os-instance-actions")
            gates.things.ids["action"] = done.json()["instanceActions"][-1]["request_id"]
        url = re.sub(r"\{(.+?)\}", lambda m: gates.things.ids[m[1]], path)
        answer = await gates.cloud.ask("admin", method, service, url, gates.filled(body))
        return f"{answer.status_code} {answer.text if method == 'GET' else ''}"
    return way


def test_differences_from_openstack_are_in_the_docs() -> None:
    """Each rule whose answer is not OpenStack's is named in the document, with its reason; and the count is true."""
    text, lines = DOCS.read_text(), [line.split("\t") for line in TABLE.read_text().splitlines()]
    said = set(re.findall(r"^\| `([^`]+)`", text, re.M))
    differs = {line[4] for line in lines if "." not in line[6] and line[5] != line[6]}
    assert differs <= said, sorted(differs - said)
    assert said <= differs, sorted(said - differs)
    assert f"{len(lines)} routes x {len(PEOPLE)} callers = {len(lines) * len(PEOPLE)} answers" in text
