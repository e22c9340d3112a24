"""The attribute tables of every resource: one line is one attribute of the API."""

from typing import Any

from nacre.network.nouns import checks as c
from nacre.network.nouns import rules, shapes
from nacre.network.nouns.attributes import Attribute as A
from nacre.network.nouns.attributes import Resource, resource

_MODES = c.one_of("slaac", "dhcpv6-stateful", "dhcpv6-stateless", None)
_VNIC = c.one_of("normal", "direct", "macvtap", "baremetal", "direct-physical", "virtio-forwarder", "smart-nic", "vdpa",
                 "accelerator-direct", "accelerator-direct-physical", "remote-managed")
_SEGMENT = c.mapping({
    "provider:network_type": c.text(32), "provider:physical_network": c.maybe(c.text(64)),
    "provider:segmentation_id": c.maybe(c.number(0)),
})
_BOTH: dict[str, Any] = {"post": True, "put": True}
_FLAG: dict[str, Any] = {"check": c.boolean, "convert": c.boolean}
_VERSION: dict[str, Any] = {"check": c.ip_version, "convert": c.integer}
_LENGTH: dict[str, Any] = {"check": c.number(0, 128), "convert": c.integer}
#: Asked for by no list, neither as a filter nor as a key to sort by.
_MUTE: dict[str, Any] = {"filter": False}


def _object_type(value: Any) -> str:
    return str(c.text(255)(value)).strip().lower()


NETWORK = resource("network", "networks", [
    A("admin_state_up", default=True, **_FLAG, **_BOTH), A("status"), A("subnets", **_MUTE),
    A("shared", default=False, guard=True, sort=False, **_FLAG, **_BOTH),
    A("router:external", default=False, guard=True, sort=False, **_FLAG, **_BOTH),
    A("is_default", default=False, guard=True, sort=False, **_FLAG, **_BOTH),
    A("port_security_enabled", c.boolean, default=True, guard=True, **_MUTE, **_BOTH),
    A("mtu", c.number(0, 65535), default=0, convert=c.integer, **_BOTH),
    A("dns_domain", c.dns_domain, default="", **_MUTE, **_BOTH),
    A("availability_zone_hints", shapes.hints, post=True, default=[], filter=False, sort=True),
    A("availability_zones", **_MUTE), A("ipv4_address_scope", **_MUTE), A("ipv6_address_scope", **_MUTE),
    A("vlan_transparent", **_MUTE),
    A("provider:network_type", c.text(32), guard=True, secret=True, sort=False, **_BOTH),
    A("provider:physical_network", c.maybe(c.text(64)), guard=True, secret=True, sort=False, **_BOTH),
    A("provider:segmentation_id", c.maybe(c.number(0)), guard=True, secret=True, sort=False, convert=c.integer,
      **_BOTH),
    A("segments", c.listing(_SEGMENT, limit=10), guard=True, secret=True, **_MUTE, **_BOTH),
])

SUBNET = resource("subnet", "subnets", [
    A("network_id", c.uuid_, post=True, required=True),
    A("ip_version", post=True, required=True, **_VERSION),
    A("cidr", c.maybe(c.subnet_cidr), post=True, convert=c.subnet_cidr),
    A("gateway_ip", c.maybe(c.ip), convert=c.canonical_ip, **_BOTH),
    A("enable_dhcp", default=True, **_FLAG, **_BOTH),
    A("allocation_pools", c.pools, **_MUTE, **_BOTH),
    A("dns_nameservers", c.nameservers, default=[], **_MUTE, **_BOTH),
    A("host_routes", c.host_routes, default=[], **_MUTE, **_BOTH),
    A("ipv6_ra_mode", _MODES, post=True, default=None),
    A("ipv6_address_mode", _MODES, post=True, default=None),
    A("subnetpool_id", c.maybe(shapes.pool_id), post=True),
    A("prefixlen", c.number(0, 128), post=True, visible=False, **_MUTE),
    A("use_default_subnetpool", c.boolean, post=True, default=False, visible=False, **_MUTE),
    A("service_types", shapes.service_types, default=[], guard=True, **_MUTE, **_BOTH),
    A("router:external", sort=False, **_FLAG), A("shared", visible=False, sort=False, **_FLAG),
])

PORT = resource("port", "ports", [
    A("network_id", c.uuid_, post=True, required=True),
    A("admin_state_up", default=True, **_FLAG, **_BOTH), A("status"),
    A("mac_address", c.maybe(c.mac), guard=True, convert=c.mac, **_BOTH),
    A("fixed_ips", shapes.fixed_ips, guard=True, sort=False, convert=shapes.key_and_value, **_BOTH),
    A("device_id", c.text(255, lines=False), default="", **_BOTH),
    A("device_owner", c.text(255, lines=False), default="", guard=True, **_BOTH),
    A("allowed_address_pairs", shapes.address_pairs, default=[], guard=True, **_MUTE, **_BOTH),
    A("extra_dhcp_opts", shapes.dhcp_options, default=[], **_MUTE, **_BOTH),
    A("port_security_enabled", c.boolean, guard=True, **_MUTE, **_BOTH),
    A("security_groups", c.groups, sort=False, **_BOTH),
    A("binding:host_id", c.maybe(c.text(255, lines=False)), guard=True, secret=True, sort=False, **_BOTH),
    A("binding:profile", shapes.profile, guard=True, secret=True, **_MUTE, **_BOTH),
    A("binding:vnic_type", _VNIC, default="normal", guard=True, **_MUTE, **_BOTH),
    A("binding:vif_type", secret=True, **_MUTE), A("binding:vif_details", secret=True, **_MUTE),
    A("dns_name", c.dns_host, default="", **_MUTE, **_BOTH), A("dns_assignment", **_MUTE),
    A("ip_allocation"), A("qos_policy_id", **_MUTE), A("qos_network_policy_id", **_MUTE),
    A("resource_request", secret=True, **_MUTE),
    A("tags", c.tags, post=True, default=[], guard=True, **_MUTE),
])

BINDING = Resource("binding", "bindings", {a.name: a for a in (
    A("host", c.host, required=True, sort=False, **_BOTH), A("vif_type", sort=False), A("vif_details", **_MUTE),
    A("vnic_type", _VNIC, default="normal", sort=False, **_BOTH), A("profile", shapes.profile, **_MUTE, **_BOTH),
    A("status", sort=False), A("project_id", c.text(64), post=True, visible=False, **_MUTE),
)})

SECURITY_GROUP = resource("security_group", "security_groups", [
    A("name", c.text(255), default="", **_BOTH),
    A("stateful", default=True, sort=False, **_FLAG, **_BOTH),
    A("security_group_rules", **_MUTE), A("shared", sort=False, **_FLAG),
])

SECURITY_GROUP_RULE = resource("security_group_rule", "security_group_rules", [
    A("security_group_id", c.text(36), post=True, required=True),
    A("direction", c.one_of("ingress", "egress"), post=True, required=True),
    A("ethertype", rules.ethertype, post=True, default="IPv4", convert=rules.ethertype),
    A("protocol", rules.protocol, post=True, default=None, convert=rules.protocol),
    A("port_range_min", rules.port, post=True, default=None, convert=rules.port),
    A("port_range_max", rules.port, post=True, default=None, convert=rules.port),
    A("remote_ip_prefix", rules.prefix, post=True, default=None, convert=rules.prefix),
    A("remote_group_id", shapes.reference, post=True, default=None),
    A("remote_address_group_id", shapes.reference, post=True, default=None),
    A("normalized_cidr"), A("belongs_to_default_sg", sort=False, **_FLAG),
    A("description", c.text(255), post=True, default="", sort=False),
    A("tags", visible=False, **_MUTE),
], named=False)

ROUTER = resource("router", "routers", [
    A("admin_state_up", default=True, **_FLAG, **_BOTH), A("status", filter=False, sort=True),
    A("external_gateway_info", shapes.gateway_info, default=None, guard=True, **_MUTE, **_BOTH),
    A("routes", c.listing(c.route, limit=30, unique=True), put=True, **_MUTE),
    A("availability_zone_hints", shapes.hints, post=True, default=[], **_MUTE), A("availability_zones", **_MUTE),
    A("distributed", c.maybe(c.one_of(False, None)), guard=True, secret=True, sort=False, **_BOTH),
    A("ha", c.maybe(c.one_of(False, None)), guard=True, secret=True, sort=False, **_BOTH),
    A("flavor_id", **_MUTE), A("service_type_id", **_MUTE), A("enable_ndp_proxy", **_MUTE),
])

FLOATINGIP = resource("floatingip", "floatingips", [
    A("floating_network_id", c.uuid_, post=True, required=True),
    A("floating_ip_address", c.maybe(c.ip), post=True, default=None, guard=True),
    A("subnet_id", c.maybe(c.uuid_), post=True, default=None, visible=False, **_MUTE),
    A("port_id", c.maybe(c.uuid_), sort=False, **_BOTH),
    A("fixed_ip_address", c.maybe(c.ip), **_BOTH),
    A("router_id"), A("status"), A("port_details", **_MUTE), A("port_forwardings", **_MUTE),
    A("dns_name", c.dns_relative, post=True, default="", **_MUTE),
    A("dns_domain", c.dns_domain, post=True, default="", **_MUTE),
    A("qos_policy_id", **_MUTE), A("qos_network_policy_id", **_MUTE),
], named=False)

SUBNETPOOL = resource("subnetpool", "subnetpools", [
    A("name", c.not_empty, post=True, put=True, required=True),
    A("prefixes", c.cidrs, post=True, put=True, required=True, **_MUTE), A("ip_version", convert=c.integer),
    A("default_quota", c.number(0), convert=c.integer, **_BOTH),
    A("default_prefixlen", **_LENGTH, **_BOTH), A("min_prefixlen", **_LENGTH, **_BOTH),
    A("max_prefixlen", **_LENGTH, **_BOTH),
    A("is_default", default=False, guard=True, **_FLAG, **_BOTH),
    A("shared", post=True, default=False, guard=True, **_FLAG),
    A("address_scope_id", c.maybe(c.uuid_), default=None, **_BOTH),
])

ADDRESS_SCOPE = resource("address_scope", "address_scopes", [
    A("ip_version", post=True, required=True, **_VERSION),
    A("shared", default=False, guard=True, **_FLAG, **_BOTH),
    A("tags", visible=False, **_MUTE), A("description", visible=False, **_MUTE),
])

ADDRESS_GROUP = resource("address_group", "address_groups", [
    A("addresses", c.cidrs, post=True, default=[], **_MUTE), A("shared", visible=False, **_MUTE),
    A("tags", visible=False, **_MUTE),
])

RBAC = resource("rbac_policy", "rbac_policies", [
    A("id", sort=False), A("project_id", c.text(64), post=True, sort=False), A("tenant_id", sort=False),
    A("object_type", _object_type, post=True, required=True, sort=False, convert=_object_type),
    A("object_id", c.uuid_, post=True, required=True, sort=False),
    A("action", c.text(255), post=True, required=True, sort=False),
    A("target_tenant", shapes.target_project, required=True, guard=True, sort=False, **_BOTH),
    A("description", visible=False, **_MUTE), A("tags", visible=False, **_MUTE),
    A("created_at", visible=False, **_MUTE), A("updated_at", visible=False, **_MUTE),
    A("revision_number", visible=False, **_MUTE),
], named=False)
