"""The attribute tables of every resource: one line is one attribute of the API."""

from typing import Any

from nacre.network.nouns import checks as c
from nacre.network.nouns import shapes
from nacre.network.nouns.attributes import BOTH, FLAG, MUTE, VERSION, Resource, resource
from nacre.network.nouns.attributes import Attribute as A

_VNIC = c.one_of("normal", "direct", "macvtap", "baremetal", "direct-physical", "virtio-forwarder", "smart-nic", "vdpa",
                 "accelerator-direct", "accelerator-direct-physical", "remote-managed")
_LENGTH: dict[str, Any] = {"check": c.number(0, 128), "convert": c.integer}


def _object_type(value: Any) -> str:
    return str(c.text(255)(value)).strip().lower()


PORT = resource("port", "ports", [
    A("network_id", c.uuid_, post=True, required=True),
    A("admin_state_up", default=True, **FLAG, **BOTH), A("status"),
    A("mac_address", c.maybe(c.mac), guard=True, convert=c.mac, **BOTH),
    A("fixed_ips", shapes.fixed_ips, guard=True, sort=False, convert=shapes.key_and_value, **BOTH),
    A("device_id", c.text(255, lines=False), default="", **BOTH),
    A("device_owner", c.text(255, lines=False), default="", guard=True, **BOTH),
    A("allowed_address_pairs", shapes.address_pairs, default=[], guard=True, **MUTE, **BOTH),
    A("extra_dhcp_opts", shapes.dhcp_options, default=[], **MUTE, **BOTH),
    A("port_security_enabled", c.boolean, guard=True, **MUTE, **BOTH),
    A("security_groups", c.groups, sort=False, **BOTH),
    A("binding:host_id", c.maybe(c.text(255, lines=False)), guard=True, secret=True, sort=False, **BOTH),
    A("binding:profile", shapes.profile, guard=True, secret=True, **MUTE, **BOTH),
    A("binding:vnic_type", _VNIC, default="normal", guard=True, **MUTE, **BOTH),
    A("binding:vif_type", secret=True, **MUTE), A("binding:vif_details", secret=True, **MUTE),
    A("dns_name", c.dns_host, default="", **MUTE, **BOTH), A("dns_assignment", **MUTE),
    A("ip_allocation"), A("qos_policy_id", **MUTE), A("qos_network_policy_id", **MUTE),
    A("resource_request", secret=True, **MUTE),
    A("tags", c.tags, post=True, default=[], guard=True, **MUTE),
])

BINDING = Resource("binding", "bindings", {a.name: a for a in (
    A("host", c.host, required=True, sort=False, **BOTH), A("vif_type", sort=False), A("vif_details", **MUTE),
    A("vnic_type", _VNIC, default="normal", sort=False, **BOTH), A("profile", shapes.profile, **MUTE, **BOTH),
    A("status", sort=False), A("project_id", c.text(64), post=True, visible=False, **MUTE),
)})

ROUTER = resource("router", "routers", [
    A("admin_state_up", default=True, **FLAG, **BOTH), A("status", filter=False, sort=True),
    A("external_gateway_info", shapes.gateway_info, default=None, guard=True, **MUTE, **BOTH),
    A("routes", c.listing(c.route, limit=30, unique=True), put=True, **MUTE),
    A("availability_zone_hints", shapes.hints, post=True, default=[], **MUTE), A("availability_zones", **MUTE),
    A("distributed", c.maybe(c.one_of(False, None)), guard=True, secret=True, sort=False, **BOTH),
    A("ha", c.maybe(c.one_of(False, None)), guard=True, secret=True, sort=False, **BOTH),
    A("flavor_id", **MUTE), A("service_type_id", **MUTE), A("enable_ndp_proxy", **MUTE),
])

FLOATINGIP = resource("floatingip", "floatingips", [
    A("floating_network_id", c.uuid_, post=True, required=True),
    A("floating_ip_address", c.maybe(c.ip), post=True, default=None, guard=True),
    A("subnet_id", c.maybe(c.uuid_), post=True, default=None, visible=False, **MUTE),
    A("port_id", c.maybe(c.uuid_), sort=False, **BOTH),
    A("fixed_ip_address", c.maybe(c.ip), **BOTH),
    A("router_id"), A("status"), A("port_details", **MUTE), A("port_forwardings", **MUTE),
    A("dns_name", c.dns_relative, post=True, default="", **MUTE),
    A("dns_domain", c.dns_domain, post=True, default="", **MUTE),
    A("qos_policy_id", **MUTE), A("qos_network_policy_id", **MUTE),
], named=False)

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
