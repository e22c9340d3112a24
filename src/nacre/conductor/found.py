"""What a host says of a guest that the database does not know, before anything is made of it: the sizes and texts that
a server may have, which the database can hold."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec
from msgspec import Meta

from nacre.base import bounds
from nacre.node.contract import Orphan

#: Bytes of one description.
MOST = 1 << 20

_Least0 = Annotated[int, Meta(ge=0, le=1 << 30)]
_Least1 = Annotated[int, Meta(ge=1, le=1 << 30)]
_Texts = dict[bounds.Name, Annotated[str, Meta(max_length=65535)]]


class _Guest(msgspec.Struct, frozen=True, kw_only=True):
    name: Annotated[bounds.Name, Meta(min_length=1)]
    hostname: Annotated[str, Meta(max_length=255, pattern=r"^[a-zA-Z0-9._-]*\Z")]
    project_id: bounds.Short
    user_id: bounds.Short
    availability_zone: bounds.Name
    flavor_name: bounds.Name
    reservation_id: bounds.Version
    launch_index: _Least0
    keys: tuple[tuple[bounds.Name, bounds.Word, Annotated[str, Meta(max_length=65535)]], ...]
    security_groups: tuple[bounds.Name, ...]


class _Image(msgspec.Struct, frozen=True, kw_only=True):
    id: bounds.Id
    properties: _Texts


class _Order(msgspec.Struct, frozen=True, kw_only=True):
    """As in a `BuildOrder`: at least what a flavor has."""

    memory_mb: _Least1
    vcpus: _Least1
    root_gb: _Least0
    ephemeral_gb: _Least0
    swap_mb: _Least0
    disk_mb: _Least0
    net_bandwidth: _Least0
    disk_bandwidth: _Least0
    disk_shares: _Least0
    selected_dir: bounds.Name
    extra_specs: _Texts
    guest: _Guest
    image: _Image | None
    kernel: _Image | None
    ramdisk: _Image | None


class _Network(msgspec.Struct, frozen=True, kw_only=True):
    project_id: bounds.Short


def checked(found: Orphan) -> tuple[Orphan, str]:
    """The guest, and why what its host says of it counts for nothing ("": it counts): then only who it is stays."""
    try:
        _check(found)
    except ValueError as error:  # msgspec's, too
        return Orphan(allocation=found.allocation, server_id=found.server_id, power=found.power, order=None,
                      epoch=found.epoch, stage=found.stage), f"its host describes it wrongly: {str(error)[:300]}"
    return found, ""


def _check(found: Orphan) -> None:
    order = found.order
    if (size := len(msgspec.msgpack.encode(found))) > MOST:
        raise ValueError(f"its description has {size} bytes, more than {MOST}")
    _read(found.networks, tuple[_Network, ...])
    if order is None:
        return
    if (order.server_id, order.allocation, order.guest.id) != (found.server_id, found.allocation, found.server_id):
        raise ValueError("its order is that of another guest")
    for id in (found.server_id, found.allocation):
        if str(UUID(id)) != id:
            raise ValueError(f"{id!r} is not a UUID")
    _read(order, _Order)
    if order.guest.created_at:
        datetime.fromisoformat(order.guest.created_at)


def _read(said: Any, kind: Any) -> None:
    msgspec.convert(said, kind, from_attributes=True)
