"""Floating IPs: addresses of external networks and the ports they stand for. A host says when one works."""

import uuid
from collections import defaultdict
from collections.abc import Sequence

import sqlalchemy as sa

from nacre.base.errors import BadRequest, Conflict, NotFound
from nacre.network import ports
from nacre.network import tables as t
from nacre.network.l2 import networks
from nacre.network.l3.associations import NOTHING, changed
from nacre.network.l3.gateways import service_port
from nacre.network.l3.legs import FLOATING, INTERFACE
from nacre.network.nouns.attributes import Attributes
from nacre.network.nouns.noun import View
from nacre.network.nouns.port import Placed, Port
from nacre.network.nouns.router import FLOATINGIP, FloatingIp, PortForwarding, Router
from nacre.network.nouns.router import floatingip_view as view
from nacre.network.nouns.subnet import Subnet
from nacre.network.sharing import access
from nacre.network.work import MANY, Work, among, conflict, missing, where


def bad(message: str, field: str) -> BadRequest:
    """Neutron's 400 of a floating IP."""
    return BadRequest(f"Bad floatingip request: {message}.", field=field, type="BadRequest")


class FloatingIps:
    """The store behind /floatingips."""

    resource = FLOATINGIP

    def list(self, work: Work, filters: Attributes) -> list[FloatingIp]:
        return work.search(FloatingIp, access.own(work, t.floatingips), *where(t.floatingips, filters))

    def views(self, work: Work, found: Sequence[FloatingIp]) -> Sequence[View]:
        ids = [floating.port_id for floating in found if floating.port_id]
        known = {port.id: port for at in range(0, len(ids), MANY) for port in work.select(Port, id=ids[at:at + MANY])}
        forwarded = defaultdict[str, list[PortForwarding]](list)
        if found:
            for each in work.search(PortForwarding, among(t.port_forwardings.c.floatingip_id, [f.id for f in found]),
                                    order=("external_first", "protocol")):
                forwarded[each.floatingip_id].append(each)
        return [view(floating, known.get(floating.port_id or ""), forwarded[floating.id]) for floating in found]

    def target(self, work: Work, data: Attributes) -> Attributes:
        return {}

    def create(self, work: Work, data: Attributes) -> View:
        network = networks.get(work, data["floating_network_id"])
        if not network.external:
            raise bad(f"Network {network.id} is not a valid external network", "floating_network_id")
        work.room("floatingip", data["project_id"])
        wish = {k: v for k, v in (("subnet_id", data["subnet_id"]), ("ip_address", data["floating_ip_address"])) if v}
        subnets = _four(work, network.id)
        new_id = str(uuid.uuid4())
        port, fixed = service_port(work, network, (new_id, FLOATING), [wish or {"subnet_id": subnets[0].id}])
        outer = next((address for _, address in fixed if "." in address), None)
        if outer is None:
            raise BadRequest(f"Unable to find any IPv4 address on external network {network.id}.",
                             field="subnet_id", type="ExternalIpAddressExhausted")
        floating = FloatingIp(
            **work.new(data) | {"id": new_id}, floating_network_id=network.id, floating_port_id=port.id,
            floating_ip_address=outer, dns_name=data["dns_name"], dns_domain=data["dns_domain"], **NOTHING)
        work.add(floating)
        if data.get("port_id"):
            self._write(work, floating, self._associate(work, floating, data))
        elif data.get("fixed_ip_address"):
            raise _alone()
        return self.views(work, work.select(FloatingIp, id=new_id))[0]

    def update(self, work: Work, current: FloatingIp, data: Attributes) -> None:
        values: Attributes = {k: data[k] for k in ("description",) if k in data}
        if data.get("port_id"):
            if work.first(PortForwarding, floatingip_id=current.id):
                raise in_use(current)
            values |= self._associate(work, current, data)
        elif data.get("fixed_ip_address"):
            raise _alone()
        elif "port_id" not in data and data and current.port_id:
            # As in Neutron: an update that says nothing of a port leaves it, unless it says nothing at all.
            if data.get("router_id"):
                values |= self._associate(work, current, data | {
                    "port_id": current.port_id, "fixed_ip_address": current.fixed_ip_address})
        elif current.port_id:
            values |= NOTHING
        self._write(work, current, values)

    def _write(self, work: Work, current: FloatingIp, values: Attributes) -> None:
        place = ("port_id", "fixed_ip_address", "router_id")
        if any(values.get(name, getattr(current, name)) != getattr(current, name) for name in place):
            values = values | {"status": "DOWN"}  # until its host says that it works there
            changed(work, current, values.get("port_id"))
        work.change(t.floatingips, current.id, values)

    def _associate(self, work: Work, floating: FloatingIp, data: Attributes) -> Attributes:
        """What to write so that it stands for what the data name. Raises BadRequest, NotFound, Conflict."""
        found = ports.Ports().list(work, {"id": [data["port_id"]]})
        if not found:
            raise missing("port", data["port_id"])
        port = found[0]
        if port.project_id != floating.project_id and not work.context.is_admin:
            raise bad(f"Cannot process floating IP association with Port {port.id}, since that port is owned by a "
                      "different project", "port_id")
        if port.device_owner == "network:dhcp":
            raise bad(f"Port {port.id} is unable to be assigned a floating IP", "port_id")
        subnet_id, address = _inner(work, port, data.get("fixed_ip_address"))
        if work.first(FloatingIp, t.floatingips.c.id != floating.id, port_id=port.id, fixed_ip_address=address,
                      floating_network_id=floating.floating_network_id):
            raise associated(floating, port.id, address)
        if work.first(PortForwarding, internal_port_id=port.id):
            raise BadRequest(f"Cannot associate floating IP to port {port.id} because it already has a Port Forwarding "
                             "binding.", field="port_id", type="PortHasPortForwarding")
        wanted = data.get("router_id")
        if wanted:
            _check_gateway(work, wanted, floating.floating_network_id)
        router_id = router_for(work, (floating.floating_network_id, subnet_id), port.id, wanted)
        return {"port_id": port.id, "fixed_ip_address": address, "router_id": router_id}

    def delete(self, work: Work, current: FloatingIp) -> None:
        if work.first(PortForwarding, floatingip_id=current.id):
            raise in_use(current)
        changed(work, current)
        work.remove(t.floatingips, id=current.id)
        ports.drop(work, [current.floating_port_id])


def _alone() -> BadRequest:
    return bad("fixed_ip_address cannot be specified without a port_id", "fixed_ip_address")


def in_use(floating: FloatingIp) -> Conflict:
    """Raised while something is forwarded by it."""
    return conflict("FipInUseByPortForwarding", f"Floating IP {floating.id} in use by Port Forwarding resources.")


def associated(floating: FloatingIp, port_id: str, address: str) -> Conflict:
    """Raised where the address has a floating IP of that network, or the floating IP a port."""
    return conflict("FloatingIPPortAlreadyAssociated",
                    f"Cannot associate floating IP {floating.floating_ip_address} ({floating.id}) with port {port_id} "
                    f"using fixed IP {address}, as that fixed IP already has a floating IP on external network "
                    f"{floating.floating_network_id}.")


def _four(work: Work, network_id: str) -> list[Subnet]:
    found = work.select(Subnet, order=("created_at", "id"), network_id=network_id, ip_version=4)
    if not found:
        raise bad(f"Network {network_id} does not contain any IPv4 subnet", "floating_network_id")
    return found


def _inner(work: Work, port: Placed, wanted: str | None) -> tuple[str, str]:
    """(subnet id, address) of the port for which a floating IP is to stand."""
    fixed = ports.parts(work, [port])[0][port.id]
    if wanted:
        if ":" in wanted:
            raise bad(f"Cannot process floating IP association with {wanted}, since that is not an IPv4 address",
                      "fixed_ip_address")
        found = next((each for each in fixed if each[1] == wanted), None)
        if found is None:
            raise bad(f"Port {port.id} does not have fixed ip {wanted}", "fixed_ip_address")
        return found
    four = [each for each in fixed if "." in each[1]]
    if not four:
        raise bad(f"Cannot add floating IP to port {port.id} that has no fixed IPv4 addresses", "port_id")
    if len(four) > 1:
        raise bad(f"Port {port.id} has multiple fixed IPv4 addresses.  Must provide a specific IPv4 address when "
                  "assigning a floating IP", "port_id")
    return four[0]


def _check_gateway(work: Work, router_id: str, network_id: str) -> None:
    """Of the router that was asked for. Raises NotFound; Conflict where it does not lead to that network."""
    router = work.first(Router, access.own(work, t.routers), id=router_id)
    if router is None:
        raise missing("router", router_id)
    if router.gateway_network_id != network_id:
        raise conflict("Conflict", f"Router {router_id} has no external gateway on network {network_id}")


def router_for(work: Work, between: tuple[str, str], port_id: str, wanted: str | None = None) -> str:
    """The router that leads from an external network to a subnet (between): the wanted one, or that of the subnet's
    gateway before others. Raises NotFound."""
    network_id, subnet_id = between
    p, a, r, s = t.ports.c, t.addresses.c, t.routers.c, t.subnets.c
    rows = work.conn.execute(sa.select(r.id, a.ip_address == s.gateway_ip).join_from(
        t.routers, t.ports, p.device_id == r.id).join(t.addresses, a.port_id == p.id).join(
        t.subnets, s.id == a.subnet_id).where(
            r.gateway_network_id == network_id, a.subnet_id == subnet_id, p.device_owner == INTERFACE,
            *([r.id == wanted] if wanted else [])).order_by(r.created_at, r.id)).all()
    if not rows:
        by = f" by router {wanted}" if wanted else ""
        raise NotFound(f"External network {network_id} is not reachable from subnet {subnet_id}{by}.  Therefore, "
                       f"cannot associate Port {port_id} with a Floating IP.",
                       type="ExternalGatewayForFloatingIPNotFound")
    return str(next((row[0] for row in rows if row[1]), rows[0][0]))
