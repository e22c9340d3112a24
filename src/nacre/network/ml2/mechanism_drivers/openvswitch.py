"""Binds ports on hosts whose Open vSwitch agent is alive and can reach one of the network's segments."""

from collections.abc import Sequence

from nacre.network.ml2.driver_api import Bound, HostAgent, PortBinding, Segment, Segments

VNIC_TYPES = ("normal",)


class OpenVSwitch:
    """The driver of the hosts' own agent (node/ovs)."""

    name = "openvswitch"

    def bind(self, port: PortBinding, segments: Sequence[Segment], dynamic: Segments) -> Bound | None:
        agent = port.agent
        if agent is None or not agent.alive or port.vnic_type not in VNIC_TYPES:
            return None
        segment = next((s for s in segments if reaches(agent, s)), None)
        if segment is None:
            return None
        return Bound(segment=segment, vif_type="ovs", vif_details={
            "port_filter": True, "connectivity": "l2", "bridge_name": agent.bridge,
            "datapath_type": agent.datapath_type, "ovs_hybrid_plug": False, "bound_driver": self.name})


def reaches(agent: HostAgent, segment: Segment) -> bool:
    """Whether the host has what the segment needs: a tunnel of its type, or a bridge to its physical network."""
    if segment.physical_network:
        return segment.physical_network in agent.bridge_mappings
    return segment.network_type == "local" or segment.network_type in agent.tunnel_types
