"""How control processes bear the reports of very many hosts.

    python bench/reports.py --hosts 10000 --seconds 60 [--controls 3 --database postgresql://...] [--period 10]
                            [--changes 0.05] [--workers 2] [--json FILE]

What is real: the control processes are the product's own (`nacre control`, all its services; SQLite in a temporary data
folder, or several over an empty PostgreSQL). Every host has a CURVE key of its own that control knows by its name
(`rpc.node_keys`), and a ZeroMQ connection of its own to each control by the product's own socket settings: 10,000 hosts
are 10,000 connections to each, as a node may speak only for itself. Messages are made by the product's contracts and
codec. Each host does what `node/service.py` does: a hello to each control, again if it is not known there any more,
then every period a beat to each. One host more is a real one, with the simulated hypervisor. What is not: the others
have no guests and take no orders, and they share worker processes on the same machine, whose CPU time is not control's
but is taken from the same cores.

Measured, after all hosts were greeted by all: each control's CPU (user and system, all threads) and memory (PSS), the
database's transactions, the time from a beat's sending to its answer, of a call that control answers from its database,
of a server's show in the API, of a create to its 202, and to ACTIVE on the real host.
"""

import argparse
import json
import multiprocessing
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import msgspec
import psycopg

from bench.client import Cloud
from bench.hosts import Figures, Orders, work
from bench.join import nacre, picture
from nacre.base.rpc.keys import KeyPair, load_keys, new_keys
from nacre.cli.supervisor import free_port

#: Seconds between two reads of the API, and between two creates.
READS, CREATES = 0.2, 2.0
#: Descriptors that a session takes: its connection, its socket's queue, and its monitor's two.
DESCRIPTORS = 5


class ControlProcess:
    """`nacre control` over a data folder of its own, and what it costs. beside: a control of the same cloud, or None;
    database: the cloud's URL, "" for SQLite in the folder."""

    def __init__(self, folder: Path, nodes: dict[str, KeyPair], database: str, beside: "ControlProcess | None"):
        self.folder, self.port, self.rpc_port = folder, free_port(), free_port()
        for name in ("run", "logs", "control"):
            (folder / name).mkdir(mode=0o700, parents=True)
        for secret in ("seal-key", "passwords.json", "first-rows") if beside else ():
            shutil.copy(beside.folder / "control" / secret, folder / "control" / secret)
        where = f"database_url = '{database}'\n" if database else ""
        keys = "".join(f"{name} = '{pair.public}'\n" for name, pair in nodes.items())
        (folder / "nacre.toml").write_text(
            f"hypervisor = 'fake'\nport = {self.port}\nlog_level = 'WARNING'\n{where}[rpc]\nport = {self.rpc_port}\n"
            f"[rpc.node_keys]\n{keys}")
        self.key = load_keys(folder / "control" / "rpc-key.json").public
        self._environ = {k: v for k, v in os.environ.items() if not k.startswith("NACRE_")}
        if beside is None:
            self._run("db", "prepare").wait()
        self.process = self._run("control")
        end = time.monotonic() + 60
        while not self._answers():
            if time.monotonic() > end or self.process.poll() is not None:
                raise SystemExit((folder / "logs" / "control.log").read_text()[-3000:])
            time.sleep(0.1)

    def _run(self, *command: str) -> "subprocess.Popen[bytes]":
        with (self.folder / "logs" / f"{command[0]}.log").open("ab") as out:
            return subprocess.Popen([sys.executable, "-m", "nacre.cli.main", *command, "--data", str(self.folder)],
                                    stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=self._environ)

    def _answers(self) -> bool:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{self.port}/identity/v3", timeout=5)
        except urllib.error.HTTPError:
            return True
        except OSError:
            return False
        return True

    def memory_mb(self) -> float:
        """Its proportional set size."""
        rows = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text().splitlines()
        return round(next(int(r.split()[1]) for r in rows if r.startswith("Pss:")) / 1024, 1)

    def figures(self) -> dict[str, Any]:
        """As of now."""
        cpu, threads = self.cpu_seconds()
        return {"cpu": cpu, "threads": threads, "mb": self.memory_mb(), "connections": self.connections()}

    def cpu_seconds(self) -> tuple[float, dict[str, float]]:
        """Of the process, and of each of its threads by name."""
        found: dict[str, float] = {}
        for task in Path(f"/proc/{self.process.pid}/task").iterdir():
            name = (task / "comm").read_text().strip()
            found[name] = found.get(name, 0.0) + used(task / "stat")
        return used(Path(f"/proc/{self.process.pid}/stat")), found

    def connections(self) -> int:
        """Established TCP connections to its RPC port."""
        local = f":{self.rpc_port:04X}"
        return sum(1 for row in Path("/proc/net/tcp").read_text().splitlines()[1:]
                   if row.split()[1].endswith(local) and row.split()[3] == "01")

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)


def used(stat: Path) -> float:
    """Seconds of processor time, of a process's or a thread's file."""
    fields = stat.read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Beside:
    """What users do meanwhile, at the first control: a host of their own is there when this is made."""

    def __init__(self, folder: Path, control: ControlProcess):
        self._data = str(folder / "real")
        nacre("join", nacre("token", "create", "--data", str(control.folder)).strip(), "--name", "real",
              "--hypervisor", "fake", "--data", self._data)
        self._file = str(control.folder / "clouds.yaml")
        self._image = picture(Cloud("nacre", self._file))
        self._stop = threading.Event()
        self.show, self.create, self.active = list[float](), list[float](), list[float]()
        self._threads = [threading.Thread(target=each, daemon=True) for each in (self._read, self._make)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            if thread.ident:
                thread.join(60)
        nacre("down", "--data", self._data)

    def _server(self, cloud: Cloud) -> str:
        begin = time.perf_counter()
        server: str = cloud.call("POST", "compute", "/servers", {"server": {
            "name": "beside", "imageRef": self._image, "flavorRef": "42", "networks": "none",
            "availability_zone": "nova:real"}})["server"]["id"]
        accepted = time.perf_counter()
        while (seen := cloud.call("GET", "compute", f"/servers/{server}")["server"])["status"] != "ACTIVE":
            if seen["status"] == "ERROR":
                raise SystemExit(seen["fault"]["message"])
            time.sleep(0.02)
        self.create.append(accepted - begin)
        self.active.append(time.perf_counter() - begin)
        return server

    def _read(self) -> None:
        cloud = Cloud("nacre", self._file)
        server = self._server(cloud)
        while not self._stop.wait(READS):
            begin = time.perf_counter()
            cloud.call("GET", "compute", f"/servers/{server}")
            self.show.append(time.perf_counter() - begin)

    def _make(self) -> None:
        cloud = Cloud("nacre", self._file)
        while not self._stop.wait(CREATES):
            cloud.call("DELETE", "compute", f"/servers/{self._server(cloud)}")


def transactions(url: str) -> int:
    """How many the database has committed or taken back so far; reads are taken back."""
    if not url:
        return 0
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT xact_commit + xact_rollback FROM pg_stat_database "
                                 "WHERE datname = current_database()").fetchone()
        assert row is not None
        return int(row[0])


def spread(seconds: list[float]) -> dict[str, float]:
    """Median, p99 and the greatest, in ms."""
    ordered = sorted(seconds) or [0.0]
    return {name: round(1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))], 2)
            for name, share in (("median", 0.5), ("p99", 0.99), ("max", 1.0))}


def measure(args: argparse.Namespace, controls: list[ControlProcess], nodes: dict[str, KeyPair],
            beside: Beside) -> dict[str, Any]:
    """The whole run over control processes that wait."""
    spawn = multiprocessing.get_context("spawn")
    begin, stop, joined, results = spawn.Event(), spawn.Event(), spawn.Value("i", 0), spawn.Queue()
    empty, names = [control.memory_mb() for control in controls], list(nodes)
    parts = [Orders(controls=[(f"tcp://127.0.0.1:{c.rpc_port}", c.key) for c in controls], period=args.period,
                    join=args.join, changes=args.changes, hosts={n: nodes[n] for n in names[w::args.workers]})
             for w in range(args.workers)]
    workers = [spawn.Process(target=work, daemon=True,
                             args=(msgspec.msgpack.encode(p), (begin, stop, joined, results)))
               for p in parts]
    started, first = time.monotonic(), transactions(args.database)
    for worker in workers:
        worker.start()
    while joined.value < args.hosts * len(controls):
        if time.monotonic() - started > args.join + args.patience:
            stop.set()
            said = "".join((control.folder / "logs" / "control.log").read_text()[-2000:] for control in controls)
            raise SystemExit(f"{said}\nonly {joined.value} sessions began; {[c.figures() for c in controls]}")
        time.sleep(0.1)
    greeted, greeting = time.monotonic() - started, transactions(args.database) - first
    time.sleep(args.period)
    if not args.alone:
        beside.start()
    before, first = [control.figures() for control in controls], transactions(args.database)
    hosts = sum(used(Path(f"/proc/{worker.pid}/stat")) for worker in workers)
    begin.set()
    at = time.monotonic()
    time.sleep(args.seconds)
    took, after = time.monotonic() - at, [control.figures() for control in controls]
    steady = transactions(args.database) - first
    hosts = sum(used(Path(f"/proc/{worker.pid}/stat")) for worker in workers) - hosts
    stop.set()
    seen = [msgspec.msgpack.decode(results.get(timeout=60), type=Figures) for _ in workers]
    for worker in workers:
        worker.join(30)
    reports = [r for s in seen for r in s.report]
    return {
        "hosts": args.hosts, "period_s": args.period, "changed_share": args.changes,
        "greeted_after_s": round(greeted, 1), "greeted_transactions": greeting,
        "hello_ms": spread([r for s in seen for r in s.hello]), "hellos_again": sum(s.again for s in seen),
        "transactions_per_s": round(steady / took, 1), "show_ms": spread(beside.show),
        "create_ms": spread(beside.create), "active_ms": spread(beside.active), "creates": len(beside.create),
        "reports_per_s": round(len(reports) / took, 1), "report_ms": spread(reports),
        "call_ms": spread([r for s in seen for r in s.call]), "failed": sum(s.failed for s in seen),
        "hosts_cpu": round(hosts / took, 3),
        "controls": [{
            "connections": old["connections"], "cpu": round((new["cpu"] - old["cpu"]) / took, 3),
            "cpu_by_thread": {n: round((s - old["threads"].get(n, 0.0)) / took, 3) for n, s in new["threads"].items()},
            "pss_mb": {"no hosts": mb, "all greeted": old["mb"], "at the end": new["mb"]}}
            for mb, old, new in zip(empty, before, after, strict=True)]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, default=10_000)
    parser.add_argument("--controls", type=int, default=1, help="how many (more than one: over --database)")
    parser.add_argument("--database", default="", help="an empty PostgreSQL's URL; SQLite without")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long is measured")
    parser.add_argument("--period", type=float, default=10.0, help="seconds between two reports of a host")
    parser.add_argument("--join", type=float, default=30.0, help="seconds over which the hosts come")
    parser.add_argument("--alone", action="store_true", help="no users beside: what the reports themselves cost")
    parser.add_argument("--changes", type=float, default=0.05, help="the share of reports that differ from the last")
    parser.add_argument("--workers", type=int, default=2, help="processes that the hosts share, at least: each "
                        "has no more connections than it may have descriptors")
    parser.add_argument("--patience", type=float, default=60.0, help="seconds after --join until it is given up")
    parser.add_argument("--json", default=None, help="also write the result here")
    args = parser.parse_args()
    nodes = {f"host-{n:05}": new_keys() for n in range(args.hosts)}
    controls, real = list[ControlProcess](), None
    args.workers = max(args.workers, args.hosts * args.controls * DESCRIPTORS // resource.getrlimit(
        resource.RLIMIT_NOFILE)[1] + 1)
    with tempfile.TemporaryDirectory(prefix="nacre-reports-") as folder:
        try:
            for n in range(args.controls):
                beside = controls[0] if n else None
                controls.append(ControlProcess(Path(folder) / f"c{n}", nodes, args.database, beside))
            real = Beside(Path(folder), controls[0])
            result = {"machine": f"{platform.machine()} {platform.release()}", "date": time.strftime("%Y-%m-%d"),
                      **measure(args, controls, nodes, real)}
        finally:
            if real is not None:
                real.stop()
            for control in controls:
                control.stop()
    print(json.dumps(result, indent=1))
    if args.json:
        Path(args.json).write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
