"""Security groups by the compute API: the groups and rules themselves to 2.35, those of a server at every version."""

from collections.abc import Iterable, Mapping
from ipaddress import ip_address, ip_network
from typing import Any
from urllib.parse import unquote

from oslo_utils.uuidutils import is_uuid_like

from nacre.base.errors import BadRequest, Conflict, NotFound
from nacre.base.serving.inside import Asked
from nacre.base.web import Reply, Request, Route
from nacre.compute.api import types as t
from nacre.compute.api.microversions import PROXIES_UNTIL
from nacre.compute.api.paging import MAX_LIMIT
from nacre.compute.api.proxies.ports import ports_of
from nacre.compute.api.servers.finding import Finder
from nacre.compute.api.validation import Query, Schema
from nacre.compute.policies import rule

_GROUPS = "/v2.0/security-groups"
_RULES = "/v2.0/security-group-rules"
_TEXT = {"type": "string", "maxLength": 255}
_GROUP = Schema({"type": "object", "required": ["security_group"], "properties": {"security_group": {
    "type": "object", "required": ["name", "description"], "properties": {"name": _TEXT, "description": _TEXT}}}})
_RULE = Schema({"type": "object", "required": ["security_group_rule"], "properties": {"security_group_rule": {
    "type": "object", "required": ["parent_group_id"], "properties": {
        "group_id": {"type": ["string", "null"], "format": "uuid"}, "parent_group_id": t.UUID}}}})
_LIST = Query("security_group.query", {"limit": t.COUNT, "offset": t.COUNT, "all_tenants": t.STRING})


class GroupRoutes:
    """/os-security-groups, /os-security-group-rules, a server's groups. network: the network service."""

    def __init__(self, network: Asked, find: Finder):
        self._network, self._find = network, find

    def routes(self) -> list[Route]:
        """Every URL."""
        many, one, old = "/v2.1/os-security-groups", "/v2.1/os-security-groups/{id}", PROXIES_UNTIL
        rules, name, action = "/v2.1/os-security-group-rules", "os-security-groups:", "/v2.1/servers/{server_id}/action"

        def named(verb: str) -> Schema:
            return Schema(t.wrap(verb, t.obj({"name": {"type": "string", "minLength": 1}}, "name")))

        return [
            Route("GET", many, self.index, rule(name + "get"), query=_LIST, until=old),
            Route("POST", many, self.create, rule(name + "create"), body=_GROUP, until=old),
            Route("GET", one, self.show, rule(name + "show"), until=old),
            Route("PUT", one, self.update, rule(name + "update"), body=_GROUP, until=old),
            Route("DELETE", one, self.delete, rule(name + "delete"), until=old),
            Route("POST", rules, self.create_rule, rule(name + "rule:create"), body=_RULE, until=old),
            Route("DELETE", rules + "/{id}", self.delete_rule, rule(name + "rule:delete"), until=old),
            Route("GET", "/v2.1/servers/{server_id}/os-security-groups", self.of_server, self._find.may(name + "list")),
            *(Route("POST", action, handler, self._find.may(name + verb), action=key, body=named(key))
              for key, verb, handler in (("addSecurityGroup", "add", self.add),
                                         ("removeSecurityGroup", "remove", self.remove)))]

    async def index(self, request: Request) -> Any:
        """GET /os-security-groups: the project's own."""
        context = request.context
        everyone = context.is_admin and request.one("all_tenants") is not None
        query = [] if everyone else [("project_id", context.project_id or "")]
        found = (await self._network.ask(context, f"GET {_GROUPS}", query=query))["security_groups"]
        start = int(request.one("offset") or 0)
        found = found[start:start + min(int(request.one("limit") or MAX_LIMIT), MAX_LIMIT)]
        return {"security_groups": await self._views(request, found)}

    async def show(self, request: Request) -> Any:
        """GET /os-security-groups/{id}."""
        return {"security_group": (await self._views(request, [await self._group(request, _id(request))]))[0]}

    async def create(self, request: Request) -> Any:
        """POST /os-security-groups."""
        made = await self._network.ask(request.context, f"POST {_GROUPS}", {"security_group": _said(request)})
        return {"security_group": (await self._views(request, [made["security_group"]]))[0]}

    async def update(self, request: Request) -> Any:
        """PUT /os-security-groups/{id}."""
        now = await self._network.ask(request.context, f"PUT {_GROUPS}/{_id(request)}",
                                      {"security_group": _said(request)})
        return {"security_group": (await self._views(request, [now["security_group"]]))[0]}

    async def delete(self, request: Request) -> Any:
        """DELETE /os-security-groups/{id}."""
        try:
            await self._network.ask(request.context, f"DELETE {_GROUPS}/{_id(request)}")
        except Conflict as error:
            raise BadRequest(error.message) from None
        return Reply(status=202)

    async def create_rule(self, request: Request) -> Any:
        """POST /os-security-group-rules: for what comes in."""
        given = request.body["security_group_rule"]
        wanted = _rule_of(given)
        for ident in (given["parent_group_id"], given.get("group_id")):
            if ident:
                await self._group(request, ident)
        try:
            made = await self._network.ask(request.context, f"POST {_RULES}", {"security_group_rule": wanted})
        except Conflict:
            raise BadRequest(f"This rule already exists in group {given['parent_group_id']}") from None
        return {"security_group_rule": (await self._rules(request, [made["security_group_rule"]]))[0]}

    async def delete_rule(self, request: Request) -> Any:
        """DELETE /os-security-group-rules/{id}."""
        await self._network.ask(request.context, f"DELETE {_RULES}/{_id(request)}")
        return Reply(status=202)

    async def of_server(self, request: Request) -> Any:
        """GET /servers/{id}/os-security-groups: the groups of its ports."""
        ids = {group for port in await ports_of(self._network, request) for group in port["security_groups"]}
        query = [("id", ident) for ident in sorted(ids)]
        found = (await self._network.ask(request.context, f"GET {_GROUPS}", query=query))[
            "security_groups"] if ids else []
        return {"security_groups": await self._views(request, found)}

    async def add(self, request: Request) -> Any:
        """Action addSecurityGroup: every port of the server gets it."""
        server = request.found
        group = await self._named(request, request.body["addSecurityGroup"]["name"])
        ports = await ports_of(self._network, request)
        if not ports:
            raise NotFound(f"instance_id {server.id} could not be found as device id on any ports")
        for port in ports:
            if not port["fixed_ips"] or not port.get("port_security_enabled", True):
                raise BadRequest("Network requires port_security_enabled and subnet associated in order to apply "
                                 "security groups.")
            if group not in port["security_groups"]:
                await self._put(request, port["id"], [*port["security_groups"], group])
        return Reply(status=202)

    async def remove(self, request: Request) -> Any:
        """Action removeSecurityGroup: no port of the server has it any more."""
        server = request.found
        name = request.body["removeSecurityGroup"]["name"]
        group = await self._named(request, name)
        ports = [port for port in await ports_of(self._network, request) if group in port["security_groups"]]
        if not ports:
            raise NotFound(f"Security group {name} not associated with the instance {server.id}")
        for port in ports:
            await self._put(request, port["id"], [other for other in port["security_groups"] if other != group])
        return Reply(status=202)

    async def _put(self, request: Request, port: str, groups: list[str]) -> None:
        await self._network.ask(request.context, f"PUT /v2.0/ports/{port}", {"port": {"security_groups": groups}})

    async def _named(self, request: Request, name: str) -> str:
        """The id of the caller's group of that id or name. Raises NotFound, Conflict."""
        mine = ("project_id", request.context.project_id or "")
        for key in ("id", "name"):
            found = (await self._network.ask(request.context, f"GET {_GROUPS}", query=[(key, name), mine]))[
                "security_groups"]
            if len(found) > 1:
                raise Conflict(f"Multiple security_group matches found for name '{name}', use an ID to be more "
                               "specific.")
            if found:
                return str(found[0]["id"])
        raise NotFound(f"Security group {name} is not found for project {request.context.project_id}")

    async def _group(self, request: Request, ident: str) -> dict[str, Any]:
        found: dict[str, Any] = (await self._network.ask(request.context, f"GET {_GROUPS}/{ident}"))["security_group"]
        return found

    async def _views(self, request: Request, groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
        rules = await self._rules(request, [r for group in groups for r in group["security_group_rules"]], groups)
        found = [{"id": g["id"], "name": g["name"], "description": g["description"], "tenant_id": g["project_id"],
                  "rules": [r for r in rules if r["parent_group_id"] == g["id"]]} for g in groups]
        return sorted(found, key=lambda group: (group["tenant_id"], group["name"]))

    async def _rules(self, request: Request, rules: Iterable[Mapping[str, Any]],
                     groups: Iterable[Mapping[str, Any]] = ()) -> list[dict[str, Any]]:
        """What comes in, as this API shows it; without rules for groups that are not the caller's to see."""
        inward = [r for r in rules if r["direction"] == "ingress"]
        known = {g["id"]: g for g in groups}
        if lacking := sorted({r["remote_group_id"] for r in inward if r["remote_group_id"]} - known.keys()):
            found = await self._network.ask(request.context, f"GET {_GROUPS}", query=[("id", x) for x in lacking])
            known |= {g["id"]: g for g in found["security_groups"]}
        return [_rule_view(r, known) for r in inward if not r["remote_group_id"] or r["remote_group_id"] in known]


def _id(request: Request) -> str:
    """Raises BadRequest: ids are UUIDs."""
    if not is_uuid_like(ident := request.params["id"]):
        raise BadRequest("Security group id should be uuid")
    return ident


def _said(request: Request) -> dict[str, str]:
    given = request.body["security_group"]
    return {"name": given["name"], "description": given["description"]}


def _rule_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """The network service's rule. Raises BadRequest."""
    protocol, ports = given.get("ip_protocol"), list[Any]((given.get("from_port"), given.get("to_port")))
    name = protocol.upper() if isinstance(protocol, str) else ""
    group, cidr = given.get("group_id"), None
    if group is None:
        cidr = unquote(str(given.get("cidr") or "0.0.0.0/0"))
    elif ports == [None, None]:
        ports = {"ICMP": [-1, -1], "TCP": [1, 65535], "UDP": [1, 65535]}.get(name, ports)
    found: dict[str, Any] = {"direction": "ingress", "security_group_id": given["parent_group_id"], "ethertype": "IPv4",
                             "remote_group_id": group, "remote_ip_prefix": cidr}
    if cidr is not None:
        try:
            found["ethertype"] = f"IPv{ip_network(cidr, strict=False).version}"
        except ValueError:
            raise BadRequest(f"Invalid cidr {cidr[:64]}.", field="cidr") from None
        if cidr.endswith("/0") and int(ip_address(cidr.partition("/")[0])):
            raise BadRequest(f"Bad prefix for network in cidr {cidr}", field="cidr")
    if not protocol or None in ports:
        if group is None:
            raise BadRequest("Not enough parameters to build a valid rule.")
        return found
    low, high = _ports(name, ports)
    if name not in ("TCP", "UDP", "ICMP"):
        raise BadRequest(f"Invalid IP protocol {str(protocol)[:64]}.", field="ip_protocol")
    found["protocol"] = name.lower()
    found |= {key: port for key, port in (("port_range_min", low), ("port_range_max", high)) if port != -1}
    return found


def _ports(name: str, ports: list[Any]) -> tuple[int, int]:
    try:
        low, high = (int(port) for port in ports)
    except (ValueError, TypeError, OverflowError):
        raise BadRequest("Type and Code must be integers for ICMP protocol type" if name == "ICMP"
                         else "To and From ports must be integers", field="from_port") from None
    if name in ("TCP", "UDP") and low > high:
        raise BadRequest(f"Invalid port range {low}:{high}. Former value cannot be greater than the later",
                         field="from_port")
    if name in ("TCP", "UDP") and (low < 1 or high > 65535):
        raise BadRequest(f"Invalid port range {low}:{high}. Valid {name} ports should be between 1-65535",
                         field="from_port")
    if name == "ICMP" and not (-1 <= low <= 255 and -1 <= high <= 255):
        raise BadRequest(f"Invalid port range {low}:{high}. For ICMP, the type:code must be valid", field="from_port")
    return low, high


def _rule_view(r: Mapping[str, Any], groups: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    low, high = r["port_range_min"], r["port_range_max"]
    if r["protocol"] and low is None and high is None:
        low, high = (1, 65535) if r["protocol"] in ("tcp", "udp") else (-1, -1)
    remote = groups.get(r["remote_group_id"] or "")
    return {"id": r["id"], "parent_group_id": r["security_group_id"], "ip_protocol": r["protocol"], "from_port": low,
            "to_port": high, "group": {"name": remote["name"], "tenant_id": remote["project_id"]} if remote else {},
            "ip_range": {} if remote else {"cidr": r["remote_ip_prefix"] or "0.0.0.0/0"}}
