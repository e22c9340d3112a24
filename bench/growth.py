"""What a create costs beside very many servers of the same project.

    python bench/growth.py [--sizes 0,20000,100000] [--count 200] [--rounds 3] [--json FILE]

A cloud of its own (`nacre up --hypervisor fake`, SQLite) makes one server with a port through the API and stops. Its
rows (server, allocation, history, port, binding, address, changes) are copied as often as asked, each with ids, MAC and
address of its own, on hosts that are silent; the counters of the quotas are raised by as much. Then the cloud starts
again, and `count` servers, on a network of their own, are made at concurrency 10, and some one after the other.

Measured, without and with a port: the time of the 202, creates a second until all are ACTIVE, deletes a second; and the
memory of the cloud's processes.
"""

import argparse
import json
import os
import platform
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from boot import POLL, Bench
from client import Cloud, timed

#: Hosts that the copies lie on.
HOSTS = 200
TABLES = ("servers", "allocations", "server_actions", "server_events", "server_tags", "ports", "port_bindings",
          "port_addresses", "port_binding_levels", "port_security_groups", "port_binding_groups", "changes")


class Running:
    """`nacre up` over a folder, while it is entered."""

    def __init__(self, folder: Path):
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self._environ = {k: v for k, v in os.environ.items() if not k.startswith("NACRE_")} | {
            "NACRE_PORT": str(port), "NACRE_FAKE_VCPUS": "100000", "NACRE_FAKE_MEMORY_MB": "100000000",
            "NACRE_FAKE_DISK_GB": "10000000", "NACRE_HYPERVISOR": "fake", "NACRE_LOG_LEVEL": "WARNING"}

    def nacre(self, *words: str) -> str:
        done = subprocess.run([sys.executable, "-m", "nacre.cli.main", *words, "--data", str(self.folder)],
                              check=False, env=self._environ, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(done.stdout + done.stderr)
        return done.stdout

    def __enter__(self) -> Bench:
        self.nacre("up", "-d")
        cloud = Cloud("nacre", str(self.folder / "clouds.yaml"))
        if not cloud.call("GET", "image", "/images")["images"]:
            image = cloud.call("POST", "image", "/images", {
                "name": "bench", "disk_format": "raw", "container_format": "bare"})["id"]
            cloud.raw("PUT", f"{cloud.roots['image']}/images/{image}/file", bytes(1 << 20),
                      {"Content-Type": "application/octet-stream"})
        bench = Bench(cloud)
        bench.lift_quotas()
        return bench

    def __exit__(self, *_: object) -> None:
        self.nacre("down")

    def memory_mb(self) -> float:
        """The proportional set size of all its processes."""
        total = 0
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if str(self.folder).encode() in (process / "cmdline").read_bytes():
                    rows = (process / "smaps_rollup").read_text().splitlines()
                    total += next(int(r.split()[1]) for r in rows if r.startswith("Pss:"))
            except OSError:
                continue
        return round(total / 1024, 1)


def copy(database: Path, server: str, numbers: range) -> None:
    """The rows that belong to the server once more for each number, and the counters."""
    connection = sqlite3.connect(database)
    connection.row_factory = sqlite3.Row
    (port,) = connection.execute("SELECT id FROM ports WHERE device_id = ?", (server,)).fetchone()
    allocations = [a for (a,) in connection.execute("SELECT id FROM allocations WHERE server_id = ?", (server,))]
    ids = {server, port, *allocations}
    for table in TABLES:
        counted = {c["name"] for c in connection.execute(f"PRAGMA table_info({table})")
                   if c["pk"] == 1 and c["type"] == "INTEGER"}
        rows = [{k: v for k, v in dict(row).items() if k not in counted}
                for row in connection.execute(f"SELECT * FROM {table}") if ids & {v for v in row if isinstance(v, str)}]
        for row in rows:
            names, marks = ", ".join(f'"{name}"' for name in row), ", ".join("?" * len(row))
            connection.executemany(f"INSERT INTO {table} ({names}) VALUES ({marks})",
                                   (tuple(numbered(row, ids, n).values()) for n in numbers))
    project, cores, ram = connection.execute(
        "SELECT project_id, vcpus, memory_mb FROM servers WHERE id = ?", (server,)).fetchone()
    more = len(numbers)
    connection.execute("UPDATE project_usage SET instances = instances + ?, cores = cores + ?, ram = ram + ? "
                       "WHERE project_id = ?", (more, more * cores, more * ram, project))
    connection.execute("UPDATE network_usage SET used = used + ? WHERE project_id = ? AND resource = 'port'",
                       (more, project))
    connection.commit()
    connection.execute("ANALYZE")
    connection.close()


def numbered(row: dict[str, Any], ids: set[str], n: int) -> dict[str, Any]:
    """Copy n of a row: what must be its own is."""
    again = {k: str(uuid.uuid5(uuid.NAMESPACE_OID, f"{v}{n}")) if v in ids else v for k, v in row.items()}
    if again.get("host"):
        again["host"] = f"silent-{n % HOSTS}"
    if "mac_address" in row:
        again["mac_address"] = ":".join(f"{byte:02x}" for byte in (0x0e << 40 | n).to_bytes(6, "big"))
    if "ip_address" in row:
        again["ip_address"] = f"10.{64 + (n + 1000 >> 16)}.{(n + 1000 >> 8) % 256}.{n + 1000 & 255}"
    return again


def template(bench: Bench) -> str:
    """A server with a port on a network of its own; its id."""
    net = bench.cloud.call("POST", "network", "/networks", {"network": {"name": "copies"}})["network"]["id"]
    bench.cloud.call("POST", "network", "/subnets", {"subnet": {
        "network_id": net, "ip_version": 4, "cidr": "10.64.0.0/12"}})
    bench.network, own = net, bench.network
    server = bench.create("template", True)
    bench.wait_active(server)
    bench.network = own
    return server


def crowd(bench: Bench, port: bool, count: int) -> dict[str, float]:
    """As `Bench.crowd`, but each is asked for by its id: a search by name looks at all servers of the project."""
    begin = time.perf_counter()
    with ThreadPoolExecutor(10) as pool:
        servers = list(pool.map(lambda n: bench.create(f"crowd{n}", port), range(count)))
    for server in servers:
        bench.wait_active(server)
    made = time.perf_counter()
    root = bench.cloud.roots["compute"] + "/servers/"
    with ThreadPoolExecutor(10) as pool:
        list(pool.map(lambda server: bench.cloud.raw("DELETE", root + server), servers))
    for server in servers:
        while bench.cloud.raw("GET", root + server)[0] != 404:
            time.sleep(POLL)
    return {"servers_per_s": round(count / (made - begin), 1),
            "deletes_per_s": round(count / (time.perf_counter() - made), 1)}


def sequential(bench: Bench, port: bool, rounds: int) -> dict[str, float]:
    """Medians, in milliseconds."""
    accepted, active = [], []
    for n in range(rounds):
        begin = time.perf_counter()
        took, server = timed(bench.create, f"seq{n}", port)
        accepted.append(took)
        bench.wait_active(server)
        active.append(1000 * (time.perf_counter() - begin))
        bench.cloud.raw("DELETE", bench.cloud.roots["compute"] + f"/servers/{server}")
    return {"202_ms": round(statistics.median(accepted), 2), "active_ms": round(statistics.median(active), 2)}


def measure(bench: Bench, running: Running, count: int, rounds: int) -> dict[str, Any]:
    """The figures at today's size."""
    figures: dict[str, Any] = {}
    for name, port in (("no port", False), ("port", True)):
        crowd(bench, port, 20)  # what is done once is done
        crowds = [crowd(bench, port, count) for _ in range(rounds)]
        figures[name] = sequential(bench, port, 20) | {
            word: statistics.median(each[word] for each in crowds) for word in ("servers_per_s", "deletes_per_s")}
    figures["pss_mb"] = running.memory_mb()
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="0,20000,100000")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", default=None, help="also write the result here")
    args = parser.parse_args()
    machine = f"{platform.machine()} {platform.release()}"
    result: dict[str, Any] = {"machine": machine, "date": time.strftime("%Y-%m-%d")}
    with tempfile.TemporaryDirectory(prefix="nacre-growth-") as folder:
        running, made = Running(Path(folder)), 0
        with running as bench:
            server = template(bench)
        for size in sorted(int(s) for s in args.sizes.split(",")):
            copy(Path(folder) / "control" / "nacre.db", server, range(made, size))
            made = size
            with running as bench:
                result[str(size)] = measure(bench, running, args.count, args.rounds)
            print(size, json.dumps(result[str(size)]), flush=True)
    if args.json:
        Path(args.json).write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
