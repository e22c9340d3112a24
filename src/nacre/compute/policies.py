"""Who may do what in compute: Nova's rule names, with the defaults of today's releases.

Any of them can be overridden in the operator's policy file. The shared rules carry the service's name.
"""

ADMIN = "rule:context_is_admin"
MANAGER = "rule:compute:project_manager_or_admin"
MEMBER = "rule:compute:project_member_or_admin"
READER = "rule:compute:project_reader_or_admin"
SERVICE = "rule:compute:service_or_admin"
ANYONE = "@"
PLACEMENT = f"{ADMIN} or role:service"
SAME_USER = f"{ADMIN} or user_id:%(user_id)s"

_SHARED = {
    "compute:project_manager_or_admin": f"(role:manager and project_id:%(project_id)s) or {ADMIN}",
    "compute:project_member_or_admin": f"(role:member and project_id:%(project_id)s) or {ADMIN}",
    "compute:project_reader_or_admin": f"(role:reader and project_id:%(project_id)s) or {ADMIN}",
    "compute:service_or_admin": f"role:service or {ADMIN}",
}

#: Rules by who may: the part after `os_compute_api:`.
_BY_ROLE: dict[str, tuple[str, ...]] = {
    ADMIN: (
        "os-admin-actions:reset_state", "os-admin-actions:inject_network_info",
        "os-aggregates:set_metadata", "os-aggregates:add_host", "os-aggregates:create", "os-aggregates:remove_host",
        "os-aggregates:update", "os-aggregates:index", "os-aggregates:delete", "os-aggregates:show",
        "os-availability-zone:detail",
        "os-evacuate", "os-extended-server-attributes",
        "os-flavor-access:add_tenant_access", "os-flavor-access:remove_tenant_access", "os-flavor-access",
        "os-flavor-extra-specs:create", "os-flavor-extra-specs:update", "os-flavor-extra-specs:delete",
        "os-flavor-manage:create", "os-flavor-manage:update", "os-flavor-manage:delete",
        "os-hosts:list", "os-hosts:show", "os-hosts:update", "os-hosts:reboot", "os-hosts:shutdown",
        "os-hosts:start", "os-hypervisors:list", "os-hypervisors:list-detail", "os-hypervisors:statistics",
        "os-hypervisors:show", "os-hypervisors:uptime", "os-hypervisors:search", "os-hypervisors:servers",
        "os-nacre-hosts:list", "os-nacre-hosts:remove", "os-nacre-hosts:accept", "os-nacre-orphans:list",
        "os-nacre-orphans:adopt", "os-nacre-orphans:forget", "os-nacre-plans:create",
        "os-instance-actions:events:details", "os-instance-actions:events",
        "os-instance-usage-audit-log:list", "os-instance-usage-audit-log:show", "limits:other_project",
        "os-lock-server:unlock:unlock_override",
        "os-quota-class-sets:show", "os-quota-class-sets:update", "os-quota-sets:update", "os-quota-sets:delete",
        "os-server-diagnostics", "os-server-groups:index:all_projects",
        "servers:index:get_all_tenants", "servers:detail:get_all_tenants", "servers:allow_all_filters",
        "servers:show:host_status", "servers:create:forced_host",
        "servers:create:zero_disk_flavor",
        "os-services:list", "os-services:update", "os-services:delete", "os-shelve:shelve_offload",
        "os-simple-tenant-usage:list",
    ),
    MANAGER: (
        "os-migrate-server:migrate", "os-migrate-server:migrate_live", "os-migrations:index",
        "servers:migrations:index",
    ),
    MEMBER: (
        "os-admin-password", "os-attach-interfaces:create", "os-attach-interfaces:delete", "os-console-output",
        "os-create-backup", "os-deferred-delete:restore", "os-deferred-delete:force", "os-floating-ips:add",
        "os-floating-ips:remove", "os-floating-ips:create", "os-floating-ips:delete", "os-lock-server:lock",
        "os-lock-server:unlock", "os-multinic:add", "os-multinic:remove", "os-pause-server:pause",
        "os-pause-server:unpause", "os-remote-consoles", "os-rescue", "os-unrescue", "os-security-groups:create",
        "os-security-groups:update", "os-security-groups:delete", "os-security-groups:rule:create",
        "os-security-groups:rule:delete", "os-security-groups:add", "os-security-groups:remove",
        "os-server-groups:create", "os-server-groups:delete", "server-metadata:create", "server-metadata:update_all",
        "server-metadata:update", "server-metadata:delete", "os-server-password:clear", "os-server-tags:delete_all",
        "os-server-tags:update_all", "os-server-tags:delete", "os-server-tags:update", "servers:create",
        "servers:create:attach_network", "servers:create:trusted_certs",
        "servers:delete", "servers:update", "servers:confirm_resize", "servers:revert_resize", "servers:reboot",
        "servers:resize", "servers:rebuild", "servers:create_image",
        "servers:start", "servers:stop", "servers:trigger_crash_dump",
        "os-shelve:shelve", "os-shelve:unshelve", "os-suspend-server:resume", "os-suspend-server:suspend",
        "os-volumes-attachments:create", "os-volumes-attachments:update",
        "os-volumes-attachments:delete",
    ),
    READER: (
        "os-attach-interfaces:list", "os-attach-interfaces:show", "os-flavor-extra-specs:show",
        "os-flavor-extra-specs:index", "os-floating-ips:list", "os-floating-ips:show", "os-instance-actions:list",
        "os-instance-actions:show", "ips:show", "ips:index", "os-networks:list", "os-networks:show",
        "os-quota-sets:show", "os-quota-sets:detail", "os-security-groups:get", "os-security-groups:show",
        "os-security-groups:list", "os-server-groups:index", "os-server-groups:show", "server-metadata:index",
        "server-metadata:show", "os-server-password:show", "os-server-tags:index", "os-server-tags:show",
        "servers:index", "servers:detail", "servers:show", "servers:show:flavor-extra-specs",
        "os-simple-tenant-usage:show", "os-tenant-networks:list", "os-tenant-networks:show",
        "os-volumes-attachments:index", "os-volumes-attachments:show",
    ),
    SERVICE: (
        "os-server-external-events:create",
    ),
    ANYONE: (
        "os-availability-zone:list", "extensions", "os-floating-ip-pools", "limits", "os-quota-sets:defaults",
    ),
    SAME_USER: ("os-keypairs:index", "os-keypairs:create", "os-keypairs:delete", "os-keypairs:show"),
}

#: Placement's rules, by placement's names.
_PLACEMENT = (
    "resource_providers:list", "resource_providers:show", "resource_providers:create", "resource_providers:update",
    "resource_providers:delete", "resource_providers:inventories:list", "resource_providers:inventories:show",
    "resource_providers:inventories:create", "resource_providers:inventories:update",
    "resource_providers:inventories:delete", "resource_providers:usages", "resource_providers:aggregates:list",
    "resource_providers:aggregates:update", "resource_providers:traits:list", "resource_providers:traits:update",
    "resource_providers:traits:delete", "resource_providers:allocations:list", "allocations:list",
    "allocations:manage", "allocations:update", "allocations:delete", "allocation_candidates:list",
    "resource_classes:list", "resource_classes:show", "resource_classes:create", "resource_classes:update",
    "resource_classes:delete", "traits:list", "traits:show", "traits:update", "traits:delete")

POLICIES: dict[str, str] = {
    **_SHARED,
    **{f"os_compute_api:{name}": check for check, names in _BY_ROLE.items() for name in names},
    **{f"placement:{name}": PLACEMENT for name in _PLACEMENT},
    "placement:usages": f"{PLACEMENT} or (role:reader and project_id:%(project_id)s)",
    "placement:reshaper:reshape": "role:service",
    "compute:aggregates:images": ADMIN,
    "compute:servers:create:requested_destination": ADMIN,
}

#: A token that is for a project, no domain's and none of the whole system, is what all of these take.
SCOPES = dict.fromkeys(POLICIES.keys() - _SHARED.keys(), frozenset({"project"}))


def rule(name: str) -> str:
    """`servers:show` -> the rule's whole name. Raises KeyError for a rule that does not exist."""
    whole = f"os_compute_api:{name}"
    if whole not in POLICIES:
        raise KeyError(whole)
    return whole
