"""/os-networks, /os-tenant-networks, /os-floating-ips and /os-floating-ip-pools, to 2.35."""

from collections.abc import Mapping
from typing import Any

from oslo_utils.uuidutils import is_uuid_like

from nacre.base.errors import BadRequest, Conflict, Gone, NotFound, QuotaExceeded
from nacre.base.serving.gate import AUTHENTICATED
from nacre.base.serving.inside import Asked
from nacre.base.web import Reply, Request, Route
from nacre.compute.api.microversions import PROXIES_UNTIL
from nacre.compute.api.validation import Schema
from nacre.compute.policies import rule

#: What a network had before there was a network service, and what of it administrators saw: all of it null today.
_FIELDS = ("cidr", "netmask", "gateway", "broadcast", "dns1", "dns2", "cidr_v6", "gateway_v6", "netmask_v6")
_ADMIN_FIELDS = (
    "created_at", "updated_at", "deleted_at", "deleted", "injected", "bridge", "vlan", "vpn_public_address",
    "vpn_public_port", "vpn_private_address", "dhcp_start", "project_id", "host", "bridge_interface", "multi_host",
    "priority", "rxtx_base", "mtu", "dhcp_server", "enable_dhcp", "share_address")
_POOL = Schema({"type": ["object", "null"],
                "properties": {"pool": {"type": ["string", "null"]}}})
_ANY = Schema({})


class NetworkRoutes:
    """The network service's networks and floating IPs, as they were. network: that service."""

    def __init__(self, network: Asked):
        self._network = network

    def routes(self) -> list[Route]:
        """Every URL."""
        nets, mine, floats = "/v2.1/os-networks", "/v2.1/os-tenant-networks", "/v2.1/os-floating-ips"
        old, one = PROXIES_UNTIL, "/{id}"
        return [
            Route("GET", nets, self.networks, rule("os-networks:list"), until=old),
            Route("GET", nets + one, self.network, rule("os-networks:show"), until=old),
            Route("GET", mine, self.tenant_networks, rule("os-tenant-networks:list"), until=old),
            Route("GET", mine + one, self.tenant_network, rule("os-tenant-networks:show"), until=old),
            # What only the compute service's own networks could do ended with them, at every version.
            *(Route(method, path, self.gone, AUTHENTICATED, body=_ANY if method == "POST" else None)
              for method, path in (
                ("POST", nets), ("DELETE", nets + one), ("POST", nets + "/add"), ("POST", nets + one + "/action"),
                ("POST", mine), ("DELETE", mine + one))),
            Route("GET", floats, self.floating_ips, rule("os-floating-ips:list"), until=old),
            Route("POST", floats, self.create, rule("os-floating-ips:create"), body=_POOL, until=old),
            Route("GET", floats + one, self.floating_ip, rule("os-floating-ips:show"), until=old),
            Route("DELETE", floats + one, self.delete, rule("os-floating-ips:delete"), until=old),
            Route("GET", "/v2.1/os-floating-ip-pools", self.pools, rule("os-floating-ip-pools"), until=old)]

    async def networks(self, request: Request) -> Any:
        """GET /os-networks."""
        return {"networks": [_network(request, net) for net in await self._networks(request)]}

    async def network(self, request: Request) -> Any:
        """GET /os-networks/{id}."""
        return {"network": _network(request, await self._find(request))}

    async def tenant_networks(self, request: Request) -> Any:
        """GET /os-tenant-networks."""
        return {"networks": [_tenant_network(net) for net in await self._networks(request)]}

    async def tenant_network(self, request: Request) -> Any:
        """GET /os-tenant-networks/{id}."""
        return {"network": _tenant_network(await self._find(request))}

    async def gone(self, request: Request) -> Any:
        """What there is no more."""
        raise Gone("This API ended with the compute service's own networks.")

    async def floating_ips(self, request: Request) -> Any:
        """GET /os-floating-ips: the project's own."""
        mine = [("project_id", request.context.project_id or "")]
        found = (await self._network.ask(request.context, "GET /v2.0/floatingips", query=mine))["floatingips"]
        pools = {net["id"]: net for net in await self._pools(request)}
        return {"floating_ips": [_floating_ip(each, pools) for each in found]}

    async def floating_ip(self, request: Request) -> Any:
        """GET /os-floating-ips/{id}."""
        found = await self._floating_ip(request)
        return {"floating_ip": _floating_ip(found, {net["id"]: net for net in await self._pools(request)})}

    async def create(self, request: Request) -> Any:
        """POST /os-floating-ips. Without a pool: the first there is."""
        wanted, pools = (request.body or {}).get("pool"), await self._pools(request)
        fitting = [p for p in pools if wanted in (None, p["id"])] or [p for p in pools if p["name"] == wanted]
        if not fitting:
            raise NotFound("Floating IP pool not found.")
        if wanted is not None and len(fitting) > 1:
            raise Conflict(f"Multiple floating IP pools matches found for name '{wanted}'")
        said = f" in pool {wanted}" if wanted else ""
        try:
            made = await self._network.ask(request.context, "POST /v2.0/floatingips", {
                "floatingip": {"floating_network_id": fitting[0]["id"]}})
        except QuotaExceeded:
            raise QuotaExceeded(f"IP allocation over quota{said}.") from None
        except Conflict:
            raise NotFound(f"No more floating IPs{said or ' available'}.") from None
        return {"floating_ip": _floating_ip(made["floatingip"], {p["id"]: p for p in pools})}

    async def delete(self, request: Request) -> Any:
        """DELETE /os-floating-ips/{id}."""
        found = await self._floating_ip(request)
        await self._network.ask(request.context, f"DELETE /v2.0/floatingips/{found['id']}")
        return Reply(status=202)

    async def pools(self, request: Request) -> Any:
        """GET /os-floating-ip-pools: the external networks."""
        return {"floating_ip_pools": [{"name": pool["name"] or pool["id"]} for pool in await self._pools(request)]}

    async def _networks(self, request: Request) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self._network.ask(request.context, "GET /v2.0/networks"))["networks"]
        return found

    async def _find(self, request: Request) -> dict[str, Any]:
        missing = NotFound("Network not found")
        if "/" in (ident := request.params["id"]):
            raise missing
        try:
            found: dict[str, Any] = (await self._network.ask(request.context, f"GET /v2.0/networks/{ident}"))["network"]
        except NotFound:
            raise missing from None
        return found

    async def _pools(self, request: Request) -> list[dict[str, Any]]:
        return [net for net in await self._networks(request) if net["router:external"]]

    async def _floating_ip(self, request: Request) -> dict[str, Any]:
        if not is_uuid_like(ident := request.params["id"]):
            raise BadRequest(f"Invalid ID received {ident[:64]}.", field="id")
        try:
            found: dict[str, Any] = (await self._network.ask(
                request.context, f"GET /v2.0/floatingips/{ident}"))["floatingip"]
        except NotFound:
            raise NotFound(f"Floating IP not found for ID {ident}") from None
        return found


def _network(request: Request, net: Mapping[str, Any]) -> dict[str, Any]:
    names = (*_FIELDS, *(_ADMIN_FIELDS if request.context.is_admin else ()))
    return {**dict.fromkeys(names), "id": net["id"], "label": net["name"]}


def _tenant_network(net: Mapping[str, Any]) -> dict[str, Any]:
    return {"id": net["id"], "cidr": "None", "label": net["name"]}


def _floating_ip(each: Mapping[str, Any], pools: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    pool = pools.get(each["floating_network_id"], {})
    return {"id": each["id"], "ip": each["floating_ip_address"], "fixed_ip": each["fixed_ip_address"],
            "instance_id": (each.get("port_details") or {}).get("device_id") or None,
            "pool": pool.get("name") or each["floating_network_id"]}
