"""What of routing follows from where ports are, as flows: kept apart from the rest, and changed by what changes.

For each address of a port on a network that is routed here, whose MAC it is; and for networks that go by tunnels, from
which hosts routed frames are taken though they have no port of the network: those of the networks that a router joins
it with, and the router's gateway host. From them only frames with the router's MAC there count, so whoever is joined to
a network by a router says nothing else in it.
"""

import ipaddress
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

import msgspec
import structlog

from nacre.network.contract import PlacedPort
from nacre.node.ovs.flows import CLASSIFY, DELIVER, OUTSIDE, Flow, entering
from nacre.node.ovs.groups.elsewhere import MAC, Here
from nacre.node.ovs.groups.members import Places
from nacre.node.routing.pipeline import CARRY, HOP, LEAVE, NEIGHBOUR, of_network, word

log = structlog.get_logger()

_UNICAST = "dl_dst=00:00:00:00:00:00/01:00:00:00:00:00"
#: The hosts that have a port of a network, active or prepared.
Present = Callable[[str], Collection[str]]


class Near(msgspec.Struct, frozen=True, kw_only=True):
    """How a network's neighbours get what is routed. number: the network's here. wire: other hosts are reached by a
    wire of its own. outside: actions that send a frame, where the network is some router's outside ("": it is not)."""

    number: int
    inside: bool = False
    wire: bool = False
    outside: str = ""

    def __or__(self, other: "Near") -> "Near":
        return Near(number=self.number, inside=self.inside or other.inside, wire=self.wire or other.wire,
                    outside=self.outside or other.outside)


class Joint(msgspec.Struct, frozen=True):
    """From where a router's frames come into a network, with which MAC: hosts of these networks, and that one."""

    mac: str
    networks: frozenset[str]
    host: str = ""


class Joined(msgspec.Struct, frozen=True, kw_only=True):
    """Networks that are routed here, and of those that go by tunnels how they are joined with others."""

    host: str = ""
    near: Mapping[str, Near] = {}
    joints: Mapping[str, frozenset[Joint]] = {}


def near_flows(near: Near, port: PlacedPort, host: str) -> Iterator[Flow]:
    """Those of a port that is on a host."""
    if not port.host or not MAC.fullmatch(port.mac):
        return
    here = port.host == host
    for address in filter(_four, port.addresses):
        hop = f"{of_network(near.number)},{HOP}={word(address)}"
        if near.inside:
            yield Flow(NEIGHBOUR, 100, hop, f"mod_dl_dst:{port.mac},"
                       f"resubmit(,{CARRY if near.wire and not here else DELIVER})")
        if near.outside:
            yield Flow(LEAVE, 150, f"ip,{of_network(near.number)},nw_dst={address}",
                       f"mod_dl_dst:{port.mac}," + (f"resubmit(,{DELIVER})" if here else near.outside))


def _four(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).version == 4
    except ValueError:
        log.error("neighbour without a usable address", address=address[:64])
        return False


class Senders(msgspec.Struct, frozen=True):
    """Tunnels from which a network's routed frames are taken, by the MAC that they have. vxlan: the tunnel port;
    network: its number here and on the wire."""

    vxlan: int = 0
    network: tuple[int, int] = (0, 0)
    macs: Mapping[str, tuple[str, ...]] = {}


def joint_flows(senders: Senders) -> Iterator[Flow]:
    """Those of a network."""
    number, segment = senders.network
    for mac, addresses in senders.macs.items():
        for address in addresses:
            yield Flow(CLASSIFY, 105, f"ip,in_port={senders.vxlan},tun_id={segment:#x},vlan_tci=0x0000,"
                       f"tun_src={address},dl_src={mac},{_UNICAST}", entering(number, OUTSIDE, DELIVER))


class NearFlows:
    """Those that there are, to be kept equal to the places at the cost of what changes."""

    def __init__(self) -> None:
        self._joined, self._flows = Joined(), dict[str, Flow]()
        self._of: dict[tuple[str, str], tuple[Flow, ...]] = {}  # (network, port), or (network, ""): its joints
        self._senders: dict[str, Senders] = {}

    def __len__(self) -> int:
        return len(self._flows)

    def forget(self) -> None:
        """There are none."""
        self._joined, self._flows, self._of, self._senders = Joined(), {}, {}, {}

    def all(self) -> Sequence[Flow]:
        """Those that there should be now."""
        return list(self._flows.values())

    def lines(self, places: Places, touched: Collection[tuple[str, str]], joined: Joined,
              reach: tuple[Here, Present]) -> list[str]:
        """What has to change, as `plan.changes`; it counts as done. touched: (network, port) that may be other than
        when this was last asked for. reach: how other hosts are reached, and which have ports of a network."""
        former, self._joined = self._joined, joined
        other = {network for network in {*former.near, *joined.near}
                 if former.host != joined.host or former.near.get(network) != joined.near.get(network)}
        every = {place for place in touched if place[0] in joined.near}
        every |= {(network, port) for network in other for port in places.of(network)}
        every |= {place for place in self._of if place[1] and (place[0] in other or place in touched)}
        wanted = {place: self._near(place, places) for place in every}
        for network in {*former.joints, *joined.joints}:
            senders = _senders(network, joined, *reach)
            if senders != self._senders.get(network):
                self._senders[network], wanted[network, ""] = senders, tuple(joint_flows(senders))
        return self._replace(wanted)

    def _near(self, place: tuple[str, str], places: Places) -> tuple[Flow, ...]:
        near, port = self._joined.near.get(place[0]), places.of(place[0]).get(place[1])
        return () if near is None or port is None else tuple(near_flows(near, port, self._joined.host))

    def _replace(self, wanted: Mapping[tuple[str, str], tuple[Flow, ...]]) -> list[str]:
        gone, fresh = dict[str, Flow](), dict[str, Flow]()
        for place, flows in wanted.items():
            gone |= {flow.key: flow for flow in self._of.pop(place, ())}
            if flows:
                self._of[place] = flows
                fresh |= {flow.key: flow for flow in flows}
        lines = [f"delete_strict {key}" for key in gone if key not in fresh]
        lines += [f"add {flow.text}" for key, flow in fresh.items() if self._flows.get(key) != flow]
        for key in gone:
            self._flows.pop(key, None)
        self._flows |= fresh
        return lines


def _senders(network: str, joined: Joined, here: Here, present: Present) -> Senders:
    """Of a network whose frames come by tunnels: hosts that have a port of it are no senders of routed frames alone, as
    all that they say there is taken (elsewhere.py)."""
    if here.vxlan is None or network not in here.networks:
        return Senders()
    found = dict[str, tuple[str, ...]]()
    for joint in joined.joints.get(network, ()):
        hosts = {joint.host}.union(*map(present, joint.networks)).difference(present(network))
        found[joint.mac] = tuple(sorted({way for host in hosts if (way := here.away(host))}))
    return Senders(here.vxlan, here.networks[network], found)
