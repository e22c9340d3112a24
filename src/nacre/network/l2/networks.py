"""Networks and their segments."""

from collections import defaultdict
from collections.abc import Sequence

import sqlalchemy as sa

from nacre.base.db import statements
from nacre.base.durable import changes as outbox
from nacre.base.errors import BadRequest
from nacre.network import tables as t
from nacre.network.hosts import placed
from nacre.network.hosts.routed import ROUTED
from nacre.network.l2 import numbers
from nacre.network.ml2 import type_drivers
from nacre.network.nouns.attributes import Attributes
from nacre.network.nouns.network import NETWORK, PROVIDER, Network, NetworkSegment, provider, view
from nacre.network.nouns.noun import View
from nacre.network.nouns.subnet import Subnet
from nacre.network.sharing import access, grants
from nacre.network.sharing.access import EXTERNAL, SHARED
from nacre.network.traffic import qos
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
        apart = set[str]()  # networks whose subnets are on segments
        for row in work.rows(sa.select(t.subnets.c.id, t.subnets.c.network_id, t.subnets.c.segment_id).where(
                among(t.subnets.c.network_id, ids))):
            subnets[row["network_id"]].append(row["id"])
            apart |= {row["network_id"]} if row["segment_id"] else set()
        for row in work.rows(_SCOPES.where(among(t.subnets.c.network_id, ids))):
            scopes[row["network_id"]][f"ipv{row['ip_version']}_address_scope"] = row["address_scope_id"]
        for segment in work.search(NetworkSegment, among(t.segments.c.network_id, ids),
                                   t.segments.c.dynamic.is_(False), order=("position",)):
            segments[segment.network_id].append(segment)
        shared = access.shared(work, "network")
        return [view(n, subnets[n.id], segments[n.id], n.id in shared) | scopes[n.id]
                | {"l2_adjacency": n.id not in apart} for n in found]

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
            qos_policy_id=qos.of_network(work, data.get("qos_policy_id"), data["project_id"]),
            **{k: data[k] for k in ("name", "admin_state_up", "port_security_enabled", "is_default", "dns_domain",
                                    "availability_zone_hints")}))
        segments = [numbers.allocate(work, network, s, i) for i, s in enumerate(wanted or [{}])]
        for action, given in ((SHARED, data["shared"]), (EXTERNAL, data["router:external"])):
            if given:
                grants.open_to_all(work, "network", network, action)
        return view(network, [], segments, data["shared"]) | {"l2_adjacency": True}

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
        if "qos_policy_id" in data:
            values["qos_policy_id"] = qos.changed(work, current.qos_policy_id, data["qos_policy_id"])
        if "mtu" in data:
            values["mtu"] = self._mtu(work, current.id, data["mtu"], seen["provider:network_type"] or "local")
        work.change(t.networks, current.id, values)
        work.changes.networks.add(current.id)
        if values.get("admin_state_up", current.admin_state_up) != current.admin_state_up:
            work.changes.hosts.update(host for _, host in placed.hosts_of_networks(work.conn, [current.id]))

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
        statements.delete(work.conn, t.placed_changes, network_id=network_id)
        outbox.forget(work.conn, ROUTED, network_id)
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
