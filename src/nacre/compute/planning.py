"""The pure part of a create: names, checks of an image against a flavor, and the row that is written."""

import re
from typing import Any

import msgspec

from nacre.base.context import Context
from nacre.base.errors import BadRequest
from nacre.compute.catalog.flavors import Flavor
from nacre.compute.contract import ServerSpec
from nacre.image.contract import ImageFacts

GIB = 1 << 30


def names(spec: ServerSpec) -> list[str]:
    """The servers' names: the one given, or `name-1`, `name-2` ... for several."""
    if spec.max_count == 1:
        return [spec.name]
    return [f"{spec.name}-{n}" for n in range(1, spec.max_count + 1)]


def hostname(name: str) -> str:
    """A host name out of a display name, as Nova makes it: lower case, spaces and underscores to dashes, no other
    signs, at most 63 characters. Empty where nothing is left."""
    kept = re.sub(r"[^a-z0-9.-]+", "", re.sub(r"[ _]", "-", name.lower()))
    return re.sub(r"[.]+", "-", kept).strip("-")[:63].strip("-")


def check_image(image: ImageFacts, flavor: Flavor) -> None:
    """Raises BadRequest (Conflict for an image that is not active) where the flavor cannot hold the image."""
    if image.status != "active":
        raise BadRequest(f"Image {image.id} is not active.", field="imageRef")
    if flavor.memory_mb < image.min_ram:
        raise BadRequest(f"Flavor's memory is too small for requested image: {flavor.memory_mb} MB, image needs "
                         f"{image.min_ram} MB.", field="flavorRef")
    if not flavor.root_gb:
        return  # the root disk is as large as the image
    for said, needed in (("minimum disk", image.min_disk * GIB), ("virtual size", image.virtual_size or 0),
                         ("size", image.size or 0)):
        if flavor.root_gb * GIB < needed:
            raise BadRequest(f"Flavor's disk is too small for requested image. Flavor disk is {flavor.root_gb * GIB} "
                             f"bytes, image's {said} is {needed} bytes.", field="flavorRef")


def row(context: Context, plan: Any, spec: ServerSpec, fixed: dict[str, Any]) -> dict[str, Any]:
    """A new server's row. spec: with this server's own name and hostname; fixed: id, index, reservation, times."""
    image: ImageFacts = plan.image
    zone = (spec.availability_zone or "").partition(":")[0]
    return {
        **fixed, "name": spec.name, "project_id": context.project_id, "user_id": context.user_id,
        "vm_state": "building", "task_state": "scheduling", "power_state": "", "host": "", "allocation_id": "",
        "epoch": 0, "deleted": False, "locked": False, "pinned_zone": zone or None, "availability_zone": zone or None,
        "flavor_id": plan.flavor.id, "memory_mb": plan.flavor.memory_mb, "vcpus": plan.flavor.vcpus,
        "flavor": msgspec.to_builtins(plan.size), "metadata": spec.metadata, "tags": list(spec.tags),
        "image_id": spec.image_id, "image_properties": image.properties if image else {},
        "kernel_id": spec.kernel_id, "ramdisk_id": spec.ramdisk_id, "key_name": spec.key_name,
        "key": [plan.key.name, plan.key.type, plan.key.public_key] if plan.key else None,
        "description": spec.description, "hostname": spec.hostname or f"server-{fixed['id']}",
        "access_ip_v4": spec.access_ip_v4, "access_ip_v6": spec.access_ip_v6, "disk_config": spec.disk_config,
        "config_drive": spec.config_drive, "user_data": spec.user_data,
        "root_device_name": "/dev/vda", "security_groups": list(spec.security_groups or ("default",)),
        "trusted_certs": list(spec.trusted_certs), "group_id": spec.hints.get("group"), "hints": spec.hints,
        "fault": None,
    }
