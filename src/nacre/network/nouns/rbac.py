"""RBAC policies, by which an object is shared: what is kept of them, and what the API says of them."""

from typing import Any

from nacre.network import tables as t
from nacre.network.nouns import checks as c
from nacre.network.nouns import shapes
from nacre.network.nouns.attributes import BOTH, MUTE, resource
from nacre.network.nouns.attributes import Attribute as A
from nacre.network.nouns.noun import Noun, View


class RbacPolicy(Noun, frozen=True):
    """target_project: a project's id, or "*" for all."""

    TABLE = t.rbac_policies
    id: str
    project_id: str
    object_type: str
    object_id: str
    action: str
    target_project: str


def _object_type(value: Any) -> str:
    return str(c.text(255)(value)).strip().lower()


RBAC = resource("rbac_policy", "rbac_policies", [
    A("id", sort=False), A("project_id", c.text(64), post=True, sort=False), A("tenant_id", sort=False),
    A("object_type", _object_type, post=True, required=True, sort=False, convert=_object_type),
    A("object_id", c.uuid_, post=True, required=True, sort=False),
    A("action", c.text(255), post=True, required=True, sort=False),
    A("target_tenant", shapes.target_project, required=True, guard=True, sort=False, **BOTH),
    A("description", visible=False, **MUTE), A("tags", visible=False, **MUTE),
    A("created_at", visible=False, **MUTE), A("updated_at", visible=False, **MUTE),
    A("revision_number", visible=False, **MUTE),
], named=False)


def view(policy: RbacPolicy) -> View:
    return {"id": policy.id, "project_id": policy.project_id, "tenant_id": policy.project_id,
            "object_type": policy.object_type, "object_id": policy.object_id, "action": policy.action,
            "target_tenant": policy.target_project}
