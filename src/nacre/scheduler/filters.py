"""Filters: why a host may not have a server. A new one is one function, and its name in one of the two tables.

`KIND_FILTERS` look only at what hosts have in common, so each is asked once for thousands of hosts; `HOST_FILTERS`
look at one host. Both are (request, kind or host) -> None, or why not: a short phrase that counts well ("are not in
zone east"), which depends on the request only, so that hosts with the same problem share it.
"""

from collections.abc import Callable

from nacre.scheduler.contract import PlacementRequest
from nacre.scheduler.extra_specs import matches
from nacre.scheduler.hosts import Host, Kind

KindFilter = Callable[[PlacementRequest, Kind], str | None]
HostFilter = Callable[[PlacementRequest, Host], str | None]

#: An extra spec for the aggregates' metadata, and one for the host's own capabilities.
AGGREGATE_SCOPE, CAPABILITY_SCOPE = "aggregate_instance_extra_specs:", "capabilities:"
#: Image property -> the attribute of a kind that it must equal.
IMAGE_PROPERTIES = {"hw_architecture": "architecture", "architecture": "architecture", "img_hv_type": "hypervisor_type",
                    "hypervisor_type": "hypervisor_type"}
#: Traits of processor features begin so; HW_CPU_X86_SSE42 is libvirt's sse4.2, and some have other names there.
CPU_TRAIT = "trait:HW_CPU_X86_"
LIBVIRT_NAMES = {"aesni": "aes", "bmi": "bmi1", "clmul": "pclmuldq", "fma3": "fma", "sha": "shani", "sse3": "pni",
                 "tsx": "rtm", "amdsvm": "svm", "intelvmx": "vmx"}
#: Names of the same machine, and of hypervisors that run one another's guests.
SAME = {"amd64": "x86_64", "x64": "x86_64", "arm64": "aarch64", "i386": "i686", "kvm": "qemu"}


def zone(request: PlacementRequest, kind: Kind) -> str | None:
    wanted = request.availability_zone
    return f"are not in availability zone {wanted}" if wanted is not None and kind.zone != wanted else None


def tenant_isolation(request: PlacementRequest, kind: Kind) -> str | None:
    """An aggregate with `filter_tenant_id...` in its metadata takes those projects' servers only."""
    allowed = [values for key, values in kind.metadata.items() if key.startswith("filter_tenant_id")]
    if allowed and not any(request.project_id in values for values in allowed):
        return "are kept for other projects"
    return None


def aggregate_extra_specs(request: PlacementRequest, kind: Kind) -> str | None:
    """`aggregate_instance_extra_specs:KEY` of a flavor must fit a value of KEY in the host's aggregates."""
    for key, wanted in request.extra_specs.items():
        if key.startswith(AGGREGATE_SCOPE):
            name = key.removeprefix(AGGREGATE_SCOPE)
            if not any(matches(value, wanted) for value in kind.metadata.get(name, ())):
                return f"are in no aggregate with {name} {wanted}"
    return None


def aggregate_image_properties(request: PlacementRequest, kind: Kind) -> str | None:
    """A key of an aggregate's metadata that an image has too must have the image's value."""
    for key, wanted in request.image_properties.items():
        if (values := kind.metadata.get(key)) and wanted not in values:
            return f"are in an aggregate for other images than {key} {wanted}"
    return None


def image_properties(request: PlacementRequest, kind: Kind) -> str | None:
    """Architecture and hypervisor type that an image asks for."""
    for key, attribute in IMAGE_PROPERTIES.items():
        wanted = request.image_properties.get(key)
        if wanted and _name(wanted) != _name(getattr(kind, attribute)):
            return f"are not {wanted}"
    return None


def capabilities(request: PlacementRequest, kind: Kind) -> str | None:
    """`capabilities:NAME` of a flavor must fit the host's: hypervisor_type, hypervisor_version, architecture, or what
    `cpu_info` has, as `capabilities:cpu_info:vendor`."""
    for key, wanted in request.extra_specs.items():
        if key.startswith(CAPABILITY_SCOPE):
            path = key.removeprefix(CAPABILITY_SCOPE).split(":")
            if not matches(_capability(kind, path), wanted):
                return f"lack the capability {':'.join(path)} {wanted}"
    return None


def cpu_features(request: PlacementRequest, kind: Kind) -> str | None:
    """`trait:HW_CPU_X86_...` of a flavor: required, or forbidden. A required trait of another name nobody has."""
    for key, wanted in request.extra_specs.items():
        if key.startswith("trait:"):
            has = key.startswith(CPU_TRAIT) and _has_feature(kind, key.removeprefix(CPU_TRAIT))
            if has != (wanted == "required"):
                return f"{'lack' if wanted == 'required' else 'have'} {key.removeprefix('trait:')}"
    return None


def _has_feature(kind: Kind, trait: str) -> bool:
    name = trait.lower().replace("_", "")
    return LIBVIRT_NAMES.get(name, name) in kind.features


def _capability(kind: Kind, path: list[str]) -> str | None:
    if path[0] in ("hypervisor_type", "hypervisor_version", "architecture") and len(path) == 1:
        return str(getattr(kind, path[0]))
    found: object = kind.cpu if path[0] == "cpu_info" else None
    for part in path[1:]:
        found = found.get(part) if isinstance(found, dict) else None
    return None if found is None or len(path) == 1 else str(found)


def _name(text: str) -> str:
    return SAME.get(text.lower(), text.lower())


#: In the order they are asked.
KIND_FILTERS: dict[str, KindFilter] = {
    "zone": zone, "tenant_isolation": tenant_isolation, "aggregate_extra_specs": aggregate_extra_specs,
    "aggregate_image_properties": aggregate_image_properties, "image_properties": image_properties,
    "capabilities": capabilities, "cpu_features": cpu_features,
}
#: Asked last, of hosts that pass all else. What the wish itself says of hosts (same_host, groups, retry, query) and
#: their resources is not optional and lives in `search.py`.
HOST_FILTERS: dict[str, HostFilter] = {}
ALL = (*KIND_FILTERS, *HOST_FILTERS)
