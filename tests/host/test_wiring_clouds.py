"""Several clouds on one Open vSwitch: the same networks, addresses and ports in each, and none feels another."""

import asyncio
import json
import socket
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from nacre.base.errors import BuildFailed, Conflict, Unavailable
from nacre.base.shell import run
from nacre.node.ovs.agent import decommission
from nacre.node.ovs.contract import Standing
from nacre.node.servers.limits import Rate
from tests.host.wiring_lab import (
    Guest,
    Lab,
    NetworkStub,
    able,
    allow,
    ether,
    eventually,
    group,
    inside,
    ipv4,
    lab,
    network,
    port,
    udp,
)

pytestmark = [pytest.mark.host, pytest.mark.skipif(not able(), reason="needs root, Open vSwitch, dnsmasq, udhcpc")]
OPEN, SHUT = group("open", allow("icmp"), allow("tcp", 80, 80)), group("shut")


async def seen(place):
    """All that this machine has of a cloud, and its guests' connections."""
    bridge = place.names.bridge
    flows = (await run(["ovs-ofctl", "-O", "OpenFlow14", "--no-stats", "dump-flows", bridge])).decode().split("\n")
    meters = await run(["ovs-ofctl", "-O", "OpenFlow14", "dump-meters", bridge])
    zones = await place.bridge.zones([guest.port.id for guest in place.guests])
    tracked = [(await run(["ovs-appctl", "dpctl/dump-conntrack", f"zone={zone}"])).decode()
               for zone in sorted(zones.values())]
    home = place.names.run / "dhcp"
    return {"flows": sorted(flows), "meters": meters.partition(b"\n")[2], "zones": zones,
            "connections": ["tcp" in text for text in tracked],
            "ports": sorted(await place.bridge.links()), "namespaces": await place.places.namespaces.networks(),
            "dhcp": {net: (home / net / "pid").read_text() for net in await place.places.dhcp.known()},
            "seal": (await run(["nft", "list", "table", "netdev", place.names.table])).decode()}


class Connection:
    """An open TCP connection between two guests, on fixed ports."""

    async def open(self, client, server):
        def listen():
            made = socket.create_server((server.ip, 80))
            made.settimeout(5)
            return made

        def connect():
            return socket.create_connection((server.ip, 80), timeout=5, source_address=(client.ip, 40000))

        listener = await inside(server.ns, listen)
        self.client = await inside(client.ns, connect)
        self.server, _ = await asyncio.to_thread(listener.accept)
        listener.close()
        return self

    async def carries(self, text, *, back=False):
        """Whether the other end gets it within some seconds; back: from the server to the client."""
        source, target = (self.server, self.client) if back else (self.client, self.server)
        target.settimeout(4)
        source.sendall(text)
        try:
            return await asyncio.to_thread(target.recv, 100) == text
        except TimeoutError:
            return False

    def close(self):
        self.client.close()
        self.server.close()


def datagram(source, target, *ports):
    return ether(target.port.mac_address, source.port.mac_address, 0x0800, ipv4(
        source.ip, target.ip, 17, udp(*ports)))


@asynccontextmanager
async def connected():
    """A cloud's host with two guests, the connection from the one to the other, and their zones."""
    net = network()
    ports = [port(11, net), port(12, net)]
    async with lab(NetworkStub([net], ports, [OPEN])) as place:
        one, two = [await place.guest(facts) for facts in ports]
        await place.wire(one, two)
        connection = await Connection().open(one, two)
        assert await connection.carries(b"hello")
        try:
            yield place, (one, two), connection, await place.bridge.zones([one.port.id, two.port.id])
        finally:
            connection.close()


async def test_the_same_network_in_two_clouds():
    net = network()
    ports = [port(11, net), port(12, net)]
    async with lab(NetworkStub([net], ports, [OPEN])) as one:
        a, b = [await one.guest(facts) for facts in ports]
        await one.agent.limit({a.port.id: Rate(from_guest=90_000)})
        await one.wire(a, b)
        connection = await Connection().open(a, b)
        assert await connection.carries(b"hello") and await connection.carries(b"hello", back=True)
        before = await seen(one)
        assert before["connections"] == [True, True] and before["namespaces"] == [net.id]
        assert b"rate=90000" in before["meters"]

        shut = [port(11, net, security_groups=("shut",)), port(12, net, port_security=False)]
        async with lab(NetworkStub([net], shut, [SHUT])) as two:
            c, d = [await two.guest(facts, address=facts is shut[1]) for facts in shut]
            await two.agent.limit({facts.id: Rate(from_guest=50_000) for facts in shut})  # meters of the same numbers
            await two.wire(c, d)
            assert (await c.lease())["ip"] == "10.77.1.11"
            for guest, place in ((a, one), (d, two)):
                status, body = await guest.curl("/openstack/latest/meta_data.json")
                assert status == 200 and json.loads(body)["meta"]["cloud"] == place.names.cloud
            # A question of a's to b in the one cloud lets no answer of d's to c in: that is the other cloud.
            hearing = asyncio.create_task(c.heard(1.5))
            await asyncio.sleep(0.3)
            await a.send(datagram(a, b, 5000, 5001))
            await d.send(datagram(d, c, 5001, 5000))
            assert datagram(d, c, 5001, 5000)[:42] not in [frame[:42] for frame in await hearing]
            await two.restart()
            assert await seen(one) == before
        assert await seen(one) == before
        assert await connection.carries(b"still", back=True) and await connection.carries(b"there")
        connection.close()


async def test_connections_outlive_the_node():
    async with connected() as (place, (one, two), connection, zones):
        await place.restart()
        # The server speaks first: to a zone that forgot the connection that would be one which nothing lets in.
        assert await connection.carries(b"still", back=True) and await connection.carries(b"there")
        assert await place.bridge.zones([one.port.id, two.port.id]) == zones


async def test_a_zone_is_flushed_for_its_port_also_by_the_node_that_comes_next_and_no_other():
    """The node dies between giving a zone and flushing what another port left in it."""
    async with connected() as (place, (one, two), _, zones):
        assert [await tracked(zones[each.port.id]) for each in (one, two)] == [True, True]

        third = await place.guest(port(13, place.stub.networks[0]))
        given, unused = await asyncio.to_thread(place.bridge._db.zones, frozenset([third.port.id]))
        assert unused == {third.port.id} and await marked(third) and not await marked(one)
        await run(["ovs-vsctl", "set", "interface", one.outer, "external_ids:nacre-zone-unused=yes"])
        await place.restart()
        place.stub.ports.append(third.port)
        await place.wire(third)
        assert [await tracked(zones[each.port.id]) for each in (one, two)] == [False, True]
        assert not await marked(one) and not await marked(third)
        assert await place.bridge.zones([third.port.id]) == given


async def tracked(zone):
    return b"tcp" in await run(["ovs-appctl", "dpctl/dump-conntrack", f"zone={zone}"])


async def marked(guest):
    return b"nacre-zone-unused" in await run(["ovs-vsctl", "get", "interface", guest.outer, "external_ids"])


async def test_nothing_is_left_of_a_cloud_and_its_neighbour_keeps_all():
    net = network()
    other = Lab(NetworkStub([net], [port(11, net)], [OPEN]), mappings={"public": ""})
    async with lab(NetworkStub([net], [port(11, net)], [OPEN])) as place:
        await place.wire(await place.guest(place.stub.ports[0]))
        before = await seen(place)
        await other.begin()
        try:
            await other.wire(await other.guest(other.stub.ports[0]))
            assert other.agent.report().bridge_mappings == {"public": other.names.provider}
            assert other.agent.report().bridge == other.names.bridge == f"br-int-{other.names.short}"
            with pytest.raises(Unavailable, match=other.names.short):
                await decommission(other.names)  # its node runs
            with pytest.raises(Unavailable, match=other.names.short):
                await Lab(other.stub, names=other.names).agent.start()  # and only one of it
        finally:
            await other.down()
        for words in (["ovs-vsctl", "show"], ["ip", "-o", "link"], ["ip", "netns"], ["nft", "list", "tables"],
                      ["ps", "-ww", "-eo", "args"]):
            assert other.names.short not in (await run(words)).decode(), words
        assert not other.names.run.exists() and await seen(place) == before


async def test_a_tunnels_port_is_one_clouds_and_the_other_is_told_what_to_do():
    net = network()
    address = "192.0.2.1"
    async with lab(NetworkStub([net], []), tunnel_ip=address) as one:
        assert one.agent.report().tunnel_ip == address
        two = Lab(NetworkStub([net], []), tunnel_ip=address)
        try:
            with pytest.raises(Conflict, match=r"UDP port 4789 at .*give this cloud another network"):
                await two.begin()
        finally:
            await two.down()
        async with lab(NetworkStub([net], []), tunnel_ip=address, vxlan_port=4790) as two:
            assert two.agent.report().tunnel_types == ("vxlan",)


async def test_hosts_that_are_alone_need_no_tunnel_and_have_vxlan_networks():
    net = network()
    async with lab(NetworkStub([net], []), tunnel_ip="127.0.0.1") as one, \
            lab(NetworkStub([net], []), tunnel_ip="127.0.0.1") as two:
        for place in (one, two):
            report = place.agent.report()
            assert (report.tunnel_types, report.tunnel_ip) == (("vxlan",), None)
            assert (await run(["ovs-vsctl", "list-ports", place.names.bridge])).split() == []


FAILING_NFT = """#!/bin/sh
text=$(cat)
case "$text" in *{link}*) echo "no hook on {link}" >&2; exit 1;; esac
echo "$text" | exec {nft} "$@"
"""


async def test_a_link_that_cannot_be_sealed_is_not_wired_and_others_are(tmp_path, monkeypatch):
    net = network()
    ports = [port(11, net), port(12, net), port(13, net)]
    async with lab(NetworkStub([net], ports, [OPEN])) as place:
        one, two = [await place.guest(facts) for facts in ports[:2]]
        nft = (await run(["which", "nft"])).decode().strip()
        script = tmp_path / "nft"
        script.write_text(FAILING_NFT.format(link=Guest(place, ports[2]).outer, nft=nft))
        script.chmod(0o755)
        with monkeypatch.context() as patch:  # before the link is there: the look-out might seal it first
            patch.setenv("PATH", str(tmp_path), prepend=":")
            bad = await place.guest(ports[2])
            results = await asyncio.gather(place.wire(one), place.wire(two), place.wire(bad), return_exceptions=True)
            assert results[:2] == [None, None]
            assert isinstance(results[2], BuildFailed) and f"no hook on {bad.outer}" in results[2].message
            assert await one.pings(two.ip) and not await bad.pings(one.ip)
            assert bad.port.id not in [p for ids, up in place.stub.said for p in ids if up]
            sealed = (await run([nft, "list", "table", "netdev", place.names.table])).decode()
            assert one.outer in sealed and bad.outer not in sealed
            assert is_up(one.outer) and not is_up(bad.outer)  # the host hears nothing of it
        for _ in range(50):  # mended: the look-out tries again
            if bad.port.id in [p for ids, up in place.stub.said for p in ids if up]:
                break
            await asyncio.sleep(0.1)
        await bad.x("ip", "neigh", "flush", "dev", "eth0")  # it has asked in vain
        assert await bad.pings(one.ip)


async def test_a_seal_that_somebody_takes_away_is_there_again():
    """A firewall that is loaded anew flushes the tables of all, also while no node runs."""
    net = network()
    async with lab(NetworkStub([net], [port(11, net), port(12, net)], [OPEN])) as place:
        one, two = [await place.guest(facts) for facts in place.stub.ports]
        await place.wire(one, two)
        gone = ["nft", "delete", "table", "netdev", place.names.table]
        await run(gone)

        async def sealed():
            said = await run(["nft", "list", "table", "netdev", place.names.table], ok=(0, 1))
            return all(f"on-{guest.outer} ".encode() in said for guest in (one, two))

        assert not await sealed() and await eventually(sealed)
        await place.agent.stop()
        await run(gone)
        place.build()
        await place.agent.start()  # and no control process has been heard yet
        assert await sealed()
        await place.agent.follow(Standing(trusted=True))
        assert await one.pings(two.ip)


def is_up(link):
    return int((Path("/sys/class/net") / link / "flags").read_text(), 16) & 1 == 1


async def test_a_link_of_the_same_name_is_sealed_anew():
    """A guest that is started again has a new interface of the old name."""
    net = network()
    async with lab(NetworkStub([net], [port(11, net), port(12, net)], [OPEN])) as place:
        one, two = [await place.guest(facts) for facts in place.stub.ports]
        await place.wire(one, two)
        sealed = dict(place.agent.seal._sealed)
        await run(["ovs-vsctl", "del-port", one.outer])
        await run(["ip", "link", "del", one.outer])
        await run(["ip", "netns", "del", one.ns])
        await one.up()
        await place.wire(one)
        assert place.agent.seal._sealed[one.outer] != sealed[one.outer] and await one.pings(two.ip)
