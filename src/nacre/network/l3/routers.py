"""Routers: their interfaces, gateways and routes, as rows. Forwarding between networks is not wired by this module."""

import ipaddress
from collections import defaultdict
from collections.abc import Sequence

import sqlalchemy as sa

from nacre.base.errors import BadRequest, NotFound
from nacre.network import networks, ports
from nacre.network import tables as t
from nacre.network.addresses import ipam, subnets
from nacre.network.l3.gateways import refuse_floating, service_port, settle
from nacre.network.nouns.attributes import Attributes
from nacre.network.nouns.noun import View
from nacre.network.nouns.port import Placed, Port, PortAddress
from nacre.network.nouns.router import ROUTER, Router, interface_view, view
from nacre.network.nouns.subnet import Subnet
from nacre.network.sharing import access
from nacre.network.work import Work, among, conflict, missing, where

INTERFACE, GATEWAY = "network:router_interface", "network:router_gateway"


class Routers:
    """The store behind /routers."""

    resource = ROUTER

    def list(self, work: Work, filters: Attributes) -> list[Router]:
        return work.search(Router, access.own(work, t.routers), *where(t.routers, filters))

    def views(self, work: Work, found: Sequence[Router]) -> Sequence[View]:
        fixed = defaultdict[str | None, list[tuple[str, str]]](list)
        if gateways := [router.gateway_port_id for router in found if router.gateway_port_id]:
            for address in work.search(PortAddress, among(t.addresses.c.port_id, gateways), order=("position",)):
                fixed[address.port_id].append((address.subnet_id, address.ip_address))
        return [view(router, fixed[router.gateway_port_id]) for router in found]

    def target(self, work: Work, data: Attributes) -> Attributes:
        return {}

    def create(self, work: Work, data: Attributes) -> View:
        work.room("router", data["project_id"])
        router = work.add(Router(
            **work.new(data), name=data["name"], admin_state_up=data["admin_state_up"], routes=[], gateway_port_id=None,
            gateway_network_id=None, enable_snat=True, availability_zone_hints=data["availability_zone_hints"]))
        if data["external_gateway_info"]:
            self._set_gateway(work, router, data["external_gateway_info"])
        return self.views(work, self.list(work, {"id": [router.id]}))[0]

    def update(self, work: Work, current: Router, data: Attributes) -> None:
        if "external_gateway_info" in data:
            self._set_gateway(work, current, data["external_gateway_info"])
        if "routes" in data:
            self._check_routes(work, current.id, data["routes"])
        work.change(t.routers, current.id, {k: data[k] for k in ("name", "description", "admin_state_up", "routes")
                                            if k in data})

    def delete(self, work: Work, current: Router) -> None:
        if work.first(Port, device_id=current.id, device_owner=INTERFACE):
            raise conflict("RouterInUse", f"Router {current.id} still has ports")
        self._set_gateway(work, current, None)
        work.remove(t.routers, id=current.id)

    def _set_gateway(self, work: Work, router: Router, info: Attributes | None) -> None:
        if not info:
            self._drop_gateway(work, router)
            values: Attributes = {"gateway_port_id": None, "gateway_network_id": None, "enable_snat": True}
        elif "network_id" not in info:
            raise BadRequest("Invalid input for external_gateway_info. Reason: network_id is required.",
                             field="external_gateway_info", type="HTTPBadRequest")
        else:
            values = {"enable_snat": info.get("enable_snat", True)}
            if router.gateway_network_id != info["network_id"] or "external_fixed_ips" in info:
                values |= self._new_gateway(work, router, info)
        work.conn.execute(sa.update(t.routers).where(t.routers.c.id == router.id).values(**values))

    def _drop_gateway(self, work: Work, router: Router, kept: str = "") -> None:
        """kept: the id of the network on which it gets another."""
        if router.gateway_port_id is None:
            return
        if router.gateway_network_id != kept:
            refuse_floating(work, router.id, "RouterExternalGatewayInUseByFloatingIp", (
                f"Gateway cannot be updated for router {router.id}, since a gateway to external network "
                f"{router.gateway_network_id} is required by one or more floating IPs."))
        ports.drop(work, [router.gateway_port_id])

    def _new_gateway(self, work: Work, router: Router, info: Attributes) -> Attributes:
        network = networks.get(work, info["network_id"])
        if not network.external:
            raise BadRequest(f"Bad router request: Network {network.id} is not an external network.",
                             field="external_gateway_info", type="BadRequest")
        self._drop_gateway(work, router, network.id)
        port, _ = service_port(work, network, (router.id, GATEWAY), info.get("external_fixed_ips"))
        return {"gateway_port_id": port.id, "gateway_network_id": network.id}

    def _check_routes(self, work: Work, router_id: str, routes: Sequence[Attributes]) -> None:
        nets = [ipaddress.ip_network(s.cidr) for s in connected(work, router_id, (INTERFACE, GATEWAY))]
        for route in routes:
            hop = ipaddress.ip_address(route["nexthop"])
            if not any(hop.version == n.version and hop in n for n in nets):
                raise BadRequest(f"Invalid format for routes: {list(routes)}, the nexthop is not connected with router",
                                 field="routes", type="InvalidRoutes")

    def add_interface(self, work: Work, router: Router, body: Attributes) -> View:
        """Joins a subnet (with its gateway address) or a port to the router. Raises BadRequest, NotFound, Conflict."""
        if ("port_id" in body) == ("subnet_id" in body):
            raise BadRequest("Bad router request: Either subnet_id or port_id must be specified, and not both.",
                             type="BadRequest")
        if "port_id" in body:
            port = self._own_port(work, body["port_id"])
            if port.device_id or port.server_id is not None:
                raise conflict("PortInUse", f"Unable to complete operation on port {port.id} for network "
                               f"{port.network_id}. Port already has an attached device {port.device_id}.")
            ids = [subnet_id for subnet_id, _ in ports.parts(work, [port])[0][port.id]]
            if not ids:
                raise BadRequest("Bad router request: Router port must have at least one fixed IP.", type="BadRequest")
            for subnet_id in ids:
                self._check_new(work, router.id, subnets.get(work, subnet_id))
            work.change(t.ports, port.id, {"device_id": router.id, "device_owner": INTERFACE})
            work.touch(t.routers, router.id)
            settle(work, port.id)
            return interface_view(router, port.id, port.network_id, ids)
        subnet = subnets.get(work, body["subnet_id"])
        network = networks.get(work, subnet.network_id)
        if network.project_id != router.project_id and not work.context.is_admin and not access.is_shared(
                work, "network", network.id):
            raise missing("subnet", subnet.id)
        if not subnet.gateway_ip:
            raise BadRequest("Bad router request: Subnet for router interface must have a gateway IP.",
                             type="BadRequest")
        self._check_new(work, router.id, subnet)
        port, _ = service_port(work, network, (router.id, INTERFACE),
                               [{"subnet_id": subnet.id, "ip_address": subnet.gateway_ip}], router.project_id)
        work.touch(t.routers, router.id)
        return interface_view(router, port.id, network.id, [subnet.id])

    def _own_port(self, work: Work, port_id: str) -> Placed:
        found = ports.Ports().list(work, {"id": [port_id]})
        if not found or (found[0].project_id != work.context.project_id and not work.context.is_admin):
            raise missing("port", port_id)
        return found[0]

    def _check_new(self, work: Work, router_id: str, subnet: Subnet) -> None:
        for other in connected(work, router_id, (INTERFACE, GATEWAY)):
            if other.id == subnet.id:
                raise BadRequest(f"Bad router request: Router already has a port on subnet {subnet.id}.",
                                 type="BadRequest")
            if ipam.overlap(subnet.cidr, [other.cidr]):
                raise BadRequest(f"Bad router request: Cidr {subnet.cidr} of subnet {subnet.id} overlaps with "
                                 f"cidr {other.cidr} of subnet {other.id}.", type="BadRequest")

    def remove_interface(self, work: Work, router: Router, body: Attributes) -> View:
        """Takes a subnet's or port's interface away. Raises NotFound, Conflict while floating IPs or routes need it."""
        p, a = t.ports.c, t.addresses.c
        if not body.keys() & {"port_id", "subnet_id"}:
            raise BadRequest("Bad router request: Either subnet_id or port_id must be specified.", type="BadRequest")
        rows = work.rows(sa.select(p.id, p.network_id, a.subnet_id).join(t.addresses, a.port_id == p.id).where(
            p.device_id == router.id, p.device_owner == INTERFACE))
        fitting = [r for r in rows if r["id"] == body.get("port_id", r["id"])
                   and r["subnet_id"] == body.get("subnet_id", r["subnet_id"])]
        if not fitting:
            if "port_id" in body:
                raise NotFound(f"Router {router.id} does not have an interface with id {body['port_id']}",
                               type="RouterInterfaceNotFound")
            raise NotFound(f"Router {router.id} has no interface on subnet {body['subnet_id']}",
                           type="RouterInterfaceNotFoundForSubnet")
        port_id, ids = fitting[0]["id"], [r["subnet_id"] for r in rows if r["id"] == fitting[0]["id"]]
        self._refuse_used(work, router, ids)
        ports.drop(work, [port_id])
        work.touch(t.routers, router.id)
        return interface_view(router, port_id, fitting[0]["network_id"], ids)

    def _refuse_used(self, work: Work, router: Router, subnet_ids: Sequence[str]) -> None:
        f, a = t.floatingips.c, t.addresses.c
        if work.row(sa.select(f.id).join(t.addresses, a.port_id == f.port_id).where(
                f.router_id == router.id, a.subnet_id.in_(subnet_ids),
                a.ip_address == f.fixed_ip_address).limit(1)):
            raise conflict("RouterInterfaceInUseByFloatingIP",
                           f"Router interface for subnet {subnet_ids[0]} on router {router.id} cannot be deleted, "
                           "as it is required by one or more floating IPs.")
        for subnet in work.select(Subnet, id=subnet_ids):
            net = ipaddress.ip_network(subnet.cidr)
            if any(ipaddress.ip_address(r["nexthop"]) in net for r in router.routes):
                raise conflict("RouterInterfaceInUseByRoute",
                               f"Router interface for subnet {subnet.id} on router {router.id} cannot be "
                               "deleted, as it is required by one or more routes.")


def connected(work: Work, router_id: str, owners: Sequence[str]) -> list[Subnet]:
    """The subnets that a router has a port on."""
    p, a = t.ports.c, t.addresses.c
    return work.search(Subnet, t.subnets.c.id.in_(
        sa.select(a.subnet_id).join(t.ports, p.id == a.port_id).where(
            p.device_id == router_id, p.device_owner.in_(owners))))

