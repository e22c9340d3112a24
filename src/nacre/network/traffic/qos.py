"""QoS policies: sets of rules for what ports send and get. A port has its own, or its network's."""

from collections import defaultdict
from collections.abc import Sequence

import sqlalchemy as sa

from nacre.base.errors import Forbidden
from nacre.network import tables as t
from nacre.network.nouns.attributes import Attributes
from nacre.network.nouns.noun import View
from nacre.network.nouns.qos import QOS_POLICY, QosPolicy, QosRule, view
from nacre.network.sharing import access, grants
from nacre.network.sharing.access import SHARED
from nacre.network.work import Work, among, conflict, missing, where

#: What may have a policy, and in which table.
BEARERS = (("network", t.networks), ("port", t.ports))


class QosPolicies:
    """The store behind /qos/policies."""

    resource = QOS_POLICY

    def list(self, work: Work, filters: Attributes) -> list[QosPolicy]:
        return work.search(QosPolicy, _visible(work), *where(t.qos_policies, filters))

    def views(self, work: Work, found: Sequence[QosPolicy]) -> Sequence[View]:
        rules = defaultdict[str, list[QosRule]](list)
        if ids := [policy.id for policy in found]:
            for rule in work.search(QosRule, among(t.qos_rules.c.policy_id, ids), order=("type", "direction")):
                rules[rule.policy_id].append(rule)
        shared = access.shared(work, "qos_policy")
        return [view(policy, rules[policy.id], shared=policy.id in shared) for policy in found]

    def target(self, work: Work, data: Attributes) -> Attributes:
        return {}

    def create(self, work: Work, data: Attributes) -> View:
        work.room("policy", data["project_id"])
        if data["is_default"]:
            _refuse_second(work, data["project_id"])
        policy = work.add(QosPolicy(**work.new(data), name=data["name"], is_default=data["is_default"]))
        if data["shared"]:
            _open_to_all(work, policy)
        return view(policy, (), shared=data["shared"])

    def update(self, work: Work, current: QosPolicy, data: Attributes) -> None:
        if data.get("is_default") and not current.is_default:
            _refuse_second(work, current.project_id)
        if "shared" in data and data["shared"] != grants.is_open_to_all(work, current.id, SHARED):
            if data["shared"]:
                _open_to_all(work, current)
            else:
                grants.close_to_all(work, current.id, SHARED)
        work.change(t.qos_policies, current.id, {k: data[k] for k in ("name", "description", "is_default")
                                                 if k in data})

    def delete(self, work: Work, current: QosPolicy) -> None:
        for kind, table in BEARERS:
            user = work.conn.execute(sa.select(table.c.id).where(table.c.qos_policy_id == current.id).limit(1)).scalar()
            if user:
                raise conflict("QosPolicyInUse", f"QoS Policy {current.id} is used by {kind} {user}.")
        grants.forget(work, current.id)
        work.remove(t.qos_policies, id=current.id)


def _open_to_all(work: Work, policy: QosPolicy) -> None:
    """The attribute is a project's to set, as in Neutron, and counts as the RBAC policy that it is."""
    work.room("rbac_policy", policy.project_id)
    grants.open_to_all(work, "qos_policy", policy, SHARED)


def _refuse_second(work: Work, project_id: str) -> None:
    if work.first(QosPolicy, project_id=project_id, is_default=True):
        raise conflict("QoSPolicyDefaultAlreadyExists", f"A default QoS policy exists for project {project_id}.")


def _visible(work: Work) -> sa.ColumnElement[bool]:
    return access.visible(work, t.qos_policies, "qos_policy")


def of_network(work: Work, wanted: str | None, project_id: str) -> str | None:
    """The policy of a new network: the one that it asks for, or its project's default. Raises NotFound."""
    if wanted is None:
        default = work.first(QosPolicy, project_id=project_id, is_default=True)
        return default.id if default else None
    return changed(work, None, wanted)


def changed(work: Work, current: str | None, wanted: str | None) -> str | None:
    """The wanted policy, in the place of the current one. Raises NotFound: the caller does not see it; Forbidden: nor
    the current one, which then is not the caller's to take away."""
    if current == wanted:
        return wanted
    if current is not None and not work.first(QosPolicy, _visible(work), id=current):
        raise Forbidden(f"Failed to remove provided policy {current} because you are not authorized.",
                        type="PolicyRemoveAuthorizationError")
    if wanted is not None and not work.first(QosPolicy, _visible(work), id=wanted):
        raise missing("policy", wanted)
    return wanted
