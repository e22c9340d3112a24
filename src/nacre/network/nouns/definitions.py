"""The attribute tables of every resource: one line is one attribute of the API."""

from typing import Any

from nacre.network.nouns import checks as c
from nacre.network.nouns import shapes
from nacre.network.nouns.attributes import BOTH, FLAG, MUTE, VERSION, resource
from nacre.network.nouns.attributes import Attribute as A

_LENGTH: dict[str, Any] = {"check": c.number(0, 128), "convert": c.integer}


def _object_type(value: Any) -> str:
    return str(c.text(255)(value)).strip().lower()


SUBNETPOOL = resource("subnetpool", "subnetpools", [
    A("name", c.not_empty, post=True, put=True, required=True),
    A("prefixes", c.cidrs, post=True, put=True, required=True, **MUTE), A("ip_version", convert=c.integer),
    A("default_quota", c.number(0), convert=c.integer, **BOTH),
    A("default_prefixlen", **_LENGTH, **BOTH), A("min_prefixlen", **_LENGTH, **BOTH),
    A("max_prefixlen", **_LENGTH, **BOTH),
    A("is_default", default=False, guard=True, **FLAG, **BOTH),
    A("shared", post=True, default=False, guard=True, **FLAG),
    A("address_scope_id", c.maybe(c.uuid_), default=None, **BOTH),
])

ADDRESS_SCOPE = resource("address_scope", "address_scopes", [
    A("ip_version", post=True, required=True, **VERSION),
    A("shared", default=False, guard=True, **FLAG, **BOTH),
    A("tags", visible=False, **MUTE), A("description", visible=False, **MUTE),
])

ADDRESS_GROUP = resource("address_group", "address_groups", [
    A("addresses", c.cidrs, post=True, default=[], **MUTE), A("shared", visible=False, **MUTE),
    A("tags", visible=False, **MUTE),
])

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
