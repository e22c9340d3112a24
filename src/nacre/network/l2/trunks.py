"""Trunks and their subports, as rows. A trunk is DOWN: no host carries one yet."""

from collections import defaultdict
from collections.abc import Collection, Sequence

from nacre.base.errors import BadRequest, Conflict, NotFound
from nacre.network import ports
from nacre.network import tables as t
from nacre.network.nouns.attributes import Attributes
from nacre.network.nouns.network import Network, NetworkSegment
from nacre.network.nouns.noun import View
from nacre.network.nouns.port import Placed, Port
from nacre.network.nouns.trunk import INHERIT, TRUNK, VLAN, Subport, Trunk, view, vlan
from nacre.network.sharing import access
from nacre.network.work import Work, among, conflict, missing, where


class Trunks:
    """The store behind /trunks."""

    resource = TRUNK

    def list(self, work: Work, filters: Attributes) -> list[Trunk]:
        return work.search(Trunk, access.own(work, t.trunks), *where(t.trunks, filters))

    def views(self, work: Work, found: Sequence[Trunk]) -> Sequence[View]:
        carried = defaultdict[str, list[Subport]](list)
        if ids := [trunk.id for trunk in found]:
            for subport in work.search(Subport, among(t.subports.c.trunk_id, ids), order=("segmentation_id",)):
                carried[subport.trunk_id].append(subport)
        return [view(trunk, carried[trunk.id]) for trunk in found]

    def target(self, work: Work, data: Attributes) -> Attributes:
        return {}

    def create(self, work: Work, data: Attributes) -> View:
        [port] = _ports(work, [data["port_id"]]).values()
        _refuse_trunked(work, [port.id])
        if port.host or port.device_owner.startswith("network:"):  # the cloud's own serve something already
            raise _parent_in_use(port.id)
        work.room("trunk", data["project_id"])
        trunk = work.add(Trunk(**work.new(data), name=data["name"], admin_state_up=data["admin_state_up"],
                               port_id=port.id, status="DOWN"))
        return view(trunk, self._carry(work, trunk, data["sub_ports"]))

    def update(self, work: Work, current: Trunk, data: Attributes) -> None:
        work.change(t.trunks, current.id, data)

    def delete(self, work: Work, current: Trunk) -> None:
        _refuse_disabled(current)
        if _hosted(work, current.port_id):
            raise conflict("TrunkInUse", f"Trunk {current.id} is currently in use.")
        work.remove(t.trunks, id=current.id)

    def add_subports(self, work: Work, trunk: Trunk, wanted: Sequence[Attributes]) -> None:
        """The trunk carries these ports, too. Raises NotFound, Conflict, BadRequest."""
        self._carry(work, trunk, wanted)
        _refuse_disabled(trunk)
        work.change(t.trunks, trunk.id, {"status": "DOWN"})

    def remove_subports(self, work: Work, trunk: Trunk, port_ids: Sequence[str]) -> None:
        """The trunk does not carry these ports any more. Raises NotFound, Conflict."""
        _refuse_disabled(trunk)
        known = {subport.port_id for subport in work.select(Subport, trunk_id=trunk.id)}
        if lacking := [port_id for port_id in port_ids if port_id not in known]:
            raise NotFound(f"SubPort {lacking[0]} on trunk {trunk.id} could not be found.", type="SubPortNotFound")
        s = t.subports.c
        work.conn.execute(t.subports.delete().where(s.trunk_id == trunk.id, s.port_id.in_(port_ids)))
        work.change(t.trunks, trunk.id, {"status": "DOWN"})

    def _carry(self, work: Work, trunk: Trunk, wanted: Sequence[Attributes]) -> Sequence[Subport]:
        """What is asked about the ports is read once for all."""
        if not wanted:
            return []
        found = _ports(work, [each["port_id"] for each in wanted])
        parent = work.select(Network, id=work.select(Port, id=trunk.port_id)[0].network_id)[0]
        self._check(work, trunk, found.values(), parent)
        inherited = _inherited(work, [found[each["port_id"]] for each in wanted if "segmentation_id" not in each])
        taken = {subport.segmentation_id for subport in work.select(Subport, trunk_id=trunk.id)}
        made = []
        for each in wanted:
            number = each.get("segmentation_id") or inherited[found[each["port_id"]].network_id]
            if number in taken:
                raise conflict("DuplicateSubPort", f"segmentation_type {VLAN} and segmentation_id {number} already in "
                               f"use on trunk {trunk.id}.")
            taken.add(number)
            made.append(Subport(port_id=each["port_id"], trunk_id=trunk.id, segmentation_type=VLAN,
                                segmentation_id=number))
        work.add_all(Subport, made)
        return made

    def _check(self, work: Work, trunk: Trunk, carried: Collection[Placed], parent: Network) -> None:
        if trunk.port_id in {port.id for port in carried}:
            raise _parent_in_use(trunk.port_id)
        mtus = {network.id: network.mtu for network in work.select(
            Network, id=list({port.network_id for port in carried}))}
        if large := next((port for port in carried if mtus[port.network_id] > parent.mtu), None):
            raise conflict("SubPortMtuGreaterThanTrunkPortMtu", f"MTU {mtus[large.network_id]} of subport {large.id} "
                           f"cannot be greater than MTU {parent.mtu} of trunk {trunk.port_id}.")
        _refuse_trunked(work, [port.id for port in carried])
        for port in carried:
            ports.refuse_used(port)
            if port.host:
                raise conflict("PortInUse", f"Unable to complete operation on port {port.id} for network "
                               f"{port.network_id}. Port is bound to a host already.")


def _ports(work: Work, port_ids: Sequence[str]) -> dict[str, Placed]:
    """Of the caller's own; stricter than Neutron, whose users may also take others' on their networks. Raises
    NotFound."""
    found = {port.id: port for port in work.search(
        Placed, access.own(work, t.placed), t.placed.c.id.in_(port_ids), t.placed.c.active)}
    if lacking := [port_id for port_id in port_ids if port_id not in found]:
        raise missing("port", lacking[0])
    return found


def _hosted(work: Work, port_id: str) -> bool:
    return any(port.host for port in work.select(Placed, id=port_id, active=True))


def _inherited(work: Work, carried: Sequence[Placed]) -> dict[str, int]:
    """The VLANs of these ports' networks. Raises BadRequest: one has none."""
    first = dict[str, NetworkSegment]()
    for segment in work.select(NetworkSegment, order=("position",), dynamic=False,
                               network_id=list({port.network_id for port in carried})) if carried else ():
        first.setdefault(segment.network_id, segment)
    try:
        return {port.network_id: vlan(first[port.network_id].network_type, first[port.network_id].segmentation_id)
                for port in carried}
    except (ValueError, KeyError) as error:
        raise BadRequest(f"Invalid input for operation: {INHERIT}: {error}.", field="segmentation_type",
                         type="InvalidInput") from None


def _refuse_trunked(work: Work, port_ids: Sequence[str]) -> None:
    if found := work.first(Subport, t.subports.c.port_id.in_(port_ids)):
        raise conflict("TrunkPortInUse", f"Port {found.port_id} is in use by another trunk.")
    if parent := work.first(Trunk, t.trunks.c.port_id.in_(port_ids)):
        raise _parent_in_use(parent.port_id)


def _parent_in_use(port_id: str) -> Conflict:
    return conflict("ParentPortInUse",
                    f"Port {port_id} is currently in use and is not eligible for use as a parent port.")


def _refuse_disabled(trunk: Trunk) -> None:
    if not trunk.admin_state_up:
        raise conflict("TrunkDisabled", f"Trunk {trunk.id} is currently disabled.")
