"""What is opened to others, and whether they still need it when it shall be closed."""

import uuid

import sqlalchemy as sa

from nacre.base.errors import Conflict
from nacre.network import tables as t
from nacre.network.nouns.network import Network
from nacre.network.nouns.noun import Standard
from nacre.network.nouns.rbac import RbacPolicy
from nacre.network.sharing.access import EXTERNAL, SHARED
from nacre.network.work import Work, conflict

#: What can be shared, and how.
OBJECTS: dict[str, tuple[sa.Table, tuple[str, ...]]] = {
    "network": (t.networks, (SHARED, EXTERNAL)), "security_group": (t.security_groups, (SHARED,)),
    "address_group": (t.address_groups, (SHARED,)), "subnetpool": (t.subnetpools, (SHARED,)),
    "address_scope": (t.address_scopes, (SHARED,)), "qos_policy": (t.qos_policies, (SHARED,)),
}
#: By what others use it: a table with their projects, and the column that names the object.
_USED: dict[str, tuple[sa.Table, sa.Column[str]]] = {
    "address_group": (t.security_group_rules, t.security_group_rules.c.remote_address_group_id),
    "subnetpool": (t.subnets, t.subnets.c.subnetpool_id),
    "address_scope": (t.subnetpools, t.subnetpools.c.address_scope_id),
}


def open_to_all(work: Work, object_type: str, noun: Standard, action: str) -> None:
    """Opens an object to everybody (idempotent)."""
    if not is_open_to_all(work, noun.id, action):
        work.add(RbacPolicy(id=str(uuid.uuid4()), project_id=noun.project_id, object_type=object_type,
                            object_id=noun.id, action=action, target_project="*"))


def is_open_to_all(work: Work, object_id: str, action: str) -> bool:
    return work.first(RbacPolicy, object_id=object_id, action=action, target_project="*") is not None


def close_to_all(work: Work, object_id: str, action: str) -> None:
    """What is open to everybody is so no more; single projects keep what they were given. Raises Conflict."""
    if _open_to_all_is_needed(work, object_id, action):
        raise in_use(object_id)
    work.remove(t.rbac_policies, object_id=object_id, action=action, target_project="*")


def _open_to_all_is_needed(work: Work, object_id: str, action: str) -> bool:
    every = work.first(RbacPolicy, object_id=object_id, action=action, target_project="*")
    return every is not None and needed(work, every)


def in_use(object_id: str) -> Conflict:
    """The 409 of what is not closed while others need it."""
    return conflict("RbacPolicyInUse", f"RBAC policy on object {object_id} cannot be removed because other objects "
                    "depend on it.")


def forget(work: Work, object_id: str) -> None:
    """The object is gone, and so is who may see it."""
    work.remove(t.rbac_policies, object_id=object_id)


def needed(work: Work, policy: RbacPolicy, instead: str | None = None) -> bool:
    """Whether a project uses the object that nothing would let in without the policy, or if that opened it to `instead`
    alone. An external network that is the default one is everybody's."""
    target, external = policy.target_project, policy.action == EXTERNAL
    opened = {other.target_project for other in work.select(
        RbacPolicy, object_id=policy.object_id, action=policy.action)} - {target} | ({instead} if instead else set())
    if external and target == "*" and work.first(Network, id=policy.object_id, is_default=True):
        return True
    if "*" in opened:
        return False
    users = (_external_users(work, policy.object_id) if external
             else _users(work, policy.object_type, policy.object_id))
    return bool(users - opened) if target == "*" else target in users


def close_network(work: Work, network: Network, action: str) -> None:
    """Sharing ends with everybody; a network that is external no more is so for nobody. Raises Conflict."""
    if action == SHARED:
        if _open_to_all_is_needed(work, network.id, SHARED):
            raise conflict("InvalidSharedSetting", f"Unable to reconfigure sharing settings for network {network.id}. "
                           "Multiple projects are using it.")
        work.remove(t.rbac_policies, object_id=network.id, action=action, target_project="*")
        return
    if _external_users(work, network.id):
        raise _external_in_use(network.id)
    work.remove(t.rbac_policies, object_id=network.id, action=action)


def settle_external(work: Work, network_id: str) -> None:
    """A network is external while a policy opens it as such to anybody. Raises Conflict where routers or floating IPs
    still need it to be."""
    external = bool(work.first(RbacPolicy, object_id=network_id, action=EXTERNAL))
    if not external and _external_users(work, network_id):
        raise _external_in_use(network_id)
    work.change(t.networks, network_id, {"external": external})


def _external_in_use(network_id: str) -> Conflict:
    return conflict("ExternalNetworkInUse", f"External network {network_id} cannot be updated to be made "
                    "non-external, since it has existing gateway ports.")


def _users(work: Work, object_type: str, object_id: str) -> set[str]:
    """The projects with something that uses another's object."""
    p, g = t.ports.c, t.port_groups.c
    if object_type == "network":
        # Routers' interfaces count, as in Neutron; what floating IPs and gateways made is no project's.
        users = sa.select(p.project_id).where(p.network_id == object_id, p.project_id != "")
    elif object_type == "security_group":
        users = sa.select(p.project_id).where(p.id.in_(sa.select(g.port_id).where(g.group_id == object_id)))
    elif object_type == "qos_policy":  # its owner counts as a user like others, as in Neutron
        n = t.networks.c
        return set(work.conn.execute(sa.select(n.project_id).where(n.qos_policy_id == object_id).union(
            sa.select(p.project_id).where(p.qos_policy_id == object_id))).scalars())
    else:
        table, column = _USED[object_type]
        users = sa.select(table.c.project_id).where(column == object_id)
    owner = OBJECTS[object_type][0].c
    owners = sa.select(owner.project_id).where(owner.id == object_id)
    return set(work.conn.execute(users.distinct()).scalars()) - set(work.conn.execute(owners).scalars())


def _external_users(work: Work, network_id: str) -> set[str]:
    """The projects with routers or floating IPs on an external network."""
    r, f = t.routers.c, t.floatingips.c
    return set(work.conn.execute(sa.select(r.project_id).where(r.gateway_network_id == network_id).union(
        sa.select(f.project_id).where(f.floating_network_id == network_id))).scalars())
