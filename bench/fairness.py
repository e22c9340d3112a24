"""What one project's attack costs another project.

    python bench/fairness.py [--seconds 20] [--connections 200] [--json FILE] [ATTACK ...]

A cloud of its own (`nacre up --hypervisor fake`, SQLite). A member of one project (the attacker, processes of its own,
so many connections) sends one kind of request as fast as it is answered; a member of another (the bystander, one
connection) lists its servers and changes one's metadata in turn, all along. Measured for each attack, and without any:
the bystander's reads and writes (ms), the attacker's answers by status, and by how many MB control grew.
"""

import argparse
import asyncio
import json
import multiprocessing
import platform
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from boot import Bench
from client import Cloud, summary, timed
from growth import Running

#: The bystander's 99th percentile shall stay below (ms), and control's growth (MB).
READ, WRITE, GROWTH = 250, 1000, 50


def attacks(bench: Bench) -> dict[str, tuple[str, bytes]]:
    """name -> (path of compute's API, body; none: a GET)."""
    server = {"name": "x", "imageRef": bench.image, "flavorRef": bench.flavor, "networks": "none"}

    def body(hints: Any = None, **more: Any) -> bytes:
        return json.dumps({"server": server | more, "os:scheduler_hints": hints or {}}).encode()

    return {
        "over quota": ("/servers", body(min_count=500)),
        "two million": ("/servers", body(min_count=2_000_000)),
        "hints": ("/servers", body({"different_host": [str(n).rjust(36, "0") for n in range(10_000)]})),
        "nested": ("/servers", b'{"server": ' + b"[" * 333 + b"]" * 333 + b"}"),
        "a zone that is not there": ("/servers", body(availability_zone="nowhere")),
        "lists": ("/servers/detail", b""),
    }


def attack(url: str, token: str, request: tuple[str, bytes], connections: int, seconds: float) -> Counter[int]:
    """Answers by their status; 0: the connection broke."""
    return asyncio.run(_attack(url, token, request, connections, seconds))


async def _attack(url: str, token: str, request: tuple[str, bytes], connections: int, seconds: float) -> Counter[int]:
    root, (path, body), found = urlsplit(url), request, Counter[int]()
    head = (f"{'POST' if body else 'GET'} {root.path}{path} HTTP/1.1\r\nHost: {root.netloc}\r\n"
            f"X-Auth-Token: {token}\r\nOpenStack-API-Version: compute 2.90\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}"
            "\r\n\r\n").encode() + body
    end = time.monotonic() + seconds

    async def one() -> None:
        while time.monotonic() < end:
            try:
                reader, writer = await asyncio.open_connection(root.hostname, root.port)
                while time.monotonic() < end:
                    writer.write(head)
                    answer = (await reader.readuntil(b"\r\n\r\n")).lower()
                    await reader.readexactly(int(answer.partition(b"content-length: ")[2].split(b"\r\n")[0]))
                    found[int(answer[9:12])] += 1
                writer.close()
            except (OSError, asyncio.IncompleteReadError):
                found[0] += 1
                await asyncio.sleep(0.1)

    await asyncio.gather(*(one() for _ in range(connections)))
    return found


def bystand(bench: Bench, server: str, seconds: float) -> tuple[list[float], list[float]]:
    """Milliseconds of reads and of writes."""
    reads, writes, end = list[float](), list[float](), time.monotonic() + seconds
    while time.monotonic() < end:
        reads.append(timed(bench.cloud.call, "GET", "compute", "/servers/detail")[0])
        writes.append(timed(bench.cloud.call, "PUT", "compute", f"/servers/{server}/metadata",
                            {"metadata": {"n": str(len(writes))}})[0])
        time.sleep(0.01)
    return reads, writes


def measure(running: Running, names: list[str], seconds: float, connections: int) -> dict[str, Any]:
    """Every attack after the other."""
    clouds = str(running.folder / "clouds.yaml")
    bench, attacker = Bench(Cloud("demo-alt", clouds)), Cloud("demo", clouds)
    server = bench.create("bystander", False)
    bench.wait_active(server)
    found: dict[str, Any] = {}
    context = multiprocessing.get_context("spawn")
    for name, request in {"nothing": None, **attacks(bench)}.items():
        if names and name not in names and request:
            continue
        before = running.memory_mb()
        with ProcessPoolExecutor(1, mp_context=context) as others:
            work = others.submit(attack, attacker.roots["compute"], attacker.token, request, connections,
                                 seconds) if request else None
            reads, writes = bystand(bench, server, seconds)
            answers = dict(work.result()) if work else {}
        found[name] = {"reads": summary(reads), "writes": summary(writes), "answers": answers,
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
