"""What one project's attack costs another project.

    python bench/fairness.py [--seconds 20] [--connections 200] [--json FILE] [ATTACK ...]

A cloud of its own (`nacre up --hypervisor fake`, SQLite). A member of one project, or somebody without a token (the
attacker: processes of its own, so many connections, an address of its own), does one kind of thing as fast as it is
answered; a member of another (the bystander, one connection) lists its servers and changes one's metadata in turn, all
along; while logins are attacked, it logs in too. Measured for each attack, and without any: the bystander's reads,
writes and logins (ms), the attacker's answers by status (0: the connection was ended), and by how many MB the cloud's
processes grew, at most while it went on and two seconds after.
"""

import argparse
import asyncio
import json
import multiprocessing
import platform
import resource
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from boot import Bench
from client import Cloud, summary, timed
from growth import Running

#: The bystander's 99th percentile shall stay below (ms), and control's growth (MB).
READ, WRITE, GROWTH = 250, 1000, 50
#: Where the attacker's connections come from.
SOURCE = "127.0.0.2"


@dataclass(frozen=True)
class Attack:
    """kind: one of KINDS; head and body: what is sent. connections: None: as many as the option says."""

    kind: str
    head: bytes
    body: bytes = b""
    connections: int | None = None


def attacks(bench: Bench, attacker: Cloud) -> dict[str, Attack]:
    """By name."""
    server = {"name": "x", "imageRef": bench.image, "flavorRef": bench.flavor, "networks": "none"}

    def asked(what: str, service: str, path: str, token: bool = True) -> bytes:
        root = urlsplit(attacker.roots[service])
        return (f"{what} {root.path}{path} HTTP/1.1\r\nHost: {root.netloc}\r\nContent-Type: application/json\r\n"
                "OpenStack-API-Version: compute 2.90\r\n"
                + (f"X-Auth-Token: {attacker.token}\r\n" if token else "")).encode()

    def create(hints: Any = None, **more: Any) -> Attack:
        return Attack("ask", asked("POST", "compute", "/servers"), json.dumps(
            {"server": server | more, "os:scheduler_hints": hints or {}}).encode())

    login = json.dumps({"auth": {"identity": {"methods": ["password"], "password": {"user": {
        "name": "demo-alt", "domain": {"id": "default"}, "password": "wrong"}}}}}).encode()
    record = json.dumps({"name": "x" * 255, "disk_format": "raw", "container_format": "bare"} | {
        f"p{n}": "x" * 255 for n in range(100)}).encode()
    return {
        "over quota": create(min_count=500),
        "two million": create(min_count=2_000_000),
        "hints": create({"different_host": [str(n).rjust(36, "0") for n in range(10_000)]}),
        "hints that a body holds": create({"different_host": [str(n).rjust(36, "0") for n in range(2_800)]}),
        "nested": Attack("ask", asked("POST", "compute", "/servers"), b'{"server": ' + b"[" * 333 + b"]" * 333 + b"}"),
        "a zone that is not there": create(availability_zone="nowhere"),
        "lists": Attack("ask", asked("GET", "compute", "/servers/detail")),
        "a head without end": Attack("drip", b"GET / HTTP/1.1\r\n" + b"X-Long: " + b"x" * (1 << 16), b"x" * (1 << 16)),
        "half-open connections": Attack("hold", b"GET / HTTP/1.1\r\nHost:", connections=5000),
        "slow bodies": Attack("hold", asked("POST", "compute", "/servers") + b"Content-Length: 110000\r\n\r\n"
                              + b" " * 60_000),
        "bad logins": Attack("ask", asked("POST", "identity", "/v3/auth/tokens", token=False), login, 300),
        "image records": Attack("ask", asked("POST", "image", "/images"), record),
        "the longest hints": create({"mine": "x" * 16_300}),
    }


def attack(root: str, given: Attack, connections: int, seconds: float) -> Counter[int]:
    """Answers by their status; 0: the connection broke."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return asyncio.run(_attack(root, given, given.connections or connections, seconds))


async def _attack(root: str, given: Attack, connections: int, seconds: float) -> Counter[int]:
    url, found, end = urlsplit(root), Counter[int](), time.monotonic() + seconds

    async def one() -> None:
        while time.monotonic() < end:
            try:
                reader, writer = await asyncio.open_connection(url.hostname, url.port, local_addr=(SOURCE, 0))
                try:
                    async with asyncio.timeout(end - time.monotonic()):
                        await KINDS[given.kind](reader, writer, given, found)
                finally:
                    writer.transport.abort()
            except TimeoutError:
                return
            except (OSError, asyncio.IncompleteReadError):
                found[0] += 1
                await asyncio.sleep(0.1)

    await asyncio.gather(*(one() for _ in range(connections)))
    return found


async def _answer(reader: asyncio.StreamReader, found: Counter[int]) -> None:
    answer = (await reader.readuntil(b"\r\n\r\n")).lower()
    await reader.readexactly(int(answer.partition(b"content-length: ")[2].split(b"\r\n")[0] or 0))
    found[int(answer[9:12])] += 1


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, given: Attack, found: Counter[int]) -> None:
    """Again and again, as fast as it is answered."""
    whole = given.head + b"Content-Length: %d\r\n\r\n" % len(given.body) + given.body
    while True:
        writer.write(whole)
        await _answer(reader, found)


async def _drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, given: Attack, found: Counter[int]) -> None:
    """More of the same, without end."""
    writer.write(given.head)
    answer = asyncio.ensure_future(_answer(reader, found))
    try:
        while not answer.done():
            writer.write(given.body)
            await writer.drain()
            await asyncio.sleep(0)
        await answer
    finally:
        answer.cancel()
        await asyncio.gather(answer, return_exceptions=True)


async def _hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, given: Attack, found: Counter[int]) -> None:
    """One byte a second, until it is ended."""
    writer.write(given.head)
    answer = asyncio.ensure_future(_answer(reader, found))
    try:
        while not (await asyncio.wait([answer], timeout=1))[0]:
            writer.write(b" ")
        await answer
    finally:
        answer.cancel()
        await asyncio.gather(answer, return_exceptions=True)


KINDS: dict[str, Callable[[asyncio.StreamReader, asyncio.StreamWriter, Attack, Counter[int]], Awaitable[None]]] = {
    "ask": _ask, "drip": _drip, "hold": _hold}


def bystand(bench: Bench, server: str, seconds: float, logins: bool) -> dict[str, list[float]]:
    """Milliseconds of reads and of writes, and of logins."""
    reads, writes, others, end = list[float](), list[float](), list[float](), time.monotonic() + seconds
    while time.monotonic() < end:
        reads.append(timed(bench.cloud.call, "GET", "compute", "/servers/detail")[0])
        writes.append(timed(bench.cloud.call, "PUT", "compute", f"/servers/{server}/metadata",
                            {"metadata": {"n": str(len(writes))}})[0])
        if logins:
            others.append(timed(bench.cloud.login)[0])
        time.sleep(0.01)
    return {"reads": reads, "writes": writes} | ({"logins": others} if logins else {})


class Peak:
    """The most memory (MB) while it is entered."""

    def __init__(self, running: Running):
        self._running, self._end, self.most = running, threading.Event(), 0.0
        self._watch = threading.Thread(target=self._look)

    def _look(self) -> None:
        while not self._end.wait(1):
            self.most = max(self.most, self._running.memory_mb())

    def __enter__(self) -> "Peak":
        self._watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._watch.join()


def measure(running: Running, names: list[str], seconds: float, connections: int) -> dict[str, Any]:
    """Every attack after the other."""
    clouds = str(running.folder / "clouds.yaml")
    bench, attacker = Bench(Cloud("demo-alt", clouds)), Cloud("demo", clouds)
    server = bench.create("bystander", False)
    bench.wait_active(server)
    found: dict[str, Any] = {}
    context = multiprocessing.get_context("spawn")
    for name, given in {"nothing": None, **attacks(bench, attacker)}.items():
        if names and name not in names and given:
            continue
        if name == "the longest hints":
            Bench(Cloud("nacre", clouds)).lift(attacker, 300)
        before = running.memory_mb()
        with ProcessPoolExecutor(1, mp_context=context) as others, Peak(running) as peak:
            work = others.submit(attack, attacker.roots["compute"], given, connections, seconds) if given else None
            times = bystand(bench, server, seconds, name in ("nothing", "bad logins"))
            answers = dict(work.result()) if work else {}
        time.sleep(2)
        found[name] = {kind: summary(each) for kind, each in times.items()} | {
            "answers": answers, "most_mb": round(peak.most - before, 1),
            "grew_mb": round(running.memory_mb() - before, 1)}
        print(f"{name}: {json.dumps(found[name])}", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("attacks", nargs="*")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--connections", type=int, default=200)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="nacre-fairness-") as folder:
        running = Running(Path(folder))
        with running as admin:
            admin.cloud.raw("PATCH", f"{admin.cloud.roots['image']}/images/{admin.image}",
                            b'[{"op": "replace", "path": "/visibility", "value": "public"}]',
                            {"Content-Type": "application/openstack-images-v2.1-json-patch"})
            found = measure(running, given.attacks, given.seconds, given.connections)
    if given.json:
        given.json.write_text(json.dumps({"machine": platform.processor(), "attacks": found}, indent=1))
    late = [name for name, each in found.items() if each["reads"]["p99_ms"] > READ
            or each["writes"]["p99_ms"] > WRITE or each["grew_mb"] > GROWTH]
    sys.exit(f"too slow, or too much memory: {', '.join(late)}" if late else 0)


if __name__ == "__main__":
    main()
