"""Sharing: RBAC policies open an object of one project to another, or to all."""

import uuid
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from nacre.base.errors import BadRequest, Conflict, Forbidden
from nacre.network import networks
from nacre.network import tables as t
from nacre.network.networks import EXTERNAL, SHARED, granted
from nacre.network.nouns.attributes import Attributes
from nacre.network.nouns.noun import Standard, View
from nacre.network.nouns.rbac import RBAC, RbacPolicy, view
from nacre.network.work import Work, conflict, missing, where

#: What can be shared, and how.
OBJECTS: dict[str, tuple[sa.Table, tuple[str, ...]]] = {
    "network": (t.networks, (SHARED, EXTERNAL)), "security_group": (t.security_groups, (SHARED,)),
    "address_group": (t.address_groups, (SHARED,)), "subnetpool": (t.subnetpools, (SHARED,)),
    "address_scope": (t.address_scopes, (SHARED,)),
}


def visible(work: Work, table: sa.Table, object_type: str) -> sa.ColumnElement[bool]:
    """The rows of a shareable table that the caller may see: its own and those opened to it."""
    if work.context.is_admin or "service" in work.context.roles:
        return sa.true()
    project = work.context.project_id
    return sa.or_(table.c.project_id == project, table.c.id.in_(granted(object_type, project, SHARED)))


def shared(work: Work, object_type: str) -> set[str]:
    """The ids of the objects of that type that are open to the caller."""
    return set(work.conn.execute(granted(object_type, work.context.project_id, SHARED)).scalars())


def grant(work: Work, object_type: str, shared: Standard, action: str) -> None:
    """Opens an object to everybody."""
    work.add(RbacPolicy(
        id=str(uuid.uuid4()), project_id=shared.project_id, object_type=object_type, object_id=shared.id, action=action,
        target_project="*"))


def forget(work: Work, object_id: str) -> None:
    """The object is gone, and so is who may see it."""
    work.remove(t.rbac_policies, object_id=object_id)


class RbacPolicies:
    """The store behind /rbac-policies."""

    resource = RBAC

    def list(self, work: Work, filters: Attributes) -> list[RbacPolicy]:
        mine = sa.true() if work.context.is_admin else t.rbac_policies.c.project_id == work.context.project_id
        return work.select(RbacPolicy, mine, *where(t.rbac_policies, filters))

    def views(self, work: Work, found: Sequence[RbacPolicy]) -> Sequence[View]:
        return [view(policy) for policy in found]

    def target(self, work: Work, data: Attributes) -> Attributes:
        return {}

    def create(self, work: Work, data: Attributes) -> View:
        if data["object_type"] not in OBJECTS:
            raise BadRequest(f"RBAC policies for '{data['object_type'][:64]}' are not supported; known: "
                             f"{', '.join(OBJECTS)}.", field="object_type", type="RbacPolicyInvalidType")
        table, actions = OBJECTS[data["object_type"]]
        if data["action"] not in actions:
            raise BadRequest(f"Invalid input for operation: Invalid action '{data['action'][:64]}' for object type "
                             f"'{data['object_type']}'. Valid actions: {', '.join(actions)}.", field="action",
                             type="InvalidInput")
        shared = work.row(sa.select(table.c.project_id).where(
            table.c.id == data["object_id"], visible(work, table, data["object_type"])))
        if shared is None:
            raise missing(data["object_type"], data["object_id"])
        if shared["project_id"] != work.context.project_id and not work.context.is_admin:
            raise BadRequest("Invalid input for operation: Only admins can manipulate policies on objects they do not "
                             "own.", field="object_id", type="InvalidInput")
        if data["action"] == EXTERNAL and not work.context.is_admin:
            raise Forbidden("Only administrators can open networks as external ones.",
                            type="PolicyNotAuthorized")
        work.room("rbac_policy", data["project_id"])
        if work.first(RbacPolicy, object_id=data["object_id"], action=data["action"],
                      target_project=data["target_tenant"]):
            raise conflict("DuplicatePolicyError", "An RBAC policy already exists with those values.")
        policy = work.add(RbacPolicy(
            id=str(uuid.uuid4()), project_id=data["project_id"], object_type=data["object_type"],
            object_id=data["object_id"], action=data["action"], target_project=data["target_tenant"]))
        self._settle(work, policy)
        return view(policy)

    def _settle(self, work: Work, policy: RbacPolicy) -> None:
        """Of the objects only networks are revised by who sees them, as in Neutron."""
        if policy.action == EXTERNAL:
            networks.settle_external(work, policy.object_id)
        elif policy.object_type == "network":
            work.touch(t.networks, policy.object_id)

    def update(self, work: Work, current: RbacPolicy, data: Attributes) -> None:
        target: str = data.get("target_tenant", current.target_project)
        if target != current.target_project:
            self._refuse_used(work, current)
            work.conn.execute(sa.update(t.rbac_policies).where(t.rbac_policies.c.id == current.id).values(
                target_project=target))
            self._settle(work, current)

    def delete(self, work: Work, current: RbacPolicy) -> None:
        self._refuse_used(work, current)
        work.remove(t.rbac_policies, id=current.id)
        self._settle(work, current)

    def _refuse_used(self, work: Work, policy: RbacPolicy) -> None:
        """Raises Conflict while the target project uses what it would lose."""
        target, object_id = policy.target_project, policy.object_id
        if policy.object_type == "network":
            try:
                networks.refuse_withdrawal(work, object_id, policy.action, target)
            except Conflict as error:
                raise conflict("RbacPolicyInUse", f"RBAC policy on object {object_id} cannot be removed because other "
                               "objects depend on it.") from error
            return
        table = OBJECTS[policy.object_type][0]
        opened = {other.target_project for other in work.select(
            RbacPolicy, object_id=object_id, action=policy.action)} - {target}
        owner = work.conn.execute(sa.select(table.c.project_id).where(table.c.id == object_id)).scalar()
        if "*" in opened or target == owner:
            return
        users = set(work.conn.execute(_users(policy.object_type, object_id)).scalars())
        if users - opened - {owner} if target == "*" else target in users:
            raise conflict("RbacPolicyInUse", f"RBAC policy on object {object_id} cannot be removed because other "
                           "objects depend on it.")


def _users(object_type: str, object_id: str) -> sa.Select[Any]:
    """The projects with something that uses an object which is no network."""
    if object_type == "security_group":
        p, g = t.ports.c, t.port_groups.c
        return sa.select(p.project_id).where(p.id.in_(sa.select(g.port_id).where(g.group_id == object_id))).distinct()
    table, column = {"address_group": (t.security_group_rules, "remote_address_group_id"),
                     "subnetpool": (t.subnets, "subnetpool_id"),
                     "address_scope": (t.subnetpools, "address_scope_id")}[object_type]
    return sa.select(table.c.project_id).where(table.c[column] == object_id).distinct()

