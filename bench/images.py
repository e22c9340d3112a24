"""Images by where their data is: upload, a cold host's fetch, a fetch that goes on in the middle, a delete.

    python bench/images.py [--mb 256] [--rounds 3] [--stores file,shared,s3] [--json FILE]

Two control processes' parts (over one SQLite file) and one host's image cache, in one Python process and joined by
ZeroMQ with CURVE: all of them share one core, so figures are for comparing stores with each other and with an earlier
run. The image is raw and cannot be compressed. An upload is given to the first control process without HTTP; the host
asks the second one, which for the store `file` must ask the first. `s3` needs locks/s3.txt, and is moto's server in
.venv-s3, itself in Python and on this machine: not a figure of any real bucket.

Measured: MB/s of each, the best of the rounds; memory: how much the process grew since the image was in memory and the
libraries were loaded.
"""

import argparse
import asyncio
import contextlib
import hashlib
import json
import multiprocessing
import os
import platform
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.s3_lab import bucket, s3_server

from nacre import migrations
from nacre.base.clock import RealClock
from nacre.base.context import service_context
from nacre.base.db import Database
from nacre.base.rpc.keys import new_keys
from nacre.base.rpc.server import Peer
from nacre.base.rpc.stub import stub
from nacre.base.rpc.zmq import ZmqTransport
from nacre.identity.policy import PolicyEngine
from nacre.image.contract import TARGET, ImageFacts, Images
from nacre.image.data.cleanup import Cleanup
from nacre.image.data.locations import Alone, Locations, image_stores
from nacre.image.data.uploads import Uploads
from nacre.image.endpoint import ImagesEndpoint
from nacre.image.policies import POLICIES
from nacre.image.service import ImageService
from nacre.node.image_cache import CacheSettings, ImageCache

MB = 1 << 20
WHO = service_context("req-bench")


class Control(Alone):
    """One control process's images, and its way to the other."""

    def __init__(self, name: str, folder: Path, db: Database, options: dict[str, Any]):
        self.keys, self.db = new_keys(), db
        self.transport = ZmqTransport(Peer(name, "control"), self.keys, "tcp://127.0.0.1:0")
        data = Locations(name, image_stores(folder / name, **options), self)
        self.service = ImageService(db, PolicyEngine([POLICIES]), data, RealClock())
        self.uploads, self.cleanup = Uploads(self.service), Cleanup(self.service)
        self.transport.serve(TARGET, ImagesEndpoint(self.service), Images)

    async def read(self, process: str, image_id: str, offset: int, length: int) -> bytes:
        client = self.transport.client(TARGET).prepare(server=process)
        return await stub(Images, client).read(image_id, offset, length)


def join(one: ZmqTransport, topic: str, other: Control) -> None:
    """Lets `one` ask the other."""
    other.transport.directory.register(one.keys.public, one.me)
    one.directory.route(topic, other.transport.me.name, other.transport.address, other.keys.public)


async def as_it_is(download: Path, image: ImageFacts, to: Path, largest: int | None) -> None:
    """A raw image needs no conversion."""


async def chunks(data: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(data), 64 << 10):
        yield data[at:at + (64 << 10)]


async def one_round(one: Control, images: Images, data: bytes, folder: Path) -> dict[str, float]:
    """Seconds of each part."""
    took: dict[str, float] = {}

    @contextlib.contextmanager
    def timed(name: str) -> Any:
        begin = time.perf_counter()
        yield
        took[name] = time.perf_counter() - begin

    made = await one.service.create(WHO, {"disk_format": "raw", "container_format": "bare", "visibility": "public"})
    with timed("upload"):
        await one.uploads.upload(WHO, made.id, chunks(data), len(data))
    facts = await one.service.find(WHO, made.id)
    with timed("fetch"):
        await new_cache(folder / "cold", images).fetch(facts)
    half = asyncio.Event()
    cache = new_cache(folder / "half", images)
    first = asyncio.create_task(cache.fetch(
        facts, None, lambda done, _: half.set() if done >= len(data) // 2 else None))
    await half.wait()
    first.cancel()
    await cache.close()
    with timed("resumed fetch of the half"):
        file = await new_cache(folder / "half", images).fetch(facts)
    with file.open("rb") as fetched:
        if hashlib.file_digest(fetched, "sha256").digest() != hashlib.sha256(data).digest():
            raise SystemExit("what was fetched is not what was uploaded")
    with timed("delete"):
        await one.service.delete(WHO, made.id)
    for name in ("cold", "half"):
        shutil.rmtree(folder / name)
    return took


def new_cache(folder: Path, images: Images) -> ImageCache:
    return ImageCache(CacheSettings(folder=folder), images, as_it_is, set)


def run(options: dict[str, Any], mb: int, rounds: int, folder: Path) -> dict[str, Any]:
    """One store, in a process of its own."""
    return asyncio.run(measure(options, os.urandom(mb * MB), rounds, folder))


async def measure(options: dict[str, Any], data: bytes, rounds: int, folder: Path) -> dict[str, Any]:
    url = f"sqlite:///{folder}/nacre.db"
    migrations.upgrade(url)
    db = Database(url)
    one, two = (Control(name, folder, db, options) for name in ("one", "two"))
    node = ZmqTransport(Peer("host", "node"), new_keys())
    for each in (one, two):
        await each.transport.start()
        await each.cleanup.start()
    join(one.transport, "control", two)
    join(two.transport, "control", one)
    join(node, "control", two)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        images = stub(Images, node.client(TARGET).prepare(server="two"))
        found = [await one_round(one, images, data, folder) for _ in range(rounds)]
    finally:
        for transport in (node, one.transport, two.transport):
            await transport.close()
        await db.close()
    best = {name: min(each[name] for each in found) for name in found[0]}
    size = {"upload": len(data), "fetch": len(data), "resumed fetch of the half": len(data) // 2}
    return {**{f"{name}_mb_per_s": round(size[name] / MB / best[name], 1) for name in size},
            "delete_ms": round(best["delete"] * 1000, 1),
            "memory_mb": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mb", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--stores", default="file,shared,s3")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    result: dict[str, Any] = {"machine": f"{platform.machine()}, {os.cpu_count()} cores", "image_mb": args.mb,
                              "load": os.getloadavg()[0]}
    for name in args.stores.split(","):
        with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
            options: dict[str, Any] = {"folder": "", "s3": {}}
            if name == "shared":
                options["folder"] = tempfile.mkdtemp(dir=folder)
            if name == "s3":
                options["s3"] = bucket(stack.enter_context(s3_server()))
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                result[name] = pool.apply(run, (options, args.mb, args.rounds, Path(folder)))
    text = json.dumps(result, indent=1)
    print(text)
    if args.json:
        args.json.write_text(text)


if __name__ == "__main__":
    main()
