"""Who may do what: Neutron's rule names with its current defaults, and how they are asked for a resource's attributes.

What depends on more than the caller and the owner (a shared network is visible, the owner of a network sees its
ports) is decided where the rows are read; these rules say the rest.
"""

from collections.abc import Mapping
from typing import Any

from nacre.base.errors import Forbidden
from nacre.network.nouns.attributes import UNSET, Attributes, Resource
from nacre.network.nouns.qos import KINDS, PACKET_RATE_LIMIT
from nacre.network.work import Work

ADMIN = "rule:context_is_admin"
ADMIN_OR_SERVICE = f"{ADMIN} or role:service"
MEMBER = f"{ADMIN} or (role:member and project_id:%(project_id)s)"
READER = f"{ADMIN} or (role:reader and project_id:%(project_id)s)"
MANAGER = f"{ADMIN} or (role:manager and project_id:%(project_id)s)"
SERVICE_OR_MEMBER = f"role:service or {MEMBER}"
SERVICE_OR_READER = f"role:service or {READER}"
#: The port's or subnet's network belongs to the caller.
NETWORK_MEMBER = f"{ADMIN} or (role:member and project_id:%(network:project_id)s)"
NETWORK_MANAGER = f"{ADMIN} or role:service or (role:manager and project_id:%(network:project_id)s)"
SERVICE_OR_NETWORK_MEMBER = f"role:service or {NETWORK_MEMBER}"
#: The floating IP belongs to the caller.
PARENT_MEMBER = f"{ADMIN} or (role:member and project_id:%(ext_parent:project_id)s)"
PARENT_READER = f"{ADMIN} or (role:reader and project_id:%(ext_parent:project_id)s)"
EITHER_MEMBER = f"{NETWORK_MEMBER} or (role:member and project_id:%(project_id)s)"
#: As SERVICE_OR_NETWORK_MEMBER, or the network is shared with the caller.
NETWORK_SHARED = f"{SERVICE_OR_NETWORK_MEMBER} or 'True':%(network:shared)s"

#: "Not with all projects, unless one administers": as `sharing with "*"`.
NOT_ALL = f"{ADMIN} or not '*':%(target_tenant)s"

_OWNED = ("router", "floatingip", "subnetpool", "address_scope", "rbac_policy", "security_group", "network",
          "address_group", "trunk")
_VERBS = ("create", "get", "update", "delete")

POLICIES: dict[str, str] = {
    f"{verb}_{resource}": READER if verb == "get" else MEMBER for resource in _OWNED for verb in _VERBS
}
POLICIES |= {f"{verb}_security_group_rule": READER if verb == "get" else MEMBER for verb in ("create", "get", "delete")}
#: What the tags of a resource ask; who may see the resource by other means (it is shared) sees its tags.
POLICIES |= {
    f"{verb}_{resource}:tags": READER if verb == "get" else MEMBER for verb in _VERBS
    for resource in ("network", "security_group", "router", "floatingip", "subnetpool", "trunk")
}

POLICIES |= {
    "get_network": SERVICE_OR_READER,
    "create_subnet": NETWORK_MEMBER, "get_subnet": SERVICE_OR_READER,
    "update_subnet": EITHER_MEMBER, "delete_subnet": EITHER_MEMBER,
    "create_port": SERVICE_OR_MEMBER, "get_port": SERVICE_OR_READER,
    "update_port": SERVICE_OR_MEMBER, "delete_port": f"role:service or {EITHER_MEMBER}",
    **{f"{verb}_subnet:tags": READER if verb == "get" else EITHER_MEMBER for verb in _VERBS},
    "create_port:tags": MEMBER, "get_port:tags": READER, "update_port:tags": MEMBER,
    "delete_port:tags": EITHER_MEMBER,
    "get_subports": READER, "add_subports": MEMBER, "remove_subports": MEMBER,
    "get_auto_allocated_topology": READER, "delete_auto_allocated_topology": MEMBER,
    "add_addresses": MEMBER, "remove_addresses": MEMBER,
    "get_agent": ADMIN, "create_agent": ADMIN, "update_agent": ADMIN, "delete_agent": ADMIN,
    "get_dhcp-agents": ADMIN, "get_dhcp-networks": ADMIN, "create_dhcp-network": ADMIN, "delete_dhcp-network": ADMIN,
    "get_l3-agents": ADMIN, "get_l3-routers": ADMIN, "create_l3-router": ADMIN, "delete_l3-router": ADMIN,
    **{f"{verb}_port_binding": ADMIN_OR_SERVICE for verb in ("get", "create", "update", "delete")},
    "activate": ADMIN_OR_SERVICE,  # of a port's binding
    **{f"{verb}_floatingip_port_forwarding": PARENT_READER if verb == "get" else PARENT_MEMBER for verb in _VERBS},
    "get_floatingip_pool": READER,
    "get_quota": MANAGER, "update_quota": ADMIN, "delete_quota": ADMIN,
    "get_availability_zone": "role:reader", "get_service_provider": "role:reader",
    "get_network_ip_availability": ADMIN_OR_SERVICE,
    "add_router_interface": MEMBER, "remove_router_interface": MEMBER,
    "add_extraroutes": MEMBER, "remove_extraroutes": MEMBER,
    "add_prefixes": MEMBER, "remove_prefixes": MEMBER, "onboard_network_subnets": MEMBER,
}

#: QoS. What is asked of a rule is asked about its policy; of its alias, the same.
POLICIES |= {
    "get_policy": READER, "create_policy": MANAGER, "update_policy": MANAGER, "delete_policy": MANAGER,
    "get_rule_type": "role:reader",
    **{f"{verb}_policy:tags": READER if verb == "get" else MANAGER for verb in _VERBS},
    **{f"{verb}_policy_{kind}_rule": READER if verb == "get" else MANAGER for verb in _VERBS for kind in KINDS},
    **{f"{verb}_alias_{kind}_rule": READER if verb == "get" else MANAGER for verb in ("get", "update", "delete")
       for kind in KINDS if kind != PACKET_RATE_LIMIT},
}

#: What operators lay down for all projects.
POLICIES |= {
    "create_default_security_group_rule": ADMIN, "get_default_security_group_rule": "role:reader",
    "delete_default_security_group_rule": ADMIN,
    **{f"{verb}_segment": ADMIN for verb in _VERBS},
    **{f"{verb}_network_segment_range{part}": ADMIN for verb in _VERBS for part in ("", ":tags")},
}

#: Attributes that only some may set or see.
POLICIES |= {
    f"{verb}_network:{attribute}": ADMIN for verb in ("create", "update")
    for attribute in ("shared", "router:external", "is_default", "segments", "provider:network_type",
                      "provider:physical_network", "provider:segmentation_id")
}
POLICIES |= {
    f"get_network:{attribute}": ADMIN
    for attribute in ("segments", "provider:network_type", "provider:physical_network", "provider:segmentation_id")
}
for _verb in ("create", "update"):
    POLICIES |= {
        f"{_verb}_port:device_owner": ADMIN_OR_SERVICE,  # asked only for owners that begin with "network:"
        f"{_verb}_port:fixed_ips": NETWORK_SHARED if _verb == "create" else SERVICE_OR_NETWORK_MEMBER,
        f"{_verb}_port:fixed_ips:ip_address": SERVICE_OR_NETWORK_MEMBER,
        f"{_verb}_port:fixed_ips:subnet_id": NETWORK_SHARED,
        f"{_verb}_port:binding:vnic_type": SERVICE_OR_MEMBER,
        f"{_verb}_port:allowed_address_pairs": SERVICE_OR_NETWORK_MEMBER,
        f"{_verb}_port:port_security_enabled": SERVICE_OR_NETWORK_MEMBER,
        f"{_verb}_port:binding:host_id": ADMIN_OR_SERVICE,
        f"{_verb}_port:binding:profile": ADMIN_OR_SERVICE,
        f"{_verb}_subnet:service_types": ADMIN, f"{_verb}_subnet:segment_id": ADMIN,
        f"{_verb}_network:port_security_enabled": MEMBER,
        f"{_verb}_router:external_gateway_info": MEMBER,
        f"{_verb}_router:external_gateway_info:network_id": MEMBER,
        f"{_verb}_router:external_gateway_info:enable_snat": ADMIN,
        f"{_verb}_router:external_gateway_info:external_fixed_ips": ADMIN,
        f"{_verb}_router:distributed": ADMIN, f"{_verb}_router:ha": ADMIN,
        f"{_verb}_subnetpool:is_default": ADMIN,
        f"{_verb}_address_scope:shared": ADMIN,
        f"{_verb}_rbac_policy:target_tenant": NOT_ALL,
    }
POLICIES |= {
    "create_subnetpool:shared": ADMIN, "get_subnet:segment_id": ADMIN,
    "create_port:mac_address": SERVICE_OR_NETWORK_MEMBER, "update_port:mac_address": NETWORK_MANAGER,
    "get_port:binding:host_id": ADMIN_OR_SERVICE, "get_port:binding:profile": ADMIN_OR_SERVICE,
    "get_port:binding:vif_type": ADMIN_OR_SERVICE, "get_port:binding:vif_details": ADMIN_OR_SERVICE,
    "get_port:resource_request": ADMIN, "get_router:distributed": ADMIN, "get_router:ha": ADMIN,
    "create_floatingip:floating_ip_address": MANAGER,
    "network:attach_external_network": ADMIN,  # Nova's name: a server on an external network that is not shared
}

#: A token that is for a project, no domain's and none of the whole system, is what all of these take.
SCOPES = dict.fromkeys(POLICIES, frozenset({"project"}))


def refused(rule: str) -> Forbidden:
    """Neutron's words."""
    return Forbidden(f"(rule:{rule}) is disallowed by policy", type="PolicyNotAuthorized")


def asked(rule: str, resource: Resource, raw: Mapping[str, Any], target: Attributes) -> list[tuple[str, Attributes]]:
    """What is asked of whoever makes or changes (rule: `create_port`) such a thing and sets those of its attributes
    that the request names, `raw`; target: all of the thing's values, and what rules need to know besides."""
    found = [(rule, target)]
    for name in resource.guarded(raw):
        attribute = resource.attributes[name]
        if rule.startswith("create") and attribute.default is not UNSET and target[name] == attribute.default:
            continue
        if sensitive(name, target[name]):
            found.append((f"{rule}:{name}", target))
            found += [(f"{rule}:{name}:{part}", target) for part in parts(name, target[name])]
    return found


def attribute_rules(verb: str, resource: Resource) -> tuple[str, ...]:
    """Every rule that the attributes of a create or update may ask."""
    found = []
    for a in resource.attributes.values():
        if a.guard and (a.post if verb == "create" else a.put):
            inner = PARTS.get(a.name, ())
            found += [f"{verb}_{resource.name}:{name}" for name in (a.name, *(f"{a.name}:{part}" for part in inner))]
    return tuple(found)


def seen_rules(resource: Resource) -> tuple[str, ...]:
    """The rules of the attributes that not everybody sees."""
    return tuple(f"get_{resource.name}:{name}" for name in resource.secrets())


def may_create_port(work: Work, resource: Resource, raw: Mapping[str, Any], target: Attributes) -> None:
    """What `POST /ports` asks, for the ports that a server's `networks` name. Raises Forbidden."""
    for rule, facts in asked("create_port", resource, raw, target):
        require(work, rule, facts)


def require(work: Work, rule: str, target: Attributes) -> None:
    """Raises Forbidden."""
    if not work.policy.allows(work.context, rule, target):
        raise refused(rule)


#: What of an attribute's value has rules of its own.
PARTS = {"external_gateway_info": ("network_id", "enable_snat", "external_fixed_ips"),
         "fixed_ips": ("ip_address", "subnet_id")}


def sensitive(name: str, value: Any) -> bool:
    """Whether setting a guarded attribute to this value needs its rule: not every value is a privilege."""
    return name != "device_owner" or str(value).startswith("network:")


def parts(name: str, value: Any) -> list[str]:
    """Which of those there are in this value."""
    if name not in PARTS:
        return []
    return sorted({part for item in ([value] if isinstance(value, Mapping) else value or ()) for part in item})
