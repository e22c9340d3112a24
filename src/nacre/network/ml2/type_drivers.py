"""Type drivers: the kinds of segments that there are, what an operator may ask of each and what a project gets. Pure.

What is here is always there; installed packages offer more in the entry-point group `nacre.type_drivers`. Which of them
networks get that ask for none, and in which order, the operator says.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import Protocol

import msgspec

from nacre.base.errors import BadRequest, NacreError

MAX_VNI, MAX_VLAN = (1 << 24) - 1, 4094


class SegmentTypes(msgspec.Struct, frozen=True, kw_only=True):
    """The operator's ranges. tenant_types: tried in this order for networks that ask for no type."""

    tenant_types: tuple[str, ...] = ("vxlan",)
    flat_networks: tuple[str, ...] = ("*",)
    vlan_ranges: Mapping[str, tuple[int, int]] = {}
    vni_range: tuple[int, int] = (1, 1 << 20)
    physical_mtu: int = 1500


class TypeDriver(Protocol):
    """A kind of segment. Stateless.

    physical: its segments lie on physical networks, which hosts map to bridges of theirs. overhead: what a tunnel's
    headers take of the physical MTU; 0: it is no tunnel. limit: the largest number of its segments; 0: they have none.
    shared: any number of networks may have the same segment."""

    name: str
    physical: bool
    overhead: int
    limit: int
    shared: bool

    def known(self, types: SegmentTypes, physical: str) -> bool:
        """Whether its segments may lie on that physical network."""
        ...

    def places(self, types: SegmentTypes) -> Sequence[str | None]:
        """The physical networks on which projects get segments, in order (None: of a kind that needs none)."""
        ...

    def numbers(self, types: SegmentTypes, physical: str | None) -> range:
        """The numbers that projects get there."""
        ...

    def taken(self, physical: str | None, number: int | None) -> tuple[str, str]:
        """The name and the words of the refusal of a segment that another network has."""
        ...


class Flat:
    """All that is on a physical network, untagged. Projects get none by themselves."""

    name, physical, overhead, limit, shared = "flat", True, 0, 0, False

    def known(self, types: SegmentTypes, physical: str) -> bool:
        return physical in types.vlan_ranges or "*" in types.flat_networks or physical in types.flat_networks

    def places(self, types: SegmentTypes) -> Sequence[str | None]:
        return ()

    def numbers(self, types: SegmentTypes, physical: str | None) -> range:
        return range(0)

    def taken(self, physical: str | None, number: int | None) -> tuple[str, str]:
        return "FlatNetworkInUse", f"Unable to create the flat network. Physical network {physical} is in use."


class Vlan:
    """A tag on a physical network."""

    name, physical, overhead, limit, shared = "vlan", True, 0, MAX_VLAN, False

    def known(self, types: SegmentTypes, physical: str) -> bool:
        return physical in types.vlan_ranges

    def places(self, types: SegmentTypes) -> Sequence[str | None]:
        return list(types.vlan_ranges)

    def numbers(self, types: SegmentTypes, physical: str | None) -> range:
        start, end = types.vlan_ranges.get(physical or "", (1, 0))
        return range(start, end + 1)

    def taken(self, physical: str | None, number: int | None) -> tuple[str, str]:
        return "VlanIdInUse", (
            f"Unable to create the network. The VLAN {number} on physical network {physical} is in use.")


class Vxlan:
    """A tunnel between hosts, over IPv4."""

    name, physical, overhead, limit, shared = "vxlan", False, 50, MAX_VNI, False

    def known(self, types: SegmentTypes, physical: str) -> bool:
        return False

    def places(self, types: SegmentTypes) -> Sequence[str | None]:
        return (None,)

    def numbers(self, types: SegmentTypes, physical: str | None) -> range:
        return range(types.vni_range[0], types.vni_range[1] + 1)

    def taken(self, physical: str | None, number: int | None) -> tuple[str, str]:
        return "TunnelIdInUse", f"Unable to create the network. The tunnel ID {number} is in use."


class Local:
    """What does not leave its host."""

    name, physical, overhead, limit, shared = "local", False, 0, 0, True

    def known(self, types: SegmentTypes, physical: str) -> bool:
        return False

    def places(self, types: SegmentTypes) -> Sequence[str | None]:
        return (None,)

    def numbers(self, types: SegmentTypes, physical: str | None) -> range:
        return range(0)

    def taken(self, physical: str | None, number: int | None) -> tuple[str, str]:
        return "LocalNetworkInUse", "Unable to create the network. The local segment is in use."


TYPES: Mapping[str, TypeDriver] = {driver.name: driver for driver in (Flat(), Vlan(), Vxlan(), Local())}
#: Where installed packages offer kinds of their own.
GROUP = "nacre.type_drivers"


@lru_cache
def load() -> Mapping[str, TypeDriver]:
    """All kinds, ours first. Raises NacreError naming the package's entry point that is none."""
    return {**TYPES, **{point.name: _made(point) for point in entry_points(group=GROUP) if point.name not in TYPES}}


def _made(point: EntryPoint) -> TypeDriver:
    try:
        driver: TypeDriver = point.load()()
        name = driver.name
    except Exception as error:
        raise NacreError(f"The type driver '{point.name}' ({point.value}) cannot be loaded: {error!r}.") from error
    if name != point.name:  # its segments are written down under the one and looked for under the other
        raise NacreError(f"The type driver '{point.name}' ({point.value}) names itself '{name}'.")
    return driver


def require(names: Iterable[str]) -> None:
    """Raises NacreError naming the one of these kinds that nobody offers."""
    if lacking := [name for name in names if name not in load()]:
        raise NacreError(f"network.tenant_types: there is no type driver '{lacking[0]}'; known: {', '.join(load())}.")


def of(network_type: str) -> TypeDriver:
    """That kind. Raises BadRequest: there is none."""
    found = load().get(network_type)
    if found is None:
        raise _provider_error(f"provider:network_type '{network_type}' is not supported")
    return found


def mtu(types: SegmentTypes, network_type: str) -> int:
    """The largest packet that a network of this kind carries; of one that there is none of, the physical one."""
    driver = load().get(network_type)
    return types.physical_mtu - (driver.overhead if driver else 0)


def claim(driver: TypeDriver, physical: str | None, number: int | None) -> str | None:
    """The key under which a segment is unique in the cloud; None where there may be many alike."""
    return None if driver.shared else f"{driver.name}:{physical or ''}:{'' if number is None else number}"


def validate(types: SegmentTypes, network_type: str, physical: str | None, number: int | None) -> None:
    """Checks what an administrator asked for. Raises BadRequest naming the provider attribute."""
    driver = of(network_type)
    if driver.physical and not physical:
        raise _provider_error(f"provider:physical_network required for {network_type} network")
    if driver.physical and physical and not driver.known(types, physical):
        raise _provider_error(f"provider:physical_network '{physical}' unknown for {network_type} network")
    if physical and not driver.physical:
        raise _provider_error(f"provider:physical_network specified for {network_type} network")
    if number is None:
        return
    if not driver.limit:
        raise _provider_error(f"provider:segmentation_id specified for {network_type} network")
    if not 1 <= number <= driver.limit:
        raise _provider_error(
            f"provider:segmentation_id out of range (1 through {driver.limit}) for {network_type} network")


def _provider_error(reason: str) -> BadRequest:
    return BadRequest(f"Invalid input for operation: {reason}.", type="InvalidInput")
