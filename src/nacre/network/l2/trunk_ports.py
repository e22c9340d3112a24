"""What ports have to do with trunks."""

from collections import defaultdict
from collections.abc import Collection

import sqlalchemy as sa

from nacre.base.bounds import pieces
from nacre.network import tables as t
from nacre.network.contract import SubportFacts, TrunkFacts
from nacre.network.nouns.noun import View
from nacre.network.nouns.port import Port
from nacre.network.nouns.trunk import Subport, Trunk
from nacre.network.sharing import access
from nacre.network.work import MANY, Work, conflict

_CARRIED = sa.select(t.trunks.c.port_id, t.trunks.c.id, t.subports.c.port_id, t.subports.c.segmentation_id,
                     t.ports.c.mac_address, t.ports.c.network_id).outerjoin_from(
    t.trunks, t.subports, t.subports.c.trunk_id == t.trunks.c.id).outerjoin(
        t.ports, t.ports.c.id == t.subports.c.port_id).order_by(t.subports.c.segmentation_id)


def facts(work: Work, port_ids: Collection[str], *where: sa.ColumnElement[bool]) -> dict[str, TrunkFacts]:
    """port -> the trunk of which it is the parent, if that is so; in one statement for each MANY of them."""
    trunks, carried = dict[str, str](), defaultdict[str, list[SubportFacts]](list)
    for ids in pieces(port_ids, MANY):
        for parent, trunk_id, port_id, vlan, mac, network_id in work.conn.execute(
                _CARRIED.where(t.trunks.c.port_id.in_(ids), *where)):
            trunks[parent] = trunk_id
            if port_id:
                carried[parent].append(SubportFacts(port_id=port_id, network_id=network_id, mac_address=mac, vlan=vlan))
    return {parent: TrunkFacts(id=trunk_id, subports=tuple(carried[parent])) for parent, trunk_id in trunks.items()}


def details(work: Work, port_ids: Collection[str]) -> dict[str, View]:
    """port -> what the API says of the trunk of which it is the parent; others are left out. Said to who may see the
    trunk: it names subports on networks that the owner of the parent's network does not see (Neutron says it)."""
    return {port_id: {"trunk_details": {"trunk_id": trunk.id, "sub_ports": [
        {"segmentation_id": s.vlan, "segmentation_type": "vlan", "port_id": s.port_id, "mac_address": s.mac_address}
        for s in trunk.subports]}} for port_id, trunk in facts(work, port_ids, access.own(work, t.trunks)).items()}


def is_carried(work: Work, port_id: str) -> bool:
    """Whether it is a subport: its frames come and go by another port, and it is of no use for anything else."""
    return work.first(Subport, port_id=port_id) is not None


def refuse_carried(work: Work, port_id: str) -> None:
    """Raises Conflict for a subport."""
    if subport := work.first(Subport, port_id=port_id):
        raise conflict("PortInUseAsSubPort",
                       f"Port {port_id} is currently a subport for trunk {subport.trunk_id}.")


def release(work: Work, port: Port) -> None:
    """The port is about to go, and with it what it is of a trunk. Raises Conflict where it is of the asker's own
    project (Neutron: for everybody): whose network it is, and who administers, may have others' ports off it."""
    subport, trunk = work.first(Subport, port_id=port.id), work.first(Trunk, port_id=port.id)
    if port.project_id == work.context.project_id:
        refuse_carried(work, port.id)
        if trunk:
            raise conflict("PortInUseAsTrunkParent",
                           f"Port {port.id} is currently a parent port for trunk {trunk.id}.")
    if subport:
        work.touch(t.trunks, subport.trunk_id)
