"""A host's agent that is told to route: real bridges, guests and an outside that is asked who it is."""

import asyncio
import socket

import msgspec
import pytest

from nacre.base.shell import CommandFailed, run
from nacre.network.contract import (
    Differences,
    FloatingFacts,
    GatewayFacts,
    NetworkPorts,
    PlacedPort,
    RouterFacts,
    RouterLeg,
    Routing,
    Served,
)
from nacre.node.netns import inside
from tests.host.test_wiring_provider import provider
from tests.host.wiring_lab import NetworkStub, able, allow, eventually, group, network, port

pytestmark = [pytest.mark.host, pytest.mark.skipif(not able(), reason="needs root, Open vSwitch, dnsmasq, udhcpc")]

OUT, GATEWAY, FLOATING = "203.0.113.1", "203.0.113.10", "203.0.113.11"
ONE, TWO = network(1), network(2)
EXTERNAL = network(3, id="ext", network_type="flat", physical_network="phys", segmentation_id=None, subnets=(),
                   dhcp_mac=None)
PORTS = port(11, ONE), port(12, TWO)
ROUTER = RouterFacts(id="r", interfaces=tuple(
    RouterLeg(network_id=net.id, port_id=f"leg{number}", mac=f"fa:16:3e:aa:00:0{number}",
              addresses=(f"10.77.{number}.1/24",)) for number, net in ((1, ONE), (2, TWO))),
    gateway=GatewayFacts(network_id="ext", port_id="gw", mac="fa:16:3e:ee:00:10", addresses=(GATEWAY,),
                         next_hops=(OUT,), host="lab", term=3))
FIRST = FloatingFacts(id="f", network_id="ext", address=FLOATING, mac="fa:16:3e:ee:00:11", port_id=PORTS[0].id,
                      inner_network_id=ONE.id, fixed_ip="10.77.1.11", router_id="r")
SECOND = msgspec.structs.replace(FIRST, port_id=PORTS[1].id, inner_network_id=TWO.id, fixed_ip="10.77.2.12")
ROUTING = Routing(n=5, era="e", routers=(ROUTER,), floating=(FIRST,), networks=(ONE, TWO, EXTERNAL))


def stub():
    return NetworkStub([ONE, TWO], PORTS, [group("open", allow())], placed=tuple(
        NetworkPorts(id=net.id, n=1, era="e", ports={each.id: PlacedPort(
            mac=each.mac_address, host="lab", addresses=tuple(f.ip_address for f in each.fixed_ips))})
        for net, each in zip((ONE, TWO), PORTS, strict=True)))


async def told(place, routing):
    """The host hears that, and has it in its flows."""
    place.stub.routes = routing
    await place.agent.differ(Differences(routing=routing.n))
    assert await eventually(lambda: asyncio.sleep(0, place.agent.routers.routing == routing))
    async with place.agent._turn:  # the round's end
        pass


async def udp_to(outside, guest, number):
    """Whether the guest hears what is sent from one and the same port to the floating IP, each time another word."""
    def listen():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as heard:
            heard.bind(("0.0.0.0", 4000))
            heard.settimeout(3)
            try:
                word, peer = heard.recvfrom(99)
                heard.sendto(b"yes" + word, peer)
            except TimeoutError:
                return b""
            return word

    def say():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as said:
            said.bind((OUT, 5000))
            said.settimeout(2)
            said.sendto(b"%d" % number, (FLOATING, 4000))
            try:
                return said.recv(99)
            except TimeoutError:
                return b""
    listening = asyncio.create_task(inside(guest.ns, listen))
    await asyncio.sleep(0.3)
    answer = await inside(outside.ns, say)
    return (await listening, answer) == (b"%d" % number, b"yes%d" % number)


def bound(address, port):
    heard = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    heard.bind((address, port))
    heard.settimeout(3)
    return heard


class Connection:
    """Of a guest to the outside, by an address that many share: what comes back finds it only while it is known."""

    def __init__(self, mine, theirs):
        self.mine, self.theirs = mine, theirs

    @classmethod
    async def made(cls, guest, outside):
        made = cls(await inside(guest.ns, lambda: bound("0.0.0.0", 4001)),
                   await inside(outside.ns, lambda: bound(OUT, 6000)))
        made.mine.sendto(b"first", (OUT, 6000))
        said, made.peer = await asyncio.to_thread(made.theirs.recvfrom, 99)
        assert said == b"first" and made.peer[0] == GATEWAY and await made.goes_on()
        return made

    async def goes_on(self):
        """Whether the guest hears what the outside says on it."""
        self.theirs.sendto(b"more", self.peer)
        try:
            return await asyncio.to_thread(self.mine.recv, 99) == b"more"
        except TimeoutError:
            return False

    def close(self):
        self.mine.close()
        self.theirs.close()


async def test_a_host_routes_what_it_is_told_and_says_so():
    network_service = stub()
    async with provider(network_service) as (place, outside):
        await outside.x("ip", "addr", "add", f"{OUT}/24", "dev", "eth0")
        one, two = [await place.guest(each) for each in PORTS]
        for guest, number in ((one, 1), (two, 2)):
            await guest.x("ip", "route", "add", "default", "via", f"10.77.{number}.1")
        await place.wire(one, two)
        assert not await one.pings(two.ip) and "L3 agent" in place.agent.report().agents
        network_service.away, network_service.deaf = 1, "routed"  # what cannot be told harms no round
        await told(place, ROUTING)
        assert await eventually(lambda: one.pings(two.ip))
        assert await eventually(lambda: one.pings(OUT))  # its next hop was asked for, and answered
        assert await two.pings(OUT)
        assert place.agent.routers.hops.known() == {"ext": {OUT: outside.mac}}
        await outside.x("ping", "-c1", "-W2", FLOATING)
        assert await udp_to(outside, one, 1)
        assert f"{FLOATING} dev eth0 lladdr {FIRST.mac}" in await outside.x("ip", "neigh", "show", FLOATING)
        await place.wire(one, two)
        assert await eventually(lambda: asyncio.sleep(0, bool(network_service.served)))
        assert network_service.served == [(Served(routers=("r",), gateways={"r": 3}, floating=("f",)), True)]
        # Another process takes over: connections go on, once it has asked its next hop.
        zones = await place.bridge.owned_zones(owners := (f"f {PORTS[0].id} 10.77.1.11", f"r gw {GATEWAY}"))
        connection = await Connection.made(two, outside)
        await place.restart()
        assert await eventually(lambda: one.pings(OUT))
        assert await connection.goes_on()
        connection.close()
        assert await udp_to(outside, one, 2) and await place.bridge.owned_zones(owners) == zones
        assert await eventually(lambda: asyncio.sleep(0, len(network_service.served) == 2))
        # It stands for another port: no connection to the former goes on.
        await told(place, msgspec.structs.replace(ROUTING, n=6, floating=(SECOND,)))
        await asyncio.sleep(0.5)
        assert await udp_to(outside, two, 3)
        assert await eventually(lambda: asyncio.sleep(0, len(network_service.served) == 3))
        # Another host was elected.
        await told(place, msgspec.structs.replace(ROUTING, n=7, floating=(), routers=(msgspec.structs.replace(
            ROUTER, gateway=msgspec.structs.replace(ROUTER.gateway, host="other", term=4)),)))
        await outside.x("ip", "neigh", "flush", "dev", "eth0")
        assert "100% packet loss" in await outside.x("ping", "-c1", "-W1", GATEWAY, ok=(1,))
        assert await one.pings(two.ip) and not await two.pings(OUT)
        assert await eventually(lambda: asyncio.sleep(0, len(network_service.served) == 4))
        assert network_service.served[2:] == [(Served(routers=("r",), gateways={"r": 3}, floating=("f",)), True),
                                        (Served(routers=("r",)), True)]
        await asyncio.sleep(0.5)
        assert await place.agent.table.stands()


async def test_a_gateway_host_without_ports():
    network_service = stub()
    network_service.networks, network_service.ports, network_service.more = [], [], {}
    async with provider(network_service) as (place, outside):
        await outside.x("ip", "addr", "add", f"{OUT}/24", "dev", "eth0")
        await told(place, msgspec.structs.replace(ROUTING, floating=()))

        async def answers():
            return "bytes from" in await outside.x("ping", "-c1", "-W1", GATEWAY, ok=(0, 1))
        assert await eventually(answers)
        assert await eventually(lambda: asyncio.sleep(0, network_service.served == [
            (Served(routers=("r",), gateways={"r": 3}), True)]))


async def test_guests_are_wired_though_what_is_routed_is_refused():
    network_service = stub()
    async with provider(network_service) as (place, _):
        late = port(13, ONE)
        network_service.ports.append(late)
        one, two = await place.guest(PORTS[0]), await place.guest(late)
        bundle, refused = place.bridge.openflow.bundle, list[str]()

        async def refusing(verb, lines):
            if refused and any("table=70," in line for line in lines):
                refused.append(verb)
                raise CommandFailed("bad flow")
            await bundle(verb, lines)
        place.bridge.openflow.bundle = refusing
        refused.append("from now on")
        await place.wire(one)
        await told(place, msgspec.structs.replace(ROUTING, floating=()))
        assert len(refused) > 1
        await place.wire(two)
        assert await one.pings(two.ip) and await place.agent.table.stands()
        assert await eventually(lambda: asyncio.sleep(0, network_service.served == [
            (Served(routers=("r",), gateways={"r": 3}), False)]))
        refused.clear()
        await place.wire(one)
        assert await eventually(lambda: asyncio.sleep(0, network_service.served[1:] == [
            (Served(routers=("r",), gateways={"r": 3}), True)]), 15)


async def test_zones_of_what_has_no_port_are_kept_and_given_back():
    async with provider(stub()) as (place, _):
        bridge = place.bridge
        first = await bridge.owned_zones(["f p 10.0.0.1", "r"])
        assert len(set(first.values())) == 2 and await bridge.owned_zones(["r", "f p 10.0.0.1"]) == first
        moved = await bridge.owned_zones(["f p 10.0.0.2", "r"])
        assert moved["r"] == first["r"] and moved["f p 10.0.0.2"] not in first.values()
        # One that cannot be flushed is left out alone, and is flushed before it is anybody's.
        program, flushed = bridge.openflow.run, list[str]()

        async def run_once(verb, *args):
            if verb == "ct-flush-zone":
                flushed.append(args[0])
                if len(flushed) == 1:
                    raise CommandFailed("no")
            return await program(verb, *args)
        bridge.openflow.run = run_once
        assert await bridge.owned_zones(["f p 10.0.0.2", "r", "late"]) == moved
        more = await bridge.owned_zones(["f p 10.0.0.2", "r", "late"])
        assert more == moved | {"late": int(flushed[0])} and flushed == [flushed[0]] * 2
        await bridge.owned_zones(["f p 10.0.0.2", "r"])
        await place.restart()
        assert await place.bridge.owned_zones(["f p 10.0.0.2", "r"]) == moved
        ids = (await run(["ovs-vsctl", "br-get-external-id", place.names.bridge])).decode()
        assert "unused" not in ids and "10.0.0.1" not in ids and f"nacre-zone-of-r={moved['r']}" in ids
        ports = await place.bridge.zones({port.id for port in PORTS})
        assert not set(ports.values()) & set(moved.values())
