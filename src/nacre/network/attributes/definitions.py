"""The attribute tables of every resource: one line is one attribute of the API."""

from nacre.network.attributes import checks as c
from nacre.network.attributes.table import Attribute as A
from nacre.network.attributes.table import Resource, resource

_MODES = c.one_of("slaac", "dhcpv6-stateful", "dhcpv6-stateless", None)
_VNIC = c.one_of("normal", "direct", "macvtap", "baremetal", "direct-physical", "virtio-forwarder", "smart-nic", "vdpa",
                 "accelerator-direct", "accelerator-direct-physical", "remote-managed")
_HINTS = c.listing(c.text(255), limit=10)
_SEGMENT = c.mapping({
    "provider:network_type": c.text(32), "provider:physical_network": c.maybe(c.text(64)),
    "provider:segmentation_id": c.maybe(c.number(0)),
})
_BOTH = {"post": True, "put": True}


NETWORK = resource("network", "networks", [
    A("admin_state_up", c.boolean, default=True, **_BOTH), A("status"), A("subnets", filter=False),
    A("shared", c.boolean, default=False, guard=True, **_BOTH),
    A("router:external", c.boolean, default=False, guard=True, **_BOTH),
    A("is_default", c.boolean, default=False, guard=True, **_BOTH),
    A("port_security_enabled", c.boolean, default=True, **_BOTH),
    A("mtu", c.number(0, 65535), default=0, **_BOTH),
    A("dns_domain", c.dns_domain, default="", **_BOTH),
    A("availability_zone_hints", _HINTS, post=True, default=[]), A("availability_zones"),
    A("ipv4_address_scope"), A("ipv6_address_scope"), A("vlan_transparent"),
    A("provider:network_type", c.text(32), guard=True, secret=True, **_BOTH),
    A("provider:physical_network", c.maybe(c.text(64)), guard=True, secret=True, **_BOTH),
    A("provider:segmentation_id", c.maybe(c.number(0)), guard=True, secret=True, **_BOTH),
    A("segments", c.listing(_SEGMENT, limit=10), post=True, guard=True, secret=True, filter=False),
])

SUBNET = resource("subnet", "subnets", [
    A("network_id", c.uuid_, post=True, required=True),
    A("ip_version", c.one_of(4, 6), post=True, required=True),
    A("cidr", c.maybe(c.cidr), post=True),
    A("gateway_ip", c.maybe(c.ip), **_BOTH),
    A("enable_dhcp", c.boolean, default=True, **_BOTH),
    A("allocation_pools", c.pools, **_BOTH),
    A("dns_nameservers", c.nameservers, default=[], **_BOTH),
    A("host_routes", c.host_routes, default=[], **_BOTH),
    A("ipv6_ra_mode", _MODES, post=True, default=None),
    A("ipv6_address_mode", _MODES, post=True, default=None),
    A("subnetpool_id", c.maybe(c.text(255)), post=True),
    A("prefixlen", c.number(0, 128), post=True, visible=False, filter=False),
    A("use_default_subnetpool", c.boolean, post=True, default=False, visible=False, filter=False),
    A("service_types", c.listing(c.text(255, lines=False), limit=10), default=[], guard=True, **_BOTH),
    A("router:external"), A("shared", visible=False),
])

PORT = resource("port", "ports", [
    A("network_id", c.uuid_, post=True, required=True),
    A("admin_state_up", c.boolean, default=True, **_BOTH), A("status"),
    A("mac_address", c.maybe(c.mac), guard=True, **_BOTH),
    A("fixed_ips", c.fixed_ips, guard=True, **_BOTH),
    A("device_id", c.text(255, lines=False), default="", **_BOTH),
    A("device_owner", c.text(255, lines=False), default="", guard=True, **_BOTH),
    A("allowed_address_pairs", c.address_pairs, default=[], guard=True, **_BOTH),
    A("extra_dhcp_opts", c.dhcp_options, default=[], filter=False, **_BOTH),
    A("port_security_enabled", c.boolean, guard=True, **_BOTH),
    A("security_groups", c.groups, **_BOTH),
    A("binding:host_id", c.maybe(c.text(255, lines=False)), guard=True, secret=True, **_BOTH),
    A("binding:profile", c.profile, guard=True, secret=True, filter=False, **_BOTH),
    A("binding:vnic_type", _VNIC, default="normal", **_BOTH),
    A("binding:vif_type", secret=True), A("binding:vif_details", secret=True, filter=False),
    A("dns_name", c.dns_host, default="", **_BOTH), A("dns_assignment", filter=False),
    A("ip_allocation"), A("qos_policy_id"), A("qos_network_policy_id"), A("resource_request", secret=True),
])

BINDING = Resource("binding", "bindings", {a.name: a for a in (
    A("host", c.host, required=True, **_BOTH), A("vif_type"), A("vif_details", filter=False),
    A("vnic_type", _VNIC, default="normal", **_BOTH), A("profile", c.profile, filter=False, **_BOTH),
    A("status"), A("project_id", c.text(64), post=True, visible=False, filter=False),
)})

SECURITY_GROUP = resource("security_group", "security_groups", [
    A("stateful", c.boolean, default=True, **_BOTH),
    A("security_group_rules", filter=False), A("shared"),
])

SECURITY_GROUP_RULE = resource("security_group_rule", "security_group_rules", [
    A("security_group_id", c.uuid_, post=True, required=True),
    A("direction", c.one_of("ingress", "egress"), post=True, required=True),
    A("ethertype", c.one_of("IPv4", "IPv6"), post=True, default="IPv4"),
    A("protocol", c.anything, post=True, default=None),
    A("port_range_min", c.anything, post=True, default=None),
    A("port_range_max", c.anything, post=True, default=None),
    A("remote_ip_prefix", c.maybe(c.text(64)), post=True, default=None),
    A("remote_group_id", c.maybe(c.uuid_), post=True, default=None),
    A("remote_address_group_id", c.maybe(c.uuid_), post=True, default=None),
    A("normalized_cidr"), A("belongs_to_default_sg"),
    A("description", c.text(255), post=True, default=""),
    A("tags", visible=False),
], named=False)

ROUTER = resource("router", "routers", [
    A("admin_state_up", c.boolean, default=True, **_BOTH), A("status"),
    A("external_gateway_info", c.maybe(c.mapping({
        "network_id": c.uuid_, "enable_snat": c.boolean, "external_fixed_ips": c.fixed_ips,
    })), default=None, guard=True, filter=False, **_BOTH),
    A("routes", c.listing(c.route, limit=30, unique=True), put=True, filter=False),
    A("availability_zone_hints", _HINTS, post=True, default=[]), A("availability_zones"),
    A("distributed", c.maybe(c.one_of(False, None)), post=True, put=True, guard=True, secret=True),
    A("ha", c.maybe(c.one_of(False, None)), post=True, put=True, guard=True, secret=True),
    A("flavor_id"), A("service_type_id"), A("enable_ndp_proxy"),
])

FLOATINGIP = resource("floatingip", "floatingips", [
    A("floating_network_id", c.uuid_, post=True, required=True),
    A("floating_ip_address", c.maybe(c.ip), post=True, default=None, guard=True),
    A("subnet_id", c.maybe(c.uuid_), post=True, default=None, visible=False, filter=False),
    A("port_id", c.maybe(c.uuid_), **_BOTH),
    A("fixed_ip_address", c.maybe(c.ip), **_BOTH),
    A("router_id"), A("status"), A("port_details", filter=False), A("port_forwardings", filter=False),
    A("dns_name", c.dns_host, post=True, default=""), A("dns_domain", c.dns_domain, post=True, default=""),
    A("qos_policy_id"), A("qos_network_policy_id"),
], named=False)

SUBNETPOOL = resource("subnetpool", "subnetpools", [
    A("name", c.not_empty, post=True, put=True, required=True),
    A("prefixes", c.cidrs, post=True, put=True, required=True, filter=False), A("ip_version"),
    A("default_quota", c.maybe(c.number(0)), **_BOTH),
    A("default_prefixlen", c.number(0, 128), **_BOTH), A("min_prefixlen", c.number(0, 128), **_BOTH),
    A("max_prefixlen", c.number(0, 128), **_BOTH),
    A("is_default", c.boolean, default=False, guard=True, **_BOTH),
    A("shared", c.boolean, post=True, default=False, guard=True),
    A("address_scope_id", c.maybe(c.uuid_), default=None, **_BOTH),
])

ADDRESS_SCOPE = resource("address_scope", "address_scopes", [
    A("ip_version", c.one_of(4, 6), post=True, required=True),
    A("shared", c.boolean, default=False, guard=True, **_BOTH),
    A("tags", visible=False), A("description", visible=False),
])

ADDRESS_GROUP = resource("address_group", "address_groups", [
    A("addresses", c.cidrs, post=True, default=[], filter=False), A("shared", visible=False),
    A("tags", visible=False),
])

RBAC = resource("rbac_policy", "rbac_policies", [
    A("object_type", c.text(255), post=True, required=True), A("object_id", c.uuid_, post=True, required=True),
    A("action", c.text(255), post=True, required=True),
    A("target_tenant", c.text(64), post=True, put=True, required=True),
    A("description", visible=False), A("tags", visible=False), A("created_at", visible=False),
    A("updated_at", visible=False), A("revision_number", visible=False),
], named=False)
