"""Ports: addresses, MAC, security; where they are bound is in hosts/bindings.py."""

from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from msgspec.structs import replace
from oslo_utils.uuidutils import is_uuid_like

from nacre.base.bounds import pieces
from nacre.base.db import statements
from nacre.network import tables as t
from nacre.network.addresses import ipam
from nacre.network.addresses.ipam import AddressRequest
from nacre.network.hosts import bindings
from nacre.network.l2 import networks, trunk_ports
from nacre.network.l3 import associations, legs, statuses
from nacre.network.nouns.attributes import Attributes
from nacre.network.nouns.network import Network
from nacre.network.nouns.noun import View
from nacre.network.nouns.port import PORT, Binding, Fixed, Placed, Port, PortAddress, PortGroup, view
from nacre.network.nouns.subnet import Subnet
from nacre.network.sharing import access
from nacre.network.traffic import qos, security_groups
from nacre.network.work import MANY, Work, among, columns, conflict

#: Ports that only the thing they belong to may delete.
SERVICE_OWNERS = (legs.INTERFACE, legs.GATEWAY, legs.FLOATING)
#: What of a binding a port's own attributes set: the field, the attribute (without `binding:`), and what null means.
_BINDING: tuple[tuple[str, str, Any], ...] = (
    ("host", "host_id", ""), ("vnic_type", "vnic_type", "normal"), ("profile", "profile", {}))
_SAME = ("name", "description", "admin_state_up", "device_id", "device_owner", "allowed_address_pairs",
         "extra_dhcp_opts", "dns_name", "dns_domain", "port_security_enabled", "mac_address")


class Ports:
    """The store behind /ports."""

    resource = PORT

    def list(self, work: Work, filters: Attributes) -> list[Placed]:
        # Of the filters those that are columns, so that less is read; all of them are compared afterwards.
        wanted = {"host" if name == "binding:host_id" and work.context.sees_all else name: values
                  for name, values in filters.items() if 0 < len(values) <= MANY}
        names = tuple(sorted(n for n in wanted if n in t.placed.c and isinstance(t.placed.c[n].type, sa.String)))
        return [Placed(*row) for row in work.conn.execute(_listing(work.context.sees_all, names), {
            "own": work.context.project_id or "", **{f"is_{name}": wanted[name] for name in names}})]

    def views(self, work: Work, found: Sequence[Placed]) -> Sequence[View]:
        fixed, groups = parts(work, found)
        n = t.networks.c
        policies = dict(work.conn.execute(sa.select(n.id, n.qos_policy_id).where(
            n.qos_policy_id.is_not(None), among(n.id, {port.network_id for port in found}))).all())
        trunks = trunk_ports.details(work, [port.id for port in found])
        return [view(port, fixed[port.id], groups[port.id], work.settings.dns_domain, policies.get(port.network_id))
                | trunks.get(port.id, {}) for port in found]

    def target(self, work: Work, data: Attributes) -> Attributes:
        return policy_target(work, networks.get(work, data["network_id"]), data)

    def create(self, work: Work, data: Attributes) -> View:
        network = networks.get(work, data["network_id"])
        work.room("port", data["project_id"])
        _check_device(work, data["device_id"], data["project_id"])
        port, fixed, groups = build(work, network, data | {
            "qos_policy_id": qos.changed(work, None, data.get("qos_policy_id"))})
        port, = bindings.bind(work, [port], data.get("binding:host_id") or "", fresh=True)
        return view(port, fixed, groups, work.settings.dns_domain, network.qos_policy_id)

    def update(self, work: Work, current: Placed, data: Attributes) -> None:
        _refuse_estranged(work, current, data)
        if data.get("device_id", current.device_id) != current.device_id:
            _check_device(work, data["device_id"], current.project_id)
        values = {k: data[k] for k in _SAME if k in data}
        if data.get("mac_address") != current.mac_address and "mac_address" in values:
            values["mac_address"] = self._new_mac(work, current, data["mac_address"])
        addresses, named = parts(work, [current])
        fixed, before = addresses[current.id], named[current.id]
        if "qos_policy_id" in data:
            values["qos_policy_id"] = qos.changed(work, current.qos_policy_id, data["qos_policy_id"])
        secured = bool(data.get("port_security_enabled", current.port_security_enabled))
        groups = _security(data, secured, before, current.allowed_address_pairs)
        if groups is not None:
            security_groups.choose(work, groups, current.project_id)
            _set_groups(work, current.id, groups, before)
            bindings.regroup(work, current.id)
        if values.get("admin_state_up", current.admin_state_up) != current.admin_state_up:
            values["status"] = _switched(replace(current, **values))
            statuses.moved(work, [current.id])
        new = replace(current, **values)
        legs.changed(work, current, new)
        if "fixed_ips" in data or "mac_address" in values:
            self._readdress(work, new, data.get("fixed_ips"), (fixed, before))
        work.change(t.ports, current.id, values)
        wanted = {name: data[f"binding:{key}"] or empty for name, key, empty in _BINDING if f"binding:{key}" in data}
        if any(getattr(current, name) != value for name, value in wanted.items()):
            host = str(wanted.pop("host", current.host))
            bindings.bind(work, [replace(new, **wanted)], host)
        work.changes.ports.add(current.id)
        if "allowed_address_pairs" in values:
            work.changes.moved(current.id, before)

    def _new_mac(self, work: Work, old: Placed, wanted: str | None) -> str:
        if old.host:
            raise conflict("PortBound", f"Unable to complete operation on port {old.id}, port is already bound, "
                           f"port type: {old.vif_type}, old_mac {old.mac_address}, new_mac {wanted}.")
        return _mac(work, old.network_id, wanted)

    def _readdress(self, work: Work, port: Port, wanted: Sequence[dict[str, str]] | None,
                   before: tuple[Fixed, Sequence[str]]) -> None:
        """before: the addresses and groups that it has until now."""
        kept, groups = tuple(before[0]), before[1]
        if wanted is None:  # a new MAC moves the automatic addresses only
            auto = {subnet.id for subnet in work.select(Subnet, network_id=port.network_id) if subnet.automatic}
            kept = tuple((s, a) for s, a in kept if s not in auto)
            wanted = [{"subnet_id": s, "ip_address": a} for s, a in kept]
        chosen = ipam.choose(work, AddressRequest(port.network_id, port.mac_address, port.device_owner, wanted, kept))
        associations.readdressed(work, port.id, {address for _, address in chosen})
        if port.device_owner in (legs.INTERFACE, legs.GATEWAY):
            legs.readdressed(work, port, before[0], chosen)
        elif port.device_owner == legs.FLOATING:
            associations.outside(work, port.device_id)
        work.conn.execute(sa.delete(t.addresses).where(t.addresses.c.port_id == port.id))
        work.changes.placed(port.network_id, port.id)
        _set_addresses(work, port.id, chosen, groups)

    def delete(self, work: Work, current: Placed) -> None:
        if current.device_owner in SERVICE_OWNERS:
            raise conflict("ServicePortInUse", f"Port {current.id} cannot be deleted directly via the port API: "
                           f"has device owner {current.device_owner}.")
        trunk_ports.release(work, current)
        drop(work, [current.id])


def _refuse_estranged(work: Work, old: Port, data: Attributes) -> None:
    """What a router or floating IP made stays with it: its owner may not say that it is another thing's, and so have it
    deleted, nor leave it without an address. Stricter than Neutron, which guards the delete alone. Raises Conflict."""
    if work.context.sees_all or old.device_owner not in SERVICE_OWNERS:
        return
    changed = [k for k in ("device_owner", "device_id") if data.get(k, getattr(old, k)) != getattr(old, k)]
    if changed or ("fixed_ips" in data and not data["fixed_ips"]):
        raise conflict("ServicePortInUse", f"The {(changed or ['fixed_ips'])[0]} of port {old.id} cannot be changed "
                       f"directly via the port API: has device owner {old.device_owner}.")


def refuse_used(port: Placed) -> None:
    """Raises Conflict for a port that is a thing's already, by its owner's words or by the cloud's alone."""
    if device := port.device_id or port.server_id:
        raise conflict("PortInUse", f"Unable to complete operation on port {port.id} for network {port.network_id}. "
                       f"Port already has an attached device {device}.")


def _switched(port: Placed) -> str:
    """The status of a port that its owner switched on or off. DHCP's is on no one host; a router's waits for the word
    of a host (l3/reports.py)."""
    return bindings.status(replace(port, wired=port.wired or port.vif_type == "distributed"))


def visible(work: Work, table: sa.FromClause) -> sa.ColumnElement[bool]:
    """A project's own ports and those on its networks; administrators and services see all. table: ports, or placed."""
    return sa.true() if work.context.sees_all else _own(table, work.context.project_id or "")


def _own(table: sa.FromClause, project: str | sa.BindParameter[str]) -> sa.ColumnElement[bool]:
    mine = sa.select(t.networks.c.id).where(t.networks.c.project_id == project)
    return sa.or_(table.c.project_id == project, table.c.network_id.in_(mine))


@lru_cache(maxsize=256)
def _listing(every: bool, names: tuple[str, ...]) -> sa.Select[Any]:
    """Ports with their active bindings, by columns that are one of `is_<name>`; not every one: the project `own` may
    see them. Built once a shape, as in base/db/statements.py."""
    p = t.placed.c
    found = sa.select(*columns(Placed)).where(p.active, *(
        p[name].in_(sa.bindparam(f"is_{name}", expanding=True)) for name in names)).order_by(p.created_at)
    return found if every else found.where(_own(t.placed, sa.bindparam("own", type_=sa.String)))


def policy_target(work: Work, network: Network, data: Attributes) -> Attributes:
    """What the rules of a port need to know of its network: that it is shared, where addresses are chosen."""
    shared = "fixed_ips" in data and access.is_shared(work, "network", network.id)
    return {"network:project_id": network.project_id, "network:shared": shared}


def _check_device(work: Work, device_id: str, project_id: str) -> None:
    """A port's owner may say that it belongs to a server of the port's project. One of another project, and one that
    is not there, get the same answer. Words that are no id may be anything. Raises Conflict."""
    if work.context.sees_all or not is_uuid_like(device_id) or work.project_of(work.conn, device_id) == project_id:
        return
    raise conflict("DeviceIDNotOwnedByTenant", f"The following device_id {device_id} is not owned by your tenant or "
                   "matches another tenants router.")


def insert(work: Work, network: Network, data: Attributes) -> tuple[Placed, Fixed, list[str]]:
    """A new port, unbound. As `build` otherwise."""
    made = build(work, network, data)
    work.add_all(Binding, [made[0].binding()])
    return made


def build(work: Work, network: Network, data: Attributes) -> tuple[Placed, Fixed, list[str]]:
    """A new port with its addresses and groups; its binding's row is the caller's to write, at once. data: attributes,
    and fields that the API does not set; its id, if there is one, is the port's."""
    secured = data.get("port_security_enabled")
    secured = network.port_security_enabled if secured is None else secured
    owner = data["device_owner"]
    named = _security(data, secured, [], [])
    if named is None:
        named = None if secured and not owner.startswith("network:") else []
    mac = _mac(work, network.id, data.get("mac_address"))
    fixed = ipam.choose(work, AddressRequest(network.id, mac, owner, data.get("fixed_ips")))
    groups = security_groups.choose(work, named, data["project_id"])
    standard = work.new(data)
    port = Placed(
        **standard | {"id": data.get("id", standard["id"])}, name=data["name"], network_id=network.id, mac_address=mac,
        admin_state_up=data["admin_state_up"], status="DOWN", device_id=data["device_id"], device_owner=owner,
        port_security_enabled=secured, allowed_address_pairs=data["allowed_address_pairs"],
        extra_dhcp_opts=data["extra_dhcp_opts"], dns_name=data["dns_name"], server_id=data.get("server_id"),
        preserve=data.get("preserve", False), device_tag=data.get("device_tag"), position=data.get("position", 0),
        qos_policy_id=data.get("qos_policy_id"), dns_domain=data.get("dns_domain", ""),
        vnic_type=data["binding:vnic_type"], profile=data.get("binding:profile") or {}, **bindings.UNBOUND)
    work.add_all(Port, [port])
    _set_addresses(work, port.id, fixed, groups)
    _set_groups(work, port.id, groups)
    return port, fixed, groups


def defaults() -> Attributes:
    """The values of a port that nobody said anything about."""
    return {"name": "", "description": "", "admin_state_up": True, "device_id": "", "device_owner": "", "tags": [],
            "allowed_address_pairs": [], "extra_dhcp_opts": [], "dns_name": "", "port_security_enabled": None,
            "binding:vnic_type": "normal"}


def _security(data: Attributes, secured: bool, groups: list[str], pairs: list[Any]) -> list[str] | None:
    """The port's groups if the change names them. Raises Conflict where groups or pairs meet no port security."""
    wanted: list[str] | None = data.get("security_groups")
    if secured:
        return wanted
    if wanted:
        raise conflict("PortSecurityAndIPRequiredForSecurityGroups", "Port security must be enabled and port must have "
                       "an IP address in order to use security groups.")
    if groups and wanted is None:
        raise conflict("PortSecurityPortHasSecurityGroup", "Port has security group associated. Cannot disable port "
                       "security or IP address until security group is removed.")
    if data.get("allowed_address_pairs", pairs):
        raise conflict("AddressPairAndPortSecurityRequired",
                       "Port Security must be enabled in order to have allowed address pairs on a port.")
    return wanted


def _mac(work: Work, network_id: str, wanted: str | None) -> str:
    """The wanted MAC if the network has it free, else a new one. Raises Conflict."""
    tries = [wanted] if wanted else [ipam.new_mac(work.rng) for _ in range(4)]
    taken = {port.mac_address for port in work.select(Port, network_id=network_id, mac_address=tries)}
    free = next((m for m in tries if m not in taken), None)
    if free is None:
        raise conflict("MacAddressInUse", f"Unable to complete operation for network {network_id}. The mac address "
                       f"{tries[0]} is in use.")
    return free


def _set_addresses(work: Work, port_id: str, chosen: Fixed, groups: Sequence[str]) -> None:
    """groups: those that the port was in until now, or is to be in."""
    work.changes.moved(port_id, groups)
    work.add_all(PortAddress, [PortAddress(s, a, port_id, position) for position, (s, a) in enumerate(chosen)])


def _set_groups(work: Work, port_id: str, groups: Sequence[str], before: Sequence[str] = ()) -> None:
    """before: those that the port was in until now."""
    work.changes.moved(port_id, {*groups, *before})
    if before:
        statements.delete(work.conn, t.port_groups, port_id=port_id)
    work.add_all(PortGroup, [PortGroup(port_id, group) for group in groups])


def drop(work: Work, port_ids: Sequence[str]) -> None:
    """Deletes ports with everything that hangs on them. Dynamic segments that carried nothing else are free."""
    if not port_ids:
        return
    dynamic = bindings.end(work, port_ids)
    for each in work.select(PortGroup, port_id=port_ids):
        work.changes.moved(each.port_id, [each.group_id])
    statements.delete(work.conn, t.port_groups, port_id=port_ids)
    associations.release(work, port_ids)
    statements.delete(work.conn, t.addresses, port_id=port_ids)
    work.remove(t.trunks, port_id=port_ids)
    work.remove(t.ports, id=port_ids)
    bindings.free_dynamic(work, dynamic)


def parts(work: Work, found: Sequence[Port]) -> tuple[dict[str, list[tuple[str, str]]], dict[str, list[str]]]:
    """The addresses and the groups of these ports, in two statements for each MANY of them."""
    fixed: dict[str, list[tuple[str, str]]] = defaultdict(list)
    groups: dict[str, list[str]] = defaultdict(list)
    for ids in pieces((port.id for port in found), MANY):
        for address in work.select(PortAddress, order=("position", "ip_address"), port_id=ids):
            fixed[address.port_id].append((address.subnet_id, address.ip_address))
        for each in work.select(PortGroup, port_id=ids):
            groups[each.port_id].append(each.group_id)
    return fixed, groups

