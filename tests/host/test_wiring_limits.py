"""Interfaces are held to their rates, each way, and nobody else is: with namespaces for guests and exact counts."""

import asyncio
import socket
import time

import pytest

from nacre.base.shell import run
from nacre.node.servers.limits import Rate
from tests.host.wiring_lab import Guest, NetworkStub, able, allow, arp, ether, group, inside, lab, network, port

pytestmark = [pytest.mark.host, pytest.mark.timeout(120), pytest.mark.skipif(not able(), reason="needs root and OVS")]
BROADCAST = "255.255.255.255"


async def rates(sender: Guest, to: str, hearers: list[Guest], mbits: float = 8,
                size: int = 1000) -> list[float]:
    """Mbit/s that each of them gets, in the second and third second of what is sent at this rate."""
    got = dict.fromkeys(hearers, 0)
    sockets = [await inside(hearer.ns, listen) for hearer in hearers]
    begin = time.monotonic()

    def count(hearer: Guest, own: socket.socket) -> None:
        while time.monotonic() < begin + 3:
            try:
                own.recv(2000)
                if time.monotonic() > begin + 1:
                    got[hearer] += size + 42
            except TimeoutError:
                pass
        own.close()

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
            out.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            out.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
            sent = 0
            while (now := time.monotonic() - begin) < 3:
                if sent * 8 < now * mbits * 1e6:
                    out.sendto(b"x" * size, (to, 6000))
                    sent += size + 42
                else:
                    time.sleep(0.001)

    await asyncio.gather(inside(sender.ns, send), *(
        asyncio.to_thread(count, hearer, own) for hearer, own in zip(hearers, sockets, strict=True)))
    return [total * 8 / 2e6 for total in got.values()]


async def questions(sender: Guest, other: Guest) -> int:
    """How many of 20 ARP requests of one guest the other hears."""
    frame = ether("ff:ff:ff:ff:ff:ff", sender.port.mac_address, 0x0806, arp(
        1, sender.port.mac_address, sender.ip, "10.77.9.200"))

    async def ask() -> None:
        await asyncio.sleep(1)
        for _ in range(20):
            await sender.send(frame)
            await asyncio.sleep(0.05)

    heard, _ = await asyncio.gather(other.heard(2.8), ask())
    return sum(1 for one in heard if one[:42] == frame[:42])


def listen() -> socket.socket:
    own = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    own.bind(("", 6000))
    own.settimeout(0.1)
    return own


@pytest.mark.parametrize("secure", [True, False])
async def test_rates_hold_for_their_guest_only(secure: bool) -> None:
    net = network(9)
    ports = [port(n, net, port_security=secure) for n in (91, 92, 93)]
    async with lab(NetworkStub([net], ports, [group("open", allow())])) as place:
        sender, slow, other = [await place.guest(facts) for facts in ports]
        await place.agent.limit({slow.port.id: Rate(from_guest=2000, to_guest=1000)})
        await place.wire(sender, slow, other)
        for guest in (slow, other):
            assert await sender.pings(guest.ip)
        await rates(sender, slow.ip, [slow])  # what may pass at once has passed
        assert 0.9 < (await rates(sender, slow.ip, [slow]))[0] < 1.1
        # A frame that is one too many for one guest is not lost for those after it: broadcasts, and who is asked for.
        heard = await rates(sender, BROADCAST, [slow, other])
        assert (0.9 < heard[0] < 1.1 if secure else heard[0] > 7) and heard[1] > 7, heard
        _, asked = await asyncio.gather(rates(sender, slow.ip, [slow], 3, 18), questions(sender, other))
        assert asked == 20
        await rates(slow, other.ip, [other])
        assert 1.8 < (await rates(slow, other.ip, [other]))[0] < 2.2
        assert (await rates(other, sender.ip, [sender]))[0] > 7

        await place.agent.unwire([slow.port.id])
        for _ in range(50):
            said = await run(["ovs-ofctl", "-O", "OpenFlow14", "dump-meters", place.bridge.name])
            if b"rate=" not in said:
                break
            await asyncio.sleep(0.1)
        assert b"rate=" not in said
