"""How fast machines become hosts.

    python bench/join.py first [--hypervisor fake|libvirt] [--runs 3]   one `nacre join`, to the first ACTIVE server
    python bench/join.py many [--machines 1000] [--at-once 16] [--database postgresql://...]
                                                                        joins a minute at one control process

What is real: the control process, the tokens, the keys and the calls; in `first` the whole `nacre join` command with
its host, packages present. What is not: in `many` the machines are coroutines of one process that ask and go, and that
process takes its share of the same cores. Tokens are made before the time is taken.
"""

import argparse
import asyncio
import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.client import Cloud, summary
from nacre.base.clock import RealClock
from nacre.base.db import Database
from nacre.base.rpc.keys import new_keys
from nacre.cli.supervisor import free_port
from nacre.cloud import join_client, joining
from nacre.cloud.contract import JoinRequest
from nacre.config import load
from nacre.identity.keys.ring import Ring, Signer
from nacre.identity.keys.seal import Seal
from nacre.identity.keys.store import Keys


def nacre(*args: str) -> str:
    """A command of ours. Ends the benchmark if it fails."""
    done = subprocess.run([sys.executable, "-m", "nacre.cli.main", *args], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stdout


@contextmanager
def control(folder: Path, database: str) -> Iterator[None]:
    """A cloud of one control process and no host, over SQLite or an empty PostgreSQL."""
    port = free_port()
    if database:
        (folder / "cloud").mkdir()
        (folder / "cloud" / "nacre.toml").write_text(f"database_url = '{database}'\n")
        nacre("db", "prepare", "--data", str(folder / "cloud"))
    with (folder / "control.log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-m", "nacre.cli.main", "control", "--port", str(port), "--data",
                                    str(folder / "cloud")], stdout=log, stderr=log)
    try:
        end = time.monotonic() + 120
        while True:
            try:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
                connection.request("GET", "/healthcheck")
                if connection.getresponse().status == 200:
                    break
            except OSError:
                pass
            if time.monotonic() > end:
                raise SystemExit((folder / "control.log").read_text())
            time.sleep(0.05)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def first(folder: Path, hypervisor: str, n: int) -> dict[str, float]:
    """Seconds of one run: to the end of `nacre join`, and to the first ACTIVE server."""
    token = nacre("token", "create", "--data", str(folder / "cloud")).strip()
    admin, host = Cloud("nacre", str(folder / "cloud" / "clouds.yaml")), f"bench-{n}"
    image = picture(admin)
    begin = time.monotonic()
    nacre("join", token, "--name", host, "--hypervisor", hypervisor, "--data", str(folder / host))
    joined = time.monotonic() - begin
    try:
        server = admin.call("POST", "compute", "/servers", {"server": {
            "name": host, "imageRef": image, "flavorRef": "42", "networks": "none",
            "availability_zone": f"nova:{host}"}})["server"]["id"]
        while (seen := admin.call("GET", "compute", f"/servers/{server}")["server"])["status"] != "ACTIVE":
            if seen["status"] == "ERROR":
                raise SystemExit(seen["fault"]["message"])
            time.sleep(0.02)
        found = {"joined_s": round(joined, 2), "active_s": round(time.monotonic() - begin, 2)}
        admin.call("DELETE", "compute", f"/servers/{server}")
        while admin.raw("GET", f"{admin.roots['compute']}/servers/{server}")[0] != 404:
            time.sleep(0.05)
        return found
    finally:
        nacre("down", "--data", str(folder / host))


def picture(cloud: Cloud) -> str:
    """An image that any hypervisor takes; nothing boots from it."""
    image: str = cloud.call("POST", "image", "/images", {
        "name": "bench", "disk_format": "raw", "container_format": "bare"})["id"]
    cloud.raw("PUT", f"{cloud.roots['image']}/images/{image}/file", {"some": "bytes"},
              {"Content-Type": "application/octet-stream"})
    return image


async def many(folder: Path, machines: int, at_once: int) -> dict[str, Any]:
    """All of them join, so many at a time."""
    settings = load(folder / "cloud")
    db = Database(settings.database)
    keys = Keys(db, RealClock(), Seal(folder / "cloud" / "control" / "seal-key"), settings.identity.token_lifetime)
    signer = Signer(Ring(keys, "join"))
    tokens = [(await joining.create(db, RealClock(), signer, 3600.0))[0] for _ in range(machines)]
    await db.close()
    await asyncio.sleep(1.0)  # control has read of the last
    waiting, took = list(enumerate(tokens)), list[float]()

    async def worker() -> None:
        while waiting:
            n, text = waiting.pop()
            request = JoinRequest(token=text, name=f"machine-{n}", public_key=new_keys().public)
            begin = time.perf_counter()
            await join_client.join(request)
            took.append((time.perf_counter() - begin) * 1000)

    begin = time.monotonic()
    await asyncio.gather(*(worker() for _ in range(at_once)))
    seconds = time.monotonic() - begin
    return {"machines": machines, "seconds": round(seconds, 2), "joins_a_minute": round(machines / seconds * 60),
            "join": summary(took)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=["first", "many"])
    parser.add_argument("--hypervisor", choices=["fake", "libvirt"], default="fake")
    parser.add_argument("--database", default="", help="an empty PostgreSQL's URL; SQLite without")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--machines", type=int, default=1000)
    parser.add_argument("--at-once", type=int, default=16)
    args = parser.parse_args()
    for name in [n for n in os.environ if n.startswith("NACRE_")]:
        del os.environ[name]
    with tempfile.TemporaryDirectory(prefix="nacre-join-") as made:
        folder = Path(made)
        with control(folder, args.database):
            if args.what == "first":
                found: Any = [first(folder, args.hypervisor, n) for n in range(args.runs)]
            else:
                found = asyncio.run(many(folder, args.machines, args.at_once))
    print(json.dumps({"what": args.what, "load": os.getloadavg()[0], "found": found}, indent=1))


if __name__ == "__main__":
    main()
