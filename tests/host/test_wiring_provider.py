"""Networks that leave the host by a provider bridge (vlan, flat), and IPv6 with our own announcements."""

import asyncio
import json
import uuid
from contextlib import asynccontextmanager

import pytest

from nacre.base.shell import run
from nacre.network.contract import FixedIp, SubnetFacts
from nacre.node.names import Names
from nacre.node.netns import inside
from tests.host.wiring_lab import NetworkStub, able, allow, arp, ether, group, ipv4, lab, mac, network, port, udp

pytestmark = [pytest.mark.host, pytest.mark.skipif(not able(), reason="needs root, Open vSwitch, dnsmasq, udhcpc")]

ALL = group("open", allow(), allow(ethertype="IPv6"))


class Outside:
    """A machine on the provider's wire: a namespace behind a port of the provider bridge."""

    mac = "02:00:00:00:00:99"

    def __init__(self, names):
        self.ns, self.link, self.bridge = f"ntw-{names.short}-outside", f"o{names.short}", f"ntw-ex{names.short}"

    async def x(self, *args, ok=(0,)):
        return (await run(["ip", "netns", "exec", self.ns, *args], ok=ok)).decode()


@asynccontextmanager
async def provider(stub):
    names = Names(str(uuid.uuid4()))
    outside = Outside(names)
    async with lab(stub, names=names, mappings={"phys": outside.bridge}) as place:
        try:
            await run(["ip", "netns", "add", outside.ns])
            await run(["ip", "link", "add", outside.link, "type", "veth", "peer", "name", "eth0", "netns", outside.ns])
            await outside.x("ip", "link", "set", "eth0", "address", outside.mac, "up")
            await outside.x("ethtool", "-K", "eth0", "tx", "off")
            await run(["ip", "link", "set", outside.link, "up"])
            await run(["ovs-vsctl", "add-port", outside.bridge, outside.link])
            yield place, outside
        finally:
            await run(["ip", "link", "del", outside.link], ok=(0, 1))
            await run(["ip", "netns", "del", outside.ns], ok=(0, 1))
            await run(["ovs-vsctl", "--if-exists", "del-br", outside.bridge])


async def test_a_flat_network():
    net = network(network_type="flat", physical_network="phys", segmentation_id=None)
    stub = NetworkStub([net], [port(11, net)], [ALL])
    async with provider(stub) as (place, outside):
        one = await place.guest(stub.ports[0])
        await place.wire(one)
        await outside.x("ip", "addr", "add", "10.77.1.200/24", "dev", "eth0")
        assert await one.pings("10.77.1.200")
        await outside.x("busybox", "ping", "-c", "1", "-W", "2", "10.77.1.11")
        assert (await one.lease())["ip"] == "10.77.1.11"
        assert place.agent.report().bridge_mappings == {"phys": outside.bridge}


async def test_a_vlan_network_is_tagged_outside_only():
    net = network(network_type="vlan", physical_network="phys", segmentation_id=100)
    stub = NetworkStub([net], [port(11, net)], [ALL])
    async with provider(stub) as (place, outside):
        one = await place.guest(stub.ports[0])
        await place.wire(one)
        me, seen = one.port.mac_address, []

        def listen():
            import socket
            with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as raw:
                raw.bind(("eth0", 3))
                raw.setsockopt(263, 8, 1)  # PACKET_AUXDATA: the kernel keeps the tag there
                raw.settimeout(2)
                while True:
                    frame, extra, _, _ = raw.recvmsg(2048, 256)
                    if frame[6:12] == mac(me):
                        tags = [int.from_bytes(data[16:18], "little") & 0xFFF for _, _, data in extra]
                        seen.append((frame, tags))
                        return

        listening = asyncio.create_task(inside(outside.ns, listen))
        await asyncio.sleep(0.3)
        await one.send(ether("ff:ff:ff:ff:ff:ff", me, 0x0806, arp(1, me, one.ip, "10.77.1.200")))
        await listening
        frame, tags = seen[0]
        assert tags == [100] or frame[12:16] == b"\x81\x00\x00\x64"

        answer = ipv4("10.77.1.200", one.ip, 17, udp(1, 2))
        hearing = asyncio.create_task(one.heard(1.5))
        await asyncio.sleep(0.3)

        def speak():
            import socket
            with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
                raw.bind(("eth0", 0))
                for vlan in (100, 101, None):
                    raw.send(ether(me, outside.mac, 0x0800, answer, vlan=vlan).ljust(60, b"\0"))
                raw.send(ether(me, net.dhcp_mac, 0x0800, answer, vlan=100).ljust(60, b"\0"))
        await inside(outside.ns, speak)
        heard = [frame for frame in await hearing if frame[12:14] == b"\x08\x00"]
        assert [frame[6:12] for frame in heard] == [mac(outside.mac)]  # its own tag only, and never as DHCP's MAC


async def test_ipv6_by_announcement_and_metadata_over_it():
    base = network()
    six = SubnetFacts(id="s6", cidr="2001:db8:77::/64", ip_version=6, gateway_ip="2001:db8:77::1", enable_dhcp=True,
                      dhcp_ip="2001:db8:77::2", ipv6_address_mode="slaac", ipv6_ra_mode="slaac")
    net = network(subnets=(*base.subnets, six))
    ports = [port(n, net, fixed_ips=(FixedIp(subnet_id="s4-1", ip_address=f"10.77.1.{n}"), FixedIp(
        subnet_id="s6", ip_address=f"2001:db8:77:0:f816:3eff:fe00:1{n:02x}"))) for n in (11, 12)]
    stub = NetworkStub([net], ports, [ALL])
    async with lab(stub) as place:
        one, two = [await place.guest(p, ipv6=True) for p in ports]
        await place.wire(one, two)
        for guest in (one, two):  # its first solicitations were lost: the link was there before the flows
            await guest.x("ip", "link", "set", "eth0", "down")
            await guest.x("ip", "link", "set", "eth0", "up")
        for _ in range(100):
            lines = [await guest.x("ip", "-6", "-o", "addr", "show", "dev", "eth0", "scope", "global", "-tentative")
                     for guest in (one, two)]
            if all("2001:db8:77:0:f816" in line for line in lines):
                break
            await asyncio.sleep(0.1)
        assert "2001:db8:77:0:f816:3eff:fe00:10b/64" in lines[0]
        assert await one.pings("2001:db8:77:0:f816:3eff:fe00:10c")
        status, body = await one.curl("/openstack/latest/meta_data.json", host="[fe80::a9fe:a9fe%25eth0]")
        assert status == 200 and json.loads(body)["uuid"] == "server11"
