"""Ranges of the numbers that networks' segments get: the operator's settings, and those that operators make by API, for
all projects or for one."""

import datetime as dt
import uuid
from collections.abc import Iterator, Sequence

import msgspec
import sqlalchemy as sa

from nacre.base.errors import BadRequest, Conflict, QuotaExceeded
from nacre.network import tables as t
from nacre.network.ml2 import type_drivers
from nacre.network.ml2.type_drivers import SegmentTypes, TypeDriver
from nacre.network.nouns.attributes import Attributes
from nacre.network.nouns.network import SEGMENT_RANGE, SegmentRange, range_view
from nacre.network.nouns.noun import View
from nacre.network.work import Work, conflict

#: The most that operators make: each new network reads them.
MOST = 100
#: The most free numbers that are shown of a range.
SHOWN = 1000
_PLAIN = ("name", "description", "minimum", "maximum")


class SegmentRanges:
    """The store behind /network-segment-ranges."""

    resource = SEGMENT_RANGE

    def list(self, work: Work, filters: Attributes) -> list[SegmentRange]:
        return [each for each in (*_configured(work.settings.types), *work.select(SegmentRange, order=("created_at",)))
                if each.id in filters.get("id", (each.id,))]

    def views(self, work: Work, found: Sequence[SegmentRange]) -> Sequence[View]:
        return [range_view(each, used := _used(work, each), _free(each, used)) for each in found]

    def target(self, work: Work, data: Attributes) -> Attributes:
        return {}

    def create(self, work: Work, data: Attributes) -> View:
        driver = type_drivers.load().get(data["network_type"])
        if driver is None or not driver.limit:
            raise BadRequest(f"Network type {data['network_type'][:64]} does not support network segment ranges.",
                             field="network_type", type="NetworkSegmentRangeNetTypeNotSupported")
        physical = data.get("physical_network") or ""
        if driver.physical and not physical:
            raise BadRequest(f"Bad network_segment_range request: Network type {driver.name} requires "
                             "'physical_network' to be specified while creating new range.", field="physical_network",
                             type="BadRequest")
        if len(known := work.select(SegmentRange)) >= MOST:
            raise QuotaExceeded(f"There are {MOST} network segment ranges, and no more are taken.", type="OverQuota")
        project = "" if data["shared"] else data["project_id"]
        new = SegmentRange(**work.new(data | {"project_id": project}), name=data["name"], shared=data["shared"],
                           network_type=driver.name, physical_network=physical if driver.physical else "",
                           minimum=data["minimum"], maximum=data["maximum"])
        _check(driver, new, known)
        return self.views(work, [work.add(new)])[0]

    def update(self, work: Work, current: SegmentRange, data: Attributes) -> None:
        refuse_configured(current)
        new = msgspec.structs.replace(current, **{k: data[k] for k in _PLAIN if k in data})
        if any(number not in range(new.minimum, new.maximum + 1) for number in _used(work, current)):
            raise _referenced(current)
        _check(type_drivers.of(new.network_type), new, work.select(SegmentRange))
        work.change(t.segment_ranges, current.id, {k: data[k] for k in _PLAIN if k in data})

    def delete(self, work: Work, current: SegmentRange) -> None:
        refuse_configured(current)
        if _used(work, current):
            raise _referenced(current)
        work.conn.execute(t.segment_ranges.delete().where(t.segment_ranges.c.id == current.id))


def _check(driver: TypeDriver, new: SegmentRange, known: Sequence[SegmentRange]) -> None:
    """Whether the range can be, beside the others that operators made. Raises BadRequest, Conflict."""
    if not 1 <= new.minimum <= new.maximum <= driver.limit:
        raise BadRequest(f"Invalid network {driver.name} range: '{new.minimum}:{new.maximum}' - minimum and maximum "
                         f"are 1 to {driver.limit}, and do not fall.", field="minimum", type="NetworkRangeError")
    if over := [each.id for each in known if each.id != new.id and each.network_type == new.network_type
                and each.physical_network == new.physical_network
                and new.minimum <= each.maximum and each.minimum <= new.maximum]:
        raise conflict("NetworkSegmentRangeOverlaps",
                       f"Network segment range overlaps with range(s) with id {', '.join(over)}")


def refuse_configured(current: SegmentRange) -> None:
    """What the operator's settings say is not changed by API. Raises BadRequest."""
    if current.configured:
        raise BadRequest(f"Network Segment Range {current.id} is a default segment range which could not be updated or "
                         "deleted.", type="NetworkSegmentRangeDefaultReadOnly")


def _referenced(current: SegmentRange) -> Conflict:
    return conflict("NetworkSegmentRangeReferencedByProject",
                    f"Network Segment Range {current.id} is referenced by one or more project networks.")


def _configured(types: SegmentTypes) -> Iterator[SegmentRange]:
    """The ranges of the operator's settings; their ids follow from what they are of."""
    for driver in type_drivers.load().values():
        for place in driver.places(types):
            if numbers := driver.numbers(types, place):
                yield SegmentRange(
                    id=str(uuid.uuid5(uuid.NAMESPACE_OID, f"nacre range {driver.name} {place or ''}")), project_id="",
                    description="", created_at=dt.datetime(2026, 1, 1), updated_at=dt.datetime(2026, 1, 1),
                    revision_number=0, tags=[], name="", shared=True, network_type=driver.name,
                    physical_network=place or "", minimum=numbers[0], maximum=numbers[-1])


def _used(work: Work, each: SegmentRange) -> dict[int, str]:
    """number -> the project whose network has it."""
    s, n = t.segments.c, t.networks.c
    return dict(work.conn.execute(sa.select(s.segmentation_id, n.project_id).join_from(
        t.segments, t.networks, s.network_id == n.id).where(
            s.network_type == each.network_type, sa.func.coalesce(s.physical_network, "") == each.physical_network,
            s.segmentation_id.between(each.minimum, each.maximum)).order_by(s.segmentation_id)).all())


def _free(each: SegmentRange, used: dict[int, str]) -> list[int]:
    found: list[int] = []
    for number in range(each.minimum, each.maximum + 1):
        if len(found) == SHOWN:
            break
        if number not in used:
            found.append(number)
    return found


def places(work: Work, types: SegmentTypes) -> SegmentTypes:
    """The settings, and the physical networks that ranges name besides."""
    physical = {each.physical_network: (each.minimum, each.maximum) for each in work.select(
        SegmentRange, network_type="vlan")}
    return msgspec.structs.replace(types, vlan_ranges={**physical, **types.vlan_ranges}) if physical else types


def spans(work: Work, driver: TypeDriver, physical: str | None, project_id: str) -> list[range]:
    """What a project's network is given numbers from, in this order: the project's own ranges, then those for all,
    without what is another project's."""
    made = work.select(SegmentRange, order=("minimum",), network_type=driver.name, physical_network=physical or "")
    own = [each.span for each in made if not each.shared and each.project_id == project_id]
    others = [each.span for each in made if not each.shared and each.project_id != project_id]
    shared = [driver.numbers(work.settings.types, physical), *(each.span for each in made if each.shared)]
    return [*own, *(part for span in shared for part in without(span, [*own, *others]) if part)]


def without(span: range, taken: Sequence[range]) -> list[range]:
    """What is left of a span. Pure."""
    left = [span] if span else []
    for each in taken:
        left = [part for one in left for part in (
            range(one.start, min(one.stop, each.start)), range(max(one.start, each.stop), one.stop)) if part]
    return left
