"""Guests (namespaces) on a real bridge: DHCP, security groups, TCP, metadata, restarts."""

import asyncio
import json
import os
import pwd
from pathlib import Path

import pytest
from msgspec import structs

from nacre.base.errors import BuildFailed
from nacre.base.shell import CommandFailed, run
from nacre.network.contract import Differences, GroupMembers
from nacre.node.ovs.contract import Standing
from tests.host.wiring_lab import NetworkStub, able, allow, eventually, group, lab, network, port

pytestmark = [pytest.mark.host, pytest.mark.skipif(not able(), reason="needs root, Open vSwitch, dnsmasq, udhcpc")]

OPEN = group("open", allow("icmp"), allow("tcp", 80, 80))
SHUT = group("shut")


async def test_dhcp_groups_tcp_and_metadata():
    net = network()
    ports = [port(11, net, dhcp_options=(("ntp-server", "10.77.1.99", 4), ("server-ip\naddress", "x", 4),
                                         ("mtu", "1\ndhcp-script=/bin/sh", 4))),
             port(12, net), port(13, net, security_groups=("shut",)), port(14, net, device_id="ghost")]
    stub = NetworkStub([net], ports, [OPEN, SHUT])
    async with lab(stub) as place:
        one, two, shut, ghost = [await place.guest(p, address=p.id != ports[0].id) for p in ports]
        await place.wire(one, two, shut, ghost)
        assert sorted(p for ids, up in stub.said for p in ids if up) == [p.id for p in ports]

        lease = await one.lease()
        assert (lease["ip"], lease["router"], lease["dns"], lease["mtu"]) == ("10.77.1.11", "10.77.1.1", "9.9.9.9",
                                                                             "1450")
        assert lease["staticroutes"].split()[:2] == ["169.254.169.254/32", "10.77.1.2"]
        assert lease["ntpsrv"] == "10.77.1.99" and lease["seconds"] < 4
        await one.x("ip", "addr", "add", "10.77.1.11/24", "dev", "eth0")
        await one.x("ip", "route", "add", "169.254.169.254/32", "via", "10.77.1.2")

        assert await one.pings("10.77.1.12") and await two.pings("10.77.1.11")
        assert await shut.pings("10.77.1.11")  # outward is allowed, and the answers with it
        assert not await one.pings("10.77.1.13")
        assert await one.tcp(two, 80) and not await one.tcp(two, 81) and not await one.tcp(shut, 80)

        status, body = await one.curl("/openstack/latest/meta_data.json")
        assert status == 200 and json.loads(body)["uuid"] == "server11"
        status, body = await one.curl("/openstack/latest/meta_data.json", "X-Forwarded-For: 10.77.1.12",
                                      "X-Instance-ID: server12", "X-Neutron-Network-ID: other")
        assert status == 200 and json.loads(body)["uuid"] == "server11"
        assert (await two.curl("/latest/meta-data/local-ipv4"))[1] == "10.77.1.12"
        assert (await ghost.curl("/openstack/latest/meta_data.json", "X-Instance-ID: server12"))[0] == 404


async def test_what_guests_speak_to_has_no_rights():
    """DHCP's server, whatever a guest makes of it: nobody, in no group of root's, with nothing of its own to write but
    leases, log and number; no path of its files leads through a folder that others may not enter."""
    net = network()
    async with lab(NetworkStub([net], [port(11, net)], [OPEN])) as place:
        guest = await place.guest(place.stub.ports[0], address=False)
        await place.wire(guest)
        assert (await guest.lease())["ip"] == guest.ip
        home = place.names.run / "dhcp" / net.id
        process = Path("/proc") / (home / "pid").read_text().strip()
        status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
        nobody = pwd.getpwnam("nobody")
        assert status["Uid"].split() == [str(nobody.pw_uid)] * 4 and status["Gid"].split() == [str(nobody.pw_gid)] * 4
        assert not status["Groups"].split()
        allowed = 1 << 10 | 1 << 12 | 1 << 13  # to bind low ports, to write neighbours, raw: in its namespace only
        assert int(status["CapEff"], 16) & ~allowed == 0 == int(status["CapPrm"], 16) & ~allowed
        for path in (home, *home.parents):
            assert path.stat().st_mode & 0o005 == 0o005 and path.stat().st_uid == 0, path
        owned = {p.name for p in home.rglob("*") if p.stat().st_uid != 0}
        assert owned <= {"pid", "log", "leases"}
        assert os.readlink(process / "ns" / "net") != os.readlink("/proc/self/ns/net")


async def test_a_new_port_and_a_lost_one():
    net = network()
    ports = [port(11, net), port(12, net)]
    stub = NetworkStub([net], ports[:1], [OPEN])
    async with lab(stub) as place:
        one = await place.guest(ports[0])
        await place.wire(one)
        stub.ports.append(ports[1])
        two = await place.guest(ports[1], address=False)
        await place.wire(two)
        assert (await two.lease())["ip"] == "10.77.1.12"  # seen by the running server, without a restart
        stub.ports.remove(ports[1])
        await run(["ip", "link", "del", two.outer])  # by nobody who would tell Open vSwitch, as in a power cut
        await place.agent.unwire([ports[1].id])
        await place.agent.unwire([ports[1].id])
        assert two.outer.encode() not in await run(["ovs-vsctl", "list-ports", place.names.bridge])

        async def gone():
            flows = await run(["ovs-ofctl", "-O", "OpenFlow14", "dump-flows", place.names.bridge])
            return ports[1].mac_address.encode() not in flows
        assert await eventually(gone)
        stub.ports.clear()
        await place.agent.rewire(())
        await place.agent.unwire([ports[0].id])

        async def empty():
            return not await place.places.namespaces.networks()
        assert await eventually(empty)


async def test_a_port_without_an_interface_fails_alone():
    net = network()
    stub = NetworkStub([net], [port(11, net), port(12, net)], [OPEN])
    async with lab(stub) as place:
        one = await place.guest(stub.ports[0])
        bad = asyncio.create_task(place.agent.wire([stub.ports[1]], [net]))
        await place.wire(one)
        with pytest.raises(BuildFailed, match="no interface"):
            await bad
        stranger = port(19, net)
        await place.guest(stranger)
        with pytest.raises(BuildFailed, match="not for this host"):
            await place.agent.wire([stranger], [net])


async def test_flows_come_back_after_they_were_lost():
    net = network()
    stub = NetworkStub([net], [port(11, net), port(12, net)], [OPEN])
    async with lab(stub) as place:
        one, two = [await place.guest(p) for p in stub.ports]
        await place.wire(one, two)
        await run(["ovs-ofctl", "-O", "OpenFlow14", "del-flows", place.names.bridge])
        assert await eventually(lambda: one.pings("10.77.1.12"))


async def test_a_dead_dhcp_server_is_replaced():
    net = network()
    stub = NetworkStub([net], [port(11, net)], [OPEN])
    async with lab(stub) as place:
        one = await place.guest(stub.ports[0], address=False)
        await place.wire(one)
        pid = (place.places.dhcp.settings.directory / net.id / "pid").read_text().strip()
        await run(["kill", "-SEGV", pid])

        async def serves():
            try:
                return (await one.lease())["ip"] == "10.77.1.11"
            except CommandFailed:
                return False
        assert await eventually(serves)


async def test_the_agent_comes_back_and_adopts():
    net = network()
    stub = NetworkStub([net], [port(11, net), port(12, net)], [OPEN])
    async with lab(stub) as place:
        one, two = [await place.guest(p) for p in stub.ports]
        await place.wire(one, two)
        home = place.places.dhcp.settings.directory / net.id
        before = (home / "pid").read_text()
        await place.agent.stop()
        assert await one.pings("10.77.1.12")  # without any agent
        place.build()
        await place.begin()
        assert (home / "pid").read_text() == before
        assert await one.pings("10.77.1.12") and (await one.curl("/latest/meta-data/instance-type"))[0] == 200


async def test_what_is_wired_stays_while_a_node_that_begins_gets_no_answer():
    net = network()
    stub = NetworkStub([net], [port(11, net), port(12, net)], [OPEN])
    async with lab(stub) as place:
        one, two = [await place.guest(p) for p in stub.ports]
        await place.wire(one, two)
        await place.agent.stop()
        place.build()
        stub.away = 1000
        await place.agent.start()
        await place.agent.follow(Standing(trusted=True))
        assert await eventually(lambda: asyncio.sleep(0, stub.away < 999))  # so a round has ended
        assert await one.pings("10.77.1.12") and place.agent.table.applied is None
        stub.away = 0
        assert await eventually(lambda: asyncio.sleep(0, place.agent.table.applied is not None))
        assert await one.pings("10.77.1.12")


class Paged(NetworkStub):
    """Members and places are too large for the first answer."""

    async def wiring(self, *args, **named):
        return structs.replace(await super().wiring(*args, **named), members=(), placed=())


async def test_flows_are_replaced_by_a_node_that_begins_only_when_every_page_is_here():
    """Half of an answer would cut guests off from all that the other half names."""
    net, named = network(), group("named", allow("icmp", remote=(), remote_group="peers"))
    stub = Paged([net], [port(11, net, security_groups=("named",)), port(12, net)], [OPEN, named], members=(
        GroupMembers(id="peers", n=1, era="e", ports={"two": ("10.77.1.12/32",)}),))
    async with lab(stub) as place:
        one, two = [await place.guest(p) for p in stub.ports]
        await place.wire(one, two)
        assert await two.pings("10.77.1.11")
        await place.agent.stop()
        place.build()
        stub.away, stub.deaf = 1000, "differences"
        await place.agent.start()
        await place.agent.follow(Standing(trusted=True))
        assert await eventually(lambda: asyncio.sleep(0, stub.away < 998))  # so a round has ended
        assert await two.pings("10.77.1.11") and place.agent.table.applied is None
        stub.away = 0
        assert await eventually(lambda: asyncio.sleep(0, place.agent.table.applied is not None))
        assert await two.pings("10.77.1.11")


async def test_a_poisoned_rule_hurts_nobody():
    net = network()
    bad = group("bad", allow("vrrp", 1, 2), allow("tcp", 80, 22), allow(remote=("10.0.0.0/99",)),
                allow("icmp\nadd priority=65535,actions=normal"), allow("icmp"))
    stub = NetworkStub([net], [port(11, net), port(12, net, security_groups=("bad",))], [OPEN, bad])
    async with lab(stub) as place:
        one, two = [await place.guest(p) for p in stub.ports]
        await place.wire(one, two)
        assert await one.pings("10.77.1.12") and not await one.tcp(two, 80)


async def test_a_rule_taken_away_stops_what_it_had_let_in():
    net = network()
    stub = NetworkStub([net], [port(11, net), port(12, net, security_groups=("web",))],
                       [OPEN, group("web", allow("icmp"))])
    async with lab(stub) as place:
        one, two = [await place.guest(p) for p in stub.ports]
        await place.wire(one, two)
        assert await one.pings("10.77.1.12")
        stub.groups[1] = group("web")
        await place.agent.rewire([two.port.id])

        async def silent():
            return not await one.pings("10.77.1.12")
        assert await eventually(silent)


@pytest.mark.parametrize("stateful", [True, False])
async def test_members_come_and_go_without_a_question(stateful):
    """A rule names a group: whoever is in it gets in, and who left it does not, nor what it had begun."""
    net = network()
    stub = NetworkStub([net], [port(11, net), port(12, net, security_groups=("f",)), port(13, net)], [
        OPEN, group("f", allow("icmp", remote_group="f"), allow(remote=("10.77.1.13/32",)), stateful=stateful)])
    news = [GroupMembers(id="f", n=1, era="e", ports={"11": ("10.77.1.11/32",), "14": ("10.77.1.14/32",)})]
    stub.more["members"] = tuple(news)
    async with lab(stub) as place:
        one, two, three = [await place.guest(p) for p in stub.ports]
        await place.wire(one, two, three)
        assert await one.pings("10.77.1.12") and await three.pings("10.77.1.12")
        before = await place.bridge.flow_count()
        asked = stub.asked

        async def told(since, **ports):
            await place.agent.differ(Differences(members=(
                GroupMembers(id="f", n=since + 1, era="e", since=since, ports=ports),)))

        async def silent():
            return not await one.pings("10.77.1.12")

        async def heard():
            return await one.pings("10.77.1.12")
        await told(1, **{"11": ()})
        assert await eventually(silent) and await three.pings("10.77.1.12")
        assert await place.bridge.flow_count() == before - 1
        await told(2, **{"11": ("10.77.1.11/32",), "14": ()})
        assert await eventually(heard) and stub.asked == asked
        await told(7, **{"11": ()})  # something was missed: it is asked for
        stub.more["members"] = (GroupMembers(id="f", n=8, era="e", since=3, ports={"11": ()}),)
        assert await eventually(silent) and stub.asked == asked + 1
        await asyncio.sleep(0.5)
        assert await place.agent.table.stands()


async def test_stateless_groups_and_open_ports():
    net = network()
    plain = group("plain", allow("udp"), allow("icmp", 8), stateful=False)
    stub = NetworkStub([net], [port(11, net, security_groups=("plain",)), port(12, net, port_security=False)], [plain])
    async with lab(stub) as place:
        one, two = [await place.guest(p) for p in stub.ports]
        await place.wire(one, two)
        assert await two.pings("10.77.1.11")  # echo request let in; the answer goes out by the egress rules
        assert not await one.pings("10.77.1.12")  # its answer needs a rule of its own
