"""The segments of networks, and the numbers that they get: as an administrator says, or free ones of the operator's
ranges."""

import sqlalchemy as sa

from nacre.base.errors import BadRequest
from nacre.network import tables as t
from nacre.network.l2 import ranges
from nacre.network.ml2 import type_drivers
from nacre.network.ml2.type_drivers import TypeDriver
from nacre.network.nouns.attributes import Attributes
from nacre.network.nouns.network import PROVIDER, Network, NetworkSegment
from nacre.network.work import Work, conflict


def allocate(work: Work, network: Network, wanted: Attributes, position: int) -> NetworkSegment:
    """A segment as asked for by an administrator, or a free one of the tenant types."""
    settings = ranges.places(work, work.settings.types)
    kind, physical, number = (wanted.get(k) for k in PROVIDER)
    if kind:
        type_drivers.validate(settings, kind, physical, number)
        return reserve(work, network.id, (kind, physical, number), position=position)
    if wanted:
        raise BadRequest("Invalid input for operation: provider:network_type required.", type="InvalidInput")
    for kind in settings.tenant_types:
        driver = type_drivers.of(kind)
        for place in driver.places(settings):
            free = _free(work, driver, place, network.project_id) if driver.limit else None
            if free is not None or not driver.limit:
                return reserve(work, network.id, (kind, place, free), position=position)
    raise conflict("NoNetworkAvailable", "Unable to create the network. No tenant network is available for allocation.")


def _free(work: Work, driver: TypeDriver, physical: str | None, project_id: str) -> int | None:
    """A free number of those that the project is given; None when they are used up, or there are none."""
    return next((found for numbers in ranges.spans(work, driver, physical, project_id)
                 if (found := _free_of(work, driver, physical, numbers)) is not None), None)


def _free_of(work: Work, driver: TypeDriver, physical: str | None, numbers: range) -> int | None:
    """A free one of these. First the one above all that were given out, then by chance: only a range that is nearly
    full is read."""
    s = t.segments.c
    given = sa.select(s.segmentation_id).where(
        s.network_type == driver.name, s.segmentation_id.between(numbers[0], numbers[-1]),
        s.physical_network.is_(None) if physical is None else s.physical_network == physical)
    highest = work.conn.execute(given.order_by(s.segmentation_id.desc()).limit(1)).scalar()
    if highest is None or highest < numbers[-1]:
        return numbers[0] if highest is None else highest + 1
    tries = work.rng.sample(numbers, min(64, len(numbers)))
    taken = set(work.conn.execute(given.where(s.segmentation_id.in_(tries))).scalars())
    if (free := next((n for n in tries if n not in taken), None)) is not None:
        return free
    taken = set(work.conn.execute(given).scalars())
    return next((n for n in numbers if n not in taken), None)


def reserve(work: Work, network_id: str, what: tuple[str, str | None, int | None], *, position: int = 0,
            dynamic: bool = False) -> NetworkSegment:
    """A new segment. what: (type, physical network, number or None for a free one). Raises Conflict where it is
    taken or none is free."""
    kind, named, number = what
    physical = named or None  # clients and hosts also say "" for none
    driver = type_drivers.of(kind)
    if number is None and driver.limit:
        number = _free(work, driver, physical, work.select(Network, id=network_id)[0].project_id)
        if number is None:
            raise conflict("NoNetworkAvailable", f"Unable to create the network. No free {kind} segment is left.")
    claim = type_drivers.claim(driver, physical, number)
    if claim and work.first(NetworkSegment, claim=claim):
        raise conflict(*driver.taken(physical, number))
    return work.add(NetworkSegment(
        **work.new({"project_id": ""}), name=None, network_id=network_id, network_type=kind, physical_network=physical,
        segmentation_id=number, position=position, dynamic=dynamic, claim=claim))
