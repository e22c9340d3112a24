"""Microversions: the one table of what each version knows, and how a request says which one it speaks.

A row is `noun.field: (first, last)`, minor versions of 2.x, both included; None is "no limit". Fields that every
version knows have no row. Parsing (`validation.Schema`) and rendering (the views) both ask `known`.
"""

import re
from collections.abc import Mapping

from nacre.base.errors import BadRequest, NotAcceptable
from nacre.base.web import Version

MINIMUM: Version = (2, 1)
MAXIMUM: Version = (2, 104)

Span = tuple[int | None, int | None]

FIELDS: dict[str, Span] = {
    # What a create may say
    "server.create.description": (19, None),
    "server.create.hostname": (90, None),
    "server.create.host": (74, None),
    "server.create.hypervisor_hostname": (74, None),
    "server.create.personality": (None, 56),
    "server.create.tags": (52, None),
    "server.create.trusted_image_certificates": (63, None),
    "server.network.tag": (32, 36),
    "server.network37.tag": (42, None),
    "server.disk.volume_type": (67, None),
    # What an update may say
    "server.update.description": (19, None),
    "server.update.hostname": (90, None),
    "server.update.pinned_availability_zone": (104, None),
    "server.rebuild.description": (19, None),
    "server.rebuild.key_name": (54, None),
    "server.rebuild.personality": (None, 56),
    "server.rebuild.user_data": (57, None),
    "server.rebuild.trusted_image_certificates": (63, None),
    "server.rebuild.hostname": (90, None),
    "server.lock.locked_reason": (73, None),
    # What a server shows
    "server.description": (19, None),
    "server.locked": (9, None),
    "server.locked_reason": (73, None),
    "server.tags": (26, None),
    "server.embedded_flavor": (47, None),
    "server.host_status": (16, None),
    "server.trusted_image_certificates": (63, None),
    "server.extended": (3, None),
    "server.delete_on_termination": (3, None),
    "server.server_groups": (71, None),
    "server.hostname_for_all": (90, None),
    "server.pinned_availability_zone": (96, None),
    "server.image_properties": (98, None),
    "server.scheduler_hints": (100, None),
    "server.whole_on_update": (75, None),
    # What a list of servers may be asked
    "server.query.tags": (26, None),
    "server.query.tags-any": (26, None),
    "server.query.not-tags": (26, None),
    "server.query.not-tags-any": (26, None),
    "server.query.changes-before": (66, None),
    "server.query.locked": (73, None),
    "server.query.ip6_for_all": (5, None),
    "server.query.bad_status_is_error": (38, None),
    "server.query.more_for_all": (83, None),
    "query.strict": (75, None),
    # Flavors
    "flavor.create.description": (55, None),
    "flavor.create.rxtx_factor": (None, 101),
    "flavor.description": (55, None),
    "flavor.extra_specs": (61, None),
    "flavor.swap_is_number": (75, None),
    "flavor.rxtx_factor": (None, 101),
    # Key pairs
    "keypair.create.type": (2, None),
    "keypair.create.user_id": (10, None),
    "keypair.type": (2, None),
    "keypair.user_id_query": (10, None),
    "keypair.links": (35, None),
    "keypair.generate": (None, 91),
    # Instance actions
    "action.updated_at": (58, None),
    "action.deleted_servers": (21, None),
    "action.events_for_all": (51, None),
    "action.host": (62, None),
    "action.details": (84, None),
    "action.query.limit": (58, None),
    "action.query.marker": (58, None),
    "action.query.changes-since": (58, None),
    "action.query.changes-before": (66, None),
    # Interfaces
    "interface.tag": (70, None),
    # Server groups
    "group.policies": (None, 63),
    "group.policy": (64, None),
    "group.create.policies": (None, 63),
    "group.create.policy": (64, None),
    "group.create.rules": (64, None),
    "group.owner": (13, None),
    "group.soft_policies": (15, None),
    # Hosts
    "service.forced_down": (11, None),
    "service.by_uuid": (53, None),
    "service.update.forced_down": (11, None),
    "hypervisor.cpu_info_object": (28, None),
    "hypervisor.paging": (33, None),
    "hypervisor.by_uuid": (53, None),
    "hypervisor.servers_always": (75, None),
    "hypervisor.usage": (None, 87),
    "hypervisor.uptime": (88, None),
    "aggregate.uuid": (41, None),
    # Quotas and limits
    "quota.fixed_ips": (None, 35),
    "quota.floating_ips": (None, 35),
    "quota.security_groups": (None, 35),
    "quota.security_group_rules": (None, 35),
    "quota.networks": (None, 35),
    "quota.injected_files": (None, 56),
    "quota.injected_file_content_bytes": (None, 56),
    "quota.injected_file_path_bytes": (None, 56),
    "quota.class_server_groups": (50, None),
    "limits.max_image_meta": (None, 38),
    "usage.paging": (40, None),
    "migration.links": (59, None),
}

#: The last version of the APIs that only pass a request on to another service (images, networks, floating addresses).
PROXIES_UNTIL: Version = (2, 35)


def known(noun: str, version: Version) -> bool:
    """Whether `version` knows `noun`."""
    span = FIELDS.get(noun)
    if span is None:
        return True
    return (span[0] is None or version[1] >= span[0]) and (span[1] is None or version[1] <= span[1])


HEADER = "openstack-api-version"
LEGACY = "x-openstack-nova-api-version"
_FORM = re.compile(r"[1-9]\d{0,4}\.(?:0|[1-9]\d{0,4})", re.ASCII)


class Microversions:
    """The compute service's `Negotiator`."""

    def asked(self, headers: Mapping[str, str]) -> str | None:
        """The version as the client wrote it, or None."""
        for part in headers.get(HEADER, "").split(","):
            service, _, version = part.strip().partition(" ")
            if service.lower() == "compute":
                return version.strip()
        return headers.get(LEGACY)

    def pick(self, headers: Mapping[str, str]) -> Version:
        """The version to speak. Raises BadRequest for no version at all, NotAcceptable for one out of range."""
        asked = self.asked(headers)
        if asked is None:
            return MINIMUM
        if asked == "latest":
            return MAXIMUM
        if not _FORM.fullmatch(asked):
            raise BadRequest(f"API Version String {asked[:64]} is of invalid format. "
                             "Must be of format MajorNum.MinorNum.")
        major, minor = (int(n) for n in asked.split("."))
        if not MINIMUM <= (major, minor) <= MAXIMUM:
            raise NotAcceptable(f"Version {asked} is not supported by the API. "
                                f"Minimum is {text(MINIMUM)} and maximum is {text(MAXIMUM)}.")
        return major, minor

    def headers(self, version: Version | None, asked: str | None) -> list[tuple[str, str]]:
        """What the answer says: the version spoken, or the one asked for where it is not spoken."""
        said = text(version) if version and version >= MINIMUM else asked
        if said is None:
            return []
        return [("openstack-api-version", f"compute {said}"), ("x-openstack-nova-api-version", said),
                ("vary", "OpenStack-API-Version"), ("vary", "X-OpenStack-Nova-API-Version")]


def text(version: Version) -> str:
    """`2.96`."""
    return f"{version[0]}.{version[1]}"
