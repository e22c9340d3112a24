"""The parts of a host's network side, joined: what `cloud.py` asks for in one line."""

from collections.abc import Mapping
from pathlib import Path

import msgspec

from nacre.base.clock import Clock
from nacre.network.contract import Network
from nacre.node.dhcp import Dhcp
from nacre.node.dhcp_config import DhcpSettings
from nacre.node.metadata import Facts, Metadata
from nacre.node.netns import Namespaces
from nacre.node.ovs.agent import OvsAgent
from nacre.node.ovs.bridge import Bridge, BridgeSettings
from nacre.node.ovs.local import LocalNetworks


class OvsHost(msgspec.Struct, frozen=True, kw_only=True):
    """One host's settings. folder: for DHCP's files; the rest as in `BridgeSettings`."""

    host: str
    folder: Path
    tunnel_ip: str | None = None
    bridge_mappings: Mapping[str, str] = {}
    bridge: str = "br-int"
    datapath: str = "auto"
    rundir: Path = Path("/run/openvswitch")


def ovs_wiring(own: OvsHost, network: Network, facts: Facts, clock: Clock | None = None) -> OvsAgent:
    """The agent of a host. facts: a server's id -> its GuestFacts (the conductor's `guest_facts` for this host)."""
    bridge = Bridge(BridgeSettings(name=own.bridge, rundir=own.rundir, tunnel_ip=own.tunnel_ip,
                                   mappings=own.bridge_mappings, datapath=own.datapath))
    places = LocalNetworks(Namespaces(), Dhcp(DhcpSettings(directory=own.folder / "dhcp")),
                           Metadata(facts, clock=clock))
    return OvsAgent(own.host, network, bridge, places, clock=clock)
