"""Port forwardings: ports of a floating IP's address that lead to ports of addresses inside."""

import uuid
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from nacre.base.db import statements
from nacre.base.errors import BadRequest, NotFound
from nacre.network import ports
from nacre.network import tables as t
from nacre.network.l3.associations import forget, forwarded
from nacre.network.l3.floatingips import associated, router_for
from nacre.network.nouns.attributes import Attributes
from nacre.network.nouns.port import Placed
from nacre.network.nouns.router import FloatingIp, PortForwarding
from nacre.network.work import Work, conflict, missing

#: The most forwardings of a floating IP, and of an inner port.
MAX_FORWARDINGS = 100
#: The most ports of a range whose numbers are others inside: on a host each is a flow of its own.
MAX_SHIFTED = 128
#: The most entries (`entries`) of a floating IP's forwardings together: its gateway host has a flow for each, and makes
#: them in one piece with everything else that it switches.
MAX_ENTRIES = 300

Range = tuple[int, int]


def bad(message: str, field: str | None = None) -> BadRequest:
    """Neutron's 400 of a port forwarding."""
    return BadRequest(f"Bad port_forwarding request: {message}.", field=field, type="BadRequest")


def of(work: Work, floating_id: str) -> list[PortForwarding]:
    return work.select(PortForwarding, order=("external_first", "protocol"), floatingip_id=floating_id)


def one(work: Work, floating_id: str, forwarding_id: str) -> PortForwarding:
    """Raises NotFound."""
    found = work.first(PortForwarding, id=forwarding_id, floatingip_id=floating_id)
    if found is None:
        raise missing("port_forwarding", forwarding_id)
    return found


@dataclass
class _Known:
    """What is asked about forwardings of a floating IP and ports, read once for all of a request. beside: those of the
    floating IP; inside: those of the ports."""

    floating: FloatingIp
    places: dict[str, tuple[Placed, list[tuple[str, str]]]]
    beside: list[PortForwarding]
    inside: dict[str, list[PortForwarding]]
    routers: dict[str, str]  # by subnet


def create_all(work: Work, floating: FloatingIp, wanted: Sequence[Attributes]) -> list[PortForwarding]:
    """Raises BadRequest, NotFound; Conflict where the floating IP stands for a port, or the port has one."""
    known = _look(work, floating, list(dict.fromkeys(data["internal_port_id"] for data in wanted)))
    made = [_new(work, known, data) for data in wanted]
    work.add_all(PortForwarding, made)
    if floating.router_id is None:
        work.change(t.floatingips, floating.id, {"router_id": known.floating.router_id})
    forwarded(work, floating.router_id, known.floating.router_id)
    return made


def _new(work: Work, known: _Known, data: Attributes) -> PortForwarding:
    outer, inner = _range(data, "external", None), _range(data, "internal", None)
    port, (subnet_id, address) = _place(known, data)
    floating = known.floating
    if floating.port_id:
        raise associated(floating, port.id, address)
    new = PortForwarding(
        id=str(uuid.uuid4()), project_id=floating.project_id, floatingip_id=floating.id, internal_port_id=port.id,
        description=data["description"], protocol=data["protocol"], external_first=outer[0], external_last=outer[1],
        internal_ip_address=address, internal_first=inner[0], internal_last=inner[1])
    _check(known, new)
    router_id = _router(work, known, (subnet_id, port.id))
    known.floating = msgspec.structs.replace(floating, router_id=router_id)
    known.beside.append(new)
    known.inside[port.id].append(new)
    return new


def update(work: Work, floating: FloatingIp, current: PortForwarding, data: Attributes) -> PortForwarding:
    """As `create_all` otherwise."""
    outer = _range(data, "external", (current.external_first, current.external_last))
    inner = _range(data, "internal", (current.internal_first, current.internal_last))
    port_id = data.get("internal_port_id") or current.internal_port_id
    kept = current.internal_ip_address if port_id == current.internal_port_id else None
    known = _look(work, floating, [port_id])
    port, (subnet_id, address) = _place(known, {
        "internal_port_id": port_id, "internal_ip_address": data.get("internal_ip_address") or kept})
    new = msgspec.structs.replace(
        current, internal_port_id=port.id, internal_ip_address=address, external_first=outer[0],
        external_last=outer[1], internal_first=inner[0], internal_last=inner[1],
        **{k: data[k] for k in ("description", "protocol") if k in data})
    _check(known, new)
    if (port.id, address) != (current.internal_port_id, current.internal_ip_address):
        _router(work, known, (subnet_id, port.id))
    statements.update(work.conn, t.port_forwardings, {
        name: getattr(new, name) for name in PortForwarding.__struct_fields__ if name != "id"}, id=current.id)
    forwarded(work, floating.router_id)
    return new


def delete(work: Work, current: PortForwarding) -> None:
    forget(work, [current])


def _look(work: Work, floating: FloatingIp, port_ids: Sequence[str]) -> _Known:
    """Raises NotFound; Conflict where a port has a floating IP."""
    found = {port.id: port for port in ports.Ports().list(work, {"id": list(port_ids)})}
    for port_id in port_ids:
        if port_id not in found or (
                found[port_id].project_id != work.context.project_id and not work.context.is_admin):
            raise missing("port", port_id)
    if other := work.first(FloatingIp, t.floatingips.c.port_id.in_(port_ids)):
        raise conflict("PortHasBindingFloatingIP", (
            f"Cannot create port forwarding to floating IP {other.floating_ip_address} ({other.id}) with port "
            f"{other.port_id} using fixed IP {other.fixed_ip_address}, as that port already has a binding floating "
            "IP."))
    fixed, inside = ports.parts(work, list(found.values()))[0], defaultdict[str, list[PortForwarding]](list)
    for each in work.select(PortForwarding, internal_port_id=list(port_ids)):
        inside[each.internal_port_id].append(each)
    return _Known(floating, {port.id: (port, fixed[port.id]) for port in found.values()},
                  of(work, floating.id), inside, {})


def _place(known: _Known, data: Attributes) -> tuple[Placed, tuple[str, str]]:
    """The inner port, and (subnet id, address) of it. Raises BadRequest."""
    (port, fixed), wanted = known.places[data["internal_port_id"]], data.get("internal_ip_address")
    four = [each for each in fixed if "." in each[1]]
    if not four:
        raise bad(f"Requested internal port {port.id} must allocate an IPv4 address at least", "internal_port_id")
    place = next((each for each in four if wanted in (None, each[1])), None)
    if place is None:
        raise bad(f"Requested internal IP address {wanted} is not suitable for internal neutron port {port.id}, as its "
                  f"fixed_ips are {[address for _, address in four]}", "internal_ip_address")
    return port, place


def _router(work: Work, known: _Known, inner: tuple[str, str]) -> str:
    """inner: (subnet, port)."""
    (subnet_id, port_id), floating = inner, known.floating
    try:
        found = known.routers.get(subnet_id) or router_for(work, (floating.floating_network_id, subnet_id), port_id)
    except NotFound:
        raise bad(f"External network {floating.floating_network_id} is not reachable from subnet {subnet_id}. Cannot "
                  f"set Port forwarding for port {port_id} with Floating IP {floating.id}", "internal_port_id"
                  ) from None
    if floating.router_id not in (None, found):
        raise bad(f"The Floating IP {floating.id} had been set on router {floating.router_id}, the internal Neutron "
                  f"port {port_id} can not reach it", "internal_port_id")
    known.routers[subnet_id] = found
    return found


def _range(data: Attributes, side: str, current: Range | None) -> Range:
    """The first and the last port of a side; as it is where nothing is said of it."""
    alone: int | None = data.get(f"{side}_port")
    several: Range | None = data.get(f"{side}_port_range")
    single = None if alone is None else (alone, alone)
    if several and single and single != several:
        raise bad(f"{side}_port {alone} and {side}_port_range {several[0]}:{several[1]} are not the same",
                  f"{side}_port_range")
    found = several or single or current
    if found is None:
        raise bad(f"{side}_port or {side}_port_range must be specified", f"{side}_port")
    return found


def _check(known: _Known, new: PortForwarding) -> None:
    """Raises BadRequest where ranges do not fit, or are another's."""
    width = new.internal_last - new.internal_first
    if width and width != new.external_last - new.external_first:
        raise bad("Invalid ranges of internal and/or external ports. The relation between internal and external ports "
                  "must be N-N or 1-N", "internal_port_range")
    if width >= MAX_SHIFTED and new.internal_first != new.external_first:
        raise bad(f"A range whose ports have other numbers inside has at most {MAX_SHIFTED} ports",
                  "internal_port_range")
    beside = [each for each in known.beside if each.id != new.id]
    if sum(map(entries, [*beside, new])) > MAX_ENTRIES:
        raise bad(f"The port forwardings of a floating IP have at most {MAX_ENTRIES} entries together: each port of a "
                  "range whose ports have other numbers inside is one, and so is each aligned block of 1, 2, 4, 8 ... "
                  "ports of another range", "external_port_range")
    inside = [each for each in known.inside[new.internal_port_id] if each.id != new.id]
    if max(len(beside), len(inside)) >= MAX_FORWARDINGS:
        raise bad(f"A floating IP and a port have at most {MAX_FORWARDINGS} port forwardings", "floatingip_id")
    _apart([each for each in inside if (each.protocol, each.internal_ip_address) == (
        new.protocol, new.internal_ip_address)], new, "internal")
    _apart([each for each in beside if each.protocol == new.protocol], new, "external")


def entries(each: PortForwarding) -> int:
    """What a gateway host has to tell apart: ports of a range that is shifted, else aligned blocks of ports; and those
    inside, as blocks."""
    outer, inner = (each.external_first, each.external_last), (each.internal_first, each.internal_last)
    shifted = inner[0] != inner[1] and inner != outer
    return (outer[1] - outer[0] + 1 if shifted else _blocks(*outer)) + _blocks(*inner)


def _blocks(first: int, last: int) -> int:
    """Into how many aligned blocks of a power of two the range falls.

    >>> _blocks(80, 80), _blocks(1024, 2047), _blocks(1, 65534)
    (1, 1, 30)
    """
    found = 0
    while first <= last:
        size = min(first & -first or 1 << 16, 1 << (last - first + 1).bit_length() - 1)
        first, found = first + size, found + 1
    return found


def _apart(others: Sequence[PortForwarding], new: PortForwarding, side: str) -> None:
    first, last = getattr(new, f"{side}_first"), getattr(new, f"{side}_last")
    for other in others:
        start, end = getattr(other, f"{side}_first"), getattr(other, f"{side}_last")
        if start <= last and first <= end:
            raise bad(f"There is a port collision with the {side}_port_range. The following ranges collide: "
                      f"{start}:{end} and {first}:{last}", f"{side}_port_range")
