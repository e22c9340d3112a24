"""What a mechanism driver sees and may answer.

A driver is asked, port by port, whether it can bind one of the segments offered to it. It answers with one of
three values and changes nothing: `Bound` (finished), `Continue` (bound at this level; go on one level deeper with
these segments), `None` (not mine).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import msgspec


class Segment(msgspec.Struct, frozen=True, kw_only=True):
    """One piece of a network. `dynamic`: allocated for a host during binding, not by the network's creation."""

    id: str
    network_type: str
    physical_network: str | None = None
    segmentation_id: int | None = None
    dynamic: bool = False


class HostAgent(msgspec.Struct, frozen=True, kw_only=True):
    """A host's network agent as it last reported. tunnelled: other hosts know where its tunnels end."""

    host: str
    alive: bool
    bridge_mappings: Mapping[str, str]
    tunnel_types: tuple[str, ...] = ()
    datapath_type: str = "system"
    bridge: str = "br-int"
    tunnelled: bool = False


class PortBinding(msgspec.Struct, frozen=True, kw_only=True):
    """The port to bind and where. `agent` is None where the host has never reported."""

    port_id: str
    network_id: str
    host: str
    vnic_type: str = "normal"
    profile: Mapping[str, object] = {}
    agent: HostAgent | None = None


class Bound(msgspec.Struct, frozen=True, kw_only=True):
    """The port is bound to `segment`; the host plugs it as vif_type and vif_details say."""

    segment: Segment
    vif_type: str
    vif_details: Mapping[str, str | bool | int] = {}


class Continue(msgspec.Struct, frozen=True, kw_only=True):
    """Bound to `segment` at this level; the next level chooses among `below`."""

    segment: Segment
    below: tuple[Segment, ...]


Outcome = Bound | Continue | None


class Segments(Protocol):
    """Dynamic segments, for drivers that hand one down. `release` is only for one that nobody came to use."""

    def allocate(self, network_id: str, network_type: str, physical_network: str) -> Segment: ...
    def release(self, segment: Segment) -> None: ...


class MechanismDriver(Protocol):
    """A way to connect ports. Stateless; named in the configuration, asked in its order."""

    name: str

    def bind(self, port: PortBinding, segments: Sequence[Segment], dynamic: Segments) -> Outcome:
        """Try to bind the port to one of the segments. An exception counts as a refusal."""
        ...


#: Makes a driver; outside code offers one in the entry-point group `nacre.mechanism_drivers`.
DriverFactory = Callable[[], MechanismDriver]
