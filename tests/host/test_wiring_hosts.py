"""Two simulated hosts (a namespace and an Open vSwitch each): tunnels between them, and a vswitchd that dies."""

import asyncio
import json
import shutil
import sys
import tempfile
import uuid
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from nacre.base.shell import run
from tests.host.wiring_lab import able, arp, ether, ipv4, network, port, udp

pytestmark = [pytest.mark.host, pytest.mark.skipif(not able(), reason="needs root, Open vSwitch, dnsmasq, udhcpc")]


class Host:
    """A simulated host, driven by its standard input."""

    def __init__(self, process):
        self.process = process

    async def __call__(self, *words):
        self.process.stdin.write(json.dumps(words).encode() + b"\n")
        return await self.answer()

    async def answer(self):
        while line := await asyncio.wait_for(self.process.stdout.readline(), 30):
            try:
                return json.loads(line)
            except ValueError:
                continue  # a log line
        raise EOFError((await self.process.stderr.read()).decode()[-3000:])


@asynccontextmanager
async def hosts(kind="same"):
    names = [f"ntw-{number}-{uuid.uuid4().hex[:8]}" for number in (1, 2)]
    folders = [tempfile.mkdtemp(prefix="nacre-ovs-") for _ in names]
    made = []
    try:
        for name in names:
            await run(["ip", "netns", "add", name])
            await run(["ip", "-n", name, "link", "set", "lo", "up"])
        await run(["ip", "-n", names[0], "link", "add", "eth1", "type", "veth", "peer", "name", "eth1", "netns",
                   names[1]])
        for number, (name, folder) in enumerate(zip(names, folders, strict=True), 1):
            await run(["ip", "-n", name, "link", "set", "eth1", "up", "mtu", "1600"])
            await run(["ip", "netns", "exec", name, "ethtool", "-K", "eth1", "tx", "off"])
            made.append(Host(await asyncio.create_subprocess_exec(
                "nsenter", f"--net=/run/netns/{name}", sys.executable, str(Path(__file__).with_name("wiring_peer.py")),
                str(number), folder, kind, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE)))
        for host in made:
            assert await host.answer() == "ready"
        yield made
    finally:
        for host in made:
            host.process.stdin.close()
            try:
                await asyncio.wait_for(host.process.communicate(), 20)
            except TimeoutError:
                host.process.kill()
        for name, folder in zip(names, folders, strict=True):
            await run(["ip", "netns", "del", name], ok=(0, 1))
            shutil.rmtree(folder, ignore_errors=True)


async def reaches(host, address):
    """The first frame between two hosts may be lost: Open vSwitch in user space looks for the other one by it."""
    return any([await host("ping", address) for _ in range(3)])


async def test_tunnels_dhcp_stays_local_and_a_dead_vswitchd_is_mended():
    async with hosts() as (one, two):
        assert await reaches(one, "10.77.1.12")
        listening = asyncio.create_task(two("heard", 3.0))
        await asyncio.sleep(0.3)
        assert await one("lease") == "10.77.1.11"  # from the DHCP port of its own host
        dhcp = network().dhcp_mac.replace(":", "")
        frames = [frame for frame in await listening if frame[12:24] != dhcp]
        assert not [frame for frame in frames if frame[24:28] == "0800"], "DHCP of host 1 was heard on host 2"
        assert (await one("curl", "/latest/meta-data/local-ipv4"))[1] == "10.77.1.11"
        assert (await two("curl", "/latest/meta-data/local-ipv4"))[1] == "10.77.1.12"

        assert await two("crash")
        for _ in range(40):
            if await one("ping", "10.77.1.12"):
                break
        else:
            raise AssertionError("the flows did not come back")
        assert await two("lease") == "10.77.1.12"


async def test_frames_go_to_hosts_of_the_network_only_and_who_is_known_is_answered_for():
    async with hosts() as (one, two):
        async def heard_of(question, address):
            """What the asker and the other guest hear of a question, without what is their own business."""
            listening = asyncio.create_task(two("heard", 2.0))
            await asyncio.sleep(0.3)
            answers = await one(question, address)
            return [f for f in answers if f[12:24] == "fa163e00010c"], [
                f for f in await listening if f[12:24] == "fa163e00010b" and f[24:28] in ("0806", "86dd")]

        assert await reaches(one, "10.77.1.12") and await reaches(two, "10.77.1.11")
        answers, heard = await heard_of("ask", "10.77.1.12")
        assert len(answers) == 1 and not heard, "the other guest is asked for what is known"
        assert answers[0][40:44] == "0002" and answers[0][44:64] == "fa163e00010c" + "0a4d010c"
        answers, heard = await heard_of("ask", "2001:db8::12")
        assert len(answers) == 1 and not heard and answers[0][108:110] == "88" and answers[0].endswith("fa163e00010c")
        answers, heard = await heard_of("ask", "10.77.1.99")
        assert not answers and len(heard) == 1, "what nobody is known to have is asked of everybody"

        assert await two("apart", 1)
        _, heard = await heard_of("ask", "10.77.1.99")
        assert not heard and not await reaches(one, "10.77.1.12"), "frames are taken from a host without such ports"
        assert await one("apart", 1)
        _, heard = await heard_of("ask", "10.77.1.12")
        assert not heard


async def test_a_host_that_a_router_joins_to_a_network_sends_routed_frames_there_and_no_others():
    async with hosts("joined") as (one, two):
        assert await reaches(one, "10.77.2.12") and await reaches(two, "10.77.1.11")
        guest, leg, stranger = port(12, network(2)).mac_address, "fa:16:3e:aa:00:02", "fa:16:3e:00:01:0b"
        packet = ipv4("10.77.1.11", "10.77.2.12", 17, udp(1000, 2000))
        everybody = "ff:ff:ff:ff:ff:ff"
        frames = {
            "routed": ether(guest, leg, 0x0800, packet), "routed to all": ether(everybody, leg, 0x0800, packet),
            "as itself": ether(guest, stranger, 0x0800, packet),
            "ARP": ether(everybody, stranger, 0x0806, arp(1, stranger, "10.77.2.1", "10.77.2.12")),
            "ARP as the router": ether(guest, leg, 0x0806, arp(2, leg, "10.77.2.1", "10.77.2.12"))}
        listening = asyncio.create_task(two("heard", 3.0))
        await asyncio.sleep(0.5)
        for frame in frames.values():
            assert await one("forge", network(2).segmentation_id, "172.31.77.2", frame.ljust(60, b"\0").hex())
        heard = [bytes.fromhex(frame) for frame in await listening]
        assert [name for name, frame in frames.items() if any(each.startswith(frame) for each in heard)] == ["routed"]
