"""Routing, floating IPs, SNAT and port forwardings by flows of real bridges: namespaces are guests and the outside. A
bridge is a host; they reach one another and the outside by bridges that hand on to all."""

import asyncio
import shutil
import socket
import struct
import uuid
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from nacre.base.shell import run
from nacre.network.contract import (
    FixedIp,
    FloatingFacts,
    ForwardingFacts,
    GatewayFacts,
    HostWiring,
    NetworkFacts,
    NetworkPorts,
    PlacedPort,
    PortFacts,
    RouterFacts,
    RouterLeg,
)
from nacre.node.netns import inside
from nacre.node.ovs.bridge import probe_datapath
from nacre.node.ovs.flows import COOKIE, Local
from nacre.node.ovs.groups.elsewhere import Here
from nacre.node.ovs.groups.members import Places
from nacre.node.ovs.plan import beside, changes
from nacre.node.ovs.service import ensure_services
from nacre.node.ovs.switching import flow_table
from nacre.node.routing.facts import Surroundings
from nacre.node.routing.near import NearFlows
from nacre.node.routing.plan import routing_plan
from tests.host.wiring_lab import able, allow, group

pytestmark = [pytest.mark.host, pytest.mark.skipif(not able(), reason="needs root, Open vSwitch")]

NETWORKS = {n.id: n for n in (
    *(NetworkFacts(id=name, name=name, project_id="p", mtu=1450, network_type="vlan", physical_network="fabric",
                   segmentation_id=70 + number) for name, number in (("a", 1), ("b", 2))),
    NetworkFacts(id="out", name="out", project_id="p", mtu=1500, network_type="flat", physical_network="public",
                 segmentation_id=None))}
LEGS = (RouterLeg(network_id="a", port_id="leg-a", mac="fa:16:3e:aa:00:01", addresses=("10.1.0.1/24",)),
        RouterLeg(network_id="b", port_id="leg-b", mac="fa:16:3e:aa:00:02", addresses=("10.2.0.1/24",)))
OUT, OUT_MAC, UPLINKS, HELPER = "203.0.113.1", "fa:16:3e:ff:00:01", {"public": 4, "fabric": 5}, 31
#: name -> (network, address, MAC, OpenFlow port)
GUESTS = {"a1": ("a", "10.1.0.11", "fa:16:3e:01:00:11", 11), "a2": ("a", "10.1.0.12", "fa:16:3e:01:00:12", 12),
          "b2": ("b", "10.2.0.12", "fa:16:3e:02:00:12", 13), "b3": ("b", "10.2.0.13", "fa:16:3e:02:00:13", 14)}
ROUTER = RouterFacts(
    id="r", interfaces=LEGS, routes=(("10.9.0.0/24", "10.2.0.13"),), gateway=GatewayFacts(
        network_id="out", port_id="gw", mac="fa:16:3e:ee:00:10", addresses=("203.0.113.10",), next_hops=(OUT,),
        host="g"),
    forwardings=(ForwardingFacts(floating_id="p", address="203.0.113.12", mac="fa:16:3e:ee:00:12", protocol="tcp",
                                 outer=(2222, 2222), inner_network_id="b",
                                 inner_address="10.2.0.12", inner=(22, 22)),))
FLOATING = (FloatingFacts(id="f", network_id="out", address="203.0.113.11", mac="fa:16:3e:ee:00:11", port_id="a1",
                          inner_network_id="a", fixed_ip="10.1.0.11", router_id="r"),
            FloatingFacts(id="g", network_id="out", address="203.0.113.13", mac="fa:16:3e:ee:00:13", port_id="a2",
                          inner_network_id="a", fixed_ip="10.1.0.12", router_id="r"))
GROUP = group("open", allow("icmp"), allow("tcp", 80, 80), allow("tcp", 22, 22))


def listen(port):
    """Takes one connection, says hello, and answers from where it came."""
    with socket.create_server(("0.0.0.0", port)) as server:
        server.settimeout(8)
        connection, peer = server.accept()
        with connection:
            connection.sendall(b"hello")
        return peer[0]


def talk(address, port, patience=6):
    """What is said there; empty: nobody answers."""
    try:
        with socket.create_connection((address, port), patience) as connection:
            return connection.recv(99)
    except OSError:
        return b""


def ping_from(source, target):
    """One echo request, of whomever."""
    echo = struct.pack("!BBHHH", 8, 0, 0xF7FE, 1, 0)
    packet = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(echo), 1, 0, 64, 1, 0) + socket.inet_aton(source)
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as said:
        said.sendto(packet + socket.inet_aton(target) + echo, (target, 0))


class Routed:
    """Hosts with four guests, the outside, and a namespace that makes ICMP errors for guests of network a on the first
    host. hosts: name -> its guests; g is the gateway host."""

    def __init__(self, hosts):
        self.hosts, self.short, self.made = hosts, uuid.uuid4().hex[:5], []
        number = int(self.short, 16) % 0x700 * 16  # zones of nobody else's on this machine
        self.router, self.floating, self.hops = ROUTER, FLOATING, {"out": {OUT: OUT_MAC}}
        self.zones = {name: number + at for at, name in enumerate(("f", "g", "r", *GUESTS), start=1)}

    def ns(self, name):
        return f"rt-{self.short}-{name}"

    def bridge(self, name):
        return f"br{self.short}{name}"

    async def x(self, name, *args, ok=(0,)):
        return (await run(["ip", "netns", "exec", self.ns(name), *args], ok=ok)).decode()

    async def link(self, name, place, mac, address):
        """A namespace with a link to a bridge. place: its name, and which port."""
        outer = f"r{self.short}{name}"
        await run(["ip", "netns", "add", self.ns(name)])
        self.made.append((name, outer))
        await run(["ip", "link", "add", outer, "type", "veth", "peer", "name", "eth0", "netns", self.ns(name)])
        await self.x(name, "sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1")
        await self.x(name, "ip", "link", "set", "eth0", "address", mac)
        await self.x(name, "ethtool", "-K", "eth0", "tx", "off")
        await run(["ip", "link", "set", outer, "up"])
        for device in ("lo", "eth0"):
            await self.x(name, "ip", "link", "set", device, "up")
        await self.x(name, "ip", "addr", "add", f"{address}/24", "dev", "eth0")
        await self.attach(outer, *place)

    async def attach(self, link, bridge, port):
        await run(["ovs-vsctl", "add-port", self.bridge(bridge), link, "--", "set", "Interface", link,
                   f"ofport_request={port}"])

    async def up(self):
        await ensure_services()
        self.datapath = await probe_datapath(Path("/run/openvswitch"), f"probe{self.short}")
        for name in (*self.hosts, *UPLINKS):
            bridge = self.bridge(name)
            await run(["ovs-vsctl", "add-br", bridge, "--", "set", "bridge", bridge, f"datapath_type={self.datapath}",
                       "fail-mode=secure", "protocols=OpenFlow14"])
        for number, (network, port) in enumerate(UPLINKS.items()):
            await self.flows(network, ["add priority=0,actions=NORMAL"])
            for at, host in enumerate(self.hosts):
                ends = f"u{self.short}{number}{at}", f"v{self.short}{number}{at}"
                self.made.append((None, ends[0]))
                await run(["ip", "link", "add", ends[0], "type", "veth", "peer", "name", ends[1]])
                for end in ends:
                    await run(["ip", "link", "set", end, "up"])
                await self.attach(ends[0], host, port)
                await self.attach(ends[1], network, at + 1)
        for host, guests in self.hosts.items():
            for name in guests:
                network, address, mac, port = GUESTS[name]
                await self.link(name, (host, port), mac, address)
                await self.x(name, "ip", "route", "add", "default", "via", f"10.{'ab'.index(network) + 1}.0.1")
        await self.x("b3", "ip", "addr", "add", "10.9.0.5/32", "dev", "lo")  # behind it, by the route
        await self.link("out", ("public", 9), OUT_MAC, OUT)
        await self.x("out", "sysctl", "-qw", "net.ipv4.ip_forward=1")
        await self.link("err", (next(iter(self.hosts)), HELPER), LEGS[0].mac, "10.1.0.1")
        await self.x("err", "sysctl", "-qw", "net.ipv4.ip_forward=1")
        await self.x("err", "ip", "link", "add", "there", "type", "veth", "peer", "name", "nowhere")
        await self.x("err", "ip", "link", "set", "there", "up")
        await self.x("err", "ip", "route", "add", "default", "dev", "there")
        for host in self.hosts:
            await self.program(host)

    async def program(self, host):
        ports = {name: PortFacts(
            id=name, name="", project_id="p", network_id=network, network_name=network, device_id=name,
            mac_address=mac, security_groups=("open",), fixed_ips=(FixedIp(subnet_id=network, ip_address=address),),
            port_security=name != "b3")  # which sends for others, too
            for name, (network, address, mac, _) in GUESTS.items() if name in self.hosts[host]}
        local = Local(ofports={name: GUESTS[name][3] for name in ports}, zones=self.zones,
                      numbers={"a": 1, "b": 2, "out": 3}, uplinks=UPLINKS)
        here = Surroundings(host=host, numbers={"r": 5}, zones=self.zones, hops=self.hops,
                            helpers={"leg-a": HELPER} if host == next(iter(self.hosts)) else {})
        switched = flow_table(HostWiring(whole=True, ports=tuple(ports.values()), groups=(GROUP,), networks=tuple(
            NETWORKS[name] for name in "ab" if any(port.network_id == name for port in ports.values()))), local)
        plan, near = routing_plan((self.router,), self.floating, NETWORKS, local, here), NearFlows()
        near.lines(self.places(), (), plan.joined, (Here(), lambda _: ()))
        flows = {flow.key: flow for flow in (*beside(switched, plan.flows), *near.all())}
        await run(["ovs-ofctl", "-O", "OpenFlow14", "del-flows", self.bridge(host), f"cookie={COOKIE:#x}/-1"])
        await self.flows(host, changes((), list(flows.values())))

    def places(self):
        """Where all guests are."""
        found = Places()
        found.apply([NetworkPorts(id=network, n=1, era="e", ports={
            name: PlacedPort(mac=mac, addresses=(address,), host=host)
            for host, guests in self.hosts.items() for name in guests
            for where, address, mac, _ in (GUESTS[name],) if where == network}) for network in "ab"])
        return found

    async def flows(self, bridge, lines):
        await run(["ovs-ofctl", "-O", "OpenFlow14", "--bundle", "add-flows", self.bridge(bridge), "-"],
                  stdin="\n".join(line.removeprefix("add ") for line in lines).encode() + b"\n")

    async def down(self):
        for zone in self.zones.values():
            await run(["ovs-ofctl", "-O", "OpenFlow14", "ct-flush-zone", self.bridge("g"), str(zone)], ok=(0, 1))
        for name in (*self.hosts, *UPLINKS):
            await run(["ovs-vsctl", "--if-exists", "del-br", self.bridge(name)])
        for name, outer in self.made:
            await run(["ip", "link", "del", outer], ok=(0, 1))
            if name:
                await run(["ip", "netns", "del", self.ns(name)], ok=(0, 1))

    async def ping(self, name, address, *more):
        """What the program says."""
        return await self.x(name, "ping", "-c", "1", "-W", "2", *more, address, ok=(0, 1))

    async def pings(self, name, address, *more):
        return " 0% packet loss" in await self.ping(name, address, *more)

    async def shut(self, client, address, port):
        """Nobody answers there."""
        return await inside(self.ns(client), lambda: talk(address, port, 1)) == b""

    async def seen(self, client, address, port, server, own, *, deaf=False):
        """From whom the server, who listens on its port `own`, gets a connection of the client to address and port.
        deaf: it does not hear the first packet."""
        listening = asyncio.create_task(inside(self.ns(server), lambda: listen(own)))
        await asyncio.sleep(0.3)
        if deaf:
            await self.x(server, "nft", "add table ip deaf; add chain ip deaf in { type filter hook input priority 0; "
                         "policy drop; }")
        talking = asyncio.create_task(inside(self.ns(client), lambda: talk(address, port)))
        if deaf:
            await asyncio.sleep(0.5)
            await self.x(server, "nft", "delete table ip deaf")
        said, peer = await asyncio.gather(talking, listening)
        return peer if said == b"hello" else f"{peer} and no answer"

    async def macs(self, network):
        """Those that the switch of a network has learnt."""
        return await run(["ovs-appctl", "fdb/show", self.bridge(network)])


@asynccontextmanager
async def routed(hosts):
    place = Routed(hosts)
    try:
        await place.up()
        yield place
    finally:
        await place.down()


@pytest.mark.parametrize("hosts", [{"g": tuple(GUESTS)}, {"h": ("a1", "a2"), "g": ("b2", "b3")},
                                   {"h": ("a1", "b2"), "g": (), "i": ("a2", "b3")}], ids=("one", "two", "three"))
async def test_frames_between_networks_and_to_the_outside_and_back(hosts):
    assert shutil.which("ping")
    async with routed(hosts) as place:
        # Between networks, and to the router itself.
        said = await place.ping("a1", "10.2.0.12")
        assert "ttl=63" in said, said
        assert await place.pings("b2", "10.1.0.12") and await place.pings("a1", "10.2.0.12", "-s", "4000")
        for address in ("10.1.0.1", "10.2.0.1"):
            assert await place.pings("a1", address), address
        assert await place.seen("a2", "10.2.0.12", 80, "b2", 80) == "10.1.0.12"
        assert await place.pings("a1", "10.9.0.5")  # by a guest of the other network
        assert not await place.pings("a1", "10.2.0.77")  # nobody
        # What has no hop left: the helper answers for the router where there is one.
        said = await place.ping("a1", "10.2.0.12", "-t", "1")
        assert "From 10.1.0.1" in said and "Time to live exceeded" in said, said
        said = await place.ping("b2", "10.1.0.12", "-t", "1")
        assert "100% packet loss" in said and "exceeded" not in said, said
        # A floating IP, in and out.
        assert await place.pings("out", "203.0.113.11") and await place.pings("a1", OUT)
        assert await place.pings("out", "203.0.113.11", "-s", "4000")
        assert await place.seen("out", "203.0.113.11", 80, "a1", 80) == OUT
        assert await place.seen("a1", OUT, 80, "out", 80) == "203.0.113.11"
        assert await place.shut("out", "203.0.113.11", 81)  # the guest's groups hold
        # The same address for all the others, and the gateway's own answer.
        assert await place.pings("b2", OUT) and await place.pings("out", "203.0.113.10")
        assert await place.seen("b2", OUT, 80, "out", 80) == "203.0.113.10"
        assert await place.shut("out", "203.0.113.10", 80)
        # A port of an address leads inside.
        assert await place.seen("out", "203.0.113.12", 2222, "b2", 22) == OUT
        assert await place.shut("out", "203.0.113.12", 2223)
        # By the outer address of a guest of the same host: translated twice.
        assert await place.seen("a2", "203.0.113.11", 80, "a1", 80) == "203.0.113.13"
        assert await place.seen("b2", "203.0.113.11", 80, "a1", 80) == "203.0.113.10"

        # Switches find each MAC in one place: a router's own is on every host, and on no wire.
        assert not [leg for leg in LEGS if leg.mac.encode() in await place.macs("fabric")]
        assert ROUTER.gateway.mac.encode() in await place.macs("public")


@pytest.mark.parametrize("hosts", [{"g": tuple(GUESTS)}, {"h": ("a1", "b2"), "g": ("a2", "b3")}], ids=("one", "two"))
async def test_a_server_that_does_not_hear_the_first_packet_hears_the_second(hosts):
    async with routed(hosts) as place:
        for client, address, port, server, own, peer in (
                ("out", "203.0.113.11", 80, "a1", 80, OUT), ("a1", OUT, 80, "out", 80, "203.0.113.11"),
                ("b2", OUT, 80, "out", 80, "203.0.113.10"), ("out", "203.0.113.12", 2222, "b2", 22, OUT),
                ("a2", "203.0.113.11", 80, "a1", 80, "203.0.113.13")):
            assert await place.seen(client, address, port, server, own, deaf=True) == peer, (client, address)


async def test_nobody_outside_speaks_with_an_inner_address_and_nobody_inside_reaches_a_links_own_there():
    async with routed({"g": tuple(GUESTS)}) as place:
        async def heard(name, *frames):
            listening = asyncio.create_task(place.x(
                name, "timeout", "5", "tcpdump", "-nni", "eth0", "icmp", ok=(0, 124)))
            await asyncio.sleep(1)
            for client, source, target in frames:
                await inside(place.ns(client), partial(ping_from, source, target))
            return await listening
        said = await heard("a1", *(("out", source, "203.0.113.11") for source in (
            "10.1.0.12", "10.2.0.12", "198.51.100.9")))
        assert "IP 198.51.100.9 >" in said and "IP 10." not in said.replace("IP 10.1.0.11 >", ""), said
        said = await heard("out", *((guest, GUESTS[guest][1], target) for guest in ("a1", "b2") for target in (
            "169.254.169.254", "169.254.170.2", "127.0.0.1", "198.51.100.9")))
        assert "IP 203.0.113.10 > 198.51.100.9" in said and "IP 203.0.113.11 > 198.51.100.9" in said, said
        assert "169.254." not in said and "127.0." not in said, said
        # The router's own address ends there, and is not routed until no hop is left.
        said = (await run(["ovs-appctl", "ofproto/trace", place.bridge("g"), "in_port=11,ip,"
                           f"dl_src={GUESTS['a1'][2]},dl_dst={LEGS[0].mac},nw_src=10.1.0.11,nw_dst=10.1.0.1,"
                           "nw_ttl=64"])).decode()
        assert "nw_dst=10.1.0.1, priority" in said and "recursed" not in said and len(said) < 5000, said


async def test_who_sends_for_others_is_heard_only_for_those_of_its_own_network():
    """b3 has no port security: what it says with an address of network a is not a's floating IP's, nor a's."""
    async with routed({"g": tuple(GUESTS)}) as place:
        assert await place.pings("b3", OUT) and await place.pings("b3", "10.1.0.12")
        await place.x("b3", "ip", "addr", "add", "10.1.0.11/32", "dev", "lo")
        heard = asyncio.create_task(place.x("out", "timeout", "6", "tcpdump", "-nni", "eth0", "icmp", ok=(0, 124)))
        inner = asyncio.create_task(place.x("a2", "timeout", "6", "tcpdump", "-nni", "eth0", "icmp", ok=(0, 124)))
        await asyncio.sleep(1)
        for target in (OUT, "10.1.0.12"):
            await place.ping("b3", target, "-I", "10.1.0.11", "-W", "1")
            await place.ping("b3", target, "-I", "10.2.0.13")
        assert "IP 203.0.113.10 >" in (said := await heard) and "IP 203.0.113.11 >" not in said, said
        assert "IP 10.2.0.13 >" in (said := await inner) and "IP 10.1.0.11 >" not in said, said
