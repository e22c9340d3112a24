"""Who may do what to images, by Glance's rule names and defaults. An operator's policy file overrides them."""

ADMIN = "rule:context_is_admin"
MEMBER = "role:member and project_id:%(project_id)s"
READER = "role:reader and project_id:%(project_id)s"
SEES = ("(project_id:%(project_id)s or project_id:%(member_id)s or 'community':%(visibility)s"
        " or 'public':%(visibility)s or 'shared':%(visibility)s)")

ADMIN_OR_MEMBER = f"{ADMIN} or ({MEMBER})"
ADMIN_OR_READER = f"{ADMIN} or ({READER})"
GET_IMAGE = f"{ADMIN} or (role:reader and {SEES})"
MEMBERS = f"{ADMIN} or (role:reader and (project_id:%(project_id)s or project_id:%(member_id)s))"
NAMESPACE = f"{ADMIN} or (role:reader and (project_id:%(project_id)s or 'public':%(visibility)s))"
SERVICE = "role:service"

POLICIES: dict[str, str] = {
    "add_image": f"{ADMIN} or ({MEMBER} and project_id:%(owner)s)",
    "get_image": GET_IMAGE,
    "get_images": ADMIN_OR_READER,
    "modify_image": ADMIN_OR_MEMBER,
    "delete_image": ADMIN_OR_MEMBER,
    "publicize_image": ADMIN,
    "communitize_image": ADMIN_OR_MEMBER,
    "download_image": f"{ADMIN} or (role:member and {SEES})",
    "upload_image": ADMIN_OR_MEMBER,
    "deactivate": ADMIN_OR_MEMBER,
    "reactivate": ADMIN_OR_MEMBER,
    "delete_image_location": ADMIN,
    "add_image_location": f"{ADMIN} or {SERVICE} or ({MEMBER})",
    "fetch_image_location": f"{ADMIN} or {SERVICE}",
    "add_member": ADMIN_OR_MEMBER,
    "delete_member": ADMIN_OR_MEMBER,
    "get_member": MEMBERS,
    "get_members": MEMBERS,
    "modify_member": f"{ADMIN} or (role:member and project_id:%(member_id)s)",
    "stores_info_detail": f"{ADMIN} or {SERVICE}",
    "cache_list": ADMIN,
    "cache_image": ADMIN,
    "cache_delete": ADMIN,
    "tasks_api_access": ADMIN,
    "get_metadef_namespace": NAMESPACE,
    "get_metadef_namespaces": ADMIN_OR_READER,
    "add_metadef_namespace": ADMIN,
    "modify_metadef_namespace": ADMIN,
    "delete_metadef_namespace": ADMIN,
    "get_metadef_object": NAMESPACE,
    "get_metadef_objects": NAMESPACE,
    "add_metadef_object": ADMIN,
    "modify_metadef_object": ADMIN,
    "delete_metadef_object": ADMIN,
    "list_metadef_resource_types": NAMESPACE,
    "add_metadef_resource_type_association": ADMIN,
    "remove_metadef_resource_type_association": ADMIN,
    "get_metadef_property": NAMESPACE,
    "get_metadef_properties": NAMESPACE,
    "add_metadef_property": ADMIN,
    "modify_metadef_property": ADMIN,
    "remove_metadef_property": ADMIN,
    "get_metadef_tag": NAMESPACE,
    "get_metadef_tags": NAMESPACE,
    "add_metadef_tag": ADMIN,
    "add_metadef_tags": ADMIN,
    "modify_metadef_tag": ADMIN,
    "delete_metadef_tag": ADMIN,
    "delete_metadef_tags": ADMIN,
}

#: A token that is for a project, no domain's and none of the whole system, is what all of these take.
SCOPES = dict.fromkeys(POLICIES, frozenset({"project"}))
