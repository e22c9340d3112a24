"""Type drivers: which segments there can be, and the choice of a free one. Pure."""

from collections.abc import Mapping

import msgspec

from nacre.base.errors import BadRequest

MAX_VNI = (1 << 24) - 1
#: What a tunnel's headers take from the physical MTU (VXLAN over IPv4).
OVERHEAD = {"vxlan": 50}


class SegmentTypes(msgspec.Struct, frozen=True, kw_only=True):
    """The operator's ranges. tenant_types: tried in this order for networks that ask for no type."""

    tenant_types: tuple[str, ...] = ("vxlan",)
    flat_networks: tuple[str, ...] = ("*",)
    vlan_ranges: Mapping[str, tuple[int, int]] = {}
    vni_range: tuple[int, int] = (1, 1 << 20)
    physical_mtu: int = 1500

    def mtu(self, network_type: str) -> int:
        """The largest packet a network of this type carries."""
        return self.physical_mtu - OVERHEAD.get(network_type, 0)


def claim(network_type: str, physical: str | None, number: int | None) -> str | None:
    """The key under which a segment is unique in the cloud; None where there may be many alike."""
    return None if network_type == "local" else f"{network_type}:{physical or ''}:{'' if number is None else number}"


def _provider_error(reason: str) -> BadRequest:
    return BadRequest(f"Invalid input for operation: {reason}.", type="InvalidInput")


def validate(types: SegmentTypes, network_type: str, physical: str | None, number: int | None) -> None:
    """Checks what an administrator asked for. Raises BadRequest naming the provider attribute."""
    if network_type not in ("flat", "vlan", "vxlan", "local"):
        raise _provider_error(f"provider:network_type '{network_type}' is not supported")
    if network_type in ("flat", "vlan"):
        _validate_physical(types, network_type, physical)
    elif physical:
        raise _provider_error(f"provider:physical_network specified for {network_type} network")
    if network_type in ("flat", "local") and number is not None:
        raise _provider_error(f"provider:segmentation_id specified for {network_type} network")
    limit = {"vlan": 4094, "vxlan": MAX_VNI}.get(network_type, 0)
    if number is not None and not 1 <= number <= limit:
        raise _provider_error(f"provider:segmentation_id out of range (1 through {limit}) for {network_type} network")


def _validate_physical(types: SegmentTypes, network_type: str, physical: str | None) -> None:
    if not physical:
        raise _provider_error(f"provider:physical_network required for {network_type} network")
    known = physical in types.vlan_ranges
    if network_type == "flat":
        known = known or "*" in types.flat_networks or physical in types.flat_networks
    if not known:
        raise _provider_error(f"provider:physical_network '{physical}' unknown for {network_type} network")


def numbers(types: SegmentTypes, network_type: str, physical: str | None) -> range:
    """The VLANs or VNIs that the operator gives out."""
    start, end = types.vlan_ranges.get(physical or "", (1, 0)) if network_type == "vlan" else types.vni_range
    return range(start, end + 1)
