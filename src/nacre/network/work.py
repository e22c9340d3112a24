"""One unit of work on the network's tables: the connection, the caller, what it changes that hosts have wired, and how
much more or less of each counted resource its projects have.

A unit may be run again by the database, so a `Work` is made anew for each run and everything in it is dropped with it.
"""

import random
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any, TypeVar

import msgspec
import sqlalchemy as sa

from nacre.base.clock import Clock
from nacre.base.context import Context
from nacre.base.db import statements
from nacre.base.durable.processes import database_now
from nacre.base.errors import Conflict, NotFound, QuotaExceeded
from nacre.identity.contract import Policy
from nacre.network import tables as t
from nacre.network.ml2.type_drivers import SegmentTypes
from nacre.network.nouns.attributes import Attributes
from nacre.network.nouns.noun import Noun

Row = dict[str, Any]
N = TypeVar("N", bound=Noun)

#: More ids than this are not listed in a statement; what is found is looked through instead.
MANY = 500

#: What a project may have where no row of the quota table says otherwise; -1: no limit.
DEFAULT_QUOTAS = {
    "network": 100, "subnet": 100, "port": 500, "router": 10, "floatingip": 50, "security_group": 10,
    "security_group_rule": 100, "subnetpool": 50, "rbac_policy": 10, "address_group": 50, "address_scope": 50,
    "policy": 50, "trunk": 50,
}

COUNTED: dict[str, sa.Table] = {
    "network": t.networks, "subnet": t.subnets, "port": t.ports, "router": t.routers, "floatingip": t.floatingips,
    "security_group": t.security_groups, "security_group_rule": t.security_group_rules, "subnetpool": t.subnetpools,
    "rbac_policy": t.rbac_policies, "address_group": t.address_groups,
    "address_scope": t.address_scopes, "policy": t.qos_policies, "trunk": t.trunks,
}
_RESOURCE: dict[sa.FromClause, str] = {table: name for name, table in COUNTED.items()}

_Q, _U = t.quotas.c, t.usage.c
_PROJECT, _WHAT = sa.bindparam("project", type_=sa.String), sa.bindparam("what", type_=sa.String)
#: A project's own limit and what it has, each None where there is no row.
_ROOM = sa.select(
    sa.select(_Q.limit).where(_Q.project_id == _PROJECT, _Q.resource == _WHAT).scalar_subquery(),
    sa.select(_U.used).where(_U.project_id == _PROJECT, _U.resource == _WHAT).scalar_subquery())
_MORE = sa.update(t.usage).where(_U.project_id == _PROJECT, _U.resource == _WHAT).values(
    used=_U.used + sa.bindparam("more"))


ProjectOf = Callable[[sa.Connection, str], str | None]


class NetworkSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What the operator decides about networks. drivers: mechanism drivers in their order. own_host: that of the
    machine on which the cloud was started ("": none), whose L3 agent begins switched on."""

    types: SegmentTypes = SegmentTypes()
    drivers: tuple[str, ...] = ("openvswitch",)
    quotas: dict[str, int] = {}  # where they differ from DEFAULT_QUOTAS
    dns_domain: str = "openstacklocal"
    agent_down_after: float = 75.0
    own_host: str = ""


@dataclass
class Changes:
    """What a unit changed that hosts have wired. members: group -> the ports that joined it, left it or moved in it.
    places: network -> the ports of which other hosts see something else. Of what is routed, besides what can be read
    from the rows that are left: routed: networks that a router has left; routing: hosts that did something for a
    router or a floating IP, or do; hosts/routed.py makes of it whom it concerns."""

    ports: set[str] = field(default_factory=set)  # wherever they have a binding now
    left: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))  # host -> ports that it has no more
    hosts: set[str] = field(default_factory=set)  # all of theirs
    networks: set[str] = field(default_factory=set)  # whose own facts are others
    subnets: set[str] = field(default_factory=set)  # networks whose subnets changed: their DHCP port follows
    members: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    places: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    groups: set[str] = field(default_factory=set)
    address_groups: set[str] = field(default_factory=set)
    routers: set[str] = field(default_factory=set)  # with their gateways, interfaces and routes
    forwarding: set[str] = field(default_factory=set)  # routers, by other ports
    floated: set[str] = field(default_factory=set)  # ports, by other floating IPs
    routed: set[str] = field(default_factory=set)
    routing: set[str] = field(default_factory=set)

    def __bool__(self) -> bool:
        """Whether there is anything to tell of besides members."""
        return bool(self.places or self.ports or self.left or self.hosts or self.networks or self.subnets or self.groups
                    or self.address_groups)

    @property
    def routes(self) -> bool:
        """Whether there may be something to tell of what is routed."""
        return bool(self.routers or self.forwarding or self.floated or self.routed or self.routing or self.networks)

    def moved(self, port_id: str, groups: Iterable[str]) -> None:
        """The port is not in these groups what it was."""
        for group in groups:
            self.members[group].add(port_id)

    def placed(self, network_id: str, *port_ids: str) -> None:
        """What other hosts see of these ports is not what it was: a host, a MAC, addresses, or that they are."""
        self.places[network_id].update(port_ids)


@dataclass
class Work:
    """What a step of a unit needs."""

    conn: sa.Connection
    context: Context
    clock: Clock
    settings: NetworkSettings
    policy: Policy
    #: The project of a server, or None where there is none of that id.
    project_of: ProjectOf
    changes: Changes = field(default_factory=Changes)
    #: (project, resource) -> how many more than the table of usage says; written when the unit is done
    usage: Counter[tuple[str, str]] = field(default_factory=Counter)
    rng: random.Random = field(default_factory=random.Random)
    #: Whether a host reported to this very process lately.
    heard: Callable[[str], bool] = lambda host: False

    @cached_property
    def now(self) -> datetime:
        """This process's time, naive UTC, as the database keeps it: of what is only shown."""
        return self.clock.now().replace(tzinfo=None)

    @cached_property
    def shared_now(self) -> datetime:
        """The time on the clock that all control processes share, naive UTC: of what is compared."""
        return database_now(self.conn, self.clock)

    def rows(self, statement: sa.Select[Any]) -> list[Row]:
        return statements.rows(self.conn.execute(statement))

    def row(self, statement: sa.Select[Any]) -> Row | None:
        found = self.conn.execute(statement).mappings().first()
        return dict(found) if found else None

    def select(self, kind: type[N], order: tuple[str, ...] = (), **conditions: Any) -> list[N]:
        """The nouns for which the conditions hold. conditions, order: as `statements.find`."""
        return [kind(*row) for row in statements.select(
            self.conn, kind.TABLE, kind.__struct_fields__, order, conditions)]

    def search(self, kind: type[N], *where: sa.ColumnElement[bool], order: tuple[str, ...] = (),
               limit: int | None = None) -> list[N]:
        """The nouns for which all of that holds."""
        wanted = sa.select(*columns(kind)).where(*where).order_by(*(kind.TABLE.c[name] for name in order))
        return [kind(*row) for row in self.conn.execute(wanted.limit(limit))]

    def first(self, kind: type[N], *where: sa.ColumnElement[bool], **conditions: Any) -> N | None:
        """One noun for which all of that holds."""
        if where:
            where += tuple(kind.TABLE.c[name] == value for name, value in conditions.items())
            return next(iter(self.search(kind, *where, limit=1)), None)
        return next((kind(*row) for row in statements.first(
            self.conn, kind.TABLE, kind.__struct_fields__, conditions)), None)

    def new(self, data: Attributes) -> Attributes:
        """The standard columns of a new row, filled."""
        return {"id": str(uuid.uuid4()), "created_at": self.now, "updated_at": self.now, "revision_number": 1,
                "tags": data.get("tags") or [], "description": data.get("description", ""),
                "project_id": data["project_id"]}

    def add(self, noun: N) -> N:
        """A new row, which is this."""
        self.add_all(type(noun), [noun])
        return noun

    def add_all(self, kind: type[Noun], nouns: Sequence[Noun]) -> None:
        """New rows of that kind: of each noun its fields."""
        rows = [{name: getattr(noun, name) for name in kind.__struct_fields__} for noun in nouns]
        if rows:
            statements.insert(self.conn, kind.TABLE, rows if len(rows) > 1 else rows[0])
            if resource := _RESOURCE.get(kind.TABLE):
                self.usage.update((row["project_id"], resource) for row in rows)

    def remove(self, table: sa.Table, **conditions: Any) -> None:
        """Deletes rows of a table that quotas count. What goes by a foreign key's cascade is not counted: take away
        first what hangs on a row."""
        gone = statements.take(self.conn, table, "project_id", **conditions)
        self.usage.subtract((project, _RESOURCE[table]) for project in gone)

    def count(self) -> None:
        """Writes down what the unit took and gave back: the last thing of its transaction."""
        for (project, resource), more in self.usage.items():
            values = {"project": project, "what": resource, "more": more}
            if more and not self.conn.execute(_MORE, values).rowcount:
                statements.insert(self.conn, t.usage, {"project_id": project, "resource": resource, "used": more})

    def change(self, table: sa.Table, row_id: str, values: Attributes) -> None:
        """Writes values into a row and counts its revision up."""
        statements.update(self.conn, table, {**values, "updated_at": self.now}, "revision_number", id=row_id)

    def touch(self, table: sa.Table, row_id: str) -> None:
        """A part of the row's resource changed elsewhere: only the revision counts up."""
        self.change(table, row_id, {})

    def room(self, resource: str, project_id: str, wanted: int = 1) -> None:
        """Raises QuotaExceeded (OverQuota) unless the project may have `wanted` more."""
        left = self.left(resource, project_id)
        if left is not None and wanted > left:
            raise QuotaExceeded(f"Quota exceeded for resources: ['{resource}'].", type="OverQuota")

    def left(self, resource: str, project_id: str) -> int | None:
        """How many more the project may have. None: there is no limit."""
        own, used = self._room(resource, project_id)
        limit = own if own is not None else {**DEFAULT_QUOTAS, **self.settings.quotas}.get(resource, -1)
        return None if limit < 0 else limit - used

    def used(self, resource: str, project_id: str) -> int:
        """How many the project has, those of this unit included."""
        return self._room(resource, project_id)[1]

    def _room(self, resource: str, project_id: str) -> tuple[int | None, int]:
        own, used = self.conn.execute(_ROOM, {"project": project_id, "what": resource}).one()
        return own, (used or 0) + self.usage[project_id, resource]


#: Per resource: Neutron's name of "no such thing" and its wording.
MISSING = {
    "network": ("NetworkNotFound", "Network {} could not be found."),
    "subnet": ("SubnetNotFound", "Subnet {} could not be found."),
    "port": ("PortNotFound", "Port {} could not be found."),
    "security_group": ("SecurityGroupNotFound", "Security group {} does not exist"),
    "security_group_rule": ("SecurityGroupRuleNotFound", "Security group rule {} does not exist"),
    "router": ("RouterNotFound", "Router {} could not be found"),
    "port_forwarding": ("PortForwardingNotFound", "Port Forwarding {} could not be found."),
    "floatingip": ("FloatingIPNotFound", "Floating IP {} could not be found"),
    "subnetpool": ("SubnetPoolNotFound", "Subnet pool {} could not be found."),
    "address_scope": ("AddressScopeNotFound", "Address scope {} could not be found."),
    "address_group": ("AddressGroupNotFound", "Address group {} could not be found."),
    "rbac_policy": ("RbacPolicyNotFound", "RBAC policy with ID {} not found"),
    "policy": ("QosPolicyNotFound", "QoS policy {} could not be found."),
    "default_security_group_rule": (
        "DefaultSecurityGroupRuleNotFound", "Default Security Group rule {} does not exist"),
    "network_segment_range": ("NetworkSegmentRangeNotFound", "Network Segment Range {} could not be found."),
    "segment": ("SegmentNotFound", "Segment {} could not be found."),
    "trunk": ("TrunkNotFound", "Trunk {} could not be found."),
    "qos_policy": ("QosPolicyNotFound", "QoS policy {} could not be found."),  # as what is shared
    "agent": ("AgentNotFound", "Agent {} could not be found."),
}


def missing(resource: str, row_id: str) -> NotFound:
    """The resource's own 404."""
    kind, words = MISSING[resource]
    return NotFound(words.format(row_id[:64]), type=kind)


def conflict(kind: str, message: str) -> Conflict:
    return Conflict(message, type=kind)


def among(column: sa.Column[Any], ids: Collection[str]) -> sa.ColumnElement[bool]:
    """`column IN ids`, or everything where the list would be longer than a statement should be."""
    return column.in_(ids) if len(ids) <= MANY else sa.true()


def columns(kind: type[Noun]) -> list[sa.ColumnElement[Any]]:
    """What to select for nouns of that kind: their fields, in order."""
    return [kind.TABLE.c[name] for name in kind.__struct_fields__]


def where(table: sa.FromClause, filters: Attributes) -> list[sa.ColumnElement[bool]]:
    """Conditions for those filters that are columns of the table (values: lists; the rest is compared later)."""
    return [table.c[name].in_(values) for name, values in filters.items()
            if name in table.c and isinstance(table.c[name].type, sa.String) and 0 < len(values) <= 500
            and all(isinstance(value, str) for value in values)]
