"""Who may do what in identity, by Keystone's rule names and defaults. An operator's policy file overrides them."""

ADMIN = "rule:context_is_admin"
SYSTEM_READER = "(role:reader and system_scope:all)"
READ = f"{ADMIN} or {SYSTEM_READER}"
ANYONE = "@"
MANAGED_ROLE = "('manager':%(target.role.name)s or 'member':%(target.role.name)s or 'reader':%(target.role.name)s)"
ROLE_OF_DOMAIN = "(domain_id:%(target.role.domain_id)s or None:%(target.role.domain_id)s)"


def own(*keys: str, others: str = READ) -> str:
    """`others`, and the user whom one of `keys` names."""
    return " or ".join((others, *(f"user_id:%({key})s" for key in keys)))


def domain(role: str, *keys: str) -> str:
    """`role` on the very domain that all of `keys` name. A missing domain is nobody's."""
    return "(" + " and ".join((f"role:{role}", *(f"domain_id:%({k})s and not None:%({k})s" for k in keys))) + ")"


def grants(role: str) -> str:
    """`role` on the domain of both the actor and the target of an assignment."""
    return "(" + " or ".join(domain(role, actor, target)
                             for actor in ("target.user.domain_id", "target.group.domain_id")
                             for target in ("target.project.domain_id", "target.domain.id")) + ")"


def crud(thing: str, things: str) -> dict[str, str]:
    """The admin's things, shown to the system's readers."""
    return {f"identity:{verb}_{thing}": ADMIN for verb in ("create", "update", "delete")} | {
        f"identity:get_{thing}": READ, f"identity:list_{things}": READ}


def managed(thing: str, things: str, listed: str) -> dict[str, str]:
    """What a domain's manager changes and its readers see."""
    of_domain = f"target.{thing}.domain_id"
    change, see = f"{ADMIN} or {domain('manager', of_domain)}", f"{READ} or {domain('reader', of_domain)}"
    return {f"identity:{verb}_{thing}": change for verb in ("create", "update", "delete")} | {
        f"identity:get_{thing}": see, f"identity:list_{things}": f"{READ} or {domain('reader', listed)}"}


PROJECT_SEEN = f"{READ} or {domain('reader', 'target.project.domain_id')} or project_id:%(target.project.id)s"
PROJECT_CHANGED = f"{ADMIN} or {domain('manager', 'target.project.domain_id')}"
GRANTS_CHANGED = (f"{ADMIN} or ({grants('admin')} and {ROLE_OF_DOMAIN})"
                  f" or ({grants('manager')} and {MANAGED_ROLE})")
MEMBERSHIP = ("target.group.domain_id", "target.user.domain_id")
TRUST_SEEN = own("target.trust.trustor_user_id", "target.trust.trustee_user_id")

POLICIES: dict[str, str] = {
    **crud("service", "services"), **crud("endpoint", "endpoints"), **crud("region", "regions"),
    **crud("policy", "policies"), **crud("consumer", "consumers"), **crud("endpoint_group", "endpoint_groups"),
    **crud("identity_provider", "identity_providers"), **crud("mapping", "mappings"), **crud("protocol", "protocols"),
    **crud("service_provider", "service_providers"), **crud("domain", "domains"), **crud("role", "roles"),
    **crud("domain_role", "domain_roles"),
    **{f"identity:{verb}_implied_role": ADMIN for verb in ("create", "delete")},
    **{f"identity:{rule}": READ for rule in ("get_implied_role", "list_implied_roles")},
    **managed("user", "users", "target.domain_id"), **managed("group", "groups", "target.group.domain_id"),
    **managed("project", "projects", "target.domain_id"),
    **{f"identity:{verb}_domain_config": ADMIN for verb in ("create", "update", "delete")},
    **{f"identity:{verb}_project_tag{s}": PROJECT_CHANGED for verb, s in (
        ("create", ""), ("delete", ""), ("delete", "s"), ("update", "s"))},
    **{f"identity:{verb}_system_grant_for_{actor}": ADMIN
       for verb in ("create", "revoke") for actor in ("user", "group")},
    **{f"identity:{verb}_for_{actor}": READ
       for verb in ("check_system_grant", "list_system_grants") for actor in ("user", "group")},
    "identity:get_user": own("target.user.id",
                             others=f"{READ} or (role:reader and token.domain.id:%(target.user.domain_id)s)"),
    "identity:get_project": PROJECT_SEEN,
    "identity:list_user_projects": own("target.user.id",
                                       others=f"{READ} or {domain('reader', 'target.user.domain_id')}"),
    "identity:list_project_tags": PROJECT_SEEN,
    "identity:get_project_tag": PROJECT_SEEN,
    "identity:get_domain": f"{READ} or token.domain.id:%(target.domain.id)s"
                           " or token.project.domain.id:%(target.domain.id)s",
    "identity:list_domains": f"{READ} or {domain('reader', 'target.domain.id')}",
    "identity:get_domain_config": READ,
    "identity:get_domain_config_default": READ,
    "identity:get_security_compliance_domain_config": ANYONE,
    "identity:get_region": ANYONE,
    "identity:list_regions": ANYONE,
    "identity:get_auth_catalog": ANYONE,
    "identity:get_auth_projects": ANYONE,
    "identity:get_auth_domains": ANYONE,
    "identity:get_auth_system": ANYONE,
    "identity:get_role": f"{READ} or (role:manager and {MANAGED_ROLE})",
    "identity:list_roles": f"{READ} or (role:manager and not domain_id:None)",
    "identity:check_implied_role": READ,
    "identity:list_role_inference_rules": READ,
    "identity:check_grant": f"{READ} or ({grants('reader')} and {ROLE_OF_DOMAIN})",
    "identity:list_grants": f"{READ} or {grants('reader')}",
    "identity:create_grant": GRANTS_CHANGED,
    "identity:revoke_grant": GRANTS_CHANGED,
    "identity:list_role_assignments": f"{READ} or {domain('reader', 'target.domain_id')}",
    "identity:list_role_assignments_for_tree": f"{READ} or {domain('reader', 'target.domain_id')}",
    "identity:list_groups_for_user": own("user_id", others=f"{READ} or {domain('reader', 'target.user.domain_id')}"),
    "identity:list_users_in_group": f"{READ} or {domain('reader', 'target.group.domain_id')}",
    "identity:check_user_in_group": f"{READ} or {domain('reader', *MEMBERSHIP)}",
    "identity:add_user_to_group": f"{ADMIN} or {domain('manager', *MEMBERSHIP)}",
    "identity:remove_user_from_group": f"{ADMIN} or {domain('manager', *MEMBERSHIP)}",
    "identity:check_token": own("target.token.user_id"),
    "identity:validate_token": own("target.token.user_id", others=f"{READ} or role:service"),
    "identity:revoke_token": own("target.token.user_id", others=ADMIN),
    **{f"identity:{verb}_credential": own("target.credential.user_id", others=ADMIN)
       for verb in ("create", "update", "delete")},
    "identity:get_credential": own("target.credential.user_id"),
    "identity:list_credentials": own("target.credential.user_id"),
    "identity:ec2_get_credential": own("target.credential.user_id"),
    "identity:ec2_list_credentials": own("user_id"),
    "identity:ec2_create_credential": f"{ADMIN} or (role:member and user_id:%(target.credential.user_id)s)",
    "identity:ec2_delete_credential": f"{ADMIN} or (role:member and user_id:%(target.credential.user_id)s)",
    "identity:get_application_credential": own("user_id"),
    "identity:list_application_credentials": own("user_id"),
    "identity:create_application_credential": "user_id:%(user_id)s",
    "identity:delete_application_credential": own("user_id", others=ADMIN),
    "identity:get_access_rule": own("target.user.id", others=SYSTEM_READER),
    "identity:list_access_rules": own("target.user.id", others=SYSTEM_READER),
    "identity:delete_access_rule": own("target.user.id", others=f"({ADMIN} and system_scope:all)"),
    "identity:create_trust": "user_id:%(target.trust.trustor_user_id)s",
    "identity:list_trusts": READ,
    "identity:list_trusts_for_trustor": own("target.trust.trustor_user_id"),
    "identity:list_trusts_for_trustee": own("target.trust.trustee_user_id"),
    "identity:list_roles_for_trust": TRUST_SEEN,
    "identity:get_role_for_trust": TRUST_SEEN,
    "identity:get_trust": TRUST_SEEN,
    "identity:delete_trust": own("target.trust.trustor_user_id", others=ADMIN),
    **{f"identity:{verb}_endpoint_group_{way}_project": ADMIN for verb, way in (("add", "to"), ("remove", "from"))},
    "identity:get_endpoint_group_in_project": READ,
    "identity:list_endpoint_groups_for_project": READ,
    "identity:list_projects_associated_with_endpoint_group": READ,
    "identity:list_endpoints_associated_with_endpoint_group": READ,
    "identity:list_projects_for_endpoint": READ,
    "identity:list_endpoints_for_project": READ,
    "identity:check_endpoint_in_project": READ,
    "identity:add_endpoint_to_project": ADMIN,
    "identity:remove_endpoint_from_project": ADMIN,
    "identity:get_limit_model": ANYONE,
    "identity:authorize_request_token": ADMIN,
    **{f"identity:{rule}": ADMIN for rule in (
        "get_access_token", "get_access_token_role", "list_access_tokens", "list_access_token_roles",
        "delete_access_token")},
    **{f"identity:{rule}": ADMIN for rule in (
        "create_limits", "update_limit", "delete_limit", "create_registered_limits", "update_registered_limit",
        "delete_registered_limit")},
    **dict.fromkeys(("identity:get_registered_limit", "identity:list_registered_limits",
                     "identity:list_limits"), ANYONE),
    "identity:get_limit": f"{READ} or (domain_id:%(target.limit.domain_id)s and not None:%(target.limit.domain_id)s)"
                          " or (project_id:%(target.limit.project_id)s and not None:%(target.limit.project_id)s)",
}

_ANY, _NO_DOMAIN, _PROJECT = None, frozenset({"system", "project"}), frozenset({"project"})
#: Rules that tokens of a domain may pass too, by the noun that they are about.
_OF_DOMAINS = ("_user", "_users", "_group", "_groups", "_project", "_projects", "_project_tag", "_project_tags",
               "_grant", "_grants")
_FOR_DOMAINS = frozenset(f"identity:{rule}" for rule in (
    "add_user_to_group", "check_user_in_group", "remove_user_from_group", "list_users_in_group", "list_groups_for_user",
    "list_user_projects", "check_token", "validate_token", "revoke_token", "create_credential", "update_credential",
    "delete_credential", "get_credential", "list_credentials", "get_domain", "list_domains", "get_role", "list_roles",
    "get_region", "list_regions", "get_limit", "list_limits", "get_limit_model", "get_registered_limit",
    "list_registered_limits", "get_security_compliance_domain_config", "list_role_assignments",
    "list_role_assignments_for_tree"))
_OF_PROJECTS = frozenset(f"identity:{rule}" for rule in (
    "authorize_request_token", "create_application_credential", "create_trust", "delete_access_token",
    "get_access_token", "get_access_token_role", "list_access_token_roles", "list_access_tokens"))


def _scopes(rule: str) -> frozenset[str] | None:
    verb, _, noun = rule.removeprefix("identity:").partition("_")
    if rule in _OF_PROJECTS:
        return _PROJECT
    if rule.startswith("identity:get_auth_") or rule in _FOR_DOMAINS or (
            f"_{noun}" in _OF_DOMAINS and verb in ("create", "get", "list", "update", "delete", "check", "revoke")):
        return _ANY
    return _NO_DOMAIN


#: What a token must be for to pass a rule at all: "system", "domain", "project". A rule that is not here takes any.
SCOPES = {rule: wanted for rule in POLICIES if (wanted := _scopes(rule)) is not None}
