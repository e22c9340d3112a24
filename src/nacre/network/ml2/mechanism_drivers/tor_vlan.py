"""A top-of-rack switch that carries VXLAN itself and hands each host a VLAN: the model of a vendor's driver.

It binds the network's VXLAN segment at its level, takes a VLAN of the rack's physical network for the network and
leaves the host's side to the drivers below it. The switch itself would be told by the vendor's own code.
"""

from collections.abc import Mapping, Sequence

from nacre.network.ml2.driver_api import Continue, PortBinding, Segment, Segments


class TorVlan:
    """racks: host -> physical network of its top-of-rack switch."""

    name = "tor_vlan"

    def __init__(self, racks: Mapping[str, str] | None = None):
        self._racks = dict(racks or {})

    def bind(self, port: PortBinding, segments: Sequence[Segment], dynamic: Segments) -> Continue | None:
        physical = self._racks.get(port.host)
        top = next((s for s in segments if s.network_type == "vxlan"), None)
        if physical is None or top is None:
            return None
        below = dynamic.allocate(port.network_id, "vlan", physical)
        return Continue(segment=top, below=(below,))
