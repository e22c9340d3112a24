"""Networks and their segments."""

import uuid
from collections import defaultdict
from collections.abc import Sequence

import sqlalchemy as sa

from nacre.base.errors import BadRequest
from nacre.network import tables as t
from nacre.network.hosts import notifications
from nacre.network.ml2 import type_drivers
from nacre.network.ml2.type_drivers import TypeDriver
from nacre.network.nouns.attributes import Attributes
from nacre.network.nouns.network import NETWORK, PROVIDER, Network, NetworkSegment, provider, view
from nacre.network.nouns.noun import View
from nacre.network.nouns.subnet import Subnet
from nacre.network.sharing import access, grants
from nacre.network.sharing.access import EXTERNAL, SHARED
from nacre.network.work import Work, among, conflict, missing, where

#: Ports that go with their network or subnet without being asked.
AUTO_DELETE = ("network:dhcp",)

#: The least MTU that an IP version demands of a link (RFC 791, RFC 8200).
MIN_MTU = {4: 68, 6: 1280}
_SCOPES = sa.select(t.subnets.c.network_id, t.subnets.c.ip_version, t.subnetpools.c.address_scope_id).join(
    t.subnetpools, t.subnetpools.c.id == t.subnets.c.subnetpool_id).where(t.subnetpools.c.address_scope_id.is_not(None))


def visible(work: Work) -> sa.ColumnElement[bool]:
    """The networks that the caller may see: its own, shared and external ones."""
    return access.visible(work, t.networks, "network", SHARED, EXTERNAL)


class Networks:
    """The store behind /networks."""

    resource = NETWORK

    def list(self, work: Work, filters: Attributes) -> list[Network]:
        return work.search(Network, visible(work), *where(t.networks, filters))

    def views(self, work: Work, found: Sequence[Network]) -> Sequence[View]:
        ids = [network.id for network in found]
        if not ids:
            return []
        subnets, segments = defaultdict[str, list[str]](list), defaultdict[str, list[NetworkSegment]](list)
        scopes = defaultdict[str, View](dict)
        for row in work.rows(sa.select(t.subnets.c.id, t.subnets.c.network_id).where(
                among(t.subnets.c.network_id, ids))):
            subnets[row["network_id"]].append(row["id"])
        for row in work.rows(_SCOPES.where(among(t.subnets.c.network_id, ids))):
            scopes[row["network_id"]][f"ipv{row['ip_version']}_address_scope"] = row["address_scope_id"]
        for segment in work.search(NetworkSegment, among(t.segments.c.network_id, ids),
                                   t.segments.c.dynamic.is_(False), order=("position",)):
            segments[segment.network_id].append(segment)
        shared = access.shared(work, "network")
        return [view(n, subnets[n.id], segments[n.id], n.id in shared) | scopes[n.id] for n in found]

    def target(self, work: Work, data: Attributes) -> Attributes:
        return {}

    def create(self, work: Work, data: Attributes) -> View:
        work.room("network", data["project_id"])
        wanted = _wanted(data)
        types = work.settings.types
        mtu = min(type_drivers.mtu(types, s.get("provider:network_type") or types.tenant_types[0])
                  for s in wanted or [{}])
        if data["mtu"] > mtu or (data["mtu"] and data["mtu"] < 68):
            raise BadRequest(f"Invalid input for operation: Requested MTU is too big, maximum is {mtu}."
                             if data["mtu"] > mtu else "Invalid input for operation: the minimum MTU is 68.",
                             field="mtu", type="InvalidInput")
        network = work.add(Network(
            **work.new(data), mtu=data["mtu"] or mtu, external=data["router:external"],
            **{k: data[k] for k in ("name", "admin_state_up", "port_security_enabled", "is_default", "dns_domain",
                                    "availability_zone_hints")}))
        segments = [_allocate(work, network.id, s, i) for i, s in enumerate(wanted or [{}])]
        for action, given in ((SHARED, data["shared"]), (EXTERNAL, data["router:external"])):
            if given:
                grants.open_to_all(work, "network", network, action)
        return view(network, [], segments, data["shared"])

    def update(self, work: Work, current: Network, data: Attributes) -> None:
        segments = work.select(NetworkSegment, order=("position",), network_id=current.id, dynamic=False)
        seen = provider(segments)
        if changed := [k for k in (*PROVIDER, "segments") if k in data and data[k] != seen.get(k)]:
            raise BadRequest(f"Invalid input for operation: Plugin does not support updating provider attributes "
                             f"({changed[0]}).", field=changed[0], type="InvalidInput")
        if "shared" in data and data["shared"] != access.is_shared(work, "network", current.id):
            self._open(work, current, SHARED, data["shared"])
        values: Attributes = {k: data[k] for k in ("name", "description", "admin_state_up", "port_security_enabled",
                                            "is_default", "dns_domain") if k in data}
        if "router:external" in data:
            values["external"] = data["router:external"]
            if values["external"] != current.external:
                self._open(work, current, EXTERNAL, values["external"])
        if "mtu" in data:
            values["mtu"] = self._mtu(work, current.id, data["mtu"], seen["provider:network_type"] or "local")
        work.change(t.networks, current.id, values)
        work.changes.networks.add(current.id)
        if values.get("admin_state_up", current.admin_state_up) != current.admin_state_up:
            work.changes.hosts.update(host for _, host in notifications.hosts_of_networks(work, [current.id]))

    def _open(self, work: Work, network: Network, action: str, wanted: bool) -> None:
        if wanted:
            grants.open_to_all(work, "network", network, action)
        else:
            grants.close_network(work, network, action)

    def _mtu(self, work: Work, network_id: str, wanted: int, network_type: str) -> int:
        """The MTU that is wanted, or where none is the largest. Raises BadRequest, Conflict."""
        limit = type_drivers.mtu(work.settings.types, network_type)
        mtu = wanted or limit
        for version in {subnet.ip_version for subnet in work.select(Subnet, network_id=network_id)}:
            check_subnet_mtu(network_id, mtu, version)
        if not MIN_MTU[4] <= mtu <= limit:
            raise BadRequest(f"Invalid input for operation: Requested MTU is out of range, 68 to {limit}.",
                             field="mtu", type="InvalidInput")
        return mtu

    def _drop_floating(self, work: Work, network_id: str) -> None:
        """Floating IPs that no port uses go with their external network."""
        f = t.floatingips.c
        rows = work.rows(sa.select(f.id, f.floating_port_id).where(
            f.floating_network_id == network_id, f.port_id.is_(None)))
        if rows:
            work.remove(t.floatingips, id=[r["id"] for r in rows])
            work.remove(t.ports, id=[r["floating_port_id"] for r in rows])

    def delete(self, work: Work, current: Network) -> None:
        network_id = current.id
        self._drop_floating(work, network_id)
        used = [r["id"] for r in work.rows(sa.select(t.ports.c.id).where(
            t.ports.c.network_id == network_id, t.ports.c.device_owner.not_in(AUTO_DELETE)).limit(20))]
        if used:
            raise conflict("NetworkInUse", f"Unable to complete operation on network {network_id}. There are one or "
                           f"more ports still in use on the network, id for these ports is {','.join(used)}.")
        work.remove(t.ports, network_id=network_id)
        work.remove(t.subnets, network_id=network_id)
        grants.forget(work, network_id)
        work.remove(t.networks, id=network_id)


def check_subnet_mtu(network_id: str, mtu: int, version: int) -> None:
    """Raises Conflict where a subnet of that IP version could not work on a network of that MTU."""
    if mtu < MIN_MTU[version]:
        raise conflict("NetworkMTUSubnetConflict", f"MTU of {network_id} is not valid, subnet requires a minimum of "
                       f"{MIN_MTU[version]}")


def get(work: Work, network_id: str) -> Network:
    """A network, if the caller may see it. Raises NotFound."""
    found = work.first(Network, id=network_id)
    if found and found.project_id != work.context.project_id:
        found = work.first(Network, visible(work), id=network_id)
    if found is None:
        raise missing("network", network_id)
    return found


def _wanted(data: Attributes) -> list[Attributes]:
    given = {k: data[k] for k in PROVIDER if data.get(k) is not None}
    if given and data.get("segments"):
        raise BadRequest("Invalid input for operation: Segments and provider values cannot both be set.",
                         field="segments", type="SegmentsSetInConjunctionWithProviders")
    return data.get("segments") or ([given] if given else [])


def _allocate(work: Work, network_id: str, wanted: Attributes, position: int) -> NetworkSegment:
    """A segment as asked for by an administrator, or a free one of the tenant types."""
    settings = work.settings.types
    kind, physical, number = (wanted.get(k) for k in PROVIDER)
    if kind:
        type_drivers.validate(settings, kind, physical, number)
        return reserve(work, network_id, (kind, physical or None, number), position=position)
    if wanted:
        raise BadRequest("Invalid input for operation: provider:network_type required.", type="InvalidInput")
    for kind in settings.tenant_types:
        driver = type_drivers.of(kind)
        for place in driver.places(settings):
            if not driver.limit or _free(work, driver, place) is not None:
                return reserve(work, network_id, (kind, place, None), position=position)
    raise conflict("NoNetworkAvailable", "Unable to create the network. No tenant network is available for allocation.")


def _free(work: Work, driver: TypeDriver, physical: str | None) -> int | None:
    """A free number of the operator's range; None when it is used up, or there is none. First the one above all that
    were given out, then by chance: only a range that is nearly full is read."""
    s, numbers = t.segments.c, driver.numbers(work.settings.types, physical)
    if not numbers:
        return None
    given = sa.select(s.segmentation_id).where(
        s.network_type == driver.name,
        s.physical_network.is_(None) if physical is None else s.physical_network == physical)
    highest = work.conn.execute(given.where(s.segmentation_id.between(numbers[0], numbers[-1])).order_by(
        s.segmentation_id.desc()).limit(1)).scalar()
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
    kind, physical, number = what
    driver = type_drivers.of(kind)
    if number is None and driver.limit:
        number = _free(work, driver, physical)
        if number is None:
            raise conflict("NoNetworkAvailable", f"Unable to create the network. No free {kind} segment is left.")
    claim = type_drivers.claim(driver, physical, number)
    if claim and work.first(NetworkSegment, claim=claim):
        raise conflict(*driver.taken(physical, number))
    return work.add(NetworkSegment(
        id=str(uuid.uuid4()), network_id=network_id, network_type=kind, physical_network=physical,
        segmentation_id=number, position=position, dynamic=dynamic, claim=claim))
