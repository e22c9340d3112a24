"""Sharing: RBAC policies open an object of one project to another, or to all."""

import uuid
from collections.abc import Sequence

import sqlalchemy as sa

from nacre.base.errors import BadRequest, Forbidden
from nacre.network import tables as t
from nacre.network.nouns.address import AddressScope, SubnetPool
from nacre.network.nouns.attributes import Attributes
from nacre.network.nouns.noun import View
from nacre.network.nouns.rbac import RBAC, RbacPolicy, view
from nacre.network.sharing import access, grants
from nacre.network.sharing.access import EXTERNAL
from nacre.network.sharing.grants import OBJECTS
from nacre.network.work import Work, conflict, missing, where


class RbacPolicies:
    """The store behind /rbac-policies."""

    resource = RBAC

    def list(self, work: Work, filters: Attributes) -> list[RbacPolicy]:
        mine = sa.true() if work.context.is_admin else t.rbac_policies.c.project_id == work.context.project_id
        return work.search(RbacPolicy, mine, *where(t.rbac_policies, filters))

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
            table.c.id == data["object_id"], access.visible(work, table, data["object_type"])))
        if shared is None:
            raise missing(data["object_type"], data["object_id"])
        if shared["project_id"] != work.context.project_id and not work.context.is_admin:
            raise BadRequest("Invalid input for operation: Only admins can manipulate policies on objects they do not "
                             "own.", field="object_id", type="InvalidInput")
        if data["action"] == EXTERNAL and not work.context.is_admin:
            raise Forbidden("Only administrators can open networks as external ones.",
                            type="PolicyNotAuthorized")
        if data["object_type"] == "subnetpool":
            self._check_scope(work, data["object_id"], data["target_tenant"])
        work.room("rbac_policy", data["project_id"])
        if work.first(RbacPolicy, object_id=data["object_id"], action=data["action"],
                      target_project=data["target_tenant"]):
            raise conflict("DuplicatePolicyError", "An RBAC policy already exists with those values.")
        policy = work.add(RbacPolicy(
            id=str(uuid.uuid4()), project_id=data["project_id"], object_type=data["object_type"],
            object_id=data["object_id"], action=data["action"], target_project=data["target_tenant"]))
        self._settle(work, policy)
        return view(policy)

    def _check_scope(self, work: Work, pool_id: str, target: str) -> None:
        """Who gets a pool is to have its address scope, too. Raises BadRequest."""
        scope_id = work.select(SubnetPool, id=pool_id)[0].address_scope_id
        if scope_id is None or work.first(AddressScope, id=scope_id, project_id=target):
            return
        if not {target, "*"} & {each.target_project for each in work.select(RbacPolicy, object_id=scope_id)}:
            raise BadRequest(f"Invalid input for operation: subnet pool {pool_id} cannot be shared with {target}, with "
                             f"which its address scope {scope_id} is not shared.", field="target_tenant",
                             type="InvalidInput")

    def _settle(self, work: Work, policy: RbacPolicy) -> None:
        """Of the objects only networks are revised by who sees them, as in Neutron."""
        if policy.action == EXTERNAL:
            grants.settle_external(work, policy.object_id)
        elif policy.object_type == "network":
            work.touch(t.networks, policy.object_id)

    def update(self, work: Work, current: RbacPolicy, data: Attributes) -> None:
        target: str = data.get("target_tenant", current.target_project)
        if target != current.target_project:
            self._refuse_used(work, current, target)
            work.conn.execute(sa.update(t.rbac_policies).where(t.rbac_policies.c.id == current.id).values(
                target_project=target))
            self._settle(work, current)

    def delete(self, work: Work, current: RbacPolicy) -> None:
        self._refuse_used(work, current)
        work.remove(t.rbac_policies, id=current.id)
        self._settle(work, current)

    def _refuse_used(self, work: Work, policy: RbacPolicy, instead: str | None = None) -> None:
        """Raises Conflict while a project uses what it would lose. instead: to whom it is opened from now on; Neutron
        asks for external networks alone whether that is who uses it."""
        if grants.needed(work, policy, instead):
            raise grants.in_use(policy.object_id)
