"""What others may ask of the network: ports for servers, and for nodes the wiring that makes them real."""

from typing import Annotated, Protocol

import msgspec
from msgspec import Meta

from nacre.base import bounds
from nacre.base.context import Context
from nacre.base.durable.processes import Guard
from nacre.base.rpc.target import Target

#: The most ports that a host names at once.
MOST_PORTS = 1000
PortIds = Annotated[tuple[bounds.Id, ...], Meta(max_length=MOST_PORTS)]
#: The most security groups, or networks, that are named at once, and of how many eras.
MOST_GROUPS, MOST_ERAS = 2000, 8
#: The most routers, or floating IPs, of which a host says at once how they are.
MOST_ROUTED = 1000
GroupIds = Annotated[tuple[bounds.Id, ...], Meta(max_length=MOST_GROUPS)]
NetworkIds = GroupIds
#: Group -> up to which change its members are known; or network -> its ports.
Numbers = Annotated[dict[bounds.Id, bounds.Count], Meta(max_length=MOST_GROUPS)]
#: What somebody has of groups, or of networks: era -> those numbers.
Versions = Annotated[dict[bounds.Short, Numbers], Meta(max_length=MOST_ERAS)]
Said = Annotated[str, Meta(max_length=255)]
#: Seconds for which a host waits for an answer; what it asked longer ago it has given up.
WAITS = 15.0
#: The type of an Unavailable: there are more questions than can be answered while those who asked them wait.
TOO_LATE = "TooLate"
TARGET = Target(topic="control", namespace="network", version="1.0")


class NetworkRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One wanted interface, in the order asked for: a network, or a port the user brought."""

    network_id: str | None = None
    port_id: str | None = None
    fixed_ip: str | None = None
    tag: str | None = None


#: Explicitly "auto": the project's only network, refused where there is none.
AUTO = NetworkRequest()


class PortsOrder(msgspec.Struct, frozen=True, kw_only=True):
    """The interfaces of one server. requests None: the project's only network if it has one; empty: none."""

    server_id: str
    context: Context
    requests: tuple[NetworkRequest, ...] | None
    security_groups: tuple[str, ...] = ()  # names or ids, for ports made here; empty: the project's default
    hostname: str = ""
    availability_zone: str = "nova"
    guard: Guard | None = None


class FixedIp(msgspec.Struct, frozen=True, kw_only=True):
    subnet_id: str
    ip_address: str


class AddressPair(msgspec.Struct, frozen=True, kw_only=True):
    ip_address: str
    mac_address: str | None = None


class SubnetFacts(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    cidr: str
    ip_version: int
    gateway_ip: str | None
    enable_dhcp: bool
    dhcp_ip: str | None = None  # the address of the network's one distributed DHCP port
    dns_nameservers: tuple[str, ...] = ()
    host_routes: tuple[tuple[str, str], ...] = ()  # (destination, nexthop)
    ipv6_address_mode: str | None = None
    ipv6_ra_mode: str | None = None


class NetworkFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A network and the segment that a host uses to reach it."""

    id: str
    name: str
    project_id: str
    mtu: int
    network_type: str  # flat, vlan, vxlan, local
    physical_network: str | None
    segmentation_id: int | None
    subnets: tuple[SubnetFacts, ...] = ()
    dhcp_mac: str | None = None
    dns_domain: str = ""


class PortFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A port, as the server's views and the host's wiring need it."""

    id: str
    name: str
    project_id: str
    network_id: str
    network_name: str
    device_id: str
    mac_address: str
    fixed_ips: tuple[FixedIp, ...]
    admin_state_up: bool = True
    port_security: bool = True
    security_groups: tuple[str, ...] = ()
    allowed_pairs: tuple[AddressPair, ...] = ()
    vnic_type: str = "normal"
    vif_type: str = "unbound"
    vif_details: dict[str, str | bool | int] = {}
    host: str = ""
    #: False: prepared at this host for a move. The host makes everything ready and takes nothing for the port yet, for
    #: it is still another host's (it is among the `remotes`).
    active: bool = True
    status: str = "DOWN"
    dhcp_options: tuple[tuple[str, str, int], ...] = ()  # (name, value, ip version)
    #: The user's own port: unbound, not deleted, when the server goes.
    preserve: bool = False
    tag: str | None = None
    position: int = 0
    qos: str | None = None  # the QoS policy that counts for it


class Rate(msgspec.Struct, frozen=True, kw_only=True):
    kbps: int
    burst_kbit: int | None = None  # None: what suits the rate


class QosFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a host enforces of a QoS policy, as it was when the database was at n."""

    id: str
    n: int
    to_guest: Rate | None = None
    from_guest: Rate | None = None
    dscp: int | None = None  # of what the guest sends


class SubportFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A port whose frames a trunk's parent sends and gets with a tag."""

    port_id: str
    network_id: str
    mac_address: str
    vlan: int


class TrunkFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a host carries for the parent port of a trunk."""

    id: str
    subports: tuple[SubportFacts, ...] = ()


class Named(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator names of a guest that is adopted, and is given to no project by a host's word. segments: those
    of the operator's own networks on which one may be made again ("flat:physnet1", "vlan:physnet1:100"). addresses: IPs
    and MACs that it keeps on networks that others share with its project."""

    segments: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()


class Plugged(msgspec.Struct, frozen=True, kw_only=True):
    """A server's ports on their host, in their order, and the networks as that host reaches them."""

    ports: tuple[PortFacts, ...] = ()
    networks: tuple[NetworkFacts, ...] = ()


class RuleFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A security group's rule with its remote side already worked out, but for a group: its members come beside it."""

    direction: str  # ingress, egress
    ethertype: str  # IPv4, IPv6
    protocol: str | None = None  # a name or a number
    port_min: int | None = None  # for ICMP the type
    port_max: int | None = None  # for ICMP the code
    remote: tuple[str, ...] | None = None  # CIDRs; None: anywhere; empty: nobody
    remote_group: str | None = None  # only its members (and `remote` is empty)


class GroupFacts(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    stateful: bool
    rules: tuple[RuleFacts, ...]


class GroupMembers(msgspec.Struct, frozen=True, kw_only=True):
    """Who is in a security group when the database is at (n, era). since None: all ports with an address, and their
    CIDRs; else those that are not what they were at that n; one without a CIDR is no member any more."""

    id: str
    n: int
    era: str
    since: int | None = None
    ports: dict[str, tuple[str, ...]] = {}


class PlacedPort(msgspec.Struct, frozen=True, kw_only=True):
    """A port of a network, wherever it is: what every host of the network has to know of it. host: of its active
    binding ("": it is on none, or gone). prepared: those with an inactive one, from which its frames are taken too."""

    mac: str
    addresses: tuple[str, ...] = ()
    host: str = ""
    prepared: tuple[str, ...] = ()


class NetworkPorts(msgspec.Struct, frozen=True, kw_only=True):
    """Where the ports of a network are when the database is at (n, era): the twin of `GroupMembers`."""

    id: str
    n: int
    era: str
    since: int | None = None
    ports: dict[str, PlacedPort] = {}


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """Another host: where frames for it go (IPv4), as the database says at (n, era)."""

    tunnel_ip: str
    n: int
    era: str


class Have(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody has: of the members of groups, of the ports of networks."""

    groups: Versions = {}
    networks: Versions = {}


class RouterLeg(msgspec.Struct, frozen=True, kw_only=True):
    """A router's interface: its port, and its addresses with the length of their networks ("10.0.0.1/24"). The same MAC
    on every host."""

    network_id: str
    port_id: str
    mac: str
    addresses: tuple[str, ...]


class GatewayFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A router's way out. addresses: alone, without the length of their networks. next_hops: the gateways of the
    external subnets. host: which translates, by the election of the number `term`; "": none."""

    network_id: str
    port_id: str
    mac: str
    addresses: tuple[str, ...]
    next_hops: tuple[str, ...] = ()
    snat: bool = True
    host: str = ""
    term: int = 0


class ForwardingFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Ports (first, last) of a floating IP's address, which has that MAC outside, and where they lead: to an address on
    the inner network."""

    floating_id: str
    address: str
    mac: str
    protocol: str  # tcp, udp, sctp
    outer: tuple[int, int]
    inner_network_id: str
    inner_address: str
    inner: tuple[int, int]


class RouterFacts(msgspec.Struct, frozen=True, kw_only=True):
    """routes: (destination, next hop)."""

    id: str
    up: bool = True
    interfaces: tuple[RouterLeg, ...] = ()
    routes: tuple[tuple[str, str], ...] = ()
    gateway: GatewayFacts | None = None
    forwardings: tuple[ForwardingFacts, ...] = ()


class FloatingFacts(msgspec.Struct, frozen=True, kw_only=True):
    """An address of an external network that stands for one of a port's, on the inner network: translated on the port's
    host."""

    id: str
    network_id: str
    address: str
    mac: str
    port_id: str
    inner_network_id: str
    fixed_ip: str
    router_id: str


class Routing(msgspec.Struct, frozen=True, kw_only=True):
    """All that a host routes, when the database is at (n, era): the routers that join networks which it has ports of,
    active or prepared, and those of which it is the gateway host (without legs and gateways that are switched off); the
    floating IPs of its own active ports. networks: of all their legs, and the external ones where it translates for
    them, as this host reaches them; where their ports are comes by `differences`, as of its own networks. peers: the
    gateway hosts."""

    n: int = 0
    era: str = ""
    routers: tuple[RouterFacts, ...] = ()
    floating: tuple[FloatingFacts, ...] = ()
    networks: tuple[NetworkFacts, ...] = ()
    peers: dict[str, Peer] = {}


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """What a host says of routing: it forwards between networks for these routers, translates for those by these terms,
    and these floating IPs work, or only their forwardings."""

    routers: Annotated[tuple[bounds.Id, ...], Meta(max_length=MOST_ROUTED)] = ()
    gateways: Annotated[dict[bounds.Id, bounds.Count], Meta(max_length=MOST_ROUTED)] = {}
    floating: Annotated[tuple[bounds.Id, ...], Meta(max_length=MOST_ROUTED)] = ()


class Differences(msgspec.Struct, frozen=True, kw_only=True):
    """What a host lacks of what many hosts keep. peers: of the hosts that `placed` names, those with a tunnel. rest: of
    what was asked for, what is to be asked for again, as an answer holds no more. routing: up to which change there is
    news of what the host routes, for which it asks; 0: none."""

    members: Annotated[tuple[GroupMembers, ...], Meta(max_length=MOST_GROUPS)] = ()
    placed: Annotated[tuple[NetworkPorts, ...], Meta(max_length=MOST_GROUPS)] = ()
    peers: dict[str, Peer] = {}
    rest: tuple[str, ...] = ()
    routing: int = 0


class RemotePort(msgspec.Struct, frozen=True, kw_only=True):
    """A port on another host, as hosts of the release before are told of it."""

    network_id: str
    mac_address: str
    ip_addresses: tuple[str, ...]
    tunnel_ip: str


class HostWiring(msgspec.Struct, frozen=True, kw_only=True):
    """What a host must have wired: everything, or what belongs to the ports asked for (`whole` says which)."""

    whole: bool
    n: int = 0  # how far the database was, and in which era (0, "": of a control process that does not say)
    era: str = ""
    ports: tuple[PortFacts, ...] = ()
    networks: tuple[NetworkFacts, ...] = ()
    groups: tuple[GroupFacts, ...] = ()
    # Of the groups that the rules of `groups` name, and of the networks that the host has ports of; those that are
    # large, and of which it has nothing, are left out: it asks for them by `differences`.
    members: tuple[GroupMembers, ...] = ()
    placed: tuple[NetworkPorts, ...] = ()
    peers: dict[str, Peer] = {}  # whole: the hosts that share a network with this one; else those that `placed` names
    # For a host of the release before, which has neither of these; tunnels: of those that share a network with it.
    remotes: tuple[RemotePort, ...] = ()
    tunnels: tuple[str, ...] = ()


#: What a host says that it takes: members and places by `Node.differ`.
DIFFERENCES = "differences"


class AgentReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a host's network agent says of itself, at start and periodically. No longer than this; whether it is right,
    `hosts/agents.py` says."""

    host: Said
    tunnel_ip: Said | None
    bridge_mappings: Annotated[dict[Said, Said], Meta(max_length=1000)]
    tunnel_types: Annotated[tuple[Said, ...], Meta(max_length=32)]
    datapath_type: Said = "netdev"
    bridge: Said = "br-int"  # the integration bridge
    agents: Annotated[tuple[Said, ...], Meta(max_length=32)] = ("Open vSwitch agent", "DHCP agent", "Metadata agent")
    takes: Annotated[tuple[Said, ...], Meta(max_length=32)] = ()  # nothing: it is of the release before


class Network(Protocol):
    """The network service. Every verb may be repeated without harm."""

    async def check(self, order: PortsOrder, count: int, least: int = 0) -> int:
        """For how many of `count` such servers would `plug` make the ports? Changes nothing. Raises BadRequest,
        NotFound, Conflict; QuotaExceeded: for fewer than `least` (0: than `count`)."""
        ...

    async def plug(self, order: PortsOrder, host: str) -> Plugged:
        """The server's ports, made if they are not there yet (FLOW B6; all or none), actively bound to the host
        (B8-B11); inactive bindings at other hosts stay. Raises BuildFailed where one does not bind, and what `check`
        raises."""
        ...

    async def adopt(self, order: PortsOrder, found: Plugged, host: str, named: Named = Named()) -> Plugged:
        """The ports of a guest that runs on the host and is not known here, as `plug` answers: made again as the host
        describes them, with networks and subnets that are gone, all under their ids. A security group that is gone is
        left out. Raises BadRequest: no such ports and networks can be; Conflict where an address, a port or a segment
        is another's now, or is not named and must be; QuotaExceeded; BuildFailed as `plug`."""
        ...

    async def bind(self, server_id: str, host: str, guard: Guard | None = None) -> Plugged:
        """The server's ports are prepared at one more host, inactive: for a move. Those that are bound at the host
        already stay as they are. All or none: raises BuildFailed where one does not bind."""
        ...

    async def activate(self, server_id: str, host: str, guard: Guard | None = None) -> None:
        """The server's ports are at this host from now on, and frames follow; their other bindings stay, inactive.
        Raises NotFound where a port is not bound at the host."""
        ...

    async def unbind(self, server_id: str, host: str, guard: Guard | None = None) -> None:
        """The server's ports have no binding at this host any more, active or not."""
        ...

    async def deallocate(self, server_id: str, guard: Guard | None = None) -> None:
        """Deletes the ports made for the server; the user's own are only unbound, everywhere. Their addresses are free
        at once: not before the guest is known to have ended."""
        ...

    async def ports_of(self, server_ids: tuple[str, ...]) -> dict[str, tuple[PortFacts, ...]]:
        """The ports of each of these servers, in the order asked for."""
        ...

    async def group_names(self, group_ids: tuple[str, ...]) -> dict[str, str]:
        """The names of these security groups, those that are gone left out."""
        ...

    async def wiring(self, host: bounds.Name, port_ids: PortIds = (), have: Versions | None = None,
                     known: Have | None = None) -> HostWiring:
        """For a host's agent: what to wire. No ports named: everything of the host. known: what it has, of which only
        what changed since is said. A host of the release before says `have`, or nothing; Forbidden to others."""
        ...

    async def differences(self, host: bounds.Name, groups: GroupIds, networks: NetworkIds, known: Have) -> Differences:
        """As in `wiring`: the members of those of these groups that rules on the host name, the ports of those of these
        networks that it has ports of."""
        ...

    async def members(self, host: bounds.Name, groups: GroupIds, have: Versions) -> tuple[GroupMembers, ...]:
        """As `differences`, for a host of the release before; Forbidden to others."""
        ...

    async def wired(self, host: bounds.Name, port_ids: PortIds, up: bool) -> None:
        """From a host's agent: these ports work at the host, or do not. An active binding's is the port's status."""
        ...

    async def routing(self, host: bounds.Name) -> Routing:
        """For a host's agent: all that it routes."""
        ...

    async def routed(self, host: bounds.Name, served: Served, up: bool) -> None:
        """From a host's agent: that works at the host, or does not. It is believed of what is its own to serve."""
        ...

    async def agent_report(self, report: AgentReport) -> None:
        """From a host's agent, at start and periodically. Raises BadRequest, naming what is wrong with it; then nothing
        is changed."""
        ...
