"""Who is outside: next hops are asked for their MACs by ARP, and hear whose addresses are here.

A question goes out by packet-out; its answer lies for some seconds in the table HEARD, as a flow that a flow of
outside.py made of a frame that is just that answer, so neither strangers nor many frames come to this process. What was
heard counts until the same question had no answer three times.
"""

import re
import socket
import struct
from collections.abc import Mapping, Sequence
from typing import Protocol

import structlog

from nacre.base.bounds import pieces
from nacre.base.shell import CommandFailed
from nacre.node.routing.pipeline import HEARD, network_word
from nacre.node.routing.plan import Out

log = structlog.get_logger()

#: Seconds between questions to one that answers, to one that did not the last time, and (each time twice as long) to
#: one that never did; and how often one may not answer.
AGAIN, DOUBT, FIRST = 30.0, 10.0, 1.0
MISSES = 3
#: Seconds after a question at which its answer is looked for: it comes at once or late, and lies there for some.
LISTEN, LISTEN_AGAIN = (0.2, 0.45, 0.95, 2.0, 4.0, 7.0), (0.95, 7.0)
#: How often an address is announced, and the seconds in between.
TIMES, APART = 3, 2.0
#: The most frames of one program's run, and of one look.
AT_ONCE, MOST = 100, 500
_HEARD = re.compile(r"reg1=(0x[0-9a-f]+|\d+),reg2=(0x[0-9a-f]+|\d+) actions=load:0x([0-9a-f]+)->NXM_OF_ETH_DST")


class Program(Protocol):
    """`bridge.OpenFlow`."""

    async def run(self, verb: str, *args: str) -> bytes: ...


class _Hop:
    """What is known of one. asked: when it was last (None: never); pending: without an answer so far; looked: how often
    it was looked for. For that of one that did not answer before it is looked less often: each look is a program's run.
    """

    def __init__(self) -> None:
        self.mac: str | None = None
        self.asked: float | None = None
        self.pending, self.misses, self.looked = False, 0, 0

    def listens(self, now: float) -> bool:
        """Whether its answer is to be looked for now."""
        times = LISTEN_AGAIN if self.misses else LISTEN
        passed = sum(now - (self.asked or 0.0) >= after for after in times) if self.pending else 0
        news, self.looked = passed > self.looked, max(passed, self.looked)
        return news

    def due(self, now: float) -> bool:
        if self.asked is None:
            return True
        if self.mac is None:
            return now - self.asked >= min(AGAIN, FIRST * float(1 << min(self.misses, 5)))
        return now - self.asked >= (DOUBT if self.pending or self.misses else AGAIN)

    def ask(self, now: float) -> bool:
        """It is asked again. Whether it does not count any more."""
        self.misses += self.pending
        self.pending, self.asked, self.looked = True, now, 0
        gone = self.mac is not None and self.misses >= MISSES
        if gone:
            self.mac = None
        return gone

    def answer(self, mac: str) -> bool:
        """Whether that is news."""
        news, self.mac, self.pending, self.misses = self.mac != mac, mac, False, 0
        return news


class Hops:
    """Of all external networks that this host speaks on."""

    def __init__(self, program: Program):
        self._program = program
        self._out: Mapping[str, Out] = {}
        self._hops: dict[tuple[str, str], _Hop] = {}
        self._told: dict[tuple[str, str, str, str], tuple[int, float]] = {}  # how often yet, and not before when

    def follow(self, out: Mapping[str, Out]) -> None:
        """These are asked, and hear of these addresses, from now on."""
        self._out = out
        self._hops = {place: self._hops.get(place) or _Hop() for place in (
            (network, hop) for network, each in out.items() for hop in each.asks)}
        self._told = {place: self._told.get(place, (TIMES, 0.0)) for place in (
            (network, each.send, address, mac) for network, each in out.items()
            for address, mac in each.addresses.items())}

    def known(self) -> dict[str, dict[str, str]]:
        """External network -> next hop -> MAC, of those that answered."""
        found: dict[str, dict[str, str]] = {}
        for (network, hop), each in self._hops.items():
            if each.mac is not None:
                found.setdefault(network, {})[hop] = each.mac
        return found

    async def look(self, now: float) -> bool:
        """Hears, asks and announces what is due. Whether other next hops are known now. Raises CommandFailed."""
        listening = [each for each in self._hops.values() if each.listens(now)]
        news = await self._hear() if listening else False
        frames = list[tuple[str, str]]()
        for (network, hop), each in self._hops.items():
            if len(frames) < MOST and each.due(now):
                out = self._out[network]
                address, mac = out.asks[hop]
                news |= each.ask(now)
                frames.append((out.send, arp_request(mac, address, hop)))
        for place, (left, when) in self._told.items():
            if left and when <= now and len(frames) < MOST:
                _, send, address, mac = place
                frames.append((send, arp_request(mac, address, address)))
                self._told[place] = left - 1, now + APART
        for send in dict.fromkeys(send for send, _ in frames):
            await self._speak(send, [frame for to, frame in frames if to == send])
        return news

    async def _hear(self) -> bool:
        said = heard((await self._program.run("dump-flows", f"table={HEARD}")).decode())
        news = False
        for (network, hop), each in self._hops.items():
            if each.pending and (mac := said.get((network_word(network), hop))) is not None:
                news |= each.answer(mac)
        return news

    async def _speak(self, send: str, frames: Sequence[str]) -> None:
        """As many as can be sent are: what is wrong with one, or with a network, is not the others'."""
        for some in pieces(frames, AT_ONCE):
            try:
                await self._program.run("packet-out", "controller", send, *some)
            except CommandFailed as error:
                log.warning("frames are not sent outside", send=send, why=str(error))


def heard(text: str) -> dict[tuple[int, str], str]:
    """Of a dump of the table HEARD: (network's word, next hop) -> MAC. One that nobody can have is left out."""
    found = {}
    for network, hop, layer in _HEARD.findall(text):
        octets = int(layer, 16).to_bytes(8, "big")[-6:]
        if any(octets) and not octets[0] & 1:
            found[int(network, 0), socket.inet_ntoa(struct.pack("!I", int(hop, 0)))] = octets.hex(":")
    return found


def arp_request(mac: str, address: str, target: str) -> str:
    """Hex of a frame that asks everybody for the target; of one's own address, it tells whose it is."""
    layer = bytes.fromhex(mac.replace(":", ""))
    return (b"\xff" * 6 + layer + struct.pack("!HHHBBH", 0x0806, 1, 0x0800, 6, 4, 1) + layer
            + socket.inet_aton(address) + b"\0" * 6 + socket.inet_aton(target)).hex()
