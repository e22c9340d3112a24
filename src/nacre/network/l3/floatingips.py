"""Floating IPs: addresses of external networks and the ports they stand for, as rows.

Their status is DOWN: translating addresses on hosts is not wired by this module.
"""

import uuid
from collections.abc import Sequence

import sqlalchemy as sa

from nacre.base.errors import BadRequest, NotFound
from nacre.network import networks, ports
from nacre.network import tables as t
from nacre.network.l3.gateways import service_port
from nacre.network.nouns.attributes import Attributes
from nacre.network.nouns.noun import View
from nacre.network.nouns.port import Port
from nacre.network.nouns.router import FLOATINGIP, FloatingIp
from nacre.network.nouns.router import floatingip_view as view
from nacre.network.sharing import access
from nacre.network.work import MANY, Work, conflict, missing, where

OWNER = "network:floatingip"
#: What it stands for while it stands for nothing.
NOTHING: Attributes = {"port_id": None, "fixed_ip_address": None, "router_id": None}


class FloatingIps:
    """The store behind /floatingips."""

    resource = FLOATINGIP

    def list(self, work: Work, filters: Attributes) -> list[FloatingIp]:
        return work.search(FloatingIp, access.own(work, t.floatingips), *where(t.floatingips, filters))

    def views(self, work: Work, found: Sequence[FloatingIp]) -> Sequence[View]:
        ids = [floating.port_id for floating in found if floating.port_id]
        known = {port.id: port for at in range(0, len(ids), MANY) for port in work.select(Port, id=ids[at:at + MANY])}
        return [view(floating, known.get(floating.port_id or "")) for floating in found]

    def target(self, work: Work, data: Attributes) -> Attributes:
        return {}

    def create(self, work: Work, data: Attributes) -> View:
        network = networks.get(work, data["floating_network_id"])
        if not network.external:
            raise BadRequest(f"Bad floatingip request: Network {network.id} is not a valid external network.",
                             field="floating_network_id", type="BadRequest")
        work.room("floatingip", data["project_id"])
        wish = {k: v for k, v in (("subnet_id", data["subnet_id"]), ("ip_address", data["floating_ip_address"])) if v}
        if not wish:
            wish = {"subnet_id": self._subnet(work, network.id)}
        new_id = str(uuid.uuid4())
        port, fixed = service_port(work, network, (new_id, OWNER), [wish])
        if data.get("port_id"):
            values = self._associate(work, network.id, data, None)
        elif data.get("fixed_ip_address"):
            raise BadRequest("Bad floatingip request: fixed_ip_address cannot be specified without a port_id.",
                             field="fixed_ip_address", type="BadRequest")
        else:
            values = NOTHING
        floating = work.add(FloatingIp(
            **work.new(data) | {"id": new_id}, floating_network_id=network.id, floating_port_id=port.id,
            floating_ip_address=fixed[0][1], status="DOWN", dns_name=data["dns_name"], dns_domain=data["dns_domain"],
            **values))
        return self.views(work, [floating])[0]

    def _subnet(self, work: Work, network_id: str) -> str:
        s = t.subnets.c
        found: str | None = work.conn.execute(sa.select(s.id).where(
            s.network_id == network_id, s.ip_version == 4).order_by(s.created_at)).scalar()
        if found is None:
            raise BadRequest(f"Bad floatingip request: Network {network_id} does not contain any IPv4 subnet.",
                             field="floating_network_id", type="BadRequest")
        return found

    def update(self, work: Work, current: FloatingIp, data: Attributes) -> None:
        values: Attributes = {k: data[k] for k in ("description",) if k in data}
        if data.get("port_id"):
            values |= self._associate(work, current.floating_network_id, data, current)
        elif "port_id" in data or "description" not in data:
            # As in Neutron: an update without a port takes the floating IP off its port.
            if data.get("fixed_ip_address"):
                raise BadRequest("Bad floatingip request: fixed_ip_address cannot be specified without a port_id.",
                                 field="fixed_ip_address", type="BadRequest")
            values |= {**NOTHING, "status": "DOWN"}
        work.change(t.floatingips, current.id, values)

    def _associate(self, work: Work, network_id: str, data: Attributes, current: FloatingIp | None) -> Attributes:
        found = ports.Ports().list(work, {"id": [data["port_id"]]})
        owner = current.project_id if current else data["project_id"]
        if not found:
            raise missing("port", data["port_id"])
        port = found[0]
        if port.project_id != owner and not work.context.is_admin:
            raise BadRequest(f"Bad floatingip request: Port {port.id} is associated with a different project than "
                             "the floating IP.", field="port_id", type="BadRequest")
        four = [(s, a) for s, a in ports.parts(work, [port])[0][port.id] if "." in a]
        wanted = data.get("fixed_ip_address")
        fixed = next((each for each in four if wanted in (None, "", each[1])), None)
        if fixed is None:
            why = (f"Port {port.id} does not have fixed ip {wanted}." if wanted else
                   f"Cannot add floating IP to port {port.id} that has no fixed IPv4 addresses.")
            raise BadRequest(f"Bad floatingip request: {why}", field="port_id", type="BadRequest")
        subnet_id, address = fixed
        f = t.floatingips.c
        if work.row(sa.select(f.id).where(f.port_id == port.id, f.fixed_ip_address == address,
                                          f.id != (current.id if current else ""))):
            raise conflict("FloatingIPPortAlreadyAssociated",
                           f"Cannot associate floating IP with port {port.id} using fixed IP {address}, as that fixed "
                           f"IP already has a floating IP on external network {network_id}.")
        return {"port_id": port.id, "fixed_ip_address": address,
                "router_id": self._router(work, network_id, subnet_id, port.id)}

    def _router(self, work: Work, network_id: str, subnet_id: str, port_id: str) -> str:
        p, a, r = t.ports.c, t.addresses.c, t.routers.c
        found: str | None = work.conn.execute(sa.select(r.id).join(t.ports, p.device_id == r.id).join(
            t.addresses, a.port_id == p.id).where(
                r.gateway_network_id == network_id, a.subnet_id == subnet_id,
                p.device_owner == "network:router_interface")).scalar()
        if found is None:
            raise NotFound(f"External network {network_id} is not reachable from subnet {subnet_id}.  Therefore, "
                           f"cannot associate Port {port_id} with a Floating IP.",
                           type="ExternalGatewayForFloatingIPNotFound")
        return found

    def delete(self, work: Work, current: FloatingIp) -> None:
        work.remove(t.floatingips, id=current.id)
        ports.drop(work, [current.floating_port_id])
