"""Routers: rows, their gateways (gateways.py), interfaces (interfaces.py) and routes (extraroutes.py)."""

from collections import defaultdict
from collections.abc import Sequence

from nacre.network import tables as t
from nacre.network.l3 import extraroutes, gateways, statuses
from nacre.network.l3.legs import GATEWAY, INTERFACE, bad
from nacre.network.nouns.attributes import Attributes
from nacre.network.nouns.noun import View
from nacre.network.nouns.port import Port, PortAddress
from nacre.network.nouns.router import ROUTER, Router, view
from nacre.network.sharing import access
from nacre.network.work import Work, among, conflict, where


class Routers:
    """The store behind /routers."""

    resource = ROUTER

    def list(self, work: Work, filters: Attributes) -> list[Router]:
        return work.search(Router, access.own(work, t.routers), *where(t.routers, filters))

    def views(self, work: Work, found: Sequence[Router]) -> Sequence[View]:
        fixed = defaultdict[str | None, list[tuple[str, str]]](list)
        if ids := [router.gateway_port_id for router in found if router.gateway_port_id]:
            for address in work.search(PortAddress, among(t.addresses.c.port_id, ids), order=("position",)):
                fixed[address.port_id].append((address.subnet_id, address.ip_address))
        return [view(router, fixed[router.gateway_port_id]) for router in found]

    def target(self, work: Work, data: Attributes) -> Attributes:
        return {}

    def create(self, work: Work, data: Attributes) -> View:
        work.room("router", data["project_id"])
        router = work.add(Router(
            **work.new(data), name=data["name"], admin_state_up=data["admin_state_up"], routes=[], gateway_port_id=None,
            gateway_network_id=None, enable_snat=True, availability_zone_hints=data["availability_zone_hints"],
            gateway_host=None, gateway_term=0, distributed=bool(data.get("distributed")), ha=bool(data.get("ha"))))
        if data["external_gateway_info"]:
            gateways.replace(work, router, data["external_gateway_info"])
        return self.views(work, self.list(work, {"id": [router.id]}))[0]

    def update(self, work: Work, current: Router, data: Attributes) -> None:
        for name in ("distributed", "ha"):
            if data.get(name, getattr(current, name)) not in (None, getattr(current, name)) and current.admin_state_up:
                raise bad(f"Cannot change the '{name}' attribute of active routers. Please set router "
                          "admin_state_up to False prior to upgrade", name)
        if "external_gateway_info" in data:
            gateways.replace(work, current, data["external_gateway_info"])
        if "routes" in data:
            extraroutes.check(data["routes"], extraroutes.reach(work, current.id, (INTERFACE, GATEWAY)))
        values = {k: data[k] for k in ("name", "description", "admin_state_up", "routes", "distributed", "ha")
                  if data.get(k) is not None}
        work.change(t.routers, current.id, values)
        if data.get("admin_state_up") is False:
            statuses.off(work, [current.id])
        if any(values.get(name, getattr(current, name)) != getattr(current, name) for name in (
                "admin_state_up", "routes")):
            work.changes.routers.add(current.id)

    def delete(self, work: Work, current: Router) -> None:
        if found := work.select(Port, order=("created_at",), device_id=current.id, device_owner=INTERFACE):
            raise conflict("RouterInUse", f"Router {current.id} has ports still attached: "
                           f"{', '.join(port.id for port in found)}")
        gateways.take(work, current)
        work.remove(t.routers, id=current.id)
