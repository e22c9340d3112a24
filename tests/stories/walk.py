"""What runs of ours for one create: from `POST /servers` with a port until the server is ACTIVE, in one process, with a
simulated guest."""

import ast
import asyncio
import re
import sys
import tempfile
import threading
from pathlib import Path
from types import FrameType
from typing import Any

from tests.stories.whole_cloud import WholeCloud, whole_cloud

import nacre

ROOT = Path(nacre.__file__).parent
#: Creates that are watched.
TIMES = 7
HEAD = """# The walk of one create

Every module of Nacre that runs between `POST /servers` (an image, a network) and the server's first ACTIVE, with a
simulated guest and all services in one process: {modules} modules, {lines} lines, in the order in which they are first
met.
Measured, and written anew by `python -m tests.stories.walk > docs/walks/create.md`; held by
`tests/stories/test_walk.py`.

| module | lines | what it is |
|---|---|---|
"""


class Profile:
    """The files of ours whose functions are called while it is on, in the order of their first call."""

    def __init__(self) -> None:
        self.files: dict[str, None] = {}

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and (name := frame.f_code.co_filename).startswith(str(ROOT)):
            self.files.setdefault(name)

    def __enter__(self) -> "Profile":
        threading.setprofile(self)
        sys.setprofile(self)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]


async def create(cloud: WholeCloud, name: str, ids: dict[str, str]) -> None:
    """One server with a port, until ACTIVE."""
    made = await cloud.ask("demo", "POST", "compute", "/servers", {"server": {
        "name": name, "flavorRef": ids["flavor"], "imageRef": ids["image"], "networks": [{"uuid": ids["network"]}]}})
    assert made.status_code == 202, made.text
    server = made.json()["server"]["id"]
    while (seen := await shown(cloud, server))["status"] == "BUILD":
        await asyncio.sleep(0.01)
    assert seen["status"] == "ACTIVE", seen


async def shown(cloud: WholeCloud, server: str) -> dict[str, Any]:
    answer = await cloud.ask("demo", "GET", "compute", f"/servers/{server}")
    return dict(answer.json()["server"])


async def prepared(cloud: WholeCloud) -> dict[str, str]:
    """A network with a subnet, an image, a flavor, and a token: what a user has before."""
    net = (await cloud.ask("demo", "POST", "network", "/networks", {"network": {"name": "n"}})).json()["network"]["id"]
    await cloud.ask("demo", "POST", "network", "/subnets",
                    {"subnet": {"network_id": net, "ip_version": 4, "cidr": "10.9.0.0/24"}})
    image = (await cloud.ask("demo", "POST", "image", "/images", {
        "name": "i", "disk_format": "raw", "container_format": "bare"})).json()["id"]
    await cloud.http.put(f"/image/v2/images/{image}/file", content=b"\0" * 1024, headers={
        "X-Auth-Token": await cloud.token("demo"), "Content-Type": "application/octet-stream"})
    while not (await cloud.ask("admin", "GET", "compute", "/os-hypervisors")).json()["hypervisors"]:
        await asyncio.sleep(0.01)
    flavors = (await cloud.ask("demo", "GET", "compute", "/flavors")).json()["flavors"]
    return {"network": net, "image": image, "flavor": flavors[0]["id"]}


async def walk(folder: Path) -> tuple[dict[Path, int], set[Path]]:
    """In how many of `TIMES` creates each module ran, in the order in which they are first met; and those that run
    while nothing is asked, which may fall into any create."""
    seen: dict[str, int] = {}
    async with whole_cloud(folder) as cloud:
        ids = await prepared(cloud)
        await create(cloud, "warm", ids)  # what is read once in a process's life is no stop of the walk
        with Profile() as idle:
            await asyncio.sleep(1.5)
        for n in range(TIMES):
            with Profile() as profile:
                await create(cloud, f"s{n}", ids)
            for file in profile.files:
                seen[file] = seen.get(file, 0) + 1
    return ({Path(f).relative_to(ROOT): n for f, n in seen.items()}, {Path(f).relative_to(ROOT) for f in idle.files})


def usual(seen: dict[Path, int]) -> list[Path]:
    """The modules of most creates."""
    return [m for m, n in seen.items() if 2 * n > TIMES]


def page(modules: list[Path]) -> str:
    """`docs/walks/create.md`: the stops in the order in which they are first met, each with its first words."""
    lines = [(ROOT / m).read_text() for m in modules]
    stops = []
    for module, text in zip(modules, lines, strict=True):
        words = " ".join((ast.get_docstring(ast.parse(text)) or "").split())
        stops.append(f"| `{module}` | {len(text.splitlines())} | {re.split(r'(?<=[.]) ', words)[0]} |")
    return HEAD.format(modules=len(modules), lines=sum(len(t.splitlines()) for t in lines)) + "\n".join(stops) + "\n"


def stops(page: str) -> set[str]:
    """The modules that a page names."""
    return set(re.findall(r"^\| `(\S+\.py)` \|", page, re.M))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        sys.stdout.write(page(usual(asyncio.run(walk(Path(folder)))[0])))
