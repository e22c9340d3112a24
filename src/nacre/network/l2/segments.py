"""The segments of networks by API. Those that a driver took for a host while it bound a port are among them: they go
with their last port."""

from collections.abc import Sequence

import sqlalchemy as sa

from nacre.base.errors import Conflict, NotBuilt, QuotaExceeded
from nacre.network import tables as t
from nacre.network.l2 import numbers, ranges
from nacre.network.ml2 import type_drivers
from nacre.network.nouns.attributes import Attributes
from nacre.network.nouns.network import SEGMENT, Network, NetworkSegment, segment_view
from nacre.network.nouns.noun import View
from nacre.network.nouns.port import BindingLevel
from nacre.network.nouns.subnet import Subnet
from nacre.network.work import Work, conflict, missing, where

#: The most segments of one network.
MOST = 100


class Segments:
    """The store behind /segments."""

    resource = SEGMENT

    def list(self, work: Work, filters: Attributes) -> list[NetworkSegment]:
        return work.search(NetworkSegment, *where(t.segments, filters), order=("network_id", "position"))

    def views(self, work: Work, found: Sequence[NetworkSegment]) -> Sequence[View]:
        return [segment_view(segment) for segment in found]

    def target(self, work: Work, data: Attributes) -> Attributes:
        return {}

    def create(self, work: Work, data: Attributes) -> View:
        network = work.first(Network, id=data["network_id"])
        if network is None:
            raise missing("network", data["network_id"])
        kind, physical, number = data["network_type"], data["physical_network"], data["segmentation_id"]
        type_drivers.validate(ranges.places(work, work.settings.types), kind, physical, number)
        s = t.segments.c
        count, last = work.conn.execute(sa.select(sa.func.count(), sa.func.max(s.position)).where(
            s.network_id == network.id)).one()
        if count >= MOST:
            raise QuotaExceeded(f"Network {network.id} has {MOST} segments, and no more are taken.", type="OverQuota")
        if work.search(Subnet, t.subnets.c.network_id == network.id, t.subnets.c.segment_id.is_not(None), limit=1):
            raise NotBuilt("A network whose subnets are on its segment gets no second one: addresses are not given by "
                           "the segments of hosts.")
        made = numbers.reserve(work, network.id, (kind, physical, number), position=(last or 0) + 1)
        work.change(t.segments, made.id, {"name": data["name"], "description": data["description"]})
        work.changes.networks.add(network.id)
        return segment_view(work.select(NetworkSegment, id=made.id)[0])

    def update(self, work: Work, current: NetworkSegment, data: Attributes) -> None:
        work.change(t.segments, current.id, data)

    def delete(self, work: Work, current: NetworkSegment) -> None:
        if subnets := work.select(Subnet, segment_id=current.id):
            raise _in_use(current, f"The segment is still associated with subnet(s) {subnets[0].id}")
        if levels := work.select(BindingLevel, segment_id=current.id):
            raise _in_use(current, f"The segment is still bound with port(s) {levels[0].port_id}")
        work.conn.execute(t.segments.delete().where(t.segments.c.id == current.id))
        work.changes.networks.add(current.network_id)


def _in_use(segment: NetworkSegment, reason: str) -> Conflict:
    return conflict("SegmentInUse", f"Segment '{segment.id}' cannot be deleted: {reason}.")
