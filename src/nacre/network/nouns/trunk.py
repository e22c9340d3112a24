"""Trunks: a port that carries other ports by their VLANs. What is kept of them, and what the API says of them."""

from collections.abc import Sequence
from typing import Any

from nacre.network import tables as t
from nacre.network.nouns import checks as c
from nacre.network.nouns.attributes import BOTH, FLAG, MUTE, resource
from nacre.network.nouns.attributes import Attribute as A
from nacre.network.nouns.noun import Named, Noun, View

#: The segmentation types of subports: the VLAN that is named, or what the subport's network has.
VLAN, INHERIT = "vlan", "inherit"
#: The most subports of one request.
MOST = 500


class Trunk(Named, frozen=True):
    """port_id: its parent."""

    TABLE = t.trunks
    admin_state_up: bool
    port_id: str
    status: str


class Subport(Noun, frozen=True):
    """What a trunk carries: frames of the port, with that tag."""

    TABLE = t.subports
    port_id: str
    trunk_id: str
    segmentation_type: str
    segmentation_id: int


def subports(value: Any) -> list[dict[str, Any]]:
    """Subports to be added: each port once, each with a VLAN of its own, or its network's."""
    found: list[dict[str, Any]] = c.listing(_subport, limit=MOST)(_list(value))
    if (twice := c.duplicate(each["port_id"] for each in found)) is not None:
        raise ValueError(f"Non unique UUID for subport: '{twice}'")
    if (twice := c.duplicate(each["segmentation_id"] for each in found if "segmentation_id" in each)) is not None:
        raise ValueError(f"Segmentation ID '{twice}' is not unique")
    return found


def removed(value: Any) -> list[str]:
    """The ids of subports to be taken away."""
    found: list[str] = c.listing(_port_id, limit=MOST, unique=True)(_list(value))
    return found


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"Invalid data format for subports: '{c.shown(value)}' is not a list")
    return value


def _port_id(value: Any) -> str:
    if not isinstance(value, dict):
        raise ValueError(f"Invalid data format for subport: '{c.shown(value)}' is not a dict")
    if "port_id" not in value:
        raise ValueError("A valid port UUID must be specified")
    return c.uuid_(value["port_id"])


def _subport(value: Any) -> dict[str, Any]:
    port_id, kind = _port_id(value), value.get("segmentation_type")
    if unknown := sorted(set(value) - {"port_id", "segmentation_type", "segmentation_id"}):
        raise ValueError(f"unexpected keys supplied: {', '.join(map(str, unknown))[:200]}")
    if kind == INHERIT:
        return {"port_id": port_id, "segmentation_type": INHERIT}
    if not kind or value.get("segmentation_id") is None:
        raise ValueError(f"Invalid subport details of port {port_id}: missing segmentation information. Must specify "
                         "both segmentation_id and segmentation_type")
    return {"port_id": port_id, "segmentation_type": VLAN, "segmentation_id": vlan(kind, value["segmentation_id"])}


def vlan(kind: Any, number: Any) -> int:
    """A VLAN that a subport can have."""
    if kind != VLAN:
        raise ValueError(f"Unknown segmentation_type '{c.shown(kind)}'")
    found: int = c.number(1, 4094)(number)
    return found


TRUNK = resource("trunk", "trunks", [
    A("admin_state_up", default=True, **FLAG, **BOTH), A("status"),
    A("port_id", c.uuid_, post=True, required=True), A("sub_ports", subports, post=True, default=[], **MUTE),
])


def view(trunk: Trunk, carried: Sequence[Subport]) -> View:
    return trunk.standard() | {
        "admin_state_up": trunk.admin_state_up, "port_id": trunk.port_id, "status": trunk.status,
        "sub_ports": [subport_view(subport) for subport in carried]}


def subport_view(subport: Subport) -> View:
    return {"port_id": subport.port_id, "segmentation_type": subport.segmentation_type,
            "segmentation_id": subport.segmentation_id}
