"""Version documents and the list of extensions. An extension is named only where it works: each has its test in
tests/stories/test_network_extensions.py."""

from nacre.base.errors import NotFound
from nacre.base.serving.gate import AUTHENTICATED, PUBLIC
from nacre.base.web import Request, Route
from nacre.network.hosts import agents
from nacre.network.manager import NetworkManager
from nacre.network.nouns.noun import View

UPDATED = "2026-01-01T00:00:00-00:00"

#: alias -> name
EXTENSIONS = {
    "address-group": "Address group", "address-scope": "Address scope",
    "default-subnetpools": "Default Subnetpools", "agent": "agent", "allowed-address-pairs": "Allowed Address Pairs",
    "availability_zone": "Availability Zone", "binding": "Port Binding", "binding-extended": "Port Bindings Extended",
    "dns-integration": "DNS Integration", "dns-domain-ports": "dns_domain for ports",
    "empty-string-filtering": "Empty String Filtering Extension",
    "external-net": "Neutron external network", "extra_dhcp_opt": "Neutron Extra DHCP options",
    "filter-validation": "Filter parameters validation", "ip_allocation": "IP Allocation",
    "ip-substring-filtering": "IP address substring filtering",
    "multi-provider": "Multi Provider Network", "net-mtu": "Network MTU", "net-mtu-writable": "Network MTU (writable)",
    "network-ip-availability": "Network IP Availability", "network_availability_zone": "Network Availability Zone",
    "network-segment-range": "Neutron Network Segment Range",
    "pagination": "Pagination support", "port-mac-address-regenerate": "Neutron Port MAC address regenerate",
    "port-security": "Port Security", "port-security-groups-filtering": "Port filtering on security groups",
    "project-id": "project_id field enabled", "provider": "Provider Network",
    "quota-check-limit": "Quota engine limit check", "quota_details": "Quota details management support",
    "quotas": "Quota management support", "rbac-policies": "RBAC Policies",
    "rbac-security-groups": "security_group RBAC",
    "revision-if-match": "If-Match constraints based on revision_number", "security-group": "security-group",
    "security-groups-default-rules": "Default rules for security groups",
    "security-groups-normalized-cidr": "Normalized CIDR field for security group rules",
    "security-groups-remote-address-group": "Remote address group id field for security group rules",
    "security-groups-rules-belongs-to-default-sg": "Default group of security group rules",
    "security-groups-shared-filtering": "Security group filtering on the shared field",
    "segment": "Segment", "standard-attr-segment": "Standard Attribute Segment Extension",
    "l2_adjacency": "L2 Adjacency", "subnet-segmentid-writable": "Subnet SegmentID (writable)",
    "service-type": "Neutron Service Type Management", "sort-key-validation": "Sort Key Validation",
    "sorting": "Sorting support", "standard-attr-description": "standard-attr-description",
    "standard-attr-revisions": "Resource revision numbers", "standard-attr-tag": "Tag support for resources",
    "standard-attr-timestamp": "Resource timestamps", "stateful-security-group": "Stateful security group",
    "subnet_allocation": "Subnet Allocation", "rbac-address-group": "Add address_group type to RBAC",
    "rbac-address-scope": "Add address_scope type to RBAC", "rbac-subnetpool": "Add subnetpool type to RBAC",
    "subnet-external-network": "Subnet belongs to an external network",
    "subnet-service-types": "Subnet service types", "subnetpool-prefix-ops": "Subnet Pool Prefix Operations",
    "tag-creation": "Tag creation", "tag-ports-during-bulk-creation": "Tag Ports During Bulk Creation",
}

#: Named as soon as somebody forwards (`agents.routing`).
FORWARDING = {
    "router": "Neutron L3 Router", "ext-gw-mode": "Neutron L3 Configurable external gateway mode",
    "extraroute": "Neutron Extra Route", "extraroute-atomic": "Atomically add/remove extra routes",
    "fip-port-details": "Add port_details to Floating IP resource", "floatingip-pools": "Floating IP Pools Extension",
    "floating-ip-router-writable": "Floating IP Router (writable)",
    "floating-ip-port-forwarding": "Floating IP Port Forwarding",
    "floating-ip-port-forwarding-description": "Floating IP Port Forwarding new attribute description",
    "floating-ip-port-forwarding-detail": "Floating IP port forwarding detail",
    "floating-ip-port-forwarding-port-ranges": "Floating IP Port Forwarding support port ranges",
    "expose-port-forwarding-in-fip": "Expose Floating IP port forwardings",
    "router_availability_zone": "Router Availability Zone", "dvr": "Distributed Virtual Router",
    "l3-ha": "HA Router extension",
    "router-admin-state-down-before-update": "Enforce Router's Admin State Down Before Update Extension",
}


def routes(manager: NetworkManager, collections: list[tuple[str, str]]) -> list[Route]:
    """The public documents, and /extensions. collections: (name, plural) of the resources served."""

    async def known(request: Request) -> dict[str, str]:
        return EXTENSIONS | (FORWARDING if await manager.read(request.context, agents.routing) else {})

    async def root(request: Request) -> View:
        return {"versions": [{"id": "v2.0", "status": "CURRENT",
                              "links": [{"rel": "self", "href": f"{request.service_url}/v2.0/"}]}]}

    async def resources(request: Request) -> View:
        return {"resources": [{"name": name, "collection": plural, "links": [
            {"rel": "self", "href": f"{request.service_url}/v2.0/{plural.replace('_', '-')}"}]}
            for name, plural in collections]}

    async def index(request: Request) -> View:
        return {"extensions": [_extension(*each) for each in (await known(request)).items()]}

    async def show(request: Request) -> View:
        alias, found = request.params["alias"], await known(request)
        if alias not in found:
            raise NotFound(f"Extension with alias {alias[:64]} does not exist")
        return {"extension": _extension(alias, found[alias])}

    return [Route("GET", "/", root, PUBLIC), Route("GET", "/v2.0", resources, PUBLIC),
            Route("GET", "/v2.0/extensions", index, AUTHENTICATED),
            Route("GET", "/v2.0/extensions/{alias}", show, AUTHENTICATED)]


def _extension(alias: str, name: str) -> View:
    return {"alias": alias, "name": name, "description": name, "updated": UPDATED,
            "links": []}
