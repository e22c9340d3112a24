"""What a guest forges arrives at nobody: MAC, IP, ARP, neighbour advertisements, DHCP answers, RAs, VLAN tags."""

import asyncio

import pytest

from nacre.base.shell import run
from nacre.network.contract import AddressPair
from nacre.node.ovs.antispoof import link_local
from tests.host.wiring_lab import (
    NetworkStub,
    able,
    advertisement,
    allow,
    arp,
    ether,
    group,
    ipv4,
    ipv6,
    lab,
    mac,
    network,
    port,
    udp,
)

pytestmark = [pytest.mark.host, pytest.mark.skipif(not able(), reason="needs root, Open vSwitch, dnsmasq, udhcpc")]

ALL = group("open", allow(), allow(ethertype="IPv6"))
EVERYONE, V6_EVERYONE = "ff:ff:ff:ff:ff:ff", "33:33:00:00:00:01"


def forged(me, victim, net):
    """Frames that `me` has no right to send, by name."""
    other, dhcp = "fa:16:3e:99:99:99", net.subnets[0].dhcp_ip
    a, v, ip, gone = me.mac_address, victim.mac_address, me.fixed_ips[0].ip_address, victim.fixed_ips[0].ip_address
    ll = link_local(a)
    echo = b"\x80\0\0\0\0\1\0\1"
    return {
        "source MAC": ether(v, other, 0x0800, ipv4(ip, gone, 17, udp(5000, 5001))),
        "source MAC of DHCP": ether(v, net.dhcp_mac, 0x0800, ipv4(dhcp, gone, 17, udp(5000, 5001))),
        "source IPv4": ether(v, a, 0x0800, ipv4("10.77.1.200", gone, 17, udp(5000, 5001))),
        "metadata's IPv4": ether(v, a, 0x0800, ipv4("169.254.169.254", gone, 17, udp(5000, 5001))),
        "source IPv6": ether(v, a, 0x86DD, ipv6("2001:db8::bad", "2001:db8::1", 58, echo)),
        "link-local IPv6": ether(v, a, 0x86DD, ipv6("fe80::bad", link_local(v), 58, echo)),
        "ARP sender address": ether(EVERYONE, a, 0x0806, arp(1, a, "10.77.1.1", gone)),
        "ARP sender MAC": ether(EVERYONE, a, 0x0806, arp(1, other, ip, gone)),
        "gratuitous ARP": ether(EVERYONE, a, 0x0806, arp(1, a, gone, gone)),
        "ARP reply": ether(v, a, 0x0806, arp(2, a, "10.77.1.2", gone, v)),
        "ARP probe answer": ether(v, a, 0x0806, arp(2, a, "0.0.0.0", gone, v)),
        "NA target": ether(V6_EVERYONE, a, 0x86DD, ipv6(ll, "ff02::1", 58, advertisement("fe80::1", a))),
        "NA layer": ether(V6_EVERYONE, a, 0x86DD, ipv6(ll, "ff02::1", 58, advertisement(ll, other))),
        "NA unicast": ether(v, a, 0x86DD, ipv6(ll, link_local(v), 58, advertisement(link_local(v), a))),
        "NA from nowhere": ether(V6_EVERYONE, a, 0x86DD, ipv6("::", "ff02::1", 58, advertisement(ll, a))),
        "DHCP offer": ether(v, a, 0x0800, ipv4(ip, gone, 17, udp(67, 68))),
        "DHCP offer broadcast": ether(EVERYONE, a, 0x0800, ipv4(ip, "255.255.255.255", 17, udp(67, 68))),
        "DHCPv6 reply": ether(v, a, 0x86DD, ipv6(ll, link_local(v), 17, udp(547, 546))),
        "RA": ether(V6_EVERYONE, a, 0x86DD, ipv6(ll, "ff02::1", 58, b"\x86\0\0\0@\0\x07\x08" + b"\0" * 8)),
        "VLAN tag": ether(v, a, 0x0800, ipv4(ip, gone, 17, udp(5000, 5001)), vlan=1),
        "priority tag": ether(v, a, 0x0800, ipv4(ip, gone, 17, udp(5000, 5001)), vlan=0),
        "double VLAN tag": ether(v, a, 0x8100, b"\0\1\x08\0" + ipv4(ip, gone, 17, udp(5000, 5001)), vlan=1),
        "other ethertype": ether(v, a, 0x88B5, b"forged"),
        "spanning tree": ether("01:80:c2:00:00:00", a, 0x0026, b"BB\3" + b"\0" * 35),
    }


def honest(me, victim):
    a, v = me.mac_address, victim.mac_address
    ip, gone = me.fixed_ips[0].ip_address, victim.fixed_ips[0].ip_address
    ll = link_local(a)
    return [ether(v, a, 0x0800, ipv4(ip, gone, 17, udp(5000, 5001))),
            ether(EVERYONE, a, 0x0806, arp(1, a, ip, gone)),
            ether(V6_EVERYONE, a, 0x86DD, ipv6(ll, "ff02::1", 58, advertisement(ll, a))),
            ether(v, a, 0x86DD, ipv6(ll, link_local(v), 58, b"\x80\0\0\0\0\1\0\1"))]


async def test_nothing_forged_arrives():
    net = network()
    stub = NetworkStub([net], [port(11, net), port(12, net), port(13, net, port_security=False)], [ALL])
    async with lab(stub) as place:
        mallory, victim, watcher = [await place.guest(p) for p in stub.ports]
        await place.wire(mallory, victim, watcher)
        fakes = forged(mallory.port, victim.port, net)
        listening = [asyncio.create_task(guest.heard(2.0)) for guest in (victim, watcher)]
        await asyncio.sleep(0.3)
        await mallory.send(*fakes.values())
        arrived = [frame for frames in await asyncio.gather(*listening) for frame in frames]
        assert [name for name, frame in fakes.items() if any(got.startswith(frame[:40]) for got in arrived)] == []
        assert [frame for frame in arrived if frame[6:12] != mac(net.dhcp_mac)] == []

        listening = [asyncio.create_task(guest.heard(1.5)) for guest in (victim, watcher)]
        await asyncio.sleep(0.3)
        await mallory.send(*honest(mallory.port, victim.port))
        heard = [len([frame for frame in frames if frame[6:12] == mac(mallory.port.mac_address)])
                 for frames in await asyncio.gather(*listening)]
        assert heard[0] >= 4 and heard[1] == 2  # the victim all, the bystander what was for everyone


async def test_the_host_itself_is_out_of_reach():
    net = network()
    stub = NetworkStub([net], [port(11, net)], [ALL])
    async with lab(stub) as place:
        one = await place.guest(stub.ports[0])
        await place.wire(one)
        await run(["ip", "addr", "add", "10.99.77.1/32", "dev", "lo"])
        try:
            listening = asyncio.create_task(one.heard(1.5))
            await asyncio.sleep(0.3)
            me = one.port.mac_address
            await one.send(ether(EVERYONE, me, 0x0806, arp(1, me, one.ip, "10.99.77.1")))
            assert [frame for frame in await listening if frame[6:12] != mac(net.dhcp_mac)] == []
        finally:
            await run(["ip", "addr", "del", "10.99.77.1/32", "dev", "lo"])


async def test_what_is_for_dhcp_stays_with_dhcp():
    net = network()
    stub = NetworkStub([net], [port(11, net), port(12, net), port(13, net, port_security=False)], [ALL])
    async with lab(stub) as place:
        one, two, watcher = [await place.guest(p) for p in stub.ports]
        await place.wire(one, two, watcher)
        listening = [asyncio.create_task(guest.heard(4.0)) for guest in (two, watcher)]
        await asyncio.sleep(0.3)
        await one.x("ip", "addr", "flush", "dev", "eth0")
        await one.lease()
        await one.send(ether(EVERYONE, one.port.mac_address, 0x0806, arp(1, one.port.mac_address, one.ip, "10.77.1.2")))
        heard = [frame for frames in await asyncio.gather(*listening) for frame in frames
                 if frame[6:12] != mac(net.dhcp_mac)]
        assert heard == []


async def test_allowed_pairs_may_speak():
    net = network()
    pairs = (AddressPair(ip_address="10.77.1.100", mac_address="00:00:5e:00:01:01"),
             AddressPair(ip_address="10.77.1.128/25"))
    stub = NetworkStub([net], [port(11, net, allowed_pairs=pairs), port(12, net)], [ALL])
    async with lab(stub) as place:
        one, two = [await place.guest(p) for p in stub.ports]
        await place.wire(one, two)
        listening = asyncio.create_task(two.heard(1.5))
        await asyncio.sleep(0.3)
        me = one.port.mac_address
        await one.send(
            ether(EVERYONE, "00:00:5e:00:01:01", 0x0806, arp(1, "00:00:5e:00:01:01", "10.77.1.100", "10.77.1.100")),
            ether(EVERYONE, me, 0x0806, arp(1, me, "10.77.1.130", "10.77.1.130")),
            ether(EVERYONE, "00:00:5e:00:01:01", 0x0806, arp(1, "00:00:5e:00:01:01", "10.77.1.101", "10.77.1.101")),
            ether(EVERYONE, me, 0x0806, arp(1, me, "10.77.1.100", "10.77.1.100")))
        assert [frame[28:32] for frame in await listening
                if frame[6:12] != mac(net.dhcp_mac)] == [bytes([10, 77, 1, 100]), bytes([10, 77, 1, 130])]
        listening = asyncio.create_task(one.heard(1.5))
        await asyncio.sleep(0.3)
        await two.send(ether("00:00:5e:00:01:01", two.port.mac_address, 0x0800,
                             ipv4(two.ip, "10.77.1.100", 17, udp(1, 2))))
        heard = [frame[:6] for frame in await listening if frame[6:12] != mac(net.dhcp_mac)]
        assert heard == [mac("00:00:5e:00:01:01")]


async def test_networks_do_not_touch():
    first, second = network(1), network(2)
    stub = NetworkStub([first, second], [port(11, first), port(12, second)], [ALL])
    async with lab(stub) as place:
        one, two = [await place.guest(p) for p in stub.ports]
        await place.wire(one, two)
        listening = asyncio.create_task(two.heard(1.5))
        await asyncio.sleep(0.3)
        me = one.port.mac_address
        await one.send(ether(two.port.mac_address, me, 0x0800, ipv4(one.ip, two.ip, 17, udp(1, 2))),
                       ether(EVERYONE, me, 0x0806, arp(1, me, one.ip, two.ip)))
        dhcp = mac(second.dhcp_mac)
        assert [frame for frame in await listening if frame[6:12] != dhcp] == []


async def test_overlapping_addresses_get_their_own_metadata():
    first, second = network(1), network(1, id="00000002-aaaa-4000-8000-000000000000", segmentation_id=8)
    twin = port(12, second, fixed_ips=port(11, second).fixed_ips, mac_address="fa:16:3e:00:01:0c")
    stub = NetworkStub([first, second], [port(11, first), twin], [ALL])
    async with lab(stub) as place:
        one, two = [await place.guest(p) for p in stub.ports]
        await place.wire(one, two)
        assert one.ip == two.ip
        assert '"uuid":"server11"' in (await one.curl("/openstack/latest/meta_data.json"))[1]
        assert '"uuid":"server12"' in (await two.curl("/openstack/latest/meta_data.json"))[1]
