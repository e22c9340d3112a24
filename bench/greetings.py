"""How long it takes until every control process knows every host when all say hello at the same moment.

    python bench/greetings.py --database postgresql://... [--hosts 100 1000 10000] [--controls 3]

What is real: each control is a process of its own with all its parts and background tasks, over one PostgreSQL, which
must be empty before. What is not: hosts have no connections, their words are handed to the conductor in the process;
what connections cost is what `bench/reports.py` measures. Afterwards each host reports ten times, as fast as they are
heard, 5 % of the reports with other usage than before.
"""

import argparse
import asyncio
import base64
import json
import multiprocessing
import random
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.hosts import Host, Orders
from bench.reports import transactions
from nacre.base.db import Database
from nacre.base.rpc.memory import MemoryTransport
from nacre.base.rpc.server import Peer
from nacre.cloud.control import Control, build_control
from nacre.conductor.contract import Beat, NodeHello
from nacre.config import load
from nacre.migrations import upgrade

#: Words that are on their way to a control at once.
AT_ONCE = 5000


async def control(name: str, database: str, counts: list[int], gate: Any) -> list[dict[str, float]]:
    """One control process: the figures for each count of hosts."""
    seal = base64.urlsafe_b64encode(b"b" * 32).decode()  # all of them have the same
    with tempfile.TemporaryDirectory(prefix="nacre-greetings-") as made:
        folder = Path(made)
        (folder / "control").mkdir()
        settings = load(folder, environ={
            "NACRE_HYPERVISOR": "fake", "NACRE_RPC_NAME": name, "NACRE_IDENTITY_SEAL_KEY": seal})
        db = Database(database)
        made_control = build_control(settings, MemoryTransport(me=Peer(name, "control")), db)
        async with made_control.running():
            found, first = [], 0
            for count in counts:
                found.append(await greet(made_control, first, count, gate))
                first += count
        await db.close()
        return found


async def greet(there: Control, first: int, count: int, gate: Any) -> dict[str, float]:
    """So many new hosts greet and report."""
    orders = Orders(controls=[], hosts={f"h{n}": None for n in range(first, first + count)},  # type: ignore[misc]
                    period=0, join=0, changes=0.05)
    dice, places = random.Random(1), asyncio.Semaphore(AT_ONCE)
    hosts = [Host(name, orders, None, dice) for name in orders.hosts]  # type: ignore[arg-type]
    await asyncio.to_thread(gate.wait)
    begin, used = time.monotonic(), time.process_time()

    async def hello(host: Host) -> None:
        beat = host.next()
        async with places:
            await there.conductor.hello(NodeHello(
                endpoint="tcp://127.0.0.1:1", public_key="", journal=beat.host, cloud="", position=0, beat=beat))

    async def say(beat: Beat) -> bool:
        async with places:
            return (await there.conductor.beat(beat)).again

    await asyncio.gather(*(hello(host) for host in hosts))
    known, known_cpu = time.monotonic() - begin, time.process_time() - used
    await asyncio.to_thread(gate.wait)
    begin, used, again = time.monotonic(), time.process_time(), 0
    for _ in range(10):
        again += sum(await asyncio.gather(*(say(host.next()) for host in hosts)))
    took = time.process_time() - used
    await asyncio.to_thread(gate.wait)
    return {"hosts": count, "known_s": round(known, 2), "hello_cpu_ms": round(1000 * known_cpu / count, 3),
            "reports_s": round(time.monotonic() - begin, 2), "report_cpu_us": round(1e6 * took / 10 / count, 1),
            "asked_again": again}


def work(name: str, database: str, counts: list[int], gate: Any, results: Any) -> None:
    """A process."""
    results.put(asyncio.run(control(name, database, counts, gate)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database", required=True)
    parser.add_argument("--hosts", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--controls", type=int, default=3)
    args = parser.parse_args()
    upgrade(args.database)
    spawn = multiprocessing.get_context("spawn")
    gate, results = spawn.Barrier(args.controls + 1), spawn.Queue()
    for n in range(args.controls):
        spawn.Process(target=work, args=(f"c{n}", args.database, args.hosts, gate, results), daemon=True).start()
    counted: list[list[int]] = []
    for _ in args.hosts:
        seen = []
        for _ in range(3):
            gate.wait()
            seen.append(transactions(args.database))
        counted.append([seen[1] - seen[0], seen[2] - seen[1]])
    figures = [results.get(timeout=60) for _ in range(args.controls)]
    print(json.dumps([{"transactions": count, "controls": each}
                      for count, *each in zip(counted, *figures, strict=True)], indent=1))


if __name__ == "__main__":
    main()
