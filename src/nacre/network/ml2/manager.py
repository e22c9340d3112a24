"""The ordered registry of mechanism drivers."""

from collections.abc import Iterable
from importlib.metadata import entry_points

from nacre.base.errors import NacreError
from nacre.network.ml2.driver_api import DriverFactory, MechanismDriver
from nacre.network.ml2.mechanism_drivers.openvswitch import OpenVSwitch
from nacre.network.ml2.mechanism_drivers.tor_vlan import TorVlan

MECHANISMS: dict[str, DriverFactory] = {
    "openvswitch": OpenVSwitch,
    "tor_vlan": TorVlan,
}

#: Where installed packages offer drivers of their own.
GROUP = "nacre.mechanism_drivers"


def load(names: Iterable[str]) -> tuple[MechanismDriver, ...]:
    """The drivers of these names, in this order. Raises NacreError naming the one that nobody offers."""
    outside = {point.name: point for point in entry_points(group=GROUP)}
    drivers = []
    for name in names:
        factory = MECHANISMS.get(name) or (outside[name].load() if name in outside else None)
        if factory is None:
            raise NacreError(f"network.mechanisms: there is no mechanism driver '{name}'; known: "
                             f"{', '.join([*MECHANISMS, *outside])}.")
        drivers.append(factory())
    return tuple(drivers)
