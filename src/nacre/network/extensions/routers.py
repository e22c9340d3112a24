"""Routers: their interfaces, gateways and routes, as rows. Forwarding between networks is not wired by this module."""

import ipaddress
from collections import defaultdict
from collections.abc import Sequence

import sqlalchemy as sa

from nacre.base.errors import BadRequest, NotFound
from nacre.network import ipam, networks, ports, subnets
from nacre.network import tables as t
from nacre.network.extensions.gateways import own, refuse_floating, service_port, settle
from nacre.network.networks import among
from nacre.network.nouns.definitions import ROUTER
from nacre.network.nouns.port import Placed
from nacre.network.nouns.subnet import Subnet
from nacre.network.work import Row, Work, conflict, missing, standard_view, where

INTERFACE, GATEWAY = "network:router_interface", "network:router_gateway"


class Routers:
    """The store behind /routers."""

    resource = ROUTER

    def list(self, work: Work, filters: Row) -> list[Row]:
        rows = work.rows(sa.select(t.routers).where(own(work, t.routers), *where(t.routers, filters)))
        fixed: dict[str, list[Row]] = defaultdict(list)
        if gateways := [r["gateway_port_id"] for r in rows if r["gateway_port_id"]]:
            for a in work.rows(sa.select(t.addresses).where(among(t.addresses.c.port_id, gateways)).order_by(
                    t.addresses.c.position)):
                fixed[a["port_id"]].append({"subnet_id": a["subnet_id"], "ip_address": a["ip_address"]})
        return [_view(r, fixed[r["gateway_port_id"]]) for r in rows]

    def views(self, work: Work, found: Sequence[Row]) -> Sequence[Row]:
        return found

    def target(self, work: Work, data: Row) -> Row:
        return {}

    def create(self, work: Work, data: Row) -> Row:
        work.room("router", data["project_id"])
        row = work.insert(t.routers, {
            **work.new(data), "name": data["name"], "admin_state_up": data["admin_state_up"], "routes": [],
            "gateway_port_id": None, "gateway_network_id": None, "enable_snat": True,
            "availability_zone_hints": data["availability_zone_hints"]})
        if data["external_gateway_info"]:
            self._set_gateway(work, _view(row, []), data["external_gateway_info"])
        return self.list(work, {"id": [row["id"]]})[0]

    def update(self, work: Work, current: Row, data: Row) -> Row:
        if "external_gateway_info" in data:
            self._set_gateway(work, current, data["external_gateway_info"])
        if "routes" in data:
            self._check_routes(work, current["id"], data["routes"])
        work.change(t.routers, current["id"], {k: data[k] for k in ("name", "description", "admin_state_up", "routes")
                                               if k in data})
        return current | data

    def delete(self, work: Work, current: Row) -> None:
        if work.row(sa.select(t.ports.c.id).where(t.ports.c.device_id == current["id"],
                                                  t.ports.c.device_owner == INTERFACE).limit(1)):
            raise conflict("RouterInUse", f"Router {current['id']} still has ports")
        self._set_gateway(work, current, None)
        work.remove(t.routers, id=current["id"])

    def _set_gateway(self, work: Work, current: Row, info: Row | None) -> None:
        r = t.routers.c
        row = work.row(sa.select(r.gateway_port_id, r.gateway_network_id).where(r.id == current["id"]))
        if row is None:
            raise missing("router", current["id"])
        if not info:
            if row["gateway_port_id"]:
                refuse_floating(work, current["id"], "RouterExternalGatewayInUseByFloatingIp", (
                    f"Gateway cannot be updated for router {current['id']}, since a gateway to external network "
                    f"{row['gateway_network_id']} is required by one or more floating IPs."))
                ports.drop(work, [row["gateway_port_id"]])
            work.conn.execute(sa.update(t.routers).where(r.id == current["id"]).values(
                gateway_port_id=None, gateway_network_id=None, enable_snat=True))
            return
        if "network_id" not in info:
            raise BadRequest("Invalid input for external_gateway_info. Reason: network_id is required.",
                             field="external_gateway_info", type="HTTPBadRequest")
        values: Row = {"enable_snat": info.get("enable_snat", True)}
        if row["gateway_network_id"] != info["network_id"] or "external_fixed_ips" in info:
            values |= self._new_gateway(work, current, row, info)
        work.conn.execute(sa.update(t.routers).where(r.id == current["id"]).values(**values))

    def _new_gateway(self, work: Work, current: Row, old: Row, info: Row) -> Row:
        network = networks.get(work, info["network_id"])
        if not network.external:
            raise BadRequest(f"Bad router request: Network {network.id} is not an external network.",
                             field="external_gateway_info", type="BadRequest")
        if old["gateway_port_id"]:
            if old["gateway_network_id"] != network.id:
                refuse_floating(work, current["id"], "RouterExternalGatewayInUseByFloatingIp", (
                    f"Gateway cannot be updated for router {current['id']}, since a gateway to external network "
                    f"{old['gateway_network_id']} is required by one or more floating IPs."))
            ports.drop(work, [old["gateway_port_id"]])
        port, _ = service_port(work, network, (current["id"], GATEWAY), info.get("external_fixed_ips"))
        return {"gateway_port_id": port.id, "gateway_network_id": network.id}

    def _check_routes(self, work: Work, router_id: str, routes: Sequence[Row]) -> None:
        nets = [ipaddress.ip_network(s.cidr) for s in connected(work, router_id, (INTERFACE, GATEWAY))]
        for route in routes:
            hop = ipaddress.ip_address(route["nexthop"])
            if not any(hop.version == n.version and hop in n for n in nets):
                raise BadRequest(f"Invalid format for routes: {list(routes)}, the nexthop is not connected with router",
                                 field="routes", type="InvalidRoutes")

    def add_interface(self, work: Work, router: Row, body: Row) -> Row:
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
                self._check_new(work, router["id"], subnets.get(work, subnet_id))
            work.change(t.ports, port.id, {"device_id": router["id"], "device_owner": INTERFACE})
            work.touch(t.routers, router["id"])
            settle(work, port.id)
            return _joined(router, port.id, port.network_id, ids)
        subnet = subnets.get(work, body["subnet_id"])
        network = networks.get(work, subnet.network_id)
        if network.project_id != router["project_id"] and not work.context.is_admin:
            shared = networks.granted("network", work.context.project_id, networks.SHARED)
            if network.id not in set(work.conn.execute(shared).scalars()):
                raise missing("subnet", subnet.id)
        if not subnet.gateway_ip:
            raise BadRequest("Bad router request: Subnet for router interface must have a gateway IP.",
                             type="BadRequest")
        self._check_new(work, router["id"], subnet)
        port, _ = service_port(work, network, (router["id"], INTERFACE),
                               [{"subnet_id": subnet.id, "ip_address": subnet.gateway_ip}], router["project_id"])
        work.touch(t.routers, router["id"])
        return _joined(router, port.id, network.id, [subnet.id])

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

    def remove_interface(self, work: Work, router: Row, body: Row) -> Row:
        """Takes a subnet's or port's interface away. Raises NotFound, Conflict while floating IPs or routes need it."""
        p, a = t.ports.c, t.addresses.c
        if not body.keys() & {"port_id", "subnet_id"}:
            raise BadRequest("Bad router request: Either subnet_id or port_id must be specified.", type="BadRequest")
        rows = work.rows(sa.select(p.id, p.network_id, a.subnet_id).join(t.addresses, a.port_id == p.id).where(
            p.device_id == router["id"], p.device_owner == INTERFACE))
        fitting = [r for r in rows if r["id"] == body.get("port_id", r["id"])
                   and r["subnet_id"] == body.get("subnet_id", r["subnet_id"])]
        if not fitting:
            if "port_id" in body:
                raise NotFound(f"Router {router['id']} does not have an interface with id {body['port_id']}",
                               type="RouterInterfaceNotFound")
            raise NotFound(f"Router {router['id']} has no interface on subnet {body['subnet_id']}",
                           type="RouterInterfaceNotFoundForSubnet")
        port_id, ids = fitting[0]["id"], [r["subnet_id"] for r in rows if r["id"] == fitting[0]["id"]]
        self._refuse_used(work, router, ids)
        ports.drop(work, [port_id])
        work.touch(t.routers, router["id"])
        return _joined(router, port_id, fitting[0]["network_id"], ids)

    def _refuse_used(self, work: Work, router: Row, subnet_ids: Sequence[str]) -> None:
        f, a = t.floatingips.c, t.addresses.c
        if work.row(sa.select(f.id).join(t.addresses, a.port_id == f.port_id).where(
                f.router_id == router["id"], a.subnet_id.in_(subnet_ids),
                a.ip_address == f.fixed_ip_address).limit(1)):
            raise conflict("RouterInterfaceInUseByFloatingIP",
                           f"Router interface for subnet {subnet_ids[0]} on router {router['id']} cannot be deleted, "
                           "as it is required by one or more floating IPs.")
        for subnet in work.select(Subnet, id=subnet_ids):
            net = ipaddress.ip_network(subnet.cidr)
            if any(ipaddress.ip_address(r["nexthop"]) in net for r in router["routes"]):
                raise conflict("RouterInterfaceInUseByRoute",
                               f"Router interface for subnet {subnet.id} on router {router['id']} cannot be "
                               "deleted, as it is required by one or more routes.")


def connected(work: Work, router_id: str, owners: Sequence[str]) -> list[Subnet]:
    """The subnets that a router has a port on."""
    p, a = t.ports.c, t.addresses.c
    return work.select(Subnet, t.subnets.c.id.in_(
        sa.select(a.subnet_id).join(t.ports, p.id == a.port_id).where(
            p.device_id == router_id, p.device_owner.in_(owners))))


def _joined(router: Row, port_id: str, network_id: str, subnet_ids: list[str]) -> Row:
    return {"id": router["id"], "project_id": router["project_id"], "tenant_id": router["project_id"],
            "port_id": port_id, "network_id": network_id, "subnet_id": subnet_ids[0], "subnet_ids": subnet_ids,
            "tags": router["tags"]}


def _view(row: Row, fixed: list[Row]) -> Row:
    info = {"network_id": row["gateway_network_id"], "enable_snat": row["enable_snat"],
            "external_fixed_ips": fixed} if row["gateway_port_id"] else None
    return standard_view(row) | {
        "admin_state_up": row["admin_state_up"], "status": "ACTIVE", "external_gateway_info": info,
        "routes": row["routes"], "availability_zone_hints": row["availability_zone_hints"],
        "availability_zones": ["nova"], "distributed": False, "ha": False, "flavor_id": None, "service_type_id": None}

